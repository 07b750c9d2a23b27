"""Small jobs in, the literal exposition out, family by family."""

import json
import os
import re
import shutil
import subprocess
from functools import cache, partial

import pytest
from jobs import examples
from jobs.examples import NOW, run

from exporter.jobs.fleet import Fleet
from exporter.jobs.job import PHASES, View
from exporter.jobs.tracker import observe
from exporter.metrics.exposition import assemble, render_block
from exporter.metrics.fleet import FLEET_FAMILIES, fleet_blocks
from exporter.metrics.per_job import JOB_FAMILIES, job_blocks
from exporter.modelarts.decode.jobs import decode_page
from exporter.settings.schema import JobsSettings
from exporter.simulator.living import LivingFleet
from exporter.simulator.wire import document

TARGET = {"region": "cn-north-4", "project": "llm"}
TERMINAL = ("Completed", "Failed", "Terminated", "Abnormal")


job = partial(
    examples.job,
    pool="p1",
    flavor="8xlarge",
    accelerator="D910B",
    created=NOW - 3600,
    started=NOW - 3000,
    duration=2999.5,
    current_nodes=1,
)


def bare(job_id="a", **changes):
    """A job of which only id and phase are known."""
    texts = dict.fromkeys(("name", "user", "pool_name", "flavor", "engine"), "")
    unset = ("created", "started", "duration", "nodes", "current_nodes", "accelerators")
    unknown = {"pool": "public", "flavor_type": "unknown", "accelerator": "unknown"}
    return job(job_id, **(texts | dict.fromkeys(unset) | unknown | changes))


def fleet(*jobs, before=Fleet(), pools=None):  # noqa: B008 - it is immutable
    """Everything known after a sweep that found these jobs, and optionally after an earlier one."""
    found = {each.id: each for each in jobs}
    newest_created = {each.workspace: NOW for each in jobs}
    deleted = frozenset(examples.jobs_in(before)) - found.keys()
    return observe(before, View(found, deleted, newest_created, pool_names=pools), NOW).fleet


def blocks(known, constant=TARGET, *, is_held=lambda _: False, **scope):
    """The blocks of the jobs' own series, and how many jobs have none."""
    jobs = JobsSettings(**scope)
    positions = {"a": 1, "b": 3, "gone": 2}
    return job_blocks(
        aged(known, jobs), constant, jobs=jobs, is_held=is_held, queue_positions=positions
    )


def aged(known, jobs, now=NOW):
    return examples.later(known, retention=jobs.retention, history=jobs.history, now=now)


def families(known, constant=TARGET, **scope):
    """The exposition in text format, by family, without families that have no samples."""
    found = fleet_blocks(aged(known, JobsSettings(**scope)), constant, name_user=str)
    found += blocks(known, constant, **scope)[0]
    texts = {b.metric.name: assemble([(b.metric, [render_block(b)])]).text.decode() for b in found}
    return {name: text for name, text in texts.items() if text}


def samples(known, name, **scope):
    """The samples of a family: labels without the target's, and the value."""
    text = families(known, {}, **scope).get(f"modelarts_training_{name}", "")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [line.removeprefix(f"modelarts_training_{name}{{") for line in lines]


def runs(*manners):
    """Runs, by how each began and which recovery followed it."""
    return tuple(run(recovery=recovery, start_type=start) for start, recovery in manners)


# --- Every family ---------------------------------------------------------------------------------


def example():
    """A job that has all there is, and one that waits."""
    whole = job(
        "a",
        phase="Failed",
        pool_name="llm-pool",
        ended=NOW - 600,
        current_nodes=2,
        failed_task="worker-3",
        exit_code=137,
        runs=runs(*[("restarted", "proc_restart")] * 3),
        cpu_cores=383.5,
        memory=2.0**41,
        policy="regular",
        algorithm="llama",
        runtime_type="debug",
        restart_limit=3,
        priority=2,
    )
    waiting = job(
        "b",
        phase="Pending",
        started=None,
        duration=0.0,
        current_nodes=2,
        cpu_cores=383.5,
        memory=2.0**41,
    )
    return fleet(whole, waiting)


