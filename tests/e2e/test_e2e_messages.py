"""How many messages people get, from the shipped rules and route at 60 times the speed.

Counts of messages that must not come are taken after something later has come, or after Prometheus
has evaluated all rules long enough for them to have come.
"""

import json
import time
from collections import Counter

import pytest
from e2e import alertmanager as manager
from e2e import faster
from e2e import prometheus as real
from process.program import eventually, free_port, target, up

from exporter.simulator.faults import Fault
from exporter.simulator.fleet import Fleet
from exporter.simulator.server import SimulatedService

pytestmark = [pytest.mark.integration, pytest.mark.slow]

POOL = "llm-pretraining"
OPTIONS = {
    "target__name": "research",
    "poll__timeout": "3s",
    "poll__stale_after": "5s",  # 5 minutes at this speed
    "jobs__retention": "1h",
    "state__file": "state.db",
}
MANY = 300
AWAY = 20
"""Seconds that are 20 minutes at this speed."""

UNREACHABLE = ("CannotReachService", "DataStale")


@pytest.fixture(params=["PATH", "PROMETHEUS3_DIR"])
def where(request):
    real.binary(request.param)
    real.binary(request.param, manager.NAMES)
    return request.param


@pytest.fixture
async def service():
    async with SimulatedService(Fleet(1, time.time())) as service:
        yield service


@pytest.fixture
async def receiver():
    async with manager.Receiver() as receiver:
        yield receiver


class Discovery:
    """The file from which Prometheus reads its targets."""

    def __init__(self, folder):
        self._path = folder / "targets.json"

    def has(self, *addresses):
        """From now on Prometheus scrapes these."""
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps([{"targets": addresses}]))
        new.replace(self._path)


@pytest.fixture
def discovery(tmp_path):
    return Discovery(tmp_path)


