"""The rules of the tracker, one by one, with literal views and events."""

import copy

import msgspec
import pytest
from jobs.examples import AGAIN, FIRST, NOW, job, jobs_in, run, waiting

from exporter.jobs.fleet import Fleet
from exporter.jobs.job import View
from exporter.jobs.tracked import Base, Event, Restart
from exporter.jobs.tracker import observe

BASE = Base("0", "pool-1", "Ascend")
HOUR = 3600.0


def event(kind, *labels, seconds=None, cards=None, job_id="a", base=BASE):
    return Event(kind, job_id, base, labels, seconds, cards)


class Watch:
    """Reads one view after the other, a minute apart."""

    def __init__(self):
        self.fleet = Fleet()
        self.now = NOW - 60
        self.changed = {}

    def see(self, *jobs, deleted=(), newest_created=None, without_phase=(), at=None):
        """The events of a view."""
        self.now = self.now + 60 if at is None else at
        newest_created = {"0": NOW} if newest_created is None else newest_created
        view = View(
            {each.id: each for each in jobs},
            frozenset(deleted),
            newest_created,
            without_phase=frozenset(without_phase),
        )
        observed = observe(self.fleet, view, self.now)
        self.fleet, self.changed = observed.fleet, observed.jobs
        self.deleted = observed.gone
        return observed.events

    def kinds(self, *jobs, **more):
        return [each.kind for each in self.see(*jobs, **more)]

    def __getitem__(self, job_id):
        return jobs_in(self.fleet)[job_id]


@pytest.fixture
def watch():
    """Nothing is known yet."""
    return Watch()


@pytest.fixture
def watching(watch):
    """The baseline was an empty workspace."""
    assert watch.see() == []
    return watch


# --- First sight ----------------------------------------------------------------------------------

RUNS = (run(-500, -300, "proc_restart", before="npu_proc_restart"), run(-290))


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(waiting(), id="waiting"),
        pytest.param(waiting(phase="Creating", duration=None), id="creating"),
        pytest.param(job(), id="running, no records"),
        pytest.param(job(runs=RUNS), id="running, with records"),
        pytest.param(job(runs=()), id="running, empty records"),
        pytest.param(job(duration=None), id="running for nobody knows how long"),
        pytest.param(job(phase="Suspended"), id="in an undocumented phase"),
        pytest.param(job(phase="Terminating"), id="stopping"),
        pytest.param(job(phase="Failed", ended=NOW - 10), id="finished, no records"),
        pytest.param(job(phase="Failed", ended=NOW - 10, runs=RUNS), id="finished, with records"),
        pytest.param(waiting(phase="Abnormal"), id="never created"),
    ],
)
def test_what_the_first_view_shows_is_no_event(watch, first):
    assert watch.see(first) == []
    assert jobs_in(watch.fleet).keys() == {"a"}
    assert watch.see(first) == []


def test_a_job_seen_later_was_created(watching):
    assert watching.see(waiting()) == [event("created")]


def test_the_first_view_may_be_empty(watch):
    watch.see(newest_created={"0": float("-inf")})

    assert watch.kinds(waiting(created=NOW - 9 * HOUR)) == ["created"]


def test_a_job_without_create_time_was_created_too(watching):
    assert watching.see(waiting(created=None)) == [event("created")]


def test_all_that_a_new_job_has_done_is_an_event(watching):
    runs = (
        run(-500, -400, "proc_restart", before="npu_proc_restart"),
        run(-390, -200, "job_reschedule", start_type=AGAIN),
        run(-100, -50),
    )

    assert watching.see(job(phase="Failed", duration=340.0, ended=NOW - 50, runs=runs)) == [
        event("created"),
        event("started", seconds=100.0),
        event("restarted", AGAIN, "proc_restart"),
        event("recovered", "proc_restart", seconds=10.0, cards=160.0),
        event("restarted", FIRST, "job_reschedule"),
        event("recovered", "job_reschedule", seconds=100.0, cards=1600.0),
        event("attempted", "proc_restart", seconds=100.0),
        event("downgraded", "npu_proc_restart", "proc_restart"),
        event("attempted", "job_reschedule", seconds=190.0),
        event("ran", "910B", cards=5440.0),
        event("finished", "Failed", seconds=340.0, cards=5440.0),
    ]


