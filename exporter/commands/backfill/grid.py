"""The moments that samples are written for."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

MOST_MOMENTS = 1_000_000


class Day(NamedTuple):
    """A day in UTC, such as ``2026-08-01``: its moments are from ``lo`` to before ``hi``."""

    name: str
    lo: int
    hi: int


class Grid:
    """Every step from a start on, and the stop, whether a step ends there or not.

    Args:
        start: unix seconds.
        stop: unix seconds, later.
        step: seconds.

    Attributes:
        times: the moments, in unix seconds, whole milliseconds.
        texts: the same as OpenMetrics writes them.
    """

    def __init__(self, start: float, stop: float, step: float) -> None:
        stop = round(stop, 3)
        steps = int((stop - start) / step) + 1
        times = (round(start + number * step, 3) for number in range(steps))
        self.times = [*(time for time in times if time < stop), stop]
        self.texts = [_text(time) for time in self.times]

    def __len__(self) -> int:
        return len(self.times)

    def at(self, moment: float) -> int:
        """Position of the first moment not before ``moment``; the length if there is none."""
        return bisect_left(self.times, moment)

    def after(self, moment: float) -> int:
        """Position of the first moment after ``moment``; the length if there is none."""
        return bisect_right(self.times, moment)

    def days(self) -> Iterator[Day]:
        """The days that have moments."""
        lo = 0
        while lo < len(self):
            day = datetime.fromtimestamp(self.times[lo], UTC).date()
            midnight = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC)
            hi = self.at(midnight.timestamp())
            yield Day(day.isoformat(), lo, hi)
            lo = hi


def _text(time: float) -> str:
    return str(int(time)) if time.is_integer() else f"{time:.3f}"
