"""Programs that end with their test, and a service for them."""

import pytest
from process.program import free_port, programs

from exporter.simulator.fleet import Fleet
from exporter.simulator.server import SimulatedService

START = 1_750_000_000.0


@pytest.fixture
def start(tmp_path):
    with programs(tmp_path) as begin:
        yield begin


@pytest.fixture
def closed_port():
    """A port on which nothing listens."""
    return free_port()


@pytest.fixture
def fleet():
    return Fleet(1, START)


@pytest.fixture
async def service(fleet):
    """A service without authentication; 10 jobs run."""
    for job in [fleet.create() for _ in range(10)]:
        fleet.start(job)
    async with SimulatedService(fleet) as service:
        yield service
