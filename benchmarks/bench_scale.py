"""What an exporter costs where the service lists 1,000,000 jobs, compared with 5,000.

Parts, chosen with ``--part``:

- ``file``, ``memory``: `serve` with and without a state file, 300 active jobs, no rate limit. Peak
  of resident memory during the first reading, and the durations of scrapes meanwhile; then resident
  memory and CPU time of polls in which nothing happens. A scrape waits for the event loop, so the
  longest one shows how long that was blocked; it counts up to the CPU time that the exporter used
  meanwhile, since other processes delay it, too. In the last ten seconds, jobs are created,
  finished and deleted.
- ``start``: from the start of the process to ``/-/ready``, with the state file of all jobs.
- ``deleted``: requests and polls until the deletion of old jobs is known: one, 100 at random
  places, 5,000 in a row. In virtual time, at the default rate, with 30 active jobs. The requests
  include those that the polls need anyway.
- ``day``: the requests of a day, also in virtual time: 30 active jobs, 20 created and 5 deleted an
  hour. After it the exporter must know as many jobs as are listed.

The simulated service is `long_list`.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from common import (
    HERE,
    PYTHON,
    Client,
    Figure,
    Peer,
    control,
    environment,
    free_port,
    peer,
    percentile,
    report,
)
from process import begun, cpu, is_ready, polls, resident, running, wait_for, wait_until_ready
from virtual_exporter import run, virtual_exporter

from exporter.simulator.behaviour import Behaviour

_ACTIVE = 300
_ACTIVE_DAY = 30
_STARTS = 5
_WINDOWS = 5
_WINDOW_SECONDS = 10.0
_CHANGING_SECONDS = 10.0
_READING_SECONDS = 600.0
_PAUSE = 0.02
_OPTIONS = {
    "poll__interval": "1s",
    "poll__sweep_timeout": "1h",
    "poll__stale_after": "1h",
    "api__timeout": "10m",
}


class Sizes(NamedTuple):
    """What to measure.

    Attributes:
        jobs: length of the long list.
        few: length of the short list that it is compared with.
        deleted: length of the list in which deletions are looked for.
        day: length of the list of the day that is compared with one of ``jobs``.
        hours: how much of that day passes.
        folder: for state files.
    """

    jobs: int
    few: int
    deleted: int
    day: int
    hours: int
    folder: Path

    @property
    def state(self) -> Path:
        """The state file with all jobs of the long list."""
        return self.folder / f"state-{self.jobs}.db"


# --- A process and its polls ----------------------------------------------------------------------


@contextmanager
def listing(jobs: int) -> Iterator[Peer]:
    """Run the simulated service."""
    command = (PYTHON, str(HERE / "long_list.py"), str(jobs), str(_ACTIVE))
    with peer(command, r"list at http://127\.0\.0\.1:(\d+)") as service:
        yield service


def options(service: Peer, state: Path | None, **more: str) -> dict[str, str]:
    """Environment of an exporter of the service."""
    kept = {} if state is None else {"state__file": str(state)}
    return environment(f"http://127.0.0.1:{service.port}", **_OPTIONS | kept | more)


def at_most(name: str, values: Sequence[float], unit: str, limit: float | None) -> Figure:
    """A figure with an upper limit."""
    return Figure(name, values, unit, limit, most=True)


class Scrapes:
    """Scrapes an exporter again and again.

    Attributes:
        times: durations in ms.
        blocked: the same, but no more than the CPU time of the exporter meanwhile.
    """

    def __init__(self, exporter: Peer) -> None:
        self.times: list[float] = []
        self.blocked: list[float] = []
        self._pid = exporter.pid
        self._client = Client(exporter.port)

    def run(self, seconds: float) -> None:
        """Scrape for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            used = cpu(self._pid)
            self.times.append(self._client.scrape() * 1000)
            used = (cpu(self._pid) - used) * 1000
            self.blocked.append(min(self.times[-1], used))
            time.sleep(_PAUSE)


