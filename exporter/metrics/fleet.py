"""The fleet gauges: jobs aggregated by workspace, pool and flavor type. Pure.

`FLEET_FAMILIES` says which jobs count in which gauge, and with what value. The current values
(`fleet_blocks`) and the past ones (`exporter.commands.backfill.series`) both follow it.
"""

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import product
from operator import attrgetter
from typing import NamedTuple, TypeAlias

from exporter.jobs.fleet import Fleet
from exporter.jobs.job import ACTIVE, PHASES, UNKNOWN_PHASE, Job
from exporter.jobs.pool import PoolInfo
from exporter.jobs.tracked import Base, Group, NameUser, counted_user
from exporter.metrics.counters import BASE
from exporter.metrics.exposition import Metric, SampleBlock
from exporter.metrics.pools import POOL_INFO, pool_info_samples

LabelValues: TypeAlias = tuple[str, ...]

_ALL = frozenset({*PHASES, UNKNOWN_PHASE})


class FleetFamily(NamedTuple):
    """A gauge over the jobs of a target.

    Attributes:
        metric: name, type, help.
        labels: names of the labels that differ between its series; attributes of a job.
        phases: of the jobs that count.
        value: what a job counts; None if that is unknown.
        aggregate: combines the values of two jobs.
        label_values: of the series in which a job counts; of a family by user without the user,
            which is its first label.
        by_user: whether it is a gauge by user. Its series exist only while a job counts in them.
    """

    metric: Metric
    labels: tuple[str, ...]
    phases: frozenset[str]
    value: Callable[[Job], float | None]
    aggregate: Callable[[float, float], float]
    label_values: Callable[[Job | Group], LabelValues]
    by_user: bool = False

    def series_of(self, job: Job, value: float | None, user: str | None) -> LabelValues | None:
        """The label values of the series in which a job counts; None = it counts in none.

        Args:
            job: in one of the phases.
            value: of the job.
            user: under which it counts; None = there are no series by user.
        """
        if value is None:
            return None
        if not self.by_user:
            return self.label_values(job)
        return (user, *self.label_values(job)) if value and user is not None else None


def _family(
    name: str,
    text: str,
    labels: tuple[str, ...],
    phases: frozenset[str],
    value: Callable[[Job], float | None],
    *,
    aggregate: Callable[[float, float], float] = operator.add,
) -> FleetFamily:
    metric = Metric(f"modelarts_training_{name}", "gauge", text)
    return FleetFamily(metric, labels, phases, value, aggregate, attrgetter(*labels))


def _user_family(
    name: str, text: str, labels: tuple[str, ...], value: Callable[[Job], float | None]
) -> FleetFamily:
    metric = Metric(f"modelarts_training_user_{name}", "gauge", text)
    return FleetFamily(
        metric, ("user", *labels), ACTIVE, value, operator.add, attrgetter(*labels), by_user=True
    )


FLEET_FAMILIES = (
    _family(
        "jobs",
        "Training jobs that the service currently lists, by phase (status.phase); finished jobs "
        "are limited by jobs.history.",
        (*BASE, "phase"),
        _ALL,
        lambda _: 1,
    ),
    _family(
        "nodes",
        "Nodes requested by unfinished training jobs: sum of spec.resource.node_count.",
        (*BASE, "phase"),
        ACTIVE,
        attrgetter("nodes"),
    ),
    _family(
        "accelerators",
        "Cards (NPUs, GPUs) requested by unfinished training jobs: cards per node times "
        "nodes; jobs with an unknown number of cards are omitted.",
        (*BASE, "phase", "accelerator"),
        ACTIVE,
        attrgetter("accelerators"),
    ),
    _family(
        "cpu_cores",
        "CPU cores requested by unfinished training jobs: cores per node times nodes; jobs with an "
        "unknown number of cores are omitted.",
        (*BASE, "phase"),
        ACTIVE,
        attrgetter("cpu_cores"),
    ),
    _family(
        "memory_bytes",
        "Memory requested by unfinished training jobs: memory per node times nodes, in bytes; "
        "jobs with unknown memory are omitted.",
        (*BASE, "phase"),
        ACTIVE,
        attrgetter("memory"),
    ),
    _family(
        "oldest_pending_timestamp_seconds",
        "Creation time (metadata.create_time) of the oldest training job in Creating or Pending, "
        "in unix seconds; absent if no job is waiting.",
        BASE,
        frozenset({"Creating", "Pending"}),
        attrgetter("created"),
        aggregate=min,
    ),
    _user_family(
        "jobs",
        "Unfinished training jobs by user (metadata.user_name).",
        ("pool", "phase"),
        lambda _: 1,
    ),
    _user_family(
        "accelerators",
        "Cards (NPUs, GPUs) requested by unfinished training jobs, by user (metadata.user_name): "
        "cards per node times nodes; jobs with an unknown number of cards are omitted.",
        ("pool", "phase", "accelerator"),
        attrgetter("accelerators"),
    ),
)
FAMILIES_BY_PHASE: Mapping[str, tuple[FleetFamily, ...]] = {
    phase: tuple(family for family in FLEET_FAMILIES if phase in family.phases) for phase in _ALL
}
"""The gauges in which a job of a phase counts."""


