"""Where time comes from. Passed in everywhere, so that no test waits for time to pass."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple


class Clocks(NamedTuple):
    """The machine's clocks, or a test's.

    Attributes:
        wall: unix seconds; may jump.
        monotonic: seconds; only ever goes forward.
        sleep: waits so many seconds.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
