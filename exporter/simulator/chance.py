"""The random decisions of the living world: arrivals, sizes, outcomes and faults of jobs.

The figures are invented to make a small region look plausible: one crowded pool, some quiet ones,
most jobs short, and most card hours in a few long jobs.
"""

import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from exporter.simulator.catalog import (
    ASCEND_ROLES,
    DEFAULT_WORKSPACE,
    GPU_ROLES,
    VISION_WORKSPACE,
    Pool,
    Role,
)
from exporter.simulator.job import FREE_OF_CHARGE, Job
from exporter.simulator.nodes import Node

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


_REFUSED_IMAGES = 0.3
_LOST_RECOVERIES = 0.04


@dataclass(frozen=True, slots=True)
class Workload:
    """A stream of jobs to one pool, most of them long.

    ``nodes`` and ``workspaces`` are drawn with equal probability; ``flavor`` is the position of the
    flavor in the pool, None: any; a ``nightly`` one is submitted by schedules, mostly at night. All
    together use about half of each pool: too little at night, and too much in busy hours.
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
    runtime: str = "production"
    fine_tuning: bool = False
    nightly: bool = False


WORKLOADS = (
    Workload("llm-pretraining", 18, 2.5, 0.9, (2, 4, 4, 8, 8, 16), flavor=0),
    Workload("llm-pretraining", 7, 1.5, 0.5, (16,), flavor=0, nightly=True),
    Workload("llm-pretraining", 10, 1.0, 0.8, (1, 1, 2), flavor=1),
    Workload("vision", 70, 1.5, 0.8, (1, 1, 1, 2), workspaces=(VISION_WORKSPACE,) * 3 + ("0",)),
    Workload("vision", 1, 20.0, 0.4, (1,), flavor=0, runtime="debug"),
    Workload("public-ascend", 75, 1.5, 0.8, (1, 1, 1, 2, 4)),
    Workload("public-gpu", 40, 1.5, 0.8, (1, 1, 1, 2), workspaces=("0", VISION_WORKSPACE)),
    Workload("public-gpu", 2, 3.0, 0.6, (1,), roles=GPU_ROLES),
    Workload("public-ascend", 2, 3.0, 0.6, (1,), roles=ASCEND_ROLES),
    Workload("public-cpu", 60, 0.5, 0.8, (1, 2)),
    Workload("lab-old", 20, 1.5, 0.8, (1, 1, 2), node_hours_between_faults=60.0),
    Workload("data-preparation", 40, 1.0, 0.7, (1, 2, 4)),
    Workload("data-preparation", 20, 1.0, 0.5, (2, 4), nightly=True),
    Workload("research", 25, 2.0, 0.8, (1, 1, 2), workspaces=(VISION_WORKSPACE,)),
    Workload("research", 1, 20.0, 0.4, (1,), flavor=0, runtime="debug"),
    Workload("research", 12, 1.0, 0.7, (1,), flavor=0, fine_tuning=True),
    Workload("supernodes", 12, 2.5, 0.8, (1, 2, 4), flavor=0, node_hours_between_faults=150.0),
    Workload("supernodes", 10, 1.5, 0.7, (1,), flavor=1, fine_tuning=True),
    Workload("features", 40, 1.0, 0.7, (1, 2)),
    Workload("public-cpu-economy", 30, 0.5, 0.8, (1, 2)),
)

_QUICK_POOLS = (
    *("public-ascend", "public-gpu", "public-cpu", "vision", "lab-old", "public-cpu"),
    *("research", "public-cpu-economy"),
)
QUICK_FAULTS = 0.08
"""Share of short jobs with a fault, high enough to show a recovery soon."""


@dataclass(frozen=True, slots=True)
class Request:
    """A job that a user submits, with ``seconds`` of work."""

    pool: Pool
    flavor: int
    nodes: int
    workspace: str
    seconds: float
    quick: bool
    faults_per_second: float
    retries: int | None
    policy: str
    priority: int | None
    runtime: str = "production"
    roles: tuple[Role, ...] = ()
    fine_tuning: bool = False

    @property
    def kind(self) -> str:
        """The kind of the job."""
        if self.roles:
            return "hetero_job"
        return "federated_pool_job" if self.pool.group else "job"


@dataclass(slots=True)
class Plan:
    """The course of a job without faults: ``left`` seconds of running until its ``fate``.

    ``fate`` is Completed, Failed, Abnormal, or Terminating if its user will stop it. ``no_image``:
    it fails because its image cannot be pulled, before anything runs.
    """

    left: float
    fate: str
    quick: bool
    faults_per_second: float
    no_image: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault and the recovery from it.

    ``refused``: the budget of restarts does not suffice for the recovery, and the job fails.
    """

    scenario: str
    reason: str
    task: str
    exit_code: int
    policy: str
    downgraded_from: str = ""
    refused: bool = False


