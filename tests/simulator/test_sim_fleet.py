import json

import pytest

from exporter.simulator.catalog import ASCEND_ROLES, GPU_ROLES, POOLS
from exporter.simulator.edits import ABSENT, edit
from exporter.simulator.fleet import Fleet
from exporter.simulator.job import PHASES
from exporter.simulator.wire import document

T = 1_750_000_000.0


def kinds(fleet):
    return [event.kind for event in fleet.events]


def test_a_job_goes_its_way_and_leaves_a_record(fleet):
    job = fleet.create(T, pool="llm-pretraining", nodes=4, retries=3)
    fleet.queue(job, T + 2)
    fleet.start(job, T + 10)
    fleet.recover(job, "npu_proc_restart", T + 70, gap=5, downgraded_from="npu_step_retry")
    fleet.recover(job, "job_reschedule", T + 100, gap=30)
    fleet.finish(job, "Failed", 137, T + 200, task="worker-2")
    facts = fleet.facts(job)
    assert facts["restarts"] == [
        {"start_type": "init_or_rescheduled", "recovery": "job_reschedule", "count": 1},
        {"start_type": "restarted", "recovery": "npu_proc_restart", "count": 1},
    ]
    assert (facts["created"], facts["started"], facts["ended"]) == (T, T + 10, T + 200)
    assert facts["duration"] == 60 + 25 + 70
    assert (facts["cards"], facts["exit_code"], facts["failed_task"]) == (32, 137, "worker-2")
    assert facts["faults"] == [
        {"fault_scenario": "job_failed", "recovery": name, "result": result, "count": 1}
        for name, result in (
            ("job_reschedule", "success"),
            ("npu_proc_restart", "success"),
            ("npu_step_retry", "downgrade"),
        )
    ]
    assert kinds(fleet) == [
        *("created", "queued", "started", "computing"),
        *("interrupted", "fault", "downgraded", "fault", "restarted", "computing"),
        *("interrupted", "fault", "restarted", "computing"),
        "finished",
    ]
    downgraded = fleet.events[6].as_dict()
    assert (downgraded["from_recovery"], downgraded["to_recovery"]) == (
        "npu_step_retry",
        "npu_proc_restart",
    )
    assert (downgraded["pool"], downgraded["flavor_type"]) == ("llm-pretraining-0f3c7d92", "Ascend")


def test_the_document_tells_the_same_in_its_own_units(fleet):
    job = fleet.create(T + 0.25, nodes=2)
    fleet.start(job, T + 10.5)
    fleet.recover(job, "proc_restart", T + 70, gap=5)
    fleet.finish(job, "Failed", 2, T + 100)
    shown = document(job, T + 500)
    assert shown["metadata"]["create_time"] == 1_750_000_000_250
    status = shown["status"]
    assert (status["start_time"], status["duration"]) == (1_750_000_010_500, 84_500)
    first, second = status["running_records"]
    assert (first["start_at"], first["end_at"]) == (1_750_000_010, 1_750_000_070)
    assert first["end_recover"] == "proc_restart"
    assert second["start_type"] == "restarted"
    assert (second["end_reason"], second["end_related_task"]) == ("exit with 2", "worker-0")
    assert "end_recover" not in second
    assert [task["exit_code"] for task in status["task_statuses"]] == [2, 0]


def test_an_unstarted_job_has_no_start_and_no_records(fleet):
    job = fleet.create(T)
    fleet.finish(job, "Abnormal", at=T + 3)
    status = document(job, T + 60)["status"]
    assert (status["start_time"], status["duration"]) == (0, 0)
    assert status["secondary_phase"] == "CreateFailed"
    assert {"running_records", "task_statuses"}.isdisjoint(status)


def test_the_last_point_says_how_many_nodes_work(fleet):
    job = fleet.create(T, nodes=4)
    fleet.start(job, T + 10)
    assert document(job, T + 500)["status"]["node_count_metrics"][-1] == [1_750_000_500_000, 4]
    fleet.interrupt(job, "pod_reschedule", T + 600)
    assert document(job, T + 700)["status"]["node_count_metrics"][-1] == [1_750_000_700_000, 3]


def test_a_long_job_has_hundreds_of_points_in_order(fleet):
    job = fleet.create(T)
    fleet.start(job, T + 10)
    points = document(job, T + 5 * 86_400)["status"]["node_count_metrics"]
    assert 190 < len(points) < 220
    assert points == sorted(points)


def test_a_live_record_has_no_end_or_the_end_zero(fleet):
    ends = set()
    for millisecond in range(2):
        job = fleet.create(T + millisecond / 1000)
        fleet.start(job, T + 10)
        ends.add(document(job, T + 20)["status"]["running_records"][0].get("end_at"))
    assert ends == {None, 0}


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.name)
def test_cards_are_told_in_the_way_of_the_pool(fleet, pool):
    job = fleet.create(T, pool=pool, flavor=pool.flavors[-1], nodes=3)
    fleet.start(job)
    resource = document(job, T)["spec"]["resource"]
    assert ("flavor_detail" in resource) == (pool.id is None)
    assert resource.get("pool_id") == pool.id
    told = {
        "flavor_detail": lambda: cards_of_flavor(resource["flavor_detail"]),
        "allocated": lambda: resource["main_container_allocated_resources"].get("accelerator_num"),
        "pool_info": lambda: resource["pool_info"]["accelerator_num"],
        "flavor_id": lambda: {"modelarts.pool.visual.8xlarge": 8}[resource["flavor_id"]],
    }[pool.tells]()
    assert (told or 0) * 3 == job.cards