def test_several_phases_in_one_step(watching):
    watching.see(waiting(phase="Creating"))

    assert watching.kinds(job(phase="Completed", ended=NOW)) == ["started", "ran", "finished"]


@pytest.mark.parametrize(
    ("created", "kinds"),
    [
        pytest.param(NOW - HOUR - 1, [], id="much older: it was hidden"),
        pytest.param(NOW - HOUR, ["created", "started", "ran", "finished"], id="not much older"),
        pytest.param(NOW + 5, ["created", "started", "ran", "finished"], id="newer"),
    ],
)
def test_jobs_much_older_than_the_newest_were_hidden(watch, created, kinds):
    watch.see(job("b", created=NOW), newest_created={"0": NOW})

    assert watch.kinds(job(created=created, phase="Failed")) == kinds


def test_what_a_hidden_job_does_later_is_an_event(watching):
    watching.see(waiting(created=NOW - 9 * HOUR))

    assert watching.see(job(created=NOW - 9 * HOUR, started=NOW, duration=0.0)) == [
        event("started", seconds=9 * HOUR)
    ]


def test_the_newest_job_counts_although_it_is_gone(watch):
    watch.see(newest_created={"0": NOW})
    watch.see(newest_created={"0": NOW - 9 * HOUR})

    assert watch.see(waiting(created=NOW - 2 * HOUR)) == []


def test_jobs_created_while_we_were_away_are_new(watching):
    late = NOW + 30 * HOUR

    assert watching.kinds(
        waiting("a", created=NOW + HOUR),
        waiting("b", created=late),
        newest_created={"0": late},
        at=late + 1,
    ) == ["created", "created"]


def test_every_workspace_has_its_own_baseline(watch):
    watch.see(waiting("a"), newest_created={"0": NOW})

    assert watch.see(
        waiting("b"),
        waiting("c", workspace="w"),
        waiting("d", workspace="w"),
        newest_created={"0": NOW, "w": NOW},
    ) == [event("created", job_id="b")]
    assert watch.see(waiting("e", workspace="w")) == [
        event("created", job_id="e", base=Base("w", "pool-1", "Ascend"))
    ]


def test_a_workspace_that_nobody_asked_for_has_the_baseline_of_the_others(watch):
    assert watch.kinds(waiting("a", workspace="odd")) == []
    assert watch.kinds(waiting("b", workspace="odd")) == ["created"]


def test_the_baseline_of_a_job_without_a_phase_is_the_first_reading_with_one(watch):
    watch.see(job(phase="Unknown", runs=RUNS), without_phase=["a"])
    assert watch.see(job(phase="Unknown", duration=510.0), without_phase=["a"]) == []

    assert watch.see(job(phase="Failed", duration=520.0, runs=RUNS)) == []
    assert watch.see(job(phase="Failed", duration=520.0, runs=RUNS, ended=NOW)) == []
    assert watch.see(job(duration=530.0, runs=RUNS)) == [event("ran", "910B", cards=160.0)]


def test_a_new_job_without_a_phase_was_created_and_the_rest_comes_later(watching):
    assert watching.see(job(phase="Unknown"), without_phase=["a"]) == [event("created")]
    assert watching.kinds(job(phase="Failed")) == ["started", "ran", "finished"]


# --- Start ----------------------------------------------------------------------------------------


def test_a_start_counts_when_it_is_first_seen(watching):
    watching.see(waiting())

    assert watching.see(job(duration=0.0)) == [event("started", seconds=100.0)]
    assert watching.see(job(duration=0.0, started=NOW - 400)) == []


def test_a_baseline_job_may_still_start(watch):
    watch.see(waiting())

    assert watch.see(job(duration=0.0)) == [event("started", seconds=100.0)]


@pytest.mark.parametrize("first", [job(started=None), waiting(runs=(run(-500),))])
def test_a_baseline_job_that_had_run_started_before(watch, first):
    watch.see(first)

    assert watch.kinds(msgspec.structs.replace(first, started=NOW - 500)) == []


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"created": NOW - 499}, id="started before it was created"),
        pytest.param({"created": None}, id="created nobody knows when"),
    ],
)
def test_an_impossible_queue_time_is_none(watching, changes):
    assert watching.see(job(duration=0.0, **changes)) == [event("created"), event("started")]


