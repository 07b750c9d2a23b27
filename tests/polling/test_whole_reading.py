"""The first reading of a list is saved in parts, and shown when it is complete; later ones differ.

A later reading leaves out what is as it was known.
"""

import asyncio
from collections import Counter

import pytest
from polling.rig import POLLS, events, states, until

from exporter.polling import whole_reading
from exporter.simulator.behaviour import Behaviour
from exporter.simulator.edits import ABSENT
from exporter.simulator.faults import Fault
from exporter.storage.store import Store

JOBS = "modelarts_training_jobs"
OTHER = "0123456789abcdef0123456789abcdef"

either_mode = pytest.mark.parametrize("mode", ["page", "row"])


@pytest.fixture(params=[10, 100, 2000])
def _part(monkeypatch, request):
    """So many jobs are saved together."""
    monkeypatch.setattr(whole_reading, "PART", request.param)


@pytest.fixture
def life(rig, tmp_path):
    """One life of the exporter: a store and a poller that has never polled."""

    async def life(**options):
        store = await Store.open(tmp_path / "state.db", problem=rig.instruments.state_errors.inc)
        rig._stack.push_async_callback(store.close)
        poller = await rig.add(store=store, **options)
        poller.store = store
        return poller

    return life


async def end(rig, poller):
    rig.publisher.pollers.remove(poller)
    await poller.store.close()


async def known(poller):
    """The numbers of jobs that the store has, and of those that the exporter counts."""
    number, _ = await poller.state.known_list("0").count()
    return number, len(poller.state.fleet)


@either_mode
@pytest.mark.usefixtures("_part")
async def test_it_is_saved_in_parts_and_shown_as_a_whole(rig, mode):
    await rig.serve(behaviour=Behaviour(offset=mode))
    rig.populate(330, "Completed")
    rig.populate(20)
    poller = await rig.add()
    shown = []
    rig.service.faults.add(
        Fault("act", "search", times=None, action=lambda _: shown.append(states(rig.samples())))
    )
    assert await poller.poll()

    assert len(shown) >= 7
    assert not any(shown)
    assert rig.value(JOBS, phase="Completed") == 330
    assert rig.value(JOBS, phase="Running") == 20
    assert await known(poller) == (350, 350)
    assert not any(events(rig.samples()).values())


@either_mode
@pytest.mark.usefixtures("_part")
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("Running", "Terminating"),
        ("Running", "Failed"),
        ("Running", "Unusable"),
        ("Completed", "Failed"),
        ("Completed", "Running"),
        ("Completed", "Unusable"),
        ("Unusable", "Running"),
        ("Unusable", "Failed"),
    ],
)
async def test_row_37_what_was_read_last_counts(rig, mode, first, then):
    """In whichever parts a job is. One without a usable phase is as it was read before."""
    await rig.serve(behaviour=Behaviour(offset=mode))
    ids = rig.populate(120)
    twice = ids[-50]  # the last one of the first page

    def show(fleet, phase):
        if phase == "Unusable":
            fleet.override(twice, {"status.phase": ABSENT})
        else:
            fleet.override(twice, {})
            fleet.enter(twice, phase)

    def change(fleet):
        fleet.create()
        show(fleet, then)

    show(rig.fleet, first)
    rig.service.faults.add(Fault("act", "search", nth=2, times=1, action=change))
    poller = await rig.add()
    assert await poller.poll()

    phase = first if then == "Unusable" else then
    expected = Counter({"Running": 119, "Creating": 1}) + Counter([phase])
    assert {each: rig.value(JOBS, phase=each) for each in expected} == expected
    assert rig.value(JOBS) == 121
    assert await known(poller) == (121, 121)
    rig.fleet.override(twice, {})
    rig.fleet.enter(twice, phase)
    for _ in range(3):
        await rig.settle(poller)
    assert not rig.counted("jobs_finished")
    assert not rig.counted("jobs_deleted")
    assert rig.value(JOBS) == 121


