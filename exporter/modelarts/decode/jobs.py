"""The service's answers → `Job`s.

This is the only place where units are converted and where it is decided what an odd value means:
what cannot be right is unset and reported as a `Problem`, never guessed. Pure: time comes as an
argument.
"""

import functools
import re
from collections.abc import Sequence
from sys import intern
from typing import NamedTuple

from exporter.jobs.job import (
    PHASES,
    START_TYPES,
    TERMINAL,
    UNKNOWN_PHASE,
    Job,
    JobPage,
    Problem,
    Run,
)
from exporter.modelarts.decode.hardware import MOST_NODES, Hardware, find_hardware
from exporter.modelarts.decode.schema import (
    Algorithm,
    Decoded,
    Engine,
    Item,
    Record,
    Spec,
    Status,
    Task,
    TaskStatus,
    Text,
    decode_item,
    decode_listing,
    decode_resource,
)
from exporter.modelarts.decode.values import MS, SECONDS, UNKNOWN, Checker, Oddities, label, shared

_PHASES = {phase: phase for phase in PHASES}
_MESSAGE = 200
_TALLY = 2**53
_EXIT_CODES = 2**32
# What stands after the last comma of [[ms, nodes], ...]; or an empty list, or null.
_LAST_NODES = re.compile(rb"(?:\s*(\d{1,6})\s*\]\s*\]|\s*\[\s*\]|null)\s*\Z")
_TAIL = 128
_SMALL = 4096  # what is larger is no usual resource, and is not kept

_NO_ALGORITHM = Algorithm()
_NO_SPEC = Spec()
_NO_STATUS = Status()
_NO_FAILURE = ("", None, "")


def decode_page(body: bytes, *, workspace: str, now: float) -> JobPage:
    """Decode the answer to a search.

    Args:
        body: JSON.
        workspace: the id that was searched, for jobs that do not name theirs.
        now: unix seconds, to recognise absurd timestamps.

    Raises:
        InvalidAnswer: not the answer to a search, or an error in a 200.
        BrokenAnswer: JSON that was cut off or garbled.
    """
    return _page(decode_listing(body), workspace, now)


def decode_job(body: bytes, *, workspace: str, now: float) -> JobPage:
    """Decode the answer for a single job, as a page of one item; else as `decode_page`."""
    return _page(decode_item(body), workspace, now)


def _page(decoded: Decoded, workspace: str, now: float) -> JobPage:
    jobs = []
    vague = []
    problems = []
    check = Checker(now)
    for number, item in enumerate(decoded.items):
        if decoded.wrong:
            for path in decoded.wrong.get(number, ()):
                check.invalid(path)
        jobs.append(_job(item, workspace, check))
        if check.odd:
            if item.status is None or not item.status.phase:
                vague.append(item.metadata.id)
            problems += [
                Problem(item.metadata.id, field, value, kind)
                for (field, kind), value in check.odd.items()
            ]
            check.odd.clear()
    return JobPage(
        jobs=jobs,
        broken=decoded.broken,
        vague=vague,
        problems=problems,
        total=_tally(decoded.total),
        count=_tally(decoded.count),
        size=len(jobs) + len(decoded.broken),
    )


def _tally(number: float | None) -> int | None:
    return int(number) if number is not None and 0 <= number < _TALLY else None


