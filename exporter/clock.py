"""The source of time. Passed in everywhere, so that no test waits for time to pass."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple


class Clocks(NamedTuple):
    """The machine's clocks, or a test's.

    Attributes:
        wall: unix seconds; may jump.
        monotonic: seconds; only ever goes forward.
        sleep: waits for a number of seconds.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


async def wait(event: asyncio.Event, until: float | None, clocks: Clocks) -> None:
    """Return at the event, or at a moment of the monotonic clock; None = never."""
    tasks: list[asyncio.Future[object]] = [asyncio.ensure_future(event.wait())]
    if until is not None:
        tasks.append(asyncio.ensure_future(clocks.sleep(max(0.0, until - clocks.monotonic()))))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
