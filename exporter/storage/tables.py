"""The tables of the state file, and how rows are encoded. All functions block.

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
from collections import deque
from collections.abc import Callable, Collection, Mapping
from itertools import repeat
from operator import attrgetter
from typing import Any

import msgspec

from exporter.jobs.job import Fault, Job, Run
from exporter.jobs.tracked import Base, TrackedJob
from exporter.metrics.counters import BASE, EVENT_FAMILY_BY_NAME, Series, SeriesKey
from exporter.storage import generation, migrations, rows, scopes
from exporter.storage.rows import damaged, key_of, verified
from exporter.storage.scopes import StateKey
from exporter.storage.sqlite import Layout

log = logging.getLogger(__name__)

_set = msgspec.structs.force_setattr


class _Scopes:
    """The scopes of a target while it is written; missing ones are added."""

    def __init__(self, connection: sqlite3.Connection, key: StateKey) -> None:
        self._connection = connection
        self._key = key
        self._scopes = scopes.scopes_of(connection, key)

    def id_of(self, workspace: str) -> int:
        if (scope := self._scopes.get(workspace)) is None:
            scope = self._scopes[workspace] = scopes.add(self._connection, self._key, workspace)
        return scope.id

    def __len__(self) -> int:
        return len(self._scopes)


# --- Jobs -----------------------------------------------------------------------------------------


def write_jobs(
    connection: sqlite3.Connection, key: StateKey, jobs: Mapping[str, TrackedJob]
) -> None:
    """Insert or update jobs."""
    if not jobs:
        return
    ours = _Scopes(connection, key)
    ids = {name: ours.id_of(name) for name in {known.job.workspace for known in jobs.values()}}
    if len(ours) > 1:  # a job may have moved from another workspace
        connection.executemany(
            "DELETE FROM job WHERE id = ? AND scope != ? AND scope IN (SELECT id FROM scope"
            " WHERE region = ? AND project = ? AND name = ? AND endpoint = ?)",
            ((job_id, ids[known.job.workspace], *key) for job_id, known in jobs.items()),
        )
    connection.executemany(
        "INSERT INTO job (scope, id, known) VALUES (?, ?, ?)"
        " ON CONFLICT (id, scope) DO UPDATE SET known = excluded.known",
        (
            (scope, job_id, rows.pack(known, key_of(scope, job_id)))
            for job_id, known in jobs.items()
            for scope in [ids[known.job.workspace]]
        ),
    )


def forget_jobs(connection: sqlite3.Connection, key: StateKey, ids: Collection[str]) -> None:
    """Delete jobs; IDs without a row are ignored."""
    connection.executemany(
        "DELETE FROM job WHERE id = ? AND scope IN (SELECT id FROM scope"
        " WHERE region = ? AND project = ? AND name = ? AND endpoint = ?)",
        ((job_id, *key) for job_id in ids),
    )


def read_jobs(
    connection: sqlite3.Connection, key: StateKey, ours: Collection[int]
) -> dict[str, TrackedJob]:
    """The jobs of some scopes of a target, by ID."""
    # The + keeps SQLite from using the index: reading in the order of IDs takes twice the time.
    found_rows = connection.execute(
        "SELECT scope, id, known FROM job WHERE +scope IN (SELECT id FROM scope"
        " WHERE region = ? AND project = ? AND name = ? AND endpoint = ?)",
        key,
    )
    interner = _Interner()
    found: dict[str, TrackedJob] = {}
    for scope, job_id, blob in found_rows:
        if scope not in ours:
            continue
        try:
            known = rows.decode_job(verified(blob, key_of(scope, job_id)))
        except rows.UNREADABLE as error:
            raise damaged("job", job_id, error) from error
        found[known.job.id] = interner.intern(known)
    return found


_JOB_TEXTS = (
    "user", "workspace", "kind", "phase", "pool", "pool_name", "flavor_type", "flavor",
    "accelerator", "engine", "failed_task", "message", "policy", "algorithm", "runtime_type",
)  # fmt: skip
_RUN_TEXTS = ("start_type", "recovery", "recovery_before", "reason")
_FAULT_TEXTS = ("scenario", "recovery", "result")
_texts_of_job: Callable[[Job], tuple[str, ...]] = attrgetter(*_JOB_TEXTS)
_texts_of_run: Callable[[Run], tuple[str, ...]] = attrgetter(*_RUN_TEXTS)
_texts_of_fault: Callable[[Fault], tuple[str, ...]] = attrgetter(*_FAULT_TEXTS)


class _Interner:
    """Lets jobs share equal strings, as those decoded from the API do."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._texts: dict[str, str] = {}
        self._bases: dict[Base, Base] = {}

    def intern(self, known: TrackedJob) -> TrackedJob:
        """Share equal strings. Mutates the struct in place: nothing else refers to it yet."""
        job = known.job
        deque(map(_set, repeat(job), _JOB_TEXTS, self._shared(_texts_of_job(job))), 0)
        for run in job.runs or ():
            deque(map(_set, repeat(run), _RUN_TEXTS, self._shared(_texts_of_run(run))), 0)
            for fault in run.faults or ():
                deque(
                    map(_set, repeat(fault), _FAULT_TEXTS, self._shared(_texts_of_fault(fault))), 0
                )
        if known.base is not None:
            _set(known, "base", self._bases.setdefault(known.base, known.base))
        if known.ended == job.ended:
            _set(known, "ended", job.ended)
        if known.run_seconds_counted == job.duration:
            _set(known, "run_seconds_counted", job.duration)
        if known.end_seconds_counted == job.duration:
            _set(known, "end_seconds_counted", job.duration)
        return known

    def _shared(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        """The same objects for equal texts."""
        known = self._groups.get(texts)
        if known is None:
            known = tuple(self._texts.setdefault(text, text) for text in texts)
            self._groups[known] = known
        return known


# --- Series ---------------------------------------------------------------------------------------


def write_series(
    connection: sqlite3.Connection, key: StateKey, ledger: Mapping[SeriesKey, Series]
) -> None:
    """Insert or update series. Released ones stay released."""
    if not ledger:
        return
    ours = _Scopes(connection, key)
    connection.executemany(
        "INSERT INTO series (scope, family, labels, series, released) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (scope, family, labels) DO UPDATE SET series = excluded.series",
        (
            (scope, name, labels, rows.pack(series, row), rows.released_mark(row, released=False))
            for (name, values), series in ledger.items()
            for scope, labels in [(ours.id_of(values[0]), rows.encode(values))]
            for row in [key_of(scope, name) + labels]
        ),
    )


def release_series(
    connection: sqlite3.Connection, key: StateKey, series: Collection[SeriesKey]
) -> None:
    """Mark series as released.

    Raises:
        LookupError: one has no row, and would be shown as zero again after a restart.
    """
    if not series:
        return
    ours = _Scopes(connection, key)
    done = connection.executemany(
        "UPDATE series SET released = ? WHERE scope = ? AND family = ? AND labels = ?",
        (
            (rows.released_mark(key_of(scope, name) + labels, released=True), scope, name, labels)
            for name, values in series
            for scope, labels in [(ours.id_of(values[0]), rows.encode(values))]
        ),
    )
    if done.rowcount < len(series):
        raise LookupError("a series was released that was never committed")


def read_series(
    connection: sqlite3.Connection, key: StateKey, ours: Collection[int]
) -> tuple[dict[SeriesKey, Series], frozenset[SeriesKey]]:
    """The series of some scopes of a target, and which of them are released.

    Series of other versions of the exporter, with another family or shape, are left alone.
    """
    found = connection.execute(
        "SELECT scope, family, labels, series, released FROM series WHERE scope IN (SELECT id"
        " FROM scope WHERE region = ? AND project = ? AND name = ? AND endpoint = ?)",
        key,
    )
    ledger: dict[SeriesKey, Series] = {}
    released = set()
    unused = 0
    for row in found:
        if row[0] not in ours:
            continue
        entry = _entry(*row)
        if entry is None:
            unused += 1
            continue
        series_key, ledger[series_key], is_released = entry
        if is_released:
            released.add(series_key)
    if unused:
        log.info("%d series in the state file are of another version and are not used", unused)
    return ledger, frozenset(released)


def _entry(
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
    if len(values) != len(BASE) + len(definition.labels) or len(series.counts) != buckets:
        return None
    return (family, values), series, is_released


# --- When bases were last active ------------------------------------------------------------------


def write_activity(
    connection: sqlite3.Connection, key: StateKey, last_active: Mapping[Base, float]
) -> None:
    """Save when bases last had a job or an event."""
    if not last_active:
        return
    ours = _Scopes(connection, key)
    connection.executemany(
        "INSERT OR REPLACE INTO activity (scope, labels, at, checksum) VALUES (?, ?, ?, ?)",
        (
            (scope, labels, float(at), rows.checksum((scope, labels, float(at))))
            for base, at in last_active.items()
            for scope, labels in [(ours.id_of(base.workspace), rows.encode(base))]
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


# --- All of it ------------------------------------------------------------------------------------


def _check(connection: sqlite3.Connection) -> None:
    """Every row must be readable: a job that is lost would count as new when it is seen next.

    For jobs, which are many, a correct checksum is enough: the row was written whole, by us.
    """
    generation.read(connection)
    known = scopes.all_ids(connection)
    for scope, job_id, blob in connection.execute("SELECT scope, id, known FROM job"):
        try:
            verified(blob, key_of(scope, job_id))
        except rows.UNREADABLE as error:
            raise damaged("job", job_id, error) from error
        if scope not in known:
            raise damaged("job", job_id, "its workspace is missing")
    for row in connection.execute("SELECT scope, family, labels, series, released FROM series"):
        _entry(*row)
        if row[0] not in known:
            raise damaged("series", row[1], "its workspace is missing")
    read_activity(connection, ())


LAYOUT = Layout(
    application_id=0x4D416578,  # "MAex"
    steps={1: migrations.create_first, 2: migrations.to_scopes},
    check=_check,
)
