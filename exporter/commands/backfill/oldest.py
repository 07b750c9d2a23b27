"""Since when the oldest job of those that wait has been waiting, over a grid."""

import heapq
from collections.abc import Iterator


class OldestWaiting:
    """Create times of jobs while they wait; no value where none does."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int, float]] = []
        self._oldest: list[tuple[int, int, float]] | None = None

    def add(self, lo: int, hi: int, created: float) -> None:
        """A job waits from one position of the grid to before another.

        Args:
            lo: the first position.
            hi: the position after the last.
            created: unix seconds.
        """
        self._spans.append((lo, hi, created))
        self._oldest = None

    def stretches(self, lo: int, hi: int) -> Iterator[tuple[int, int, float]]:
        """Where the value stays the same: from one position to before another, and the value."""
        if self._oldest is None:
            self._oldest = []
            for stretch in self._found():
                first, last, created = stretch
                same = bool(self._oldest) and self._oldest[-1][1:] == (first, created)
                before = self._oldest.pop() if same else stretch
                self._oldest.append((before[0], last, created))
        for first, last, created in self._oldest:
            if last > lo and first < hi:
                yield max(first, lo), min(last, hi), created

    def _found(self) -> Iterator[tuple[int, int, float]]:
        """Every stretch in which the oldest job is the same."""
        spans = sorted(self._spans)
        waiting: list[tuple[float, int]] = []  # create times, and until when
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
