"""Responses of the service in, flat jobs out, whatever the responses contain."""

import contextlib
import functools
import json
import math
import tracemalloc
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs.examples import jobs_in

from exporter.errors import BrokenResponseError, InvalidResponseError
from exporter.jobs.fleet import Fleet
from exporter.jobs.job import PHASES, Fault, Job, JobPage, Problem, Run, View
from exporter.jobs.tracker import observe
from exporter.modelarts.decode import jobs as decoding
from exporter.modelarts.decode import responses
from exporter.modelarts.decode import schema as wire
from exporter.modelarts.decode.jobs import decode_job, decode_page
from exporter.modelarts.decode.lenient import MAX_ELEMENTS
from exporter.simulator.edits import ABSENT, edit
from exporter.simulator.living import LivingFleet
from exporter.simulator.recipes import PLANTED_SECRETS
from exporter.simulator.wire import document

NOW = 1_750_000_000.0
VENDOR = Path(__file__).parents[2] / "data/vendor-response.json"


def item(job_id="a", **parts):
    """A running job as the service shows it, with ``status`` and other parts changed."""
    whole = {
        "kind": "job",
        "metadata": {
            "id": job_id,
            "name": "train",
            "workspace_id": "0",
            "user_name": "li",
            "create_time": 1_749_990_000_000,
        },
        "status": {"phase": "Running", "duration": 60_000, "start_time": 1_749_990_300_000},
        "spec": {"resource": {"node_count": 2}},
    }
    for name, part in parts.items():
        whole[name] = whole.get(name, {}) | part if isinstance(part, dict) else part
    return whole


def as_json(*items, **more):
    return json.dumps({"items": items, **more}).encode()


def decode(*items, workspace="0", **more):
    return decode_page(as_json(*items, **more), workspace=workspace, now=NOW)


def only(page):
    """The only job of a page without problems."""
    (job,) = page.jobs
    assert page.undecodable == []
    assert page.problems == []
    return job


def one(**parts):
    return only(decode(item(**parts)))


def with_problems(page):
    """The only job of a page, and its problems."""
    (job,) = page.jobs
    assert {problem.job_id for problem in page.problems} <= {job.id}
    return job, {(problem.kind, problem.field): problem.value for problem in page.problems}


def invalid(*fields):
    return {("invalid", field): "" for field in fields}


# --- As documented --------------------------------------------------------------------------------


def test_the_vendors_example():
    page = decode_page(VENDOR.read_bytes(), workspace="0", now=NOW)

    assert page == JobPage(
        jobs=[
            Job(
                id="3faf5c03-aaa1-4cbe-879d-24b05d997347",
                name="trainjob--py14_mem06-byd-108",
                user="ei_modelarts_q00357245_01",
                workspace="0",
                kind="job",
                phase="Abnormal",
                pool="public",
                pool_name="",
                flavor_type="GPU",
                flavor="modelarts.vm.pnt1.large.eco",
                accelerator="GP-Pnt1",
                engine="PyTorch",
                created=1636447346.315,
                started=None,
                ended=None,
                duration=0.0,
                nodes=1,
                current_nodes=1,
                accelerators=1,
                runs=None,
                failed_task="",
                exit_code=None,
                message="",
                cpu_cores=8.0,
                memory=64 * 2.0**30,
                policy="economic",
                algorithm="",
                runtime_type="",
                restart_limit=None,
                priority=None,
            )
        ],
        undecodable=[],
        without_phase=[],
        problems=[],
        total=5059,
        count=1,
        size=1,
    )


def test_a_job_that_tells_next_to_nothing():
    page = decode({"metadata": {"id": "a"}}, workspace="w")

    assert page.jobs == [
        Job(
            id="a",
            name="",
            user="",
            workspace="w",
            kind="job",
            phase="Unknown",
            pool="public",
            pool_name="",
            flavor_type="unknown",
            flavor="",
            accelerator="unknown",
            engine="",
            created=None,
            started=None,
            ended=None,
            duration=None,
            nodes=None,
            current_nodes=None,
            accelerators=None,
            runs=None,
            failed_task="",
            exit_code=None,
            message="",
        )
    ]
    assert page.problems == [Problem("a", "phase", "", "unknown")]


def test_a_single_job_is_decoded_as_a_page_of_it():
    page = decode_job(json.dumps(item()).encode(), workspace="0", now=NOW)

    assert page == decode(item())


def test_a_job_is_in_the_workspace_that_it_names():
    assert only(decode(item(), workspace="searched")).workspace == "0"


@pytest.mark.parametrize("phase", PHASES)
def test_documented_phases(phase):
    assert one(status={"phase": phase}).phase == phase


@pytest.mark.parametrize("phase", ["Paused", "running", "Running "])
def test_a_phase_that_is_not_documented_is_unknown_and_said(phase):
    job, problems = with_problems(decode(item(status={"phase": phase})))

    assert job.phase == "Unknown"
    assert problems == {("unknown", "phase"): phase}


@pytest.mark.parametrize(
    ("total", "kept"),
    [(5059, 5059), ("7", 7), (0, 0), (None, None), (-1, None), (1e300, None), ([], None)],
)
def test_totals_are_passed_on_if_they_can_be_right(total, kept):
    page = decode(item(), total=total, count=total)

    assert (page.total, page.count, page.size) == (kept, kept, 1)


def test_an_empty_list_is_a_page():
    assert decode(total=0, count=0) == JobPage([], [], [], [], total=0, count=0, size=0)


@pytest.mark.parametrize("garbled", [{}, {"group_by": "\ud800"}], ids=["fast", "patient"])
@pytest.mark.parametrize(
    "more",
    [
        {"total": 0},
        {"total": 0, "count": 0},
        {"total": 5059, "count": 0},
        {"total": "0"},
        {"total": 50, "count": 50, "offset": 1},
    ],
)
def test_input_15_null_is_an_empty_list_where_nothing_is_to_be_listed(more, garbled):
    body = json.dumps({"items": None, **more, **garbled}).encode()
    page = decode_page(body, workspace="0", now=NOW)

    assert (page.jobs, page.size) == ([], 0)


@pytest.mark.parametrize(
    "more",
    [{}, {"total": 5}, {"total": 5, "count": 5, "offset": 0}, {"error_code": "X", "total": 0}],
)
def test_null_is_no_list_where_there_are_jobs_to_be_listed(more):
    with pytest.raises(InvalidResponseError):
        decode_page(json.dumps({"items": None, **more}).encode(), workspace="0", now=NOW)


@pytest.mark.parametrize("total", [0, "0", None])
def test_an_absent_list_is_no_answer(total):
    with pytest.raises(InvalidResponseError, match=r"^the response has no list of items$"):
        decode_page(json.dumps({"total": total, "count": 0}).encode(), workspace="0", now=NOW)


# --- Times ----------------------------------------------------------------------------------------


def test_milliseconds_become_seconds_once():
    job = one(
        metadata={"create_time": 1_749_990_000_123},
        status={"start_time": 1_749_990_300_456, "duration": 61_789},
    )

    assert (job.created, job.started, job.duration) == (1749990000.123, 1749990300.456, 61.789)


@pytest.mark.parametrize("start_time", [0, None, "0"])
def test_a_job_that_never_started_has_no_start(start_time):
    assert one(status={"start_time": start_time}).started is None


