"""The effect of each fault on the wire, byte by byte."""

import asyncio
import gzip
import json
from urllib.parse import urlsplit

import aiohttp
import pytest

from exporter.simulator.faults import Fault

PATH = "/v2/0605767eb780d5762f5ec0196d1d2f3a/training-job-searches"


async def raw(service, *, seconds=0.3, most=2**20, body=b"{}"):
    """Return all bytes of the response to one search, and how it ended."""
    parts = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(
        b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (PATH.encode(), len(body), body)
    )
    got, end = b"", "closed"
    try:
        async with asyncio.timeout(seconds):
            while len(got) < most and (data := await reader.read(2**16)):
                got += data
    except TimeoutError:
        end = "open"
    except ConnectionResetError:
        end = "reset"
    writer.close()
    return got, end


def split(message):
    head, _, body = message.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers, body


@pytest.fixture
def set_fault(service, caplog):
    def add(*arguments, **details):
        return service.faults.add(Fault(*arguments, **details))

    yield add
    assert caplog.get_records("call") == []  # faults, not errors of the simulator itself


@pytest.mark.parametrize(
    ("form", "body"),
    [
        ("error_code", {"error_code": "ModelArts.2799", "error_msg": "Simulated fault."}),
        ("errorMsg", {"errorCode": "ModelArts.2799", "errorMsg": "Simulated fault."}),
        (
            "error",
            {
                "error": {
                    "code": 500,
                    "message": "Simulated fault.",
                    "title": "Internal Server Error",
                }
            },
        ),
    ],
)
async def test_errors_in_json(client, set_fault, form, body):
    set_fault("status", status=500, form=form)
    answer = await client.search({})
    assert (answer.status, await answer.json()) == (500, body)


async def test_errors_of_the_gateway(client, set_fault):
    set_fault("status", status=401, form="apig", code="APIG.0301")
    answer = await client.search({})
    document = await answer.json()
    assert (answer.status, document["error_code"]) == (401, "APIG.0301")
    assert document["request_id"] == answer.headers["X-Request-Id"]


async def test_errors_in_html_and_without_a_body(client, service, set_fault):
    set_fault("status", status=502, form="html")
    answer = await client.search({})
    assert (answer.status, answer.content_type) == (502, "text/html")
    assert "<h1>502 Bad Gateway</h1>" in await answer.text()
    service.faults.clear()
    set_fault("status", form="empty")
    answer = await client.search({})
    assert (answer.status, await answer.text()) == (503, "")


@pytest.mark.parametrize("value", ["3", "Sun, 15 Jun 2025 15:07:00 GMT", "-5", "1e99", "soon"])
async def test_retry_after_word_for_word(client, set_fault, value):
    set_fault("status", status=429, retry_after=value)
    answer = await client.search({})
    assert (answer.status, answer.headers["Retry-After"]) == (429, value)


async def test_no_retry_after(client, set_fault):
    set_fault("status", status=429)
    assert "Retry-After" not in (await client.search({})).headers


async def test_an_error_with_status_200(client, set_fault):
    set_fault("status", status=200, code="ModelArts.0001")
    answer = await client.search({})
    assert (answer.status, (await answer.json())["error_code"]) == (200, "ModelArts.0001")


async def test_a_redirect(client, set_fault):
    set_fault("redirect", status=307, location="http://other.example/x")
    answer = await client.search({})
    assert (answer.status, answer.headers["Location"]) == (307, "http://other.example/x")


async def test_another_body(client, set_fault):
    set_fault("replace", body="[1]", times=1)
    set_fault("replace", body="<html>", content_type="text/html")
    assert await (await client.search({})).json() == [1]
    answer = await client.search({})
    assert (answer.content_type, await answer.text()) == ("text/html", "<html>")


async def test_which_requests_are_struck(client, set_fault, fleet):
    fault = set_fault("status", operation="search", nth=2, times=2)
    await client("GET", PATH.replace("training-job-searches", "pools"))
    statuses = [(await client.search({})).status for _ in range(5)]
    assert statuses == [200, 503, 503, 200, 200]
    assert (fault.seen, fault.hits) == (5, 2)


async def test_faults_by_path(client, set_fault, fleet):
    first, second = fleet.create(), fleet.create()
    set_fault("status", path=first.id)
    paths = [PATH.replace("job-searches", f"jobs/{job.id}") for job in (first, second)]
    assert [(await client("GET", path)).status for path in paths] == [503, 200]


async def test_faults_by_chance(client, set_fault):
    fault = set_fault("status", probability=0.5)
    statuses = {(await client.search({})).status for _ in range(30)}
    assert statuses == {200, 503}
    assert 5 < fault.hits < 25


async def test_a_late_answer(service, set_fault):
    set_fault("latency", seconds=0.2, times=1)
    assert await raw(service, seconds=0.05) == (b"", "open")
    set_fault("latency", seconds=0.01)
    assert split((await raw(service))[0])[0] == 200


async def test_no_headers_ever(service, set_fault):
    set_fault("hang")
    assert await raw(service, seconds=0.1) == (b"", "open")
    assert service.requests[-1].status == 0


async def test_closing_does_not_wait_for_what_hangs(service, session, set_fault):
    arrived = asyncio.Event()
    set_fault("act", action=lambda _: arrived.set())
    set_fault("hang")
    waiting = asyncio.create_task(session.post(service.url + PATH, json={}))
    await arrived.wait()
    async with asyncio.timeout(20):
        await service.close()
    with pytest.raises(aiohttp.ClientConnectionError):
        await waiting


