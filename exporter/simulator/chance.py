"""The random decisions of the living world: arrivals, sizes, outcomes and faults of jobs.

The figures are invented to make a small region look plausible: one crowded pool, some quiet ones,
most jobs short, and most card hours in a few long jobs.
"""

import math
import random
from dataclasses import dataclass

from exporter.simulator.catalog import (
    ASCEND_ROLES,
    DEFAULT_WORKSPACE,
    GPU_ROLES,
    VISION_WORKSPACE,
    Role,
)
from exporter.simulator.job import FREE_OF_CHARGE, Job

HOUR = 3600.0
DAY = 24 * HOUR
_CHINA_SECONDS = 8 * HOUR
_WEEKEND = (5, 6)

LADDER = (
    "npu_step_retry",
    "npu_proc_restart",
    "proc_restart",
    "pod_reschedule",
    "job_reschedule",
    "job_reschedule_with_taint",
)
"""If one recovery does not help, a later one is used: a downgrade."""

_SCENARIOS = {
    "chip_fault": ("npu_step_retry", "npu_proc_restart", "npu_proc_restart"),
    "node_fault": ("pod_reschedule", "job_reschedule_with_taint"),
    "job_failed": ("job_reschedule", "proc_restart"),
    "job_hanged": ("proc_restart",),
    "job_subhealth": ("job_reschedule_with_taint",),
    "error_in_log": ("pod_reschedule", "job_reschedule"),
}
_EXIT_CODES = (1, 1, 1, 1, 2, 126, 127, 134, 137, 137, 139, 143, 255)
_DOWNGRADES = 0.2


@dataclass(frozen=True, slots=True)
class Workload:
    """A stream of jobs to one pool, most of them long.

    ``nodes`` and ``workspaces`` are drawn with equal probability; ``flavor`` is the position of the
    flavor in the pool, None: any.
    """

    pool: str
    per_day: float
    median_hours: float
    spread: float
    nodes: tuple[int, ...]
    flavor: int | None = None
    workspaces: tuple[str, ...] = (DEFAULT_WORKSPACE,)
    node_hours_between_faults: float = 300.0
    roles: tuple[Role, ...] = ()


WORKLOADS = (
    Workload("llm-pretraining", 10, 6.0, 1.2, (2, 4, 4, 8, 8, 16), flavor=0),
    Workload("llm-pretraining", 8, 1.5, 0.8, (1, 1, 2), flavor=1),
    Workload("vision", 80, 2.0, 1.0, (1, 1, 1, 2), workspaces=(VISION_WORKSPACE,) * 3 + ("0",)),
    Workload("public-ascend", 45, 2.0, 1.0, (1, 1, 1, 2, 4)),
    Workload("public-gpu", 40, 1.5, 1.0, (1, 1, 1, 2), workspaces=("0", VISION_WORKSPACE)),
    Workload("public-gpu", 2, 3.0, 0.6, (1,), roles=GPU_ROLES),
    Workload("public-ascend", 2, 3.0, 0.6, (1,), roles=ASCEND_ROLES),
    Workload("public-cpu", 60, 0.5, 0.8, (1, 2)),
    Workload("lab-old", 20, 2.5, 1.0, (1, 1, 2), node_hours_between_faults=60.0),
    Workload("data-preparation", 40, 1.0, 0.7, (1, 2, 4)),
)
SERIOUS_PER_DAY = sum(workload.per_day for workload in WORKLOADS)

_QUICK_POOLS = ("public-ascend", "public-gpu", "public-cpu", "vision", "lab-old", "public-cpu")
QUICK_FAULTS = 0.08
"""Share of short jobs with a fault, high enough to show a recovery soon."""


@dataclass(frozen=True, slots=True)
class Request:
    """A job that a user submits, with ``seconds`` of work."""

    pool: str
    flavor: int | None
    nodes: int
    workspace: str
    seconds: float
    quick: bool
    faults_per_second: float
    retries: int | None
    roles: tuple[Role, ...] = ()


