"""Labels have a limited number of values; the sums over them stay exact."""

import contextlib
import logging
from collections import defaultdict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs.examples import NOW, job, jobs_in, restored, run

from exporter.jobs.fleet import Fleet
from exporter.jobs.job import OTHER, Fault, View
from exporter.jobs.tracked import base_of
from exporter.jobs.tracker import observe
from exporter.metrics.counters import BASE, EVENT_FAMILY_BY_NAME, add
from exporter.polling.label_limit import LIMITED_LABELS, LabelLimiter
from exporter.storage.store import Store

OVER = "modelarts_exporter_label_values_over_limit"
CREATED = "modelarts_training_jobs_created_total"
FINISHED = "modelarts_training_jobs_finished_total"
RESERVED = {"", "unknown", "public", "job", OTHER}
LIMITED = {*LIMITED_LABELS, "from_recovery", "to_recovery"}
FIELDS = ("user", "kind", "pool", "pool_name", "flavor", "engine", "accelerator", "policy")


class Life:
    """What is known about a target, with limited or unlimited labels."""

    def __init__(self, limit):
        self.limit = limit
        self.limiter = LabelLimiter(limit, "r/p")
        self.fleet, self.ledger = Fleet(), {}
        self.bases = {}

    def sees(self, jobs, deleted=()):
        view = View({each.id: each for each in jobs}, frozenset(deleted), {"0": NOW})
        view = self.limiter.apply(view, self.fleet.find)
        observed = observe(self.fleet, view, NOW)
        self.fleet = observed.fleet
        self.ledger, _ = add(self.ledger, observed.events, self.fleet.accelerators, NOW)
        for job_id in deleted:
            self.bases.pop(job_id, None)
        for job_id, known in jobs_in(self.fleet).items():
            assert self.bases.setdefault(job_id, base_of(known.job)) == base_of(known.job)

    def restarts(self, limit=None):
        self.limit = limit or self.limit
        self.limiter = LabelLimiter(self.limit, "r/p")
        self.limiter.learn(jobs_in(self.fleet).values(), self.ledger, self.fleet.counted)
        self.fleet = restored(self.fleet, self.ledger)

    def values(self):
        """The values of each limited label, in counters and in jobs."""
        found = defaultdict(set)
        for name, labels in self.ledger:
            for label, value in zip(
                (*BASE, *EVENT_FAMILY_BY_NAME[name].labels), labels, strict=True
            ):
                found[label.removeprefix("from_").removeprefix("to_")].add(value)
        for known in jobs_in(self.fleet).values():
            for field in FIELDS:
                found[field].add(getattr(known.job, field))
            found["task"].add(known.job.failed_task)
        return {label: found[label] - RESERVED for label in LIMITED_LABELS}

    def sums(self):
        """Counters without the limited labels."""
        totals = defaultdict(lambda: [0.0, ()])
        for (name, values), series in self.ledger.items():
            labels = (*BASE, *EVENT_FAMILY_BY_NAME[name].labels)
            rest = tuple(v for label, v in zip(labels, values, strict=True) if label not in LIMITED)
            total = totals[name, rest]
            total[0] += series.value
            counts = zip(series.counts, total[1] or (0,) * len(series.counts), strict=True)
            total[1] = tuple(map(sum, counts))
        return {
            key: (pytest.approx(value), counts)
            for key, (value, counts) in totals.items()
            if value or any(counts)
        }


def named(prefix):
    return st.integers(0, 7).map(f"{prefix}-{{}}".format) | st.sampled_from(["", OTHER, "unknown"])


