"""What is known about jobs and what happened to them: the values that the tracker works with."""

from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from exporter.jobs.job import Job

ALWAYS = float("-inf")

EventKind = Literal[
    "created", "started", "restarted", "recovered", "attempted", "downgraded", "faulted",
    "initialized", "ran", "finished", "deleted",
]  # fmt: skip


NameUser: TypeAlias = Callable[[str], str]
"""The name under which the jobs of a user count: the user's own, or ``other``."""


class Base(NamedTuple):
    """The labels that all fleet metrics share."""

    workspace: str
    pool: str
    flavor_type: str


class Group(NamedTuple):
    """The labels under which finished jobs are counted together."""

    workspace: str
    pool: str
    flavor_type: str
    user: str
    phase: str


class Restart(NamedTuple):
    """How a run after the first began, and the recovery that led to it."""

    start_type: str
    recovery: str


class Event(NamedTuple):
    """Something that happened to a job.

    Attributes:
        kind: ``recovered`` = a gap between two runs ended; ``attempted`` = a run ended in a
            recovery; ``faulted`` = the recovery from a fault ended; ``initialized`` = the cards
            of a run began to compute; ``ran`` = cards were in use.
        labels: ``restarted``: start type, recovery; ``recovered``, ``attempted``: recovery;
            ``downgraded``: policy tried first, policy applied; ``faulted``: fault scenario,
            recovery, result; ``ran``: accelerator; ``finished``, ``deleted``: phase; else none.
        seconds: ``started``: queue time; ``recovered``: the gap; ``attempted``: the run;
            ``initialized``: from the start of the run; ``finished``: run time, at the first end
            after a run; None = unknown or not applicable.
        card_seconds: of ``ran``, ``recovered``, ``finished``; None likewise.
        user: under which it counts in series by user; None = it does not count in them.
    """

    kind: EventKind
    job_id: str
    base: Base
    labels: tuple[str, ...] = ()
    seconds: float | None = None
    card_seconds: float | None = None
    user: str | None = None


class Checked(NamedTuple):
    """How far a list in a response has been checked for elements that count once.

    Attributes:
        number: of leading elements already checked.
        pending: positions of those among them that do not count yet.
    """

    number: int = 0
    pending: tuple[int, ...] = ()


class TrackedJob(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The state kept for a job.

    The state file stores it, and the structs in it, by position: fields can be renamed, but not
    reordered, retyped or removed. Append a new field at the end, with a default: older rows decode
    with the default, and older versions ignore the field (`exporter.storage.tables`).

    Attributes:
        job: as last read; an unknown flavor type is completed (`exporter.jobs.flavor_types`).
        ended: unix seconds at which it ended, as far as known; None while it has not.
        end_counted: its latest end is counted, or was part of the baseline.
        start_counted: its start is counted, or was part of the baseline.
        restarts: all restarts ever seen, as first seen.
        records_checked: number of leading running records already checked for ended attempts.
        count_records_from: unix seconds; earlier records belong to the baseline. -inf = every
            record not yet known counts. None = likewise, and the job is not a baseline.
        run_seconds_counted: run time already counted; None = unknown at the baseline.
        end_seconds_counted: run time counted by its ends; None before the first end after a run.
        base: that of its first counted event, and of all later ones; None before it.
        startups: running records checked for the moment at which the cards began to compute. None
            = by no version yet that does so.
        faults: by running record, its fault records that were checked for a final result.
        count_details_from: as ``count_records_from``, for faults and start-ups; never None.
        user: that of its first event counted by user, and of all later ones; None before it.
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
    base: Base | None = None
    startups: Checked | None = None
    faults: tuple[Checked, ...] = ()
    count_details_from: float = ALWAYS
    user: str | None = None


@lru_cache(maxsize=4096)
def _shared_base(workspace: str, pool: str, flavor_type: str) -> Base:
    """One object for many jobs."""
    return Base(workspace, pool, flavor_type)


def base_of(job: Job) -> Base:
    """Return the labels that a job has in the gauges."""
    return _shared_base(job.workspace, job.pool, job.flavor_type)


def group_of(job: Job) -> Group:
    """Return the labels under which a job is counted once it has finished."""
    return _shared_group(job.workspace, job.pool, job.flavor_type, job.user, job.phase)


@lru_cache(maxsize=4096)
def _shared_group(workspace: str, pool: str, flavor_type: str, user: str, phase: str) -> Group:
    return Group(workspace, pool, flavor_type, user, phase)


def settled_base(known: TrackedJob) -> Base | None:
    """Return the labels that all events of a job count under; None before the first event."""
    if known.base is None and known.count_records_from is None:
        return base_of(known.job)  # created, as counted by a version that did not keep the base
    return known.base


def counted_base(known: TrackedJob, job: Job) -> Base:
    """Return the labels that an event of a job counts under now.

    Args:
        known: the job before.
        job: as read now.
    """
    base = settled_base(known)
    if base is None:
        return base_of(job)
    return _shared_base(job.workspace, base.pool, base.flavor_type)


def counted_user(known: TrackedJob, name_user: NameUser) -> str:
    """Return the user under which a job counts now."""
    return name_user(known.job.user) if known.user is None else known.user


def has_run(job: Job) -> bool:
    """Whether anything shows that the job has ever started."""
    return job.started is not None or bool(job.duration) or bool(job.runs)
