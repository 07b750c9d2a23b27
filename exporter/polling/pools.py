"""Reads how full the resource pools of a target are, beside its polls and never in their way."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from exporter.clock import Clocks, wait
from exporter.jobs.fleet import Fleet
from exporter.jobs.job import OTHER, PUBLIC_POOL
from exporter.jobs.pool import PoolSnapshot
from exporter.metrics.exposition import render_block
from exporter.metrics.pools import pool_blocks
from exporter.metrics.self_metrics import TargetInstruments
from exporter.polling.render import Rendered
from exporter.polling.target import Target

_NAMES_MAX_AGE_SECONDS = 3600.0
"""How old the names of pools may become if only polls request them."""


class PoolMonitor:
    """The pools of one target, read at every interval while its polls succeed.

    Args:
        target: whose pools.
        instruments: of the target.
        fleet: returns its jobs.
        interval: seconds (``poll.pools_interval``); 0 = never.
        publish: makes changes visible.
        clocks: of the machine.

    """

    def __init__(
        self,
        target: Target,
        instruments: TargetInstruments,
        fleet: Callable[[], Fleet],
        *,
        interval: float,
        publish: Callable[[], Awaitable[int]],
        clocks: Clocks,
    ) -> None:
        self._target = target
        self._rendered: Rendered = {}
        self._rendered_for = target.identity
        self._instruments = instruments
        self._fleet = fleet
        self._interval = interval
        self._publish = publish
        self._clocks = clocks
        self._polls_succeed = asyncio.Event()

    @property
    def rendered(self) -> Rendered:
        """The series to publish; none if the target has turned out to be another project."""
        return self._rendered if self._rendered_for == self._target.identity else {}

    @property
    def names_max_age(self) -> float:
        """Seconds for which a poll uses the names of pools before it requests them itself."""
        return 2 * self._interval or _NAMES_MAX_AGE_SECONDS

    @property
    def snapshot(self) -> PoolSnapshot:
        """What is known about the pools."""
        return self._target.pools.snapshot if self._interval else PoolSnapshot()

    def polled(self, *, succeeded: bool) -> None:
        """A poll has ended. While polls fail nothing is read: it could lock an access key."""
        if succeeded:
            self._polls_succeed.set()
        else:
            self._polls_succeed.clear()

    async def run(self) -> None:
        """Read at every interval, from start to start, until cancelled."""
        if not self._interval:
            return
        due = self._clocks.monotonic()
        while True:
            due = max(due + self._interval, self._clocks.monotonic())
            await wait(self._polls_succeed, due, self._clocks)
            if self._polls_succeed.is_set():
                await self.read()
            else:
                await self.show()
                await self._publish()
            await self._clocks.sleep(max(0.0, due - self._clocks.monotonic()))

    async def read(self) -> None:
        """Read once, and publish that; a failure costs what could not be read."""
        if not self._interval:
            return
        complete = await self._target.pools.read(
            _pools_with_queues(self._fleet()), max_age=self._interval / 2, seconds=self._interval
        )
        if complete:
            self._instruments.pools_read(now=self._clocks.wall())
        await self.show()
        await self._publish()

    async def show(self) -> None:
        """Render the series."""
        identity = self._target.identity
        self._rendered = await asyncio.to_thread(_render, self.snapshot, identity.labels)
        self._rendered_for = identity


def _render(snapshot: PoolSnapshot, labels: Mapping[str, str]) -> Rendered:
    return {block.metric.name: render_block(block) for block in pool_blocks(snapshot, labels)}


def _pools_with_queues(fleet: Fleet) -> frozenset[str]:
    """Return the IDs of dedicated pools in which jobs wait."""
    waiting = {known.job.pool for known in fleet.open.values() if known.job.phase == "Pending"}
    return frozenset(waiting - {PUBLIC_POOL, OTHER})
