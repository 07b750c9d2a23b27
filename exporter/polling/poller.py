"""When a target is read, and what a failed poll means."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from exporter.clock import Clocks, wait
from exporter.errors import PollError, StateError, TimedOutError
from exporter.jobs.job import View
from exporter.metrics.scope import Scope
from exporter.metrics.self_metrics import TargetInstruments
from exporter.polling.state import TargetState
from exporter.polling.target import Target
from exporter.storage.store import Store

log = logging.getLogger(__name__)

LATE_SECONDS = 1.0
"""A start this much after its time is late; less is the machine's usual jitter."""

_REST = 4.0
"""So many times as long as a sweep took, none follows that is not scheduled."""

PollKind = Literal["sweep", "incremental"]


@dataclass(frozen=True)
class Cadence:
    """Seconds: from start to start, for a whole poll, and until state without a poll is stale."""

    interval: float
    timeout: float
    sweep_interval: float
    sweep_timeout: float
    stale_after: float


class PollCost(NamedTuple):
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
        known: what is known of the target.
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
        self.known = TargetState(
            target,
            instruments,
            scope=scope,
            store=store,
            publish=publish,
            interval=cadence.interval,
            stale_after=cadence.stale_after,
            clocks=clocks,
        )
        self.ended_polls = 0
        self.error = ""
        self.last_success: float | None = None
        self.costs: dict[PollKind, PollCost] = {}
        self._instruments = instruments
        self._cadence = cadence
        self._clocks = clocks
        self._clock, self._monotonic, self._sleep = clocks
        self._polling = asyncio.Lock()
        self._meanwhile: set[str] = set()
        """Jobs that polls in time have taken, or found gone, since the last sweep began."""
        self._rested_at = 0.0
        self._sweep_due: float | None = None
        self._sweep_wanted = asyncio.Event()

    @property
    def name(self) -> str:
        """For log lines and tables."""
        return self.target.name

    def appear(self) -> None:
        """Show what the exporter says of the target: it is polled from now on."""
        self._instruments.appear()
        self.known.tell()

    def vanish(self) -> None:
        """Show nothing of the target any more."""
        self._instruments.vanish()

    async def take_over(self, other: "Poller") -> None:
        """Go on where another poller of the same target was when it stopped for ever."""
        self.target.take_over(other.target)
        self._instruments.rename(self.target.labels["project"])
        if left := other.known.leave():
            await self.known.take_over(left)
        self.ended_polls, self.error = other.ended_polls, other.error
        self.last_success, self.costs = other.last_success, dict(other.costs)

    async def run(self) -> None:
        """Read for ever. Ends only by an error that is nobody's fault but ours."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poll_in_time())
            group.create_task(self._sweep_in_time())
            group.create_task(self.known.keep())

    async def poll(self) -> bool:
        """Read what may have changed, the first time everything; True if that succeeded."""
        async with self._polling:
            return await self._attempt(self._kind, self._poll)

    async def sweep(self) -> bool:
        """Read everything while polls go on; True if that succeeded."""
        return await self._attempt("sweep", self._sweep)

    async def read(self) -> View:
        """Read everything, and take nothing of it.

        Raises:
            PollError: it could not be read as a whole.
        """
        async with self._limit(self._cadence.timeout):
            await self.target.connect()
            self._instruments.rename(self.target.labels["project"])
        return await self._with_pool_names(await self._everything(background=False))

    # --- When -------------------------------------------------------------------------------------

    async def _poll_in_time(self) -> None:
        """Poll from start to start; never two at once, and a missed start is not made up for."""
        due = self._monotonic()
        while True:
            await self.poll()
            due += self._cadence.interval
            if (left := due - self._monotonic()) > 0:
                await self._sleep(left)
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
                await wait(self._sweep_wanted, due, self._clocks)
                continue
            if not await self.sweep():
                after = self._monotonic()
                rest = max(self._cadence.interval, _REST * (after - now))
                self._rested_at = after + min(rest, self._cadence.sweep_interval)
                self._sweep_due = self._rested_at

    # --- Reading ----------------------------------------------------------------------------------

    async def _attempt(
        self, kind: PollKind, work: Callable[[], Awaitable[tuple[PollKind, View]]]
    ) -> bool:
        """Read and take, then publish; a failure changes nothing of what is known."""
        started = self._monotonic()
        error: PollError | None = None
        try:
            kind, view = await work()
            self.costs[kind] = PollCost(view.requests, self._monotonic() - started)
            self._plan_sweep(kind, view)
        except PollError as failure:
            error = failure
        except StateError as failure:
            error = PollError(str(failure))
        except Exception:  # a bug in one poll must not hide what the other polls know
            log.exception("poll failed unexpectedly", extra={"target": self.name})
            error = PollError("internal error, see the log")
        seconds = self._monotonic() - started
        await self.known.show(lambda: self._conclude(kind, error, seconds))
        self.ended_polls += 1
        return error is None

    @property
    def _kind(self) -> PollKind:
        """What the next poll reads: changes, or everything where nothing is known yet."""
        return "incremental" if self.known.has_ground else "sweep"

    async def _poll(self) -> tuple[PollKind, View]:
        kind, view = await self._read_in_time()
        if kind == "sweep" or not self.target.pools.attempted:
            view = await self._with_pool_names(view)
        await self.known.take(view)
        self._meanwhile |= view.jobs.keys() | view.deleted
        return kind, view

    async def _sweep(self) -> tuple[PollKind, View]:
        """What polls have taken meanwhile is left out: they may have read it later."""
        async with self._polling:
            self._meanwhile.clear()
        view = await self._with_pool_names(await self._everything(background=True))
        async with self._polling:  # a poll that is half done may have read older things
            view = await asyncio.to_thread(view.without, self._meanwhile)
            await self.known.take(view)
        return "sweep", view

    async def _read_in_time(self) -> tuple[PollKind, View]:
        async with self._limit(self._cadence.timeout):
            await self.target.connect()
            self._instruments.rename(self.target.labels["project"])
            await self.known.load()
        if self._kind == "sweep":
            return "sweep", await self._everything(background=False)
        async with self._limit(self._cadence.timeout) as deadline:
            view = await self.target.sync.incremental(self.known.fleet, deadline=deadline)
        return "incremental", view

    async def _everything(self, *, background: bool) -> View:
        async with self._limit(self._cadence.sweep_timeout) as deadline:
            return await self.target.sync.sweep(
                self.known.fleet,
                deadline=deadline,
                background=background,
                meanwhile=self._meanwhile,
            )

    async def _with_pool_names(self, view: View) -> View:
        """Only after the searches, and beyond their time limit: names must not cost a poll."""
        names = await self.target.pools.fetch()
        return view._replace(pool_names=names, requests=view.requests + 1)

    @contextlib.asynccontextmanager
    async def _limit(self, seconds: float) -> AsyncIterator[float]:
        """A time limit; gives its end, in monotonic seconds."""
        try:
            async with asyncio.timeout(seconds):
                yield self._monotonic() + seconds
        except TimeoutError:
            raise TimedOutError(f"not done within {seconds:g} s") from None

    def _plan_sweep(self, kind: PollKind, view: View) -> None:
        """After a poll in time: when everything has to be read next."""
        now = self._monotonic()
        if kind == "sweep":
            self._sweep_due = now + self._cadence.sweep_interval
            self._rested_at = now + _REST * self.costs[kind].seconds
        elif self._sweep_due is None:
            self._sweep_due = now  # we were away
        elif self.target.sync.needs_sweep(view, self.known.fleet):
            self._sweep_due = min(self._sweep_due, max(now, self._rested_at))
        self._sweep_wanted.set()

    def _conclude(self, kind: PollKind, error: PollError | None, seconds: float) -> None:
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
