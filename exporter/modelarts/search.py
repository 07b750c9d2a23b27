"""One search, complete or raised: pages read so that no job can slip through between two of them.

Jobs are created and deleted while we read, and every page after such an event is shifted. Neither
``total`` nor ``count`` can be trusted to notice. So pages overlap, and one rule makes the result
whole:

    Every page but the first must contain a job that this search has already seen.

Jobs are sorted by an immutable key (create time) and a page is a contiguous stretch of the sorted
list. If a page starts at or before a job that we have seen, then nothing lies between what we have
and what the page brings; a job that exists during the whole search cannot be missed, whatever
else comes and goes and in whichever order the service sorts. A page without a known job is a gap:
we step back and read again. A page shorter than asked for, with a known job in it, is the end.

In row mode the overlap is one row: ``offset`` is the last row seen. In page mode (``offset`` counts
pages of ``limit`` rows) the overlap comes from a slightly smaller ``limit``: rows 0-49, then page 1
of 49 rows each = rows 49-97, and so on. A sweep costs 2 % more requests than blind paging in row
mode, a fifth more in page mode (no choice of limits does better), and is never wrong.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from exporter.errors import InconsistentPagesError, InvalidResponseError
from exporter.jobs.job import Job, JobPage, Problem
from exporter.modelarts.client import Client
from exporter.modelarts.decode.jobs import decode_page

PAGE = 50
"""The most jobs the service gives at once."""

_SHORTEST_PAGE = 25
_MAX_STEPS_BACK = 6
_MAX_DOUBTFUL_PAGES = 5
"""In a row; a hundred jobs created between two pages make up to three."""

Mode = Literal["page", "row"]


class FilterIgnoredError(Exception):
    """The service answers a search as if it had no filter."""


class Filter(NamedTuple):
    """A condition that the service is asked to apply, and that we check on every returned job."""

    key: str
    operator: str
    values: tuple[str, ...]
    accepts: Callable[[Job], bool]


@dataclass
class Paging:
    """What ``offset`` means at this target, once it is known; shared by all its searches.

    Attributes:
        mode: ``page``, ``row``, or None while no second page has told.
        fixed: set by the user, never to be found out again.
    """

    mode: Mode | None = None
    fixed: bool = False

    def forget(self) -> None:
        """Find out again: what was found turned out wrong."""
        if not self.fixed:
            self.mode = None


@dataclass
class SearchResult:
    """What a search has read.

    Attributes:
        jobs: by id, each as it was read last.
        broken: ids (or ``#`` and a hash) of items that could not be decoded.
        vague: ids of jobs without a usable phase.
        problems: fields that were unusable or undocumented.
        pages: requests it took.
        duplicates: jobs that came again although their rows were not asked for twice.
        inconsistent: pages that contradicted the ones before.
        unasked: jobs that a filter should have kept out.
        total, count: as the service said on the first page; not to be trusted.
        ended: whether the last page was read, and not only as many as were wanted.
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    vague: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    pages: int = 0
    duplicates: int = 0
    inconsistent: int = 0
    unasked: int = 0
    total: int | None = None
    count: int | None = None
    ended: bool = True

    @property
    def newest(self) -> float:
        """Create time (unix seconds) of the newest job; -inf if there is none."""
        times = (job.created for job in self.jobs.values() if job.created is not None)
        return max(times, default=float("-inf"))


class SearchRequest(NamedTuple):
    """What to ask for, and the row at which the answer starts (None: the mode decides)."""

    offset: int
    limit: int
    start: int | None


def next_request(frontier: int, mode: Mode | None) -> SearchRequest:
    """The request that brings the most rows beyond ``frontier`` and at least one before it.

    Args:
        frontier: how many rows from the first are known without a gap.
        mode: what ``offset`` means; None asks so that the answer tells.
    """
    if frontier == 0:
        return SearchRequest(0, PAGE, 0)
    if mode is None:
        return SearchRequest(1, PAGE - 1, None)
    if mode == "row":
        return SearchRequest(frontier - 1, PAGE, frontier - 1)
    limit = max(
        range(PAGE, _SHORTEST_PAGE, -1), key=lambda limit: _end_of_page_at(frontier - 1, limit)
    )
    page = (frontier - 1) // limit
    return SearchRequest(page, limit, page * limit)


def _end_of_page_at(row: int, limit: int) -> int:
    """The first row after the page of ``limit`` rows that contains ``row``."""
    return (row // limit + 1) * limit


class Search:
    """Reads one search of one workspace, page by page, newest jobs first.

    Args:
        client: sends the requests.
        paging: the target's, shared.
        workspace: workspace id.
        filters: what the service is asked to filter by.
        background: other searches of the target go first.
        keep: gives what to keep of a job that was read; None if it does not belong here.
        deadline: monotonic seconds for the whole search.
        clock: unix seconds, to recognise absurd timestamps.

    `found` holds what was read also when the search failed.
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
        background: bool = False,
        keep: Callable[[Job], Job | None] = lambda job: job,
    ) -> None:
        self._client = client
        self._paging = paging
        self._workspace = workspace
        self._filters = filters
        self._background = background
        self._keeper = keep
        self._deadline = deadline
        self._clock = clock
        self.found = SearchResult()

    async def everything(self, *, pages: int | None = None) -> SearchResult:
        """Read all jobs that the service lists.

        Args:
            pages: stop after so many, the last of them or not.

        Raises:
            FilterIgnoredError: the service does not apply the filters.
            InconsistentPagesError: the pages cannot be made whole.
            PollError: a page could not be read.
        """
        try:
            whole = await self._walk(lambda _: False, pages)
            if whole.pushed_back and self.found.ended:
                # Jobs were created while we read: they stand before our first page.
                await self._walk(whole.seen.__contains__)
        except InconsistentPagesError:
            self._paging.forget()
            raise
        return self.found

    async def newest(self, known: Callable[[str], bool]) -> SearchResult:
        """Read the newest jobs, down to the first page with one whose id is ``known``."""
        try:
            await self._walk(known)
        except InconsistentPagesError:
            self._paging.forget()
            raise
        return self.found

    async def _walk(self, until: Callable[[str], bool], pages: int | None = None) -> "_Walk":
        """Read from the newest job to the oldest, or to the first page with a job ``until``."""
        walk = _Walk(self.found)
        while True:
            request = next_request(walk.frontier, self._paging.mode)
            page = await self._fetch(request)
            ids = [*(job.id for job in page.jobs), *page.broken]
            if request.start is None:
                self._paging.mode = self._paging.mode or walk.mode_shown_by(ids)
                request = request._replace(start=1 if self._paging.mode == "row" else PAGE - 1)
            step = walk.add(request, ids)
            if step == "gap":
                continue
            self._keep(page)
            if step == "end" or any(map(until, ids)):
                return walk
            if self.found.pages == pages:
                self.found.ended = False
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
        page = await self._client.search(
            query, self._read, deadline=self._deadline, background=self._background
        )
        if not self.found.pages:
            self.found.total, self.found.count = page.total, page.count
        self.found.pages += 1
        return page

    def _read(self, body: bytes) -> JobPage:
        page = decode_page(body, workspace=self._workspace, now=self._clock())
        if len(page.broken) > 1 and not page.jobs:
            raise InvalidResponseError("the answer lists things of which none is a training job")
        return page

    def _keep(self, page: JobPage) -> None:
        unasked = 0
        for job in page.jobs:
            if not all(f.accepts(job) for f in self._filters):
                unasked += 1
            elif kept := self._keeper(job):
                self.found.jobs[kept.id] = kept  # its own id: one copy is enough
        self.found.unasked += unasked
        # One or two may have changed between the filter and the answer.
        if unasked * 2 > len(page.jobs) or self.found.unasked > PAGE:
            raise FilterIgnoredError
        self.found.broken.update(page.broken)
        self.found.vague.update(page.vague)
        self.found.problems.extend(page.problems)


class _Walk:
    """The rows read so far without a gap, and what each further page means for them."""

    def __init__(self, found: SearchResult) -> None:
        self.seen: set[str] = set()
        self.frontier = 0
        """Rows from the first on that are known without a gap: where to go on."""
        self.pushed_back = False
        """Jobs came again further back: others were created in front of them."""
        self._found = found
        self._furthest = 0
        self._steps_back = 0
        self._doubtful = 0

    def mode_shown_by(self, ids: Sequence[str]) -> Mode | None:
        """What ``offset`` 1 meant, by the page that came: rows 1-49, all seen, or rows 49-97.

        None: so many jobs were deleted meanwhile that it does not tell; then it is the last page.
        """
        known = sum(job_id in self.seen for job_id in ids)
        if known > PAGE // 2:
            return "row"
        return "page" if known < len(ids) else None

    def add(self, request: SearchRequest, ids: Sequence[str]) -> Literal["more", "end", "gap"]:
        """Take a page in.

        Raises:
            InconsistentPagesError: reading on or again would not help.
        """
        start = request.start or 0
        end = start + len(ids)
        if self.frontier and not self._joins(ids):
            self._step_back(start)
            return "gap"
        news = {job_id for job_id in ids if job_id not in self.seen}
        repeats = len(ids) - len(news)
        again = max(0, min(self._furthest, end) - start)
        self._count_repeats(repeats, asked=again)
        self.seen |= news
        if len(ids) < request.limit:
            return "end"
        self._expect_progress(news=len(news), repeats=repeats - again, rows=len(ids) - again)
        # After a gap with more overlap: what was to join may be an item without a usable id.
        self.frontier = end - self._steps_back
        self._furthest = max(self._furthest, end)
        return "more"

    def _joins(self, ids: Sequence[str]) -> bool:
        """Whether a job of the page was seen before; items without a usable id prove nothing."""
        return any(job_id in self.seen and not job_id.startswith("#") for job_id in ids)

    def _count_repeats(self, repeats: int, *, asked: int) -> None:
        if repeats > asked:
            self._found.duplicates += repeats - asked
            self.pushed_back = True

    def _step_back(self, start: int) -> None:
        """Rows before this page were deleted, so that rows between were skipped: go back."""
        self._found.inconsistent += 1
        self._steps_back += 1
        if self._steps_back > _MAX_STEPS_BACK:
            raise InconsistentPagesError(
                "pages of the job list do not join, however often they are read again; "
                "check target.pagination"
            )
        self.frontier = max(0, start - PAGE * 2 ** (self._steps_back - 1))

    def _expect_progress(self, *, news: int, repeats: int, rows: int) -> None:
        """Of ``rows`` that were not asked for before, ``repeats`` were known nevertheless.

        Jobs created meanwhile explain a few such pages. Where they do not end, the service ignores
        ``offset``, or counts it otherwise than we think and shows one new job a page.
        """
        if rows <= 0:
            return
        self._steps_back = 0
        self._found.inconsistent += not news
        self._doubtful = self._doubtful + 1 if repeats * 2 > rows else 0
        if self._doubtful >= _MAX_DOUBTFUL_PAGES:
            raise InconsistentPagesError(
                "the service lists the same jobs again and again, whatever offset is asked for; "
                "check target.pagination"
            )
