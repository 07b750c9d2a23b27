"""An exporter in virtual time, in this process, that reads a `LongList` without sockets.

Only what it asks, and after how many polls it knows something, can be measured here: a day passes
in a minute. The clocks and the threads are those of the model-based tests.
"""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, TypeVar
from unittest.mock import patch

from common import HERE
from long_list import LongList

from exporter.app.factory import ProcessContext, make_poller, open_store, plans
from exporter.clock import Clocks
from exporter.huaweicloud.auth.lockout import KeyLockouts
from exporter.huaweicloud.http import Request, Response
from exporter.metrics.self_metrics import Instruments
from exporter.polling.registry import TargetRegistry
from exporter.settings.schema import Settings
from exporter.simulator.behaviour import Behaviour
from exporter.web.publisher import Publisher

sys.path.append(str(HERE.parent / "tests"))
from model_based import virtual

T = TypeVar("T")

INTERVAL = 60.0
_START = 1_750_000_000.0
_ENDPOINT = "http://service.test"
_LATENCY = 0.05


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run in virtual time; no other thread does anything meanwhile."""
    return virtual.run(coroutine)


class Wire:
    """Sends requests to a list; an `exporter.huaweicloud.http.Http`."""

    def __init__(self, jobs: LongList) -> None:
        self._jobs = jobs

    def connect(self, **_: Any) -> Self:
        """As `exporter.huaweicloud.http.Session`."""
        return self

    async def close(self) -> None:
        """There is no connection."""

    async def __call__(self, request: Request) -> Response:
        """Answer after a while."""
        await asyncio.sleep(_LATENCY)
        path = request.url.removeprefix(_ENDPOINT).partition("?")[0]
        reply = self._jobs.answer(request.method, path, request.body)
        return Response(reply.status, reply.headers, reply.body)


class VirtualExporter:
    """A target that is polled; created by `virtual_exporter`.

    Args:
        jobs: what the service lists.
        publisher: holds the body that is served.
    """

    def __init__(self, jobs: LongList, publisher: Publisher) -> None:
        self.jobs = jobs
        self._publisher = publisher

    @property
    def requests(self) -> int:
        """The requests so far."""
        return self.jobs.requests.total()

    @property
    def polls(self) -> float:
        """The successful incremental polls so far."""
        return self._sum("modelarts_exporter_polls_total", 'kind="incremental",', "success")

    @property
    def up_to_date(self) -> bool:
        """Whether as many jobs are known as are listed."""
        return self._sum("modelarts_exporter_tracked_jobs") == len(self.jobs)

    async def until(self, condition: Callable[[], bool], polls: int) -> None:
        """Wait for a condition, for at most this number of poll intervals.

        Raises:
            SystemExit: it has not become true by then.
        """
        for _ in range(round(polls * INTERVAL)):
            if condition():
                return
            await asyncio.sleep(1.0)
        raise SystemExit(f"not known after {polls} polls")

    async def pause(self, polls: int) -> None:
        """Wait for a number of polls."""
        end = self.polls + polls
        await self.until(lambda: self.polls >= end, 10 * polls)

    def _sum(self, family: str, *labels: str) -> float:
        text = self._publisher.exposition.text.decode()
        rows = re.findall(rf"^{family}\{{(.*)\}} (\S+)$", text, re.MULTILINE)
        return sum(float(value) for row, value in rows if all(each in row for each in labels))


@asynccontextmanager
async def virtual_exporter(
    jobs: int, active: int, behaviour: Behaviour, file: Path
) -> AsyncIterator[VirtualExporter]:
    """Poll a list of jobs, in the loop of `run`; begins when everything was read once.

    Args:
        jobs: number of jobs.
        active: how many of them are active.
        behaviour: of the service.
        file: the state file.
    """
    loop = asyncio.get_running_loop()

    def wall() -> float:
        return _START + loop.time()

    clocks = Clocks(wall, loop.time, asyncio.sleep)
    instruments = Instruments()
    publisher = Publisher(instruments)
    found = VirtualExporter(LongList(jobs, active, clock=wall, behaviour=behaviour), publisher)
    store = await open_store(str(file), instruments, clocks)
    context = ProcessContext(
        environ={},
        clocks=clocks,
        instruments=instruments,
        lockouts=KeyLockouts(clocks.monotonic),
        store=store,
        publish=publisher.publish,
        registry=TargetRegistry(),
        connect=Wire(found.jobs).connect,
    )
    (plan,) = plans(_settings(), {})
    with patch("exporter.metrics.self_metrics.ProcessCollector"):
        poller = await make_poller(plan, context)
        poller.show()
        publisher.set_pollers([poller])
        tasks = [asyncio.create_task(each()) for each in (publisher.run, poller.run)]
        try:
            # At 5 requests a second, reading a million jobs takes an hour and a half.
            await found.until(lambda: found.up_to_date, 240)
            yield found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await store.close()


def _settings() -> Settings:
    return Settings.model_validate(
        {
            "target": {
                "region": "r",
                "project_id": "p",
                "endpoint": _ENDPOINT,
                "iam_endpoint": _ENDPOINT,
                "auth": {"method": "none"},
            },
            "poll": {"interval": INTERVAL, "sweep_timeout": 6 * 3600.0},
        }
    )
