"""What clients send costs little memory, and neither their number nor their tricks matter."""

import asyncio
import contextlib
import logging
import resource

import pytest

from exporter.web import listen
from exporter.web.connection import MAX_HEAD_SIZE
from exporter.web.listen import serve
from exporter.web.server import make_app

ANY_PORT = ("127.0.0.1", 0)
HEALTHY = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"
KB = 1000


@pytest.fixture
def limited(publisher, served_at):
    """Starts an application that takes so many connections."""

    @contextlib.asynccontextmanager
    async def start(number, handler=None):
        app = handler or make_app(publisher)
        async with serve(app, [ANY_PORT], max_connections=number) as (url,):
            yield served_at(url)

    return start


async def response(reader):
    """Status line, headers and body of the next response."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status, *lines = head.strip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    body = await reader.readexactly(int(headers.get("Content-Length", 0)))
    return status.split(" ", 1)[1], headers, body.decode()


async def ends(reader):
    """Wait for the end of a connection; what was received before."""
    received = []
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(2**16):
            received.append(data)
    return b"".join(received)


async def answers(port, source="127.0.0.1"):
    """A client that has sent a request and got the response, and keeps its connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    writer.write(HEALTHY)
    assert (await response(reader))[0] == "200 OK"
    return reader, writer


def head_of(size):
    start = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n"
    fields = b"".join(b"X-%d: %s\r\n" % (n, b"a" * 500) for n in range((size - 100) // 510))
    rest = size - len(start) - len(fields) - len(b"Y: \r\n\r\n")
    return start + fields + b"Y: " + b"a" * rest + b"\r\n\r\n"


# --- one request after the other ------------------------------------------------------------------


async def test_a_head_of_16_kb_is_read(site):
    reader, writer = await site.raw(head_of(MAX_HEAD_SIZE))
    assert (await response(reader))[0] == "200 OK"
    writer.close()


@pytest.mark.parametrize("size", [MAX_HEAD_SIZE + 1, 30 * KB, 500 * KB])
async def test_row_78_a_larger_head_is_refused(site, size):
    reader, writer = await site.raw(head_of(size))
    status, headers, body = await response(reader)

    assert status == "431 Request Header Fields Too Large"
    assert body == "request header fields too large\n"
    assert headers["Server"] == "modelarts-exporter"
    assert await ends(reader) == b""
    writer.close()


async def test_a_head_in_small_pieces(site):
    reader, writer = await site.raw(b"\r\n")
    for byte in HEALTHY + b"\r\n" + HEALTHY:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    for _ in range(2):
        assert (await response(reader))[0] == "200 OK"
    writer.close()


async def test_requests_ahead_are_answered_in_order(site):
    number = 2_000  # more than all buffers hold
    reader, writer = await site.raw(HEALTHY.replace(b"/-/healthy", b"/nowhere") + HEALTHY * number)
    assert (await response(reader))[0] == "404 Not Found"
    for _ in range(number):
        assert (await response(reader))[0] == "200 OK"
    writer.close()


async def test_row_78_requests_ahead_wait_unread(limited):
    """A handler that hangs is called once, and only a small buffer of the rest is read."""
    called, release = [], asyncio.Event()

    async def handler(request):
        called.append(request.protocol)
        await release.wait()
        raise ConnectionResetError

    async with limited(5, handler) as served:
        _, writer = await served.raw(HEALTHY * 100_000)
        while not called:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        (connection,) = called
        assert not connection.transport.is_reading()
        assert len(connection._waiting) + len(connection._head) <= MAX_HEAD_SIZE
        release.set()
        writer.close()


@pytest.mark.parametrize(
    "head",
    [
        b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n",
        b"POST /-/reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n",
        b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
    ],
)
async def test_row_78_bodies_are_not_read(serving, head):
    """They are dropped for a moment, or the client would not see the response; then it is over."""

    async def reload():
        return ()

    async with serving(reload=reload) as site:
        reader, writer = await site.raw(head + b"x" * 1000 * KB + HEALTHY)
        status, headers, body = await response(reader)
        assert (status, body) == ("200 OK", "OK\n")
        assert headers["Connection"] == "close"
        assert await ends(reader) == b""
        writer.close()


async def test_a_post_without_a_body_keeps_the_connection(site):
    post = b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    reader, writer = await site.raw(post + HEALTHY)
    assert (await response(reader))[0] == "403 Forbidden"
    assert (await response(reader))[0] == "200 OK"
    writer.close()


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n", "400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400 Bad Request"),
        (b"GET / HTTP/1.1\nHost: x\n\n", "400 Bad Request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: x\r\n" * 100 + b"\r\n", "400 Bad Request"),
        (HEALTHY.replace(b"Host", b"Expect: much\r\nHost"), "417 Expectation Failed"),
        (b"GET /" + b"x" * 20_000, "431 Request Header Fields Too Large"),
    ],
)
async def test_row_82_errors_name_no_software(site, request_head, status):
    reader, writer = await site.raw(request_head)
    got, headers, body = await response(reader)

    assert got == status
    assert body == f"{status[4:].lower()}\n"
    assert headers["Server"] == "modelarts-exporter"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "python" not in str(headers).lower()
    writer.close()


