"""The fleet gauges: sums over jobs, split by workspace, pool and flavor type."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from exporter.jobs.job import ACTIVE, PHASES, TERMINAL
from exporter.jobs.tracker import Fleet, base_of
from exporter.metrics.counters import BASE
from exporter.metrics.exposition import Block, Metric
from exporter.metrics.scope import Scope, ended_within

ACTIVE_PHASES = tuple(phase for phase in PHASES if phase in ACTIVE)
WAITING = frozenset({"Creating", "Pending"})

LabelValues: TypeAlias = tuple[str, ...]


class Totals(NamedTuple):
    """Sums over the jobs in scope, for the rows of `FLEET_FAMILIES`."""

    jobs: Mapping[LabelValues, int]
    nodes: Mapping[LabelValues, int]
    accelerators: Mapping[LabelValues, int]
    oldest_pending: Mapping[LabelValues, float]
    pools: Mapping[LabelValues, int]


class FleetFamily(NamedTuple):
    """A family with one sample for each label set of a field of `Totals`."""

    metric: Metric
    labels: tuple[str, ...]
    source: str


FLEET_FAMILIES = (
    FleetFamily(
        Metric(
            "modelarts_training_jobs",
            "gauge",
            "Training jobs that the service currently lists, by phase (status.phase); finished "
            "jobs are limited by jobs.history.",
        ),
        (*BASE, "phase"),
        "jobs",
    ),
    FleetFamily(
        Metric(
            "modelarts_training_nodes",
            "gauge",
            "Nodes requested by unfinished training jobs: sum of spec.resource.node_count.",
        ),
        (*BASE, "phase"),
        "nodes",
    ),
    FleetFamily(
        Metric(
            "modelarts_training_accelerators",
            "gauge",
            "Cards (NPUs, GPUs) requested by unfinished training jobs: cards per node times "
            "nodes; jobs with an unknown number of cards are omitted.",
        ),
        (*BASE, "phase", "accelerator"),
        "accelerators",
    ),
    FleetFamily(
        Metric(
            "modelarts_training_oldest_pending_timestamp_seconds",
            "gauge",
            "Creation time (metadata.create_time) of the oldest training job in Creating or "
            "Pending, in unix seconds; absent if no job is waiting.",
        ),
        BASE,
        "oldest_pending",
    ),
    FleetFamily(
        Metric(
            "modelarts_training_pool_info",
            "gauge",
            "Names of resource pools, for joins on the label pool; always 1 (metadata.name and "
            "os.modelarts/name in the pool list, otherwise spec.resource.pool_id and pool_name).",
        ),
        ("pool", "pool_name"),
        "pools",
    ),
)


def fleet_blocks(
    fleet: Fleet, constant: Mapping[str, str], *, scope: Scope, now: float
) -> list[Block]:
    """The fleet gauges of one target.

    Args:
        fleet: what is known of its jobs.
        constant: the target's labels.
        scope: which jobs count.
        now: unix seconds.
    """
    totals = _totals(fleet, scope, now)
    return [
        Block(row.metric, row.labels, constant, list(getattr(totals, row.source).items()))
        for row in FLEET_FAMILIES
    ]


def _totals(fleet: Fleet, scope: Scope, now: float) -> Totals:
    jobs, nodes, accelerators = _zeros(fleet)
    oldest: dict[LabelValues, float] = {}
    pool_names: dict[str, tuple[float, str]] = {}  # of the newest job
    for known in fleet.jobs.values():  # of all history, after every poll: it has to be quick
        job = known.job
        phase, pool = job.phase, job.pool
        if job.pool_name:
            created = job.created or 0.0
            newest = pool_names.get(pool)
            if newest is None or created > newest[0] or (created, job.pool_name) > newest:
                pool_names[pool] = (created, job.pool_name)
        if scope.history and phase in TERMINAL and not ended_within(known, scope.history, now):
            continue
        jobs[job.workspace, pool, job.flavor_type, phase] += 1
        if phase not in ACTIVE:
            continue
        base = base_of(job)
        if job.nodes is not None:
            nodes[(*base, phase)] += job.nodes
        if job.accelerators is not None:
            accelerators[(*base, phase, job.accelerator)] += job.accelerators
        if phase in WAITING and job.created is not None:
            oldest[base] = min(oldest.get(base, job.created), job.created)
    names = {pool: name for pool, (_, name) in pool_names.items()} | dict(fleet.pool_names)
    pools: dict[LabelValues, int] = dict.fromkeys(sorted(names.items()), 1)
    return Totals(jobs, nodes, accelerators, oldest, pools)


def _zeros(fleet: Fleet) -> tuple[Counter[LabelValues], ...]:
    """Every phase of every base combination ever seen, so that a missing series is no question."""
    jobs: Counter[LabelValues] = Counter()
    nodes: Counter[LabelValues] = Counter()
    accelerators: Counter[LabelValues] = Counter()
    for base, names in sorted(fleet.accelerators.items()):
        jobs.update({(*base, phase): 0 for phase in PHASES})
        nodes.update({(*base, phase): 0 for phase in ACTIVE_PHASES})
        accelerators.update(
            {(*base, phase, name): 0 for phase in ACTIVE_PHASES for name in sorted(names)}
        )
    return jobs, nodes, accelerators
