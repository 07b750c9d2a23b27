from collections import Counter

import pytest

from exporter.simulator.catalog import POOLS
from exporter.simulator.job import ACTIVE, FIRST, IN_PLACE, RESCHEDULING, TERMINAL
from exporter.simulator.living import LivingFleet
from exporter.simulator.recipes import PLANTED_SECRETS
from exporter.simulator.truth import KINDS
from exporter.simulator.wire import document

pytestmark = pytest.mark.slow

T = 1_750_000_000.0
WEEK = 7 * 86_400

# The phases that can follow a phase, as documented.
NEXT = {
    None: {"Creating"},
    "Creating": {"Pending", "Abnormal"},
    "Pending": {"Running", "Terminating"},
    "Running": {"Pending", "Completed", "Failed", "Abnormal", "Terminating"},
    "Terminating": {"Terminated", "Abnormal"},
}


@pytest.fixture(scope="module")
def world():
    return LivingFleet.populated(3, T, jobs=2500)


def test_equal_seeds_give_equal_worlds_however_time_passes():
    worlds = [LivingFleet(5, T, rate=5.0) for _ in range(3)]
    worlds[0].advance(T + 7200)
    for second in range(1, 7201):
        worlds[1].advance(T + second)
    worlds[2].advance(T + 1234.5678)
    worlds[2].advance(T + 7200)
    one, two, three = ([event.as_dict() for event in world.events] for world in worlds)
    assert len(one) > 5000
    assert one == two == three


def test_other_seeds_give_other_worlds():
    one, two = LivingFleet(1, T), LivingFleet(2, T)
    one.advance(T + 600)
    two.advance(T + 600)
    assert [event.at for event in one.events] != [event.at for event in two.events]


@pytest.mark.parametrize("jobs", [0, 30, 2500])
def test_history_is_as_long_as_asked_for(jobs):
    world = LivingFleet.populated(1, T, jobs=jobs)
    assert sum(not job.active for job in world) == jobs


def test_nothing_is_from_the_future(world):
    assert max(event.at for event in world.events) <= T
    times = [event.at for event in world.events]
    assert times == sorted(times)


def test_phases_follow_each_other_as_documented(world):
    phases = {}
    seen = Counter()
    for event in world.events:
        before = phases.get(event.job.id)
        if event.kind == "deleted":
            assert before == event.phase
            continue
        assert event.phase == before or event.phase in NEXT[before], (before, event)
        assert event.kind in KINDS
        phases[event.job.id] = event.phase
        seen[before, event.phase] += 1
    for before, after in NEXT.items():
        for phase in after:
            assert seen[before, phase], f"{before} to {phase} never happens"


def test_the_summary_equals_a_recount_of_the_events(world):
    last = {}
    for event in world.events:
        last[event.job.id] = event
    there = [event.as_dict() for event in last.values() if event.kind != "deleted"]
    keys = ("workspace", "pool", "flavor_type", "phase")
    jobs = Counter(tuple(event[key] for key in keys) for event in there)
    assert {
        tuple(row[key] for key in keys): row["value"] for row in world.summary()["jobs"]
    } == jobs
    cards = Counter()
    for event in there:
        if event["phase"] in ACTIVE and event["cards"]:
            cards[*(event[key] for key in keys), event["accelerator"]] += event["cards"]
    keys += ("accelerator",)
    told = {tuple(row[key] for key in keys): row["value"] for row in world.summary()["cards"]}
    assert told == cards


def test_cards_are_never_over_capacity():
    world = LivingFleet(4, T, rate=0.05)
    waited = set()
    for step in range(200):
        world.advance(T + 1500 * step)
        running = Counter()
        for job in world:
            running[job.pool.name] += job.units * (job.phase == "Running")
            waited |= {job.pool.name} if job.phase == "Pending" and not job.runs else set()
        for pool in POOLS:
            assert running[pool.name] <= world.used(pool) <= pool.capacity
            assert world.isolated_nodes(pool) <= pool.nodes // 8
    assert "llm-pretraining" in waited


