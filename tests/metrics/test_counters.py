"""Events added up: families, labels, buckets, exemplars."""

import copy

import pytest

from exporter.jobs.tracked import Base, Event
from exporter.metrics.counters import EVENT_FAMILIES, EVENT_FAMILY_BY_NAME, Exemplar, Series, add

T = 1_750_000_000.0
BASE = Base("0", "pool-1", "Ascend")
OTHER = Base("w", "public", "GPU")

NAME = "modelarts_training_"
CREATED = f"{NAME}jobs_created_total"
FINISHED = f"{NAME}jobs_finished_total"
QUEUE = f"{NAME}queue_duration_seconds"
RUN = f"{NAME}run_duration_seconds"
CARDS = f"{NAME}accelerator_seconds_total"
FINISHED_CARDS = f"{NAME}finished_accelerator_seconds_total"

UUID = "2cd88daa-31a4-40a8-a58f-d186b0e93e4f"


def event(kind, *labels, seconds=None, cards=None, job_id=UUID, base=BASE):
    return Event(kind, job_id, base, labels, seconds, cards)


def added(*events, ledger=None, bases=None, now=T):
    """The ledger after the events."""
    return add(ledger or {}, events, bases or {}, now)[0]


def shown(ledger):
    """Name and labels → value of a counter, sum and number of observations of a histogram."""
    return {
        key: (series.value, sum(series.counts)) if series.counts else series.value
        for key, series in ledger.items()
    }


# --- Zeros ----------------------------------------------------------------------------------------


def test_what_can_be_foreseen_is_zero():
    ledger = added(bases={BASE: frozenset({"910B", "910C"}), OTHER: frozenset()})

    assert shown(ledger) == {
        (CREATED, BASE): 0,
        (QUEUE, BASE): (0, 0),
        (FINISHED, (*BASE, "Completed")): 0,
        (FINISHED, (*BASE, "Failed")): 0,
        (FINISHED, (*BASE, "Terminated")): 0,
        (FINISHED, (*BASE, "Abnormal")): 0,
        (CARDS, (*BASE, "910B")): 0,
        (CARDS, (*BASE, "910C")): 0,
        (CREATED, OTHER): 0,
        (QUEUE, OTHER): (0, 0),
        (FINISHED, (*OTHER, "Completed")): 0,
        (FINISHED, (*OTHER, "Failed")): 0,
        (FINISHED, (*OTHER, "Terminated")): 0,
        (FINISHED, (*OTHER, "Abnormal")): 0,
    }


def test_zeros_are_born_once():
    ledger = added(bases={BASE: ()}, now=T)
    again, changed = add(ledger, [], {BASE: ()}, T + 60)

    assert (again, changed) == (ledger, {})
    assert again[CREATED, BASE].created == T


def test_a_zero_and_its_first_event_may_come_together():
    ledger = added(event("created"), bases={BASE: ()})

    assert ledger[CREATED, BASE] == Series(T, 1.0)


# --- Which event adds what where ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("happened", "series"),
    [
        (event("created"), {(CREATED, BASE): 1}),
        (event("started", seconds=7.5), {(QUEUE, BASE): (7.5, 1)}),
        (event("started"), {}),
        (
            event("restarted", "restarted", "proc_restart"),
            {(f"{NAME}restarts_total", (*BASE, "restarted", "proc_restart")): 1},
        ),
        (
            event("recovered", "pod_reschedule", seconds=9.0, cards=144.0),
            {
                (f"{NAME}recovery_duration_seconds", (*BASE, "pod_reschedule")): (9, 1),
                (f"{NAME}recovery_accelerator_seconds_total", (*BASE, "pod_reschedule")): 144,
            },
        ),
        (
            event("recovered", "pod_reschedule", seconds=9.0),
            {(f"{NAME}recovery_duration_seconds", (*BASE, "pod_reschedule")): (9, 1)},
        ),
        (
            event("attempted", "pod_reschedule", seconds=9.0),
            {(f"{NAME}attempt_duration_seconds", (*BASE, "pod_reschedule")): (9, 1)},
        ),
        (
            event("downgraded", "proc_restart", "pod_reschedule"),
            {(f"{NAME}recovery_downgrades_total", (*BASE, "proc_restart", "pod_reschedule")): 1},
        ),
        (
            event("faulted", "chip_fault", "npu_step_retry", "success"),
            {(f"{NAME}faults_total", (*BASE, "chip_fault", "npu_step_retry", "success")): 1},
        ),
        (
            event("initialized", seconds=40.0),
            {(f"{NAME}startup_duration_seconds", BASE): (40, 1)},
        ),
        (event("ran", "910B", cards=800.0), {(CARDS, (*BASE, "910B")): 800}),
        (
            event("finished", "Failed", seconds=50.0, cards=800.0),
            {
                (FINISHED, (*BASE, "Failed")): 1,
                (RUN, (*BASE, "Failed")): (50, 1),
                (FINISHED_CARDS, (*BASE, "Failed")): 800,
            },
        ),
        (event("finished", "Abnormal"), {(FINISHED, (*BASE, "Abnormal")): 1}),
        (
            event("deleted", "Running", base=OTHER),
            {(f"{NAME}jobs_deleted_total", (*OTHER, "Running")): 1},
        ),
    ],
    ids=lambda value: value.kind if isinstance(value, Event) else "",
)
def test_every_event_has_its_families(happened, series):
    assert shown(added(happened)) == series


