"""The hardware of a job: pool, flavor, nodes, cards and their kind, CPU cores, memory.

Each of these may be in one of several fields, of the job (``spec.resource``) or of its tasks
(``tasks[].task_resource``). `CHAINS` lists the fields in the order in which they are tried; the
same list applies to both. The first field that is present decides:

- 0 cards is a value: the job uses CPUs only.
- A number that cannot be right is reported, and the result is unknown; a less reliable field does
  not replace it. 0 nodes, cores or bytes are unknown, too.
- An empty text is absent.

Cards, cores and memory are for one node. Each task of a heterogeneous job has its own number of
nodes (`_nodes_of_task`), and a sum over tasks is unknown if one of them is: it would be too small.
Everything else is that of the leading task: the first with cards, else the first. A job whose tasks
are in two pools counts, as a whole, in the pool of its leading task.

docs/fields.md has the same lists for users; a test compares them.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from exporter.jobs.job import PUBLIC_POOL
from exporter.modelarts.decode.lenient import Number, Text
from exporter.modelarts.decode.resources import Memory, Resource
from exporter.modelarts.decode.schema import Engine, Task, TaskAlgorithm
from exporter.modelarts.decode.values import UNKNOWN, Checker, FieldProblems, label

FLAVOR_TYPES = ("CPU", "GPU", "Ascend")
MAX_NODES = 100_000

TASKS = "tasks[]"
ENGINE = "algorithm.engine"

CHAINS: Mapping[str, tuple[str, ...]] = {
    "pool": ("pool_id", "pool_group_id", TASKS),
    "flavor": ("flavor_id", TASKS),
    "nodes": ("node_count", TASKS),
    "cards": (
        "main_container_allocated_resources.accelerator_num",
        "main_container_customized_flavor.accelerator_num",
        "pool_info.accelerator_num",
        "flavor_detail.flavor_info.npu.unit_num",
        "flavor_detail.flavor_info.gpu.unit_num",
        "flavor_info.npu.unit_num",
        "flavor_info.gpu.unit_num",
        TASKS,
        "flavor_id",
    ),
    "accelerator": (
        "flavor_detail.flavor_info.npu.product_name",
        "flavor_detail.flavor_info.gpu.product_name",
        "flavor_info.npu.product_name",
        "flavor_info.gpu.product_name",
        "main_container_allocated_resources.accelerator_type",
        "pool_info.accelerator_type",
        TASKS,
    ),
    "flavor type": (  # after the cards: 0 cards is CPU
        "flavor_detail.flavor_type",
        "flavor_type",
        "main_container_allocated_resources.accelerator_type",
        "pool_info.accelerator_type",
        "flavor_detail.flavor_info.npu.product_name",
        "flavor_detail.flavor_info.gpu.product_name",
        "flavor_info.npu.product_name",
        "flavor_info.gpu.product_name",
        "flavor_detail.flavor_info.npu.unit_num",
        "flavor_detail.flavor_info.gpu.unit_num",
        "flavor_info.npu.unit_num",
        "flavor_info.gpu.unit_num",
        TASKS,
        "flavor_id",
        "pool_info.pool_resource_flavor",
        ENGINE,
    ),
    "cpu cores": (
        "main_container_allocated_resources.cpu_core_num",
        "main_container_customized_flavor.cpu_core_num",
        "pool_info.core_num",
        "flavor_detail.flavor_info.cpu.core_num",
        "flavor_info.cpu.core_num",
        TASKS,
    ),
    "memory": (
        "main_container_allocated_resources.mem_size",
        "main_container_customized_flavor.mem_size",
        "pool_info.mem_size",
        "flavor_detail.flavor_info.memory",
        "flavor_info.memory",
        TASKS,
    ),
}
"""The fields of a resource that are tried for each quantity, in this order."""

SPELLINGS = ("Ascend-D910B", "ascend-Snt9b", "GP-Pnt1", "GP-Vnt1", "nvidia-Ant8")
"""How accelerators of the vendor's documents are spelled; all others are in lower case."""

_GIB = 2.0**30
_UNITS = {  # GB are GiB: the service writes 64 GB here, and 64 in mem_size, for the same node
    "B": 1.0, "KB": 2.0**10, "KIB": 2.0**10, "MB": 2.0**20, "MIB": 2.0**20, "GB": _GIB,
    "GIB": _GIB, "TB": 2.0**40, "TIB": 2.0**40,
}  # fmt: skip
_LIMITS = {  # the most that can be right: nodes, or else of one node
    "nodes": MAX_NODES,
    "cards": 1024,
    "cpu cores": 100_000,
    "memory": 2**50,
}
_FRACTIONAL = ("cpu cores", "memory")
_FLAVOR_NAMES = ("flavor_id", "pool_info.pool_resource_flavor")
_TASK_PATH = "tasks.task_resource"

