"""One search, complete or raised: pages read so that no job can slip through between two of them.

Jobs are created and deleted during a search, and each such event shifts every page after it.
Neither ``total`` nor ``count`` reliably reveals this. So pages overlap, and one rule makes the
result complete:

    Every page but the first must contain a job that this search has already seen.

Jobs are sorted by an immutable key (create time), and a page is a contiguous stretch of the sorted
list. If a page starts at or before a job that was already seen, there is nothing between the jobs
read so far and that page. So a job that exists during the whole search cannot be missed, whatever
else is created or deleted and whichever way the service sorts. A page without a known job is a gap:
the search steps back and reads again. A page shorter than requested, with a known job in it, is the
last.

In row mode the overlap is one row: ``offset`` is the last row seen. In page mode (``offset`` counts
pages of ``limit`` rows) the overlap comes from a slightly smaller ``limit``: rows 0-49, then page 1
of 49 rows each = rows 49-97, and so on. A sweep costs 2 % more requests than blind paging in row
mode, a fifth more in page mode (no choice of limits does better), and is never wrong.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

from exporter.errors import InconsistentPagesError, InvalidResponseError, RejectedError
from exporter.jobs.job import Job, JobPage, Problem
from exporter.jobs.tracked import TrackedJob
from exporter.modelarts.client import Client
from exporter.modelarts.decode.jobs import decode_page
from exporter.modelarts.id_set import IdSet

PAGE = 50
"""The most jobs the service returns at once."""

SHORTEST_PAGE = 25
"""Requests for pages have a higher limit than this."""

_BAD_REQUEST = 400
_ASK_AGAIN_SECONDS = 12 * 3600.0
_MAX_STEPS_BACK = 6
_MAX_REPETITIVE_PAGES = 5
"""In a row; a hundred jobs created between two pages cause up to three."""

Mode = Literal["page", "row"]


class FilterIgnoredError(Exception):
    """The service answers a search as if it had no filter."""


class Filter(NamedTuple):
    """A condition for the service to apply, and to check on every job returned."""

    key: str
    operator: str
    values: tuple[str, ...]
    accepts: Callable[[Job], bool]


@dataclass
class Paging:
    """The meaning of ``offset`` at one target; shared by all its searches.

    Attributes:
        mode: ``page``, ``row``, or None until a second page has shown it.
        fixed: the mode was set by the user and is never detected.
    """

    mode: Mode | None = None
    fixed: bool = False

    def reset(self) -> None:
        """Detect the mode again: the one in use turned out wrong."""
        if not self.fixed:
            self.mode = None


@dataclass
class UnifiedJobs:
    """Whether searches ask for fine-tuning jobs, too; shared by all searches of a target.

    Attributes:
        wanted: as configured (``jobs.unified``).
        rejected: unix seconds at which the service rejected the field ``unified_jobs``; None = it
            did not.
    """

    wanted: bool = True
    rejected: float | None = None

    @property
    def requested(self) -> bool:
        """Whether the next search asks for them."""
        return self.wanted and self.rejected is None

    def try_again(self, now: float) -> bool:
        """Ask again if it was rejected long ago: the service may accept it by now."""
        if self.rejected is None or now - self.rejected < _ASK_AGAIN_SECONDS:
            return False
        self.rejected = None
        return True


@dataclass
class SearchResult:
    """Everything a search has read.

    Attributes:
        jobs: by id, each as last read; without those that were taken.
        ids: those of all items read.
        witness: a job that was read.
        newest_created: create time (unix seconds) of the newest job; -inf if there is none.
        undecodable: ``#`` and a hash for every item without a usable id.
        without_phase: ids of jobs without a usable phase.
        problems: unusable or undocumented fields.
        pages: number of requests sent.
        duplicates: jobs returned again although their rows were not requested twice.
        inconsistent: pages that contradicted earlier ones.
        mismatched: jobs that a filter should have excluded.
        total, count: as reported on the first page; unreliable.
        complete: whether the last page was read; False if the page limit stopped the search.
        unified: whether fine-tuning jobs were asked for, too.
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    ids: IdSet = field(default_factory=IdSet)
    witness: Job | None = None
    newest_created: float = float("-inf")
    undecodable: set[str] = field(default_factory=set)
    without_phase: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    pages: int = 0
    duplicates: int = 0
    inconsistent: int = 0
    mismatched: int = 0
    total: int | None = None
    count: int | None = None
    complete: bool = True
    unified: bool = False

    def add(self, jobs: Collection[Job]) -> None:
        """Add jobs; later readings replace earlier ones."""
        for job in jobs:
            self.jobs[job.id] = job
            self.witness = self.witness or job
            if job.created is not None:
                self.newest_created = max(self.newest_created, job.created)


