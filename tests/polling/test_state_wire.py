"""With a state file: rows 53 and 54 of the fault matrix, and what restarts keep."""

import asyncio
import contextlib
import threading

import pytest
from polling.rig import INTERVAL, POLLS, events, states, until

from exporter.errors import StateError
from exporter.simulator.faults import Fault
from exporter.simulator.identity import PROJECT_ID
from exporter.storage.store import Store

OTHER = "0123456789abcdef0123456789abcdef"
JOBS = "modelarts_training_jobs"
ERRORS = "modelarts_exporter_state_errors_total"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


@pytest.fixture
def life(rig, path):
    """One life of the exporter: a poller that has never polled, and the file."""

    @contextlib.asynccontextmanager
    async def life(**options):
        store = await Store.open(path, problem=rig.instruments.state_errors.inc)
        poller = await rig.add(store=store, **options)
        poller.store = store
        try:
            yield poller
        finally:
            rig.publisher.pollers.remove(poller)
            await store.close()

    return life


async def settle(rig, poller):
    for _ in range(2):
        await rig.settle(poller)


async def in_file(store, statement):
    return await store._run(lambda: store._database._connection.execute(statement).fetchone()[0])


async def test_a_restart_goes_on_where_it_was(rig, life):
    await rig.serve()
    rig.populate(200, "Completed")
    old = rig.populate(10)
    async with life() as poller:
        assert await poller.poll()
        rig.fleet.finish(old[0], "Failed")
        await settle(rig, poller)
        before = events(rig.samples())
        assert rig.counted("jobs_finished") == {"Failed": 1}
        sweeps = rig.value(POLLS, kind="sweep", result="success")

    async with life() as poller:
        assert await rig.cost(poller) == {"phase": 1, "list": 1, "pools": 1}
        assert events(rig.samples()) == before
        assert rig.value(JOBS) == 210
        assert await poller.verify()
        assert poller._sweep_due is None
        assert rig.value(POLLS, kind="sweep", result="success") == sweeps
        assert set(rig.label_values("modelarts_training_job_info", "job_id")) == set(old)


async def test_what_happened_while_it_was_down_is_counted_by_the_first_poll(rig, life):
    await rig.serve()
    rig.populate(200, "Completed")
    old = rig.populate(10)
    async with life() as poller:
        assert await poller.poll()
        await settle(rig, poller)

    rig.clock.passes(8 * 3600)
    rig.fleet.start(old[1])
    rig.fleet.finish(old[1], "Failed")
    rig.fleet.delete(old[2])
    known = rig.fleet[old[1]]  # a user who is new in a pool would be shown an interval later
    for _ in range(70):
        rig.fleet.finish(rig.fleet.create(user=known.user, pool=known.pool), "Failed")

    async with life() as poller:
        step = await rig.step(poller)
        assert step.ok
        assert step.grew(POLLS, "kind") == {"incremental": 1}
        created = rig.counted("jobs_created", "pool")
        assert sum(created.values()) == 70  # at zero since the base is known
        assert rig.counted("jobs_finished") == {"Failed": 71}
        assert rig.counted("jobs_deleted") == {}  # born with its event
        await settle(rig, poller)
        assert rig.counted("jobs_deleted") == {"Running": 1}
        assert rig.counted("jobs_finished") == {"Failed": 71}
        assert await poller.sweep()
        assert rig.counted("jobs_finished") == {"Failed": 71}
        assert rig.counted("jobs_deleted") == {"Running": 1}


async def test_row_36_an_empty_list_at_the_first_poll_after_a_restart(rig, life):
    await rig.serve()
    rig.populate(2000, "Completed")
    rig.populate(50)
    async with life() as poller:
        assert await poller.poll()
        await settle(rig, poller)
        before = events(rig.samples())
    for edits in ({"items": []}, {"items": [], "total": 0, "count": 0}):
        async with life() as poller:
            rig.service.faults.add(Fault("edit", "search", edits=edits, times=2))
            await poller.poll()
            assert await poller.sweep()
            assert await poller.poll()
            await settle(rig, poller)
            assert events(rig.samples()) == before
            assert rig.value(JOBS) == 2050


