"""The steps that bring a state file from one format to the next. All functions block."""

import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator
from typing import Any

from exporter.storage import counts, generation, jobs, rows, scopes, tables
from exporter.storage.counts import Counting
from exporter.storage.rows import checksum, damaged, key_of, verified
from exporter.storage.scopes import Scope, StateKey

log = logging.getLogger(__name__)

_UNNAMED = (scopes.UNKNOWN, scopes.UNKNOWN)
"""Name and endpoint of a target in files of format 1."""
_UNIFIED = "unified:"
"""Prefix of a workspace in ``horizon``: whether its baseline has fine-tuning jobs (1)."""

PROGRESS_SECONDS = 5.0
"""How often a step that takes long says how far it is."""

_JOBS_OF_2 = "SELECT scope, id, known, (SELECT count(*) FROM old_job) FROM old_job"
_JOBS = "SELECT target, workspace, id, known, (SELECT count(*) FROM old_job) FROM old_job"
_SERIES = (
    "SELECT target, workspace, family, labels, series, released,"
    " (SELECT count(*) FROM old_series) FROM old_series"
)


def create_first(connection: sqlite3.Connection) -> None:
    """Create the tables of format 1."""
    connection.execute(
        "CREATE TABLE job ("
        " target TEXT NOT NULL, workspace TEXT NOT NULL, id TEXT NOT NULL, known BLOB NOT NULL,"
        " UNIQUE (target, id))"
    )
    connection.execute(
        "CREATE TABLE horizon ("
        " target TEXT NOT NULL, workspace TEXT NOT NULL, newest REAL,"  # NULL = no job was listed
        " UNIQUE (target, workspace))"
    )
    connection.execute(
        "CREATE TABLE series ("
        " target TEXT NOT NULL, workspace TEXT NOT NULL, family TEXT NOT NULL,"
        " labels BLOB NOT NULL, series BLOB NOT NULL, released INTEGER NOT NULL DEFAULT 0,"
        " UNIQUE (target, family, labels))"
    )


def to_scopes(connection: sqlite3.Connection) -> None:
    """From format 1 to 2: rows of a scope instead of a project, and checksums for all of them.

    In format 1, the state of a target was named ``REGION/PROJECT_ID``. The name and the endpoint
    are unknown until a target of the project loads it (`exporter.polling.inheritance`).
    """
    connection.execute("ALTER TABLE job RENAME TO old_job")
    connection.execute("ALTER TABLE series RENAME TO old_series")
    connection.execute(
        "CREATE TABLE scope ("
        " id INTEGER PRIMARY KEY, region TEXT NOT NULL, project TEXT NOT NULL, name TEXT NOT NULL,"
        " endpoint TEXT NOT NULL, workspace TEXT NOT NULL, newest REAL, unified INTEGER NOT NULL,"
        " checksum INTEGER NOT NULL,"
        " UNIQUE (region, project, name, endpoint, workspace))"
    )
    connection.execute(
        "CREATE TABLE job ("
        " scope INTEGER NOT NULL, id TEXT NOT NULL, known BLOB NOT NULL, UNIQUE (id, scope))"
    )
    connection.execute(
        "CREATE TABLE series ("
        " scope INTEGER NOT NULL, family TEXT NOT NULL, labels BLOB NOT NULL,"
        " series BLOB NOT NULL, released INTEGER NOT NULL, UNIQUE (scope, family, labels))"
    )
    connection.execute(
        "CREATE TABLE activity ("
        " scope INTEGER NOT NULL, labels BLOB NOT NULL, at REAL NOT NULL,"
        " checksum INTEGER NOT NULL, UNIQUE (scope, labels))"
    )
    generation.create(connection, 2)
    ids = _scopes_from_1(connection)
    connection.executemany("INSERT INTO job VALUES (?, ?, ?)", _jobs_from_1(connection, ids))
    connection.executemany(
        "INSERT INTO series VALUES (?, ?, ?, ?, ?)", _series_from_1(connection, ids)
    )
    for table in ("old_job", "old_series", "horizon"):
        connection.execute(f"DROP TABLE {table}")


