"""The backfilled past, compared with the world's own record."""

import json
from collections import Counter, defaultdict
from itertools import pairwise

import msgspec
import pytest
from jobs.examples import later
from jobs.test_tracker import NOW, job, run, waiting

from exporter.commands.backfill.grid import Grid
from exporter.commands.backfill.series import SeriesBuilder
from exporter.jobs.fleet import Fleet
from exporter.jobs.job import ACTIVE, View
from exporter.jobs.pool import PoolInfo
from exporter.jobs.tracker import observe
from exporter.metrics.counters import add
from exporter.metrics.fleet import fleet_blocks
from exporter.modelarts.decode.jobs import decode_page
from exporter.polling.user_limit import UserLimiter
from exporter.simulator.catalog import DEFAULT_WORKSPACE
from exporter.simulator.living import LivingFleet
from exporter.simulator.wire import document

START = 1_750_000_000.0
DAY = 86_400.0
PREFIX = "modelarts_training_"
# Phases that backfill cannot distinguish, see `exporter.commands.backfill.reconstruct`.
ALIKE = {"Creating": "waiting", "Pending": "waiting", "Terminating": "Running"}


def read(world, now):
    """The jobs that the service lists, as the exporter reads them."""
    items = [document(one, now) for one in world]
    body = json.dumps({"total": len(items), "count": len(items), "items": items}).encode()
    page = decode_page(body, workspace=DEFAULT_WORKSPACE, now=now, limit=len(items))
    return page.jobs


def history(jobs, grid, read_at, **options):
    told = SeriesBuilder(grid, **options)
    for one in jobs:
        told.add(one, read_at)
    return {family.metric.name.removeprefix(PREFIX): family for family in told.families()}


def at(family, position):
    """Values that are not zero, by label values."""
    found = {}
    for labels, curve in family.series.items():
        for _, _, value in curve.stretches(position, position + 1):
            found[labels] = value
    return {labels: value for labels, value in found.items() if value}


def test_idle_bases_leave_the_gauges_and_return():
    """As live with ``jobs.idle_retention``, and their counters stay."""
    grid = Grid(START, START + 20 * DAY, DAY / 2)
    old = [
        job(
            id=str(number),
            phase="Completed",
            created=START + DAY * begin,
            started=START + DAY * begin,
            ended=START + DAY * (begin + 1),
            duration=DAY,
            runs=None,
        )
        for number, begin in enumerate((2, 9, 10.5))
    ]
    families = history(old, grid, START + 20 * DAY, kept=DAY, idle=3 * DAY)

    def times(name):
        found = set()
        for curve in families[name].series.values():
            for first, last, _ in curve.stretches(0, len(grid)):
                found |= {position / 2 for position in range(first, last)}
        return sorted(found)

    # Shown until 3 days after a job has ended and was counted for a day.
    shown = [each / 2 for each in [*range(15), *range(18, 32)]]
    assert times("jobs") == times("nodes") == shown
    assert times("jobs_created_total") == [each / 2 for each in range(len(grid))]
    everything = history(old, grid, START + 20 * DAY, kept=DAY)
    assert at(families["jobs"], 19) == at(everything["jobs"], 19) != {}


# --- A living world -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world():
    return LivingFleet.populated(3, START, jobs=3000, rate=0)


@pytest.fixture(scope="module")
def jobs(world):
    return read(world, START)


@pytest.fixture(scope="module")
def placed(world):
    """Jobs whose whole past the service reports: all but those that ended without starting."""
    return {one.id for one in world if one.active or one.started is not None}


@pytest.fixture(scope="module")
def known(jobs, placed):
    return [one for one in jobs if one.id in placed]


def lives(world, placed):
    """The world's record of each job that is still listed."""
    record = defaultdict(list)
    for event in world.events:
        if event.job.id in placed:
            record[event.job.id].append(event)
    return record


