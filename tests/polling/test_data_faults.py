"""The service's data are odd: rows 16-18 and 28 of the fault matrix, as far as polls go.

What becomes of odd fields is in tests/model.
"""

import pytest
from polling.rig import POLLS, both_ways

from exporter.simulator.edits import ABSENT
from exporter.simulator.faults import Fault

INVALID = "modelarts_exporter_invalid_jobs_total"
UNKNOWN = "modelarts_exporter_unknown_values_total"
WITHOUT_SERIES = "modelarts_exporter_jobs_without_series"
DELETED = "modelarts_training_jobs_deleted_total"
TRACKED = "modelarts_exporter_tracked_jobs"
JOBS = "modelarts_training_jobs"
PHASE = "modelarts_training_job_phase"


@pytest.fixture
async def poller(rig):
    await rig.serve()
    return await rig.add()


def of_job(samples, job_id):
    return {key: value for key, value in samples.items() if ("job_id", job_id) in key[1]}


@both_ways
@pytest.mark.parametrize(
    ("edits", "position"),
    [
        ({(): None}, 0),
        ({(): "garbage"}, 59),
        ({(): []}, 9),
        ({"metadata": []}, 10),
        ({"metadata.id": {"a": 1}}, 55),
    ],
    ids=str,
)
async def test_row_16_one_undecodable_item(rig, poller, edits, position):
    ids = rig.populate(60)
    assert (await rig.step(poller)).ok
    broken, other = ids[position], ids[30]
    rig.fleet.override(broken, edits)
    rig.fleet.finish(broken, "Failed")
    rig.fleet.finish(other, "Failed")

    for growth in ({"project": 1}, {}):
        step = await rig.step(poller)
        assert step.ok
        assert step.grew(INVALID, "project") == growth
        assert rig.shown() == set(ids)
        assert of_job(step.after, broken) == of_job(step.before, broken)
        assert rig.value(PHASE, job_id=broken, phase="Running") == 1
        assert rig.value(PHASE, job_id=other, phase="Failed") == 1
        assert rig.value(JOBS) == rig.value(TRACKED) == 60

    rig.fleet.override(broken, {})
    assert (await rig.step(poller)).ok
    assert rig.value(PHASE, job_id=broken, phase="Failed") == 1
    assert rig.value(JOBS) == 60


WITHOUT_ID = {"metadata.id": ABSENT}


@both_ways
@pytest.mark.parametrize(
    "edits",
    [
        {"metadata": ABSENT},
        {"metadata": {}},
        {"metadata": {"name": {"not": "a name"}}},
        WITHOUT_ID,
        {"metadata.id": "no id / at all"},
        {"metadata.id": 17.5},
    ],
    ids=str,
)
async def test_an_undecodable_item_whose_text_changes_counts_once(rig, poller, edits):
    """It runs, so its duration differs from poll to poll, and between two searches of a poll."""
    rig.populate(60)
    job = rig.fleet.create()
    rig.fleet.start(job)
    rig.fleet.override(job, edits)
    for poll in range(8):
        rig.clock.passes(60)
        rig.fleet.override(job, edits | {"metadata.description": f"step {poll}"})
        if edits == {"metadata": ABSENT}:
            rig.fleet.override(job, edits)
        assert (await rig.step(poller)).ok, poller.error

    assert rig.value(INVALID) == 1


async def test_two_undecodable_items_count_twice(rig, poller):
    rig.populate(3)
    assert await poller.poll()
    for edits in ({"metadata": ABSENT}, {"metadata": ABSENT}, WITHOUT_ID, WITHOUT_ID):
        job = rig.fleet.create()
        rig.fleet.start(job)
        rig.fleet.override(job, edits)
    for _ in range(3):
        rig.clock.passes(60)
        assert await poller.poll(), poller.error

    assert rig.value(INVALID) == 4


# --- Jobs that name another workspace -------------------------------------------------------------

OTHER = "0123456789abcdef0123456789abcdef"


def ignore_workspaces(index):
    """Every search lists the jobs of both workspaces."""
    one = index.sorted
    index.sorted = lambda _, **options: sorted(
        entry for workspace in ("0", OTHER) for entry in one(workspace, **options)
    )


def workspace_of(rig, job):
    (labels,) = [
        dict(labels)
        for (name, labels) in rig.samples()
        if name == "modelarts_training_job_info" and ("job_id", job.id) in labels
    ]
    return labels["workspace"]