def first_reading(service: Peer, exporter: Peer) -> tuple[Scrapes, Scrapes]:
    """Scrape until everything is read. The service is stopped now and then: that is idle."""
    idle, reading = Scrapes(exporter), Scrapes(exporter)
    deadline = time.monotonic() + _READING_SECONDS
    while time.monotonic() < deadline:
        os.kill(service.pid, signal.SIGSTOP)
        try:
            time.sleep(0.3)  # let requests in progress end
            idle.run(0.7)
        finally:
            os.kill(service.pid, signal.SIGCONT)
        for _ in range(15):
            reading.run(0.2)
            if is_ready(exporter.port):
                return idle, reading
    raise SystemExit("the first reading did not end")


def steady(exporters: list[Peer]) -> list[list[float]]:
    """CPU ms per poll of exporters that run at the same time, in several windows."""
    for each in exporters:
        wait_for(each.port, "incremental", polls(each.port)["incremental"] + 5)
    found: list[list[float]] = [[] for _ in exporters]
    for _ in range(_WINDOWS):
        before = [(cpu(each.pid), polls(each.port)["incremental"]) for each in exporters]
        time.sleep(_WINDOW_SECONDS)
        for each, (used, number), values in zip(exporters, before, found, strict=True):
            values.append(
                (cpu(each.pid) - used) * 1000 / (polls(each.port)["incremental"] - number)
            )
    return found


