"""The hardware of a job, from all fields that may have it."""

import msgspec
import pytest

from exporter.modelarts.decode.hardware import (
    CHAINS,
    ENGINE,
    SPELLINGS,
    TASKS,
    Hardware,
    find_hardware,
)
from exporter.modelarts.decode.resources import Resource
from exporter.modelarts.decode.schema import Engine, Task

ALLOCATED = "main_container_allocated_resources"
CUSTOMIZED = "main_container_customized_flavor"
GIB = 2**30
VISUAL = "modelarts.pool.visual.8xlarge"


def flavor(kind, unit_num=None, product=None, **more):
    """A FlavorResponse; ``kind`` is ``gpu`` or ``npu``."""
    return {"flavor_info": {kind: {"unit_num": unit_num, "product_name": product}}, **more}


def task(**resource):
    return {"task_resource": resource}


def cpu_task(**more):
    return task(flavor_type="CPU", flavor_info={"cpu": {"core_num": 8}}, **more)


def find(*tasks, engine=None, workers=(), **resource):
    return find_hardware(
        msgspec.convert(resource, Resource, strict=False),
        msgspec.convert(engine, Engine | None),
        msgspec.convert(tasks, tuple[Task, ...], strict=False),
        workers,
    )


def invalid(found):
    return {field for field, kind in found.problems if kind == "invalid"}


def test_nothing_told_is_nothing_known():
    assert find() == Hardware(
        pool="public",
        pool_name="",
        flavor_type="unknown",
        flavor="",
        accelerator="unknown",
        engine="",
        policy="",
        nodes=None,
        cards=None,
        cpu_cores=None,
        memory=None,
        problems={},
    )


def test_a_dedicated_pool_as_newer_answers_tell_it():
    found = find(
        engine={"engine_name": "Ascend-Powered-Engine"},
        node_count=4,
        flavor_id=VISUAL,
        pool_id="llm-0f3c",
        pool_name="llm",
        main_container_allocated_resources={
            "cpu_core_num": 191.5,
            "mem_size": 1440.0,
            "accelerator_num": 8.0,
            "accelerator_type": "ascend-Snt9b",
        },
        policy="economic",
    )

    assert found == Hardware(
        pool="llm-0f3c",
        pool_name="llm",
        flavor_type="Ascend",
        flavor=VISUAL,
        accelerator="ascend-Snt9b",
        engine="Ascend-Powered-Engine",
        policy="economic",
        nodes=4,
        cards=32,
        cpu_cores=766.0,
        memory=4 * 1440 * 2.0**30,
        problems={},
    )


# --- Every chain ----------------------------------------------------------------------------------

CARDS = [8, 2, 4, 1, 5, 6, 7, 3, 16]
VALUES = {
    "pool": (["pool-1", "group-1", "pool-2"], lambda found: found.pool),
    "flavor": (["kat1", "p3"], lambda found: found.flavor),
    "nodes": ([2, 3], lambda found: found.nodes),
    "cards": (CARDS, lambda found: found.cards),
    "accelerator": ([f"card-{number}" for number in range(7)], lambda found: found.accelerator),
    "flavor type": (
        ["GPU", "Ascend", "ascend-a", "nvidia-b", "ascend-c", "nvidia-d", "ascend-e", "nvidia-f",
         8, 8, 8, 8, "GPU", "vm.cpu.8u", "bm.gpu.v100", "Ascend-Powered-Engine"],
        lambda found: found.flavor_type,
    ),
    "cpu cores": ([8, 16.5, 24, 32, 64, 96], lambda found: found.cpu_cores),
    "memory": ([32, 64.5, 128, 256, 512, 1024], lambda found: found.memory),
}  # fmt: skip
"""For each chain a value for every source, and what shows it."""
OF_TASK = {
    "pool": "pool_id", "flavor": "flavor_id", "nodes": "node_count",
    "cards": "pool_info.accelerator_num", "accelerator": "pool_info.accelerator_type",
    "flavor type": "flavor_type", "cpu cores": "pool_info.core_num",
    "memory": "pool_info.mem_size",
}  # fmt: skip
EXPECTED_TYPES = ["GPU", "Ascend", *["Ascend", "GPU"] * 5, "GPU", "CPU", "GPU", "Ascend"]


def put(document, field, value):
    """Set a field of a JSON document."""
    *parts, last = field.split(".")
    for part in parts:
        document = document.setdefault(part, {})
    if last == "flavor_id" and isinstance(value, int):
        value = f"modelarts.pool.visual.{value}xlarge"
    document[last] = {"size": value, "unit": "GB"} if last == "memory" else value


