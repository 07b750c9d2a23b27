"""Prometheus counts every event once: born, between polls, and while the exporter was down."""

import re
import signal
import time
from collections import Counter

import pytest
from e2e import prometheus as real
from process.program import free_port, target, up

from exporter.simulator.fleet import Fleet
from exporter.simulator.server import SimulatedService

pytestmark = pytest.mark.integration

FAILED = 'modelarts_training_jobs_finished_total{phase="Failed"}'
CREATED = "modelarts_training_jobs_created_total"
COUNTERS = (
    CREATED,
    "modelarts_training_jobs_finished_total",
    "modelarts_training_jobs_deleted_total",
    "modelarts_training_restarts_total",
    "modelarts_training_accelerator_seconds_total",
    "modelarts_training_finished_accelerator_seconds_total",
    *(
        f"modelarts_training_{name}_duration_seconds_{part}"
        for name in ("queue", "run", "recovery", "attempt")
        for part in ("count", "sum", "bucket")
    ),
)
LOST = (
    "prometheus_target_scrapes_sample_duplicate_timestamp_total",
    "prometheus_target_scrapes_sample_out_of_order_total",
    "prometheus_target_scrapes_sample_out_of_bounds_total",
    "prometheus_target_scrapes_exemplar_out_of_order_total",
)


class World:
    """Jobs, changed by hand, and what an exporter can have seen of it."""

    def __init__(self):
        self.fleet = Fleet(1, time.time())
        self.old = [self.fleet.create() for _ in range(3)]
        for job in self.old:
            self.fleet.start(job)
        for phase in ("Failed", "Completed"):
            self.fleet.finish(self.fleet.create(), phase)
        self._begins = len(self.fleet.events)

    def fail_one(self, pool=None, *, job=None, runs=True):
        """A job fails, one that is made for it if none is given; nobody can look meanwhile."""
        if job is None:
            job = self.fleet.create(pool=pool)
            if runs:
                self.fleet.start(job)
        self.fleet.finish(job, "Failed", 137)
        return job

    def happened(self, kind, phase=None):
        """How often, by pool."""
        return Counter(
            (event.job.pool.label,)
            for event in self.fleet.events[self._begins :]
            if event.kind == kind and phase in (None, event.phase)
        )


class Exporter:
    """Always at the same address, always with the same state file; may be killed."""

    def __init__(self, start, service, folder):
        self.address = f"127.0.0.1:{free_port()}"
        self._start = start
        self._options = target(
            service, web__listen_address=self.address, state__file=folder / "state.db"
        )
        self.program = None

    async def begin(self):
        self.program = self._start("serve", *self._options)
        await self.program.url()
        await up(f"http://{self.address}")


@pytest.fixture(params=["PATH", "PROMETHEUS3_DIR"])
def where(request):
    real.binary(request.param)
    return request.param


@pytest.fixture
def world():
    return World()


@pytest.fixture
async def exporter(start, tmp_path, world):
    async with SimulatedService(world.fleet) as service:
        exporter = Exporter(start, service, tmp_path)
        await exporter.begin()
        yield exporter
        assert await exporter.program.stops() == 0
        assert not re.search("WARNING|ERROR|Traceback", exporter.program.stderr)


@pytest.fixture
async def prometheus(start, tmp_path, where, exporter):
    flag = "--enable-feature=exemplar-storage"
    prometheus = await real.running(start, tmp_path, where, exporter.address, flag)
    await prometheus.until(f"{FAILED} == 0")
    return prometheus


async def increases(prometheus, counter):
    """Of each pool in which there was one."""
    found = await prometheus.ask(f"round(sum by (pool) (increase({counter}[5m]))) > 0", "pool")
    total = await prometheus.one(f"round(sum(increase({counter}[5m])))")
    assert total == sum(found.values())
    return found


async def test_every_failure_is_counted_once(prometheus, exporter, world):
    async def seen(number):
        """Wait for the sum, not for a rise: that is what is asked about afterwards."""
        await prometheus.until(f"sum({FAILED}) == {number}")

    world.fail_one(job=world.old[0])
    await seen(1)
    world.fail_one()  # created and failed between two polls
    await seen(2)
    latest = {"pool-8c21e4aa": [world.fail_one(pool="vision", runs=False)]}  # its pool is new
    await seen(3)

    exporter.program.kill()
    assert exporter.program.process.returncode == -signal.SIGKILL
    latest["public"] = [world.fail_one(job=world.old[1]), world.fail_one()]
    await prometheus.until("up == 0")
    await exporter.begin()
    await seen(5)

    exporter.program.kill()
    latest["pool-1b90d7f3"] = [world.fail_one(pool="lab-old")]  # its pool is new as well
    await exporter.begin()
    await seen(6)
    # Nothing rises any more, however often it is polled.
    await prometheus.until("changes(modelarts_exporter_last_success_timestamp_seconds[10s]) >= 4")

    failures = world.happened("finished", "Failed")
    assert failures == {("public",): 4, ("pool-8c21e4aa",): 1, ("pool-1b90d7f3",): 1}
    assert await increases(prometheus, FAILED) == failures
    assert await increases(prometheus, CREATED) == world.happened("created")
    runs = "modelarts_training_run_duration_seconds_count"
    assert await increases(prometheus, runs) == failures - Counter([("pool-8c21e4aa",)])

    for counter in COUNTERS:
        assert await prometheus.one(f"sum(resets({counter}[5m]))") in (0, None), counter
    assert {name: await prometheus.own(name) for name in LOST} == dict.fromkeys(LOST, 0)
    await openmetrics_was_negotiated(prometheus)
    await the_exemplars_tell_the_latest(prometheus, latest)


async def openmetrics_was_negotiated(prometheus):
    """Only there the name of a counter's family does not end in ``_total``."""
    family = CREATED.removesuffix("_total")
    (found,) = await prometheus.api("targets/metadata", metric=family)
    assert found["type"] == "counter"


async def the_exemplars_tell_the_latest(prometheus, latest):
    now = time.time()
    found = await prometheus.api("query_exemplars", query=FAILED, start=now - 300, end=now)
    told = {
        series["seriesLabels"]["pool"]: series["exemplars"][-1]["labels"]["job_id"]
        for series in found
    }
    assert told.keys() == latest.keys()
    for pool, job_id in told.items():
        assert job_id in [job.id for job in latest[pool]]
