"""Which searches a poll needs, and their results put together as one view of the target.

A *sweep* reads everything that the service lists. An *incremental* poll reads, for each workspace,
the jobs in active phases, the newest jobs down to known ground, and the jobs that were active and
are in neither: it costs what has changed, not what has happened in the past. What it cannot decide
is left as it was, and asks for a sweep.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from exporter.errors import InconsistentPagesError
from exporter.jobs.job import TERMINAL, Job, View
from exporter.jobs.tracker import Fleet, TrackedJob
from exporter.modelarts.missing import SupportedFilters, confirm
from exporter.modelarts.search import SearchResult
from exporter.modelarts.workspace import FilterRefusedError, JobSource, WorkspaceReader

_MANY = 50
_MANY_SHARE = 0.1
_SAMPLE = 20
_MOST_LEFT = 450
"""So many jobs that are not active any more are asked for at once; more are left to a sweep."""


class Sync:
    """Reads the workspaces of one target.

    Args:
        source: where from; each of its workspaces is one search.
    """

    def __init__(self, source: JobSource) -> None:
        self._source = source
        self._honoured = SupportedFilters()
        self._totals = _Totals()
        self._sweeping: list[WorkspaceReader] = []

    @property
    def swept(self) -> tuple[int, int]:
        """Jobs that a sweep has read so far; how many there are, as the service says."""
        searches = [reading.under_way for reading in self._sweeping if reading.under_way]
        return (
            sum(len(found.jobs) for found in searches),
            sum(found.total or 0 for found in searches),
        )

    def doubts(self, view: View, fleet: Fleet) -> bool:
        """Whether only a sweep can tell: of jobs that are undecided, or since totals deny them.

        Args:
            view: of an incremental poll.
            fleet: what is known after it.
        """
        return bool(view.undecided) or self._totals.deny(view, fleet)

    async def incremental(self, fleet: Fleet, *, deadline: float) -> View:
        """Read what may have changed.

        Args:
            fleet: what is known.
            deadline: monotonic seconds.

        Raises:
            PollError: something could not be read; there is no partial view.
        """
        watched = _by_workspace(
            known.job for known in fleet.jobs.values() if known.job.phase not in TERMINAL
        )

        async def read(workspace: str) -> tuple[WorkspaceReader, SearchResult]:
            reading = WorkspaceReader(self._source, workspace, deadline=deadline)
            newest = await self._changes(reading, fleet, watched.get(workspace, []))
            return reading, newest

        with self._source.client.urgent():
            return _view(await _all(read(workspace) for workspace in self._source.workspaces))

    async def sweep(
        self,
        fleet: Fleet,
        *,
        deadline: float,
        background: bool,
        is_superseded: Callable[[str], bool] = lambda _: False,
    ) -> View:
        """Read everything that the target lists, and find out what became of the rest.

        Args:
            fleet: what is known when it begins.
            deadline: monotonic seconds.
            background: incremental polls go on meanwhile, and first.
            is_superseded: whether such a poll has read a job since, by ID.

        Raises:
            PollError: something could not be read; there is no partial view.
        """
        self._honoured = SupportedFilters()
        held = fleet.jobs
        known = _by_workspace(known.job for known in held.values())

        async def read(workspace: str) -> tuple[WorkspaceReader, SearchResult]:
            reading = WorkspaceReader(
                self._source,
                workspace,
                deadline=deadline,
                background=background,
                reuse=lambda job: _held(held, job),
            )
            self._sweeping.append(reading)
            found = await reading.everything()
            left = [job for job in known.get(workspace, []) if not is_superseded(job.id)]
            await self._missing(reading, left, found)
            return reading, found

        try:
            done = await _all(read(workspace) for workspace in self._source.workspaces)
        finally:
            self._sweeping = []
        return await asyncio.to_thread(self._whole, done)  # it takes a while for many jobs

    def _whole(self, read: Sequence[tuple[WorkspaceReader, SearchResult]]) -> View:
        view = _view(read)
        self._totals.learn(view)
        return view

    async def _changes(
        self, reading: WorkspaceReader, fleet: Fleet, watched: Sequence[Job]
    ) -> SearchResult:
        if self._honoured.by_phase:
            try:
                await reading.active()
            except FilterRefusedError:
                self._honoured.by_phase = False
        horizon = fleet.horizons[reading.workspace]

        def on_known_ground(job_id: str) -> bool:
            known = fleet.jobs.get(job_id)
            created = None if known is None else known.job.created
            return created is not None and created < horizon

        newest = await reading.newest(on_known_ground)
        left = [job for job in watched if job.id not in reading.jobs]
        undecided = left[_MOST_LEFT:] + await confirm(
            reading, left[:_MOST_LEFT], self._honoured, witness=_first(newest)
        )
        reading.undecided.update(job.id for job in undecided)
        return newest

    async def _missing(
        self, reading: WorkspaceReader, known: Sequence[Job], found: SearchResult
    ) -> None:
        """What became of jobs that a sweep did not bring."""
        missing = [job for job in known if job.id not in reading.jobs]
        if len(missing) <= max(_MANY, _MANY_SHARE * len(known)):
            await self._confirm(reading, missing, _first(found))
            return
        # So many at once: more likely is that we were not shown everything. Look again, and ask for
        # some of them by name; one that is there after all disproves the rest.
        await reading.everything()
        missing = [job for job in missing if job.id not in reading.jobs]
        sample = missing[:: max(1, len(missing) // _SAMPLE)]
        await self._confirm(reading, sample, _first(found))
        if any(job.id in reading.jobs for job in sample):
            raise InconsistentPagesError(
                f"the service listed {len(found.jobs)} jobs and left out others that are there"
            )
        if not reading.broken:
            reading.gone.update(job.id for job in missing)

    async def _confirm(
        self, reading: WorkspaceReader, jobs: Sequence[Job], witness: Job | None
    ) -> None:
        """Find out what became of jobs; if nothing else helps, by reading the whole list again."""
        undecided = await confirm(reading, jobs, self._honoured, witness=witness)
        for _ in range(2):
            if undecided:
                await reading.everything()
                undecided = [job for job in undecided if job.id not in reading.jobs]
        if not reading.broken:
            reading.gone.update(job.id for job in undecided)


class _Totals:
    """Which of the totals of a search tell the number of listed jobs, as sweeps have shown."""

    def __init__(self) -> None:
        self._honest: dict[str, str] = {}

    def learn(self, view: View) -> None:
        """Compare the totals of a sweep with what it has found."""
        listed = _numbers(view.jobs.values())
        self._honest = {
            workspace: next(
                (
                    name
                    for name, total in totals.items()
                    if total is not None and total == listed.get(workspace, 0)
                ),
                "",
            )
            for workspace, totals in view.totals.items()
        }

    def deny(self, view: View, fleet: Fleet) -> bool:
        """Whether an honest total differs from the number of jobs known."""
        listed = _numbers(known.job for known in fleet.jobs.values())
        return any(
            view.totals[workspace][name] != listed.get(workspace, 0)
            for workspace, name in self._honest.items()
            if name and workspace in view.totals
        )


def _numbers(jobs: Iterable[Job]) -> Mapping[str, int]:
    numbers: dict[str, int] = {}
    for job in jobs:
        numbers[job.workspace] = numbers.get(job.workspace, 0) + 1
    return numbers


# --- Putting readings together --------------------------------------------------------------------


async def _all(
    reads: Iterable[Awaitable[tuple[WorkspaceReader, SearchResult]]],
) -> list[tuple[WorkspaceReader, SearchResult]]:
    """All at once; the first failure ends them all.

    Not as a `asyncio.TaskGroup`: before Python 3.13, one that fails just when it is cancelled
    forgets that it is, and a poll that should end goes on.
    """
    tasks = [asyncio.create_task(_coroutine(read)) for read in reads]
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


async def _coroutine(
    read: Awaitable[tuple[WorkspaceReader, SearchResult]],
) -> tuple[WorkspaceReader, SearchResult]:
    return await read


def _view(read: Sequence[tuple[WorkspaceReader, SearchResult]]) -> View:
    """The view of a target.

    Args:
        read: of each workspace all that was read, and the search that was whole from the top.
    """
    readings = [reading for reading, _ in read]
    jobs = {job_id: job for reading in readings for job_id, job in reading.jobs.items()}
    return View(
        jobs=jobs,
        gone=frozenset().union(*(reading.gone for reading in readings)) - jobs.keys(),
        horizons={reading.workspace: found.newest for reading, found in read},
        totals={
            reading.workspace: {"count": found.count, "total": found.total}
            for reading, found in read
        },
        broken=frozenset().union(*(reading.broken for reading in readings)),
        vague=frozenset().union(*(reading.vague for reading in readings)),
        problems=tuple(problem for reading in readings for problem in reading.problems),
        undecided=frozenset().union(*(reading.undecided for reading in readings)) - jobs.keys(),
        requests=sum(reading.requests for reading in readings),
    )


def _by_workspace(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    sorted_: dict[str, list[Job]] = {}
    for job in jobs:
        sorted_.setdefault(job.workspace, []).append(job)
    return sorted_


def _held(held: Mapping[str, TrackedJob], job: Job) -> Job:
    """The equal job that is held already: one copy in memory is enough."""
    known = held.get(job.id)
    return known.job if known is not None and known.job == job else job


def _first(found: SearchResult) -> Job | None:
    """Any job of a search."""
    return next(iter(found.jobs.values()), None)
