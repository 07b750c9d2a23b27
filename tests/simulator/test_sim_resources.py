"""Cores, memory, nodes, faults and their results: in the documents, and in the truth."""

import json

import pytest

from exporter.simulator.catalog import (
    ASCEND_ROLES,
    CPU_ECONOMY,
    FEATURE_POOL,
    GPU_ROLES,
    LLM_POOL,
    OLD_POOL,
    POOLS,
    REGION,
    RESEARCH_POOL,
    SUPERNODE_GROUP,
    VISION_POOL,
    VISION_WORKSPACE,
)
from exporter.simulator.fleet import Fleet
from exporter.simulator.nodes import Nodes
from exporter.simulator.server import SimulatedService
from exporter.simulator.truth import Event, Events
from exporter.simulator.wire import document

T = 1_750_000_000.0
GB = 2**30
POOLS_PATH = "/v2/0605767eb780d5762f5ec0196d1d2f3a/pools"


@pytest.fixture
def fleet():
    return Fleet(1, T, pools=REGION)


def resource(job, now=T, **form):
    return document(job, now, **form)["spec"]["resource"]


@pytest.mark.parametrize("pool", REGION, ids=lambda pool: pool.name)
def test_cores_and_memory_are_those_of_the_document(fleet, pool):
    job = fleet.create(T, pool=pool, nodes=3)
    for _ in ("before it is allocated", "after"):
        told = per_node(pool, resource(job))
        facts = fleet.facts(job)
        expected = (told[0] * 3, told[1] * 3 * GB) if told else (None, None)
        assert (facts["cpu_cores"], facts["memory_bytes"]) == expected
        fleet.start(job)


def per_node(pool, shown):
    """CPU cores and GB of memory that a resource shows, if it does."""
    match pool.tells:
        case "flavor_detail":
            info = shown["flavor_detail"]["flavor_info"]
            return info["cpu"]["core_num"], info["memory"]["size"]
        case "pool_info":
            return shown["pool_info"]["core_num"], shown["pool_info"]["mem_size"]
        case "allocated":
            names = ("main_container_allocated_resources", "main_container_customized_flavor")
            (found,) = (shown[name] for name in names if name in shown)
            return found["cpu_core_num"], found["mem_size"]
    return None


def test_what_is_requested_is_shown_until_it_is_allocated(fleet):
    job = fleet.create(T, pool=RESEARCH_POOL, flavor=1, nodes=2)
    shown = resource(job)
    assert {"flavor_id", "flavor_detail", "main_container_allocated_resources"}.isdisjoint(shown)
    assert shown["main_container_customized_flavor"] == {
        "cpu_core_num": 192,
        "mem_size": 1536,
        "accelerator_num": 8,
    }
    assert "engine_name" not in document(job, T)["algorithm"]["engine"]
    assert (fleet.facts(job)["cards"], fleet.facts(job)["accelerator"]) == (16, "unknown")
    fleet.start(job)
    shown = resource(job)
    assert "main_container_customized_flavor" not in shown
    allocated = shown["main_container_allocated_resources"]
    assert json.dumps(allocated["accelerator_num"]) == "8.0"
    assert allocated["accelerator_type"] == fleet.facts(job)["accelerator"] == "nvidia-ant03"


def test_no_cards_are_a_value(fleet):
    job = fleet.create(T, pool=FEATURE_POOL)
    assert "accelerator_num" not in resource(job)["main_container_customized_flavor"]
    fleet.start(job)
    allocated = resource(job)["main_container_allocated_resources"]
    assert (allocated["accelerator_num"], "accelerator_type" in allocated) == (0, False)
    assert (job.cards, job.base[2]) == (0, "CPU")


def test_a_group_of_pools(fleet):
    job = fleet.create(T, pool=SUPERNODE_GROUP, nodes=2, kind="federated_pool_job")
    shown = resource(job)
    assert "pool_id" not in shown
    assert "pool_name" not in shown
    assert shown["pool_group_id"] == job.base[1] == SUPERNODE_GROUP.id
    assert shown["flavor_id"] == "modelarts.pool.visual.16xlarge"
    assert (shown["pool_info"]["accelerator_num"], job.cards) == (16, 32)
    fleet.start(fleet.create(T, pool=LLM_POOL))
    spellings = {
        resource(each).get(name, {}).get("accelerator_type")
        for each in fleet
        for name in ("pool_info", "main_container_allocated_resources")
    }
    assert spellings - {None} == {"ascend-snt9b", "ascend-Snt9b"}
    assert {each.accelerator for each in fleet} == {"ascend-Snt9b"}


