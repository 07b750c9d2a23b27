"""Create time of the oldest waiting job, over a grid."""

import heapq
from collections.abc import Iterator


class OldestWaiting:
    """The create time of the oldest waiting job; no value while no job waits."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int, float]] = []
        self._oldest: list[tuple[int, int, float]] | None = None

    def add(self, start: int, stop: int, created: float) -> None:
        """Add a job that waits.

        Args:
            start: the first position of the grid.
            stop: the position after the last.
            created: unix seconds.
        """
        self._spans.append((start, stop, created))
        self._oldest = None

    def stretches(self, start: int, stop: int) -> Iterator[tuple[int, int, float]]:
        """Yield ``(start, stop, value)`` for every stretch in which the value is constant."""
        if self._oldest is None:
            self._oldest = []
            for stretch in self._by_job():
                first, last, created = stretch
                same = bool(self._oldest) and self._oldest[-1][1:] == (first, created)
                before = self._oldest.pop() if same else stretch
                self._oldest.append((before[0], last, created))
        for first, last, created in self._oldest:
            if last > start and first < stop:
                yield max(first, start), min(last, stop), created

    def _by_job(self) -> Iterator[tuple[int, int, float]]:
        """Yield every stretch in which the oldest job is the same."""
        spans = sorted(self._spans)
        waiting: list[tuple[float, int]] = []  # create time, and the position at which it ends
        ahead = 0
        at = 0
        while ahead < len(spans) or waiting:
            at = at if waiting else spans[ahead][0]
            while ahead < len(spans) and spans[ahead][0] <= at:
                heapq.heappush(waiting, (spans[ahead][2], spans[ahead][1]))
                ahead += 1
            while waiting and waiting[0][1] <= at:
                heapq.heappop(waiting)
            if not waiting:
                continue
            created, end = waiting[0]
            arrival = spans[ahead][0] if ahead < len(spans) else end
            yield at, min(end, arrival), created
            at = min(end, arrival)
