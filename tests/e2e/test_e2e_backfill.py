"""Prometheus has the history from before the exporter, and live series continue it."""

import random
import re
import time
from collections import Counter, defaultdict
from functools import partial
from itertools import pairwise

import pytest
from e2e import prometheus as real
from process.program import get, target, up

from exporter.simulator.fleet import Fleet
from exporter.simulator.server import SimulatedService

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

HOUR, DAY = 3600, 86_400
STEP = 300
DAYS = 3
"""Number of whole days written; the world is a day older."""

JOBS = "modelarts_training_jobs"
GAUGES = (
    JOBS,
    "modelarts_training_nodes",
    "modelarts_training_accelerators",
    "modelarts_training_oldest_pending_timestamp_seconds",
    "modelarts_pool_info",
    "modelarts_training_cpu_cores",
    "modelarts_training_memory_bytes",
)
EVENTS = {
    "modelarts_training_jobs_created_total": ("created", ()),
    "modelarts_training_jobs_finished_total": ("finished", ("phase",)),
    "modelarts_training_restarts_total": ("restarted", ("start_type", "recovery")),
    "modelarts_training_recovery_downgrades_total": (
        "downgraded",
        ("from_recovery", "to_recovery"),
    ),
}
"""Counters: the events that they count, and their labels."""

FAILED = 'modelarts_training_jobs_finished_total{phase="Failed"}'
CREATED = "modelarts_training_jobs_created_total"
RESTARTS = "modelarts_training_restarts_total"
CARD_SECONDS = "modelarts_training_accelerator_seconds_total"
LOST = (
    "prometheus_target_scrapes_sample_duplicate_timestamp_total",
    "prometheus_target_scrapes_sample_out_of_order_total",
    "prometheus_target_scrapes_sample_out_of_bounds_total",
    "prometheus_target_scrapes_exceeded_sample_limit_total",
    "prometheus_tsdb_reloads_failures_total",
    "prometheus_tsdb_compactions_failed_total",
)
BLURRED = {
    "Creating": "waiting",
    "Pending": "waiting",
    "Running": "running",
    "Terminating": "running",
}
"""Phases that the history cannot distinguish."""

TERMINAL = ("Completed", "Failed", "Terminated", "Abnormal")
POOLS = ("public-ascend", "vision", "llm-pretraining", "data-preparation")
POLICIES = ("npu_proc_restart", "pod_reschedule", "job_reschedule")


class World:
    """Jobs over some days, finished by the last midnight except for those that still run.

    Event times are relative to that midnight and never close to one, so that an `increase` over a
    day belongs to one day.
    """

    def __init__(self):
        self.midnight = time.time() // DAY * DAY
        self.first = self.midnight - DAYS * DAY
        self.fleet = Fleet(1, self.first - DAY)
        self._chance = random.Random(7)
        for day in range(-DAYS - 1, 0):
            for _ in range(30):
                self._live(self.midnight + day * DAY)
        for number, pool in enumerate(2 * POOLS):  # that still run
            job = self.fleet.create(self.midnight - (51 - 6 * number) * HOUR, pool=pool)
            self.fleet.start(job, job.created + HOUR / 2)
        for job in [job for job in self.fleet if job.phase == "Completed"][::20]:
            self.fleet.delete(job)
        self.fleet.stop(self.some("Running"), self.midnight - HOUR / 2)

    def some(self, phase):
        """A running job that is not in a recovery, whose end would be unknown."""
        return next(
            job
            for job in self.fleet
            if job.phase == phase and not (job.runs and job.runs[-1].recovery)
        )

    def _live(self, day):
        """Create a job on a day, and let it run its course before the last midnight."""
        chance = self._chance
        at = day + chance.uniform(HOUR, DAY - HOUR)
        job = self.fleet.create(at, pool=chance.choice(POOLS), nodes=chance.randint(1, 3))
        for action in self._life(job):
            at = _awake(at + 1 + chance.random() * chance.choice((20, 600, 2 * HOUR, 9 * HOUR)))
            if at > self.midnight:
                break
            action(at=at)

    def _life(self, job):
        """The actions of a job, one after the other."""
        fleet, chance = self.fleet, self._chance
        if chance.random() < 0.8:
            yield partial(fleet.queue, job)
        if chance.random() < 0.1:
            yield partial(fleet.finish, job, chance.choice(("Abnormal", "Terminated")))
            return
        yield partial(fleet.start, job)
        while chance.random() < 0.3:
            policy = chance.choice(POLICIES)
            first = chance.choice(("", "npu_step_retry"))
            yield partial(fleet.interrupt, job, policy, downgraded_from=first)
            yield partial(fleet.start, job, restarted=policy == POLICIES[0])
        yield partial(fleet.finish, job, chance.choice(TERMINAL))

    def goes_on(self):
        """Events after the exporter's start."""
        fleet = self.fleet
        for _ in range(2):
            fleet.finish(self.some("Running"), "Failed")
        fleet.finish(self.some("Terminating"), "Terminated")
        fleet.start(self.some("Pending"))
        fleet.recover(self.some("Running"), POLICIES[1])
        for pool in POOLS[:3]:
            fleet.start(fleet.create(pool=pool))


