"""Bases that have had neither a job nor an event for long: their gauges are withdrawn. Pure.

Pools come and go, and every one of them would be shown at 0 forever. Counters stay, since they must
not fall. When a base was last active is saved, but not at every poll: what is saved may be late by
a tenth of the time after which a base is idle.
"""

from collections.abc import Collection, Iterable, Mapping

from exporter.jobs.job import TERMINAL
from exporter.jobs.tracked import Base, TrackedJob, base_of

_PRECISION = 0.1


def idle_bases(last_active: Mapping[Base, float], retention: float, now: float) -> frozenset[Base]:
    """The bases without gauges, unless a job counts in them.

    Args:
        last_active: unix seconds at which bases last had a job or an event.
        retention: seconds after which a base is idle; 0 = never.
        now: unix seconds.
    """
    if not retention:
        return frozenset()
    return frozenset(base for base, at in last_active.items() if at < now - retention)


def first_activity(
    jobs: Iterable[TrackedJob], bases: Collection[Base], *, history: float, now: float
) -> dict[Base, float]:
    """When bases of which this is not known yet were last active: as long as a job counted.

    Args:
        jobs: all that are known.
        bases: those of interest; without any job, they were active now.
        history: seconds for which finished jobs count in the gauges; 0 = always.
        now: unix seconds.
    """
    found: dict[Base, float] = {}
    for known in jobs:
        if (base := base_of(known.job)) in bases:
            counts = not history or known.ended is None or known.job.phase not in TERMINAL
            at = now if counts or known.ended is None else min(now, known.ended + history)
            found[base] = max(at, found.get(base, at))
    return dict.fromkeys(bases, now) | found


def advance_activity(
    last_active: Mapping[Base, float],
    *,
    active: Collection[Base],
    left: Collection[Base],
    retention: float,
    now: float,
) -> dict[Base, float]:
    """What has changed after a poll.

    Args:
        last_active: before the poll, of all bases.
        active: those that have a job or had an event.
        left: those that had a job before the poll.
        retention: seconds after which a base is idle; 0 = never, and nothing is remembered.
        now: unix seconds.
    """
    if not retention:
        return {}
    late = now - _PRECISION * retention
    return {
        base: now
        for base, at in last_active.items()
        if at > now or base in left or (base in active and at < late)
    }
