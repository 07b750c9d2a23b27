"""API calls of a steady poll, compared with reading the whole list, 50 jobs a page.

30 jobs are active, 500 or 100,000 are finished, ``offset`` counts pages or rows. Between two polls
either nothing happens, or one job fails and another one starts.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Literal

from common import Figure, environment, report
from world import make_fleet

from exporter.app.exporter import Exporter, exporter
from exporter.settings.load import load
from exporter.simulator.behaviour import Behaviour
from exporter.simulator.fleet import Fleet
from exporter.simulator.server import SimulatedService

_ACTIVE = 30
_HISTORIES = (500, 100_000)
_POLLS = 20
_PAGE = 50


async def calls_of(running: Exporter, service: SimulatedService) -> float:
    """Number of requests of one poll."""
    service.requests.clear()
    if not await running.poll_once():
        raise SystemExit(f"a poll failed: {running.pollers[0].error}")
    return len(service.requests)


def change(fleet: Fleet) -> None:
    """Let one job fail and another one start."""
    fleet.finish(next(job for job in fleet if job.phase == "Running"), "Failed")
    fleet.start(fleet.create())


async def measure(
    fleet: Fleet, offset: Literal["page", "row"], state: Path
) -> tuple[list[float], list[float]]:
    """Calls of polls without and with changes, not counting the first poll."""
    async with SimulatedService(fleet, Behaviour(offset=offset)) as service:
        options = environment(service.url, state__file=str(state), poll__sweep_timeout="1h")
        async with exporter(load([], options), {}) as running:
            await calls_of(running, service)
            quiet = [await calls_of(running, service) for _ in range(_POLLS)]
            busy = []
            for _ in range(_POLLS):
                change(fleet)
                busy.append(await calls_of(running, service))
            if running.pollers[0].status().costs["incremental"].requests != busy[-1]:
                raise SystemExit("the poller counts differently")
    return quiet, busy


def main() -> int:
    """Measure. Each world is swept once: the second mode uses the state file of the first."""
    rows = []
    for history in _HISTORIES:
        fleet = make_fleet(history, _ACTIVE)
        naive = (history + _ACTIVE) / _PAGE
        with tempfile.TemporaryDirectory() as folder:
            for offset in ("page", "row"):
                quiet, busy = asyncio.run(measure(fleet, offset, Path(folder) / "state.db"))
                name = f"{history} finished jobs, offset counts {offset}s"
                rows += [
                    Figure(
                        f"{name}: nothing happens, at most", [max(quiet)], "calls", 4, most=True
                    ),
                    Figure(
                        f"{name}: a job fails, one starts, at most",
                        [max(busy)],
                        "calls",
                        4,
                        most=True,
                    ),
                    Figure(f"{name}: fewer than reading the list", [naive / max(busy)], "times"),
                ]
    return report(rows)


if __name__ == "__main__":
    sys.exit(main())
