"""Polls cost what has changed: rows 30, 34, 36 and 38 of the fault matrix, and what polls cost."""

import asyncio
import threading
from itertools import chain, combinations

import pytest
from polling.rig import POLLS, both_ways, events, until

from exporter.polling import state
from exporter.simulator.behaviour import Behaviour
from exporter.simulator.faults import Fault
from exporter.simulator.identity import LIST_JOBS, Accounts, Identity

OTHER = "0123456789abcdef0123456789abcdef"
JOBS = "modelarts_training_jobs"
PHASE = "modelarts_training_job_phase"
FILTERS = ("phase", "id", "name")
MODES = ("page", "row")

either_mode = pytest.mark.parametrize("mode", MODES)


def subsets(values):
    return map(frozenset, chain.from_iterable(combinations(values, n) for n in range(4)))


def restricted(permissions=frozenset({LIST_JOBS}), **options):
    """An identity that may list jobs and nothing else."""
    return Identity(password="open sesame", permissions=permissions, **options)


def signing_in(user):
    return {
        "method": "password",
        "username": user.name,
        "domain": user.domain,
        "password": user.password,
    }


async def forbidding(rig, user, **options):
    """A poller of an identity that may not do everything."""
    await rig.serve(accounts=Accounts(users=[user]), **options)
    return await rig.add(auth=signing_in(user))


# --- What a poll costs ----------------------------------------------------------------------------


@pytest.mark.slow
@either_mode
@pytest.mark.parametrize("history", [0, 500, 20_000])
async def test_a_steady_poll_costs_the_same_whatever_was(rig, mode, history):
    await rig.serve(behaviour=Behaviour(offset=mode))
    rig.populate(history, "Completed")
    active = rig.populate(30)
    poller = await rig.add()
    assert await poller.poll()

    for _ in range(3):
        assert await rig.cost(poller) == {"phase": 1, "list": 1}
    rig.fleet.finish(active[0], "Failed")
    rig.fleet.finish(rig.fleet.create(), "Completed")
    rig.fleet.create()
    assert (await rig.cost(poller)).total() <= 4
    assert rig.shown() >= set(active)
    assert rig.value(PHASE, phase="Failed", job_id=active[0]) == 1
    assert rig.value(JOBS) == history + 32


