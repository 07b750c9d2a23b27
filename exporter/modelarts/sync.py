"""The searches that a poll needs, and their results combined into one view of the target.

A *sweep* reads everything that the service lists. An *incremental* poll reads, for each workspace,
the jobs in active phases, the newest jobs down to one that is known, and the jobs that were active
and are in neither: its cost depends on what changed, not on what happened in the past. Jobs that it
cannot resolve stay as they were, and a sweep follows.

Fine-tuning jobs are listed only where a search asks for them (``unified_jobs``). A workspace that
was read without them changes over in a sweep, which reads both lists: what only the new list shows
was hidden before, and is not new. Until then, incremental polls read the old list. In the other
direction, nothing tells whether a job is deleted or hidden again: it is forgotten.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from exporter.errors import InconsistentPagesError
from exporter.jobs.job import TERMINAL, Job, View
from exporter.jobs.tracked import Fleet, TrackedJob
from exporter.modelarts.missing import SupportedFilters, look_up_missing
from exporter.modelarts.search import SearchResult
from exporter.modelarts.workspace import FilterRefusedError, JobSource, WorkspaceReader

_T = TypeVar("_T")

_PLAUSIBLY_DELETED = 50
_PLAUSIBLY_DELETED_SHARE = 0.1
_SAMPLE = 20
_MAX_LOOKUPS = 450
"""Jobs that left the active ones and are looked up in one poll; a sweep resolves any others."""


class Sync:
    """Reads the workspaces of one target.

    Args:
        source: where to read from; each of its workspaces is a search of its own.
    """

    def __init__(self, source: JobSource) -> None:
        self._source = source
        self._supported = SupportedFilters()
        self._totals = _Totals()
        self._sweeping: list[WorkspaceReader] = []

    @property
    def sweep_progress(self) -> tuple[int, int]:
        """Jobs read by the current sweep so far, and the total reported by the service."""
        results = [reader.latest_search for reader in self._sweeping if reader.latest_search]
        return (
            sum(len(result.jobs) for result in results),
            sum(result.total or 0 for result in results),
        )

    def needs_sweep(self, view: View, fleet: Fleet) -> bool:
        """Whether a sweep is needed.

        Jobs are unresolved, the service's totals disagree, or a workspace is to be read with
        fine-tuning jobs from now on, or no longer. ``view`` is of an incremental poll, ``fleet`` is
        everything known after it.
        """
        requested = self._source.unified.requested
        changes_over = any(
            (workspace in fleet.unified) != requested for workspace in self._source.workspaces
        )
        return changes_over or bool(view.unresolved) or self._totals.disagree(view, fleet)

    async def first_pages(self, *, deadline: float) -> list[SearchResult]:
        """Read one page of each workspace.

        Raises:
            PollError: a page could not be read.
        """
        readers = [
            WorkspaceReader(self._source, workspace, deadline=deadline, unified=True)
            for workspace in self._source.workspaces
        ]
        return await _gather(reader.read_page() for reader in readers)

    async def incremental(self, fleet: Fleet, *, deadline: float) -> View:
        """Read what may have changed.

        Args:
            fleet: everything known.
            deadline: monotonic seconds.

        Raises:
            PollError: something could not be read; there is no partial view.
        """
        active = _group_by_workspace(
            known.job for known in fleet.jobs.values() if known.job.phase not in TERMINAL
        )

        async def read_workspace(workspace: str) -> tuple[WorkspaceReader, SearchResult]:
            reader = WorkspaceReader(
                self._source, workspace, deadline=deadline, unified=workspace in fleet.unified
            )
            newest = await self._read_changes(reader, fleet, active.get(workspace, []))
            return reader, newest

        with self._source.client.urgent():
            return _combine(await _gather(map(read_workspace, self._source.workspaces)))

    async def sweep(
        self,
        fleet: Fleet,
        *,
        deadline: float,
        background: bool,
        is_superseded: Callable[[str], bool] = lambda _: False,
    ) -> View:
        """Read everything that the target lists, and resolve jobs that are missing from it.

        Args:
            fleet: everything known when the sweep begins.
            deadline: monotonic seconds.
            background: incremental polls continue during the sweep, and go first.
            is_superseded: whether such a poll has read a job since, by ID.

        Raises:
            PollError: something could not be read; there is no partial view.
        """
        self._supported = SupportedFilters()
        if fleet.unified:
            self._source.unified.rejected = None  # much depends on it: make sure
        self._source.unified.try_again(self._source.clock())
        known_jobs = _group_by_workspace(known.job for known in fleet.jobs.values())

        async def read_workspace(workspace: str) -> tuple[WorkspaceReader, SearchResult]:
            reader = WorkspaceReader(
                self._source,
                workspace,
                deadline=deadline,
                background=background,
                unified=True,
                reuse=lambda job: _reuse_known(fleet.jobs, job),
            )
            self._sweeping.append(reader)
            result = await reader.read_all()
            if result.unified and workspace in fleet.newest_created.keys() - fleet.unified:
                before = await reader.read_without_fine_tuning()
                reader.hidden = result.jobs.keys() - before.jobs.keys()
            expected = [job for job in known_jobs.get(workspace, []) if not is_superseded(job.id)]
            if workspace in fleet.unified and not result.unified:
                reader.forgotten = {job.id for job in expected} - reader.jobs.keys()
            else:
                await self._resolve_missing(reader, expected, result)
            return reader, result

        try:
            readings = await _gather(map(read_workspace, self._source.workspaces))
        finally:
            self._sweeping = []
        return await asyncio.to_thread(self._finish_sweep, readings)  # slow for many jobs

    def _finish_sweep(self, readings: Sequence[tuple[WorkspaceReader, SearchResult]]) -> View:
        view = _combine(readings)
        view = view._replace(
            unified={reader.workspace: result.unified for reader, result in readings}
        )
        self._totals.learn(view)
        return view

    async def _read_changes(
        self, reader: WorkspaceReader, fleet: Fleet, active: Sequence[Job]
    ) -> SearchResult:
        if self._supported.by_phase:
            try:
                await reader.read_active()
            except FilterRefusedError:
                self._supported.by_phase = False
        newest_before = fleet.newest_created[reader.workspace]

        def is_known(job_id: str) -> bool:
            known = fleet.jobs.get(job_id)
            created = None if known is None else known.job.created
            return created is not None and created < newest_before

        newest = await reader.read_newest(is_known)
        missing = [job for job in active if job.id not in reader.jobs]
        unresolved = missing[_MAX_LOOKUPS:] + await look_up_missing(
            reader, missing[:_MAX_LOOKUPS], self._supported, witness=_any_job(newest)
        )
        reader.unresolved.update(job.id for job in unresolved)
        if reader.workspace in fleet.unified and not reader.unified:
            # A search did not ask for fine-tuning jobs: those that are missing may only be hidden.
            reader.unresolved |= reader.deleted
            reader.deleted.clear()
        return newest

    async def _resolve_missing(
        self, reader: WorkspaceReader, expected: Sequence[Job], result: SearchResult
    ) -> None:
        """Find out whether known jobs that a sweep did not return are deleted."""
        missing = [job for job in expected if job.id not in reader.jobs]
        if len(missing) <= max(_PLAUSIBLY_DELETED, _PLAUSIBLY_DELETED_SHARE * len(expected)):
            await self._resolve(reader, missing, _any_job(result))
            return
        # So many at once: more likely the list was incomplete. Read it again, and look up a sample;
        # a single job that still exists proves that the others may exist too.
        await reader.read_all()
        missing = [job for job in missing if job.id not in reader.jobs]
        sample = missing[:: max(1, len(missing) // _SAMPLE)]
        await self._resolve(reader, sample, _any_job(result))
        if any(job.id in reader.jobs for job in sample):
            raise InconsistentPagesError(
                f"the service listed {len(result.jobs)} jobs and omitted others that exist"
            )
        if not reader.undecodable:
            reader.deleted.update(job.id for job in missing)

    async def _resolve(
        self, reader: WorkspaceReader, jobs: Sequence[Job], witness: Job | None
    ) -> None:
        """Find out whether jobs are deleted; as a last resort by reading the whole list again."""
        unresolved = await look_up_missing(reader, jobs, self._supported, witness=witness)
        for _ in range(2):
            if unresolved:
                await reader.read_all()
                unresolved = [job for job in unresolved if job.id not in reader.jobs]
        if not reader.undecodable:
            reader.deleted.update(job.id for job in unresolved)


class _Totals:
    """The reported totals that are reliable, as proved by sweeps."""

    def __init__(self) -> None:
        self._reliable: dict[str, str] = {}

    def learn(self, view: View) -> None:
        """Compare the totals of a sweep with the jobs it found."""
        listed = Counter(job.workspace for job in view.jobs.values())
        self._reliable = {
            workspace: next((name for name, n in totals.items() if n == listed[workspace]), "")
            for workspace, totals in view.totals.items()
        }

    def disagree(self, view: View, fleet: Fleet) -> bool:
        """Whether a reliable total differs from the number of known jobs."""
        listed = Counter(known.job.workspace for known in fleet.jobs.values())
        return any(
            view.totals[workspace][name] != listed[workspace]
            for workspace, name in self._reliable.items()
            if name and workspace in view.totals
        )


# --- Combining the readings -----------------------------------------------------------------------


async def _gather(coroutines: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Run all at once; the first failure cancels the others.

    Not an `asyncio.TaskGroup`: before Python 3.13, a task that fails just when it is cancelled
    makes the group forget the cancellation, and a poll that should end goes on.
    """
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _combine(readings: Sequence[tuple[WorkspaceReader, SearchResult]]) -> View:
    """Return the view of a target.

    Args:
        readings: for each workspace its reader, and the search that was complete from the top.
    """
    readers = [reader for reader, _ in readings]
    jobs = {
        job_id: reader.jobs[job_id]
        for reader in readers
        for job_id in reader.misplaced & reader.jobs.keys()
    }
    for reader in readers:
        if reader.misplaced:
            jobs |= {key: job for key, job in reader.jobs.items() if key not in reader.misplaced}
        else:
            jobs |= reader.jobs
    return View(
        jobs=jobs,
        deleted=frozenset().union(*(reader.deleted for reader in readers)) - jobs.keys(),
        newest_created={reader.workspace: result.newest_created for reader, result in readings},
        totals={
            reader.workspace: {"count": result.count, "total": result.total}
            for reader, result in readings
        },
        undecodable=frozenset().union(*(reader.undecodable for reader in readers)),
        without_phase=frozenset().union(*(reader.without_phase for reader in readers)),
        problems=tuple(problem for reader in readers for problem in reader.problems),
        unresolved=frozenset().union(*(reader.unresolved for reader in readers)) - jobs.keys(),
        requests=sum(reader.requests for reader in readers),
        hidden=frozenset().union(*(reader.hidden for reader in readers)),
        forgotten=frozenset().union(*(reader.forgotten for reader in readers)) - jobs.keys(),
    )


def _group_by_workspace(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.workspace, []).append(job)
    return groups


def _reuse_known(known_jobs: Mapping[str, TrackedJob], job: Job) -> Job:
    """Return the equal job already in memory, if any: one copy is enough."""
    known = known_jobs.get(job.id)
    return known.job if known is not None and known.job == job else job


def _any_job(result: SearchResult) -> Job | None:
    return next(iter(result.jobs.values()), None)