def test_labels_are_in_the_order_of_the_contract():
    base = ("workspace", "pool", "flavor_type")
    shown = {row.metric.name.removeprefix(NAME): row.shown_labels for row in EVENT_FAMILIES}
    assert {name: labels for name, labels in shown.items() if name.startswith("user_")} == {
        "user_jobs_finished_total": ("user", "pool", "phase"),
        "user_accelerator_seconds_total": ("user", "pool", "accelerator"),
    }
    of_base = {name: labels for name, labels in shown.items() if not name.startswith("user_")}
    assert all(labels[:3] == base for labels in of_base.values())
    assert {name: labels[3:] for name, labels in of_base.items()} == {
        "jobs_created_total": (),
        "jobs_finished_total": ("phase",),
        "jobs_deleted_total": ("phase",),
        "restarts_total": ("start_type", "recovery"),
        "recovery_downgrades_total": ("from_recovery", "to_recovery"),
        "accelerator_seconds_total": ("accelerator",),
        "finished_accelerator_seconds_total": ("phase",),
        "recovery_accelerator_seconds_total": ("recovery",),
        "queue_duration_seconds": (),
        "run_duration_seconds": ("phase",),
        "recovery_duration_seconds": ("recovery",),
        "attempt_duration_seconds": ("recovery",),
        "faults_total": ("fault_scenario", "recovery", "result"),
        "startup_duration_seconds": (),
    }


def test_families_are_named_once():
    assert len(EVENT_FAMILY_BY_NAME) == len(EVENT_FAMILIES)


def test_events_add_up():
    ledger = added(event("created"), event("created"), event("created", base=OTHER))

    assert shown(added(event("created"), ledger=ledger)) == {
        (CREATED, BASE): 3,
        (CREATED, OTHER): 1,
    }


def test_birth_is_when_a_series_was_first_there():
    ledger = added(event("created"), now=T)

    assert added(event("created"), ledger=ledger, now=T + 60)[CREATED, BASE] == Series(T, 2.0)


# --- Buckets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [row.metric.name for row in EVENT_FAMILIES if row.buckets])
def test_buckets_rise(name):
    buckets = EVENT_FAMILY_BY_NAME[name].buckets

    assert list(buckets) == sorted(set(buckets))
    assert buckets[0] > 0


@pytest.mark.parametrize("name", [row.metric.name for row in EVENT_FAMILIES if not row.buckets])
def test_only_histograms_have_buckets(name):
    assert EVENT_FAMILY_BY_NAME[name].metric.type == "counter"


@pytest.mark.parametrize(
    ("seconds", "le"),
    [
        (0.0, 1),
        (1.0, 1),
        (1.001, 10),
        (60.0, 60),
        (60.001, 300),
        (30 * 86400.0, 30 * 86400),
        (30 * 86400.001, None),
    ],
)
def test_a_bucket_includes_its_bound(seconds, le):
    buckets = (*EVENT_FAMILY_BY_NAME[QUEUE].buckets, None)
    series = added(event("started", seconds=seconds))[QUEUE, BASE]

    assert len(series.counts) == len(buckets)
    assert [bound for bound, count in zip(buckets, series.counts, strict=True) if count] == [le]


def test_observations_add_up():
    ledger = added(*(event("started", seconds=seconds) for seconds in (0.5, 0.75, 20.0)))
    series = added(event("started", seconds=1e9), ledger=ledger)[QUEUE, BASE]

    assert series.value == 1e9 + 21.25
    assert series.counts == (2, 0, 1, *(0,) * (len(EVENT_FAMILY_BY_NAME[QUEUE].buckets) - 3), 1)


# --- Exemplars ------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["Failed", "Abnormal"])
def test_the_latest_job_that_ended_badly_is_named(phase):
    key = FINISHED, (*BASE, phase)
    ledger = added(event("finished", phase, job_id="a"))
    assert ledger[key].exemplars == (Exemplar("a", T, 1.0),)

    ledger = added(event("finished", phase, job_id="b"), ledger=ledger, now=T + 60)
    assert ledger[key].exemplars == (Exemplar("b", T + 60, 1.0),)


