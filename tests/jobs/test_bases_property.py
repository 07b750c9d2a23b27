"""Whatever is learned about the pools of jobs, and when: every job counts under one base."""

from collections import Counter, defaultdict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs.examples import NOW, job, jobs_in, restored, run, waiting, with_jobs

from exporter.jobs.fleet import Fleet
from exporter.jobs.job import PUBLIC_POOL, View
from exporter.jobs.tracked import TrackedJob
from exporter.jobs.tracker import observe
from exporter.metrics.counters import CREATED, FINISHED, QUEUE, TERMINAL_PHASES, add

pytestmark = pytest.mark.slow

EXAMPLES = settings(max_examples=200, derandomize=True, deadline=None, database=None)
POOLS = ("pool-1", "pool-2", "pool-3", PUBLIC_POOL)
TYPES = ("Ascend", "GPU", "CPU")
LISTED = {"pool-3": "GPU", PUBLIC_POOL: "CPU"}
RECORDS = (run(-500, -300, "proc_restart"), run(-290))

# How a job looks: number of the job, pool, own flavor type or none, stage.
LOOKS = st.tuples(
    st.integers(0, 5),
    st.sampled_from([*POOLS, *POOLS[:2]]),
    st.sampled_from(["unknown", "unknown", *TYPES]),
    st.sampled_from(["waiting", "running", "running", "restarted", "ended", "deleted"]),
    st.booleans(),
)
# Views: jobs as they look, whether the list of pools comes with it, whether the process restarts.
LIVES = st.lists(
    st.tuples(st.lists(LOOKS, max_size=6), st.booleans(), st.booleans()), min_size=2, max_size=8
)


def looking(number, pool, flavor_type, stage, has_cards):
    common = {
        "pool": pool,
        "flavor_type": flavor_type,
        "accelerators": 16 if has_cards else None,
        "created": NOW - 600 + number,
    }
    match stage:
        case "waiting":
            return waiting(f"job-{number}", **common)
        case "running":
            return job(f"job-{number}", **common)
        case "restarted":
            return job(f"job-{number}", runs=RECORDS, duration=520.0, **common)
    return job(f"job-{number}", phase="Failed", duration=530.0, ended=NOW, **common)


def views(life):
    """The first is the baseline."""
    for looks, listed, restarts in life:
        jobs = {each.id: each for each in (looking(*look) for look in looks)}
        deleted = frozenset(f"job-{look[0]}" for look in looks if look[3] == "deleted")
        types = LISTED if listed else None
        yield View(jobs, deleted, {"0": NOW}, pool_types=types), restarts


class Exporter:
    """What the state of a target does, with a restart at any time."""

    def __init__(self):
        self.fleet, self.ledger = Fleet(), {}
        self.events = []

    def take(self, view):
        observed = observe(self.fleet, view, NOW)
        before = self.ledger
        self.ledger, _ = add(self.ledger, observed.events, observed.fleet.accelerators, NOW)
        self.fleet = observed.fleet
        self.events += observed.events
        return observed, before

    def restart(self):
        """Only what the state file keeps is left."""
        stored = msgspec.msgpack.encode(jobs_in(self.fleet))
        jobs = msgspec.msgpack.decode(stored, type=dict[str, TrackedJob])
        self.fleet = restored(with_jobs(self.fleet, jobs), self.ledger)


@EXAMPLES
@given(LIVES)
def test_all_events_of_a_job_have_one_base(life):
    exporter = Exporter()
    for view, _ in views(life):
        exporter.take(view)
    lives = Counter()
    bases = defaultdict(set)
    for event in exporter.events:
        bases[event.job_id, lives[event.job_id]].add(event.base)
        lives[event.job_id] += event.kind == "deleted"

    assert [found for found in bases.values() if len(found) > 1] == []


@EXAMPLES
@given(LIVES)
def test_no_event_is_invented_or_lost_by_what_is_learned(life):
    exporter, plain = Exporter(), Exporter()
    for view, _ in views(life):
        same = {
            job_id: msgspec.structs.replace(each, pool="p", flavor_type="GPU")
            for job_id, each in view.jobs.items()
        }
        exporter.take(view)
        plain.take(view._replace(jobs=same, pool_types=None))

    def told(events):
        return Counter(event._replace(base=None) for event in events)

    assert told(exporter.events) == told(plain.events)


@EXAMPLES
@given(LIVES)
def test_a_base_has_its_zeros_before_or_with_its_first_event(life):
    exporter = Exporter()
    for view, _ in views(life):
        observed, _ = exporter.take(view)
        shown = {
            (known.job.workspace, known.job.pool, known.job.flavor_type)
            for known in jobs_in(observed.fleet).values()
        }
        for base in shown | {event.base for event in observed.events}:
            keys = [(CREATED.metric.name, base), (QUEUE.metric.name, base)]
            keys += [(FINISHED.metric.name, (*base, phase)) for phase in TERMINAL_PHASES]
            assert all(key in exporter.ledger for key in keys)


@EXAMPLES
@given(LIVES)
def test_a_restart_changes_nothing(life):
    going, restarted = Exporter(), Exporter()
    for each, restarts in views(life):
        view = each._replace(pool_types=LISTED)
        going.take(view)
        restarted.take(view)
        if restarts:
            restarted.restart()

    assert restarted.events == going.events
    assert restarted.ledger == going.ledger
    assert jobs_in(restarted.fleet) == jobs_in(going.fleet)
    assert restarted.fleet.accelerators == going.fleet.accelerators


@EXAMPLES
@given(LIVES)
def test_jobs_are_shown_under_the_best_type_known(life):
    exporter = Exporter()
    own, seen = {}, defaultdict(set)
    for view, _ in views(life):
        exporter.take(view)
        for each in view.jobs.values():
            own[each.id] = each
            if each.flavor_type != "unknown":
                seen[each.pool].add(each.flavor_type)
        for job_id, known in jobs_in(exporter.fleet).items():
            shown, last = known.job.flavor_type, own[job_id]
            if last.flavor_type != "unknown":
                assert shown == last.flavor_type
            elif last.pool == PUBLIC_POOL:
                assert shown in {"unknown", *seen[PUBLIC_POOL]}
            elif shown != "unknown":
                assert shown in seen[last.pool] | {LISTED.get(last.pool)}
            elif last.pool not in LISTED:
                possible = seen[last.pool] - ({"CPU"} if last.accelerators else set())
                assert len(possible) != 1


@EXAMPLES
@given(LIVES)
def test_the_same_view_again_changes_nothing(life):
    exporter = Exporter()
    for view, _ in views(life):
        exporter.take(view)
        fleet, ledger = exporter.fleet, exporter.ledger
        if view.deleted & view.jobs.keys():
            continue  # it is new the second time
        observed, _ = exporter.take(view)
        assert (observed.events, observed.jobs) == ([], {})
        assert (exporter.fleet, exporter.ledger) == (fleet, ledger)
