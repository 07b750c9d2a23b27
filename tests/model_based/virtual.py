"""Time and threads of a test that is to go the same way twice: virtual, and none.

`run` runs a coroutine in an event loop whose clock jumps to the next timer instead of waiting for
it; what the exporter does in threads happens at once. So a day passes in seconds, and a seed tells
the whole story.
"""

import asyncio
import math
import selectors
from concurrent.futures import Future
from unittest.mock import patch


class StuckError(Exception):
    """Everybody waits for somebody else."""


class _Selector(selectors.DefaultSelector):
    """Passes the time until something is due."""

    def __init__(self):
        super().__init__()
        self.now = 1000.0

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise StuckError
            # The loop runs timers that are earlier than now.
            self.now = math.nextafter(self.now + max(timeout, 0.0), math.inf)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which no time passes but by its timers, or when `jump` is called."""

    def __init__(self):
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self._clock_resolution = 0.0  # a timer that fires a bit early would find no time passed

    def time(self):
        return self._virtual.now

    def jump(self, seconds):
        """As if the process had been stopped for so long."""
        self._virtual.now += seconds


class AtOnce:
    """An executor without a thread.

    Attributes:
        lazy: checkpoints of a state file are put off for ever, as if they were slow.
    """

    lazy = False

    def __init__(self, *_):
        pass

    def submit(self, work, *arguments):
        done = Future()
        if AtOnce.lazy and work.__name__ == "_checkpoint":
            return done
        try:
            done.set_result(work(*arguments))
        except BaseException as error:  # noqa: BLE001 - it is raised where the future is awaited
            done.set_exception(error)
        return done

    def shutdown(self, **_):
        pass


async def _to_thread(work, *arguments, **options):
    await asyncio.sleep(0)
    done = work(*arguments, **options)
    await asyncio.sleep(0)
    return done


def run(coroutine):
    """What the coroutine returns; all of it in virtual time."""
    with (
        patch("asyncio.to_thread", _to_thread),
        patch("exporter.storage.store.ThreadPoolExecutor", AtOnce),
        asyncio.Runner(loop_factory=VirtualLoop) as runner,
    ):
        return runner.run(coroutine)
