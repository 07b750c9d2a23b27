"""Days of a living region: queues rise in busy hours and empty at night, and nothing grows."""

from collections import Counter, defaultdict

import pytest

from exporter.simulator.catalog import REGION
from exporter.simulator.job import SETTLED
from exporter.simulator.living import LivingFleet
from exporter.simulator.wire import document

pytestmark = pytest.mark.slow

MONDAY = 1_750_000_000.0 - 1_750_000_000 % 86_400 + 86_400 - 8 * 3600
"""Midnight in China."""
DAYS = 5
HISTORY = 3000


def sampled(world, hours):
    """The state of the world at every hour."""
    for hour in range(hours):
        world.advance(MONDAY + hour * 3600)
        phases = Counter(job.phase for job in world)
        phases["waiting"] = phases["Pending"] + phases["Creating"]
        for pool in world.pools.values():
            nodes = world.nodes(pool)
            held = sum(job.units for job in world if job.pool is pool and job.holds_cards)
            assert held == nodes.used <= pool.capacity
            assert all(node.free >= 0 for node in nodes), pool.name
            assert sum(nodes.count().values()) == pool.nodes
        yield hour % 24, phases, len(world), len(world.events) - world.events.first


@pytest.fixture(scope="module")
def world():
    return LivingFleet.populated(0, MONDAY, jobs=2000, pools=REGION, history=HISTORY)


@pytest.fixture(scope="module")
def days(world):
    samples = [*sampled(world, DAYS * 24)]
    return [samples[24 * day : 24 * (day + 1)] for day in range(DAYS)]


def test_every_day_the_queue_fills_and_empties(days):
    for day in days:
        waiting = [phases["waiting"] for _, phases, *_ in day]
        night, busy = waiting[1:9], waiting[10:20]
        assert min(night) <= 10
        assert max(busy) >= 10
        assert max(waiting) <= 150
        assert max(busy) > 2 * min(night)


def test_every_day_more_runs_in_busy_hours(days):
    for day in days:
        running = [phases["Running"] for _, phases, *_ in day]
        assert 5 <= min(running) <= max(running) <= 150
        assert sum(running[10:18]) / 8 > 1.3 * sum(running[1:9]) / 8


def test_nothing_grows_from_day_to_day(world, days):
    for day in days[1:]:
        for _, phases, jobs, events in day:
            active = phases["waiting"] + phases["Running"] + phases["Terminating"]
            # In an hour, until the oldest are deleted, there are some more.
            assert jobs - active <= HISTORY + 2500
            assert events <= 10 * HISTORY + 15_000
    assert len(world._plans) <= sum(job.active for job in world)
    assert len(world._heap) < 5000


def test_everything_that_newer_documents_tell_happens():
    world = LivingFleet.populated(3, MONDAY, jobs=5000, pools=REGION)
    seen = defaultdict(set)
    for job in world:
        shown = document(job, world.now, all_statuses=False)
        seen["kind"].add(shown["kind"])
        seen["fine_tuning"].add(job.fine_tuning)
        seen["runtime_type"].add(shown["spec"]["runtime_type"])
        seen["policy"].add(shown["spec"]["resource"]["policy"])
        seen["priority"].add(shown["spec"].get("schedule_policy", {}).get("priority"))
        for status in shown["status"].get("task_statuses", []):
            seen["coded"].add("exit_code" in status)
    assert seen["kind"] == {"job", "hetero_job", "federated_pool_job"}
    assert seen["fine_tuning"] == seen["coded"] == {True, False}
    assert seen["runtime_type"] == {"debug", "production"}
    assert seen["policy"] == {"regular", "economic"}
    assert seen["priority"] == {None, 1, 2, 3}


def test_every_fault_and_result_happens(world, days):
    assert len(days) == DAYS
    summary = world.summary()
    assert {row["result"] for row in summary["faults"]} == set(SETTLED)
    assert {row["fault_scenario"] for row in summary["faults"]} == {
        *("chip_fault", "node_fault", "job_failed"),
        *("job_hanged", "job_subhealth", "error_in_log"),
    }
    assert sum(row["value"] for row in summary["startups"]) > 10_000
    kinds = Counter(event.kind for event in world.events)
    assert min(kinds[kind] for kind in ("fault", "computing", "restarted", "downgraded")) > 20


@pytest.mark.parametrize("hour", [2, 11, 20])
@pytest.mark.parametrize("day", [1, 6])
def test_a_region_is_alive_from_its_first_minute(day, hour):
    now = MONDAY + day * 86_400 + hour * 3600
    world = LivingFleet.populated(hour, now, jobs=500, pools=REGION)
    phases = Counter(job.phase for job in world)
    assert phases["Running"] >= 10
    assert phases["Pending"] + phases["Creating"] >= 1
    assert phases["Failed"] >= 10
    before = len(world.events)
    world.advance(now + 300)
    kinds = Counter(event.kind for event in world.events[before:])
    assert min(kinds[kind] for kind in ("created", "started", "finished", "restarted")) >= 1


def test_a_queue_is_bounded_whatever_arrives():
    now = MONDAY + 10 * 3600
    world = LivingFleet.populated(1, now, jobs=300, rate=20, pools=REGION)
    for minute in (10, 20, 30):
        world.advance(now + minute * 60)
        waiting = Counter(job.pool.name for job in world if job.phase == "Pending")
        assert max(waiting.values(), default=0) < 80
