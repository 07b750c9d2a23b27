"""Fine-tuning jobs are listed where the service takes `unified_jobs`; what appears is not new."""

import json
from collections import Counter

import pytest
from polling.rig import both_ways

from exporter.clock import Clocks
from exporter.simulator.behaviour import Behaviour
from exporter.simulator.faults import Fault
from exporter.storage.store import Store

CREATED = "modelarts_training_jobs_created_total"
HOUR = 3600.0
OTHER = "5f0c2b7e9d3a4c1e8b6f7a2d4c9e1b30"


def rejecting():
    return Behaviour(unified_jobs="rejected")


def searches(rig):
    """What was asked for, oldest first."""
    return [json.loads(each.body) for each in rig.service.requests if each.operation == "search"]


def asked(rig):
    """How many searches asked for fine-tuning jobs, and how many did not."""
    return Counter(body.get("unified_jobs", False) for body in searches(rig))


def fine_tuning(rig, number, phase="Running", age=600.0):
    """Fine-tuning jobs, created that many seconds ago."""
    jobs = [rig.fleet.create(rig.fleet.now - age, fine_tuning=True) for _ in range(number)]
    for job in jobs:
        rig.fleet.enter(job, phase)
    return {job.id for job in jobs}


def created(rig):
    return rig.value(CREATED)


def gone(rig):
    return rig.counted("jobs_deleted")


async def settle(rig, poller, read="poll"):
    """Read twice: new counters show what they count."""
    for _ in range(2):
        rig.clock.passes(60)
        rig.fleet.advance(rig.clock.service())
        assert (await rig.step(poller, read)).ok, poller.error


def finish_all(rig):
    for job in list(rig.fleet):
        rig.fleet.finish(job)


async def test_fine_tuning_jobs_are_listed(rig):
    await rig.serve()
    poller = await rig.add()
    usual, hidden = set(rig.populate(3)), fine_tuning(rig, 2)
    assert await poller.poll()
    assert rig.shown() == usual | hidden

    new = fine_tuning(rig, 1, age=1.0)
    await settle(rig, poller)

    assert rig.shown() == usual | hidden | new
    assert created(rig) == 1
    new |= fine_tuning(rig, 1, age=1.0)
    await settle(rig, poller, "sweep")
    assert rig.shown() == usual | hidden | new
    assert created(rig) == 2
    assert asked(rig)[False] == 0


async def test_the_first_pages_have_fine_tuning_jobs(rig):
    await rig.serve()
    poller = await rig.add()
    fine_tuning(rig, 2)

    assert (await poller.read_first_pages()).listed == 2


async def test_a_deleted_fine_tuning_job_is_deleted(rig):
    await rig.serve()
    poller = await rig.add()
    rig.populate(3)
    (first, second) = sorted(fine_tuning(rig, 2))
    assert await poller.poll()
    rig.fleet.delete(first)
    rig.fleet.finish(second)
    await settle(rig, poller)

    assert (gone(rig), rig.counted("jobs_finished")) == ({"Running": 1}, {"Completed": 1})


async def test_the_option_turns_it_off(rig):
    await rig.serve()
    poller = await rig.add(jobs={"unified": False})
    usual = set(rig.populate(3))
    fine_tuning(rig, 2)
    assert await poller.poll()
    await settle(rig, poller)
    assert await poller.sweep()

    assert rig.shown() == usual
    assert asked(rig)[True] == 0


@pytest.mark.parametrize("option", [True, False], ids=["rejected", "switched off"])
@both_ways
async def test_without_it_deleted_jobs_are_deleted(rig, option):
    await rig.serve(behaviour=rejecting())
    poller = await rig.add(jobs={"unified": option})
    first, second, *_ = rig.populate(3)
    assert await poller.poll()
    rig.fleet.delete(first)
    rig.fleet.finish(second)
    assert (await rig.step(poller)).ok
    await settle(rig, poller)

    assert (gone(rig), rig.counted("jobs_finished")) == ({"Running": 1}, {"Completed": 1})