GOLDEN = {
    "modelarts_training_jobs": """\
# HELP modelarts_training_jobs Training jobs that the service currently lists, by phase \
(status.phase); finished jobs are limited by jobs.history.
# TYPE modelarts_training_jobs gauge
modelarts_training_jobs{flavor_type="Ascend",phase="Creating",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 0.0
modelarts_training_jobs{flavor_type="Ascend",phase="Pending",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 1.0
modelarts_training_jobs{flavor_type="Ascend",phase="Running",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 0.0
modelarts_training_jobs{flavor_type="Ascend",phase="Terminating",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 0.0
modelarts_training_jobs{flavor_type="Ascend",phase="Completed",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 0.0
modelarts_training_jobs{flavor_type="Ascend",phase="Failed",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 1.0
modelarts_training_jobs{flavor_type="Ascend",phase="Terminated",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 0.0
modelarts_training_jobs{flavor_type="Ascend",phase="Abnormal",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 0.0
""",
    "modelarts_training_nodes": """\
# HELP modelarts_training_nodes Nodes requested by unfinished training jobs: sum of \
spec.resource.node_count.
# TYPE modelarts_training_nodes gauge
modelarts_training_nodes{flavor_type="Ascend",phase="Creating",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 0.0
modelarts_training_nodes{flavor_type="Ascend",phase="Pending",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 2.0
modelarts_training_nodes{flavor_type="Ascend",phase="Running",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 0.0
modelarts_training_nodes{flavor_type="Ascend",phase="Terminating",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 0.0
""",
    "modelarts_training_accelerators": """\
# HELP modelarts_training_accelerators Cards (NPUs, GPUs) requested by unfinished training jobs: \
cards per node times nodes; jobs with an unknown number of cards are omitted.
# TYPE modelarts_training_accelerators gauge
modelarts_training_accelerators{accelerator="D910B",flavor_type="Ascend",phase="Creating",\
pool="p1",project="llm",region="cn-north-4",workspace="0"} 0.0
modelarts_training_accelerators{accelerator="D910B",flavor_type="Ascend",phase="Pending",\
pool="p1",project="llm",region="cn-north-4",workspace="0"} 16.0
modelarts_training_accelerators{accelerator="D910B",flavor_type="Ascend",phase="Running",\
pool="p1",project="llm",region="cn-north-4",workspace="0"} 0.0
modelarts_training_accelerators{accelerator="D910B",flavor_type="Ascend",phase="Terminating",\
pool="p1",project="llm",region="cn-north-4",workspace="0"} 0.0
""",
    "modelarts_training_cpu_cores": """\
# HELP modelarts_training_cpu_cores CPU cores requested by unfinished training jobs: cores \
per node times nodes; jobs with an unknown number of cores are omitted.
# TYPE modelarts_training_cpu_cores gauge
modelarts_training_cpu_cores{flavor_type="Ascend",phase="Creating",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 0.0
modelarts_training_cpu_cores{flavor_type="Ascend",phase="Pending",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 383.5
modelarts_training_cpu_cores{flavor_type="Ascend",phase="Running",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 0.0
modelarts_training_cpu_cores{flavor_type="Ascend",phase="Terminating",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 0.0
""",
    "modelarts_training_memory_bytes": """\
# HELP modelarts_training_memory_bytes Memory requested by unfinished training jobs: memory per \
node times nodes, in bytes; jobs with unknown memory are omitted.
# TYPE modelarts_training_memory_bytes gauge
modelarts_training_memory_bytes{flavor_type="Ascend",phase="Creating",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 0.0
modelarts_training_memory_bytes{flavor_type="Ascend",phase="Pending",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 2.199023255552e+12
modelarts_training_memory_bytes{flavor_type="Ascend",phase="Running",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 0.0
modelarts_training_memory_bytes{flavor_type="Ascend",phase="Terminating",pool="p1",project="llm",\
region="cn-north-4",workspace="0"} 0.0
""",
    "modelarts_training_oldest_pending_timestamp_seconds": """\
# HELP modelarts_training_oldest_pending_timestamp_seconds Creation time (metadata.create_time) of \
the oldest training job in Creating or Pending, in unix seconds; absent if no job is waiting.
# TYPE modelarts_training_oldest_pending_timestamp_seconds gauge
modelarts_training_oldest_pending_timestamp_seconds{flavor_type="Ascend",pool="p1",\
project="llm",region="cn-north-4",workspace="0"} 1.7499964e+09
""",
    "modelarts_training_user_jobs": """\
# HELP modelarts_training_user_jobs Unfinished training jobs by user (metadata.user_name).
# TYPE modelarts_training_user_jobs gauge
modelarts_training_user_jobs{phase="Pending",pool="p1",project="llm",region="cn-north-4",\
user="li"} 1.0
""",
    "modelarts_training_user_accelerators": """\
# HELP modelarts_training_user_accelerators Cards (NPUs, GPUs) requested by unfinished training \
jobs, by user (metadata.user_name): cards per node times nodes; jobs with an unknown number of \
cards are omitted.
# TYPE modelarts_training_user_accelerators gauge
modelarts_training_user_accelerators{accelerator="D910B",phase="Pending",pool="p1",project="llm",\
region="cn-north-4",user="li"} 16.0
""",
    "modelarts_training_job_info": """\
# HELP modelarts_training_job_info Properties of a training job as labels, for joins on job_id; \
always 1.
# TYPE modelarts_training_job_info gauge
modelarts_training_job_info{accelerator="D910B",algorithm="",engine="PyTorch",flavor="8xlarge",\
flavor_type="Ascend",job_id="b",job_name="train",kind="job",policy="",pool="p1",pool_name="",\
project="llm",region="cn-north-4",runtime_type="",user="li",workspace="0"} 1.0
modelarts_training_job_info{accelerator="D910B",algorithm="llama",engine="PyTorch",\
flavor="8xlarge",flavor_type="Ascend",job_id="a",job_name="train",kind="job",policy="regular",\
pool="p1",pool_name="llm-pool",project="llm",region="cn-north-4",runtime_type="debug",user="li",\
workspace="0"} 1.0
""",
    "modelarts_training_job_phase": """\
# HELP modelarts_training_job_phase Current phase of a training job (status.phase) as a label; \
always 1.
# TYPE modelarts_training_job_phase gauge
modelarts_training_job_phase{job_id="b",phase="Pending",project="llm",region="cn-north-4"} 1.0
modelarts_training_job_phase{job_id="a",phase="Failed",project="llm",region="cn-north-4"} 1.0
""",
    "modelarts_training_job_created_timestamp_seconds": """\
# HELP modelarts_training_job_created_timestamp_seconds Creation time of a training job \
(metadata.create_time), in unix seconds.
# TYPE modelarts_training_job_created_timestamp_seconds gauge
modelarts_training_job_created_timestamp_seconds{job_id="b",project="llm",\
region="cn-north-4"} 1.7499964e+09
modelarts_training_job_created_timestamp_seconds{job_id="a",project="llm",\
region="cn-north-4"} 1.7499964e+09
""",
    "modelarts_training_job_start_timestamp_seconds": """\
# HELP modelarts_training_job_start_timestamp_seconds First start of a training job \
(status.start_time), in unix seconds; absent before.
# TYPE modelarts_training_job_start_timestamp_seconds gauge
modelarts_training_job_start_timestamp_seconds{job_id="a",project="llm",\
region="cn-north-4"} 1.749997e+09
""",
    "modelarts_training_job_end_timestamp_seconds": """\
# HELP modelarts_training_job_end_timestamp_seconds End of a finished training job, in unix \
seconds: end_at of its last running record, or recover_end_at of a recovery tried after it; \
without them status.start_time plus status.duration; absent before, and if it never started.
# TYPE modelarts_training_job_end_timestamp_seconds gauge
modelarts_training_job_end_timestamp_seconds{job_id="a",project="llm",\
region="cn-north-4"} 1.7499994e+09
""",
    "modelarts_training_job_duration_seconds": """\
# HELP modelarts_training_job_duration_seconds How long a training job has run so far \
(status.duration), in seconds.
# TYPE modelarts_training_job_duration_seconds gauge
modelarts_training_job_duration_seconds{job_id="b",project="llm",region="cn-north-4"} 0.0
modelarts_training_job_duration_seconds{job_id="a",project="llm",region="cn-north-4"} 2999.5
""",
    "modelarts_training_job_nodes": """\
# HELP modelarts_training_job_nodes Nodes of a training job: last point of \
status.node_count_metrics while it runs, otherwise spec.resource.node_count.
# TYPE modelarts_training_job_nodes gauge
modelarts_training_job_nodes{job_id="b",project="llm",region="cn-north-4"} 2.0
modelarts_training_job_nodes{job_id="a",project="llm",region="cn-north-4"} 2.0
""",
    "modelarts_training_job_nodes_requested": """\
# HELP modelarts_training_job_nodes_requested Nodes requested by a training job \
(spec.resource.node_count); more than modelarts_training_job_nodes if it has lost some.
# TYPE modelarts_training_job_nodes_requested gauge
modelarts_training_job_nodes_requested{job_id="b",project="llm",\
region="cn-north-4"} 2.0
modelarts_training_job_nodes_requested{job_id="a",project="llm",\
region="cn-north-4"} 2.0
""",
    "modelarts_training_job_accelerators": """\
# HELP modelarts_training_job_accelerators Cards (NPUs, GPUs) of a training job: cards per node \
times nodes; absent if unknown.
# TYPE modelarts_training_job_accelerators gauge
modelarts_training_job_accelerators{job_id="b",project="llm",region="cn-north-4"} 16.0
modelarts_training_job_accelerators{job_id="a",project="llm",region="cn-north-4"} 16.0
""",
    "modelarts_training_job_cpu_cores": """\
# HELP modelarts_training_job_cpu_cores CPU cores of a training job: cores per node times nodes; \
absent if unknown.
# TYPE modelarts_training_job_cpu_cores gauge
modelarts_training_job_cpu_cores{job_id="b",project="llm",\
region="cn-north-4"} 383.5
modelarts_training_job_cpu_cores{job_id="a",project="llm",\
region="cn-north-4"} 383.5
""",
    "modelarts_training_job_memory_bytes": """\
# HELP modelarts_training_job_memory_bytes Memory of a training job: memory per node times nodes, \
in bytes; absent if unknown.
# TYPE modelarts_training_job_memory_bytes gauge
modelarts_training_job_memory_bytes{job_id="b",project="llm",\
region="cn-north-4"} 2.199023255552e+12
modelarts_training_job_memory_bytes{job_id="a",project="llm",\
region="cn-north-4"} 2.199023255552e+12
""",
    "modelarts_training_job_restart_limit": """\
# HELP modelarts_training_job_restart_limit Budget of automatic restarts of a training job \
(annotation fault-tolerance/job-retry-num); absent if unset.
# TYPE modelarts_training_job_restart_limit gauge
modelarts_training_job_restart_limit{job_id="a",project="llm",\
region="cn-north-4"} 3.0
""",
    "modelarts_training_job_priority": """\
# HELP modelarts_training_job_priority Priority of a training job (spec.schedule_policy.priority); \
absent if unset.
# TYPE modelarts_training_job_priority gauge
modelarts_training_job_priority{job_id="a",project="llm",\
region="cn-north-4"} 2.0
""",
    "modelarts_training_job_queue_position": """\
# HELP modelarts_training_job_queue_position Place of a waiting training job in the queue of its \
dedicated pool (pendingPosition in the workloads of the pool); absent without the permission \
modelarts:pool:get.
# TYPE modelarts_training_job_queue_position gauge
modelarts_training_job_queue_position{job_id="b",project="llm",region="cn-north-4"} 3.0
""",
    "modelarts_training_job_restarts_total": """\
# HELP modelarts_training_job_restarts_total Runs of a training job after the first \
(status.running_records), by start_type and by end_recover of the previous run.
# TYPE modelarts_training_job_restarts_total counter
modelarts_training_job_restarts_total{job_id="a",project="llm",recovery="proc_restart",\
region="cn-north-4",start_type="restarted"} 2.0
""",
    "modelarts_training_job_exit_code": """\
# HELP modelarts_training_job_exit_code Exit code of the first failed task of a training job \
(status.task_statuses); absent until the job has ended.
# TYPE modelarts_training_job_exit_code gauge
modelarts_training_job_exit_code{job_id="a",project="llm",region="cn-north-4",\
task="worker-3"} 137.0
""",
}


