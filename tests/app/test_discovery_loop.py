"""When lookups are made while the exporter runs, and when it is ready; time is the test's."""

import asyncio
import contextlib

import pytest
from polling.rig import Clock

from exporter.app.exporter import exporter
from exporter.clock import Clocks
from exporter.settings.load import load
from exporter.simulator.faults import Fault
from exporter.simulator.fleet import Fleet
from exporter.simulator.identity import AccessKey, Accounts, Identity
from exporter.simulator.server import SimulatedService

OWN, TEAM = "cn-north-4", "cn-north-4_team"


@pytest.fixture
def clock():
    clock = Clock()
    clock.patience = 1.0  # of the rate limit
    return clock


@pytest.fixture
def projects():
    return {OWN: "o" * 32}


@pytest.fixture
async def service(clock, projects):
    accounts = Accounts([AccessKey("AK", "SK", Identity(projects=projects))])
    fleet = Fleet(1, clock.service())
    fleet.start(fleet.create())
    async with SimulatedService(fleet, accounts=accounts, clock=clock.service) as service:
        yield service


@contextlib.asynccontextmanager
async def begun(service, clock, folder, *arguments):
    """The exporter, which runs until the test ends."""
    flags = {
        "target.region": OWN,
        "target.endpoint": service.url,
        "target.iam-endpoint": service.url,
        "api.retries": 0,
        "web.listen-address": "127.0.0.1:0",
    }
    environ = {"MODELARTS_EXPORTER_TARGET__AUTH__SECRET_KEY": "SK", "HOME": str(folder)}
    words = [f"--{name}={value}" for name, value in flags.items()]
    settings = load([*words, "--target.auth.access-key=AK", *arguments], environ)
    clocks = Clocks(clock.wall, clock.monotonic, clock.sleep)
    async with exporter(settings, environ, clocks) as running:
        stop = asyncio.Event()
        task = asyncio.create_task(running.run(stop))
        try:
            yield running
        finally:
            stop.set()
            await task


async def until(condition, clock=None):
    """Wait until a condition is true; with a clock, time passes meanwhile."""
    async with asyncio.timeout(60):
        while not condition():
            if clock:
                clock.passes(0.5)
            await asyncio.sleep(0.002)  # other tasks, and the service, make it true


def lookups(service):
    """When projects were looked up."""
    return [each.at for each in service.requests if each.operation == "projects"]


async def test_projects_are_looked_up_again_at_intervals(service, clock, projects, tmp_path):
    arguments = ("--target.projects=all", "--discovery.interval=2m", "--poll.interval=50s")
    async with begun(service, clock, tmp_path, *arguments) as running:
        await until(lambda: running.publisher.ready)
        projects[TEAM] = "t" * 32
        await until(lambda: len(running.pollers) == 2, clock)
        await until(lambda: running.pollers[1].ended_polls)
        first, second = lookups(service)
        assert second - first >= 120
        assert running.publisher.ready, "it stays ready"


async def test_it_is_not_ready_before_the_first_lookup_has_ended(service, clock, tmp_path):
    service.faults.add(Fault("hang", "projects"))
    async with begun(service, clock, tmp_path, "--target.projects=all") as running:
        await until(lambda: lookups(service))
        assert running.pollers == []
        assert not running.publisher.ready
        assert b"modelarts_exporter_discovered_targets 0.0" in running.publisher.exposition.text


async def test_a_lookup_that_failed_is_repeated_soon(service, clock, tmp_path):
    fault = Fault("status", "projects", status=503, times=1)
    service.faults.add(fault)
    arguments = ("--target.projects=all", "--discovery.interval=10m", "--poll.interval=1m")
    async with begun(service, clock, tmp_path, *arguments) as running:
        await until(lambda: running.publisher.ready)
        assert running.pollers == []
        await until(lambda: running.pollers and running.pollers[0].ended_polls, clock)
        first, second = lookups(service)
        assert 60 <= second - first < 600


async def test_a_new_file_is_noticed(service, clock, tmp_path):
    pattern = f"--targets-files={tmp_path}/*.yml"
    async with begun(service, clock, tmp_path, pattern, "--target.name=one") as running:
        await until(lambda: running.publisher.ready)
        places = f"endpoint: '{service.url}', iam_endpoint: '{service.url}'"
        target = f"{{region: {OWN}, name: two, {places}, auth: {{method: none}}}}"
        (tmp_path / "team.yml").write_text(f"- {target}\n")
        await until(lambda: len(running.pollers) == 2, clock)
        assert running.pollers[1].name == f"{OWN}/two"
