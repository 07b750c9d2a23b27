"""Derive what happened to a target's jobs by comparing what is known with what a poll read. Pure.

`observe` takes the known state, a view and a time; it returns the new state and the events. It uses
no clock, disk, HTTP or metric. Every event is reported exactly once, even if jobs are read late,
twice, or in two phases. The rules:

**First sight.** A job in the first view of its workspace is a baseline: nothing it did before is an
event. So is a job found later that is more than an hour older than the newest job listed before: it
existed, but was hidden from us. If a baseline job has no usable phase, its baseline is the first
reading that has one. Every other job seen for the first time was *created*, and everything it has
done is an event. A job of a workspace that is not polled itself is compared with the newest jobs of
the workspaces that are.

**Start.** A job *started* once, when its start time is first seen. Its queue time is the start time
minus the create time.

**Restarts.** A restart is a running record after the first. Record number n counts once, with its
own start type and the recovery of the record before it, both as first seen (``unknown`` if there
was no recovery). Missing records mean nothing; records that shrink or are rewritten change nothing.
If a baseline job had run but its records are first seen later, those that began after the baseline
count. A gap between the end of one record and the start of the next is recovery time; a negative
gap counts as 0.

**Attempts.** An attempt has ended when a record names the recovery that followed it; once for each
record. It is a downgrade if another policy was tried first.

**End.** A job *finished* when it is seen in a terminal phase and its last end is not counted yet.
It must be seen active again before another end counts: a change from one terminal phase to another
is a correction, and an undocumented phase means nothing. Its run time is observed once, at the
first end at which it has run.

**Card seconds.** Run time is the part of ``duration`` that exceeds what was counted before, times
the current number of cards. An end counts all run time that no earlier end of the job has counted,
by phase.

**Disappearance.** A job is deleted only when the view says that the service confirmed it; it is
then forgotten. A job that a view does not mention, or shows without a usable phase, is unchanged.

**Names of pools.** The names received last replace all earlier ones; they are not events.

**End time.** Taken from the job's records or duration. If a job has neither (it never started), it
ended when it was first seen finished, or, for a baseline job, when it was created.

A job counts under the pool, flavor type and phase that it has when its event is seen.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec

from exporter.jobs.job import ACTIVE, TERMINAL, UNKNOWN_PHASE, Job, Run, View

HIDDEN_SECONDS = 3600.0
"""A job older than the newest known job by more than this was hidden from us, not created."""

_UNKNOWN = "unknown"
_ALWAYS = float("-inf")

EventKind = Literal[
    "created", "started", "restarted", "recovered", "attempted", "downgraded", "ran", "finished",
    "deleted",
]  # fmt: skip


class Base(NamedTuple):
    """The labels that all fleet metrics share."""

    workspace: str
    pool: str
    flavor_type: str


class Restart(NamedTuple):
    """How a run after the first began, and the recovery that led to it."""

    start_type: str
    recovery: str


class Event(NamedTuple):
    """Something that happened to a job.

    Attributes:
        kind: ``recovered`` = a gap between two runs ended; ``attempted`` = a run ended in a
            recovery; ``ran`` = cards were in use.
        labels: ``restarted``: start type, recovery; ``recovered``, ``attempted``: recovery;
            ``downgraded``: policy tried first, policy applied; ``ran``: accelerator;
            ``finished``, ``deleted``: phase; else none.
        seconds: ``started``: queue time; ``recovered``: the gap; ``attempted``: the run;
            ``finished``: run time, at the first end after a run; None = unknown or not
            applicable.
        card_seconds: of ``ran``, ``recovered``, ``finished``; None likewise.
    """

    kind: EventKind
    job_id: str
    base: Base
    labels: tuple[str, ...] = ()
    seconds: float | None = None
    card_seconds: float | None = None


class TrackedJob(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The state kept for a job.

    The state file stores it, and the structs in it, by position: fields can be renamed, but not
    reordered, retyped or removed. Append a new field at the end, with a default: older rows decode
    with the default, and older versions ignore the field (`exporter.storage.tables`).

    Attributes:
        job: as last read.
        ended: unix seconds at which it ended, as far as known; None while it has not.
        end_counted: its latest end is counted, or was part of the baseline.
        start_counted: its start is counted, or was part of the baseline.
        restarts: all restarts ever seen, as first seen.
        records_checked: number of leading running records already checked for ended attempts.
        count_records_from: unix seconds; earlier records belong to the baseline. -inf = every
            record not yet known counts. None = likewise, and the job is not a baseline.
        run_seconds_counted: run time already counted; None = unknown at the baseline.
        end_seconds_counted: run time counted by its ends; None before the first end after a run.
    """

    job: Job
    ended: float | None
    end_counted: bool
    start_counted: bool
    restarts: tuple[Restart, ...]
    records_checked: int
    count_records_from: float | None
    run_seconds_counted: float | None
    end_seconds_counted: float | None


