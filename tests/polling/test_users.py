"""Jobs and cards by user: they add up to the fleet's at every scrape, also after restarts."""

import contextlib
from collections import Counter

import pytest
from jobs.examples import job

from exporter.jobs.fleet import Fleet
from exporter.jobs.job import OTHER, View
from exporter.jobs.tracker import observe
from exporter.metrics.counters import USER_FINISHED
from exporter.polling.user_limit import UserLimiter
from exporter.simulator.catalog import LLM_POOL
from exporter.storage.store import Store

PREFIX = "modelarts_training_"
JOBS = f"{PREFIX}user_jobs"
CARDS = f"{PREFIX}user_accelerators"
FINISHED = f"{PREFIX}user_jobs_finished_total"
CARD_SECONDS = f"{PREFIX}user_accelerator_seconds_total"
WITHOUT = "modelarts_exporter_users_without_series"
ACTIVE = ("Creating", "Pending", "Running", "Terminating")
TOTALS = {
    f"{PREFIX}jobs": JOBS,
    f"{PREFIX}accelerators": CARDS,
    f"{PREFIX}jobs_finished_total": FINISHED,
    f"{PREFIX}accelerator_seconds_total": CARD_SECONDS,
}


def sums(samples, name):
    """By pool, phase and accelerator; the gauges of unfinished jobs only."""
    found = Counter()
    for (sample, given), value in samples.items():
        labels = dict(given)
        if sample == name and (name.endswith("_total") or labels["phase"] in ACTIVE):
            found[labels["pool"], labels.get("phase"), labels.get("accelerator")] += value
    return {key: round(value, 3) for key, value in found.items() if value}


def assert_equal_sums(rig):
    samples = rig.samples()
    for total, by_user in TOTALS.items():
        assert sums(samples, by_user) == sums(samples, total)


def by_user(rig, name):
    """The values that are not zero, by user."""
    found = Counter()
    for (sample, labels), value in rig.samples().items():
        if sample == name:
            found[dict(labels)["user"]] += value
    return {user: value for user, value in found.items() if value}


async def polled(rig, poller, times=1):
    for _ in range(times):
        await rig.settle(poller)
        assert_equal_sums(rig)


@pytest.fixture
def life(rig, tmp_path):
    """The exporter from its start until it is stopped, with a state file."""

    @contextlib.asynccontextmanager
    async def life(**options):
        store = await Store.open(tmp_path / "state.db", problem=pytest.fail)
        poller = await rig.add(store=store, **options)
        try:
            yield poller
        finally:
            rig.publisher.pollers.remove(poller)
            await store.close()

    return life


def start(rig, user, **details):
    created = rig.fleet.create(user=user, **details)
    rig.fleet.start(created)
    return created


async def test_users_add_up_to_the_fleet_while_series_are_born(rig):
    await rig.serve()
    first = start(rig, "li")
    poller = await rig.add()
    await polled(rig, poller, 2)
    assert by_user(rig, JOBS) == {"li": 1}

    for user in ("wang", "zhao", "li"):  # created and ended between two polls
        ended = start(rig, user, pool=first.pool)
        rig.clock.passes(30)
        rig.fleet.finish(ended, "Failed")
    assert await poller.poll()

    assert_equal_sums(rig)
    assert by_user(rig, FINISHED) == {"li": 1}
    assert rig.counted("jobs_finished") == {"Failed": 1}  # as many as all users show
    await polled(rig, poller, 2)
    assert by_user(rig, FINISHED) == {"li": 1, "wang": 1, "zhao": 1}
    assert rig.counted("jobs_finished") == {"Failed": 3}

    rig.fleet.finish(first, "Completed")
    await polled(rig, poller)
    assert by_user(rig, JOBS) == {}
    assert by_user(rig, FINISHED) == {"li": 2, "wang": 1, "zhao": 1}


