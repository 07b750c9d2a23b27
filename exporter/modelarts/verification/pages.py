"""Pages of the job list at any row, each checked before anything is concluded from it."""

import itertools

from exporter.errors import RejectedError
from exporter.modelarts.search import PAGE, SHORTEST_PAGE, Mode, SearchRequest, SearchResult
from exporter.modelarts.verification.stretch import Stretch
from exporter.modelarts.workspace import WorkspaceReader

_BAD_REQUEST = 400


class UnverifiableError(Exception):
    """The rows of this list cannot be compared with the jobs known; the message says why."""


class ListChangedError(Exception):
    """Pages contradict each other, as if the list had changed in between."""


class LimitReachedError(Exception):
    """The round has used up its requests, or found as many differences as fit into memory."""


def request_for(first: int, last: int, mode: Mode, *, containing: int) -> SearchRequest:
    """Return the request for the page with the row ``containing`` and most of the rows wanted.

    Args:
        first: the first row wanted.
        last: the row after the last one wanted; there are at most `PAGE` between them.
        mode: the meaning of ``offset``. A page with room for more rows than wanted has them at
            both ends, in case that rows have shifted.
        containing: one of the rows wanted.
    """
    if mode == "row":
        start = max(0, first - (PAGE - (last - first)) // 2)
        return SearchRequest(start, PAGE, start)

    def fitness(limit: int) -> tuple[int, int]:
        start = containing // limit * limit
        end = start + limit
        return min(last, end) - max(first, start), min(first - start, end - last)

    limit = max(range(PAGE, SHORTEST_PAGE, -1), key=fitness)
    page = containing // limit
    return SearchRequest(page, limit, page * limit)


class Pages:
    """Reads pages of one workspace's list in one round of verification.

    Args:
        reader: of the workspace.
        budget: the most requests of the round.

    Attributes:
        requests: sent so far.

    All methods raise `UnverifiableError`, `ListChangedError`, `LimitReachedError`, or `PollError`.
    """

    def __init__(self, reader: WorkspaceReader, *, budget: int) -> None:
        self.requests = 0
        self._reader = reader
        self._budget = budget

    async def detect_mode(self) -> Stretch | None:
        """Find out what ``offset`` means, unless that is known.

        Returns:
            The whole list, if it is that short.
        """
        if self._mode() is not None:
            return None
        self._spend(2)
        result = await self._reader.read_pages(2)
        self.requests += result.pages
        if result.complete:
            return self._checked(0, result)
        if self._mode() is None:
            raise ListChangedError
        return None

    async def read(self, first: int, last: int, *, containing: int | None = None) -> Stretch:
        """Read the page with the row ``containing`` and most of the rows ``first`` to ``last``.

        Args:
            first: the first row wanted.
            last: the row after the last one wanted; there are at most `PAGE` between them.
            containing: one of them; None = the first.
        """
        mode = self._mode()
        if mode is None:
            raise ListChangedError  # another search has found that it was wrong
        self._spend(1)
        row = first if containing is None else containing
        request = request_for(first, last, mode, containing=row)
        start = request.start or 0
        self.requests += 1
        try:
            result = await self._reader.read_at(request)
        except RejectedError as error:
            if error.status != _BAD_REQUEST or not start:
                raise
            return Stretch(start, (), (), ends=True)  # perhaps the list does not get that far
        return self._checked(start, result)

    async def extended_down(self, stretch: Stretch) -> Stretch:
        """Return the stretch with older rows added."""
        last_row = stretch.end - 1
        return _join(stretch, await self.read(last_row, last_row + PAGE))

    async def extended_up(self, stretch: Stretch) -> Stretch:
        """Return the stretch with newer rows added."""
        first = max(0, stretch.start + 1 - PAGE)
        more = await self.read(first, stretch.start + 1, containing=stretch.start)
        return _join(stretch, more)

    async def confirm_end(self, stretch: Stretch) -> None:
        """Check that the list really ends with the stretch, not only a page that is too short."""
        page = await self.read(stretch.end, stretch.end + 1)
        if page.end > stretch.end:
            raise ListChangedError

    def _mode(self) -> Mode | None:
        return self._reader.paging_mode

    def _spend(self, number: int) -> None:
        if self.requests + number > self._budget:
            raise LimitReachedError

    def _checked(self, start: int, result: SearchResult) -> Stretch:
        created = [job.created for job in result.jobs.values()]
        times = [time for time in created if time is not None]
        if result.undecodable:
            raise UnverifiableError("the list has items without a usable ID")
        if len(times) < len(created):
            raise UnverifiableError("the list has jobs without a create time")
        if not self._reader.misplaced.isdisjoint(result.jobs):
            raise UnverifiableError("the list has jobs of another workspace")
        if result.unified != self._reader.wants_unified:
            raise UnverifiableError("the service no longer lists fine-tuning jobs")
        if result.duplicates or result.inconsistent:
            raise ListChangedError
        if any(older > newer for newer, older in itertools.pairwise(times)):
            raise UnverifiableError("the list is not sorted by create time")
        return Stretch(start, tuple(result.jobs), tuple(times), ends=result.complete)


def _join(stretch: Stretch, other: Stretch) -> Stretch:
    joined = stretch.joined(other)
    if joined is None:
        raise ListChangedError
    return joined