def ask(quantity, first, replaced=None, *, of_task=False):
    """A job or a task that has a value in all sources of a chain from ``first`` on.

    ``replaced`` is what the first of them has instead.
    """
    values, show = VALUES[quantity]
    resource, tasks, engine = {}, [], None
    for number, field in enumerate(CHAINS[quantity]):
        value = replaced if number == first and replaced is not None else values[number]
        if number < first or (of_task and field == TASKS):
            continue
        if field == TASKS:
            tasks = [task()]
            put(tasks[0]["task_resource"], OF_TASK[quantity], value)
            if quantity != "nodes":
                tasks[0]["task_resource"]["node_count"] = 1
        elif field == ENGINE:
            engine = {"engine_name": value}
        else:
            put(resource, field, value)
    resource = resource if quantity == "nodes" else {"node_count": 1, **resource}
    if of_task:
        found = find({"algorithm": {"engine": engine}, "task_resource": resource})
    else:
        found = find(*tasks, engine=engine, **resource)
    return show(found), found


def expected(quantity, number):
    value = VALUES[quantity][0][number]
    if quantity == "flavor type":
        return EXPECTED_TYPES[number]
    return value * GIB if quantity == "memory" else value


SOURCES = [(quantity, number) for quantity, chain in CHAINS.items() for number in range(len(chain))]


def test_the_values_are_for_all_chains():
    assert {name: len(chain) for name, chain in CHAINS.items()} == {
        name: len(values) for name, (values, _) in VALUES.items()
    }


@pytest.mark.parametrize(("quantity", "first"), SOURCES)
def test_the_first_source_that_is_present_decides(quantity, first):
    shown, found = ask(quantity, first)

    assert shown == expected(quantity, first)
    assert found.problems == {}


@pytest.mark.parametrize(("quantity", "first"), SOURCES)
def test_the_rules_for_a_task_are_those_for_the_job(quantity, first):
    if CHAINS[quantity][first] == TASKS:
        first += 1
    if first < len(CHAINS[quantity]):
        shown, found = ask(quantity, first, of_task=True)
        assert shown == expected(quantity, first)
        assert found.problems == {}


@pytest.mark.parametrize("quantity", CHAINS)
def test_no_source_no_value(quantity):
    shown, found = ask(quantity, len(CHAINS[quantity]))

    assert shown in (None, "", "public", "unknown")
    assert found.problems == {}


NUMBERS = [
    (quantity, number)
    for quantity, number in SOURCES
    if quantity in ("cards", "cpu cores", "memory", "nodes")
    and CHAINS[quantity][number] not in (TASKS, "flavor_id")
]
TOO_MUCH = {"cards": 1025, "cpu cores": 100_001, "memory": 2**21, "nodes": 100_001}
IMPOSSIBLE = [
    (quantity, first, number)
    for quantity, first in NUMBERS
    for number in (-8, TOO_MUCH[quantity], 1e300, "inf", "nan", 0.5)
    if number != 0.5 or quantity in ("cards", "nodes")
]


@pytest.mark.parametrize("of_task", [False, True])
@pytest.mark.parametrize(("quantity", "first", "number"), IMPOSSIBLE)
def test_a_number_that_cannot_be_right_is_said_and_nothing_replaces_it(
    quantity, first, number, of_task
):
    shown, found = ask(quantity, first, number, of_task=of_task)

    assert shown is None
    path = "tasks.task_resource" if of_task else "spec.resource"
    assert invalid(found) == {f"{path}.{CHAINS[quantity][first]}"}


@pytest.mark.parametrize("of_task", [False, True])
@pytest.mark.parametrize("number", [0, "0", 0.0])
@pytest.mark.parametrize(
    "first", [n for q, n in NUMBERS if q == "cards" and "npu.unit_num" not in CHAINS[q][n]]
)
def test_no_cards_are_a_number_of_cards(first, number, of_task):
    _, found = ask("cards", first, number, of_task=of_task)

    assert (found.cards, found.flavor_type, found.accelerator) == (None, "CPU", "unknown")
    assert found.problems == {}


@pytest.mark.parametrize("quantity", ["nodes", "cpu cores", "memory"])
def test_no_nodes_cores_or_bytes_are_unknown(quantity):
    for first in range(len(CHAINS[quantity])):
        shown, found = ask(quantity, first, 0)
        assert shown is None
        assert found.problems == {}


