"""The whole list is read beside the polls, where it has to be: after them, and never instead."""

import json
from itertools import pairwise

import pytest
from polling.rig import POLLS, asked_for, states, until

from exporter.errors import InvalidResponseError
from exporter.simulator.behaviour import Behaviour
from exporter.simulator.edits import ABSENT
from exporter.simulator.faults import Fault

JOBS = "modelarts_training_jobs"
PHASE = "modelarts_training_job_phase"
SECONDS = "modelarts_exporter_poll_duration_seconds_sum"
HOUR = 3600


@pytest.fixture
def clock(clock):
    """Waits for the next poll last until the test lets time pass, others pass by themselves."""
    clock.patience = 1.0
    return clock


def sweeps(rig, result="success"):
    return rig.value(POLLS, kind="sweep", result=result)


def polls(rig, result="success"):
    return rig.value(POLLS, kind="incremental", result=result)


async def minutes(rig, clock, poller, first, last):
    """Let polls happen once a minute, and whatever they ask for."""
    for number in range(first, last + 1):
        clock.passes_until(60 * number)
        await until(lambda number=number: polls(rig) >= number)
        await idle(poller)


async def idle(poller):
    """Return when nothing is read, and the latest poll has been verified."""
    await until(lambda: not poller._polled.is_set() and not poller._polling.locked())


def make_unverifiable(rig, phase="Completed"):
    """Add a job without a create time: the rows of its list cannot be compared with known jobs."""
    (job,) = rig.populate(1, phase)
    rig.fleet.override(job, {"metadata.create_time": ABSENT})


@pytest.mark.slow
async def test_a_list_that_cannot_be_verified_is_swept_every_hour(rig, clock):
    await rig.serve()
    rig.populate(120, "Completed")
    make_unverifiable(rig)
    poller = await rig.add()
    began = []
    sweep = poller.sweep

    async def noted():
        began.append(clock.monotonic() - 1000)
        return await sweep()

    poller.sweep = noted
    async with rig.running(poller):
        await rig.polled(poller, 1)
        await minutes(rig, clock, poller, 1, 125)

    assert began == pytest.approx([HOUR, 2 * HOUR], abs=61)
    assert sweeps(rig) == 3
    assert polls(rig) == 125


@pytest.mark.parametrize(("totals", "quiet"), [("documented", 0), ("page", 0), ("lies", 58)])
async def test_a_deletion_in_a_list_that_cannot_be_verified_is_found(rig, clock, totals, quiet):
    """At once where the service's totals tell, else by the next regular sweep."""
    await rig.serve(behaviour=Behaviour(totals=totals))
    ids = rig.populate(300, "Completed")
    make_unverifiable(rig)
    poller = await rig.add()
    async with rig.running(poller):
        await rig.polled(poller, 1)
        rig.fleet.delete(ids[7])
        await minutes(rig, clock, poller, 1, quiet)
        assert rig.value(JOBS) == 301
        assert sweeps(rig) == 1
        await minutes(rig, clock, poller, quiet + 1, quiet + 3)
        assert rig.value(JOBS) == 300
        assert sweeps(rig) == 2
        await minutes(rig, clock, poller, quiet + 4, quiet + 6)
        assert rig.counted("jobs_deleted") == {"Completed": 1}
        assert sweeps(rig) == 2


@pytest.mark.slow
@pytest.mark.parametrize("totals", ["documented", "lies"])
async def test_doubts_take_a_bounded_share_of_the_time(rig, clock, totals):
    """A user deletes finished jobs every minute, of a list that cannot be verified."""
    await rig.serve(behaviour=Behaviour(totals=totals))
    ids = rig.populate(1000, "Completed")
    make_unverifiable(rig)
    poller = await rig.add(rate=0.9)
    clock.patience = 2.0
    async with rig.running(poller):
        await rig.polled(poller, 1)
        first = rig.value(SECONDS, kind="sweep")
        assert 20 < first < 40
        for number in range(1, 41):
            rig.fleet.delete(ids[number])
            await minutes(rig, clock, poller, number, number)

    spent = rig.value(SECONDS, kind="sweep") - first
    assert spent <= 0.21 * 40 * 60
    assert sweeps(rig) == 1 if totals == "lies" else 10 < sweeps(rig) < 25


async def test_polls_go_first_and_show_what_happens_during_a_sweep(rig, clock):
    await rig.serve()
    rig.populate(1500, "Completed")
    young = rig.populate(3)
    poller = await rig.add(rate=1.0, interval=10.0)
    async with rig.running(poller):
        await rig.polled(poller, 1)
        failed_at, shown_at = [], []
        publish = poller.state._publish

        async def watched():
            generation = await publish()
            if rig.value(PHASE, job_id=young[0], phase="Failed"):
                shown_at.append((clock.service(), sweeps(rig)))
            return generation

        def fail(fleet):
            fleet.finish(young[0], "Failed")
            failed_at.append(clock.service())

        poller.state._publish = watched
        await minutes(rig, clock, poller, 1, 1)
        rig.service.faults.add(Fault("act", "search", nth=12, times=1, action=fail))
        poller._ask_for_sweep()
        clock.passes_until(poller._sweep_due - 1000)
        await until(lambda: sweeps(rig) == 2)

        (failed,) = failed_at
        first, swept = shown_at[0]
        assert swept == 1  # the sweep was on its way
        assert first - failed <= 10 + 5
        # What the sweep read of it was older; it is not taken back, nor counted twice.
        assert rig.value(PHASE, job_id=young[0], phase="Failed") == 1
        before = poller.ended_polls
        for number in range(3):
            clock.passes(10)
            await rig.polled(poller, before + number + 1)
        assert rig.counted("jobs_finished") == {"Failed": 1}

    kinds = [kind_of(request) for request in rig.service.requests]
    assert kinds.count("phase") > 5
    assert kinds.count("page") > 20
    # Once a poll has begun, it is not kept waiting by the sweep.
    assert {after for before, after in pairwise(kinds) if before == "phase"} == {"top"}


