"""How many jobs there are: by group, and by the hour of their create time. All functions block.

The counts are changed in the transaction that changes the rows, from what the rows say, so they
always agree with them. They are few: nothing has to read all jobs to know how many there are.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from exporter.jobs.job import Job
from exporter.jobs.tracked import Group
from exporter.storage.damage import DamagedFileError
from exporter.storage.rows import checksum, damaged
from exporter.storage.scopes import Scope

HOUR = 3600.0
NO_HOUR = -1
"""The hour of jobs without a create time."""

_GROUP = "id, scope, pool, flavor_type, user, phase, number"

# So many hours are summed up that their checksums are verified in SQL. One flipped bit, or zeros
# instead of numbers, always change the value.
_CHECKSUM = "((number * 2654435761 + hour * 40503 + scope * 97 + 1) & 4294967295)"
_WRONG = f"total(checksum != {_CHECKSUM})"


def create(connection: sqlite3.Connection) -> None:
    """Create the tables."""
    connection.execute(
        "CREATE TABLE job_group ("
        " id INTEGER PRIMARY KEY, scope INTEGER NOT NULL, pool TEXT NOT NULL,"
        " flavor_type TEXT NOT NULL, user TEXT NOT NULL, phase TEXT NOT NULL,"
        " number INTEGER NOT NULL, checksum INTEGER NOT NULL,"
        " UNIQUE (scope, pool, flavor_type, user, phase))"
    )
    connection.execute(
        "CREATE TABLE hour ("
        " scope INTEGER NOT NULL, hour INTEGER NOT NULL, number INTEGER NOT NULL,"
        " checksum INTEGER NOT NULL, PRIMARY KEY (scope, hour)) WITHOUT ROWID"
    )


def hour_of(created: float | None) -> int:
    """The hour of a create time, since 1970."""
    return NO_HOUR if created is None else int(created // HOUR)


class Counting:
    """Counts jobs while they are written. The counts are saved by `save`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._ids: dict[tuple[int, str, str, str, str], int] = {}
        self._groups: Counter[int] = Counter()
        self._hours: Counter[tuple[int, int]] = Counter()

    def group(self, scope: int, job: Job) -> int:
        """The ID of the group that a job belongs to; it is added if it is missing."""
        labels = scope, job.pool, job.flavor_type, job.user, job.phase
        if (group := self._ids.get(labels)) is None:
            group = self._ids[labels] = self._find(labels) or self._add(labels)
        return group

    def add(self, number: int, scope: int, group: int, created: float | None) -> None:
        """Count jobs of a group and a create time; -1 = one less."""
        self._groups[group] += number
        self._hours[scope, hour_of(created)] += number

    def save(self) -> None:
        """Change the counts in the tables."""
        for group, change in self._groups.items():
            self._save_group(group, change)
        for (scope, hour), change in self._hours.items():
            if change:
                self._save_hour(scope, hour, change)

    def _find(self, labels: tuple[int, str, str, str, str]) -> int | None:
        query = (
            f"SELECT {_GROUP}, checksum FROM job_group WHERE scope = ? AND pool = ?"
            " AND flavor_type = ? AND user = ? AND phase = ?"
        )
        found = self._connection.execute(query, labels).fetchone()
        return None if found is None else int(_verified(found)[0])

    def _add(self, labels: tuple[int, str, str, str, str]) -> int:
        (last,) = self._connection.execute("SELECT ifnull(max(id), 0) FROM job_group").fetchone()
        group = int(last) + 1
        row = (group, *labels, 0)
        self._connection.execute(
            f"INSERT INTO job_group ({_GROUP}, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, checksum(row)),
        )
        return group

    def _save_group(self, group: int, change: int) -> None:
        query = f"SELECT {_GROUP}, checksum FROM job_group WHERE id = ?"
        found = self._connection.execute(query, (group,)).fetchone()
        if found is None:
            raise DamagedFileError("is damaged (a group of jobs is missing)")
        *labels, before = _verified(found)
        number = before + change
        if number < 0:
            raise DamagedFileError("is damaged (a group has more jobs than it counts)")
        if not number:
            self._connection.execute("DELETE FROM job_group WHERE id = ?", (group,))
            return
        self._connection.execute(
            "UPDATE job_group SET number = ?, checksum = ? WHERE id = ?",
            (number, checksum((*labels, number)), group),
        )

    def _save_hour(self, scope: int, hour: int, change: int) -> None:
        sums = _sums(self._connection, "scope = ? AND hour = ?", (scope, hour))
        if sums + change < 0:
            raise DamagedFileError("is damaged (an hour has more jobs than it counts)")
        if not sums + change:
            parameters = scope, hour
            self._connection.execute("DELETE FROM hour WHERE scope = ? AND hour = ?", parameters)
            return
        self._connection.execute(
            "INSERT OR REPLACE INTO hour SELECT scope, hour, number,"
            f" {_CHECKSUM} FROM (SELECT ? AS scope, ? AS hour, ? AS number)",
            (scope, hour, sums + change),
        )