@pytest.mark.parametrize("number", [None, ""])
def test_a_source_that_is_null_or_empty_is_absent(number):
    resource = {"pool_id": number, "flavor_id": number, "pool_group_id": "group"}
    assert find(**resource).pool == "group"
    info = {"accelerator_num": None, "core_num": None, "mem_size": None}
    found = find(node_count=1, flavor_id=VISUAL, pool_info=info)
    assert (found.cards, found.cpu_cores, found.memory) == (8, None, None)


@pytest.mark.parametrize(
    ("npu", "gpu", "cards"), [(0, 8, 8), ("0", "8", 8), (8, 0, 8), (None, 4, 4), (0, None, None)]
)
def test_a_flavor_has_one_kind_of_cards(npu, gpu, cards):
    info = {"npu": {"unit_num": npu}, "gpu": {"unit_num": gpu}}
    found = find(node_count=1, flavor_id=VISUAL, flavor_detail={"flavor_info": info})

    assert found.cards == cards
    assert (found.flavor_type == "CPU") == (cards is None)


# --- Cards ----------------------------------------------------------------------------------------


def test_input_1_any_number_of_cards_in_the_name_of_a_flavor():
    flavor_id = "modelarts.pool.visual.16xlarge"
    assert find(pool_id="p", flavor_id=flavor_id, node_count=4).cards == 64


@pytest.mark.parametrize("other", [{"pool_info": {"accelerator_num": 8}}, {"flavor_id": VISUAL}])
def test_input_2_an_allocation_of_no_cards(other):
    found = find(
        engine={"engine_name": "Ascend-Powered-Engine"},
        node_count=1,
        main_container_allocated_resources={"accelerator_num": 0, "accelerator_type": "ascend-x"},
        **other,
    )

    assert (found.cards, found.flavor_type, found.accelerator) == (None, "CPU", "unknown")


def test_input_3_the_flavor_that_was_asked_for():
    assert find(node_count=1, main_container_customized_flavor={"accelerator_num": 4}).cards == 4


def test_input_10_half_a_card():
    found = find(
        node_count=1,
        flavor_id="modelarts.pool.visual.xlarge",
        main_container_allocated_resources={"accelerator_num": 0.5},
    )

    assert found.cards is None
    assert invalid(found) == {f"spec.resource.{ALLOCATED}.accelerator_num"}


@pytest.mark.parametrize("kind", ["gpu", "npu"])
@pytest.mark.parametrize("unit_num", [8, "8", 8.0])
def test_cards_of_a_flavor_are_an_integer_or_a_string(kind, unit_num):
    assert find(node_count=2, flavor_detail=flavor(kind, unit_num)).cards == 16


@pytest.mark.parametrize("size", ["500", 500])
def test_the_size_of_a_disk_does_not_matter(size):
    detail = flavor("npu", "8")
    detail["flavor_info"]["disk"] = {"size": size, "unit": "GB"}

    assert find(node_count=1, flavor_detail=detail).cards == 8


@pytest.mark.parametrize(
    ("flavor_id", "cards"),
    [
        ("modelarts.pool.visual.xlarge", 1),
        ("modelarts.pool.visual.2xlarge", 2),
        ("modelarts.pool.visual.4xlarge", 4),
        ("modelarts.pool.visual.8xlarge", 8),
        ("modelarts.pool.visual.1xlarge", 1),
        ("modelarts.pool.visual.3xlarge", 3),
        ("modelarts.pool.visual.128xlarge", 128),
        ("modelarts.pool.visual.0xlarge", None),
        ("modelarts.pool.visual.9999xlarge", None),
        ("modelarts.pool.visual.large", None),
        ("modelarts.pool.visual.8xlarge.eco", None),
        ("modelarts.vm.8xlarge", None),
    ],
)
def test_flavors_of_dedicated_pools_name_their_cards(flavor_id, cards):
    assert find(node_count=1, flavor_id=flavor_id).cards == cards


@pytest.mark.parametrize("node_count", [None, 0, -1, 1.5, 100_001])
@pytest.mark.parametrize("told", [{ALLOCATED: {"accelerator_num": 8}}, {"flavor_id": VISUAL}])
def test_without_a_number_of_nodes_there_is_no_number_of_cards(told, node_count):
    found = find(node_count=node_count, **told)

    assert (found.nodes, found.cards) == (None, None)


