"""The times at which samples are written."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

MOST_SAMPLES = 1_000_000


class Day(NamedTuple):
    """A day in UTC, such as ``2026-08-01``, and its positions: ``start`` to before ``stop``."""

    name: str
    start: int
    stop: int


class Grid:
    """The times from a start on, a step apart, and the stop even if no step ends there.

    Args:
        start: unix seconds.
        stop: unix seconds, later.
        step: seconds.

    Attributes:
        times: unix seconds, whole milliseconds.
        texts: the same, as OpenMetrics writes them.
    """

    def __init__(self, start: float, stop: float, step: float) -> None:
        stop = round(stop, 3)
        steps = int((stop - start) / step) + 1
        times = (round(start + number * step, 3) for number in range(steps))
        self.times = [*(time for time in times if time < stop), stop]
        self.texts = [_text(time) for time in self.times]

    def __len__(self) -> int:
        return len(self.times)

    def at(self, time: float) -> int:
        """Return the position of the first time not before this; the length if there is none."""
        return bisect_left(self.times, time)

    def after(self, time: float) -> int:
        """Return the position of the first time after this; the length if there is none."""
        return bisect_right(self.times, time)

    def days(self) -> Iterator[Day]:
        """Yield the days that have samples."""
        start = 0
        while start < len(self):
            day = datetime.fromtimestamp(self.times[start], UTC).date()
            midnight = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC)
            stop = self.at(midnight.timestamp())
            yield Day(day.isoformat(), start, stop)
            start = stop


def _text(time: float) -> str:
    return str(int(time)) if time.is_integer() else f"{time:.3f}"
