"""Where the list differs from what is known, found by bisection.

Every page shows, for each edge between two groups of jobs in it, how many listed jobs are newer.
The number of known jobs that are newer, minus that, is the *shift* of the edge: 0 everywhere where
both agree, and greater by one after every known job that the list omits. So a part of the list
whose two edges have the same shift needs no reading. Any other is divided by a page in its middle,
until the pages that differ have been read. (Differences that cancel out leave no trace in the
shifts: `exporter.modelarts.verification.verifier` verifies the list round and round to find them.)

Each page is compared on its own: it shows all jobs between its edges. So a list that changes
between two requests can only send the search to wrong places. It never makes a job look missing
that was listed when its page was read.
"""

import math
from typing import NamedTuple

from exporter.jobs.tracked import TrackedJob
from exporter.modelarts.search import PAGE
from exporter.modelarts.verification.known_list import KnownList
from exporter.modelarts.verification.marks import Range
from exporter.modelarts.verification.pages import (
    LimitReachedError,
    ListChangedError,
    Pages,
    UnverifiableError,
)
from exporter.modelarts.verification.stretch import Edge, Stretch

_MAX_COMPARED = 10_000
"""Known jobs held in memory to be compared with one stretch, and missing ones at which to stop."""
_MAX_GROUP_PAGES = 30
_EVEN_PARTS = 32
_SMALLEST_SAMPLE = 24
_TOO_MANY = 5
"""Where every fifth page differs, reading the whole list is cheaper than bisecting."""


class TooDifferentError(Exception):
    """So much differs that the whole list should be read; the message says how much."""


class Boundary(NamedTuple):
    """An edge of the list (`Edge`), and the number of known jobs before it."""

    created: float
    row: int
    rank: int

    @property
    def shift(self) -> int:
        """How many more known jobs than listed ones are newer."""
        return self.rank - self.row


TOP = Boundary(math.inf, 0, 0)


class Gap(NamedTuple):
    """A part of the list between two boundaries that was not read."""

    upper: Boundary
    lower: Boundary

    @property
    def differs(self) -> bool:
        """Whether the numbers of known and listed jobs in it differ."""
        return self.upper.shift != self.lower.shift

    @property
    def rows(self) -> int:
        """Number of listed jobs, as far as known."""
        return max(0, self.lower.row - self.upper.row)

    def overlaps(self, upper: Edge | Boundary, lower: Edge | Boundary) -> bool:
        """Whether a stretch between two edges, or its only edge, is in the gap at least partly."""
        return upper.created > self.lower.created and lower.created < self.upper.created

    def without(self, upper: Boundary, lower: Boundary) -> "list[Gap]":
        """Return what remains of the gap when a stretch between two edges was read."""
        if not self.overlaps(upper, lower):
            return [self]
        parts = Gap(self.upper, upper), Gap(lower, self.lower)
        return [part for part in parts if part.upper.created > part.lower.created]


