"""A simulated service with a very long list of jobs.

A job is made from its number when it is listed, so a million of them take 4 MB. `answer` takes a
fraction of a millisecond for a page: what is measured is the exporter. Requests are checked, and
errors look, as in `exporter.simulator`. All jobs are in one workspace, no credentials are checked.
Nothing happens but what is requested.

Run by the benchmarks as ``long_list.py JOBS ACTIVE``; prints its URL once it serves. What shall
happen is requested with POST on ``/-/sim/``: ``create`` and ``finish`` with a number of jobs,
``delete`` with rows, ``behaviour`` with attributes of `Behaviour`. GET ``/-/sim/requests`` counts
requests by operation.
"""

import argparse
import asyncio
import json
import re
import time
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from aiohttp import web
from world import make_fleet

from exporter.simulator.api import route
from exporter.simulator.behaviour import Behaviour
from exporter.simulator.catalog import DEFAULT_WORKSPACE
from exporter.simulator.job import ACTIVE
from exporter.simulator.query import Filter, Query, parse
from exporter.simulator.reply import ApiError, Reply, encoded
from exporter.simulator.wire import document

_MINUTE = 60_000
_HOUR = 60 * _MINUTE
_SPAN = 365 * 24 * _HOUR
_SHAPES = 20
_FACTOR = 0x9E37_79B9_7F4A_7C15
"""Spreads ids, so that they are as unordered as those of the real service. Odd, so invertible."""
_INVERSE = pow(_FACTOR, -1, 2**64)
_NUMBER = re.compile(r"job-(\d{8})")
_ID = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-8000-000000000000")
_ENDS = (b"Completed", b"Completed", b"Failed", b"Terminated")
_CONTROL = "/-/sim/"

_METADATA = (
    b'{"kind":"job","metadata":{"id":"%b","name":"job-%08d","description":"","create_time":%d,'
    b'"workspace_id":"0","user_name":"%b"},'
)
_PENDING = (
    b'"status":{"phase":"Pending","secondary_phase":"Queuing","duration":0,"start_time":0,'
    b'"node_count_metrics":[[%d,0]],"tasks":["worker-0"]},'
)
_STARTED = (
    b'"status":{"phase":"%b","secondary_phase":"%b","duration":%d,"start_time":%d,'
    b'"node_count_metrics":[[%d,0],[%d,%d]],"tasks":["worker-0"],"running_records":[%b]},'
)
_RESTARTED = (
    b'{"start_at":%d,"start_type":"init_or_rescheduled","end_at":%d,"end_reason":"exit with 1",'
    b'"end_related_task":"worker-0","end_recover":"pod_reschedule"},'
)
_LAST_RUN = b'{"start_at":%d,"start_type":"init_or_rescheduled"}'
_LAST_RUN_ENDED = (
    b'{"start_at":%d,"start_type":"init_or_rescheduled","end_at":%d,"end_reason":"job ended",'
    b'"end_related_task":""}'
)