@either_mode
@pytest.mark.parametrize("number", [1, 9, 10, 45])
async def test_jobs_that_ended_long_ago_created_are_asked_for_by_id(rig, mode, number):
    await rig.serve(behaviour=Behaviour(offset=mode))
    old = rig.populate(60)
    rig.populate(200, "Completed")
    poller = await rig.add()
    assert await poller.poll()
    for job_id in old[:number]:
        rig.fleet.finish(job_id, "Failed")

    cost = await rig.cost(poller)

    assert cost == {"phase": 1 + (number < 11), "list": 1, "id": (number + 8) // 9}
    await rig.settle(poller)
    assert rig.counted("jobs_finished") == {"Failed": number}
    assert rig.counted("jobs_deleted") == {}


async def test_more_new_jobs_than_fit_on_a_page(rig):
    await rig.serve()
    rig.populate(300, "Completed")
    poller = await rig.add()
    assert await poller.poll()
    new = [rig.fleet.create().id for _ in range(120)]
    for job_id in new[:60]:
        rig.fleet.finish(job_id)

    cost = await rig.cost(poller)

    assert cost["list"] == 3
    assert rig.shown() == set(new)
    await rig.settle(poller)
    assert sum(rig.counted("jobs_created", "pool").values()) == 120
    assert rig.counted("jobs_finished") == {"Completed": 60}


async def test_two_workspaces_are_read_each(rig):
    await rig.serve()
    rig.populate(100, "Completed")
    for _ in range(10):
        rig.fleet.create(workspace=OTHER)
    poller = await rig.add(workspaces=("0", OTHER))
    assert await poller.poll()

    assert await rig.cost(poller) == {"phase": 2, "list": 2}


@both_ways
async def test_one_workspace_of_two_fails(rig):
    """Nothing is published of the other, and nothing of it is lost."""
    await rig.serve()
    jobs = [*rig.populate(3), rig.fleet.create(workspace=OTHER).id]
    poller = await rig.add(workspaces=("0", OTHER), retries=0)
    assert await poller.poll()
    for job_id in jobs:
        rig.fleet.finish(job_id, "Failed")
    fault = Fault("edit", edits={"items": {}}, nth=2, times=1)
    rig.service.faults.add(fault)

    (await rig.step(poller)).kept("invalid")

    assert fault.hits == 1
    rig.service.faults.clear()
    await rig.settle(poller)
    assert rig.counted("jobs_finished") == {"Failed": 4}


async def test_row_61_what_a_poll_found_and_how_it_ended_are_of_one_generation(rig, monkeypatch):
    """Another target publishes in between."""
    await rig.serve()
    rig.populate(3)
    slow, quick = await rig.add("slow"), await rig.add("quick")
    drawn, go_on = threading.Event(), threading.Event()

    def slow_lines(ledger, labels, *rest, real=state.counter_lines):
        if labels["project"] == "slow":
            drawn.set()
            assert go_on.wait(20)
        return real(ledger, labels, *rest)

    monkeypatch.setattr(state, "counter_lines", slow_lines)
    polling = asyncio.create_task(slow.poll())
    await until(drawn.is_set)
    assert await quick.poll()
    assert rig.value("modelarts_up", project="quick") == 1
    assert rig.value(JOBS, project="quick") == 3
    assert rig.value("modelarts_up", project="slow") == 0
    assert rig.value(JOBS, project="slow") is None
    go_on.set()
    assert await polling

    assert rig.value("modelarts_up", project="slow") == 1
    assert rig.value(JOBS, project="slow") == 3


# --- Row 34: which filters are supported is found out ---------------------------------------------


@pytest.mark.parametrize("how", ["ignored_filters", "rejected_filters"])
@pytest.mark.parametrize("useless", list(subsets(FILTERS)), ids=lambda keys: "+".join(sorted(keys)))
@pytest.mark.parametrize("forbidden", [False, True], ids=["", "no detail call"])
async def test_row_34_and_38_whatever_the_service_honours(rig, how, useless, forbidden):
    poller = await forbidding(rig, restricted()) if forbidden else await everything_allowed(rig)
    old = rig.populate(20)
    rig.populate(200, "Completed")
    young = rig.populate(4)
    assert await poller.poll()
    setattr(rig.service.behaviour, how, useless)
    rig.fleet.finish(old[0], "Failed")
    rig.fleet.finish(young[0], "Abnormal")
    rig.fleet.delete(old[1])
    rig.fleet.delete(young[1])

    first = await rig.cost(poller)
    decided = "id" not in useless or not forbidden
    assert all(first[key] <= 1 for key in useless)
    assert bool(unresolved(poller)) == (not decided)
    if not decided:  # only the list can tell: twice, since a page may omit a job once
        assert {old[1], young[1]} <= rig.shown()
        assert await poller.verify()
        assert {old[1], young[1]} <= rig.shown()
        await rig.poll_and_verify(poller)
    assert not {old[1], young[1]} & rig.shown()
    assert rig.value(PHASE, job_id=old[0], phase="Failed") == 1
    assert rig.value(PHASE, job_id=young[0], phase="Abnormal") == 1

    rig.fleet.finish(old[2], "Failed")
    rig.fleet.delete(old[3])
    if decided:
        second = await rig.cost(poller)
        assert not {key for key in second if key in useless}  # remembered
        blind = {"phase", "id"} <= useless  # then every active job is asked for by itself
        assert second.total() <= 2 + (19 if blind else 3)
    else:
        await rig.poll_and_verify(poller, times=2)
    assert sweeps(rig) == 1
    assert rig.shown() == {*old, *young} - {old[1], old[3], young[1]}
    await rig.settle(poller)
    assert rig.counted("jobs_finished") == {"Failed": 2, "Abnormal": 1}
    assert rig.counted("jobs_deleted") == {"Running": 3}
    assert rig.counted("jobs_created", "pool") == {}
    assert rig.value(JOBS) == 221


def unresolved(poller):
    """Jobs that the last poll could not resolve; the verification that follows looks for them."""
    return poller._unverified.unresolved


def sweeps(rig):
    """How often the whole list was read."""
    return rig.value(POLLS, kind="sweep", result="success")


async def everything_allowed(rig):
    await rig.serve()
    return await rig.add()


@both_ways
@pytest.mark.parametrize("totals", ["documented", "page", "lies"])
async def test_row_30_and_35_a_job_deleted_while_active_counts_once(rig, totals):
    await rig.serve(behaviour=Behaviour(totals=totals))
    ids = rig.populate(60)
    poller = await rig.add()
    assert await poller.poll()
    for job_id in (ids[0], ids[-1]):
        rig.fleet.delete(job_id)

    for _ in range(3):
        assert (await rig.step(poller)).ok
        rig.clock.passes(60)
    await rig.settle(poller)

    assert rig.counted("jobs_deleted") == {"Running": 2}
    assert rig.counted("jobs_finished") == {}
    assert rig.shown() == set(ids[1:-1])


async def test_an_id_filter_that_takes_fewer_values_than_we_send_deletes_nobody(rig):
    """The last of them, a job that is known to be there, is not in the answer."""
    await rig.serve()
    old = rig.populate(20)
    rig.populate(100, "Completed")
    poller = await rig.add()
    assert await poller.poll()
    for job_id in old[:9]:
        rig.fleet.finish(job_id, "Failed")
    searches = rig.service._api._searches
    page = searches.page

    def short(matching, query):
        if [item.key for item in query.filters or ()] == ["id"]:
            matching = [one for one in matching if one[-1].id in query.filters[0].values[:5]]
        return page(matching, query)

    searches.page = short
    assert await poller.poll()
    await rig.settle(poller)

    assert rig.counted("jobs_deleted") == {}
    assert rig.counted("jobs_finished") == {"Failed": 9}


# --- Row 36: an empty list ------------------------------------------------------------------------

EMPTY = {"items": [], "total": 0, "count": 0}


@pytest.mark.slow
@both_ways
@pytest.mark.parametrize("phase", ["Running", "Completed"])
async def test_row_36_an_empty_list_once(rig, phase):
    await rig.serve()
    ids = rig.populate(5000, phase)
    poller = await rig.add()
    assert await poller.poll()
    before = rig.samples()
    fault = Fault("edit", edits=EMPTY, times=1)
    rig.service.faults.add(fault)

    step = await rig.step(poller)

    assert fault.hits == 1
    assert events(step.after) == events(before)
    assert rig.value(JOBS) == len(ids)
    rig.service.faults.clear()
    assert await poller.poll()
    assert await poller.sweep()
    await rig.settle(poller)
    assert rig.counted("jobs_deleted") == {}
    assert rig.value(JOBS) == len(ids)


@both_ways
async def test_row_36_every_list_is_empty_for_the_length_of_a_poll(rig):
    """And the calls for single jobs say that they are there."""
    await rig.serve()
    rig.populate(100)
    rig.populate(2000, "Completed")
    poller = await rig.add()
    assert await poller.poll()
    before = rig.samples()
    rig.service.faults.add(Fault("edit", "search", edits=EMPTY))

    for _ in range(2):
        step = await rig.step(poller)
        await poller.verify()
        assert events(rig.samples()) == events(before)
        assert rig.value(JOBS) == 2100
        assert step.ok == (rig.read == "poll")

    rig.service.faults.clear()
    assert await poller.sweep()
    await rig.settle(poller)
    assert rig.counted("jobs_deleted") == {}


async def test_row_36_a_permission_is_narrowed_for_good(rig):
    """The service says of all jobs of a workspace that they are not there: then they are not."""
    user = restricted(restricted().permissions | {"modelarts:trainJob:get"})
    poller = await forbidding(rig, user)
    rig.populate(20)
    rig.populate(300, "Completed")
    assert await poller.poll()
    seen = rig.samples()
    accounts = rig.service._api._accounts
    blind = restricted(user.permissions, workspaces=frozenset({OTHER}))
    accounts.users[user.domain, user.name] = blind
    accounts.revoke_tokens()

    assert (await rig.step(poller)).ok
    assert poller._sweep_due is None
    assert await poller.verify()
    assert rig.value(JOBS) == 300
    assert poller._sweep_due is not None  # all is gone: the whole list is read
    assert await poller.sweep()
    await rig.settle(poller)

    assert rig.counted("jobs_deleted") == {"Running": 20, "Completed": 300}
    assert rig.counted("jobs_finished") == {}
    assert rig.value(JOBS) == 0
    assert events(seen).keys() <= events(rig.samples()).keys()


# --- Row 38: the detail call is forbidden ---------------------------------------------------------


@pytest.mark.slow
async def test_row_38_no_filter_and_no_call_leaves_it_to_verification(rig):
    """A long list is never read by an incremental poll, which has to be quick."""
    poller = await forbidding(rig, restricted())
    old = rig.populate(5)
    rig.populate(3000, "Completed")
    assert await poller.poll()
    rig.service.behaviour.rejected_filters = frozenset(FILTERS)
    rig.fleet.finish(old[0], "Failed")
    rig.fleet.delete(old[1])

    for _ in range(3):
        assert (await rig.cost(poller)).total() <= 5
        rig.clock.passes(60)
        assert rig.shown() == set(old)
        assert rig.value("modelarts_up") == 1
    assert rig.counted("jobs_deleted") == rig.counted("jobs_finished") == {}

    await rig.poll_and_verify(poller, times=2)
    await rig.settle(poller)
    assert rig.counted("jobs_deleted") == {"Running": 1}
    assert rig.counted("jobs_finished") == {"Failed": 1}
    assert sweeps(rig) == 1


@pytest.mark.slow
async def test_row_38_thousands_end_at_once(rig):
    """A poll resolves as many as it can; the verification that follows finds the others."""
    await rig.serve()
    ids = rig.populate(3000)
    poller = await rig.add()
    assert await poller.poll()
    for job_id in ids[:2000]:
        rig.fleet.finish(job_id, "Terminated")

    cost = await rig.cost(poller)

    assert cost["id"] == 50
    assert rig.value(JOBS, phase="Terminated") == 450 + 0
    assert len(unresolved(poller)) == 1550
    assert await poller.verify()
    assert rig.value(JOBS, phase="Terminated") == 2000
    assert sweeps(rig) == 1
    await rig.settle(poller)
    assert rig.counted("jobs_finished") == {"Terminated": 2000}
