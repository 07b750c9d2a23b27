"""Pollers made by the factory and a publisher, against a simulated service on a port.

Time is the test's: it passes where the exporter sleeps, and where the test says so.
"""

import asyncio
import contextlib
import functools
import json
import math
import re
from collections import Counter
from dataclasses import dataclass

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.app.factory import ProcessContext, make_poller, plans
from exporter.clock import Clocks
from exporter.huaweicloud.auth.lockout import KeyLockouts
from exporter.huaweicloud.http import Session
from exporter.metrics.self_metrics import Instruments
from exporter.polling.registry import TargetRegistry
from exporter.settings.schema import Settings
from exporter.simulator.fleet import Fleet
from exporter.simulator.identity import PROJECT_ID
from exporter.simulator.server import SimulatedService
from exporter.storage.store import Store
from exporter.web.publisher import Publisher

START = 1_750_000_000.0
REGION = "cn-north-4"
INTERVAL = 60.0
SWEEP_INTERVAL = 3600.0
STALE_AFTER = 300.0
POLLS = "modelarts_exporter_polls_total"
REQUESTS = "modelarts_exporter_api_requests_total"
RETRIES = "modelarts_exporter_api_retries_total"
PAGINATION = "modelarts_exporter_pagination_info"
EXPIRY = "modelarts_exporter_credentials_expiry_timestamp_seconds"
MAY_VANISH = {PAGINATION, EXPIRY}
"""A mode that is to be found out again; a token that was refused."""
INCONSISTENT = "modelarts_exporter_inconsistent_pages_total"
STATE = "modelarts_training_"
"""What the names of all series of the service's jobs begin with."""


def both_ways(test):
    """What comes after the first poll, which reads everything: changes, or everything again."""
    again = pytest.mark.parametrize("_both_ways", ["poll", "sweep"], indirect=True)
    return pytest.mark.usefixtures("_both_ways")(again(test))


class Clock:
    """Clocks that agree unless told otherwise.

    Attributes:
        patience: seconds; shorter sleeps pass by themselves, longer ones when the test lets time
            pass.
        off: seconds that our wall clock is ahead of the service's.
        suspended: seconds that our monotonic clock has missed.
    """

    def __init__(self):
        self.patience = math.inf
        self.off = 0.0
        self.suspended = 0.0
        self._elapsed = 0.0
        self._sleepers = []

    def service(self):
        return START + self._elapsed

    def wall(self):
        return START + self._elapsed + self.off

    def monotonic(self):
        return 1000.0 + self._elapsed - self.suspended

    def passes(self, seconds):
        self._elapsed += seconds
        now = self.monotonic() + 1e-6  # sums of parts of a second are not exact
        for sleeper in [one for one in self._sleepers if one[0] <= now]:
            self._sleepers.remove(sleeper)
            if not sleeper[1].done():
                sleeper[1].set_result(None)

    def passes_until(self, moment):
        """Let time pass until the monotonic clock shows so many seconds since the start."""
        self.passes(max(0.0, 1000.0 + moment - self.monotonic()))

    async def sleep(self, seconds):
        until = self.monotonic() + seconds
        if seconds <= self.patience:
            await asyncio.sleep(0)  # others may fall asleep at the same moment
            self.passes(max(0.0, until - self.monotonic()))
        else:
            woken = asyncio.get_running_loop().create_future()
            self._sleepers.append((until, woken))
            await woken


class RecordedSession(Session):
    """Remembers when what was sent: pairs of monotonic seconds and operation."""

    def __init__(self, clock, **options):
        super().__init__(**options)
        self.sent = []
        self._clock = clock

    async def __call__(self, request):
        self.sent.append((self._clock.monotonic(), request.operation))
        return await super().__call__(request)

    def times(self, operation="search"):
        return [moment for moment, what in self.sent if what == operation]


class Registry(TargetRegistry):
    """Its targets are those of the pollers that there are at any moment."""

    def __init__(self, pollers):
        self._pollers = pollers

    @property
    def targets(self):
        return [poller.target for poller in self._pollers]


@dataclass
class Step:
    """One poll, and the published samples before and after it."""

    ok: bool
    kind: str
    before: dict
    after: dict

    def grew(self, name, label):
        """By how much each counter of that name has grown, by the value of a label."""
        growth = Counter()
        for (sample, labels), value in self.after.items():
            if sample == name:
                growth[dict(labels).get(label)] += value - self.before.get((sample, labels), 0.0)
        return {key: number for key, number in growth.items() if number}

    def kept(self, result):
        """What every failed poll promises (docs/architecture.md, complete or nothing)."""
        assert not self.ok
        assert self.grew(POLLS, "result") == {result: 1}
        assert self.grew(POLLS, "kind") == {self.kind: 1}
        assert states(self.before) == states(self.after)
        vanished = self.before.keys() - self.after.keys()
        # The number of series of a family goes with the family.
        families = {dict(labels).get("family", name) for name, labels in vanished}
        assert families <= MAY_VANISH
        assert {value for (name, _), value in self.after.items() if name == "modelarts_up"} == {0}
        assert not [
            key for key, value in self.before.items() if falls(key[0], value, self.after, key)
        ]
        return self