class LongList:
    """The jobs of a project, and the service that lists them.

    A *row* is a position in the list, counted from the oldest job.

    Args:
        jobs: number of jobs; the first was created a year before the last.
        active: number of active jobs, the newest ones; one in ten waits, the others run.
        clock: unix seconds.
        behaviour: choices where the documentation is ambiguous.
        equal: number of consecutive jobs with the same create time.

    Attributes:
        requests: number of requests by operation.
    """

    def __init__(
        self,
        jobs: int,
        active: int,
        *,
        clock: Callable[[], float] = time.time,
        behaviour: Behaviour | None = None,
        equal: int = 1,
    ) -> None:
        self.behaviour = behaviour or Behaviour()
        self.requests: Counter[str] = Counter()
        self._clock = clock
        self._equal = equal
        self._numbers = array("I", range(jobs))
        self._active = list(range(jobs - active, jobs))
        # A day ago: none of the jobs that had ended at the start has series of its own.
        self._first = self._now - 24 * _HOUR - _SPAN
        self._step = _SPAN / jobs
        self._unborn = jobs
        self._created: dict[int, int] = {}
        self._ended: dict[int, int] = {}
        self._shapes = _shapes()

    def __len__(self) -> int:
        return len(self._numbers)

    def create(self, jobs: int) -> None:
        """Create jobs, all at this moment; they are running."""
        numbers = range(self._unborn, self._unborn + jobs)
        self._unborn += jobs
        self._created |= dict.fromkeys(numbers, self._now)
        self._numbers.extend(numbers)
        self._active.extend(numbers)

    def finish(self, jobs: int) -> None:
        """End the oldest active jobs."""
        self._ended |= dict.fromkeys(self._active[:jobs], self._now)
        del self._active[:jobs]

    def delete(self, rows: Iterable[int]) -> None:
        """Delete the jobs at some rows."""
        for row in sorted(rows, reverse=True):
            number = self._numbers.pop(row)
            self._created.pop(number, None)
            self._ended.pop(number, None)
            if number in self._active:
                self._active.remove(number)

    def answer(self, method: str, path: str, body: bytes) -> Reply:
        """Answer a request to the API."""
        operation = route(method, path)
        self.requests[operation.name] += 1
        try:
            if operation.name == "search":
                return Reply(200, self._search(parse(body, self.behaviour)))
            if operation.name == "get":
                return Reply(200, self._get(operation.arguments[1]))
        except ApiError as refusal:
            return refusal.reply("0")
        if operation.name == "pools":
            return encoded(200, {"kind": "PoolList", "apiVersion": "v2", "items": []})
        return ApiError(404, "APIG.0101", "The API does not exist.").reply("0")

    @property
    def _now(self) -> int:
        return round(self._clock() * 1000)

    def _search(self, query: Query) -> bytes:
        if query.workspace != DEFAULT_WORKSPACE:
            matching: Sequence[int] = ()
        else:
            matching = self._matching(query.filters)
        first = query.offset * (query.limit if self.behaviour.offset == "page" else 1)
        last = min(first + query.limit, len(matching))
        rows = range(first, last)
        if query.order == "desc":
            rows = range(len(matching) - first - 1, len(matching) - last - 1, -1)
        total, count = {
            "documented": (len(self), len(matching)),
            "page": (len(self), len(rows)),
            "lies": (len(self) * 7 % 9973, len(matching) * 7 % 9973),
        }[self.behaviour.totals]
        now = self._now
        items = b",".join([self._document(matching[row], now) for row in rows])
        return (
            b'{"total":%d,"count":%d,"limit":%d,"offset":%d,"sort_by":"create_time","order":"%b",'
            b'"group_by":"","workspace_id":"%b","items":[%b]}'
        ) % (
            *(total, count, query.limit, query.offset),
            *(query.order.encode(), query.workspace.encode(), items),
        )

    def _get(self, job_id: str) -> bytes:
        number = _number(job_id)
        if not self._lists(number):
            raise ApiError(400, "ModelArts.2775", f"Training job {job_id} not found.")
        return self._document(number, self._now)

    def _matching(self, filters: Sequence[Filter]) -> Sequence[int]:
        """Numbers of the jobs that match, oldest first."""
        matching: Sequence[int] = self._numbers
        for condition in sorted(filters, key=lambda each: each.key == "phase"):
            match condition.key, condition.operator:
                case "id", "in":
                    numbers = sorted({_number(each) for each in condition.values})
                    matching = [number for number in numbers if self._lists(number)]
                case "name", "like":
                    named = [_NUMBER.fullmatch(each) for each in condition.values]
                    numbers = sorted({int(each[1]) for each in named if each})
                    matching = [number for number in numbers if self._lists(number)]
                case "phase", "in":
                    if matching is self._numbers and set(condition.values) <= set(ACTIVE):
                        matching = self._active
                    matching = [n for n in matching if self._phase(n).decode() in condition.values]
                case key, operator:
                    raise ApiError(400, "ModelArts.2789", f"Filtering by {key} {operator}.")
        return matching

    def _lists(self, number: int) -> bool:
        row = bisect_left(self._numbers, number)
        return row < len(self) and self._numbers[row] == number

    def _phase(self, number: int) -> bytes:
        row = bisect_left(self._active, number)
        if row < len(self._active) and self._active[row] == number:
            return b"Running" if number % 10 or number in self._created else b"Pending"
        return _ENDS[number % len(_ENDS)]

    def _document(self, number: int, now: int) -> bytes:
        user, tail = self._shapes[number % _SHAPES]
        created = started = self._created.get(number)
        if created is None:
            created = self._first + int(number // self._equal * self._equal * self._step)
            started = created + _MINUTE
        head = _METADATA % (_id(number), number, created, user)
        phase = self._phase(number)
        if phase == b"Pending":
            return head + _PENDING % created + tail
        ended = None
        if phase != b"Running":
            ended = self._ended.get(number, started + (1000 + number % 6000) * 1000)
        return head + _status(phase, number, started, ended, now) + tail


def _status(phase: bytes, number: int, started: int, ended: int | None, now: int) -> bytes:
    """The status of a job that has started; times in ms."""
    begun, records = started // 1000, b""
    if number % 10 == 1:
        records, begun = _RESTARTED % (begun, begun + 540), begun + 560
    if ended is None:
        records += _LAST_RUN % begun
    else:
        records += _LAST_RUN_ENDED % (begun, max(begun, ended // 1000))
    last = max(started, now if ended is None else ended)
    nodes = 0 if ended else 1 + number % 4
    return _STARTED % (
        *(phase, phase, last - started, started),
        *(started, last, nodes, records),
    )


def _shapes() -> list[tuple[bytes, bytes]]:
    """Name of the user, and the document without the job's own part, of jobs of all kinds."""
    shapes = []
    for job in make_fleet(_SHAPES, 0):
        whole = document(job, 0.0)
        tail = {"algorithm": whole["algorithm"], "spec": whole["spec"]}
        shapes.append((job.user.name.encode(), msgspec.json.encode(tail)[1:]))
    return shapes


def _id(number: int) -> bytes:
    spread = b"%016x" % (number * _FACTOR % 2**64)
    return b"%b-%b-%b-8000-000000000000" % (spread[:8], spread[8:12], spread[12:])


def _number(job_id: str) -> int:
    """The number of a job; one that no job has if the ID is not of this service."""
    match = _ID.fullmatch(job_id)
    number = int("".join(match.groups()), 16) * _INVERSE % 2**64 if match else 2**32
    return min(number, 2**32 - 1)


async def serve(jobs: LongList) -> None:
    """Serve until the process is stopped."""
    actions: dict[str, Callable[[Any], object]] = {
        "create": jobs.create,
        "finish": jobs.finish,
        "delete": jobs.delete,
        "behaviour": lambda values: [setattr(jobs.behaviour, *item) for item in values.items()],
        "requests": lambda _: None,
    }

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        if request.path.startswith(_CONTROL):
            actions[request.path.removeprefix(_CONTROL)](json.loads(body or b"null"))
            return web.json_response(jobs.requests)
        reply = jobs.answer(request.method, request.path, body)
        return web.Response(
            status=reply.status, body=reply.body, headers={"Content-Type": reply.content_type}
        )

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"list at http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serve the list that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", type=int)
    parser.add_argument("active", type=int)
    parser.add_argument("--offset", choices=("page", "row"), default="page")
    parser.add_argument("--equal", type=int, default=1)
    arguments = parser.parse_args()
    behaviour = Behaviour(offset=arguments.offset)
    jobs = LongList(arguments.jobs, arguments.active, behaviour=behaviour, equal=arguments.equal)
    asyncio.run(serve(jobs))


if __name__ == "__main__":
    main()