def cards_of_flavor(detail):
    info = detail["flavor_info"]
    if "npu" in info:
        assert isinstance(info["npu"]["unit_num"], str)
        return int(info["npu"]["unit_num"])
    if "gpu" in info:
        assert isinstance(info["gpu"]["unit_num"], int)
        return info["gpu"]["unit_num"]
    return 0


@pytest.mark.parametrize(("roles", "cards"), [(GPU_ROLES, 8), (ASCEND_ROLES, 9)])
def test_a_heterogeneous_job_tells_its_cards_by_task(fleet, roles, cards):
    job = fleet.create(T, roles=roles, kind="hetero_job")
    shown = document(job, T)
    assert shown["metadata"]["annotations"]["job_template"] == "Template RL"
    assert "flavor_detail" not in shown["spec"]["resource"]
    infos = [task["task_resource"]["flavor_info"] for task in shown["tasks"]]
    assert sum(cards_of_flavor({"flavor_info": info}) for info in infos) == cards == job.cards
    assert {type(info["disk"]["size"]) for info in infos} == {int}


def test_the_disk_of_a_flavor_is_a_string(fleet):
    detail = document(fleet.create(T), T)["spec"]["resource"]["flavor_detail"]
    assert detail["flavor_info"]["disk"] == {"size": "500", "unit": "GB"}


def test_overrides_change_the_document_and_not_the_truth(fleet):
    job = fleet.create(T, overrides={"status.phase": "Strange", "spec.resource": ABSENT})
    other = fleet.create(T)
    assert document(job, T)["status"]["phase"] == "Strange"
    assert "resource" not in document(job, T)["spec"]
    assert "resource" in document(other, T)["spec"]
    assert fleet.facts(job)["phase"] == "Creating"
    fleet.override(job, {})
    assert document(job, T)["status"]["phase"] == "Creating"


def test_an_edit_shares_nothing_with_the_document():
    before = {"a": [{"b": 1}, 2], "c": {"d.e": 3}}
    copy = json.loads(json.dumps(before))
    assert edit(before, ("a", "0", "b"), 9) == {"a": [{"b": 9}, 2], "c": {"d.e": 3}}
    assert edit(before, ("a", "1"), ABSENT) == {"a": [{"b": 1}], "c": {"d.e": 3}}
    assert edit(before, ("c", "d.e"), ABSENT) == {"a": [{"b": 1}, 2], "c": {}}
    assert edit(before, ("x", "y"), 1)["x"] == {"y": 1}
    assert edit(before, ("x", "y"), ABSENT) == before
    assert edit(before, (), 7) == 7
    assert before == copy


def test_a_job_that_ended_may_run_again(fleet):
    job = fleet.create(T)
    fleet.start(job, T + 1)
    fleet.finish(job, "Failed", at=T + 2)
    fleet.reactivate(job, T + 3)
    facts = fleet.facts(job)
    assert (facts["phase"], facts["ended"], facts["exit_code"]) == ("Running", None, None)
    assert facts["restarts"] == [
        {"start_type": "init_or_rescheduled", "recovery": "unknown", "count": 1}
    ]
    assert fleet.index.sorted("0", active=True)[0][2] is job


def test_the_summary_counts_what_is(fleet):
    for phase in PHASES:
        job = fleet.create(T, pool="vision", nodes=2)
        fleet.enter(job, phase)
    fleet.create(T - 5, pool="vision")
    fleet.delete(fleet.create(T - 9, pool="vision"))
    summary = fleet.summary()
    base = {"workspace": "0", "pool": "pool-8c21e4aa", "flavor_type": "GPU"}
    assert base | {"phase": "Creating", "value": 2} in summary["jobs"]
    assert base | {"phase": "Failed", "value": 1} in summary["jobs"]
    assert base | {"phase": "Creating", "value": 3} in summary["nodes"]
    cards = base | {"phase": "Running", "accelerator": "nvidia-Ant8", "value": 2}
    assert cards in summary["cards"]
    assert not [row for row in summary["cards"] if row["phase"] == "Failed"]
    assert summary["oldest_pending"] == [base | {"value": T - 5}]


def test_an_id_is_given_once(fleet):
    fleet.create(T, id="one")
    with pytest.raises(ValueError, match="one exists"):
        fleet.create(T, id="one")


def test_the_clock_stands_still_while_paused_and_never_goes_back():
    fleet = Fleet(0, T)
    fleet.advance(T + 5)
    fleet.advance(T + 1)
    assert fleet.now == T + 5
    fleet.pause()
    fleet.advance(T + 50)
    assert fleet.now == T + 5
    fleet.resume()
    fleet.advance(T + 60)
    assert fleet.now == T + 60
