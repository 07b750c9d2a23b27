"""The series of one target, rendered beside the event loop."""

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from exporter.jobs.tracker import Fleet
from exporter.metrics.counter_lines import LineCache, counter_lines
from exporter.metrics.counters import Ledger, SeriesKey
from exporter.metrics.exposition import FamilyLines, render_block
from exporter.metrics.fleet import fleet_blocks
from exporter.metrics.per_job import job_blocks
from exporter.settings.schema import JobsSettings

Rendered: TypeAlias = Mapping[str, FamilyLines]
"""Series of a target, by family."""

IsHeld: TypeAlias = Callable[[SeriesKey], bool]
"""Whether a counter is held at zero."""


class RenderedGauges(NamedTuple):
    """The gauges and per-job series of a target; how many jobs have no series of their own."""

    lines: Mapping[str, FamilyLines] = {}
    without_series: int = 0


class Renderer:
    """Renders the series of one target.

    Args:
        jobs: which jobs have series.
    """

    def __init__(self, jobs: JobsSettings) -> None:
        self._jobs = jobs
        self._cache: LineCache = {}

    async def gauges(
        self, fleet: Fleet, labels: Mapping[str, str], is_held: IsHeld, now: float
    ) -> RenderedGauges:
        """Render the series that follow from the current state of the jobs."""
        return await asyncio.to_thread(render_gauges, fleet, labels, self._jobs, is_held, now)

    async def counters(
        self, ledger: Ledger, labels: Mapping[str, str], is_held: IsHeld
    ) -> Rendered:
        """Render the counters and histograms."""
        return await asyncio.to_thread(counter_lines, ledger, labels, is_held, self._cache)


def render_gauges(
    fleet: Fleet, labels: Mapping[str, str], jobs: JobsSettings, is_held: IsHeld, now: float
) -> RenderedGauges:
    """Render the gauges of the fleet and the series of single jobs.

    Args:
        fleet: the target's jobs.
        labels: of all its series.
        jobs: which jobs have series.
        is_held: which counters of single jobs show zero.
        now: unix seconds.
    """
    blocks, without = job_blocks(fleet, labels, jobs=jobs, is_held=is_held, now=now)
    blocks = fleet_blocks(fleet, labels, jobs=jobs, now=now) + blocks
    return RenderedGauges({block.metric.name: render_block(block) for block in blocks}, without)
