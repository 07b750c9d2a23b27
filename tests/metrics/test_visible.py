"""What users show adds up to what their total shows, also while some of it is held at zero."""

import math
from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st
from jobs.examples import job

from exporter.jobs.fleet import Fleet
from exporter.jobs.job import View
from exporter.jobs.tracked import Base, Event
from exporter.jobs.tracker import observe
from exporter.metrics.counters import (
    CARD_SECONDS,
    EVENT_FAMILIES,
    FINISHED,
    USER_CARD_SECONDS,
    USER_FINISHED,
    Exemplar,
    Series,
    add,
    milliseconds,
    total_of,
    user_zero_series,
)
from exporter.metrics.visible import visible_series
from exporter.metrics.zero_init import ZeroInit

NOW = 1_750_000_000.0
ONE, TWO = Base("0", "pool-1", "Ascend"), Base("0", "pool-1", "GPU")
ELSEWHERE = Base("1", "pool-1", "Ascend")
PAIRS = ((FINISHED, USER_FINISHED), (CARD_SECONDS, USER_CARD_SECONDS))


def finished(user, base=ONE, phase="Failed", job_id="a"):
    return Event("finished", job_id, base, (phase,), user=user)


def ran(user, seconds, base=ONE):
    return Event("ran", "a", base, ("910B",), card_seconds=seconds, user=user)


def key(family, base, *labels):
    return family.metric.name, (*base, *labels)


class Life:
    """Counters as those of a target: new ones are held until they were shown for an interval."""

    def __init__(self):
        self.ledger, self.zero_init = {}, ZeroInit(60.0)
        self.generation = 0

    def count(self, *events, bases=(ONE,)):
        known = dict.fromkeys(bases, ("910B",))
        before = self.ledger
        self.ledger, _ = add(before, events, known, NOW)
        self.zero_init.hold(self.ledger.keys() - before.keys())

    def publish(self, now):
        self.generation += 1
        new = self.zero_init.unpublished()
        self.zero_init.mark_published(new, now, self.generation)
        return visible_series(self.ledger, self.zero_init.is_held)

    def release(self, now):
        self.zero_init.release(self.zero_init.releasable(now))


def sums(shown, family):
    """By pool and the family's own label, in milliseconds: the unit in which sums are exact."""
    found = Counter()
    for (name, labels), series in shown.items():
        if name == family.metric.name:
            values = dict(zip(family.shown_labels, labels, strict=True))
            found[values["pool"], values[family.labels[0]]] += milliseconds(series.value)
    return {group: number for group, number in found.items() if number}


def test_an_event_shows_in_the_total_when_it_shows_for_its_user():
    life = Life()
    life.count(finished("li"))
    life.publish(0)
    life.release(60)
    life.count(finished("li"), finished("wang"))
    shown = life.publish(60)

    assert shown[USER_FINISHED.metric.name, ("li", "pool-1", "Failed")].value == 2
    assert shown[USER_FINISHED.metric.name, ("wang", "pool-1", "Failed")].value == 0
    assert shown[key(FINISHED, ONE, "Failed")].value == 2

    life.release(120)
    shown = life.publish(120)
    assert shown[USER_FINISHED.metric.name, ("wang", "pool-1", "Failed")].value == 1
    assert shown[key(FINISHED, ONE, "Failed")].value == 3


def test_other_series_do_not_wait():
    life = Life()
    life.count(finished("li"))
    life.publish(0)
    life.release(60)
    life.count(finished("wang"), finished("li", phase="Completed"))
    shown = life.publish(60)

    assert shown[key(FINISHED, ONE, "Completed")].value == 0  # li has not had it before either
    life.count(finished("li"))
    shown = life.publish(61)
    assert shown[key(FINISHED, ONE, "Failed")].value == 2


def test_the_exemplar_of_what_is_held_back_is_not_shown():
    life = Life()
    life.count(finished("li", job_id="first"))
    life.publish(0)
    life.release(60)
    life.count(finished("wang", job_id="second"))

    assert life.publish(60)[key(FINISHED, ONE, "Failed")] == Series(NOW, 1.0)
    life.release(120)
    assert life.publish(120)[key(FINISHED, ONE, "Failed")].exemplars == (
        Exemplar("second", NOW, 1.0),
    )


