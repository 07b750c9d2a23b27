"""When a target is read, and what comes of it: fetch, observe, commit, publish."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from exporter.births import Births
from exporter.clocks import Clocks
from exporter.errors import PollError, StateError, TimedOut
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

LATE_SECONDS = 1.0
"""A start this much after its time is late; less is the machine's usual jitter."""

_REST = 4.0
"""So many times as long as a sweep took, none follows that is not scheduled."""

Kind = Literal["sweep", "incremental"]
Rendered = Mapping[str, Lines]
"""Series of a target, by family."""


@dataclass(frozen=True)
class Cadence:
    """Seconds: from start to start, for a whole poll, and until state without a poll is stale."""

    interval: float
    timeout: float
    sweep_interval: float
    sweep_timeout: float
    stale_after: float


class Cost(NamedTuple):
    """What a poll took: requests and seconds."""

    requests: int
    seconds: float


class Poller:
    """Reads one target for ever: incrementally in time, and as a whole beside that.

    Args:
        target: what to read.
        instruments: are told of every poll.
        cadence: when.
        scope: which jobs get series.
        store: what must outlive us.
        publish: makes what changed visible; returns the generation that shows it.
        clocks: the machine's.

    Attributes:
        fleet: what is known of the target's jobs.
        rendered: the series that are published.
        ended_polls: how many polls have ended, well or badly.
        error: what the last poll failed of; "" if it did not.
        last_success: unix seconds.
        costs: of the last good poll of each kind.
    """

    def __init__(
        self,
        target: Target,
        instruments: TargetInstruments,
        *,
        cadence: Cadence,
        scope: Scope,
        store: Store,
        publish: Callable[[], Awaitable[int]],
        clocks: Clocks,
    ) -> None:
        self.target = target
        self.fleet = Fleet()
        self.rendered: Rendered = {}
        self.ended_polls = 0
        self.error = ""
        self.last_success: float | None = None
        self.costs: dict[Kind, Cost] = {}
        self._instruments = instruments
        self._notices = Notices(target.name, instruments)
        self._cadence = cadence
        self._scope = scope
        self._store = store
        self._publish = publish
        self._clock, self._monotonic, self._sleep = clocks
        self._loaded = False
        self._ledger: Ledger = {}
        self._births = Births(cadence.interval)
        self._lines: Cache = {}
        self._gauges: Rendered = {}
        self._polling = asyncio.Lock()
        self._meanwhile: set[str] = set()
        """Jobs that polls in time have taken, or found gone, since the last sweep began."""
        self._taking = asyncio.Lock()
        self._showing = asyncio.Lock()
        self._woken = asyncio.Event()
        self._fresh_until: float | None = None
        self._release_from = 0.0
        self._rested_at = 0.0
        self._sweep_due: float | None = None
        self._sweep_wanted = asyncio.Event()

    @property
    def name(self) -> str:
        """For log lines and tables."""
        return self.target.name

    async def run(self) -> None:
        """Read for ever. Ends only by an error that is nobody's fault but ours."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poll_in_time())
            group.create_task(self._sweep_in_time())
            group.create_task(self._keep())

    async def poll(self) -> bool:
        """Read what may have changed, the first time everything; True if that succeeded."""
        async with self._polling:
            return await self._attempt(self._kind, self._poll)

    async def sweep(self) -> bool:
        """Read everything while polls go on; True if that succeeded."""
        return await self._attempt("sweep", self._sweep)

    def scraped(self, generation: int) -> None:
        """Prometheus has read that generation of what is published."""
        self._births.scraped(generation)
        self._woken.set()

    # --- When -------------------------------------------------------------------------------------

    async def _poll_in_time(self) -> None:
        """Poll from start to start; never two at once, and a missed start is not made up for."""
        due = self._monotonic()
        while True:
            await self.poll()
            due += self._cadence.interval
            if (wait := due - self._monotonic()) > 0:
                await self._sleep(wait)
            now = self._monotonic()
            if now - due > LATE_SECONDS:
                self._instruments.started_late()
                due = now

    async def _sweep_in_time(self) -> None:
        """Sweep when it is due: after the interval, or when the service's totals ask for it."""
        while True:
            due = self._sweep_due
            now = self._monotonic()
            if due is None or now < due:
                self._sweep_wanted.clear()
                await self._wait(self._sweep_wanted, due)
                continue
            if not await self.sweep():
                after = self._monotonic()
                rest = max(self._cadence.interval, _REST * (after - now))
                self._rested_at = after + min(rest, self._cadence.sweep_interval)
                self._sweep_due = self._rested_at

    async def _keep(self) -> None:
        """Between polls: take back what is stale, let go of series that were held at zero."""
        while True:
            self._woken.clear()
            release = self._births.next_due()
            if release is not None:
                release = max(release, self._release_from)
            moments = (self._fresh_until, release)
            await self._wait(
                self._woken, min((each for each in moments if each is not None), default=None)
            )
            await self._withdraw_if_stale()
            await self._release_if_due()

    async def _wait(self, event: asyncio.Event, until: float | None) -> None:
        """Until a moment of the monotonic clock, None for never, or the event."""
        tasks: list[asyncio.Future[object]] = [asyncio.ensure_future(event.wait())]
        if until is not None:
            tasks.append(asyncio.ensure_future(self._sleep(max(0.0, until - self._monotonic()))))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- Reading ----------------------------------------------------------------------------------

    async def _attempt(self, kind: Kind, work: Callable[[], Awaitable[tuple[Kind, View]]]) -> bool:
        """Read and take, then publish; a failure changes nothing of what is known."""
        started = self._monotonic()
        error: PollError | None = None
        try:
            kind, view = await work()
            self.costs[kind] = Cost(view.requests, self._monotonic() - started)
            self._plan_sweep(kind, view)
        except PollError as failure:
            error = failure
        except StateError as failure:
            error = PollError(str(failure))
        except Exception:  # a bug in one poll must not hide what the other polls know
            log.exception("poll failed unexpectedly", extra={"target": self.name})
            error = PollError("internal error, see the log")
        seconds = self._monotonic() - started
        await self._show(lambda: self._conclude(kind, error, seconds))
        self.ended_polls += 1
        return error is None

    @property
    def _kind(self) -> Kind:
        """What the next poll reads: changes, or everything where nothing is known yet."""
        known = self._loaded and self.target.sync.knows_ground(self.fleet)
        return "incremental" if known else "sweep"

    async def _poll(self) -> tuple[Kind, View]:
        kind, view = await self._read_in_time()
        await self._take(view)
        self._meanwhile |= view.jobs.keys() | view.gone
        return kind, view

    async def _sweep(self) -> tuple[Kind, View]:
        """What polls have taken meanwhile is left out: they may have read it later."""
        async with self._polling:
            self._meanwhile.clear()
        view = await self._everything(background=True)
        async with self._polling:  # a poll that is half done may have read older things
            view = view.without(self._meanwhile)
            await self._take(view)
        return "sweep", view

    async def _read_in_time(self) -> tuple[Kind, View]:
        async with self._limit(self._cadence.timeout):
            await self.target.connect()
            self._instruments.rename(self.target.labels["project"])
            await self._load()
        if self._kind == "sweep":
            return "sweep", await self._everything(background=False)
        async with self._limit(self._cadence.timeout) as deadline:
            view = await self.target.sync.incremental(self.fleet, deadline=deadline)
        return "incremental", view

    async def _everything(self, *, background: bool) -> View:
        async with self._limit(self._cadence.sweep_timeout) as deadline:
            return await self.target.sync.sweep(
                self.fleet, deadline=deadline, background=background, meanwhile=self._meanwhile
            )

    @contextlib.asynccontextmanager
    async def _limit(self, seconds: float) -> AsyncIterator[float]:
        """A time limit; gives its end, in monotonic seconds."""
        try:
            async with asyncio.timeout(seconds):
                yield self._monotonic() + seconds
        except TimeoutError:
            raise TimedOut(f"not done within {seconds:g} s") from None

    async def _load(self) -> None:
        """What was known in an earlier life."""
        if self._loaded:
            return
        saved = await self._store.load(self.target.key, self.target.workspaces)
        self.fleet, self._ledger = _restored(saved), saved.ledger
        self._births.announce(saved.ledger.keys() - saved.released)
        self._loaded = True

    def _plan_sweep(self, kind: Kind, view: View) -> None:
        """After a poll in time: when everything has to be read next."""
        now = self._monotonic()
        if kind == "sweep":
            self._sweep_due = now + self._cadence.sweep_interval
            self._rested_at = now + _REST * self.costs[kind].seconds
        elif self._sweep_due is None:
            self._sweep_due = now  # we were away
        elif self.target.sync.doubts(view, self.fleet):
            self._sweep_due = min(self._sweep_due, max(now, self._rested_at))
        self._sweep_wanted.set()

    # --- Taking and publishing --------------------------------------------------------------------

    async def _take(self, view: View) -> None:
        """Make a view part of what is known; computed beside the event loop."""
        async with self._taking:
            now = self._clock()
            observed, ledger, series = await asyncio.to_thread(
                _digest, self.fleet, self._ledger, view, now
            )
            due = self._births.due(self._monotonic())
            new = new_restarts(self.fleet, observed.events)
            gauges, without = await self._drawn(observed.fleet, due, new, now)
            await self._store.commit(
                self.target.key,
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
        self._fresh_until = self._monotonic() + self._cadence.stale_after

    async def _drawn(
        self, fleet: Fleet, due: Collection[SeriesKey], new: Collection[SeriesKey], now: float
    ) -> tuple[Rendered, int]:
        """The gauges when some series will be released and others announced."""

        def is_held(key: SeriesKey) -> bool:
            return key in new or (self._births.is_held(key) and key not in due)

        return await asyncio.to_thread(
            _gauges, fleet, self.target.labels, self._scope, is_held, now
        )

    async def _show(self, conclude: Callable[[], None] = lambda: None) -> None:
        """Publish what is known; counters that are new are zeros from now on, for a while.

        Args:
            conclude: says how a poll has ended, in the same generation as what it has found.
        """
        async with self._showing:
            ledger, gauges, fresh = self._ledger, self._gauges, self._births.unpublished()
            events = await asyncio.to_thread(
                event_lines, ledger, self.target.labels, self._births.is_held, self._lines
            )
            self.rendered = {**gauges, **events}
            conclude()
            generation = await self._publish()
            self._births.published(fresh, self._monotonic(), generation)
        self._woken.set()

    async def _withdraw_if_stale(self) -> None:
        """Old job states are worse than none: take them back when no poll renews them."""
        if self._fresh_until is None or self._monotonic() < self._fresh_until:
            return
        self._fresh_until = None
        self._gauges = {}
        log.warning("job series withdrawn, no poll succeeded", extra={"target": self.name})
        await self._show()

    async def _release_if_due(self) -> None:
        """Show what new counters count, once their zeros were visible for long enough."""
        if self._monotonic() < self._release_from:
            return
        try:
            async with self._taking:
                due = self._births.due(self._monotonic())
                if not due:
                    return
                released = due & self._ledger.keys()
                await self._store.commit(self.target.key, Change(released=released))
                if self._gauges and released != due:  # counters of single jobs are among them
                    self._gauges, _ = await self._drawn(self.fleet, due, frozenset(), self._clock())
                self._births.release(due)
        except StateError as error:
            log.warning("state not saved: %s", error, extra={"target": self.name})
            self._release_from = self._monotonic() + self._cadence.interval
            return
        await self._show()

    def _conclude(self, kind: Kind, error: PollError | None, seconds: float) -> None:
        now = self._clock()
        if error is None:
            if self.error:
                log.info("polls succeed again", extra={"target": self.name})
            self.error = ""
            self.last_success = now
        else:
            self.error = str(error)
            facts = {"target": self.name, "kind": kind, "result": error.reason}
            log.warning("poll failed: %s", error, extra=facts)
        self._instruments.identified(
            mode=self.target.paging.mode or "auto", expires_at=self.target.credentials.expires_at
        )
        result = error.reason if error else "success"
        self._instruments.polled(kind, result, seconds, now=now)


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
