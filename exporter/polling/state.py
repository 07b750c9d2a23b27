"""What is known of one target: observed, saved, and only then shown."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TypeAlias

from exporter.clock import Clocks, wait
from exporter.errors import StateError
from exporter.jobs.job import View
from exporter.jobs.tracker import Fleet, Observation, observe
from exporter.metrics.counter_lines import Cache, event_lines
from exporter.metrics.counters import EVENT_FAMILY_BY_NAME, Ledger, Series, SeriesKey, add
from exporter.metrics.exposition import Lines, render_block
from exporter.metrics.fleet import fleet_blocks
from exporter.metrics.per_job import job_blocks, new_restarts
from exporter.metrics.scope import Scope
from exporter.metrics.self_metrics import TargetInstruments
from exporter.metrics.zero_init import ZeroInit
from exporter.polling.anomalies import Anomalies
from exporter.polling.handover import Handover, accelerators_in, joined, part
from exporter.polling.target import Target
from exporter.storage.store import SavedState, StateChange, Store

log = logging.getLogger(__name__)

Rendered: TypeAlias = Mapping[str, Lines]
"""Series of a target, by family."""


class TargetState:
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
        unloaded: workspaces of which what was known in an earlier life is not known again yet.
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
        self.unloaded = frozenset(target.workspaces)
        self._target = target
        self._instruments = instruments
        self._notices = Anomalies(target.name, instruments)
        self.scope = scope
        self._store = store
        self._publish = publish
        self._interval = interval
        self._stale_after = stale_after
        self._clocks = clocks
        self._key: str | None = None
        self._ledger: Ledger = {}
        self._births = ZeroInit(interval)
        self._lines: Cache = {}
        self._gauges: Rendered = {}
        self._without_series = 0
        self._unsure = False
        self._taking = asyncio.Lock()
        self._showing = asyncio.Lock()
        self._woken = asyncio.Event()
        self._fresh_until: float | None = None
        self._release_from = 0.0

    @property
    def loaded(self) -> bool:
        """Whether all that was known in an earlier life is known again."""
        return not self.unloaded

    @property
    def has_ground(self) -> bool:
        """Whether incremental polls are possible: every workspace has been read once."""
        return self.loaded and self.fleet.newest_created.keys() >= set(self._target.workspaces)

    async def load(self) -> None:
        """Know what was known in an earlier life, as far as it is not known already.

        Raises:
            StateError: it cannot be read now.
        """
        key = self._target.key
        if self.loaded and self._key == key:
            return
        async with self._taking:
            if self._key not in (None, key):
                self._forget()
            saved = await self._store.load(key, self.unloaded)
            known = frozenset(self._target.workspaces) - self.unloaded
            fleet, ledger = part(self.fleet, self._ledger, known)
            self.fleet = joined(fleet, _restored(saved))
            self._ledger = {**ledger, **saved.ledger}
            self._births.keep(self._counts)
            self._births.announce(saved.ledger.keys() - saved.released)
            self._key, self.unloaded = key, frozenset()

    def leave(self) -> Handover | None:
        """What another one can go on with when this one has stopped for ever; None: nothing."""
        if self._key is None:
            return None
        asked = frozenset(self._target.workspaces)
        # Where nobody waited for a commit, the store alone knows whether it was made.
        loaded = frozenset() if self._unsure else asked - self.unloaded
        fresh = self._fresh_until
        return Handover(
            key=self._key,
            labels=self._target.labels,
            asked=asked,
            loaded=loaded,
            fleet=self.fleet,
            ledger=self._ledger,
            births=self._births,
            notices=self._notices,
            renewed=None if fresh is None else fresh - self._stale_after,
        )

    async def take_over(self, left: Handover) -> None:
        """Know and show what another one did.

        Workspaces that are not asked for any more are left out; `load` adds those that are new,
        and forgets everything if the target turns out not to be the one that it was taken for.
        """
        asked = frozenset(self._target.workspaces)
        self._key, self.unloaded = left.key, asked - left.loaded
        self.fleet, self._ledger = left.fleet, left.ledger
        if asked != left.asked:
            self.fleet, self._ledger = await asyncio.to_thread(
                part, left.fleet, left.ledger, asked & left.asked
            )
        renamed = self._target.labels != left.labels
        self._births = left.births
        self._births.go_on(self._interval, unpublished=renamed)
        self._births.keep(self._counts)
        self._notices = left.notices
        self._notices.go_on(self._target.name, self._instruments)
        if left.renewed is not None:
            self._fresh_until = left.renewed + self._stale_after
            self._gauges, self._without_series = await self._drawn(
                self.fleet, (), (), self._clocks.wall()
            )
        self.rendered = {**self._gauges, **await self._event_lines()}

    def tell(self) -> None:
        """Say how many jobs are known, and how many of them have no series."""
        if self._gauges:
            self._instruments.tracking(
                jobs=len(self.fleet.jobs), without_series=self._without_series
            )

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
            await self._commit(
                StateChange(
                    jobs=observed.changed,
                    gone=observed.deleted,
                    horizons=observed.fleet.newest_created,
                    series=series,
                    released=due & ledger.keys(),
                ),
            )
            # All at once: whoever shows what is known meanwhile shows either all of it or nothing.
            self._births.release(due)
            self._births.announce(ledger.keys() - self._ledger.keys())
            self._births.announce(new)
            self.fleet, self._ledger, self._gauges = observed.fleet, ledger, gauges
            self._without_series = without
        self._notices.take(view)
        self.tell()
        self._fresh_until = self._clocks.monotonic() + self._stale_after

    async def show(self, conclude: Callable[[], None] = lambda: None) -> None:
        """Publish what is known; counters that are new are zeros from now on, for a while.

        Args:
            conclude: says how a poll has ended, in the same generation as what it has found.
        """
        async with self._showing:
            gauges, fresh = self._gauges, self._births.unpublished()
            self.rendered = {**gauges, **await self._event_lines()}
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

    async def _event_lines(self) -> Rendered:
        return await asyncio.to_thread(
            event_lines, self._ledger, self._target.labels, self._births.is_held, self._lines
        )

    async def _commit(self, change: StateChange) -> None:
        try:
            await self._store.commit(self._key or self._target.key, change)
        except asyncio.CancelledError:
            self._unsure = True
            raise

    def _counts(self, key: SeriesKey) -> bool:
        """Whether a series is known; those of single jobs come and go with them."""
        return key in self._ledger or key[0] not in EVENT_FAMILY_BY_NAME

    def _forget(self) -> None:
        """It was of another target."""
        self.fleet, self._ledger, self._lines, self._gauges = Fleet(), {}, {}, {}
        self.unloaded = frozenset(self._target.workspaces)
        self._births = ZeroInit(self._interval)
        self._notices = Anomalies(self._target.name, self._instruments)
        self._key = self._fresh_until = None

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
                await self._commit(StateChange(released=released))
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
) -> tuple[Observation, Ledger, dict[SeriesKey, Series]]:
    """What a view makes of what was known; in a thread, it takes a while for many jobs."""
    observed = observe(fleet, view, now)
    posted, series = add(ledger, observed.events, observed.fleet.accelerators, now)
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


def _restored(saved: SavedState) -> Fleet:
    """What was known in an earlier life, with every combination that a counter has seen."""
    return Fleet(saved.jobs, accelerators_in(saved.ledger), saved.horizons)
