"""State handed to a poller's successor on reload, and how to restrict it to some workspaces."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from exporter.jobs.tracked import Base, Fleet
from exporter.metrics.counters import CARD_SECONDS, CREATED, Ledger
from exporter.metrics.zero_init import ZeroInit
from exporter.polling.anomalies import Anomalies
from exporter.polling.label_limit import LabelLimiter


class Handover(NamedTuple):
    """The state of a target when its poller was stopped for good.

    Attributes:
        key: name of the target's saved state.
        labels: of its series.
        workspaces: those of the stopped poller.
        loaded: those of which the store holds nothing that is not in memory.
        fleet: its jobs.
        ledger: its counters.
        zero_init: the series that are held at zero.
        anomalies: those that were reported.
        label_limiter: knows which label values have names.
        refreshed: monotonic seconds of the last successful poll; None: no job states are shown.
    """

    key: str
    labels: Mapping[str, str]
    workspaces: frozenset[str]
    loaded: frozenset[str]
    fleet: Fleet
    ledger: Ledger
    zero_init: ZeroInit
    anomalies: Anomalies
    label_limiter: LabelLimiter
    refreshed: float | None


_UNIFIED = "unified:"
"""Prefix of a workspace in the saved create times: whether its baseline has fine-tuning jobs."""


def saved_names(workspaces: Collection[str]) -> frozenset[str]:
    """The names under which the store has the state of some workspaces."""
    return frozenset(workspaces) | {_UNIFIED + workspace for workspace in workspaces}


def to_save(fleet: Fleet) -> dict[str, float]:
    """What the store keeps for workspaces as a whole; the reverse of `from_saved`."""
    never = float("-inf")
    unified = {
        _UNIFIED + workspace: 1.0 if workspace in fleet.unified else never
        for workspace in fleet.newest_created
    }
    return {**fleet.newest_created, **unified}


def from_saved(saved: Mapping[str, float]) -> tuple[dict[str, float], frozenset[str]]:
    """The create time of the newest job by workspace, and the workspaces read with all jobs."""
    never = float("-inf")
    newest = {name: at for name, at in saved.items() if not name.startswith(_UNIFIED)}
    unified = {name for name in newest if saved.get(_UNIFIED + name, never) != never}
    return newest, frozenset(unified)


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


def accelerators_in(ledger: Ledger) -> dict[Base, frozenset[str]]:
    """Every combination that a counter has seen, as in `exporter.jobs.tracked.Fleet`."""
    accelerators: dict[Base, frozenset[str]] = {}
    for family, labels in ledger:
        if family in (CREATED.metric.name, CARD_SECONDS.metric.name):
            base = Base(*labels[:3])
            accelerators[base] = accelerators.get(base, frozenset()) | set(labels[3:])
    return accelerators