def _awake(at):
    """Move events away from midnight by an hour, in the same order."""
    late = (at + HOUR) % DAY
    return at if late >= 2 * HOUR else at + 2 * HOUR


class ListedEvents:
    """The events of a world that the list of jobs still shows.

    Deleted jobs are missing. The end of a job that never started is unknown: it counts as ended
    when it was created.
    """

    def __init__(self, fleet):
        self._events = []
        for event in sorted(fleet.events, key=lambda event: event.at):
            job = event.job
            if job.id not in fleet:
                continue
            never = job.started is None and job.phase in TERMINAL
            if never and event.kind == "finished":
                self._events.append(event._replace(at=job.created))
            elif not never or event.kind == "created":
                self._events.append(event)
        self._events.sort(key=lambda event: event.at)

    def happened(self, counter, begin, end):
        """Counts by pool and the counter's labels, after ``begin`` and up to ``end``."""
        kind, labels = EVENTS[counter]
        return Counter(
            (event.job.pool.label, *(getattr(event, label) for label in labels))
            for event in self._events
            if event.kind == kind and begin < event.at <= end
        )

    def gauges(self, moment):
        """Values by gauge, then by labels; without zeros."""
        now = {event.job: event.phase for event in self._events if event.at <= moment}
        jobs, nodes, cards, oldest = Counter(), Counter(), Counter(), {}
        for job, phase in now.items():
            _, *base = job.base
            blurred = BLURRED.get(phase, phase)
            jobs[*base, blurred] += 1
            if phase in BLURRED:
                nodes[*base, blurred] += job.nodes
                cards[*base, blurred, job.accelerator] += job.cards or 0
            if blurred == "waiting":
                oldest[tuple(base)] = min(job.created, oldest.get(tuple(base), job.created))
        return jobs, nodes, +cards, oldest

    def card_seconds(self, begin, end):
        """Run time times cards between two times, by accelerator."""
        found = defaultdict(float)
        for job in {event.job for event in self._events}:
            for run in job.runs:
                stop = end if run.end is None else run.end
                found[(job.accelerator,)] += max(0, min(end, stop) - max(begin, run.start)) * (
                    job.cards or 0
                )
        return {key: seconds for key, seconds in found.items() if seconds}


