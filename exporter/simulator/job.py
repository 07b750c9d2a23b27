"""The state of a training job in the world; times are unix seconds with milliseconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from exporter.simulator.catalog import Flavor, Pool, Role, User
from exporter.simulator.edits import Path
from exporter.simulator.recipes import Recipe

ACTIVE = ("Creating", "Pending", "Running", "Terminating")
TERMINAL = ("Completed", "Failed", "Terminated", "Abnormal")
PHASES = ACTIVE + TERMINAL

FIRST = "init_or_rescheduled"
RESTARTED = "restarted"
IN_PLACE = ("npu_step_retry", "npu_proc_restart", "gpu_proc_restart", "proc_restart")
"""Recoveries that keep the containers: the next run is `RESTARTED`."""
RESCHEDULING = ("pod_reschedule", "job_reschedule", "job_reschedule_with_taint")
FREE_OF_CHARGE = ("npu_step_retry", "npu_proc_restart", "gpu_proc_restart")
"""Recoveries that do not count against the budget of restarts."""

_GB = 2**30

SECONDARY = {"Pending": "Queuing", "Abnormal": "Unknown"}
"""Usual secondary phases that differ from the phase."""


SETTLED = ("success", "failed", "downgrade", "terminated", "quotaExceeded")
"""Results of a recovery that are final; ``recovering`` is not."""


@dataclass(slots=True)
class Recovery:
    """A fault and the recovery tried: an entry of ``recover_records``."""

    policy: str
    scenario: str
    reason: str
    task: str
    start: float
    end: float | None = None
    result: str = "recovering"


@dataclass(slots=True)
class Run:
    """A run of the job's processes.

    Attributes:
        recovery: the policy that followed its end.
        computing: when its cards began to compute; None: not yet, or no cards.
        recoveries: in order; all but the last were given up for another.
    """

    start: float
    start_type: str
    end: float | None = None
    reason: str = ""
    task: str = ""
    recovery: str = ""
    recovery_before: str = ""
    computing: float | None = None
    recoveries: list[Recovery] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Job:
    """The complete state of a job; changed only by `Fleet`.

    Attributes:
        nodes: requested, of all tasks together.
        nodes_up: in use now.
        node_changes: times and numbers of nodes in use from then on.
        retries: budget of automatic restarts.
        policy: of its resources: ``regular``, ``economic`` …
        runtime: ``debug`` or ``production``.
        priority: 0 to 3; None: not given.
        fine_tuning: listed only by searches with ``unified_jobs``.
        exit_code: of the failed task; None if none failed, or it has a message alone.
        overrides: edits of its document by tests; they do not affect the world and its truth.
    """

    id: str
    name: str
    user: User
    workspace: str
    kind: str
    pool: Pool
    flavor: Flavor
    nodes: int
    roles: tuple[Role, ...]
    recipe: Recipe
    retries: int | None
    created: float
    policy: str = "regular"
    runtime: str = "production"
    priority: int | None = None
    fine_tuning: bool = False
    phase: str = "Creating"
    secondary: str = "Creating"
    started: float | None = None
    ended: float | None = None
    nodes_up: int = 0
    node_changes: list[tuple[float, int]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    failed_task: str = ""
    exit_code: int | None = None
    message: str = ""
    overrides: Mapping[Path, Any] | None = None

    @property
    def created_ms(self) -> int:
        """Create time in ms, as shown by the service."""
        return round(self.created * 1000)

    @property
    def active(self) -> bool:
        """Whether the job has not ended; True for undocumented phases, too."""
        return self.phase not in TERMINAL

    @property
    def cards(self) -> int:
        """Cards of the whole job, 0 on CPUs."""
        if self.roles:
            return sum(role.flavor.cards * role.nodes for role in self.roles)
        return self.flavor.cards * self.nodes

    @property
    def cpu_cores(self) -> int | None:
        """CPU cores of the whole job; None if no field of its document has them."""
        if self.roles:
            return sum(role.flavor.cpu_cores * role.nodes for role in self.roles)
        return None if self.pool.tells == "flavor_id" else self.flavor.cpu_cores * self.nodes

    @property
    def memory_bytes(self) -> int | None:
        """Memory of the whole job; None if no field of its document has it."""
        if self.roles:
            return _GB * sum(role.flavor.memory_gb * role.nodes for role in self.roles)
        if self.pool.tells == "flavor_id":
            return None
        return _GB * self.flavor.memory_gb * self.nodes

    @property
    def units(self) -> int:
        """The part of its pool's capacity that it uses."""
        return self.cards or self.nodes

    @property
    def holds_cards(self) -> bool:
        """Whether the job uses cards: from its start until it has ended or waits again."""
        return self.phase == "Running" or (self.phase == "Terminating" and self.nodes_up > 0)

    @property
    def accelerator(self) -> str:
        """Product name, or ``unknown`` if its document does not have it, or not yet."""
        if self.pool.tells == "allocated" and self.started is None:
            return "unknown"
        return self.pool.product

    @property
    def base(self) -> tuple[str, str, str]:
        """Workspace, pool, flavor type: the labels that fleet metrics share."""
        return self.workspace, self.pool.label, self.pool.flavor_type

    @property
    def restarts_used(self) -> int:
        """Restarts that count against the budget."""
        return sum(run.recovery not in ("", *FREE_OF_CHARGE) for run in self.runs)

    @property
    def open_recovery(self) -> Recovery | None:
        """The recovery that has no final result yet."""
        last = self.runs[-1].recoveries[-1:] if self.runs else []
        return last[0] if last and last[0].result not in SETTLED else None

    def running_seconds(self, now: float) -> float:
        """Return the run time so far, without the gaps between runs."""
        return sum(max((now if run.end is None else run.end) - run.start, 0.0) for run in self.runs)

    def workers(self) -> list[str]:
        """Return the names of its tasks: ``worker-0`` … or, if heterogeneous, ``learner-0`` …."""
        if self.roles:
            return [f"{role.name}-{node}" for role in self.roles for node in range(role.nodes)]
        return [f"worker-{node}" for node in range(self.nodes)]
