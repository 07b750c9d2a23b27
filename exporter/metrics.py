"""What a target's jobs look like as metrics: one declarative row per family.

`fleet_blocks` and `job_blocks` turn a `Fleet` into blocks of samples. Names, help texts and labels
stand in the tables here and nowhere else. Values are in base units; what is unset has no sample.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from exporter.exposition import Block, Metric
from exporter.model.job import ACTIVE, PHASES, TERMINAL, Job
from exporter.tracker import Base, Fleet

ACTIVE_PHASES = tuple(phase for phase in PHASES if phase in ACTIVE)
WAITING = frozenset({"Creating", "Pending"})

_BASE = ("workspace", "pool", "flavor_type")

LabelValues: TypeAlias = tuple[str, ...]
Samples: TypeAlias = list[tuple[LabelValues, float]]


@dataclass(frozen=True)
class Scope:
    """Which jobs the metrics are about.

    Attributes:
        history: seconds that finished jobs are counted in the fleet gauges; 0 = all.
        retention: seconds that a finished job keeps its own series.
        per_job: whether jobs have series of their own at all.
        max_series_jobs: how many jobs may have series of their own; the newest keep theirs.
    """

    history: float = 0
    retention: float = 3600
    per_job: bool = True
    max_series_jobs: int = 10_000


# --- Fleet: sums over jobs ------------------------------------------------------------------------


class Totals(NamedTuple):
    """Sums over the jobs in scope, for the rows of `FLEET`."""

    jobs: Mapping[LabelValues, int]
    nodes: Mapping[LabelValues, int]
    accelerators: Mapping[LabelValues, int]
    oldest_pending: Mapping[LabelValues, float]
    pools: Mapping[LabelValues, int]


class FleetRow(NamedTuple):
    """A family with one sample for each label set of a field of `Totals`."""

    metric: Metric
    labels: tuple[str, ...]
    source: str


FLEET = (
    FleetRow(
        Metric(
            "modelarts_training_jobs",
            "gauge",
            "Training jobs that the service lists now, by status.phase; finished jobs within "
            "jobs.history.",
        ),
        (*_BASE, "phase"),
        "jobs",
    ),
    FleetRow(
        Metric(
            "modelarts_training_nodes",
            "gauge",
            "Nodes requested by unfinished training jobs: sum of spec.resource.node_count.",
        ),
        (*_BASE, "phase"),
        "nodes",
    ),
    FleetRow(
        Metric(
            "modelarts_training_accelerators",
            "gauge",
            "Cards (NPUs, GPUs) requested by unfinished training jobs: cards per node times "
            "nodes; jobs whose number of cards is unknown are left out.",
        ),
        (*_BASE, "phase", "accelerator"),
        "accelerators",
    ),
    FleetRow(
        Metric(
            "modelarts_training_oldest_pending_timestamp_seconds",
            "gauge",
            "When the oldest training job in Creating or Pending was created "
            "(metadata.create_time), in unix seconds; absent when none waits.",
        ),
        _BASE,
        "oldest_pending",
    ),
    FleetRow(
        Metric(
            "modelarts_training_pool_info",
            "gauge",
            "Names of resource pools, for joins on the label pool; always 1 "
            "(spec.resource.pool_id and pool_name).",
        ),
        ("pool", "pool_name"),
        "pools",
    ),
)


def fleet_blocks(
    fleet: Fleet, constant: Mapping[str, str], *, scope: Scope, now: float
) -> list[Block]:
    """The fleet gauges of one target.

    Args:
        fleet: what is known of its jobs.
        constant: the target's labels.
        scope: which jobs count.
        now: unix seconds.
    """
    totals = _totals(fleet, scope, now)
    return [
        Block(row.metric, row.labels, constant, list(getattr(totals, row.source).items()))
        for row in FLEET
    ]


def _totals(fleet: Fleet, scope: Scope, now: float) -> Totals:
    jobs, nodes, accelerators = _zeros(fleet)
    oldest: dict[LabelValues, float] = {}
    pool_names: dict[str, tuple[float, str]] = {}
    for job in fleet.jobs.values():
        base = Base(job.workspace, job.pool, job.flavor_type)
        if job.pool_name:
            newest = (job.created or 0.0, job.pool_name)
            pool_names[job.pool] = max(pool_names.get(job.pool, newest), newest)
        if (
            scope.history
            and job.phase in TERMINAL
            and not _ended_within(fleet, job, scope.history, now)
        ):
            continue
        jobs[(*base, job.phase)] += 1
        if job.phase not in ACTIVE:
            continue
        if job.nodes is not None:
            nodes[(*base, job.phase)] += job.nodes
        if job.accelerators is not None:
            accelerators[(*base, job.phase, job.accelerator)] += job.accelerators
        if job.phase in WAITING and job.created is not None:
            oldest[base] = min(oldest.get(base, job.created), job.created)
    pools: dict[LabelValues, int] = {
        (pool, name): 1 for pool, (_, name) in sorted(pool_names.items())
    }
    return Totals(jobs, nodes, accelerators, oldest, pools)


def _zeros(fleet: Fleet) -> tuple[Counter[LabelValues], ...]:
    """Every phase of every base combination ever seen, so that a missing series is no question."""
    jobs: Counter[LabelValues] = Counter()
    nodes: Counter[LabelValues] = Counter()
    accelerators: Counter[LabelValues] = Counter()
    for base, names in sorted(fleet.accelerators.items()):
        jobs.update({(*base, phase): 0 for phase in PHASES})
        nodes.update({(*base, phase): 0 for phase in ACTIVE_PHASES})
        accelerators.update(
            {(*base, phase, name): 0 for phase in ACTIVE_PHASES for name in sorted(names)}
        )
    return jobs, nodes, accelerators


def _ended_within(fleet: Fleet, job: Job, span: float, now: float) -> bool:
    """Whether a finished job ended at most ``span`` seconds ago."""
    end = fleet.ended(job)
    return end is not None and end >= now - span


# --- Jobs: one sample each ------------------------------------------------------------------------


class JobRow(NamedTuple):
    """A family with samples for single jobs, in addition to the label ``job_id`` those named."""

    metric: Metric
    labels: tuple[str, ...]
    samples: Callable[[Fleet, Sequence[Job]], Samples]


def _gauge(name: str, text: str, value: Callable[[Job], float | None]) -> JobRow:
    """A gauge of one number of the job; None gives no sample."""

    def samples(_fleet: Fleet, jobs: Sequence[Job]) -> Samples:
        return [((job.id,), number) for job in jobs if (number := value(job)) is not None]

    return JobRow(Metric(f"modelarts_training_job_{name}", "gauge", text), (), samples)


def _info(_fleet: Fleet, jobs: Sequence[Job]) -> Samples:
    return [
        (
            (
                job.id,
                job.name,
                job.user,
                job.workspace,
                job.pool,
                job.pool_name,
                job.flavor_type,
                job.flavor,
                job.accelerator,
                job.engine,
                job.kind,
            ),
            1,
        )
        for job in jobs
    ]


def _phase(_fleet: Fleet, jobs: Sequence[Job]) -> Samples:
    return [((job.id, job.phase), 1) for job in jobs]


def _restarts(fleet: Fleet, jobs: Sequence[Job]) -> Samples:
    return [
        ((job.id, *restart), number)
        for job in jobs
        if job.id in fleet.restarts
        for restart, number in Counter(fleet.restarts[job.id]).items()
    ]


def _exit_code(_fleet: Fleet, jobs: Sequence[Job]) -> Samples:
    return [((job.id, job.failed_task), job.exit_code) for job in jobs if job.exit_code is not None]


JOB = (
    JobRow(
        Metric(
            "modelarts_training_job_info",
            "gauge",
            "What a training job is, for joins on job_id; always 1.",
        ),
        (
            "job_name",
            "user",
            "workspace",
            "pool",
            "pool_name",
            "flavor_type",
            "flavor",
            "accelerator",
            "engine",
            "kind",
        ),
        _info,
    ),
    JobRow(
        Metric(
            "modelarts_training_job_phase",
            "gauge",
            "The current phase of a training job (status.phase); always 1.",
        ),
        ("phase",),
        _phase,
    ),
    _gauge(
        "created_timestamp_seconds",
        "When a training job was created (metadata.create_time), in unix seconds.",
        lambda job: job.created,
    ),
    _gauge(
        "start_timestamp_seconds",
        "When a training job first started (status.start_time), in unix seconds; absent before.",
        lambda job: job.started,
    ),
    _gauge(
        "end_timestamp_seconds",
        "When a finished training job ended, in unix seconds: end_at of its last running record, "
        "else status.start_time plus status.duration; absent before, and if it never started.",
        lambda job: job.ended,
    ),
    _gauge(
        "duration_seconds",
        "How long a training job has run so far (status.duration), in seconds.",
        lambda job: job.duration,
    ),
    _gauge(
        "nodes",
        "Nodes of a training job: last point of status.node_count_metrics while it runs, else "
        "spec.resource.node_count.",
        lambda job: job.current_nodes,
    ),
    _gauge(
        "accelerators",
        "Cards (NPUs, GPUs) of a training job: cards per node times nodes; absent when unknown.",
        lambda job: job.accelerators,
    ),
    JobRow(
        Metric(
            "modelarts_training_job_restarts_total",
            "counter",
            "Runs of a training job after its first (status.running_records), by start_type and "
            "by end_recover of the run before.",
        ),
        ("start_type", "recovery"),
        _restarts,
    ),
    JobRow(
        Metric(
            "modelarts_training_job_exit_code",
            "gauge",
            "Exit code of the first task of a training job that failed (status.task_statuses).",
        ),
        ("task",),
        _exit_code,
    ),
)


def job_blocks(
    fleet: Fleet, constant: Mapping[str, str], *, scope: Scope, now: float
) -> tuple[list[Block], int]:
    """The per-job series of one target, and how many jobs have none because of the cap.

    Args:
        fleet: what is known of its jobs.
        constant: the target's labels.
        scope: which jobs have series.
        now: unix seconds.
    """
    if not scope.per_job:
        return [], 0
    jobs = [
        job
        for job in fleet.jobs.values()
        if job.phase not in TERMINAL or _ended_within(fleet, job, scope.retention, now)
    ]
    jobs.sort(key=lambda job: (job.created or 0.0, job.id), reverse=True)
    shown = jobs[: scope.max_series_jobs]
    blocks = [
        Block(row.metric, ("job_id", *row.labels), constant, row.samples(fleet, shown))
        for row in JOB
    ]
    return blocks, len(jobs) - len(shown)
