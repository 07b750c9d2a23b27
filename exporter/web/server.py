"""The HTTP server: routes with nothing but memory behind them.

Every answer exists as bytes before its first byte is sent, and leaves by one way (`_deliver`): in
slices, each after the one before has gone to the kernel, and all within a time. So a client that
reads slowly or not at all costs one slice and a connection, for that time.
"""

import asyncio
import contextlib
import logging
import os
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from exporter import __version__
from exporter.errors import StartError
from exporter.metrics.exposition import Exposition
from exporter.web.access import AccessControl
from exporter.web.negotiation import Negotiated, negotiate
from exporter.web.page import LONGEST_QUERY, POLICY, StatusPage
from exporter.web.publisher import Publisher

log = logging.getLogger(__name__)

Address = tuple[str, int]
"""Host, "" for all interfaces, and port, 0 for a free one."""

WRITE_TIMEOUT = 60.0
"""Seconds for a whole answer; Prometheus gives up on a scrape after 10 unless told otherwise."""

SCRAPE_HEADER = "X-Prometheus-Scrape-Timeout-Seconds"
"""Prometheus sends it and people do not."""

_CHALLENGE = {"WWW-Authenticate": 'Basic realm="modelarts-exporter", charset="UTF-8"'}

_PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_SLICE = 2**18
_KEEPALIVE_SECONDS = 75.0  # longer than the usual scrape intervals
_LINGERING_SECONDS = 1.0  # for the rest of a request body, which nobody reads
_SHUTDOWN_SECONDS = 1.0  # aiohttp waits twice for so long
_LONGEST_FIELD = 2**14
_MOST_FIELDS = 64
_HIGHEST_PORT = 2**16 - 1


class MemoryResponse(web.StreamResponse):
    """An answer whose body is in memory already, and is not copied.

    Args:
        body: all of it.
        status: HTTP status.
        headers: with the Content-Type.
        sent: called when all of the body was sent, for a GET.
    """

    def __init__(
        self,
        body: bytes,
        *,
        status: int = 200,
        headers: Mapping[str, str],
        sent: Callable[[], None] | None = None,
    ) -> None:
        common = {"X-Content-Type-Options": "nosniff", "Server": "modelarts-exporter"}
        super().__init__(status=status, headers={**headers, **common})
        self.content_length = len(body)
        self.memory = memoryview(body)
        self.sent = sent


def make_app(
    publisher: Publisher,
    *,
    telemetry_path: str = "/metrics",
    version: str = __version__,
    write_timeout: float = WRITE_TIMEOUT,
    scraped: Callable[[Exposition], None] | None = None,
    reload: Callable[[], Awaitable[Sequence[str]]] | None = None,
    guard: AccessControl | None = None,
    clock: Callable[[], float] = time.time,
) -> web.Application:
    """The routes.

    Args:
        publisher: holds what is served.
        telemetry_path: where the metrics are; at ``/`` there is no page for people.
        version: of the exporter, for people.
        write_timeout: seconds for a whole answer.
        scraped: told of each generation that a Prometheus has received completely.
        reload: reads the configuration again and returns what is wrong with it; None: nobody may.
        guard: says who may come in, to whatever path; None: everybody.
        clock: gives unix seconds.
    """
    page = StatusPage(version=version, telemetry_path=telemetry_path)
    routes = _Routes(publisher, page, clock, scraped, reload)
    middlewares = [_delivery(write_timeout), *([_entrance(guard)] if guard else [])]
    app = web.Application(middlewares=middlewares)
    app.router.add_get(telemetry_path, routes.metrics)
    if telemetry_path != "/":
        app.router.add_get("/", routes.landing)
    app.router.add_get("/-/healthy", routes.healthy)
    app.router.add_get("/-/ready", routes.ready)
    app.router.add_post("/-/reload", routes.reload)
    return app


