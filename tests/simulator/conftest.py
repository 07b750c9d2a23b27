"""A world with a manual clock, a service for it and a client."""

import aiohttp
import pytest

from exporter.simulator.fleet import Fleet
from exporter.simulator.server import SimulatedService

START = 1_750_000_000.0
PROJECT = "0605767eb780d5762f5ec0196d1d2f3a"


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def fleet():
    return Fleet(1, START)


class Client:
    """Calls one service and reads the responses."""

    def __init__(self, session, service):
        self.session = session
        self.service = service

    async def __call__(self, method, path, **arguments):
        url = self.service.url + path
        async with self.session.request(method, url, allow_redirects=False, **arguments) as answer:
            await answer.read()
            return answer

    async def search(self, query, **arguments):
        return await self("POST", f"/v2/{PROJECT}/training-job-searches", json=query, **arguments)

    async def ids(self, **query):
        document = await (await self.search(query)).json()
        return [item["metadata"]["id"] for item in document["items"]]


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def service(fleet, clock):
    async with SimulatedService(fleet, clock=clock) as service:
        yield service


@pytest.fixture
def client(session, service):
    return Client(session, service)
