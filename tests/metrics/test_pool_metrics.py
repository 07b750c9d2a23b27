"""The series of resource pools: what is known of them, and nothing else."""

import pytest
from metrics.test_job_metrics import NOW, fleet, job

from exporter.jobs.pool import (
    Fullness,
    NodeCards,
    Pool,
    PoolInfo,
    PoolSnapshot,
    PoolUsage,
    Quota,
)
from exporter.metrics.exposition import assemble, render_block
from exporter.metrics.fleet import fleet_blocks
from exporter.metrics.pools import POOL_FAMILIES, POOL_INFO, pool_blocks

TARGET = {"region": "cn-north-4", "project": "llm"}
NODES = {("8snt9b", "available"): 6, ("8snt9b", "abnormal"): 2}
CARDS = {("ascend-1980", "capacity"): 64.0, ("ascend-1980", "allocated"): 40.0}
SNAPSHOT = PoolSnapshot(
    pools={"p1": Pool(PoolInfo("llm", "Dedicate", "0"), "Ascend", "Running", NODES)},
    usage={"p1": PoolUsage(CARDS, {("train", "allocated"): 5.0, ("train", "queue"): 3.0})},
    flavors={"8snt9b": NodeCards("ascend-Snt9b", 8)},
    quotas={"job-num": Quota(1000.0, 20.0)},
)

GOLDEN = {
    "modelarts_pool_status": """\
# HELP modelarts_pool_status Current status of a resource pool (status.phase in the pool list) as \
a label; always 1.
# TYPE modelarts_pool_status gauge
modelarts_pool_status{pool="p1",project="llm",region="cn-north-4",status="Running"} 1.0
""",
    "modelarts_pool_nodes": """\
# HELP modelarts_pool_nodes Nodes of a resource pool by flavor and state (status.resources in the \
pool list); available nodes are healthy ones, whether jobs use them or not.
# TYPE modelarts_pool_nodes gauge
modelarts_pool_nodes{flavor="8snt9b",pool="p1",project="llm",region="cn-north-4",\
state="abnormal"} 2.0
modelarts_pool_nodes{flavor="8snt9b",pool="p1",project="llm",region="cn-north-4",\
state="available"} 6.0
""",
    "modelarts_pool_accelerators": """\
# HELP modelarts_pool_accelerators Cards (NPUs, GPUs) of a resource pool: capacity, allocated and \
available (table in metrics/runtime/pools, otherwise the capacity is cards per node times nodes).
# TYPE modelarts_pool_accelerators gauge
modelarts_pool_accelerators{accelerator="ascend-Snt9b",pool="p1",project="llm",\
region="cn-north-4",state="allocated"} 40.0
modelarts_pool_accelerators{accelerator="ascend-Snt9b",pool="p1",project="llm",\
region="cn-north-4",state="capacity"} 64.0
""",
    "modelarts_pool_workloads": """\
# HELP modelarts_pool_workloads Workloads of a resource pool by type: with resources allocated, \
and in the queue (table.workload in metrics/runtime/pools).
# TYPE modelarts_pool_workloads gauge
modelarts_pool_workloads{pool="p1",project="llm",region="cn-north-4",state="allocated",\
type="train"} 5.0
modelarts_pool_workloads{pool="p1",project="llm",region="cn-north-4",state="queue",\
type="train"} 3.0
""",
    "modelarts_training_quota_limit": """\
# HELP modelarts_training_quota_limit What the project may have of a resource (quota in \
training-quotas); job-num is the number of training jobs listed, absent if unlimited.
# TYPE modelarts_training_quota_limit gauge
modelarts_training_quota_limit{project="llm",region="cn-north-4",resource="job-num"} 1000.0
""",
    "modelarts_training_quota_used": """\
# HELP modelarts_training_quota_used What the project has of a resource (used in training-quotas).
# TYPE modelarts_training_quota_used gauge
modelarts_training_quota_used{project="llm",region="cn-north-4",resource="job-num"} 20.0
""",
}


def text(blocks):
    return {b.metric.name: assemble([(b.metric, [render_block(b)])]).text.decode() for b in blocks}


def test_the_families_are_these():
    assert [family.metric.name for family in POOL_FAMILIES] == [POOL_INFO.metric.name, *GOLDEN]


@pytest.mark.parametrize("name", GOLDEN)
def test_a_family_in_full(name):
    assert text(pool_blocks(SNAPSHOT, TARGET))[name] == GOLDEN[name]


def test_what_is_unknown_has_no_series():
    assert pool_blocks(PoolSnapshot(), TARGET) == []
    bare = PoolSnapshot(
        {"p": Pool(PoolInfo(""))}, {"p": PoolUsage()}, quotas={"job-num": Quota(None, None)}
    )
    assert pool_blocks(bare, TARGET) == []


# --- Cards ----------------------------------------------------------------------------------------


