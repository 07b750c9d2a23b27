"""Training jobs as the exporter knows them: flat, frozen, in seconds, with bounded texts."""

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
UNKNOWN_PHASE = "Unknown"
START_TYPES = ("init_or_rescheduled", "restarted")

ProblemKind: TypeAlias = Literal["invalid", "unknown"]


class Run(msgspec.Struct, frozen=True, gc=False, array_like=True):
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


class Job(msgspec.Struct, frozen=True, gc=False, array_like=True):
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
    kind: ProblemKind


class JobPage(msgspec.Struct):
    """What an answer holds.

    Attributes:
        broken: ids (or ``#`` and a hash) of items that could not be decoded at all.
        vague: ids of jobs without a usable phase.
        total, count: as the service says; not to be trusted.
        size: items in the answer, undecodable ones too.
    """

    jobs: list[Job]
    broken: list[str]
    vague: list[str]
    problems: list[Problem]
    total: int | None
    count: int | None
    size: int


class View(NamedTuple):
    """What a poll has read of a target, complete for its purpose.

    Attributes:
        jobs: by id, each as it was read last; not necessarily all that the target lists.
        gone: ids of jobs that, as the service confirmed, are not there any more.
        horizons: by workspace, create time (unix seconds) of the newest job listed; -inf if it
            lists none. Every job that is newer and was there is among ``jobs``, or known.
        totals: by workspace, what the service says how many jobs it lists, by the field's name;
            not to be trusted.
        broken: ``#`` and a hash for every item without a usable id.
        vague: ids of jobs that were listed without a usable phase.
        problems: unusable or undocumented fields of the jobs.
        undecided: ids of jobs that were looked for, and of which nothing could be found out.
        pools: names by pool id, as far as pools have one; None = not asked for, or not told.
        requests: so many it took.
    """

    jobs: dict[str, Job]
    gone: frozenset[str] = frozenset()
    horizons: Mapping[str, float] = {}
    totals: Mapping[str, Mapping[str, int | None]] = {}
    broken: frozenset[str] = frozenset()
    vague: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()
    undecided: frozenset[str] = frozenset()
    pools: Mapping[str, str] | None = None
    requests: int = 0

    def without(self, ids: Collection[str]) -> "View":
        """The same, not mentioning some jobs."""
        jobs = {job_id: job for job_id, job in self.jobs.items() if job_id not in ids}
        return self._replace(jobs=jobs, gone=self.gone.difference(ids)) if ids else self
