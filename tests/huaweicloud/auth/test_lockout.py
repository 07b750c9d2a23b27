"""An access key is never locked by us, and no request waits forever."""

import asyncio
import re
from contextlib import suppress

import pytest
from huaweicloud.fake_cloud import Time
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import AuthError
from exporter.huaweicloud.auth.lockout import KeyLockouts, masked
from exporter.huaweicloud.auth.signature import Key

KEY = Key("ABCDEFGH", "wrong")
LOCKED_AFTER = 5
PAUSE = 300.0


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def lockouts(time):
    return KeyLockouts(lambda: time.monotonic)


@pytest.fixture
def lockout(lockouts):
    return lockouts.for_key(KEY)


async def fails(lockout, secret="wrong"):
    async with lockout.attempt(secret) as attempt:
        attempt.failed(AuthError("refused by the service"))


async def succeeds(lockout, secret="right"):
    async with lockout.attempt(secret) as attempt:
        attempt.succeeded()


async def refuses(lockout, secret="wrong"):
    with pytest.raises(AuthError) as caught:
        async with lockout.attempt(secret):
            pytest.fail("was sent")
    return str(caught.value)


async def test_three_failures_then_a_pause_of_five_minutes(lockout, time):
    for _ in range(3):
        await fails(lockout)
        time.passes(1)
    message = await refuses(lockout)
    assert message == (
        "access key ABCD… was refused several times in a row: not tried again for 299 s, or the "
        "service would lock it; a corrected secret is tried at once; last response: refused by the "
        "service"
    )
    time.passes(298)
    await refuses(lockout)


async def pauses(lockout, time, number):
    """How long each of the next pauses is, if a single try after each fails."""
    found = []
    for _ in range(number):
        message = await refuses(lockout)
        seconds = float(re.search(r"not tried again for (\d+) s", message)[1])
        time.passes(seconds - 1)
        await refuses(lockout)
        time.passes(1)
        await fails(lockout)
        found.append(seconds)
    return found


async def test_after_the_pause_a_single_try_then_a_longer_pause(lockout, time):
    for _ in range(3):
        await fails(lockout)
    assert await pauses(lockout, time, 6) == [300, 600, 1200, 2400, 3600, 3600]
    await succeeds(lockout, "right")  # a changed secret waits for nothing


async def test_pauses_of_a_secret_that_was_accepted_before_do_not_grow(lockout, time):
    await succeeds(lockout, "wrong")
    for _ in range(3):
        await fails(lockout)
    assert await pauses(lockout, time, 3) == [300, 300, 300]


async def test_a_wrong_secret_hardly_ever_locks_a_key_whose_failures_are_never_forgotten(
    lockout, time
):
    failures = 0
    for _ in range(24 * 60):
        with suppress(AuthError):
            await fails(lockout)
            failures += 1
        time.passes(60)
    assert failures // (LOCKED_AFTER + 1) <= 5  # times within a day


async def test_success_forgets_all_failures(lockout, time):
    for _ in range(3):
        await fails(lockout)
    time.passes(PAUSE)
    await succeeds(lockout, "wrong")  # the service has a new secret, or changed its mind
    for _ in range(3):
        await fails(lockout)
    await refuses(lockout)


async def test_a_corrected_secret_is_tried_at_once_but_never_a_sixth_time(lockout, time):
    for _ in range(3):
        await fails(lockout)
    await fails(lockout, "second")
    await refuses(lockout, "second")
    await fails(lockout, "third")
    for secret in ("wrong", "second", "third", "fourth"):
        await refuses(lockout, secret)
    time.passes(PAUSE)
    await succeeds(lockout, "fourth")


async def test_a_wrong_secret_of_one_target_does_not_stop_another_target(lockout, time):
    for _ in range(5):
        with suppress(AuthError):
            await fails(lockout)
        await succeeds(lockout)
        time.passes(60)
    await refuses(lockout)
    await succeeds(lockout)


async def test_keys_do_not_stop_each_other(lockouts):
    for _ in range(3):
        await fails(lockouts.for_key(KEY))
    await succeeds(lockouts.for_key(Key("OTHER", "wrong")))
    await refuses(lockouts.for_key(Key("ABCDEFGH", "shared by all who use the access key")))


