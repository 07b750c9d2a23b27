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

SECONDARY = {"Pending": "Queuing", "Abnormal": "Unknown"}
"""Usual secondary phases that differ from the phase."""


@dataclass(slots=True)
class Run:
    """A run of the job's processes; ``recovery`` is the policy that followed its end."""

    start: float
    start_type: str
    end: float | None = None
    reason: str = ""
    task: str = ""
    recovery: str = ""
    recovery_before: str = ""
    scenario: str = ""


@dataclass(slots=True, eq=False)
class Job:
    """The complete state of a job; changed only by `Fleet`.

    ``nodes_up`` is the number of nodes in use now. ``overrides`` are edits of its document by
    tests; they do not affect the world and its truth.
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
    phase: str = "Creating"
    secondary: str = "Creating"
    started: float | None = None
    ended: float | None = None
    nodes_up: int = 0
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
            return sum(role.flavor.cards for role in self.roles) * self.nodes
        return self.flavor.cards * self.nodes

    @property
    def units(self) -> int:
        """The part of its pool's capacity that it uses."""
        return self.cards or self.nodes

    @property
    def accelerator(self) -> str:
        """Product name, or ``unknown`` if its document does not have it."""
        return self.pool.product

    @property
    def base(self) -> tuple[str, str, str]:
        """Workspace, pool, flavor type: the labels that fleet metrics share."""
        return self.workspace, self.pool.label, self.pool.flavor_type

    def running_seconds(self, now: float) -> float:
        """Return the run time so far, without the gaps between runs."""
        return sum(max((now if run.end is None else run.end) - run.start, 0.0) for run in self.runs)

    def workers(self) -> list[str]:
        """Return the names of its tasks: ``worker-0`` … or, if heterogeneous, ``learner-0`` …."""
        if self.roles:
            return [f"{role.name}-{node}" for role in self.roles for node in range(self.nodes)]
        return [f"worker-{node}" for node in range(self.nodes)]
