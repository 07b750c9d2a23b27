"""Joins the series of all targets and the exporter's own into the exposition that is served."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import Metric as LibraryMetric

from exporter.metrics.counters import EVENT_FAMILIES
from exporter.metrics.exposition import Exposition, assemble, from_library
from exporter.metrics.fleet import FLEET_FAMILIES
from exporter.metrics.per_job import JOB_FAMILIES
from exporter.metrics.pools import POOL_FAMILIES
from exporter.metrics.self_metrics import Instruments
from exporter.polling.render import Rendered

if TYPE_CHECKING:
    from exporter.polling.poller import Poller

FAMILIES = tuple(
    row.metric for row in (*FLEET_FAMILIES, *POOL_FAMILIES, *EVENT_FAMILIES, *JOB_FAMILIES)
)


class Publisher:
    """Renders a new generation on request, one at a time, in a thread.

    Attributes:
        pollers: the pollers whose series are joined.
        exposition: the current generation, immutable.
    """

    def __init__(self, instruments: Instruments) -> None:
        self.pollers: list[Poller] = []
        self.exposition: Exposition = assemble([])
        self._instruments = instruments
        self._was_ready = False
        self._wanted = asyncio.Event()
        self._waiting: list[asyncio.Future[int]] = []

    @property
    def ready(self) -> bool:
        """True once the first poll of every target has ended, good or bad, and is published.

        It stays True when targets are added later: the others are still served.
        """
        return self._was_ready or all(poller.ended_polls for poller in self.pollers)

    def set_pollers(self, pollers: Sequence["Poller"]) -> None:
        """Replace the pollers whose series are joined, from the next generation on."""
        self._was_ready = bool(self.pollers) and self.ready
        self.pollers = list(pollers)

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
        self.exposition = await asyncio.to_thread(render, rendered, own, generation)
        for done in waiting:
            if not done.done():
                done.set_result(generation)


def render(
    targets: Sequence[Rendered], own: Iterable[LibraryMetric], generation: int = 0
) -> Exposition:
    """Render the families of the targets, then the exporter's own."""
    families = [
        (metric, [lines[metric.name] for lines in targets if metric.name in lines])
        for metric in FAMILIES
    ]
    ours = ((metric, [lines]) for metric, lines in map(from_library, own))
    return assemble([*families, *ours], generation)
