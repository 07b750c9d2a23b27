"""Sweeps of 100,000 jobs: memory compared with the start, and how long the event loop is blocked.

The exporter runs and serves in this process as usual, the simulated service in another one. There
are two sweeps: the first saves what it reads in parts, the second runs in the background of polls
and compares what it reads with what is saved. Additional arguments are options of the exporter;
with ``--jobs.retention=30d`` as many jobs as possible have series.

Other processes that use the CPU make the loop late, too. So the loop counts as blocked for as long
as it is late, but no longer than the CPU time used meanwhile by all threads of this process.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common import Figure, Peer, environment, report, simulator

from exporter.app.exporter import Exporter, exporter
from exporter.polling.poller import Poller
from exporter.polling.status import PollCost
from exporter.settings.load import load

_TICK = 0.005
_SWEEPS = 2
_MB = 2**20


class Turn(NamedTuple):
    """One measurement, every 5 ms or later: milliseconds late, milliseconds of CPU, resident MB."""

    late: float
    cpu: float
    resident: float


class Sweep(NamedTuple):
    """A finished sweep: its cost, and the measurements taken meanwhile."""

    cost: PollCost
    turns: list[Turn]


def memory() -> float:
    """Current resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / _MB


async def watch(poller: Poller) -> list[Sweep]:
    """Measure the loop every 5 ms during the first poll, which is a sweep, and one more sweep."""
    sweeps: list[Sweep] = []
    turns: list[Turn] = []
    last: PollCost | None = None
    again: asyncio.Task[bool] | None = None
    before, used = time.perf_counter(), time.process_time()
    while len(sweeps) < _SWEEPS:
        await asyncio.sleep(_TICK)
        now, now_used = time.perf_counter(), time.process_time()
        turns.append(Turn((now - before - _TICK) * 1000, (now_used - used) * 1000, memory()))
        before, used = now, now_used
        if poller.error:
            raise SystemExit(f"a poll failed: {poller.error}")
        if (cost := poller.status().costs.get("sweep")) is not last and cost is not None:
            last = cost
            sweeps.append(Sweep(cost, turns))
            turns = []
            again = again or asyncio.create_task(poller.sweep())
    return sweeps


async def run(running: Exporter) -> tuple[float, list[Sweep]]:
    """Memory before the first poll, when everything is imported and serving; the sweeps."""
    stop = asyncio.Event()
    start = 0.0

    def started(_urls: list[str]) -> None:
        nonlocal start
        gc.collect()
        start = memory()

    async with asyncio.TaskGroup() as group:
        group.create_task(running.run(stop, started))
        sweeps = await watch(running.pollers[0])
        stop.set()
    return start, sweeps


@contextlib.contextmanager
def collections() -> Iterator[list[float]]:
    """Durations of all garbage collections in milliseconds."""
    found: list[float] = []
    started = 0.0

    def collection(phase: str, _info: dict[str, Any]) -> None:
        nonlocal started
        if phase == "start":
            started = time.perf_counter()
        else:
            found.append((time.perf_counter() - started) * 1000)

    gc.callbacks.append(collection)
    yield found
    gc.callbacks.remove(collection)


async def measure(simulated: Peer, jobs: int, options: list[str]) -> int:
    """Run the exporter and report the results."""
    settings = load(options, environment(simulated, poll__interval="1"))
    with collections() as garbage:
        async with exporter(settings, {}) as running:
            start, sweeps = await run(running)
            fleet, body = running.pollers[0].state.fleet, running.publisher.exposition.text
    if len(fleet) < jobs:
        raise SystemExit("jobs are missing")
    turns = [turn for sweep in sweeps for turn in sweep.turns]
    peaks = [max(turn.resident for turn in sweep.turns) - start for sweep in sweeps]
    blocked = max(min(turn.late, turn.cpu) for turn in turns)
    return report(
        [
            Figure("memory above start, at most", [max(peaks)], "MB", 150, most=True),
            Figure("event loop blocked, at most", [blocked], "ms", 100, most=True),
            *(
                Figure(f"memory above start, sweep {number}", [peak], "MB")
                for number, peak in enumerate(peaks, 1)
            ),
            Figure("memory at start", [start], "MB"),
            Figure("event loop late, at most", [max(turn.late for turn in turns)], "ms"),
            Figure("longest garbage collection", [max(garbage, default=0.0)], "ms"),
            Figure("time of a sweep", [sweep.cost.seconds for sweep in sweeps], "s"),
            Figure("requests of a sweep", [sweep.cost.requests for sweep in sweeps], ""),
            Figure("jobs", [len(fleet)], ""),
            Figure("lines of the body", [body.count(b"\n")], ""),
        ]
    )


def main() -> int:
    """Start the simulated service, which takes some seconds, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    arguments, options = parser.parse_known_args()
    with simulator("--jobs", str(arguments.jobs)) as simulated:
        return asyncio.run(measure(simulated, arguments.jobs, options))


if __name__ == "__main__":
    sys.exit(main())
