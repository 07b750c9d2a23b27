"""/metrics: complete bodies of one generation, whatever the clients do."""

import asyncio
import contextlib
import gzip
import itertools
import logging
import math
import re
import socket
import struct
import tracemalloc

import pytest
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from exporter.metrics.exposition import assemble
from exporter.web.listen import serve
from exporter.web.publisher import Publisher
from exporter.web.server import make_app

OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0"}
GZIP = {"Accept-Encoding": "gzip"}
IDENTITY = {"Accept-Encoding": "identity"}
EVERY_FORMAT = [
    ({**IDENTITY}, "text"),
    ({**GZIP}, "text_gzip"),
    ({**OPENMETRICS, **IDENTITY}, "openmetrics"),
    ({**OPENMETRICS, **GZIP}, "openmetrics_gzip"),
]
GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
MB = 10**6


def stalled(port, request=GET):
    """A client that has read the start of a response, and reads no further."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(10)
    client.connect(("127.0.0.1", port))
    client.sendall(request)
    assert client.recv(4) == b"HTTP"
    return client


async def stalled_clients(served, number):
    return [await asyncio.to_thread(stalled, served.port) for _ in range(number)]


@pytest.mark.parametrize(("headers", "which"), EVERY_FORMAT)
async def test_the_body_matches_its_label(site, publisher, make_generation, headers, which):
    publisher.exposition = make_generation(1)
    answer = await site("GET", "/metrics", headers=headers)
    body = answer.body

    assert answer.status == 200
    assert body == getattr(publisher.exposition, which)
    assert answer.headers["Content-Length"] == str(len(body))
    assert answer.headers.get("Content-Encoding") == ("gzip" if "gzip" in which else None)
    assert answer.headers["Content-Type"] == (
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
        if "openmetrics" in which
        else "text/plain; version=0.0.4; charset=utf-8"
    )
    assert answer.headers["Vary"] == "Accept, Accept-Encoding"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Set-Cookie" not in answer.headers
    assert "Transfer-Encoding" not in answer.headers


@pytest.mark.parametrize(
    "accept",
    [
        "text/plain;version=abc",
        "application/openmetrics-text;version=1.0.0;q=0",
        "application/openmetrics-text;version=2.0.0",
        None,
        "application/openmetrics-text;version=1.0.0," + "a/b," * 2500,
        '\t;=,"\\',
    ],
)
async def test_no_accept_header_is_an_error(site, publisher, make_generation, accept):
    publisher.exposition = make_generation(1)
    headers = {**IDENTITY, **({"Accept": accept} if accept else {})}
    answer = await site("GET", "/metrics", headers=headers, skip_auto_headers=["Accept"])

    assert answer.status == 200
    labelled = answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert (answer.body).endswith(b"# EOF\n") == labelled


async def test_accept_in_several_lines(site):
    headers = [("Accept", "text/plain;q=0.1"), ("Accept", "application/openmetrics-text")]
    answer = await site("GET", "/metrics", headers=headers)

    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")


async def test_gzip_that_is_excluded_is_not_sent(site, publisher, make_generation):
    publisher.exposition = make_generation(1)
    answer = await site("GET", "/metrics", headers={"Accept-Encoding": "gzip;q=0"})

    assert "Content-Encoding" not in answer.headers
    assert answer.body == publisher.exposition.text


@pytest.mark.parametrize("headers", [headers for headers, _ in EVERY_FORMAT])
async def test_head_is_get_without_the_body(site, publisher, make_generation, headers):
    publisher.exposition = make_generation(1)
    get = await site("GET", "/metrics", headers=headers)
    head = await site("HEAD", "/metrics", headers=headers)

    assert (head.status, head.body) == (200, b"")
    without_date = {name: value for name, value in get.headers.items() if name != "Date"}
    assert {name: value for name, value in head.headers.items() if name != "Date"} == without_date


async def test_a_head_leaves_the_connection_usable(site, publisher, make_generation):
    publisher.exposition = make_generation(1)
    reader, writer = await site.raw(GET.replace(b"GET", b"HEAD") + GET)
    for _ in range(2):
        headers = await reader.readuntil(b"\r\n\r\n")
        assert headers.startswith(b"HTTP/1.1 200 OK\r\n")
    length = int(re.search(rb"Content-Length: (\d+)", headers)[1])
    assert await reader.readexactly(length) == publisher.exposition.text
    writer.close()


@pytest.mark.parametrize("first", [assemble([]), Publisher(None).exposition])
async def test_before_the_first_poll(site, publisher, first):
    publisher.exposition = first
    text = await site("GET", "/metrics", headers=IDENTITY)
    openmetrics = await site("GET", "/metrics", headers={**IDENTITY, **OPENMETRICS})
    zipped = await site("GET", "/metrics", headers={**GZIP, **OPENMETRICS})

    assert {text.status, openmetrics.status, zipped.status} == {200}
    assert list(text_string_to_metric_families(text.text)) == []
    assert list(openmetrics_parser.text_string_to_metric_families(openmetrics.text)) == []
    assert gzip.decompress(zipped.body) == openmetrics.body == b"# EOF\n"


async def test_scrapes_while_generations_change_are_whole(site, publisher, make_generation):
    generations = [make_generation(number, jobs=20_000) for number in range(7)]
    following = itertools.cycle(generations)
    publisher.exposition = next(following)

    async def scrape(number):
        headers, which = EVERY_FORMAT[number % 4]
        answer = await site("GET", "/metrics", headers=headers)
        publisher.exposition = next(following)  # while others are still receiving
        assert answer.body in [getattr(generation, which) for generation in generations]
        return answer.body

    bodies = [await asyncio.gather(*map(scrape, range(50))) for _ in range(3)]
    # 50 changes per round, not a multiple of 7: each round starts with another generation
    assert len({body for scraped in bodies for body in scraped}) >= 3 * len(EVERY_FORMAT)


async def test_a_scrape_that_began_ends_with_its_generation(
    serving, publisher, make_size, make_generation
):
    publisher.exposition = make_size(50 * MB)
    async with serving() as served:
        (client,) = await stalled_clients(served, 1)
        assert served.busy
        publisher.exposition = make_generation(1)
        whole = 50 * MB
        assert (
            whole < await asyncio.to_thread(read_all, client, whole + 1) < whole + 1000
        )  # headers


async def test_clients_that_do_not_read_cost_no_copy_and_delay_nobody(
    serving, publisher, make_size, make_generation
):
    publisher.exposition = make_size(50 * MB)
    async with serving() as served:
        tracemalloc.start()
        try:
            clients = await stalled_clients(served, 20)
            publisher.exposition = make_generation(1)
            for headers, which in EVERY_FORMAT:
                body = (await served("GET", "/metrics", headers=headers)).body
                assert body == getattr(publisher.exposition, which)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 25 * MB  # half a body for all clients together
        for client in clients:
            client.close()


async def test_the_write_timeout_ends_a_client_that_does_not_read(serving, publisher, make_size):
    publisher.exposition = make_size(50 * MB)
    async with serving(write_timeout=0.2) as served:
        (client,) = await stalled_clients(served, 1)
        assert served.busy
        await served.idle()
        assert await asyncio.to_thread(read_all, client) < 50 * MB

        publisher.exposition = make_size(1 * MB)
        answer = await served("GET", "/metrics")
        assert len(answer.body) == 1 * MB


async def test_the_write_timeout_is_of_the_whole_answer(serving, publisher, make_size):
    publisher.exposition = make_size(50 * MB)
    async with serving(write_timeout=0.3) as served:
        (client,) = await stalled_clients(served, 1)
        assert served.busy
        client.setblocking(False)

        async def trickle():
            while client.recv(1):  # noqa: ASYNC110 - the client is slow
                await asyncio.sleep(0.01)

        trickling = asyncio.create_task(trickle())
        await served.idle()
        trickling.cancel()
        client.close()


async def test_the_write_timeout_is_for_the_last_bytes_too(publisher, make_size, served_at):
    async def narrow(request):
        server = request.transport.get_extra_info("socket")
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return await app(request)

    publisher.exposition = make_size(60_000)  # asyncio would silently buffer 64 KiB
    app = make_app(publisher, write_timeout=0.3)
    async with serve(narrow, [("127.0.0.1", 0)]) as (url,):
        served = served_at(url)
        (client,) = await stalled_clients(served, 1)
        assert served.busy
        await served.idle()
        assert await asyncio.to_thread(read_all, client) < 60_000


def read_all(client, enough=math.inf):
    """Count the bytes received until the connection closes, or there are enough."""
    total = 0
    try:
        while total < enough and (data := client.recv(MB)):
            total += len(data)
    except ConnectionResetError:
        pass
    finally:
        client.close()
    return total


async def test_many_answers_to_one_client_that_does_not_read_end_too(serving, publisher, poller):
    publisher.pollers = [poller(error="x" * 10_000, ended_polls=1)]
    async with serving(write_timeout=0.3) as served:
        landing = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        client = socket.create_connection(("127.0.0.1", served.port))
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError, ConnectionError):  # the server stops reading
            while client.send(landing * 100):  # noqa: ASYNC110 - it is what is waited for
                await asyncio.sleep(0)
        assert served.busy
        await served.idle()
        client.close()


@pytest.mark.parametrize("reset", [True, False])
async def test_a_client_that_hangs_up_is_no_event(serving, publisher, make_size, caplog, reset):
    publisher.exposition = make_size(50 * MB)
    caplog.set_level(logging.DEBUG)
    async with serving() as served:
        for client in await stalled_clients(served, 5):
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        for part in (b"", b"GET", GET[:-2]):  # before and in the middle of a request
            _, writer = await served.raw(part)
            writer.close()
        await served.idle()
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []
    assert any("not delivered" in record.message for record in caplog.records)


async def test_who_scraped_is_told(serving, publisher, make_generation):
    scraped = []
    publisher.exposition = make_generation(1)
    prometheus = {"X-Prometheus-Scrape-Timeout-Seconds": "10"}
    async with serving(scraped=scraped.append) as served:
        await served("GET", "/metrics")
        await served("HEAD", "/metrics", headers=prometheus)
        await served("GET", "/", headers=prometheus)
        assert scraped == []
        await served("GET", "/metrics", headers=prometheus)
        assert scraped == [publisher.exposition]
        assert scraped[0] is publisher.exposition


async def test_half_a_scrape_is_none(serving, publisher, make_size):
    scraped = []
    publisher.exposition = make_size(50 * MB)
    async with serving(scraped=scraped.append, write_timeout=0.2) as served:
        request = GET.replace(b"\r\n\r\n", b"\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n")
        gone = await asyncio.to_thread(stalled, served.port, request)
        gone.close()
        late = await asyncio.to_thread(stalled, served.port, request)
        await served.idle()
        late.close()
    assert scraped == []


async def test_another_path(serving, publisher, make_generation):
    publisher.exposition = make_generation(1)
    async with serving(telemetry_path="/") as served:
        answer = await served("GET", "/", headers=IDENTITY)
        assert answer.body == publisher.exposition.text
        assert (await served("GET", "/metrics")).status == 404