@pytest.mark.parametrize("phase", ["Completed", "Terminated"])
def test_jobs_that_ended_well_are_not_named(phase):
    assert added(event("finished", phase))[FINISHED, (*BASE, phase)].exemplars == ()


def test_other_counters_name_no_jobs():
    ledger = added(
        event("created"),
        event("restarted", "restarted", "proc_restart"),
        event("ran", "910B", cards=1.0),
        event("deleted", "Failed"),
    )

    assert {series.exemplars for series in ledger.values()} == {()}


def test_the_latest_job_of_each_bucket_is_named():
    ledger = added(
        event("started", seconds=0.5, job_id="a"),
        event("started", seconds=0.75, job_id="b"),
        event("started", seconds=1e9, job_id="c"),
    )
    exemplars = ledger[QUEUE, BASE].exemplars

    assert exemplars[0] == Exemplar("b", T, 0.75)
    assert exemplars[-1] == Exemplar("c", T, 1e9)
    assert set(exemplars[1:-1]) == {None}


def test_an_id_that_openmetrics_has_no_room_for_is_not_named():
    longest = "x" * (128 - len("job_id"))
    ledger = added(event("finished", "Failed", job_id=longest, seconds=0.5))
    later = added(event("finished", "Failed", job_id=f"{longest}x", seconds=0.5), ledger=ledger)

    assert later[FINISHED, (*BASE, "Failed")].exemplars == (Exemplar(longest, T, 1.0),)
    assert later[RUN, (*BASE, "Failed")].exemplars[0] == Exemplar(longest, T, 0.5)
    assert added(event("started", seconds=0.5, job_id=f"{longest}x"))[QUEUE, BASE].counts[0] == 1


# --- Posting --------------------------------------------------------------------------------------


def test_what_has_changed_is_told_and_nothing_else():
    bases = {BASE: frozenset({"910B"})}
    ledger = added(event("created"), event("started", seconds=5.0), bases=bases)
    after, changed = add(
        ledger, [event("created"), event("finished", "Failed")], {**bases, OTHER: ()}, T + 60
    )

    assert changed == {key: series for key, series in after.items() if ledger.get(key) != series}
    assert {key for key in changed if key[1][:3] == BASE} == {
        (CREATED, BASE),
        (FINISHED, (*BASE, "Failed")),
    }
    assert len([key for key in changed if key[1][:3] == OTHER]) == 6


def test_without_news_nothing_changes():
    ledger = added(event("created"))

    assert add(ledger, [], {}, T + 60) == (ledger, {})


def test_what_was_posted_before_is_not_changed():
    events = [
        event("created"),
        event("started", seconds=5.0),
        event("finished", "Failed", seconds=5.0, cards=80.0),
    ]
    ledger = added(*events, bases={BASE: ("910B",)})
    kept = copy.deepcopy(ledger)
    add(ledger, [*events, event("created", base=OTHER)], {OTHER: ()}, T + 60)

    assert ledger == kept


def test_nothing_ever_falls():
    events = [
        event("created"),
        event("recovered", "proc_restart", seconds=0.0, cards=0.0),
        event("finished", "Failed", seconds=0.0, cards=0.0),
        event("finished", "Failed", cards=3.5),
    ]
    ledger = {}
    for now in range(5):
        after = added(*events, ledger=ledger, bases={BASE: ()}, now=T - now)  # the clock goes back
        for key, before in ledger.items():
            assert after[key].value >= before.value
            assert after[key].created == before.created
            assert all(a >= b for a, b in zip(after[key].counts, before.counts, strict=True))
        ledger = after


# --- A clock that was ahead -----------------------------------------------------------------------


def test_times_that_are_in_the_future_are_corrected():
    """A clock that was ahead by a day left its times in `_created` and exemplars."""
    bases = {BASE: frozenset({"910B"})}
    events = [event("created"), event("started", seconds=40.0), event("finished", "Failed")]
    ahead = added(*events, bases=bases, now=T + 86_400)
    assert {series.created for series in ahead.values()} == {T + 86_400}

    ledger, changed = add(ahead, [], bases, T)

    assert {series.created for series in ledger.values()} == {T}
    exemplars = [each for series in ledger.values() for each in series.exemplars if each]
    assert {(each.job_id, each.at) for each in exemplars} == {(UUID, T)}
    assert len(exemplars) == 2
    assert shown(ledger) == shown(ahead)
    assert changed == ledger
    later, changed = add(ledger, [event("created")], bases, T + 60)
    assert set(changed) == {(CREATED, BASE)}
    assert later[CREATED, BASE] == Series(T, 2.0)


def test_a_clock_that_is_set_back_a_little_changes_nothing():
    before = added(event("created"), event("started", seconds=40.0), now=T + 59)

    assert add(before, [], {}, T) == (before, {})
