"""Scrapes of the running program, whatever the service and other clients do (rows 61-63)."""

import asyncio
import gzip
import socket
import struct

import aiohttp
import pytest
from process.program import TRACE, eventually, samples, target, up, values

from exporter.simulator.faults import Fault

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
CLIENTS = 50


@pytest.fixture
async def busy(start, service):
    """A program that polls all the time: a poll takes longer than the interval."""
    for _ in range(150):
        service.fleet.start(service.fleet.create())
    service.faults.add(Fault("latency", seconds=0.3))
    program = start(*target(service))
    program.served_at = await program.url()
    await up(program.served_at)
    return program


async def bodies(url, number=CLIENTS):
    """A number of scrapes at once, each checked to be complete."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def one(encoding):
            headers = {"Accept-Encoding": encoding}
            async with session.get(f"{url}/metrics", headers=headers) as answer:
                body = await answer.read()
                assert len(body) == int(answer.headers["Content-Length"])
                return gzip.decompress(body) if encoding == "gzip" else body

        return await asyncio.gather(*(one(("gzip", "identity")[n % 2]) for n in range(number)))


async def readers_that_do_not(url):
    """Clients that request more than all buffers hold and read nothing."""
    writers = []
    for _ in range(CLIENTS):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(REQUEST * 500)
        await reader.readexactly(4)
        writers.append(writer)
    return writers


def hang_up(url):
    """Send a request and close the connection."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(REQUEST * 10)


async def test_row_61_each_body_is_whole_and_of_one_generation(busy):
    url = busy.served_at
    generations = {}
    while len(generations) < 3:
        for body in await bodies(url):
            found = samples(body.decode()) if body not in generations.values() else None
            if found:
                polls = sum(values(found, "modelarts_exporter_polls_total", result="success"))
                # New counters are released between polls: our own CPU time shows it.
                (cpu,) = values(found, "process_cpu_seconds_total")
                assert (polls, cpu) not in generations
                generations[polls, cpu] = body
                running = values(found, "modelarts_training_jobs", phase="Running")
                assert running == [len(values(found, "modelarts_training_job_phase"))] == [160]

    assert not TRACE.search(busy.stderr)


async def test_rows_62_and_63_bad_clients_and_a_hanging_service_delay_no_scrape(busy, service):
    url = busy.served_at
    writers = await readers_that_do_not(url)
    for _ in range(CLIENTS):
        hang_up(url)
    service.requests.clear()
    service.faults.add(Fault("hang"))
    # A verification, which has no filter, may hang before a poll does, or end after that.
    await busy.until(lambda: any(b"phase" in each.body for each in list(service.requests)))

    async def still():
        first, second = await bodies(url), await bodies(url)
        return first if set(first) == set(second) else None

    first = await eventually(still)  # nothing is published while a poll waits
    assert len(set(first)) == 1
    found = samples(first[0].decode())
    assert values(found, "modelarts_up") == [1]
    assert not TRACE.search(busy.stderr)
    for writer in writers:
        writer.close()
    assert await busy.stops() == 0