@dataclass(frozen=True)
class Fleet:
    """Everything known about one target's jobs.

    Attributes:
        jobs: by id.
        accelerators: every product name seen for a base; empty for a base without cards.
        newest_created: by workspace, create time (unix seconds) of the newest job ever listed, -inf
            if none was. A workspace that is missing here has not been read yet.
        pool_names: by pool id, as last received.
    """

    jobs: Mapping[str, TrackedJob] = field(default_factory=dict)
    accelerators: Mapping[Base, frozenset[str]] = field(default_factory=dict)
    newest_created: Mapping[str, float] = field(default_factory=dict)
    pool_names: Mapping[str, str] = field(default_factory=dict)


class Observation(NamedTuple):
    """The outcome of a view.

    Attributes:
        fleet: everything known now.
        events: what happened.
        changed: jobs that are new or whose state differs, by id.
        deleted: ids of jobs that were known and are now forgotten.
    """

    fleet: Fleet
    events: list[Event]
    changed: dict[str, TrackedJob]
    deleted: frozenset[str]


def base_of(job: Job) -> Base:
    """Return the labels that a job counts under."""
    return Base(job.workspace, job.pool, job.flavor_type)


def observe(fleet: Fleet, view: View, now: float) -> Observation:
    """Apply a view to what is known.

    Args:
        fleet: everything known before.
        view: the result of a poll.
        now: unix seconds.
    """
    events: list[Event] = []
    changed: dict[str, TrackedJob] = {}
    for job in view.jobs.values():
        known = fleet.jobs.get(job.id)
        if known is None:
            known = _first_sight(job, _newest_listed_before(job, fleet, view), now)
            if known.count_records_from is None:
                events.append(Event("created", job.id, base_of(job)))
            if job.id in view.without_phase:
                changed[job.id] = _await_phase(known)
                continue
        elif job.id in view.without_phase or known.job is job or known.job == job:
            continue
        elif _awaits_phase(known):
            known = _first_sight(job, None, now)
        changed[job.id] = _update(known, job, now, events)
    jobs = {**fleet.jobs, **changed}
    accelerators = _accelerators(fleet, changed)
    deleted = view.deleted & jobs.keys()
    for job_id in sorted(deleted):
        job = jobs.pop(job_id).job
        changed.pop(job_id, None)
        events.append(Event("deleted", job_id, base_of(job), (job.phase,)))
    pool_names = fleet.pool_names if view.pool_names is None else view.pool_names
    after = Fleet(jobs, accelerators, _advance_newest_created(fleet, view), pool_names)
    return Observation(after, events, changed, frozenset(deleted))


def _newest_listed_before(job: Job, fleet: Fleet, view: View) -> float | None:
    """Create time of the newest job listed before in the job's workspace; None = never read."""
    newest = fleet.newest_created.get(job.workspace)
    if newest is None and job.workspace not in view.newest_created:
        return min(fleet.newest_created.values(), default=None)
    return newest


def _first_sight(job: Job, newest_before: float | None, now: float) -> TrackedJob:
    """Return the state as if the job had been known before: new, or a baseline."""
    if newest_before is not None:
        hidden = job.created is not None and job.created < newest_before - HIDDEN_SECONDS
        if not hidden:
            return TrackedJob(
                job,
                ended=None,
                end_counted=False,
                start_counted=False,
                restarts=(),
                records_checked=0,
                count_records_from=None,
                run_seconds_counted=0.0,
                end_seconds_counted=None,
            )
    finished, has_run = job.phase in TERMINAL, _has_run(job)
    return TrackedJob(
        job,
        ended=job.created if finished else None,
        end_counted=finished,
        start_counted=has_run,
        restarts=tuple(restart for _, restart in _restarts(job.runs or (), 0)),
        records_checked=_count_until_last_recovery(job.runs or ()),
        count_records_from=now if has_run and not job.runs else _ALWAYS,
        run_seconds_counted=0.0 if job.duration is None and not has_run else job.duration,
        end_seconds_counted=job.duration or 0.0 if finished and has_run else None,
    )


def _await_phase(known: TrackedJob) -> TrackedJob:
    """Mark a baseline job without a usable phase: its baseline is still to come."""
    if known.count_records_from is None:
        return known
    return msgspec.structs.replace(known, run_seconds_counted=None)


def _awaits_phase(known: TrackedJob) -> bool:
    return known.job.phase == UNKNOWN_PHASE and known.run_seconds_counted is None


def _update(known: TrackedJob, job: Job, now: float, events: list[Event]) -> TrackedJob:
    """Return the state after a job was read, and append its events."""
    base = base_of(job)
    start_counted = known.start_counted
    if not start_counted and job.started is not None:
        start_counted = True
        events.append(Event("started", job.id, base, seconds=_queue_seconds(job)))
    restarts, records_checked, count_records_from = _count_records(known, job, base, events)
    run_seconds_counted = _count_run_time(known, job, base, events)
    end_counted, end_seconds_counted = known.end_counted, known.end_seconds_counted
    if job.phase in ACTIVE:
        end_counted = False
    elif job.phase in TERMINAL and not end_counted:
        end_counted = True
        events.append(_finished_event(known, job, base))
        if _has_run(job):
            end_seconds_counted = max(end_seconds_counted or 0.0, job.duration or 0.0)
    return TrackedJob(
        job, _end_time(known, job, now), end_counted, start_counted, restarts, records_checked,
        count_records_from, run_seconds_counted, end_seconds_counted,
    )  # fmt: skip


