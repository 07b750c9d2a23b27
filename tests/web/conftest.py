"""A stub publisher, an application serving it on loopback, and clients."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import NamedTuple

import aiohttp
import pytest

from exporter.jobs.fleet import Fleet
from exporter.jobs.pool import PoolSnapshot
from exporter.metrics.exposition import Exposition, Metric, SampleBlock, assemble, render_block
from exporter.polling.status import PollerStatus
from exporter.web.listen import serve
from exporter.web.server import make_app


@dataclass
class StubPoller:
    name: str = "prod"
    error: str = ""
    last_success: float | None = None
    ended_polls: int = 0
    region: str = "cn-north-4"
    costs: dict = field(default_factory=dict)
    fleet: Fleet = field(default_factory=Fleet)
    history: float = 0.0
    pools: PoolSnapshot = field(default_factory=PoolSnapshot)

    def status(self):
        return PollerStatus(
            name=self.name,
            labels={"region": self.region, "project": self.name},
            identity="",
            polled=bool(self.ended_polls),
            error=self.error,
            last_success=self.last_success,
            costs=self.costs,
            fleet=self.fleet,
            history=self.history,
            pagination=None,
            pools_trouble="",
            pools=self.pools,
        )


@dataclass
class StubPublisher:
    exposition: Exposition = field(default_factory=lambda: assemble([]))
    pollers: list = field(default_factory=list)

    @property
    def ready(self):
        return all(poller.ended_polls for poller in self.pollers)


def generation(number, jobs=2000):
    """An exposition whose every sample has the number of its generation as value."""
    samples = [((f"job-{job}",), float(number)) for job in range(jobs)]
    block = SampleBlock(Metric("jobs", "gauge", "Jobs."), ("job_id",), {}, samples)
    return assemble([(block.metric, [render_block(block)])])


def of_size(size):
    """An exposition with arbitrary content of the given size in every format."""
    body = bytes(size)
    return Exposition(body, body, body, body)


class Answer(NamedTuple):
    """A response with its body as received, without decompression."""

    status: int
    headers: dict
    body: bytes

    @property
    def text(self):
        return self.body.decode()


class Served:
    """A listening application, as seen by its clients."""

    def __init__(self, url, session=None):
        self.url = url
        self.session = session
        self.port = int(url.rpartition(":")[2])

    async def __call__(self, method, path, **arguments):
        async with self.session.request(method, self.url + path, **arguments) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    @property
    def busy(self):
        """True while a request is being handled."""
        return any("_handle_request" in repr(task) for task in asyncio.all_tasks())

    async def idle(self):
        """Wait until no request is being handled."""
        while self.busy:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.02)

    async def raw(self, request, *, limit=2**16):
        """Open a connection and send a raw request."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=limit)
        writer.write(request)
        return reader, writer


@pytest.fixture
def publisher():
    return StubPublisher()


@pytest.fixture
def poller():
    return StubPoller


@pytest.fixture
def make_generation():
    return generation


@pytest.fixture
def make_size():
    return of_size


@pytest.fixture
def served_at():
    return Served


@pytest.fixture
def serving(publisher):
    """Starts an application that serves the publisher; takes the options of `make_app`."""

    @contextlib.asynccontextmanager
    async def start(**options):
        app = make_app(publisher, **options)
        async with (
            serve(app, [("127.0.0.1", 0)]) as urls,
            aiohttp.ClientSession(auto_decompress=False) as session,
        ):
            yield Served(urls[0], session)

    return start


@pytest.fixture
async def site(serving):
    async with serving() as served:
        yield served