class _Routes:
    """What is answered; a HEAD is answered as a GET, and its body not sent."""

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

    async def metrics(self, request: web.Request) -> MemoryResponse:
        exposition = self._publisher.exposition
        choice = negotiate(_field(request, "Accept"), _field(request, "Accept-Encoding"))
        headers = {"Content-Type": choice.content_type, "Vary": "Accept, Accept-Encoding"}
        if choice.gzip:
            headers["Content-Encoding"] = "gzip"
        return MemoryResponse(
            _chosen(exposition, choice), headers=headers, sent=self._after(request, exposition)
        )

    def _after(self, request: web.Request, exposition: Exposition) -> Callable[[], None] | None:
        scraped = self._scraped
        if scraped is None or SCRAPE_HEADER not in request.headers:
            return None
        return lambda: scraped(exposition)

    async def landing(self, request: web.Request) -> MemoryResponse:
        query = request.query.get("q", "")[:LONGEST_QUERY]
        async with self._rendering:  # one thread, however many look at it
            if request.transport is None:  # gone while others were served
                return _text("gone", status=503)
            targets = [poller.status() for poller in self._publisher.pollers]
            html = await asyncio.to_thread(
                self._page.render, targets, query=query, now=self._clock()
            )
        return MemoryResponse(html, headers=_PAGE_HEADERS)

    async def healthy(self, _: web.Request) -> MemoryResponse:
        return _text("OK")

    async def ready(self, _: web.Request) -> MemoryResponse:
        if self._publisher.ready:
            return _text("OK")
        waiting = [poller.name for poller in self._publisher.pollers if not poller.ended_polls]
        return _text(f"not polled yet: {', '.join(waiting)}", status=503)

    async def reload(self, _: web.Request) -> MemoryResponse:
        """Done when it is answered, even if the client has gone meanwhile."""
        if self._reload is None:
            return _text("reloading over HTTP is off; --web.enable-reload allows it", status=403)
        problems = await self._reload()
        if problems:
            return _text("\n".join(["failed to reload config:", *problems]), status=500)
        return _text("OK")


def _chosen(exposition: Exposition, choice: Negotiated) -> bytes:
    if choice.format == "openmetrics":
        return exposition.openmetrics_gzip if choice.gzip else exposition.openmetrics
    return exposition.text_gzip if choice.gzip else exposition.text


def _field(request: web.Request, name: str) -> str | None:
    """A header that may come in several lines."""
    values = request.headers.getall(name, [])
    return ", ".join(values) if values else None


