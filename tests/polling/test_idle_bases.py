"""Gauges of pools that nobody uses any more are withdrawn; their counters stay."""

import contextlib

import pytest
from polling.rig import INTERVAL, events

from exporter.storage.store import Store

HOUR = 3600.0
JOBS = "modelarts_training_jobs"
VISION = "pool-8c21e4aa"
OPTIONS = {"jobs": {"idle_retention": "10h"}, "stale_after": 1e9, "sweep_interval": 1e9}


@pytest.fixture
def life(rig, tmp_path):
    """One life of the exporter."""

    @contextlib.asynccontextmanager
    async def life(**options):
        store = await Store.open(tmp_path / "state.db", problem=lambda: pytest.fail("problem"))
        poller = await rig.add(store=store, **OPTIONS | options)
        try:
            yield poller
        finally:
            rig.publisher.pollers.remove(poller)
            await store.close()

    return life


async def later(rig, poller, hours):
    """Time passes, with a poll at its end, and one more."""
    rig.clock.passes(hours * HOUR)
    assert await poller.poll(), poller.error
    rig.clock.passes(INTERVAL)
    assert await poller.poll(), poller.error


def pools(rig):
    return rig.label_values(JOBS, "pool")


async def used(rig, poller):
    """A job in a pool of its own, which is deleted at its end."""
    assert await poller.poll()
    job = rig.fleet.create(pool="vision")
    rig.fleet.start(job)
    await later(rig, poller, 0)
    rig.fleet.finish(job, "Completed")
    await later(rig, poller, 0)
    rig.fleet.delete(job)
    assert await poller.sweep()


async def test_a_pool_that_nobody_uses_leaves_the_gauges(rig, life):
    await rig.serve()
    rig.populate(5)
    async with life() as poller:
        await used(rig, poller)
        assert pools(rig) == {"public", VISION}
        await later(rig, poller, 9)
        assert pools(rig) == {"public", VISION}
        counted = events(rig.samples())
        await later(rig, poller, 2)
        assert pools(rig) == {"public"}
        assert rig.label_values("modelarts_training_nodes", "pool") == {"public"}
        after = events(rig.samples())
        assert {key: after[key] for key in counted if VISION in dict(key[1]).values()} == {
            key: value for key, value in counted.items() if VISION in dict(key[1]).values()
        }

        job = rig.fleet.create(pool="vision")
        await later(rig, poller, 0)
        assert pools(rig) == {"public", VISION}
        zeros = rig.value(JOBS, pool=VISION, phase="Failed")
        assert (zeros, rig.value(JOBS, pool=VISION)) == (0, 1)
        rig.fleet.delete(job)
        await later(rig, poller, 0)
        await later(rig, poller, 9)
        assert rig.value(JOBS, pool=VISION) == 0
        await later(rig, poller, 2)
        assert pools(rig) == {"public"}


async def test_jobs_that_are_listed_keep_their_pool(rig, life):
    await rig.serve()
    rig.populate(5)
    async with life() as poller:
        job = rig.fleet.create(pool="vision")
        await later(rig, poller, 0)
        await later(rig, poller, 50)  # it waits, without an event
        assert rig.value(JOBS, pool=VISION) == 1
        rig.fleet.start(job)
        rig.fleet.finish(job, "Completed")
        await later(rig, poller, 50)
        assert rig.value(JOBS, pool=VISION, phase="Completed") == 1


async def test_restarts_change_nothing(rig, life):
    """Neither does a pool start anew after each, nor is it forgotten too early."""
    await rig.serve()
    rig.populate(5)
    async with life() as poller:
        await used(rig, poller)
    for hours in (4, 4):
        async with life() as poller:
            await later(rig, poller, hours)
            assert pools(rig) == {"public", VISION}
    for _ in range(2):
        async with life() as poller:
            await later(rig, poller, 2)
            assert pools(rig) == {"public"}
            assert rig.value("modelarts_training_jobs_created_total", pool=VISION) == 1


async def test_a_reload_changes_nothing(rig, life):
    await rig.serve()
    rig.populate(5)
    async with life() as poller:
        await used(rig, poller)
        await later(rig, poller, 8)
        successor = await rig.add(store=poller.state._store, **OPTIONS)
        await successor.take_over(poller)
        rig.publisher.pollers.remove(successor)
        rig.publisher.pollers[:] = [successor]
        await later(rig, successor, 0)
        assert pools(rig) == {"public", VISION}
        await later(rig, successor, 3)
        assert pools(rig) == {"public"}
        rig.publisher.pollers.append(poller)
        rig.publisher.pollers.remove(successor)


async def test_gauges_can_stay_forever(rig, life):
    await rig.serve()
    rig.populate(5)
    async with life(jobs={"idle_retention": "0"}) as poller:
        await used(rig, poller)
        await later(rig, poller, 10_000)
        assert pools(rig) == {"public", VISION}


async def test_a_pool_whose_jobs_are_all_older_than_the_history(rig, life):
    """At the first poll already: it was used for the last time before the exporter was there."""
    await rig.serve()
    rig.populate(5)
    job = rig.fleet.create(pool="vision")
    rig.fleet.start(job)
    rig.fleet.finish(job, "Completed")
    rig.clock.passes(40 * HOUR)
    async with life(jobs={"idle_retention": "10h", "history": "20h"}) as poller:
        assert await poller.poll()
        assert pools(rig) == {"public"}
    async with life(jobs={"idle_retention": "30h", "history": "20h"}) as poller:
        await later(rig, poller, 0)
        assert pools(rig) == {"public", VISION}
