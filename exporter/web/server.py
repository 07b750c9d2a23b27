"""The HTTP server: routes that serve from memory only.

Every response exists as bytes before its first byte is sent, and `_send` sends them all: in slices,
each after the previous one has gone to the kernel, and within one timeout for the whole response.
So a client that reads slowly or not at all costs one slice and a connection, for that time.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple

from aiohttp import web

from exporter import __version__
from exporter.metrics.exposition import Exposition
from exporter.web.access import AccessControl
from exporter.web.connection import COMMON_HEADERS, Handler
from exporter.web.negotiation import Negotiated, negotiate
from exporter.web.origin import is_cross_origin, is_rebound
from exporter.web.page import MAX_QUERY, POLICY, StatusPage
from exporter.web.publisher import Publisher

log = logging.getLogger(__name__)

WRITE_TIMEOUT = 60.0
"""Seconds to send a whole response; Prometheus gives up on a scrape after 10 by default."""

SCRAPE_HEADER = "X-Prometheus-Scrape-Timeout-Seconds"
"""Sent by Prometheus, not by browsers."""

_CHALLENGE = {"WWW-Authenticate": 'Basic realm="modelarts-exporter", charset="UTF-8"'}

_PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_SLICE = 2**18

_REBOUND = (
    "this host name is not accepted on a loopback address (protection against DNS rebinding); "
    "use localhost or an IP address, see docs/web-configuration.md"
)


class MemoryResponse(web.StreamResponse):
    """A response whose body is already in memory, and is not copied.

    Args:
        body: the whole body.
        status: HTTP status.
        headers: must include Content-Type.
        sent: called after the whole body of a GET was sent.
    """

    def __init__(
        self,
        body: bytes,
        *,
        status: int = 200,
        headers: Mapping[str, str],
        sent: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(status=status, headers={**headers, **COMMON_HEADERS})
        self.content_length = len(body)
        self.memory = memoryview(body)
        self.sent = sent


class _Route(NamedTuple):
    """A path's handler.

    Attributes:
        handle: makes the response.
        methods: those that it handles.
        guarded: True if requests behind which there may be another site are refused.
    """

    handle: Callable[[web.BaseRequest], Awaitable[MemoryResponse]]
    methods: tuple[str, ...] = ("GET", "HEAD")
    guarded: bool = False


def make_app(
    publisher: Publisher,
    *,
    telemetry_path: str = "/metrics",
    version: str = __version__,
    write_timeout: float = WRITE_TIMEOUT,
    scraped: Callable[[Exposition], None] | None = None,
    reload: Callable[[], Awaitable[Sequence[str]]] | None = None,
    access: AccessControl | None = None,
    clock: Callable[[], float] = time.time,
) -> Handler:
    """Build the handler of all requests.

    Args:
        publisher: holds the exposition to serve.
        telemetry_path: path of the metrics; with ``/`` there is no status page.
        version: of the exporter, shown on the page.
        write_timeout: seconds to send a whole response.
        scraped: called with each exposition that a Prometheus has received completely.
        reload: reloads the configuration and returns the problems; None disables ``/-/reload``.
        access: protects all paths; None admits every client.
        clock: returns Unix seconds.
    """
    page = StatusPage(version=version, telemetry_path=telemetry_path)
    handlers = _Handlers(publisher, page, clock, scraped, reload)
    routes = {
        "/": _Route(handlers.status_page, guarded=True),
        "/-/healthy": _Route(handlers.healthy),
        "/-/ready": _Route(handlers.ready),
        "/-/reload": _Route(handlers.reload, ("POST",), guarded=True),
    }
    routes[telemetry_path] = _Route(handlers.metrics)

    async def handle(request: web.BaseRequest) -> MemoryResponse:
        if access is None:
            response = await _route(routes, request, needs_password=False)
        else:
            response = await _admit(access, routes, request)
        if request.body_exists:  # it is not read, so the next request could not be found
            response.force_close()
        await _send(request, response, write_timeout)
        return response

    return handle


class _Handlers:
    """Handlers of the routes. A HEAD is handled as a GET whose body is not sent."""

    def __init__(
        self,
        publisher: Publisher,
        page: StatusPage,
        clock: Callable[[], float],
        scraped: Callable[[Exposition], None] | None,
        reload: Callable[[], Awaitable[Sequence[str]]] | None,
    ) -> None:
        self._publisher = publisher
        self._page = page
        self._clock = clock
        self._scraped = scraped
        self._reload = reload
        self._rendering = asyncio.Lock()

    async def metrics(self, request: web.BaseRequest) -> MemoryResponse:
        exposition = self._publisher.exposition
        choice = negotiate(_header(request, "Accept"), _header(request, "Accept-Encoding"))
        headers = {"Content-Type": choice.content_type, "Vary": "Accept, Accept-Encoding"}
        if choice.gzip:
            headers["Content-Encoding"] = "gzip"
        sent = None
        if self._scraped and SCRAPE_HEADER in request.headers:
            sent = functools.partial(self._scraped, exposition)
        return MemoryResponse(_body(exposition, choice), headers=headers, sent=sent)

    async def status_page(self, request: web.BaseRequest) -> MemoryResponse:
        query = request.query.get("q", "")[:MAX_QUERY]
        async with self._rendering:  # at most one thread, however many clients
            if request.transport is None:  # the client disconnected while others were served
                return _text("gone", status=503)
            targets = [poller.status() for poller in self._publisher.pollers]
            html = await asyncio.to_thread(
                self._page.render, targets, query=query, now=self._clock()
            )
        return MemoryResponse(html, headers=_PAGE_HEADERS)

    async def healthy(self, _: web.BaseRequest) -> MemoryResponse:
        return _text("OK")

    async def ready(self, _: web.BaseRequest) -> MemoryResponse:
        if self._publisher.ready:
            return _text("OK")
        waiting = [poller.name for poller in self._publisher.pollers if not poller.ended_polls]
        text = f"not polled yet: {', '.join(waiting)}" if waiting else "looking up targets"
        return _text(text, status=503)

    async def reload(self, request: web.BaseRequest) -> MemoryResponse:
        """Respond when the reload is complete; it completes even if the client disconnects."""
        if self._reload is None:
            disabled = "reloading over HTTP is disabled; enable it with --web.enable-reload"
            return _text(disabled, status=403)
        if is_cross_origin(request.headers):
            return _text("reload requested by a page of another site", status=403)
        problems = await self._reload()
        if problems:
            return _text("\n".join(["failed to reload config:", *problems]), status=500)
        return _text("OK")


def _body(exposition: Exposition, choice: Negotiated) -> bytes:
    if choice.format == "openmetrics":
        return exposition.openmetrics_gzip if choice.gzip else exposition.openmetrics
    return exposition.text_gzip if choice.gzip else exposition.text


def _header(request: web.BaseRequest, name: str) -> str | None:
    """The value of a header; one that is repeated is joined by commas."""
    values = request.headers.getall(name, [])
    return ", ".join(values) if values else None


def _text(
    line: str, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> MemoryResponse:
    plain = {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}
    return MemoryResponse(f"{line}\n".encode("utf-8", "replace"), status=status, headers=plain)


def _error(status: HTTPStatus, headers: Mapping[str, str] | None = None) -> MemoryResponse:
    return _text(status.phrase.lower(), status=status, headers=headers)


async def _admit(
    access: AccessControl, routes: Mapping[str, _Route], request: web.BaseRequest
) -> MemoryResponse:
    """Access control before routing, so that a refused client cannot probe paths."""
    fields = request.headers.getall("Authorization", [])
    authorization = fields[0] if len(fields) == 1 else None

    def connected() -> bool:
        return request.transport is not None

    if not access.within_rate_limit():
        response = _error(HTTPStatus.TOO_MANY_REQUESTS)
    elif not await access.authenticate(authorization, request.remote, connected):
        response = _error(HTTPStatus.UNAUTHORIZED, _CHALLENGE)
    else:
        response = await _route(routes, request, needs_password=access.needs_password)
    for name, value in access.headers.items():
        response.headers.setdefault(name, value)
    return response


async def _route(
    routes: Mapping[str, _Route], request: web.BaseRequest, *, needs_password: bool
) -> MemoryResponse:
    route = routes.get(request.path)
    if route is None:
        return _error(HTTPStatus.NOT_FOUND)
    if request.method not in route.methods:
        return _error(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": ",".join(route.methods)})
    if request.headers.get("Expect", "100-continue").lower() != "100-continue":
        return _error(HTTPStatus.EXPECTATION_FAILED)
    if route.guarded and not needs_password and _is_rebound(request):
        return _text(_REBOUND, status=403)
    return await route.handle(request)


def _is_rebound(request: web.BaseRequest) -> bool:
    """As `is_rebound`. With TLS, the browser has compared the name with the certificate."""
    transport = request.transport
    if transport is None or transport.get_extra_info("sslcontext"):
        return False
    return is_rebound(request.headers, transport.get_extra_info("sockname")[0])


async def _send(request: web.BaseRequest, response: MemoryResponse, seconds: float) -> None:
    """Send a response, or abort its connection."""
    transport = request.transport
    if transport is None:  # the client has already disconnected
        return
    # With this limit a drain waits until the kernel has all data, so none is left in a buffer that
    # no timeout covers. (Not 0: a TLS transport would consider itself full when it is empty. With
    # TLS the last slices may stay buffered; asyncio's own timeout for closing then applies.)
    transport.set_write_buffer_limits(high=1, low=0)
    complete = False
    try:
        async with asyncio.timeout(seconds):
            await _write(request, response)
        complete = True
    except (ConnectionError, TimeoutError) as error:
        log.debug("response not delivered: %r", error, extra={"client": request.remote})
    finally:
        if not complete:
            transport.abort()
    if complete and response.sent is not None and request.method == "GET":
        response.sent()


async def _write(request: web.BaseRequest, response: MemoryResponse) -> None:
    await response.prepare(request)
    size = 0 if request.method == "HEAD" else len(response.memory)
    for start in range(0, size, _SLICE):
        await response.write(response.memory[start : start + _SLICE])
        await request.writer.drain()
        await asyncio.sleep(0)  # a fast client must not starve the others
    await response.write_eof()
