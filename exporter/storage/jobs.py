"""The rows of jobs in the state file. All functions block.

A row belongs to a group (`exporter.storage.counts`), which has its phase, and can be found by ID,
by group and end, and by create time. Its checksum covers all of it. An index has no checksum: a
job that it does not find is looked for in another one before it is taken for unknown.
"""

import heapq
import sqlite3
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from exporter.jobs.fleet import MAX_FAILURES
from exporter.jobs.job import FAILED, TERMINAL, Fault, Job, Run
from exporter.jobs.tracked import ALWAYS, Base, Group, TrackedJob
from exporter.storage import counts, rows
from exporter.storage.counts import HOUR, Counting, hour_of
from exporter.storage.damage import DamagedFileError
from exporter.storage.rows import damaged
from exporter.storage.scopes import Scope, TargetScopes

_BATCH = 500
"""Rows that are looked up at once; SQLite allows 999 parameters, or more."""

_set = msgspec.structs.force_setattr


class Row(NamedTuple):
    """A row of the table ``job``.

    Attributes:
        rowid: SQLite's number of the row; None = it is new.
        scope: of its workspace.
        id: of the job.
        group: of the table ``job_group``.
        created: create time, unix seconds.
        ended: end time of a finished job, unix seconds.
        digest: of the job, as in `exporter.storage.rows.digest`.
        known: the encoded `TrackedJob`, with a checksum.
    """

    rowid: int | None
    scope: int
    id: str
    group: int
    created: float | None
    ended: float | None
    digest: int
    known: Any


COLUMNS = "rowid, scope, id, job_group, created, ended, digest, known"
"""Those of a `Row`."""
_SELECT = f"SELECT {COLUMNS} FROM job"


def create(connection: sqlite3.Connection) -> None:
    """Create the table."""
    connection.execute(
        "CREATE TABLE job ("
        " scope INTEGER NOT NULL, id TEXT NOT NULL, job_group INTEGER NOT NULL, created REAL,"
        " ended REAL, digest INTEGER NOT NULL, known BLOB NOT NULL)"
    )


def create_indexes(connection: sqlite3.Connection) -> None:
    """Create the indexes of the table: faster when its rows are there."""
    connection.execute("CREATE UNIQUE INDEX job_by_id ON job (id, scope)")
    connection.execute("CREATE INDEX job_by_group ON job (job_group, ended)")
    connection.execute("CREATE INDEX job_by_created ON job (scope, created)")


# --- Writing --------------------------------------------------------------------------------------


def write(
    connection: sqlite3.Connection, scopes: TargetScopes, jobs: Mapping[str, TrackedJob]
) -> None:
    """Insert or update jobs. A job may have moved from another workspace of the target."""
    counting = Counting(connection)
    for batch in _batches(list(jobs.items())):
        created = {job_id: known.job.created for job_id, known in batch}
        before: dict[str, Row] = {}
        twice = []
        for row in find(connection, scopes.ids, list(created), created):
            _uncount(counting, row)
            if before.setdefault(row.id, row) is not row:
                twice.append(row)  # two targets became one, each with a workspace that had it
        after = []
        for job_id, known in batch:
            scope = scopes.of(known.job.workspace).id
            row = encode(scope, job_id, counting.group(scope, known.job), known)
            counting.add(1, row.scope, row.group, row.created)
            after.append(row._replace(rowid=before[job_id].rowid if job_id in before else None))
        _delete(connection, twice)
        _write_rows(connection, before, after)
    counting.save()


def forget(connection: sqlite3.Connection, scopes: TargetScopes, ids: Collection[str]) -> None:
    """Delete jobs; IDs without a row are ignored."""
    counting = Counting(connection)
    for batch in _batches(list(ids)):
        found = find(connection, scopes.ids, batch)
        for row in found:
            _uncount(counting, row)
        _delete(connection, found)
    counting.save()


def _uncount(counting: Counting, row: Row) -> None:
    verify(row)
    counting.add(-1, row.scope, row.group, row.created)