async def test_cut_and_reset_without_an_answer(service, set_fault):
    set_fault("cut", times=1)
    assert await raw(service) == (b"", "closed")
    set_fault("reset")
    assert await raw(service) == (b"", "reset")


async def test_cut_in_the_middle_of_the_body(service, set_fault):
    set_fault("cut_body")
    message, end = await raw(service)
    status, headers, body = split(message)
    assert (status, end) == (200, "closed")
    assert len(body) == int(headers["content-length"]) // 2


async def test_damaged_chunks(service, session, set_fault):
    set_fault("broken_chunking")
    status, headers, body = split((await raw(service))[0])
    assert (status, headers["transfer-encoding"]) == (200, "chunked")
    size, _, rest = body.partition(b"\r\n")
    assert rest[int(size, 16) :] == b"\r\nno chunk\r\n"
    with pytest.raises(aiohttp.ClientError):
        async with session.post(service.url + PATH, json={}) as answer:
            await answer.read()


async def test_a_trickling_answer(service, set_fault):
    fault = set_fault("trickle", size=10, seconds=0.01)
    got, end = await raw(service, seconds=0.1)
    assert end == "open"
    assert 0 < len(got) < 150
    fault.seconds = 0.0
    assert json.loads(split((await raw(service))[0])[2])["items"] == []


async def test_an_oversized_answer(service, set_fault):
    set_fault("oversized", size=10**9)
    message, end = await raw(service, most=300_000)
    status, headers, body = split(message)
    assert (status, headers["content-length"], end) == (200, "1000000000", "closed")
    assert set(body) == {32}


async def test_a_bomb(service, set_fault, session):
    set_fault("gzip_bomb", size=2**24)
    async with session.post(service.url + PATH, json={}, auto_decompress=False) as answer:
        body = await answer.read()
        assert answer.headers["Content-Encoding"] == "gzip"
    assert len(body) < 20_000
    assert gzip.decompress(body) == b" " * 2**24


async def test_a_truncated_document_in_a_whole_message(client, fleet, set_fault):
    fleet.create()
    whole = await (await client.search({})).text()
    set_fault("truncate")
    answer = await client.search({})
    assert await answer.text() == whole[: len(whole) // 2]
    assert answer.status == 200


async def test_a_document_is_truncated_last(client, fleet, set_fault):
    fleet.create()
    set_fault("truncate")
    set_fault("duplicate")
    answer = await client.search({})
    assert (await answer.text()).count('"metadata"') == 1
    assert answer.status == 200


async def test_fields_missing_and_of_wrong_types(client, fleet, set_fault):
    for _ in range(3):
        fleet.create()
    set_fault("edit", item=1, edits={"status.start_time": "x", "kind": 5}, remove=["spec"])
    items = (await (await client.search({"limit": 3})).json())["items"]
    assert (items[1]["status"]["start_time"], items[1]["kind"]) == ("x", 5)
    assert "spec" not in items[1]
    assert [item["kind"] for item in (items[0], items[2])] == ["job", "job"]


async def test_every_item_and_the_whole_document(client, service, fleet, set_fault):
    for _ in range(3):
        fleet.create()
    set_fault("edit", item=-1, edits={"metadata": []}, times=1)
    items = (await (await client.search({})).json())["items"]
    assert [item["metadata"] for item in items] == [[], [], []]
    set_fault("edit", remove=["items"], times=1)
    assert "items" not in await (await client.search({})).json()
    set_fault("edit", edits={"items": []})
    assert (await (await client.search({})).json())["items"] == []


async def test_an_item_twice(client, fleet, set_fault):
    ids = [fleet.create(1_750_000_000.0 + second).id for second in range(3)][::-1]
    set_fault("duplicate", item=1)
    assert await client.ids() == [ids[0], ids[1], ids[1], ids[2]]


async def test_the_same_page_for_ever(client, fleet, set_fault):
    for _ in range(5):
        fleet.create()
    first = await client.ids(limit=2)
    set_fault("same_page")
    assert await client.ids(limit=2, offset=1) == await client.ids(limit=2, offset=9) == first


async def test_a_page_shift_between_two_requests(client, fleet, set_fault):
    ids = [fleet.create(1_750_000_000.0 + second).id for second in range(6)][::-1]
    action = {"do": "create", "id": "new", "at": 1_750_000_009.0}
    set_fault("act", operation="search", nth=2, times=1, action=action)
    set_fault("act", nth=3, times=1, action=lambda fleet: fleet.delete(ids[0]))
    assert await client.ids(limit=2) == ids[:2]
    assert await client.ids(limit=2, offset=1) == ids[1:3]
    assert await client.ids(limit=2, offset=2) == ids[4:]


async def test_an_error_is_not_damaged_further(client, set_fault):
    set_fault("edit", remove=["items"])
    answer = await client.search({"limit": 99})
    assert (await answer.json())["error_code"] == "ModelArts.2816"


async def test_answers_tell_the_time_of_the_services_clock(client, clock, set_fault):
    clock.now += 3600
    assert (await client.search({})).headers["Date"] == "Sun, 15 Jun 2025 16:06:40 GMT"
    set_fault("status", status=429)
    assert (await client.search({})).headers["Date"] == "Sun, 15 Jun 2025 16:06:40 GMT"
