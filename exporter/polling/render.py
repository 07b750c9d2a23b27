"""The gauges and per-job series of one target, rendered."""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, TypeAlias

from exporter.jobs.fleet import Fleet
from exporter.jobs.pool import PoolSnapshot
from exporter.jobs.tracked import Base, NameUser
from exporter.metrics.counters import SeriesKey
from exporter.metrics.exposition import FamilyLines, render_block
from exporter.metrics.fleet import bases_with_jobs, fleet_blocks
from exporter.metrics.per_job import job_blocks
from exporter.settings.schema import JobsSettings

Rendered: TypeAlias = Mapping[str, FamilyLines]
"""Series of a target, by family."""

IsHeld: TypeAlias = Callable[[SeriesKey], bool]
"""Whether a counter is held at zero."""


class RenderedGauges(NamedTuple):
    """The gauges and per-job series of a target.

    Attributes:
        lines: by family.
        without_series: number of jobs without series of their own.
        bases: those in which a job counts.
    """

    lines: Mapping[str, FamilyLines] = {}
    without_series: int = 0
    bases: frozenset[Base] = frozenset()


def render_gauges(
    fleet: Fleet,
    labels: Mapping[str, str],
    jobs: JobsSettings,
    is_held: IsHeld,
    *,
    idle: Collection[Base] = (),
    pools: PoolSnapshot | None = None,
    name_user: NameUser | None = None,
) -> RenderedGauges:
    """Render the gauges of the fleet and the series of single jobs.

    Args:
        fleet: the target's jobs.
        labels: of all its series.
        jobs: which jobs have series.
        is_held: which counters of single jobs show zero.
        idle: bases that have gauges only while a job counts in them.
        pools: their labels, and the places of jobs in their queues.
        name_user: under which name a user counts; None = there are no series by user.
    """
    pools = pools or PoolSnapshot()
    per_job, without = job_blocks(
        fleet, labels, jobs=jobs, is_held=is_held, queue_positions=pools.positions
    )
    infos = pools.infos(fleet.pool_names)
    gauges = fleet_blocks(fleet, labels, idle=idle, pool_infos=infos, name_user=name_user)
    blocks = gauges + per_job
    lines = {block.metric.name: render_block(block) for block in blocks}
    return RenderedGauges(lines, without, bases_with_jobs(blocks[0]))