@pytest.fixture
def observing(start, receiver, discovery, tmp_path, where):
    """Begins to scrape addresses and to send messages; the Prometheus."""

    async def begin(*addresses):
        discovery.has(*addresses)
        alertmanager = await manager.running(start, tmp_path, where, faster.route(receiver.url))
        files = [{"files": ["targets.json"], "refresh_interval": "1s"}]
        return await real.running(
            start,
            tmp_path,
            where,
            "",
            "--rules.alert.resend-delay=5s",
            rule_files=faster.rules(tmp_path),
            scrape_configs=[{"job_name": "modelarts", "file_sd_configs": files}],
            alerting={"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        )

    return begin


async def passing(prometheus, seconds):
    """Wait until Prometheus has evaluated rules for so many seconds more."""
    end = await prometheus.one("vector(time())") + seconds
    await prometheus.until(f"vector(time()) > {end}")


async def told(receiver, name, number=1):
    """Wait for so many messages of alerts of a name; the last one."""

    async def come():
        return [message for message in receiver.messages if message.name == name][number - 1 :]

    return (await eventually(come))[0]


def named(receiver, name):
    """The jobs that messages of alerts of a name have named so far."""
    messages = [message for message in receiver.messages if message.name == name]
    return {labels["job_id"] for message in messages for labels in message.firing}


def story(messages):
    """Who was told what, by how many messages."""
    return Counter((message.receiver, message.name) for message in messages)


def started(fleet, number):
    found = [fleet.create(pool=POOL) for _ in range(number)]
    for job in found:
        fleet.start(job)
    return found


async def test_hundreds_of_jobs_are_a_few_messages_that_name_them_all(
    start, service, receiver, observing, tmp_path
):
    fleet = service.fleet
    failing = started(fleet, MANY)
    addresses = []
    for number in range(2):  # two exporters give the messages of one
        addresses.append(f"127.0.0.1:{free_port()}")
        more = OPTIONS | {"state__file": f"{number}.db", "web__listen_address": addresses[-1]}
        exporter = start(*target(service, **more))
        await up(await exporter.url())
    prometheus = await observing(*addresses)
    await prometheus.until(f'count(modelarts_training_job_phase{{phase="Running"}}) == {2 * MANY}')
    assert receiver.messages == []

    waiting = [fleet.create(pool=POOL, at=time.time() - 5 * 3600) for _ in range(MANY)]
    for job in waiting:
        fleet.queue(job)
    for third in range(3):
        for job in failing[third::3]:
            fleet.finish(job, "Failed")
        await passing(prometheus, 0.3)

    for name, of in (("Failed", failing), ("PendingTooLong", waiting)):

        async def all_named(name=f"ModelArtsTrainingJob{name}", of=of):
            return named(receiver, name) == {job.id for job in of}

        await eventually(all_named)
    for name in ("FailureBurst", "FailureRatioHigh", "QueueBacklog"):
        await told(receiver, f"ModelArtsPool{name}")
    await passing(prometheus, 12)  # two group intervals
    many = story(receiver.messages)
    failures = {
        ("users", "ModelArtsTrainingJobFailed"),
        ("on-call", "ModelArtsPoolFailureBurst"),
        ("platform-jobs", "ModelArtsPoolFailureRatioHigh"),
    }
    queues = {
        ("platform-jobs", "ModelArtsTrainingJobPendingTooLong"),
        ("platform-jobs", "ModelArtsPoolQueueBacklog"),
    }
    assert many.keys() == failures | queues
    assert sum(many[key] for key in failures) <= 5
    assert sum(many[key] for key in queues) <= 5


async def test_an_outage_of_20_minutes_is_told_and_nothing_else(
    start, service, receiver, observing
):
    fleet = service.fleet
    failing, lost, _ = started(fleet, 3)
    waiting = fleet.create(pool=POOL, at=time.time() - 5 * 3600)
    fleet.queue(waiting)
    address = f"127.0.0.1:{free_port()}"
    options = target(service, **OPTIONS, web__listen_address=address)
    exporter = start(*options)
    await up(await exporter.url())
    prometheus = await observing(address)
    await prometheus.until("count(modelarts_training_job_phase) == 4")
    fleet.finish(failing, "Failed")
    fleet.finish(lost, "Abnormal", secondary="Lost")
    for name in ("PendingTooLong", "Failed", "Abnormal"):
        await told(receiver, f"ModelArtsTrainingJob{name}")
    before = story(receiver.messages)
    assert set(before.values()) == {1}

    # The service cannot be reached.
    unreachable = service.faults.add(Fault("reset"))
    await passing(prometheus, AWAY)
    service.faults.clear()
    assert unreachable.hits
    over = [await told(receiver, f"ModelArtsExporter{name}", 2) for name in UNREACHABLE]
    assert [message.firing for message in over] == [[]] * len(UNREACHABLE)
    await passing(prometheus, 12)  # two group intervals
    assert story(receiver.messages) - before == {
        ("platform", "ModelArtsExporterCannotReachService"): 2,
        ("on-call", "ModelArtsExporterDataStale"): 2,
    }
    told_so_far = story(receiver.messages)

    # The exporter is down.
    assert await exporter.stops() == 0
    await passing(prometheus, AWAY)
    exporter = start(*options)
    assert (await told(receiver, "ModelArtsExporterDataMissing", 2)).firing == []
    await passing(prometheus, 12)
    assert story(receiver.messages) - told_so_far == {
        ("on-call", "ModelArtsExporterDataMissing"): 2
    }
    assert await exporter.stops() == 0


async def test_a_second_failure_and_the_last_of_two_exporters_are_told(
    start, service, receiver, observing, discovery
):
    fleet = service.fleet
    again, other = started(fleet, 2)
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    for number, address in enumerate(addresses):
        more = OPTIONS | {"state__file": f"{number}.db", "web__listen_address": address}
        exporter = start(*target(service, **more))
        await up(await exporter.url())
    prometheus = await observing(*addresses)
    await prometheus.until('count(modelarts_training_job_phase{phase="Running"}) == 4')

    # The other failure stays in the group, so Alertmanager does not forget the first one.
    fleet.finish(again, "Failed")
    fleet.finish(other, "Failed")

    async def both():
        return named(receiver, "ModelArtsTrainingJobFailed") == {again.id, other.id}

    await eventually(both)
    fleet.reactivate(again)
    await prometheus.until('count(modelarts_training_job_phase{phase="Running"}) == 2')
    messages = len(receiver.messages)
    fleet.finish(again, "Failed")

    async def more():
        return len(receiver.messages) > messages

    await eventually(more)
    ended = [
        labels["ended"]
        for message in receiver.messages
        for labels in message.firing
        if labels["job_id"] == again.id
    ]
    assert len(set(ended)) == 2
    assert {message.name for message in receiver.messages} == {"ModelArtsTrainingJobFailed"}
    messages = len(receiver.messages)

    # One of two exporters is enough, and none is not, even if Prometheus no longer knows them.
    discovery.has(addresses[1])
    await prometheus.until("count(modelarts_up) == 1")
    await passing(prometheus, 12)
    assert len(receiver.messages) == messages
    discovery.has()
    assert (await told(receiver, "ModelArtsExporterDataMissing")).receiver == "on-call"
    await passing(prometheus, 12)  # longer than it takes ModelArtsExporterAbsent to fire
    discovery.has(*addresses)
    assert (await told(receiver, "ModelArtsExporterDataMissing", 2)).firing == []
    assert story(receiver.messages[messages:]) == {("on-call", "ModelArtsExporterDataMissing"): 2}
