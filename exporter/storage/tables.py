"""The other tables of the state file: series, activity and names of pools. All functions block.

Rows belong to a scope, a workspace of a target (`exporter.storage.scopes`), so that what is not
asked for now can wait. Structs are msgpack arrays with a checksum, so fields are stored by
position. `TrackedJob`, `Series` and the structs in them may get a new field at the end with a
default, without a migration: older rows decode with the default. An older version ignores the
field, and drops its value from rows that it rewrites. Any other change to them (order, types,
fields of the named tuples in them) needs a new version in `LAYOUT`, with a step that rewrites the
rows.
"""

import logging
import sqlite3
from collections.abc import Collection, Mapping
from typing import Any

from exporter.jobs.tracked import Base
from exporter.metrics.counters import (
    BASE,
    EVENT_FAMILY_BY_NAME,
    USER_FAMILIES,
    Series,
    SeriesKey,
)
from exporter.storage import rows
from exporter.storage.rows import damaged, key_of, verified
from exporter.storage.scopes import IDS, StateKey, TargetScopes

log = logging.getLogger(__name__)

# --- Series ---------------------------------------------------------------------------------------


def write_series(
    connection: sqlite3.Connection, scopes: TargetScopes, ledger: Mapping[SeriesKey, Series]
) -> None:
    """Insert or update series. Released ones stay released."""
    connection.executemany(
        "INSERT INTO series (scope, family, labels, series, released) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (scope, family, labels) DO UPDATE SET series = excluded.series",
        (
            (scope, name, labels, rows.pack(series, row), rows.released_mark(row, released=False))
            for (name, values), series in ledger.items()
            for scope, labels in [(scopes.of(values[0]).id, rows.encode(values))]
            for row in [key_of(scope, name) + labels]
        ),
    )


def release_series(
    connection: sqlite3.Connection, scopes: TargetScopes, series: Collection[SeriesKey]
) -> None:
    """Mark series as released.

    Raises:
        LookupError: one has no row, and would be shown as zero again after a restart.
    """
    done = connection.executemany(
        "UPDATE series SET released = ? WHERE scope = ? AND family = ? AND labels = ?",
        (
            (rows.released_mark(key_of(scope, name) + labels, released=True), scope, name, labels)
            for name, values in series
            for scope, labels in [(scopes.of(values[0]).id, rows.encode(values))]
        ),
    )
    if series and done.rowcount < len(series):
        raise LookupError("a series was released that was never committed")


def read_series(
    connection: sqlite3.Connection, key: StateKey, ours: Collection[int]
) -> tuple[dict[SeriesKey, Series], frozenset[SeriesKey]]:
    """The series of some scopes of a target, and which of them are released.

    Those by user are read of all its scopes: they are shown as sums over workspaces, and would fall
    without those of a workspace that is not polled any more.
    Series of other versions of the exporter, with another family or shape, are left alone.
    """
    found = connection.execute(
        f"SELECT scope, family, labels, series, released FROM series WHERE scope IN {IDS}", key
    )
    ledger: dict[SeriesKey, Series] = {}
    released = set()
    unused = 0
    for row in found:
        if row[0] not in ours and row[1] not in USER_FAMILIES:
            continue
        decoded = entry(*row)
        if decoded is None:
            unused += 1
            continue
        series_key, ledger[series_key], is_released = decoded
        if is_released:
            released.add(series_key)
    if unused:
        log.info("%d series in the state file are of another version and are not used", unused)
    return ledger, frozenset(released)


def entry(
    scope: int, family: str, labels: Any, blob: Any, mark: Any
) -> tuple[SeriesKey, Series, bool] | None:
    """A decoded row: its key, the series, and whether it is released; None = another version's."""
    try:
        row = key_of(scope, family) + labels
        encoded, is_released = verified(blob, row), rows.is_released(mark, row)
        if (definition := EVENT_FAMILY_BY_NAME.get(family)) is None:
            return None
        series, values = rows.decode_series(encoded), rows.decode_labels(labels)
    except rows.UNREADABLE as error:
        raise damaged("series", family, error) from error
    buckets = len(definition.buckets) + 1 if definition.buckets else 0
    if len(values) != len(definition.key_labels) or len(series.counts) != buckets:
        return None
    return (family, values), series, is_released


# --- When bases were last active ------------------------------------------------------------------


def write_activity(
    connection: sqlite3.Connection, scopes: TargetScopes, last_active: Mapping[Base, float]
) -> None:
    """Save when bases last had a job or an event."""
    connection.executemany(
        "INSERT OR REPLACE INTO activity (scope, labels, at, checksum) VALUES (?, ?, ?, ?)",
        (
            (scope, labels, float(at), rows.checksum((scope, labels, float(at))))
            for base, at in last_active.items()
            for scope, labels in [(scopes.of(base.workspace).id, rows.encode(base))]
        ),
    )


def read_activity(connection: sqlite3.Connection, ours: Collection[int]) -> dict[Base, float]:
    """When the bases of some scopes were last active. All rows are verified."""
    found: dict[Base, float] = {}
    for scope, labels, at, checksum in connection.execute(
        "SELECT scope, labels, at, checksum FROM activity"
    ):
        if checksum != rows.checksum((scope, labels, at)):
            raise damaged("activity", repr(labels), "wrong checksum")
        values = rows.decode_labels(labels)
        if scope in ours and len(values) == len(BASE):
            found[Base(*values)] = at
    return found


# --- Names of pools -------------------------------------------------------------------------------

_POOL_COLUMNS = "region, project, name, endpoint, pool, created, pool_name"


def create_pools(connection: sqlite3.Connection) -> None:
    """Create the table. A pool belongs to a target: jobs of all workspaces may use it."""
    connection.execute(
        "CREATE TABLE pool ("
        " region TEXT NOT NULL, project TEXT NOT NULL, name TEXT NOT NULL, endpoint TEXT NOT NULL,"
        " pool TEXT NOT NULL, created REAL NOT NULL, pool_name TEXT NOT NULL,"
        " checksum INTEGER NOT NULL, PRIMARY KEY (region, project, name, endpoint, pool))"
    )


def write_pools(
    connection: sqlite3.Connection, key: StateKey, names: Mapping[str, tuple[float, str]]
) -> None:
    """Save the names of pools, each with the create time of the job that it is from."""
    connection.executemany(
        f"INSERT OR REPLACE INTO pool ({_POOL_COLUMNS}, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (*row, rows.checksum(row))
            for pool, (created, name) in names.items()
            for row in [(*key, pool, float(created), name)]
        ),
    )


def copy_pools(connection: sqlite3.Connection, old: StateKey, new: StateKey) -> None:
    """Give the names of a target's pools to another target, as far as it has none."""
    write_pools(connection, new, read_pools(connection, old) | read_pools(connection, new))


def read_pools(
    connection: sqlite3.Connection, key: StateKey | None = None
) -> dict[str, tuple[float, str]]:
    """The names of a target's pools; None = verify those of all targets, too."""
    found = {}
    where = "" if key is None else "WHERE region = ? AND project = ? AND name = ? AND endpoint = ?"
    for *row, checksum in connection.execute(
        f"SELECT {_POOL_COLUMNS}, checksum FROM pool {where}", key or ()
    ):
        if checksum != rows.checksum(row):
            raise damaged("pool", str(row[4]), "wrong checksum")
        found[row[4]] = row[5], row[6]
    return found