@pytest.mark.slow
def test_gauges_are_what_the_world_was(world, known, placed):
    grid = Grid(START - 13 * DAY, START, 3600.0)
    families = history(known, grid, START)
    record = lives(world, placed)
    # Running records are in whole seconds: a time that close to an event may fall on either side.
    close = {round(event.at) + more for event in world.events for more in (-1, 0, 1)}
    moments = [
        (position, moment) for position, moment in enumerate(grid.times) if moment not in close
    ]
    assert len(moments) > 200
    for position, moment in moments:
        expected, cards, nodes = Counter(), Counter(), Counter()
        oldest = {}
        for events in record.values():
            so_far = [event for event in events if event.at <= moment]
            if not so_far:
                continue
            one, phase = so_far[-1].job, ALIKE.get(so_far[-1].phase, so_far[-1].phase)
            if so_far[-1].phase == "Terminating" and not any(e.kind == "started" for e in so_far):
                phase = "waiting"
            expected[*one.base, phase] += 1
            if phase in ("waiting", "Running"):
                nodes[*one.base, phase] += one.nodes
                if one.cards:
                    cards[*one.base, phase, one.accelerator] += one.cards
            if phase == "waiting":
                oldest[one.base] = min(one.created, oldest.get(one.base, one.created))
        assert merged(at(families["jobs"], position), 3) == expected
        assert merged(at(families["nodes"], position), 3) == nodes
        assert merged(at(families["accelerators"], position), 3) == cards
        assert at(families["oldest_pending_timestamp_seconds"], position) == oldest


def merged(found, place):
    """Sums over phases that cannot be distinguished."""
    sums = Counter()
    for labels, value in found.items():
        phase = ALIKE.get(labels[place], labels[place])
        sums[*labels[:place], phase, *labels[place + 1 :]] += value
    return sums


def test_counters_are_what_happened_after_the_start(world, known, placed):
    grid = Grid(START - 10 * DAY, START, 300.0)
    families = history(known, grid, START)
    happened = [
        event
        for events in lives(world, placed).values()
        for event in events
        if event.at > grid.times[0] + 1
    ]
    early = [  # within a second of the start: counted or not
        event for events in lives(world, placed).values() for event in events
        if abs(event.at - grid.times[0]) <= 1
    ]  # fmt: skip
    assert not early
    last = len(grid) - 1

    def events(kind, *names):
        return Counter(
            (*event.job.base, *(getattr(event, name) for name in names))
            for event in happened
            if event.kind == kind
        )

    assert at(families["jobs_created_total"], last) == events("created")
    assert at(families["jobs_finished_total"], last) == events("finished", "phase")
    assert at(families["restarts_total"], last) == events("restarted", "start_type", "recovery")
    assert at(families["recovery_downgrades_total"], last) == events(
        "downgraded", "from_recovery", "to_recovery"
    )
    assert all(not at(family, 0) for name, family in families.items() if name.endswith("_total"))


def test_card_seconds_are_those_of_the_world(world, known):
    """Over the whole range: run time times cards of every job, growing while it runs."""
    grid = Grid(START - 20 * DAY, START, 600.0)
    family = history(known, grid, START)["accelerator_seconds_total"]
    seconds = Counter()
    for one in world:
        if one.cards:
            seconds[*one.base, one.accelerator] += one.running_seconds(START) * one.cards
    found = at(family, len(grid) - 1)
    assert found == pytest.approx({labels: value for labels, value in seconds.items() if value})
    for curve in family.series.values():
        values = [value for _, _, value in curve.stretches(0, len(grid))]
        assert all(before <= after for before, after in pairwise(values))