def test_a_cpu_flavor_has_no_cards():
    found = find(node_count=3, flavor_detail={"flavor_type": "CPU", "flavor_info": {"cpu": {}}})

    assert (found.nodes, found.cards, found.flavor_type) == (3, None, "CPU")


# --- Heterogeneous jobs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "cards"),
    [
        pytest.param(
            [task(**flavor("npu", "8"), node_count=4), task(**flavor("npu", 1), node_count=16)],
            48,
            id="nodes of each task",
        ),
        pytest.param(
            [task(**flavor("gpu", 8)), task(**flavor("gpu", 1))], None, id="not the job's nodes"
        ),
        pytest.param([task(**flavor("gpu", 8))], 24, id="of a single task: the job's nodes"),
        pytest.param(
            [task(**flavor("npu", 8), node_count=1), task(**flavor("npu", 1))],
            None,
            id="one has unknown nodes",
        ),
        pytest.param(
            [task(**flavor("npu", 8), node_count=3), cpu_task(), cpu_task(node_count=70)],
            24,
            id="CPUs are no cards",
        ),
        pytest.param(
            [task(flavor_id=VISUAL, node_count=2), task(flavor_id="modelarts.vm.cpu.8u")],
            16,
            id="flavors of tasks name their cards",
        ),
        pytest.param([cpu_task(), cpu_task()], None, id="CPUs alone"),
        pytest.param(
            [task(**flavor("npu", 8), node_count=1), task(node_count=1)], None, id="one tells none"
        ),
        pytest.param([task(**flavor("npu", 8), node_count=1), {}], None, id="one is empty"),
        pytest.param(
            [
                task(**flavor("npu", 8), node_count=1),
                task(**flavor("npu", -8), flavor_type="Ascend", node_count=1),
            ],
            None,
            id="one cannot be right",
        ),
    ],
)
def test_cards_of_all_tasks_together(tasks, cards):
    assert find(*tasks, node_count=3).cards == cards


def test_input_4_tasks_count_the_workers_of_their_roles():
    tasks = [task(**flavor("npu", "8"), flavor_type="Ascend"), cpu_task()]

    assert find(*tasks, node_count=2, workers=(1, 1)).cards == 8
    assert find(*tasks, node_count=2, workers=(1, None)).cards == 8
    assert find(*tasks, node_count=2).cards is None


def test_input_5_the_rules_for_a_resource_hold_for_a_task():
    found = find(task(flavor_id=VISUAL, pool_id="p", node_count=3), node_count=3)

    assert (found.cards, found.pool, found.flavor) == (24, "p", VISUAL)


def test_its_own_number_of_nodes_comes_before_the_workers():
    assert find(task(**flavor("npu", 8), node_count=3), workers=(2,)).cards == 24
    assert find(task(**flavor("npu", 8), node_count=-1), workers=(2,)).cards is None


def test_nodes_are_those_of_the_tasks_where_the_job_has_none():
    assert find(task(node_count=3), task(node_count=2)).nodes == 5
    assert find(task(node_count=3), task()).nodes is None
    assert find(task(node_count=3), node_count=4).nodes == 4


def test_cores_and_memory_of_tasks_are_added():
    def part(nodes, cores, size):
        info = {"cpu": {"core_num": cores}, "memory": {"size": size, "unit": "GB"}}
        return task(flavor_info=info, node_count=nodes)

    found = find(part(2, 8, 64), part(3, 4, 16))
    assert (found.cpu_cores, found.memory) == (28, 176 * GIB)
    found = find(part(2, 8, 64), task(node_count=1))
    assert (found.cpu_cores, found.memory) == (None, None)


def test_tasks_in_two_pools_are_one_job_in_the_pool_with_cards():
    cpus = cpu_task(pool_id="pool-cpu", node_count=1)
    cards = task(**flavor("npu", 8), pool_id="pool-npu", node_count=2)
    found = find(cpus, cards)

    assert (found.pool, found.cards, found.nodes) == ("pool-npu", 16, 3)
    cards["task_resource"]["pool_id"] = None
    assert find(cpus, cards).pool == "pool-cpu"


@pytest.mark.parametrize(
    ("size", "unit", "memory"),
    [
        (64, "GB", 64 * GIB),
        ("64", "GiB", 64 * GIB),
        (65536, "mb", 64 * GIB),
        (1, " TB ", 1024 * GIB),
        (64, None, None),
        (64, "pages", None),
        (None, "GB", None),
    ],
)
def test_units_of_memory(size, unit, memory):
    info = {"memory": {"size": size, "unit": unit}}
    found = find(node_count=1, flavor_detail={"flavor_info": info})

    assert found.memory == memory
    field = "spec.resource.flavor_detail.flavor_info.memory"
    assert invalid(found) == ({field} if size and memory is None else set())


