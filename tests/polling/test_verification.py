"""The list is verified beside the polls: what they do not see is found without reading it all."""

import pytest
from polling.rig import POLLS, START, states, until

from exporter.simulator.behaviour import Behaviour
from exporter.simulator.edits import ABSENT
from exporter.simulator.faults import Fault
from exporter.storage.store import Store

JOBS = "modelarts_training_jobs"
CREATED = "modelarts_training_jobs_created_total"
OLDEST = "modelarts_exporter_oldest_verification_timestamp_seconds"
OTHER = "0123456789abcdef0123456789abcdef"
HOUR = 3600.0

either_mode = pytest.mark.parametrize("mode", ["page", "row"])
all_totals = pytest.mark.parametrize("totals", ["documented", "page", "lies"])


def sweeps(rig):
    return rig.value(POLLS, kind="sweep", result="success")


async def minutes(rig, poller, number):
    """Poll and verify once a minute."""
    for _ in range(number):
        rig.clock.passes(60)
        await rig.poll_and_verify(poller)


async def watched(rig, number, *, mode="page", totals="documented", **options):
    """A poller that has read a list of finished jobs; returns it, and the ids, oldest first."""
    await rig.serve(behaviour=Behaviour(offset=mode, totals=totals))
    ids = rig.populate(number - 1, "Completed")
    newest = rig.fleet.create(START - 60.0)  # so that a job found among the others was hidden
    rig.fleet.enter(newest, "Completed")
    poller = await rig.add(**options)
    assert await poller.poll()
    return poller, [*ids, newest.id]


# --- What is found --------------------------------------------------------------------------------


@either_mode
@all_totals
async def test_an_old_job_that_was_deleted(rig, mode, totals):
    poller, ids = await watched(rig, 2000, mode=mode, totals=totals)
    await minutes(rig, poller, 2)
    rig.fleet.delete(ids[700])
    before = len(poller.session.sent)

    await minutes(rig, poller, 1)

    assert rig.value(JOBS) == 1999
    assert len(poller.session.sent) - before <= 20
    await minutes(rig, poller, 2)
    assert rig.counted("jobs_deleted") == {"Completed": 1}
    assert rig.counted("jobs_finished") == {}
    assert sweeps(rig) == 1


@either_mode
async def test_jobs_deleted_one_by_one_and_many_in_a_row(rig, mode):
    poller, ids = await watched(rig, 2000, mode=mode)
    gone = [*ids[3:2000:201], *ids[1000:1120]]
    for job_id in dict.fromkeys(gone):
        rig.fleet.delete(job_id)

    await minutes(rig, poller, 5)

    assert rig.value(JOBS) == len(rig.fleet) == 2000 - len(set(gone))
    assert rig.counted("jobs_deleted") == {"Completed": len(set(gone))}
    assert sweeps(rig) == 1


@either_mode
@all_totals
async def test_a_hidden_job_that_is_shown(rig, mode, totals):
    """It existed before, so it was not created."""
    poller, ids = await watched(rig, 2000, mode=mode, totals=totals)
    hidden = rig.fleet.create(rig.fleet[ids[700]].created + 0.5)
    rig.fleet.enter(hidden, "Failed")

    await minutes(rig, poller, 3)

    assert rig.value(JOBS) == 2001
    assert rig.value(JOBS, phase="Failed") == 1
    assert rig.value(CREATED) == 0
    assert rig.counted("jobs_finished") == {}
    assert sweeps(rig) == 1


@either_mode
async def test_one_job_deleted_and_one_shown(rig, mode):
    """The list is as long as before: only the scrub sees it."""
    poller, ids = await watched(rig, 500, mode=mode, sweep_interval=HOUR)
    rig.fleet.delete(ids[100])
    rig.fleet.enter(rig.fleet.create(rig.fleet[ids[400]].created + 0.5), "Failed")

    await minutes(rig, poller, 2)
    assert rig.value(JOBS, phase="Failed") == 0
    await minutes(rig, poller, 62)

    assert rig.value(JOBS) == 500
    assert rig.value(JOBS, phase="Failed") == 1
    assert rig.counted("jobs_deleted") == {"Completed": 1}
    assert rig.value(CREATED) == 0
    assert sweeps(rig) == 1


