"""A value over a grid, stored as its changes, so that its size grows with what happened."""

from array import array
from bisect import bisect_right
from collections.abc import Iterator

from exporter.commands.backfill.grid import Grid

_FOLD_AFTER = 4096
"""Number of changes after which those at the same position are added up."""


class Curve:
    """A value that starts at zero.

    Sums of whole numbers are exact. If no change is negative, the value never decreases, not even
    by rounding.

    Args:
        digits: decimals that the value is rounded to; None = all of them.
    """

    __slots__ = ("_amounts", "_digits", "_fold_at", "_positions", "_values")

    def __init__(self, digits: int | None = None) -> None:
        self._digits = digits
        self._positions = array("I")
        self._amounts = array("d")
        self._fold_at = _FOLD_AFTER
        self._values: array[float] | None = None

    def add(self, position: int, amount: float) -> None:
        """Add an amount, positive or negative, from a position of the grid on."""
        self._values = None
        self._positions.append(position)
        self._amounts.append(amount)
        if len(self._positions) >= self._fold_at:
            self._fold()
            self._fold_at = max(_FOLD_AFTER, 2 * len(self._positions))

    def spread(self, grid: Grid, begin: float, end: float, amount: float) -> None:
        """Add an amount evenly from ``begin`` to ``end`` (unix seconds), clipped to the grid."""
        last = grid.times[-1]
        time, stop = max(begin, grid.times[0]), min(end, last)
        if time >= stop:
            if grid.times[0] < begin == end <= last:
                self.add(grid.at(end), amount)
            return
        rate = amount / (end - begin)
        for position in range(grid.after(time), grid.at(stop) + 1):
            following = min(grid.times[position], stop)
            self.add(position, rate * (following - time))
            time = following

    def stretches(self, start: int, stop: int) -> Iterator[tuple[int, int, float]]:
        """Yield ``(start, stop, value)`` for every stretch in which the value is constant."""
        if self._values is None:
            self._fold()
            self._values = array("d", _sums(self._amounts, self._digits))
        next_change = bisect_right(self._positions, start)
        value = self._values[next_change - 1] if next_change else 0.0
        for change in range(next_change, len(self._positions)):
            if self._positions[change] >= stop:
                break
            yield start, self._positions[change], value
            start, value = self._positions[change], self._values[change]
        if start < stop:
            yield start, stop, value

    def _fold(self) -> None:
        """Add up the changes at the same position, and sort them."""
        sums: dict[int, float] = {}
        for position, amount in zip(self._positions, self._amounts, strict=True):
            sums[position] = sums.get(position, 0.0) + amount
        changes = sorted(change for change in sums.items() if change[1])
        self._positions = array("I", [position for position, _ in changes])
        self._amounts = array("d", [amount for _, amount in changes])


def _sums(amounts: "array[float]", digits: int | None) -> Iterator[float]:
    total = 0.0
    for amount in amounts:
        total += amount
        yield total if digits is None else round(total, digits)
