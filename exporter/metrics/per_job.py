"""The series of single jobs: active ones, and those that ended recently."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from exporter.jobs.fleet import Change, Fleet
from exporter.jobs.job import WAITING, Job
from exporter.jobs.tracked import Event, Restart, TrackedJob
from exporter.metrics.counters import SeriesKey
from exporter.metrics.exposition import Metric, SampleBlock
from exporter.settings.schema import JobsSettings

Samples: TypeAlias = list[tuple[tuple[str, ...], float]]
IsHeld: TypeAlias = Callable[[SeriesKey], bool]
"""Whether a counter is held at zero."""


class SampleContext(NamedTuple):
    """What samples depend on besides the job.

    Attributes:
        is_held: which counters are held at zero.
        pool_names: by pool ID.
        queue_positions: by job ID, as last read; some of these jobs may have started since.
    """

    is_held: IsHeld
    pool_names: Mapping[str, str]
    queue_positions: Mapping[str, int]


class JobFamily(NamedTuple):
    """A family with samples for single jobs; ``labels`` are those in addition to ``job_id``."""

    metric: Metric
    labels: tuple[str, ...]
    samples: Callable[[Sequence[TrackedJob], SampleContext], Samples]


def _gauge(name: str, text: str, value: Callable[[Job], float | None]) -> JobFamily:
    """A gauge of one number of a job; None gives no sample."""

    def samples(jobs: Sequence[TrackedJob], _context: SampleContext) -> Samples:
        return [
            ((known.job.id,), number) for known in jobs if (number := value(known.job)) is not None
        ]

    return JobFamily(Metric(f"modelarts_training_job_{name}", "gauge", text), (), samples)


def _info(jobs: Sequence[TrackedJob], context: SampleContext) -> Samples:
    return [
        (
            (
                job.id, job.name, job.user, job.workspace, job.pool,
                job.pool_name or context.pool_names.get(job.pool, ""),
                job.flavor_type, job.flavor, job.accelerator, job.engine, job.kind, job.policy,
                job.algorithm, job.runtime_type,
            ),
            1,
        )
        for job in (known.job for known in jobs)
    ]  # fmt: skip


def _phase(jobs: Sequence[TrackedJob], _context: SampleContext) -> Samples:
    return [((known.job.id, known.job.phase), 1) for known in jobs]


def _queue_positions(jobs: Sequence[TrackedJob], context: SampleContext) -> Samples:
    positions = context.queue_positions
    return [
        ((known.job.id,), positions[known.job.id])
        for known in jobs
        if known.job.id in positions and known.job.phase in WAITING
    ]


def _restarts(jobs: Sequence[TrackedJob], context: SampleContext) -> Samples:
    return [
        (labels, 0 if context.is_held((RESTARTS.name, labels)) else number)
        for known in jobs
        if known.restarts
        for restart, number in Counter(known.restarts).items()
        for labels in [(known.job.id, *restart)]
    ]


def _exit_code(jobs: Sequence[TrackedJob], _context: SampleContext) -> Samples:
    return [
        ((job.id, job.failed_task), job.exit_code)
        for job in (known.job for known in jobs)
        if job.exit_code is not None
    ]


_INFO_LABELS = (
    "job_name", "user", "workspace", "pool", "pool_name", "flavor_type", "flavor", "accelerator",
    "engine", "kind", "policy", "algorithm", "runtime_type",
)  # fmt: skip

RESTARTS = Metric(
    "modelarts_training_job_restarts_total",
    "counter",
    "Runs of a training job after the first (status.running_records), by start_type and by "
    "end_recover of the previous run.",
)

RESTART_LABELS = ("job_id", "start_type", "recovery")

JOB_FAMILIES = (
    JobFamily(
        Metric(
            "modelarts_training_job_info",
            "gauge",
            "Properties of a training job as labels, for joins on job_id; always 1.",
        ),
        _INFO_LABELS,
        _info,
    ),
    JobFamily(
        Metric(
            "modelarts_training_job_phase",
            "gauge",
            "Current phase of a training job (status.phase) as a label; always 1.",
        ),
        ("phase",),
        _phase,
    ),
    _gauge(
        "created_timestamp_seconds",
        "Creation time of a training job (metadata.create_time), in unix seconds.",
        lambda job: job.created,
    ),
    _gauge(
        "start_timestamp_seconds",
        "First start of a training job (status.start_time), in unix seconds; absent before.",
        lambda job: job.started,
    ),
    _gauge(
        "end_timestamp_seconds",
        "End of a finished training job, in unix seconds: end_at of its last running record, or "
        "recover_end_at of a recovery tried after it; without them status.start_time plus "
        "status.duration; absent before, and if it never started.",
        lambda job: job.ended,
    ),
    _gauge(
        "duration_seconds",
        "How long a training job has run so far (status.duration), in seconds.",
        lambda job: job.duration,
    ),
    _gauge(
        "nodes",
        "Nodes of a training job: last point of status.node_count_metrics while it runs, "
        "otherwise spec.resource.node_count.",
        lambda job: job.current_nodes,
    ),
    _gauge(
        "nodes_requested",
        "Nodes requested by a training job (spec.resource.node_count); more than "
        "modelarts_training_job_nodes if it has lost some.",
        lambda job: job.nodes,
    ),
    _gauge(
        "accelerators",
        "Cards (NPUs, GPUs) of a training job: cards per node times nodes; absent if unknown.",
        lambda job: job.accelerators,
    ),
    _gauge(
        "cpu_cores",
        "CPU cores of a training job: cores per node times nodes; absent if unknown.",
        lambda job: job.cpu_cores,
    ),
    _gauge(
        "memory_bytes",
        "Memory of a training job: memory per node times nodes, in bytes; absent if unknown.",
        lambda job: job.memory,
    ),
    _gauge(
        "restart_limit",
        "Budget of automatic restarts of a training job (annotation fault-tolerance/job-retry-num);"
        " absent if unset.",
        lambda job: job.restart_limit,
    ),
    _gauge(
        "priority",
        "Priority of a training job (spec.schedule_policy.priority); absent if unset.",
        lambda job: job.priority,
    ),
    JobFamily(
        Metric(
            "modelarts_training_job_queue_position",
            "gauge",
            "Place of a waiting training job in the queue of its dedicated pool (pendingPosition "
            "in the workloads of the pool); absent without the permission modelarts:pool:get.",
        ),
        (),
        _queue_positions,
    ),
    JobFamily(
        RESTARTS,
        RESTART_LABELS[1:],
        _restarts,
    ),
    JobFamily(
        Metric(
            "modelarts_training_job_exit_code",
            "gauge",
            "Exit code of the first failed task of a training job (status.task_statuses); absent "
            "until the job has ended.",
        ),
        ("task",),
        _exit_code,
    ),
)


def job_blocks(
    fleet: Fleet,
    constant: Mapping[str, str],
    *,
    jobs: JobsSettings,
    is_held: IsHeld,
    queue_positions: Mapping[str, int] | None = None,
) -> tuple[list[SampleBlock], int]:
    """The per-job series of one target, and how many jobs have none because of the cap.

    Args:
        fleet: its jobs.
        constant: the target's labels.
        jobs: which of them have series.
        is_held: which counters are held at zero.
        queue_positions: places in the queues of pools, by job ID.
    """
    if not jobs.per_job:
        return [], 0
    shown = sorted(
        (*fleet.open.values(), *fleet.recent.values()),
        key=lambda known: (known.job.created or 0.0, known.job.id),
        reverse=True,
    )
    selected = shown[: jobs.max_series_jobs]
    context = SampleContext(is_held, fleet.pool_names, queue_positions or {})
    blocks = [
        SampleBlock(
            family.metric, ("job_id", *family.labels), constant, family.samples(selected, context)
        )
        for family in JOB_FAMILIES
    ]
    return blocks, len(shown) - len(selected)


def new_restarts(changes: Mapping[str, Change], events: Iterable[Event]) -> set[SeriesKey]:
    """The restart counters of single jobs that start with these events.

    Args:
        changes: the jobs before and after.
        events: what has happened to them.
    """
    return {
        (RESTARTS.name, (event.job_id, *event.labels))
        for event in events
        if event.kind == "restarted"
        and (
            (before := changes[event.job_id].before) is None
            or Restart(*event.labels) not in before.restarts
        )
    }