@both_ways
async def test_a_job_that_names_another_of_our_workspaces_is_kept_where_it_is_listed(rig):
    await rig.serve()
    poller = await rig.add(workspaces=("0", OTHER))
    job = rig.fleet.create()
    rig.fleet.override(job, {"metadata.workspace_id": OTHER})
    assert await poller.poll()
    assert workspace_of(rig, job) == "0"

    new = rig.fleet.create()
    rig.fleet.override(new, {"metadata.workspace_id": OTHER})
    rig.fleet.start(job)
    for _ in range(2):
        rig.clock.passes(60)
        assert (await rig.step(poller)).ok, poller.error
    assert [workspace_of(rig, each) for each in (job, new)] == ["0", "0"]
    assert rig.counted("jobs_created", "workspace") == {"0": 1}

    rig.fleet.finish(job)
    rig.fleet.delete(new)
    for _ in range(2):
        rig.clock.passes(60)
        assert (await rig.step(poller)).ok, poller.error
    assert rig.counted("jobs_finished", "workspace") == {"0": 1}
    assert rig.counted("jobs_deleted", "workspace") == {"0": 1}


@both_ways
async def test_a_job_listed_in_two_workspaces_counts_in_the_one_it_names(rig):
    """As a service would list it that ignores the workspace of a search."""
    await rig.serve()
    jobs = [rig.fleet.create(workspace=workspace) for workspace in ("0", OTHER)]
    ignore_workspaces(rig.fleet.index)
    poller = await rig.add(workspaces=("0", OTHER))
    assert await poller.poll()
    jobs += [rig.fleet.create(workspace=workspace) for workspace in ("0", OTHER)]
    for _ in range(2):
        rig.clock.passes(60)
        assert (await rig.step(poller)).ok, poller.error

    assert [workspace_of(rig, job) for job in jobs] == ["0", OTHER] * 2
    assert rig.counted("jobs_created", "workspace") == {"0": 1, OTHER: 1}


@both_ways
@pytest.mark.parametrize(
    "filters", [set(), {"id"}, {"id", "name"}, {"phase", "id", "name"}], ids=len
)
@pytest.mark.parametrize("more", [0, 1, 60])
async def test_row_16_whatever_filters_are_ignored(rig, poller, filters, more):
    """The only active job cannot be read, however it is asked for."""
    finished = rig.populate(more, "Completed")
    (job_id,) = rig.populate(1)
    assert (await rig.step(poller)).ok
    rig.service.behaviour.ignored_filters = frozenset(filters)
    rig.fleet.override(job_id, {"metadata": None})

    for _ in range(2):
        step = await rig.step(poller)
        assert step.ok, poller.error
        assert rig.shown() == {job_id}
        assert rig.value(JOBS) == len(finished) + 1
        assert step.grew(DELETED, "phase") == {}


@both_ways
async def test_row_16_the_only_job_is_undecodable(rig, poller):
    (job_id,) = rig.populate(1)
    assert (await rig.step(poller)).ok
    rig.fleet.override(job_id, {"metadata": None})

    step = await rig.step(poller)

    assert step.ok
    assert step.grew(INVALID, "project") == {"project": 1}
    assert rig.shown() == {job_id}


@both_ways
@pytest.mark.parametrize("page", [1, 2])
@pytest.mark.parametrize("item", [None, [], 7, "a job", {"a": 1}], ids=str)
async def test_row_17_a_whole_page_of_the_wrong_type(rig, poller, page, item):
    ids = rig.populate(60)
    assert (await rig.step(poller)).ok
    rig.service.faults.add(Fault("edit", nth=page, edits={"items": [item] * 30}))

    step = (await rig.step(poller)).kept("invalid")

    assert step.grew(INVALID, "project") == {}
    assert rig.shown() == set(ids)
    await rig.recovers(poller)


@both_ways
async def test_row_18_an_unknown_phase(rig, poller, caplog):
    ids = rig.populate(60)
    assert (await rig.step(poller)).ok
    for job_id in ids[:2]:
        rig.fleet.enter(job_id, "Hibernating")

    step = await rig.step(poller)
    assert step.ok
    assert step.grew(UNKNOWN, "field") == {"phase": 2}
    assert rig.label_values(PHASE, "job_id") == set(ids)
    assert rig.value(PHASE, phase="Unknown") == rig.value(JOBS, phase="Unknown") == 2
    assert rig.value(JOBS) == 60
    step = await rig.step(poller)
    assert step.grew(UNKNOWN, "field") == {}

    lines = [record for record in caplog.records if "not documented" in record.message]
    assert [record.value for record in lines] == ["Hibernating"]


@pytest.mark.slow
async def test_row_28_more_active_jobs_than_may_have_series(rig):
    await rig.serve()
    ids = rig.populate(20_000)
    poller = await rig.add(jobs={"max_series_jobs": 1000})

    assert await poller.poll()

    assert rig.shown() == set(ids[-1000:])
    assert rig.value(WITHOUT_SERIES) == 19_000
    assert rig.value(JOBS) == rig.value(TRACKED) == 20_000
    assert rig.value(POLLS, result="success") == 1

    for job_id in ids[:19_900]:
        rig.fleet.delete(job_id)
    sent = len(poller.session.sent)
    assert await poller.poll()
    assert len(poller.session.sent) - sent < 60
    assert await poller.sweep()
    assert rig.shown() == set(ids[-100:])
    assert rig.value(WITHOUT_SERIES) == 0
