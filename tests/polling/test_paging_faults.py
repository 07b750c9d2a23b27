"""Jobs come and go while pages are read, and pages lie: rows 29-35 and 37 of the fault matrix."""

import pytest
from polling.rig import INCONSISTENT, PAGINATION, REQUESTS, both_ways

from exporter.simulator.behaviour import Behaviour
from exporter.simulator.faults import Fault

MODES = ("page", "row")
DUPLICATES = "modelarts_exporter_duplicate_jobs_total"
JOBS = "modelarts_training_jobs"
DELETED = "modelarts_training_jobs_deleted_total"
PHASE = "modelarts_training_job_phase"

either_mode = pytest.mark.parametrize("mode", MODES)
known_or_not = pytest.mark.parametrize("known", [True, False], ids=["known", "to be found out"])


@pytest.fixture
def start(rig):
    """Start a service that counts offsets so, and a poller that knows it or not."""

    async def start(mode, *, known=True, **options):
        await rig.serve(behaviour=Behaviour(offset=mode))
        return await rig.add(pagination=mode if known else "auto", **options)

    return start


def act(rig, action, *, nth, times=1):
    """Change the world before a request of the next search."""
    rig.service.faults.clear()
    return rig.service.faults.add(
        Fault("act", operation="search", nth=nth, times=times, action=action)
    )


@known_or_not
@either_mode
@pytest.mark.parametrize(
    ("nth", "number"),
    # a hundred, while the mode is found out: test_a_burst_while_the_mode_is_found_out
    [(nth, number) for nth in range(2, 7) for number in (1, 3, 100) if (nth, number) != (2, 100)],
)
async def test_row_29_jobs_are_created_between_two_pages(  # noqa: PLR0917 - pytest's
    rig, start, mode, known, nth, number
):
    poller = await start(mode, known=known)
    ids = set(rig.populate(250))
    created = set()
    fault = act(
        rig, lambda fleet: created.update(fleet.create().id for _ in range(number)), nth=nth
    )

    assert await poller.poll(), poller.error

    assert fault.hits == 1
    assert rig.shown() >= ids
    assert rig.shown() == ids | created
    assert rig.value(JOBS) == 250 + number


@known_or_not
@either_mode
@pytest.mark.parametrize("nth", range(2, 7))
async def test_row_30_a_job_is_deleted_between_two_pages(rig, start, mode, known, nth):
    poller = await start(mode, known=known)
    rig.populate(257)
    for position in (0, 25, 49, 50, 97, 120, -1):
        ids = {job.id for job in rig.fleet}
        fault = act(rig, {"do": "delete", "job": position}, nth=nth)
        if not known:
            poller.target.paging.mode = None

        assert await poller.poll(), poller.error

        assert fault.hits == 1
        left = {job.id for job in rig.fleet}
        assert len(left) == len(ids) - 1
        assert left <= rig.shown() <= ids
        assert await poller.poll()
        assert rig.shown() == left


@either_mode
@pytest.mark.parametrize("nth", range(2, 7))
@both_ways
async def test_row_30_many_jobs_are_deleted_between_two_pages(rig, start, mode, nth):
    poller = await start(mode)
    ids = rig.populate(230)

    def delete(fleet):
        for job_id in (*ids[-90:], *ids[60:70]):
            fleet.delete(job_id)

    act(rig, delete, nth=nth)
    assert await poller.poll(), poller.error

    read = rig.shown()
    assert {job.id for job in rig.fleet} <= read <= set(ids)
    step = await rig.step(poller)
    assert step.ok
    assert rig.shown() == {job.id for job in rig.fleet}
    assert step.grew(DELETED, "phase") == {}  # held at zero
    rig.clock.passes(60)
    step = await rig.step(poller)
    assert sum(step.grew(DELETED, "phase").values()) == len(read) - len(rig.fleet)


@either_mode
async def test_row_30_an_item_that_is_there_twice_hides_no_gap(rig, start, mode):
    poller = await start(mode)
    ids = rig.populate(230)

    def delete(fleet):
        for job_id in ids[-60:]:
            fleet.delete(job_id)

    act(rig, delete, nth=2)
    rig.service.faults.add(Fault("duplicate", item=3, nth=2, times=1))

    assert await poller.poll()

    assert rig.shown() >= {job.id for job in rig.fleet}