def test_cards_of_tasks_without_any_number_of_nodes_are_unknown():
    assert find(task(**flavor("npu", 8)), cpu_task()).cards is None


def test_tasks_tell_what_the_job_does_not():
    found = find(
        cpu_task(flavor_id="cpu.8u", pool_id="pool-cpu"),
        {
            "algorithm": {"engine": {"engine_name": "PyTorch"}},
            **task(**flavor("gpu", 8, "GP-Vnt1"), flavor_type="GPU", flavor_id="p3", pool_id="rl"),
        },
        workers=(1, 2),
    )

    assert found == Hardware(
        pool="rl",
        pool_name="",
        flavor_type="GPU",
        flavor="p3",
        accelerator="GP-Vnt1",
        engine="PyTorch",
        policy="",
        nodes=3,
        cards=16,
        cpu_cores=None,
        memory=None,
        problems={},
    )


@pytest.mark.parametrize(
    ("first", "second", "leading"),
    [
        pytest.param({"flavor_type": "CPU"}, {"flavor_type": "Ascend"}, "second", id="by type"),
        pytest.param({}, flavor("gpu", 1), "second", id="by cards"),
        pytest.param(
            {"flavor_type": "CPU", **flavor("gpu", 0)}, flavor("gpu", 1), "second", id="type first"
        ),
        pytest.param({"flavor_type": "GPU"}, flavor("npu", 1), "first", id="both"),
        pytest.param({"flavor_type": "CPU"}, {"flavor_type": "CPU"}, "first", id="neither"),
    ],
)
def test_the_first_task_with_accelerators_speaks_for_the_job(first, second, leading):
    found = find(task(**first, flavor_id="first"), task(**second, flavor_id="second"))

    assert found.flavor == leading


def test_a_task_that_tells_nothing_does_not_speak_for_the_job():
    assert find({}, task(**flavor("gpu", 1), flavor_id="second")).flavor == "second"


def test_the_job_is_believed_before_its_tasks():
    found = find(
        {
            "algorithm": {"engine": {"engine_name": "PyTorch"}},
            **task(**flavor("gpu", 8, "GP-Vnt1"), flavor_type="GPU", flavor_id="p3", pool_id="rl"),
        },
        engine={"engine_name": "MindSpore"},
        node_count=1,
        pool_id="own",
        flavor_id="kat1",
        flavor_detail=flavor("npu", "2", "Ascend-D910B", flavor_type="Ascend"),
    )

    assert found == Hardware(
        pool="own",
        pool_name="",
        flavor_type="Ascend",
        flavor="kat1",
        accelerator="Ascend-D910B",
        engine="MindSpore",
        policy="",
        nodes=1,
        cards=2,
        cpu_cores=None,
        memory=None,
        problems={},
    )


# --- Kinds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flavor_type", ["CPU", "GPU", "Ascend"])
def test_documented_flavor_types(flavor_type):
    found = find(flavor_detail={"flavor_type": flavor_type})

    assert (found.flavor_type, found.problems) == (flavor_type, {})


@pytest.mark.parametrize("flavor_type", ["TPU", "gpu", "Ascend "])
def test_flavor_types_that_are_not_documented_are_unknown_and_said(flavor_type):
    found = find(
        engine={"engine_name": "Ascend-Powered-Engine"}, flavor_detail={"flavor_type": flavor_type}
    )

    assert found.flavor_type == "unknown"
    assert found.problems == {("flavor_type", "unknown"): flavor_type}


