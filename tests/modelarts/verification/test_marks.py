"""The record of what was verified when."""

import math
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.modelarts.verification.marks import Mark, Range, Verification

INF = math.inf
NEVER = Verification()


def at(verification, created):
    """When the jobs created at a time were verified."""
    return next(mark.at for mark in verification.marks if mark.oldest < created)


def test_nothing_is_verified_at_first():
    assert NEVER.oldest is None
    assert NEVER.next_range == Range(-INF, INF)
    assert NEVER.is_due(0.0, interval=60, jobs=1)


def test_a_list_that_was_read_as_a_whole():
    complete = Verification.complete(100.0)
    assert complete.oldest == 100
    assert complete.next_range == Range(-INF, INF)


def test_parts_are_verified_one_after_the_other():
    now = NEVER.with_verified([Range(50, INF)], 1).with_verified([Range(20, 50)], 2)
    assert now.marks == (Mark(50, 1), Mark(20, 2), Mark(-INF, -INF))
    assert now.oldest is None
    assert now.next_range == Range(-INF, 20)

    now = now.with_verified([Range(-INF, 20)], 3)
    assert (now.oldest, now.next_range) == (1, Range(50, INF))

    now = now.with_verified([Range(15, 60)], 4)
    assert now.marks == (Mark(60, 1), Mark(15, 4), Mark(-INF, 3))


def test_neighbors_that_were_verified_at_once_are_one_part():
    now = NEVER.with_verified([Range(50, INF), Range(20, 50)], 1)
    assert now.marks == (Mark(20, 1), Mark(-INF, -INF))


RANGES = st.tuples(st.integers(-1, 40), st.integers(-1, 40)).filter(lambda r: r[0] < r[1])


@settings(deadline=None)
@given(st.lists(st.tuples(RANGES, st.integers(0, 1000)), max_size=40))
def test_each_part_has_the_time_of_its_latest_verification(verified):
    verification, times = NEVER, dict.fromkeys(range(40), -INF)
    for (oldest, newest), time in verified:
        verification = verification.with_verified([Range(oldest, newest)], time)
        times |= {n: time for n in range(40) if oldest < n <= newest}

    assert {n: at(verification, n) for n in times} == times
    limits = [mark.oldest for mark in verification.marks]
    assert limits == sorted(set(limits), reverse=True)


@pytest.mark.parametrize("seed", range(5))
def test_many_parts_are_merged_and_never_look_younger_than_they_are(seed):
    chance = random.Random(seed)
    parts = [(number, chance.randrange(100_000)) for number in range(600)]
    chance.shuffle(parts)
    verification = NEVER
    for number, time in parts:
        verification = verification.with_verified([Range(number - 1, number)], time)

    assert len(verification.marks) <= 256
    assert all(at(verification, number) <= time for number, time in parts)


def test_merged_parts_are_about_as_old_as_they_were():
    verification = Verification.complete(0)
    for number in range(1000, 0, -1):
        newest = INF if number == 1000 else number
        verification = verification.with_verified([Range(number - 1, newest)], 60 * (1001 - number))

    ages = [60 * (1001 - number) - at(verification, number) for number in range(1, 1001)]
    assert 0 <= min(ages) <= max(ages) <= 60 * 8
    assert verification.oldest == 0  # nothing below 0 was verified


@settings(deadline=None)
@given(st.lists(st.tuples(RANGES, st.floats(0, 1e10)), max_size=40), st.floats(0, 1e10))
def test_it_survives_the_state_file(verified, scrubbed):
    verification = NEVER.with_scrubbed(scrubbed)
    for (oldest, newest), time in verified:
        verification = verification.with_verified([Range(oldest, newest)], time)

    assert Verification.decode(verification.encode()) == verification


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"damaged",
        Verification.complete(1).encode()[:-1],
        *(
            msgspec.msgpack.encode(value)
            for value in (
                None,
                [],
                [[], 0.0],
                [[[0.0, 1.0]], 0.0],  # nothing on the oldest jobs
                [[[1.0, 1.0], [2.0, 1.0], [-INF, 1.0]], 0.0],
                [[[1.0, 1.0], [1.0, 2.0], [-INF, 1.0]], 0.0],
                [[[INF, 1.0], [-INF, 1.0]], 0.0],
                [[[math.nan, 1.0], [-INF, 1.0]], 0.0],
                [[[-INF, math.nan]], 0.0],
                [[[-INF, INF]], 0.0],
                [[[-INF, 1.0]], math.nan],
                [[*([float(-n), 1.0] for n in range(256)), [-INF, 1.0]], 0.0],
            )
        ),
    ],
)
def test_unusable_bytes_mean_that_nothing_was_verified(data):
    assert Verification.decode(data) == NEVER


@pytest.mark.parametrize(
    ("jobs", "pages"), [(0, 1), (36, 1), (37, 2), (3600, 100), (50_000, 1389), (100_000, 1440)]
)
def test_as_many_pages_a_day_as_the_list_has_but_one_beside_a_poll(jobs, pages):
    verification, read = NEVER.with_scrubbed(0.0), 0
    for poll in range(1, 1441):
        if verification.is_due(poll * 60.0, interval=86400, jobs=jobs):
            verification = verification.with_scrubbed(poll * 60.0)
            read += 1

    assert read == pages


def test_a_clock_that_was_set_back_does_not_stop_the_scrub():
    assert NEVER.with_scrubbed(1e6).is_due(9e5, interval=86400, jobs=1)
