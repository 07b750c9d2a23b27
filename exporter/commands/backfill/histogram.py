"""A histogram over a grid."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from exporter.commands.backfill.curve import Curve


class HistogramCurve:
    """Observations by bucket.

    Args:
        bounds: upper bounds; +Inf comes by itself.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._buckets = [Curve() for _ in range(len(bounds) + 1)]
        self._sum = Curve()

    def observe(self, position: int, amount: float) -> None:
        """An observation, from a position of the grid on."""
        self._buckets[bisect_left(self._bounds, amount)].add(position, 1)
        self._sum.add(position, amount)

    def stretches(self, lo: int, hi: int) -> Iterator[tuple[int, int, tuple[float, ...]]]:
        """Where all values stay the same: positions as of `Curve`, and the values.

        These are the counts by upper bound, each with those below, and the sum.
        """
        changes: dict[int, list[tuple[int, float]]] = {}
        for number, curve in enumerate((*self._buckets, self._sum)):
            for first, _, value in curve.stretches(lo, hi):
                changes.setdefault(first, []).append((number, value))
        values = [0.0] * (len(self._buckets) + 1)
        edges = [*sorted(changes), hi]
        for first, last in pairwise(edges):
            for number, value in changes[first]:
                values[number] = value
            yield first, last, (*accumulate(values[:-1]), values[-1])
