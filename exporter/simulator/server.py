"""The HTTP server of the simulated service: calls the API and applies faults."""

import asyncio
import ipaddress
import ssl
import time
from collections import deque
from collections.abc import Callable
from email.utils import formatdate
from typing import NamedTuple, Self

from aiohttp import web

from exporter.simulator.actions import perform
from exporter.simulator.api import Api, Operation, route
from exporter.simulator.behaviour import Behaviour
from exporter.simulator.control import PREFIX, Control
from exporter.simulator.delivery import broken, whole
from exporter.simulator.faults import (
    DELIVERIES,
    INSTEAD,
    Fault,
    Faults,
    damaged,
    disturbed,
    instead,
)
from exporter.simulator.fleet import Fleet
from exporter.simulator.identity import Accounts
from exporter.simulator.reply import ApiError, Reply
from exporter.simulator.signature import Incoming

_LOGGED_REQUESTS = 10_000
_NO_ANSWER = ("hang", "cut", "reset")


class Logged(NamedTuple):
    """A received request; ``at`` in unix seconds, ``status`` 0 if it was not answered.

    ``body`` is kept for searches only: others may hold passwords.
    """

    at: float
    operation: str
    method: str
    path: str
    status: int
    identity: str
    body: bytes


class SimulatedService:
    """A ModelArts endpoint, an IAM endpoint and a metadata service under one base URL.

    Args:
        fleet: the world; advanced to the clock before every request.
        behaviour: choices where the documentation is ambiguous.
        accounts: permitted callers; None: everybody, without credentials.
        clock: unix seconds.

    Attributes:
        url: base URL, once started.
        faults: the faults set.
        requests: the latest requests, oldest first.
    """

    def __init__(
        self,
        fleet: Fleet,
        behaviour: Behaviour | None = None,
        *,
        accounts: Accounts | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.fleet = fleet
        self.behaviour = behaviour or Behaviour()
        self.accounts = accounts
        self.faults = Faults()
        self.requests: deque[Logged] = deque(maxlen=_LOGGED_REQUESTS)
        self.url = ""
        self._api = Api(fleet, self.behaviour, accounts)
        self._control = Control(fleet, self.faults, lambda: self.requests)
        self._clock = clock
        self._received = 0
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(
        self, host: str = "127.0.0.1", port: int = 0, ssl_context: ssl.SSLContext | None = None
    ) -> str:
        """Listen; port 0 selects a free port.

        Returns:
            The base URL.

        Raises:
            OSError: cannot listen on the address.
        """
        app = web.Application(client_max_size=2**22)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=ssl_context)
        try:
            await site.start()
        except OSError:
            await self.close()
            raise
        scheme = "http" if ssl_context is None else "https"
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{scheme}://{shown}:{self._runner.addresses[0][1]}"
        return self.url

    async def close(self) -> None:
        """Stop listening and close every connection, even hanging ones."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        incoming = Incoming(
            method=request.method,
            path=request.rel_url.raw_path,
            query=request.rel_url.raw_query_string,
            headers=_headers(request),
            body=await request.read(),
        )
        if incoming.path.startswith(PREFIX) and _is_loopback(request.remote):
            self.fleet.advance(self._clock())
            return whole(request, self._control.answer(incoming), compress=False)
        operation = route(incoming.method, incoming.path)
        faults = self.faults.striking(operation.name, incoming.path)
        await asyncio.sleep(sum(fault.seconds for fault in faults if fault.do == "latency"))
        self._received += 1
        request_id = f"{self._received:032x}"
        reply = self._reply(operation, incoming, faults, request_id)
        reply.headers.setdefault("X-Request-Id", request_id)
        reply.headers.setdefault("Date", formatdate(self._clock(), usegmt=True))
        for fault in faults:
            if fault.do in DELIVERIES:
                return await broken(request, reply, fault)
        return whole(request, reply, compress=self.behaviour.gzip)

    def _reply(
        self, operation: Operation, incoming: Incoming, faults: list[Fault], request_id: str
    ) -> Reply:
        """Return the response, and log the request."""
        now = self._clock()
        self.fleet.advance(now)
        self._act(faults)
        replaced = next((fault for fault in faults if fault.do in INSTEAD), None)
        identity = ""
        if replaced is not None:
            reply = instead(replaced, request_id)
        else:
            try:
                answer = self._api.answer(operation, disturbed(incoming, faults), now)
            except ApiError as refusal:
                reply = refusal.reply(request_id)
            else:
                identity, reply = answer[0], damaged(answer[1], faults)
        status = 0 if replaced is not None and replaced.do in _NO_ANSWER else reply.status
        body = incoming.body if operation.name == "search" else b""
        self.requests.append(
            Logged(now, operation.name, incoming.method, incoming.path, status, identity, body)
        )
        return reply

    def _act(self, faults: list[Fault]) -> None:
        for fault in faults:
            if fault.do == "act" and callable(fault.action):
                fault.action(self.fleet)
            elif fault.do == "act":
                perform(self.fleet, fault.action)


def _headers(request: web.Request) -> dict[str, str]:
    """Return headers by lower-case name; repeated headers are left out."""
    names = [name.lower() for name in request.headers]
    return {name: request.headers[name] for name in dict.fromkeys(names) if names.count(name) == 1}


def _is_loopback(remote: str | None) -> bool:
    return remote is not None and ipaddress.ip_address(remote).is_loopback
