"""Routes, addresses, shutdown."""

import asyncio
import contextlib
import logging
import re
import socket

import aiohttp
import pytest

from exporter.errors import StartError
from exporter.web.listen import serve
from exporter.web.server import make_app

MB = 10**6
ANY_PORT = ("127.0.0.1", 0)


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


async def status(url):
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/metrics", "/", "/-/healthy", "/-/ready"])
async def test_other_methods(site, method, path):
    answer = await site(method, path, data=b"x" * 1000)

    assert answer.status == 405
    assert set(answer.headers["Allow"].split(",")) == {"GET", "HEAD"}
    assert answer.text == "method not allowed\n"


@pytest.mark.parametrize("path", ["/metric", "/metrics/", "/favicon.ico", "/-/", "/../etc/passwd"])
async def test_unknown_paths(site, path):
    answer = await site("GET", path)

    assert (answer.status, answer.text) == (404, "not found\n")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_healthy(site):
    answer = await site("GET", "/-/healthy")

    assert (answer.status, answer.text) == (200, "OK\n")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_reload_by_other_methods(site, method):
    answer = await site(method, "/-/reload")

    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_reload_that_is_off(site):
    answer = await site("POST", "/-/reload")

    assert answer.status == 403
    assert answer.text == "reloading over HTTP is disabled; enable it with --web.enable-reload\n"


@pytest.mark.parametrize(
    ("problems", "status", "text"),
    [
        ((), 200, "OK\n"),
        (("a: b", "c: \udc80"), 500, "failed to reload config:\na: b\nc: ?\n"),
    ],
)
async def test_reload_is_answered_when_it_is_done(serving, problems, status, text):
    async def reload():
        await asyncio.sleep(0.05)
        asked.append(True)
        return problems

    asked = []
    async with serving(reload=reload) as site:
        answer = await site("POST", "/-/reload", data=b"x" * 1000)

    assert (answer.status, answer.text, asked) == (status, text, [True])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # curl, and all other programs
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:1"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": ""}, 403),
        ({"Origin": "http://{host}"}, 200),
        ({"Origin": "https://{host}"}, 200),  # a proxy adds TLS
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
    ],
)
async def test_row_80_a_reload_is_no_matter_of_other_sites(serving, headers, status):
    async def reload():
        asked.append(True)
        return ()

    asked = []
    async with serving(reload=reload) as site:
        host = site.url.partition("://")[2]
        sent = {name: value.format(host=host) for name, value in headers.items()}
        answer = await site("POST", "/-/reload", headers=sent)

    assert answer.status == status
    assert asked == [True] * (status == 200)
    if status == 403:
        assert answer.text == "reload requested by a page of another site\n"


REBINDING = (
    "this host name is not accepted on a loopback address (protection against DNS rebinding); "
    "use localhost or an IP address, see docs/web-configuration.md\n"
)


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("HEAD", "/"), ("POST", "/-/reload")])
async def test_row_80_names_of_others_do_not_lead_here(serving, method, path):
    async def reload():
        raise AssertionError

    async with serving(reload=reload) as site:
        answer = await site(method, path, headers={"Host": "rebound.example:9978"})
    assert answer.status == 403
    assert answer.text == ("" if method == "HEAD" else REBINDING)


@pytest.mark.parametrize("path", ["/metrics", "/-/healthy", "/-/ready"])
async def test_scrapes_and_probes_can_have_any_name(site, path):
    answer = await site("GET", path, headers={"Host": "exporter.example.org"})
    assert answer.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "localhost:9978"},
        {"Host": "exporter.example.org", "Via": "1.1 Caddy"},
        {"Host": "exporter.example.org", "Sec-Fetch-Site": "none"},
    ],
)
async def test_the_page_under_names_that_are_ours(site, headers):
    assert (await site("GET", "/", headers=headers)).status == 200


async def test_ready_once_every_target_was_polled(site, publisher, poller):
    publisher.pollers = [poller("a"), poller("b", ended_polls=1), poller("训练")]
    answer = await site("GET", "/-/ready")
    assert (answer.status, answer.text) == (503, "not polled yet: a, 训练\n")

    publisher.pollers[0].ended_polls = publisher.pollers[2].ended_polls = 1
    publisher.pollers[2].error = "refused"  # a failed poll has ended too
    answer = await site("GET", "/-/ready")
    assert (answer.status, answer.text) == (200, "OK\n")