def _scopes_from_1(connection: sqlite3.Connection) -> dict[tuple[str, str], int]:
    """Create a scope for each target and workspace. Return their IDs."""
    horizon: dict[tuple[str, str], Any] = {}
    for target, workspace, newest in connection.execute("SELECT * FROM horizon"):
        if newest is not None and not isinstance(newest, float):
            raise damaged("horizon", workspace, "not a number")
        horizon[target, workspace] = float("-inf") if newest is None else newest
    everywhere = connection.execute(
        "SELECT target, workspace FROM horizon UNION SELECT target, workspace FROM old_job"
        " UNION SELECT target, workspace FROM old_series"
    ).fetchall()
    ids = {}
    for number, (target, workspace) in enumerate(sorted(everywhere), 1):
        if workspace.startswith(_UNIFIED):
            continue
        region, _, project_id = target.partition("/")
        newest = horizon.get((target, workspace))
        unified = horizon.get((target, _UNIFIED + workspace)) == 1
        values = (number, region, project_id, *_UNNAMED, workspace, newest, int(unified))
        connection.execute(
            "INSERT INTO scope VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*values, checksum(values))
        )
        ids[target, workspace] = number
    return ids


def _jobs_from_1(
    connection: sqlite3.Connection, ids: dict[tuple[str, str], int]
) -> Iterator[tuple[Any, ...]]:
    for target, workspace, job_id, blob in _with_progress("jobs", connection.execute(_JOBS)):
        try:
            encoded = verified(blob, key_of(target, workspace, job_id))
        except rows.UNREADABLE as error:
            raise damaged("job", job_id, error) from error
        scope = ids[target, workspace]
        yield scope, job_id, rows.sealed(encoded, key_of(scope, job_id))


def _series_from_1(
    connection: sqlite3.Connection, ids: dict[tuple[str, str], int]
) -> Iterator[tuple[Any, ...]]:
    found = _with_progress("series", connection.execute(_SERIES))
    for target, workspace, family, labels, blob, released in found:
        try:
            encoded = verified(blob, key_of(target, workspace, family) + labels)
        except rows.UNREADABLE as error:
            raise damaged("series", family, error) from error
        scope = ids[target, workspace]
        row = key_of(scope, family) + labels
        mark = rows.released_mark(row, released=bool(released))
        yield scope, family, labels, rows.sealed(encoded, row), mark


def to_groups(connection: sqlite3.Connection) -> None:
    """From format 2 to 3: columns and counts, so that nothing has to read all jobs."""
    connection.execute("ALTER TABLE job RENAME TO old_job")
    connection.execute("ALTER TABLE scope RENAME TO old_scope")
    scopes.create(connection)
    jobs.create(connection)
    counts.create(connection)
    tables.create_pools(connection)
    generation.migrate(connection, 3)
    keys = _scopes_from_2(connection)
    names: dict[StateKey, dict[str, tuple[float, str]]] = {}
    counting = Counting(connection)
    jobs.insert(connection, _jobs_from_2(connection, counting, keys, names))
    counting.save()
    for key, pools in names.items():
        tables.write_pools(connection, key, pools)
    for table in ("old_job", "old_scope"):
        connection.execute(f"DROP TABLE {table}")
    jobs.create_indexes(connection)


def _scopes_from_2(connection: sqlite3.Connection) -> dict[int, StateKey]:
    """Copy the scopes. Return the targets that they belong to."""
    keys = {}
    for *values, found in connection.execute("SELECT * FROM old_scope").fetchall():
        if found != checksum(values):
            raise damaged("scope", str(values[5]), "wrong checksum")
        scope_id, *key, workspace, newest, unified = values
        keys[scope_id] = StateKey(*key)
        scopes.write(connection, Scope(scope_id, keys[scope_id], workspace, newest, bool(unified)))
    return keys


def _jobs_from_2(
    connection: sqlite3.Connection,
    counting: Counting,
    keys: dict[int, StateKey],
    names: dict[StateKey, dict[str, tuple[float, str]]],
) -> Iterator[jobs.Row]:
    """The rows of all jobs. Counts them, and notes the names that they have for their pools."""
    for scope, job_id, blob in _with_progress("jobs", connection.execute(_JOBS_OF_2)):
        try:
            known = rows.decode_job(verified(blob, key_of(scope, job_id)))
        except rows.UNREADABLE as error:
            raise damaged("job", job_id, error) from error
        if scope not in keys:
            raise damaged("job", job_id, "its workspace is missing")
        row = jobs.encode(scope, job_id, counting.group(scope, known.job), known)
        counting.add(1, scope, row.group, row.created)
        if known.job.pool_name:
            pools = names.setdefault(keys[scope], {})
            name = known.job.created or 0.0, known.job.pool_name
            pools[known.job.pool] = max(name, pools.get(known.job.pool, name))
        yield row


def _with_progress(what: str, found: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Read the rows of an old table, the last column of which is their number."""
    due = time.monotonic() + PROGRESS_SECONDS
    for number, (*row, total) in enumerate(found, 1):
        yield tuple(row)
        if time.monotonic() >= due:
            due = time.monotonic() + PROGRESS_SECONDS
            log.info("migrating the state file: %d of %d %s", number, total, what)
