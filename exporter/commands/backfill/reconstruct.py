"""Reconstruct a job's past states from what the service reports now. Pure.

What the service does not report is not invented, but each state needs a phase and a time:

- A job that waits, or waited, is *Pending* until it starts, unless it is still in Creating.
- Between two runs it is *Running*, as while pods are restarted; *Pending* if a recovery recreates
  all of them (``job_reschedule``, ``job_reschedule_with_taint``).
- When it entered Terminating, or an undocumented phase, is not known: it counts as the end of its
  past, which is when it was read.
- A finished job without an end time ended at the last known time: its start, or its creation
  (`exporter.jobs.tracker` does the same for jobs that never started).
- Its run time grows evenly while one of its running records says that it ran.
- A fault without a time of its own counts at the end of its run.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from msgspec.structs import replace

from exporter.jobs.job import TERMINAL, Fault, Job, Run

_PENDING_RECOVERIES = frozenset({"job_reschedule", "job_reschedule_with_taint"})


class JobState(NamedTuple):
    """A job as it was from ``at`` (unix seconds) on."""

    at: float
    job: Job


def reconstruct(job: Job, read_at: float) -> list[JobState]:
    """Return a job's states in order of time, its present one last; [] if it has no time at all.

    Args:
        job: as read.
        read_at: unix seconds.
    """
    changes = list(_phase_changes(job))
    if not changes:
        return []
    run_time = _RunTime(job, read_at)
    states = []
    at = changes[0][0]
    for time, phase in changes:
        at = min(max(at, time), read_at)
        states.append(JobState(at, _past_job(job, phase, at, run_time.until(at))))
    last = read_at
    if job.phase in TERMINAL:
        last = at if job.ended is None else min(max(at, job.ended), read_at)
    states.append(JobState(last, job))
    return states


def _phase_changes(job: Job) -> Iterator[tuple[float, str]]:
    """Yield when it entered which phase, except its last; the times may contradict each other."""
    runs = job.runs or ()
    started = job.started if job.started is not None else next(_starts(runs), None)
    created = started if job.created is None else job.created
    if created is None:
        return
    yield created, "Creating" if job.phase == "Creating" else "Pending"
    if started is not None:
        yield started, "Running"
    for run, following in pairwise((*runs, None)):
        for moment in _moments(run):
            yield moment, "Running"
        if run is not None and run.end is not None and run.recovery:
            yield run.end, "Pending" if run.recovery in _PENDING_RECOVERIES else "Running"
        if following is not None and following.start is not None:
            yield following.start, "Running"


def _moments(run: Run | None) -> list[float]:
    """Return when something happened within a run: its start-up, and recoveries from faults."""
    if run is None or run.start is None:
        return []
    times = [run.computing, *(fault.end for fault in run.faults or ())]
    end = float("inf") if run.end is None else run.end
    return sorted(time for time in times if time is not None and run.start <= time <= end)


def _starts(runs: tuple[Run, ...]) -> Iterator[float]:
    return (run.start for run in runs if run.start is not None)


def _past_job(job: Job, phase: str, at: float, duration: float | None) -> Job:
    return replace(
        job,
        phase=phase,
        started=job.started if job.started is not None and job.started <= at else None,
        ended=None,
        duration=duration,
        runs=None if job.runs is None else tuple(_past_runs(job.runs, at)),
        failed_task="",
        exit_code=None,
        message="",
    )


def _past_runs(runs: tuple[Run, ...], at: float) -> Iterator[Run]:
    """Yield the running records of that time; the last one may not have ended yet."""
    for run in runs:
        if run.start is not None and run.start > at:
            return
        past = _past_details(run, at)
        if run.end is not None and run.end > at:
            yield replace(past, end=None, recovery="", recovery_before="", reason="")
            return
        yield past


def _past_details(run: Run, at: float) -> Run:
    """Return the run without its later start-up and the later results of its faults."""
    if run.computing is not None and run.computing > at:
        run = replace(run, computing=None)
    if not run.faults:
        return run
    return replace(run, faults=tuple(_past_fault(fault, run, at) for fault in run.faults))


def _past_fault(fault: Fault, run: Run, at: float) -> Fault:
    times = (fault.end, fault.start, run.end)
    moment = next((time for time in times if time is not None), None)
    return fault if moment is not None and moment <= at else replace(fault, result="")


class _RunTime:
    """Run time of a job at any time: its ``duration`` now, spread over its runs."""

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
        self._span_total = sum(end - start for start, end in self._spans)

    def until(self, at: float) -> float | None:
        """Return the run time in seconds up to a time."""
        if self._duration is None or not self._span_total:
            return None if self._duration is None else 0.0
        elapsed = sum(max(0.0, min(end, at) - start) for start, end in self._spans)
        return self._duration * elapsed / self._span_total
