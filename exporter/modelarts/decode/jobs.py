"""Decode responses to `Job`s.

This is the only place that converts units and interprets unexpected values: a value that cannot be
right is unset and reported as a `Problem`, never guessed. Pure: time is an argument.
"""

import functools
import re
from collections import Counter
from collections.abc import Sequence
from sys import intern
from typing import NamedTuple

from exporter.jobs.job import (
    FAILED,
    PHASES,
    START_TYPES,
    TERMINAL,
    UNKNOWN_PHASE,
    Fault,
    Job,
    JobPage,
    Problem,
    Run,
)
from exporter.modelarts.decode.hardware import MAX_NODES, Hardware, find_hardware
from exporter.modelarts.decode.lenient import Number, Text
from exporter.modelarts.decode.responses import (
    MAX_ITEMS,
    DecodedItems,
    decode_item,
    decode_listing,
    decode_names,
    decode_resource,
)
from exporter.modelarts.decode.schema import (
    Algorithm,
    Engine,
    Item,
    Record,
    RecoverRecord,
    Spec,
    Status,
    Task,
    TaskStatus,
)
from exporter.modelarts.decode.values import (
    MS,
    SECONDS,
    UNKNOWN,
    Checker,
    FieldProblems,
    label,
    shared_label,
)

_PHASES = {phase: phase for phase in PHASES}
_MAX_MESSAGE = 200
_MAX_TOTAL = 2**53
_MAX_EXIT_CODE = 2**32
_MAX_RESTARTS = 100_000
_MAX_PRIORITY = 1000
_RESTART_LIMIT = "metadata.annotations.fault-tolerance/job-retry-num"
# The text after the last comma of [[ms, nodes], ...]; or an empty list, or null.
_LAST_NODES = re.compile(rb"(?:\s*(\d{1,6})\s*\]\s*\]|\s*\[\s*\]|null)\s*\Z")
_TAIL = 128
_XPU_START = "running_records.xpu_start_at"
_MAX_CACHED_RESOURCE = 4096  # larger ones are unusual, and not cached
_MAX_CACHED_TASKS = 8

_NO_ALGORITHM = Algorithm()
_NO_SPEC = Spec()
_NO_STATUS = Status()
_NO_FAILURE = ("", None, "")


def decode_page(body: bytes, *, workspace: str, now: float, limit: int = MAX_ITEMS) -> JobPage:
    """Decode the response to a search.

    Args:
        body: JSON.
        workspace: the id that was searched, for jobs without one.
        now: unix seconds, to recognize absurd timestamps.
        limit: items requested; a response with more is refused.

    Raises:
        InvalidResponseError: not the response to a search, or an error in a 200.
        BrokenResponseError: JSON that is truncated or garbled.
    """
    return _page(decode_listing(body, limit), workspace, now)


def decode_job(body: bytes, *, workspace: str, now: float) -> JobPage:
    """Decode the response for a single job to a page of one item; otherwise as `decode_page`."""
    return _page(decode_item(body), workspace, now)


def _page(decoded: DecodedItems, workspace: str, now: float) -> JobPage:
    jobs = []
    without_phase = []
    problems = []
    check = Checker(now)
    for number, item in enumerate(decoded.items):
        if decoded.invalid:
            for path in decoded.invalid.get(number, ()):
                check.invalid(path)
        jobs.append(_job(item, workspace, check))
        if check.problems:
            if item.status is None or not item.status.phase:
                without_phase.append(item.metadata.id)
            problems += [
                Problem(item.metadata.id, field, value, kind)
                for (field, kind), value in check.problems.items()
            ]
            check.problems.clear()
    return JobPage(
        jobs=jobs,
        undecodable=decoded.undecodable,
        without_phase=without_phase,
        problems=problems,
        total=_plausible_total(decoded.total),
        count=_plausible_total(decoded.count),
        size=len(jobs) + len(decoded.undecodable),
    )


def _plausible_total(number: float | None) -> int | None:
    return int(number) if number is not None and 0 <= number < _MAX_TOTAL else None


