"""A job's earlier selves: what the service showed of it, told from what it shows now. Pure.

What the service does not tell is not invented, but something has to stand there:

- A job that waits, or waited, is *Pending* until it starts, unless it still is in Creating.
- Between two runs it is *Running*, as while pods are restarted; *Pending* where a recovery builds
  all of them again (``job_reschedule``, ``job_reschedule_with_taint``).
- When it went into Terminating, or into a phase that is not documented, is not known: at the end of
  its past, which is when it was read.
- A finished job without a known end ended when it is last heard of: at its start, or when it was
  created (`exporter.jobs.tracker` takes the same for jobs that never started).
- Its run time grows evenly while one of its running records says that it ran.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from msgspec.structs import replace

from exporter.jobs.job import TERMINAL, Job, Run

_REBUILDING = frozenset({"job_reschedule", "job_reschedule_with_taint"})


class Moment(NamedTuple):
    """A job from ``at`` (unix seconds) on."""

    at: float
    job: Job


def reconstruct(job: Job, read_at: float) -> list[Moment]:
    """A job's selves in the order of time, the job as it is now the last; [] if nothing tells when.

    Args:
        job: as read.
        read_at: unix seconds.
    """
    turns = list(_turns(job))
    if not turns:
        return []
    ran = _RunTime(job, read_at)
    moments = []
    at = turns[0][0]
    for moment, phase in turns:
        at = min(max(at, moment), read_at)
        moments.append(Moment(at, _self(job, phase, at, ran.until(at))))
    last = read_at
    if job.phase in TERMINAL:
        last = at if job.ended is None else min(max(at, job.ended), read_at)
    moments.append(Moment(last, job))
    return moments


def _turns(job: Job) -> Iterator[tuple[float, str]]:
    """When it went into which phase, apart from its last; the times may contradict each other."""
    runs = job.runs or ()
    began = job.started if job.started is not None else next(_starts(runs), None)
    created = began if job.created is None else job.created
    if created is None:
        return
    yield created, "Creating" if job.phase == "Creating" else "Pending"
    if began is not None:
        yield began, "Running"
    for run, following in pairwise((*runs, None)):
        if run is not None and run.end is not None and run.recovery:
            yield run.end, "Pending" if run.recovery in _REBUILDING else "Running"
        if following is not None and following.start is not None:
            yield following.start, "Running"


def _starts(runs: tuple[Run, ...]) -> Iterator[float]:
    return (run.start for run in runs if run.start is not None)


def _self(job: Job, phase: str, at: float, duration: float | None) -> Job:
    """A job as it was."""
    return replace(
        job,
        phase=phase,
        started=job.started if job.started is not None and job.started <= at else None,
        ended=None,
        duration=duration,
        runs=None if job.runs is None else tuple(_records(job.runs, at)),
        failed_task="",
        exit_code=None,
        message="",
    )


def _records(runs: tuple[Run, ...], at: float) -> Iterator[Run]:
    """The running records that there were; of the last one, perhaps, not yet the end."""
    for run in runs:
        if run.start is not None and run.start > at:
            return
        if run.end is not None and run.end > at:
            yield replace(run, end=None, recovery="", recovery_before="", reason="")
            return
        yield run


class _RunTime:
    """How long a job had run at some time: its ``duration`` now, spread over its runs."""

    def __init__(self, job: Job, read_at: float) -> None:
        end = read_at if job.ended is None else job.ended
        self._spans = [
            (run.start, max(run.start, end if run.end is None else run.end))
            for run in job.runs or ()
            if run.start is not None
        ]
        if not self._spans and job.started is not None:
            self._spans = [(job.started, max(job.started, end))]
        self._duration = job.duration
        self._whole = sum(end - start for start, end in self._spans)

    def until(self, at: float) -> float | None:
        """Run seconds until then."""
        if self._duration is None or not self._whole:
            return None if self._duration is None else 0.0
        done = sum(max(0.0, min(end, at) - start) for start, end in self._spans)
        return self._duration * done / self._whole
