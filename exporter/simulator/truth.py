"""Ground truth: the world's own record of events and state, never taken from responses."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, SupportsIndex, overload

from exporter.simulator.job import SETTLED, Job, Run

KINDS = (
    "created",
    "queued",
    "started",
    "interrupted",
    "downgraded",
    "restarted",
    "computing",
    "fault",
    "resized",
    "stopping",
    "entered",
    "finished",
    "reactivated",
    "deleted",
)


class Event(NamedTuple):
    """Something that happened to a job, ``at`` in unix seconds.

    ``phase`` is the job's phase after it; of ``deleted`` its last one. ``restarted`` has the new
    run's start type and the recovery that led to it (``unknown`` if none was given),
    ``interrupted`` the recovery begun, ``downgraded`` the recovery tried first and the one used,
    ``computing``, when its cards begin to compute, the seconds since the start of the run,
    ``fault``, when the result of a recovery is final, the scenario, the recovery and the result,
    ``resized`` the nodes in use, ``finished`` the exit code of the failed task, if any.
    """

    at: float
    kind: str
    job: Job
    phase: str
    start_type: str = ""
    recovery: str = ""
    from_recovery: str = ""
    to_recovery: str = ""
    exit_code: int | None = None
    startup: int | None = None
    fault_scenario: str = ""
    result: str = ""
    nodes_up: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return fields for JSON, with the labels that fleet metrics share."""
        workspace, pool, flavor_type = self.job.base
        details = {name: getattr(self, name) for name in _DETAILS}
        details |= {"cpu_cores": self.job.cpu_cores, "memory_bytes": self.job.memory_bytes}
        return {
            "at": self.at,
            "kind": self.kind,
            "job": self.job.id,
            "phase": self.phase,
            "workspace": workspace,
            "pool": pool,
            "flavor_type": flavor_type,
            "nodes": self.job.nodes,
            "cards": self.job.cards,
            "accelerator": self.job.accelerator,
        } | {name: value for name, value in details.items() if value not in ("", None)}


_DETAILS = Event._fields[4:]