def _text(
    line: str, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> MemoryResponse:
    plain = {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}
    return MemoryResponse(f"{line}\n".encode("utf-8", "replace"), status=status, headers=plain)


def _delivery(seconds: float) -> Middleware:
    """The one way out, for refusals of the router too."""

    @web.middleware
    async def deliver(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            reply = await handler(request)
        except web.HTTPException as refusal:
            reply = _refusal(refusal)
        if isinstance(reply, MemoryResponse):
            await _deliver(request, reply, seconds)
        return reply

    return deliver


def _refusal(refusal: web.HTTPException) -> MemoryResponse:
    allow = {"Allow": refusal.headers["Allow"]} if "Allow" in refusal.headers else {}
    return _text(refusal.reason.lower(), status=refusal.status, headers=allow)


def _entrance(guard: AccessControl) -> Middleware:
    """The one way in. Who is refused does not even learn which paths there are."""

    @web.middleware
    async def enter(request: web.Request, handler: Handler) -> web.StreamResponse:
        fields = request.headers.getall("Authorization", [])
        authorization = fields[0] if len(fields) == 1 else None

        def waits() -> bool:
            return request.transport is not None

        reply: web.StreamResponse
        if not guard.has_time():
            reply = _text("too many requests", status=429)
        elif not await guard.admits(authorization, request.remote, waits):
            reply = _text("unauthorized", status=401, headers=_CHALLENGE)
        else:
            try:
                reply = await handler(request)
            except web.HTTPException as refusal:
                reply = _refusal(refusal)
        for name, value in guard.headers.items():
            reply.headers.setdefault(name, value)
        return reply

    return enter


async def _deliver(request: web.Request, reply: MemoryResponse, seconds: float) -> None:
    """Send a reply, or give its connection up."""
    transport = request.transport
    if transport is None:  # the client has gone already
        return
    # A drain then waits until the kernel has all: nothing is left behind that nobody times. (Not
    # 0: a TLS transport would take itself for full when it is empty. With TLS the last slices may
    # stay behind; the connection then ends by asyncio's time for its close.)
    transport.set_write_buffer_limits(high=1, low=0)
    complete = False
    try:
        async with asyncio.timeout(seconds):
            await _write(request, reply)
        complete = True
    except (ConnectionError, TimeoutError) as error:
        log.debug("answer not delivered: %r", error, extra={"client": request.remote})
    finally:
        if not complete:
            transport.abort()
    if complete and reply.sent is not None and request.method == "GET":
        reply.sent()


async def _write(request: web.Request, reply: MemoryResponse) -> None:
    await reply.prepare(request)
    size = 0 if request.method == "HEAD" else len(reply.memory)
    for start in range(0, size, _SLICE):
        await reply.write(reply.memory[start : start + _SLICE])
        await request.writer.drain()
        await asyncio.sleep(0)  # a client as fast as we are lets the others have their turn
    await reply.write_eof()


def parse_address(text: str) -> Address:
    """``host:port``, ``[::1]:port`` or ``:port``.

    Raises:
        ValueError: it is none of these.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([^\s:\[\]]*)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > _HIGHEST_PORT:
        raise ValueError("not host:port, [IPv6 address]:port or :port")
    return match[1] or match[2], int(match[3])


@contextlib.asynccontextmanager
async def serve(
    app: web.Application,
    addresses: Iterable[Address | str],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[list[str]]:
    """Listen on all addresses; at the end, let answers under way end for a moment.

    Args:
        app: what is served.
        addresses: where.
        tls: None: plain HTTP.

    Yields:
        The base URLs under which we really listen.

    Raises:
        StartError: an address cannot be had.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_ProtocolLog(log),
        keepalive_timeout=_KEEPALIVE_SECONDS,
        lingering_time=_LINGERING_SECONDS,
        shutdown_timeout=_SHUTDOWN_SECONDS,
        max_field_size=_LONGEST_FIELD,
        max_headers=_MOST_FIELDS,
        auto_decompress=False,
    )
    await runner.setup()
    try:
        for address in addresses:
            await _listen(runner, address, tls)
        scheme = "https" if tls else "http"
        yield [f"{scheme}://{_shown(name[0], name[1])}" for name in runner.addresses]
    finally:
        await runner.cleanup()


async def _listen(
    runner: web.AppRunner, address: Address | str, tls: ssl.SSLContext | None
) -> None:
    shown = address if isinstance(address, str) else _shown(*address)
    try:
        host, port = parse_address(address) if isinstance(address, str) else address
        if host in ("", "::") and socket.has_dualstack_ipv6():
            await _listen_to_all(runner, port, tls)
        else:
            host = host or "0.0.0.0"  # noqa: S104 - was asked for
            await web.TCPSite(runner, host, port, ssl_context=tls).start()
    except (OSError, OverflowError, ValueError) as error:
        raise StartError(f"cannot listen on {shown}: {_reason(error)}") from error


async def _listen_to_all(runner: web.AppRunner, port: int, tls: ssl.SSLContext | None) -> None:
    """IPv4 and IPv6 on one port, as ``:port`` and ``[::]:port`` mean to other exporters."""
    listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    try:
        await web.SockSite(runner, listener, ssl_context=tls).start()
    except BaseException:
        listener.close()
        raise


def _reason(error: Exception) -> str:
    """Why, in a few words: messages of asyncio and socket repeat the address."""
    if isinstance(error, socket.gaierror) or not isinstance(error, OSError) or not error.errno:
        return getattr(error, "strerror", None) or str(error)
    return os.strerror(error.errno)


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _ProtocolLog(logging.LoggerAdapter[logging.Logger]):
    """What aiohttp logs, except that a client's nonsense is no error of ours."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if isinstance(kwargs.get("exc_info"), HttpProcessingError | web.RequestPayloadError):
            level = logging.DEBUG
        super().log(level, msg, *args, **kwargs)
