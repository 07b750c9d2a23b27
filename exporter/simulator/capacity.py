"""How full the dedicated pools are: cards, flavors of nodes, queues and quotas."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from exporter.simulator.behaviour import Behaviour
from exporter.simulator.catalog import Pool
from exporter.simulator.job import Job
from exporter.simulator.pools import is_listed, node_flavor
from exporter.simulator.reply import ApiError
from exporter.simulator.world import World

_CARD_KEYS = {"Ascend": "huawei.com/ascend-1980", "GPU": "nvidia.com/gpu"}
_GIB_IN_MI = 1024
_MOST_ITEMS = 500
_WORKLOAD_TYPES = ("train", "infer", "notebook", "x-infer")
_WORKLOAD_STATUSES = (
    "Queue", "Pending", "Abnormal", "Terminating", "Creating", "Running", "Completed",
    "Terminated", "Failed",
)  # fmt: skip


def runtime(world: World, behaviour: Behaviour, workspaces: frozenset[str] | None) -> Any:
    """Return the document of ``GET /v2/{project_id}/metrics/runtime/pools``.

    The capacity is that of all nodes; available is what is free on healthy ones.
    """
    jobs: dict[str | None, list[Job]] = {}
    for job in world:
        if job.active:
            jobs.setdefault(job.pool.id, []).append(job)
    items = [
        {
            "metadata": {"name": pool.id},
            "table": _table(world, pool, jobs.get(pool.id, []), behaviour),
        }
        for pool in world.pools.values()
        if is_listed(pool) and (workspaces is None or pool.workspace in workspaces)
    ]
    return {
        "apiVersion": "os.modelarts.metrics/v2",
        "kind": "PoolMetricsList",
        "items": _array(items, behaviour),
    }


def _table(world: World, pool: Pool, jobs: list[Job], behaviour: Behaviour) -> dict[str, Any]:
    summary = world.nodes(pool).summary()
    held = [job for job in jobs if job.holds_cards]
    moment = {
        "timestamp": f"{datetime.fromtimestamp(world.now, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "window": "1m",
    }

    def value(cards: int, cores: int, memory_gb: int) -> dict[str, Any]:
        found: dict[str, Any] = {"cpu": cores, "memory": f"{memory_gb * _GIB_IN_MI}Mi"}
        if key := _CARD_KEYS.get(pool.flavor_type):
            found[key] = cards
        return found if behaviour.quantities == "number" else _as_strings(found)

    cores = sum(job.flavor.cpu_cores * job.nodes for job in held)
    memory = sum(job.flavor.memory_gb * job.nodes for job in held)
    all_cores, all_memory = (
        pool.nodes * each for each in (pool.node_cpu_cores, pool.node_memory_gb)
    )
    capacity = value(summary["capacity_cards"], all_cores, all_memory)
    left = value(summary["free_cards"], max(all_cores - cores, 0), max(all_memory - memory, 0))
    return {
        "capacity": {"value": capacity, "maxValue": capacity, **moment},
        "allocated": {"value": value(summary["allocated_cards"], cores, memory), **moment},
        "available": {"value": left, **moment},
        "workload": {
            "allocated": _workload_counts(len(held)),
            "queue": _workload_counts(len(_queue(jobs))),
            **moment,
        },
    }


def _workload_counts(jobs: int) -> dict[str, int]:
    return {"train": jobs, "infer": 0, "notebook": 0, "sum": jobs}


def _as_strings(amounts: Mapping[str, Any]) -> dict[str, str]:
    """Quantities as Kubernetes writes them: CPU in thousandths."""
    return {
        name: f"{amount * 1000}m" if name == "cpu" else f"{amount}"
        for name, amount in amounts.items()
    }


def flavors(world: World, parameters: Mapping[str, str], behaviour: Behaviour) -> Any:
    """Return the document of ``GET /v1/{project_id}/resourceflavors``: the nodes that there are.

    Raises:
        ApiError: 400 for an invalid ``limit`` or ``continue``.
    """
    limit = _number(parameters, "limit", _MOST_ITEMS, least=0, most=_MOST_ITEMS)
    start = _number(parameters, "continue", 0, least=0, most=2**31 - 1)
    found = {node_flavor(pool): pool for pool in world.pools.values() if is_listed(pool)}
    items = [_flavor(name, pool) for name, pool in sorted(found.items())]
    page = items[start : start + (limit or _MOST_ITEMS)]
    left = len(items) - start - len(page)
    metadata = {"continue": str(start + len(page)), "remainingItemCount": left} if left > 0 else {}
    return {
        "apiVersion": "v1",
        "kind": "ResourceFlavorList",
        "metadata": metadata,
        "items": _array(page, behaviour),
    }


def _flavor(name: str, pool: Pool) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "type": "Dedicate",
        "cpu": str(pool.node_cpu_cores),
        "cpuArch": "arm64" if pool.flavor_type == "Ascend" else "x86",
        "memory": f"{pool.node_memory_gb}Gi",
    }
    if pool.node_cards:
        number = str(pool.node_cards)
        cards = {"memory": pool.card_memory, "card": number, "chip": number, "size": number}
        if pool.product != "unknown":
            cards["type"] = pool.product.lower()
        spec["npu" if pool.flavor_type == "Ascend" else "gpu"] = cards
    return {"apiVersion": "v1", "kind": "ResourceFlavor", "metadata": {"name": name}, "spec": spec}


def workloads(
    world: World,
    pool_id: str,
    parameters: Mapping[str, str],
    behaviour: Behaviour,
    workspaces: frozenset[str] | None,
) -> Any:
    """Return the document of ``GET /v2/{project_id}/pools/{pool}/workloads``.

    Raises:
        ApiError: 404 for an unknown pool, 400 for an invalid parameter.
    """
    pool = next((each for each in world.pools.values() if each.id == pool_id), None)
    unseen = pool is not None and workspaces is not None and pool.workspace not in workspaces
    if pool is None or not is_listed(pool) or unseen:
        raise ApiError(404, "ModelArts.50015001", f"Pool {pool_id} not found.")
    _check_choice(parameters, "type", _WORKLOAD_TYPES)
    _check_choice(parameters, "status", _WORKLOAD_STATUSES)
    limit = _number(parameters, "limit", _MOST_ITEMS, least=0, most=_MOST_ITEMS)
    start = _number(parameters, "offset", 0, least=0, most=2**31 - 1)
    jobs = [job for job in world if job.pool is pool and job.active]
    positions = {job.id: place for place, job in enumerate(_queue(jobs), 1)}
    items = [_workload(job, pool, positions.get(job.id, -1), world.now) for job in jobs]
    items.sort(key=lambda item: item["pendingPosition"])
    if parameters.get("type", "train") != "train":
        items = []
    if "status" in parameters:
        items = [item for item in items if item["status"] == parameters["status"]]
    page = items[start : start + (limit or _MOST_ITEMS)]
    return {"apiVersion": "v2", "kind": "WorkloadList", "items": _array(page, behaviour)}


def _workload(job: Job, pool: Pool, position: int, now: float) -> dict[str, Any]:
    return {
        "apiVersion": "v2",
        "kind": "Workload",
        "type": "train",
        "namespace": pool.id,
        "name": f"modelarts-job-{job.id}",
        "jobName": job.name,
        "uid": job.id,
        "jobUUID": job.id,
        "userName": job.user.name,
        "flavor": job.flavor.id or "",
        "status": "Queue" if position > 0 else job.phase,
        "priority": "" if job.priority is None else str(job.priority),
        "pendingDuration": int(now - job.created) if position > 0 else 0,
        "pendingPosition": position,
        "runningDuration": int(job.running_seconds(now)),
        "createTime": job.created_ms,
    }


def _queue(jobs: Iterable[Job]) -> list[Job]:
    """Return the jobs that wait for cards: first those that ran before, then by priority."""
    waiting = [job for job in jobs if job.phase == "Pending"]
    return sorted(waiting, key=lambda job: (not job.runs, -(job.priority or 0), job.created))


def quotas(world: World, parameters: Mapping[str, str]) -> Any:
    """Return the document of ``GET /v2/{project_id}/training-quotas``: job records.

    Raises:
        ApiError: 400 for another resource.
    """
    _check_choice(parameters, "resource", ("job-num",))
    return {"quotas": [{"resource": "job-num", "quota": world.job_quota, "used": len(world)}]}


def _array(items: list[Any], behaviour: Behaviour) -> list[Any] | None:
    return items if items or behaviour.empty_items == "array" else None


def _check_choice(parameters: Mapping[str, str], name: str, choices: tuple[str, ...]) -> None:
    if parameters.get(name, choices[0]) not in choices:
        raise ApiError(400, "ModelArts.50004000", f"Invalid {name}.")


def _number(
    parameters: Mapping[str, str], name: str, default: int, *, least: int, most: int
) -> int:
    text = parameters.get(name) or str(default)
    if not text.isdecimal() or not least <= int(text) <= most:
        raise ApiError(400, "ModelArts.50004000", f"Invalid {name}.")
    return int(text)