@either_mode
async def test_row_30_items_that_cannot_be_told_apart_hide_no_gap(rig, start, mode):
    poller = await start(mode)
    ids = rig.populate(330)
    odd = {ids[-5], *ids[-220::5]}
    for job_id in odd:
        rig.fleet.override(job_id, {(): None})

    def delete(fleet):
        for job_id in ids[-65:-5]:
            fleet.delete(job_id)

    act(rig, delete, nth=3)

    assert await poller.poll(), poller.error

    assert rig.shown() >= {job.id for job in rig.fleet} - odd


@either_mode
@pytest.mark.parametrize("size", [0, 1, 49, 50, 51, 97, 98, 99, 100])
async def test_row_31_what_offset_means_is_found_out(rig, start, mode, size):
    poller = await start(mode, known=False)
    ids = rig.populate(size)
    told = size > 50 or (size, mode) == (50, "row")

    for _ in range(2):
        assert await poller.poll()

        assert rig.shown() == set(ids)
        assert rig.label_values(PAGINATION, "mode") == {mode if told else "auto"}
        assert rig.value(JOBS) == (size or None)
        assert rig.value(INCONSISTENT) == rig.value(DUPLICATES) == 0

    rig.populate(60)
    assert await poller.poll()
    assert rig.label_values(PAGINATION, "mode") == {mode}


@known_or_not
@either_mode
@both_ways
async def test_row_32_the_same_page_for_ever(rig, start, mode, known):
    poller = await start(mode, known=known)
    rig.populate(230)
    assert await poller.poll()
    rig.service.faults.add(Fault("same_page"))

    step = (await rig.step(poller)).kept("invalid")

    assert step.grew(INCONSISTENT, "project")["project"] >= 1
    assert step.grew(REQUESTS, "operation")["search"] < 20
    assert "the same jobs again and again" in poller.error
    await rig.recovers(poller)


@either_mode
@pytest.mark.parametrize("totals", ["page", "lies"])
async def test_row_33_the_items_win_over_total_and_count(rig, start, mode, totals):
    poller = await start(mode, known=False)
    rig.service.behaviour.totals = totals
    ids = rig.populate(230)

    assert await poller.poll()

    assert rig.shown() == set(ids)
    assert rig.value(INCONSISTENT) == rig.value(DUPLICATES) == 0


@either_mode
@pytest.mark.parametrize("edits", [{"total": 0, "count": 0}, {"total": "?", "count": -1}], ids=str)
async def test_row_33_total_and_count_make_no_sense(rig, start, mode, edits):
    poller = await start(mode, known=False)
    rig.service.faults.add(Fault("edit", edits=edits))
    ids = rig.populate(230)

    assert await poller.poll()

    assert rig.shown() == set(ids)


@either_mode
@pytest.mark.parametrize("how", ["ignored_filters", "rejected_filters"])
async def test_row_34_the_phase_filter_is_ignored_or_rejected(rig, start, mode, how):
    """The first page shows it, and the filter is not used again."""
    poller = await start(mode)
    ids = rig.populate(230)
    for job_id in ids[170:]:
        rig.fleet.finish(job_id)
    assert await poller.poll()
    assert (await rig.cost(poller))["phase"] == 4
    setattr(rig.service.behaviour, how, frozenset({"phase"}))
    rig.fleet.finish(ids[0], "Failed")

    assert (await rig.cost(poller))["phase"] == 1
    assert (await rig.cost(poller))["phase"] == 0

    await rig.settle(poller)
    assert rig.counted("jobs_finished") == {"Failed": 1}


@either_mode
@both_ways
async def test_row_35_the_last_page_fails(rig, start, mode):
    poller = await start(mode)
    ids = rig.populate(230)
    assert await poller.poll()
    step = await rig.step(poller)
    assert step.ok
    pages = int(step.grew(REQUESTS, "operation")["search"])
    for job_id in ids[-10:]:
        rig.fleet.delete(job_id)
    rig.fleet.enter(ids[100], "Terminating")
    rig.populate(10)
    fault = rig.service.faults.add(Fault("status", status=500, form="html", nth=pages))

    step = (await rig.step(poller)).kept("upstream")

    assert fault.hits == 6
    assert rig.shown() == set(ids)
    await rig.recovers(poller)


