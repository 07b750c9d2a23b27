"""CPU time of a poll for the lookup, the tracker, the counters and the commit, in all threads.

100,000 jobs are known. The view has 5,000 active jobs, each newly decoded; either 100 of them have
changed, or the duration of all running ones. The state file is in the temporary directory. For
information: rendering the series of that poll, and the body.
"""

import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from common import Figure, report
from world import make_fleet

from exporter.jobs.fleet import Fleet
from exporter.jobs.job import Job, View
from exporter.jobs.tracker import Observation
from exporter.metrics.counter_lines import LineCache, counter_lines
from exporter.metrics.counters import Ledger, Series, SeriesKey
from exporter.metrics.self_metrics import Instruments
from exporter.metrics.zero_init import ZeroInit
from exporter.modelarts.decode.jobs import decode_page
from exporter.polling.known_jobs import TargetJobs
from exporter.polling.render import render_gauges
from exporter.polling.state import _digest
from exporter.polling.user_limit import UserLimiter
from exporter.settings.schema import JobsSettings
from exporter.simulator.behaviour import Behaviour
from exporter.simulator.query import parse
from exporter.simulator.search import Searches
from exporter.storage.scopes import StateKey
from exporter.storage.store import StateChange, Store
from exporter.web.publisher import render

_T = TypeVar("_T")

_KNOWN = 100_000
_ACTIVE = 5000
_CHANGED = 100
_ROUNDS = 9
_PAGE = 50
_LABELS = {"region": "cn-north-4", "project": "research"}
_KEY = StateKey("cn-north-4", "p", "research", "https://service.test")


def listed(now: float) -> dict[str, Job]:
    """Jobs decoded from the pages of a service."""
    behaviour = Behaviour()
    world = make_fleet(_KNOWN - _ACTIVE, _ACTIVE)
    searches = Searches(world, behaviour)
    jobs: dict[str, Job] = {}
    for offset in range(_KNOWN // _PAGE):
        query = json.dumps({"limit": _PAGE, "offset": offset, "workspace_id": "0"}).encode()
        page = decode_page(searches.answer(parse(query, behaviour)), workspace="0", now=now)
        jobs |= {job.id: job for job in page.jobs}
    if len(jobs) != _KNOWN:
        raise SystemExit("jobs are missing")
    return jobs


def again(job: Job, seconds: float = 0.0) -> Job:
    """The same job as read again some seconds later."""
    later = None if job.duration is None else job.duration + seconds
    return msgspec.structs.replace(job, duration=later)


class Poll:
    """Does what a poller does with a view, and measures the CPU seconds of each part.

    Args:
        file: keeps the state.
        by_user: whether there are series by user.
    """

    def __init__(self, file: Store, *, by_user: bool = True) -> None:
        self._file = file
        self._name_user = UserLimiter(JobsSettings().max_users, "bench").name if by_user else None
        self.ledger: Ledger = {}
        self.now = time.time()
        self.fleet = Fleet(recent_since=self.now - JobsSettings().retention)
        self._known = TargetJobs(file, _KEY, ["0"], lambda: self.fleet)
        self._lines: LineCache = {}
        self._own = list(Instruments().registry.collect())
        self._zero_init = ZeroInit(60)

    async def take(self, view: View) -> dict[str, float]:
        """Do everything from the view to the body."""
        spent: dict[str, float] = {}
        self.now += 60
        started = time.process_time()
        known = await self._known.find(view.jobs.values())
        spent["lookup"] = time.process_time() - started
        observed, self.ledger, series = await self._timed(
            spent,
            "tracker",
            lambda: _digest(
                self.fleet, self.ledger, view, known, now=self.now, name_user=self._name_user
            ),
        )
        started = time.process_time()
        await self._file.commit(_KEY, _change(observed, series))
        await self._file._run(int)  # noqa: SLF001 - wait for the checkpoint after the commit
        spent["commit"] = time.process_time() - started
        self.fleet = observed.fleet
        gauges = await self._timed(
            spent,
            "series",
            lambda: render_gauges(
                self.fleet,
                _LABELS,
                JobsSettings(),
                self._zero_init.is_held,
                name_user=self._name_user,
            ),
        )
        events = await self._timed(
            spent,
            "counters",
            lambda: counter_lines(self.ledger, _LABELS, self._zero_init.is_held, self._lines),
        )
        await self._timed(spent, "body", lambda: render([{**gauges.lines, **events}], self._own))
        return spent

    async def _timed(self, spent: dict[str, float], name: str, work: Callable[[], _T]) -> _T:
        started = time.process_time()
        result = await asyncio.to_thread(work)
        spent[name] = time.process_time() - started
        return result


def _change(observed: Observation, series: dict[SeriesKey, Series]) -> StateChange:
    return StateChange(observed.jobs, observed.gone, observed.fleet.newest_created, series)


async def measure(folder: Path) -> dict[str, list[dict[str, float]]]:
    """CPU seconds of each poll by variant; the first view, of all jobs, separately."""
    chance = random.Random(0)
    file = await Store.open(folder / "state.db", problem=lambda: None)
    poll = Poll(file)
    jobs = listed(poll.now)
    newest_created = {"0": max(job.created or 0.0 for job in jobs.values())}
    spent = {
        "first": [await poll.take(View(jobs, newest_created=newest_created))],
        "some": [],
        "all": [],
    }
    active = {job.id: job for job in jobs.values() if job.phase in ("Running", "Pending")}
    for _ in range(_ROUNDS):
        for variant in ("some", "all"):
            grown = set(chance.sample(list(active), _CHANGED)) if variant == "some" else active
            active = {
                job_id: again(job, 60 if job_id in grown else 0) for job_id, job in active.items()
            }
            spent[variant].append(await poll.take(View(active, newest_created=newest_created)))
    await file.close()
    return spent


def main() -> int:
    """Measure, and report milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        spent = asyncio.run(measure(Path(folder)))
    rows = []
    for variant, name in (
        ("some", f"{_CHANGED} of {_ACTIVE} active jobs changed"),
        ("all", f"duration changed for all running ones of {_ACTIVE} active jobs"),
    ):
        sums = [
            sum(each[part] for part in ("lookup", "tracker", "commit")) * 1000
            for each in spent[variant]
        ]
        rows.append(Figure(f"{name}: lookup, tracker, commit", sums, "ms of CPU", 150, most=True))
        rows += [
            Figure(f"{name}: {part}", [each[part] * 1000 for each in spent[variant]], "ms of CPU")
            for part in ("lookup", "tracker", "commit", "series", "counters", "body")
        ]
    rows += [
        Figure(f"first view of {_KNOWN} jobs: {part}", [each * 1000], "ms of CPU")
        for part, each in spent["first"][0].items()
    ]
    return report(rows)


if __name__ == "__main__":
    sys.exit(main())