class Site:
    """The exporter, Prometheus with its data, and the backfill."""

    def __init__(self, start, folder, where):
        self._start = start
        self._folder = folder
        self._where = where
        self.exporter = self.address = None

    async def export(self, service):
        """Start the exporter."""
        self._target = target(service)
        self.exporter = self._start("serve", *self._target)
        url = await self.exporter.url()
        await up(url)
        self.address = url.removeprefix("http://")

    async def began(self):
        """The exporter's start time, as it exposes it."""
        _, _, text = await get(f"http://{self.address}/metrics")
        return re.search(r"^process_start_time_seconds (\S+)$", text, re.MULTILINE)[1]

    async def prometheus(self):
        """Start Prometheus with the existing data."""
        keep = "--storage.tsdb.retention.time=30d"
        return await real.running(self._start, self._folder, self._where, self.address, keep)

    async def backfill(self, start, stop):
        """Write the history with the labels of the target in Prometheus."""
        program = self._start(
            "backfill",
            f"--from={time.strftime('%Y-%m-%d', time.gmtime(start))}",
            f"--to={stop}",
            "--output=history",
            "--label=job=modelarts",
            f"--label=instance={self.address}",
            *self._target,
        )
        assert await program.ended() == 0, program.written
        assert program.stderr == ""

    async def make_blocks(self):
        """Create the blocks of every day, as the command's output says."""
        days = sorted(self._folder.glob("history/*.om"))
        assert len(days) >= DAYS + 1
        promtool = real.guarded(real.binary(self._where, ("promtool",)))
        for day in days:
            words = ("tsdb", "create-blocks-from", "openmetrics", day, "history/blocks")
            program = self._start(*words, command=promtool)
            assert await program.ended() == 0, program.written

    def move_blocks(self):
        """Move the blocks into the data directory of Prometheus."""
        for block in self._folder.glob("history/blocks/*"):
            block.rename(self._folder / "data" / block.name)


@pytest.fixture(params=["PATH", "PROMETHEUS3_DIR"])
def site(request, start, tmp_path):
    for name in ("prometheus", "promtool"):
        real.binary(request.param, (name,))
    return Site(start, tmp_path, request.param)


@pytest.fixture
def world():
    return World()


@pytest.fixture
async def live(site, world):
    """Start the exporter and Prometheus, and wait for more than one scrape."""
    async with SimulatedService(world.fleet) as service:
        await site.export(service)
        prometheus = await site.prometheus()
        await prometheus.until(f"min(count_over_time({JOBS}[1m])) >= 3")
        yield prometheus
        assert await site.exporter.stops() == 0
        assert not re.search("WARNING|ERROR|Traceback", site.exporter.stderr)


async def test_prometheus_knows_what_was_before(site, live, world):
    began = await site.began()
    world.goes_on()
    await live.until(f"sum({FAILED}) == 2 and sum({CREATED}) == 3 and sum({RESTARTS}) == 1")
    await site.backfill(world.first, began)
    await site.make_blocks()
    await nothing_was_lost(live)
    assert await live.program.stops() == 0
    site.move_blocks()
    prometheus = await site.prometheus()

    listed = ListedEvents(world.fleet)
    await the_past_is_right(prometheus, listed, world)
    await the_days_are_right(prometheus, listed, world)
    await the_series_go_on(prometheus, float(began))
    await the_joint_is_no_event(prometheus, listed, world)
    await prometheus.until(f"min(count_over_time({JOBS}[5s])) >= 3")  # scraped again
    await nothing_was_lost(prometheus)
    said = f"{live.program.stderr}{prometheus.program.stderr}".splitlines()
    assert [line for line in said if "gracefully" not in line] == []  # it was stopped


async def shown(prometheus, at):
    """The values in Prometheus, as `ListedEvents.gauges`."""
    base = ("pool", "flavor_type")
    found = []
    for metric, labels in zip(
        GAUGES[:3],
        ((*base, "phase"), (*base, "phase"), (*base, "phase", "accelerator")),
        strict=True,
    ):
        blurred = Counter()
        query = f"sum by ({', '.join(labels)}) ({metric}) > 0"
        for key, value in (await prometheus.ask(query, *labels, at=at)).items():
            pool, flavor_type, phase, *more = key
            blurred[pool, flavor_type, BLURRED.get(phase, phase), *more] += value
        found.append(blurred)
    oldest = await prometheus.ask(f"min by ({', '.join(base)}) ({GAUGES[3]})", *base, at=at)
    return (*found, oldest)


