"""JSON documents of jobs: fields, types and units as in the vendor's documentation.

Units are as mixed as there: create and start time and duration in ms, running records in seconds;
the number of cards as integer for GPUs and as string for Ascend; a disk size as string under
``spec`` and as integer under ``tasks``.
"""

from typing import Any

from exporter.simulator.catalog import Flavor, Pool, Role
from exporter.simulator.edits import edit
from exporter.simulator.job import SETTLED, Job, Recovery, Run
from exporter.simulator.recipes import PLANTED_SECRETS

_POINT_SECONDS = 60.0
_MOST_POINTS = 200


def document(
    job: Job,
    now: float,
    *,
    records: bool = True,
    pool_name: bool = True,
    all_statuses: bool = True,
    task_counts: bool = True,
) -> Any:
    """Return the job's document at ``now``, with its overrides.

    Args:
        job: the job.
        now: unix seconds.
        records: with running records.
        pool_name: with the name of a dedicated pool.
        all_statuses: with the statuses of all tasks, not only the first failed one.
        task_counts: tasks of a heterogeneous job have their numbers of nodes.

    Documents share parts: do not change them.
    """
    whole: dict[str, Any] = {
        "kind": job.kind,
        "metadata": _metadata(job),
        "status": _status(job, now, records=records, all_statuses=all_statuses),
        "algorithm": job.recipe.document,
        "spec": _spec(job, pool_name=pool_name),
    }
    if job.roles:
        whole["tasks"] = [_task(role, count=task_counts) for role in job.roles]
    if job.phase == "Running" and job.workspace != "0":
        whole["endpoints"] = {
            "jupyter_lab": {
                "url": f"https://notebook.example/{job.id}?token={PLANTED_SECRETS[3]}",
                "token": PLANTED_SECRETS[3],
            }
        }
    for path, value in (job.overrides or {}).items():
        whole = edit(whole, path, value)
    return whole


def _metadata(job: Job) -> dict[str, Any]:
    annotations = {}
    if job.roles:
        annotations["job_template"] = "Template RL"
    if job.retries is not None:
        annotations["fault-tolerance/job-retry-num"] = str(job.retries)
    metadata = {
        "id": job.id,
        "name": job.name,
        "description": "",
        "create_time": job.created_ms,
        "workspace_id": job.workspace,
        "user_name": job.user.name,
    }
    return metadata | {"annotations": annotations} if annotations else metadata


def _status(job: Job, now: float, *, records: bool, all_statuses: bool) -> dict[str, Any]:
    status: dict[str, Any] = {
        "phase": job.phase,
        "secondary_phase": job.secondary,
        "duration": round(job.running_seconds(now) * 1000),
        "start_time": 0 if job.started is None else round(job.started * 1000),
        "node_count_metrics": node_counts(job, now),
        "tasks": job.workers(),
    }
    if job.ended is not None and job.runs:
        tasks = job.workers() if all_statuses else [job.failed_task] if job.failed_task else []
        status["task_statuses"] = [_task_status(job, task) for task in tasks]
    if records and job.runs:
        status["running_records"] = [_record(job, run) for run in job.runs]
    return status


def _task_status(job: Job, task: str) -> dict[str, Any]:
    if task != job.failed_task:
        return {"task": task, "exit_code": 0, "message": ""}
    code = {} if job.exit_code is None else {"exit_code": job.exit_code}
    return {"task": task, **code, "message": job.message}


def _record(job: Job, run: Run) -> dict[str, Any]:
    record: dict[str, Any] = {"start_at": int(run.start), "start_type": run.start_type}
    if run.computing is not None:
        record["xpu_start_at"] = int(run.computing)
    if run.recoveries:
        record["recover_records"] = [_recovery(recovery) for recovery in run.recoveries]
    if run.end is None:
        # How the service shows the end of a current run is not documented.
        return record if job.created_ms % 2 else record | {"end_at": 0}
    record |= {"end_at": int(run.end), "end_reason": run.reason, "end_related_task": run.task}
    if run.recovery:
        record["end_recover"] = run.recovery
    if run.recovery_before:
        record["end_recover_before_downgrade"] = run.recovery_before
    return record


def _recovery(recovery: Recovery) -> dict[str, Any]:
    end = {} if recovery.result not in SETTLED else {"recover_end_at": int(recovery.end or 0)}
    return {
        "recover_start_at": int(recovery.start),
        **end,
        "reason": recovery.reason,
        "related_task": recovery.task,
        "recover": recovery.policy,
        "fault_scenario": recovery.scenario,
        "recover_result": recovery.result,
    }


def node_counts(job: Job, now: float) -> list[list[int]]:
    """Return ``[ms, nodes]`` over time: every minute, less often for long jobs, and at changes.

    The last point has the number of nodes in use now.
    """
    if not job.node_changes:
        first = job.created_ms + 400
        known = [[first, 0], [first + 9000, 0], [first + 10000, 0]]
        return [point for point in known if point[0] <= now * 1000]
    last = now if job.ended is None else job.ended
    span = max(last, job.node_changes[-1][0]) - job.node_changes[0][0]
    step = round(max(_POINT_SECONDS, span / _MOST_POINTS) * 1000)
    points = [[job.created_ms, 0]]
    ends = [at for at, _ in job.node_changes[1:]] + [last]
    for (at, nodes), end in zip(job.node_changes, ends, strict=True):
        begin = round(at * 1000)
        points += [
            [ms, nodes] for ms in range(begin, round(end * 1000), step)[: None if nodes else 1]
        ]
    points.append([round(last * 1000), job.nodes_up])
    return points


