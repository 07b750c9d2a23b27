"""Sweeps of 100,000 jobs: memory above the start, and how long the event loop ever stands still.

The exporter runs in this process as it always does, serving too, and the simulated service in
another. Two polls: the second holds the jobs of the first as well as its own. Further arguments are
options of the exporter; with ``--jobs.retention=30d`` as many jobs as possible have series.

Another process that has the CPU makes the loop late, too. So the loop is blocked for as long as it
is late, but no longer than this process, all of its threads, has used the CPU meanwhile.
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

from exporter.app import Exporter, exporter
from exporter.poller import Poller
from exporter.settings import load

_TICK = 0.005
_POLLS = 2
_MB = 2**20


class Turn(NamedTuple):
    """What was seen 5 ms, or more, after the last look: milliseconds late, of CPU; MB."""

    late: float
    cpu: float
    resident: float


class Poll(NamedTuple):
    """A poll that has ended: its seconds, and the turns that the loop took meanwhile."""

    seconds: float
    turns: list[Turn]


def memory() -> float:
    """MB that are resident now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / _MB


async def watch(poller: Poller) -> list[Poll]:
    """Look at the loop every 5 ms until enough polls have ended."""
    polls: list[Poll] = []
    turns: list[Turn] = []
    before, used = time.perf_counter(), time.process_time()
    while len(polls) < _POLLS:
        await asyncio.sleep(_TICK)
        now, now_used = time.perf_counter(), time.process_time()
        turns.append(Turn((now - before - _TICK) * 1000, (now_used - used) * 1000, memory()))
        before, used = now, now_used
        if poller.ended_polls > len(polls):
            if poller.error:
                raise SystemExit(f"a poll failed: {poller.error}")
            polls.append(Poll(poller.seconds, turns))
            turns = []
    return polls


async def run(running: Exporter) -> tuple[float, list[Poll]]:
    """Memory when all is imported and serves, before the first poll; the polls."""
    stop = asyncio.Event()
    start = 0.0

    def started(_urls: list[str]) -> None:
        nonlocal start
        gc.collect()
        start = memory()

    async with asyncio.TaskGroup() as group:
        group.create_task(running.run(stop, started))
        polls = await watch(running.pollers[0])
        stop.set()
    return start, polls


@contextlib.contextmanager
def collections() -> Iterator[list[float]]:
    """Milliseconds of every garbage collection."""
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
    """Run the exporter and say how it went."""
    settings = load(options, environment(simulated, poll__interval="0.001"))
    with collections() as garbage:
        async with exporter(settings, {}) as running:
            start, polls = await run(running)
            fleet, body = running.pollers[0].fleet, running.publisher.exposition.text
            requests = running.pollers[0].requests
    if fleet is None or len(fleet.jobs) < jobs:
        raise SystemExit("jobs are missing")
    turns = [turn for poll in polls for turn in poll.turns]
    peaks = [max(turn.resident for turn in poll.turns) - start for poll in polls]
    blocked = max(min(turn.late, turn.cpu) for turn in turns)
    return report(
        [
            Figure("memory above start, at most", [max(peaks)], "MB", 150, most=True),
            Figure("event loop blocked, at most", [blocked], "ms", 100, most=True),
            *(
                Figure(f"memory above start, poll {number}", [peak], "MB")
                for number, peak in enumerate(peaks, 1)
            ),
            Figure("memory at start", [start], "MB"),
            Figure("event loop late, at most", [max(turn.late for turn in turns)], "ms"),
            Figure("longest garbage collection", [max(garbage, default=0.0)], "ms"),
            Figure("time of a poll", [poll.seconds for poll in polls], "s"),
            Figure("requests of a poll", [requests], ""),
            Figure("jobs", [len(fleet.jobs)], ""),
            Figure("lines of the body", [body.count(b"\n")], ""),
        ]
    )


def main() -> int:
    """The simulated service first: it takes some seconds to make its world."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    arguments, options = parser.parse_known_args()
    with simulator("--jobs", str(arguments.jobs)) as simulated:
        return asyncio.run(measure(simulated, arguments.jobs, options))


if __name__ == "__main__":
    sys.exit(main())
