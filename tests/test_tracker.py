"""What is known after a view, by what was known before."""

import msgspec
import pytest

from exporter.model.job import Job, Run, View
from exporter.tracker import Base, Fleet, Restart, observe

NOW = 1_700_000_000.0


def job(job_id="a", **changes):
    plain = Job(
        id=job_id,
        name="train",
        user="li",
        workspace="0",
        kind="job",
        phase="Running",
        pool="pool-1",
        pool_name="",
        flavor_type="Ascend",
        flavor="modelarts.pool.visual.8xlarge",
        accelerator="Ascend 910B",
        engine="PyTorch",
        created=NOW - 3600,
        started=NOW - 3000,
        ended=None,
        duration=3000.0,
        nodes=2,
        current_nodes=2,
        accelerators=16,
        runs=None,
        failed_task="",
        exit_code=None,
        message="",
    )
    return msgspec.structs.replace(plain, **changes)


def view(*jobs, broken=()):
    return View(
        jobs={each.id: each for each in jobs}, broken=frozenset(broken), problems=(), pages=1
    )


def run(recovery="", start_type="init_or_rescheduled"):
    return Run(
        start=NOW - 100,
        end=NOW - 50,
        start_type=start_type,
        recovery=recovery,
        recovery_before="",
        reason="",
    )


def history(*views):
    fleet = None
    for number, each in enumerate(views):
        fleet = observe(fleet, each, NOW + 60 * number)
    return fleet


def test_jobs_are_what_the_last_view_lists():
    fleet = history(view(job("a"), job("b")), view(job("b", phase="Failed", ended=NOW), job("c")))

    assert {each.id: each.phase for each in fleet.jobs.values()} == {"b": "Failed", "c": "Running"}


def test_a_job_that_cannot_be_decoded_stays_as_it_was_read_last():
    before = job("a", phase="Pending")

    assert history(view(before), view(job("b"), broken=["#1"])).jobs["a"] == before


def test_more_missing_jobs_than_broken_items_are_gone():
    fleet = history(view(job("a"), job("b"), job("c")), view(job("c"), broken=["#1"]))

    assert set(fleet.jobs) == {"c"}


def test_restarts_are_runs_after_the_first_by_the_recovery_before():
    runs = (run("job_reschedule"), run("proc_restart"), run(start_type="restarted"))

    assert history(view(job(runs=runs))).restarts == {
        "a": (
            Restart("init_or_rescheduled", "job_reschedule"),
            Restart("restarted", "proc_restart"),
        )
    }


@pytest.mark.parametrize("runs", [None, (), (run(),)])
def test_no_restart_without_a_second_run(runs):
    assert history(view(job(runs=runs))).restarts == {}


@pytest.mark.parametrize(
    "later",
    [
        pytest.param(None, id="absent"),
        pytest.param((), id="empty"),
        pytest.param((run("pod_reschedule"),), id="shrunk"),
        pytest.param((run("proc_restart"), run()), id="rewritten"),
        pytest.param((run("pod_reschedule"), run()), id="the same again"),
    ],
)
def test_a_restart_is_counted_once_whatever_records_do_later(later):
    first = view(job(runs=(run("pod_reschedule"), run())))

    assert history(first, view(job(runs=later)), first).restarts == {
        "a": (Restart("init_or_rescheduled", "pod_reschedule"),)
    }


def test_records_that_appear_late_are_counted():
    fleet = history(view(job(runs=None)), view(job(runs=(run(""), run()))))

    assert fleet.restarts == {"a": (Restart("init_or_rescheduled", "unknown"),)}


def test_a_finished_job_ended_when_it_says_so():
    fleet = history(view(job(phase="Failed", ended=NOW - 7)))

    assert fleet.ended(fleet.jobs["a"]) == NOW - 7
    assert fleet.finished == {}


def test_a_job_that_tells_no_end_ended_when_it_was_first_seen_finished():
    aborted = view(job(phase="Abnormal", started=None, ended=None))
    fleet = history(view(job(phase="Creating")), aborted, aborted, aborted)

    assert fleet.ended(fleet.jobs["a"]) == NOW + 60


def test_a_job_already_finished_at_the_first_view_ended_at_the_latest_known_time():
    fleet = history(view(job(phase="Abnormal", started=None, created=NOW - 999)))
    unknown = history(view(job(phase="Abnormal", started=None, created=None)))

    assert fleet.ended(fleet.jobs["a"]) == NOW - 999
    assert unknown.ended(unknown.jobs["a"]) is None


def test_bases_and_their_cards_are_remembered_when_their_last_job_is_gone():
    fleet = history(
        view(
            job("a"),
            job("b", accelerator="Ascend 910C"),
            job("c", flavor_type="CPU", accelerators=None),
        ),
        view(),
    )

    assert fleet.accelerators == {
        Base("0", "pool-1", "Ascend"): {"Ascend 910B", "Ascend 910C"},
        Base("0", "pool-1", "CPU"): frozenset(),
    }


def test_what_was_known_is_not_changed():
    first = observe(None, view(job(runs=(run("pod_reschedule"), run()))), NOW)
    kept = Fleet(
        dict(first.jobs), dict(first.restarts), dict(first.finished), dict(first.accelerators)
    )

    observe(first, view(job("b", phase="Abnormal", pool="other")), NOW + 60)

    assert first == kept
