"""Whole lives of jobs on the wire: one base for each, and the details of their records."""

from collections import Counter

import msgspec
import pytest
from polling.rig import Rig, both_ways

from exporter.clock import Clocks
from exporter.simulator.catalog import Pool, visual
from exporter.simulator.faults import Fault
from exporter.simulator.fleet import Fleet
from exporter.storage.store import Store

LATE_POOL = Pool(
    name="late",
    id="pool-late",
    flavor_type="GPU",  # shown by jobs once they have started
    product="nvidia-Ant8",
    card_memory="",
    nodes=9,
    node_cards=8,
    tells="allocated",
    flavors=(visual(8),),
    programs="image",
)
EVENTS = ("jobs_created_total", "jobs_finished_total", "queue_duration_seconds_count")


NO_POOL_LIST = Fault(do="status", status=403, operation="pools", times=None)


async def serve(rig, *faults):
    rig.fleet = Fleet(1, rig.fleet.now, pools=(LATE_POOL,))
    await rig.serve()
    for fault in faults:
        rig.service.faults.add(msgspec.structs.replace(fault))


@pytest.fixture
async def poller(rig):
    await serve(rig, NO_POOL_LIST)
    return await rig.add()


async def settle(rig, poller):
    for _ in range(2):
        rig.clock.passes(60)
        assert (await rig.step(poller)).ok, poller.error


def counted(rig: Rig):
    """What is counted under each flavor type, without zeros."""
    found = {}
    for (name, labels), value in rig.samples().items():
        short = name.removeprefix("modelarts_training_")
        if short in EVENTS and value:
            by_type = found.setdefault(dict(labels)["flavor_type"], {})
            by_type[short] = by_type.get(short, 0) + value
    return found


def shown(rig):
    """How many jobs are shown under each flavor type, without zeros."""
    found = Counter()
    for (name, labels), value in rig.samples().items():
        if name == "modelarts_training_jobs" and value:
            found[dict(labels)["flavor_type"]] += value
    return found


async def live(rig, poller, *jobs):
    for job in jobs:
        rig.fleet.start(job)
    await settle(rig, poller)
    for job in jobs:
        rig.fleet.finish(job)
    await settle(rig, poller)


@both_ways
async def test_the_first_job_of_a_pool_counts_under_one_type(rig, poller):
    assert await poller.poll()
    job = rig.fleet.create()
    await settle(rig, poller)
    assert shown(rig) == {"unknown": 1}

    await live(rig, poller, job)
    assert counted(rig) == {"unknown": dict.fromkeys(EVENTS, 1)}
    assert shown(rig) == {"GPU": 1}

    later = rig.fleet.create()
    await settle(rig, poller)
    assert shown(rig) == {"GPU": 2}
    await live(rig, poller, later)
    assert counted(rig) == {
        "unknown": dict.fromkeys(EVENTS, 1),
        "GPU": dict.fromkeys(EVENTS, 1),
    }


@both_ways
async def test_the_list_of_pools_says_it_before_the_first_job(rig):
    await serve(rig)
    poller = await rig.add()
    assert await poller.poll()
    job = rig.fleet.create()
    await live(rig, poller, job)

    assert counted(rig) == {"GPU": dict.fromkeys(EVENTS, 1)}


async def test_jobs_that_ended_long_ago_are_shown_under_a_type_that_becomes_known(rig, poller):
    """Only the store has them, and no poll reads them again."""
    for _ in range(2):
        rig.fleet.finish(rig.fleet.create(), "Terminated")
    assert await poller.poll()
    rig.clock.passes(2 * 86400.0)
    await settle(rig, poller)
    assert not poller.state.fleet.recent
    for number in range(50):  # a page: polls do not read beyond it
        rig.fleet.create(rig.fleet.now - 50.0 + number)
    await settle(rig, poller)
    await live(rig, poller, rig.fleet.create())

    assert shown(rig) == {"GPU": 2 + 50 + 1}


@both_ways
async def test_jobs_that_wait_when_the_exporter_starts_count_where_they_run(rig, poller):
    jobs = [rig.fleet.create() for _ in range(3)]
    assert await poller.poll()
    await live(rig, poller, *jobs)

    assert counted(rig) == {"GPU": {EVENTS[1]: 3, EVENTS[2]: 3}}


@pytest.mark.parametrize("moment", ["created", "started", "ended"])
async def test_a_restart_does_not_change_where_a_job_counts(rig, tmp_path, moment):
    await serve(rig, NO_POOL_LIST)
    path, clocks = tmp_path / "state.db", Clocks(wall=rig.clock.wall)

    async def begin():
        store = await Store.open(path, problem=lambda: None, clocks=clocks)
        return store, await rig.add(store=store)

    async def restart(at):
        nonlocal store, poller
        if at == moment:
            await store.close()
            rig.publisher.pollers.remove(poller)
            store, poller = await begin()
        await settle(rig, poller)

    store, poller = await begin()
    assert await poller.poll()
    first, second = rig.fleet.create(), rig.fleet.create()
    await restart("created")
    rig.fleet.start(first)
    await settle(rig, poller)
    third = rig.fleet.create()
    await restart("started")
    rig.fleet.finish(first)
    await restart("ended")
    await live(rig, poller, second, third)
    await store.close()

    assert counted(rig) == {
        "unknown": dict.fromkeys(EVENTS, 2),
        "GPU": dict.fromkeys(EVENTS, 1),
    }


@both_ways
async def test_faults_and_start_ups_count_once(rig, poller):
    assert await poller.poll()
    job = rig.fleet.create()
    rig.fleet.start(job)
    await settle(rig, poller)
    rig.fleet.interrupt(job, "proc_restart", downgraded_from="npu_step_retry")
    await settle(rig, poller)
    rig.service.behaviour.records_in_list = False
    rig.fleet.start(job, startup=7.0)
    await settle(rig, poller)
    rig.service.behaviour.records_in_list = True
    await settle(rig, poller)
    await settle(rig, poller)

    results = {"downgrade": 1, "success": 1}
    assert rig.counted("faults", "result") == results
    assert rig.counted("faults", "recovery") == {"npu_step_retry": 1, "proc_restart": 1}
    assert rig.counted("faults", "fault_scenario") == {"job_failed": 2}
    assert rig.value("modelarts_training_startup_duration_seconds_count") == 2
    assert rig.value("modelarts_training_startup_duration_seconds_sum") == 12
