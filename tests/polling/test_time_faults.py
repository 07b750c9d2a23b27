"""Time does strange things: rows 49-51 of the fault matrix. Row 9 is among the upstream's."""

import pytest
from polling.rig import EXPIRY, POLLS, START, falls, until

from exporter.simulator.faults import Fault
from exporter.simulator.identity import Accounts, Identity

LATE = "modelarts_exporter_late_polls_total"
HOUR = 3600.0
USER = Identity(password="open sesame")


@pytest.fixture
async def poller(rig, clock):
    """A poller whose waits last until the test lets time pass."""
    await rig.serve(accounts=Accounts(users=[USER]))
    rig.populate(20)
    clock.patience = 1.0
    auth = {
        "method": "password",
        "username": USER.name,
        "domain": USER.domain,
        "password": USER.password,
    }
    poller = await rig.add(auth=auth, retries=0, sweep_interval=1e6)
    poll, poller.began = poller.poll, []

    async def noted():
        poller.began.append(clock.monotonic())
        return await poll()

    poller.poll = noted
    return poller


def starts(poller):
    """When polls began, in monotonic seconds."""
    return poller.began


async def test_polls_start_from_start_to_start(rig, clock, poller):
    async with rig.running(poller):
        for number in range(5):
            await rig.polled(poller, number + 1)
            clock.passes_until(60 * (number + 1) - 1)
            assert poller.ended_polls == number + 1
            clock.passes(1)
        await rig.polled(poller, 6)

    assert starts(poller) == pytest.approx([1000.0 + 60 * number for number in range(6)])
    assert rig.value(LATE) == 0


async def test_row_49_the_wall_clock_goes_back_an_hour(rig, clock, poller):
    async with rig.running(poller):
        await rig.polled(poller, 1)
        clock.passes_until(60)
        await rig.polled(poller, 2)
        before = rig.samples()
        clock.off = -HOUR
        for number in range(2, 10):
            clock.passes_until(60 * number)
            await rig.polled(poller, number + 1)

    after = rig.samples()
    assert starts(poller) == pytest.approx([1000.0 + 60 * number for number in range(10)])
    assert rig.value(LATE) == 0
    assert rig.value(POLLS, result="success") == 10
    assert [key for key, value in before.items() if falls(key[0], value, after, key)] == []
    assert rig.value(EXPIRY) == START + 24 * HOUR
    assert rig.shown() == {job.id for job in rig.fleet}
    assert len(poller.session.times("sign_in")) == 1


async def test_row_49_the_token_is_renewed_in_time_all_the_same(rig, clock, poller):
    assert await poller.poll()
    clock.off = -HOUR
    clock.passes(23.5 * HOUR)
    now = clock.service()

    assert await poller.poll()

    assert len(poller.session.times("sign_in")) == 2
    assert rig.value(EXPIRY) == now + 24 * HOUR


async def test_row_50_the_machine_sleeps_for_two_hours(rig, clock, poller):
    async with rig.running(poller):
        await rig.polled(poller, 1)
        clock.passes_until(30)
        clock.passes(2 * HOUR)
        await rig.polled(poller, 2)
        assert rig.value(LATE) == 1
        slept_until = starts(poller)[-1]
        assert slept_until == 1000.0 + 30 + 2 * HOUR

        clock.passes(59)
        assert poller.ended_polls == 2
        clock.passes(1)
        await rig.polled(poller, 3)

    assert len(starts(poller)) == 3
    assert rig.value(LATE) == 1
    assert rig.shown() == {job.id for job in rig.fleet}


async def test_row_50_a_monotonic_clock_that_slept_too(rig, clock, poller):
    async with rig.running(poller):
        await rig.polled(poller, 1)
        clock.passes_until(30)
        clock.suspended = 2 * HOUR
        clock.passes(2 * HOUR)
        assert poller.ended_polls == 1
        clock.passes(30)
        await rig.polled(poller, 2)
        clock.passes(59)
        assert poller.ended_polls == 2

    assert len(starts(poller)) == 2
    assert rig.value(POLLS, result="success") == 2


@pytest.mark.slow
async def test_row_51_a_poll_longer_than_the_interval(rig, clock, poller):
    async with rig.running(poller):
        await rig.polled(poller, 1)
        fault = rig.service.faults.add(Fault("hang", "search", times=1))
        poller.session.timeout = 1.5  # longer than the steps below take on a busy machine
        clock.passes_until(60)
        await until(lambda: fault.hits)
        poller.session.timeout = 10.0
        for _ in range(10):
            clock.passes(60)
        assert len(starts(poller)) == 2
        assert poller.ended_polls == 1

        await rig.polled(poller, 3)  # what hung is given up, and the next poll is overdue
        assert rig.value(POLLS, result="timeout") == 1
        assert rig.value(LATE) == 1
        clock.passes_until(719)
        assert poller.ended_polls == 3
        clock.passes_until(720)
        await rig.polled(poller, 4)

    _, second, third, fourth = starts(poller)
    assert (second, third) == (1060.0, 1660.0)
    assert fourth == 1720.0
    assert rig.value(LATE) == 1


@pytest.mark.parametrize("jump", [-HOUR, HOUR, -30 * 24 * HOUR])
async def test_row_49_events_are_what_they_are_by_the_services_clock(rig, clock, jump):
    await rig.serve()
    rig.populate(60, "Completed")
    poller = await rig.add()
    job = rig.fleet.create()
    rig.fleet.start(job)
    assert await poller.poll()
    await rig.settle(poller)
    clock.off = jump
    clock.passes(600)
    assert await poller.poll()
    rig.fleet.finish(job, "Failed")
    new = rig.fleet.create()
    rig.fleet.start(new)
    await rig.settle(poller)
    rig.fleet.finish(new, "Completed")
    await rig.settle(poller)
    await rig.settle(poller)

    assert rig.counted("jobs_created", "pool") == {job.pool.label: 1}
    assert rig.counted("jobs_finished") == {"Failed": 1, "Completed": 1}
    seconds = rig.value("modelarts_training_accelerator_seconds_total")
    assert 0 < seconds <= 800 * job.cards


async def test_row_50_one_poll_and_one_verification_after_a_long_sleep(rig, clock):
    await rig.serve()
    old = rig.populate(300, "Completed")
    clock.patience = 1.0
    poller = await rig.add()
    async with rig.running(poller):
        await rig.polled(poller, 1)
        clock.passes_until(30)
        job = rig.fleet.create()
        rig.fleet.delete(old[7])
        clock.passes(2 * HOUR)
        await rig.polled(poller, 2)
        await until(lambda: rig.value("modelarts_training_jobs") == 300)
        assert poller.ended_polls == 2
        assert rig.value("modelarts_training_jobs_created_total", pool=job.pool.label) == 1
        clock.passes(50)
        for _ in range(20):
            await rig.breathe()
        assert poller.ended_polls == 2
    assert rig.value(LATE) == 1
    assert rig.value(POLLS, kind="sweep", result="success") == 1
    assert rig.counted("jobs_deleted") == {}  # at zero for an interval