def _has_run(job: Job) -> bool:
    """Whether anything shows that the job has ever started."""
    return job.started is not None or bool(job.duration) or bool(job.runs)


def _queue_seconds(job: Job) -> float | None:
    if job.created is None or job.started is None or job.started < job.created:
        return None
    return job.started - job.created


def _end_time(known: TrackedJob, job: Job, now: float) -> float | None:
    if job.phase in ACTIVE:
        return None
    if job.ended is not None:
        return job.ended
    return now if known.ended is None and job.phase in TERMINAL else known.ended


def _count_records(
    known: TrackedJob, job: Job, base: Base, events: list[Event]
) -> tuple[tuple[Restart, ...], int, float | None]:
    """Append the events of running records; return the three fields of `TrackedJob` about them."""
    if not job.runs:
        return known.restarts, known.records_checked, known.count_records_from
    count_from = _ALWAYS if known.count_records_from is None else known.count_records_from
    restarts = list(known.restarts)
    for number, restart in _restarts(job.runs, len(restarts)):
        restarts.append(restart)
        if _may_be_since(count_from, job.runs[number].start):
            events.append(Event("restarted", job.id, base, restart))
            events += _recovery_events(job, job.runs[number - 1], job.runs[number], base)
    checked = max(known.records_checked, _count_until_last_recovery(job.runs))
    for run in job.runs[known.records_checked : checked]:
        if run.recovery and _may_be_since(count_from, run.end):
            events += _attempt_events(job, run, base)
    return tuple(restarts), checked, None if known.count_records_from is None else _ALWAYS


def _restarts(runs: tuple[Run, ...], known: int) -> Iterator[tuple[int, Restart]]:
    """Yield the restarts after the first ``known`` ones, with the number of their record."""
    for number in range(known + 1, len(runs)):
        yield number, Restart(runs[number].start_type, runs[number - 1].recovery or _UNKNOWN)


def _count_until_last_recovery(runs: tuple[Run, ...]) -> int:
    """Count the records from the first to the last that names a recovery."""
    return max((number + 1 for number, run in enumerate(runs) if run.recovery), default=0)


def _may_be_since(count_from: float, moment: float | None) -> bool:
    """Whether it may be after the baseline; records have whole seconds, rounded down."""
    return count_from == _ALWAYS or (moment is not None and moment + 1 > count_from)


def _recovery_events(job: Job, ended: Run, following: Run, base: Base) -> Iterator[Event]:
    if ended.end is None or following.start is None:
        return
    gap = max(0.0, following.start - ended.end)
    card_seconds = None if job.accelerators is None else gap * job.accelerators
    labels = (ended.recovery or _UNKNOWN,)
    yield Event("recovered", job.id, base, labels, seconds=gap, card_seconds=card_seconds)


def _attempt_events(job: Job, run: Run, base: Base) -> Iterator[Event]:
    if run.start is not None and run.end is not None:
        yield Event("attempted", job.id, base, (run.recovery,), seconds=run.end - run.start)
    if run.recovery_before and run.recovery_before != run.recovery:
        yield Event("downgraded", job.id, base, (run.recovery_before, run.recovery))


def _count_run_time(known: TrackedJob, job: Job, base: Base, events: list[Event]) -> float | None:
    """Append the event for new run time; return the run seconds counted now."""
    counted = known.run_seconds_counted
    if job.duration is None:
        return counted
    if counted is None:
        return job.duration
    if job.duration <= counted:
        return counted
    if job.accelerators is not None:
        card_seconds = (job.duration - counted) * job.accelerators
        events.append(Event("ran", job.id, base, (job.accelerator,), card_seconds=card_seconds))
    return job.duration


def _finished_event(known: TrackedJob, job: Job, base: Base) -> Event:
    seconds = card_seconds = None
    counted = known.end_seconds_counted
    if _has_run(job) and job.duration is not None:
        seconds = job.duration if counted is None else None
        if job.accelerators is not None:
            card_seconds = max(0.0, job.duration - (counted or 0.0)) * job.accelerators
    return Event("finished", job.id, base, (job.phase,), seconds=seconds, card_seconds=card_seconds)


def _accelerators(fleet: Fleet, changed: Mapping[str, TrackedJob]) -> Mapping[Base, frozenset[str]]:
    collected = dict(fleet.accelerators)
    for known in changed.values():
        job = known.job
        names = collected.get(base := base_of(job), frozenset())
        if job.accelerators is not None and job.accelerator not in names:
            names |= {job.accelerator}
        collected[base] = names
    return collected


def _advance_newest_created(fleet: Fleet, view: View) -> Mapping[str, float]:
    newest_created = dict(fleet.newest_created)
    for workspace, newest in view.newest_created.items():
        newest_created[workspace] = max(newest, newest_created.get(workspace, newest))
    return newest_created