async def test_a_baseline_is_no_event_and_has_users_at_zero(rig):
    await rig.serve()
    rig.populate(3, "Completed")
    start(rig, "li")
    poller = await rig.add()
    assert await poller.poll()

    assert_equal_sums(rig)
    assert by_user(rig, FINISHED) == {}
    assert rig.label_values(FINISHED, "user") == {"li"}  # others have nothing to show
    assert rig.label_values(FINISHED, "phase") == {"Completed", "Failed", "Terminated", "Abnormal"}


async def test_users_beyond_the_limit_are_other_for_good(rig, life):
    await rig.serve()
    limit = {"jobs": {"max_users": 2}}
    async with life(**limit) as poller:
        assert await poller.poll()
        jobs = [start(rig, f"user-{number}") for number in range(4)]
        await polled(rig, poller, 2)
        assert by_user(rig, JOBS).keys() == {*rig.label_values(FINISHED, "user")}
        named = by_user(rig, JOBS).keys() - {OTHER}
        assert len(named) == 2
        assert by_user(rig, JOBS)[OTHER] == rig.value(WITHOUT) == 2

    jobs += [start(rig, f"user-{number}") for number in (4, 0, 1, 2, 3)]
    rig.clock.passes(600)
    for each in jobs:
        rig.fleet.finish(each, "Completed")
    async with life(**limit) as poller:
        assert await poller.poll()
        assert_equal_sums(rig)
        await polled(rig, poller, 2)
        assert by_user(rig, FINISHED) == {**dict.fromkeys(named, 2), OTHER: 5}

    started = {user: start(rig, user) for user in ("user-4", "new")}
    async with life(jobs={"max_users": 3}) as poller:
        assert await poller.poll()
        await polled(rig, poller, 2)
        assert len(by_user(rig, JOBS)) == len(started)
        assert by_user(rig, JOBS).keys() & started.keys()
        assert OTHER in by_user(rig, JOBS)
        assert by_user(rig, FINISHED) == {**dict.fromkeys(named, 2), OTHER: 5}


async def test_a_restart_while_series_are_held_changes_no_sum(rig, life):
    await rig.serve()
    async with life() as poller:
        assert await poller.poll()
        first = start(rig, "li")
        await polled(rig, poller, 2)
        for user in ("wang", "zhao"):
            rig.fleet.finish(start(rig, user, pool=first.pool), "Failed")
        assert await poller.poll()
        assert_equal_sums(rig)
        shown = rig.counted("jobs_finished")
        assert shown == {}

    async with life() as poller:
        assert await poller.poll()
        assert_equal_sums(rig)
        assert rig.counted("jobs_finished") == shown
        await polled(rig, poller, 2)
        assert by_user(rig, FINISHED) == {"wang": 1, "zhao": 1}


async def test_without_by_user_nothing_is_stored_or_shown(rig, life):
    """A state without users, as older versions leave it: they start at zero with the first poll."""
    await rig.serve()
    async with life(jobs={"by_user": False}) as poller:
        assert await poller.poll()
        first = start(rig, "li")
        rig.fleet.finish(start(rig, "li", pool=first.pool), "Failed")
        for _ in range(3):
            await rig.settle(poller)
        assert rig.counted("jobs_finished") == {"Failed": 1}
        assert not [name for name, _ in rig.samples() if "_user" in name]
        assert not [name for name, _ in poller.state._ledger if "_user" in name]
        assert all(known.user is None for known in poller.state.fleet.whole_jobs())

    async with life() as poller:
        assert await poller.poll()
        assert by_user(rig, JOBS) == {"li": 1}
        assert by_user(rig, FINISHED) == {}
        rig.fleet.finish(first, "Completed")
        for _ in range(2):
            await rig.settle(poller)
        assert by_user(rig, FINISHED) == {"li": 1}
        assert rig.counted("jobs_finished") == {"Failed": 1, "Completed": 1}

    async with life(jobs={"by_user": False}) as poller:
        assert await poller.poll()
        assert not [name for name, _ in rig.samples() if "_user" in name]


