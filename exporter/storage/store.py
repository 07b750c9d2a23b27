"""Saved state: the jobs and counters of each target, and which series were ever published.

A `Store` commits the changes of a poll atomically, before they are published. So no counter that
was ever scraped falls, and no event is counted twice. Finished jobs are nowhere else: memory has
only open and recent ones. Data of targets and workspaces that are no longer configured is kept, in
case they return.

The store is a SQLite file, or without one a temporary database that ends with the process.
"""

import asyncio
import logging
import sqlite3
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

from exporter.clock import Clocks
from exporter.errors import HistoryLostError, StateError
from exporter.jobs.job import Job
from exporter.jobs.tracked import Base, Group, TrackedJob
from exporter.metrics.counters import Series, SeriesKey
from exporter.storage import counts, generation, jobs, scopes, tables
from exporter.storage.database import Database
from exporter.storage.scopes import StateKey, TargetScopes
from exporter.storage.sqlite import transaction

log = logging.getLogger(__name__)

_T = TypeVar("_T")

CHECK_AFTER_SECONDS = 30.0
"""How long after the start the check of all rows begins, and how long it waits after an error."""
CHECK_PAUSE_SECONDS = 0.05
"""How long it pauses after each step."""


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
        pool_names: by pool ID, the create time of the newest job that has a name for it (unix
            seconds), and that name; new and changed ones.
        verification: by workspace, where the verification of its list is; opaque.
        incomplete: those of the workspaces of ``newest_created`` whose finished jobs were lost.
    """

    jobs: Mapping[str, TrackedJob] = {}
    deleted: Collection[str] = ()
    newest_created: Mapping[str, float] = {}
    series: Mapping[SeriesKey, Series] = {}
    released: Collection[SeriesKey] = ()
    last_active: Mapping[Base, float] = {}
    unified: Collection[str] = ()
    pool_names: Mapping[str, tuple[float, str]] = {}
    verification: Mapping[str, bytes] = {}
    incomplete: Collection[str] = ()


Whole: TypeAlias = Callable[[], StateChange]
"""Returns all that memory has of a target, as it is after a commit. Called in any thread."""


class SavedState(NamedTuple):
    """The saved state of some workspaces of a target. Other names are those of `StateChange`.

    Attributes:
        open: jobs that are not in a terminal phase, by ID.
        recent: finished jobs that ended since a given time, by ID, in the order of their end.
        failures: the last `exporter.jobs.fleet.MAX_FAILURES` jobs that are Failed or Abnormal,
            the one that ended last first.
        finished: the number of finished jobs, by group.
    """

    open: dict[str, TrackedJob]
    recent: dict[str, TrackedJob]
    failures: list[TrackedJob]
    finished: dict[Group, int]
    newest_created: dict[str, float]
    ledger: dict[SeriesKey, Series]
    released: frozenset[SeriesKey]
    last_active: Mapping[Base, float] = {}
    unified: frozenset[str] = frozenset()
    pool_names: Mapping[str, tuple[float, str]] = {}
    verification: Mapping[str, bytes] = {}
    incomplete: frozenset[str] = frozenset()

    def as_change(self) -> StateChange:
        """All of it, as a change of an empty store."""
        failures = {known.job.id: known for known in self.failures}
        return StateChange(
            jobs={**failures, **self.recent, **self.open},
            newest_created=self.newest_created,
            series=self.ledger,
            released=self.released,
            last_active=self.last_active,
            unified=self.unified,
            pool_names=self.pool_names,
        )


class Store:
    """Saves the state of targets, in a thread of its own. Created by `open` or `temporary`.

    What is written or read of a target whose history was lost raises `HistoryLostError`, until its
    state is loaded again.
    """

    def __init__(self, path: Path | None, problem: Callable[[], None], clocks: Clocks) -> None:
        self._database = Database(
            path, problem=problem, clocks=clocks, lost=self._lost, refill=self._refill
        )
        self._clocks = clocks
        self._thread = ThreadPoolExecutor(1, "state")
        self._checking: asyncio.Task[None] | None = None
        self._wholes: dict[StateKey, weakref.ref[Whole]] = {}
        """Those of the last commits. Their targets keep them as long as they exist."""
        self._loaded: dict[StateKey, list[StateChange]] = {}
        """What was loaded, of targets that have not committed since."""
        self._outdated: set[StateKey] = set()
        """Targets whose history was lost and that have not loaded since."""
        self._closed = False

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        problem: Callable[[], None],
        clocks: Clocks = Clocks(),  # noqa: B008 - it is immutable
    ) -> "Store":
        """Open a state file. It is created if it is missing, and moved aside if it is damaged.

        Its rows are checked at once if the last exporter was killed, else in the background.

        Args:
            path: of the file.
            problem: called for every error and every move aside, in the thread of the file.
            clocks: the machine's.

        Raises:
            ConfigError: the path cannot be used, or a newer version wrote the file.
            StartError: another process uses it, or its disk fails.
        """
        return await cls._opened(cls(path, problem, clocks))

    @classmethod
    async def temporary(
        cls,
        *,
        problem: Callable[[], None],
        clocks: Clocks = Clocks(),  # noqa: B008 - it is immutable
    ) -> "Store":
        """Open a store that ends with the process. The arguments are those of `open`."""
        return await cls._opened(cls(None, problem, clocks))

    async def _opened(self) -> "Store":
        try:
            await self._run(self._database.open)
        except BaseException:
            await self.close()
            raise
        self._checking = asyncio.create_task(self._check())
        return self

    async def saved(self, region: str, project_id: str) -> list[tuple[StateKey, str]]:
        """The targets and workspaces of a project that have saved state.

        Raises:
            StateError: it cannot be read.
        """
        return await self._run(self._saved, region, project_id)

    async def rename(self, old: StateKey, new: StateKey, workspaces: Collection[str]) -> None:
        """Give the saved state of some workspaces to another target of the project.

        Raises:
            StateError: nothing was changed.
        """
        await self._run(self._rename, old, new, frozenset(workspaces))

    async def load(
        self, target: StateKey, workspaces: Collection[str], *, recent_since: float
    ) -> SavedState:
        """Load the state of these workspaces.

        Args:
            target: whose state it is.
            workspaces: of the target.
            recent_since: finished jobs are loaded if they ended then or later, unix seconds.

        Raises:
            StateError: it cannot be read.
        """
        return await self._run(self._load, target, frozenset(workspaces), recent_since)

    async def commit(
        self, target: StateKey, change: StateChange, whole: Whole | None = None
    ) -> None:
        """Return when it is saved. A commit is finished even if its caller is cancelled.

        Args:
            target: whose state it is.
            change: what has changed.
            whole: the state with the change, should the file be lost.

        Raises:
            HistoryLostError: the file was lost; what memory has is saved.
            StateError: nothing of it was saved; a later commit may succeed.
        """
        await self._run(self._commit, target, change, whole)
        if not self._closed:  # as expensive as the commit; do not wait for it
            self._thread.submit(self._database.checkpoint)

    async def jobs(
        self,
        target: StateKey,
        ids: Collection[str],
        created: Mapping[str, float | None] = {},
    ) -> dict[str, TrackedJob]:
        """Those of some jobs that are known.

        Args:
            target: whose jobs they are, in any workspace.
            ids: of jobs.
            created: by ID, the create times of those that may be unknown: they are taken for
                unknown only if the index by create time does not have them either.

        Raises:
            StateError: they cannot be read.
        """
        return await self._read(
            target,
            lambda at, ours: jobs.read(at, _ids(ours), ids, created),
        )

    async def unchanged(self, target: StateKey, listed: Mapping[str, Job]) -> set[str]:
        """The IDs of those jobs that are saved exactly as they are; cheaper than `jobs`.

        Raises:
            StateError: they cannot be read.
        """
        return await self._read(target, lambda at, ours: jobs.unchanged(at, _ids(ours), listed))

    async def finished_between(
        self, target: StateKey, workspaces: Collection[str], since: float, until: float
    ) -> dict[Group, int]:
        """The number of finished jobs with ``since <= ended < until`` (unix seconds), by group.

        Raises:
            StateError: they cannot be read.
        """
        return await self._read(
            target,
            lambda at, ours: jobs.finished_between(at, _by_id(ours, workspaces), since, until),
        )

    async def of_unknown_type(
        self, target: StateKey, workspaces: Collection[str], pools: Collection[str]
    ) -> dict[str, TrackedJob]:
        """The finished jobs of some pools whose flavor type is unknown, by ID.

        Raises:
            StateError: they cannot be read.
        """
        return await self._read(
            target, lambda at, ours: jobs.of_unknown_type(at, _by_id(ours, workspaces), pools)
        )

    async def omitted(
        self, target: StateKey, workspace: str, was_read: Callable[[str], bool]
    ) -> dict[str, TrackedJob]:
        """The jobs of a workspace that a reading of its whole list has omitted, by ID.

        Args:
            target: whose jobs they are.
            workspace: of the target.
            was_read: whether the list has a job with an ID; called in the thread of the store.

        Raises:
            StateError: they cannot be read.
        """
        return await self._read_one(
            target, workspace, lambda at, scope: jobs.omitted(at, scope, was_read), {}
        )

    async def start_over(self, target: StateKey, workspaces: Collection[str]) -> None:
        """Forget the jobs of workspaces whose first reading was not completed.

        Raises:
            StateError: nothing was changed.
        """
        await self._run(self._start_over, target, frozenset(workspaces))

    async def count(self, target: StateKey, workspace: str) -> tuple[int, int]:
        """How many jobs are known, and how many of them have no create time.

        Raises:
            StateError: they cannot be read.
        """
        return await self._read_one(target, workspace, counts.count, (0, 0))

    async def count_newer(self, target: StateKey, workspace: str, created: float) -> int:
        """How many known jobs have a create time after this one (unix seconds).

        Raises:
            StateError: they cannot be read.
        """
        return await self._read_one(
            target, workspace, lambda at, scope: jobs.count_newer(at, scope, created), 0
        )

    async def created_at(self, target: StateKey, workspace: str, rank: int) -> float | None:
        """The create time of the known job at a rank, 0 = the newest; None = there are fewer.

        Raises:
            StateError: it cannot be read.
        """
        return await self._read_one(
            target, workspace, lambda at, scope: jobs.created_at(at, scope, rank), None
        )

    async def jobs_between(
        self, target: StateKey, workspace: str, oldest: float, newest: float
    ) -> dict[str, TrackedJob]:
        """The known jobs with ``oldest <= created <= newest`` (unix seconds), by ID.

        Raises:
            StateError: they cannot be read.
        """
        return await self._read_one(
            target, workspace, lambda at, scope: jobs.between(at, scope, oldest, newest), {}
        )

    async def close(self) -> None:
        """Finish pending commits, then close it. Calling it twice is safe."""
        if self._closed:
            return
        self._closed = True
        if self._checking is not None:
            self._checking.cancel()
        try:
            await self._run(self._database.close)
        finally:
            self._thread.shutdown(wait=False)

    async def _check(self) -> None:
        """Check all rows, little by little, between the commits."""
        pause, more = CHECK_AFTER_SECONDS, True
        while more:
            await self._clocks.sleep(pause)
            try:
                more = await self._run(self._database.check_step)
                pause = CHECK_PAUSE_SECONDS
            except StateError as error:
                log.warning("rows not checked: %s", error)
                pause = CHECK_AFTER_SECONDS

    def _run(self, work: Callable[..., _T], *args: Any) -> asyncio.Future[_T]:
        """Run in the thread, after all earlier work, even if the caller is cancelled."""
        loop = asyncio.get_running_loop()
        return asyncio.shield(loop.run_in_executor(self._thread, work, *args))

    def _read(
        self,
        target: StateKey,
        read: Callable[[sqlite3.Connection, dict[str, scopes.Scope]], _T],
    ) -> asyncio.Future[_T]:
        """Read in the thread; gets the scopes of the target by workspace."""

        def work() -> _T:
            with self._working(target) as connection:
                return read(connection, scopes.scopes_of(connection, target))

        return self._run(work)

    def _read_one(
        self,
        target: StateKey,
        workspace: str,
        read: Callable[[sqlite3.Connection, int], _T],
        nothing: _T,
    ) -> asyncio.Future[_T]:
        """Read of one scope; ``nothing`` if there is none."""

        def work(connection: sqlite3.Connection, ours: dict[str, scopes.Scope]) -> _T:
            scope = ours.get(workspace)
            return nothing if scope is None else read(connection, scope.id)

        return self._read(target, work)

    # --- In the thread ----------------------------------------------------------------------------

    @contextmanager
    def _working(self, target: StateKey) -> Iterator[sqlite3.Connection]:
        """Give the connection to a target that knows what is saved."""
        with self._database.working() as connection:
            if target in self._outdated:
                raise HistoryLostError(f"{self._database.name} was written anew")
            yield connection

    def _saved(self, region: str, project_id: str) -> list[tuple[StateKey, str]]:
        with self._database.working() as connection:
            return scopes.scopes_of_project(connection, region, project_id)

    def _rename(self, old: StateKey, new: StateKey, workspaces: frozenset[str]) -> None:
        with self._database.working() as connection, transaction(connection):
            scopes.rename(connection, old, new, workspaces)
            tables.copy_pools(connection, old, new)
            generation.advance(connection)
        if whole := self._wholes.pop(old, None):
            self._wholes[new] = whole
        if loaded := self._loaded.pop(old, None):
            self._loaded[new] = loaded
        if old in self._outdated:
            self._outdated.add(new)

    def _start_over(self, target: StateKey, workspaces: frozenset[str]) -> None:
        with self._working(target) as connection:
            ours = _by_id(scopes.scopes_of(connection, target), workspaces)
            if list(counts.groups_of(connection, ours)):
                with transaction(connection):
                    jobs.forget_all(connection, ours)
                    generation.advance(connection)

    def _load(
        self, target: StateKey, workspaces: frozenset[str], recent_since: float
    ) -> SavedState:
        try:
            saved = self._read_saved(target, workspaces, recent_since)
        except HistoryLostError:  # there is only what was written anew
            saved = self._read_saved(target, workspaces, recent_since)
        if target in self._outdated:
            self._outdated.discard(target)
            self._loaded.pop(target, None)
        if workspaces:
            self._loaded.setdefault(target, []).append(saved.as_change())
        return saved

    def _read_saved(
        self, target: StateKey, workspaces: frozenset[str], recent_since: float
    ) -> SavedState:
        with self._database.working() as connection:
            ours = _by_id(scopes.scopes_of(connection, target), workspaces)
            ledger, released = tables.read_series(connection, target, ours)
            return SavedState(
                *jobs.load(connection, ours, recent_since),
                {s.workspace: s.newest for s in ours.values() if s.newest is not None},
                ledger,
                released,
                tables.read_activity(connection, ours),
                frozenset(scope.workspace for scope in ours.values() if scope.unified),
                tables.read_pools(connection, target),
                {s.workspace: s.verification for s in ours.values() if s.verification},
                frozenset(scope.workspace for scope in ours.values() if scope.incomplete),
            )

    def _commit(self, target: StateKey, change: StateChange, whole: Whole | None) -> None:
        with self._database.working() as connection:
            is_lost = target in self._outdated
            if is_lost and (whole is None or self._memory_of(target)):
                raise HistoryLostError(f"{self._database.name} was written anew from memory")
            with transaction(connection):
                _write(connection, target, _incomplete(whole()) if is_lost and whole else change)
                generation.advance(connection)
        if is_lost:
            raise HistoryLostError(f"{self._database.name} was written anew from memory")
        if whole is not None:
            self._wholes[target] = weakref.ref(whole)
            self._loaded.pop(target, None)

    # --- When the database is lost ----------------------------------------------------------------

    def _memory_of(self, target: StateKey) -> list[StateChange]:
        """What is in memory of a target."""
        reference = self._wholes.get(target)
        whole = reference() if reference else None
        return [*([whole()] if whole else []), *self._loaded.get(target, [])]

    def _lost(self) -> bool:
        """Note that the database is lost. Return whether anything is in memory."""
        self._outdated |= self._wholes.keys() | self._loaded.keys()
        return any(self._memory_of(target) for target in self._outdated)

    def _refill(self, connection: sqlite3.Connection) -> None:
        for target in self._outdated:
            for change in self._memory_of(target):
                _write(connection, target, _incomplete(change))


def _incomplete(change: StateChange) -> StateChange:
    """What memory has, marked as such: finished jobs are missing."""
    return change._replace(incomplete=change.newest_created.keys(), verification={})


def _ids(ours: Mapping[str, scopes.Scope]) -> frozenset[int]:
    return frozenset(scope.id for scope in ours.values())


def _by_id(
    ours: Mapping[str, scopes.Scope], workspaces: Collection[str]
) -> dict[int, scopes.Scope]:
    return {scope.id: scope for name, scope in ours.items() if name in workspaces}


def _write(connection: sqlite3.Connection, target: StateKey, change: StateChange) -> None:
    ours = TargetScopes(connection, target)
    jobs.write(connection, ours, change.jobs)
    jobs.forget(connection, ours, change.deleted)
    scopes.write_workspaces(
        ours, change.newest_created, change.unified, change.incomplete, change.verification
    )
    tables.write_series(connection, ours, change.series)
    tables.release_series(connection, ours, change.released)
    tables.write_activity(connection, ours, change.last_active)
    tables.write_pools(connection, target, change.pool_names)
