"""What one poller of a target leaves to the next, and what of it belongs to some workspaces."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from exporter.jobs.tracker import Base, Fleet
from exporter.metrics.counters import CARD_SECONDS, CREATED, Ledger
from exporter.metrics.zero_init import ZeroInit
from exporter.polling.anomalies import Anomalies


class Handover(NamedTuple):
    """What was known of a target when its poller stopped for ever.

    Attributes:
        key: names the target's data.
        labels: of its series.
        asked: its workspaces.
        loaded: those of which nothing is in the store that is not known here.
        fleet: its jobs.
        ledger: what its counters count.
        births: those that are held at zero.
        notices: its odd jobs.
        renewed: monotonic seconds: when a view brought job states last; None: none is shown.
    """

    key: str
    labels: Mapping[str, str]
    asked: frozenset[str]
    loaded: frozenset[str]
    fleet: Fleet
    ledger: Ledger
    births: ZeroInit
    notices: Anomalies
    renewed: float | None


def part(fleet: Fleet, ledger: Ledger, workspaces: Collection[str]) -> tuple[Fleet, Ledger]:
    """What is known of some workspaces only."""
    return (
        Fleet(
            {key: known for key, known in fleet.jobs.items() if known.job.workspace in workspaces},
            {base: names for base, names in fleet.accelerators.items() if base[0] in workspaces},
            {name: newest for name, newest in fleet.newest_created.items() if name in workspaces},
            fleet.pool_names,
        ),
        {key: series for key, series in ledger.items() if key[1][0] in workspaces},
    )


def joined(one: Fleet, other: Fleet) -> Fleet:
    """What is known of the workspaces of both; they have none in common."""
    return Fleet(
        {**one.jobs, **other.jobs},
        {**one.accelerators, **other.accelerators},
        {**one.newest_created, **other.newest_created},
        {**one.pool_names, **other.pool_names},
    )


def accelerators_in(ledger: Ledger) -> dict[Base, frozenset[str]]:
    """Every combination that a counter has seen, as `exporter.jobs.tracker.Fleet` has it."""
    accelerators: dict[Base, frozenset[str]] = {}
    for family, labels in ledger:
        if family in (CREATED.metric.name, CARD_SECONDS.metric.name):
            base = Base(*labels[:3])
            accelerators[base] = accelerators.get(base, frozenset()) | set(labels[3:])
    return accelerators