def changing(service: Peer, exporter: Peer, jobs: int) -> Scrapes:
    """Scrape while jobs are created, finished and deleted."""
    scrapes = Scrapes(exporter)
    for second in range(round(_CHANGING_SECONDS)):
        control(service.port, "POST", "create", 2)
        control(service.port, "POST", "finish", 2)
        control(service.port, "POST", "delete", [jobs // 3 + second, jobs // 2])
        scrapes.run(1.0)
    return scrapes


def serving(sizes: Sizes, state: Path | None) -> list[Figure]:
    """The first reading of the long list, and polls compared with those of the short one."""
    name = "without a state file" if state is None else "state file"
    few_state = None if state is None else sizes.folder / "few.db"
    with (
        listing(sizes.jobs) as service,
        running(options(service, state)) as exporter,
    ):
        began = time.monotonic()
        idle, reading = first_reading(service, exporter)
        seconds = time.monotonic() - began
        peak = resident(exporter.pid, "VmHWM")
        with listing(sizes.few) as few, running(options(few, few_state)) as small:
            wait_until_ready(small.port)
            long, short = steady([exporter, small])
            memory = [resident(exporter.pid), resident(small.pid)]
        busy = changing(service, exporter, sizes.jobs)
    ratio = [many / few for many, few in zip(long, short, strict=True)]
    times = [value / percentile(idle.times, 50) for value in reading.times]
    return [
        at_most(f"{name}: CPU of a poll relative to few jobs", ratio, "times", 1.5),
        Figure(f"{name}: CPU of a poll", long, "ms"),
        Figure(f"{name}: CPU of a poll, few jobs", short, "ms"),
        at_most(f"{name}: memory", [memory[0]], "MB", 120),
        Figure(f"{name}: memory, few jobs", [memory[1]], "MB"),
        at_most(f"{name}: peak memory of the first reading", [peak], "MB", 200),
        Figure(f"{name}: time of the first reading", [seconds], "s"),
        at_most(f"{name}: scrape meanwhile, relative to idle", times, "times", 2),
        Figure(f"{name}: scrape, idle", idle.times, "ms"),
        at_most(f"{name}: loop blocked, at most: reading", [max(reading.blocked)], "ms", 50),
        at_most(f"{name}: loop blocked, at most: changes", [max(busy.blocked)], "ms", 50),
        Figure(f"{name}: longest scrape: reading", [max(reading.times)], "ms"),
        Figure(f"{name}: longest scrape: changes", [max(busy.times)], "ms"),
    ]


def starts(sizes: Sizes) -> list[Figure]:
    """Starts from the state file of all jobs."""
    seconds, used = [], []
    with listing(sizes.jobs) as service:
        with running(options(service, sizes.state)) as exporter:
            wait_until_ready(exporter.port, _READING_SECONDS)
        for _ in range(_STARTS):
            port = free_port()
            more = {"web__listen_address": f"127.0.0.1:{port}", "poll__interval": "1m"}
            started = time.monotonic()
            with begun(options(service, sizes.state, **more)) as process:
                wait_until_ready(port)
                seconds.append(time.monotonic() - started)
                used.append(cpu(process))
                if polls(port) != {"incremental": 1, "sweep": 0}:
                    raise SystemExit("there was a sweep")
    return [
        at_most("start until ready", seconds, "s", 1.5),
        at_most("start until ready: CPU", used, "s", 1.0),
    ]


# --- In virtual time ------------------------------------------------------------------------------


def deleted(sizes: Sizes) -> list[Figure]:
    """What it takes to find out that old jobs were deleted."""
    jobs, rows = sizes.deleted, random.Random(0)
    which = {
        "1 old job": ([round(jobs * 0.37)], 40),
        "100 at random places": (rows.sample(range(jobs - 1000), 100), 1500),
        "5000 in a row": (range(jobs // 4, jobs // 4 + 5000), 700),
    }
    found: list[Figure] = []

    async def look_for(offset: str) -> None:
        behaviour = Behaviour(offset=offset)  # type: ignore[arg-type]
        file = sizes.folder / f"deleted-{offset}.db"
        async with virtual_exporter(jobs, _ACTIVE_DAY, behaviour, file) as exporter:
            for what, (gone, most) in which.items():
                await exporter.pause(5)
                exporter.jobs.delete(gone)
                requests, before = exporter.requests, exporter.polls
                await exporter.until(lambda: exporter.up_to_date, 600)
                name = f"{what} deleted, {offset} mode"
                requests, passed = exporter.requests - requests, exporter.polls - before
                target = 3 if most == 40 else None
                found.append(at_most(f"{name}: requests", [requests], "", most))
                found.append(at_most(f"{name}: polls", [passed], "", target))

    for offset in ("page", "row"):
        run(look_for(offset))
    return found


def day(sizes: Sizes) -> list[Figure]:
    """The requests of a day."""

    async def pass_through(jobs: int) -> float:
        rows = random.Random(0)
        async with virtual_exporter(
            jobs, _ACTIVE_DAY, Behaviour(), sizes.folder / f"day-{jobs}.db"
        ) as exporter:
            requests = exporter.requests
            for minute in range(0, sizes.hours * 60, 3):
                exporter.jobs.create(1)
                exporter.jobs.finish(1)
                if minute % 12 == 0:
                    exporter.jobs.delete([rows.randrange(jobs - 1000)])
                await asyncio.sleep(180)
            requests = exporter.requests - requests
            await exporter.until(lambda: exporter.up_to_date, 600)
            return requests

    few, many = (run(pass_through(jobs)) for jobs in (sizes.day, sizes.jobs))
    most = 9000 * sizes.hours / 24
    return [
        at_most(f"{sizes.hours} hours, {sizes.day} jobs: requests", [few], "", most),
        Figure(f"{sizes.hours} hours, {sizes.jobs} jobs: requests", [many], ""),
        at_most("the same, relative to fewer jobs", [many / few], "times", 1.15),
    ]


# --- All of it ------------------------------------------------------------------------------------

_PARTS: dict[str, Callable[[Sizes], list[Figure]]] = {
    "file": lambda sizes: serving(sizes, sizes.state),
    "memory": lambda sizes: serving(sizes, None),
    "start": starts,
    "deleted": deleted,
    "day": day,
}


def main() -> int:
    """Measure the parts asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=_PARTS, action="append", help="repeatable; default: all")
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--few", type=int, default=5_000)
    parser.add_argument("--deleted-jobs", type=int, default=200_000)
    parser.add_argument("--day-jobs", type=int, default=100_000)
    parser.add_argument("--hours", type=int, default=24, help="of the day")
    given = parser.parse_args()
    figures, failed = [], 0
    with tempfile.TemporaryDirectory() as folder:
        sizes = Sizes(
            given.jobs, given.few, given.deleted_jobs, given.day_jobs, given.hours, Path(folder)
        )
        for part in given.part or _PARTS:
            started = time.monotonic()
            try:
                figures += _PARTS[part](sizes)
            except SystemExit as problem:
                failed = 1
                print(f"{part}: {problem}", flush=True)
            print(f"{part}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return report(figures) or failed


if __name__ == "__main__":
    sys.exit(main())