def test_a_user_is_one_series_whatever_the_workspace_and_the_flavor_type():
    life = Life()
    events = (ran("li", 0.1, ONE), ran("li", 0.2, TWO), ran("li", 0.3, ELSEWHERE))
    life.count(*events, bases=(ONE, TWO, ELSEWHERE))
    life.publish(0)
    life.release(60)
    shown = life.publish(60)

    found = {labels: s.value for (name, labels), s in shown.items() if "user_acc" in name}
    assert found == {("li", "pool-1", "910B"): 0.6}


def test_without_users_nothing_is_by_user():
    ledger, _ = add({}, [finished(None), ran(None, 8.0)], {ONE: ("910B",)}, NOW)

    assert not [name for name, _ in ledger if "user" in name]


def test_a_part_without_its_total_is_shown():
    """Its workspace is not polled any more."""
    part = key(USER_FINISHED, ELSEWHERE, "li", "Failed")

    assert list(visible_series({part: Series(NOW, 3.0)}, {part}.__contains__).values()) == [
        Series(NOW)
    ]


def test_only_families_by_user_have_a_total():
    assert {row.metric.name for row in EVENT_FAMILIES if row.total} == {
        each.metric.name for _, each in PAIRS
    }
    for total, by_user in PAIRS:
        assert total_of(key(by_user, ONE, "li", "x")) == key(total, ONE, "x")


def test_users_with_unfinished_jobs_are_at_zero_before_their_first_event():
    jobs = [job("a", user="li"), job("b", user="wang", accelerators=None)]
    jobs.append(job("c", user="zhao", phase="Failed", ended=NOW))
    view = View({each.id: each for each in jobs})
    known = observe(Fleet(), view, NOW).fleet.open.values()
    found = set(user_zero_series(known, [], lambda user: "other" if user == "wang" else user, {}))

    phases = ("Completed", "Failed", "Terminated", "Abnormal")
    assert found == {
        *(key(USER_FINISHED, ONE, user, phase) for user in ("li", "other") for phase in phases),
        key(USER_CARD_SECONDS, ONE, "li", "910B"),
    }


def test_card_seconds_are_exact_to_the_millisecond():
    ledger = {}
    for _ in range(10):
        ledger, _ = add(ledger, [ran("li", 0.1)], {}, NOW)

    assert ledger[key(CARD_SECONDS, ONE, "910B")].value == 1.0


@given(st.floats(0, 1e12), st.floats(0, 1e9))
def test_a_counter_with_a_smaller_fraction_does_not_fall(value, amount):
    """As counted by a version that did not add up milliseconds."""
    before = {key(CARD_SECONDS, ONE, "910B"): Series(NOW, value)}
    ledger, _ = add(before, [ran(None, amount)], {}, NOW)

    (series,) = ledger.values()
    assert series.value >= value
    assert math.isclose(series.value, value + amount, rel_tol=1e-9, abs_tol=2e-3)


BASES = st.sampled_from([ONE, TWO, ELSEWHERE, ONE._replace(pool="pool-2")])
USERS = st.sampled_from(["li", "wang", "zhao", "other", ""])
EVENTS = st.one_of(
    st.builds(finished, USERS, BASES, st.sampled_from(["Completed", "Failed"])),
    st.builds(ran, USERS, st.integers(0, 10**9).map(lambda ms: ms / 1000), BASES),
)
STEPS = st.lists(st.tuples(st.lists(EVENTS, max_size=5), st.integers(1, 90)), max_size=12)


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(STEPS)
def test_sums_are_equal_and_nothing_falls_whatever_happens(steps):
    life, now = Life(), 0.0
    before, published = {}, defaultdict(lambda: math.inf)
    for events, seconds in steps:
        life.release(now)
        life.count(*events, bases={event.base for event in events})
        shown = life.publish(now)
        for total, by_user in PAIRS:
            assert sums(shown, total) == sums(shown, by_user)
        for each, series in shown.items():
            if each not in before:
                published[each] = now
            assert series.value >= (before[each].value if each in before else 0)
            assert series.value == 0 or now - published[each] >= 60
        before, now = shown, now + seconds
    life.release(now + 60)
    life.count()
    life.publish(now + 60)
    life.release(now + 120)
    shown = life.publish(now + 120)
    for total, _ in PAIRS:
        counted = {each: s.value for each, s in life.ledger.items() if each[0] == total.metric.name}
        assert counted == {each: shown[each].value for each in counted}
