"""What one poll reads of one workspace, with any number of searches."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from exporter.errors import InvalidResponseError, RejectedError
from exporter.jobs.job import ACTIVE, TERMINAL, Job, JobPage, Problem
from exporter.metrics.self_metrics import TargetInstruments
from exporter.modelarts.client import Client
from exporter.modelarts.decode.jobs import decode_job
from exporter.modelarts.search import (
    Filter,
    FilterIgnoredError,
    Find,
    Mode,
    Paging,
    Search,
    SearchRequest,
    SearchResult,
    Take,
    UnifiedJobs,
)

if TYPE_CHECKING:
    from exporter.modelarts.id_set import IdSet

_NOT_FOUND = "ModelArts.2775"
_BAD_REQUEST = 400

ACTIVE_FILTER = Filter(
    "phase",
    "in",
    tuple(sorted(ACTIVE)),
    # An undocumented phase is treated as active: the job is watched until it ends.
    lambda job: job.phase not in TERMINAL,
)


@dataclass(frozen=True)
class JobSource:
    """The place that a target's jobs are read from.

    Attributes:
        client: its API.
        paging: the meaning of ``offset`` there.
        workspaces: workspace ids; a job that names another one belongs to the one that lists it.
        instruments: count duplicate jobs and inconsistent pages, of failed searches too.
        clock: unix seconds.
        unified: whether searches ask for fine-tuning jobs.
    """

    client: Client
    paging: Paging
    workspaces: tuple[str, ...]
    instruments: TargetInstruments
    clock: Callable[[], float]
    unified: UnifiedJobs = field(default_factory=UnifiedJobs)


class FilterRefusedError(Exception):
    """The service does not support a filter: it rejects or ignores it."""


class WorkspaceReader:
    """Reads one workspace; later readings replace earlier ones.

    Args:
        source: of the target.
        workspace: workspace id.
        deadline: monotonic seconds for everything.
        background: let urgent polls go first.
        unified: searches ask for fine-tuning jobs, if the service accepts that.
        take: takes jobs of the whole list that need not be kept in ``jobs``.

    Attributes:
        jobs: everything read, by id; without those that were taken.
        deleted: ids of jobs that do not exist, as confirmed by the service.
        misplaced: ids of jobs that name another of the target's workspaces.
        undecodable: ``#`` and a hash for every item without a usable id; those that have not even a
            name are numbered instead.
        without_phase: ids of jobs without a usable phase.
        problems: unusable or undocumented fields.
        unresolved: ids of jobs looked for without finding out whether they exist.
        hidden, forgotten: as in `exporter.jobs.job.View`.
        requests: number of requests sent.
        latest_search: the result so far of the latest search.
        unified: whether all searches so far asked for fine-tuning jobs.
    """

    def __init__(
        self,
        source: JobSource,
        workspace: str,
        *,
        deadline: float,
        background: bool = False,
        unified: bool = False,
        take: Take | None = None,
    ) -> None:
        self.workspace = workspace
        self.jobs: dict[str, Job] = {}
        self.deleted: set[str] = set()
        self.misplaced: set[str] = set()
        self.undecodable: set[str] = set()
        self.without_phase: set[str] = set()
        self.problems: list[Problem] = []
        self.unresolved: set[str] = set()
        self.hidden: set[str] = set()
        self.forgotten: set[str] = set()
        self.requests = 0
        self.latest_search: SearchResult | None = None
        self.unified = True
        self._source = source
        self._deadline = deadline
        self._background = background
        self._unified = source.unified if unified else None
        self._take = take
        self._listed: list[IdSet] = []

    @property
    def paging_mode(self) -> Mode | None:
        """The meaning of ``offset`` at this target; None until it is known."""
        return self._source.paging.mode

    @property
    def wants_unified(self) -> bool:
        """Whether searches are to ask for fine-tuning jobs, if the service accepts that."""
        return self._unified is not None

    async def read_all(self) -> SearchResult:
        """Read all jobs that the service lists.

        Raises:
            PollError: the list could not be read completely.
        """
        search = self._search(take=None if self._take is None else self._take_placed)
        result = await self._run(search, search.read_all())
        self._listed.append(result.ids)
        return result

    def has_read(self, job_id: str) -> bool:
        """Whether a job was read, even if it was taken out since."""
        return job_id in self.jobs or any(job_id in ids for ids in self._listed)

    async def read_without_fine_tuning(self) -> SearchResult:
        """As `read_all`, without asking for fine-tuning jobs."""
        unified, self._unified = self._unified, None
        try:
            return await self.read_all()
        finally:
            self._unified = unified

    async def read_page(self) -> SearchResult:
        """Read the first page of the list, with the newest jobs; raises as `read_all`."""
        return await self.read_pages(1)

    async def read_pages(self, number: int) -> SearchResult:
        """Read the first pages of the list, ``number`` at most; two show what ``offset`` means."""
        search = self._search()
        return await self._run(search, search.read_all(max_pages=number))

    async def read_at(self, request: SearchRequest) -> SearchResult:
        """Read one page of the list, wherever it is, as `Search.read_at`; raises as `read_all`."""
        search = self._search()
        return await self._run(search, search.read_at(request))

    async def read_newest(self, find: Find, before: float) -> SearchResult:
        """As `exporter.modelarts.search.Search.read_newest`."""
        search = self._search()
        return await self._run(search, search.read_newest(find, before))

    async def read_active(self) -> SearchResult:
        """Read the jobs in an active phase.

        Raises:
            FilterRefusedError: the service does not filter by phase.
            PollError: the list could not be read completely.
        """
        return await self._filter(ACTIVE_FILTER)

    async def by_ids(self, ids: Sequence[str]) -> SearchResult:
        """Read at most ten jobs by id; raises as `read_active`."""
        wanted = frozenset(ids)
        return await self._filter(Filter("id", "in", tuple(ids), lambda job: job.id in wanted))

    async def by_name(self, name: str) -> None:
        """Read jobs whose name contains ``name``, one page at most; raises as `read_active`."""
        folded = name.casefold()
        condition = Filter("name", "like", (name,), lambda job: folded in job.name.casefold())
        await self._filter(condition, max_pages=1)

    async def get(self, job_id: str) -> bool:
        """Read a single job; return whether it exists.

        Raises:
            ForbiddenError: the permission for this call is missing.
            PollError: the service gave no usable response.
        """
        self.requests += 1
        try:
            page = await self._source.client.job(
                job_id, self._decode, deadline=self._deadline, background=self._background
            )
        except RejectedError as error:
            if error.code != _NOT_FOUND:
                raise
            return False
        except InvalidResponseError as error:
            if error.retryable:
                raise
            return True  # it exists, but cannot be decoded
        for job in page.jobs:
            self.jobs[job.id] = self._adopt(job)
        self.undecodable |= self._numbered(page.undecodable)
        self.without_phase.update(page.without_phase)
        self.problems += page.problems
        return True

    def _adopt(self, job: Job) -> Job:
        """Return the job to keep. Of those listed in several workspaces, one is not misplaced."""
        if job.workspace != self.workspace:
            if job.workspace in self._source.workspaces:
                self.misplaced.add(job.id)
            job = msgspec.structs.replace(job, workspace=self.workspace)
        return job

    async def _take_placed(self, jobs: Sequence[Job]) -> Collection[str]:
        """Misplaced jobs stay, until it is known where they belong."""
        if self._take is None:
            return ()
        return await self._take([job for job in jobs if job.id not in self.misplaced])

    def _numbered(self, undecodable: Collection[str]) -> set[str]:
        """Return the items of one search; nothing else is the same of nameless ones next time."""
        named = {each for each in undecodable if not each.startswith("#?")}
        nameless = len(undecodable) - len(named)
        return named | {f"#{self.workspace}/{number + 1}" for number in range(nameless)}

    def _decode(self, body: bytes) -> JobPage:
        return decode_job(body, workspace=self.workspace, now=self._source.clock())

    async def _run(self, search: Search, running: Awaitable[SearchResult]) -> SearchResult:
        """Wait for a search and keep its result."""
        self.latest_search = search.result
        try:
            result = await running
        finally:
            self.requests += search.result.pages
            self.unified &= search.result.unified
            self._source.instruments.paged(
                duplicates=search.result.duplicates, inconsistent=search.result.inconsistent
            )
        self.jobs |= result.jobs
        self.undecodable |= self._numbered(result.undecodable)
        earlier = {job_id for job_id in self.without_phase if job_id not in result.ids}
        self.without_phase = earlier | result.without_phase
        self.problems += result.problems
        return result

    async def _filter(self, condition: Filter, *, max_pages: int | None = None) -> SearchResult:
        search = self._search(condition)
        try:
            return await self._run(search, search.read_all(max_pages=max_pages))
        except (FilterIgnoredError, RejectedError) as error:
            if isinstance(error, RejectedError) and error.status != _BAD_REQUEST:
                raise
            raise FilterRefusedError(str(error)) from error

    def _search(self, *filters: Filter, take: Take | None = None) -> Search:
        return Search(
            self._source.client,
            self._source.paging,
            workspace=self.workspace,
            deadline=self._deadline,
            clock=self._source.clock,
            filters=filters,
            unified=self._unified,
            background=self._background,
            adopt=self._adopt,
            take=take,
        )
