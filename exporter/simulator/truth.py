"""Ground truth: the world's own record of events and state, never taken from responses."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from exporter.simulator.job import Job, Run

KINDS = (
    "created",
    "queued",
    "started",
    "interrupted",
    "downgraded",
    "restarted",
    "stopping",
    "entered",
    "finished",
    "reactivated",
    "deleted",
)


class Event(NamedTuple):
    """Something that happened to a job, ``at`` in unix seconds.

    ``phase`` is the job's phase after it; of ``deleted`` its last one. ``restarted`` has the new
    run's start type and the recovery that led to it (``unknown`` if none was given),
    ``interrupted`` the recovery begun, ``downgraded`` the recovery tried first and the one used,
    ``finished`` the exit code of the failed task, if any.
    """

    at: float
    kind: str
    job: Job
    phase: str
    start_type: str = ""
    recovery: str = ""
    from_recovery: str = ""
    to_recovery: str = ""
    exit_code: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return fields for JSON, with the labels that fleet metrics share."""
        workspace, pool, flavor_type = self.job.base
        details = {
            "start_type": self.start_type,
            "recovery": self.recovery,
            "from_recovery": self.from_recovery,
            "to_recovery": self.to_recovery,
            "exit_code": self.exit_code,
        }
        return {
            "at": self.at,
            "kind": self.kind,
            "job": self.job.id,
            "phase": self.phase,
            "workspace": workspace,
            "pool": pool,
            "flavor_type": flavor_type,
            "cards": self.job.cards,
            "accelerator": self.job.accelerator,
        } | {name: value for name, value in details.items() if value not in ("", None)}


def facts(job: Job, now: float) -> dict[str, Any]:
    """Return the facts of a job that a client should find out; times in seconds or None.

    ``runs`` are in whole seconds, as shown by the service.
    """
    restarts = Counter(
        (run.start_type, before.recovery or "unknown")
        for before, run in zip(job.runs, job.runs[1:], strict=False)
    )
    workspace, pool, flavor_type = job.base
    return {
        "id": job.id,
        "name": job.name,
        "user": job.user.name,
        "workspace": workspace,
        "kind": job.kind,
        "phase": job.phase,
        "pool": pool,
        "pool_name": job.pool.name if job.pool.id else "",
        "flavor_type": flavor_type,
        "flavor": job.flavor.id or "",
        "accelerator": job.accelerator,
        "cards": job.cards,
        "nodes": job.nodes,
        "nodes_up": job.nodes_up,
        "created": job.created,
        "started": job.started,
        "ended": job.ended,
        "duration": job.running_seconds(now),
        "restarts": [
            {"start_type": start_type, "recovery": recovery, "count": count}
            for (start_type, recovery), count in sorted(restarts.items())
        ],
        "runs": [_run(run) for run in job.runs],
        "failed_task": job.failed_task,
        "exit_code": job.exit_code,
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "start": int(run.start),
        "end": None if run.end is None else int(run.end),
        "start_type": run.start_type,
        "recovery": run.recovery,
        "recovery_before": run.recovery_before,
    }


def summary(jobs: Iterable[Job]) -> dict[str, list[dict[str, Any]]]:
    """Return the current state by workspace, pool and flavor type (and phase, and accelerator).

    ``jobs``: all jobs. ``nodes`` and ``cards``: as requested by active jobs.
    ``oldest_pending``: create time in seconds of the oldest job in Creating or Pending.
    """
    phases: Counter[tuple[str, ...]] = Counter()
    nodes: Counter[tuple[str, ...]] = Counter()
    cards: Counter[tuple[str, ...]] = Counter()
    oldest: dict[tuple[str, ...], float] = {}
    for job in jobs:
        base = job.base
        phases[*base, job.phase] += 1
        if not job.active:
            continue
        nodes[*base, job.phase] += job.nodes
        if job.cards:
            cards[*base, job.phase, job.accelerator] += job.cards
        if job.phase in ("Creating", "Pending"):
            oldest[base] = min(job.created, oldest.get(base, job.created))
    return {
        "jobs": _rows(phases, "phase"),
        "nodes": _rows(nodes, "phase"),
        "cards": _rows(cards, "phase", "accelerator"),
        "oldest_pending": _rows(oldest),
    }


def _rows(values: dict[tuple[str, ...], Any], *more: str) -> list[dict[str, Any]]:
    names = ("workspace", "pool", "flavor_type", *more)
    return [
        dict(zip(names, labels, strict=True)) | {"value": value}
        for labels, value in sorted(values.items())
    ]