class Comparison:
    """Compares a list with what is known.

    Args:
        pages: of the list.
        known: the known jobs.

    Attributes:
        missing: known jobs that the list omits, by ID.
        unknown: IDs of listed jobs that were not known.
        agreeing: where the list was found to be as known.
    """

    missing: dict[str, TrackedJob]
    unknown: set[str]
    agreeing: list[Range]

    def __init__(self, pages: Pages, known: KnownList) -> None:
        self.missing = {}
        self.unknown = set()
        self.agreeing = []
        self._pages = pages
        self._known = known
        self._gaps: list[Gap] = []
        self._rows = 0
        self._unfinished = False
        self._sampled = self._sampled_different = 0

    @property
    def differs(self) -> bool:
        """Whether there are differences, be they found already or not."""
        found = self.missing or self.unknown or self._unfinished
        return bool(found) or any(gap.differs for gap in self._gaps)

    async def end_at(self, row: int) -> None:
        """Begin: the list ends before ``row``."""
        self._rows = row
        self._gaps = [Gap(TOP, await self._boundary(Edge(-math.inf, row)))]

    async def add(self, stretch: Stretch) -> bool:
        """Compare a stretch, which has edges; return whether it is as known."""
        if len(self.missing) >= _MAX_COMPARED:
            raise LimitReachedError
        upper, lower = await self._boundary(stretch.upper), await self._boundary(stretch.lower)
        self._gaps = [part for gap in self._gaps for part in gap.without(upper, lower)]
        if upper.created <= lower.created:
            return True  # a single edge
        whole = Range(lower.created, upper.created)
        compared = await self._bounded(whole, upper.rank, lower.rank)
        known = await self._known.between(
            math.nextafter(compared.oldest, math.inf), compared.newest
        )
        missing = known.keys() - set(stretch.ids)
        unknown = stretch.listed_between(*compared) - known.keys()
        if stretch.ends and any(_is_after(known[job_id], stretch) for job_id in missing):
            await self._pages.confirm_end(stretch)
        self.missing |= {job_id: known[job_id] for job_id in missing}
        self.unknown |= unknown
        self._unfinished |= compared != whole
        agrees = not missing and not unknown
        if agrees:
            self.agreeing.append(compared)
        return agrees

    async def bisect(self) -> None:
        """Read the list wherever its shift shows that it differs.

        Raises:
            TooDifferentError: it differs nearly everywhere.
            UnverifiableError, ListChangedError, LimitReachedError, PollError: as `Pages`.
        """
        if any(gap.differs for gap in self._gaps) and self._gaps[0].upper is TOP:
            await self.add(await self._pages.read(0, PAGE))  # jobs created since the poll?
        large = max(2 * PAGE, self._rows // _EVEN_PARTS)
        while differing := [gap for gap in self._gaps if gap.differs]:
            largest = max(differing, key=lambda gap: gap.rows)
            if largest.rows > large:
                self._sample(agrees=await self.add(await self._read_in(largest)))
            else:
                await self.add(await self._read_in(differing[0]))

    async def read_from(self, newest: float) -> bool:
        """Read and compare a page that begins with the jobs created at ``newest`` or before.

        Returns:
            Whether it was read; not if its rows have been read already. Call `bisect` before, so
            that the rows are known, and after, for what the page reveals about the others.
        """
        for gap in self._gaps:
            if gap.lower.created < newest <= gap.upper.created:
                rank = await self._known.count_newer(newest)
                upper = Boundary(newest, rank - gap.upper.shift, rank)
                first = max(0, upper.row - 1)
                page = await self._pages.read(first, first + PAGE)
                await self.add(await self._reach(Gap(upper, gap.lower), page))
                return True
        return False

    async def _read_in(self, gap: Gap) -> Stretch:
        """Return a stretch that makes the gap smaller; if it fits on a page, all of it."""
        first, last = max(0, gap.upper.row - 1), max(gap.upper.row, gap.lower.row) + 1
        if last - first > PAGE:
            first = (first + last) // 2
            last = first + 1
        return await self._reach(gap, await self._pages.read(first, last))

    async def _reach(self, gap: Gap, stretch: Stretch) -> Stretch:
        """Read on where the stretch is in the middle of a group, until it has edges in the gap."""
        for _ in range(_MAX_GROUP_PAGES):
            if not stretch.ids and stretch.start:
                raise ListChangedError
            if not stretch.has_edges or stretch.lower.created == gap.upper.created:
                stretch = await self._pages.extended_down(stretch)
            elif stretch.upper.created == gap.lower.created:
                stretch = await self._pages.extended_up(stretch)
            elif gap.overlaps(stretch.upper, stretch.lower):
                return stretch
            else:
                raise ListChangedError
        raise UnverifiableError("the list has too many jobs with the same create time")

    async def _boundary(self, edge: Edge) -> Boundary:
        return Boundary(edge.created, edge.row, await self._known.count_newer(edge.created))

    async def _bounded(self, whole: Range, rank: int, last_rank: int) -> Range:
        """Return the newest part of a range that is not too large to compare."""
        if last_rank - rank <= _MAX_COMPARED:
            return whole
        oldest = await self._known.created_at(rank + _MAX_COMPARED)
        return whole if oldest is None else Range(max(oldest, whole.oldest), whole.newest)

    def _sample(self, *, agrees: bool) -> None:
        """Judge by the pages at even distances whether bisecting is worthwhile."""
        self._sampled += 1
        self._sampled_different += not agrees
        if (
            self._sampled >= _SMALLEST_SAMPLE
            and self._sampled_different * _TOO_MANY >= self._sampled
        ):
            raise TooDifferentError(
                f"{self._sampled_different} of {self._sampled} pages of the list differ"
            )


def _is_after(known: TrackedJob, stretch: Stretch) -> bool:
    """Whether a job would be listed after a stretch."""
    created = known.job.created
    return created is not None and created < min(stretch.created, default=math.inf)