async def test_a_service_that_rejects_it_is_asked_once(rig):
    await rig.serve(behaviour=rejecting())
    poller = await rig.add()
    usual = set(rig.populate(120))
    assert await poller.poll()
    assert asked(rig)[True] == 1

    first = asked(rig)[False]
    assert await poller.sweep()
    assert asked(rig) == {True: 1, False: 2 * first}
    await settle(rig, poller)
    await settle(rig, poller, "sweep")
    assert not await needs_sweep(poller)

    assert rig.shown() == usual
    assert asked(rig)[True] == 1


async def needs_sweep(poller):
    state, sync = poller.state, poller.target.sync
    view = await sync.incremental(state.fleet, state.known, deadline=1e9)
    return sync.needs_sweep(view, state.fleet)


@pytest.mark.parametrize("code", ["ModelArts.2764", "ModelArts.2788", "ModelArts.2816", "X.1"])
async def test_any_400_may_mean_it(rig, code):
    await rig.serve()
    poller = await rig.add()
    usual = set(rig.populate(3))
    rig.service.faults.add(refusing(code))
    assert await poller.poll(), poller.error

    assert rig.shown() == usual
    assert not poller.target.unified.requested


def refusing(code, times=1, nth=1):
    return Fault("status", "search", status=400, code=code, times=times, nth=nth)


async def test_a_400_without_it_is_not_its_fault(rig):
    await rig.serve()
    poller = await rig.add()
    rig.populate(3)
    rig.service.faults.add(refusing("ModelArts.0102", times=2))
    assert not await poller.poll()
    assert "ModelArts.0102" in poller.error
    assert poller.target.unified.requested

    assert await poller.poll()
    assert asked(rig) == {True: 2, False: 1}


@pytest.mark.parametrize("status", [403, 404])
async def test_other_errors_are_not_its_fault(rig, status):
    await rig.serve()
    poller = await rig.add(retries=0)
    rig.service.faults.add(Fault("status", "search", status=status, code="X.1", times=1))
    assert not await poller.poll()
    assert asked(rig)[False] == 0


async def test_a_400_for_a_later_page_is_not_its_fault(rig):
    """The other list would not continue where this one ended."""
    await rig.serve()
    poller = await rig.add()
    rig.populate(60)
    rig.service.faults.add(refusing("X.1", nth=2))
    assert not await poller.poll()
    assert asked(rig)[False] == 0


async def test_a_400_for_a_filter_is_not_its_fault(rig):
    await rig.serve()
    poller = await rig.add()
    hidden = fine_tuning(rig, 3)
    assert await poller.poll()
    fault = rig.service.faults.add(refusing("X.1"))
    assert await poller.poll()

    assert fault.hits == 1
    assert rig.shown() == hidden
    assert asked(rig)[False] == 0


async def test_a_reload_remembers_that_it_is_rejected(rig):
    await rig.serve(behaviour=rejecting())
    poller = await rig.add()
    rig.populate(3)
    assert await poller.poll()
    successor = await rig.add(rate=4.0)
    rig.publisher.pollers.remove(poller)
    await successor.take_over(poller)
    await settle(rig, successor)
    assert await successor.sweep()

    assert asked(rig)[True] == 1


async def test_another_endpoint_is_asked_again(rig):
    await rig.serve(behaviour=rejecting())
    poller = await rig.add()
    rig.populate(3)
    assert await poller.poll()
    successor = await rig.add(endpoint=rig.service.url.replace("127.0.0.1", "localhost"))
    rig.publisher.pollers.remove(poller)
    await successor.take_over(poller)
    assert await successor.poll()
    assert await successor.sweep()

    assert asked(rig)[True] == 2


# --- What becomes visible is hidden history -------------------------------------------------------


async def watched(rig):
    """A service with both kinds of jobs, of which the exporter has seen the usual ones."""
    await rig.serve(behaviour=rejecting())
    poller = await rig.add()
    usual = set(rig.populate(30))
    hidden = fine_tuning(rig, 20) | fine_tuning(rig, 2, age=30 * HOUR)
    assert await poller.poll()
    assert rig.shown() == usual
    return poller, usual | hidden


