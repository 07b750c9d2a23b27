"""Sends responses: whole, or damaged in the ways of networks and proxies."""

import asyncio
import contextlib
import gzip
import socket
import struct
import zlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from exporter.simulator.faults import Fault
from exporter.simulator.reply import Reply

_WORTH_COMPRESSING_BYTES = 1024
_SLICE_BYTES = 2**16
_LINGER_NOT = struct.pack("ii", 1, 0)


def whole(request: web.Request, reply: Reply, *, compress: bool) -> web.Response:
    """Return the undamaged response; compressed if permitted, accepted and large enough."""
    headers: dict[str, Any] = {"Content-Type": reply.content_type} | reply.headers
    body = reply.body
    accepts = "gzip" in request.headers.get("Accept-Encoding", "")
    if compress and accepts and len(body) > _WORTH_COMPRESSING_BYTES:
        body = gzip.compress(body, 1)
        headers["Content-Encoding"] = "gzip"
    return web.Response(status=reply.status, body=body, headers=headers)


async def broken(request: web.Request, reply: Reply, fault: Fault) -> web.StreamResponse:
    """Send the response with a fault; return when there is nothing more to send.

    A response returned after the connection was closed is not sent.
    """
    if fault.do == "hang":
        await asyncio.Event().wait()  # until the client disconnects or the service is closed
    if fault.do in ("oversized", "gzip_bomb"):
        return await _flood(request, reply, fault)
    transport = request.transport
    if transport is None:
        return web.Response()
    if fault.do == "reset":
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        transport.abort()
    if fault.do == "cut_body":
        transport.write(_head(reply, len(reply.body)) + reply.body[: len(reply.body) // 2])
    if fault.do == "broken_chunking":
        half = reply.body[: len(reply.body) // 2]
        transport.write(_head(reply, None) + b"%x\r\n%b\r\nno chunk\r\n" % (len(half), half))
    if fault.do == "trickle":
        message = _head(reply, len(reply.body)) + reply.body
        for start in range(0, len(message), fault.size):
            if transport.is_closing():
                break
            transport.write(message[start : start + fault.size])
            await asyncio.sleep(fault.seconds)
    transport.close()
    return web.Response()


def _head(reply: Reply, length: int | None) -> bytes:
    """Return status line and headers; without a length the body is chunked."""
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    headers = {"Content-Type": reply.content_type} | reply.headers
    lines = [
        f"HTTP/1.1 {reply.status} Simulated",
        *(f"{name}: {value}" for name, value in headers.items()),
        framing,
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


async def _flood(request: web.Request, reply: Reply, fault: Fault) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": reply.content_type})
    if fault.do == "gzip_bomb":
        response.headers["Content-Encoding"] = "gzip"
    else:
        response.content_length = fault.size
    with contextlib.suppress(ConnectionError):  # the client has disconnected
        await response.prepare(request)
        async for data in _blanks(fault.size, compressed=fault.do == "gzip_bomb"):
            await response.write(data)
    return response


async def _blanks(size: int, *, compressed: bool) -> AsyncIterator[bytes]:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    for start in range(0, size, _SLICE_BYTES):
        data = b" " * min(_SLICE_BYTES, size - start)
        data = compressor.compress(data) if compressed else data
        if data:
            yield data
        else:
            await asyncio.sleep(0)  # never waits otherwise: let other tasks run
    if compressed:
        yield compressor.flush()