def _delete(connection: sqlite3.Connection, found: Iterable[Row]) -> None:
    connection.executemany("DELETE FROM job WHERE rowid = ?", ((row.rowid,) for row in found))


def _write_rows(
    connection: sqlite3.Connection, before: Mapping[str, Row], after: Sequence[Row]
) -> None:
    new = [row for row in after if row.rowid is None]
    same = [row for row in after if row.rowid and _keys(row) == _keys(before[row.id])]
    moved = [row for row in after if row.rowid and _keys(row) != _keys(before[row.id])]
    insert(connection, new)
    connection.executemany(  # the commonest; no index changes
        "UPDATE job SET digest = ?, known = ? WHERE rowid = ?",
        ((row.digest, row.known, row.rowid) for row in same),
    )
    connection.executemany(
        "UPDATE job SET scope = ?, job_group = ?, created = ?, ended = ?, digest = ?, known = ?"
        " WHERE rowid = ?",
        ((*_keys(row), row.digest, row.known, row.rowid) for row in moved),
    )


def _keys(row: Row) -> tuple[int, int, float | None, float | None]:
    """What the indexes have of a row that keeps its ID."""
    return row.scope, row.group, row.created, row.ended


def insert(connection: sqlite3.Connection, new: Iterable[Row]) -> None:
    """Insert rows of jobs that have none; the caller counts them."""
    connection.executemany(f"INSERT INTO job ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", new)


def encode(scope: int, job_id: str, group: int, known: TrackedJob) -> Row:
    """Return the row of a job, without a number."""
    job = known.job
    keys = (
        scope,
        job_id,
        group,
        None if job.created is None else float(job.created),
        None if known.ended is None or job.phase not in TERMINAL else float(known.ended),
        rows.digest(job),
    )
    return Row(None, *keys, rows.pack(known, rows.encode(keys)))


# --- Reading by ID --------------------------------------------------------------------------------


def find(
    connection: sqlite3.Connection,
    scopes: Collection[int],
    ids: Sequence[str],
    created: Mapping[str, float | None] = {},
) -> list[Row]:
    """The rows of some jobs, at most `_BATCH`, as far as there are any.

    Args:
        connection: to the database.
        scopes: of one target.
        ids: of jobs.
        created: by ID, the create times of those of them that may have no row; they are looked for
            in the index by create time, too.

    Raises:
        DamagedFileError: an index does not have a job that another one has.
    """
    query = f"{_SELECT} WHERE id IN ({','.join('?' * len(ids))})"
    found = [row for row in map(Row._make, connection.execute(query, ids)) if row.scope in scopes]
    there = {row.id for row in found}
    missing: dict[float | None, set[str]] = {}
    for job_id, time in created.items():
        if job_id not in there:
            missing.setdefault(time, set()).add(job_id)
    for time, some in missing.items():
        for scope in scopes:
            if hidden := some & _ids_created_at(connection, scope, time):
                raise damaged("job", min(hidden), "it is missing in an index")
    return found


def _ids_created_at(connection: sqlite3.Connection, scope: int, time: float | None) -> set[str]:
    query = "SELECT id FROM job INDEXED BY job_by_created WHERE scope = ? AND created IS ?"
    return {job_id for (job_id,) in connection.execute(query, (scope, time))}


def read(
    connection: sqlite3.Connection,
    scopes: Collection[int],
    ids: Collection[str],
    created: Mapping[str, float | None],
) -> dict[str, TrackedJob]:
    """The jobs among some IDs that are known; for ``created`` see `find`."""
    known: dict[str, TrackedJob] = {}
    for batch in _batches(list(ids)):
        times = {job_id: created[job_id] for job_id in batch if job_id in created}
        known |= decode_all(find(connection, scopes, batch, times))
    return known


