"""What happens to a target's jobs, found out by comparing what was known with what was read. Pure.

`observe` takes what was known, a view and a time; it returns what is known now and the events. It
knows no clock, disk, HTTP or metric. Whatever was read late, twice, or in two phases, every event
comes once. The rules:

**First sight.** A job that the first view of its workspace shows is a baseline: nothing that it did
before is an event. So is a job found later that is more than an hour older than the newest job
listed before: it was there, and hidden from us. Where such a job shows no usable phase, its
baseline is when it first does. Every other job seen for the first time was *created*, and all it
has done is an event. A job of a workspace that nobody asked for is judged by the horizon of those
that were asked for.

**Start.** A job *started* once, when its start time is first seen; its queue time is that minus its
create time.

**Restarts.** A restart is a running record after the first. Record number n counts once, with its
own start type and the recovery of the record before it as they were when it was first seen
(``unknown`` if there was none). Records that are absent tell nothing; records that shrink or are
rewritten change nothing. If a baseline job had run and its records are seen only later, those that
began after the baseline count. A gap between the end of a record and the start of the next is
recovery time; a negative one is 0.

**Attempts.** When a record names the recovery that followed it, an attempt has ended; once for each
record. It is a downgrade if another policy was tried first.

**End.** A job *finished* when it is seen in a terminal phase and its last end is not counted yet.
It must be seen active again before another end counts: another terminal phase alone is a
correction, and an undocumented phase says nothing. Its run time is observed once, at the first end
at which it has run.

**Card seconds.** Run time is ``duration`` as far as it exceeds what was counted before, times the
cards the job has now. At an end, all of it that no earlier end of the job has counted, by phase.

**Disappearance.** A job is deleted only when the view says that the service confirmed it; then it
is forgotten. A job that a view does not mention, or shows without a usable phase, stays as it is.

**Names of pools.** Those that were told last; they are no events.

**When it ended.** What its records or its duration say. A job that tells neither (it never started)
ended when it was first seen finished; a baseline one, when it was created.

A job counts under the pool, flavor type and phase that it has when its event is seen.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec

from exporter.jobs.job import ACTIVE, TERMINAL, UNKNOWN_PHASE, Job, Run, View

HIDDEN_SECONDS = 3600.0
"""So much older than the newest job known before, a job is not new but was hidden."""

_UNKNOWN = "unknown"

EventKind = Literal[
    "created", "started", "restarted", "recovered", "attempted", "downgraded", "ran", "finished",
    "deleted",
]  # fmt: skip


class Base(NamedTuple):
    """What fleet metrics are split by."""

    workspace: str
    pool: str
    flavor_type: str


class Restart(NamedTuple):
    """How a run after the first began, and by which recovery."""

    start_type: str
    recovery: str


class Event(NamedTuple):
    """Something that happened to a job.

    Attributes:
        kind: ``recovered`` = a gap between two runs is over; ``attempted`` = a run ended in a
            recovery; ``ran`` = cards were in use.
        labels: ``restarted``: start type, recovery; ``recovered``, ``attempted``: recovery;
            ``downgraded``: tried first, taken; ``ran``: accelerator; ``finished``, ``deleted``:
            phase; else none.
        seconds: ``started``: queue time; ``recovered``: the gap; ``attempted``: the run;
            ``finished``: run time, at the first end after a run; None = not known, or not
            applicable.
        card_seconds: ``ran``, ``recovered``, ``finished``; None likewise.
    """

    kind: EventKind
    job_id: str
    base: Base
    labels: tuple[str, ...] = ()
    seconds: float | None = None
    card_seconds: float | None = None


class TrackedJob(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What is remembered of a job.

    Attributes:
        job: as read last.
        ended: unix seconds at which it ended, as well as it is known; None while it has not.
        settled: its latest end is counted, or was there at first sight.
        started: its start is counted, or was there at first sight.
        restarts: all it ever had, as first seen.
        ends: so many of its running records are done with, as attempts.
        silent_before: unix seconds; records from before are no events. None: all are.
        ran: run seconds already counted; None = not known how many there were at first sight.
        finished: run seconds that its ends have counted; None before the first after a run.
    """

    job: Job
    ended: float | None
    settled: bool
    started: bool
    restarts: tuple[Restart, ...]
    ends: int
    silent_before: float | None
    ran: float | None
    finished: float | None


