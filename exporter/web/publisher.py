"""Joins the series of all targets and the exporter's own into the exposition that is served."""

import asyncio
import logging
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

from prometheus_client.metrics_core import Metric as LibraryMetric

from exporter.metrics.counters import EVENT_FAMILIES
from exporter.metrics.exposition import (
    Exposition,
    FamilyLines,
    Metric,
    SampleBlock,
    assemble,
    from_library,
    render_block,
)
from exporter.metrics.fleet import FLEET_FAMILIES
from exporter.metrics.per_job import JOB_FAMILIES
from exporter.metrics.pools import POOL_FAMILIES
from exporter.metrics.self_metrics import Instruments
from exporter.polling.render import Rendered

if TYPE_CHECKING:
    from exporter.polling.poller import Poller

log = logging.getLogger(__name__)

FAMILIES = tuple(
    row.metric for row in (*FLEET_FAMILIES, *POOL_FAMILIES, *EVENT_FAMILIES, *JOB_FAMILIES)
)
SERIES = Metric(
    "modelarts_exporter_series",
    "gauge",
    "Series that are served, by metric family, in the text format; OpenMetrics adds _created. "
    "Families that metrics.deny matches are not served.",
)

_Family: TypeAlias = tuple[Metric, Sequence[FamilyLines]]
"""A metric family with the lines of all targets."""


class Publisher:
    """Renders a new generation on request, one at a time, in a thread.

    Attributes:
        pollers: the pollers whose series are joined.
        exposition: the current generation, immutable.
        awaits_targets: whether the first lookup of targets has not ended yet.
    """

    def __init__(self, instruments: Instruments) -> None:
        self.pollers: list[Poller] = []
        self.exposition: Exposition = assemble([])
        self.awaits_targets = False
        self._instruments = instruments
        self._denied: Sequence[str] = ()
        self._was_ready = False
        self._wanted = asyncio.Event()
        self._waiting: list[asyncio.Future[int]] = []

    @property
    def ready(self) -> bool:
        """True once the first poll of every target has ended, good or bad, and is published.

        It stays True when targets are added later: the others are still served.
        """
        ended = all(poller.ended_polls for poller in self.pollers)
        return self._was_ready or (ended and not self.awaits_targets)

    def set_pollers(self, pollers: Sequence["Poller"]) -> None:
        """Replace the pollers whose series are joined, from the next generation on."""
        self._was_ready = bool(self.pollers) and self.ready
        self.pollers = list(pollers)

    def deny(self, expressions: Sequence[str]) -> None:
        """Serve no families whose names these regular expressions match, from the next generation.

        What they count goes on, so they are complete when they are served again.
        """
        self._denied = tuple(expressions)
        own = (from_library(family)[0] for family in self._instruments.registry.collect())
        names = [metric.name for metric in (*FAMILIES, *own, SERIES)]
        for each in expressions:
            if not any(re.fullmatch(each, name) for name in names):
                log.warning('metrics.deny: "%s" matches no metric family', each)

    async def publish(self) -> int:
        """Return the number of a generation rendered after this call, once it is served."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._wanted.set()
        return await done

    def scraped(self, exposition: Exposition) -> None:
        """Tell all targets that a Prometheus has received a whole generation."""
        for poller in self.pollers:
            poller.state.mark_scraped(exposition.generation)

    async def run(self) -> None:
        """Render on request, forever; requests made during a rendering share the next one."""
        while True:
            await self._wanted.wait()
            await self.update()

    async def update(self) -> None:
        """Render the next generation; the first one before there is anybody to read it."""
        self._wanted.clear()
        waiting, self._waiting = self._waiting, []
        # Collect both now: a poll that ends during the rendering shows in the next generation.
        rendered = [poller.rendered for poller in self.pollers]
        own = list(self._instruments.registry.collect())
        generation = self.exposition.generation + 1
        self.exposition = await asyncio.to_thread(render, rendered, own, generation, self._denied)
        for done in waiting:
            if not done.done():
                done.set_result(generation)


def render(
    targets: Sequence[Rendered],
    own: Iterable[LibraryMetric],
    generation: int = 0,
    denied: Sequence[str] = (),
) -> Exposition:
    """Render the families of the targets, then the exporter's own, then how many series they have.

    Args:
        targets: the series of each target.
        own: the exporter's own families.
        generation: its number.
        denied: regular expressions; families whose names they match are left out.
    """
    families: Iterable[_Family] = (
        (metric, [lines[metric.name] for lines in targets if metric.name in lines])
        for metric in FAMILIES
    )
    ours: Iterable[_Family] = ((metric, [lines]) for metric, lines in map(from_library, own))
    served = [each for each in chain(families, ours) if not _matches(each, denied)]
    count = _series_count(served)
    return assemble(served if _matches(count, denied) else [*served, count], generation)


def _matches(family: _Family, expressions: Iterable[str]) -> bool:
    return any(re.fullmatch(each, family[0].name) for each in expressions)


def _series_count(families: Iterable[_Family]) -> _Family:
    """How many series each family has, and this family itself: a line is a series."""
    counts = {
        metric.name: sum(lines.text.count("\n") for lines in blocks) for metric, blocks in families
    }
    samples = [((name,), float(count)) for name, count in counts.items() if count]
    samples.append(((SERIES.name,), len(samples) + 1.0))
    return SERIES, [render_block(SampleBlock(SERIES, ("family",), {}, samples))]
