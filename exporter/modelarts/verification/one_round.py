"""One round of verification: the end of the list, what differs, and one page of the scrub."""

from collections.abc import Collection, Mapping

from exporter.modelarts.search import PAGE
from exporter.modelarts.verification.differences import Comparison, TooDifferentError
from exporter.modelarts.verification.end_of_list import HonestTotal, find_end
from exporter.modelarts.verification.known_list import KnownList
from exporter.modelarts.verification.marks import Verification
from exporter.modelarts.verification.pages import Pages, UnverifiableError
from exporter.modelarts.verification.stretch import Stretch

_MAX_SHARE = 0.2
"""Where so much of the list is gone or new, reading it as a whole is cheaper."""


class Round:
    """Compares a list with what is known, as far as its requests allow.

    Args:
        pages: of the list.
        known: what is known of it.
        verification: when its parts were last verified.
        totals: the numbers of jobs in the list as reported by the service, by field name.
        honest: which of the totals is honest; updated.
        now: unix seconds.

    Attributes:
        comparison: the differences found.
        scrubbed: whether a page of the scrub was read.
    """

    def __init__(
        self,
        pages: Pages,
        known: KnownList,
        verification: Verification,
        *,
        totals: Mapping[str, int | None],
        honest: HonestTotal,
        now: float,
    ) -> None:
        self.comparison = Comparison(pages, known)
        self.scrubbed = False
        self._pages = pages
        self._known = known
        self._before = verification
        self._totals = totals
        self._honest = honest
        self._now = now

    @property
    def verification(self) -> Verification:
        """When which part of the list was last verified, now included."""
        after = self._before.with_verified(self.comparison.agreeing, self._now)
        return after.with_scrubbed(self._now) if self.scrubbed else after

    async def run(self, *, interval: float, suspects: Collection[float]) -> None:
        """Do the round.

        Args:
            interval: seconds that a whole scrub should take.
            suspects: create times (unix seconds) of jobs to look for.

        Raises:
            TooDifferentError: the whole list should be read.
            UnverifiableError, ListChangedError, LimitReachedError, PollError: as `Pages`.
        """
        jobs, without_time = await self._known.count()
        if without_time:
            raise UnverifiableError("jobs without a create time are known")
        due = self._before.is_due(self._now, interval=interval, jobs=jobs)
        as_long_as_known = self._honest.shows(jobs, self._totals, self._now)
        if as_long_as_known and not due and not suspects:
            return
        whole = await self._pages.detect_mode()
        if whole is not None:
            await self._begin(whole, jobs)
            self.scrubbed = True
            return
        if as_long_as_known:
            await self.comparison.end_at(jobs)
        else:
            guess = self._honest.guess(jobs, self._totals)
            limit = jobs + _implausible(jobs)
            await self._begin(await find_end(self._pages, guess=guess, limit=limit), jobs)
        await self.comparison.bisect()
        for created in suspects:
            await self.comparison.read_from(created)
            await self.comparison.bisect()
        if due:
            self.scrubbed = await self.comparison.read_from(self.verification.next_range.newest)
            await self.comparison.bisect()

    async def _begin(self, last: Stretch, jobs: int) -> None:
        """Begin with the last rows of the list, where ``jobs`` are known."""
        self._honest.learn(last.end, self._totals, self._now)
        if abs(last.end - jobs) >= _implausible(jobs):
            raise TooDifferentError(f"{jobs} jobs are known, but the service lists {last.end}")
        await self.comparison.end_at(last.end)
        await self.comparison.add(last)


def _implausible(jobs: int) -> int:
    """Return how many jobs must be gone or new for the whole list to be read."""
    return max(PAGE, round(jobs * _MAX_SHARE))
