"""Fine-tuning jobs are listed where the service takes `unified_jobs`; what appears is not new."""

import json
from collections import Counter

import pytest

from exporter.clock import Clocks
from exporter.simulator.behaviour import Behaviour
from exporter.simulator.faults import Fault
from exporter.storage.store import Store

CREATED = "modelarts_training_jobs_created_total"
HOUR = 3600.0


def rejecting():
    return Behaviour(unified_jobs="rejected")


def asked(rig, since=0):
    """How many searches asked for fine-tuning jobs, and how many did not."""
    bodies = [json.loads(each.body) for each in rig.service.requests if each.operation == "search"]
    return Counter(body.get("unified_jobs", False) for body in bodies[since:])


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
    assert asked(rig)[False] == 0


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


async def test_a_service_that_rejects_it_is_asked_once(rig):
    await rig.serve(behaviour=rejecting())
    poller = await rig.add()
    usual = set(rig.populate(120))
    assert await poller.poll()
    assert asked(rig)[True] == 1

    await settle(rig, poller)
    await settle(rig, poller, "sweep")
    assert not poller.target.sync.needs_sweep(await empty_view(poller), poller.state.fleet)

    assert rig.shown() == usual
    assert asked(rig)[True] == 1


async def empty_view(poller):
    return await poller.target.sync.incremental(poller.state.fleet, deadline=1e9)


@pytest.mark.parametrize("code", ["ModelArts.2764", "ModelArts.2788", "ModelArts.2816", "X.1"])
async def test_any_400_may_mean_it(rig, code):
    await rig.serve()
    poller = await rig.add()
    usual = set(rig.populate(3))
    rig.service.faults.add(refusing(code))
    assert await poller.poll(), poller.error

    assert rig.shown() == usual
    assert not poller.target.unified.requested


def refusing(code, times=1):
    return Fault(do="status", status=400, code=code, operation="search", times=times)


async def test_a_400_without_it_is_not_its_fault(rig):
    await rig.serve()
    poller = await rig.add()
    rig.populate(3)
    rig.service.faults.add(refusing("ModelArts.0102", times=2))
    assert not await poller.poll()
    assert "ModelArts.0102" in poller.error
    assert poller.target.unified.requested

    assert await poller.poll()
    assert poller.target.unified.accepted


async def test_other_errors_are_not_its_fault(rig):
    await rig.serve()
    poller = await rig.add(retries=0)
    rig.service.faults.add(_status(403))
    assert not await poller.poll()
    assert asked(rig)[False] == 0


def _status(status):
    return Fault(do="status", status=status, operation="search", times=1)


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


# --- What becomes visible is hidden history -------------------------------------------------------


async def watched(rig, **options):
    """A service with both kinds of jobs, of which the exporter has seen the usual ones."""
    await rig.serve(behaviour=rejecting())
    poller = await rig.add(**options)
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

    await settle(rig, poller, "sweep")
    assert rig.shown() == everything | hidden | {new}
    assert created(rig) == 1

    late = fine_tuning(rig, 1, age=1.0)
    await settle(rig, poller)
    assert rig.shown() == everything | hidden | late | {new}
    assert (created(rig), gone(rig)) == (2, {})
    finish_all(rig)
    await settle(rig, poller)
    assert rig.counted("jobs_finished") == {"Completed": 55}


async def test_what_happens_while_both_lists_are_read(rig):
    """A job created between the two readings is new, whichever list shows it."""
    poller, everything = await watched(rig)
    rig.service.behaviour.unified_jobs = "taken"
    rig.clock.passes(13 * HOUR)
    rig.fleet.advance(rig.clock.service())
    both = []
    before = poller.target.sync._source.client.search

    async def search(query, *arguments, **options):
        if not query.get("unified_jobs") and not both:
            both.append(rig.fleet.create().id)
            rig.fleet.delete(next(iter(everything)))
        return await before(query, *arguments, **options)

    poller.target.sync._source.client.search = search
    assert await poller.sweep()
    await settle(rig, poller)

    assert created(rig) == 1
    assert set(both) <= rig.shown()


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
    assert poller.target.sync.needs_sweep(await empty_view(poller), poller.state.fleet)
    await settle(rig, poller, "sweep")
    assert rig.shown() == usual | hidden | new
    assert not poller.target.sync.needs_sweep(await empty_view(poller), poller.state.fleet)

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
    assert off.target.sync.needs_sweep(await empty_view(off), off.state.fleet)
    await settle(rig, off, "sweep")

    assert len(off.state.fleet.jobs) == len(usual)
    assert (created(rig), gone(rig)) == (0, {})
    assert rig.counted("jobs_finished") == {"Completed": 1}
    assert not off.target.sync.needs_sweep(await empty_view(off), off.state.fleet)


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
