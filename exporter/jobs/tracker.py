"""Derive what happened to a target's jobs by comparing what is known with what a poll read. Pure.

`observe` takes the known state, a view and a time; it returns the new state and the events. It uses
no clock, disk, HTTP or metric. Every event is reported exactly once, even if jobs are read late,
twice, or in two phases. The rules:

**First sight.** A job in the first view of its workspace is a baseline: nothing it did before is an
event. So is a job found later that is more than an hour older than the newest job listed before: it
existed, but was hidden from us. So is a job that was hidden because fine-tuning jobs were not asked
for: the view says so. If a baseline job has no usable phase, its baseline is the first
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

**Faults.** A fault counts once, when its record is first seen with a final result, under the values
it has then; records are known by their position. Records that are absent mean nothing, and those
that shrink or are rewritten change nothing. A recovery that was still going on at the baseline
counts when it ends. If the baseline showed no such details, those that ended after it count.

**Start-up.** Observed once for each running record, when the moment is first seen at which its
cards began to compute; baselines as for faults.

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

**Labels.** All events of a job count under one pool and flavor type: the best known when the first
of them counts. If the job has no flavor type of its own, that of its pool's other jobs is the best
(`exporter.jobs.flavor_types`). A later, better answer moves the job in the gauges at once. It moves
the job's events as long as none has counted; it is never an event itself. Likewise, all events of a
job count under one user: the one it has when the first of them counts.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

from msgspec.structs import replace as replace_struct

from exporter.jobs.flavor_types import PoolTypes
from exporter.jobs.fleet import Change, Fleet, apply
from exporter.jobs.job import ACTIVE, TERMINAL, UNKNOWN_PHASE, Job, View
from exporter.jobs.records import Progress, baseline, count_records
from exporter.jobs.tracked import (
    Base,
    Event,
    NameUser,
    TrackedJob,
    base_of,
    counted_base,
    counted_user,
    has_run,
    settled_base,
)

HIDDEN_SECONDS = 3600.0
"""A job older than the newest known job by more than this was hidden from us, not created."""


class Observation(NamedTuple):
    """The outcome of a view.

    Attributes:
        fleet: everything known now.
        events: what happened.
        changes: jobs that are new, whose state differs, or that are forgotten, by id.
    """

    fleet: Fleet
    events: list[Event]
    changes: dict[str, Change]

    @property
    def jobs(self) -> dict[str, TrackedJob]:
        """The new and changed jobs, by id."""
        return {job_id: after for job_id, (_, after) in self.changes.items() if after is not None}

    @property
    def gone(self) -> frozenset[str]:
        """The ids of jobs that are forgotten."""
        return frozenset(job_id for job_id, (_, after) in self.changes.items() if after is None)


def observe(
    fleet: Fleet,
    view: View,
    now: float,
    known: Mapping[str, TrackedJob] | None = None,
    name_user: NameUser | None = None,
) -> Observation:
    """Apply a view to what is known.

    Args:
        fleet: everything known before.
        view: the result of a poll.
        now: unix seconds.
        known: jobs that the view mentions and that the fleet does not keep whole, by id; also
            those whose flavor type depends on the `pools_with_news`.
        name_user: under which name a user counts; None = events do not count by user.
    """
    stored = known or {}
    events: list[Event] = []
    changes: dict[str, Change] = {}
    types = _learn_types(fleet, view)
    for read in view.jobs.values():
        before = fleet.find(read.id) or stored.get(read.id)
        first = len(events)
        after = _observe_job(before, read, fleet, view, types, now=now, events=events)
        if after is not None and name_user is not None and len(events) > first:
            after = _name_user(after, name_user, events, first)
        if after is not None and after is not before:
            changes[read.id] = Change(before, after)
    changes |= _moved(fleet, stored, changes, types)
    accelerators = _accelerators(fleet, changes)
    for job_id in sorted(view.deleted | view.forgotten):
        before = fleet.find(job_id) or stored.get(job_id)
        last = changes[job_id].after if job_id in changes else before
        if last is not None:
            if job_id in view.deleted:
                base = counted_base(last, last.job)
                user = None if name_user is None else last.user
                events.append(Event("deleted", job_id, base, (last.job.phase,), user=user))
            changes[job_id] = Change(before, None)
    after_fleet = replace(
        apply(fleet, changes),
        accelerators=accelerators,
        newest_created=_advance_newest_created(fleet, view),
        pool_names=fleet.pool_names if view.pool_names is None else view.pool_names,
        pool_types=fleet.pool_types if view.pool_types is None else view.pool_types,
        unified=_unified(fleet, view),
        incomplete=fleet.incomplete - view.unified.keys(),
        verification={**fleet.verification, **view.verification},
    )
    return Observation(after_fleet, events, changes)


def pools_with_news(fleet: Fleet, view: View) -> frozenset[str]:
    """Return the pools of which a view shows a flavor type that was not known.

    Jobs of these pools whose flavor type is unknown may change, even if the view does not mention
    them.
    """
    return frozenset(_learn_types(fleet, view).news)


def _learn_types(fleet: Fleet, view: View) -> PoolTypes:
    types = PoolTypes(fleet.accelerators, fleet.pool_types)
    if view.pool_types is not None:
        types.learn_list(view.pool_types)
    for job in view.jobs.values():
        types.learn(job)
    return types


def _observe_job(
    before: TrackedJob | None,
    read: Job,
    fleet: Fleet,
    view: View,
    types: PoolTypes,
    *,
    now: float,
    events: list[Event],
) -> TrackedJob | None:
    """Return the state of a job that was read, and append its events; None = it is unchanged."""
    job = types.complete(read, None if before is None else before.job)
    if before is None:
        known = _first_sight(job, _newest_listed_before(job, fleet, view), now)
        if known.count_records_from is None:
            events.append(Event("created", job.id, base_of(job)))
        if job.id in view.without_phase:
            return _await_phase(known)
    elif job.id in view.without_phase or before.job is job or before.job == job:
        return None
    elif _awaits_phase(before):
        known = _first_sight(job, None, now)
    else:
        known = before
    return _update(known, job, now, events)


def _name_user(
    known: TrackedJob, name_user: NameUser, events: list[Event], first: int
) -> TrackedJob:
    """Let a job and its events, from the one at ``first`` on, count under one user."""
    user = counted_user(known, name_user)
    events[first:] = [event._replace(user=user) for event in events[first:]]
    return known if known.user == user else replace_struct(known, user=user)


def _newest_listed_before(job: Job, fleet: Fleet, view: View) -> float | None:
    """Create time of the newest job listed before in the job's workspace.

    None = the job belongs to the baseline: the workspace was never read, or not for such jobs, or
    the job may have been known and lost.
    """
    if job.id in view.hidden:
        return None
    newest = fleet.newest_created.get(job.workspace)
    if newest is None and job.workspace not in view.newest_created:
        return min(fleet.newest_created.values(), default=None)
    lost = job.workspace in fleet.incomplete
    if lost and newest is not None and (job.created is None or job.created <= newest):
        return None
    return newest


def _first_sight(job: Job, newest_before: float | None, now: float) -> TrackedJob:
    """Return the state as if the job had been known before: new, or a baseline."""
    if newest_before is not None:
        hidden = job.created is not None and job.created < newest_before - HIDDEN_SECONDS
        if not hidden:
            return _tracked(
                job,
                Progress(),
                ended=None,
                end_counted=False,
                start_counted=False,
                run_seconds_counted=0.0,
                end_seconds_counted=None,
                base=base_of(job),
            )
    finished, ran = job.phase in TERMINAL, has_run(job)
    return _tracked(
        job,
        baseline(job, now),
        ended=job.created if finished else None,
        end_counted=finished,
        start_counted=ran,
        run_seconds_counted=0.0 if job.duration is None and not ran else job.duration,
        end_seconds_counted=job.duration or 0.0 if finished and ran else None,
        base=None,
    )


def _tracked(
    job: Job,
    progress: Progress,
    *,
    ended: float | None,
    end_counted: bool,
    start_counted: bool,
    run_seconds_counted: float | None,
    end_seconds_counted: float | None,
    base: Base | None,
    user: str | None = None,
) -> TrackedJob:
    restarts, records_checked, count_records_from, startups, faults, count_details_from = progress
    return TrackedJob(
        job, ended, end_counted, start_counted, restarts, records_checked, count_records_from,
        run_seconds_counted, end_seconds_counted, base, startups, faults, count_details_from, user,
    )  # fmt: skip


def _await_phase(known: TrackedJob) -> TrackedJob:
    """Mark a baseline job without a usable phase: its baseline is still to come."""
    if known.count_records_from is None:
        return known
    return replace_struct(known, run_seconds_counted=None)


def _awaits_phase(known: TrackedJob) -> bool:
    return known.job.phase == UNKNOWN_PHASE and known.run_seconds_counted is None


def _update(known: TrackedJob, job: Job, now: float, events: list[Event]) -> TrackedJob:
    """Return the state after a job was read, and append its events."""
    base = counted_base(known, job)
    counted_before = len(events)
    start_counted = known.start_counted
    if not start_counted and job.started is not None:
        start_counted = True
        events.append(Event("started", job.id, base, seconds=_queue_seconds(job)))
    progress = count_records(known, job, base, now, events)
    run_seconds_counted = _count_run_time(known, job, base, events)
    end_counted, end_seconds_counted = known.end_counted, known.end_seconds_counted
    if job.phase in ACTIVE:
        end_counted = False
    elif job.phase in TERMINAL and not end_counted:
        end_counted = True
        events.append(_finished_event(known, job, base))
        if has_run(job):
            end_seconds_counted = max(end_seconds_counted or 0.0, job.duration or 0.0)
    settled = settled_base(known) is not None or len(events) > counted_before
    return _tracked(
        job,
        progress,
        ended=_end_time(known, job, now),
        end_counted=end_counted,
        start_counted=start_counted,
        run_seconds_counted=run_seconds_counted,
        end_seconds_counted=end_seconds_counted,
        base=base if settled else None,
        user=known.user,
    )


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
    if has_run(job) and job.duration is not None:
        seconds = job.duration if counted is None else None
        if job.accelerators is not None:
            card_seconds = max(0.0, job.duration - (counted or 0.0)) * job.accelerators
    return Event("finished", job.id, base, (job.phase,), seconds=seconds, card_seconds=card_seconds)


def _moved(
    fleet: Fleet,
    stored: Mapping[str, TrackedJob],
    changes: Mapping[str, Change],
    types: PoolTypes,
) -> dict[str, Change]:
    """Return the jobs whose flavor type became known by that of their pool; no event counts."""
    moved: dict[str, Change] = {}
    if not types.news:
        return moved
    for known in chain(fleet.whole_jobs(), stored.values()):
        if known.job.pool in types.news and known.job.id not in changes:
            job = types.complete(known.job)
            if job is not known.job:
                after = replace_struct(known, job=job, base=settled_base(known))
                moved[job.id] = Change(known, after)
    return moved


def _accelerators(fleet: Fleet, changes: Mapping[str, Change]) -> Mapping[Base, frozenset[str]]:
    collected = dict(fleet.accelerators)
    for _, known in changes.values():
        if known is None:
            continue
        job = known.job
        for base in {base_of(job), known.base or base_of(job)}:
            names = collected.get(base, frozenset())
            if job.accelerators is not None and job.accelerator not in names:
                names |= {job.accelerator}
            collected[base] = names
    return collected


def _unified(fleet: Fleet, view: View) -> frozenset[str]:
    """Return the workspaces whose baseline includes fine-tuning jobs."""
    without = {workspace for workspace, unified in view.unified.items() if not unified}
    return (fleet.unified | view.unified.keys()) - without


def _advance_newest_created(fleet: Fleet, view: View) -> Mapping[str, float]:
    newest_created = dict(fleet.newest_created)
    for workspace, newest in view.newest_created.items():
        newest_created[workspace] = max(newest, newest_created.get(workspace, newest))
    return newest_created
