"""Tokens are renewed in time, once for all, and not in storms."""

import asyncio
import logging
from itertools import pairwise

import pytest
from huaweicloud.fake_cloud import START, Time, iso

from exporter.errors import AuthError, ConnectionFailedError
from exporter.huaweicloud.auth.refresh import Grant, Refresher, granted

DAY = 86_400.0
REFUSED = AuthError("401 APIG.0301")


class Source:
    """Gives grants ``1``, ``2``, ...; fails while it has an error."""

    def __init__(self, time, lifetime=DAY):
        self.time = time
        self.lifetime = lifetime
        self.error = None
        self.same = False
        self.asked = 0
        self.hold = None

    async def __call__(self):
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        value = "same" if self.same else str(self.asked)
        return Grant(value, self.time.wall + (self.lifetime or 0), self.lifetime)


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def source(time):
    return Source(time)


@pytest.fixture
def refresher(source, time):
    return Refresher(source, name="the token of u", clocks=time.clocks)


async def used(refresher):
    """A request that the service accepts."""
    grant = await refresher.current()
    refresher.accepted(grant)
    return grant.value


@pytest.mark.parametrize(
    ("lifetime", "age", "value"),
    [
        (DAY, DAY - 3601, "1"),
        (DAY, DAY - 3600, "2"),
        (1000.0, 899, "1"),
        (1000.0, 900, "2"),
        (None, 10 * DAY, "1"),
    ],
)
async def test_renewed_an_hour_or_a_tenth_before_the_end(
    *, refresher, source, time, lifetime, age, value
):
    source.lifetime = lifetime
    assert await used(refresher) == "1"
    time.passes(age)
    assert await used(refresher) == value


async def test_one_sign_in_for_many_requests(refresher, source):
    source.hold = asyncio.Event()
    waiting = [asyncio.create_task(used(refresher)) for _ in range(5)]
    await asyncio.sleep(0)
    source.hold.set()
    assert await asyncio.gather(*waiting) == ["1"] * 5
    assert source.asked == 1


async def test_one_failed_sign_in_for_many_requests(refresher, source):
    source.hold = asyncio.Event()
    source.error = ConnectionFailedError("IAM is down")
    waiting = [asyncio.create_task(used(refresher)) for _ in range(5)]
    await asyncio.sleep(0)
    source.hold.set()
    assert await asyncio.gather(*waiting, return_exceptions=True) == [source.error] * 5
    assert source.asked == 1
    source.error = None
    assert await used(refresher) == "2"


async def test_who_gives_up_a_sign_in_leaves_it_to_the_next(refresher, source):
    source.hold = asyncio.Event()
    first = asyncio.create_task(used(refresher))
    second = asyncio.create_task(used(refresher))
    await asyncio.sleep(0)
    first.cancel()
    source.hold.set()
    assert await second == "2"


async def test_nobody_waits_for_a_renewal_while_the_old_one_is_valid(refresher, source, time):
    await used(refresher)
    time.passes(DAY - 60)
    source.hold = asyncio.Event()
    renewing = asyncio.create_task(used(refresher))
    await asyncio.sleep(0)
    assert await used(refresher) == "1"
    source.hold.set()
    assert await renewing == "2"


async def test_what_is_valid_is_used_while_it_cannot_be_renewed(refresher, source, time, caplog):
    await used(refresher)
    time.passes(DAY - 3600)
    source.error = ConnectionFailedError("IAM is down")
    with caplog.at_level(logging.WARNING):
        assert [await used(refresher) for _ in range(3)] == ["1"] * 3
    assert source.asked == 2
    (message,) = caplog.messages
    assert message == (
        "the token of u could not be renewed; it is used while it is valid, next attempt in 60 s: "
        "IAM is down"
    )
    time.passes(60)
    assert await used(refresher) == "1"
    assert source.asked == 3
    time.passes(3600)
    with pytest.raises(ConnectionFailedError):
        await used(refresher)
    source.error = None
    assert await used(refresher) == "5"


async def test_an_expired_one_is_renewed_even_right_after_a_failed_try(refresher, source, time):
    source.lifetime = 100.0
    await used(refresher)
    time.passes(95)
    source.error = ConnectionFailedError("IAM is down")
    await used(refresher)
    source.error = None
    time.passes(5)
    assert await used(refresher) == "3"


async def test_refused_in_the_middle_of_its_life_it_is_renewed_once(refresher, source):
    await used(refresher)
    grant = await refresher.current()
    outcomes = await asyncio.gather(*(refresher.refused(grant, REFUSED) for _ in range(5)))
    assert outcomes == [True] * 5
    assert source.asked == 2
    assert await used(refresher) == "2"