@either_mode
@all_totals
async def test_a_late_correction_is_found_by_the_scrub(rig, mode, totals):
    """It is no event, and shown within ``poll.sweep_interval``."""
    poller, ids = await watched(rig, 500, mode=mode, totals=totals, sweep_interval=HOUR)
    rig.fleet.enter(ids[123], "Failed")

    await minutes(rig, poller, 62)

    assert rig.value(JOBS, phase="Failed") == 1
    assert rig.value(JOBS) == 500
    assert rig.counted("jobs_finished") == {}
    assert sweeps(rig) == 1


async def test_a_finished_job_that_runs_again_and_ends(rig):
    poller, ids = await watched(rig, 500)
    rig.fleet.enter(ids[0], "Running")
    await minutes(rig, poller, 1)
    assert rig.value(JOBS, phase="Running") == 1
    rig.fleet.finish(ids[0], "Failed")
    await minutes(rig, poller, 2)

    assert rig.counted("jobs_finished") == {"Failed": 1}
    assert sweeps(rig) == 1


async def test_two_workspaces_are_verified_each(rig):
    await rig.serve()
    ids = rig.populate(300, "Completed")
    other = [rig.fleet.create(START - 500 + n, workspace=OTHER) for n in range(120)]
    for job in other:
        rig.fleet.enter(job, "Failed")
    poller = await rig.add(workspaces=("0", OTHER))
    assert await poller.poll()
    rig.fleet.delete(ids[50])
    rig.fleet.delete(other[100])

    await minutes(rig, poller, 3)

    assert rig.value(JOBS, workspace="0") == 299
    assert rig.value(JOBS, workspace=OTHER) == 119
    assert rig.counted("jobs_deleted") == {"Completed": 1, "Failed": 1}
    assert sweeps(rig) == 1


async def test_a_list_that_is_nearly_gone_is_read_as_a_whole(rig):
    poller, ids = await watched(rig, 500)
    for job_id in ids[:400]:
        rig.fleet.delete(job_id)

    await minutes(rig, poller, 1)
    assert rig.value(JOBS) == 500
    assert poller._sweep_due is not None
    assert await poller.sweep()
    await minutes(rig, poller, 1)

    assert rig.value(JOBS) == 100
    assert rig.counted("jobs_deleted") == {"Completed": 400}
    assert poller._sweep_due is None


# --- What it costs --------------------------------------------------------------------------------


@pytest.mark.slow
@all_totals
async def test_a_list_that_does_not_change_is_never_read_as_a_whole(rig, totals):
    """A day: each page once, one request where totals do not tell, and no sweep."""
    options = {"interval": 300.0, "stale_after": 900.0, "sweep_interval": 6 * HOUR}
    poller, _ = await watched(rig, 500, totals=totals, **options)
    before = len(poller.session.times())
    for number in range(288):
        rig.clock.passes(300)
        await rig.poll_and_verify(poller)
        if number > 72:
            assert rig.value(OLDEST) >= rig.clock.service() - 6.2 * HOUR

    sent = len(poller.session.times()) - before
    polls, pages, proofs = 2 * 288, 4 * 14, 288 if totals == "lies" else 144
    assert sent <= polls + pages + proofs
    assert sweeps(rig) == 1


async def test_deletions_at_every_minute_cost_no_sweep(rig):
    poller, ids = await watched(rig, 1000)
    before = len(poller.session.sent)
    for number in range(40):
        rig.fleet.delete(ids[7 * number])
        await minutes(rig, poller, 1)
        assert rig.value(JOBS) == len(rig.fleet)

    assert len(poller.session.sent) - before <= 40 * 15
    assert sweeps(rig) == 1


# --- What is verified -----------------------------------------------------------------------------


async def test_the_oldest_verification_is_that_of_the_page_verified_longest_ago(rig):
    poller, _ = await watched(rig, 500, sweep_interval=HOUR)
    read = rig.value(OLDEST)
    assert START <= read <= rig.clock.service()

    await minutes(rig, poller, 10)
    assert rig.value(OLDEST) == read  # there are pages left
    await minutes(rig, poller, 52)
    assert rig.value(OLDEST) >= read + 60


async def test_the_oldest_verification_stays_where_pages_cannot_be_read(rig, caplog):
    poller, _ = await watched(rig, 500, sweep_interval=HOUR, retries=0)
    read = rig.value(OLDEST)
    for _ in range(70):
        rig.clock.passes(60)
        assert await poller.poll()
        rig.service.faults.add(Fault("status", "search", status=500))
        await poller.verify()
        rig.service.faults.clear()

    assert rig.value(OLDEST) == read
    assert rig.value("modelarts_up") == 1
    assert rig.value(JOBS) == 500
    assert caplog.text.count("list not verified") == 1
    await minutes(rig, poller, 62)
    assert rig.value(OLDEST) > read + HOUR