def cards(nodes, usage=None, **flavors):
    pool = Pool(PoolInfo(""), nodes=nodes)
    known = {flavor: NodeCards(*each) for flavor, each in flavors.items()}
    return PoolSnapshot({"p": pool}, {"p": PoolUsage(usage)} if usage else {}, known).cards("p")


ONE = {("f", "available"): 3, ("f", "abnormal"): 1}
TWO = {("f", "available"): 3, ("g", "available"): 1}


@pytest.mark.parametrize(
    ("nodes", "flavors", "accelerator"),
    [
        (ONE, {"f": ("product", 8)}, "product"),
        (TWO, {"f": ("product", 8), "g": ("product", 4)}, "product"),
        (TWO, {"f": ("product", 8), "g": ("", 0)}, "product"),  # nodes without cards
        (TWO, {"f": ("product", 8), "g": ("other", 8)}, "gpu"),
        (ONE, {"f": ("", 8)}, "gpu"),
        (ONE, {}, "gpu"),
        ({}, {}, "gpu"),
    ],
)
def test_cards_have_the_name_of_the_product_if_that_is_certain(nodes, flavors, accelerator):
    found = cards(nodes, {("gpu", "capacity"): 32.0, ("gpu", "available"): 8.0}, **flavors)
    assert found == {(accelerator, "capacity"): 32, (accelerator, "available"): 8}


def test_cards_of_several_resources_keep_their_names():
    usage = {("gpu", "capacity"): 32.0, ("npu", "capacity"): 8.0}
    assert cards(ONE, usage, f=("product", 8)) == usage


@pytest.mark.parametrize(
    ("nodes", "flavors", "expected"),
    [
        (ONE, {"f": ("product", 8)}, {("product", "capacity"): 32}),
        (ONE, {"f": ("", 8)}, {("unknown", "capacity"): 32}),
        (TWO, {"f": ("a", 8), "g": ("b", 4)}, {("a", "capacity"): 24, ("b", "capacity"): 4}),
        (ONE, {"f": ("", 0)}, {}),
        (TWO, {"f": ("product", 8)}, {}),  # the cards of g are unknown, so their sum is, too
    ],
)
def test_without_the_usage_the_nodes_tell_the_capacity(nodes, flavors, expected):
    assert cards(nodes, **flavors) == expected


@pytest.mark.parametrize(
    ("usage", "fullness"),
    [
        ({"capacity": 64.0, "allocated": 40.0, "available": 8.0}, (8, 64, 1)),
        ({"capacity": 64.0, "allocated": 40.0}, (24, 64, 1)),
        ({"capacity": 64.0, "allocated": 70.0}, (0, 64, 1)),
        ({"capacity": 64.0}, (None, 64, 1)),
        ({}, (None, None, 1)),
    ],
)
def test_how_full_a_pool_is(usage, fullness):
    found = PoolSnapshot(
        {"p": Pool(PoolInfo(""), nodes=ONE)},
        {"p": PoolUsage({("gpu", state): number for state, number in usage.items()})},
    )
    assert found.fullness("p") == fullness
    assert found.fullness("unknown") == Fullness(None, None, None)


# --- Labels for joins -----------------------------------------------------------------------------


def infos(known, snapshot=SNAPSHOT):
    blocks = fleet_blocks(known, {}, pool_infos=snapshot.infos(known.pool_names))
    (found,) = (block for block in blocks if block.metric == POOL_INFO.metric)
    assert {value for _, value in found.samples} <= {1.0}
    return [labels for labels, _ in found.samples]


UNKNOWN = ("unknown", "unknown")


def test_a_pool_has_the_labels_that_the_list_of_pools_says():
    jobs = job("a", pool_name="old"), job("b", pool="p2", pool_name="of jobs alone")
    known = fleet(*jobs, pools={"p1": "new", "p0": "not read now"})
    expected = [
        ("p0", "not read now", *UNKNOWN),
        ("p1", "new", "Dedicate", "0"),
        ("p2", "of jobs alone", *UNKNOWN),
    ]

    assert infos(known) == expected
    assert infos(fleet(*jobs, before=known)) == expected  # not told again
    assert infos(fleet(*jobs, before=known, pools={})) == [
        ("p1", "old", *UNKNOWN),
        ("p2", "of jobs alone", *UNKNOWN),
    ]


def test_a_pool_has_the_name_that_its_newest_job_says():
    known = fleet(
        job("a", pool_name="old", created=NOW - 200),
        job("b", pool_name="new", created=NOW - 100),
        job("c", pool_name="", created=NOW),
        job("d", pool="p2", pool_name="vision", created=None),
        job("e", pool="public"),
        job("f", pool_name="nobody knows when", created=None),
    )

    assert infos(known) == [("p1", "new", *UNKNOWN), ("p2", "vision", *UNKNOWN)]