def unchanged(
    connection: sqlite3.Connection, scopes: Collection[int], jobs: Mapping[str, Job]
) -> set[str]:
    """The IDs of those jobs that are known exactly as they are. Nothing is decoded."""
    found = set()
    for batch in _batches(list(jobs)):
        for row in find(connection, scopes, batch):
            if row.digest == rows.digest(jobs[row.id]):
                verify(row)
                found.add(row.id)
    return found


def _batches(items: list[Any]) -> Iterator[list[Any]]:
    return (items[start : start + _BATCH] for start in range(0, len(items), _BATCH))


# --- Reading by phase, end and group --------------------------------------------------------------


class Loaded(NamedTuple):
    """What a target needs of its jobs at the start; see `exporter.storage.store.SavedState`."""

    open: dict[str, TrackedJob]
    recent: dict[str, TrackedJob]
    failures: list[TrackedJob]
    finished: dict[Group, int]


def load(
    connection: sqlite3.Connection, scopes: Mapping[int, Scope], recent_since: float
) -> Loaded:
    """Read the open jobs, the latest of the others, and the numbers of all."""
    groups = list(counts.groups_of(connection, scopes))
    finished = [(group, labels) for group, labels, _ in groups if labels.phase in TERMINAL]
    interner = _Interner()
    open_jobs: dict[str, TrackedJob] = {}
    for group, labels, number in groups:
        if labels.phase not in TERMINAL:
            found = decode_all(_of_group(connection, group), interner)
            if len(found) != number:
                raise DamagedFileError("is damaged (an index does not have all jobs of a group)")
            open_jobs |= found
    recent = [
        row
        for group, _ in finished
        for row in _of_group(connection, group, "AND ended >= ?", recent_since)
    ]
    failed = [group for group, labels in finished if labels.phase in FAILED]
    failures = sorted(_latest(connection, failed, MAX_FAILURES), key=_by_end, reverse=True)
    return Loaded(
        open_jobs,
        decode_all(sorted(recent, key=_by_end), interner),
        list(decode_all(failures, interner).values()),
        {labels: number for _, labels, number in groups if labels.phase in TERMINAL},
    )


def _latest(connection: sqlite3.Connection, groups: Iterable[int], number: int) -> Iterator[Row]:
    """The rows of the jobs of some groups that ended last."""
    query = (
        "SELECT ended, rowid FROM job INDEXED BY job_by_group"
        " WHERE job_group = ? AND ended > ? ORDER BY ended DESC LIMIT ?"
    )
    latest: list[tuple[float, int]] = []
    oldest = float("-inf")
    for group in groups:
        latest += connection.execute(query, (group, oldest, number))
        latest = heapq.nlargest(number, latest)
        if len(latest) == number:
            oldest = latest[-1][0]
    for _, rowid in latest:
        yield Row._make(connection.execute(f"{_SELECT} WHERE rowid = ?", (rowid,)).fetchone())


def finished_between(
    connection: sqlite3.Connection, scopes: Mapping[int, Scope], since: float, until: float
) -> dict[Group, int]:
    """How many jobs of each group ended in a period, ``until`` excluded.

    Those whose end is unknown ended before any time except -inf.
    """
    period = "ended >= ? AND ended < ?"
    if since == ALWAYS:
        period = f"({period} OR ended IS NULL)"
    query = (
        "SELECT job_group, count(*) FROM job INDEXED BY job_by_group"
        " WHERE job_group IN (SELECT id FROM job_group WHERE scope = ?)"
        f" AND {period} GROUP BY job_group"
    )
    counted = {
        counts.group_at(connection, scope, group): number
        for scope in scopes.values()
        for group, number in connection.execute(query, (scope.id, since, until)).fetchall()
    }
    return {group: number for group, number in counted.items() if group.phase in TERMINAL}