async def the_past_is_right(prometheus, listed, world):
    for hours in (0, 3.5, 10, 15.25, 22, 31, 40, 58.75, 71):
        moment = world.first + hours * HOUR
        # A second later: Prometheus 2 finds a sample that is five minutes old, too, so that what
        # has ended would still be there.
        *counts, oldest = await shown(prometheus, moment + 1)
        *true_counts, true_oldest = listed.gauges(moment)
        for found, true in zip(counts, true_counts, strict=True):
            assert found == true, (hours, found - true, true - found)
        assert oldest == pytest.approx(true_oldest, abs=0.001), hours
    assert all(listed.gauges(world.first + 31 * HOUR))  # there was something of everything


async def the_days_are_right(prometheus, listed, world):
    for counter in (*EVENTS, CARD_SECONDS):
        assert await prometheus.one(f"sum({counter})", at=world.first) == 0
    for day in range(DAYS):
        begin = world.first + day * DAY
        end = begin + DAY
        for counter, (_, labels) in EVENTS.items():
            by = ("pool", *labels)
            query = f"round(sum by ({', '.join(by)}) (increase({counter}[1d]))) > 0"
            found = await prometheus.ask(query, *by, at=end)
            assert found == listed.happened(counter, begin, end), (day, counter)
            assert found
        query = f"sum by (accelerator) (increase({CARD_SECONDS}[1d])) > 0"
        found = await prometheus.ask(query, "accelerator", at=end)
        assert found == pytest.approx(listed.card_seconds(begin, end), rel=0.01), day


async def the_series_go_on(prometheus, began):
    """Between history and live series, no gauge has a step, another label, a gap or a duplicate."""
    for gauge in GAUGES:
        found = await prometheus.api("query", query=f"{gauge}[15m]", time=began + 300)
        steps = defaultdict(float)
        for series in found["result"]:
            name = series["metric"]
            assert name["job"] == "modelarts", name
            values = [(at, float(value)) for at, value in series["values"]]
            before = [each for each in values if each[0] <= round(began, 3)]
            after = values[len(before) :]
            assert len(before) >= 3, name
            assert len(after) >= 3, name
            times = [at for at, _ in values]
            assert before[-1][0] == pytest.approx(began, abs=0.001)
            assert max(later - at for at, later in pairwise(times)) <= STEP, name
            key = {**name, "phase": BLURRED.get(name.get("phase"), name.get("phase"))}
            steps[tuple(sorted(key.items(), key=str))] += after[0][1] - before[-1][1]
        assert steps
        assert set(steps.values()) == {0}, steps
    first = await prometheus.one(f"min(min_over_time(timestamp({JOBS})[5m:1s]))", at=began + 300)
    sums = await prometheus.api(
        "query_range", query=f"sum({JOBS})", start=began - 900, end=max(first, began) + 1, step=1
    )
    (series,) = sums["result"]
    assert len({value for _, value in series["values"]}) == 1


async def the_joint_is_no_event(prometheus, listed, world):
    """Events from before and after the start, in one window."""
    now = time.time()
    begin = world.midnight - DAY
    for counter, (_, labels) in EVENTS.items():
        by = ("pool", *labels)
        query = f"round(sum by ({', '.join(by)}) (increase({counter}[{now - begin:.0f}s]))) > 0"
        found = await prometheus.ask(query, *by, at=now)
        assert found == listed.happened(counter, begin, now), counter


async def nothing_was_lost(prometheus):
    assert {name: await prometheus.own(name) for name in LOST} == dict.fromkeys(LOST, 0)
    assert await prometheus.ask("min_over_time(up[10m])", "job") == {("modelarts",): 1}