@pytest.mark.parametrize(
    ("told", "flavor_type"),
    [
        pytest.param(
            {ALLOCATED: {"accelerator_type": "ascend-Snt9b"}}, "Ascend", id="accelerator, Ascend"
        ),
        pytest.param(
            {"pool_info": {"accelerator_type": "NVIDIA-Ant8"}}, "GPU", id="accelerator, GPU"
        ),
        pytest.param({"flavor_id": "modelarts.vm.gpu.v100"}, "GPU", id="flavor, GPU"),
        pytest.param({"flavor_id": "modelarts.vm.npu.d910"}, "Ascend", id="flavor, Ascend"),
        pytest.param({"flavor_id": "modelarts.vm.cpu.8ud"}, "CPU", id="input 8: flavor, CPU"),
        pytest.param({"flavor_id": "modelarts.vm.gpu.8vcpu"}, "GPU", id="GPU before CPU"),
        pytest.param({"flavor_id": "modelarts.vm.pnt1.large.eco"}, "GPU", id="card, GPU"),
        pytest.param({"flavor_id": "modelarts.bm.arm.8snt9b3.d"}, "Ascend", id="card, Ascend"),
        pytest.param({"flavor_id": "modelarts.plant1.large"}, "unknown", id="card in a word"),
        pytest.param({"flavor_id": "modelarts.vm.vcpu"}, "unknown", id="CPU in a word"),
        pytest.param({"engine": {"engine_id": "tf-cpu-2.1"}}, "unknown", id="engine, CPU"),
        pytest.param(
            {"pool_info": {"pool_resource_flavor": "modelarts.bm.npu.arm.8snt9b.d"}},
            "Ascend",
            id="flavor of the pool",
        ),
        pytest.param(
            {"flavor_detail": flavor("gpu", 1, "GP-Vnt1")}, "GPU", id="product of a flavor"
        ),
        pytest.param(
            {"engine": {"engine_name": "Ascend-Powered-Engine"}}, "Ascend", id="engine's name"
        ),
        pytest.param({"engine": {"engine_id": "tf-gpu-2.1"}}, "GPU", id="engine's id"),
        pytest.param({"engine": {"engine_name": "input-reader"}}, "unknown", id="in a word"),
        pytest.param({"engine": {"engine_name": "Horovod"}}, "unknown", id="nothing"),
        pytest.param(
            {
                "pool_info": {"accelerator_type": "nvidia-Ant8"},
                "engine": {"engine_name": "Ascend-Powered-Engine"},
            },
            "GPU",
            id="accelerator before engine",
        ),
    ],
)
def test_names_suggest_the_flavor_type_where_nothing_tells_it(told, flavor_type):
    found = find(**told)

    assert (found.flavor_type, found.problems) == (flavor_type, {})


def test_the_product_is_the_accelerator_before_its_type():
    told = {ALLOCATED: {"accelerator_type": "ascend-Snt9b"}}
    detail = flavor("npu", "8", "Ascend-D910B")

    assert find(**told).accelerator == "ascend-Snt9b"
    assert find(**told, flavor_detail=detail).accelerator == "Ascend-D910B"


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["ascend-Snt9b", "ascend-snt9b", "Ascend-SNT9B"], "ascend-Snt9b"),
        (["ascend-snt9c", "ascend-Snt9c"], "ascend-snt9c"),
        (["GP-Vnt1", "gp-vnt1", " GP-Vnt1 "], "GP-Vnt1"),
        (["NVIDIA-A100", "nvidia-a100"], "nvidia-a100"),
    ],
)
def test_input_9_accelerators_have_one_spelling(names, shown):
    for name in names:
        assert find(pool_info={"accelerator_type": name}).accelerator == shown
        assert find(flavor_detail=flavor("gpu", 1, name)).accelerator == shown


def test_known_spellings_differ_in_more_than_case():
    assert len({name.lower() for name in SPELLINGS}) == len(SPELLINGS)


@pytest.mark.parametrize("pool_id", [None, ""])
def test_without_a_pool_it_is_the_public_one(pool_id):
    assert find(pool_id=pool_id).pool == "public"


@pytest.mark.parametrize("pool_id", [None, ""])
def test_input_6_a_federated_job_is_in_a_group_of_pools(pool_id):
    assert find(pool_id=pool_id, pool_group_id="pg-77").pool == "pg-77"


@pytest.mark.parametrize(
    ("engine", "shown"),
    [
        ({"engine_id": "pytorch-cp36-1.4.0-v2", "engine_name": "PyTorch"}, "PyTorch"),
        ({"engine_id": "pytorch-cp36-1.4.0-v2"}, "pytorch-cp36-1.4.0-v2"),
        ({}, ""),
    ],
)
def test_engines(engine, shown):
    assert find(engine=engine).engine == shown


def test_texts_are_labels():
    long = "x\x00" * 250
    found = find(
        engine={"engine_name": long},
        pool_id=long,
        pool_name=long,
        flavor_id=long,
        flavor_detail=flavor("gpu", 1, long),
    )
    shown = {found.pool, found.pool_name, found.flavor, found.accelerator, found.engine}

    assert shown == {("x\ufffd" * 128)[:255] + "…"}
