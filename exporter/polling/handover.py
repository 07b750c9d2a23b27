"""State handed to a poller's successor on reload, read from the store, or saved as a whole."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from exporter.jobs.tracked import Base, Fleet
from exporter.metrics.counters import CARD_SECONDS, CREATED, Ledger, SeriesKey
from exporter.metrics.zero_init import ZeroInit
from exporter.polling.anomalies import Anomalies
from exporter.polling.label_limit import LabelLimiter
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
        refreshed: monotonic seconds of the last successful poll; None: no job states are shown.
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
    refreshed: float | None


def restrict(fleet: Fleet, ledger: Ledger, workspaces: Collection[str]) -> tuple[Fleet, Ledger]:
    """The part of the state that is about some workspaces."""
    return (
        Fleet(
            {key: known for key, known in fleet.jobs.items() if known.job.workspace in workspaces},
            {base: names for base, names in fleet.accelerators.items() if base[0] in workspaces},
            {name: newest for name, newest in fleet.newest_created.items() if name in workspaces},
            fleet.pool_names,
            fleet.pool_types,
            fleet.unified & set(workspaces),
        ),
        {key: series for key, series in ledger.items() if key[1][0] in workspaces},
    )


def merge(one: Fleet, other: Fleet) -> Fleet:
    """Join two fleets that have no workspace in common."""
    return Fleet(
        {**one.jobs, **other.jobs},
        {**one.accelerators, **other.accelerators},
        {**one.newest_created, **other.newest_created},
        {**one.pool_names, **other.pool_names},
        {**one.pool_types, **other.pool_types},
        one.unified | other.unified,
    )


def whole_state(
    fleet: Fleet, ledger: Ledger, held: Collection[SeriesKey], last_active: Mapping[Base, float]
) -> Whole:
    """Return all of a state when called, for the case that the file is lost."""
    return lambda: StateChange(
        jobs=fleet.jobs,
        newest_created=fleet.newest_created,
        unified=fleet.unified,
        series=ledger,
        released=[key for key in ledger if key not in held],
        last_active=last_active,
    )


def restored_fleet(saved: SavedState) -> Fleet:
    """The jobs of a saved state, with every combination that a counter has seen."""
    accelerators = _accelerators_in(saved.ledger)
    return Fleet(saved.jobs, accelerators, saved.newest_created, unified=saved.unified)


def _accelerators_in(ledger: Ledger) -> dict[Base, frozenset[str]]:
    """Every combination that a counter has seen, as in `exporter.jobs.tracked.Fleet`."""
    accelerators: dict[Base, frozenset[str]] = {}
    for family, labels in ledger:
        if family in (CREATED.metric.name, CARD_SECONDS.metric.name):
            base = Base(*labels[:3])
            accelerators[base] = accelerators.get(base, frozenset()) | set(labels[3:])
    return accelerators
