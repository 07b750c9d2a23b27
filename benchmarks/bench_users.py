"""CPU time of a poll with series by user, relative to one with ``jobs.by_user: false``.

500 users have a job in each of 10 pools. Between two polls, all running jobs go on running, and 100
jobs end and are replaced by new ones. A poll is everything from the pages of the active jobs, as
received, to the body: decoding, lookup, tracker, counters, commit and rendering. Both kinds take
turns, and read the same pages.
"""

import asyncio
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bench_tracker import Poll
from common import Figure, report

from exporter.jobs.job import View
from exporter.modelarts.decode.jobs import decode_page
from exporter.simulator.catalog import VISION_POOL
from exporter.simulator.fleet import Fleet
from exporter.simulator.job import Job
from exporter.simulator.wire import document
from exporter.storage.store import Store

_USERS = 500
_POOLS = 10
_ENDING = 100
_ROUNDS = 9
_PAGE = 50
_INTERVAL = 60.0
_MOST = 4 / 3


class World:
    """The jobs of the users; time passes in `pages`."""

    def __init__(self) -> None:
        self.now = time.time()
        pools = [replace(VISION_POOL, name=f"team-{n}", id=f"pool-{n}") for n in range(_POOLS)]
        self._fleet = Fleet(0, self.now, pools=pools)
        self._active = [
            self._start(f"user-{user}", pool.name) for user in range(_USERS) for pool in pools
        ]

    def _start(self, user: str, pool: str) -> Job:
        job = self._fleet.create(self.now - 10, user=user, pool=pool)
        self._fleet.start(job, self.now - 5)
        return job

    def pages(self) -> list[bytes]:
        """What the service answers an interval later: active jobs, and those that have ended."""
        self.now += _INTERVAL
        ended, self._active = self._active[:_ENDING], self._active[_ENDING:]
        for job in ended:
            self._fleet.finish(job, "Failed", at=self.now - 20)
            self._active.append(self._start(job.user.name, job.pool.name))
        listed = [document(job, self.now) for job in (*self._active, *ended)]
        parts = [listed[start : start + _PAGE] for start in range(0, len(listed), _PAGE)]
        return [
            json.dumps({"total": len(listed), "count": len(part), "items": part}).encode()
            for part in parts
        ]


async def poll_once(poll: Poll, pages: list[bytes], now: float) -> float:
    """Return the CPU seconds of a poll."""
    started = time.process_time()
    jobs = {}
    for page in pages:
        jobs |= {job.id: job for job in decode_page(page, workspace="0", now=now).jobs}
    decoded = time.process_time() - started
    newest = max(job.created or 0.0 for job in jobs.values())
    return decoded + sum((await poll.take(View(jobs, newest_created={"0": newest}))).values())


async def measure(folder: Path) -> tuple[dict[bool, list[float]], int]:
    """CPU seconds of each poll, with and without users; and the number of counters by user."""
    world = World()
    stores = {
        by_user: await Store.open(folder / f"state-{by_user}.db", problem=lambda: None)
        for by_user in (False, True)
    }
    polls = {by_user: Poll(store, by_user=by_user) for by_user, store in stores.items()}
    spent: dict[bool, list[float]] = {False: [], True: []}
    for number in range(_ROUNDS + 2):
        pages = world.pages()
        for by_user, poll in sorted(polls.items(), reverse=bool(number % 2)):
            seconds = await poll_once(poll, pages, world.now)
            if number > 1:  # the first ones create all series
                spent[by_user].append(seconds)
    for store in stores.values():
        await store.close()
    return spent, len(polls[True].ledger) - len(polls[False].ledger)


def main() -> int:
    """Measure, and report the ratio and milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        spent, series = asyncio.run(measure(Path(folder)))
    ratios = [with_users / without for without, with_users in zip(*spent.values(), strict=True)]
    jobs = f"{_USERS} users x {_POOLS} pools"
    return report(
        [
            Figure(
                f"{jobs}: CPU of a poll relative to by_user: false",
                ratios,
                "times",
                _MOST,
                most=True,
            ),
            Figure("the same, with users", [each * 1000 for each in spent[True]], "ms of CPU"),
            Figure("the same, without", [each * 1000 for each in spent[False]], "ms of CPU"),
            Figure("counters by user", [series], "series"),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
