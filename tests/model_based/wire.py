"""The service in memory, in virtual time: an `exporter.huaweicloud.http.Http`.

It knows who has seen what.
"""

import asyncio
import contextlib
import json
from contextvars import ContextVar

import msgspec
from model_based.hands import WITHOUT_PHASE, WITHOUT_RECORDS
from model_based.oracle import Shown, shown_phase

from exporter.errors import BrokenResponseError, ConnectionFailedError, TimedOutError
from exporter.huaweicloud.http import Response
from exporter.simulator.api import Api, route
from exporter.simulator.faults import INSTEAD, Faults, damaged, disturbed, instead
from exporter.simulator.reply import ApiError
from exporter.simulator.signature import Incoming

ENDPOINT = "http://service.test"
API_TIMEOUT = 30.0
ATTEMPT = ContextVar("attempt", default=None)
"""The poll on whose behalf something happens."""

_NO_ANSWER = {"hang": TimedOutError, "cut": ConnectionFailedError, "reset": ConnectionFailedError}


class _Metadata(msgspec.Struct):
    id: str | None = None


class _Item(msgspec.Struct):
    metadata: _Metadata


class _Listing(msgspec.Struct):
    items: list[_Item]


_LISTING = msgspec.json.Decoder(_Listing)
_ITEM = msgspec.json.Decoder(_Item)


class Wire:
    """Answers as `exporter.simulator.server` does, without sockets.

    Attributes:
        latency: seconds of every request.
        forbidden: the call for a single job is.
        delay: more seconds, by kind of the poll and body of the request.
        narrowed: workspaces whose lists are empty.
        sudden: what is to happen at coming requests: pairs of a countdown and a function.
        requests: how many came.
    """

    def __init__(self, world, history, hands, behaviour, service_clock):
        self.faults = Faults()
        self.latency = 0.05
        self.forbidden = False
        self.narrowed = set()
        self.sudden = []
        self.requests = 0
        self.meter = None
        self.at_request = _nothing
        self.delay = lambda _kind, _body: 0.0
        self._world, self._history, self._hands = world, history, hands
        self._behaviour = behaviour
        self._clock = service_clock
        self._api = Api(world, behaviour, None)

    def connect(self, *, meter, **_):
        """As `exporter.huaweicloud.http.Session`, for a new poller."""
        self.meter = meter
        return self

    async def close(self):
        pass

    async def __call__(self, request):
        code = "connection"
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            answer = await self._exchange(
                request.method,
                request.url.removeprefix(ENDPOINT),
                request.headers,
                request.body,
            )
            code = str(answer.status)
        except TimedOutError:
            code = "timeout"
            raise
        else:
            return answer
        finally:
            self.meter.requested(request.operation, code, loop.time() - started)

    async def _exchange(self, method, path, headers, body):
        self.requests += 1
        await self.at_request()
        operation = route(method, path)
        faults = self.faults.striking(operation.name, path)
        late = self.latency + sum(fault.seconds for fault in faults if fault.do == "latency")
        late += self.delay(ATTEMPT.get().kind, body)
        await asyncio.sleep(min(late, API_TIMEOUT) / 2)
        names = {name.lower(): value for name, value in headers.items()}
        request = disturbed(Incoming(method, path, "", names, body), faults)
        reply = self._reply(operation, request, faults)
        await asyncio.sleep(min(late, API_TIMEOUT) / 2)
        for fault in faults:
            if fault.do == "hang":
                await asyncio.sleep(API_TIMEOUT)
            if fault.do in _NO_ANSWER:
                raise _NO_ANSWER[fault.do]("no answer")
            if fault.do == "cut_body":
                raise BrokenResponseError("cut off")
        if late >= API_TIMEOUT:
            raise TimedOutError("no answer in time")
        return Response(reply.status, reply.headers, reply.body)

    def _reply(self, operation, request, faults):
        now = self._clock()
        self._world.advance(now)
        self._act()
        replaced = next((fault for fault in faults if fault.do in INSTEAD), None)
        attempt = ATTEMPT.get()
        if replaced is not None:
            attempt.narrowed |= replaced.do == "replace"
            return instead(replaced, "1")
        if operation.name == "get" and self.forbidden:
            return ApiError(403, "ModelArts.0112", "not allowed").reply("1")
        try:
            with self._without_hidden(operation, request):
                reply = self._api.answer(operation, request, now)[1]
        except ApiError as refusal:
            return refusal.reply("1")
        reply = damaged(reply, sorted(faults, key=lambda fault: fault.do == "truncate"))
        if operation.name == "search" and self.narrowed:
            document = json.loads(request.body)
            if document["workspace_id"] in self.narrowed:
                attempt.narrowed = True
                reply.body = b'{"total":0,"count":0,"items":[]}'
        self._note(attempt, operation.name, reply.body)
        return reply

    @contextlib.contextmanager
    def _without_hidden(self, operation, request):
        """Lists omit jobs that are hidden, unless they are asked for one by one."""
        filters = json.loads(request.body).get("filters", []) if operation.name == "search" else []
        if operation.name != "search" or {each["key"] for each in filters} & {"id", "name"}:
            yield
            return
        hidden = [self._world[job_id] for job_id in self._hands.hidden if job_id in self._world]
        for job in hidden:
            self._world.index.remove(job)
        try:
            yield
        finally:
            for job in hidden:
                self._world.index.add(job)

    def _act(self):
        due = [act for countdown, act in self.sudden if countdown <= 1]
        self.sudden = [(countdown - 1, act) for countdown, act in self.sudden if countdown > 1]
        for act in due:
            act()

    def _note(self, attempt, operation, body):
        """Who was shown, and how."""
        try:
            items = _LISTING.decode(body).items if operation == "search" else [_ITEM.decode(body)]
        except msgspec.DecodeError:
            return
        listed = operation == "get" or self._behaviour.records_in_list
        for item in items:
            job_id = item.metadata.id
            if job_id not in self._world:
                continue
            odd = self._hands.odd.get(job_id)
            if odd in WITHOUT_PHASE:
                attempt.without_phase[job_id] = len(self._history[job_id])
                continue
            job = self._world[job_id]
            records = listed and odd not in WITHOUT_RECORDS and bool(job.runs)
            end = job.runs[-1].end if job.runs else None
            last = (
                (None if end is None else float(int(end)), job.runs[-1].recovery) if records else ()
            )
            shown = Shown(
                shown_phase(job.phase),
                round(job.running_seconds(self._world.now) * 1000) / 1000,
                len(job.runs) if records else None,
                last,
            )
            attempt.shown[job_id].append((len(self._history[job_id]), shown))


async def _nothing():
    pass