def _job(item: Item, workspace: str, check: Checker) -> Job:
    metadata = item.metadata
    status = item.status or _NO_STATUS
    resource = bytes((item.spec or _NO_SPEC).resource)
    find = _hardware if len(resource) <= _SMALL else _hardware.__wrapped__
    pool, pool_name, flavor_type, flavor, accelerator, engine, nodes, cards, odd = find(
        resource, (item.algorithm or _NO_ALGORITHM).engine, item.tasks or ()
    )
    if odd:
        check.odd.update(odd)
    phase = _PHASES.get(status.phase or "") or _unknown_phase(status.phase, check)
    started = check.time(status.start_time, MS, "status.start_time")
    duration = check.duration(status.duration, MS, "status.duration")
    runs = _runs(status.running_records, check)
    failed_task, exit_code, message = (
        _failure(status.task_statuses, check) if status.task_statuses else _NO_FAILURE
    )
    # In the order of the fields: by keyword this alone would take a third of the time.
    return Job(
        metadata.id,
        label(metadata.name),
        shared(metadata.user_name),
        shared(metadata.workspace_id or workspace),
        shared(item.kind or "job"),
        phase,
        pool,
        pool_name,
        flavor_type,
        flavor,
        accelerator,
        engine,
        check.time(metadata.create_time, MS, "metadata.create_time"),
        started,
        _ended(runs, started, duration, check) if phase in TERMINAL else None,
        duration,
        nodes,
        _nodes_at_work(status, nodes, check) if phase == "Running" else nodes,
        cards,
        runs,
        failed_task,
        exit_code,
        message,
    )


# Found by the bytes themselves: a fleet has few kinds of resources, and most fields of a job are
# theirs. Nothing else stays JSON for this: tasks and algorithms may hold secrets.
@functools.lru_cache(maxsize=1024)
def _hardware(resource: bytes, engine: Engine | None, tasks: tuple[Task, ...]) -> Hardware:
    decoded, wrong = decode_resource(resource)
    check = Checker()
    for path in wrong:
        check.invalid(path)
    hardware = find_hardware(decoded, engine, tasks)
    return hardware._replace(odd={**check.odd, **hardware.odd})


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
            # Published samples have such records; without a length they do no harm.
            end = start
            check.invalid("running_records")
        start_type, recovery, recovery_before, reason, odd = _manner(
            record.start_type,
            record.end_recover,
            record.end_recover_before_downgrade,
            record.end_reason,
        )
        if odd:
            check.odd.update(odd)
        runs.append(Run(start, end, start_type, recovery, recovery_before, reason))
    return tuple(runs)


class _Manner(NamedTuple):
    """How a run began and ended, apart from when."""

    start_type: str
    recovery: str
    recovery_before: str
    reason: str
    odd: Oddities


@functools.lru_cache(maxsize=1024)
def _manner(start_type: Text, recovery: Text, recovery_before: Text, reason: Text) -> _Manner:
    check = Checker()
    return _Manner(
        start_type=check.choice(start_type, START_TYPES, "start_type") or UNKNOWN,
        recovery=check.policy(recovery),
        recovery_before=check.policy(recovery_before),
        reason=label(reason, _MESSAGE),
        odd=check.odd,
    )


def _ended(
    runs: tuple[Run, ...] | None,
    started: float | None,
    duration: float | None,
    check: Checker,
) -> float | None:
    """End of the last run, else start and duration, of a job that is over."""
    if runs and runs[-1].end is not None:
        return runs[-1].end
    if started is None or duration is None:
        return None
    return check.time(started + duration, SECONDS, "status.duration")


def _nodes_at_work(status: Status, nodes: int | None, check: Checker) -> int | None:
    """Nodes of the last point of ``[[ms, nodes], ...]``, of a job that runs; else ``nodes``."""
    if not status.node_count_metrics:
        return nodes
    tail = bytes(memoryview(status.node_count_metrics)[-_TAIL:])
    last = _LAST_NODES.match(tail.rpartition(b",")[2])
    if last is None or int(last[1] or 0) > MOST_NODES:
        check.invalid("status.node_count_metrics")
        return nodes
    return nodes if last[1] is None else int(last[1])


def _failure(statuses: Sequence[TaskStatus], check: Checker) -> tuple[str, int | None, str]:
    """Name, exit code and message of the first task that failed."""
    for status in statuses:
        code = status.exit_code
        if not code:
            continue
        if code.is_integer() and abs(code) < _EXIT_CODES:
            return intern(label(status.task)), int(code), label(status.message, _MESSAGE)
        check.invalid("status.task_statuses.exit_code")
    return _NO_FAILURE
