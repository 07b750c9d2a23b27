"""The steps that bring a state file from one format to the next. All functions block."""

import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator
from typing import Any

from exporter.storage import generation, rows, scopes
from exporter.storage.rows import damaged, key_of, verified
from exporter.storage.scopes import Scope, StateKey

log = logging.getLogger(__name__)

_UNIFIED = "unified:"
"""Prefix of a workspace in ``horizon``: whether its baseline has fine-tuning jobs (1)."""

PROGRESS_SECONDS = 5.0
"""How often a step that takes long says how far it is."""


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
    scopes.create(connection)
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
        key = StateKey(region, project_id)
        scopes.write(connection, Scope(number, key, workspace, newest, unified))
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


def _with_progress(what: str, found: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Read the rows of an old table, the last column of which is their number."""
    due = time.monotonic() + PROGRESS_SECONDS
    for number, (*row, total) in enumerate(found, 1):
        yield tuple(row)
        if time.monotonic() >= due:
            due = time.monotonic() + PROGRESS_SECONDS
            log.info("migrating the state file: %d of %d %s", number, total, what)
