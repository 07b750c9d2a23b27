"""A job's past states."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs.examples import fault
from jobs.test_tracker import NOW, job, run, waiting

from exporter.commands.backfill.reconstruct import reconstruct
from exporter.jobs.job import PHASES, UNKNOWN_PHASE

READ_AT = NOW + 1000


def told(one, read_at=READ_AT):
    """The times at which it entered each phase, in seconds after `NOW`."""
    return [(moment.at - NOW, moment.job.phase) for moment in reconstruct(one, read_at)]


def ended(phase="Completed", at=400, **changes):
    plain = {"phase": phase, "ended": NOW + at, "duration": at + 500.0}
    return job(**(plain | changes))


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (waiting(), [(-600, "Pending"), (1000, "Pending")]),
        (waiting(phase="Creating"), [(-600, "Creating"), (1000, "Creating")]),
        (job(), [(-600, "Pending"), (-500, "Running"), (1000, "Running")]),
        (ended(), [(-600, "Pending"), (-500, "Running"), (400, "Completed")]),
        (
            job(phase="Terminating"),
            [(-600, "Pending"), (-500, "Running"), (1000, "Terminating")],
        ),
        (
            job(phase=UNKNOWN_PHASE),
            [(-600, "Pending"), (-500, "Running"), (1000, UNKNOWN_PHASE)],
        ),
        # It never started: its end is unknown.
        (waiting(phase="Abnormal"), [(-600, "Pending"), (-600, "Abnormal")]),
        # It started, but its end is unknown.
        (
            job(phase="Failed", duration=None),
            [(-600, "Pending"), (-500, "Running"), (-500, "Failed")],
        ),
        # It started, but only its records have a start time.
        (
            job(started=None, runs=(run(-300),)),
            [(-600, "Pending"), (-300, "Running"), (1000, "Running")],
        ),
        # Contradictory times: never backward, never after it was read.
        (ended(at=-550), [(-600, "Pending"), (-500, "Running"), (-500, "Completed")]),
        (ended(at=5000), [(-600, "Pending"), (-500, "Running"), (1000, "Completed")]),
        # No create time: the earliest time known.
        (job(created=None), [(-500, "Pending"), (-500, "Running"), (1000, "Running")]),
    ],
)
def test_phases_are_told_from_the_times_of_a_job(one, expected):
    assert told(one) == expected


def test_a_job_that_tells_no_time_has_no_past():
    assert reconstruct(waiting(created=None), READ_AT) == []


@pytest.mark.parametrize(
    ("recovery", "between"),
    [
        ("npu_proc_restart", "Running"),
        ("pod_reschedule", "Running"),
        ("job_reschedule", "Pending"),
        ("job_reschedule_with_taint", "Pending"),
        ("of_tomorrow", "Running"),
    ],
)
def test_between_two_runs_it_waits_where_all_pods_are_built_again(recovery, between):
    one = job(runs=(run(-500, -200, recovery), run(-100)))
    phases = [(-600, "Pending"), (-500, "Running"), (-200, between), (-100, "Running")]
    assert told(one) == [*phases, (1000, "Running")]


def test_a_job_that_waits_for_its_next_run_has_been_waiting_since_its_last():
    one = job(phase="Pending", runs=(run(-500, -200, "job_reschedule"),))
    phases = [(-600, "Pending"), (-500, "Running"), (-200, "Pending")]
    assert told(one) == [*phases, (1000, "Pending")]


def test_an_earlier_self_does_not_know_what_comes_later():
    one = ended(
        "Failed",
        runs=(run(-500, -200, "job_reschedule", before="npu_proc_restart"), run(-100, 400)),
        exit_code=137,
        failed_task="worker-0",
        message="exit with 137",
        duration=800.0,
    )
    created, started, stopped, again, over = (moment.job for moment in reconstruct(one, READ_AT))
    assert over == one
    assert (created.started, created.runs, created.duration) == (None, (), 0.0)
    assert (started.started, started.runs) == (one.started, (run(-500),))
    assert stopped.runs == one.runs[:1]
    assert again.runs == (one.runs[0], run(-100))
    assert [each.duration for each in (started, stopped, again)] == [0.0, 300.0, 300.0]
    assert {(each.exit_code, each.failed_task, each.message, each.ended)
            for each in (created, started, stopped, again)} == {(None, "", "", None)}  # fmt: skip


def test_run_time_is_what_the_service_says_however_long_the_records_are():
    """A duration that its records do not explain is spread over them."""
    one = ended(runs=(run(-500, -400, "proc_restart"), run(-300, 400)), duration=80.0)
    durations = [moment.job.duration for moment in reconstruct(one, READ_AT)]
    assert durations == [0.0, 0.0, 10.0, 10.0, 80.0]


def test_records_that_are_not_told_are_not_invented():
    assert all(moment.job.runs is None for moment in reconstruct(job(), READ_AT))


TIMES = st.one_of(st.none(), st.floats(-2000, 2000))
RUNS = st.lists(
    st.builds(run, TIMES, TIMES, st.sampled_from(["", "job_reschedule", "proc_restart"])),
    max_size=4,
)
JOBS = st.builds(
    lambda phase, created, started, over, duration, runs: job(
        phase=phase,
        created=None if created is None else NOW + created,
        started=None if started is None else NOW + started,
        ended=None if over is None else NOW + over,
        duration=duration,
        runs=None if runs is None else tuple(runs),
    ),
    st.sampled_from([*PHASES, UNKNOWN_PHASE]),
    TIMES,
    TIMES,
    TIMES,
    st.one_of(st.none(), st.floats(0, 5000)),
    st.one_of(st.none(), RUNS),
)


@given(JOBS)
def test_whatever_a_job_tells_its_past_runs_forward_and_ends_with_itself(one):
    moments = reconstruct(one, READ_AT)
    if not moments:
        assert one.created is None
        return
    assert moments[-1].job is one
    for before, after in pairwise(moments):
        assert before.at <= after.at <= READ_AT
        if None not in (before.job.duration, after.job.duration):
            assert 0 <= before.job.duration <= after.job.duration + 1e-6
    for moment in moments[:-1]:
        assert moment.job.phase in ("Creating", "Pending", "Running")
        assert msgspec.structs.replace(
            moment.job, **{name: getattr(one, name) for name in
                           ("phase", "started", "ended", "duration", "runs",
                            "failed_task", "exit_code", "message")}
        ) == one  # fmt: skip


def test_start_ups_and_faults_happen_at_their_time():
    """Each is a state of its own, in which the later ones have not happened yet."""
    faults = (fault("success", -300, -290), fault("failed", -250), fault("recovering", -210))
    one = job(runs=(run(-500, -200, "job_reschedule", computing=-450, faults=faults), run(-100)))

    seen = [
        (
            moment.at - NOW,
            [each.computing is not None for each in moment.job.runs],
            [each.result for each in moment.job.runs[0].faults] if moment.job.runs else [],
        )
        for moment in reconstruct(one, READ_AT)
    ]

    assert seen == [
        (-600, [], []),
        (-500, [False], ["", "", ""]),
        (-450, [True], ["", "", ""]),
        (-290, [True], ["success", "", ""]),
        (-200, [True], ["success", "failed", "recovering"]),
        (-100, [True, False], ["success", "failed", "recovering"]),
        (1000, [True, False], ["success", "failed", "recovering"]),
    ]


def test_faults_without_a_time_and_absurd_start_ups():
    one = job(runs=(run(-500, -200, "job_reschedule", computing=-50, faults=(fault(),)), run(-100)))

    assert told(one) == told(job(runs=(run(-500, -200, "job_reschedule"), run(-100))))
    results = [
        [each.result for each in moment.job.runs[0].faults]
        for moment in reconstruct(one, READ_AT)[1:]
    ]
    assert results == [[""], ["success"], ["success"], ["success"]]
