"""When a target is read, and what a failed poll means."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

from exporter.clock import Clocks, wait
from exporter.errors import HistoryLostError, PollError, StateError, TimedOutError
from exporter.jobs.fleet import Fleet
from exporter.jobs.job import View
from exporter.metrics.self_metrics import TargetInstruments
from exporter.polling.pools import PoolMonitor
from exporter.polling.render import Rendered
from exporter.polling.state import TargetState
from exporter.polling.status import FirstPages, PollCost, PollerStatus, PollKind
from exporter.polling.target import Target
from exporter.polling.whole_reading import WholeReading
from exporter.settings.schema import JobsSettings, PollSettings
from exporter.storage.store import Store

log = logging.getLogger(__name__)

LATE_SECONDS = 1.0
"""A start this much after its time is late; less is the usual jitter of a machine."""

_REST_FACTOR = 4.0
"""An unscheduled sweep waits this many times the duration of the last one."""


class _Outcome(NamedTuple):
    """A successful poll: its kind, what it has read, and the number of events that brought."""

    kind: PollKind
    view: View
    events: int


class Poller:
    """Reads one target until cancelled: changes at every interval, and beside it all the rest.

    Args:
        target: what to read.
        instruments: count its polls.
        poll: when to read.
        jobs: which jobs get series.
        store: saves the state beyond the process.
        publish: makes changes visible; returns the generation that shows them.
        clocks: the machine's.

    Attributes:
        target: as given.
        state: what is known about the target.
        pools: how full its resource pools are.
        ended_polls: how many polls have ended, well or badly.
        error: why the last poll failed; "" if it succeeded.
    """

    def __init__(
        self,
        target: Target,
        instruments: TargetInstruments,
        *,
        poll: PollSettings,
        jobs: JobsSettings,
        store: Store,
        publish: Callable[[], Awaitable[int]],
        clocks: Clocks,
    ) -> None:
        self.target = target
        self.state = TargetState(
            target,
            instruments,
            poll=poll,
            jobs=jobs,
            store=store,
            publish=publish,
            clocks=clocks,
        )
        self.ended_polls = 0
        self.error = ""
        self._last_success: float | None = None
        self._costs: dict[PollKind, PollCost] = {}
        self._instruments = instruments
        self._settings = poll
        self._history = jobs.history
        self._clocks = clocks
        self.pools = PoolMonitor(
            target,
            instruments,
            lambda: self.state.fleet,
            interval=poll.pools_interval,
            publish=publish,
            clocks=clocks,
        )
        self._polling = asyncio.Lock()
        self._polled_meanwhile: set[str] = set()
        """Jobs that polls have read, or found gone, since the reading beside them began."""
        self._no_sweep_before = 0.0
        self._sweep_due: float | None = None
        self._unverified: View | None = None
        """The last incremental poll, as long as no verification has followed."""
        self._polled = asyncio.Event()
        self._verification_error = ""
        self._introduced = False

    @property
    def name(self) -> str:
        """The name in log lines and tables."""
        return self.target.name

    @property
    def rendered(self) -> Rendered:
        """The series to publish."""
        return {**self.state.rendered, **self.pools.rendered}

    def status(self) -> PollerStatus:
        """A snapshot, consistent between two steps of the event loop."""
        return PollerStatus(
            name=self.name,
            labels=self.target.identity.labels,
            identity=self.target.credentials.identity,
            polled=bool(self.ended_polls),
            error=self.error,
            last_success=self._last_success,
            costs=dict(self._costs),
            fleet=self.state.fleet,
            history=self._history,
            pagination=self.target.paging.mode,
            pools_trouble=self.target.pools.error,
            permissions=self.target.pools.permissions,
            pools=self.pools.snapshot,
            pools_cost=self.target.pools.cost,
        )

    def show(self) -> None:
        """Show the exporter's own metrics about the target from now on."""
        self._instruments.show()
        self.state.report()

    def remove(self) -> None:
        """Remove the exporter's own metrics about the target."""
        self._instruments.remove()

    async def take_over(self, other: "Poller") -> None:
        """Continue where another poller of the same target was when it was stopped for good."""
        self.target.take_over(other.target)
        self._instruments.rename(self.target.identity.labels["project"])
        if left := other.state.hand_over():
            await self.state.take_over(left)
        before = other.status()
        self.ended_polls, self.error = other.ended_polls, before.error
        self._last_success, self._costs = before.last_success, dict(before.costs)
        self._introduced = bool(self._costs)
        await self.pools.show()

    async def run(self) -> None:
        """Poll until cancelled. Anything else that ends it is a bug."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poll_at_intervals())
            group.create_task(self._read_beside_polls())
            group.create_task(self.state.run())
            group.create_task(self.pools.run())

    async def poll(self) -> bool:
        """Read what may have changed, the first time everything; True if that succeeded."""
        async with self._polling:
            return await self._attempt(self._kind, self._poll)

    async def poll_once(self) -> bool:
        """Poll, and read how full the pools are; True if the poll succeeded."""
        succeeded = await self.poll()
        if succeeded:
            await self.pools.read()
        return succeeded

    async def sweep(self) -> bool:
        """Read everything while polls go on; True if that succeeded."""
        if not self.state.has_baseline:
            return await self.poll()  # the first one reads everything
        return await self._attempt("sweep", self._sweep)

    async def verify(self) -> bool:
        """Look for what polls do not see, after the last of them; True if that succeeded."""
        view, self._unverified = self._unverified, None
        error = ""
        try:
            if view is not None and await self._verify(view):
                await self.state.publish()
        except (PollError, StateError) as failure:
            self._expect_loss(failure)
            error = str(failure)
        except Exception:  # as in a poll
            log.exception("verification failed unexpectedly", extra={"target": self.name})
            error = "internal error, see the log"
        if error and not self._verification_error:
            log.warning("list not verified: %s", error, extra={"target": self.name})
        self._verification_error = error
        return not error

    async def read(self) -> View:
        """Read everything, without changing the state.

        Raises:
            PollError: it could not be read as a whole.
        """
        async with self._limit(self._settings.timeout):
            await self.target.connect()
            self._instruments.rename(self.target.identity.labels["project"])
        async with self._limit(self._settings.sweep_timeout) as deadline:
            view = await self.target.sync.sweep(
                Fleet(), self.state.known, deadline=deadline, background=False
            )
        return await self.state.limit_labels(await self._with_pool_names(view))

    async def read_first_pages(self) -> FirstPages:
        """Sign in and read one page of each workspace, without changing the state.

        Raises:
            PollError: a page could not be read.
        """
        started = self._clocks.monotonic()
        async with self._limit(self._settings.timeout) as deadline:
            await self.target.connect()
            results = await self.target.sync.first_pages(deadline=deadline)
        cost = PollCost(len(results), self._clocks.monotonic() - started)
        names = await self.target.pools.list_pools()
        listed = [len(each.jobs) if each.complete else each.total for each in results]
        return FirstPages(
            listed=None if None in listed else sum(filter(None, listed)),
            pools=None if names is None else len(names.names),
            cost=cost,
        )

    # --- When -------------------------------------------------------------------------------------

    async def _poll_at_intervals(self) -> None:
        """Poll from start to start: never two at once, and a missed start is not made up for."""
        due = self._clocks.monotonic()
        while True:
            await self.poll()
            self._introduce()
            due += self._settings.interval
            if (left := due - self._clocks.monotonic()) > 0:
                await self._clocks.sleep(left)
            now = self._clocks.monotonic()
            if now - due > LATE_SECONDS:
                self._instruments.started_late()
                due = now

    async def _read_beside_polls(self) -> None:
        """After every poll, verify the lists; sweep if something has asked for it."""
        while True:
            due, started = self._sweep_due, self._clocks.monotonic()
            if due is not None and started >= due:
                if not await self.sweep():
                    ended = self._clocks.monotonic()
                    rest = max(self._settings.interval, _REST_FACTOR * (ended - started))
                    self._no_sweep_before = ended + min(rest, self._settings.sweep_interval)
                    self._sweep_due = self._no_sweep_before
                self._introduce()
            elif self._unverified is not None:
                await self.verify()
            else:
                self._polled.clear()
                await wait(self._polled, due, self._clocks)

    # --- Reading ----------------------------------------------------------------------------------

    async def _attempt(self, kind: PollKind, read: Callable[[], Awaitable[_Outcome]]) -> bool:
        """Read and apply, then publish. A failure leaves the state unchanged."""
        started = self._clocks.monotonic()
        result: _Outcome | PollError
        try:
            result = await read()
            kind = result.kind
            seconds = self._clocks.monotonic() - started
            self._costs[kind] = PollCost(result.view.requests, seconds)
            self._plan_reading(kind, result.view)
        except PollError as error:
            result = error
        except StateError as error:
            self._expect_loss(error)
            result = PollError(str(error))
        except Exception:  # a bug in one poll must not take down the others
            log.exception("poll failed unexpectedly", extra={"target": self.name})
            result = PollError("internal error, see the log")
        seconds = self._clocks.monotonic() - started
        await self.state.publish(lambda: self._conclude(kind, result, seconds))
        self.ended_polls += 1
        self.pools.polled(succeeded=not isinstance(result, PollError))
        return not isinstance(result, PollError)

    def _expect_loss(self, error: Exception) -> None:
        if isinstance(error, HistoryLostError):
            self.state.must_load_again()

    @property
    def _kind(self) -> PollKind:
        """The kind of the next poll: everything, as long as there is no baseline."""
        return "incremental" if self.state.has_baseline else "sweep"

    async def _poll(self) -> _Outcome:
        kind, view, reading = await self._read_in_time()
        view = await self._with_pool_names(view)
        events = await self.state.apply(view, reading)
        self._polled_meanwhile |= view.jobs.keys() | view.deleted
        return _Outcome(kind, view, events)

    async def _sweep(self) -> _Outcome:
        """Jobs that polls have read meanwhile are left out: the polls may have read them later."""
        async with self._polling:
            polled = self._polled_meanwhile = set()
        view, _ = await self._everything(background=True, is_superseded=polled.__contains__)
        view = await self._with_pool_names(view)
        async with self._polling:  # a poll that is half done may have read older things
            view = await asyncio.to_thread(view.without, polled)
            events = await self.state.apply(view)
        return _Outcome("sweep", view, events)

    async def _verify(self, polled_view: View) -> bool:
        """Return whether anything was found. As in a sweep, what polls have read meanwhile wins."""
        async with self._polling:
            polled = self._polled_meanwhile = set()
        async with self._limit(self._settings.sweep_timeout) as deadline:
            view, sweep = await self.target.sync.verify(
                self.state.fleet, self.state.known_list, polled_view, deadline=deadline
            )
        async with self._polling:
            if view.jobs or view.deleted or view.verification:
                await self.state.apply(view.without(polled))
        if sweep or self.target.sync.needs_sweep(view, self.state.fleet):
            self._ask_for_sweep()
        facts = {"target": self.name, "requests": view.requests, "deleted": len(view.deleted)}
        log.debug("list verified", extra=facts)
        return bool(view.jobs or view.deleted or view.verification)

    async def _read_in_time(self) -> tuple[PollKind, View, WholeReading | None]:
        async with self._limit(self._settings.timeout):
            await self.target.connect()
            self._instruments.rename(self.target.identity.labels["project"])
            await self.state.load()
        if self._kind == "sweep":
            return "sweep", *await self._everything(background=False)
        async with self._limit(self._settings.timeout) as deadline:
            view = await self.target.sync.incremental(
                self.state.fleet, self.state.known, deadline=deadline
            )
        return "incremental", view, None

    async def _everything(
        self, *, background: bool, is_superseded: Callable[[str], bool] = lambda _: False
    ) -> tuple[View, WholeReading]:
        async with self._limit(self._settings.sweep_timeout) as deadline:
            reading = await self.state.begin_reading()
            view = await self.target.sync.sweep(
                self.state.fleet,
                self.state.known,
                deadline=deadline,
                background=background,
                is_superseded=is_superseded,
                take=reading.take,
            )
            await reading.save()
        return view, reading

    async def _with_pool_names(self, view: View) -> View:
        """Add the names of pools, after the searches and outside their time limit.

        They are requested unless they were read lately. They never make a poll fail.
        """
        pools = await self.target.pools.list_pools(max_age=self.pools.names_max_age)
        requests = view.requests + self.target.pools.requests
        if pools is None:
            return view._replace(requests=requests)
        return view._replace(
            pool_names=pools.names, pool_types=pools.flavor_types, requests=requests
        )

    @contextlib.asynccontextmanager
    async def _limit(self, seconds: float) -> AsyncIterator[float]:
        """A time limit; yields its end, in monotonic seconds."""
        try:
            async with asyncio.timeout(seconds):
                yield self._clocks.monotonic() + seconds
        except TimeoutError:
            raise TimedOutError(f"not done within {seconds:g} s") from None

    def _plan_reading(self, kind: PollKind, view: View) -> None:
        """After a successful poll: what to read beside the next ones."""
        now = self._clocks.monotonic()
        if kind == "sweep":
            self._sweep_due, self._unverified = None, None
            self._no_sweep_before = now + _REST_FACTOR * self._costs[kind].seconds
            return
        self._unverified = view
        if self.target.sync.needs_sweep(view, self.state.fleet):
            self._ask_for_sweep()
        self._polled.set()

    def _ask_for_sweep(self) -> None:
        if self._sweep_due is None:
            self._sweep_due = max(self._clocks.monotonic(), self._no_sweep_before)

    def _conclude(self, kind: PollKind, outcome: _Outcome | PollError, seconds: float) -> None:
        now = self._clocks.wall()
        facts: dict[str, object] = {"target": self.name, "kind": kind}
        if isinstance(outcome, PollError):
            result, read = outcome.reason, {}
            self.error = str(outcome)
            log.warning("poll failed: %s", outcome, extra=facts | {"result": result})
        else:
            requests, jobs = outcome.view.requests, outcome.view.read
            result, read = "success", {"requests": requests, "jobs": jobs, "events": outcome.events}
            if self.error:
                log.info("polls succeed again", extra={"target": self.name})
            self.error = ""
            self._last_success = now
        facts |= {"result": result, "seconds": round(seconds, 3), **read}
        log.debug("poll ended", extra=facts)
        self._instruments.identified(
            mode=self.target.paging.mode or "auto", expires_at=self.target.credentials.expires_at
        )
        self._instruments.polled(kind, result, seconds, now=now)

    def _introduce(self) -> None:
        """Log once, after the first complete reading, how the target is read."""
        cost = self._costs.get("sweep") or self._costs.get("incremental")
        if self._introduced or cost is None:
            return
        self._introduced = True
        target = self.target
        facts = {
            "target": self.name,
            "jobs": len(self.state.fleet),
            "requests": cost.requests,
            "seconds": round(cost.seconds, 3),
            "identity": target.credentials.identity,
            "pagination": target.paging.mode or "auto",
            "missing_permissions": ",".join(self.status().missing_permissions) or "none",
        }
        log.info("first complete reading of the target", extra=facts)
