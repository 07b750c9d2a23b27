"""Listening sockets: addresses, TLS, and the limits of a connection."""

import contextlib
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError

from exporter.errors import StartError

log = logging.getLogger(__name__)

Address = tuple[str, int]
"""Host, "" for all interfaces, and port, 0 for a free one."""

_KEEPALIVE_SECONDS = 75.0  # longer than the usual scrape intervals
_LINGERING_SECONDS = 1.0  # for the rest of a request body, which nobody reads
_SHUTDOWN_SECONDS = 1.0  # aiohttp waits twice this long
_MAX_HEADER_SIZE = 2**14
_MAX_HEADERS = 64


@contextlib.asynccontextmanager
async def serve(
    app: web.Application, addresses: Iterable[Address], tls: ssl.SSLContext | None = None
) -> AsyncIterator[list[str]]:
    """Listen on all addresses; on exit, give responses in progress a moment to finish.

    Args:
        app: the application to serve.
        addresses: where to listen.
        tls: None for plain HTTP.

    Yields:
        The base URLs of the addresses actually bound.

    Raises:
        StartError: cannot listen on an address.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_ProtocolLog(log),
        keepalive_timeout=_KEEPALIVE_SECONDS,
        lingering_time=_LINGERING_SECONDS,
        shutdown_timeout=_SHUTDOWN_SECONDS,
        max_field_size=_MAX_HEADER_SIZE,
        max_headers=_MAX_HEADERS,
        auto_decompress=False,
    )
    await runner.setup()
    try:
        for host, port in addresses:
            await _listen(runner, host, port, tls)
        scheme = "https" if tls else "http"
        yield [f"{scheme}://{_host_port(name[0], name[1])}" for name in runner.addresses]
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int, tls: ssl.SSLContext | None) -> None:
    try:
        if host in ("", "::") and socket.has_dualstack_ipv6():
            await _listen_dual_stack(runner, port, tls)
        else:
            any_or_host = host or "0.0.0.0"  # noqa: S104 - the user asked for all interfaces
            await web.TCPSite(runner, any_or_host, port, ssl_context=tls).start()
    except (OSError, OverflowError, ValueError) as error:
        address = _host_port(host, port)
        raise StartError(f"cannot listen on {address}: {_reason(error)}") from error


async def _listen_dual_stack(runner: web.AppRunner, port: int, tls: ssl.SSLContext | None) -> None:
    """Listen on IPv4 and IPv6 with one port, as ``:port`` and ``[::]:port`` do in Go programs."""
    listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    try:
        await web.SockSite(runner, listener, ssl_context=tls).start()
    except BaseException:
        listener.close()
        raise


def _reason(error: Exception) -> str:
    """The cause without the address, which messages of asyncio and socket repeat."""
    if isinstance(error, socket.gaierror) or not isinstance(error, OSError) or not error.errno:
        return getattr(error, "strerror", None) or str(error)
    return os.strerror(error.errno)


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _ProtocolLog(logging.LoggerAdapter[logging.Logger]):
    """aiohttp's log, with malformed requests at DEBUG: they are the client's fault, not ours."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if isinstance(kwargs.get("exc_info"), HttpProcessingError | web.RequestPayloadError):
            level = logging.DEBUG
        super().log(level, msg, *args, **kwargs)