async def test_row_82_a_bug_is_answered_as_bare(limited, caplog):
    async def handler(_):
        raise ZeroDivisionError

    async with limited(5, handler) as served:
        reader, writer = await served.raw(HEALTHY)
        status, headers, body = await response(reader)
        writer.close()
    assert (status, body) == ("500 Internal Server Error", "internal server error\n")
    assert headers["Server"] == "modelarts-exporter"
    assert "ZeroDivisionError" in caplog.text


# --- the number of connections --------------------------------------------------------------------


async def test_row_77_the_oldest_idle_connection_is_closed(limited, caplog):
    async with limited(3) as served:
        clients = [await answers(served.port) for _ in range(3)]
        clients[0][1].write(HEALTHY)  # now it is the youngest
        await response(clients[0][0])
        clients.append(await answers(served.port))
        assert await ends(clients[1][0]) == b""
        clients.append(await answers(served.port))
        assert await ends(clients[2][0]) == b""
        for reader, writer in (clients[0], *clients[3:]):
            writer.write(HEALTHY)
            assert (await response(reader))[0] == "200 OK"
        for _, writer in clients:
            writer.close()

    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert record.getMessage() == "more than 3 connections; closing the oldest idle ones"
    assert record.most_from == "127.0.0.1"


async def test_row_77_one_that_is_being_answered_is_closed_last(limited, publisher, make_size):
    publisher.exposition = make_size(20 * 10**6)
    async with limited(3) as served:
        metrics = HEALTHY.replace(b"/-/healthy", b"/metrics") + HEALTHY
        busy, writer = await served.raw(metrics, limit=KB)
        others = [await answers(served.port) for _ in range(10)]  # all of them are younger
        status, _, body = await response(busy)
        assert (status, len(body)) == ("200 OK", 20 * 10**6)
        assert (await response(busy))[0] == "200 OK"
        for _, each in [(busy, writer), *others]:
            each.close()


async def test_row_77_who_does_not_read_cannot_keep_others_out(limited, publisher, make_size):
    publisher.exposition = make_size(50 * 10**6)
    async with limited(3) as served:
        metrics = HEALTHY.replace(b"/-/healthy", b"/metrics")
        clients = [await served.raw(metrics, limit=KB) for _ in range(10)]
        clients.append(await answers(served.port))
        for _, writer in clients:
            writer.close()


async def test_row_77_a_client_makes_room_for_itself_not_for_others(limited):
    async with limited(4) as served:
        reader, writer = await answers(served.port, source="127.0.0.2")
        others = [await answers(served.port) for _ in range(20)]
        writer.write(HEALTHY)  # although it was the oldest
        assert (await response(reader))[0] == "200 OK"
        for _, each in [(reader, writer), *others]:
            each.close()


@pytest.mark.parametrize(
    ("descriptors", "limit"),
    [(256, 128), (100, 50), (1024, 128), (2**20, 128), (1, 1), (resource.RLIM_INFINITY, 128)],
)
def test_row_77_the_limit_leaves_descriptors_for_the_service(monkeypatch, descriptors, limit):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert listen._connection_limit() == limit
