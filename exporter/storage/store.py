"""Saved state: the jobs and counters of each target, and which series were ever published.

A `Store` commits the changes of a poll atomically, before they are published. So no counter that
was ever scraped falls, and no event is counted twice. `StateFile` saves to SQLite, `MemoryStore`
saves nothing. Data of targets and workspaces that are no longer configured is kept, in case they
return.

A file that is deleted, replaced or overwritten while it is open is written anew: as a copy of what
is still open, or else from what the targets have in memory.
"""

import asyncio
import contextlib
import logging
import os
import sqlite3
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from exporter.clock import Clocks
from exporter.errors import ConfigError, StartError, StateError
from exporter.jobs.tracked import Base, TrackedJob
from exporter.metrics.counters import Series, SeriesKey
from exporter.storage import generation, scopes, tables
from exporter.storage.damage import DamagedFileError
from exporter.storage.scopes import StateKey
from exporter.storage.sqlite import explain, fingerprint, open_file, rescue, transaction

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
        last_active: unix seconds at which bases last had a job or an event.
        unified: those of the workspaces of ``newest_created`` whose baseline has fine-tuning jobs.
    """

    jobs: Mapping[str, TrackedJob] = {}
    deleted: Collection[str] = ()
    newest_created: Mapping[str, float] = {}
    series: Mapping[SeriesKey, Series] = {}
    released: Collection[SeriesKey] = ()
    last_active: Mapping[Base, float] = {}
    unified: Collection[str] = ()


Whole: TypeAlias = Callable[[], StateChange]
"""Returns the whole state of a target, as it is after a commit. Called in any thread."""


class SavedState(NamedTuple):
    """The saved state of some workspaces of a target. The names are those of `StateChange`."""

    jobs: dict[str, TrackedJob]
    newest_created: dict[str, float]
    ledger: dict[SeriesKey, Series]
    released: frozenset[SeriesKey]
    last_active: Mapping[Base, float] = {}
    unified: frozenset[str] = frozenset()


class Store(Protocol):
    """Saves the state of targets."""

    async def saved(self, region: str, project_id: str) -> list[tuple[StateKey, str]]:
        """The targets and workspaces of a project that have saved state.

        Raises:
            StateError: it cannot be read.
        """

    async def rename(self, old: StateKey, new: StateKey, workspaces: Collection[str]) -> None:
        """Give the saved state of some workspaces to another target of the project.

        Raises:
            StateError: nothing was changed.
        """

    async def load(self, target: StateKey, workspaces: Collection[str]) -> SavedState:
        """Load the state of these workspaces.

        Raises:
            StateError: it cannot be read.
        """

    async def commit(
        self, target: StateKey, change: StateChange, whole: Whole | None = None
    ) -> None:
        """Return when it is saved. A commit is finished even if its caller is cancelled.

        Args:
            target: whose state it is.
            change: what has changed.
            whole: the state with the change, should the file be lost.

        Raises:
            StateError: nothing of it was saved; a later commit may succeed.
        """

    async def close(self) -> None:
        """Finish pending commits, then close the file."""


class MemoryStore:
    """A `Store` that saves nothing: the state in memory is all there is."""

    async def saved(self, region: str, project_id: str) -> list[tuple[StateKey, str]]:
        """As `Store.saved`: there is nothing."""
        del region, project_id
        return []

    async def rename(self, old: StateKey, new: StateKey, workspaces: Collection[str]) -> None:
        """As `Store.rename`: there is nothing to rename."""

    async def load(self, target: StateKey, workspaces: Collection[str]) -> SavedState:
        """As `Store.load`: there is nothing to load."""
        del target, workspaces
        return SavedState({}, {}, {}, frozenset())

    async def commit(
        self, target: StateKey, change: StateChange, whole: Whole | None = None
    ) -> None:
        """As `Store.commit`: nothing is saved."""

    async def close(self) -> None:
        """As `Store.close`: there is nothing to close."""


class StateFile:
    """A `Store` in a SQLite file, used by a single thread. Created by `open`."""

    def __init__(self, path: Path, problem: Callable[[], None], clocks: Clocks) -> None:
        self._path = path
        self._real = Path(os.path.realpath(path))
        self._problem = problem
        self._thread = ThreadPoolExecutor(1, "state")
        self._clocks = clocks
        self._connection: sqlite3.Connection | None = None
        self._fingerprint: tuple[int, ...] | None = None
        self._wholes: dict[StateKey, weakref.ref[Whole]] = {}
        """Those of the last commits. Their targets keep them as long as they exist."""
        self._is_empty = self._is_new = False
        """Whether the file was made anew and is still empty; whether it was made anew at all."""
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
        self = cls(path, problem, clocks)
        try:
            await self._run(self._open)
        except BaseException:
            await self.close()
            raise
        return self

    async def saved(self, region: str, project_id: str) -> list[tuple[StateKey, str]]:
        """As `Store.saved`."""
        return await self._run(self._saved, region, project_id)

    async def rename(self, old: StateKey, new: StateKey, workspaces: Collection[str]) -> None:
        """As `Store.rename`."""
        await self._run(self._rename, old, new, frozenset(workspaces))

    async def load(self, target: StateKey, workspaces: Collection[str]) -> SavedState:
        """As `Store.load`."""
        return await self._run(self._load, target, frozenset(workspaces))

    async def commit(
        self, target: StateKey, change: StateChange, whole: Whole | None = None
    ) -> None:
        """As `Store.commit`."""
        await self._run(self._commit, target, change, whole)
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

    def _open(self) -> None:
        self._connection = open_file(
            self._path, tables.LAYOUT, moved=self._problem, clocks=self._clocks
        )
        self._fingerprint = fingerprint(self._real)

    def _saved(self, region: str, project_id: str) -> list[tuple[StateKey, str]]:
        with self._working() as connection:
            return scopes.scopes_of_project(connection, region, project_id)

    def _rename(self, old: StateKey, new: StateKey, workspaces: frozenset[str]) -> None:
        with self._working() as connection, transaction(connection):
            scopes.rename(connection, old, new, workspaces)
            generation.advance(connection)
        self._wholes.pop(old, None)

    def _load(self, target: StateKey, workspaces: frozenset[str]) -> SavedState:
        with self._working() as connection:
            ours = {
                scope.id: scope
                for scope in scopes.scopes_of(connection, target).values()
                if scope.workspace in workspaces
            }
            ledger, released = tables.read_series(connection, target, ours)
            return SavedState(
                tables.read_jobs(connection, target, ours),
                {s.workspace: s.newest for s in ours.values() if s.newest is not None},
                ledger,
                released,
                tables.read_activity(connection, ours),
                frozenset(scope.workspace for scope in ours.values() if scope.unified),
            )

    def _commit(self, target: StateKey, change: StateChange, whole: Whole | None) -> None:
        with self._working() as connection, transaction(connection):
            if self._is_new and whole is not None and target not in self._wholes:
                change = whole()
            _write(connection, target, change)
            generation.advance(connection)
        if whole is not None:
            self._wholes[target] = weakref.ref(whole)

    def _checkpoint(self) -> None:
        """Checkpoint the WAL. If it fails the WAL grows until a commit fails and reports it."""
        before = self._fingerprint
        if self._connection is None or before is None or fingerprint(self._real) != before:
            return
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        found = fingerprint(self._real)
        if found is not None and found[:2] == before[:2]:  # not replaced meanwhile
            self._fingerprint = found

    def _close(self) -> None:
        if self._connection is None and self._fingerprint is None:  # opening it failed
            return
        try:
            with self._working() as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except StateError as error:
            log.warning("%s; nothing is lost if you keep the files beside it", error)
        finally:
            if self._connection is not None:
                self._connection.close()

    @contextlib.contextmanager
    def _working(self) -> Iterator[sqlite3.Connection]:
        """Give the connection; count and explain its errors."""
        try:
            yield self._connected()
        except sqlite3.Error as error:
            self._problem()
            raise StateError(explain(self._path, error)) from error
        except DamagedFileError as error:
            self._problem()
            raise StateError(f"state file {self._path} {error}; restart the exporter") from error

    # --- When the file is lost --------------------------------------------------------------------

    def _connected(self) -> sqlite3.Connection:
        """The connection to the file at its path, written anew if somebody has changed that."""
        found = fingerprint(self._real)
        if self._connection is not None and found != self._fingerprint:
            self._replace(found)
        try:
            if self._connection is None:
                self._open()
        except (ConfigError, StartError) as error:
            self._problem()
            raise StateError(str(error)) from error
        if self._connection is None:
            raise sqlite3.ProgrammingError("not open")
        if self._is_empty:
            with transaction(self._connection):
                for target, reference in self._wholes.items():
                    if whole := reference():
                        _write(self._connection, target, whole())
                generation.advance(self._connection)
            self._is_empty = False
        return self._connection

    def _replace(self, found: tuple[int, ...] | None) -> None:
        """Put a copy in place of the file, or make place for a new file."""
        connection, before = self._connection, self._fingerprint
        if connection is None or before is None:
            return
        overwritten = found is not None and found[:2] == before[:2]
        try:
            aside = rescue(connection, self._real, intact=not overwritten, now=self._clocks.wall())
        except OSError as error:
            self._problem()
            raise StateError(f"state file {self._path}: {error.strerror}") from error
        self._connection, self._is_empty = None, overwritten
        self._is_new = self._is_new or overwritten
        self._problem()
        log.error(
            "state file %s was %s while in use: written anew%s, all counters continue%s",
            self._path,
            "deleted" if found is None else "overwritten" if overwritten else "replaced",
            " from memory" if overwritten else "",
            f"; what was found there is moved to {aside}" if aside else "",
        )


def _write(connection: sqlite3.Connection, target: StateKey, change: StateChange) -> None:
    tables.write_jobs(connection, target, change.jobs)
    tables.forget_jobs(connection, target, change.deleted)
    scopes.write_workspaces(connection, target, change.newest_created, change.unified)
    tables.write_series(connection, target, change.series)
    tables.release_series(connection, target, change.released)
    tables.write_activity(connection, target, change.last_active)
