"""The log alone says why a counter moved, and why another one did not."""

import logging
from collections import Counter

import pytest
from polling.rig import PROJECT_ID, REGION, events
from polling.test_state_wire import Flaky

from exporter.polling import trace
from exporter.simulator.faults import Fault

FINISHED = "modelarts_training_jobs_finished_total"
CREATED = "modelarts_training_jobs_created_total"
COUNTED, HELD, RELEASED = "event counted", "series held at zero", "series released"
POLL, FIRST = "poll ended", "first complete reading of the target"
USUAL = vars(logging.makeLogRecord({})).keys() | {"message", "asctime"}


def facts(record):
    return {key: value for key, value in vars(record).items() if key not in USUAL}


@pytest.fixture
def lines(caplog):
    """What was logged with a message since the last call, as dictionaries."""
    caplog.set_level(logging.DEBUG, "exporter")

    def read(message):
        return [facts(one) for one in caplog.records if one.getMessage() == message]

    return read


@pytest.fixture
async def poller(rig):
    await rig.serve()
    rig.ids = rig.populate(3)
    return await rig.add()


async def test_every_event_is_logged_with_what_it_counts(rig, poller, lines):
    assert await poller.poll()
    assert lines(COUNTED) == [], "jobs that were there before are a baseline"
    before = rig.samples()
    new = rig.fleet.create()
    rig.fleet.finish(rig.ids[0], "Failed")
    rig.fleet.start(rig.ids[1])
    rig.fleet.recover(rig.ids[1], "proc_restart", gap=30.0)
    rig.fleet.delete(rig.ids[2])
    assert await poller.poll()
    await rig.settle(poller)
    assert await poller.sweep()

    logged = lines(COUNTED)
    assert {"created", "finished", "restarted", "deleted"} <= {line["kind"] for line in logged}
    counted = Counter(name for line in logged for name in line["counters"].split(","))
    (finished,) = [line for line in logged if line["kind"] == "finished"]
    assert FINISHED in finished.pop("counters").split(",")
    base = {name: finished.pop(name) for name in ("workspace", "pool", "flavor_type")}
    assert finished == {
        "target": f"{REGION}/project",
        "job_id": rig.ids[0],
        "kind": "finished",
        "phase": "Failed",
    }
    assert rig.value(FINISHED, phase="Failed", **base) == 1
    (created,) = [line for line in logged if line["kind"] == "created"]
    assert (created["job_id"], created["counters"]) == (new.id, CREATED)
    for name in (FINISHED, CREATED, "modelarts_training_restarts_total"):
        grown = sum(v - before.get(key, 0) for key, v in rig.samples().items() if key[0] == name)
        assert counted[name] == grown


async def test_nothing_is_logged_of_events_that_were_not_committed(rig, lines):
    await rig.serve()
    (job,) = rig.populate(1)
    store = await Flaky.temporary(problem=lambda: None)
    poller = await rig.add(store=store)
    assert await poller.poll()
    rig.fleet.finish(job, "Failed")
    store.fails = True
    assert not await poller.poll()
    assert lines(COUNTED) == []
    assert lines(POLL)[-1]["result"] == "internal"
    store.fails = False
    assert await poller.poll()
    assert [line["kind"] for line in lines(COUNTED) if line["kind"] == "finished"] == ["finished"]
    await store.close()