async def test_the_oldest_verification_of_a_list_that_cannot_be_verified_is_the_last_sweep(rig):
    await rig.serve()
    (job, *_) = rig.populate(200, "Completed")
    rig.fleet.override(job, {"metadata.create_time": ABSENT})
    poller = await rig.add(sweep_interval=HOUR)
    assert await poller.poll()
    read = rig.value(OLDEST)
    await minutes(rig, poller, 59)
    assert rig.value(OLDEST) == read
    assert poller._sweep_due is None
    await minutes(rig, poller, 2)
    assert poller._sweep_due is not None
    assert await poller.sweep()

    assert rig.value(OLDEST) >= read + HOUR
    assert poller._sweep_due is None


async def test_there_is_no_oldest_verification_before_the_first_reading(rig):
    await rig.serve()
    rig.populate(3)
    poller = await rig.add()
    assert rig.value(OLDEST) is None
    assert await poller.poll()
    assert rig.value(OLDEST) >= START


async def test_a_restart_goes_on_with_the_verification(rig, tmp_path):
    """There is no sweep; what happened meanwhile is found by the first verification."""
    await rig.serve()
    ids = rig.populate(500, "Completed")
    path = tmp_path / "state.db"
    store = await Store.open(path, problem=lambda: None)
    poller = await rig.add(store=store, sweep_interval=HOUR)
    assert await poller.poll()
    await minutes(rig, poller, 30)
    read, marks = rig.value(OLDEST), poller.state.fleet.verification
    rig.publisher.pollers.remove(poller)
    await store.close()
    rig.fleet.delete(ids[200])

    store = await Store.open(path, problem=lambda: None)
    poller = await rig.add(store=store, sweep_interval=HOUR)
    assert await poller.poll()
    assert poller.state.fleet.verification == marks
    assert rig.value(OLDEST) == read
    assert await poller.verify()
    assert rig.value(JOBS) == 499
    await minutes(rig, poller, 35)
    assert rig.value(OLDEST) > read
    assert rig.counted("jobs_deleted") == {"Completed": 1}
    assert sweeps(rig) == 1
    await store.close()


# --- Beside the polls -----------------------------------------------------------------------------


async def test_a_running_poller_verifies_after_every_poll(rig, clock):
    clock.patience = 1.0
    await rig.serve()
    ids = rig.populate(300, "Completed")
    poller = await rig.add()
    async with rig.running(poller):
        await rig.polled(poller, 1)
        rig.fleet.delete(ids[7])
        clock.passes_until(60)
        await until(lambda: rig.value(JOBS) == 299)
        clock.passes_until(120)
        await rig.polled(poller, 3)
        clock.passes_until(180)
        await until(lambda: rig.counted("jobs_deleted") == {"Completed": 1})
    assert sweeps(rig) == 1


@pytest.mark.parametrize("then", ["Failed", "deleted"])
async def test_what_a_poll_has_read_meanwhile_wins(rig, then):
    """A verification reads a running job; a poll sees how it ends before that is applied."""
    poller, ids = await watched(rig, 40, mode="row")
    (job,) = rig.populate(1)
    await minutes(rig, poller, 1)
    rig.fleet.delete(ids[3])
    rig.clock.passes(60)
    assert await poller.poll()
    verify = poller.target.sync.verify

    async def meanwhile(*arguments, **options):
        result = await verify(*arguments, **options)
        assert job in result[0].jobs
        if then == "deleted":
            rig.fleet.delete(job)
        else:
            rig.fleet.finish(job, then)
        assert await poller.poll()
        return result

    poller.target.sync.verify = meanwhile
    assert await poller.verify()
    poller.target.sync.verify = verify
    assert rig.value(JOBS, phase="Running") == 0
    await minutes(rig, poller, 2)

    gone = {"Completed": 1}
    assert rig.counted("jobs_deleted") == gone | ({"Running": 1} if then == "deleted" else {})
    assert rig.counted("jobs_finished") == ({} if then == "deleted" else {then: 1})


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 401, "code": "APIGW.0301"}], ids=str)
async def test_a_verification_that_fails_costs_no_poll(rig, caplog, fault):
    poller, ids = await watched(rig, 300, retries=0)
    rig.fleet.delete(ids[7])
    rig.clock.passes(60)
    assert await poller.poll()
    before = rig.samples()
    polls = poller.ended_polls
    rig.service.faults.add(Fault("status", "search", **fault))
    assert not await poller.verify()
    assert states(rig.samples()) == states(before)
    assert rig.value("modelarts_up") == 1
    assert poller.ended_polls == polls
    assert caplog.text.count("list not verified") == 1

    rig.service.faults.clear()
    await minutes(rig, poller, 3)
    assert rig.counted("jobs_deleted") == {"Completed": 1}