async def test_a_target_of_another_name_keeps_its_counters(rig, life):
    await rig.serve()
    ids = rig.populate(10)
    async with life(name="old") as poller:
        assert await poller.poll()
        rig.fleet.finish(ids[0], "Failed")
        await settle(rig, poller)
        assert rig.value("modelarts_training_jobs_finished_total", project="old") == 1
    rig.fleet.finish(ids[1], "Failed")

    async with life(name="new") as poller:
        assert await poller.poll()
        assert rig.value("modelarts_training_jobs_finished_total", project="new") == 2
        assert rig.value("modelarts_training_jobs_finished_total", project="old") is None


async def test_another_project_is_another_target(rig, life):
    await rig.serve()
    ids = rig.populate(10)
    async with life() as poller:
        assert await poller.poll()
        rig.fleet.finish(ids[0], "Failed")
        await settle(rig, poller)

    async with life(project_id=PROJECT_ID[::-1]) as poller:
        assert await poller.poll()
        assert rig.counted("jobs_finished") == {}


async def test_a_workspace_that_was_removed_returns(rig, life):
    await rig.serve()
    mine = rig.populate(5)
    theirs = [rig.fleet.create(workspace=OTHER).id for _ in range(5)]
    async with life(workspaces=("0", OTHER)) as poller:
        assert await poller.poll()
        rig.fleet.finish(theirs[0], "Failed")
        await settle(rig, poller)
        assert rig.counted("jobs_finished", "workspace") == {OTHER: 1}
    rig.fleet.finish(theirs[1], "Failed")
    rig.fleet.finish(mine[0], "Failed")
    async with life(workspaces=("0",)) as poller:
        assert await poller.poll()
        assert rig.counted("jobs_finished", "workspace") == {"0": 1}
        assert rig.label_values(JOBS, "workspace") == {"0"}
    async with life(workspaces=("0", OTHER)) as poller:
        step = await rig.step(poller)
        assert step.grew(POLLS, "kind") == {"incremental": 1}
        assert rig.counted("jobs_finished", "workspace") == {"0": 1, OTHER: 2}


async def test_a_workspace_that_is_new_is_a_baseline(rig, life):
    await rig.serve()
    ids = rig.populate(5)
    async with life(workspaces=("0",)) as poller:
        assert await poller.poll()
        await settle(rig, poller)
    rig.fleet.finish(ids[0], "Failed")
    for _ in range(60):
        rig.fleet.finish(rig.fleet.create(workspace=OTHER), "Failed")
    async with life(workspaces=("0", OTHER)) as poller:
        step = await rig.step(poller)
        assert step.grew(POLLS, "kind") == {"sweep": 1}
        assert rig.counted("jobs_finished", "workspace") == {"0": 1}
        assert rig.value(JOBS, workspace=OTHER) == 60


# --- Row 53: killed at some moment ----------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before the commit", "in the commit", "before publishing"])
async def test_row_53_a_poll_is_cancelled(rig, life, moment):
    """Whatever became of it: the event counts once, and nothing that was scraped falls."""
    await rig.serve()
    ids = rig.populate(10)
    async with life() as poller:
        assert await poller.poll()
        rig.fleet.finish(ids[0], "Failed")
        await settle(rig, poller)
        scraped = events(rig.samples())
        rig.fleet.finish(ids[1], "Failed")
        rig.fleet.finish(rig.fleet.create(), "Completed")
        rig.fleet.delete(ids[2])
        reached, go_on = threading.Event(), threading.Event()
        commit = poller.store._commit

        def slow(*arguments):
            reached.set()
            assert go_on.wait(20)
            commit(*arguments)

        async def stuck(*_):
            reached.set()
            await asyncio.sleep(1000)

        if moment == "before the commit":
            poller.store.commit = stuck
        elif moment == "in the commit":
            poller.store._commit = slow
        else:
            poller.state._publish = stuck
        polling = asyncio.create_task(poller.poll())
        await until(reached.is_set)
        polling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await polling
        go_on.set()

    async with life() as poller:
        assert await poller.poll()
        after = events(rig.samples())
        assert not [key for key, value in scraped.items() if after[key] < value]
        await settle(rig, poller)
        assert rig.counted("jobs_finished") == {"Failed": 2, "Completed": 1}
        assert rig.counted("jobs_deleted") == {"Running": 1}
        assert sum(rig.counted("jobs_created", "pool").values()) == 1


