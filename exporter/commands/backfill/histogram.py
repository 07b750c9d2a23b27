"""A histogram over a grid."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from exporter.commands.backfill.curve import Curve


class HistogramCurve:
    """Observations by bucket.

    Args:
        bounds: upper bounds without +Inf, which is added.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._buckets = [Curve() for _ in range(len(bounds) + 1)]
        self._sum = Curve()

    def observe(self, position: int, amount: float) -> None:
        """Add an observation from a position of the grid on."""
        self._buckets[bisect_left(self._bounds, amount)].add(position, 1)
        self._sum.add(position, amount)

    def stretches(self, start: int, stop: int) -> Iterator[tuple[int, int, tuple[float, ...]]]:
        """Yield ``(start, stop, values)`` for every stretch in which all values are constant.

        The values are the cumulative counts by upper bound, and the sum.
        """
        changes: dict[int, list[tuple[int, float]]] = {}
        for number, curve in enumerate((*self._buckets, self._sum)):
            for first, _, value in curve.stretches(start, stop):
                changes.setdefault(first, []).append((number, value))
        values = [0.0] * (len(self._buckets) + 1)
        edges = [*sorted(changes), stop]
        for first, last in pairwise(edges):
            for number, value in changes[first]:
                values[number] = value
            yield first, last, (*accumulate(values[:-1]), values[-1])