async def test_a_user_waits_longer_than_an_access_key(lockouts, time):
    user = lockouts.for_user("d", "u")
    for _ in range(3):
        await fails(user)
    time.passes(PAUSE)
    assert "user u of domain d was refused several times" in await refuses(user)
    time.passes(600)
    await fails(user)
    assert await pauses(user, time, 3) == [1800, 3600, 3600]


async def in_flight(lockout, secrets, *, judge):
    """Start an attempt for each secret; returns how many were on their way at once."""
    now = most = 0
    release = asyncio.Event()

    async def one(secret):
        nonlocal now, most
        async with lockout.attempt(secret) as attempt:
            now += 1
            most = max(most, now)
            await release.wait()
            now -= 1
            judge(attempt)

    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(one(secret)) for secret in secrets]
        for _ in range(10):
            await asyncio.sleep(0)
        release.set()
    assert all(task.done() for task in started)
    return most


async def test_an_unproven_key_has_one_request_in_flight(lockout):
    assert await in_flight(lockout, ["right"] * 5, judge=lambda attempt: attempt.succeeded()) == 1


async def test_two_unproven_secrets_of_one_key_take_turns(lockout):
    assert await in_flight(lockout, ["one", "two"], judge=lambda attempt: None) == 1


async def test_a_proven_key_is_not_limited(lockout):
    await succeeds(lockout)
    assert await in_flight(lockout, ["right"] * 5, judge=lambda attempt: attempt.succeeded()) == 5


async def test_a_failure_makes_a_key_unproven(lockout):
    await succeeds(lockout)
    await fails(lockout, "right")
    assert await in_flight(lockout, ["right"] * 2, judge=lambda attempt: attempt.succeeded()) == 1


async def test_those_who_waited_for_a_success_go_together(lockout):
    first, rest = asyncio.Event(), asyncio.Event()
    on_their_way = []

    async def one(name, release):
        async with lockout.attempt("right") as attempt:
            on_their_way.append(name)
            await release.wait()
            attempt.succeeded()

    async with asyncio.TaskGroup() as tasks:
        for name in range(4):
            tasks.create_task(one(name, rest if name else first))
        for _ in range(5):
            await asyncio.sleep(0)
        assert on_their_way == [0]
        first.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert on_their_way == [0, 1, 2, 3]
        rest.set()


async def test_those_who_waited_for_the_last_failure_are_not_sent(lockout):
    outcomes = []

    async def one():
        try:
            await fails(lockout)
            outcomes.append("sent")
        except AuthError:
            outcomes.append("refused")

    await asyncio.gather(*(one() for _ in range(10)))
    assert outcomes == ["sent"] * 3 + ["refused"] * 7


async def test_requests_that_nobody_judged_block_nothing(lockout):
    for error in (TimeoutError, asyncio.CancelledError):
        with suppress(error):
            async with lockout.attempt("right"):
                raise error
    async with asyncio.timeout(1):
        await succeeds(lockout)


async def test_who_gives_up_waiting_blocks_nobody(lockout):
    async with lockout.attempt("right"):
        waiting = asyncio.create_task(succeeds(lockout))
        await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(1):
        await succeeds(lockout)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcdef"),  # which secret
            st.sampled_from([0, 1, 60, 299, 300, 301, 3600]),  # seconds since the last request
            st.sampled_from([False] * 9 + [True]),  # what the service says to it
        ),
        max_size=60,
    )
)
def test_no_history_locks_a_key(history):
    async def play():
        time = Time()
        lockout = KeyLockouts(lambda: time.monotonic).for_key(KEY)
        in_a_row, last = 0, float("-inf")
        for secret, gap, good in history:
            time.passes(gap)
            with suppress(AuthError):
                if good:
                    await succeeds(lockout, secret)
                    in_a_row = 0
                else:
                    await fails(lockout, secret)
                    in_a_row = 1 if time.monotonic - last >= PAUSE else in_a_row + 1
                    last = time.monotonic
            assert in_a_row <= LOCKED_AFTER

    asyncio.run(play())


def test_people_see_four_characters_of_an_access_key():
    assert masked("ABCDEFGHIJ") == "ABCD…"
