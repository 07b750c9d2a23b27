"""What is known of one target: observed, saved, and only then shown."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TypeAlias

from exporter.births import Births
from exporter.clocks import Clocks, wait
from exporter.errors import StateError
from exporter.exposition import Lines, render_block
from exporter.instruments import TargetInstruments
from exporter.ledger import CARD_SECONDS, CREATED, Ledger, Series, SeriesKey, post
from exporter.metrics.events import Cache, event_lines
from exporter.metrics.fleet import fleet_blocks
from exporter.metrics.jobs import job_blocks, new_restarts
from exporter.metrics.scope import Scope
from exporter.model.job import View
from exporter.notices import Notices
from exporter.store import Change, Saved, Store
from exporter.target import Target
from exporter.tracker import Base, Fleet, Observed, observe

log = logging.getLogger(__name__)

Rendered: TypeAlias = Mapping[str, Lines]
"""Series of a target, by family."""


class Knowledge:
    """What is known of one target.

    Args:
        target: whose.
        instruments: are told of odd jobs, and how many are known.
        scope: which jobs get series.
        store: what must outlive us.
        publish: makes what changed visible; returns the generation that shows it.
        interval: seconds between polls: what a new counter is held at zero for.
        stale_after: seconds after which job states are withdrawn if no view renews them.
        clocks: the machine's.

    Attributes:
        fleet: the target's jobs.
        rendered: the series that are published.
        loaded: whether what was known in an earlier life is known again.
        scope: as given.
    """

    def __init__(
        self,
        target: Target,
        instruments: TargetInstruments,
        *,
        scope: Scope,
        store: Store,
        publish: Callable[[], Awaitable[int]],
        interval: float,
        stale_after: float,
        clocks: Clocks,
    ) -> None:
        self.fleet = Fleet()
        self.rendered: Rendered = {}
        self.loaded = False
        self._target = target
        self._instruments = instruments
        self._notices = Notices(target.name, instruments)
        self.scope = scope
        self._store = store
        self._publish = publish
        self._interval = interval
        self._stale_after = stale_after
        self._clocks = clocks
        self._ledger: Ledger = {}
        self._births = Births(interval)
        self._lines: Cache = {}
        self._gauges: Rendered = {}
        self._taking = asyncio.Lock()
        self._showing = asyncio.Lock()
        self._woken = asyncio.Event()
        self._fresh_until: float | None = None
        self._release_from = 0.0

    async def load(self) -> None:
        """Know what was known in an earlier life.

        Raises:
            StateError: it cannot be read now.
        """
        if self.loaded:
            return
        saved = await self._store.load(self._target.key, self._target.workspaces)
        self.fleet, self._ledger = _restored(saved), saved.ledger
        self._births.announce(saved.ledger.keys() - saved.released)
        self.loaded = True

    async def take(self, view: View) -> None:
        """Make a view part of what is known; computed beside the event loop.

        Raises:
            StateError: it cannot be saved now; nothing of it is known.
        """
        async with self._taking:
            now = self._clocks.wall()
            observed, ledger, series = await asyncio.to_thread(
                _digest, self.fleet, self._ledger, view, now
            )
            due = self._births.due(self._clocks.monotonic())
            new = new_restarts(self.fleet, observed.events)
            gauges, without = await self._drawn(observed.fleet, due, new, now)
            await self._store.commit(
                self._target.key,
                Change(
                    jobs=observed.changed,
                    gone=observed.gone,
                    horizons=observed.fleet.horizons,
                    series=series,
                    released=due & ledger.keys(),
                ),
            )
            # All at once: whoever shows what is known meanwhile shows either all of it or nothing.
            self._births.release(due)
            self._births.announce(ledger.keys() - self._ledger.keys())
            self._births.announce(new)
            self.fleet, self._ledger, self._gauges = observed.fleet, ledger, gauges
        self._notices.take(view)
        self._instruments.tracking(jobs=len(self.fleet.jobs), without_series=without)
        self._fresh_until = self._clocks.monotonic() + self._stale_after

    async def show(self, conclude: Callable[[], None] = lambda: None) -> None:
        """Publish what is known; counters that are new are zeros from now on, for a while.

        Args:
            conclude: says how a poll has ended, in the same generation as what it has found.
        """
        async with self._showing:
            ledger, gauges, fresh = self._ledger, self._gauges, self._births.unpublished()
            events = await asyncio.to_thread(
                event_lines, ledger, self._target.labels, self._births.is_held, self._lines
            )
            self.rendered = {**gauges, **events}
            conclude()
            generation = await self._publish()
            self._births.published(fresh, self._clocks.monotonic(), generation)
        self._woken.set()

    def scraped(self, generation: int) -> None:
        """Prometheus has read that generation of what is published."""
        self._births.scraped(generation)
        self._woken.set()

    async def keep(self) -> None:
        """For ever: take back what is stale, let go of series that were held at zero."""
        while True:
            self._woken.clear()
            release = self._births.next_due()
            if release is not None:
                release = max(release, self._release_from)
            moments = (self._fresh_until, release)
            first = min((each for each in moments if each is not None), default=None)
            await wait(self._woken, first, self._clocks)
            await self._withdraw_if_stale()
            await self._release_if_due()

    async def _drawn(
        self, fleet: Fleet, due: Collection[SeriesKey], new: Collection[SeriesKey], now: float
    ) -> tuple[Rendered, int]:
        """The gauges when some series will be released and others announced."""

        def is_held(key: SeriesKey) -> bool:
            return key in new or (self._births.is_held(key) and key not in due)

        return await asyncio.to_thread(
            _gauges, fleet, self._target.labels, self.scope, is_held, now
        )

    async def _withdraw_if_stale(self) -> None:
        """Old job states are worse than none: take them back when no poll renews them."""
        if self._fresh_until is None or self._clocks.monotonic() < self._fresh_until:
            return
        self._fresh_until = None
        self._gauges = {}
        log.warning("job series withdrawn, no poll succeeded", extra={"target": self._target.name})
        await self.show()

    async def _release_if_due(self) -> None:
        """Show what new counters count, once their zeros were visible for long enough."""
        if self._clocks.monotonic() < self._release_from:
            return
        try:
            async with self._taking:
                due = self._births.due(self._clocks.monotonic())
                if not due:
                    return
                released = due & self._ledger.keys()
                await self._store.commit(self._target.key, Change(released=released))
                if self._gauges and released != due:  # counters of single jobs are among them
                    self._gauges, _ = await self._drawn(
                        self.fleet, due, frozenset(), self._clocks.wall()
                    )
                self._births.release(due)
        except StateError as error:
            log.warning("state not saved: %s", error, extra={"target": self._target.name})
            self._release_from = self._clocks.monotonic() + self._interval
            return
        await self.show()


def _digest(
    fleet: Fleet, ledger: Ledger, view: View, now: float
) -> tuple[Observed, Ledger, dict[SeriesKey, Series]]:
    """What a view makes of what was known; in a thread, it takes a while for many jobs."""
    observed = observe(fleet, view, now)
    posted, series = post(ledger, observed.events, observed.fleet.accelerators, now)
    return observed, posted, series


def _gauges(
    fleet: Fleet,
    labels: Mapping[str, str],
    scope: Scope,
    is_held: Callable[[SeriesKey], bool],
    now: float,
) -> tuple[Rendered, int]:
    """The series that say what is, and how many jobs have none of their own."""
    blocks, without = job_blocks(fleet, labels, scope=scope, is_held=is_held, now=now)
    blocks = fleet_blocks(fleet, labels, scope=scope, now=now) + blocks
    return {block.metric.name: render_block(block) for block in blocks}, without


def _restored(saved: Saved) -> Fleet:
    """What was known in an earlier life, with every combination that a counter has seen."""
    accelerators: dict[Base, frozenset[str]] = {}
    for family, labels in saved.ledger:
        if family in (CREATED.metric.name, CARD_SECONDS.metric.name):
            base = Base(*labels[:3])
            accelerators[base] = accelerators.get(base, frozenset()) | set(labels[3:])
    return Fleet(saved.jobs, accelerators, saved.horizons)