def groups_of(
    connection: sqlite3.Connection, scopes: Mapping[int, Scope]
) -> Iterator[tuple[int, Group, int]]:
    """The groups of some scopes: their ID, their labels, and how many jobs they have."""
    for scope in scopes.values():
        query = f"SELECT {_GROUP}, checksum FROM job_group WHERE scope = ?"
        for row in connection.execute(query, (scope.id,)).fetchall():
            group, _, *labels, number = _verified(row)
            yield group, Group(scope.workspace, *labels), number


def group_at(connection: sqlite3.Connection, scope: Scope, group: int) -> Group:
    """The labels of a group of a scope."""
    query = f"SELECT {_GROUP}, checksum FROM job_group WHERE id = ?"
    _, _, *labels, _ = _verified(connection.execute(query, (group,)).fetchone())
    return Group(scope.workspace, *labels)


def count(connection: sqlite3.Connection, scope: int) -> tuple[int, int]:
    """How many jobs a scope has, and how many of them have no create time.

    Raises:
        DamagedFileError: groups and hours do not agree.
    """
    all_jobs = _sums(connection, "scope = ?", (scope,))
    query = f"SELECT {_GROUP}, checksum FROM job_group WHERE scope = ?"
    groups = connection.execute(query, (scope,)).fetchall()
    if sum(_verified(row)[-1] for row in groups) != all_jobs:
        raise DamagedFileError("is damaged (the numbers of jobs do not agree)")
    return all_jobs, _sums(connection, "scope = ? AND hour = ?", (scope, NO_HOUR))


def count_from(connection: sqlite3.Connection, scope: int, hour: int) -> int:
    """How many jobs of a scope were created in an hour or later."""
    return _sums(connection, "scope = ? AND hour >= ?", (scope, hour))


def next_group(connection: sqlite3.Connection, group: int) -> tuple[int, int] | None:
    """The group with the next ID, and how many jobs it has."""
    query = f"SELECT {_GROUP}, checksum FROM job_group WHERE id > ? ORDER BY id LIMIT 1"
    if (found := connection.execute(query, (group,)).fetchone()) is None:
        return None
    row = _verified(found)
    return row[0], row[-1]


def next_hour(connection: sqlite3.Connection, scope: int, hour: int) -> tuple[int, int, int] | None:
    """The hour after one, of the same scope or the next: scope, hour, and its number of jobs."""
    query = (
        f"SELECT scope, hour, number, checksum != {_CHECKSUM} FROM hour"
        " WHERE (scope, hour) > (?, ?) ORDER BY scope, hour LIMIT 1"
    )
    if (found := connection.execute(query, (scope, hour)).fetchone()) is None:
        return None
    if found[3]:
        raise damaged("hour", str(hour), "wrong checksum")
    return found[0], found[1], found[2]


def hours_of(connection: sqlite3.Connection, scope: int) -> Iterator[tuple[int, int]]:
    """The hours of a scope, newest first, and how many jobs were created in them."""
    query = (
        f"SELECT hour, number, checksum != {_CHECKSUM} FROM hour WHERE scope = ? AND hour != ?"
        " ORDER BY hour DESC"
    )
    for hour, number, wrong in connection.execute(query, (scope, NO_HOUR)):
        if wrong:
            raise damaged("hour", str(hour), "wrong checksum")
        yield hour, number


def _sums(connection: sqlite3.Connection, where: str, parameters: tuple[int, ...]) -> int:
    """The sum of some hours; all are verified."""
    query = f"SELECT ifnull(sum(number), 0), {_WRONG} FROM hour WHERE {where}"
    number, wrong = connection.execute(query, parameters).fetchone()
    if wrong:
        raise damaged("hour", where, "wrong checksum")
    return int(number)


def _verified(row: tuple[Any, ...]) -> tuple[Any, ...]:
    *values, found = row
    if found != checksum(values):
        raise damaged("group", str(values[2]), "wrong checksum")
    return tuple(values)