@pytest.mark.parametrize(
    "create_time",
    [
        pytest.param(1_749_990_000, id="seconds"),
        pytest.param(1_749_990_000_000_000, id="microseconds"),
        pytest.param(1_750_086_400_000, id="tomorrow"),
        pytest.param(-1, id="negative"),
        pytest.param(10**400, id="huge"),
    ],
)
@pytest.mark.parametrize(
    ("part", "name", "field"),
    [("metadata", "create_time", "created"), ("status", "start_time", "started")],
)
def test_a_time_that_cannot_be_right_is_unset_and_said(part, name, field, create_time):
    job, problems = with_problems(decode(item(**{part: {name: create_time}})))

    assert getattr(job, field) is None
    assert problems == invalid(f"{part}.{name}")
    assert job == msgspec.structs.replace(one(), **{field: None})


@pytest.mark.parametrize("duration", [-1, 10**14, "1e400"])
def test_a_duration_that_cannot_be_right_is_unset_and_said(duration):
    job, problems = with_problems(decode(item(status={"duration": duration})))

    assert job.duration is None
    assert problems == invalid("status.duration")


# --- Runs -----------------------------------------------------------------------------------------


def runs(*records):
    return with_problems(decode(item(status={"running_records": records})))


def test_running_records_are_in_seconds():
    job = one(
        status={
            "running_records": [
                {
                    "start_at": 1_749_990_300,
                    "end_at": 1_749_990_400,
                    "start_type": "init_or_rescheduled",
                    "end_reason": "exit with 127",
                    "end_related_task": "worker-2",
                    "end_recover": "job_reschedule",
                    "end_recover_before_downgrade": "proc_restart",
                },
                {"start_at": 1_749_990_500, "start_type": "restarted"},
            ]
        }
    )

    assert job.runs == (
        Run(
            start=1749990300.0,
            end=1749990400.0,
            start_type="init_or_rescheduled",
            recovery="job_reschedule",
            recovery_before="proc_restart",
            reason="exit with 127",
        ),
        Run(
            start=1749990500.0,
            end=None,
            start_type="restarted",
            recovery="",
            recovery_before="",
            reason="",
        ),
    )


@pytest.mark.parametrize("end", [{}, {"end_at": 0}, {"end_at": None}])
def test_a_run_that_goes_on_has_no_end(end):
    job, problems = runs({"start_at": 1_749_990_300} | end)

    assert job.runs[0].end is None
    assert problems == {}


def test_a_run_that_ends_before_it_starts_has_no_length_and_is_said():
    # As published; the length must not become negative.
    job, problems = runs({"start_at": 1_701_327_093, "end_at": 1_701_322_341})

    assert (job.runs[0].start, job.runs[0].end) == (1701327093.0, 1701327093.0)
    assert problems == invalid("running_records")


def test_milliseconds_in_running_records_are_unset_and_said():
    job, problems = runs({"start_at": 1_749_990_300_000, "end_at": 1_749_990_400_000})

    assert (job.runs[0].start, job.runs[0].end) == (None, None)
    assert problems == invalid("running_records")


@pytest.mark.parametrize(("records", "expected"), [({}, None), ({"running_records": None}, None)])
def test_absent_records_are_not_the_same_as_none(records, expected):
    assert one(status=records).runs is expected
    assert one(status={"running_records": []}).runs == ()


def test_a_record_of_a_wrong_type_keeps_its_place():
    good = {"start_at": 1_749_990_300, "end_at": 1_749_990_400, "end_recover": "proc_restart"}
    job, problems = runs(good, "garbage", {"start_at": [], "start_type": "restarted"})

    assert [run.start for run in job.runs] == [1749990300.0, None, None]
    assert [run.start_type for run in job.runs] == ["unknown", "unknown", "restarted"]
    assert problems == invalid("status.running_records", "status.running_records.start_at")


@pytest.mark.parametrize(
    ("field", "shown", "label"),
    [
        ("start_type", "start_type", "start_type"),
        ("end_recover", "recovery", "recovery"),
        ("end_recover_before_downgrade", "recovery_before", "recovery"),
    ],
)
def test_odd_words_in_records_are_unknown_and_said(field, shown, label):
    job, problems = runs({field: "Thermal Shutdown!"})

    assert getattr(job.runs[0], shown) == "unknown"
    assert problems == {("unknown", label): "Thermal Shutdown!"}


def test_a_recovery_policy_of_newer_documents_is_shown():
    assert one(status={"running_records": [{"end_recover": "npu_step_retry"}]}).runs[
        0
    ].recovery == ("npu_step_retry")


# --- Ends -----------------------------------------------------------------------------------------

FIRST = {"start_at": 1_749_990_300, "end_at": 1_749_990_400, "end_recover": "proc_restart"}


@pytest.mark.parametrize(
    ("records", "ended"),
    [
        pytest.param(
            [FIRST, {"start_at": 1_749_990_500, "end_at": 1_749_990_600}],
            1749990600.0,
            id="two runs",
        ),
        pytest.param([{"start_at": 1_749_990_300}], 1749990360.0, id="an open record"),
        pytest.param(
            [FIRST | {"recover_records": [{"recover_end_at": 1_749_990_450}, {}]}],
            1749990450.0,
            id="a recovery that failed",
        ),
        pytest.param(
            [FIRST | {"recover_records": [{"recover_end_at": 1_749_990_350}]}],
            1749990400.0,
            id="a recovery during the run",
        ),
        pytest.param([], 1749990360.0, id="no records"),
        pytest.param(None, 1749990360.0, id="absent records"),
    ],
)
def test_a_job_ended_with_its_last_run_or_after_its_duration(records, ended):
    assert one(status={"phase": "Failed", "running_records": records}).ended == ended


def test_a_job_did_not_end_with_a_run_before_its_last():
    records = [FIRST, {"start_at": 1_749_990_500}]
    status = {"phase": "Terminated", "running_records": records, "duration": 300_000}

    assert one(status=status).ended == 1749990600.0


@pytest.mark.parametrize("phase", ["Creating", "Pending", "Running", "Terminating"])
def test_a_job_that_is_not_over_has_no_end(phase):
    assert one(status={"phase": phase, "running_records": [FIRST]}).ended is None


@pytest.mark.parametrize("status", [{"start_time": 0}, {"duration": None}])
def test_a_job_that_does_not_tell_has_no_end(status):
    assert one(status={"phase": "Abnormal"} | status).ended is None


def test_an_end_in_the_future_is_unset_and_said():
    job, problems = with_problems(
        decode(item(status={"phase": "Completed", "duration": 100 * 86_400_000}))
    )

    assert job.ended is None
    assert problems == invalid("status.duration")


# --- Nodes ----------------------------------------------------------------------------------------

HUNDREDS = [[1_749_990_000_000 + 60_000 * n, n % 7] for n in range(500)]


@pytest.mark.parametrize(
    ("points", "nodes"),
    [
        pytest.param(None, 2, id="null"),
        pytest.param([], 2, id="empty"),
        pytest.param([[1_749_990_000_000, 1]], 1, id="one point"),
        pytest.param([[1_749_990_000_000, 2], [1_749_990_060_000, 0]], 0, id="none at work"),
        pytest.param(HUNDREDS, 499 % 7, id="hundreds of points"),
        pytest.param([[1_749_990_000_000, 100_000]], 100_000, id="as many as may be"),
    ],
)
def test_a_running_job_has_as_many_nodes_as_its_last_point_says(points, nodes):
    job = one(status={"node_count_metrics": points})

    assert (job.nodes, job.current_nodes) == (2, nodes)