def _spec(job: Job, *, pool_name: bool) -> dict[str, Any]:
    pool = job.pool
    spec: dict[str, Any] = {
        "resource": _resource(job, pool_name=pool_name),
        "log_export_path": {"obs_url": f"/simulated-logs/{job.user.name}/"},
        "runtime_type": job.runtime,
    }
    if job.priority is not None:
        spec["schedule_policy"] = {"priority": job.priority, "preemptible": False}
    if pool.id is not None:
        spec["log_export_path"]["host_path"] = "/var/log/training"
        spec["volumes"] = [
            {
                "nfs": {
                    "nfs_server_path": "192.0.2.10:/share",
                    "local_path": "/home/ma-user/share",
                    "read_only": False,
                }
            }
        ]
    return spec


def _resource(job: Job, *, pool_name: bool) -> dict[str, Any]:
    pool, flavor = job.pool, job.flavor
    resource: dict[str, Any] = {"policy": job.policy, "node_count": job.nodes}
    if flavor.id is not None and not job.roles:
        resource["flavor_id"] = flavor.id
        resource["flavor_name"] = flavor.name
    if pool.group:
        resource["pool_group_id"] = pool.id
    elif pool.id is not None:
        resource["pool_id"] = pool.id
        if pool_name:
            resource["pool_name"] = pool.name
    elif not job.roles and pool.tells == "flavor_detail":
        resource["flavor_detail"] = _flavor_detail(pool, flavor)
    cards = {"accelerator_num": flavor.cards} if flavor.cards or pool.cards_if_none else {}
    product = {"accelerator_type": pool.spelling or pool.product} if flavor.cards else {}
    if pool.tells == "allocated" and job.started is None:
        resource["main_container_customized_flavor"] = {
            "cpu_core_num": flavor.cpu_cores,
            "mem_size": flavor.memory_gb,
        } | ({"accelerator_num": flavor.cards} if flavor.cards else {})
    elif pool.tells == "allocated":
        resource["main_container_allocated_resources"] = {
            "cpu_arch": "arm" if pool.flavor_type == "Ascend" else "x86",
            "cpu_core_num": float(flavor.cpu_cores),
            "mem_size": float(flavor.memory_gb),
            **{name: float(number) for name, number in cards.items()},
            **product,
        }
    elif pool.tells == "pool_info":
        resource["pool_info"] = {
            "core_num": flavor.cpu_cores,
            "mem_size": flavor.memory_gb,
            "pool_resource_flavor": flavor.id or "",
            **cards,
            **product,
        }
    return resource


def _flavor_detail(pool: Pool, flavor: Flavor) -> dict[str, Any]:
    info = _flavor_info(pool.flavor_type, pool.product, pool.card_memory, flavor)
    return {
        "flavor_type": pool.flavor_type,
        "billing": {"code": flavor.id, "unit_num": flavor.cards or 1},
        "flavor_info": {"max_num": pool.nodes} | info | {"disk": {"size": "500", "unit": "GB"}},
    }


def _flavor_info(flavor_type: str, product: str, memory: str, flavor: Flavor) -> dict[str, Any]:
    info: dict[str, Any] = {
        "cpu": {"arch": "arm" if flavor_type == "Ascend" else "x86", "core_num": flavor.cpu_cores},
        "memory": {"size": flavor.memory_gb, "unit": "GB"},
    }
    if flavor_type == "GPU":
        info["gpu"] = {"unit_num": flavor.cards, "product_name": product, "memory": memory}
    if flavor_type == "Ascend":
        info["npu"] = {"unit_num": str(flavor.cards), "product_name": product, "memory": memory}
    return info


def _task(role: Role, *, count: bool) -> dict[str, Any]:
    info = _flavor_info(role.flavor_type, role.product, role.card_memory, role.flavor)
    return {
        "role": role.name,
        "algorithm": {
            "code_dir": "obs://simulated-rl/code/",
            "boot_file": f"obs://simulated-rl/code/{role.name}.py",
            "inputs": {
                "name": "maps",
                "local_dir": "/home/ma-user/maps",
                "remote": {"obs": {"obs_url": "/simulated-rl/maps/"}},
            },
            "outputs": {
                "name": "replays",
                "local_dir": "/home/ma-user/replays",
                "remote": {"obs": {"obs_url": "/simulated-rl/replays/"}},
                "mode": "upload_periodically",
                "period": "30s",
            },
            "engine": {
                "engine_id": "pytorch_1.8.0-cuda_10.2-py_3.7-ubuntu_18.04-x86_64",
                "engine_name": "PyTorch",
                "engine_version": "pytorch_1.8.0-cuda_10.2-py_3.7-ubuntu_18.04-x86_64",
                "v1_compatible": False,
                "run_user": "1000",
                "image_url": "",
            },
            "local_code_dir": "/home/ma-user/modelarts/user-job-dir",
            "working_dir": "/home/ma-user/modelarts/user-job-dir/code",
        },
        "task_resource": {
            "flavor_id": role.flavor.id,
            "flavor_name": role.flavor.name,
            **({"node_count": role.nodes} if count else {}),
            "max_num": 1,
            "flavor_type": role.flavor_type,
            "billing": {"code": role.flavor.id, "unit_num": role.flavor.cards or 1},
            "flavor_info": {"max_num": 1} | info | {"disk": {"size": 500, "unit": "GB"}},
            "attributes": {"is_free": "false"},
        },
    }
