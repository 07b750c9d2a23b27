"""Which jobs the metrics are about."""

from dataclasses import dataclass

from exporter.jobs.tracker import TrackedJob


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


def ended_within(known: TrackedJob, span: float, now: float) -> bool:
    """Whether a finished job ended at most ``span`` seconds ago; ``now`` in unix seconds."""
    return known.ended is not None and known.ended >= now - span
