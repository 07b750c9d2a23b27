"""The check of every row of the state file, in small steps. All functions block.

A row that is lost would count as new when its job is seen next, or make a counter start again. What
a poll reads it verifies itself; this finds what no poll reads. Commits may happen between two
steps: each of them compares what must agree at any time.

For jobs, which are many, a correct checksum is enough: the row was written whole, by us. Free pages
are not checked here, but when a file is opened that was not closed in order.
"""

import sqlite3
from collections.abc import Iterator

from exporter.storage import counts, generation, jobs, scopes, tables
from exporter.storage.damage import DamagedFileError, check_table
from exporter.storage.rows import damaged

_SMALL_TABLES = ("scope", "series", "activity", "pool", "job_group", "hour")
_ROWS = 500
"""Rows of a step."""
_ENTRIES = 5000
"""Entries of an index that are counted in a step."""
_SEEK = 10
"""What finding the first of them costs, as a number of entries."""


def check(connection: sqlite3.Connection) -> Iterator[None]:
    """Check everything; each step takes some milliseconds. The first one is for what a start reads.

    Raises:
        DamagedFileError: something is not as it should be.
    """
    generation.read(connection)
    for table in _SMALL_TABLES:
        check_table(connection, table)
    for scope in scopes.all_ids(connection):
        counts.count(connection, scope)
    tables.read_activity(connection, ())
    tables.read_pools(connection)
    yield
    yield from _series(connection)
    yield from _jobs(connection)
    yield from _groups(connection)
    yield from _hours(connection)


def _series(connection: sqlite3.Connection) -> Iterator[None]:
    query = (
        "SELECT rowid, scope, family, labels, series, released,"
        " EXISTS (SELECT 1 FROM scope WHERE scope.id = series.scope)"
        " FROM series WHERE rowid > ? ORDER BY rowid LIMIT ?"
    )
    last = 0
    while found := connection.execute(query, (last, _ROWS)).fetchall():
        for last, *row, has_scope in found:  # noqa: B007 - the last one is where to go on
            tables.entry(*row)
            if not has_scope:
                raise damaged("series", row[1], "its workspace is missing")
        yield


_JOBS = f"""
    SELECT {jobs.COLUMNS},
        EXISTS (SELECT 1 FROM job AS i INDEXED BY job_by_id
            WHERE i.id = j.id AND i.scope = j.scope AND i.rowid = j.rowid)
        AND EXISTS (SELECT 1 FROM job AS i INDEXED BY job_by_group
            WHERE i.job_group = j.job_group AND i.ended IS j.ended AND i.rowid = j.rowid)
        AND EXISTS (SELECT 1 FROM job AS i INDEXED BY job_by_created
            WHERE i.scope = j.scope AND i.created IS j.created AND i.rowid = j.rowid),
        EXISTS (SELECT 1 FROM scope AS s WHERE s.id = j.scope)
    FROM job AS j NOT INDEXED WHERE rowid > ? ORDER BY rowid LIMIT ?
"""


def _jobs(connection: sqlite3.Connection) -> Iterator[None]:
    """Each job is in all indexes."""
    last = 0
    while found := connection.execute(_JOBS, (last, _ROWS)).fetchall():
        for *columns, in_indexes, has_scope in found:
            row = jobs.Row._make(columns)
            jobs.verify(row)
            if not has_scope:
                raise damaged("job", row.id, "its workspace is missing")
            if not in_indexes:
                raise damaged("job", row.id, "it is missing in an index")
        last = row.rowid or last
        yield


def _groups(connection: sqlite3.Connection) -> Iterator[None]:
    """Each group has as many jobs as it counts."""
    query = "SELECT count(*) FROM job INDEXED BY job_by_group WHERE job_group = ?"
    group, seen = 0, 0
    while found := counts.next_group(connection, group):
        group, number = found
        if connection.execute(query, (group,)).fetchone() != (number,):
            raise DamagedFileError("is damaged (a group does not have the jobs that it counts)")
        seen += number + _SEEK
        if seen > _ENTRIES:
            seen = 0
            yield


def _hours(connection: sqlite3.Connection) -> Iterator[None]:
    """Each hour has as many jobs as it counts, and all of them have a row."""
    query = (
        # The length makes SQLite visit the rows: one that is missing is an error.
        "SELECT count(*), max(length(known)) FROM job INDEXED BY job_by_created WHERE scope = ?"
    )
    scope, hour, seen = 0, counts.NO_HOUR - 1, 0
    while found := counts.next_hour(connection, scope, hour):
        scope, hour, number = found
        if hour == counts.NO_HOUR:
            (listed, _) = connection.execute(f"{query} AND created IS NULL", (scope,)).fetchone()
        else:
            period = scope, hour * counts.HOUR, (hour + 1) * counts.HOUR
            (listed, _) = connection.execute(
                f"{query} AND created >= ? AND created < ?", period
            ).fetchone()
        if listed != number:
            raise DamagedFileError("is damaged (an hour does not have the jobs that it counts)")
        seen += number + _SEEK
        if seen > _ENTRIES:
            seen = 0
            yield