def _job(item: Item, workspace: str, check: Checker) -> Job:
    metadata = item.metadata
    status = item.status or _NO_STATUS
    spec = item.spec or _NO_SPEC
    algorithm = item.algorithm or _NO_ALGORITHM
    resource = bytes(spec.resource)
    tasks = item.tasks or ()
    is_usual = len(resource) <= _MAX_CACHED_RESOURCE and len(tasks) <= _MAX_CACHED_TASKS
    find = _hardware if is_usual else _hardware.__wrapped__
    workers = _workers(status, tasks) if tasks else ()
    (
        pool, pool_name, flavor_type, flavor, accelerator, engine, policy, nodes, cards, cpu_cores,
        memory, problems,
    ) = find(resource, algorithm.engine, tasks, workers)  # fmt: skip
    if problems:
        check.problems.update(problems)
    phase = _PHASES.get(status.phase or "") or _unknown_phase(status.phase, check)
    started = check.time(status.start_time, MS, "status.start_time")
    duration = check.duration(status.duration, MS, "status.duration")
    runs = _runs(status.running_records, check)
    failed_task, exit_code, message = _NO_FAILURE
    if status.task_statuses and phase in TERMINAL:  # while it runs, they are of an earlier run
        failed_task, exit_code, message = _first_failure(status.task_statuses, phase, check)
    restart_limit = priority = None
    if metadata.annotations:
        retries = metadata.annotations.job_retry_num
        restart_limit = _whole(retries, _MAX_RESTARTS, _RESTART_LIMIT, check)
    if spec.schedule_policy:
        order = spec.schedule_policy.priority
        priority = _whole(order, _MAX_PRIORITY, "spec.schedule_policy.priority", check)
    # Positional: keyword arguments alone would take a third of the decoding time.
    return Job(
        metadata.id,
        label(metadata.name),
        shared_label(metadata.user_name),
        shared_label(metadata.workspace_id or workspace),
        shared_label(item.kind or "job"),
        phase,
        pool,
        pool_name,
        flavor_type,
        flavor,
        accelerator,
        engine,
        check.time(metadata.create_time, MS, "metadata.create_time"),
        started,
        _end_time(runs, started, duration, check) if phase in TERMINAL else None,
        duration,
        nodes,
        _current_nodes(status, nodes, check) if phase == "Running" else nodes,
        cards,
        runs,
        failed_task,
        exit_code,
        message,
        cpu_cores,
        memory,
        policy,
        shared_label(algorithm.name or algorithm.id) if algorithm.name or algorithm.id else "",
        shared_label(spec.runtime_type) if spec.runtime_type else "",
        restart_limit,
        priority,
    )


def _whole(value: Number, most: int, field: str, check: Checker) -> int | None:
    number = check.amount(value, most, field)
    return None if number is None else int(number)


# Cached by the JSON itself: a fleet has few different resources, and most fields of a job come from
# them. Nothing else is cached as JSON: tasks and algorithms may hold secrets.
@functools.lru_cache(maxsize=1024)
def _hardware(
    resource: bytes, engine: Engine | None, tasks: tuple[Task, ...], workers: tuple[int | None, ...]
) -> Hardware:
    decoded, invalid = decode_resource(resource)
    check = Checker()
    for path in invalid:
        check.invalid(path)
    is_usual = len(tasks) <= _MAX_CACHED_TASKS
    find = find_hardware if is_usual else find_hardware.__wrapped__
    hardware = find(decoded, engine, tasks, workers)
    # An object of the wrong type is one problem, not one for each number that it should have.
    whole = tuple(f"{path}." for path in invalid)
    others = {
        place: value for place, value in hardware.problems.items() if not place[0].startswith(whole)
    }
    return hardware._replace(problems={**check.problems, **others})


def _workers(status: Status, tasks: tuple[Task, ...]) -> tuple[int | None, ...]:
    """Return for each task how many workers ``status.tasks`` names for its role: ``learner-0``.

    None if that is unknown, or if two tasks have the same role.
    """
    names = decode_names(bytes(status.tasks)) if status.tasks else None
    counts = Counter(name.rpartition("-")[0] for name in set(names or ()))
    roles = Counter(task.role for task in tasks)
    return tuple(
        counts[task.role] or None if task.role and roles[task.role] == 1 else None for task in tasks
    )


def _unknown_phase(phase: Text, check: Checker) -> str:
    check.unknown("phase", phase or "")
    return UNKNOWN_PHASE


