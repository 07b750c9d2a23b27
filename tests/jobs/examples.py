"""Example jobs and running records for tests."""

import msgspec

from exporter.jobs.job import Fault, Job, Run

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
