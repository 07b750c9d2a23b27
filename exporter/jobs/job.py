"""The data model of training jobs: flat, frozen, times in seconds, texts of limited length."""

from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple, TypeAlias

import msgspec

PHASES = (
    "Creating",
    "Pending",
    "Running",
    "Terminating",
    "Completed",
    "Failed",
    "Terminated",
    "Abnormal",
)
ACTIVE = frozenset(PHASES[:4])
TERMINAL = frozenset(PHASES[4:])
WAITING = ("Creating", "Pending")
FAILED = ("Failed", "Abnormal")
UNKNOWN_PHASE = "Unknown"
OTHER = "other"
"""Label value for all values beyond ``jobs.max_label_values``."""
START_TYPES = ("init_or_rescheduled", "restarted")
PUBLIC_POOL = "public"

ProblemKind: TypeAlias = Literal["invalid", "unknown"]


class Fault(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A fault of a run, and the recovery from it (``recover_records``).

    Attributes:
        start, end: of the recovery, unix seconds; None = unset.
        scenario: ``fault_scenario``, what failed; "" = unset, or ``unknown``.
        recovery: ``recover``, the policy applied; likewise.
        result: ``recover_result``; likewise. "" and ``recovering`` are not final.
    """

    start: float | None
    end: float | None
    scenario: str
    recovery: str
    result: str


class Run(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One running record of a job. The state file stores it: see `exporter.jobs.tracked`.

    Attributes:
        start, end: unix seconds; None = unset, for example the end of the current run.
        start_type: one of `START_TYPES`, or ``unknown``.
        recovery: ``end_recover``, the policy applied after the run; "" = none, or ``unknown``.
        recovery_before: ``end_recover_before_downgrade``, the policy tried first; likewise.
        reason: why the run ended, for display; at most 200 characters.
        computing: unix seconds at which its cards began to compute (``xpu_start_at``); None =
            unset.
        faults: None = the record does not say; there may still be some.
    """

    start: float | None
    end: float | None
    start_type: str
    recovery: str
    recovery_before: str
    reason: str
    computing: float | None = None
    faults: tuple[Fault, ...] | None = None


class Job(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A training job.

    Attributes:
        phase: one of `PHASES`, or `UNKNOWN_PHASE`.
        pool: pool id, id of a group of pools, or ``public``.
        flavor_type: one of ``CPU``, ``GPU``, ``Ascend``, or ``unknown``.
        flavor: flavor id, or "".
        accelerator: product name, or ``unknown``.
        created, started, ended: unix seconds; None = unset.
        duration: total run time in seconds.
        nodes: nodes requested.
        current_nodes: nodes in use while the job runs, else ``nodes``.
        accelerators: cards of the whole job; None = unknown or none.
        runs: None = the response had no running records; the job may still have some.
        failed_task, exit_code: the first task that failed, once the job has ended; exit_code is
            None if only a message says so.
        message: the message of that task, for display; at most 200 characters.
        cpu_cores: CPU cores of the whole job; None = unknown.
        memory: bytes of memory of the whole job; None = unknown.
        policy: how the resources are paid for, such as ``regular`` or ``economic``, or "".
        algorithm: name of the algorithm, else its id, or "".
        runtime_type: ``production``, ``debug``, ..., or "".
        restart_limit: budget of automatic restarts; None = unset.
        priority: None = unset.
    """

    id: str
    name: str
    user: str
    workspace: str
    kind: str
    phase: str
    pool: str
    pool_name: str
    flavor_type: str
    flavor: str
    accelerator: str
    engine: str
    created: float | None
    started: float | None
    ended: float | None
    duration: float | None
    nodes: int | None
    current_nodes: int | None
    accelerators: int | None
    runs: tuple[Run, ...] | None
    failed_task: str
    exit_code: int | None
    message: str
    cpu_cores: float | None = None
    memory: float | None = None
    policy: str = ""
    algorithm: str = ""
    runtime_type: str = ""
    restart_limit: int | None = None
    priority: int | None = None


class Problem(msgspec.Struct, frozen=True):
    """An unusable or undocumented field of a job; at most one per job and field of a response.

    Attributes:
        field: path in the response (``invalid``), or the label that shows ``unknown``.
        value: the undocumented value, short and printable; "" for ``invalid``.
        kind: ``invalid`` = the field cannot be used, ``unknown`` = its value is not documented.
    """

    job_id: str
    field: str
    value: str
    kind: ProblemKind


class JobPage(msgspec.Struct):
    """The decoded jobs of one response.

    Attributes:
        undecodable: ``#`` and a hash for every item without a usable id.
        without_phase: ids of jobs without a usable phase.
        total, count: as reported by the service; unreliable.
        size: number of items in the response, undecodable ones included.
    """

    jobs: list[Job]
    undecodable: list[str]
    without_phase: list[str]
    problems: list[Problem]
    total: int | None
    count: int | None
    size: int


class View(NamedTuple):
    """The result of one poll of a target, complete for its purpose.

    Attributes:
        jobs: by id, each as last read; not necessarily every job that the target lists.
        deleted: ids of jobs that no longer exist, as confirmed by the service.
        newest_created: by workspace, create time (unix seconds) of the newest job listed; -inf if
            none is. Every newer job that existed is in ``jobs`` or already known.
        totals: by workspace, the number of listed jobs as reported by the service, by field name;
            unreliable.
        undecodable: ``#`` and a hash for every item without a usable id.
        without_phase: ids of jobs that were listed without a usable phase.
        problems: unusable or undocumented fields of the jobs.
        unresolved: ids of jobs that were looked for without finding out whether they exist.
        pool_names: by pool id, for pools that have one; None = not requested or not received.
        requests: number of requests sent.
        read: number of jobs read; more than there are in ``jobs`` if some of them were saved
            meanwhile, or have not changed.
        pool_types: by pool id, the flavor type of its nodes, where it is known; None likewise.
        unified: by workspace, whether its whole list was read with fine-tuning jobs.
        hidden: ids of jobs that existed before, but only fine-tuning searches show them.
        forgotten: ids of jobs that are no longer looked for; nothing is known about them.
        verification: as in `exporter.jobs.fleet.Fleet`; of the workspaces that were verified.
    """

    jobs: dict[str, Job]
    deleted: frozenset[str] = frozenset()
    newest_created: Mapping[str, float] = {}
    totals: Mapping[str, Mapping[str, int | None]] = {}
    undecodable: frozenset[str] = frozenset()
    without_phase: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()
    unresolved: frozenset[str] = frozenset()
    pool_names: Mapping[str, str] | None = None
    requests: int = 0
    read: int = 0
    pool_types: Mapping[str, str] | None = None
    unified: Mapping[str, bool] = {}
    hidden: frozenset[str] = frozenset()
    forgotten: frozenset[str] = frozenset()
    verification: Mapping[str, bytes] = {}

    def without(self, ids: Collection[str]) -> "View":
        """Return the view with some jobs left out."""
        if not ids:
            return self
        return self._replace(
            jobs={job_id: job for job_id, job in self.jobs.items() if job_id not in ids},
            deleted=self.deleted.difference(ids),
            forgotten=self.forgotten.difference(ids),
        )
