"""Where the list ends, and whether the service's totals tell."""

import math
from collections.abc import Mapping

from exporter.modelarts.search import PAGE
from exporter.modelarts.verification.differences import TooDifferentError
from exporter.modelarts.verification.pages import ListChangedError, Pages
from exporter.modelarts.verification.stretch import Stretch

_TRUST_SECONDS = 600.0
"""An honest total is believed for so long after a request has shown where the list ends."""


class HonestTotal:
    """Which of the reported totals is the number of jobs in the list, as shown by requests."""

    def __init__(self) -> None:
        self._name = ""
        self._proved = -math.inf

    def shows(self, rows: int, totals: Mapping[str, int | None], now: float) -> bool:
        """Whether the total, if it was honest not long ago, shows that the list has ``rows``."""
        recently = 0 <= now - self._proved < _TRUST_SECONDS
        return recently and totals.get(self._name) == rows

    def guess(self, rows: int, totals: Mapping[str, int | None]) -> int:
        """Return the total, if it was honest when last compared, else ``rows``."""
        total = totals.get(self._name)
        return rows if total is None else total

    def learn(self, rows: int, totals: Mapping[str, int | None], now: float) -> None:
        """Note that the list was found to have ``rows`` when the totals were reported."""
        self._name = next((name for name, total in totals.items() if total == rows), "")
        self._proved = now


async def find_end(pages: Pages, *, guess: int, limit: int) -> Stretch:
    """Return a stretch that the list ends with, in one request if the guess is right or nearly so.

    Args:
        pages: of the list.
        guess: the number of rows that it probably has.
        limit: where to stop looking for the end of a list that has more rows.

    Raises:
        TooDifferentError: the list is longer than ``limit``.
        UnverifiableError, ListChangedError, LimitReachedError, PollError: as `Pages`.
    """
    shortest, longest = 0, None
    row, step = guess, PAGE
    while True:
        first = max(0, row - 1)
        stretch = await pages.read(first, first + 2)
        if stretch.ends and (stretch.ids or not stretch.start):
            return stretch
        if stretch.ids:
            shortest = max(shortest, stretch.end)
        else:
            longest = stretch.start if longest is None else min(longest, stretch.start)
        if longest is None:
            row, step = shortest + step, 2 * step
            if shortest > limit:
                raise TooDifferentError(f"the list has more than {limit} jobs")
        elif shortest == 0:
            row, step = max(0, longest - step), 2 * step
        elif shortest < longest:
            row = (shortest + longest) // 2
        elif shortest == longest:
            row = longest  # the last page was full
        else:
            raise ListChangedError