@pytest.mark.parametrize("edits", [{"items": []}, {"items.3": ABSENT}], ids=str)
@pytest.mark.parametrize("nth", [1, 2, 3])
@all_totals
async def test_a_page_that_lacks_jobs_deletes_none(rig, totals, nth, edits):
    """The lookup says that they exist."""
    poller, ids = await watched(rig, 300, totals=totals)
    rig.fleet.delete(ids[150])
    rig.clock.passes(60)
    assert await poller.poll()
    fault = rig.service.faults.add(Fault("edit", "search", edits=edits, nth=nth, times=1))
    await poller.verify()
    assert fault.hits == 1
    rig.service.faults.clear()
    await minutes(rig, poller, 4)

    assert rig.value(JOBS) == 299
    assert rig.counted("jobs_deleted") == {"Completed": 1}
    assert rig.value(CREATED) == 0
    assert rig.counted("jobs_finished") == {}


@all_totals
async def test_an_item_that_cannot_be_decoded_puts_verification_off(rig, totals):
    """For an hour; meanwhile the whole list is read if the service's totals differ."""
    poller, ids = await watched(rig, 300, totals=totals, sweep_interval=24 * HOUR)
    rig.fleet.delete(ids[150])
    rig.clock.passes(60)
    assert await poller.poll()
    rig.service.faults.add(Fault("edit", "search", edits={"items.3": None}, times=1))
    assert await poller.verify()
    await minutes(rig, poller, 1)
    assert (poller._sweep_due is None) == (totals == "lies")
    if poller._sweep_due is not None:
        assert await poller.sweep()
        assert rig.value(JOBS) == 299
    await minutes(rig, poller, 62)

    assert rig.value(JOBS) == 299
    assert poller._sweep_due is None
    assert rig.counted("jobs_deleted") == {"Completed": 1}


@pytest.mark.parametrize("useless", ["ignored_filters", "rejected_filters"])
async def test_without_any_lookup_a_job_is_deleted_when_two_rounds_omit_it(rig, useless):
    poller, ids = await watched(rig, 300)
    setattr(rig.service.behaviour, useless, frozenset({"id", "name"}))
    rig.service.faults.add(Fault("status", "get", status=403, code="ModelArts.0010"))
    rig.fleet.delete(ids[150])

    await minutes(rig, poller, 1)
    assert rig.value(JOBS) == 300
    await minutes(rig, poller, 1)
    assert rig.value(JOBS) == 299
    await minutes(rig, poller, 2)
    assert rig.counted("jobs_deleted") == {"Completed": 1}
    assert sweeps(rig) == 1


async def test_an_item_that_cannot_be_decoded_in_a_lookup_proves_nothing(rig):
    poller, ids = await watched(rig, 300)
    rig.service.behaviour.ignored_filters = frozenset({"id"})
    rig.service.faults.add(Fault("status", "get", status=403, code="ModelArts.0010"))
    rig.fleet[ids[220]].name = rig.fleet[ids[150]].name  # on a page that is not read
    rig.fleet.override(ids[220], {"metadata.id": "no id / at all"})
    rig.fleet.delete(ids[150])

    await minutes(rig, poller, 3)
    assert rig.value(JOBS) == 300
    assert sweeps(rig) == 1


async def test_a_bug_in_verification_costs_no_poll(rig, monkeypatch, caplog):
    poller, _ = await watched(rig, 3)
    rig.clock.passes(60)
    assert await poller.poll()
    monkeypatch.delattr(poller.target.sync, "_verifiers")
    assert not await poller.verify()
    assert "verification failed unexpectedly" in caplog.text
    assert rig.value("modelarts_up") == 1
