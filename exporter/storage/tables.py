"""The tables of the state file, and how rows are encoded. All functions block.

Rows are kept per target and workspace, so that what is not asked for now can wait. Structs are
msgpack arrays with a checksum, so fields are stored by position. `TrackedJob`, `Series` and the
structs in them may get a new field at the end with a default, without a migration: older rows
decode with the default. An older version ignores the field, and drops its value from rows that it
rewrites. Any other change to them (order, types, fields of the named tuples in them) needs a new
version in `LAYOUT`, with a step that rewrites the rows.
"""

import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import repeat
from operator import attrgetter
from typing import Any
from zlib import crc32

import msgspec

from exporter.jobs.job import Fault, Job, Run
from exporter.jobs.tracked import Base, TrackedJob
from exporter.metrics.counters import BASE, EVENT_FAMILY_BY_NAME, Series, SeriesKey
from exporter.storage.sqlite import DamagedFileError, Layout

log = logging.getLogger(__name__)

_encode = msgspec.msgpack.Encoder().encode
_decode_labels = msgspec.msgpack.Decoder(tuple[str, ...]).decode
_known = msgspec.msgpack.Decoder(TrackedJob)
_series = msgspec.msgpack.Decoder(Series)
_set = msgspec.structs.force_setattr
_CHECKSUM_BYTES = 4
_UNREADABLE = (msgspec.MsgspecError, TypeError, ValueError)


def _damaged(what: str, name: str, why: object) -> DamagedFileError:
    return DamagedFileError(f"is damaged ({what} {name[:64]!r}: {why})")


def _pack(struct: TrackedJob | Series, key: bytes) -> bytes:
    """Encode with a checksum, since zeros from a failing disk would pass for numbers.

    It covers the key of the row as well: a value under another key is damaged, too.
    """
    blob = _encode(struct)
    return blob + crc32(blob, crc32(key)).to_bytes(_CHECKSUM_BYTES, "little")


def _verified(packed: Any, key: bytes) -> Any:
    """Verify the checksum and return the encoded struct."""
    blob = packed[:-_CHECKSUM_BYTES]
    if crc32(blob, crc32(key)) != int.from_bytes(packed[-_CHECKSUM_BYTES:], "little"):
        raise ValueError("wrong checksum")
    return blob


def _key(*texts: str) -> bytes:
    return "\0".join(texts).encode()


def _create(connection: sqlite3.Connection) -> None:
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


# --- Jobs -----------------------------------------------------------------------------------------


def write_jobs(connection: sqlite3.Connection, target: str, jobs: Mapping[str, TrackedJob]) -> None:
    """Insert or update jobs."""
    connection.executemany(
        "INSERT INTO job (target, workspace, id, known) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (target, id) DO UPDATE"
        " SET workspace = excluded.workspace, known = excluded.known",
        (
            (target, workspace, job_id, _pack(known, _key(target, workspace, job_id)))
            for job_id, known in jobs.items()
            for workspace in [known.job.workspace]
        ),
    )


def forget_jobs(connection: sqlite3.Connection, target: str, ids: Iterable[str]) -> None:
    """Delete jobs; IDs without a row are ignored."""
    connection.executemany(
        "DELETE FROM job WHERE target = ? AND id = ?", ((target, job_id) for job_id in ids)
    )


def read_jobs(
    connection: sqlite3.Connection, target: str, workspaces: Collection[str]
) -> dict[str, TrackedJob]:
    """The jobs of some workspaces, by ID."""
    # The + keeps SQLite from using the index: reading in the order of IDs takes twice the time.
    rows = connection.execute("SELECT workspace, id, known FROM job WHERE +target = ?", (target,))
    interner = _Interner()
    found: dict[str, TrackedJob] = {}
    for workspace, job_id, blob in rows:
        if workspace in workspaces:
            known = interner.intern(_job(target, workspace, job_id, blob))
            found[known.job.id] = known
    return found


def _job(target: str, workspace: str, job_id: str, blob: Any) -> TrackedJob:
    try:
        return _known.decode(_verified(blob, _key(target, workspace, job_id)))
    except _UNREADABLE as error:
        raise _damaged("job", job_id, error) from error


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


# --- Newest create times -------------------------------------------------------------------------