Find: TypeAlias = Callable[[Sequence[Job]], Awaitable[Mapping[str, TrackedJob]]]
"""Returns, by id, those of some jobs that were known before."""

Take: TypeAlias = Callable[[Sequence[Job]], Awaitable[Collection[str]]]
"""Is given the jobs of a page; returns the ids of those that need not be kept."""


class SearchRequest(NamedTuple):
    """Offset and limit to request, and the first row they mean (None: depends on the mode)."""

    offset: int
    limit: int
    start: int | None


def next_request(frontier: int, mode: Mode | None) -> SearchRequest:
    """Return the request for the most rows beyond ``frontier`` and at least one before it.

    Args:
        frontier: number of rows from the first that are known without a gap.
        mode: the meaning of ``offset``; None = make a request that reveals it.
    """
    if frontier == 0:
        return SearchRequest(0, PAGE, 0)
    if mode is None:
        return SearchRequest(1, PAGE - 1, None)
    if mode == "row":
        return SearchRequest(frontier - 1, PAGE, frontier - 1)
    limit = max(
        range(PAGE, SHORTEST_PAGE, -1), key=lambda limit: _end_of_page_at(frontier - 1, limit)
    )
    page = (frontier - 1) // limit
    return SearchRequest(page, limit, page * limit)


