"""State handed to a poller's successor on reload, read from the store, or saved as a whole."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from exporter.jobs.fleet import Fleet
from exporter.jobs.tracked import Base, Group, TrackedJob
from exporter.metrics.counters import (
    CARD_SECONDS,
    CREATED,
    USER_FAMILIES,
    Ledger,
    Series,
    SeriesKey,
)
from exporter.metrics.zero_init import ZeroInit
from exporter.polling.anomalies import Anomalies
from exporter.polling.label_limit import LabelLimiter
from exporter.polling.user_limit import UserLimiter
from exporter.storage.scopes import StateKey
from exporter.storage.store import SavedState, StateChange, Whole


class Handover(NamedTuple):
    """The state of a target when its poller was stopped for good.

    Attributes:
        key: name of the target's saved state.
        labels: of its series.
        workspaces: those of the stopped poller.
        loaded: those of which the store holds nothing that is not in memory.
        fleet: its jobs.
        ledger: its counters.
        last_active: when its bases last had a job or an event.
        zero_init: the series that are held at zero.
        anomalies: those that were reported.
        label_limiter: knows which label values have names.
        users: knows which users have names; None = there are no series by user.
        refreshed: monotonic seconds of the last successful poll; None: no job states are shown.
        whole: what the store would save again if its file was lost; None: nothing was committed.
    """

    key: StateKey
    labels: Mapping[str, str]
    workspaces: frozenset[str]
    loaded: frozenset[str]
    fleet: Fleet
    ledger: Ledger
    last_active: Mapping[Base, float]
    zero_init: ZeroInit
    anomalies: Anomalies
    label_limiter: LabelLimiter
    users: UserLimiter | None
    refreshed: float | None
    whole: Whole | None


def restrict(fleet: Fleet, ledger: Ledger, workspaces: Collection[str]) -> tuple[Fleet, Ledger]:
    """The part of the state that is about some workspaces.

    Series by user stay: they are shown as sums over workspaces, which must not fall.
    """
    return (
        Fleet(
            open=_of(fleet.open, workspaces),
            recent=_of(fleet.recent, workspaces),
            failures=_of(fleet.failures, workspaces),
            listed={name: n for name, n in fleet.listed.items() if name in workspaces},
            counted={group: n for group, n in fleet.counted.items() if group[0] in workspaces},
            recent_since=fleet.recent_since,
            counted_since=fleet.counted_since,
            accelerators={
                base: names for base, names in fleet.accelerators.items() if base[0] in workspaces
            },
            newest_created={
                name: newest for name, newest in fleet.newest_created.items() if name in workspaces
            },
            pool_names=fleet.pool_names,
            pool_types=fleet.pool_types,
            names_in_jobs=fleet.names_in_jobs,
            unified=fleet.unified & set(workspaces),
            incomplete=fleet.incomplete & set(workspaces),
            verification={n: v for n, v in fleet.verification.items() if n in workspaces},
        ),
        {
            (name, labels): series
            for (name, labels), series in ledger.items()
            if labels[0] in workspaces or name in USER_FAMILIES
        },
    )


def without_users(ledger: Ledger) -> dict[SeriesKey, Series]:
    """The counters that are not by user."""
    return {key: series for key, series in ledger.items() if key[0] not in USER_FAMILIES}


def _of(jobs: Mapping[str, TrackedJob], workspaces: Collection[str]) -> dict[str, TrackedJob]:
    return {job_id: known for job_id, known in jobs.items() if known.job.workspace in workspaces}


def merge(one: Fleet, other: Fleet) -> Fleet:
    """Join two fleets of the same time that have no workspace in common."""
    return Fleet(
        open={**one.open, **other.open},
        recent={**one.recent, **other.recent},
        failures={**one.failures, **other.failures},
        listed={**one.listed, **other.listed},
        counted={**one.counted, **other.counted},
        recent_since=other.recent_since,
        counted_since=other.counted_since,
        accelerators={**one.accelerators, **other.accelerators},
        newest_created={**one.newest_created, **other.newest_created},
        pool_names={**one.pool_names, **other.pool_names},
        pool_types={**one.pool_types, **other.pool_types},
        names_in_jobs={**one.names_in_jobs, **other.names_in_jobs},
        unified=one.unified | other.unified,
        incomplete=one.incomplete | other.incomplete,
        verification={**one.verification, **other.verification},
    )


def whole_state(
    fleet: Fleet, ledger: Ledger, held: Collection[SeriesKey], last_active: Mapping[Base, float]
) -> Whole:
    """Return all of a state when called, for the case that the file is lost.

    Most finished jobs are only in the file, so the workspaces are incomplete then.
    """
    return lambda: StateChange(
        jobs={known.job.id: known for known in fleet.whole_jobs()},
        newest_created=fleet.newest_created,
        unified=fleet.unified,
        series=ledger,
        released=[key for key in ledger if key not in held],
        last_active=last_active,
        pool_names=fleet.names_in_jobs,
        incomplete=frozenset(fleet.newest_created),
    )


def restored_fleet(
    saved: SavedState, counted: Mapping[Group, int], since: tuple[float, float]
) -> Fleet:
    """The jobs of a saved state, with every combination that a counter has seen.

    Workspaces whose first reading was not completed have none: what is saved of it does not count.

    Args:
        saved: the state.
        counted: numbers of the finished jobs that count in the gauges.
        since: ``recent_since`` and ``counted_since``, with which the state was read.
    """
    read = saved.newest_created.keys()
    open_jobs = _of(saved.open, read)
    listed = Counter(known.job.workspace for known in open_jobs.values())
    for group, number in saved.finished.items():
        if group.workspace in read:
            listed[group.workspace] += number
    return Fleet(
        open=open_jobs,
        recent=_of(saved.recent, read),
        failures=_of({known.job.id: known for known in saved.failures}, read),
        listed=listed,
        counted={group: n for group, n in counted.items() if group.workspace in read},
        recent_since=since[0],
        counted_since=since[1],
        accelerators=_accelerators_in(saved.ledger),
        newest_created=saved.newest_created,
        names_in_jobs=saved.pool_names,
        unified=saved.unified,
        incomplete=saved.incomplete,
        verification=saved.verification,
    )


def _accelerators_in(ledger: Ledger) -> dict[Base, frozenset[str]]:
    """Every combination that a counter has seen, as in `exporter.jobs.tracked.Fleet`."""
    accelerators: dict[Base, frozenset[str]] = {}
    for family, labels in ledger:
        if family in (CREATED.metric.name, CARD_SECONDS.metric.name):
            base = Base(*labels[:3])
            accelerators[base] = accelerators.get(base, frozenset()) | set(labels[3:])
    return accelerators
