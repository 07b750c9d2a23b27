"""The list of dedicated pools."""

from typing import Any

from exporter.simulator.behaviour import Behaviour
from exporter.simulator.catalog import Pool
from exporter.simulator.nodes import Nodes
from exporter.simulator.world import World


def pools(world: World, behaviour: Behaviour, workspace: str) -> dict[str, Any]:
    """Return the document of ``GET /v2/{project_id}/pools``: nodes per pool and flavor.

    A group of pools is not in the list.
    """
    items = [
        _item(pool, world.nodes(pool), behaviour)
        for pool in world.pools.values()
        if is_listed(pool) and pool.workspace == workspace
    ]
    return {
        "apiVersion": "v2",
        "kind": "PoolList",
        "items": items if items or behaviour.empty_items == "array" else None,
    }


def is_listed(pool: Pool) -> bool:
    """Whether the pool is a dedicated one, and not a group of pools."""
    return pool.id is not None and not pool.group


def node_flavor(pool: Pool) -> str:
    """Return the flavor of a pool's nodes; its name shows the flavor type, unless nothing does."""
    if pool.flavor_type in ("CPU", "unknown"):
        return {"CPU": "modelarts.vm.cpu.32u", "unknown": "modelarts.bm.x86.16u"}[pool.flavor_type]
    product = pool.product.rpartition("-")[2].lower()
    if pool.flavor_type == "Ascend":
        product = "snt9" if product == "unknown" else product
        return f"modelarts.bm.npu.arm.{pool.node_cards}{product}.d"
    return f"modelarts.vm.gpu.{pool.node_cards}{product}"


def _item(pool: Pool, nodes: Nodes, behaviour: Behaviour) -> dict[str, Any]:
    flavor = node_flavor(pool)

    def resource(count: int) -> Any:
        entry = {"flavor": flavor, "count": count, "maxCount": pool.nodes}
        return [entry] if behaviour.pool_resources == "array" else entry

    counts = nodes.count()
    resources = {
        state: resource(count) for state, count in counts.items() if count or state == "available"
    }
    return {
        "apiVersion": "v2",
        "kind": "Pool",
        "metadata": {
            "name": pool.id,
            "creationTimestamp": "2023-11-02T06:12:45Z",
            "labels": {
                "os.modelarts/name": pool.name,
                "os.modelarts/workspace.id": pool.workspace,
                "os.modelarts/resource.id": f"maos-{pool.id}",
            },
        },
        "spec": {
            "type": "Dedicate",
            "scope": ["Train"],
            "resources": [{"flavor": flavor, "count": pool.nodes, "maxCount": pool.nodes}],
        },
        "status": {"phase": "Running", "message": "", "resources": resources},
    }