def test_the_families_are_these():
    assert [row.metric.name for row in (*FLEET_FAMILIES, *JOB_FAMILIES)] == list(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_family_in_full(name):
    assert families(example())[name] == GOLDEN[name]


# --- Fleet ----------------------------------------------------------------------------------------


def of_base(phase, value, base='flavor_type="Ascend",phase="{}",pool="p1",workspace="0"'):
    return f"{base.format(phase)}}} {value}"


def test_no_jobs_no_samples():
    assert families(fleet()) == {}


def test_all_phases_are_there_for_every_base_combination():
    known = fleet(
        job("a"),
        job("b", pool="p2"),
        job("c", flavor_type="GPU"),
        job("d", workspace="w"),
        job("e"),
    )
    lines = samples(known, "jobs")

    assert len(lines) == len(set(lines)) == 4 * 8
    assert of_base("Running", "2.0") in lines
    assert [line for line in lines if not line.endswith(" 0.0")] == [
        of_base("Running", "2.0"),
        'flavor_type="GPU",phase="Running",pool="p1",workspace="0"} 1.0',
        'flavor_type="Ascend",phase="Running",pool="p2",workspace="0"} 1.0',
        'flavor_type="Ascend",phase="Running",pool="p1",workspace="w"} 1.0',
    ]


def test_zeros_stay_when_the_last_job_is_gone():
    known = fleet(before=fleet(job()))

    assert samples(known, "jobs") == [of_base(phase, "0.0") for phase in PHASES]
    assert samples(known, "nodes") == [of_base(phase, "0.0") for phase in PHASES[:4]]
    assert samples(known, "accelerators") == [
        f'accelerator="D910B",{of_base(phase, "0.0")}' for phase in PHASES[:4]
    ]


def test_an_unknown_phase_is_shown_beside_the_eight():
    known = fleet(job(phase="Unknown"))

    assert samples(known, "jobs") == [
        *(of_base(phase, "0.0") for phase in PHASES),
        of_base("Unknown", "1.0"),
    ]
    assert samples(known, "nodes") == [of_base(phase, "0.0") for phase in PHASES[:4]]


@pytest.mark.parametrize("phase", PHASES[:4])
def test_unfinished_jobs_hold_nodes_and_cards(phase):
    known = fleet(job("a", phase=phase), job("b", phase=phase, nodes=3, accelerators=24))

    assert of_base(phase, "5.0") in samples(known, "nodes")
    assert f'accelerator="D910B",{of_base(phase, "40.0")}' in samples(known, "accelerators")


@pytest.mark.parametrize("phase", [*TERMINAL, "Unknown"])
def test_other_jobs_hold_none(phase):
    known = fleet(job(phase=phase))

    assert samples(known, "nodes") == [of_base(each, "0.0") for each in PHASES[:4]]
    assert all(line.endswith(" 0.0") for line in samples(known, "accelerators"))


def test_cards_are_told_apart_by_product():
    known = fleet(job("a"), job("b", accelerator="D910C", accelerators=8))
    lines = [line for line in samples(known, "accelerators") if not line.endswith(" 0.0")]

    assert lines == [
        f'accelerator="D910B",{of_base("Running", "16.0")}',
        f'accelerator="D910C",{of_base("Running", "8.0")}',
    ]


def test_jobs_without_cards_have_no_series_of_cards():
    assert samples(fleet(job(flavor_type="CPU", accelerators=None)), "accelerators") == []


@pytest.mark.parametrize("phase", PHASES[:4])
def test_unfinished_jobs_hold_cores_and_memory(phase):
    known = fleet(
        job("a", phase=phase, cpu_cores=7.5, memory=2.0**30),
        job("b", phase=phase, cpu_cores=16.0, memory=None),
        job("c", phase="Failed", cpu_cores=16.0, memory=2.0**30),
        job("d", phase=phase),
    )

    assert of_base(phase, "23.5") in samples(known, "cpu_cores")
    assert of_base(phase, "1.073741824e+09") in samples(known, "memory_bytes")


def test_input_14_a_lost_node_can_be_told():
    known = fleet(job(nodes=4, current_nodes=3))

    assert samples(known, "job_nodes_requested") == ['job_id="a"} 4.0']
    assert samples(known, "job_nodes") == ['job_id="a"} 3.0']


def test_input_12_a_failure_without_a_code_has_no_exit_code():
    known = fleet(job(phase="Failed", ended=NOW, failed_task="worker-0", message="no image"))

    assert samples(known, "job_exit_code") == []


def test_0_is_a_priority_and_a_limit():
    known = fleet(job(priority=0, restart_limit=0))

    assert samples(known, "job_priority") == ['job_id="a"} 0.0']
    assert samples(known, "job_restart_limit") == ['job_id="a"} 0.0']


def test_the_oldest_that_waits():
    known = fleet(
        job("a", phase="Running", created=NOW - 9000),
        job("b", phase="Pending", created=NOW - 500.25),
        job("c", phase="Creating", created=NOW - 7000),
        job("d", phase="Pending", created=None),
        job("e", phase="Pending", created=NOW - 10, pool="p2"),
    )

    assert samples(known, "oldest_pending_timestamp_seconds") == [
        'flavor_type="Ascend",pool="p1",workspace="0"} 1.749993e+09',
        'flavor_type="Ascend",pool="p2",workspace="0"} 1.74999999e+09',
    ]


def test_no_time_when_none_waits():
    known = fleet(job("a"), job("b", phase="Pending", created=None))

    assert samples(known, "oldest_pending_timestamp_seconds") == []


def test_a_job_has_its_own_name_of_its_pool_else_that_of_the_list():
    pools = {"p1": "new", "p3": "of another"}
    known = fleet(job("a", pool_name="old"), job("b"), job("c", pool="p2"), pools=pools)
    lines = families(known)["modelarts_training_job_info"].splitlines()[2:]

    shown = [re.search(r'job_id="(.)".*pool_name="(.*?)"', line).groups() for line in lines]
    assert sorted(shown) == [("a", "old"), ("b", "new"), ("c", "")]


@pytest.mark.parametrize(("history", "counted"), [(0, 3.0), (3600, 2.0), (300, 1.0), (299, 0.0)])
def test_finished_jobs_count_as_far_back_as_history_says(history, counted):
    known = fleet(
        *(job(f"{age}", phase="Completed", ended=NOW - age) for age in (300, 3600, 86_400))
    )

    assert of_base("Completed", counted) in samples(known, "jobs", history=history)


def test_history_is_about_finished_jobs_only():
    known = fleet(
        *(job(phase, phase=phase, created=NOW - 10**6) for phase in (*PHASES[:4], "Unknown"))
    )

    for phase in (*PHASES[:4], "Unknown"):
        assert of_base(phase, "1.0") in samples(known, "jobs", history=60)


def test_history_leaves_the_zeros():
    known = fleet(job(phase="Completed", ended=NOW - 9000))

    assert samples(known, "jobs", history=60) == [of_base(phase, "0.0") for phase in PHASES]


def test_a_finished_job_that_tells_no_end_is_in_history_since_it_was_seen():
    known = fleet(job(phase="Abnormal", started=None), before=fleet(job(phase="Creating")))

    assert of_base("Abnormal", "1.0") in samples(known, "jobs", history=60)


def test_a_finished_job_of_which_no_time_is_known_ended_when_it_was_first_seen():
    known = fleet(bare(phase="Completed"))
    series = 'flavor_type="unknown",phase="Completed",pool="public",workspace="0"}'

    assert f"{series} 1.0" in samples(known, "jobs")
    assert f"{series} 1.0" in samples(known, "jobs", history=60)
    assert shown(known) == ["a"]
    jobs = JobsSettings(retention=60, history=60)
    late = aged(known, jobs, NOW + 61)
    found, _ = job_blocks(late, TARGET, jobs=jobs, is_held=lambda _: False)
    assert not any(block.samples for block in found)
    (jobs, *_) = fleet_blocks(late, TARGET)
    assert sum(value for _, value in jobs.samples) == 0


# --- Jobs -----------------------------------------------------------------------------------------


def shown(known, **scope):
    """Ids of the jobs that have series, in order."""
    return [line.split('"')[1] for line in samples(known, "job_phase", **scope)]


def test_what_is_unset_has_no_sample():
    assert families(fleet(bare())).keys() == {
        "modelarts_training_jobs",
        "modelarts_training_nodes",
        "modelarts_training_cpu_cores",
        "modelarts_training_memory_bytes",
        "modelarts_training_user_jobs",
        "modelarts_training_job_info",
        "modelarts_training_job_phase",
    }
    (line,) = samples(fleet(bare()), "job_info")
    assert line == (
        'accelerator="unknown",algorithm="",engine="",flavor="",flavor_type="unknown",job_id="a",'
        'job_name="",kind="job",policy="",pool="public",pool_name="",runtime_type="",user="",'
        'workspace="0"} 1.0'
    )


def test_an_unknown_phase_is_a_jobs_phase():
    assert samples(fleet(job(phase="Unknown")), "job_phase") == ['job_id="a",phase="Unknown"} 1.0']


def test_a_running_job_shows_the_nodes_at_work():
    assert samples(fleet(job(nodes=4, current_nodes=3)), "job_nodes") == ['job_id="a"} 3.0']
    assert samples(fleet(job(nodes=4, current_nodes=0)), "job_nodes") == ['job_id="a"} 0.0']


def test_restarts_are_split_by_how_and_why():
    again = runs(
        ("init_or_rescheduled", "proc_restart"),
        ("restarted", "job_reschedule"),
        ("init_or_rescheduled", "proc_restart"),
        ("restarted", ""),
    )

    assert samples(fleet(job("a"), job("b", runs=again)), "job_restarts_total") == [
        'job_id="b",recovery="proc_restart",start_type="restarted"} 2.0',
        'job_id="b",recovery="job_reschedule",start_type="init_or_rescheduled"} 1.0',
    ]


def test_a_negative_exit_code():
    known = fleet(job(phase="Failed", ended=NOW, failed_task="worker-0", exit_code=-9))

    assert samples(known, "job_exit_code") == ['job_id="a",task="worker-0"} -9.0']


def test_names_that_need_escaping():
    evil = {"policy": 'a"b', "algorithm": "a\\b", "runtime_type": "a\nb"}
    known = fleet(job(name='a"b\\c\nd<e>%s{}', pool='p"1', **evil))

    (line,) = samples(known, "job_info")
    for text in (r'policy="a\"b"', r'algorithm="a\\b"', r'runtime_type="a\nb"'):
        assert text in line
    assert r'job_name="a\"b\\c\nd<e>%s{}"' in line
    assert r'pool="p\"1"' in line


@pytest.mark.parametrize("phase", [*PHASES[:4], "Unknown"])
def test_unfinished_jobs_have_series_however_old(phase):
    assert shown(fleet(job(phase=phase, created=NOW - 10**7)), retention=0) == ["a"]


@pytest.mark.parametrize("phase", TERMINAL)
@pytest.mark.parametrize(("age", "ids"), [(0, ["a"]), (3600, ["a"]), (3601, [])])
def test_finished_jobs_keep_their_series_for_a_while(phase, age, ids):
    assert shown(fleet(job(phase=phase, ended=NOW - age)), retention=3600) == ids


def test_a_finished_job_that_tells_no_end_keeps_its_series_since_it_was_seen():
    never_ran = job(phase="Abnormal", started=None, created=NOW - 9000)

    assert shown(fleet(never_ran, before=fleet(job(phase="Creating")))) == ["a"]
    assert shown(fleet(never_ran)) == []


def test_without_per_job_series_there_are_none():
    known = fleet(job("a"), job("b"))

    assert blocks(known, per_job=False, max_series_jobs=1) == ([], 0)
    assert families(known, per_job=False).keys() == {
        "modelarts_training_jobs",
        "modelarts_training_nodes",
        "modelarts_training_accelerators",
        "modelarts_training_cpu_cores",
        "modelarts_training_memory_bytes",
        "modelarts_training_user_jobs",
        "modelarts_training_user_accelerators",
    }


@pytest.mark.parametrize(
    ("most", "ids", "rest"),
    [(5, ["c", "d", "a", "b"], 0), (4, ["c", "d", "a", "b"], 0), (2, ["c", "d"], 2), (0, [], 4)],
)
def test_the_newest_jobs_keep_their_series_and_the_rest_is_counted(most, ids, rest):
    known = fleet(
        job("a", created=NOW - 300),
        job("b", created=None),
        job("c", created=NOW - 100),
        job("d", created=NOW - 200, phase="Completed", ended=NOW),
        job("long over", created=NOW, phase="Completed", ended=NOW - 9999),
    )

    assert shown(known, max_series_jobs=most) == ids
    found, without = blocks(known, max_series_jobs=most)
    assert without == rest
    assert {block.metric.name: len(block.samples) for block in found}[
        "modelarts_training_job_info"
    ] == len(ids)


def test_the_cap_does_not_touch_the_sums():
    known = fleet(job("a"), job("b"))

    assert of_base("Running", "2.0") in samples(known, "jobs", max_series_jobs=1)


# --- A whole region -------------------------------------------------------------------------------


@cache
def region():
    return LivingFleet.populated(7, NOW, jobs=800)


@cache
def known_region():
    body = json.dumps({"items": [document(each, NOW) for each in region()]}).encode()
    return fleet(*decode_page(body, workspace="0", now=NOW).jobs)


def values(name):
    """Values of a fleet family that are not zero, by label values."""
    found = fleet_blocks(known_region(), TARGET)
    (block,) = (each for each in found if each.metric.name == f"modelarts_training_{name}")
    return {labels: value for labels, value in block.samples if value}


@pytest.mark.parametrize(
    ("name", "truth", "labels"),
    [
        ("jobs", "jobs", ("phase",)),
        ("nodes", "nodes", ("phase",)),
        ("accelerators", "cards", ("phase", "accelerator")),
        ("cpu_cores", "cpu_cores", ("phase",)),
        ("memory_bytes", "memory_bytes", ("phase",)),
        ("oldest_pending_timestamp_seconds", "oldest_pending", ()),
    ],
)
def test_sums_are_what_they_are(name, truth, labels):
    names = ("workspace", "pool", "flavor_type", *labels)
    rows = region().summary()[truth]

    assert rows
    assert values(name) == {tuple(row[each] for each in names): row["value"] for row in rows}


def test_every_job_is_in_exactly_one_phase():
    assert sum(values("jobs").values()) == len(region())


PROMTOOL = shutil.which("promtool")


@pytest.mark.integration
@pytest.mark.skipif(
    not PROMTOOL and "REQUIRE_PROMETHEUS" not in os.environ, reason="promtool is not installed"
)
@pytest.mark.parametrize("known", [example, known_region])
def test_promtool_finds_nothing_to_complain_about(known):
    text = "".join(families(known()).values())
    checked = subprocess.run(
        [PROMTOOL or "promtool", "check", "metrics"],
        input=text.encode(),
        capture_output=True,
        check=False,
    )

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