def test_a_flavor_id_alone(fleet):
    job = fleet.create(T, pool=CPU_ECONOMY)
    assert resource(job)["flavor_id"] == "modelarts.vm.cpu.8ud"
    assert "flavor_detail" not in resource(job)
    assert job.base == ("0", "public", "CPU")


@pytest.mark.parametrize(("roles", "nodes", "cores"), [(GPU_ROLES, 4, 88), (ASCEND_ROLES, 4, 232)])
def test_tasks_have_their_own_nodes(fleet, roles, nodes, cores):
    job = fleet.create(T, roles=roles, kind="hetero_job")
    shown = document(job, T)
    counts = [task["task_resource"]["node_count"] for task in shown["tasks"]]
    assert sum(counts) == shown["spec"]["resource"]["node_count"] == job.nodes == nodes
    workers = shown["status"]["tasks"]
    named = [sum(name.startswith(task["role"]) for name in workers) for task in shown["tasks"]]
    assert named == counts
    infos = [task["task_resource"]["flavor_info"] for task in shown["tasks"]]
    told = sum(n * info["cpu"]["core_num"] for n, info in zip(counts, infos, strict=True))
    assert told == fleet.facts(job)["cpu_cores"] == cores
    for task in document(job, T, task_counts=False)["tasks"]:
        assert "node_count" not in task["task_resource"]


def test_what_users_choose(fleet):
    job = fleet.create(T, retries=3, policy="economic", runtime="debug", priority=2)
    shown = document(job, T)
    assert shown["metadata"]["annotations"]["fault-tolerance/job-retry-num"] == "3"
    assert shown["spec"]["resource"]["policy"] == "economic"
    assert shown["spec"]["schedule_policy"] == {"priority": 2, "preemptible": False}
    assert shown["spec"]["runtime_type"] == "debug"
    facts = fleet.facts(job)
    chosen = [facts[key] for key in ("restart_limit", "policy", "priority", "runtime_type")]
    assert chosen == [3, "economic", 2, "debug"]
    assert facts["algorithm"] == shown["algorithm"].get("name", "")
    assert "schedule_policy" not in document(fleet.create(T), T)["spec"]


def test_a_lost_node_comes_back(fleet):
    job = fleet.create(T, nodes=4)
    fleet.start(job, T + 10)
    fleet.interrupt(job, "pod_reschedule", T + 600, scenario="node_fault")
    assert fleet.facts(job)["nodes_up"] == 3
    fleet.start(job, T + 660)
    fleet.resize(job, 2, T + 900)
    counts = document(job, T + 1000)["status"]["node_count_metrics"]
    assert counts == sorted(counts)
    at_work = [nodes for _, nodes in counts]
    assert [a for a, b in zip(at_work, [*at_work[1:], None], strict=True) if a != b] == [
        *(0, 4, 3, 4, 2),
    ]
    assert counts[-1] == [1_750_001_000_000, 2]
    assert fleet.events[-1].as_dict()["nodes_up"] == 2
    fleet.finish(job, at=T + 1100)
    assert document(job, T + 2000)["status"]["node_count_metrics"][-1] == [1_750_001_100_000, 0]
    summary = fleet.summary()
    assert summary["nodes_up"] == []


def faults(job):
    records = document(job, T + 5000)["status"]["running_records"]
    return [
        (
            entry["recover"],
            entry["fault_scenario"],
            entry["recover_result"],
            "recover_end_at" in entry,
        )
        for record in records
        for entry in record.get("recover_records", [])
    ]


def told(fleet):
    return [
        (event.recovery, event.fault_scenario, event.result)
        for event in fleet.events
        if event.kind == "fault"
    ]


def test_a_recovery_goes_on_before_it_is_final(fleet):
    job = fleet.create(T)
    fleet.start(job, T)
    fleet.interrupt(
        job, "pod_reschedule", T + 50, downgraded_from="npu_step_retry", scenario="chip_fault"
    )
    first = ("npu_step_retry", "chip_fault", "downgrade")
    assert faults(job) == [(*first, True), ("pod_reschedule", "chip_fault", "recovering", False)]
    assert told(fleet) == [first]
    fleet.start(job, T + 60)
    second = ("pod_reschedule", "chip_fault", "success")
    assert faults(job) == [(*first, True), (*second, True)]
    assert told(fleet) == [first, second]