class Chance:
    """Makes all random decisions with one seeded generator, for the pools that there are."""

    def __init__(self, generator: random.Random, pools: Mapping[str, Pool]) -> None:
        self._random = generator
        self._pools = pools
        self._workloads = [load for load in WORKLOADS if load.pool in pools]
        self._weights = list(itertools.accumulate(load.per_day for load in self._workloads))
        self._quick_pools = [pools[name] for name in _QUICK_POOLS if name in pools]
        self.makes_quick_jobs = bool(self._quick_pools)

    def exponential(self, mean: float) -> float:
        """Return the seconds until the next rare event."""
        return self._random.expovariate(1 / mean)

    def between(self, low: float, high: float) -> float:
        """Return a random value in this range."""
        return self._random.uniform(low, high)

    def happens(self, probability: float) -> bool:
        """Return True with this probability."""
        return self._random.random() < probability

    def one_of(self, nodes: Sequence[Node]) -> Node:
        """Return a random node."""
        return self._random.choice(nodes)

    def serious(self, now: float) -> Request | None:
        """Draw a long job: minutes to days; None: nobody submits one at this time."""
        workload = self._random.choices(self._workloads, cum_weights=self._weights)[0]
        if not self.happens(activity(now + DAY / 2 if workload.nightly else now)):
            return None
        return self._request(workload)

    def crowd(self) -> list[Request]:
        """Draw jobs of which some have to wait, because each needs much of its pool."""
        large = [load for load in self._workloads if load.nightly and load.nodes == (16,)]
        return [self._request(load) for load in large for _ in range(3)]

    def _request(self, workload: Workload) -> Request:
        seconds = self._random.lognormvariate(
            math.log(workload.median_hours * HOUR), workload.spread
        )
        nodes, pool = self._random.choice(workload.nodes), self._pools[workload.pool]
        flavor = workload.flavor
        return Request(
            pool=pool,
            flavor=self._random.randrange(len(pool.flavors)) if flavor is None else flavor,
            nodes=nodes,
            workspace=self._random.choice(workload.workspaces),
            seconds=min(max(seconds, 60.0), 2 * DAY),
            quick=False,
            faults_per_second=nodes / (workload.node_hours_between_faults * HOUR),
            retries=self._random.choice((None, 1, 3, 3, 10)),
            policy=self._policy(pool),
            priority=self._random.choice((1, 1, 1, 2, 3)) if pool.id else None,
            runtime=workload.runtime,
            roles=workload.roles,
            fine_tuning=workload.fine_tuning,
        )

    def quick(self) -> Request:
        """Draw a short trial: seconds to minutes on one card."""
        seconds = min(max(self._random.lognormvariate(math.log(40.0), 0.8), 6.0), 900.0)
        pool = self._random.choice(self._quick_pools)
        return Request(
            pool=pool,
            flavor=0,
            nodes=1,
            workspace=VISION_WORKSPACE if self.happens(0.2) else DEFAULT_WORKSPACE,
            seconds=seconds,
            quick=True,
            faults_per_second=QUICK_FAULTS / seconds,
            retries=self._random.choice((1, 3, 3)),
            policy=self._policy(pool),
            priority=1 if pool.id else None,
        )

    def _policy(self, pool: Pool) -> str:
        return self._random.choice(("regular",) * 3 + ("economic",)) if not pool.id else "regular"

    def plan(self, request: Request) -> Plan:
        """Draw the course of a job; failures tend to come early, stops come at any time."""
        fate = self._random.choices(
            ("Completed", "Failed", "Terminating", "Abnormal"), (79, 13, 7, 1)
        )[0]
        share = 1.0
        if fate != "Completed":
            share = self._random.random() ** (2 if fate == "Failed" else 1)
        left = max(request.seconds * share, 2.0)
        own_image = request.pool.programs == "image"
        no_image = fate == "Failed" and own_image and self.happens(_REFUSED_IMAGES)
        if no_image:
            left = self._random.uniform(5.0, 30.0)
        return Plan(left, fate, request.quick, request.faults_per_second, no_image)

    def startup(self, plan: Plan, nodes: int) -> float:
        """Return the seconds from the start of a run until its cards compute."""
        if plan.quick:
            return self._random.uniform(1.0, 6.0)
        return self._random.uniform(20.0, 60.0) + 8.0 * nodes

    def loses_recovery(self) -> bool:
        """Return whether a recovery does not succeed."""
        return self.happens(_LOST_RECOVERIES)

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
        reason = "device health check failed" if scenario == "chip_fault" else f"exit with {code}"
        return Fault(
            scenario=scenario,
            reason=reason,
            task=self.worker(job),
            exit_code=code,
            policy=policy,
            downgraded_from="" if before == policy else before,
            refused=policy not in FREE_OF_CHARGE and job.restarts_used >= (job.retries or 0),
        )


def _on_gpu(policy: str) -> str:
    return "gpu_proc_restart" if policy.startswith("npu_") else policy


def serious_per_day(pools: Iterable[Pool]) -> float:
    """Return the mean number of long jobs that arrive in these pools."""
    names = {pool.name for pool in pools}
    return sum(load.per_day for load in WORKLOADS if load.pool in names)


def activity(at: float) -> float:
    """Return the activity of users, 0 to 1: office hours in China, less on weekends, never 0."""
    days, seconds = divmod(at + _CHINA_SECONDS, DAY)
    hour = seconds / HOUR
    office = math.exp(-(((hour - 10.5) / 2.5) ** 2)) + math.exp(-(((hour - 16.0) / 3.0) ** 2))
    weekend = (int(days) + 3) % 7 in _WEEKEND  # 1970 began on a Thursday
    return (0.2 + 0.8 * min(office, 1.0)) * (0.6 if weekend else 1.0)


def quick_activity(at: float) -> float:
    """As `activity`, for short jobs, half of which come from schedules around the clock."""
    return (1 + activity(at)) / 2


MEAN_ACTIVITY = sum(activity(hour * HOUR) for hour in range(7 * 24)) / (7 * 24)
MEAN_QUICK_ACTIVITY = (1 + MEAN_ACTIVITY) / 2
