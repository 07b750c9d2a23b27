"""The hardware of a job, from all fields that may have it."""

import msgspec
import pytest

from exporter.modelarts.decode.hardware import Hardware, find_hardware
from exporter.modelarts.decode.schema import Engine, Resource, Task

ALLOCATED = "main_container_allocated_resources"
VISUAL = "modelarts.pool.visual.8xlarge"


def flavor(kind, unit_num=None, product=None, **more):
    """A FlavorResponse; ``kind`` is ``gpu`` or ``npu``."""
    return {"flavor_info": {kind: {"unit_num": unit_num, "product_name": product}}, **more}


def task(**resource):
    return {"task_resource": resource}


def cpu_task(**more):
    return task(flavor_type="CPU", flavor_info={"cpu": {"core_num": 8}}, **more)


def find(*tasks, engine=None, **resource):
    return find_hardware(
        msgspec.convert(resource, Resource, strict=False),
        msgspec.convert(engine, Engine | None),
        msgspec.convert(tasks, tuple[Task, ...], strict=False),
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
        nodes=None,
        cards=None,
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
            "accelerator_num": 8.0,
            "accelerator_type": "ascend-Snt9b",
        },
    )

    assert found == Hardware(
        pool="llm-0f3c",
        pool_name="llm",
        flavor_type="Ascend",
        flavor=VISUAL,
        accelerator="ascend-Snt9b",
        engine="Ascend-Powered-Engine",
        nodes=4,
        cards=32,
        problems={},
    )


# --- Cards ----------------------------------------------------------------------------------------

SOURCES = (
    (f"spec.resource.{ALLOCATED}.accelerator_num", {ALLOCATED: {"accelerator_num": 1}}),
    ("spec.resource.pool_info.accelerator_num", {"pool_info": {"accelerator_num": 2}}),
    (
        "spec.resource.flavor_detail.flavor_info.npu.unit_num",
        {"flavor_detail": flavor("npu", "3")},
    ),
    ("tasks.task_resource.flavor_info.gpu.unit_num", {"tasks": [task(**flavor("gpu", 4))]}),
    ("flavor_id", {"flavor_id": VISUAL}),
)
CARDS = (1, 2, 3, 4, 8)


def all_from(first, **changed):
    """A job with two nodes where all sources from ``first`` on have a different number."""
    told = {key: value for _, source in SOURCES[first:] for key, value in source.items()} | changed
    return find(*told.pop("tasks", ()), node_count=2, **told)


@pytest.mark.parametrize("first", range(5))
def test_the_first_source_that_tells_is_believed(first):
    assert all_from(first).cards == 2 * CARDS[first]


def test_no_source_no_cards():
    assert all_from(5).cards is None


def broken_sources(number):
    """The sources of ``SOURCES``, with an impossible number."""
    return (
        {ALLOCATED: {"accelerator_num": number}},
        {"pool_info": {"accelerator_num": number}},
        {"flavor_detail": flavor("npu", number)},
        {"tasks": [task(**flavor("gpu", number))]},
    )


@pytest.mark.parametrize("number", [-8, 0.5, 1025, 1e300, "inf", "nan"])
@pytest.mark.parametrize("first", range(4))
def test_a_source_that_cannot_be_right_is_said_and_passed_over(first, number):
    found = all_from(first, **broken_sources(number)[first])

    assert found.cards == 2 * CARDS[first + 1]
    assert invalid(found) == {SOURCES[first][0]}


@pytest.mark.parametrize("number", [None, 0, "0"])
@pytest.mark.parametrize("first", range(4))
def test_a_source_without_a_number_is_passed_over(first, number):
    found = all_from(first, **broken_sources(number)[first])

    assert found.cards == 2 * CARDS[first + 1]
    assert found.problems == {}


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
        ("modelarts.pool.visual.16xlarge", None),
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
            [task(**flavor("gpu", 8)), task(**flavor("gpu", 1))], 27, id="nodes of the job"
        ),
        pytest.param(
            [task(**flavor("npu", 8), node_count=1), task(**flavor("npu", 1))],
            11,
            id="nodes of the task where it tells them",
        ),
        pytest.param(
            [task(**flavor("npu", 8)), cpu_task(), cpu_task(node_count=70)],
            24,
            id="CPUs are no cards",
        ),
        pytest.param([cpu_task(), cpu_task()], None, id="CPUs alone"),
        pytest.param([task(**flavor("npu", 8)), task()], None, id="one does not tell"),
        pytest.param([task(**flavor("npu", 8)), {}], None, id="one is empty"),
        pytest.param(
            [task(**flavor("npu", 8)), task(**flavor("npu", -8), flavor_type="Ascend")],
            None,
            id="one cannot be right",
        ),
    ],
)
def test_cards_of_all_tasks_together(tasks, cards):
    assert find(*tasks, node_count=3).cards == cards


def test_cards_of_tasks_without_any_number_of_nodes_are_unknown():
    assert find(task(**flavor("npu", 8)), cpu_task()).cards is None


def test_tasks_tell_what_the_job_does_not():
    found = find(
        cpu_task(flavor_id="cpu.8u", pool_id="pool-cpu"),
        {
            "algorithm": {"engine": {"engine_name": "PyTorch"}},
            **task(**flavor("gpu", 8, "GP-Vnt1"), flavor_type="GPU", flavor_id="p3", pool_id="rl"),
        },
        node_count=1,
    )

    assert found == Hardware(
        pool="rl",
        pool_name="",
        flavor_type="GPU",
        flavor="p3",
        accelerator="GP-Vnt1",
        engine="PyTorch",
        nodes=1,
        cards=8,
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
        nodes=1,
        cards=2,
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


@pytest.mark.parametrize("pool_id", [None, ""])
def test_without_a_pool_it_is_the_public_one(pool_id):
    assert find(pool_id=pool_id).pool == "public"


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
    long = "x\x00" * 5000
    found = find(
        engine={"engine_name": long},
        pool_id=long,
        pool_name=long,
        flavor_id=long,
        flavor_detail=flavor("gpu", 1, long),
    )
    shown = {found.pool, found.pool_name, found.flavor, found.accelerator, found.engine}

    assert shown == {("x\ufffd" * 128)[:255] + "…"}
