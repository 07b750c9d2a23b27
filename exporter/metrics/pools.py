"""The series of resource pools: what they are, and how full they are."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeAlias

from exporter.jobs.fleet import NewestName
from exporter.jobs.pool import PoolInfo, PoolSnapshot
from exporter.metrics.exposition import Metric, SampleBlock

Samples: TypeAlias = Iterable[tuple[tuple[str, ...], float]]


class PoolFamily(NamedTuple):
    """A family of gauges; ``labels`` are those that differ between samples."""

    metric: Metric
    labels: tuple[str, ...]
    samples: Callable[[PoolSnapshot], Samples]


def _status(snapshot: PoolSnapshot) -> Samples:
    return [
        ((pool_id, pool.status), 1.0) for pool_id, pool in snapshot.pools.items() if pool.status
    ]


def _nodes(snapshot: PoolSnapshot) -> Samples:
    return [
        ((pool_id, *labels), number)
        for pool_id, pool in snapshot.pools.items()
        for labels, number in pool.nodes.items()
    ]


def _accelerators(snapshot: PoolSnapshot) -> Samples:
    return [
        ((pool_id, *labels), number)
        for pool_id in snapshot.pools
        for labels, number in snapshot.cards(pool_id).items()
    ]


def _workloads(snapshot: PoolSnapshot) -> Samples:
    return [
        ((pool_id, *labels), number)
        for pool_id, usage in snapshot.usage.items()
        for labels, number in usage.workloads.items()
    ]


def _quota_limits(snapshot: PoolSnapshot) -> Samples:
    return [
        ((resource,), quota.limit)
        for resource, quota in snapshot.quotas.items()
        if quota.limit is not None
    ]


def _quota_used(snapshot: PoolSnapshot) -> Samples:
    return [
        ((resource,), quota.used)
        for resource, quota in snapshot.quotas.items()
        if quota.used is not None
    ]


POOL_INFO = PoolFamily(
    Metric(
        "modelarts_pool_info",
        "gauge",
        "Name, type and workspace of resource pools, for joins on the label pool; always 1 "
        "(metadata.name, os.modelarts/name, spec.type and os.modelarts/workspace.id in the pool "
        "list, otherwise spec.resource.pool_id and pool_name of jobs).",
    ),
    ("pool", "pool_name", "type", "workspace"),
    lambda _: (),  # its samples come from `pool_info_samples`: jobs have names, too
)

POOL_FAMILIES = (
    POOL_INFO,
    PoolFamily(
        Metric(
            "modelarts_pool_status",
            "gauge",
            "Current status of a resource pool (status.phase in the pool list) as a label; "
            "always 1.",
        ),
        ("pool", "status"),
        _status,
    ),
    PoolFamily(
        Metric(
            "modelarts_pool_nodes",
            "gauge",
            "Nodes of a resource pool by flavor and state (status.resources in the pool list); "
            "available nodes are healthy ones, whether jobs use them or not.",
        ),
        ("pool", "flavor", "state"),
        _nodes,
    ),
    PoolFamily(
        Metric(
            "modelarts_pool_accelerators",
            "gauge",
            "Cards (NPUs, GPUs) of a resource pool: capacity, allocated and available (table in "
            "metrics/runtime/pools, otherwise the capacity is cards per node times nodes).",
        ),
        ("pool", "accelerator", "state"),
        _accelerators,
    ),
    PoolFamily(
        Metric(
            "modelarts_pool_workloads",
            "gauge",
            "Workloads of a resource pool by type: with resources allocated, and in the queue "
            "(table.workload in metrics/runtime/pools).",
        ),
        ("pool", "type", "state"),
        _workloads,
    ),
    PoolFamily(
        Metric(
            "modelarts_training_quota_limit",
            "gauge",
            "What the project may have of a resource (quota in training-quotas); job-num is the "
            "number of training jobs listed, absent if unlimited.",
        ),
        ("resource",),
        _quota_limits,
    ),
    PoolFamily(
        Metric(
            "modelarts_training_quota_used",
            "gauge",
            "What the project has of a resource (used in training-quotas).",
        ),
        ("resource",),
        _quota_used,
    ),
)


def pool_blocks(snapshot: PoolSnapshot, constant: Mapping[str, str]) -> list[SampleBlock]:
    """The gauges of the pools of one target; families without samples are left out.

    Args:
        snapshot: what is known about them.
        constant: the target's labels.
    """
    blocks = [
        SampleBlock(family.metric, family.labels, constant, sorted(family.samples(snapshot)))
        for family in POOL_FAMILIES
    ]
    return [block for block in blocks if block.samples]


def pool_info_samples(
    names_in_jobs: Mapping[str, NewestName], listed: Mapping[str, PoolInfo]
) -> dict[tuple[str, ...], float]:
    """The samples of `POOL_INFO`.

    Args:
        names_in_jobs: by pool ID, as in `exporter.jobs.fleet.Fleet`.
        listed: by pool ID, from the list of pools; they are preferred.
    """
    known = {pool: PoolInfo(name) for pool, (_, name) in names_in_jobs.items()} | dict(listed)
    return {(pool, *info): 1.0 for pool, info in sorted(known.items())}
