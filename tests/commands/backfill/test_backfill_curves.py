"""Values over a grid, compared with a naive implementation."""

import random
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.commands.backfill.curve import _FOLD_AFTER, Curve
from exporter.commands.backfill.grid import Grid
from exporter.commands.backfill.histogram import HistogramCurve
from exporter.commands.backfill.oldest import OldestWaiting

SIZE = 20
POSITIONS = st.integers(0, SIZE + 3)  # some beyond the grid
SPANS = st.tuples(POSITIONS, POSITIONS).map(sorted).filter(lambda span: span[0] < span[1])


def values(curve, lo=0, hi=SIZE):
    """The value at each position, or None; stretches are in order and do not overlap."""
    found = dict.fromkeys(range(lo, hi))
    end = lo
    for first, last, value in curve.stretches(lo, hi):
        assert end <= first < last <= hi
        found |= dict.fromkeys(range(first, last), value)
        end = last
    return list(found.values())


@given(st.lists(st.tuples(POSITIONS, st.integers(-5, 5))), SPANS)
def test_a_curve_is_the_sum_of_its_changes(changes, part):
    curve = Curve()
    for position, amount in changes:
        curve.add(position, amount)
    expected = [sum(by for at, by in changes if at <= position) for position in range(SIZE)]
    assert values(curve) == expected
    lo, hi = part[0], min(part[1], SIZE)
    if lo < hi:
        assert values(curve, lo, hi) == expected[lo:hi]


def test_a_curve_of_many_changes_stays_small_and_can_go_on():
    curve, expected = Curve(), [0.0] * SIZE
    chance = random.Random(1)
    for number in range(5 * _FOLD_AFTER):
        position = chance.randrange(SIZE)
        curve.add(position, 1)
        expected[position] += 1
        if number % _FOLD_AFTER == 7:
            assert values(curve) == list(accumulate(expected))
    assert values(curve) == list(accumulate(expected))
    assert len(curve._positions) <= _FOLD_AFTER


def test_fractions_that_are_subtracted_again_leave_nothing():
    curve = Curve(digits=6)
    for amount in (0.1, 0.2, 7.3, -0.2, -0.1, -7.3):
        curve.add(1 if amount > 0 else 2, amount)

    assert list(curve.stretches(0, 3)) == [(0, 1, 0.0), (1, 2, 7.6), (2, 3, 0.0)]


def test_stretches_are_as_long_as_the_value_stays():
    curve = Curve()
    curve.add(3, 2)
    curve.add(5, 1)
    curve.add(5, -1)  # nothing happened there
    assert list(curve.stretches(0, 10)) == [(0, 3, 0.0), (3, 10, 2.0)]


GRID = Grid(1000.0, 1000.0 + 60 * (SIZE - 1), 60.0)


@given(st.floats(0, 3000), st.just(0.0) | st.floats(0.001, 3000), st.floats(0, 1e6))
def test_an_amount_is_spread_evenly(begin, length, amount):
    curve = Curve()
    end = begin + length
    curve.spread(GRID, begin, end, amount)

    def share(at):
        if begin == end:
            return float(at >= end and begin > GRID.times[0])
        return (min(max(at, begin), end) - max(min(begin, at), begin)) / length

    before = share(GRID.times[0]) if begin < end else 0.0
    expected = [amount * (share(at) - before) for at in GRID.times]
    assert values(curve) == pytest.approx(expected, rel=1e-9, abs=1e-6 * max(amount, 1))
    assert all(one <= other for one, other in pairwise(values(curve)))  # a counter never decreases


def test_a_counter_never_falls_however_many_amounts_are_spread():
    curve, chance = Curve(), random.Random(2)
    for _ in range(500):
        begin = chance.uniform(900, 2200)
        curve.spread(GRID, begin, begin + chance.uniform(0, 500), chance.uniform(0, 1e9))
    assert all(one <= other for one, other in pairwise(values(curve)))


@given(st.lists(st.tuples(SPANS, st.floats(0, 100))))
def test_the_oldest_that_waits(jobs):
    waiting = OldestWaiting()
    for (lo, hi), created in jobs:
        waiting.add(lo, hi, created)
    assert values(waiting) == [
        min((created for (lo, hi), created in jobs if lo <= position < hi), default=None)
        for position in range(SIZE)
    ]


@given(st.lists(st.tuples(POSITIONS, st.floats(0, 40))), SPANS)
def test_a_histogram_counts_by_bucket(observations, part):
    bars = HistogramCurve((1, 10, 30))
    for position, amount in observations:
        bars.observe(position, amount)
    lo, hi = part[0], min(part[1], SIZE)
    if lo >= hi:
        return
    for position, found in zip(range(lo, hi), values(bars, lo, hi), strict=True):
        seen = [amount for at, amount in observations if at <= position]
        *counts, total = found
        assert counts == [sum(amount <= bound for amount in seen) for bound in (1, 10, 30, 100)]
        assert total == pytest.approx(sum(seen))


@pytest.mark.parametrize(
    ("start", "stop", "step", "texts"),
    [
        (0.0, 10.0, 5.0, ["0", "5", "10"]),
        (0.0, 11.5, 5.0, ["0", "5", "10", "11.500"]),  # always includes the stop
        (0.001, 5.00149, 5.0, ["0.001", "5.001"]),  # once, not again a fraction later
        (0.25, 0.75, 5.0, ["0.250", "0.750"]),
        (1.79550000012e9, 1.79550000112e9, 0.5,
         ["1795500000.120", "1795500000.620", "1795500001.120"]),
    ],
)  # fmt: skip
def test_a_grid_has_every_step_and_the_stop(start, stop, step, texts):
    assert Grid(start, stop, step).texts == texts


def test_positions_on_a_grid():
    grid = Grid(0.0, 10.0, 5.0)
    assert [grid.at(moment) for moment in (-1, 0, 0.1, 5, 10, 11)] == [0, 0, 1, 1, 2, 3]
    assert [grid.after(moment) for moment in (-1, 0, 0.1, 5, 10, 11)] == [0, 1, 1, 2, 3, 3]


def test_days_begin_at_midnight_utc():
    grid = Grid(1_754_006_400.0 - 3600, 1_754_006_400.0 + 86_400, 3600.0)
    assert list(grid.days()) == [
        ("2025-07-31", 0, 1), ("2025-08-01", 1, 25), ("2025-08-02", 25, 26),
    ]  # fmt: skip