async def test_a_port_in_use(publisher):
    async with serve(make_app(publisher), [ANY_PORT]) as (url,):
        taken = ("127.0.0.1", int(url.rpartition(":")[2]))
        with pytest.raises(StartError) as caught:
            async with serve(make_app(publisher), [ANY_PORT, taken]):
                pass
        assert str(caught.value) == f"cannot listen on {url[7:]}: Address already in use"


@pytest.mark.integration
async def test_a_port_in_use_on_all_interfaces(publisher):
    async with serve(make_app(publisher), [("", 0)]) as (url,):
        port = int(url.rpartition(":")[2])
        with pytest.raises(StartError, match=f"^cannot listen on :{port}: Address already in use$"):
            async with serve(make_app(publisher), [("", port)]):
                pass


@pytest.mark.integration
@pytest.mark.parametrize(
    ("address", "message"),
    [
        (("192.0.2.1", 0), "192.0.2.1:0: Cannot assign requested address"),
        (("127.0.0.1", 99999), "127.0.0.1:99999: "),
        (("a..b", 1), "a..b:1: "),
        (("no-such-host.invalid", 1), "no-such-host.invalid:1: "),
    ],
)
async def test_addresses_that_cannot_be_had(publisher, address, message):
    with pytest.raises(StartError) as caught:
        async with serve(make_app(publisher), [address]):
            pass
    assert str(caught.value).startswith(f"cannot listen on {message}")
    assert "\n" not in str(caught.value)


async def test_two_addresses(publisher):
    async with serve(make_app(publisher), [ANY_PORT, ("127.0.0.2", 0)]) as urls:
        assert [url.rpartition(":")[0] for url in urls] == ["http://127.0.0.1", "http://127.0.0.2"]
        assert [await status(f"{url}/-/healthy") for url in urls] == [200, 200]


@needs_ipv6
async def test_ipv6(publisher):
    async with serve(make_app(publisher), [("::1", 0)]) as (url,):
        assert url.startswith("http://[::1]:")
        assert await status(f"{url}/-/healthy") == 200


@pytest.mark.integration
@needs_ipv6
@pytest.mark.parametrize("address", [("", 0), ("::", 0)])
async def test_all_interfaces_of_both_families(publisher, address):
    async with serve(make_app(publisher), [address]) as (url,):
        port = url.rpartition(":")[2]
        for host in ("127.0.0.1", "[::1]"):
            assert await status(f"http://{host}:{port}/-/healthy") == 200


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: x\r\n" * 1000 + b"\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde",
    ],
)
async def test_nonsense_is_refused_quietly(site, caplog, nonsense):
    reader, writer = await site.raw(nonsense)
    writer.write_eof()
    answer = await reader.read()
    writer.close()

    assert re.match(rb"HTTP/1\.[01] 4|$", answer)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []
    assert (await site("GET", "/-/healthy")).status == 200


@pytest.mark.slow
async def test_the_end_does_not_wait_for_clients_that_do_not(serving, publisher, make_size):
    publisher.exposition = make_size(50 * MB)
    async with contextlib.AsyncExitStack() as stack:
        served = await stack.enter_async_context(serving())
        request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
        connections = [await served.raw(request, limit=1000) for _ in range(10)]  # stalled
        connections += [await served.raw(part) for part in (b"", b"GET", request[:-2])]  # idle
        for reader, _ in connections[:10]:
            await reader.readexactly(4)
        async with asyncio.timeout(20):
            await stack.aclose()
        for _, writer in connections:
            writer.close()


async def test_the_end_lets_an_answer_under_way_end(serving, publisher, make_size):
    publisher.exposition = make_size(20 * MB)
    async with contextlib.AsyncExitStack() as stack:
        served = await stack.enter_async_context(serving())
        reader, writer = await served.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        closing = asyncio.create_task(stack.aclose())
        await asyncio.sleep(0.05)
        assert len(await reader.readexactly(20 * MB)) == 20 * MB
        await closing
        writer.close()
