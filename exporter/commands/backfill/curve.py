"""A value over a grid, kept as its changes: what it costs grows with what happened."""

from array import array
from bisect import bisect_right
from collections.abc import Iterator

from exporter.commands.backfill.grid import Grid

_FOLDED = 4096
"""Changes that are collected before those at the same moment are added up."""


class Curve:
    """Starts at zero.

    Sums of whole numbers are exact. Where no change is negative the value never falls, also as a
    floating-point number.
    """

    __slots__ = ("_at", "_by", "_fold_at", "_value")

    def __init__(self) -> None:
        self._at = array("I")
        self._by = array("d")
        self._fold_at = _FOLDED
        self._value: array[float] | None = None

    def add(self, position: int, amount: float) -> None:
        """Change the value by ``amount`` from a position of the grid on."""
        self._value = None
        self._at.append(position)
        self._by.append(amount)
        if len(self._at) >= self._fold_at:
            self._fold()
            self._fold_at = max(_FOLDED, 2 * len(self._at))

    def spread(self, grid: Grid, begin: float, end: float, amount: float) -> None:
        """Add an amount evenly from ``begin`` to ``end`` (unix seconds), as far as on the grid."""
        last = grid.times[-1]
        done, stop = max(begin, grid.times[0]), min(end, last)
        if done >= stop:
            if grid.times[0] < begin == end <= last:
                self.add(grid.at(end), amount)
            return
        rate = amount / (end - begin)
        for position in range(grid.after(done), grid.at(stop) + 1):
            until = min(grid.times[position], stop)
            self.add(position, rate * (until - done))
            done = until

    def stretches(self, lo: int, hi: int) -> Iterator[tuple[int, int, float]]:
        """Where the value stays the same: from one position to before another, and the value."""
        if self._value is None:
            self._fold()
            self._value = array("d", _sums(self._by))
        next_change = bisect_right(self._at, lo)
        value = self._value[next_change - 1] if next_change else 0.0
        for change in range(next_change, len(self._at)):
            if self._at[change] >= hi:
                break
            yield lo, self._at[change], value
            lo, value = self._at[change], self._value[change]
        if lo < hi:
            yield lo, hi, value

    def _fold(self) -> None:
        """Add up the changes at the same position, and sort."""
        sums: dict[int, float] = {}
        for position, amount in zip(self._at, self._by, strict=True):
            sums[position] = sums.get(position, 0.0) + amount
        changes = sorted(change for change in sums.items() if change[1])
        self._at = array("I", [position for position, _ in changes])
        self._by = array("d", [amount for _, amount in changes])


def _sums(amounts: "array[float]") -> Iterator[float]:
    total = 0.0
    for amount in amounts:
        total += amount
        yield total