# --- Restarts -------------------------------------------------------------------------------------


def test_one_run_is_no_restart(watching):
    assert watching.kinds(job(duration=0.0, runs=(run(-500),))) == ["created", "started"]


@pytest.mark.parametrize(
    "later",
    [
        pytest.param(None, id="absent"),
        pytest.param((), id="empty"),
        pytest.param((run(-500, -400, "pod_reschedule"),), id="fewer"),
        pytest.param((run(-500, -400, "proc_restart"), run(-1)), id="rewritten"),
        pytest.param((run(-500, -400), run(-390)), id="recovery erased"),
    ],
)
def test_a_restart_counts_once_whatever_records_do_later(watching, later):
    runs = (run(-500, -400, "pod_reschedule"), run(-390))
    watching.see(job(runs=runs))

    assert watching.see(job(runs=later)) == []
    assert watching.see(job(runs=runs)) == []
    assert watching["a"].restarts == (Restart(FIRST, "pod_reschedule"),)


def test_records_that_shrank_count_again_when_they_are_more_than_ever(watching):
    watching.see(job(runs=(run(-500, -400, "proc_restart"), run(-390))))
    watching.see(job(runs=(run(-390),)))

    assert watching.see(
        job(runs=(run(-500, -400), run(-390, -300, "pod_reschedule"), run(-200)))
    ) == [
        event("restarted", FIRST, "pod_reschedule"),
        event("recovered", "pod_reschedule", seconds=100.0, cards=1600.0),
        event("attempted", "pod_reschedule", seconds=90.0),
    ]


def test_the_records_of_a_new_job_may_come_late(watching):
    assert watching.kinds(job(duration=0.0)) == ["created", "started"]
    assert watching.see(job(duration=0.0, runs=(run(-500, -400, "proc_restart"), run(-390)))) == [
        event("restarted", FIRST, "proc_restart"),
        event("recovered", "proc_restart", seconds=10.0, cards=160.0),
        event("attempted", "proc_restart", seconds=100.0),
    ]


def test_a_restart_without_recovery_is_of_an_unknown_one(watching):
    assert watching.see(job(duration=0.0, runs=(run(-500, -400), run(-390))))[2:] == [
        event("restarted", FIRST, "unknown"),
        event("recovered", "unknown", seconds=10.0, cards=160.0),
    ]


def test_restarts_of_a_baseline_job_with_records_go_on_from_there(watch):
    old = (run(-500, -400, "proc_restart"), run(-390))
    watch.see(job(runs=old))

    # One second before the baseline by the service's clock, but not among its records.
    more = (*old[:1], run(-390, -100, "pod_reschedule"), run(-1))
    assert watch.see(job(runs=more)) == [
        event("restarted", FIRST, "pod_reschedule"),
        event("recovered", "pod_reschedule", seconds=99.0, cards=1584.0),
        event("attempted", "pod_reschedule", seconds=290.0),
    ]


@pytest.mark.parametrize("absent", [None, ()])
def test_late_records_of_a_baseline_job_count_from_the_baseline_on(watch, absent):
    watch.see(job(runs=absent))
    late = (
        run(-500, -300, "proc_restart", before="npu_proc_restart"),
        run(-290, 20, "pod_reschedule", before="proc_restart"),
        run(30),
    )

    assert watch.see(job(runs=late)) == [
        event("restarted", FIRST, "pod_reschedule"),
        event("recovered", "pod_reschedule", seconds=10.0, cards=160.0),
        event("attempted", "pod_reschedule", seconds=310.0),
        event("downgraded", "proc_restart", "pod_reschedule"),
    ]
    assert len(watch["a"].restarts) == 2


def test_only_the_first_records_of_a_baseline_job_are_doubted(watch):
    """The service's clock may be behind ours: a record that we did not see before is new."""
    watch.see(job())
    watch.see(job(runs=(run(-500),)))

    assert watch.kinds(job(runs=(run(-500, -20, "proc_restart"), run(-10)))) == [
        "restarted",
        "recovered",
        "attempted",
    ]


def test_all_records_of_a_baseline_job_count_that_had_not_run(watch):
    watch.see(waiting())
    late = job(duration=0.0, runs=(run(-500, -300, "proc_restart"), run(-290)))

    assert watch.kinds(late) == ["started", "restarted", "recovered", "attempted"]