def _end_of_page_at(row: int, limit: int) -> int:
    """Return the first row after the page of ``limit`` rows that contains ``row``."""
    return (row // limit + 1) * limit


async def _never(_page: JobPage) -> bool:
    return False


class Search:
    """Reads one search of one workspace, page by page, newest jobs first.

    Args:
        client: sends the requests.
        paging: of the target, shared.
        workspace: workspace id.
        filters: conditions for the service to apply.
        unified: whether to ask for fine-tuning jobs; None = never.
        background: let other searches of the target go first.
        adopt: returns the job to keep for one that was read.
        take: takes jobs that the result need not keep; None = it keeps all.
        deadline: monotonic seconds for the whole search.
        clock: unix seconds, to recognize absurd timestamps.

    Attributes:
        result: everything read so far, also when the search failed.
    """

    def __init__(
        self,
        client: Client,
        paging: Paging,
        *,
        workspace: str,
        deadline: float,
        clock: Callable[[], float],
        filters: Sequence[Filter] = (),
        unified: UnifiedJobs | None = None,
        background: bool = False,
        adopt: Callable[[Job], Job] = lambda job: job,
        take: Take | None = None,
    ) -> None:
        self._client = client
        self._paging = paging
        self._workspace = workspace
        self._filters = filters
        self._unified = unified
        self._background = background
        self._adopt = adopt
        self._take = take
        self._deadline = deadline
        self._clock = clock
        self.result = SearchResult(unified=unified is not None and unified.requested)

    async def read_all(self, *, max_pages: int | None = None) -> SearchResult:
        """Read all jobs that the service lists.

        Args:
            max_pages: stop after this many pages, even if there are more.

        Raises:
            FilterIgnoredError: the service does not apply the filters.
            InconsistentPagesError: the pages do not fit together.
            PollError: a page could not be read.
        """
        walk = await self._walk(max_pages=max_pages)
        if walk.rows_shifted and self.result.complete:
            # Jobs were created during the walk: they are in front of its first page.
            async def was_read(page: JobPage) -> bool:
                return any(job.id in walk.seen for job in page.jobs)

            newer = await self._walk(was_read)
            self.result.ids.update(newer.seen)
        return self.result

    async def read_newest(self, find: Find, before: float) -> SearchResult:
        """Read the newest jobs, down to a page with a job that was known before.

        Args:
            find: looks up the jobs of a page.
            before: unix seconds; only jobs that were created earlier count as known.
        """

        async def was_known(page: JobPage) -> bool:
            older = [job for job in page.jobs if job.created is None or job.created < before]
            found = (await find(older)).values() if older else ()
            return any((known.job.created or before) < before for known in found)

        await self._walk(was_known)
        return self.result

    async def read_at(self, request: SearchRequest) -> SearchResult:
        """Read one page, wherever it is; the result is complete if the list ends with the page.

        Items listed twice count as duplicates, a page longer than requested as inconsistent.
        """
        page = await self._fetch(request)
        await self._keep_page(page)
        self.result.duplicates = len(page.jobs) - len(self.result.jobs)
        self.result.inconsistent = int(page.size > request.limit)
        self.result.complete = page.size < request.limit
        return self.result

    async def _walk(
        self, is_last: Callable[[JobPage], Awaitable[bool]] = _never, max_pages: int | None = None
    ) -> "_Walk":
        """Read from the newest job to the oldest, or to the first page that ``is_last``."""
        # One set of a million IDs is enough. But a second walk must not rely on what the first saw.
        walk = _Walk(self.result, seen=IdSet() if self.result.pages else self.result.ids)
        while True:
            request = next_request(walk.frontier, self._paging.mode)
            page = await self._fetch(request)
            ids = [*(job.id for job in page.jobs), *page.undecodable]
            if request.start is None:
                self._paging.mode = self._paging.mode or walk.detect_mode(ids)
                request = request._replace(start=1 if self._paging.mode == "row" else PAGE - 1)
            try:
                step = walk.add(request, ids)
            except InconsistentPagesError:
                self._paging.reset()
                raise
            if step == "gap":
                continue
            await self._keep_page(page)
            if step == "end" or await is_last(page):
                return walk
            if self.result.pages == max_pages:
                self.result.complete = False
                return walk

    async def _fetch(self, request: SearchRequest) -> JobPage:
        query: dict[str, Any] = {
            "offset": request.offset,
            "limit": request.limit,
            "sort_by": "create_time",
            "order": "desc",
            "workspace_id": self._workspace,
        }
        if self._filters:
            query["filters"] = [
                {"key": f.key, "operator": f.operator, "value": list(f.values)}
                for f in self._filters
            ]
        page = await self._search(query)
        if not self.result.pages:
            self.result.total, self.result.count = page.total, page.count
        self.result.pages += 1
        return page

    async def _search(self, query: dict[str, Any]) -> JobPage:
        """Request a page, with fine-tuning jobs if the service accepts to be asked for them.

        Only a first page without filters can tell whether it does: a filter may be what is wrong.
        """
        if self._unified is None or not self.result.unified:
            return await self._request(query)
        try:
            return await self._request(query | {"unified_jobs": True})
        except RejectedError as error:
            if error.status != _BAD_REQUEST or self.result.pages or self._filters:
                raise
        page = await self._request(query)  # if it fails too, the field is not what is wrong
        self._unified.rejected = self._clock()
        self.result.unified = False
        return page

    async def _request(self, query: dict[str, Any]) -> JobPage:
        return await self._client.search(
            query,
            partial(self._decode, query["limit"]),
            deadline=self._deadline,
            background=self._background,
        )

    def _decode(self, limit: int, body: bytes) -> JobPage:
        # A page may list an item twice; only a page far too long is refused.
        page = decode_page(body, workspace=self._workspace, now=self._clock(), limit=2 * limit)
        if len(page.undecodable) > 1 and not page.jobs:
            raise InvalidResponseError("none of the items in the response is a training job")
        return page

    async def _keep_page(self, page: JobPage) -> None:
        accepted = [job for job in page.jobs if all(f.accepts(job) for f in self._filters)]
        mismatched = len(page.jobs) - len(accepted)
        self.result.mismatched += mismatched
        # One or two jobs may have changed after the service applied the filter.
        if mismatched * 2 > len(page.jobs) or self.result.mismatched > PAGE:
            raise FilterIgnoredError
        adopted = [self._adopt(job) for job in accepted]
        self.result.add(adopted)
        if self._take is not None:
            for job_id in await self._take(adopted):
                del self.result.jobs[job_id]
        self.result.undecodable.update(page.undecodable)
        self.result.without_phase.update(page.without_phase)
        self.result.problems.extend(page.problems)


class _Walk:
    """The rows read so far without a gap, and how each further page extends them.

    Attributes:
        seen: ids of all jobs read.
        frontier: number of rows from the first that are known without a gap: where to continue.
        rows_shifted: jobs appeared again further back, because others were created before them.
    """

    def __init__(self, result: SearchResult, *, seen: IdSet) -> None:
        self.seen = seen
        self.frontier = 0
        self.rows_shifted = False
        self._result = result
        self._furthest = 0
        self._steps_back = 0
        self._repetitive_pages = 0

    def detect_mode(self, ids: Sequence[str]) -> Mode | None:
        """Return what ``offset`` 1 meant, given the page: rows 1-49, all seen, or rows 49-97.

        None: too many jobs were deleted in between to tell; then it is the last page.
        """
        known = sum(job_id in self.seen for job_id in ids)
        if known > PAGE // 2:
            return "row"
        return "page" if known < len(ids) else None

    def add(self, request: SearchRequest, ids: Sequence[str]) -> Literal["more", "end", "gap"]:
        """Add a page.

        Raises:
            InconsistentPagesError: reading more pages, or the same again, would not help.
        """
        start = request.start or 0
        end = start + len(ids)
        if self.frontier and not self._overlaps(ids):
            self._step_back(start)
            return "gap"
        new = {job_id for job_id in ids if job_id not in self.seen}
        repeats = len(ids) - len(new)
        requested_again = max(0, min(self._furthest, end) - start)
        self._count_repeats(repeats, expected=requested_again)
        self.seen.update(new)
        if len(ids) < request.limit:
            return "end"
        self._expect_progress(
            new=len(new), repeats=repeats - requested_again, rows=len(ids) - requested_again
        )
        # After a gap, overlap more: the row meant to overlap may be an item without a usable id.
        self.frontier = end - self._steps_back
        self._furthest = max(self._furthest, end)
        return "more"

    def _overlaps(self, ids: Sequence[str]) -> bool:
        """Whether a job of the page was seen before; items without a usable id prove nothing."""
        return any(job_id in self.seen and not job_id.startswith("#") for job_id in ids)

    def _count_repeats(self, repeats: int, *, expected: int) -> None:
        if repeats > expected:
            self._result.duplicates += repeats - expected
            self.rows_shifted = True

    def _step_back(self, start: int) -> None:
        """Go back: rows before this page were deleted, so that the page skipped others."""
        self._result.inconsistent += 1
        self._steps_back += 1
        if self._steps_back > _MAX_STEPS_BACK:
            raise InconsistentPagesError(
                "pages of the job list do not overlap, even after reading them again; "
                "check target.pagination"
            )
        self.frontier = max(0, start - PAGE * 2 ** (self._steps_back - 1))

    def _expect_progress(self, *, new: int, repeats: int, rows: int) -> None:
        """Check that pages bring new jobs.

        Of ``rows`` that were not requested before, ``repeats`` were known nevertheless. Jobs
        created in between explain a few such pages. If they go on, the service ignores ``offset``,
        or counts it differently and returns one new job per page.
        """
        if rows <= 0:
            return
        self._steps_back = 0
        self._result.inconsistent += not new
        self._repetitive_pages = self._repetitive_pages + 1 if repeats * 2 > rows else 0
        if self._repetitive_pages >= _MAX_REPETITIVE_PAGES:
            raise InconsistentPagesError(
                "the service lists the same jobs again and again, whatever the offset; "
                "check target.pagination"
            )