async def test_a_service_accepts_it_later(rig):
    poller, everything = await watched(rig)
    rig.service.behaviour.unified_jobs = "taken"
    hidden = fine_tuning(rig, 1, age=1.0)
    new = rig.fleet.create().id
    rig.clock.passes(13 * HOUR)
    rig.fleet.advance(rig.clock.service())
    await settle(rig, poller)
    assert created(rig) == 1

    newer = rig.fleet.create().id  # the sweep is the first to see it
    await settle(rig, poller, "sweep")
    assert rig.shown() == everything | hidden | {new, newer}
    assert created(rig) == 2

    late = fine_tuning(rig, 1, age=1.0)
    await settle(rig, poller)
    assert rig.shown() == everything | hidden | late | {new, newer}
    assert (created(rig), gone(rig)) == (3, {})
    finish_all(rig)
    await settle(rig, poller)
    assert rig.counted("jobs_finished") == {"Completed": 56}


async def test_what_happens_while_both_lists_are_read(rig):
    """A job created between the two readings is new, whichever list shows it."""
    poller, everything = await watched(rig)
    rig.service.behaviour.unified_jobs = "taken"
    rig.clock.passes(13 * HOUR)
    rig.fleet.advance(rig.clock.service())
    before, new = len(searches(rig)), set()

    def happen(fleet):
        new.add(fleet.create().id)
        fleet.delete(min(everything))

    # The list with fine-tuning jobs has two pages, the third request begins the other list.
    rig.service.faults.add(Fault("act", "search", nth=3, times=1, action=happen))
    assert await poller.sweep()
    sent = [body.get("unified_jobs", False) for body in searches(rig)[before:]]
    assert sent[:3] == [True, True, False]
    await settle(rig, poller)

    assert created(rig) == 1
    assert rig.shown() == everything - {min(everything)} | new


@pytest.fixture
def clocks(rig):
    return Clocks(wall=rig.clock.wall)


async def restarted(rig, poller, store, path, clocks, **options):
    await store.close()
    rig.publisher.pollers.remove(poller)
    store = await Store.open(path, problem=lambda: None, clocks=clocks)
    return await rig.add(store=store, **options), store


async def test_the_option_is_switched_on_with_a_state_file(rig, tmp_path, clocks):
    path = tmp_path / "state.db"
    await rig.serve()
    store = await Store.open(path, problem=lambda: None, clocks=clocks)
    poller = await rig.add(store=store, jobs={"unified": False})
    usual, hidden = set(rig.populate(30)), fine_tuning(rig, 5) | fine_tuning(rig, 2, age=9 * HOUR)
    assert await poller.poll()

    new = {rig.fleet.create().id for _ in range(3)}
    hidden |= fine_tuning(rig, 2, age=1.0)
    poller, store = await restarted(rig, poller, store, path, clocks)
    await settle(rig, poller)
    assert rig.shown() == usual | new
    assert await needs_sweep(poller)
    await settle(rig, poller, "sweep")
    assert rig.shown() == usual | hidden | new
    assert not await needs_sweep(poller)

    late = fine_tuning(rig, 4, age=1.0)
    poller, store = await restarted(rig, poller, store, path, clocks)
    await settle(rig, poller)
    assert rig.shown() == usual | hidden | new | late
    assert (created(rig), gone(rig)) == (7, {})
    await store.close()


async def test_a_reload_switches_it_on_and_off(rig):
    await rig.serve()
    off = await rig.add(jobs={"unified": False})
    usual, hidden = set(rig.populate(30)), fine_tuning(rig, 12) | fine_tuning(rig, 3, "Completed")
    assert await off.poll()
    on = await rig.add()
    rig.publisher.pollers.remove(off)
    await on.take_over(off)
    await settle(rig, on)
    await settle(rig, on, "sweep")
    assert rig.shown() == usual | hidden
    rig.publisher.pollers.remove(on)

    off = await rig.add(jobs={"unified": False})
    await off.take_over(on)
    rig.fleet.finish(rig.fleet[min(usual)])
    await settle(rig, off)
    assert await needs_sweep(off)
    await settle(rig, off, "sweep")

    assert len(off.state.fleet) == len(usual)
    assert (created(rig), gone(rig)) == (0, {})
    assert rig.counted("jobs_finished") == {"Completed": 1}
    assert not await needs_sweep(off)