def test_points_may_be_written_with_spaces():
    body = json.dumps({"items": [item(status={"node_count_metrics": HUNDREDS})]}, indent=4).encode()

    assert only(decode_page(body, workspace="0", now=NOW)).current_nodes == 499 % 7


@pytest.mark.parametrize(
    "points",
    [
        pytest.param("many", id="text"),
        pytest.param(7, id="number"),
        pytest.param({"1749990000000": 1}, id="object"),
        pytest.param([1_749_990_000_000, 1], id="flat"),
        pytest.param([[1_749_990_000_000, 1], []], id="empty point"),
        pytest.param([[1_749_990_000_000, 1], None], id="null point"),
        pytest.param([[1_749_990_000_000, -1]], id="negative"),
        pytest.param([[1_749_990_000_000, 1.5]], id="half a node"),
        pytest.param([[1_749_990_000_000, "1"]], id="text in a point"),
        pytest.param([[1_749_990_000_000, 100_001]], id="too many"),
        pytest.param([[1_749_990_000_000, 10**30]], id="huge"),
    ],
)
def test_points_that_cannot_be_right_are_said_and_passed_over(points):
    job, problems = with_problems(decode(item(status={"node_count_metrics": points})))

    assert job.current_nodes == 2
    assert problems == invalid("status.node_count_metrics")


@pytest.mark.parametrize("phase", ["Pending", "Completed"])
def test_a_job_that_does_not_run_has_the_nodes_it_asked_for(phase):
    job = one(status={"phase": phase, "node_count_metrics": [[1_749_990_000_000, 0]]})

    assert job.current_nodes == 2


def test_odd_hardware_is_said():
    detail = {"flavor_type": "TPU", "flavor_info": {"gpu": {"unit_num": "-8"}}}
    job, problems = with_problems(decode(item(spec={"resource": {"flavor_detail": detail}})))

    assert (job.flavor_type, job.accelerators) == ("unknown", None)
    assert problems == {
        ("unknown", "flavor_type"): "TPU",
        ("invalid", "spec.resource.flavor_detail.flavor_info.gpu.unit_num"): "",
    }


@pytest.mark.parametrize(
    ("resource", "paths"),
    [
        pytest.param(None, (), id="null"),
        pytest.param({}, (), id="empty"),
        pytest.param(7, ("",), id="number"),
        pytest.param("7", ("",), id="text"),
        pytest.param([{"node_count": 2}], ("",), id="list"),
        pytest.param(
            {"node_count": "many", "pool_id": 7}, (".node_count", ".pool_id"), id="inside"
        ),
        pytest.param({"pool_info": []}, (".pool_info",), id="part"),
        pytest.param({"flavor_detail": {"flavor_info": 1}}, (".flavor_detail.flavor_info",)),
        pytest.param({"node_count": math.nan}, (".node_count",), id="not a number"),
        pytest.param({"pool_id": "\ud800"}, (), id="not encodable"),
    ],
)
def test_a_resource_of_wrong_types_costs_what_is_wrong(resource, paths):
    whole = item() | {"spec": {"resource": resource}}
    page = decode(whole)
    job, problems = with_problems(page)

    assert problems == invalid(*(f"spec.resource{path}" for path in paths))
    assert (job.nodes, job.phase) == (None, "Running")
    assert decode(whole, total=["garbage"]) == page


def test_an_odd_resource_does_not_slow_down_its_page(monkeypatch):
    bodies = []

    def patient(body):
        bodies.append(body)
        return read(body)

    read = responses.open_response
    monkeypatch.setattr(responses, "open_response", patient)
    strange = {"node_count": "as many as there are"}
    page = decode(item("a"), *(item(name, spec={"resource": strange}) for name in "bcd"))

    assert bodies == [b'{"resource":%s}' % json.dumps(strange).encode()]
    assert [problem.job_id for problem in page.problems] == ["b", "c", "d"]


def test_a_huge_resource_is_as_good_as_any_but_not_kept():
    kept = decoding._hardware.cache_info().currsize
    job = one(spec={"resource": {"node_count": 5, "note": "x" * 10_000}})

    assert job.nodes == 5
    assert decoding._hardware.cache_info().currsize == kept


def test_a_garbled_resource_is_a_garbled_answer():
    body = as_json(item(spec={"resource": {"node_count": "HERE"}})).replace(b'"HERE"', b"1-2")

    with pytest.raises(BrokenResponseError) as caught:
        decode_page(body, workspace="0", now=NOW)

    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "resource",
    [
        {"main_container_allocated_resources": {"accelerator_num": "eight"}},
        {"pool_info": {"accelerator_num": [8]}},
        {"flavor_detail": {"flavor_info": {"npu": {"unit_num": True}}}},
        {"main_container_allocated_resources": "eight"},
        {"main_container_customized_flavor": 8, "pool_info": {"accelerator_num": 4}},
        {"pool_info": [{"accelerator_num": 8}]},
        {"flavor_detail": "8 cards", "flavor_info": {"npu": {"unit_num": 4}}},
        {"flavor_info": {"npu": 8}},
    ],
)
def test_a_number_of_a_wrong_type_is_not_replaced_either(resource):
    resource |= {"node_count": 1, "flavor_id": "modelarts.pool.visual.8xlarge"}
    job, problems = with_problems(decode(item(spec={"resource": resource})))

    assert job.accelerators is None
    assert [kind for kind, _ in problems] == ["invalid"]


def test_an_empty_text_is_no_number():
    info = {"npu": {"unit_num": ""}, "gpu": {"unit_num": 8}}
    resource = {"node_count": 1, "flavor_detail": {"flavor_info": info}}
    job, _ = with_problems(decode(item(spec={"resource": resource})))

    assert job.accelerators == 8


# --- Heterogeneous jobs ---------------------------------------------------------------------------


def roles(*tasks, workers, **more):
    return item(
        tasks=list(tasks), status={"tasks": workers}, spec={"resource": {"node_count": 2}}, **more
    )


def part(role, kind, cards, **more):
    info = {"npu": {"unit_num": str(cards)}} if cards else {"cpu": {"core_num": 8}}
    return {"role": role, "task_resource": {"flavor_type": kind, "flavor_info": info, **more}}


@pytest.mark.parametrize(
    ("tasks", "workers", "cards"),
    [
        pytest.param(
            [part("learner", "Ascend", 8), part("actor", "CPU", 0)],
            ["learner-0", "actor-0"],
            8,
            id="input 4",
        ),
        pytest.param(
            [part("learner", "Ascend", 8), part("actor", "Ascend", 1)],
            ["learner-0", "learner-1", "actor-0", "actor-1", "actor-2", "learner-1"],
            19,
            id="many workers",
        ),
        pytest.param(
            [part("worker", "Ascend", 8), part("worker-big", "Ascend", 1)],
            ["worker-0", "worker-big-0", "worker-big-1"],
            10,
            id="a role that begins with another",
        ),
        pytest.param(
            [part("learner", "Ascend", 8), part("learner", "Ascend", 1)],
            ["learner-0", "learner-1"],
            None,
            id="one role twice",
        ),
        pytest.param([part("learner", "Ascend", 8), part("a", "CPU", 0)], None, None, id="null"),
        pytest.param([part("learner", "Ascend", 8), part("a", "CPU", 0)], [7], None, id="odd"),
        pytest.param([part(None, "Ascend", 8), part("a", "CPU", 0)], ["-0"], None, id="no role"),
        pytest.param(
            [part("learner", "Ascend", 8, node_count=1), part("actor", "CPU", 0)],
            ["learner-0", "learner-1"],
            8,
            id="its own number first",
        ),
    ],
)
def test_cards_of_tasks_by_their_workers(tasks, workers, cards):
    assert only(decode(roles(*tasks, workers=workers))).accelerators == cards