@pytest.mark.parametrize(
    ("start", "baseline", "counts"),
    [(-1, 0.5, False), (0, 0.5, True), (-1, 0.0, False), (0, 0.0, True)],
)
def test_records_in_whole_seconds_count_if_they_may_be_after_the_baseline(
    watch, start, baseline, counts
):
    watch.see(job(), at=NOW + baseline)

    late = job(runs=(run(-500, -300), run(start)))
    assert watch.kinds(late) == (["restarted", "recovered"] if counts else [])


def test_a_negative_gap_is_no_gap(watching):
    """The decoder has clamped the end of the first run to its start."""
    runs = (run(-100, -100, "pod_reschedule"), run(-200))

    assert watching.see(job(duration=0.0, runs=runs))[2:] == [
        event("restarted", FIRST, "pod_reschedule"),
        event("recovered", "pod_reschedule", seconds=0.0, cards=0.0),
        event("attempted", "pod_reschedule", seconds=0.0),
    ]


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param((run(-500, None), run(-390)), id="end unset"),
        pytest.param((run(-500, -400), run(None)), id="start unset"),
    ],
)
def test_a_gap_of_unknown_length_is_none(watching, runs):
    assert watching.kinds(job(duration=0.0, runs=runs)) == ["created", "started", "restarted"]


def test_a_gap_without_known_cards_has_a_length_only(watching):
    runs = (run(-500, -400), run(-390))

    assert watching.see(job(accelerators=None, runs=runs))[-1] == event(
        "recovered", "unknown", seconds=10.0
    )


# --- Attempts -------------------------------------------------------------------------------------


def test_an_attempt_ends_when_its_recovery_is_named(watching):
    watching.see(job(duration=0.0, runs=(run(-500),)))

    assert watching.see(job(duration=0.0, runs=(run(-500, -20, "job_reschedule"),))) == [
        event("attempted", "job_reschedule", seconds=480.0)
    ]


def test_attempts_and_downgrades_count_once(watching):
    runs = (run(-500, -400, "job_reschedule", before="pod_reschedule"),)
    watching.see(job(runs=runs))

    assert watching.kinds(job(runs=(*runs, run(-300)))) == ["restarted", "recovered"]
    assert watching.see(job(runs=None)) == []
    assert watching.see(job(runs=(*runs, run(-300)))) == []


@pytest.mark.parametrize("before", ["", "job_reschedule"])
def test_a_recovery_that_was_tried_first_is_no_downgrade(watching, before):
    runs = (run(-500, -400, "job_reschedule", before=before),)

    assert watching.kinds(job(duration=0.0, runs=runs)) == ["created", "started", "attempted"]


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param((run(-500, -400),), id="no recovery"),
        pytest.param((run(-500, -400, before="proc_restart"),), id="the one tried first only"),
        pytest.param((run(-500, None, "proc_restart"),), id="end unset"),
        pytest.param((run(None, -400, "proc_restart"),), id="start unset"),
    ],
)
def test_a_run_is_no_attempt_that_lacks_an_end_or_a_recovery(watching, runs):
    assert watching.kinds(job(duration=0.0, runs=runs)) == ["created", "started"]


# --- End ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["Completed", "Failed", "Terminated", "Abnormal"])
def test_a_job_finishes_once(watching, phase):
    watching.see(job())
    done = job(phase=phase, ended=NOW)

    assert watching.see(done) == [event("finished", phase, seconds=500.0, cards=8000.0)]
    assert watching.see(done) == []


def test_a_baseline_job_finishes_with_all_its_run_time(watch):
    watch.see(job())

    assert watch.see(job(phase="Completed", duration=560.0)) == [
        event("ran", "910B", cards=960.0),
        event("finished", "Completed", seconds=560.0, cards=8960.0),
    ]


def test_a_job_that_never_ran_has_no_run_time(watching):
    assert watching.see(waiting(phase="Abnormal")) == [
        event("created"),
        event("finished", "Abnormal"),
    ]


def test_a_job_that_ran_for_no_time_has_run(watching):
    assert watching.see(job(phase="Failed", duration=0.0))[-1] == event(
        "finished", "Failed", seconds=0.0, cards=0.0
    )