class Events:
    """A record of events that may forget its oldest; positions never change."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self.first = 0

    def __len__(self) -> int:
        """Return the number of all events that were ever recorded."""
        return self.first + len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

    @overload
    def __getitem__(self, position: SupportsIndex) -> Event: ...

    @overload
    def __getitem__(self, position: slice) -> list[Event]: ...

    def __getitem__(self, position: SupportsIndex | slice) -> Event | list[Event]:
        if isinstance(position, slice):
            start, stop, step = position.indices(len(self))
            return self._events[max(start - self.first, 0) : max(stop - self.first, 0) : step]
        index = position.__index__()
        return self._events[index - self.first if index >= 0 else index]

    def append(self, event: Event) -> None:
        """Record an event."""
        self._events.append(event)

    def forget(self, keep: int) -> None:
        """Forget all but the latest ``keep`` events."""
        count = max(len(self._events) - keep, 0)
        del self._events[:count]
        self.first += count


def facts(job: Job, now: float) -> dict[str, Any]:
    """Return the facts of a job that a client should find out; times in seconds or None.

    ``runs`` are in whole seconds, as shown by the service. ``startups`` are seconds from the start
    of each run until its cards computed. ``faults`` are those whose recovery has
    a final result. Of ``cpu_cores`` and ``memory_bytes``, None: no field of its document has them.
    """
    restarts = Counter(
        (run.start_type, before.recovery or "unknown")
        for before, run in zip(job.runs, job.runs[1:], strict=False)
    )
    faults = Counter(
        (recovery.scenario, recovery.policy, recovery.result)
        for run in job.runs
        for recovery in run.recoveries
        if recovery.result in SETTLED
    )
    workspace, pool, flavor_type = job.base
    return {
        "id": job.id,
        "name": job.name,
        "user": job.user.name,
        "workspace": workspace,
        "kind": job.kind,
        "phase": job.phase,
        "pool": pool,
        "pool_name": job.pool.name if job.pool.id and not job.pool.group else "",
        "flavor_type": flavor_type,
        "flavor": job.flavor.id or "",
        "accelerator": job.accelerator,
        "cards": job.cards,
        "cpu_cores": job.cpu_cores,
        "memory_bytes": job.memory_bytes,
        "nodes": job.nodes,
        "nodes_up": job.nodes_up,
        "policy": job.policy,
        "algorithm": job.recipe.document.get("name", ""),
        "runtime_type": job.runtime,
        "priority": job.priority,
        "fine_tuning": job.fine_tuning,
        "restart_limit": job.retries,
        "restarts_used": job.restarts_used,
        "created": job.created,
        "started": job.started,
        "ended": job.ended,
        "duration": job.running_seconds(now),
        "restarts": [
            {"start_type": start_type, "recovery": recovery, "count": count}
            for (start_type, recovery), count in sorted(restarts.items())
        ],
        "faults": [
            {"fault_scenario": scenario, "recovery": recovery, "result": result, "count": count}
            for (scenario, recovery, result), count in sorted(faults.items())
        ],
        "runs": [_run(run) for run in job.runs],
        "startups": [_startup(run) for run in job.runs],
        "failed_task": job.failed_task,
        "exit_code": job.exit_code,
        "message": job.message,
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "start": int(run.start),
        "end": None if run.end is None else int(run.end),
        "start_type": run.start_type,
        "recovery": run.recovery,
        "recovery_before": run.recovery_before,
    }


def _startup(run: Run) -> int | None:
    return None if run.computing is None else int(run.computing) - int(run.start)


def summary(jobs: Iterable[Job]) -> dict[str, list[dict[str, Any]]]:
    """Return the current state by workspace, pool and flavor type (and phase, and accelerator).

    ``jobs``: all jobs. ``nodes``, ``cards``, ``cpu_cores`` and ``memory_bytes``: as requested by
    active jobs. ``nodes_up``: in use now. ``oldest_pending``: create time in seconds of the oldest
    job in Creating or Pending.
    """
    phases: Counter[tuple[str, ...]] = Counter()
    sums: dict[str, Counter[tuple[str, ...]]] = {
        name: Counter() for name in ("nodes", "nodes_up", "cards", "cpu_cores", "memory_bytes")
    }
    oldest: dict[tuple[str, ...], float] = {}
    for job in jobs:
        base = job.base
        phases[*base, job.phase] += 1
        if not job.active:
            continue
        for name, total in sums.items():
            labels = (*base, job.phase, job.accelerator) if name == "cards" else (*base, job.phase)
            if value := getattr(job, name):
                total[labels] += value
        if job.phase in ("Creating", "Pending"):
            oldest[base] = min(job.created, oldest.get(base, job.created))
    return {
        "jobs": _rows(phases, "phase"),
        "cards": _rows(sums.pop("cards"), "phase", "accelerator"),
        **{name: _rows(total, "phase") for name, total in sums.items()},
        "oldest_pending": _rows(oldest),
    }


class Totals:
    """Sums of events since the world began, of jobs that were deleted, too."""

    def __init__(self) -> None:
        self._faults: Counter[tuple[str, ...]] = Counter()
        self._startups: Counter[tuple[str, ...]] = Counter()
        self._startup_seconds: Counter[tuple[str, ...]] = Counter()

    def add(self, event: Event) -> None:
        """Count an event."""
        base = event.job.base
        if event.kind == "fault":
            self._faults[*base, event.fault_scenario, event.recovery, event.result] += 1
        elif event.startup is not None:
            self._startups[base] += 1
            self._startup_seconds[base] += event.startup

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Return recoveries with a final result, and start-ups with their seconds."""
        return {
            "faults": _rows(self._faults, "fault_scenario", "recovery", "result"),
            "startups": _rows(self._startups),
            "startup_seconds": _rows(self._startup_seconds),
        }


def _rows(values: Mapping[tuple[str, ...], Any], *more: str) -> list[dict[str, Any]]:
    names = ("workspace", "pool", "flavor_type", *more)
    return [
        dict(zip(names, labels, strict=True)) | {"value": value}
        for labels, value in sorted(values.items())
    ]