def zero_samples(bases: Mapping[Base, Iterable[str]]) -> Iterator[tuple[FleetFamily, LabelValues]]:
    """The series that are shown at 0 while no job counts in them: one for each documented phase.

    Args:
        bases: all that were ever seen, with their accelerators.
    """
    for base, accelerators in bases.items():
        for family in FLEET_FAMILIES:
            own = family.labels[len(BASE) :]
            if "phase" in own and not family.by_user:
                phases = [phase for phase in PHASES if phase in family.phases]
                choices = {"phase": phases, "accelerator": sorted(accelerators)}
                for values in product(*(choices[name] for name in own)):
                    yield family, (*base, *values)


def fleet_blocks(
    fleet: Fleet,
    constant: Mapping[str, str],
    *,
    idle: Collection[Base] = (),
    pool_infos: Mapping[str, PoolInfo] | None = None,
    name_user: NameUser | None = None,
) -> list[SampleBlock]:
    """The fleet gauges of one target, the number of jobs first, and the labels of its pools.

    Args:
        fleet: its jobs.
        constant: the target's labels.
        idle: bases that are shown only if a job counts in them.
        pool_infos: labels of pools by pool ID, as the service lists them.
        name_user: under which name a user counts; None = there are no series by user.
    """
    counted = _counted(fleet, name_user)
    withdrawn = frozenset(idle).difference(_bases(counted[FLEET_FAMILIES[0].metric.name]))
    totals: dict[str, dict[LabelValues, float]] = {name: {} for name in counted}
    shown = {base: names for base, names in fleet.accelerators.items() if base not in withdrawn}
    for family, labels in zero_samples(dict(sorted(shown.items()))):
        totals[family.metric.name][labels] = 0
    pools = {base.pool for base in shown}
    names = {pool: name for pool, name in fleet.names_in_jobs.items() if pool in pools}
    return [
        SampleBlock(
            family.metric,
            family.labels,
            constant,
            list((totals[family.metric.name] | counted[family.metric.name]).items()),
        )
        for family in FLEET_FAMILIES
    ] + [
        SampleBlock(
            POOL_INFO.metric,
            POOL_INFO.labels,
            constant,
            list(pool_info_samples(names, pool_infos or {}).items()),
        )
    ]


def _counted(fleet: Fleet, name_user: NameUser | None) -> dict[str, dict[LabelValues, float]]:
    """The series in which a job counts, by family."""
    counted: dict[str, dict[LabelValues, float]] = {
        family.metric.name: {} for family in FLEET_FAMILIES
    }
    for known in fleet.open.values():
        job = known.job
        user = None if name_user is None else counted_user(known, name_user)
        for family in FAMILIES_BY_PHASE[job.phase]:
            value = family.value(job)
            labels = family.series_of(job, value, user)
            if value is not None and labels is not None:
                series = counted[family.metric.name]
                seen = series.get(labels)
                series[labels] = value if seen is None else family.aggregate(seen, value)
    for group, number in fleet.counted.items():
        for family in FAMILIES_BY_PHASE[group.phase]:  # only those that count each job as 1
            labels = family.label_values(group)
            series = counted[family.metric.name]
            series[labels] = series.get(labels, 0) + number
    return counted


def bases_with_jobs(jobs: SampleBlock) -> frozenset[Base]:
    """The bases in which a job counts, from the first block of `fleet_blocks`."""
    return _bases(labels for labels, number in jobs.samples if number)


def _bases(series: Iterable[LabelValues]) -> frozenset[Base]:
    return frozenset(Base(*labels[: len(BASE)]) for labels in series)