def test_a_job_that_ran_although_its_start_is_unset_has_run(watching):
    assert watching.see(job(phase="Failed", started=None)) == [
        event("created"),
        event("ran", "910B", cards=8000.0),
        event("finished", "Failed", seconds=500.0, cards=8000.0),
    ]


def test_an_unknown_run_time_is_none(watching):
    assert watching.see(job(phase="Failed", duration=None))[-1] == event("finished", "Failed")


def test_an_end_without_known_cards_has_a_run_time_only(watching):
    assert watching.see(job(phase="Failed", accelerators=None))[-1] == event(
        "finished", "Failed", seconds=500.0
    )


def test_a_job_that_ends_again_counts_again_with_what_it_ran_since(watching):
    watching.see(job(phase="Failed"))

    assert watching.see(job()) == []
    assert watching.see(job(phase="Completed", duration=600.0)) == [
        event("ran", "910B", cards=1600.0),
        event("finished", "Completed", cards=1600.0),
    ]


def test_a_baseline_end_is_an_end(watch):
    watch.see(job(phase="Failed"))

    assert watch.see(job()) == []
    assert watch.see(job(phase="Failed")) == [event("finished", "Failed", cards=0.0)]


def test_the_run_time_of_a_job_that_first_ended_without_a_run_is_seen_later(watching):
    watching.see(waiting(phase="Abnormal"))
    watching.see(job(duration=0.0))

    assert watching.see(job(phase="Completed", duration=9.0))[-1] == event(
        "finished", "Completed", seconds=9.0, cards=144.0
    )


def test_a_baseline_end_without_a_run_has_seen_no_run_time(watch):
    watch.see(waiting(phase="Abnormal"))
    watch.see(job(duration=0.0))

    assert watch.see(job(phase="Completed", duration=9.0))[-1] == event(
        "finished", "Completed", seconds=9.0, cards=144.0
    )


def test_a_run_time_that_went_down_at_an_end_is_not_counted_again_at_the_next(watching):
    for duration in (500.0, 100.0):
        watching.see(job(phase="Failed", duration=duration))
        watching.see(job(duration=duration))

    assert watching.see(job(phase="Failed", duration=501.0))[-1] == event(
        "finished", "Failed", cards=16.0
    )


def test_another_terminal_phase_alone_is_a_correction(watching):
    watching.see(job(phase="Failed"))

    assert watching.see(job(phase="Terminated")) == []
    assert watching["a"].job.phase == "Terminated"


def test_an_undocumented_phase_says_nothing(watching):
    watching.see(job(phase="Failed", duration=None))

    assert watching.see(job(phase="Unknown", duration=None)) == []
    assert watching.see(job(phase="Failed", duration=None)) == []
    assert watching["a"].ended == NOW + 60  # when it was first seen finished


def test_a_job_may_go_through_an_undocumented_phase_to_its_end(watching):
    watching.see(job())
    watching.see(job(phase="Unknown"))

    assert watching.kinds(job(phase="Completed")) == ["finished"]


# --- Card seconds ---------------------------------------------------------------------------------


def test_cards_count_while_a_job_runs(watching):
    assert watching.see(job())[-1] == event("ran", "910B", cards=8000.0)
    assert watching.see(job(duration=560.0)) == [event("ran", "910B", cards=960.0)]


def test_cards_of_a_baseline_job_count_from_then_on(watch):
    watch.see(job())

    assert watch.see(job(duration=560.0)) == [event("ran", "910B", cards=960.0)]


def test_a_run_time_that_was_not_told_at_the_baseline_is_behind_it(watch):
    watch.see(job(duration=None))

    assert watch.see(job()) == []
    assert watch.see(job(duration=510.0)) == [event("ran", "910B", cards=160.0)]


def test_a_baseline_job_that_had_not_run_counts_all_its_run_time(watch):
    watch.see(waiting(duration=None))

    assert watch.see(job(duration=7.0))[-1] == event("ran", "910B", cards=112.0)


def test_a_run_time_that_goes_down_counts_when_it_exceeds_what_was_counted(watching):
    watching.see(job())

    assert watching.see(job(duration=100.0)) == []
    assert watching.see(job(duration=None)) == []
    assert watching.see(job(duration=501.0)) == [event("ran", "910B", cards=16.0)]


