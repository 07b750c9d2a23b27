"""The first reading of a list is saved in parts, which count only once it is complete."""

import pytest

from exporter.clock import Clocks
from exporter.modelarts.search import Search
from exporter.simulator.faults import Fault
from exporter.storage.store import Store

OTHER = "0123456789abcdef0123456789abcdef"
JOBS = "modelarts_training_jobs"


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr("exporter.polling.whole_reading.PART", 20)


async def interrupted(rig, poller, page):
    """A first reading that fails at a page."""
    rig.service.faults.add(Fault("status", status=400, operation="search", nth=page, times=1))
    assert not await poller.poll()
    rig.service.faults.clear()


def move(rig, job_id, workspace):
    job = rig.fleet[job_id]
    rig.fleet.index.remove(job)
    job.workspace = workspace
    rig.fleet.index.add(job)


async def succeeded(rig, before, **options):
    """The poller after a reload."""
    after = await rig.add(store=before.state._store, **options)
    rig.publisher.pollers.remove(before)
    await after.take_over(before)
    return after


async def test_parts_are_not_used_after_a_restart(rig, tmp_path):
    path, clocks = tmp_path / "state.db", Clocks(rig.clock.wall)
    await rig.serve()
    ids = rig.populate(200)
    store = await Store.open(path, problem=lambda: None, clocks=clocks)
    await interrupted(rig, await rig.add(store=store, retries=0), page=4)
    await store.close()
    rig.fleet.finish(ids[-1], "Failed")
    rig.fleet.delete(ids[-2])
    rig.publisher.pollers.clear()
    store = await Store.open(path, problem=lambda: None, clocks=clocks)
    poller = await rig.add(store=store)
    assert await poller.poll()
    await rig.settle(poller)

    assert rig.counted("jobs_finished") == rig.counted("jobs_deleted") == {}
    assert rig.value(JOBS) == len(poller.state.fleet) == 199
    assert await store.count(poller.target.identity.key, "0") == (199, 0)
    await store.close()


async def test_what_happens_to_a_job_that_moves_to_a_new_workspace_counts(rig):
    """Another workspace knows the job, so it is not part of the baseline of the new one."""
    await rig.serve()
    old, new = rig.populate(60, "Completed"), rig.populate(60)
    before = await rig.add()
    assert await before.poll()
    for job_id in (old[0], new[0]):
        move(rig, job_id, OTHER)
    rig.fleet.finish(new[0], "Failed")
    after = await succeeded(rig, before, workspaces=("0", OTHER))
    for _ in range(2):
        await rig.settle(after)

    assert rig.counted("jobs_finished") == {"Failed": 1}
    assert after.state.fleet.listed == {"0": 118, OTHER: 2}
    assert rig.value(JOBS) == 120


async def test_a_job_that_moves_from_a_workspace_that_was_removed_is_one_job(rig):
    await rig.serve()
    old = [rig.fleet.create(workspace=OTHER).id for _ in range(2)]
    for job_id in old:
        rig.fleet.finish(job_id)
    rig.populate(60, "Completed")
    both = await rig.add(workspaces=("0", OTHER))
    assert await both.poll()
    one = await succeeded(rig, both)
    move(rig, old[0], OTHER[::-1])
    rig.clock.passes(2 * 86400.0)
    after = await succeeded(rig, one, workspaces=("0", OTHER[::-1]))
    await rig.settle(after)

    assert after.state.fleet.listed == {"0": 60, OTHER[::-1]: 1}


async def test_parts_that_were_left_behind_do_not_leave_the_numbers(rig):
    """As time passes, jobs leave the gauges: not those of parts, which never were in them."""
    await rig.serve()
    rig.populate(60, "Completed")
    before = await rig.add(jobs={"history": "2d"})
    assert await before.poll()
    for _ in range(60):
        rig.fleet.finish(rig.fleet.create(rig.fleet.now - 7200.0, workspace=OTHER))
    options = {"jobs": {"history": "2d"}, "retries": 0}
    middle = await succeeded(rig, before, workspaces=("0", OTHER), **options)
    await interrupted(rig, middle, page=3)
    rig.clock.passes(3 * 86400.0)
    after = await succeeded(rig, middle, workspaces=("0", OTHER, OTHER[::-1]), **options)
    await after.state.load()

    assert after.state.fleet.counted == {}


async def test_jobs_leave_the_gauges_while_the_rest_is_read(rig, monkeypatch):
    await rig.serve()
    now = rig.fleet.now
    for number in range(120):  # the older half will have ended too long ago
        job = rig.fleet.create(now - 7200.0 + number)
        rig.fleet.start(job, at=now - 7000.0)
        rig.fleet.finish(job, at=now - (3590.0 if number < 60 else 600.0))
    poller = await rig.add(jobs={"history": "1h"})
    read_page = Search._keep_page

    async def read_slowly(search, page):
        await read_page(search, page)
        rig.clock.passes(20.0)

    monkeypatch.setattr(Search, "_keep_page", read_slowly)
    assert await poller.poll()

    assert sum(poller.state.fleet.counted.values()) == 60
    assert rig.value(JOBS) == 60


async def test_a_job_that_is_read_again_without_a_phase_is_one_job(rig, monkeypatch):
    """Pages overlap: the second reading of a job may not be as good as the first."""
    await rig.serve()
    ids = rig.populate(120, "Completed")
    poller = await rig.add()
    read_page = Search._keep_page

    async def read_and_changed(search, page):
        await read_page(search, page)
        rig.fleet.override(ids[-50], {"status.phase": "Suspended"})

    monkeypatch.setattr(Search, "_keep_page", read_and_changed)
    rig.clock.passes(2 * 86400.0)  # only numbers are kept of such old jobs
    assert await poller.poll()

    assert len(poller.state.fleet) == 120
    assert rig.value(JOBS) == 120
