"""Whatever happens in a world and however it is looked at, the counters show it.

A simulated world is driven by random actions. Now and then it is looked at, through the documents
of the service and their decoder: some jobs are left out if they have not changed (as polls do),
some show no running records, deletions are confirmed late, and one workspace is read later than
the other. `jobs.oracle` computes the expected counters.
"""

import json
import random
from collections import Counter, defaultdict

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobs.examples import jobs_in
from jobs.oracle import Bases, Expected, Look

from exporter.jobs.fleet import Fleet
from exporter.jobs.job import View
from exporter.jobs.tracker import observe
from exporter.metrics.counters import EVENT_FAMILIES, EVENT_FAMILY_BY_NAME, add
from exporter.modelarts.decode.jobs import decode_page
from exporter.simulator.catalog import (
    DEFAULT_WORKSPACE,
    POOLS,
    VISION_WORKSPACE,
    Pool,
    visual,
)
from exporter.simulator.fleet import Fleet as World
from exporter.simulator.job import ACTIVE, IN_PLACE, RESCHEDULING, TERMINAL
from exporter.simulator.wire import document

pytestmark = pytest.mark.slow

START_MS = 1_750_000_000_000
WORKSPACES = (DEFAULT_WORKSPACE, VISION_WORKSPACE)
LATE_POOL = Pool(
    name="late",
    id="pool-late",
    flavor_type="GPU",  # shown by jobs once they have started
    product="nvidia-Ant8",
    card_memory="",
    nodes=9,
    node_cards=8,
    tells="allocated",
    flavors=(visual(8),),
    programs="image",
)
WORLD_POOLS = (*POOLS, LATE_POOL, LATE_POOL)
POLICIES = (*IN_PLACE, *RESCHEDULING, "of_tomorrow")
EXAMPLES = settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


# --- A world and what happens to it ---------------------------------------------------------------

# Action, number of the job, variant, ms to wait before.
ACTIONS = st.tuples(
    st.sampled_from(
        (
            *("create", "create", "queue", "start", "start", "start", "interrupt", "interrupt"),
            *("stop", "finish", "finish", "delete", "reactivate", "blink", "wait"),
        )
    ),
    st.integers(0, 99),
    st.integers(0, 999),
    st.sampled_from([0, 1, 250, 999, 1000, 1001, 15_000, 60_000, 600_123, 4_000_000]),
)
# Actions, then a look, with a seed for what it leaves out.
BATCHES = st.tuples(st.lists(ACTIONS, min_size=2, max_size=12), st.integers(0, 2**16))
# The first look is the baseline; that of the second workspace comes this many looks later.
LIVES = st.tuples(st.lists(BATCHES, min_size=3, max_size=7), st.integers(0, 2))