_PATHS = {field: tuple(field.split(".")) for chain in CHAINS.values() for field in chain}
_SPELLINGS = {name.lower(): name for name in SPELLINGS}
_VISUAL = re.compile(r"modelarts\.pool\.visual\.([1-9]\d{0,3})?xlarge")  # of dedicated pools
# The group's name is the flavor type that a name implies; the service calls its cards Snt9, Vnt1
# and so on. No letter before: "input".
_IMPLIED_TYPE = re.compile(
    r"(?P<Ascend>ascend|(?<![a-z])(?:npu|snt\d|kat\d))"
    r"|(?P<GPU>nvidia|(?<![a-z])(?:gp[u-]|[apvt]nt\d))",
    re.IGNORECASE,
)
_IMPLIED_CPU = re.compile(r"(?<![a-z])cpu(?![a-z])", re.IGNORECASE)

_NO_ALGORITHM = TaskAlgorithm()
_NO_ENGINE = Engine()
_NO_RESOURCE = Resource()


class _Absent(Enum):
    """No field has a number."""

    ABSENT = 0


_ABSENT = _Absent.ABSENT
_Number: TypeAlias = float | _Absent | None
"""None = unknown: a field has a number, but it cannot be used."""


class Hardware(NamedTuple):
    """The hardware of a job; texts are label values.

    Attributes:
        pool: pool id, id of a group of pools, or ``public``.
        pool_name: name of the pool, or "".
        flavor_type: one of `FLAVOR_TYPES`, or ``unknown``.
        flavor: flavor id, or "".
        accelerator: product name, or ``unknown``.
        engine: engine name, else its id, else "".
        policy: how the resources are paid for, such as ``regular``, or "".
        nodes: nodes requested; None = unset.
        cards: cards of all nodes; None = unknown or none.
        cpu_cores: CPU cores of all nodes; None = unknown.
        memory: bytes of memory of all nodes; None = unknown.
        problems: unusable or undocumented values.
    """

    pool: str
    pool_name: str
    flavor_type: str
    flavor: str
    accelerator: str
    engine: str
    policy: str
    nodes: int | None
    cards: int | None
    cpu_cores: float | None
    memory: float | None
    problems: FieldProblems


# A fleet has few kinds of jobs: most results are cached, and jobs share their texts.
@functools.lru_cache(maxsize=1024)
def find_hardware(
    resource: Resource,
    engine: Engine | None,
    tasks: tuple[Task, ...],
    workers: tuple[int | None, ...] = (),
) -> Hardware:
    """Find the hardware of a job.

    Args:
        resource: ``spec.resource``.
        engine: ``algorithm.engine``.
        tasks: of a heterogeneous job; else empty.
        workers: for each task, how many workers of its role exist; None = unknown.
    """
    check = Checker()
    nodes = _read_number(resource, "nodes", "node_count", "spec.resource", check)
    parts = []
    for task, count in zip(tasks, workers or (None,) * len(tasks), strict=True):
        part = _Part(task.task_resource, (task.algorithm or _NO_ALGORITHM).engine, check)
        part.nodes = _nodes_of_task(part, count, nodes if len(tasks) == 1 else None)
        parts.append(part)
    job = _Part(resource, engine, check, parts)
    job.nodes = _add(part.nodes for part in parts) if nodes is _ABSENT else nodes
    cards, cores, memory = map(job.total, ("cards", "cpu cores", "memory"))
    flavor_type = job.flavor_type or UNKNOWN
    accelerator = "" if flavor_type == "CPU" else spell(job.text("accelerator"))
    pool, pool_name = job.pool()
    return Hardware(
        pool=label(pool) or PUBLIC_POOL,
        pool_name=label(pool_name),
        flavor_type=flavor_type,
        flavor=label(job.text("flavor")),
        accelerator=accelerator or UNKNOWN,
        engine=label(job.engine.engine_name or job.engine.engine_id),
        policy=label(resource.policy),
        nodes=_as_int(job.nodes),
        cards=_as_int(cards) or None,
        cpu_cores=_known(cores),
        memory=_known(memory),
        problems=check.problems,
    )


def _nodes_of_task(task: "_Part", workers: int | None, only: _Number) -> _Number:
    """Return its own number, else that of its role's workers, else that of a job with one task."""
    own = task.per_node("nodes", "node_count")
    return own if own is not _ABSENT else workers or _known(only)


def _known(number: _Number) -> float | None:
    return None if number is _ABSENT else number


def _as_int(number: _Number) -> int | None:
    known = _known(number)
    return None if known is None else int(known)


def _add(numbers: Iterable[_Number]) -> _Number:
    """Return the sum; unknown if any number is missing, absent if all are."""
    found = list(numbers)
    if all(number is _ABSENT for number in found):
        return _ABSENT
    known = [number for number in found if number is not None and number is not _ABSENT]
    return sum(known) if len(known) == len(found) else None