def test_histograms_are_those_of_the_ledger(jobs):
    """The same observations as an exporter would have made at the time."""
    grid = Grid(START - 20 * DAY, START, 600.0)
    families = history(jobs, grid, START, histograms=True)
    fleet, ledger = Fleet(newest_created=dict.fromkeys({one.workspace for one in jobs}, 0.0)), {}
    observed = observe(fleet, View({one.id: one for one in jobs}), START)
    ledger, _ = add({}, observed.events, observed.fleet.accelerators, START)
    names = {name for name, _ in ledger if name.endswith("_duration_seconds")}
    assert len(names) == 5
    for name in names:
        family = families[name.removeprefix(PREFIX)]
        for labels, bars in family.series.items():
            ((_, _, values),) = bars.stretches(len(grid) - 1, len(grid))
            expected = ledger[name, labels]
            assert values[-2] == sum(expected.counts)
            assert values[-1] == pytest.approx(expected.value)


def test_the_last_gauges_are_the_first_live_ones(jobs):
    """A live scrape continues without a step: same series, same values."""
    jobs = [
        msgspec.structs.replace(one, cpu_cores=7.5 * (number % 4), memory=2.0**30 * number)
        for number, one in enumerate(jobs)
    ]
    grid = Grid(START - DAY, START, 300.0)
    families = history(jobs, grid, START, users=UserLimiter(3, "r/p"))
    observed = observe(Fleet(), View({one.id: one for one in jobs}), START)
    users = UserLimiter(3, "r/p")
    for one in jobs:
        users.name(one.user)
    live = fleet_blocks(observed.fleet, {}, name_user=users.name)
    assert len(live) == 9
    for block in live:
        family = families[block.metric.name.removeprefix(PREFIX)]
        found = {}
        for labels, curve in family.series.items():
            for _, _, value in curve.stretches(288, 289):
                found[labels] = value
        assert found == dict(block.samples), block.metric.name
        assert family.labels == block.labels


@pytest.mark.parametrize(
    ("total", "by_user"),
    [
        ("jobs", "user_jobs"),
        ("accelerators", "user_accelerators"),
        ("jobs_finished_total", "user_jobs_finished_total"),
        ("accelerator_seconds_total", "user_accelerator_seconds_total"),
    ],
)
def test_users_add_up_to_their_total(jobs, total, by_user):
    """At all times, whether a user has a name or is one of the others."""
    grid = Grid(START - 5 * DAY, START, 3600.0)
    families = history(jobs, grid, START, users=UserLimiter(3, "r/p"))

    def sums(name, position):
        labels = families[name].labels
        found = Counter()
        for values, value in at(families[name], position).items():
            each = dict(zip(labels, values, strict=True))
            if name in ("jobs", "user_jobs") and each["phase"] not in ACTIVE:
                continue
            found[each["pool"], each.get("phase"), each.get("accelerator")] += round(value, 3)
        return found

    users = {values[0] for values in families[by_user].series}
    assert len(users) == 4
    assert "other" in users
    for position in range(0, len(grid), 7):
        assert sums(total, position) == pytest.approx(sums(by_user, position), abs=0.1)


def test_without_users_no_series_is_by_user(jobs):
    families = history(jobs, Grid(START - DAY, START, 3600.0), START)

    assert not [name for name, family in families.items() if "user" in name and family.series]


def test_finished_jobs_count_as_long_as_live(jobs):
    """With ``jobs.history``, at the last time and at every other."""
    grid = Grid(START - 5 * DAY, START, 3600.0)
    families = history(jobs, grid, START, kept=DAY)
    observed = observe(Fleet(), View({one.id: one for one in jobs}), START)
    blocks = fleet_blocks(later(observed.fleet, history=DAY, now=START), {})
    assert at(families["jobs"], len(grid) - 1) == {
        labels: value for labels, value in blocks[0].samples if value
    }
    whole = history(jobs, grid, START)
    terminal = ("Completed", "Failed", "Terminated", "Abnormal")
    for position in range(24, len(grid)):
        now, before = at(whole["jobs"], position), at(whole["jobs"], position - 24)
        expected = {
            labels: count
            for labels, value in now.items()
            if labels[3] in terminal and (count := value - before.get(labels, 0))
        }
        found = at(families["jobs"], position)
        assert {labels: value for labels, value in found.items() if labels[3] in terminal} == (
            expected
        )


# --- Single jobs ----------------------------------------------------------------------------------

