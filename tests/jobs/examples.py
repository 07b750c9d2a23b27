"""Example jobs and running records for tests."""

import msgspec

from exporter.jobs.job import Job, Run

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


def run(start=None, end=None, recovery="", *, start_type=FIRST, before="", reason=""):
    """A running record; times in seconds after `NOW`."""
    return Run(
        start=None if start is None else NOW + start,
        end=None if end is None else NOW + end,
        start_type=start_type,
        recovery=recovery,
        recovery_before=before,
        reason=reason,
    )
