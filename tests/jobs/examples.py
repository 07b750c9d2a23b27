"""Example jobs and running records for tests."""

from collections import Counter

import msgspec

from exporter.jobs.fleet import EVERYTHING, Change, Fleet, advance, apply, ended_since
from exporter.jobs.job import TERMINAL, Fault, Job, Run
from exporter.jobs.tracked import group_of
from exporter.polling.handover import restored_fleet
from exporter.storage.store import SavedState

NOW = 1_750_000_000.0
FIRST, AGAIN = "init_or_rescheduled", "restarted"

_RUNNING = Job(
    id="",
    name="train",
    user="li",
    workspace="0",
    kind="job",
    phase="Running",
    pool="pool-1",
    pool_name="",
    flavor_type="Ascend",
    flavor="modelarts.pool.visual.8xlarge",
    accelerator="910B",
    engine="PyTorch",
    created=NOW - 600,
    started=NOW - 500,
    ended=None,
    duration=500.0,
    nodes=2,
    current_nodes=2,
    accelerators=16,
    runs=None,
    failed_task="",
    exit_code=None,
    message="",
)


def job(job_id="a", **changes):
    """A job that has run for 500 s, with 16 cards and no records."""
    return msgspec.structs.replace(_RUNNING, **{"id": job_id, **changes})


def waiting(job_id="a", **changes):
    """A job that has not started."""
    unstarted = {"phase": "Pending", "started": None, "duration": 0.0, "runs": None}
    return job(job_id, **(unstarted | changes))


def run(
    start=None,
    end=None,
    recovery="",
    *,
    start_type=FIRST,
    before="",
    reason="",
    computing=None,
    faults=None,
):
    """A running record; times in seconds after `NOW`."""
    return Run(
        start=_at(start),
        end=_at(end),
        start_type=start_type,
        recovery=recovery,
        recovery_before=before,
        reason=reason,
        computing=_at(computing),
        faults=faults,
    )


def fault(
    result="success", start=None, end=None, *, scenario="chip_fault", recovery="npu_step_retry"
):
    """A fault record; times in seconds after `NOW`."""
    return Fault(_at(start), _at(end), scenario, recovery, result)


def _at(seconds):
    return None if seconds is None else NOW + seconds


def jobs_in(fleet):
    """All jobs of a fleet that keeps every one of them whole, by id."""
    return {known.job.id: known for known in fleet.whole_jobs()}


def later(fleet, *, retention=float("inf"), history=0, now):
    """A fleet that keeps every job whole, as it is later."""
    counted_since = now - history if history else EVERYTHING
    left = Counter(
        group_of(known.job)
        for known in fleet.whole_jobs()
        if known.job.phase in TERMINAL and not ended_since(known, counted_since)
    )
    return advance(fleet, recent_since=now - retention, counted_since=counted_since, left=left)


def with_jobs(fleet, jobs):
    """A fleet that knows these jobs, by id, and otherwise what the given one has seen."""
    empty = Fleet(accelerators=fleet.accelerators, newest_created=fleet.newest_created)
    return apply(empty, {job_id: Change(None, known) for job_id, known in jobs.items()})


def restored(fleet, ledger):
    """What is known after a restart with a state file."""
    saved = SavedState(
        open=dict(fleet.open),
        recent=dict(fleet.recent),
        failures=list(fleet.failures.values()),
        finished=dict(fleet.counted),
        newest_created=dict(fleet.newest_created),
        ledger=dict(ledger),
        released=frozenset(),
        unified=fleet.unified,
        pool_names=fleet.names_in_jobs,
    )
    return restored_fleet(saved, saved.finished, (EVERYTHING, EVERYTHING))