async def test_a_reload_switches_it(rig):
    await rig.serve()
    first = start(rig, "li")
    poller = await rig.add()
    await polled(rig, poller, 2)

    for options in ({"by_user": False}, {}, {"max_users": 1}):
        successor = await rig.add(jobs=options, store=poller.state._store)
        await successor.take_over(poller)
        rig.publisher.pollers.remove(poller)
        poller = successor
        await rig.settle(poller)
        if options.get("by_user", True):
            assert by_user(rig, JOBS) == {"li": 1}
            assert rig.value(FINISHED) == rig.value(WITHOUT) == 0
        else:
            assert rig.value(JOBS) is rig.value(FINISHED) is rig.value(WITHOUT) is None
    start(rig, "wang", pool=first.pool)
    rig.fleet.finish(first, "Failed")
    for _ in range(3):
        await rig.settle(poller)
    assert by_user(rig, JOBS) == {OTHER: 1}
    assert by_user(rig, FINISHED) == {"li": 1}


async def test_users_do_not_fall_when_a_workspace_leaves(rig, life):
    await rig.serve()
    away = "0123456789abcdef0123456789abcdef"
    async with life(workspaces=["0", away]) as poller:
        assert await poller.poll()
        jobs = [start(rig, "li", workspace=each, pool=LLM_POOL) for each in ("0", away, "0", away)]
        await polled(rig, poller, 2)
        rig.fleet.finish(jobs[0], "Failed")
        rig.fleet.finish(jobs[1], "Failed")
        await polled(rig, poller, 2)
        assert by_user(rig, FINISHED) == {"li": 2}

        successor = await rig.add(store=poller.state._store)
        await successor.take_over(poller)
        rig.publisher.pollers.remove(poller)
        await rig.settle(successor)
        assert rig.counted("jobs_finished") == {"Failed": 1}
        assert by_user(rig, FINISHED) == {"li": 2}
        rig.publisher.pollers[:] = [poller]

    async with life() as poller:
        rig.fleet.finish(jobs[2], "Failed")
        await rig.settle(poller)
        assert rig.counted("jobs_finished") == {"Failed": 2}
        assert by_user(rig, FINISHED) == {"li": 3}
        assert by_user(rig, JOBS) == {}

    async with life(workspaces=["0", away]) as poller:
        rig.fleet.finish(jobs[3], "Failed")
        await polled(rig, poller, 2)
        assert by_user(rig, FINISHED) == {"li": 4}


def test_all_events_of_a_job_have_one_user():
    """Whatever its name becomes, and whatever the limit is meanwhile."""
    looks = ("Pending", "Running", "Failed", "Running", "Completed")
    fleet, users = Fleet(newest_created={"0": 0.0}), []
    for number, phase in enumerate(looks):
        limiter = UserLimiter(number, "r/p")
        limiter.learn([], fleet.open.values())
        one = job(phase=phase, user=f"user-{number}", duration=500.0 + number)
        view = View({"a": one}, newest_created={"0": 1.0})
        fleet, events, _ = observe(fleet, view, float(number), name_user=limiter.name)
        users += [event.user for event in events]

    assert len(users) > len(looks)
    assert set(users) == {OTHER}  # the limit was 0 at its first event


def test_names_are_learned_from_counters_even_beyond_the_limit():
    keys = [(USER_FINISHED.metric.name, ("0", "p", "GPU", name, "Failed")) for name in "abc"]
    limiter = UserLimiter(1, "r/p")
    limiter.learn([*keys, (PREFIX + "jobs_created_total", ("0", "p", "GPU"))], [])

    assert [limiter.name(name) for name in ("a", "c", "d", "", OTHER)] == [
        "a",
        "c",
        OTHER,
        "",
        OTHER,
    ]
    assert limiter.without_series == 1


def test_others_stay_others_when_the_limit_is_raised():
    limiter = UserLimiter(1, "r/p")
    assert [limiter.name(name) for name in "ab"] == ["a", OTHER]
    limiter.resume(3, "r/p")

    assert [limiter.name(name) for name in "abc"] == ["a", OTHER, "c"]
