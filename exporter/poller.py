"""When a target is polled, and what a failed poll means."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from exporter.clocks import Clocks
from exporter.errors import PollError, TimedOut
from exporter.exposition import Lines, render_block
from exporter.instruments import TargetInstruments
from exporter.metrics import Scope, fleet_blocks, job_blocks
from exporter.model.job import View
from exporter.notices import Notices
from exporter.target import Target
from exporter.tracker import Fleet, observe

log = logging.getLogger(__name__)

LATE_SECONDS = 1.0
"""A start this much after its time is late; less is the machine's usual jitter."""


@dataclass(frozen=True)
class Cadence:
    """Seconds: from start to start, for a whole sweep, and until state without a poll is stale."""

    interval: float
    sweep_timeout: float
    stale_after: float


Rendered = Mapping[str, Lines]
"""The series of a target, by family."""


class Poller:
    """Polls one target for ever: fetch, observe, publish.

    Attributes:
        fleet: what is known of the target's jobs; None before the first good poll.
        rendered: the series that are published.
        ended_polls: how many polls have ended, well or badly.
        error: what the last poll failed of; "" if it did not.
        last_success: unix seconds.
        requests: search requests of the last good poll.
        seconds: how long the last poll took.

    Args:
        target: what to poll.
        instruments: are told of every poll.
        cadence: when.
        scope: which jobs get series.
        publish: makes what changed visible; returns when it is.
        clocks: the machine's.
    """

    def __init__(
        self,
        target: Target,
        instruments: TargetInstruments,
        *,
        cadence: Cadence,
        scope: Scope,
        publish: Callable[[], Awaitable[None]],
        clocks: Clocks,
    ) -> None:
        self.target = target
        self.fleet: Fleet | None = None
        self.rendered: Rendered = {}
        self.ended_polls = 0
        self.error = ""
        self.last_success: float | None = None
        self.requests = 0
        self.seconds = 0.0
        self._instruments = instruments
        self._notices = Notices(target.name, instruments)
        self._cadence = cadence
        self._scope = scope
        self._publish = publish
        self._clock, self._monotonic, self._sleep = clocks
        self._fresh = asyncio.Event()
        self._fresh_until = 0.0

    @property
    def name(self) -> str:
        """For people; the project id in it may become known only by the first poll."""
        return self.target.name

    async def run(self) -> None:
        """Poll for ever. Ends only by an error that is nobody's fault but ours."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poll_in_time())
            group.create_task(self._withdraw_when_stale())

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

    async def _withdraw_when_stale(self) -> None:
        """Old job states are worse than none: take them back when no poll renews them."""
        while True:
            await self._fresh.wait()
            while (left := self._fresh_until - self._monotonic()) > 0:
                await self._sleep(left)
            self._fresh.clear()
            self.rendered = {}
            log.warning("job series withdrawn, no poll succeeded", extra={"target": self.name})
            await self._publish()

    async def poll(self) -> bool:
        """One poll, published well or badly; True if it succeeded."""
        started = self._monotonic()
        error: PollError | None = None
        try:
            async with asyncio.timeout(self._cadence.sweep_timeout):
                view = await self.target.sweep(deadline=started + self._cadence.sweep_timeout)
            await self._take(view)
        except PollError as failure:
            error = failure
        except TimeoutError:
            error = TimedOut(f"not done within {self._cadence.sweep_timeout:g} s")
        except Exception:  # a bug in one poll must not hide what the other polls know
            log.exception("poll failed unexpectedly", extra={"target": self.name})
            error = PollError("internal error, see the log")
        self.seconds = self._monotonic() - started
        self._conclude(error)
        await self._publish()
        self.ended_polls += 1
        return error is None

    async def _take(self, view: View) -> None:
        """Make a complete view the current state, computed beside the event loop."""
        now = self._clock()
        fleet, rendered, without = await asyncio.to_thread(
            _digest, self.fleet, view, self.target.labels, self._scope, now
        )
        self.fleet, self.rendered = fleet, rendered
        self.requests = view.pages
        self._notices.take(view)
        self._instruments.tracking(jobs=len(fleet.jobs), without_series=without)
        self._fresh_until = self._monotonic() + self._cadence.stale_after
        self._fresh.set()

    def _conclude(self, error: PollError | None) -> None:
        now = self._clock()
        if error is None:
            if self.error:
                log.info("polls succeed again", extra={"target": self.name})
            self.error = ""
            self.last_success = now
        else:
            self.error = str(error)
            facts = {"target": self.name, "result": error.reason}
            log.warning("poll failed: %s", error, extra=facts)
        self._instruments.rename(self.target.labels["project"])
        self._instruments.identified(
            mode=self.target.paging.mode or "auto", expires_at=self.target.credentials.expires_at
        )
        result = error.reason if error else "success"
        self._instruments.polled("sweep", result, self.seconds, now=now)


def _digest(
    known: Fleet | None, view: View, labels: Mapping[str, str], scope: Scope, now: float
) -> tuple[Fleet, Rendered, int]:
    """What is known after a view, and its series; in a thread, it takes a while for many jobs."""
    fleet = observe(known, view, now)
    blocks, without = job_blocks(fleet, labels, scope=scope, now=now)
    blocks = fleet_blocks(fleet, labels, scope=scope, now=now) + blocks
    return fleet, {block.metric.name: render_block(block) for block in blocks}, without