@either_mode
async def test_row_37_a_job_is_seen_in_two_phases(rig, start, mode):
    poller = await start(mode)
    ids = rig.populate(120)
    last_of_first_page = ids[-50]

    def change(fleet):
        fleet.create()
        fleet.enter(last_of_first_page, "Terminating")

    act(rig, change, nth=2)
    assert await poller.poll()

    assert rig.value(PHASE, job_id=last_of_first_page, phase="Terminating") == 1
    assert rig.value(PHASE, job_id=last_of_first_page) == 1
    assert rig.value(JOBS) == 121


# --- What the mode is believed to be --------------------------------------------------------------


@either_mode
async def test_a_shrinking_fleet_does_not_show_what_offset_means(rig, start, mode):
    poller = await start(mode, known=False)
    ids = rig.populate(60)

    def delete(fleet):
        for job_id in ids[:45]:
            fleet.delete(job_id)

    act(rig, delete, nth=2)
    assert await poller.poll()
    assert rig.label_values(PAGINATION, "mode") == {"auto"}
    assert rig.shown() >= set(ids[45:])

    rig.populate(60)
    assert await poller.poll()
    assert rig.label_values(PAGINATION, "mode") == {mode}
    assert rig.shown() == {job.id for job in rig.fleet}


@pytest.mark.parametrize("real", MODES)
@pytest.mark.parametrize("size", [51, 60, 400])
@pytest.mark.parametrize(
    "meanwhile", [None, {"do": "create"}, {"do": "delete", "job": "newest"}], ids=str
)
@both_ways
async def test_a_wrong_mode_is_noticed_soon(rig, start, real, size, meanwhile):
    poller = await start(real, known=False)
    rig.populate(size)
    assert await poller.poll()
    poller.target.paging.mode = MODES[real == "page"]
    if meanwhile:
        act(rig, meanwhile, nth=2, times=20)

    step = await rig.step(poller)

    assert step.grew(REQUESTS, "operation")["search"] < 20
    if not step.ok:
        step.kept("invalid")
        assert poller.target.paging.mode is None
    assert not (step.ok and size == 400)
    rig.service.faults.clear()
    rig.populate(60)
    await poller.poll()  # where one page was enough until now, it is noticed now
    await rig.recovers(poller)
    assert rig.label_values(PAGINATION, "mode") == {real}


@pytest.mark.parametrize("real", MODES)
@both_ways
async def test_a_wrong_mode_that_was_set_is_said(rig, start, real):
    await rig.serve(behaviour=Behaviour(offset=real))
    wrong = MODES[real == "page"]
    poller = await rig.add(pagination=wrong)
    rig.populate(400)
    act(rig, {"do": "create"}, nth=2, times=None)

    for _ in range(2):
        step = await rig.step(poller)
        assert not step.ok
        assert step.grew(REQUESTS, "operation")["search"] < 20
        assert poller.error.endswith("check target.pagination")
    assert rig.label_values(PAGINATION, "mode") == {wrong}


@either_mode
@pytest.mark.parametrize("number", [24, 25, 48, 49, 60, 100])
async def test_a_burst_while_the_mode_is_found_out(rig, start, mode, number):
    """It may be mistaken; then one poll fails, and nothing wrong is ever shown."""
    poller = await start(mode, known=False)
    ids = set(rig.populate(230))
    act(rig, {"do": "create", "count": number}, nth=2)

    if await poller.poll():
        assert rig.shown() >= ids
    else:
        assert rig.shown() == set()
        assert len(poller.session.times()) < 20
    await rig.recovers(poller)
    assert rig.label_values(PAGINATION, "mode") == {mode}


@either_mode
async def test_workspaces_share_what_was_found_out(rig, start, mode):
    other = "0123456789abcdef0123456789abcdef"
    poller = await start(mode, known=False, workspaces=("0", other))
    ids = rig.populate(230)
    ids += [rig.fleet.create(workspace=other).id for _ in range(50)]

    for _ in range(2):
        assert await poller.poll()
        assert rig.shown() == set(ids)
        assert rig.label_values(PAGINATION, "mode") == {mode}
