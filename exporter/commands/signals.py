"""Signals as callbacks in the event loop, until the process has ended."""

import asyncio
import signal
from collections.abc import Callable
from types import FrameType


def on_signal(number: signal.Signals, callback: Callable[[], object]) -> None:
    """Call a function in the running event loop whenever a signal arrives.

    Unlike with `loop.add_signal_handler`, the default action does not come back when the loop is
    closed: a second signal would then kill a process that has done its work, and change its exit
    code. The handler that was there before gets what arrives later.
    """
    loop = asyncio.get_running_loop()
    before = signal.getsignal(number)

    def handle(received: int, frame: FrameType | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(callback)
        elif callable(before):
            before(received, frame)

    signal.signal(number, handle)
