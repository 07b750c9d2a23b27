"""Training jobs as the exporter knows them: flat, frozen, in seconds, with bounded texts."""

from typing import NamedTuple

import msgspec

from exporter.model.values import Kind

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
UNKNOWN_PHASE = "Unknown"
START_TYPES = ("init_or_rescheduled", "restarted")


class Run(msgspec.Struct, frozen=True, gc=False):
    """One running record of a job.

    Attributes:
        start, end: unix seconds; None = unset, such as the end of a run that goes on.
        start_type: as documented, or ``unknown``.
        recovery: ``end_recover``, the policy that followed the run; "" = none, or ``unknown``.
        recovery_before: the policy that was tried before that one, likewise.
        reason: why it ended, for people; at most 200 characters.
    """

    start: float | None
    end: float | None
    start_type: str
    recovery: str
    recovery_before: str
    reason: str


class Job(msgspec.Struct, frozen=True, gc=False):
    """A training job.

    Attributes:
        phase: one of `PHASES`, or `UNKNOWN_PHASE`.
        pool: pool id, or ``public``.
        flavor_type: one of ``CPU``, ``GPU``, ``Ascend``, or ``unknown``.
        flavor: flavor id, or "".
        accelerator: product name, or ``unknown``.
        created, started, ended: unix seconds; None = unset.
        duration: seconds it has run.
        nodes: as requested.
        current_nodes: at work now, while the job runs; else as requested.
        accelerators: cards of the whole job; None = unknown, or it has none.
        runs: None = the answer had no running records, which does not mean that there are none.
        failed_task, exit_code: the first task that ended with another exit code than 0.
        message: what that task said, for people; at most 200 characters.
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


class Problem(msgspec.Struct, frozen=True):
    """Something odd about a job, reported once for each job and field of an answer.

    Attributes:
        field: path in the answer (``invalid``), or the label that shows ``unknown``.
        value: what came instead of a documented value, short and printable; "" for ``invalid``.
        kind: ``invalid`` = the field cannot be used, ``unknown`` = its value is not documented.
    """

    job_id: str
    field: str
    value: str
    kind: Kind


class Page(msgspec.Struct):
    """What an answer holds.

    Attributes:
        broken: ``#`` and a hash for every item without a usable id.
        total, count: as the service says; not to be trusted.
        size: items in the answer, undecodable ones too.
    """

    jobs: list[Job]
    broken: list[str]
    problems: list[Problem]
    total: int | None
    count: int | None
    size: int


class View(NamedTuple):
    """What a target lists, complete as of one poll.

    Attributes:
        jobs: by id.
        broken: ``#`` and a hash for every item without a usable id.
        problems: unusable or undocumented fields of the jobs.
        pages: search requests it took.
    """

    jobs: dict[str, Job]
    broken: frozenset[str]
    problems: tuple[Problem, ...]
    pages: int