@either_mode
@pytest.mark.usefixtures("_part")
@pytest.mark.parametrize("between", ["polls", "lives"])
@pytest.mark.parametrize("history", ["0", "30d"])
async def test_one_that_was_interrupted_begins_again(rig, life, mode, between, history):
    """Jobs that were deleted meanwhile were never known, and those that ended are a baseline."""
    await rig.serve(behaviour=Behaviour(offset=mode))
    ids = rig.populate(300, "Completed")
    running = rig.populate(40)
    poller = await life(retries=0, jobs={"history": history})
    fault = rig.service.faults.add(Fault("status", "search", nth=6, status=500))
    assert not await poller.poll()
    assert fault.hits
    assert states(rig.samples()) == {}
    rig.service.faults.clear()
    for job_id in [*ids[-80:-60], *running[:2]]:
        rig.fleet.delete(job_id)
    rig.fleet.finish(running[3], "Failed")
    new = rig.fleet.create()
    if between == "lives":
        await end(rig, poller)
        poller = await life(jobs={"history": history})

    assert await poller.poll()

    assert rig.value(JOBS) == len(rig.fleet) == 319
    assert rig.value(JOBS, phase="Failed") == 1
    assert new.id in rig.shown()
    assert await known(poller) == (319, 319)
    for _ in range(2):
        await rig.settle(poller)
        assert await poller.verify()
    assert not any(
        value for (name, _), value in events(rig.samples()).items() if "accelerator" not in name
    )
    assert rig.value(POLLS, kind="sweep", result="success") == 1


@pytest.mark.usefixtures("_part")
@pytest.mark.parametrize("request_number", [2, 4, 7])
async def test_one_that_was_killed_begins_again(rig, life, request_number):
    await rig.serve()
    rig.populate(340, "Completed")
    poller = await life()
    reached = []
    rig.service.faults.add(
        Fault("act", "search", nth=request_number, action=lambda _: reached.append(True))
    )
    rig.service.faults.add(Fault("hang", "search", nth=request_number))
    polling = asyncio.create_task(poller.poll())
    await until(lambda: reached)
    polling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await polling
    rig.service.faults.clear()
    await end(rig, poller)
    rig.fleet.delete(max(rig.fleet, key=lambda job: job.created))

    poller = await life()
    assert await poller.poll()

    assert rig.value(JOBS) == 339
    assert await known(poller) == (339, 339)
    assert not any(events(rig.samples()).values())


@pytest.mark.usefixtures("_part")
async def test_a_new_workspace_is_saved_in_parts_beside_one_that_is_known(rig, life):
    """Its jobs are a baseline; what has happened in the other one is counted."""
    await rig.serve()
    mine = rig.populate(130)
    poller = await life()
    assert await poller.poll()
    await rig.settle(poller)
    await end(rig, poller)
    rig.fleet.finish(mine[3], "Failed")
    for number in range(130):
        job = rig.fleet.create(rig.fleet.now - 500 + number, workspace=OTHER)
        rig.fleet.finish(job, "Completed")

    poller = await life(workspaces=("0", OTHER))
    assert (await rig.step(poller)).ok
    for _ in range(2):
        await rig.settle(poller)

    assert rig.value(JOBS, workspace=OTHER) == 130
    assert rig.counted("jobs_finished") == {"Failed": 1}
    assert rig.value(JOBS) == 260
    assert len(poller.state.fleet) == 260


@pytest.mark.usefixtures("_part")
async def test_a_sweep_before_there_is_a_baseline_is_a_first_reading(rig):
    await rig.serve()
    rig.populate(130, "Completed")
    poller = await rig.add()
    assert await poller.sweep()

    assert rig.value(JOBS) == 130
    assert await known(poller) == (130, 130)


@either_mode
async def test_a_sweep_keeps_only_what_has_changed(rig, mode):
    await rig.serve(behaviour=Behaviour(offset=mode))
    ids = rig.populate(300, "Completed")
    running = rig.populate(30)
    poller = await rig.add()
    assert await poller.poll()
    rig.fleet.enter(ids[7], "Failed")
    rig.fleet.finish(running[3], "Abnormal")
    rig.fleet.delete(ids[9])
    new = rig.fleet.create().id
    applied = []
    apply = poller.state.apply

    async def noted(view, *rest):
        applied.append(view)
        return await apply(view, *rest)

    poller.state.apply = noted
    assert await poller.sweep()

    (view,) = applied
    assert view.jobs.keys() == {ids[7], running[3], new}
    assert view.deleted == {ids[9]}
    assert view.read == 330
    assert rig.value(JOBS) == 330
    assert await known(poller) == (330, 330)
    rig.clock.passes(60)
    assert await poller.sweep()
    assert (applied[-1].jobs, applied[-1].deleted, applied[-1].read) == ({}, set(), 330)
    await rig.settle(poller)
    await rig.settle(poller)
    assert rig.counted("jobs_finished") == {"Abnormal": 1}
    assert rig.counted("jobs_deleted") == {"Completed": 1}
    assert sum(rig.counted("jobs_created", "pool").values()) == 1
