"""Gauges that are absent at some times, as those of a live exporter."""

from collections.abc import Iterator, Sequence

from exporter.commands.backfill.curve import Curve
from exporter.commands.backfill.grid import Grid
from exporter.jobs.tracked import Base

Spans = Sequence[tuple[int, int]]
"""Positions of the grid: each from the first to before the second, in order."""


class ShownSpans:
    """When the gauges of each base are shown: before its first job, and until it is idle.

    Args:
        grid: the times of the samples.
        retention: seconds after which a base without jobs is idle (``jobs.idle_retention``);
            0 = never.
    """

    def __init__(self, grid: Grid, retention: float) -> None:
        self._grid = grid
        self._retention = retention
        self._spans: dict[Base, list[tuple[int, int]]] = {}

    def add(self, base: Base, start: int, stop: float | None) -> None:
        """Add a job that counts.

        Args:
            base: in which it counts.
            start: position of the grid.
            stop: unix seconds; None: it still counts at the end.
        """
        if self._retention:
            until = len(self._grid)
            if stop is not None:
                until = self._grid.after(stop + self._retention)
            self._spans.setdefault(base, []).append((start, until))

    def of(self, base: Base) -> Spans:
        """When the gauges of a base are shown."""
        merged: list[tuple[int, int]] = []
        for start, stop in sorted(self._spans.get(base, ())):
            if not merged:
                merged.append((0, stop))
            elif start > merged[-1][1]:
                merged.append((start, stop))
            else:
                merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        return merged or [(0, len(self._grid))]


class ShownCurve:
    """A curve that has values only at some times."""

    def __init__(self, curve: Curve, spans: Spans) -> None:
        self._curve = curve
        self._spans = spans

    def stretches(self, start: int, stop: int) -> Iterator[tuple[int, int, float]]:
        """Yield ``(start, stop, value)`` for every stretch in which the value is constant."""
        for first, last in self._spans:
            if last > start and first < stop:
                yield from self._curve.stretches(max(first, start), min(last, stop))


class PresentCurve:
    """A curve that has no values while it is zero."""

    def __init__(self, curve: Curve) -> None:
        self._curve = curve

    def stretches(self, start: int, stop: int) -> Iterator[tuple[int, int, float]]:
        """Yield ``(start, stop, value)`` for every stretch in which the value is constant."""
        return (stretch for stretch in self._curve.stretches(start, stop) if stretch[2])