# --- Other properties -----------------------------------------------------------------------------


def test_input_5_a_task_in_a_pool_of_its_own():
    flavor = {"flavor_id": "modelarts.pool.visual.8xlarge", "pool_id": "p", "node_count": 3}
    job = one(tasks=[{"task_resource": flavor}], spec={"resource": {"node_count": 3}})

    assert (job.accelerators, job.pool, job.nodes) == (24, "p", 3)


def test_properties_of_newer_documents():
    job = one(
        metadata={"annotations": {"fault-tolerance/job-retry-num": "3", "job_template": "RL"}},
        algorithm={"id": "a-1", "name": "llama", "engine": {"engine_name": "PyTorch"}},
        spec={
            "runtime_type": "debug",
            "schedule_policy": {"priority": 2, "preemptible": True},
            "resource": {
                "policy": "economic",
                "node_count": 2,
                "pool_info": {"core_num": 24, "mem_size": 192},
            },
        },
    )

    assert (job.restart_limit, job.algorithm, job.runtime_type) == (3, "llama", "debug")
    assert (job.priority, job.policy) == (2, "economic")
    assert (job.cpu_cores, job.memory) == (48.0, 384 * 2.0**30)


@pytest.mark.parametrize(
    ("algorithm", "shown"),
    [({}, ""), ({"id": "a-1"}, "a-1"), ({"id": "a-1", "name": ""}, "a-1"), ({"name": "n"}, "n")],
)
def test_an_algorithm_goes_by_its_name_or_its_id(algorithm, shown):
    assert one(algorithm=algorithm).algorithm == shown


@pytest.mark.parametrize("priority", [0, 3, "2"])
def test_0_is_a_priority_and_a_limit(priority):
    job = one(
        metadata={"annotations": {"fault-tolerance/job-retry-num": str(priority)}},
        spec={"schedule_policy": {"priority": priority}},
    )

    assert (job.priority, job.restart_limit) == (int(priority), int(priority))


@pytest.mark.parametrize("value", [-1, 0.5, 10**9, "nan", "many", [1]])
def test_a_priority_or_limit_that_cannot_be_right_is_said(value):
    job, problems = with_problems(
        decode(
            item(
                metadata={"annotations": {"fault-tolerance/job-retry-num": value}},
                spec={"schedule_policy": {"priority": value}},
            )
        )
    )

    assert (job.priority, job.restart_limit) == (None, None)
    assert problems == invalid(
        "metadata.annotations.fault-tolerance/job-retry-num", "spec.schedule_policy.priority"
    )


# --- Exit codes -----------------------------------------------------------------------------------


def failure(*statuses, phase="Failed"):
    job, problems = with_problems(decode(item(status={"task_statuses": statuses, "phase": phase})))
    return job.failed_task, job.exit_code, job.message, problems


@pytest.mark.parametrize("code", [{}, {"exit_code": None}, {"exit_code": 0}])
@pytest.mark.parametrize("phase", ["Failed", "Abnormal"])
def test_input_12_a_message_without_a_code_is_a_reason(phase, code):
    status = {"task": "worker-0", "message": "image pull failed"} | code
    expected = ("worker-0", None, "image pull failed", {})

    assert failure(status, phase=phase) == expected
    assert failure({"task": "worker-1"}, status, phase=phase) == expected


def test_a_code_says_more_than_a_message():
    assert failure(
        {"task": "worker-0", "message": "peer lost"}, {"task": "worker-1", "exit_code": 137}
    ) == ("worker-1", 137, "peer lost", {})


def test_a_message_of_a_task_that_went_well_is_no_reason():
    status = {"task": "worker-0", "exit_code": 0, "message": "fine"}

    assert failure(status, phase="Completed") == ("", None, "", {})
    assert failure(status, {"task": "w", "message": "lost"})[0] == "w"


@pytest.mark.parametrize("phase", [*PHASES[:4], "Unknown"])
def test_input_13_a_job_that_is_not_over_has_no_exit_code(phase):
    old = {"task": "worker-0", "exit_code": 137, "message": "killed"}
    page = decode(item(status={"task_statuses": [old], "phase": phase}))

    assert (page.jobs[0].failed_task, page.jobs[0].exit_code, page.jobs[0].message) == (
        "",
        None,
        "",
    )


def test_the_first_task_that_failed_counts():
    assert failure(
        {"task": "worker-0", "exit_code": 0, "message": "fine"},
        {"task": "worker-1", "exit_code": 137, "message": "killed"},
        {"task": "worker-2", "exit_code": 1, "message": "peer lost"},
    ) == ("worker-1", 137, "killed", {})


@pytest.mark.parametrize("code", [-9, 255, 3_221_225_477, "137"])
def test_exit_codes_are_whole_numbers(code):
    assert failure({"task": "w", "exit_code": code}) == ("w", int(code), "", {})


@pytest.mark.parametrize("statuses", [(), ({"task": "w", "exit_code": 0},), ({"task": "w"},)])
def test_no_failed_task(statuses):
    assert failure(*statuses) == ("", None, "", {})


@pytest.mark.parametrize("code", [0.5, 1e300, "nan", 2**32])
def test_an_exit_code_that_cannot_be_right_is_said_and_passed_over(code):
    assert failure({"task": "w0", "exit_code": code}, {"task": "w1", "exit_code": 2}) == (
        "w1",
        2,
        "",
        invalid("status.task_statuses.exit_code"),
    )


# --- Texts ----------------------------------------------------------------------------------------

NASTY = '"\\\n\x00<script>\ud800训练' + "x" * 10_000