async def test_a_reload_switches_it_off_when_all_such_jobs_have_ended(rig):
    """Nothing is missing from what polls read, but the jobs are no longer listed."""
    await rig.serve()
    on = await rig.add()
    usual = set(rig.populate(3))
    fine_tuning(rig, 2, "Completed")
    assert await on.poll()
    off = await rig.add(jobs={"unified": False})
    rig.publisher.pollers.remove(on)
    await off.take_over(on)
    assert await off.poll()
    assert await needs_sweep(off)
    await settle(rig, off, "sweep")

    assert off.state.fleet.open.keys() == usual
    assert len(off.state.fleet) == len(usual)
    assert gone(rig) == {}


async def test_a_service_that_rejects_it_all_at_once(rig):
    """Nothing says that the jobs are deleted."""
    await rig.serve()
    poller = await rig.add()
    usual, hidden = set(rig.populate(30)), fine_tuning(rig, 12)
    assert await poller.poll()
    rig.service.behaviour.unified_jobs = "rejected"
    rig.fleet.delete(min(usual))
    await settle(rig, poller)
    assert rig.shown() == usual | hidden
    rig.service.behaviour.unified_jobs = "taken"
    await settle(rig, poller, "sweep")
    assert rig.shown() == usual - {min(usual)} | hidden
    assert gone(rig) == {"Running": 1}

    rig.service.behaviour.unified_jobs = "rejected"
    await settle(rig, poller, "sweep")
    assert rig.shown() == usual - {min(usual)}
    assert (created(rig), gone(rig)) == (0, {"Running": 1})


async def test_a_reload_adds_a_workspace(rig):
    """Nothing changes for the one that is known."""
    await rig.serve()
    before = await rig.add()
    rig.populate(3)
    fine_tuning(rig, 2)
    assert await before.poll()
    after = await rig.add(workspaces=("0", OTHER))
    rig.publisher.pollers.remove(before)
    await after.take_over(before)
    new = fine_tuning(rig, 1, age=1.0)
    await settle(rig, after)

    assert created(rig) == len(new)
    assert asked(rig)[False] == 0


async def test_a_workspace_of_two_that_changes_over(rig, tmp_path, clocks):
    path = tmp_path / "state.db"
    await rig.serve()
    store = await Store.open(path, problem=lambda: None, clocks=clocks)
    poller = await rig.add(store=store, workspaces=("0", OTHER), jobs={"unified": False})
    rig.populate(3)
    assert await poller.poll()
    poller, store = await restarted(rig, poller, store, path, clocks)  # without the other
    await settle(rig, poller, "sweep")
    for number in range(2):
        rig.fleet.create(workspace=OTHER, fine_tuning=bool(number))
    poller, store = await restarted(rig, poller, store, path, clocks, workspaces=("0", OTHER))
    fine_tuning(rig, 1, age=1.0)
    await settle(rig, poller)
    assert created(rig) == 2
    await settle(rig, poller, "sweep")

    assert len(rig.shown()) == 3 + 2 + 1
    assert created(rig) == 2
    await store.close()


async def test_a_state_file_is_overwritten(rig, tmp_path, clocks):
    path = tmp_path / "state.db"
    await rig.serve()
    store = await Store.open(path, problem=lambda: None, clocks=clocks)
    poller = await rig.add(store=store)
    rig.populate(3)
    assert await poller.poll()
    await store.saved("", "")  # the checkpoint is done
    path.write_bytes(b"")
    poller, store = await restarted(rig, poller, store, path, clocks)
    fine_tuning(rig, 1, age=1.0)
    await settle(rig, poller)

    assert created(rig) == 1
    assert asked(rig)[False] == 0
    await store.close()