def test_cards_are_those_that_the_job_has_now(watching):
    watching.see(job())

    assert watching.see(job(duration=510.0, nodes=4, accelerators=32)) == [
        event("ran", "910B", cards=320.0)
    ]


def test_cards_nobody_knows_are_not_counted_later(watching):
    assert watching.kinds(job(accelerators=None)) == ["created", "started"]
    assert watching.see(job(duration=501.0)) == [event("ran", "910B", cards=16.0)]


# --- Disappearance --------------------------------------------------------------------------------


def test_a_job_that_is_not_mentioned_stays(watching):
    watching.see(job())

    assert watching.see() == []
    assert watching["a"].job == job()


def test_a_job_is_deleted_when_that_is_confirmed(watching):
    watching.see(job())

    assert watching.see(deleted=["a"]) == [event("deleted", "Running")]
    assert watching.deleted == {"a"}
    assert jobs_in(watching.fleet) == {}
    assert watching.see(deleted=["a"]) == []
    assert watching.deleted == frozenset()


def test_a_job_may_be_read_and_gone_in_one_view(watching):
    watching.see(job())

    assert watching.see(job(phase="Failed"), deleted=["a"]) == [
        event("finished", "Failed", seconds=500.0, cards=8000.0),
        event("deleted", "Failed"),
    ]
    assert (jobs_in(watching.fleet), watching.changed) == ({}, {})


def test_jobs_nobody_knew_cannot_go(watching):
    assert watching.see(deleted=["b"]) == []
    assert watching.deleted == frozenset()


# --- When it ended --------------------------------------------------------------------------------


def test_a_job_ended_when_it_says_so(watching):
    watching.see(job(phase="Failed", ended=NOW - 7))

    assert watching["a"].ended == NOW - 7


def test_a_job_that_tells_no_end_ended_when_it_was_first_seen_finished(watching):
    watching.see(waiting(phase="Creating"))
    for _ in range(3):
        watching.see(waiting(phase="Abnormal"))

    assert watching["a"].ended == NOW + 120


def test_a_baseline_job_that_tells_no_end_ended_when_it_was_created(watch):
    watch.see(waiting("a", phase="Abnormal"), waiting("b", phase="Abnormal", created=None))

    assert (watch["a"].ended, watch["b"].ended) == (NOW - 600, NOW)


def test_a_job_that_runs_again_has_not_ended(watching):
    watching.see(job(phase="Failed", ended=NOW - 7))
    watching.see(job())

    assert watching["a"].ended is None


# --- Where it counts ------------------------------------------------------------------------------


def test_bases_and_their_cards_are_remembered_when_their_last_job_is_gone(watch):
    watch.see(
        job("a"),
        job("b", accelerator="910C"),
        job("c", flavor_type="CPU", accelerators=None),
    )
    watch.see(deleted=["a", "b", "c"])

    assert watch.fleet.accelerators == {
        BASE: {"910B", "910C"},
        Base("0", "pool-1", "CPU"): frozenset(),
    }


def test_a_base_is_seen_although_its_job_is_gone_at_once(watching):
    assert watching.kinds(job(pool="new"), deleted=["a"]) == [
        "created",
        "started",
        "ran",
        "deleted",
    ]

    assert Base("0", "new", "Ascend") in watching.fleet.accelerators


# --- Observing ------------------------------------------------------------------------------------


def test_the_same_view_again_changes_nothing(watching):
    jobs = [
        waiting("a"),
        job("b", runs=RUNS),
        job("c", phase="Failed", runs=RUNS),
        waiting("d", phase="Abnormal"),
    ]
    watching.see(*jobs, deleted=["x"])
    before = watching.fleet

    assert watching.see(*copy.deepcopy(jobs), deleted=["x"]) == []
    assert (watching.fleet, watching.changed, watching.deleted) == (before, {}, frozenset())


def test_only_what_has_changed_is_told(watching):
    watching.see(waiting("a"), waiting("b"))
    watching.see(waiting("a"), job("b"))

    assert watching.changed == {"b": watching["b"]}


def test_what_was_known_is_not_changed(watch):
    watch.see(job(runs=RUNS))
    before = watch.fleet
    kept = copy.deepcopy(before)
    watch.see(job("b", phase="Abnormal", pool="other"), deleted=["a"])

    assert before == kept
