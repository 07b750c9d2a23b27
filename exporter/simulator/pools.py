"""The list of dedicated pools."""

from typing import Any

from exporter.simulator.behaviour import Behaviour
from exporter.simulator.catalog import Pool
from exporter.simulator.nodes import Nodes
from exporter.simulator.world import World

_NODE_FLAVORS = {
    "Ascend": "modelarts.bm.npu.arm.8snt9b.d",
    "GPU": "modelarts.vm.gpu.8ant8",
    "CPU": "modelarts.vm.cpu.32u",
    "unknown": "modelarts.bm.x86.16u",
}
"""By flavor type, which the name shows too, except where nothing does."""


def pools(world: World, behaviour: Behaviour, workspace: str) -> dict[str, Any]:
    """Return the document of ``GET /v2/{project_id}/pools``: nodes per pool and flavor.

    A group of pools is not in the list.
    """
    dedicated = [
        pool
        for pool in world.pools.values()
        if pool.id is not None and not pool.group and pool.workspace == workspace
    ]
    items = [_item(pool, world.nodes(pool), behaviour) for pool in dedicated]
    return {
        "apiVersion": "v2",
        "kind": "PoolList",
        "items": items if items or behaviour.empty_items == "array" else None,
    }


def _item(pool: Pool, nodes: Nodes, behaviour: Behaviour) -> dict[str, Any]:
    flavor = _NODE_FLAVORS[pool.flavor_type]

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
