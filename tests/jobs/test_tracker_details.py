"""Faults and start-ups: the newer details of running records, each counted once."""

import msgspec
import pytest
from jobs.examples import FIRST, NOW, fault, job, jobs_in, run, waiting, with_jobs
from jobs.test_tracker import Watch, event

from exporter.jobs.tracked import Checked


def labels(result="success", scenario="chip_fault", recovery="npu_step_retry"):
    return scenario, recovery, result


def faults_of(events):
    return [each.labels for each in events if each.kind == "faulted"]


def startups_of(events):
    return [each.seconds for each in events if each.kind == "initialized"]


@pytest.fixture
def watching():
    """A job that was created, and runs, while we watched."""
    watch = Watch()
    watch.see()
    watch.see(job(runs=(run(-500, faults=()),)))
    return watch


def see_faults(watch, *faults, **more):
    """The faults that a record with these entries counts."""
    return faults_of(watch.see(job(runs=(run(-500, **more, faults=faults),))))


def test_a_fault_counts_once(watching):
    entry = fault("success", -100, -90)

    assert watching.see(job(runs=(run(-500, faults=(entry,)),))) == [
        event("faulted", "chip_fault", "npu_step_retry", "success")
    ]
    assert see_faults(watching, entry, reason="seen again") == []


def test_all_faults_of_a_new_job_count():
    watch = Watch()
    watch.see()
    runs = (
        run(-500, -400, "proc_restart", faults=(fault("downgrade"), fault("failed"))),
        run(-390, faults=(fault("success"),)),
    )

    assert faults_of(watch.see(job(runs=runs))) == [
        labels("downgrade"),
        labels("failed"),
        labels("success"),
    ]


def test_recovering_is_not_final(watching):
    assert see_faults(watching, fault("recovering", -100)) == []
    assert see_faults(watching, fault("recovering", -100), fault("failed", -80)) == [
        labels("failed")
    ]
    assert see_faults(watching, fault("success", -100, -50), fault("failed", -80)) == [
        labels("success")
    ]
    assert see_faults(watching, fault("success"), fault("failed"), fault("")) == []


@pytest.mark.parametrize("result", ["", "recovering"])
def test_an_entry_without_a_result_is_not_final(watching, result):
    assert see_faults(watching, fault(result)) == []
    assert see_faults(watching, fault("quotaExceeded")) == [labels("quotaExceeded")]


def test_entries_that_are_rewritten_or_fewer_change_nothing(watching):
    see_faults(watching, fault("success"), fault("failed"))

    assert see_faults(watching, fault("terminated"), fault("success")) == []
    assert see_faults(watching, fault("success")) == []
    assert see_faults(watching, fault("recovering"), fault("recovering")) == []
    assert see_faults(watching, fault("success"), fault("failed"), fault("success")) == [
        labels("success")
    ]


def test_absent_entries_say_nothing(watching):
    see_faults(watching, fault("success"), fault("recovering"))

    assert faults_of(watching.see(job(runs=(run(-500, reason="x"),)))) == []
    assert faults_of(watching.see(job(runs=None))) == []
    assert see_faults(watching, fault("success"), fault("failed")) == [labels("failed")]


def test_an_entry_that_was_open_and_is_absent_counts_when_it_comes_back(watching):
    see_faults(watching, fault("success"), fault("recovering"))
    see_faults(watching, fault("success"))

    assert see_faults(watching, fault("success"), fault("failed")) == [labels("failed")]


def test_faults_of_each_run_count_apart(watching):
    see_faults(watching, fault("success"))
    runs = (run(-500, -100, faults=(fault("success"),)), run(-90, faults=(fault("success"),)))

    assert faults_of(watching.see(job(runs=runs))) == [labels()]
    assert watching["a"].faults == (Checked(1), Checked(1))


def test_runs_without_faults_need_no_memory(watching):
    watching.see(job(runs=(run(-500, -100), run(-90, faults=()), run(-80))))

    assert watching["a"].faults == ()


def test_what_is_missing_in_an_entry_is_unknown(watching):
    entry = fault("success", scenario="", recovery="")

    assert see_faults(watching, entry) == [("unknown", "unknown", "success")]


# --- Start-up -------------------------------------------------------------------------------------


def test_a_start_up_is_observed_once_for_each_run(watching):
    assert startups_of(watching.see(job(runs=(run(-500, computing=-460),)))) == [40.0]
    assert startups_of(watching.see(job(runs=(run(-500, computing=-450),)))) == []
    runs = (run(-500, -400, computing=-460), run(-390, computing=-390))

    assert startups_of(watching.see(job(runs=runs))) == [0.0]


def test_start_ups_may_come_late_and_in_any_order(watching):
    runs = (run(-500, -400), run(-390, computing=-380))

    assert startups_of(watching.see(job(runs=runs))) == [10.0]
    late = (run(-500, -400, computing=-450), *runs[1:])
    assert startups_of(watching.see(job(runs=late))) == [50.0]
    assert startups_of(watching.see(job(runs=(*late, run(-300))))) == []