def falls(name, value, after, key):
    return name.endswith(("_total", "_bucket", "_count")) and after[key] < value


def parsed(text):
    """The samples of an exposition, by name and labels; none is there twice."""
    samples = [parsed_line(line) for line in text.splitlines() if not line.startswith("#")]
    found = dict(samples)
    assert len(found) == len(samples)
    return found


@functools.cache
def parsed_line(line):
    """Most lines stay the same from poll to poll, and even from test to test."""
    (family,) = text_string_to_metric_families(line)
    (sample,) = family.samples
    return (sample.name, tuple(sorted(sample.labels.items()))), sample.value


def asked_for(request):
    """``get``, or the filter of a search: its key, or ``list``."""
    if request.operation != "search":
        return request.operation
    filters = json.loads(request.body).get("filters") or [{"key": "list"}]
    return filters[0]["key"]


def states(samples):
    """All that is told of jobs, what is as well as what has happened."""
    return {key: value for key, value in samples.items() if key[0].startswith(STATE)}


def events(samples):
    """What has happened: the counters and histograms of the fleet."""
    return {
        key: value
        for key, value in states(samples).items()
        if key[0].endswith(("_total", "_bucket", "_count", "_sum"))
        and not key[0].startswith(STATE + "job_")
    }


POLL = {
    "interval": INTERVAL,
    "timeout": 120.0,
    "sweep_interval": SWEEP_INTERVAL,
    "sweep_timeout": 1800.0,
    "stale_after": STALE_AFTER,
    "pools_interval": 0.0,
}


