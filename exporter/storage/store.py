"""Saved state: the jobs and counters of each target, and which series were ever published.

A `Store` commits the changes of a poll atomically, before they are published. So no counter that
was ever scraped falls, and no event is counted twice. `StateFile` saves to SQLite, `MemoryStore`
saves nothing. Data of targets and workspaces that are no longer configured is kept, in case they
return.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from exporter.clock import Clocks
from exporter.errors import StateError
from exporter.jobs.tracked import TrackedJob
from exporter.metrics.counters import Series, SeriesKey
from exporter.storage import tables
from exporter.storage.sqlite import DamagedFileError, explain, open_file, transaction

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class StateChange(NamedTuple):
    """The changes to a target by a poll, or by a release. Must not be modified after the commit.

    Attributes:
        jobs: new and changed ones, by ID.
        deleted: IDs of jobs to forget.
        newest_created: by workspace, unix seconds or -inf, as in `exporter.jobs.tracked.Fleet`.
        series: new and changed ones.
        released: series that are no longer held at zero; saved before, or in ``series``.
    """

    jobs: Mapping[str, TrackedJob] = {}
    deleted: Collection[str] = ()
    newest_created: Mapping[str, float] = {}
    series: Mapping[SeriesKey, Series] = {}
    released: Collection[SeriesKey] = ()


class SavedState(NamedTuple):
    """The saved state of some workspaces of a target. The names are those of `StateChange`."""

    jobs: dict[str, TrackedJob]
    newest_created: dict[str, float]
    ledger: dict[SeriesKey, Series]
    released: frozenset[SeriesKey]


class Store(Protocol):
    """Saves the state of targets. A target's key is opaque."""

    async def load(self, target: str, workspaces: Collection[str]) -> SavedState:
        """Load the state of these workspaces.

        Raises:
            StateError: it cannot be read.
        """

    async def commit(self, target: str, change: StateChange) -> None:
        """Return when it is saved. A commit is finished even if its caller is cancelled.

        Raises:
            StateError: nothing of it was saved; a later commit may succeed.
        """

    async def close(self) -> None:
        """Finish pending commits, then close the file."""


class MemoryStore:
    """A `Store` that saves nothing: the state in memory is all there is."""

    async def load(self, target: str, workspaces: Collection[str]) -> SavedState:
        """As `Store.load`: there is nothing to load."""
        del target, workspaces
        return SavedState({}, {}, {}, frozenset())

    async def commit(self, target: str, change: StateChange) -> None:
        """As `Store.commit`: nothing is saved."""

    async def close(self) -> None:
        """As `Store.close`: there is nothing to close."""


class StateFile:
    """A `Store` in a SQLite file, used by a single thread. Created by `open`."""

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
        clocks: Clocks = Clocks(),  # noqa: B008 - it is immutable
    ) -> "StateFile":
        """Open the file. It is created if it is missing, and moved aside if it is damaged.

        Args:
            path: of the file.
            problem: called for every error and every move aside, in the thread of the file.
            clocks: the machine's.

        Raises:
            ConfigError: the path cannot be used, or a newer version wrote the file.
            StartError: another process uses it, or its disk fails.
        """
        self = cls(path, problem)
        try:
            await self._run(self._open, clocks)
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
            self._thread.submit(self._checkpoint)  # as expensive as the commit; do not wait for it

    async def close(self) -> None:
        """As `Store.close`. Calling it twice is safe."""
        if self._closed:
            return
        self._closed = True
        try:
            await self._run(self._close)
        finally:
            self._thread.shutdown(wait=False)

    def _run(self, work: Callable[..., _T], *args: Any) -> asyncio.Future[_T]:
        """Run in the thread, after all earlier work, even if the caller is cancelled."""
        loop = asyncio.get_running_loop()
        return asyncio.shield(loop.run_in_executor(self._thread, work, *args))

    # --- In the thread ----------------------------------------------------------------------------

    @property
    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError("not open")
        return self._connection

    def _open(self, clocks: Clocks) -> None:
        self._connection = open_file(self._path, tables.LAYOUT, moved=self._problem, clocks=clocks)

    def _load(self, target: str, workspaces: frozenset[str]) -> SavedState:
        with self._working() as connection:
            ledger, released = tables.read_series(connection, target, workspaces)
            return SavedState(
                tables.read_jobs(connection, target, workspaces),
                tables.read_newest_created(connection, target, workspaces),
                ledger,
                released,
            )

    def _commit(self, target: str, change: StateChange) -> None:
        with self._working() as connection, transaction(connection):
            tables.write_jobs(connection, target, change.jobs)
            tables.forget_jobs(connection, target, change.deleted)
            tables.write_newest_created(connection, target, change.newest_created)
            tables.write_series(connection, target, change.series)
            tables.release_series(connection, target, change.released)

    def _checkpoint(self) -> None:
        """Checkpoint the WAL. If it fails the WAL grows until a commit fails and reports it."""
        with contextlib.suppress(sqlite3.Error):
            self._opened.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _close(self) -> None:
        if self._connection is None:  # opening it failed
            return
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            self._problem()
            log.warning(
                "%s; nothing is lost if you keep the files beside it",
                explain(self._path, error),
            )
        finally:
            self._connection.close()

    @contextlib.contextmanager
    def _working(self) -> Iterator[sqlite3.Connection]:
        """Give the connection; count and explain its errors."""
        try:
            yield self._opened
        except sqlite3.Error as error:
            self._problem()
            raise StateError(explain(self._path, error)) from error
        except DamagedFileError as error:
            self._problem()
            raise StateError(f"state file {self._path} {error}; restart the exporter") from error