@pytest.mark.parametrize(
    ("phase", "result"),
    [("Failed", "failed"), ("Abnormal", "failed"), ("Terminated", "terminated")],
)
def test_a_recovery_may_not_succeed(fleet, phase, result):
    job = fleet.create(T)
    fleet.start(job, T)
    fleet.interrupt(job, "job_reschedule", T + 50)
    fleet.finish(job, phase, at=T + 60)
    assert faults(job) == [("job_reschedule", "job_failed", result, True)]
    assert told(fleet) == [("job_reschedule", "job_failed", result)]
    (row,) = fleet.summary()["faults"]
    assert (row["pool"], row["flavor_type"], row["result"], row["value"]) == (
        *("public", "Ascend", result, 1),
    )


def test_the_budget_of_restarts_is_used_up(fleet):
    job = fleet.create(T, retries=1)
    fleet.start(job, T)
    fleet.recover(job, "npu_proc_restart", T + 10)
    assert fleet.facts(job)["restarts_used"] == 0
    fleet.recover(job, "job_reschedule", T + 20)
    assert fleet.facts(job)["restarts_used"] == fleet.facts(job)["restart_limit"] == 1
    fleet.finish(
        job, "Failed", 137, T + 30, refused="pod_reschedule", scenario="node_fault", task="worker-0"
    )
    assert faults(job)[-1] == ("pod_reschedule", "node_fault", "quotaExceeded", True)
    assert told(fleet)[-1] == ("pod_reschedule", "node_fault", "quotaExceeded")
    last = document(job, T + 60)["status"]["running_records"][-1]
    assert "end_recover" not in last
    assert fleet.facts(job)["faults"][-1] == {
        "fault_scenario": "node_fault",
        "recovery": "pod_reschedule",
        "result": "quotaExceeded",
        "count": 1,
    }


def test_start_ups_are_told_once_for_each_run(fleet):
    job, on_cpus = fleet.create(T), fleet.create(T, pool="public-cpu")
    fleet.start(job, T + 0.9, startup=None)
    record = document(job, T + 5)["status"]["running_records"][0]
    assert "xpu_start_at" not in record
    fleet.compute(job, T + 40.2)
    fleet.compute(job, T + 50)
    record = document(job, T + 60)["status"]["running_records"][0]
    assert (record["xpu_start_at"], record["start_at"]) == (1_750_000_040, 1_750_000_000)
    fleet.recover(job, "proc_restart", T + 70)
    fleet.start(on_cpus, T)
    assert "xpu_start_at" not in document(on_cpus, T + 60)["status"]["running_records"][0]
    assert fleet.facts(job)["startups"] == [40, 5]
    fleet.delete(job)
    summary = fleet.summary()
    assert [row["value"] for row in summary["startups"]] == [2]
    assert [row["value"] for row in summary["startup_seconds"]] == [45]


def test_a_message_without_an_exit_code(fleet):
    job = fleet.create(T, nodes=2)
    fleet.start(job, T, startup=None)
    fleet.finish(job, "Failed", at=T + 20, coded=False, task="worker-1")
    failed = {"task": "worker-1", "message": "image pull failed"}
    shown = document(job, T + 30, all_statuses=False)["status"]["task_statuses"]
    assert shown == [failed]
    assert document(job, T + 30)["status"]["task_statuses"] == [
        {"task": "worker-0", "exit_code": 0, "message": ""},
        failed,
    ]
    facts = fleet.facts(job)
    assert (facts["exit_code"], facts["message"]) == (None, "image pull failed")


async def test_a_service_shows_the_first_failed_task(client, service):
    job = service.fleet.create(T, nodes=3)
    service.fleet.start(job, T)
    service.fleet.finish(job, "Failed", 137, T + 5, task="worker-1")
    shown = {}
    for behaviour in ("first_failed", "all"):
        service.behaviour.task_statuses = behaviour
        (item,) = (await (await client.search({})).json())["items"]
        shown[behaviour] = [each["task"] for each in item["status"]["task_statuses"]]
    assert shown == {"first_failed": ["worker-1"], "all": ["worker-0", "worker-1", "worker-2"]}


def test_the_summary_sums_cores_and_memory(fleet):
    for pool in (VISION_POOL, OLD_POOL):
        fleet.start(fleet.create(T, pool=pool, nodes=2))
    fleet.finish(fleet.create(T, pool=VISION_POOL))
    base = {"workspace": "0", "pool": VISION_POOL.id, "flavor_type": "GPU", "phase": "Running"}
    summary = fleet.summary()
    assert summary["cpu_cores"] == [base | {"value": 48}]
    assert summary["memory_bytes"] == [base | {"value": 2 * 192 * GB}]
    assert [row["value"] for row in summary["nodes_up"]] == [2, 2]