def of_unknown_type(
    connection: sqlite3.Connection, scopes: Mapping[int, Scope], pools: Collection[str]
) -> dict[str, TrackedJob]:
    """The finished jobs of some pools whose flavor type is unknown."""
    interner = _Interner()
    found: dict[str, TrackedJob] = {}
    for group, labels, _ in counts.groups_of(connection, scopes):
        is_unknown = labels.flavor_type == "unknown" and labels.pool in pools
        if is_unknown and labels.phase in TERMINAL:
            found |= decode_all(_of_group(connection, group), interner)
    return found


def _of_group(
    connection: sqlite3.Connection, group: int, more: str = "", *parameters: float
) -> Iterator[Row]:
    query = f"{_SELECT} INDEXED BY job_by_group WHERE job_group = ? {more}"
    return map(Row._make, connection.execute(query, (group, *parameters)))


def _by_end(row: Row) -> tuple[float, str]:
    return row.ended or 0.0, row.id


# --- Reading in the order of the list -------------------------------------------------------------


def count_newer(connection: sqlite3.Connection, scope: int, created: float) -> int:
    """How many jobs of a scope have a create time after this one."""
    hour = hour_of(created)
    query = (
        "SELECT count(*) FROM job INDEXED BY job_by_created"
        " WHERE scope = ? AND created > ? AND created < ?"
    )
    (number,) = connection.execute(query, (scope, created, (hour + 1) * HOUR)).fetchone()
    return int(number) + counts.count_from(connection, scope, hour + 1)


def created_at(connection: sqlite3.Connection, scope: int, rank: int) -> float | None:
    """The create time of the job at a rank, 0 = the newest; None = there are fewer jobs."""
    query = (
        "SELECT created FROM job INDEXED BY job_by_created"
        " WHERE scope = ? AND created >= ? AND created < ? ORDER BY created DESC LIMIT 1 OFFSET ?"
    )
    for hour, number in counts.hours_of(connection, scope):
        if rank < number:
            parameters = scope, hour * HOUR, (hour + 1) * HOUR, rank
            if (found := connection.execute(query, parameters).fetchone()) is None:
                raise DamagedFileError("is damaged (an index does not have all jobs of an hour)")
            return float(found[0])
        rank -= number
    return None


def between(
    connection: sqlite3.Connection, scope: int, oldest: float, newest: float
) -> dict[str, TrackedJob]:
    """The jobs of a scope that were created in a period, both ends included."""
    query = f"{_SELECT} INDEXED BY job_by_created WHERE scope = ? AND created >= ? AND created <= ?"
    return decode_all(map(Row._make, connection.execute(query, (scope, oldest, newest))))


def omitted(
    connection: sqlite3.Connection, scope: int, was_read: Callable[[str], bool]
) -> dict[str, TrackedJob]:
    """The jobs of a scope that a reading of the whole list has omitted."""
    query = "SELECT id FROM job INDEXED BY job_by_id WHERE +scope = ?"
    ids = [job_id for (job_id,) in connection.execute(query, (scope,)) if not was_read(job_id)]
    return read(connection, {scope}, ids, {})


def forget_all(connection: sqlite3.Connection, scopes: Collection[int]) -> None:
    """Delete all jobs of some scopes."""
    for scope in scopes:
        for table in ("job", "job_group", "hour"):
            connection.execute(f"DELETE FROM {table} WHERE scope = ?", (scope,))


# --- Decoding -------------------------------------------------------------------------------------


def decode_all(found: Iterable[Row], interner: "_Interner | None" = None) -> dict[str, TrackedJob]:
    """Decode rows. Their jobs share equal strings."""
    interner = interner or _Interner()
    known = {}
    for row in found:
        encoded = verify(row)
        try:
            known[row.id] = interner.intern(rows.decode_job(encoded))
        except rows.UNREADABLE as error:
            raise damaged("job", row.id, error) from error
    return known


def verify(row: Row) -> Any:
    """Verify the checksum of a row and return the encoded job.

    Raises:
        DamagedFileError: it is wrong.
    """
    try:
        return rows.verified(row.known, rows.encode(row[1:-1]))
    except rows.UNREADABLE as error:
        raise damaged("job", row.id, error) from error


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