RECOVERIES = st.integers(0, 7).map("policy_{}".format) | st.sampled_from(["", OTHER])
RESULTS = st.integers(0, 7).map("result_{}".format) | st.sampled_from(["", "recovering", OTHER])
FAULTS = st.lists(st.builds(Fault, st.none(), st.just(NOW), RECOVERIES, RECOVERIES, RESULTS))
RUNS = st.lists(
    st.builds(
        lambda recovery, before, faults: msgspec.structs.replace(
            run(0, 10, recovery, before=before), faults=faults
        ),
        RECOVERIES,
        RECOVERIES,
        st.none() | FAULTS.map(tuple),
    ),
    max_size=4,
).map(tuple)
JOBS = st.builds(
    job,
    st.integers(0, 30).map(str),
    pool=named("pool").map(lambda name: name or "public"),
    pool_name=named("name"),
    flavor=named("flavor"),
    engine=named("engine"),
    accelerator=named("card").map(lambda name: name or "unknown"),
    user=named("user"),
    failed_task=named("task"),
    policy=named("policy"),
    phase=st.sampled_from(["Pending", "Running", "Failed", "Completed"]),
    duration=st.integers(0, 5).map(lambda number: 100.0 * number),
    runs=st.none() | RUNS,
)
POLLS = st.lists(
    st.tuples(st.lists(JOBS, max_size=8), st.sets(st.integers(0, 30).map(str), max_size=2)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(POLLS, st.integers(1, 4), st.sets(st.integers(0, 5)))
def test_sums_are_exact_and_values_few_whatever_comes(polls, limit, restarts):
    limited, unlimited = Life(limit), Life(10**6)
    pools = {}
    for number, (seen, deleted) in enumerate(polls):
        # A job stays in its pool, as in the service.
        jobs = [
            msgspec.structs.replace(each, pool=pools.setdefault(each.id, each.pool))
            for each in {each.id: each for each in seen}.values()
            if each.id not in deleted
        ]
        for life in (limited, unlimited):
            life.sees(jobs, deleted)
        for job_id in deleted:
            pools.pop(job_id, None)
        if number in restarts:
            limited.restarts()

        assert limited.sums() == unlimited.sums()
        for label, values in limited.values().items():
            # A restart forgets values without counters whose jobs are gone.
            extra = 8 if restarts and label not in ("pool", "accelerator") else 0
            assert len(values) <= limit + extra


def test_values_seen_first_keep_their_names():
    life = Life(2)
    life.sees([job(name, pool=f"pool-{name}", created=NOW) for name in "abcd"])

    assert life.values()["pool"] == {"pool-a", "pool-b"}
    assert [jobs_in(life.fleet)[name].job.pool for name in "abcd"] == [
        "pool-a", "pool-b", OTHER, OTHER,
    ]  # fmt: skip
    assert life.limiter.over_limit() == dict.fromkeys(LIMITED_LABELS, 0) | {"pool": 2}

    life.sees([], deleted="ab")  # the counters of their pools stay
    for _ in range(2):
        life.sees([job("e", pool="pool-e"), job("f", pool="pool-a"), job("c", pool="pool-c")])
        assert [jobs_in(life.fleet)[name].job.pool for name in "ecf"] == [OTHER, OTHER, "pool-a"]
        life.restarts()


def test_a_higher_limit_names_new_jobs_and_changes_no_known_one(caplog):
    life = Life(1)
    life.sees([job("a", pool="pool-a"), job("b", pool="pool-b")])
    life.restarts(limit=5)
    caplog.clear()
    life.sees([job("b", pool="pool-b", duration=600.0), job("c", pool="pool-b")])

    assert jobs_in(life.fleet)["b"].job.pool == OTHER
    assert jobs_in(life.fleet)["c"].job.pool == "pool-b"
    assert caplog.messages == []  # there are not too many values any more


def test_a_lower_limit_takes_no_name_away():
    life = Life(3)
    life.sees([job(name, pool=f"pool-{name}") for name in "abc"])
    life.restarts(limit=1)
    life.sees([job("d", pool="pool-c"), job("e", pool="pool-e")])

    assert jobs_in(life.fleet)["d"].job.pool == "pool-c"
    assert jobs_in(life.fleet)["e"].job.pool == OTHER


def test_a_downgrade_between_two_policies_without_a_name_counts():
    runs = [
        run(0, 1, "policy_a"),
        run(2, 3, "policy_b", before="policy_b"),
        run(4, 5, "policy_b", before="policy_c"),
        run(6, 7, "policy_a", before="policy_a"),
    ]
    limited, unlimited = Life(1), Life(10)
    for life in (limited, unlimited):
        life.sees([])
        life.sees([job("a", created=NOW, runs=tuple(runs))])

    downgrades = {
        labels[3:]: series.value
        for (name, labels), series in limited.ledger.items()
        if name == "modelarts_training_recovery_downgrades_total"
    }
    assert downgrades == {(OTHER, OTHER): 1.0}
    assert limited.sums() == unlimited.sums()


def test_the_name_of_a_pool_without_a_name_of_its_own_is_not_shown():
    life = Life(1)
    life.sees([job("a", pool="a", pool_name="A"), job("b", pool="b", pool_name="B")])

    assert (jobs_in(life.fleet)["b"].job.pool, jobs_in(life.fleet)["b"].job.pool_name) == (
        OTHER,
        "",
    )


def test_pools_of_the_list_are_limited_too():
    limiter = LabelLimiter(3, "r/p")
    jobs = {"a": job("a", pool="p9"), "b": job("b", pool="p8")}
    names = {f"p{number}": f"n{number}" for number in range(10)}
    view = limiter.apply(View(jobs, pool_names=names), {}.get)

    assert dict(view.pool_names) == {"p0": "n0", "p8": "n8", "p9": "n9"}
    assert limiter.apply(View({}), {}.get).pool_names is None


def test_what_is_over_the_limit_is_counted_up_to_a_limit(monkeypatch, caplog):
    monkeypatch.setattr("exporter.polling.label_limit._MAX_COUNTED", 10)
    life = Life(5)
    for _ in range(3):
        life.sees([job(str(number), engine=f"engine-{number}") for number in range(100)])

    assert life.limiter.over_limit()["engine"] == 10
    assert [(each.getMessage(), each.label, each.limit) for each in caplog.records] == [
        ("a label has too many values; further ones are shown as other", "engine", 5)
    ]


def test_jobs_that_need_no_change_are_not_copied():
    limiter = LabelLimiter(5, "r/p")
    view = View({"a": job("a", runs=(run(0, 1, "policy_a"),))})

    assert limiter.apply(view, {}.get).jobs["a"] is view.jobs["a"]


# --- On the wire ----------------------------------------------------------------------------------


def crowd(rig, first, last):
    """Start jobs that each bring a pool, flavor, engine and accelerator of their own."""
    ids = rig.populate(last - first)
    for number, job_id in enumerate(ids, first):
        rig.fleet.override(
            job_id,
            {
                "spec.resource.pool_id": f"pool-{number}",
                "spec.resource.flavor_id": f"flavor-{number}",
                "algorithm.engine": {"engine_name": f"engine-{number}"},
            },
        )
    return ids


def pools(samples, name):
    totals = defaultdict(float)
    for (found, labels), value in samples.items():
        if found == name:
            totals[dict(labels)["pool"]] += value
    return dict(totals)


async def test_a_restart_and_a_reload_change_no_name(rig, tmp_path, caplog):
    await rig.serve()
    caplog.set_level(logging.WARNING, "exporter.polling.label_limit")

    @contextlib.asynccontextmanager
    async def life(limit, before=None):
        store = await Store.open(tmp_path / "state.db", problem=pytest.fail)
        poller = await rig.add(store=store, jobs={"max_label_values": limit})
        try:
            yield poller
        finally:
            rig.publisher.pollers.remove(poller)
            await store.close()

    async with life(3) as poller:
        assert await poller.poll()
        ids = crowd(rig, 0, 5)
        for _ in range(3):
            await rig.settle(poller)
        created = pools(rig.samples(), CREATED)
        assert sum(created.values()) == 5
        assert created[OTHER] == 2
        assert len(created) == 4
        assert rig.value(OVER, label="pool") == 2
        assert rig.value(OVER, label="recovery") == 0
        assert {record.label for record in caplog.records} == {"pool", "flavor", "engine"}

    for job_id in ids:
        rig.fleet.finish(job_id, "Failed")
    more = crowd(rig, 5, 7)
    async with life(3) as poller:
        for _ in range(3):
            await rig.settle(poller)
        assert pools(rig.samples(), CREATED) == created | {OTHER: 4}
        finished = pools(rig.samples(), FINISHED)
        assert {pool: n for pool, n in finished.items() if n} == created

        successor = await rig.add(jobs={"max_label_values": 2}, store=poller.state._store)
        await successor.take_over(poller)
        rig.publisher.pollers.remove(poller)
        rig.fleet.finish(more[0], "Failed")
        for _ in range(3):
            await rig.settle(successor)
        assert pools(rig.samples(), CREATED) == created | {OTHER: 4}
        assert pools(rig.samples(), FINISHED)[OTHER] == 3
        rig.publisher.pollers.append(poller)
        rig.publisher.pollers.remove(successor)