@dataclass(frozen=True)
class Fleet:
    """All that is known of one target's jobs.

    Attributes:
        jobs: by id.
        accelerators: every product name seen for a base; a base without cards has an empty set.
        horizons: by workspace, unix seconds: create time of the newest job ever listed, -inf if
            none was. A workspace without one has not been read yet.
        pool_names: by pool id, as the service told them last.
    """

    jobs: Mapping[str, TrackedJob] = field(default_factory=dict)
    accelerators: Mapping[Base, frozenset[str]] = field(default_factory=dict)
    horizons: Mapping[str, float] = field(default_factory=dict)
    pool_names: Mapping[str, str] = field(default_factory=dict)


class Observation(NamedTuple):
    """What a view has changed.

    Attributes:
        fleet: what is known now.
        events: what happened.
        changed: jobs that are known otherwise than before, by id.
        gone: ids of jobs that are known no more.
    """

    fleet: Fleet
    events: list[Event]
    changed: dict[str, TrackedJob]
    gone: frozenset[str]


def base_of(job: Job) -> Base:
    """What a job counts under."""
    return Base(job.workspace, job.pool, job.flavor_type)


def observe(fleet: Fleet, view: View, now: float) -> Observation:
    """What a view tells.

    Args:
        fleet: what was known.
        view: what was read, complete for its purpose.
        now: unix seconds.
    """
    events: list[Event] = []
    changed: dict[str, TrackedJob] = {}
    for job in view.jobs.values():
        before = fleet.jobs.get(job.id)
        if before is None:
            before = _first_sight(job, _horizon(job, fleet, view), now)
            if before.silent_before is None:
                events.append(Event("created", job.id, base_of(job)))
            if job.id in view.vague:
                changed[job.id] = _untold(before)
                continue
        elif job.id in view.vague or before.job is job or before.job == job:
            continue
        elif _is_untold(before):
            before = _first_sight(job, None, now)
        after = _followed(before, job, now, events)
        changed[job.id] = after
    jobs = {**fleet.jobs, **changed}
    accelerators = _accelerators(fleet, changed)
    gone = view.gone & jobs.keys()
    for job_id in sorted(gone):
        job = jobs.pop(job_id).job
        changed.pop(job_id, None)
        events.append(Event("deleted", job_id, base_of(job), (job.phase,)))
    pool_names = fleet.pool_names if view.pools is None else view.pools
    known = Fleet(jobs, accelerators, _horizons(fleet, view), pool_names)
    return Observation(known, events, changed, frozenset(gone))


def _horizon(job: Job, fleet: Fleet, view: View) -> float | None:
    """Create time of the newest job listed before where this one is; None = nothing was read."""
    horizon = fleet.horizons.get(job.workspace)
    if horizon is None and job.workspace not in view.horizons:
        return min(fleet.horizons.values(), default=None)
    return horizon


def _first_sight(job: Job, horizon: float | None, now: float) -> TrackedJob:
    """A job as if it had been known before: new, or with all it has done behind it."""
    if horizon is not None:
        hidden = job.created is not None and job.created < horizon - HIDDEN_SECONDS
        if not hidden:
            return TrackedJob(
                job,
                ended=None,
                settled=False,
                started=False,
                restarts=(),
                ends=0,
                silent_before=None,
                ran=0.0,
                finished=None,
            )
    over, has_run = job.phase in TERMINAL, _has_run(job)
    not_told = None if has_run else 0.0
    return TrackedJob(
        job,
        ended=job.created if over else None,
        settled=over,
        started=has_run,
        restarts=tuple(restart for _, restart in _restarts(job.runs or (), 0)),
        ends=_ends(job.runs or ()),
        silent_before=now if has_run and not job.runs else float("-inf"),
        ran=not_told if job.duration is None else job.duration,
        finished=job.duration or 0.0 if over and has_run else None,
    )


def _untold(known: TrackedJob) -> TrackedJob:
    """A job first seen without a usable phase: if a baseline, nothing of its past is known yet."""
    return known if known.silent_before is None else msgspec.structs.replace(known, ran=None)


def _is_untold(known: TrackedJob) -> bool:
    return known.job.phase == UNKNOWN_PHASE and known.ran is None


def _followed(before: TrackedJob, job: Job, now: float, events: list[Event]) -> TrackedJob:
    """What is known after a job was read; its events are added."""
    base = base_of(job)
    started = before.started
    if not started and job.started is not None:
        started = True
        events.append(Event("started", job.id, base, seconds=_queued(job)))
    restarts, ends, silent_before = _runs(before, job, base, events)
    ran = _ran(before, job, base, events)
    settled, finished = before.settled, before.finished
    if job.phase in ACTIVE:
        settled = False
    elif job.phase in TERMINAL and not settled:
        settled = True
        events.append(_end(before, job, base))
        if _has_run(job):
            finished = max(finished or 0.0, job.duration or 0.0)
    return TrackedJob(
        job, _ended(before, job, now), settled, started, restarts, ends, silent_before, ran,
        finished,
    )  # fmt: skip