class Hands:
    """Applies actions to a world where possible; new jobs are in one of the pools."""

    def __init__(self, pools):
        self.world = World(1, START_MS / 1000, pools=pools)
        self._pools = pools
        self.ms = START_MS
        self._blinking = {}

    def do(self, what, which, how, ms):
        self.ms += ms
        self.world.advance(self.ms / 1000)
        jobs = [job for job in self.world if self._fits(what, job)]
        if what == "create":
            self.world.create(
                pool=self._pools[how % len(self._pools)],
                workspace=WORKSPACES[how // 7 % 2],
                nodes=1 + how // 14 % 3,
            )
        elif what != "wait" and jobs:
            getattr(self, f"_{what}")(jobs[which % len(jobs)], how)

    def _fits(self, what, job):
        live = bool(job.runs) and job.runs[-1].end is None
        match what:
            case "queue":
                return job.phase == "Creating"
            case "start":
                return job.phase in ("Creating", "Pending", "Running") and not live
            case "interrupt":
                return job.phase == "Running" and live
            case "stop" | "finish":
                return job.phase in ACTIVE
            case "reactivate":
                return job.phase in TERMINAL
        return True

    def _queue(self, job, _):
        self.world.queue(job)

    def _start(self, job, how):
        self.world.start(job, restarted=how % 2 == 0)

    def _interrupt(self, job, how):
        policy = POLICIES[how % len(POLICIES)]
        tried_first = ["", policy, *POLICIES][how // 8 % (2 + len(POLICIES))]
        phase = [None, "Pending", "Creating", "Running"][how % 4]
        self.world.interrupt(job, policy, downgraded_from=tried_first, phase=phase)

    def _stop(self, job, _):
        self.world.stop(job)

    def _finish(self, job, how):
        self.world.finish(job, TERMINAL[how % 4], [None, 1, 137][how // 4 % 3])

    def _delete(self, job, _):
        self.world.delete(job)

    def _reactivate(self, job, _):
        self.world.reactivate(job)

    def _blink(self, job, _):
        """Into an undocumented phase, or back."""
        phase = self._blinking.pop(job.id, None)
        if job.phase == "Suspended":
            self.world.enter(job, phase)
        else:
            self._blinking[job.id] = job.phase
            self.world.enter(job, "Suspended")


# --- Looking at it --------------------------------------------------------------------------------


class Eyes:
    """Looks at a world now and then, as the service shows it."""

    def __init__(self, world, late):
        self.world = world
        self.looks = defaultdict(list)
        self.deleted = set()
        self.bases = Bases()
        self._late = late
        self._read = set()
        self._shown = {}

    def look(self, chance, *, whole=False):
        """A view; ``whole``: with all jobs, their records, and all deletions confirmed."""
        now = self.world.now
        workspaces = WORKSPACES if whole or self._late <= 0 else WORKSPACES[:1]
        self._late -= 1
        events = Counter(event.job.id for event in self.world.events)
        jobs, newest_created = {}, {}
        for workspace in workspaces:
            listed = [job for job in self.world if job.workspace == workspace]
            newest_created[workspace] = max((job.created for job in listed), default=float("-inf"))
            with_records = {job.id: whole or chance.random() < 0.5 for job in listed}
            items = [document(job, now, records=with_records[job.id]) for job in listed]
            body = json.dumps({"total": len(items), "count": len(items), "items": items}).encode()
            page = decode_page(body, workspace=workspace, now=now)
            assert (page.undecodable, len(page.jobs)) == ([], len(listed))
            for job, decoded in zip(listed, page.jobs, strict=True):
                shown = events[job.id], msgspec.structs.replace(decoded, runs=None, ended=None)
                if not whole and self._shown.get(job.id) == shown and chance.random() < 0.5:
                    continue
                self._shown[job.id] = shown
                jobs[job.id] = decoded
                self.looks[job.id].append(
                    Look(
                        now,
                        events[job.id],
                        job.phase,
                        round(job.running_seconds(now), 3),
                        with_records[job.id],
                        workspace not in self._read,
                    )
                )
        self._read.update(workspaces)
        deleted = {
            job_id
            for job_id in self._shown
            if job_id not in self.world and (whole or chance.random() < 0.5)
        }
        self.deleted |= deleted
        of_jobs = events_of_jobs(self.world)
        self.bases.look(
            jobs, deleted, WORKSPACES, lambda job_id: bool(expected_of([job_id], of_jobs, self))
        )
        return View(jobs, frozenset(deleted), newest_created)


# --- Comparing ------------------------------------------------------------------------------------


def events_of_jobs(world):
    events = defaultdict(list)
    for event in world.events:
        events[event.job.id].append(event)
    return events


def expected(world, eyes):
    """The expected counters, from the world's events and the looks at each job."""
    return expected_of(eyes.looks, events_of_jobs(world), eyes, eyes.bases.base)


def expected_of(job_ids, events, eyes, base=lambda _: None):
    totals = Expected()
    for job_id in job_ids:
        looks = eyes.looks[job_id]
        phase = looks[-1].phase if looks[-1].phase in (*ACTIVE, *TERMINAL) else "Unknown"
        deleted = phase if job_id in eyes.deleted else None
        totals.add(events[job_id], looks, deleted, base(job_id))
    return totals


def compare(ledger, totals):
    """The ledger has the expected values, sums, counts and buckets."""
    values = {key: series.value for key, series in ledger.items()}
    wanted = dict(totals.counters) | {key: sum(seen) for key, seen in totals.observed.items()}
    wrong = {
        key: (values.get(key, 0), wanted.get(key, 0))
        for key in values.keys() | wanted.keys()
        if values.get(key, 0) != pytest.approx(wanted.get(key, 0), rel=1e-9, abs=1e-4)
    }
    assert wrong == {}
    for key, series in ledger.items():
        bounds = EVENT_FAMILY_BY_NAME[key[0]].buckets
        cumulative = [sum(series.counts[: number + 1]) for number in range(len(series.counts))]
        if bounds:
            seen = totals.observed.get(key, [])
            assert cumulative == [sum(s <= le for s in seen) for le in (*bounds, float("inf"))]


class Counted:
    """The tracker and the ledger together."""

    def __init__(self):
        self.fleet, self.ledger = Fleet(), {}

    def take(self, view, now):
        observed = observe(self.fleet, view, now)
        self.ledger, changed = add(self.ledger, observed.events, observed.fleet.accelerators, now)
        self.fleet = observed.fleet
        return observed, changed


def views(life, pools=WORLD_POOLS):
    """Live; yield a view after every batch and a whole one at the end, with world and eyes."""
    batches, late = life
    hands = Hands(pools)
    eyes = Eyes(hands.world, late)
    for actions, seed in batches:
        for action in actions:
            hands.do(*action)
        yield eyes.look(random.Random(seed)), hands.world, eyes
    yield eyes.look(random.Random(0), whole=True), hands.world, eyes


# --- What holds -----------------------------------------------------------------------------------


@settings(EXAMPLES, max_examples=500)
@given(LIVES)
def test_counters_show_what_happened(life):
    counted = Counted()
    for view, world, eyes in views(life):
        counted.take(view, world.now)
        compare(counted.ledger, expected(world, eyes))
        shown = {key: known.job.flavor_type for key, known in jobs_in(counted.fleet).items()}
        assert shown == {job_id: eyes.bases.types[job_id] for job_id in shown}


@EXAMPLES
@given(LIVES)
def test_no_series_ever_falls_or_is_lost(life):
    counted = Counted()
    for view, world, _ in views(life):
        before = counted.ledger
        _, changed = counted.take(view, world.now)
        assert before.keys() <= counted.ledger.keys()
        for key, series in before.items():
            after = counted.ledger[key]
            assert after.value >= series.value
            assert all(a >= b for a, b in zip(after.counts, series.counts, strict=True))
            assert after == series or changed[key] == after


@EXAMPLES
@given(LIVES)
def test_the_same_view_again_changes_nothing(life):
    counted = Counted()
    for view, world, _ in views(life):
        counted.take(view, world.now)
        fleet, ledger = counted.fleet, counted.ledger
        again, changed = counted.take(view, world.now + 30)
        assert (again.events, again.jobs, again.gone, changed) == ([], {}, frozenset(), {})
        assert (again.fleet, counted.ledger) == (fleet, ledger)


@EXAMPLES
@given(LIVES, st.integers(0, 2**16))
def test_a_view_in_two_parts_has_the_same_effect(life, seed):
    """Unless it is the first of a workspace, which is always complete, or shows a pool's type."""
    chance = random.Random(seed)
    whole, parts = Counted(), Counted()
    for view, world, _ in views(life, POOLS):
        whole.take(view, world.now)
        first = {
            job_id: job
            for job_id, job in view.jobs.items()
            if job.workspace in parts.fleet.newest_created and chance.random() < 0.5
        }
        rest = {job_id: job for job_id, job in view.jobs.items() if job_id not in first}
        parts.take(View(first), world.now)
        parts.take(View(rest, view.deleted, view.newest_created), world.now)
        assert parts.fleet == whole.fleet
        assert parts.ledger.keys() == whole.ledger.keys()
        for key, series in whole.ledger.items():
            assert parts.ledger[key].value == pytest.approx(series.value)
            assert parts.ledger[key].counts == series.counts


# Fixed, so that a change of the strategies above cannot leave anything untested.
EVERYTHING = (
    [
        (
            [
                ("create", 0, 0, 0),
                ("start", 0, 0, 1000),
                ("create", 0, 3 * 14 + 4, 1000),
                ("start", 0, 0, 1000),
            ],
            1,
        ),
        (
            [
                ("interrupt", 0, 8 * 5 + 1, 60_250),
                ("start", 0, 0, 5001),
                ("interrupt", 1, 4, 60_250),
                ("start", 0, 1, 15_000),
                ("create", 0, 2, 0),
                ("create", 0, 7, 0),
                ("start", 0, 0, 1000),
            ],
            2,
        ),
        ([("finish", 0, 1, 15_000), ("finish", 0, 3, 1), ("delete", 3, 0, 0)], 3),
        ([("reactivate", 0, 0, 15_000)], 4),
        ([("finish", 0, 0, 60_000)], 5),
    ],
    0,
)


def test_everything_can_happen():
    counted = Counted()
    for view, world, eyes in views(EVERYTHING):
        counted.take(view, world.now)
        compare(counted.ledger, expected(world, eyes))

    happened = {name for (name, _), series in counted.ledger.items() if series.value}
    assert happened == {row.metric.name for row in EVENT_FAMILIES if row.total is None}