class Rig:
    """One process's worth of exporter without its web server, and one service.

    Attributes:
        fleet: the service's world.
        service: once started.
        read: what `step` does once there is a first poll: ``poll`` or ``sweep``.
    """

    def __init__(self, clock):
        self.clock = clock
        self.fleet = Fleet(1, START)
        self.service = None
        self.read = "poll"
        self.instruments = Instruments()
        self.publisher = Publisher(self.instruments)
        self._parsed = None, {}
        self._lockouts = KeyLockouts(clock.monotonic)
        self.registry = Registry(self.publisher.pollers)
        self._store = None
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self):
        task = asyncio.create_task(self.publisher.run())
        self._stack.push_async_callback(ended, task)
        return self

    async def __aexit__(self, *_):
        await self._stack.aclose()

    async def serve(self, *, behaviour=None, accounts=None, port=0, ssl_context=None):
        """Start the service."""
        self.service = SimulatedService(
            self.fleet, behaviour, accounts=accounts, clock=self.clock.service
        )
        await self.service.start(port=port, ssl_context=ssl_context)
        self._stack.push_async_callback(self.service.close)
        return self.service

    async def add(
        self,
        name="project",
        *,
        endpoint=None,
        auth=None,
        workspaces=("0",),
        pagination="auto",
        retries=5,
        retry_unreachable=True,
        ca_file=None,
        jobs=None,
        store=None,
        rate=5.0,
        project_id=PROJECT_ID,
        **poll,
    ):
        """A target and its poller, made by the factory, which has the target's ``session``.

        ``auth``, ``jobs`` and ``poll`` are options of those groups.
        """
        endpoint = endpoint or self.service.url
        target = {
            "name": name,
            "region": REGION,
            "project_id": project_id,
            "endpoint": endpoint,
            "iam_endpoint": endpoint,
            "workspaces": list(workspaces),
            "auth": auth or {"method": "none"},
            "pagination": pagination,
            "ca_file": ca_file,
        }
        settings = Settings.model_validate(
            {
                "target": {key: value for key, value in target.items() if value is not None},
                "poll": POLL | poll,
                "api": {"timeout": 10.0, "max_requests_per_second": rate, "retries": retries},
                "jobs": jobs or {},
            }
        )
        (plan,) = plans(settings, settings.all_targets(), None)
        sessions = []

        def connect(**options):
            sessions.append(RecordedSession(self.clock, **options))
            return sessions[0]

        if store is None:
            store = await self._temporary_store()
        context = ProcessContext(
            environ={},
            clocks=Clocks(self.clock.wall, self.clock.monotonic, self.clock.sleep),
            instruments=self.instruments,
            lockouts=self._lockouts,
            store=store,
            publish=self.publisher.publish,
            registry=self.registry,
            connect=connect,
            retry_unreachable=retry_unreachable,
        )
        poller = await make_poller(plan, context)
        self._stack.push_async_callback(poller.target.close)
        (poller.session,) = sessions
        self.publisher.pollers.append(poller)
        poller.show()
        return poller

    async def _temporary_store(self):
        """The store of all pollers of this process that have no state file."""
        if self._store is None:
            self._store = await Store.temporary(problem=lambda: None)
            self._stack.push_async_callback(self._store.close)
        return self._store

    def populate(self, number, phase="Running"):
        """Add jobs, a second apart; the newest is the last. Returns their ids."""
        first = START - 100_000.0 + len(self.fleet)
        jobs = [self.fleet.create(first + second) for second in range(number)]
        for job in jobs:
            self.fleet.enter(job, phase)
        return [job.id for job in jobs]

    def samples(self):
        """All that is published now, by name and labels."""
        if self._parsed[0] is not self.publisher.exposition:
            self._parsed = self.publisher.exposition, parsed(self._text())
        return self._parsed[1]

    def _text(self):
        return self.publisher.exposition.text.decode()

    def _samples_of(self, name):
        """Those of one name; much faster than to parse all."""
        return parsed("".join(re.findall(rf"^{name}[ {{].*\n", self._text(), re.MULTILINE)))

    def value(self, name, **labels):
        """The sum of all published samples of that name with those labels; None: there are none."""
        values = [
            value
            for (_, given), value in self._samples_of(name).items()
            if labels.items() <= dict(given).items()
        ]
        return sum(values) if values else None

    def label_values(self, name, label):
        """The values of a label over all published samples of that name."""
        return {dict(labels)[label] for _, labels in self._samples_of(name)}

    def shown(self):
        """Ids of the jobs that have series of their own."""
        pattern = r'^modelarts_training_job_info\{.*?job_id="([^"]*)"'
        found = re.findall(pattern, self._text(), re.MULTILINE)
        assert len(found) == len(set(found))
        return set(found)

    async def step(self, poller, read=None):
        """Read once: ``poll`` what has changed, the first time everything, or ``sweep``."""
        read = (read or self.read) if poller.state.fleet.newest_created else "poll"
        incremental = read == "poll" and poller.state.fleet.newest_created
        before = self.samples()
        ok = await getattr(poller, read)()
        return Step(ok, "incremental" if incremental else "sweep", before, self.samples())

    async def poll_and_verify(self, poller, times=1):
        """Poll, and verify the list after it, as a running poller does."""
        for _ in range(times):
            assert await poller.poll(), poller.error
            assert await poller.verify(), poller._verification_error

    async def settle(self, poller):
        """One interval later: new counters show what they count."""
        self.clock.passes(INTERVAL)
        assert await poller.poll(), poller.error

    def counted(self, name, label="phase"):
        """What a counter of the fleet shows, by a label, without zeros."""
        counts = Counter()
        for (_, labels), value in self._samples_of(f"modelarts_training_{name}_total").items():
            counts[dict(labels)[label]] += value
        return {key: value for key, value in counts.items() if value}

    async def cost(self, poller, read=None):
        """Read once more; how many requests that took, by what was asked for."""
        before = len(poller.session.sent)
        step = await self.step(poller, read)
        assert step.ok, poller.error
        sent = len(poller.session.sent) - before
        new = list(self.service.requests)[-sent:]
        assert len(new) == sent
        return Counter(asked_for(request) for request in new)

    async def recovers(self, poller, read=None):
        """All is well again: the next poll shows what has happened meanwhile."""
        self.service.faults.clear()
        new = self.fleet.create().id
        step = await self.step(poller, read)
        assert step.ok, poller.error
        assert step.grew(POLLS, "result") == {"success": 1}
        project = poller.target.identity.labels["project"]
        assert self.value("modelarts_up", project=project) == 1
        assert new in self.shown()
        assert self.shown() == {job.id for job in self.fleet if job.active}

    @contextlib.asynccontextmanager
    async def running(self, poller):
        """The poller at work in time."""
        task = asyncio.create_task(poller.run())
        try:
            yield
        finally:
            await ended(task)

    @contextlib.asynccontextmanager
    async def sweeping(self, poller):
        """A sweep on its way; it ends well."""
        task = asyncio.create_task(poller.sweep())
        try:
            yield
            assert not task.done()
            assert await task
        finally:
            await ended(task)

    async def breathe(self):
        """Let other tasks go on."""
        await asyncio.sleep(0.001)

    async def polled(self, poller, number):
        """Wait until that many polls have ended."""
        await until(lambda: poller.ended_polls >= number)


async def ended(task):
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def until(condition):
    """Wait for other tasks to make something true."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - anything may make it true
            await asyncio.sleep(0.001)