def _has_run(job: Job) -> bool:
    """Whether anything says that it has ever started."""
    return job.started is not None or bool(job.duration) or bool(job.runs)


def _queued(job: Job) -> float | None:
    if job.created is None or job.started is None or job.started < job.created:
        return None
    return job.started - job.created


def _ended(before: TrackedJob, job: Job, now: float) -> float | None:
    if job.phase in ACTIVE:
        return None
    if job.ended is not None:
        return job.ended
    return now if before.ended is None and job.phase in TERMINAL else before.ended


def _runs(
    before: TrackedJob, job: Job, base: Base, events: list[Event]
) -> tuple[tuple[Restart, ...], int, float | None]:
    """Restarts, ends of attempts, and whether earlier records are silent, after these records."""
    if not job.runs:
        return before.restarts, before.ends, before.silent_before
    silent = before.silent_before if before.silent_before is not None else float("-inf")
    restarts = list(before.restarts)
    for number, restart in _restarts(job.runs, len(restarts)):
        restarts.append(restart)
        if _since(job.runs[number].start, silent):
            events.append(Event("restarted", job.id, base, restart))
            events += _recovery(job, job.runs[number - 1], job.runs[number], base)
    ends = max(before.ends, _ends(job.runs))
    for run in job.runs[before.ends : ends]:
        if run.recovery and _since(run.end, silent):
            events += _attempt(job, run, base)
    done = None if before.silent_before is None else float("-inf")
    return tuple(restarts), ends, done


def _restarts(runs: tuple[Run, ...], counted: int) -> Iterator[tuple[int, Restart]]:
    """Number and kind of the restarts after those already counted."""
    for number in range(counted + 1, len(runs)):
        yield number, Restart(runs[number].start_type, runs[number - 1].recovery or _UNKNOWN)


def _ends(runs: tuple[Run, ...]) -> int:
    """So many records, from the first, up to the last that names a recovery."""
    return max((number + 1 for number, run in enumerate(runs) if run.recovery), default=0)


def _since(moment: float | None, silent_before: float) -> bool:
    """Whether it happened after the baseline; records are in whole seconds, rounded down."""
    return silent_before == float("-inf") or (moment is not None and moment + 1 > silent_before)


def _recovery(job: Job, ended: Run, following: Run, base: Base) -> Iterator[Event]:
    if ended.end is None or following.start is None:
        return
    gap = max(0.0, following.start - ended.end)
    cards = None if job.accelerators is None else gap * job.accelerators
    labels = (ended.recovery or _UNKNOWN,)
    yield Event("recovered", job.id, base, labels, seconds=gap, card_seconds=cards)


def _attempt(job: Job, run: Run, base: Base) -> Iterator[Event]:
    if run.start is not None and run.end is not None:
        yield Event("attempted", job.id, base, (run.recovery,), seconds=run.end - run.start)
    if run.recovery_before and run.recovery_before != run.recovery:
        yield Event("downgraded", job.id, base, (run.recovery_before, run.recovery))


def _ran(before: TrackedJob, job: Job, base: Base, events: list[Event]) -> float | None:
    """Run seconds counted after this reading."""
    if job.duration is None:
        return before.ran
    if before.ran is None:
        return job.duration
    more = job.duration - before.ran
    if more <= 0:
        return before.ran
    if job.accelerators is not None:
        seconds = more * job.accelerators
        events.append(Event("ran", job.id, base, (job.accelerator,), card_seconds=seconds))
    return job.duration


def _end(before: TrackedJob, job: Job, base: Base) -> Event:
    seconds = cards = None
    if _has_run(job) and job.duration is not None:
        seconds = job.duration if before.finished is None else None
        if job.accelerators is not None:
            cards = max(0.0, job.duration - (before.finished or 0.0)) * job.accelerators
    return Event("finished", job.id, base, (job.phase,), seconds=seconds, card_seconds=cards)


def _accelerators(fleet: Fleet, changed: Mapping[str, TrackedJob]) -> Mapping[Base, frozenset[str]]:
    seen = dict(fleet.accelerators)
    for known in changed.values():
        job = known.job
        names = seen.get(base := base_of(job), frozenset())
        if job.accelerators is not None and job.accelerator not in names:
            names |= {job.accelerator}
        seen[base] = names
    return seen


def _horizons(fleet: Fleet, view: View) -> Mapping[str, float]:
    horizons = dict(fleet.horizons)
    for workspace, newest in view.horizons.items():
        horizons[workspace] = max(newest, horizons.get(workspace, newest))
    return horizons