def kind_of(request):
    """``top`` is the first page of a list."""
    asked = asked_for(request)
    if asked != "list":
        return asked
    return "page" if json.loads(request.body)["offset"] else "top"


@pytest.mark.slow
@pytest.mark.parametrize("at", [2, 10, 30])
@pytest.mark.parametrize("then", ["Failed", "deleted", "Failed, then running", "created, failed"])
async def test_what_polls_have_read_is_not_overwritten_by_an_older_reading(rig, clock, at, then):
    clock.patience = 1e9
    await rig.serve()
    rig.populate(50 * (at + 20), "Completed")  # so that the sweep goes on for 20 pages more
    running, other = rig.populate(2)
    poller = await rig.add()
    assert await poller.poll()
    fleet = rig.fleet
    fleet.start(running)

    async def meanwhile():
        if then == "created, failed":
            fleet.finish(fleet.create(), "Failed")
        elif then == "deleted":
            fleet.delete(running)
        else:
            fleet.finish(running, "Failed")
        assert await poller.poll()
        if then == "Failed, then running":
            fleet.reactivate(running)
            assert await poller.poll()

    begun = len(poller.session.sent)
    async with rig.sweeping(poller):
        await until(lambda: len(poller.session.sent) >= begun + at)
        await meanwhile()

    now = states(rig.samples())
    assert await poller.poll()
    for key, value in now.items():
        assert key[0].endswith(("_seconds", "_total")) or states(rig.samples())[key] == value
    await rig.settle(poller)
    await rig.settle(poller)
    counted = {"deleted": {}}.get(then, {"Failed": 1})
    assert rig.counted("jobs_finished") == counted
    assert rig.counted("jobs_deleted") == ({"Running": 1} if then == "deleted" else {})
    assert sum(rig.counted("jobs_created", "pool").values()) == then.startswith("created")
    assert rig.value(JOBS) == len(fleet)
    assert other in rig.shown()


@pytest.mark.slow
async def test_failing_sweeps_leave_time_for_others(rig, clock):
    """One that takes long is tried again after a longer pause, but not after sweep_interval."""
    await rig.serve()
    rig.populate(10)
    make_unverifiable(rig, "Running")
    poller = await rig.add(sweep_interval=1800.0, stale_after=1e6)
    began, took = [], iter([1.0, 100.0, 100.0, 1000.0, 1000.0])
    ends = []
    async with rig.running(poller):
        await rig.polled(poller, 1)

        async def failing(*_, **__):
            began.append(clock.monotonic())
            clock.passes(next(took))
            ends.append(clock.monotonic())
            raise InvalidResponseError("pages do not join")

        poller.target.sync.sweep = failing
        before = states(rig.samples())
        while len(began) < 5:
            clock.passes(15)
            for _ in range(8):
                await rig.breathe()
            await until(lambda: not poller._polling.locked())  # it may take real time

    pauses = [after - before for before, after in zip(ends, began[1:], strict=False)]
    for pause, due in zip(pauses, [60, 400, 400, 1800], strict=True):
        assert due <= pause <= due + 200  # a moment that no poll was busy
    assert sweeps(rig, "invalid") == 5 or sweeps(rig, "invalid") == 4
    assert sweeps(rig) == 1
    assert states(rig.samples()) == before


async def test_a_failed_sweep_is_a_failed_poll_until_the_next_good_one(rig):
    await rig.serve()
    rig.populate(60)
    poller = await rig.add(retries=0)
    assert await poller.poll()
    rig.service.faults.add(Fault("status", status=500, form="html", nth=2))

    (await rig.step(poller, "sweep")).kept("upstream")

    assert rig.value("modelarts_up") == 0
    assert poller.error
    await rig.recovers(poller)
    assert rig.value("modelarts_up") == 1
    assert poller.error == ""


async def test_a_sweep_finds_late_corrections_and_resurrections(rig):
    await rig.serve(behaviour=Behaviour(totals="lies"))
    ids = rig.populate(300, "Completed")
    poller = await rig.add()
    assert await poller.poll()
    rig.fleet.enter(ids[0], "Running")
    rig.fleet.enter(ids[1], "Failed")

    assert await poller.poll()
    assert rig.value(JOBS, phase="Running") == 1  # the active ones are read by every poll
    assert rig.value(JOBS, phase="Failed") == 0
    assert await poller.sweep()

    assert rig.value(JOBS, phase="Failed") == 1
    rig.fleet.finish(ids[0], "Completed")
    assert await poller.poll()
    await rig.settle(poller)
    assert rig.counted("jobs_finished") == {"Completed": 1}  # the correction is none