@dataclass(slots=True)
class Plan:
    """The course of a job without faults: ``left`` seconds of running until its ``fate``.

    ``fate`` is Completed, Failed, Abnormal, or Terminating if its user will stop it.
    """

    left: float
    fate: str
    quick: bool
    faults_per_second: float


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault and the recovery from it; ``policy`` None: no recovery."""

    scenario: str
    reason: str
    task: str
    exit_code: int
    policy: str | None
    downgraded_from: str = ""


class Chance:
    """Makes all random decisions with one seeded generator."""

    def __init__(self, generator: random.Random) -> None:
        self._random = generator

    def exponential(self, mean: float) -> float:
        """Return the seconds until the next rare event."""
        return self._random.expovariate(1 / mean)

    def between(self, low: float, high: float) -> float:
        """Return a random value in this range."""
        return self._random.uniform(low, high)

    def happens(self, probability: float) -> bool:
        """Return True with this probability."""
        return self._random.random() < probability

    def serious(self) -> Request:
        """Draw a long job: minutes to days."""
        workload = self._random.choices(WORKLOADS, [load.per_day for load in WORKLOADS])[0]
        seconds = self._random.lognormvariate(
            math.log(workload.median_hours * HOUR), workload.spread
        )
        nodes = self._random.choice(workload.nodes)
        return Request(
            pool=workload.pool,
            flavor=workload.flavor,
            nodes=nodes,
            workspace=self._random.choice(workload.workspaces),
            seconds=min(max(seconds, 60.0), 6 * DAY),
            quick=False,
            faults_per_second=nodes / (workload.node_hours_between_faults * HOUR),
            retries=self._random.choice((None, 3, 3, 10)),
            roles=workload.roles,
        )

    def quick(self) -> Request:
        """Draw a short trial: seconds to minutes on one card."""
        seconds = min(max(self._random.lognormvariate(math.log(40.0), 0.8), 6.0), 900.0)
        return Request(
            pool=self._random.choice(_QUICK_POOLS),
            flavor=0,
            nodes=1,
            workspace=VISION_WORKSPACE if self.happens(0.2) else DEFAULT_WORKSPACE,
            seconds=seconds,
            quick=True,
            faults_per_second=QUICK_FAULTS / seconds,
            retries=3,
        )

    def plan(self, request: Request) -> Plan:
        """Draw the course of a job; failures tend to come early, stops come at any time."""
        fate = self._random.choices(
            ("Completed", "Failed", "Terminating", "Abnormal"), (79, 13, 7, 1)
        )[0]
        share = 1.0
        if fate != "Completed":
            share = self._random.random() ** (2 if fate == "Failed" else 1)
        return Plan(
            max(request.seconds * share, 2.0), fate, request.quick, request.faults_per_second
        )

    def until_fault(self, plan: Plan) -> float:
        """Return the seconds of running until a fault."""
        return self.exponential(1 / plan.faults_per_second)

    def exit_code(self) -> int:
        """Return the exit code of a failed process."""
        return self._random.choice(_EXIT_CODES)

    def worker(self, job: Job) -> str:
        """Return the name of a random task."""
        return self._random.choice(job.workers())

    def fault(self, job: Job) -> Fault:
        """Draw a fault; the recovery depends on the chip and the remaining budget of restarts."""
        ascend, chips = job.pool.flavor_type == "Ascend", job.cards > 0
        scenario = self._random.choice([name for name in _SCENARIOS if chips or "chip" not in name])
        policy = self._random.choice(_SCENARIOS[scenario])
        before = ""
        if self.happens(_DOWNGRADES) and policy != LADDER[-1]:
            before, policy = policy, self._random.choice(LADDER[LADDER.index(policy) + 1 :])
        if not ascend:
            before, policy = _on_gpu(before), _on_gpu(policy)
        code = self.exit_code()
        used = sum(run.recovery not in FREE_OF_CHARGE for run in job.runs if run.recovery)
        free = policy in FREE_OF_CHARGE
        reason = "device health check failed" if scenario == "chip_fault" else f"exit with {code}"
        return Fault(
            scenario=scenario,
            reason=reason,
            task=self.worker(job),
            exit_code=code,
            policy=policy if free or used < (job.retries or 0) else None,
            downgraded_from="" if before == policy else before,
        )


def _on_gpu(policy: str) -> str:
    return "gpu_proc_restart" if policy.startswith("npu_") else policy


def activity(at: float) -> float:
    """Return the activity of users, 0 to 1: office hours in China, less on weekends, never 0."""
    days, seconds = divmod(at + _CHINA_SECONDS, DAY)
    hour = seconds / HOUR
    office = math.exp(-(((hour - 10.5) / 2.5) ** 2)) + math.exp(-(((hour - 16.0) / 3.0) ** 2))
    weekend = (int(days) + 3) % 7 in _WEEKEND  # 1970 began on a Thursday
    return (0.35 + 0.65 * min(office, 1.0)) * (0.6 if weekend else 1.0)


def quick_activity(at: float) -> float:
    """As `activity`, for short jobs, half of which come from schedules around the clock."""
    return (1 + activity(at)) / 2


MEAN_ACTIVITY = sum(activity(hour * HOUR) for hour in range(7 * 24)) / (7 * 24)
MEAN_QUICK_ACTIVITY = (1 + MEAN_ACTIVITY) / 2
