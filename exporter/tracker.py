"""What is known of a target's jobs beyond what the service says at this moment. Pure.

`observe` takes what was known, a complete view and a time, and returns what is known now. It knows
no clock, disk, HTTP or metric. Its rules:

- A job that the view does not list is gone; but while items that could not be decoded may hide all
  of the missing jobs, those stay as they were read last.
- A restart is a running record after the first. Record number *n* of a job is counted once, with
  the start type and recovery that it had when it was first seen. Records that are absent, shrink or
  are rewritten later change nothing.
- A finished job's end is what its records or its duration say. A job that tells neither (it never
  started) ended when it was first seen finished; if the very first view already had it
  finished, when it was created.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from exporter.model.job import TERMINAL, Job, View


class Base(NamedTuple):
    """What fleet metrics are aggregated by."""

    workspace: str
    pool: str
    flavor_type: str


class Restart(NamedTuple):
    """How a run after the first began, and by which recovery."""

    start_type: str
    recovery: str


@dataclass(frozen=True)
class Fleet:
    """All that is known of one target's jobs.

    Attributes:
        jobs: listed by the service, by id, as read last.
        restarts: of the jobs that had any, in order.
        finished: unix seconds at which finished jobs ended that do not tell it themselves.
        accelerators: every product name seen for a base; a base without cards has an empty set.
    """

    jobs: Mapping[str, Job] = field(default_factory=dict)
    restarts: Mapping[str, tuple[Restart, ...]] = field(default_factory=dict)
    finished: Mapping[str, float] = field(default_factory=dict)
    accelerators: Mapping[Base, frozenset[str]] = field(default_factory=dict)

    def ended(self, job: Job) -> float | None:
        """Unix seconds at which a finished job ended, as well as it is known."""
        return job.ended if job.ended is not None else self.finished.get(job.id)


def observe(known: Fleet | None, view: View, now: float) -> Fleet:
    """What is known after a complete view.

    Args:
        known: before; None for the very first view.
        view: what the service lists.
        now: unix seconds.
    """
    before = known or Fleet()
    jobs = dict(view.jobs)
    missing = before.jobs.keys() - jobs.keys()
    if len(missing) <= len(view.broken):
        jobs |= {job_id: before.jobs[job_id] for job_id in missing}
    restarts = {}
    finished = {}
    accelerators = dict(before.accelerators)
    for job in jobs.values():
        if its := _restarts(before.restarts.get(job.id, ()), job):
            restarts[job.id] = its
        if job.ended is None and job.phase in TERMINAL:
            end = before.finished.get(job.id, now if known else job.created)
            if end is not None:
                finished[job.id] = end
        base = Base(job.workspace, job.pool, job.flavor_type)
        names = accelerators.get(base, frozenset())
        if job.accelerators is not None and job.accelerator not in names:
            names |= {job.accelerator}
        accelerators[base] = names
    return Fleet(jobs, restarts, finished, accelerators)


def _restarts(counted: tuple[Restart, ...], job: Job) -> tuple[Restart, ...]:
    """The restarts of a job, those already counted as they were."""
    runs = job.runs
    if runs is None or len(runs) - 1 <= len(counted):
        return counted
    return counted + tuple(
        Restart(runs[number].start_type, runs[number - 1].recovery or "unknown")
        for number in range(len(counted) + 1, len(runs))
    )
