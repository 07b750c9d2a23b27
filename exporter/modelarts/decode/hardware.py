"""The hardware of a job: pool, flavor, cards and their kind, found in one of several fields.

Where several fields have it, the first of these is used:

- cards: ``main_container_allocated_resources``, ``pool_info``, ``flavor_detail``, the tasks of a
  heterogeneous job together, the flavor id of a dedicated pool;
- flavor type: ``flavor_detail``, the leading task, names of accelerator, flavor, engine;
- accelerator: the product of ``flavor_detail``, of the leading task, else the accelerator type.

A heterogeneous job's leading task is the first with accelerators, else the first. Pool, flavor and
engine are those of the job, else of that task.
"""

import functools
import re
from typing import NamedTuple

from exporter.modelarts.decode.schema import (
    Accelerator,
    Algorithm,
    Allocation,
    Engine,
    Flavor,
    FlavorInfo,
    Resource,
    Task,
    Text,
)
from exporter.modelarts.decode.values import UNKNOWN, Checker, FieldProblems, label

FLAVOR_TYPES = ("CPU", "GPU", "Ascend")
PUBLIC_POOL = "public"
MAX_NODES = 100_000

_MAX_CARDS = 1024  # per node

_CARDS_OF_VISUAL_FLAVORS = {  # of dedicated pools, per node
    "modelarts.pool.visual.xlarge": 1,
    "modelarts.pool.visual.2xlarge": 2,
    "modelarts.pool.visual.4xlarge": 4,
    "modelarts.pool.visual.8xlarge": 8,
}
# The group's name is the flavor type that a name implies. No letter before "npu": "input".
_IMPLIED_FLAVOR_TYPE = re.compile(
    r"(?P<Ascend>ascend|(?<![a-z])npu)|(?P<GPU>nvidia|(?<![a-z])gpu)", re.IGNORECASE
)

_NO_ALGORITHM = Algorithm()
_NO_ALLOCATION = Allocation()
_NO_ENGINE = Engine()
_NO_FLAVOR = Flavor()
_NO_INFO = FlavorInfo()
_NO_TASK = Task()


class Hardware(NamedTuple):
    """The hardware of a job; texts are label values.

    Attributes:
        pool: pool id, or ``public``.
        pool_name: name of the pool, or "".
        flavor_type: one of `FLAVOR_TYPES`, or ``unknown``.
        flavor: flavor id, or "".
        accelerator: product name, or ``unknown``.
        engine: engine name, else its id, else "".
        nodes: nodes requested; None = unset.
        cards: cards of all nodes; None = unknown or none.
        problems: unusable or undocumented values.
    """

    pool: str
    pool_name: str
    flavor_type: str
    flavor: str
    accelerator: str
    engine: str
    nodes: int | None
    cards: int | None
    problems: FieldProblems


# A fleet has few kinds of jobs: most results are cached, and jobs share their texts.
@functools.lru_cache(maxsize=1024)
def find_hardware(resource: Resource, engine: Engine | None, tasks: tuple[Task, ...]) -> Hardware:
    """Find the hardware of a job.

    Args:
        resource: ``spec.resource``.
        engine: ``algorithm.engine``.
        tasks: of a heterogeneous job; else empty.
    """
    check = Checker()
    leading = _leading_task(tasks)
    flavor = leading.task_resource or _NO_FLAVOR
    detail = resource.flavor_detail or _NO_FLAVOR
    engine = engine or (leading.algorithm or _NO_ALGORITHM).engine or _NO_ENGINE
    accelerator = _accelerator_type(resource)
    flavor_id = resource.flavor_id or flavor.flavor_id
    nodes = check.count(resource.node_count, MAX_NODES, "spec.resource.node_count")
    return Hardware(
        pool=label(resource.pool_id or flavor.pool_id) or PUBLIC_POOL,
        pool_name=label(resource.pool_name),
        flavor_type=check.choice(
            detail.flavor_type or flavor.flavor_type or None, FLAVOR_TYPES, "flavor_type"
        )
        or _implied_flavor_type(accelerator, flavor_id, engine.engine_name, engine.engine_id),
        flavor=label(flavor_id),
        accelerator=label(_product(detail) or _product(flavor) or accelerator) or UNKNOWN,
        engine=label(engine.engine_name or engine.engine_id),
        nodes=nodes,
        cards=_cards(resource, tasks, nodes, check),
        problems=check.problems,
    )


def _leading_task(tasks: tuple[Task, ...]) -> Task:
    for task in tasks:
        if task.task_resource is not None and _has_accelerators(task.task_resource):
            return task
    return tasks[0] if tasks else _NO_TASK


def _has_accelerators(flavor: Flavor) -> bool:
    if flavor.flavor_type in FLAVOR_TYPES:
        return flavor.flavor_type != "CPU"
    return bool(_accelerators(flavor))


def _accelerators(flavor: Flavor) -> dict[str, Accelerator]:
    info = flavor.flavor_info or _NO_INFO
    both = {"npu": info.npu, "gpu": info.gpu}
    return {name: each for name, each in both.items() if each is not None}


def _product(flavor: Flavor) -> Text:
    names = (each.product_name for each in _accelerators(flavor).values())
    return next(filter(None, names), None)


def _accelerator_type(resource: Resource) -> Text:
    allocations = (resource.main_container_allocated_resources, resource.pool_info)
    return next(filter(None, (each.accelerator_type for each in allocations if each)), None)


def _implied_flavor_type(*names: Text) -> str:
    """Return the flavor type implied by the first name that implies one."""
    match = _IMPLIED_FLAVOR_TYPE.search(" ".join(filter(None, names)))
    return match.lastgroup or UNKNOWN if match else UNKNOWN


def _cards(
    resource: Resource, tasks: tuple[Task, ...], nodes: int | None, check: Checker
) -> int | None:
    if per_node := _cards_per_node(resource, check):
        return per_node * nodes if nodes else None
    if of_tasks := _cards_of_tasks(tasks, nodes, check):
        return of_tasks
    per_node = _CARDS_OF_VISUAL_FLAVORS.get(resource.flavor_id or "")
    return per_node * nodes if per_node and nodes else None


def _cards_per_node(resource: Resource, check: Checker) -> int | None:
    """Return the cards of one node as given by a field of the resource."""
    for name in ("main_container_allocated_resources", "pool_info"):
        allocation: Allocation = getattr(resource, name) or _NO_ALLOCATION
        path = f"spec.resource.{name}.accelerator_num"
        if cards := check.count(allocation.accelerator_num, _MAX_CARDS, path):
            return cards
    detail = resource.flavor_detail or _NO_FLAVOR
    return _cards_of_flavor(detail, "spec.resource.flavor_detail", check)


def _cards_of_flavor(flavor: Flavor, path: str, check: Checker) -> int | None:
    for name, accelerator in _accelerators(flavor).items():
        field = f"{path}.flavor_info.{name}.unit_num"
        if cards := check.count(accelerator.unit_num, _MAX_CARDS, field):
            return cards
    return None


def _cards_of_tasks(tasks: tuple[Task, ...], nodes: int | None, check: Checker) -> int | None:
    """Return the sum; None if a task has unknown cards, since the sum would be too small."""
    total = 0
    for task in tasks:
        flavor = task.task_resource or _NO_FLAVOR
        if cards := _cards_of_flavor(flavor, "tasks.task_resource", check):
            field = "tasks.task_resource.node_count"
            task_nodes = check.count(flavor.node_count, MAX_NODES, field) or nodes
            if task_nodes is None:
                return None
            total += cards * task_nodes
        elif flavor.flavor_type != "CPU":
            return None
    return total or None