def _runs(records: Sequence[Record] | None, check: Checker) -> tuple[Run, ...] | None:
    if records is None:
        return None
    runs = []
    for record in records:
        start = check.time(record.start_at, SECONDS, "running_records")
        end = check.time(record.end_at, SECONDS, "running_records")
        if start is not None and end is not None and end < start:
            # Published samples have such records; with no length they do no harm.
            end = start
            check.invalid("running_records")
        start_type, recovery, recovery_before, reason, problems = _run_texts(
            record.start_type,
            record.end_recover,
            record.end_recover_before_downgrade,
            record.end_reason and record.end_reason[: _MAX_MESSAGE + 1],  # it will be cached
        )
        if problems:
            check.problems.update(problems)
        computing = check.time(record.xpu_start_at, SECONDS, _XPU_START)
        if computing is not None and start is not None:
            startup = check.duration(computing - start, SECONDS, _XPU_START)
            computing = None if startup is None else computing
        faults = None
        if record.recover_records is not None:
            faults = tuple(_fault(each, check) for each in record.recover_records)
        runs.append(
            Run(start, end, start_type, recovery, recovery_before, reason, computing, faults)
        )
    return tuple(runs)


def _fault(record: RecoverRecord, check: Checker) -> Fault:
    scenario, recovery, result, problems = _fault_texts(
        record.fault_scenario, record.recover, record.recover_result
    )
    if problems:
        check.problems.update(problems)
    field = "running_records.recover_records"
    return Fault(
        check.time(record.recover_start_at, SECONDS, field),
        check.time(record.recover_end_at, SECONDS, field),
        scenario,
        recovery,
        result,
    )


@functools.lru_cache(maxsize=1024)
def _fault_texts(
    scenario: Text, recovery: Text, result: Text
) -> tuple[str, str, str, FieldProblems]:
    check = Checker()
    return (
        check.identifier(scenario, "fault_scenario"),
        check.policy(recovery),
        check.identifier(result, "result"),
        check.problems,
    )


class _RunTexts(NamedTuple):
    """How a run began and ended, without the times."""

    start_type: str
    recovery: str
    recovery_before: str
    reason: str
    problems: FieldProblems


@functools.lru_cache(maxsize=1024)
def _run_texts(start_type: Text, recovery: Text, recovery_before: Text, reason: Text) -> _RunTexts:
    check = Checker()
    return _RunTexts(
        start_type=check.choice(start_type, START_TYPES, "start_type") or UNKNOWN,
        recovery=check.policy(recovery),
        recovery_before=check.policy(recovery_before),
        reason=label(reason, _MAX_MESSAGE),
        problems=check.problems,
    )


def _end_time(
    runs: tuple[Run, ...] | None,
    started: float | None,
    duration: float | None,
    check: Checker,
) -> float | None:
    """Return when a finished job ended: the end of its last run, else start plus duration.

    A job can also end while a recovery is tried: then that is the end of the recovery.
    """
    if runs and runs[-1].end is not None:
        recoveries = [fault.end for fault in runs[-1].faults or () if fault.end is not None]
        return max([runs[-1].end, *recoveries])
    if started is None or duration is None:
        return None
    return check.time(started + duration, SECONDS, "status.duration")


def _current_nodes(status: Status, nodes: int | None, check: Checker) -> int | None:
    """Return the nodes of the last point of ``[[ms, nodes], ...]``, else ``nodes``."""
    if not status.node_count_metrics:
        return nodes
    tail = bytes(memoryview(status.node_count_metrics)[-_TAIL:])
    last = _LAST_NODES.match(tail.rpartition(b",")[2])
    if last is None or int(last[1] or 0) > MAX_NODES:
        check.invalid("status.node_count_metrics")
        return nodes
    return nodes if last[1] is None else int(last[1])


def _first_failure(
    statuses: Sequence[TaskStatus], phase: str, check: Checker
) -> tuple[str, int | None, str]:
    """Return name, exit code and message of the first task that failed.

    That is the first with an exit code. If no task has one, it is the first with a message, and in
    a failed job even one with exit code 0, which may stand for none.
    """
    without_code = with_zero = _NO_FAILURE
    for status in statuses:
        code = status.exit_code
        if not code and not status.message:
            continue
        task, message = intern(label(status.task)), label(status.message, _MAX_MESSAGE)
        if code:
            if code.is_integer() and abs(code) < _MAX_EXIT_CODE:
                return task, int(code), message or without_code[2]
            check.invalid("status.task_statuses.exit_code")
        if message and code != 0 and not without_code[2]:
            without_code = task, None, message
        elif message and phase in FAILED and not with_zero[2]:
            with_zero = task, None, message
    return without_code if without_code[2] else with_zero