def texts(value):
    """All texts in a struct."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for element in value:
            yield from texts(element)
    elif isinstance(value, msgspec.Struct):
        yield from texts(msgspec.structs.astuple(value))


def all_nasty():
    flavor = {
        "flavor_id": NASTY,
        "flavor_type": NASTY,
        "pool_id": NASTY,
        "pool_group_id": NASTY,
        "flavor_info": {
            "npu": {"product_name": NASTY, "unit_num": NASTY},
            "memory": {"size": NASTY, "unit": NASTY},
        },
    }
    allocation = {"accelerator_type": NASTY, "pool_resource_flavor": NASTY, "mem_size": NASTY}
    return item(
        kind=NASTY,
        metadata={
            "name": NASTY,
            "user_name": NASTY,
            "workspace_id": NASTY,
            "annotations": {"fault-tolerance/job-retry-num": NASTY},
        },
        status={
            "phase": "Failed",
            "tasks": [NASTY],
            "task_statuses": [{"task": NASTY, "exit_code": 1, "message": NASTY}],
            "running_records": [
                {
                    "start_type": NASTY,
                    "end_reason": NASTY,
                    "end_recover": NASTY,
                    "end_recover_before_downgrade": NASTY,
                }
            ],
        },
        algorithm={
            "id": NASTY,
            "name": NASTY,
            "engine": {"engine_id": NASTY, "engine_name": NASTY},
        },
        spec={
            "runtime_type": NASTY,
            "schedule_policy": {"priority": NASTY},
            "resource": {
                "policy": NASTY,
                "flavor_id": NASTY,
                "pool_id": NASTY,
                "pool_name": NASTY,
                "flavor_detail": flavor,
                "main_container_allocated_resources": allocation,
                "pool_info": allocation,
            },
        },
        tasks=[{"role": NASTY, "task_resource": flavor}],
    )


def assert_bounded(page):
    found = [*texts(tuple(page.jobs)), *texts(tuple(page.problems)), *page.undecodable]
    assert max(map(len, found), default=0) <= 256
    for text in found:
        text.encode()
        assert "\x00" not in text


def test_no_text_is_too_long_or_cannot_be_encoded():
    page = decode(all_nasty())

    shown = NASTY[:255].replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    assert page.jobs[0].name == shown + "…"
    assert_bounded(page)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        pytest.param(rb"a\"b\\c\nd\u0000e", 'a"b\\c\nd\ufffde', id="escaped"),
        pytest.param(rb"a\ud83db", "a\ufffdb", id="lone surrogate"),
        pytest.param(rb"\ud83d\ude80", "🚀", id="pair of surrogates"),
        pytest.param(b"a\xffb", "a\ufffdb", id="wrong UTF-8"),
        pytest.param(b"a\xed\xa0\x80b", "a\ufffd\ufffd\ufffdb", id="surrogate as UTF-8"),
        pytest.param(b"a\nb\x00c", "a\nb\ufffdc", id="control characters as such"),
    ],
)
def test_names_however_they_are_written(raw, name):
    body = as_json(item("a", metadata={"name": "HERE"}), item("b")).replace(b"HERE", raw)
    page = decode_page(body, workspace="0", now=NOW)

    assert [job.name for job in page.jobs] == [name, "train"]
    assert page.problems == []


# --- Items that cannot be used --------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(None, id="null"),
        pytest.param(7, id="number"),
        pytest.param("job", id="text"),
        pytest.param([item()], id="list"),
        pytest.param({}, id="empty"),
        pytest.param({"metadata": None}, id="no metadata"),
        pytest.param({"metadata": "a"}, id="metadata of a wrong type"),
        pytest.param(item(metadata={"id": None}), id="no id"),
        pytest.param(item(job_id=7), id="id a number"),
        pytest.param(item(job_id=["a"]), id="id a list"),
        pytest.param(item(job_id=""), id="id empty"),
        pytest.param(item(job_id="../a?b"), id="id that is no part of a URL"),
        pytest.param(item(job_id="a\n"), id="id of two lines"),
        pytest.param(item(job_id="a" * 129), id="id too long"),
        pytest.param(item(job_id="\ud800"), id="id that cannot be encoded"),
    ],
)
def test_an_item_without_an_id_costs_that_item(garbage):
    page = decode(item("a"), garbage, item("b"))

    assert page.jobs == [one(), only(decode(item("b")))]
    assert page.problems == []
    assert page.size == 3
    assert [each[0] for each in page.undecodable] == ["#"]
    assert_bounded(page)


def test_an_unusable_item_is_the_same_one_at_the_next_poll():
    before = item(job_id=7, status={"duration": 1})
    after = item(job_id=7, status={"duration": 2})
    after["metadata"] = dict(reversed(after["metadata"].items()))

    assert decode(before).undecodable == decode(after).undecodable


def test_an_unusable_item_without_an_id_is_the_same_one_by_its_name():
    before, after = ({"metadata": {"name": "a", "create_time": 7, "x": n}} for n in (1, 2))
    other = {"metadata": {"name": "a", "create_time": 8}}

    assert decode(before).undecodable == decode(after).undecodable != decode(other).undecodable


@pytest.mark.parametrize("nameless", [{}, {"metadata": {"name": ""}}, {"metadata": {"name": [1]}}])
def test_an_unusable_item_with_neither_says_so(nameless):
    (found,) = decode(nameless).undecodable

    assert found.startswith("#?")


@pytest.mark.parametrize(
    ("one", "other"), [(item(job_id=7), item(job_id=8)), ({"kind": "job"}, {"kind": "x"}), (1, 2)]
)
def test_unusable_items_are_told_apart(one, other):
    assert decode(one).undecodable != decode(other).undecodable


@pytest.mark.parametrize("items", [{}, {"a": item()}, "items", 7, True, None])
def test_items_of_a_wrong_type_are_no_answer(items):
    with pytest.raises(
        InvalidResponseError, match=r"^the response has no list of items$"
    ) as caught:
        decode_page(json.dumps({"items": items, "total": 1}).encode(), workspace="0", now=NOW)

    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"error_code": "ModelArts.2799", "error_msg": "slow"}, "ModelArts.2799 slow"),
        ({"error_code": "ModelArts.2799", "items": []}, "ModelArts.2799"),
        ({"errorCode": "X.1", "errorMsg": "no"}, "X.1 no"),
        ({"error": {"code": 401, "message": "who?", "title": "Unauthorized"}}, "401 who?"),
        ({"error_code": "APIG.0301", "error_msg": "a\nb\x00" + "x" * 999}, "APIG.0301 a"),
    ],
)
def test_an_error_is_never_an_empty_fleet(answer, words):
    with pytest.raises(
        InvalidResponseError, match=r"^the service returned status 200 with an error: "
    ) as caught:
        decode_page(json.dumps(answer).encode(), workspace="0", now=NOW)

    assert words in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("answer", [{}, {"metadata": None}, {"items": []}])
def test_a_single_job_without_metadata_is_no_answer(answer):
    with pytest.raises(InvalidResponseError, match=r"^the response has no metadata$"):
        decode_job(json.dumps(answer).encode(), workspace="0", now=NOW)


def test_nesting_without_end_is_no_answer():
    deep = b'{"items": ' + b"[" * 200_000

    with pytest.raises(InvalidResponseError):
        decode_page(deep, workspace="0", now=NOW)


# --- Little bytes, much work ----------------------------------------------------------------------

RECORD = {"start_at": 1_749_990_000, "end_at": 1_749_990_100, "start_type": "restarted"}


def records(number):
    return {"running_records": [RECORD] * number}


@pytest.mark.parametrize("items", [51, 7_000_000])
@pytest.mark.parametrize("each", [b"0", b"{}", b"[]", b'""', b"null", b'{"metadata":{"id":"a"}}'])
def test_more_items_than_requested_are_refused_before_they_become_objects(items, each):
    items = min(items, 16 * 2**20 // (len(each) + 1))
    body = b'{"items": [%s]}' % b",".join([each] * items)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidResponseError, match="more than the 50 items requested"):
            decode_page(body, workspace="0", now=NOW, limit=50)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 200_000


def test_as_many_items_as_requested_are_a_page():
    items = [item(f"a{number}") for number in range(50)]
    for odd in ({}, {"total": ["garbage"]}):
        body = as_json(*items, **odd)
        assert decode_page(body, workspace="0", now=NOW, limit=50).size == 50
        with pytest.raises(InvalidResponseError, match="more than the 49 items requested"):
            decode_page(body, workspace="0", now=NOW, limit=49)


@pytest.mark.parametrize("number", [1, MAX_ELEMENTS - 1, MAX_ELEMENTS])
def test_every_record_up_to_the_limit_counts(number):
    page = decode(item("a", status=records(number)), item("b"))

    assert len(page.jobs[0].runs) == number
    assert page.problems == []
    assert page.jobs[1] == only(decode(item("b")))


@pytest.mark.parametrize("number", [MAX_ELEMENTS + 1, 100_000])
def test_of_too_many_records_the_first_ones_count_and_the_job_is_invalid_once(number):
    page = decode(item("a", status=records(number) | {"phase": "Failed"}), item("b"))
    job = page.jobs[0]

    assert len(job.runs) == MAX_ELEMENTS
    assert set(job.runs[:-1]) == {one(status=records(1)).runs[0]}
    assert job.runs[-1] == Run(None, None, "unknown", "", "", "")
    assert job.ended == job.started + job.duration  # the last run is not known
    assert [(each.job_id, each.field) for each in page.problems] == [
        ("a", "status.running_records")
    ]
    assert page.jobs[1] == only(decode(item("b")))


def test_restarts_beyond_the_limit_are_not_counted_whatever_comes_later():
    fleet = Fleet()
    counted = []
    for number in (MAX_ELEMENTS - 1, MAX_ELEMENTS + 1, MAX_ELEMENTS, MAX_ELEMENTS + 7, 3):
        page = decode(item("a", status=records(number)))
        observed = observe(fleet, View({"a": page.jobs[0]}, newest_created={"0": 1.0}), NOW)
        fleet = observed.fleet
        counted.append(sum(event.kind == "restarted" for event in observed.events))

    assert counted == [0, 1, 0, 0, 0]
    assert len(jobs_in(fleet)["a"].restarts) == MAX_ELEMENTS - 1


@pytest.mark.parametrize("each", ["{}", "7", '{"task": "worker-0"}'])
def test_of_too_many_task_statuses_the_first_ones_count(each):
    body = as_json(item("a", status={"phase": "Failed", "task_statuses": "HERE"}), item("b"))
    failed = b'{"task": "worker-7", "exit_code": 7},'
    body = body.replace(b'"HERE"', b"[%s%s]" % (failed, b",".join([each.encode()] * 500_000)))
    page = decode_page(body, workspace="0", now=NOW)

    assert (page.jobs[0].failed_task, page.jobs[0].exit_code) == ("worker-7", 7)
    assert {(each.job_id, each.field) for each in page.problems} == {("a", "status.task_statuses")}
    assert page.jobs[1] == only(decode(item("b")))


@pytest.mark.parametrize("more", [{}, {"total": ["garbage"]}])
def test_the_cards_of_too_many_tasks_are_unknown_and_not_too_few(more):
    flavor = {"flavor_info": {"npu": {"unit_num": "8"}}, "node_count": 1}
    for number, cards in ((3, 24), (MAX_ELEMENTS + 1, None)):
        page = decode(item("a", tasks=[{"task_resource": flavor}] * number), **more)
        assert page.jobs[0].accelerators == cards


def test_a_deeply_nested_value_costs_no_more_than_its_field():
    deep = b"[" * 50_000 + b"]" * 50_000
    body = as_json(item("a", status={"duration": "HERE"}), item("b"), item("c", note="HERE"))
    page = decode_page(body.replace(b'"HERE"', deep), workspace="0", now=NOW)

    assert [job.id for job in page.jobs] == ["a", "b", "c"]
    assert [(each.job_id, each.field) for each in page.problems] == [("a", "status.duration")]


@pytest.mark.parametrize("where", ["metadata", "status", "spec", "algorithm"])
def test_unread_parts_of_a_job_do_not_become_objects(where):
    body = as_json(item("a", **{where: {"note": "HERE"}}), item("b"))
    body = body.replace(b'"HERE"', b"[%s]" % b",".join([b'{"a":{}}'] * 1_000_000))
    tracemalloc.start()
    try:
        page = decode_page(body, workspace="0", now=NOW)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert page == decode(item("a"), item("b"))
    assert peak < 2 * len(body) + 500_000


def test_every_array_and_text_of_the_schema_has_a_limit():
    unlimited = []

    def look(struct):
        for field in msgspec.structs.fields(struct):
            kind = msgspec.inspect.type_info(field.type)
            for each in getattr(kind, "types", (kind,)):
                long_text = (struct, field.name) in (
                    (wire.TaskStatus, "message"),  # both are cut before they are kept
                    (wire.Record, "end_reason"),
                )
                is_text = isinstance(each, msgspec.inspect.StrType)
                if is_text and each.max_length is None and not (field.required or long_text):
                    unlimited.append((struct, field.name))
                if isinstance(each, msgspec.inspect.VarTupleType | msgspec.inspect.ListType):
                    if each.max_length is None:
                        unlimited.append((struct, field.name))
                    look(each.item_type.cls)
                elif isinstance(each, msgspec.inspect.StructType):
                    look(each.cls)

    look(wire.Item)
    look(wire.Resource)
    assert unlimited == []


# --- Secrets --------------------------------------------------------------------------------------

SECRET = "hunter2-of-the-tests"


def with_secrets(**parts):
    hidden = {"environments": [{"TOKEN": SECRET}], "command": f"train --key {SECRET}"}
    return item(
        algorithm=hidden
        | {
            "parameters": [{"name": "password", "value": SECRET}],
            "engine": {"engine_name": "PyTorch", "image_url": f"swr/{SECRET}"},
        },
        endpoints={"jupyter_lab": {"url": f"https://x/?token={SECRET}", "token": SECRET}},
        tasks=[{"algorithm": hidden, "task_resource": {}}],
        **parts,
    )


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param({}, id="as documented"),
        pytest.param({"status": {"duration": "x"}}, id="one wrong field"),
        pytest.param({"metadata": {"id": 7}}, id="unusable"),
    ],
)
def test_secrets_do_not_get_in(parts):
    assert SECRET not in repr(decode(with_secrets(**parts)))


@pytest.mark.parametrize("more", [{}, {"total": ["garbage"]}], ids=["fast", "patient"])
def test_secrets_are_not_in_what_is_remembered(monkeypatch, more):
    remembered = []

    def remember(*key):
        remembered.append(key)
        return find(*key)

    find = decoding._hardware.__wrapped__
    monkeypatch.setattr(decoding, "_hardware", functools.lru_cache(remember))
    decode(with_secrets(), **more)

    assert len(remembered) == 1
    assert SECRET not in repr(remembered)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(as_json(with_secrets())[:-10], id="cut off"),
        pytest.param(json.dumps({"items": with_secrets()}).encode(), id="no list"),
        pytest.param(json.dumps([with_secrets()]).encode(), id="no object"),
    ],
)
def test_secrets_are_not_in_errors(body):
    with pytest.raises(InvalidResponseError) as caught:
        decode_page(body, workspace="0", now=NOW)

    assert SECRET not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


# --- A whole region -------------------------------------------------------------------------------


@functools.cache
def region():
    return LivingFleet.populated(20240620, NOW, jobs=800)


def documents(**options):
    return [document(job, NOW, **options) for job in region()]


@functools.cache
def decoded():
    """The jobs of the region as decoded from its documents, by id."""
    return {job.id: job for job in decode(*documents()).jobs}


def test_no_secret_of_the_region_gets_in():
    body = as_json(*documents())
    patiently = as_json(*documents(), total="garbage")

    assert sum(secret.encode() in body for secret in PLANTED_SECRETS) >= 4
    for each in (body, patiently):
        shown = repr(decode_page(each, workspace="0", now=NOW))
        assert [secret for secret in PLANTED_SECRETS if secret in shown] == []


def test_documented_answers_are_decoded_in_one_go(monkeypatch):
    def never(_):
        raise AssertionError

    monkeypatch.setattr(responses, "open_response", never)

    assert decode(*documents()).size == len(region())
    for whole, _ in samples():
        assert decode_job(json.dumps(whole).encode(), workspace="0", now=NOW).size == 1
    assert decode_page(VENDOR.read_bytes(), workspace="0", now=NOW).size == 1


EQUAL = ("name", "user", "workspace", "kind", "phase", "pool", "pool_name", "flavor_type")
EQUAL += ("accelerator", "nodes", "created", "started", "failed_task", "exit_code", "cpu_cores")
EQUAL += ("policy", "algorithm", "runtime_type", "priority", "restart_limit", "message")


@pytest.mark.parametrize("name", EQUAL)
def test_jobs_are_what_they_are(name):
    assert told(name) == [(truth[name], truth) for _, truth in told(name)]


def told(name):
    """The decoded and the true value for every job."""
    assert len(decoded()) == len(region())
    return [(getattr(decoded()[job.id], name), region().facts(job)) for job in region()]


def test_cards_are_what_they_are():
    assert all(cards == (truth["cards"] or None) for cards, truth in told("accelerators"))


def test_flavors_are_what_they_are_where_there_is_one():
    one_flavor = [(flavor, truth) for flavor, truth in told("flavor") if truth["kind"] == "job"]

    assert all(flavor == truth["flavor"] for flavor, truth in one_flavor)


def test_memory_is_what_it_is():
    assert all(memory == truth["memory_bytes"] for memory, truth in told("memory"))


def test_durations_are_what_they_are():
    assert all(
        seconds == pytest.approx(truth["duration"], abs=1e-3) for seconds, truth in told("duration")
    )


def test_nodes_at_work_are_what_they_are():
    running = [pair for pair in told("current_nodes") if pair[1]["phase"] == "Running"]

    assert len(running) > 5
    assert all(nodes == truth["nodes_up"] for nodes, truth in running)


def test_ends_are_what_they_are_to_the_second():
    ended = [pair for pair in told("ended") if pair[1]["runs"] and pair[1]["ended"]]
    assert all(end <= truth["ended"] for end, truth in ended)
    ended = [pair for pair in ended if not pair[1]["runs"][-1]["recovery"]]  # not while recovering

    assert len(ended) > 500
    assert all(0 <= truth["ended"] - end < 1 for end, truth in ended)


def test_only_what_ended_has_an_end():
    assert all(end is None for end, truth in told("ended") if not truth["ended"])


def test_without_records_ends_are_never_later_than_they_are():
    ends = {job.id: job.ended for job in decode(*documents(records=False)).jobs}
    ended = [job for job in region() if job.ended is not None and job.runs]

    assert all(job.started <= ends[job.id] <= job.ended + 0.01 for job in ended)
    once = [job for job in ended if len(job.runs) == 1 and not job.runs[0].recovery]
    assert all(ends[job.id] > job.ended - 0.01 for job in once)


def test_runs_are_what_they_are():
    for found, truth in told("runs"):
        shown = [msgspec.structs.asdict(run) for run in found or ()]
        for run in shown:
            del run["reason"], run["computing"], run["faults"]
        assert shown == truth["runs"]


def test_start_ups_and_faults_are_what_they_are():
    for found, truth in told("runs"):
        startups = [run.computing and run.computing - run.start for run in found or ()]
        faults = Counter(
            (fault.scenario, fault.recovery, fault.result)
            for run in found or ()
            for fault in run.faults or ()
            if fault.result != "recovering"
        )
        rows = [tuple(row.values()) for row in truth["faults"]]
        assert startups == truth["startups"]
        assert sorted((*labels, number) for labels, number in faults.items()) == rows


def test_restarts_are_what_they_are():
    fleet = observe(Fleet(), View(decoded()), NOW).fleet
    counted = {
        job_id: [
            {"start_type": start_type, "recovery": recovery, "count": count}
            for (start_type, recovery), count in sorted(Counter(known.restarts).items())
        ]
        for job_id, known in jobs_in(fleet).items()
        if known.restarts
    }

    assert len(counted) > 5
    assert counted == {
        job.id: truth["restarts"] for job in region() if (truth := region().facts(job))["restarts"]
    }


# --- Whatever comes -------------------------------------------------------------------------------

HARDWARE = (
    "pool pool_name flavor_type flavor accelerator engine accelerators nodes current_nodes "
    "cpu_cores memory"
)
SIZES = "flavor_type accelerator accelerators cpu_cores memory"
AFFECTED = {
    "kind": "kind",
    "metadata.name": "name",
    "metadata.user_name": "user",
    "metadata.workspace_id": "workspace",
    "metadata.create_time": "created",
    "metadata.annotations": "restart_limit",
    "status.phase": "phase ended current_nodes failed_task exit_code message",
    "status.duration": "duration ended",
    "status.start_time": "started ended",
    "status.node_count_metrics": "current_nodes",
    "status.task_statuses": "failed_task exit_code message",
    "status.running_records": "runs ended",
    "status.tasks": "accelerators cpu_cores memory nodes",
    "algorithm.engine": "engine flavor_type",
    "algorithm.id": "algorithm",
    "algorithm.name": "algorithm",
    "spec.runtime_type": "runtime_type",
    "spec.schedule_policy": "priority",
    "spec.resource.policy": "policy",
    "spec.resource.node_count": "nodes current_nodes accelerators cpu_cores memory",
    "spec.resource.pool_id": "pool pool_name",
    "spec.resource.pool_name": "pool_name",
    "spec.resource.flavor_id": "flavor flavor_type accelerator accelerators",
    "spec.resource.flavor_detail": SIZES,
    "spec.resource.main_container_allocated_resources": SIZES,
    "spec.resource.pool_info": SIZES,
    "spec.resource.main_container_customized_flavor": SIZES,
    "spec.resource.pool_group_id": "pool pool_name",
    "tasks": HARDWARE,
}
"""Which fields of a job come from where."""

GARBAGE = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([0, -1, 10**15, 10**30, 10**400, "8", "-8", "0"]),
        st.floats(),
        st.text(max_size=20),
        st.text(st.characters(categories=["Cs", "Cc"]), max_size=3),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["id", "task", "start_at", "npu", "x"]), inner, max_size=3),
    ),
    max_leaves=6,
)


@functools.cache
def samples():
    """One document of each shape in the region, and the paths of all its parts."""
    shapes = {}
    for job in region():
        shape = (job.phase, job.pool.name, bool(job.roles), min(len(job.runs), 3))
        shapes.setdefault(shape, document(job, NOW))
    return [(whole, sorted(paths(whole))) for whole in shapes.values()]


def paths(value, path=()):
    yield path
    inside = ()
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list):
        inside = enumerate(value[:3])
    for key, each in inside:
        yield from paths(each, (*path, str(key)))


@st.composite
def edited(draw):
    """A document with one part, small or large, replaced by garbage or removed."""
    whole, places = draw(st.sampled_from(samples()))
    path = draw(st.sampled_from(places))
    value = draw(st.one_of(GARBAGE, st.just(ABSENT)) if path else GARBAGE)
    return whole, path, edit(whole, path, value)


def may_change(path):
    """The fields of a job that come from a part of its document."""
    found = set()
    for source, names in AFFECTED.items():
        parts = tuple(source.split("."))
        if parts[: len(path)] == path or path[: len(parts)] == parts:
            found |= set(names.split())
    return found


def assert_sane(job):
    assert job.phase in (*PHASES, "Unknown")
    assert job.flavor_type in ("CPU", "GPU", "Ascend", "unknown")
    assert job.pool
    assert job.accelerator
    times = [job.created, job.started, job.ended]
    for run in job.runs or ():
        times += [run.start, run.end]
        assert run.start is None or run.end is None or run.start <= run.end
        assert run.start_type in ("init_or_rescheduled", "restarted", "unknown")
    for time in times:
        assert time is None or 1_420_070_400 <= time <= NOW + 900
    assert job.duration is None or 0 <= job.duration < math.inf
    for number in (job.nodes, job.current_nodes, job.accelerators):
        assert number is None or (isinstance(number, int) and 0 <= number < 2**31)
    assert job.exit_code is None or isinstance(job.exit_code, int)
    for amount in (job.cpu_cores, job.memory):
        assert amount is None or 0 < amount < 2.0**70
    for number in (job.restart_limit, job.priority):
        assert number is None or (isinstance(number, int) and number >= 0)


@pytest.mark.slow
@settings(max_examples=800, deadline=None)
@given(edited())
def test_one_odd_part_costs_no_more_than_that_part(case):
    whole, path, changed = case
    before = only(decode(whole))
    page = decode(item("first"), changed, item("last"))

    assert page.size == 3
    assert [page.jobs[0].id, page.jobs[-1].id] == ["first", "last"]
    assert_bounded(page)
    if path in ((), ("metadata",), ("metadata", "id")):
        assert len(page.jobs) + len(page.undecodable) == 3
        return
    _, job, _ = page.jobs
    assert_sane(job)
    differing = {
        name for name in Job.__struct_fields__ if getattr(job, name) != getattr(before, name)
    }
    assert differing <= may_change(path)
    assert {problem.job_id for problem in page.problems} <= {job.id}


@settings(max_examples=300, deadline=None)
@given(edited())
def test_the_patient_way_comes_to_the_same_as_the_fast_one(case):
    _, _, changed = case
    items = (item("first"), changed)
    fast, patient = decode(*items), decode(*items, total=["garbage"])

    assert fast == patient


def test_the_patient_way_comes_to_the_same_for_a_whole_region():
    assert decode(*documents()) == decode(*documents(), total=["garbage"])


@st.composite
def damaged(draw):
    """A valid response with some bytes lost, repeated or replaced."""
    body = as_json(*(whole for whole, _ in samples()[:2]), total=2)
    begin = draw(st.integers(0, len(body)))
    end = draw(st.integers(begin, min(begin + 40, len(body))))
    after = draw(st.sampled_from([body[end:], b""]))
    return body[:begin] + draw(st.binary(max_size=4)) + after


ANY_JSON = st.one_of(
    GARBAGE,
    st.fixed_dictionaries(
        {"items": GARBAGE},
        optional=dict.fromkeys(("total", "count", "error_code", "error", "metadata"), GARBAGE),
    ),
).map(lambda value: json.dumps(value).encode())


@pytest.mark.parametrize("decoder", [decode_page, decode_job])
@settings(max_examples=400, deadline=None)
@given(st.one_of(st.binary(), ANY_JSON, damaged()))
def test_an_answer_is_decoded_or_no_answer(decoder, body):
    with contextlib.suppress(InvalidResponseError):
        page = decoder(body, workspace="0", now=NOW)
        assert page.size == len(page.jobs) + len(page.undecodable)
        assert_bounded(page)
        for job in page.jobs:
            assert_sane(job)


# --- Faults and start-ups -------------------------------------------------------------------------


def test_fault_records():
    job, problems = runs(
        {
            "start_at": 1_749_990_300,
            "xpu_start_at": "1749990340",
            "recover_records": [
                {
                    "recover_start_at": 1_749_990_400,
                    "recover_end_at": 1_749_990_410,
                    "reason": "chip 3 lost",
                    "related_task": "worker-2",
                    "recover": "npu_step_retry",
                    "fault_scenario": "chip_fault",
                    "recover_result": "success",
                },
                {"recover_start_at": 1_749_990_500, "recover_result": "quotaExceeded"},
                {},
            ],
        },
        {"start_at": 1_749_990_600, "recover_records": []},
        {"start_at": 1_749_990_700, "recover_records": None},
    )

    first, second, third = job.runs
    assert problems == {}
    assert (first.computing, second.computing) == (1749990340.0, None)
    assert first.faults == (
        Fault(1749990400.0, 1749990410.0, "chip_fault", "npu_step_retry", "success"),
        Fault(1749990500.0, None, "", "", "quotaExceeded"),
        Fault(None, None, "", "", ""),
    )
    assert (second.faults, third.faults) == ((), None)


@pytest.mark.parametrize(
    ("key", "name", "field"),
    [
        ("fault_scenario", "scenario", "fault_scenario"),
        ("recover", "recovery", "recovery"),
        ("recover_result", "result", "result"),
    ],
)
def test_values_of_faults_are_open_sets_of_identifiers(key, name, field):
    for value, shown, expected in [
        ("one_of_tomorrow", "one_of_tomorrow", {}),
        ("exit with 1", "unknown", {("unknown", field): "exit with 1"}),
    ]:
        job, problems = runs({"start_at": 1_749_990_300, "recover_records": [{key: value}]})

        assert getattr(job.runs[0].faults[0], name) == shown
        assert problems == expected


def test_an_entry_that_is_no_object_keeps_the_positions_of_the_others():
    job, problems = runs(
        {"start_at": 1_749_990_300, "recover_records": ["odd", {"recover_result": "failed"}]}
    )

    assert [each.result for each in job.runs[0].faults] == ["", "failed"]
    assert problems == invalid("status.running_records.recover_records")


@pytest.mark.parametrize("moment", [1_749_990_299, 7, -1, 1_950_000_000, 1_749_990_340_000])
def test_cards_that_compute_before_the_run_or_in_the_future_are_invalid(moment):
    job, problems = runs({"start_at": 1_749_990_300, "xpu_start_at": moment})

    assert job.runs[0].computing is None
    assert problems == invalid("running_records.xpu_start_at")


@pytest.mark.parametrize("unset", [{}, {"xpu_start_at": None}, {"xpu_start_at": 0}])
def test_cards_that_do_not_compute_yet(unset):
    job, problems = runs({"start_at": 1_749_990_300} | unset)

    assert (job.runs[0].computing, problems) == (None, {})


def test_a_start_up_of_many_years_is_invalid():
    job, problems = runs({"start_at": 1_420_070_400, "xpu_start_at": 1_749_990_400})

    assert (job.runs[0].start, job.runs[0].computing) == (1420070400.0, None)
    assert problems == invalid("running_records.xpu_start_at")
