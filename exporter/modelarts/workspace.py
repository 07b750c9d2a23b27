"""What one poll reads of one workspace, whichever searches it takes."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from exporter.errors import InvalidResponseError, RejectedError
from exporter.jobs.job import ACTIVE, TERMINAL, Job, JobPage, Problem
from exporter.modelarts.client import Client
from exporter.modelarts.decode.jobs import decode_job
from exporter.modelarts.search import Filter, FilterIgnoredError, Paging, Search, SearchResult

_NOT_FOUND = "ModelArts.2775"
_BAD_REQUEST = 400

ACTIVE_FILTER = Filter(
    "phase",
    "in",
    tuple(sorted(ACTIVE)),
    # A phase that nobody knows is as good as active: the job is watched until it ends.
    lambda job: job.phase not in TERMINAL,
)


class PageMeter(Protocol):
    """Is told what paging had to put up with."""

    def paged(self, *, duplicates: int, inconsistent: int) -> None:
        """Count jobs seen twice in one search, and pages that contradicted the ones before."""


class JobSource(NamedTuple):
    """Where a target's jobs are read from.

    Attributes:
        client: its API.
        paging: what ``offset`` means there.
        workspaces: workspace ids; a job that names another belongs to the one that was searched.
        meter: is told about paging, also when a search fails.
        clock: unix seconds.
    """

    client: Client
    paging: Paging
    workspaces: tuple[str, ...]
    meter: PageMeter
    clock: Callable[[], float]


class FilterRefusedError(Exception):
    """The service does not honour a filter: it rejects it, or answers as if it were not there."""


def _itself(job: Job) -> Job:
    return job


class WorkspaceReader:
    """Reads one workspace; what was read later wins.

    Args:
        source: the target's.
        workspace: workspace id.
        deadline: monotonic seconds for all of it.
        background: lets polls that are urgent go first.
        reuse: gives the job that is held already where an equal one was read.

    Attributes:
        jobs: all that were read, by id.
        gone: ids of jobs that the service said are not there.
        broken: ``#`` and a hash for every item without a usable id.
        vague: ids of jobs without a usable phase.
        problems: fields that were unusable or undocumented.
        undecided: ids of jobs of which nothing could be found out.
        requests: how many it took.
        under_way: what the latest search has found so far.
    """

    def __init__(
        self,
        source: JobSource,
        workspace: str,
        *,
        deadline: float,
        background: bool = False,
        reuse: Callable[[Job], Job] = _itself,
    ) -> None:
        self.workspace = workspace
        self.jobs: dict[str, Job] = {}
        self.gone: set[str] = set()
        self.broken: set[str] = set()
        self.vague: set[str] = set()
        self.problems: list[Problem] = []
        self.undecided: set[str] = set()
        self.requests = 0
        self.under_way: SearchResult | None = None
        self._source = source
        self._deadline = deadline
        self._background = background
        self._reuse = reuse

    async def everything(self) -> SearchResult:
        """All jobs that the service lists.

        Raises:
            PollError: it could not be read as a whole.
        """
        search = self._search()
        return await self._ran(search, search.everything())

    async def newest(self, known: Callable[[str], bool]) -> SearchResult:
        """The newest jobs, down to the first page with a job that is ``known`` by its id."""
        search = self._search()
        return await self._ran(search, search.newest(known))

    async def active(self) -> SearchResult:
        """Jobs in an active phase.

        Raises:
            FilterRefusedError: the service does not filter by phase.
            PollError: it could not be read as a whole.
        """
        return await self._matching(ACTIVE_FILTER)

    async def by_ids(self, ids: Sequence[str]) -> SearchResult:
        """Jobs by id, at most ten; raises as `active`."""
        wanted = frozenset(ids)
        return await self._matching(Filter("id", "in", tuple(ids), lambda job: job.id in wanted))

    async def by_name(self, name: str) -> SearchResult | None:
        """Jobs whose name contains ``name``, None if there are too many; raises as `active`."""
        folded = name.casefold()
        found = await self._matching(
            Filter("name", "like", (name,), lambda job: folded in job.name.casefold()), pages=1
        )
        return found if found.ended else None

    async def get(self, job_id: str) -> bool:
        """Ask for a single job; whether the service has it.

        Raises:
            Forbidden: the permission for that call is missing.
            PollError: the service did not answer the question.
        """
        self.requests += 1
        try:
            page = await self._source.client.job(
                job_id, self._read, deadline=self._deadline, background=self._background
            )
        except RejectedError as error:
            if error.code != _NOT_FOUND:
                raise
            return False
        except InvalidResponseError as error:
            if error.retryable:
                raise
            return True  # it is there, but nobody can read it
        for job in page.jobs:
            if kept := self._kept(job):
                self.jobs[job.id] = kept
        self.broken.update(page.broken)
        self.vague.update(page.vague)
        self.problems += page.problems
        return True

    def _kept(self, job: Job) -> Job | None:
        """What to keep of a job: nothing if another search of ours lists it."""
        if job.workspace != self.workspace:
            if job.workspace in self._source.workspaces:
                return None
            job = msgspec.structs.replace(job, workspace=self.workspace)
        return self._reuse(job)

    def _read(self, body: bytes) -> JobPage:
        return decode_job(body, workspace=self.workspace, now=self._source.clock())

    async def _ran(self, search: Search, running: Awaitable[SearchResult]) -> SearchResult:
        """Run a search and keep what it has read."""
        self.under_way = search.found
        try:
            found = await running
        finally:
            self.requests += search.found.pages
            self._source.meter.paged(
                duplicates=search.found.duplicates, inconsistent=search.found.inconsistent
            )
        self.jobs |= found.jobs
        self.broken |= found.broken
        self.vague = (self.vague - found.jobs.keys()) | found.vague
        self.problems += found.problems
        return found

    async def _matching(self, condition: Filter, *, pages: int | None = None) -> SearchResult:
        search = self._search(condition)
        try:
            return await self._ran(search, search.everything(pages=pages))
        except FilterIgnoredError as error:
            raise FilterRefusedError(str(error)) from error
        except RejectedError as error:
            if error.status != _BAD_REQUEST:
                raise
            raise FilterRefusedError(str(error)) from error

    def _search(self, *filters: Filter) -> Search:
        return Search(
            self._source.client,
            self._source.paging,
            workspace=self.workspace,
            deadline=self._deadline,
            clock=self._source.clock,
            filters=filters,
            background=self._background,
            keep=self._kept,
        )
