"""Rate limit the requests of a target, and pause when the service asks for it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from exporter.clock import Clocks


class RateLimiter:
    """Spaces the requests of one target evenly: no burst ever exceeds the configured rate.

    Args:
        rate: requests per second.
        clocks: of the machine.
    """

    def __init__(self, rate: float, clocks: Clocks) -> None:
        self._gap = 1 / rate
        self._monotonic = clocks.monotonic
        self._sleep = clocks.sleep
        self._next = clocks.monotonic()
        self._paused_until = self._next
        self._queue = asyncio.Lock()
        self._urgent = 0
        self._not_urgent = asyncio.Event()
        self._not_urgent.set()

    @property
    def free_at(self) -> float:
        """Monotonic seconds at which the next request can be sent."""
        return max(self._next, self._paused_until, self._monotonic())

    def pause(self, seconds: float) -> None:
        """Send nothing for this time; does not shorten a pause already in effect."""
        self._paused_until = max(self._paused_until, self._monotonic() + seconds)

    @contextmanager
    def urgent(self) -> Iterator[None]:
        """Hold back background requests inside this context."""
        self._urgent += 1
        self._not_urgent.clear()
        try:
            yield
        finally:
            self._urgent -= 1
            if not self._urgent:
                self._not_urgent.set()

    @property
    def is_urgent(self) -> bool:
        """Whether background requests have to wait."""
        return bool(self._urgent)

    async def wait_while_urgent(self) -> None:
        """Return once background requests may be sent."""
        await self._not_urgent.wait()

    async def acquire(self) -> None:
        """Return when the next request may be sent; first come, first served."""
        async with self._queue:
            while (wait := self.free_at - self._monotonic()) > 0:
                await self._sleep(wait)
            self._next = self._monotonic() + self._gap
