"""The list of dedicated pools."""

from typing import Any

from exporter.simulator.behaviour import Behaviour
from exporter.simulator.catalog import Pool
from exporter.simulator.fleet import Fleet

_NODE_FLAVORS = {"Ascend": "modelarts.kat1.8xlarge", "GPU": "modelarts.p3.8xlarge"}


def pools(fleet: Fleet, behaviour: Behaviour) -> dict[str, Any]:
    """Return the document of ``GET /v2/{project_id}/pools``: nodes per pool and flavor."""
    dedicated = [pool for pool in fleet.pools.values() if pool.id is not None]
    return {
        "apiVersion": "v2",
        "kind": "PoolList",
        "items": [_item(pool, fleet, behaviour) for pool in dedicated],
    }


def _item(pool: Pool, fleet: Fleet, behaviour: Behaviour) -> dict[str, Any]:
    abnormal = fleet.isolated_nodes(pool)
    flavor = _NODE_FLAVORS.get(pool.flavor_type, "modelarts.vm.cpu.16u")

    def nodes(count: int) -> Any:
        entry = {"flavor": flavor, "count": count, "maxCount": pool.nodes}
        return [entry] if behaviour.pool_resources == "array" else entry

    resources = {"available": nodes(pool.nodes - abnormal)}
    if abnormal:
        resources["abnormal"] = nodes(abnormal)
    return {
        "apiVersion": "v2",
        "kind": "Pool",
        "metadata": {
            "name": pool.id,
            "creationTimestamp": "2023-11-02T06:12:45Z",
            "labels": {
                "os.modelarts/name": pool.name,
                "os.modelarts/workspace.id": "0",
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