def test_a_run_without_a_start_has_no_start_up(watching):
    assert startups_of(watching.see(job(runs=(run(computing=-460),)))) == []
    assert startups_of(watching.see(job(runs=(run(-500, computing=-460),)))) == []


def test_a_start_up_that_is_absent_for_a_while_counts_once(watching):
    watching.see(job(runs=(run(-500, computing=-460),)))
    watching.see(job(runs=(run(-500),)))

    assert startups_of(watching.see(job(runs=(run(-500, computing=-460),)))) == []


# --- Baselines ------------------------------------------------------------------------------------


@pytest.fixture
def watch():
    """Nothing is known yet."""
    return Watch()


def test_what_the_baseline_shows_is_no_event(watch):
    runs = (
        run(-500, -400, "proc_restart", computing=-490, faults=(fault("success", -400, -390),)),
        run(-390, computing=-380, faults=(fault("recovering", -10),)),
    )
    assert watch.see(job(runs=runs)) == []

    after = (runs[0], run(-390, computing=-380, faults=(fault("failed", -10, 20),)), run(30))
    events = watch.see(job(runs=after))
    assert (faults_of(events), startups_of(events)) == ([labels("failed")], [])
    events = watch.see(job(runs=(*after[:2], run(30, computing=45, faults=(fault("success"),)))))
    assert (faults_of(events), startups_of(events)) == ([labels("success")], [15.0])


def test_a_service_that_shows_start_ups_shows_faults(watch):
    """No fault at the baseline means that there was none."""
    watch.see(job(runs=(run(-500, computing=-490),)))

    assert see_faults(watch, fault("success", -9, -8), computing=-490) == [labels()]


@pytest.mark.parametrize("runs", [None, (run(-500), run(-300))])
def test_details_that_the_baseline_did_not_show_count_if_they_are_newer(watch, runs):
    watch.see(job(runs=runs))
    late = (
        run(-500, -400, computing=-490, faults=(fault("success", -400, -390),)),
        run(-300, computing=-1, faults=(fault("failed", -9, -2), fault("failed", -9, 1))),
        run(10, computing=40, faults=(fault("terminated"),)),
    )

    events = watch.see(job(runs=late))

    assert faults_of(events) == [labels("failed"), labels("terminated")]
    assert startups_of(events) == [30.0]


def test_details_that_come_late_count_from_then_on(watch):
    watch.see(job())
    watch.see(job(runs=(run(-500, faults=(fault("success", -90, -80),)),)))

    assert see_faults(watch, fault("success", -90, -80), fault("failed", -70, -60)) == [
        labels("failed")
    ]


def test_a_job_that_waits_at_the_baseline_has_no_details_yet(watch):
    watch.see(waiting())
    events = watch.see(job(runs=(run(-50, computing=-40, faults=(fault("success", -9, -8),)),)))

    assert (faults_of(events), startups_of(events)) == ([labels()], [10.0])


def test_a_baseline_without_a_phase_is_the_first_reading_with_one(watch):
    runs = (run(-500, computing=-490, faults=(fault("success"),)),)
    watch.see(job(phase="Unknown"), without_phase=["a"])

    assert watch.see(job(runs=runs)) == []


# --- State of a version that did not count details ------------------------------------------------


def forget_details(watch):
    """As the version before would have left it."""
    jobs = {}
    for job_id, known in jobs_in(watch.fleet).items():
        runs = known.job.runs and tuple(
            msgspec.structs.replace(each, computing=None, faults=None) for each in known.job.runs
        )
        before = msgspec.structs.replace(known.job, runs=runs)
        jobs[job_id] = msgspec.structs.replace(
            known, job=before, base=None, startups=None, faults=(), count_details_from=-1e400
        )
    watch.fleet = with_jobs(watch.fleet, jobs)


def test_details_from_before_an_upgrade_are_a_baseline(watching):
    forget_details(watching)
    old = run(-500, -100, "proc_restart", computing=-490, faults=(fault("success"),))
    events = watching.see(job(runs=(old, run(-90, computing=-80, faults=(fault("failed"),)))))

    assert [each.kind for each in events] == [
        "restarted", "recovered", "attempted", "faulted", "initialized",
    ]  # fmt: skip
    assert (faults_of(events), startups_of(events)) == ([labels("failed")], [10.0])
    assert watching.see(job(runs=(old, run(-90, computing=-80, faults=(fault("failed"),))))) == []


def test_a_job_that_waited_when_the_exporter_was_upgraded_has_no_details_yet(watch):
    watch.see()
    watch.see(waiting())
    forget_details(watch)

    events = watch.see(job(runs=(run(-50, start_type=FIRST, computing=-40),)))
    assert startups_of(events) == [10.0]


def test_an_upgrade_without_details_counts_those_that_are_newer(watching):
    watching.see(job(runs=None))
    forget_details(watching)
    watching.see(job(duration=501.0), at=NOW)
    entries = (fault("success", -90, -80), fault("failed", 1, 2))

    assert see_faults(watching, *entries) == [labels("failed")]