async def test_row_53_a_series_that_was_released_is_never_zero_again(rig, life):
    await rig.serve()
    ids = rig.populate(10)
    async with life() as poller:
        assert await poller.poll()
        rig.fleet.delete(ids[0])
        assert await poller.poll()
        assert rig.counted("jobs_deleted") == {}
    async with life() as poller:  # died while it was held: it is held anew
        assert await poller.poll()
        assert rig.counted("jobs_deleted") == {}
        await settle(rig, poller)
        assert rig.counted("jobs_deleted") == {"Running": 1}
    async with life() as poller:
        assert await poller.poll()
        assert rig.counted("jobs_deleted") == {"Running": 1}


# --- Row 54: the disk is full ---------------------------------------------------------------------


@pytest.mark.slow
async def test_row_54_the_disk_is_full(rig, life):
    await rig.serve()
    ids = rig.populate(600)
    async with life() as poller:
        assert await poller.poll()
        await settle(rig, poller)
        for job_id in ids[:300]:
            rig.fleet.start(job_id)
            rig.fleet.override(job_id, {"metadata.description": "x"})
            rig.fleet.finish(job_id, "Failed")
        rig.populate(600)
        pages = await in_file(poller.store, "PRAGMA page_count")
        await in_file(poller.store, f"PRAGMA max_page_count = {pages}")

        for number in range(1, 4):
            (await rig.step(poller)).kept("internal")
            assert rig.value(ERRORS) == number
            assert "state.db" in poller.error
            assert "full" in poller.error
            rig.clock.passes(INTERVAL)

        await in_file(poller.store, "PRAGMA max_page_count = 1000000")
        assert (await rig.step(poller)).ok
        await settle(rig, poller)
        assert rig.value("modelarts_up") == 1
        assert rig.value(ERRORS) == 3
        assert rig.counted("jobs_finished") == {"Failed": 300}
        assert sum(rig.counted("jobs_created", "pool").values()) == 600
        shown = events(rig.samples())

    async with life() as poller:
        assert await poller.poll()
        assert events(rig.samples()) == shown


class Flaky(Store):
    """Fails while it is told to."""

    fails = False
    commits = 0

    async def commit(self, target, change, whole=None):
        self.commits += 1
        if self.fails:
            raise StateError("state file state.db: the disk is full")
        await super().commit(target, change, whole)


async def test_row_54_a_release_that_cannot_be_committed_waits(rig, clock):
    """It is tried again once an interval, and what is stale is withdrawn in time all the same."""
    await rig.serve()
    ids = rig.populate(5)
    clock.patience = 1.0
    store = await Flaky.temporary(problem=lambda: None)
    poller = await rig.add(store=store, sweep_interval=1e6)
    async with rig.running(poller):
        await rig.polled(poller, 1)
        rig.fleet.delete(ids[0])
        clock.passes_until(60)
        await rig.polled(poller, 2)
        store.fails = True
        attempts = store.commits
        for number in range(2, 5):
            clock.passes_until(60 * number)
            await rig.polled(poller, number + 1)
            clock.passes_until(60 * number + 30)
            await rig.breathe()
            assert states(rig.samples())
            assert rig.counted("jobs_deleted") == {}
        assert store.commits - attempts <= 8  # a poll and a release each, no busy loop
        clock.passes_until(359)
        await rig.breathe()
        assert rig.value(JOBS) == 4
        clock.passes_until(361)  # the last good poll ended a moment after 60
        await until(lambda: rig.value(JOBS) is None)
        assert events(rig.samples())

        store.fails = False
        ended = poller.ended_polls
        clock.passes_until(420)
        await rig.polled(poller, ended + 1)
        clock.passes_until(480)
        await rig.polled(poller, ended + 2)
        await until(lambda: rig.counted("jobs_deleted") == {"Running": 1})
        assert rig.value(JOBS) == 4
    await store.close()
