"""The searches that a poll needs, and their results combined into one view of the target.

A *sweep* reads everything that the service lists. An *incremental* poll reads, for each workspace,
the jobs in active phases, the newest jobs down to one that is known, and the jobs that were active
and are in neither: its cost depends on what changed, not on what happened in the past. Jobs that it
cannot resolve stay as they were. *Verification* finds, beside the polls, what they do not see
(`exporter.modelarts.verification`). A sweep follows only where that is not possible.

Fine-tuning jobs are listed only where a search asks for them (``unified_jobs``). A workspace that
was read without them changes over in a sweep, which reads both lists: what only the new list shows
was hidden before, and is not new. Until then, incremental polls read the old list. In the other
direction, nothing tells whether a job is deleted or hidden again: it is forgotten.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from exporter.errors import InconsistentPagesError
from exporter.jobs.fleet import Fleet
from exporter.jobs.job import Job, View
from exporter.modelarts.known_jobs import KnownJobs
from exporter.modelarts.missing import SupportedFilters, look_up_missing
from exporter.modelarts.search import SearchResult, Take
from exporter.modelarts.verification.known_list import KnownList
from exporter.modelarts.verification.lists import ListVerifiers, Round
from exporter.modelarts.verification.marks import Verification, oldest_verification
from exporter.modelarts.workspace import FilterRefusedError, JobSource, WorkspaceReader

if TYPE_CHECKING:
    from exporter.jobs.tracked import TrackedJob

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_PLAUSIBLY_DELETED = 50
_PLAUSIBLY_DELETED_SHARE = 0.1
_SAMPLE = 20
_MAX_LOOKUPS = 450
"""Jobs that left the active ones and are looked up in one poll; the next one resolves others."""
_MAX_SUSPECTS = 2000
"""Jobs that no lookup finds and for which a verification reads the list."""
_TRY_AGAIN_SECONDS = 3600.0
"""What was learned about filters is forgotten after so long."""


class Sync:
    """Reads the workspaces of one target.

    Args:
        source: where to read from; each of its workspaces is a search of its own.
        verify_interval: seconds in which every page of the lists should be verified once.
    """

    def __init__(self, source: JobSource, verify_interval: float) -> None:
        self._source = source
        self._verify_interval = verify_interval
        self._verifiers = ListVerifiers(source, verify_interval)
        self._supported = SupportedFilters()
        self._supported_since = source.clock()
        self._totals = _Totals()
        self._sweeping: list[WorkspaceReader] = []

    @property
    def sweep_progress(self) -> tuple[int, int]:
        """Jobs read by the current sweep so far, and the total reported by the service."""
        results = [reader.latest_search for reader in self._sweeping if reader.latest_search]
        return (
            sum(len(result.ids) for result in results),
            sum(result.total or 0 for result in results),
        )

    def needs_sweep(self, view: View, fleet: Fleet) -> bool:
        """Whether a sweep is needed.

        A workspace is to be read with fine-tuning jobs from now on, or no longer. Or its list
        cannot be verified, and jobs are unresolved, the service's totals disagree, or nothing was
        verified for long. ``view`` is of a poll or a verification, ``fleet`` is everything known
        after it.
        """
        requested = self._source.unified.requested
        if any((each in fleet.unified) != requested for each in self._source.workspaces):
            return True
        unverifiable = self._verifiers.unverifiable.keys()
        if not unverifiable:
            return False
        oldest = oldest_verification(fleet.verification, unverifiable)
        return (
            bool(view.unresolved)
            or self._totals.disagree(view, fleet, unverifiable)
            or oldest is None
            or oldest < self._source.clock() - self._verify_interval
        )

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

    async def incremental(self, fleet: Fleet, known: KnownJobs, *, deadline: float) -> View:
        """Read what may have changed.

        Args:
            fleet: everything known.
            known: looks up jobs that the fleet does not keep.
            deadline: monotonic seconds.

        Raises:
            PollError: something could not be read; there is no partial view.
        """
        active = _group_by_workspace(each.job for each in fleet.open.values())

        async def read_workspace(workspace: str) -> tuple[WorkspaceReader, SearchResult]:
            reader = WorkspaceReader(
                self._source, workspace, deadline=deadline, unified=workspace in fleet.unified
            )
            newest = await self._read_changes(reader, fleet, known, active.get(workspace, []))
            return reader, newest

        if self._source.clock() - self._supported_since >= _TRY_AGAIN_SECONDS:
            self._try_filters_again()
        with self._source.client.urgent():
            return _combine(await _gather(map(read_workspace, self._source.workspaces)))

    async def sweep(
        self,
        fleet: Fleet,
        known: KnownJobs,
        *,
        deadline: float,
        background: bool,
        is_superseded: Callable[[str], bool] = lambda _: False,
        take: Callable[[str], Take | None] = lambda _: None,
    ) -> View:
        """Read everything that the target lists, and resolve jobs that are missing from it.

        Args:
            fleet: everything known when the sweep begins.
            known: looks up jobs that the fleet does not keep.
            deadline: monotonic seconds.
            background: incremental polls continue during the sweep, and go first.
            is_superseded: whether such a poll has read a job since, by ID.
            take: for a workspace, takes jobs that the view need not have.

        Raises:
            PollError: something could not be read; there is no partial view.
        """
        started = self._source.clock()
        self._try_filters_again()
        if fleet.unified:
            self._source.unified.rejected = None  # much depends on it: make sure
        self._source.unified.try_again(self._source.clock())

        async def read_workspace(workspace: str) -> tuple[WorkspaceReader, SearchResult]:
            reader = WorkspaceReader(
                self._source,
                workspace,
                deadline=deadline,
                background=background,
                unified=True,
                take=take(workspace),
            )
            self._sweeping.append(reader)
            result = await reader.read_all()
            if result.unified and workspace in fleet.newest_created.keys() - fleet.unified:
                before = await reader.read_without_fine_tuning()
                reader.hidden = {job_id for job_id in result.jobs if job_id not in before.ids}
            omitted: Mapping[str, TrackedJob] = {}
            if fleet.listed.get(workspace):
                omitted = await known.omitted(
                    workspace, lambda job_id: is_superseded(job_id) or reader.has_read(job_id)
                )
            if workspace in fleet.unified and not result.unified:
                reader.forgotten = set(omitted)
            else:
                missing = [each.job for each in omitted.values()]
                await self._resolve_missing(reader, missing, fleet, result)
            return reader, result

        try:
            readings = await _gather(map(read_workspace, self._source.workspaces))
        finally:
            self._sweeping = []
        return await asyncio.to_thread(self._finish_sweep, readings, started)  # slow for many jobs

    async def verify(
        self, fleet: Fleet, lists: Callable[[str], KnownList], view: View, *, deadline: float
    ) -> tuple[View, bool]:
        """Look for changes that incremental polls do not see, where the lists differ.

        Args:
            fleet: everything known.
            lists: the known jobs of a workspace, in the order of its list.
            view: of the incremental poll before.
            deadline: monotonic seconds.

        Returns:
            What was read, and whether a sweep must follow.

        Raises:
            PollError: something could not be read; there is no partial view.
        """
        await self._ask_for_unified_again(deadline)
        suspects = _group_by_workspace(
            fleet.open[job_id].job for job_id in view.unresolved if job_id in fleet.open
        )
        rounds = await _gather(
            self._verifiers.verify(
                workspace,
                fleet,
                lists(workspace),
                self._supported,
                totals=view.totals.get(workspace, {}),
                suspects=suspects.get(workspace, [])[:_MAX_SUSPECTS],
                deadline=deadline,
            )
            for workspace in self._source.workspaces
        )
        for _, findings in rounds:
            if findings.reason:
                log.debug("list not verified: %s", findings.reason)
        return _view_of(rounds, fleet), any(each.verdict == "sweep" for _, each in rounds)

    def _try_filters_again(self) -> None:
        self._supported = SupportedFilters()
        self._supported_since = self._source.clock()

    async def _ask_for_unified_again(self, deadline: float) -> None:
        """Find out with one request whether fine-tuning jobs can be asked for by now."""
        unified = self._source.unified
        if unified.try_again(self._source.clock()):
            reader = WorkspaceReader(
                self._source,
                self._source.workspaces[0],
                deadline=deadline,
                background=True,
                unified=True,
            )
            await reader.read_page()

    def _finish_sweep(
        self, readings: Sequence[tuple[WorkspaceReader, SearchResult]], started: float
    ) -> View:
        view = _combine(readings)
        view = view._replace(
            unified={reader.workspace: result.unified for reader, result in readings},
            verification=dict.fromkeys(
                self._source.workspaces, Verification.complete(started).encode()
            ),
        )
        self._verifiers.swept()
        self._totals.learn(view, _listed(readings))
        return view

    async def _read_changes(
        self, reader: WorkspaceReader, fleet: Fleet, known: KnownJobs, active: Sequence[Job]
    ) -> SearchResult:
        if self._supported.by_phase:
            try:
                await reader.read_active()
            except FilterRefusedError:
                self._supported.by_phase = False
        newest = await reader.read_newest(known.find, fleet.newest_created[reader.workspace])
        missing = [job for job in active if job.id not in reader.jobs]
        unresolved = missing[_MAX_LOOKUPS:] + await look_up_missing(
            reader, missing[:_MAX_LOOKUPS], self._supported, witness=newest.witness
        )
        reader.unresolved.update(job.id for job in unresolved)
        if reader.workspace in fleet.unified and not reader.unified:
            # A search did not ask for fine-tuning jobs: those that are missing may only be hidden.
            reader.unresolved |= reader.deleted
            reader.deleted.clear()
        return newest

    async def _resolve_missing(
        self, reader: WorkspaceReader, missing: list[Job], fleet: Fleet, result: SearchResult
    ) -> None:
        """Find out whether known jobs that a sweep did not return are deleted."""
        expected = fleet.listed.get(reader.workspace, 0)
        if len(missing) <= max(_PLAUSIBLY_DELETED, _PLAUSIBLY_DELETED_SHARE * expected):
            await self._resolve(reader, missing, result.witness)
            return
        # So many at once: more likely the list was incomplete. Read it again, and look up a sample;
        # a single job that still exists proves that the others may exist too.
        await reader.read_all()
        missing = [job for job in missing if not reader.has_read(job.id)]
        sample = missing[:: max(1, len(missing) // _SAMPLE)]
        await self._resolve(reader, sample, result.witness)
        if any(job.id in reader.jobs for job in sample):
            raise InconsistentPagesError(
                f"the service listed {len(result.ids)} jobs and omitted others that exist"
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
                unresolved = [job for job in unresolved if not reader.has_read(job.id)]
        if not reader.undecodable:
            reader.deleted.update(job.id for job in unresolved)


class _Totals:
    """The reported totals that are reliable, as proved by sweeps."""

    def __init__(self) -> None:
        self._reliable: dict[str, str] = {}

    def learn(self, view: View, listed: Mapping[str, int]) -> None:
        """Compare the totals of a sweep with the number of jobs it found in each workspace."""
        self._reliable = {
            workspace: next((name for name, n in totals.items() if n == listed[workspace]), "")
            for workspace, totals in view.totals.items()
        }

    def disagree(self, view: View, fleet: Fleet, workspaces: Collection[str]) -> bool:
        """Whether a reliable total of some workspaces differs from the number of known jobs."""
        return any(
            view.totals[workspace][name] != fleet.listed.get(workspace, 0)
            for workspace, name in self._reliable.items()
            if name and workspace in workspaces and workspace in view.totals
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
        if not _is_placed(job_id, readings)
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
        read=sum(max(len(result.ids), len(reader.jobs)) for reader, result in readings),
        undecodable=frozenset().union(*(reader.undecodable for reader in readers)),
        without_phase=frozenset().union(*(reader.without_phase for reader in readers)),
        problems=tuple(problem for reader in readers for problem in reader.problems),
        unresolved=frozenset().union(*(reader.unresolved for reader in readers)) - jobs.keys(),
        requests=sum(reader.requests for reader in readers),
        hidden=frozenset().union(*(reader.hidden for reader in readers)),
        forgotten=frozenset().union(*(reader.forgotten for reader in readers)) - jobs.keys(),
    )


def _view_of(rounds: Sequence[Round], fleet: Fleet) -> View:
    """Return what a verification has read, as a view."""
    readers = [reader for reader, _ in rounds]
    jobs = {
        job_id: job
        for reader in readers
        for job_id, job in reader.jobs.items()
        if job_id not in reader.misplaced
    }
    return View(
        jobs=jobs,
        deleted=frozenset().union(*(reader.deleted for reader in readers)) - jobs.keys(),
        read=len(jobs),
        without_phase=frozenset().union(*(reader.without_phase for reader in readers)),
        problems=tuple(problem for reader in readers for problem in reader.problems),
        unresolved=frozenset().union(*(reader.unresolved for reader in readers)) - jobs.keys(),
        requests=sum(reader.requests for reader in readers),
        verification={
            reader.workspace: after
            for reader, findings in rounds
            if (after := findings.verification.encode()) != fleet.verification.get(reader.workspace)
        },
    )


def _listed(readings: Sequence[tuple[WorkspaceReader, SearchResult]]) -> dict[str, int]:
    """The number of jobs by workspace; one that several workspaces list counts where it belongs."""
    return {
        reader.workspace: len(result.ids)
        - len(result.undecodable)
        - sum(_is_placed(job_id, readings) for job_id in reader.misplaced)
        for reader, result in readings
    }


def _is_placed(job_id: str, readings: Sequence[tuple[WorkspaceReader, SearchResult]]) -> bool:
    """Whether the workspace that a job belongs to lists it."""
    return any(reader.has_read(job_id) and job_id not in reader.misplaced for reader, _ in readings)


def _group_by_workspace(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.workspace, []).append(job)
    return groups