# --- Pools and their nodes ------------------------------------------------------------------------


async def test_a_workspace_has_its_own_pools(client, fleet, service):
    async with SimulatedService(fleet) as region:
        service.url = region.url  # the client's
        names = {}
        for query in ("", "?workspaceId=0", f"?workspaceId={VISION_WORKSPACE}"):
            items = (await (await client("GET", POOLS_PATH + query)).json())["items"]
            names[query] = [item["metadata"]["labels"]["os.modelarts/name"] for item in items]
    own = ["llm-pretraining", "vision", "lab-old", "data-preparation", "features"]
    assert list(names.values()) == [own, own, ["research"]]


def test_nodes_are_shared_by_small_jobs_and_never_by_large_ones(fleet):
    nodes = Nodes(VISION_POOL)
    small = [fleet.create(T, pool=VISION_POOL) for _ in range(9)]
    large = fleet.create(T, pool=VISION_POOL, flavor=3, nodes=7)
    for job in small[:8]:
        nodes.hold(job)
    assert {id(node) for job in small[:8] for node in nodes.nodes_of(job)} == {
        id(node) for node in nodes.nodes_of(small[0])
    }
    nodes.hold(large)
    assert nodes.find(small[8]) is None
    assert (nodes.used, sum(node.free for node in nodes)) == (64, 0)
    nodes.hold(small[8])  # by hand, beyond the capacity
    assert (nodes.used, sum(node.free for node in nodes)) == (65, -1)
    assert all(nodes.release(job) for job in (*small, large))
    assert not nodes.release(large)
    assert (nodes.used, sum(node.free for node in nodes)) == (0, 64)


def test_nodes_that_are_not_available_take_no_jobs(fleet):
    nodes = Nodes(OLD_POOL)
    for node, state in zip(nodes, ("abnormal", "creating", "deleting"), strict=False):
        node.state = state
    job, trial = (fleet.create(T, pool=OLD_POOL, flavor=flavor) for flavor in (1, 0))
    assert nodes.find(fleet.create(T, pool=OLD_POOL, flavor=1, nodes=2)) is None
    nodes.hold(job)
    assert nodes.find(trial) is None
    assert nodes.summary() == {
        "nodes": {"available": 1, "abnormal": 1, "creating": 1, "deleting": 1},
        "capacity_cards": 32,
        "available_cards": 8,
        "allocated_cards": 8,
        "free_cards": 0,
    }


def test_some_nodes_are_left_to_trials(fleet):
    nodes = Nodes(OLD_POOL)
    assert nodes.find(fleet.create(T, pool=OLD_POOL, flavor=1, nodes=4), trial=False) is None
    assert nodes.find(fleet.create(T, pool=OLD_POOL, flavor=1, nodes=3), trial=False)
    ((node, cards),) = nodes.find(fleet.create(T, pool=OLD_POOL))
    assert (node.for_trials, cards) == (True, 1)


def test_jobs_started_by_hand_take_nodes_too(fleet):
    job = fleet.create(T, pool=LLM_POOL, nodes=4)
    fleet.start(job)
    (row,) = (row for row in fleet.summary()["pools"] if row["pool"] == LLM_POOL.id)
    assert (row["capacity_cards"], row["allocated_cards"]) == (256, 32)
    fleet.interrupt(job, "job_reschedule")
    assert fleet.used(LLM_POOL) == 0
    fleet.start(job)
    fleet.stop(job)
    assert fleet.used(LLM_POOL) == 32
    fleet.finish(job, "Terminated")
    assert fleet.used(LLM_POOL) == 0


def test_events_keep_their_numbers_when_others_are_forgotten(fleet):
    job = fleet.create(T)
    events = Events()
    for number in range(10):
        events.append(Event(T + number, "created", job, "Creating"))
    events.forget(4)
    assert (len(events), events.first) == (10, 6)
    assert [event.at - T for event in events] == [6, 7, 8, 9]
    assert [event.at - T for event in events[3:8]] == [6, 7]
    assert events[8].at == events[-2].at == T + 8
    events.forget(100)
    assert events.first == 6


async def test_forgotten_events_are_left_out(client, fleet, service):
    for _ in range(5):
        service.fleet.create()
    service.fleet.events.forget(2)
    answer = await (await client("GET", "/-/sim/events?since=1")).json()
    assert (answer["next"], len(answer["events"])) == (5, 2)


def test_the_pools_of_the_documentation_are_part_of_the_region():
    assert REGION[: len(POOLS)] == POOLS
    assert len({pool.name for pool in REGION}) == len(REGION)
