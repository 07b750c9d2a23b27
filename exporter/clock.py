"""The clocks. They are passed in everywhere, so that no test has to wait for time to pass."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

_REST_SECONDS = 0.001


class Clocks(NamedTuple):
    """The clocks of the machine, or of a test.

    Attributes:
        wall: Unix time in seconds; may jump.
        monotonic: seconds; never goes backward.
        sleep: waits for a number of seconds.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


def let_other_threads_run() -> None:
    """Call this after each of several long steps of a thread: only one thread runs at a time."""
    time.sleep(_REST_SECONDS)


async def wait(event: asyncio.Event, until: float | None, clocks: Clocks) -> None:
    """Wait for the event, at most until a time of the monotonic clock; None = no limit."""
    tasks: list[asyncio.Future[object]] = [asyncio.ensure_future(event.wait())]
    if until is not None:
        tasks.append(asyncio.ensure_future(clocks.sleep(max(0.0, until - clocks.monotonic()))))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
