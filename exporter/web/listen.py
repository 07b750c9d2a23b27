"""Listening sockets: addresses, TLS, and how many connections there can be.

A connection needs a file descriptor, and so do the state file and the connections to the service.
So connections are limited to a part of the descriptors. A new one beyond the limit takes the place
of another, of the client that has the most: of one that waits for a request, if there is one, and
there of the oldest. No client can keep the others out by connecting often, slowly, or both.
"""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Iterable

from exporter.errors import StartError
from exporter.web.connection import Connection, Handler, Server

log = logging.getLogger(__name__)

Address = tuple[str, int]
"""Host, "" for all interfaces, and port, 0 for a free one."""

MAX_CONNECTIONS = 128
"""However many descriptors there are: with TLS a connection takes half a megabyte."""

_SHUTDOWN_SECONDS = 1.0  # aiohttp waits twice this long
_FLUSH_SECONDS = 0.5
_HANDSHAKE_SECONDS = 10.0
_CLOSING_SECONDS = 1.0  # to end TLS in good order: 30 by default, in which nothing can abort it
_BACKLOG = 128
_RECEIVE_BUFFER = 2**15
"""Bytes of a connection that the kernel keeps, and asyncio's TLS after it; requests are small."""

_RETRY_SECONDS = 1.0
_LOG_INTERVAL = 60.0
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@contextlib.asynccontextmanager
async def serve(
    handler: Handler,
    addresses: Iterable[Address],
    tls: ssl.SSLContext | None = None,
    *,
    max_connections: int | None = None,
) -> AsyncIterator[list[str]]:
    """Listen on all addresses; on exit, give responses in progress a moment to finish.

    Args:
        handler: handles every request.
        addresses: where to listen.
        tls: None for plain HTTP.
        max_connections: None for what the limit of open files allows.

    Yields:
        The base URLs of the addresses actually bound.

    Raises:
        StartError: cannot listen on an address.
    """
    server = Server(handler)
    listener = _Listener(server, tls, max_connections or _connection_limit())
    try:
        for host, port in addresses:
            await listener.listen(host, port)
        scheme = "https" if tls else "http"
        yield [f"{scheme}://{_host_port(name[0], name[1])}" for name in listener.names]
    finally:
        listener.close()
        await asyncio.sleep(0)  # requests that have just arrived are answered, too
        server.pre_shutdown()
        await server.shutdown(_SHUTDOWN_SECONDS)
        await listener.abort()


class _Listener:
    """Accepts connections.

    Args:
        server: makes their protocols.
        tls: None for plain HTTP.
        limit: how many connections there can be.
    """

    def __init__(self, server: Server, tls: ssl.SSLContext | None, limit: int) -> None:
        self._server = server
        self._tls = tls
        self._limit = limit
        self._sockets: list[socket.socket] = []
        self._open: dict[Connection, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._closed = self._reported = 0
        self._report_after = self._fail_after = float("-inf")

    @property
    def names(self) -> list[Address]:
        """The addresses that are listened on."""
        return [listening.getsockname() for listening in self._sockets]

    async def listen(self, host: str, port: int) -> None:
        """Accept connections at an address from now on."""
        try:
            listening = await _bind(host, port)
        except (OSError, ValueError) as error:
            address = _host_port(host, port)
            raise StartError(f"cannot listen on {address}: {_reason(error)}") from error
        self._sockets += listening
        for each in listening:
            each.setblocking(False)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)  # is inherited
            self._accept_from(each)

    def close(self) -> None:
        """Accept no more connections."""
        for listening in self._sockets:
            self._loop.remove_reader(listening)
            listening.close()

    async def abort(self) -> None:
        """Close the connections, those at once that cannot soon send what they still have."""
        tasks = {*self._open.values(), *self._ending}
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=_FLUSH_SECONDS)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _accept_from(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:  # else it was closed
            self._loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        try:
            client, address = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:  # no descriptors: the socket stays readable, so wait a little
            self._loop.remove_reader(listening)
            self._loop.call_later(_RETRY_SECONDS, self._accept_from, listening)
            self._make_room()
            self._log_failure(error)
            return
        if len(self._open) >= self._limit:
            self._make_room()
            self._log_full()
        connection = self._server.connect(address[0])
        self._open[connection] = task = self._loop.create_task(self._connect(connection, client))
        task.add_done_callback(lambda _: self._forget(connection, client))

    async def _connect(self, connection: Connection, client: socket.socket) -> None:
        """Last as long as the connection; cancelled, it is closed."""
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                client,
                ssl=self._tls,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS if self._tls else None,
                ssl_shutdown_timeout=_CLOSING_SECONDS if self._tls else None,
            )
            await connection.lost.wait()
        except OSError as error:  # of TLS, too
            log.debug("not connected: %r", error, extra={"client": connection.client})
        finally:
            await connection.abort()

    def _forget(self, connection: Connection, client: socket.socket) -> None:
        self._open.pop(connection, None)
        client.close()  # nobody else does where the task was cancelled before it began

    def _make_room(self) -> None:
        """Close the connection that is missed the least."""
        if not self._open:
            return
        crowd = Counter(each.client for each in self._open)
        least = min(self._open, key=lambda each: (-crowd[each.client], each.busy, each.since))
        task = self._open.pop(least)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        task.cancel()
        self._closed += 1

    def _log_full(self) -> None:
        now = self._loop.time()
        if now < self._report_after:
            return
        self._report_after = now + _LOG_INTERVAL
        crowd = Counter(each.client for each in self._open)
        (client, number), *_ = crowd.most_common(1) or [("", 0)]
        facts = {"closed": self._closed - self._reported, "most_from": client, "open": number}
        self._reported = self._closed
        log.warning(
            "more than %d connections; closing the oldest idle ones", self._limit, extra=facts
        )

    def _log_failure(self, error: OSError) -> None:
        now = self._loop.time()
        if now < self._fail_after:
            return
        self._fail_after = now + _LOG_INTERVAL
        log.warning("cannot accept connections: %s", _reason(error))


def _connection_limit() -> int:
    """Half of the descriptors, but not more than needed; the service gets the others."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, descriptors // 2))


async def _bind(host: str, port: int) -> list[socket.socket]:
    """Sockets for all addresses that a host name has; with one port for IPv4 and IPv6, if any."""
    if not 0 <= port < 2**16:  # the C library would take it modulo this
        raise ValueError("the port must be 0-65535")
    if host in ("", "::") and socket.has_dualstack_ipv6():  # as in Go programs
        both = socket.create_server(
            ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
        )
        return [both]
    any_or_host = host or "0.0.0.0"  # noqa: S104 - the user asked for all interfaces
    infos = await asyncio.get_running_loop().getaddrinfo(
        any_or_host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    found: list[socket.socket] = []
    errors: list[OSError] = []
    for family, address in dict.fromkeys((info[0], info[4]) for info in infos):
        try:
            found.append(socket.create_server(address, family=family, backlog=_BACKLOG))
        except OSError as error:
            errors.append(error)
    # One of the addresses may be missing, such as ::1 for "localhost" where there is no IPv6.
    failed = [error for error in errors if not found or error.errno not in _NOT_HERE]
    if failed:
        for each in found:
            each.close()
        raise failed[0]
    return found


def _reason(error: Exception) -> str:
    """The cause without the address, which messages of asyncio and socket repeat."""
    if isinstance(error, socket.gaierror) or not isinstance(error, OSError) or not error.errno:
        return getattr(error, "strerror", None) or str(error)
    return os.strerror(error.errno)


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