def write_newest_created(
    connection: sqlite3.Connection, target: str, newest_created: Mapping[str, float]
) -> None:
    """Save the create time of the newest job of each workspace."""
    connection.executemany(
        "INSERT INTO horizon (target, workspace, newest) VALUES (?, ?, ?)"
        " ON CONFLICT (target, workspace) DO UPDATE SET newest = excluded.newest",
        (
            (target, workspace, None if newest == float("-inf") else newest)
            for workspace, newest in newest_created.items()
        ),
    )


def read_newest_created(
    connection: sqlite3.Connection, target: str, workspaces: Collection[str]
) -> dict[str, float]:
    """The create time of the newest job, by workspace."""
    rows = connection.execute("SELECT workspace, newest FROM horizon WHERE target = ?", (target,))
    return {workspace: _newest(workspace, at) for workspace, at in rows if workspace in workspaces}


def _newest(workspace: str, at: Any) -> float:
    if at is None:
        return float("-inf")
    if not isinstance(at, float):
        raise _damaged("horizon", workspace, "not a number")
    return at


# --- Series ---------------------------------------------------------------------------------------


def write_series(
    connection: sqlite3.Connection, target: str, ledger: Mapping[SeriesKey, Series]
) -> None:
    """Insert or update series. Released ones stay released."""
    connection.executemany(
        "INSERT INTO series (target, workspace, family, labels, series) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (target, family, labels) DO UPDATE SET series = excluded.series",
        (
            (target, labels[0], family, encoded, _pack(series, key + encoded))
            for (family, labels), series in ledger.items()
            for key, encoded in [(_key(target, labels[0], family), _encode(labels))]
        ),
    )


def release_series(
    connection: sqlite3.Connection, target: str, keys: Collection[SeriesKey]
) -> None:
    """Mark series as released.

    Raises:
        LookupError: one has no row, and would be shown as zero again after a restart.
    """
    if not keys:
        return
    done = connection.executemany(
        "UPDATE series SET released = 1 WHERE target = ? AND family = ? AND labels = ?",
        ((target, family, _encode(labels)) for family, labels in keys),
    )
    if done.rowcount < len(keys):
        raise LookupError("a series was released that was never committed")


def read_series(
    connection: sqlite3.Connection, target: str, workspaces: Collection[str]
) -> tuple[dict[SeriesKey, Series], frozenset[SeriesKey]]:
    """The series of some workspaces, and which of them are released.

    Series of other versions of the exporter, with another family or shape, are left alone.
    """
    rows = connection.execute(
        "SELECT workspace, family, labels, series, released FROM series WHERE target = ?", (target,)
    )
    ledger: dict[SeriesKey, Series] = {}
    released = set()
    unused = 0
    for workspace, family, labels, blob, is_released in rows:
        if workspace not in workspaces:
            continue
        entry = _entry(target, workspace, family, labels, blob)
        if entry is None:
            unused += 1
            continue
        key, series = entry
        ledger[key] = series
        if is_released:
            released.add(key)
    if unused:
        log.info("%d series in the state file are of another version and are not used", unused)
    return ledger, frozenset(released)


def _entry(
    target: str, workspace: str, family: str, labels: Any, blob: Any
) -> tuple[SeriesKey, Series] | None:
    """A decoded row; None = of another version."""
    definition = EVENT_FAMILY_BY_NAME.get(family)
    if definition is None:
        return None
    try:
        series = _series.decode(_verified(blob, _key(target, workspace, family) + labels))
        values = _decode_labels(labels)
    except _UNREADABLE as error:
        raise _damaged("series", family, error) from error
    buckets = len(definition.buckets) + 1 if definition.buckets else 0
    if len(values) != len(BASE) + len(definition.labels) or len(series.counts) != buckets:
        return None
    return (family, values), series


# --- All of it ------------------------------------------------------------------------------------


def _check(connection: sqlite3.Connection) -> None:
    """Every row must be readable: a job that is lost would count as new when it is seen next.

    For jobs, which are many, a correct checksum is enough: the row was written whole, by us.
    """
    for target, workspace, job_id, blob in connection.execute(
        "SELECT target, workspace, id, known FROM job"
    ):
        try:
            _verified(blob, _key(target, workspace, job_id))
        except _UNREADABLE as error:
            raise _damaged("job", job_id, error) from error
    for workspace, at in connection.execute("SELECT workspace, newest FROM horizon"):
        _newest(workspace, at)
    for row in connection.execute("SELECT target, workspace, family, labels, series FROM series"):
        _entry(*row)


LAYOUT = Layout(application_id=0x4D416578, steps={1: _create}, check=_check)  # "MAex"