class _Part:
    """The resource of the job, with the parts of its tasks, or the resource of a task.

    Attributes:
        nodes: set by `find_hardware`.
        engine: its own, or that of the leading task.
        flavor_type: "" = no field implies one.
    """

    def __init__(
        self,
        resource: Resource | None,
        engine: Engine | None,
        check: Checker,
        tasks: Sequence["_Part"] | None = None,
    ) -> None:
        self.nodes: _Number = None
        self.resource = resource or _NO_RESOURCE
        self._check = check
        self._path = _TASK_PATH if tasks is None else "spec.resource"
        self._tasks = tasks or ()
        with_cards = [part for part in self._tasks if part.has_cards()]
        self._leading = next(iter((*with_cards, *self._tasks)), None)
        leading_engine = self._leading.engine if self._leading else _NO_ENGINE
        self.engine: Engine = engine or leading_engine
        self.flavor_type = self._find_flavor_type()

    def has_cards(self) -> bool:
        """Whether it uses cards, even if their number is unknown."""
        if self.flavor_type in FLAVOR_TYPES:
            return self.flavor_type != "CPU"
        return self.total("cards") is not _ABSENT

    def total(self, quantity: str) -> _Number:
        """Return a number for all nodes; 0 cards are 0 for any number of nodes."""
        for field in CHAINS[quantity]:
            if field == TASKS:
                found = _add(part.total(quantity) for part in self._tasks)
            else:
                found = self.per_node(quantity, field)
                if found and found is not _ABSENT:
                    nodes = _known(self.nodes)
                    found = None if nodes is None else found * nodes
            if found is not _ABSENT:
                return found
        return 0 if quantity == "cards" and self.flavor_type == "CPU" else _ABSENT

    def per_node(self, quantity: str, field: str) -> _Number:
        """Return the number that one of its fields has."""
        return _read_number(self.resource, quantity, field, self._path, self._check)

    def text(self, quantity: str) -> str:
        """Return the text of the first field that has one, or ""."""
        for field in CHAINS[quantity]:
            if field != TASKS:
                found = _at(self.resource, field) or ""
            else:
                found = self._leading.text(quantity) if self._leading else ""
            if found:
                return str(found)
        return ""

    def pool(self) -> tuple[Text, Text]:
        """Return id and name; of any task that has one, if the leading task has none."""
        if found := _at(self.resource, "pool_id") or _at(self.resource, "pool_group_id"):
            return found, self.resource.pool_name
        leading = [self._leading] if self._leading else []
        pools = (part.pool() for part in (*leading, *self._tasks))
        return next((pool for pool in pools if pool[0]), (None, None))

    def _find_flavor_type(self) -> str:
        self.flavor_type = ""
        if self.total("cards") == 0:
            return "CPU"
        for field in CHAINS["flavor type"]:
            if field == TASKS:
                found = self._leading.flavor_type if self._leading else ""
            elif field == ENGINE:
                found = imply_flavor_type(self.engine.engine_name) or imply_flavor_type(
                    self.engine.engine_id
                )
            elif field.endswith("flavor_type"):
                found = self._check.choice(_at(self.resource, field), FLAVOR_TYPES, "flavor_type")
            elif field.endswith("unit_num"):
                has_cards = _known(self.per_node("cards", field))
                found = ("Ascend" if "npu" in field else "GPU") if has_cards else ""
            else:
                found = imply_flavor_type(_at(self.resource, field), cpu=field in _FLAVOR_NAMES)
            if found:
                return found
        return ""


def _at(resource: Resource, field: str) -> Any:
    value: Any = resource
    for name in _PATHS[field]:
        value = getattr(value, name)
        if value is None:
            return None
    return value


def _read_number(
    resource: Resource, quantity: str, field: str, path: str, check: Checker
) -> _Number:
    """Return the number that a field has, of one node."""
    value = _at(resource, field)
    if value is None:
        return _ABSENT
    if value == 0 and field.endswith("npu.unit_num"):
        # A flavor has one kind of cards. If it has a number of GPUs, that one counts.
        value = None if _at(resource, field.replace("npu", "gpu")) is not None else value
    elif convert := _CONVERT.get(field.rpartition(".")[2]):
        value = convert(value)
    if value is None:
        return _ABSENT
    whole = quantity not in _FRACTIONAL
    number = check.amount(value, _LIMITS[quantity], f"{path}.{field}", whole=whole)
    return number if number or quantity == "cards" else None


def _visual_cards(flavor_id: str) -> Number:
    match = _VISUAL.fullmatch(flavor_id)
    return float(match[1] or 1) if match else None


def _bytes(memory: Memory) -> Number:
    if memory.size is None:
        return None
    return memory.size * _UNITS.get((memory.unit or "").strip().upper(), float("nan"))


_CONVERT: Mapping[str, Callable[[Any], Number]] = {
    "flavor_id": _visual_cards,
    "mem_size": _GIB.__mul__,
    "memory": _bytes,
}


def imply_flavor_type(name: Text, *, cpu: bool = False) -> str:
    """Return the flavor type implied by a name, or "". Only names of flavors can imply CPU."""
    match = _IMPLIED_TYPE.search(name or "")
    if match:
        return match.lastgroup or ""
    return "CPU" if cpu and _IMPLIED_CPU.search(name or "") else ""


def spell(product: Text) -> str:
    """Return the product of an accelerator as a label value, the same whatever its case."""
    name = label((product or "").strip().lower())
    return _SPELLINGS.get(name, name)