def test_records_fit_phases_and_each_other(world):
    for job in world:
        ends = [run.end for run in job.runs]
        assert None not in ends[:-1]
        if job.phase in TERMINAL:
            assert None not in ends
            assert job.ended is not None
        for before, run in zip(job.runs, job.runs[1:], strict=False):
            assert before.recovery
            assert run.start >= before.end
            assert (run.start_type == FIRST) == (before.recovery not in IN_PLACE)
        if job.runs:
            assert job.runs[0].start_type == FIRST
            assert job.runs[0].start == job.started >= job.created
        assert job.active == (job.ended is None)
        settled = [recovery.result for run in job.runs for recovery in run.recoveries]
        assert "recovering" not in settled[: None if job.ended else -1]
        if job.phase == "Failed":
            assert bool(job.exit_code) != (job.message == "image pull failed")
            assert job.failed_task in job.workers()


def test_every_kind_of_event_and_recovery_happens():
    world = LivingFleet.populated(2, T, jobs=20_000)
    assert set(KINDS) - {event.kind for event in world.events} == {
        *("entered", "reactivated", "resized"),
    }
    recoveries = {event.recovery for event in world.events if event.kind == "restarted"}
    assert recoveries == {*IN_PLACE, *RESCHEDULING}
    phases = {(job.phase, job.secondary) for job in world}
    assert phases >= {
        ("Abnormal", "CreateFailed"),
        ("Abnormal", "Lost"),
        ("Abnormal", "TerminatedFailed"),
    }
    assert {job.pool.name for job in world} == {pool.name for pool in POOLS}
    assert len({job.workspace for job in world}) == 2
    assert len({job.user.name for job in world}) > 3
    assert {job.kind for job in world} == {"job", "hetero_job"}


def test_a_watcher_sees_something_every_few_seconds():
    world = LivingFleet.populated(0, T, jobs=500)
    before = len(world.events)
    world.advance(T + 600)
    new = [event.at for event in world.events[before:]]
    assert len(new) > 200
    assert max(b - a for a, b in zip([T, *new], [*new, T + 600], strict=True)) < 30


def test_jobs_made_by_hand_live_beside_the_others():
    world = LivingFleet(6, T, rate=0.1)
    world.advance(T + 3600)
    mine = world.create(pool="lab-old", nodes=4, flavor=POOLS[5].flavors[1])
    world.start(mine)
    assert world.used(POOLS[5]) >= 32
    world.advance(T + 5 * 3600)
    assert mine.phase == "Running"
    running = next(j for j in world if j.phase == "Running" and j is not mine)
    world.finish(running, "Completed")
    world.advance(T + 48 * 3600)
    assert running.phase == "Completed"
    world.delete(mine)
    world.advance(T + 49 * 3600)
    assert world.used(POOLS[5]) <= 32


def test_a_paused_world_goes_on_where_it_stood():
    world, twin = LivingFleet(7, T), LivingFleet(7, T)
    world.advance(T + 1000)
    twin.advance(T + 1000)
    world.pause()
    events = len(world.events)
    world.advance(T + 1000 + WEEK)
    assert len(world.events) == events
    world.resume()
    world.advance(T + 1000 + WEEK)
    assert len(world.events) == events
    world.advance(T + 1500 + WEEK)
    twin.advance(T + 1500)
    late = [event.at - WEEK for event in world.events[events:]]
    assert late == pytest.approx([event.at for event in twin.events[events:]], abs=0.002)
    assert len(late) > 50


def test_documents_hold_things_that_must_not_leak(world):
    text = repr([document(job, T) for job in world])
    for secret in PLANTED_SECRETS[:3] + PLANTED_SECRETS[4:]:
        assert secret in text
    job = world.create(workspace="a" * 32)
    world.start(job)
    assert PLANTED_SECRETS[3] in repr(document(job, T))
