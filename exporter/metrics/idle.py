"""Bases that have had neither a job nor an event for long: their gauges are withdrawn. Pure.

Pools come and go, and every one of them would be shown at 0 forever. Counters stay, since they must
not fall. When a base was last active is saved, but not at every poll: what is saved may be late by
a tenth of the time after which a base is idle.
"""

from collections.abc import Collection, Mapping

from exporter.jobs.tracker import Base

_PRECISION = 0.1


def idle_bases(
    last_active: Mapping[Base, float], bases: Collection[Base], retention: float, now: float
) -> frozenset[Base]:
    """The bases without gauges, unless a job counts in them.

    Args:
        last_active: unix seconds at which bases last had a job or an event.
        bases: all that were ever seen.
        retention: seconds after which a base is idle; 0 = never.
        now: unix seconds.
    """
    if not retention:
        return frozenset()
    return frozenset(base for base in bases if last_active.get(base, now) < now - retention)


def advance_activity(
    last_active: Mapping[Base, float],
    bases: Collection[Base],
    *,
    active: Collection[Base],
    left: Collection[Base],
    retention: float,
    now: float,
) -> dict[Base, float]:
    """What has changed after a poll.

    Args:
        last_active: before the poll.
        bases: all that were ever seen.
        active: those that have a job or had an event.
        left: those that had a job before the poll.
        retention: seconds after which a base is idle; 0 = never, and nothing is remembered.
        now: unix seconds.
    """
    if not retention:
        return {}
    changed = {}
    for base in bases:
        at = last_active.get(base)
        late = base in active and at is not None and at < now - _PRECISION * retention
        if at is None or at > now or base in left or late:
            changed[base] = now
    return changed
