"""A simulated service in which nothing happens except what is requested over HTTP.

Run by the benchmarks as ``world.py FINISHED ACTIVE``; prints its URL once it serves. All jobs are
in one workspace, and no credentials are checked. With ``--pools`` all jobs use dedicated pools, and
with ``--users`` each of so many users has active jobs in all of them.
"""

import argparse
import asyncio
import gc
import time
from dataclasses import replace

from exporter.simulator.behaviour import Behaviour
from exporter.simulator.catalog import POOLS, VISION_POOL
from exporter.simulator.fleet import Fleet
from exporter.simulator.server import SimulatedService

_DAY = 86_400.0
_SPAN = 30  # days
_ENDS = ("Completed", "Completed", "Failed", "Terminated")
_POOLS = ("public-ascend", "llm-pretraining", "vision", "public-gpu", "lab-old")


def make_fleet(
    finished: int, active: int, *, days: int = _SPAN, pools: int = 0, users: int = 0
) -> Fleet:
    """A fleet with days of history; one in ten active jobs is waiting, the others are running.

    Args:
        finished: number of finished jobs.
        active: number of active jobs.
        days: age of the oldest finished job.
        pools: number of dedicated pools; 0: those of the catalog.
        users: who have the active jobs, in all pools alike; 0: random ones of the catalog.
    """
    now = time.time()
    made = [replace(VISION_POOL, name=f"team-{n}", id=f"pool-{n:08x}") for n in range(pools)]
    names = [pool.name for pool in made] or _POOLS
    fleet = Fleet(0, now, pools=made or POOLS)
    for number in range(finished):
        at = now - days * _DAY * (1 - number / finished) - 8000
        job = fleet.create(at, pool=names[number % len(names)], nodes=1 + number % 4)
        fleet.start(job, at + 60)
        if number % 10 == 0:
            fleet.recover(job, "pod_reschedule", at + 600, gap=20)
        fleet.finish(job, _ENDS[number % 4], at=at + 1000 + number % 6000)
    for number in range(active):
        at = now - _DAY + number
        user = f"user-{number // len(names) % users}" if users else None
        job = fleet.create(at, user=user, pool=names[number % len(names)], nodes=1 + number % 4)
        if number % 10:
            fleet.start(job, at + 60)
        else:
            fleet.queue(job, at + 1)
    return fleet


async def main() -> None:
    """Serve until the process is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("finished", type=int)
    parser.add_argument("active", type=int)
    parser.add_argument("--offset", choices=("page", "row"), default="page")
    parser.add_argument("--days", type=int, default=_SPAN)
    parser.add_argument("--pools", type=int, default=0)
    parser.add_argument("--users", type=int, default=0)
    arguments = parser.parse_args()
    fleet = make_fleet(
        arguments.finished,
        arguments.active,
        days=arguments.days,
        pools=arguments.pools,
        users=arguments.users,
    )
    gc.collect()
    gc.freeze()
    async with SimulatedService(fleet, Behaviour(offset=arguments.offset)) as service:
        print(f"world at {service.url}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