GRID = Grid(NOW - 700, NOW + 800, 100.0)
BASE = ("0", "pool-1", "Ascend")


def told(*jobs, name, **options):
    """The values of a family's series at all times."""
    family = history(jobs, GRID, NOW + 900, **options)[name]
    return {
        labels[3:]: [
            value
            for lo, hi, value in curve.stretches(0, len(GRID))
            for _ in range(hi - lo)
        ]
        for labels, curve in family.series.items()
    }  # fmt: skip


def test_a_job_is_in_one_phase_at_a_time():
    phases = told(
        job(phase="Failed", ended=NOW + 250, duration=750.0), name="jobs"
    )  # created at -600, started at -500
    assert phases["Pending",] == [0, 1] + 14 * [0]
    assert phases["Running",] == [0, 0] + 8 * [1] + 6 * [0]
    assert phases["Failed",] == 10 * [0] + 6 * [1]
    assert phases["Completed",] == 16 * [0]  # all phases, zeros too
    assert len(phases) == 8


def test_card_seconds_grow_only_in_runs():
    one = job(
        phase="Completed",
        ended=NOW + 300,
        duration=500.0,
        runs=(run(-500, -300, "job_reschedule"), run(0, 300)),
    )
    (values,) = told(one, name="accelerator_seconds_total").values()
    assert values == [0, 0, 0] + [1600, 3200, 3200, 3200, 3200, 4800, 6400] + 6 * [8000]
    assert told(one, name="restarts_total") == {
        ("init_or_rescheduled", "job_reschedule"): 7 * [0] + 9 * [1]
    }
    assert told(one, name="recovery_accelerator_seconds_total") == {
        ("job_reschedule",): 7 * [0] + 9 * [300 * 16]
    }
    assert told(one, name="finished_accelerator_seconds_total")["Completed",] == (
        10 * [0] + 6 * [500 * 16]
    )


def test_counters_are_there_at_zero_from_the_first_moment():
    """Or the first event of each would not be seen by ``increase()``."""
    one = job(phase="Failed", ended=NOW + 300, runs=(run(-500, -300, "x"), run(0, 300)))
    for name in ("jobs_created_total", "jobs_finished_total", "restarts_total"):
        for values in told(one, name=name).values():
            assert len(values) == len(GRID)
            assert values[0] == 0


def test_what_happened_before_the_start_is_no_event():
    early = job(created=NOW - 5000, started=NOW - 4000, ended=NOW - 3000, phase="Failed")
    assert set(told(early, name="jobs_finished_total")["Failed",]) == {0}
    assert set(told(early, name="jobs_created_total")[()]) == {0}
    assert set(told(early, name="jobs")["Failed",]) == {1}


def test_what_happens_after_the_end_is_left_out():
    late = waiting(created=NOW + 850)
    assert set(told(late, name="jobs")["Pending",]) == {0}
    assert set(told(late, name="jobs_created_total")[()]) == {0}


def test_jobs_without_any_time_are_counted_as_left_out():
    family = SeriesBuilder(GRID)
    family.add(waiting(created=None), NOW)
    family.add(job(), NOW)
    assert family.undated == 1


def test_the_newest_name_of_a_pool():
    jobs = [
        job("a", pool_name="old", created=NOW - 600),
        job("b", pool_name="new", created=NOW - 500),
        job("c", pool_name="", created=NOW - 400),
    ]
    unknown = ("unknown", "unknown")
    family = history(jobs, GRID, NOW + 900)["modelarts_pool_info"]
    assert at(family, 0) == at(family, 15) == {("pool-1", "new", *unknown): 1}
    listed = {"pool-1": PoolInfo("newest", "Dedicate", "0"), "pool-2": PoolInfo("other")}
    told = history(jobs, GRID, NOW + 900, pools=listed)
    assert at(told["modelarts_pool_info"], 15) == {
        ("pool-1", "newest", "Dedicate", "0"): 1,
        ("pool-2", "other", *unknown): 1,
    }
