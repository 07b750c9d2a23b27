"""What lists tell of restarts and ends changes its mind: rows 24-26 of the fault matrix."""

import pytest
from polling.rig import both_ways, events

from exporter.simulator.behaviour import Behaviour

RECORDS = "status.running_records"


@pytest.fixture
async def poller(rig):
    await rig.serve()
    return await rig.add()


async def watched(rig, poller):
    """A job that is created and started while we watch."""
    rig.populate(60, "Completed")
    assert await poller.poll()
    job = rig.fleet.create()
    rig.fleet.start(job)
    assert await poller.poll()
    await rig.settle(poller)
    return job


async def settle(rig, poller):
    for _ in range(2):
        rig.clock.passes(60)
        assert (await rig.step(poller)).ok, poller.error


def restarts(rig):
    return rig.counted("restarts", "recovery")


@both_ways
async def test_row_24_records_are_absent_in_one_poll_and_there_in_the_next(rig, poller):
    job = await watched(rig, poller)
    rig.fleet.recover(job, "proc_restart", gap=5.0)
    for present in (False, True, False, True):
        rig.service.behaviour.records_in_list = present
        await settle(rig, poller)

    assert restarts(rig) == {"proc_restart": 1}
    assert rig.value("modelarts_training_recovery_duration_seconds_sum") == 5


@both_ways
async def test_row_24_records_of_a_baseline_that_come_late_are_no_news(rig):
    await rig.serve(behaviour=Behaviour(records_in_list=False))
    poller = await rig.add()
    job = rig.fleet.create()
    rig.fleet.start(job)
    rig.fleet.recover(job, "proc_restart", gap=5.0)
    rig.clock.passes(600)
    assert await poller.poll()
    rig.clock.passes(600)
    assert (await rig.step(poller)).ok  # the world goes on
    rig.fleet.recover(job, "pod_reschedule", gap=5.0)
    rig.service.behaviour.records_in_list = True
    rig.clock.passes(600)
    await settle(rig, poller)
    await settle(rig, poller)

    assert restarts(rig) == {"pod_reschedule": 1}


@both_ways
@pytest.mark.parametrize("left", [0, 1])
async def test_row_25_records_shrink(rig, poller, left):
    job = await watched(rig, poller)
    for policy in ("proc_restart", "pod_reschedule"):
        rig.fleet.recover(job, policy, gap=5.0)
    await settle(rig, poller)
    before = events(rig.samples())
    assert restarts(rig) == {"proc_restart": 1, "pod_reschedule": 1}
    rig.fleet.override(job, {RECORDS: [{"start_at": 1}] * left})
    await settle(rig, poller)
    rig.fleet.override(job, {})
    await settle(rig, poller)

    after = events(rig.samples())
    assert not [key for key, value in before.items() if after[key] < value]
    assert restarts(rig) == {"proc_restart": 1, "pod_reschedule": 1}


@both_ways
async def test_row_26_an_ended_job_runs_and_fails_again(rig, poller):
    job = await watched(rig, poller)
    rig.fleet.finish(job, "Failed")
    for _ in range(2):
        await settle(rig, poller)
        assert rig.counted("jobs_finished") == {"Failed": 1}
    rig.fleet.reactivate(job)
    await settle(rig, poller)
    assert rig.counted("jobs_finished") == {"Failed": 1}
    rig.fleet.finish(job, "Failed")
    for _ in range(2):
        await settle(rig, poller)
        assert rig.counted("jobs_finished") == {"Failed": 2}

    assert restarts(rig) == {"unknown": 1}
    assert sum(rig.counted("jobs_created", "pool").values()) == 1


@both_ways
async def test_row_26_a_correction_of_the_end_is_no_other_end(rig, poller):
    job = await watched(rig, poller)
    rig.fleet.finish(job, "Failed")
    await settle(rig, poller)
    rig.fleet.enter(job, "Abnormal")
    await settle(rig, poller)
    assert await poller.sweep()

    assert rig.counted("jobs_finished") == {"Failed": 1}
    assert rig.value("modelarts_training_jobs", phase="Abnormal") == 1