async def test_a_series_is_logged_when_it_is_held_at_zero_and_when_it_is_released(
    rig, poller, lines
):
    assert await poller.poll()
    held = lines(HELD)
    assert {(line["series"], line.get("phase")) for line in held} >= {
        (CREATED, None),
        (FINISHED, "Failed"),
    }
    assert lines(RELEASED) == []
    assert len(held) == len({tuple(line.items()) for line in held})
    rig.fleet.start(rig.ids[0])
    rig.fleet.recover(rig.ids[0], "proc_restart", gap=30.0)
    await rig.settle(poller)
    assert len(lines(RELEASED)) == len(held)
    assert {line["value"] for line in lines(RELEASED) if line["series"] == CREATED} == {0.0}
    of_job = "modelarts_training_job_restarts_total"
    (line,) = [line for line in lines(HELD) if line["series"] == of_job]
    assert line["job_id"] == rig.ids[0]
    await rig.settle(poller)
    assert line in lines(RELEASED)
    shown = {line["series"] for line in lines(RELEASED)}
    names = {name for name, _ in events(rig.samples()) if name.endswith("_total")}
    assert names <= shown, "every counter that is there was released"


async def test_every_poll_is_logged(rig, poller, lines):
    assert await poller.poll()
    rig.fleet.finish(rig.ids[0], "Failed")
    assert await poller.poll()
    rig.service.faults.add(Fault("status", status=403, code="ModelArts.0010"))
    assert not await poller.poll()

    first, second, failed = lines(POLL)
    target = f"{REGION}/project"
    for line in (first, second, failed):
        assert line.pop("seconds") >= 0
    assert first == {
        "target": target,
        "kind": "sweep",
        "result": "success",
        "requests": 2,
        "jobs": 3,
        "events": 0,
    }
    assert second["kind"] == "incremental"
    assert second["events"] == len(lines(COUNTED)) > 0
    assert failed == {"target": target, "kind": "incremental", "result": "auth"}


@pytest.mark.parametrize("forbidden", [False, True])
async def test_a_new_target_is_introduced_once(rig, clock, poller, lines, forbidden):
    clock.patience = 1.0
    rig.service.faults.add(Fault("status", "search", status=403, code="ModelArts.0010"))
    async with rig.running(poller):
        await rig.polled(poller, 1)
        assert lines(FIRST) == []
        rig.service.faults.clear()
        if forbidden:
            rig.service.faults.add(Fault("status", "pools", status=403, code="ModelArts.0112"))
        for number in (1, 2, 3):
            clock.passes_until(60 * number)
            await rig.polled(poller, number + 1)

    (line,) = lines(FIRST)
    assert line.pop("seconds") >= 0
    assert line == {
        "target": f"{REGION}/project",
        "jobs": 3,
        "requests": 2,
        "identity": poller.target.credentials.identity,
        "pagination": "auto",
        "missing_permissions": "modelarts:pool:list" if forbidden else "none",
    }


async def test_a_job_that_was_hidden_is_logged_as_not_counted(rig, poller, lines):
    assert await poller.poll()
    hidden = rig.fleet.create(rig.fleet[rig.ids[0]].created - 7200.0)
    assert await poller.sweep()
    logged = lines("job not counted as new: created over an hour before the newest job known")
    assert [line["job_id"] for line in logged] == [hidden.id]
    assert rig.value(CREATED) == 0


async def test_names_users_and_reasons_of_jobs_are_not_logged(rig, poller, lines, caplog):
    await rig.settle(poller)
    job = rig.fleet.create(name="a secret name")
    rig.fleet.start(job)
    rig.fleet.recover(job, "proc_restart", gap=30.0)
    rig.fleet.finish(job, "Failed")
    await rig.settle(poller)
    await rig.settle(poller)
    assert len(lines(COUNTED)) > 3
    logged = "\n".join(f"{one.getMessage()} {facts(one)}" for one in caplog.records)
    assert job.id in logged
    for text in ("a secret name", job.user.name):
        assert text not in logged


async def test_nothing_is_traced_unless_it_is_wanted(rig, poller, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "exporter")
    for name in ("log_events", "log_held", "log_released"):
        monkeypatch.delattr(trace, name)
    rig.fleet.create()
    assert await poller.poll()
    rig.fleet.finish(rig.ids[0], "Failed")
    await rig.settle(poller)
    assert rig.value(FINISHED, phase="Failed") == 1
    assert PROJECT_ID not in caplog.text
