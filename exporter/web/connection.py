"""One client's connection, and how much memory it can take.

aiohttp alone keeps heads of a megabyte, requests that a client sends ahead of the response it
waits for, and the beginning of bodies. Here

* a head has at most `MAX_HEAD_SIZE` bytes;
* the next request is parsed when the response to the previous one was sent: what has arrived of it
  by then waits in one small buffer, and the rest at the client;
* no body is read: what follows the head of such a request is dropped, and the connection is closed
  after the response.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeAlias

from aiohttp import web
from aiohttp.http import HttpProcessingError

log = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""Handles a request and sends the whole response."""

MAX_HEAD_SIZE = 2**14
"""Bytes of a request line and its header fields."""

COMMON_HEADERS = {"X-Content-Type-Options": "nosniff", "Server": "modelarts-exporter"}
"""Headers of every response. Without ``Server``, aiohttp would add its version and Python's."""

_MAX_HEADERS = 64
_READ_SIZE = 2**14
_KEEPALIVE_SECONDS = 75.0  # longer than the usual scrape intervals; also the time for a head
_LINGERING_SECONDS = 1.0  # for a client to read the response before its connection is closed
_END_OF_HEAD = b"\r\n\r\n"
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Server: modelarts-exporter\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"X-Content-Type-Options: nosniff\r\nContent-Length: 32\r\nConnection: close\r\n\r\n"
    b"request header fields too large\n"
)


class Server(web.Server):
    """Makes the connections, all of which read into one buffer.

    Args:
        handler: handles every request.
    """

    def __init__(self, handler: Handler) -> None:
        super().__init__(self._handle)
        self.buffer = memoryview(bytearray(_READ_SIZE))
        self._handler = handler

    def connect(self, client: str) -> "Connection":
        """Return the protocol of a new connection of a client, named by its address."""
        return Connection(
            self,
            client,
            access_log=None,
            logger=_ProtocolLog(log),
            keepalive_timeout=_KEEPALIVE_SECONDS,
            lingering_time=_LINGERING_SECONDS,
            max_line_size=MAX_HEAD_SIZE,
            max_field_size=MAX_HEAD_SIZE,
            max_headers=_MAX_HEADERS,
            auto_decompress=False,
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        if not isinstance(connection, Connection):
            raise TypeError(connection)
        if request.body_exists:
            connection.drop_rest()
        try:
            return await self._handler(request)
        finally:
            connection.answered()


class Connection(web.RequestHandler, asyncio.BufferedProtocol):
    """Passes one request at a time to aiohttp.

    Args:
        server: makes the connections.
        client: address of the client.
        options: of aiohttp.

    Attributes:
        client: as given.
        busy: True while a request is being answered.
        since: when that, or the wait for a request, began; seconds of the event loop.
        lost: set when the connection is closed.
    """

    def __init__(self, server: Server, client: str, **options: Any) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, **options)
        self.client = client
        self.busy = False
        self.since = loop.time()
        self.lost = asyncio.Event()
        self._buffer = server.buffer
        self._head = b""
        """What the parser has of a head that is not complete."""
        self._waiting = b""
        """What the parser has not seen: the beginning of further requests."""
        self._dropping = False
        self._open: asyncio.Transport | None = None
        """Until it is lost. aiohttp forgets it when it begins to close it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open; with TLS, after the handshake."""
        super().connection_made(transport)
        self._open = self.transport
        if set_limits := getattr(transport, "set_read_buffer_limits", None):  # asyncio's TLS
            set_limits(high=_READ_SIZE)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is closed."""
        super().connection_lost(exc)
        self._open = None
        self.lost.set()

    def get_buffer(self, _size_hint: int) -> memoryview:
        """Where to put what the client sends. Shared: `buffer_updated` takes it out at once."""
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        """The client has sent something."""
        if self._dropping:
            return
        self._waiting += self._buffer[:size]
        self._parse()
        if self._waiting and self.transport is not None:
            self.transport.pause_reading()

    def drop_rest(self) -> None:
        """Read nothing that follows the head of this request."""
        self._dropping = True
        self._waiting = b""
        if self.transport is not None:
            self.transport.resume_reading()

    def answered(self) -> None:
        """The response to a request was sent."""
        asyncio.get_running_loop().call_soon(self._next_request)  # once aiohttp has seen it, too

    async def abort(self) -> None:
        """Close the connection now, whatever is being sent."""
        if self._open is not None:
            self._open.abort()
            await self.lost.wait()

    def _next_request(self) -> None:
        self.busy = False
        self.since = asyncio.get_running_loop().time()
        self._parse()
        if not self._waiting and self.transport is not None:
            self.transport.resume_reading()

    def _parse(self) -> None:
        """Pass on what belongs to the current head."""
        if self.busy:
            return
        if not self._head:  # empty lines before a request are ignored (RFC 9112, 2.2)
            self._waiting = self._waiting.lstrip(b"\r\n")
        known = len(self._head)
        head = self._head + self._waiting
        end = head.find(_END_OF_HEAD, max(0, known - len(_END_OF_HEAD) + 1))
        # The parser refuses HTTP/2 when it has seen what follows the first empty line.
        self.busy = end >= 0 and not head.startswith(b"PRI ")
        if self.busy:
            self.since = asyncio.get_running_loop().time()
            head, self._waiting = head[: (end := end + len(_END_OF_HEAD))], head[end:]
        else:
            self._waiting = b""
        if len(head) > MAX_HEAD_SIZE:
            self._refuse()
            return
        self._head = b"" if self.busy else head
        if len(head) > known:
            self.data_received(head[known:])

    def _refuse(self) -> None:
        """Respond in place of the parser, which knows no limit for a head as a whole."""
        self.drop_rest()
        if self.transport is not None:
            self.transport.write(_TOO_LARGE)
        asyncio.get_running_loop().call_later(_LINGERING_SECONDS, self.force_close)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Log an error; respond with nothing but its name."""
        super().handle_error(request, status, exc, message)
        phrase = HTTPStatus(status).phrase.lower()
        response = web.Response(status=status, text=f"{phrase}\n", headers=COMMON_HEADERS)
        response.force_close()
        return response


class _ProtocolLog(logging.LoggerAdapter[logging.Logger]):
    """aiohttp's log, with malformed requests at DEBUG: they are the client's fault, not ours."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if isinstance(kwargs.get("exc_info"), HttpProcessingError | web.RequestPayloadError):
            level = logging.DEBUG
        super().log(level, msg, *args, **kwargs)
