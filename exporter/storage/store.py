"""What outlives the process: each target's jobs, its counters, and what was ever published.

A `Store` commits what a poll has changed, whole or not at all, before it is published. So no
counter that was ever scraped falls, and no event is counted twice. `StateFile` keeps it in SQLite,
`MemoryStore` nowhere. Data of workspaces and targets that are no longer configured is kept for
their return.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from exporter.errors import StateError
from exporter.jobs.tracker import TrackedJob
from exporter.metrics.counters import Series, SeriesKey
from exporter.storage import tables
from exporter.storage.sqlite import DamagedFileError, explain, open_file, transaction

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class StateChange(NamedTuple):
    """What a poll, or a release, changes of a target. Not to be altered once it is committed.

    Attributes:
        jobs: by id, those that are new or known otherwise than before.
        gone: ids of jobs to forget.
        horizons: by workspace, unix seconds or -inf, as in `exporter.jobs.tracker.Fleet`.
        series: those that are new or have changed.
        released: series that may show what they count from now on; known, or among ``series``.
    """

    jobs: Mapping[str, TrackedJob] = {}
    gone: Collection[str] = ()
    horizons: Mapping[str, float] = {}
    series: Mapping[SeriesKey, Series] = {}
    released: Collection[SeriesKey] = ()


class SavedState(NamedTuple):
    """What is remembered of some workspaces of a target; the names are those of `StateChange`."""

    jobs: dict[str, TrackedJob]
    horizons: dict[str, float]
    ledger: dict[SeriesKey, Series]
    released: frozenset[SeriesKey]


class Store(Protocol):
    """Remembers targets. A target's key is opaque."""

    async def load(self, target: str, workspaces: Collection[str]) -> SavedState:
        """What is remembered of these workspaces.

        Raises:
            StateError: it cannot be read.
        """

    async def commit(self, target: str, change: StateChange) -> None:
        """Return when it is safe. A commit that has begun is finished even if nobody waits for it.

        Raises:
            StateError: nothing of it is kept; a later commit may succeed.
        """

    async def close(self) -> None:
        """Finish what was begun, then let go."""


class MemoryStore:
    """A `Store` that remembers nothing: what the poller holds is all there is."""

    async def load(self, target: str, workspaces: Collection[str]) -> SavedState:
        """Nothing is remembered."""
        del target, workspaces
        return SavedState({}, {}, {}, frozenset())

    async def commit(self, target: str, change: StateChange) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Nothing is held."""


class StateFile:
    """A `Store` in a file of its own; everything happens in one thread. Made by `open`."""

    def __init__(self, path: Path, problem: Callable[[], None]) -> None:
        self._path = path
        self._problem = problem
        self._thread = ThreadPoolExecutor(1, "state")
        self._connection: sqlite3.Connection | None = None
        self._closed = False

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        problem: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> "StateFile":
        """Open the file; it is made, or moved aside, if need be.

        Args:
            path: of the file.
            problem: is called for every error and every move aside, in the thread of the file.
            clock: unix seconds.

        Raises:
            ConfigError: there can be no state file at that path, or a newer version wrote it.
            StartError: another process uses it, or its disk fails.
        """
        self = cls(path, problem)
        try:
            await self._run(self._open, clock)
        except BaseException:
            await self.close()
            raise
        return self

    async def load(self, target: str, workspaces: Collection[str]) -> SavedState:
        """As `Store.load`."""
        return await self._run(self._load, target, frozenset(workspaces))

    async def commit(self, target: str, change: StateChange) -> None:
        """As `Store.commit`."""
        await self._run(self._commit, target, change)
        if not self._closed:
            self._thread.submit(self._checkpoint)  # costs as much again, and nobody waits for it

    async def close(self) -> None:
        """As `Store.close`; the second time does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            await self._run(self._close)
        finally:
            self._thread.shutdown(wait=False)

    def _run(self, work: Callable[..., _T], *args: Any) -> asyncio.Future[_T]:
        """Do it in the thread, after all that was begun before, even if the caller is cancelled."""
        loop = asyncio.get_running_loop()
        return asyncio.shield(loop.run_in_executor(self._thread, work, *args))

    # --- In the thread ----------------------------------------------------------------------------

    @property
    def _held(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError("not open")
        return self._connection

    def _open(self, clock: Callable[[], float]) -> None:
        self._connection = open_file(self._path, tables.LAYOUT, moved=self._problem, clock=clock)

    def _load(self, target: str, workspaces: frozenset[str]) -> SavedState:
        with self._working() as connection:
            ledger, released = tables.read_series(connection, target, workspaces)
            return SavedState(
                tables.read_jobs(connection, target, workspaces),
                tables.read_horizons(connection, target, workspaces),
                ledger,
                released,
            )

    def _commit(self, target: str, change: StateChange) -> None:
        with self._working() as connection, transaction(connection):
            tables.write_jobs(connection, target, change.jobs)
            tables.forget_jobs(connection, target, change.gone)
            tables.write_horizons(connection, target, change.horizons)
            tables.write_series(connection, target, change.series)
            tables.release_series(connection, target, change.released)

    def _checkpoint(self) -> None:
        """Bring the log home. If that fails it grows, until a commit fails and says so."""
        with contextlib.suppress(sqlite3.Error):
            self._held.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _close(self) -> None:
        if self._connection is None:  # it could not be opened
            return
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            self._problem()
            log.warning(
                "%s; nothing is lost as long as the files beside it stay",
                explain(self._path, error),
            )
        finally:
            self._connection.close()

    @contextlib.contextmanager
    def _working(self) -> Iterator[sqlite3.Connection]:
        """The connection; its errors are counted and explained."""
        try:
            yield self._held
        except sqlite3.Error as error:
            self._problem()
            raise StateError(explain(self._path, error)) from error
        except DamagedFileError as error:
            self._problem()
            raise StateError(f"state file {self._path} {error}; start again") from error
