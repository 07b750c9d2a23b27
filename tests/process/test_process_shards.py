"""Shards as processes: their number changes, and every target is still polled, by one of them."""

import asyncio
import os
import signal
import time
from collections import defaultdict

import pytest
import yaml
from process.program import eventually, get, scraped, until, values

from exporter.simulator.fleet import Fleet
from exporter.simulator.identity import AccessKey, Accounts, Identity
from exporter.simulator.server import SimulatedService

OWN = "cn-north-4"
NUMBER = 60
JOBS = 5
PROJECTS = {f"{OWN}_p{number}": f"project{number}" for number in range(NUMBER)}
JOBS_METRIC = "modelarts_training_jobs"
INTERVAL = 2.0
RELOADED = "configuration reloaded"


@pytest.fixture
async def service():
    """A service with the same jobs in each of its projects; every shard has a key of its own."""
    names = [f"shard{index}" for index in range(3)]
    keys = [AccessKey(name, "SK", Identity(name, projects=PROJECTS)) for name in names]
    fleet = Fleet(1, time.time() - 1000)
    for _ in range(JOBS):
        fleet.start(fleet.create())
    fleet.pause()
    async with SimulatedService(fleet, accounts=Accounts(keys)) as service:
        yield service


class Shard:
    """One exporter and its configuration, which names its share."""

    def __init__(self, start, service, folder, index):
        self.index = index
        self.path = folder / f"shard{index}.yml"
        self.document = {
            "target": {
                "region": OWN,
                "endpoint": service.url,
                "iam_endpoint": service.url,
                "projects": "all",
            },
            "poll": {"interval": f"{INTERVAL:g}s"},
            "api": {"max_requests_per_second": 1000},
            "web": {"listen_address": "127.0.0.1:0"},
        }
        self.start = start
        self.program = None
        self.url = ""

    async def begins(self, count):
        self.write(count)
        environ = {"HUAWEICLOUD_SDK_AK": f"shard{self.index}", "HUAWEICLOUD_SDK_SK": "SK"}
        self.program = self.start(f"--config.file={self.path}", environ=environ)
        self.url = await self.program.url()
        await self.ready()

    def write(self, count):
        shard = {"shard": {"count": count, "index": self.index}}
        self.path.write_text(yaml.safe_dump(self.document | shard))

    async def ready(self):
        async def so():
            status, _, _ = await get(f"{self.url}/-/ready")
            return status == 200

        await eventually(so)

    async def reloads(self, count):
        self.write(count)
        before = self.program.stderr.count(RELOADED)
        os.kill(self.program.pid, signal.SIGHUP)
        await self.program.until(lambda: self.program.stderr.count(RELOADED) > before)


def jobs(found):
    """The number of jobs by project, where any are shown."""
    numbers = defaultdict(float)
    for (name, labels), value in found.items():
        if name == JOBS_METRIC:
            numbers[dict(labels)["project"]] += value
    return {project: number for project, number in numbers.items() if number}


async def shown(shards):
    """The number of jobs by project over all shards, and by how many shards each is shown."""
    numbers, times = {}, defaultdict(int)
    for shard in shards:
        for project, number in jobs(await scraped(shard.url)).items():
            numbers[project] = max(number, numbers.get(project, 0))
            times[project] += 1
    return numbers, times


async def settled(shards):
    """Wait until every project is shown by one shard."""

    async def so():
        numbers, times = await shown(shards)
        return numbers if times == dict.fromkeys(PROJECTS, 1) else None

    return await eventually(so)


async def all_up(shards):
    """Wait until the shards have polled everything."""

    async def so():
        found = [values(await scraped(shard.url), "modelarts_up") for shard in shards]
        return sum(map(sum, found)) == NUMBER

    await eventually(so)


def pollers_of(service, since):
    """Which shards have polled each project since a time."""
    found = defaultdict(set)
    for each in service.requests:
        if each.operation == "search" and each.at > since:
            found[each.path.split("/")[2]].add(each.identity)
    return found


async def polled_once_more(service):
    """Wait until all projects have been polled from now on, and return by whom."""
    since = time.time()
    await until(lambda: len(pollers_of(service, since)) == NUMBER)
    return pollers_of(service, since)


async def test_shards_are_added_and_removed(start, service, tmp_path):
    everything = dict.fromkeys(PROJECTS, JOBS)
    one, two, three = (Shard(start, service, tmp_path, index) for index in range(3))
    running, wrong = [one], []

    async def watch():
        """No project is ever missing, and none shows other numbers."""
        while True:
            some = list(running)
            numbers, _ = await shown(some)
            if numbers != everything and some == running:
                wrong.append((len(some), numbers))

    async with asyncio.timeout(240):
        await one.begins(1)
        assert await settled(running) == everything
        watching = asyncio.create_task(watch())

        await asyncio.gather(two.begins(3), three.begins(3))
        running += [two, three]
        await one.reloads(3)
        assert await settled(running) == everything
        since = await polled_once_more(service)
        assert {len(who) for who in since.values()} == {1}
        shares = {shard.index: jobs(await scraped(shard.url)).keys() for shard in running}
        assert all(len(share) > NUMBER / 6 for share in shares.values())

        await asyncio.gather(one.reloads(2), two.reloads(2))
        both = [one, two]
        await all_up(both)
        running.remove(three)
        assert await settled(both) == everything
        assert jobs(await scraped(one.url)).keys() >= shares[0], "only those of the third move"
        assert jobs(await scraped(two.url)).keys() >= shares[1]
        watching.cancel()
        await asyncio.wait([watching])
        assert await three.program.stops() == 0
        since = await polled_once_more(service)
        assert {len(who) for who in since.values()} == {1}
        found = await scraped(one.url)
        assert values(found, "modelarts_exporter_shard_info", index="0", count="2") == [1]
        assert values(found, "modelarts_exporter_discovered_targets") == [NUMBER]
    assert wrong == []