async def test_refused_when_new_it_is_not_renewed(refresher, source, time):
    grant = await refresher.current()
    outcomes = [await refresher.refused(grant, REFUSED) for _ in range(3)]
    assert outcomes == [False] * 3
    time.passes(20)
    with pytest.raises(AuthError) as caught:
        await refresher.current()
    assert str(caught.value) == (
        "the token of u is refused although it is new; next sign-in in 40 s; last response: "
        "401 APIG.0301"
    )
    assert source.asked == 1


async def test_pauses_between_useless_sign_ins_grow_to_five_minutes(refresher, source, time):
    await used(refresher)
    moments = []
    signed_in = source.asked
    begin = time.monotonic
    while len(moments) < 7:
        try:
            grant = await refresher.current()
        except AuthError:
            grant = None
        if source.asked > signed_in:
            signed_in = source.asked
            moments.append(time.monotonic - begin)
        while grant is not None and await refresher.refused(grant, REFUSED):
            grant = await refresher.current()
            if source.asked > signed_in:
                signed_in = source.asked
                moments.append(time.monotonic - begin)
        time.passes(1)
    gaps = [round(after - before) for before, after in pairwise(moments)]
    assert gaps == [60, 120, 240, 300, 300, 300]


async def test_one_success_ends_the_growing(refresher, source, time):
    for pause in (60, 120):
        assert not await refresher.refused(await refresher.current(), REFUSED)
        time.passes(pause)
    await used(refresher)
    assert await refresher.refused(await refresher.current(), REFUSED)  # proven: renewed at once
    assert not await refresher.refused(await refresher.current(), REFUSED)
    time.passes(60)
    assert await used(refresher) == str(source.asked)


async def test_refused_while_iam_is_down(refresher, source, caplog):
    grant = await refresher.current()
    refresher.accepted(grant)
    source.error = ConnectionFailedError("IAM is down")
    assert not await refresher.refused(grant, REFUSED)
    assert caplog.messages == ["the token of u was refused and cannot be renewed: IAM is down"]
    source.error = None
    assert await used(refresher) == "3"


async def test_the_same_key_again_is_no_news(refresher, source, time):
    source.same = True
    grant = await refresher.current()
    refresher.accepted(grant)
    assert not await refresher.refused(grant, REFUSED)
    assert source.asked == 2
    with pytest.raises(AuthError, match="next sign-in in 60 s"):
        await refresher.current()


async def test_the_same_key_again_before_its_end_is_used_on(refresher, source, time):
    source.same = True
    await used(refresher)
    time.passes(DAY - 3600)
    source.lifetime = 3600.0
    await used(refresher)
    time.passes(3600 - 360)
    source.lifetime = 360.0
    assert await used(refresher) == "same"
    assert source.asked == 3
    source.same = False
    grant = await refresher.current()
    assert await refresher.refused(grant, REFUSED), "still known to be good once"


@pytest.mark.parametrize("hours", [-25, -1, 1])
async def test_the_wall_clock_jumps(refresher, source, time, hours):
    await used(refresher)
    time.wall += hours * 3600
    assert await used(refresher) == "1"
    time.passes(DAY - 3600)  # the monotonic clock knows
    assert await used(refresher) == "2"
    for _ in range(10):
        assert await used(refresher) == "2"


async def test_the_machine_sleeps(refresher, time):
    await used(refresher)
    time.wall += DAY  # and the monotonic clock stood still
    assert await used(refresher) == "2"


async def test_the_wall_clock_jumps_ahead_while_iam_is_down(refresher, source, time):
    await used(refresher)
    time.wall += 2 * DAY
    source.error = ConnectionFailedError("IAM is down")
    assert await used(refresher) == "1", "as far as the monotonic clock knows, it is valid"


def test_what_an_answer_says_about_time():
    grant = granted("v", "2020-01-04T09:05:22.701000Z", issued_at=None, now=1_578_128_000.0)
    assert (grant.expires_at, grant.lifetime) == (1578128722.701, pytest.approx(722.701))


def test_the_lifetime_does_not_depend_on_our_clock():
    grant = granted("v", iso(START + DAY), issued_at=iso(START), now=START + 30 * DAY)
    assert (grant.expires_at, grant.lifetime) == (START + DAY, DAY)


def test_expired_at_birth_it_is_still_used_for_a_minute():
    assert granted("v", iso(START), issued_at=None, now=START + 1).lifetime == 60.0


@pytest.mark.parametrize("text", [None, "", "soon", 5, [], "0001-01-01T00:00:00Z" * 2])
def test_an_unreadable_end_is_no_end(text):
    grant = granted("v", text, issued_at=None, now=START)
    assert (grant.expires_at, grant.lifetime) == (None, None)


def test_a_grant_does_not_show_its_value():
    assert "MARKER" not in repr(Grant("MARKER", None, None))
