"""When a target may send its next request: the configured rate, and pauses asked for."""

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
        self._calm = asyncio.Event()
        self._calm.set()

    @property
    def free_at(self) -> float:
        """Monotonic seconds at which a request asked for now would be sent."""
        return max(self._next, self._paused_until, self._monotonic())

    def pause(self, seconds: float) -> None:
        """Send nothing for so long; a longer pause already in force stays."""
        self._paused_until = max(self._paused_until, self._monotonic() + seconds)

    @contextmanager
    def urgent(self) -> Iterator[None]:
        """While this lasts, requests in the background wait."""
        self._urgent += 1
        self._calm.clear()
        try:
            yield
        finally:
            self._urgent -= 1
            if not self._urgent:
                self._calm.set()

    @property
    def is_calm(self) -> bool:
        """Whether nothing is urgent."""
        return not self._urgent

    async def calm(self) -> None:
        """Return when nothing is urgent."""
        await self._calm.wait()

    async def acquire(self) -> None:
        """Return when the next request may be sent; first come, first served."""
        async with self._queue:
            while (wait := self.free_at - self._monotonic()) > 0:
                await self._sleep(wait)
            self._next = self._monotonic() + self._gap
