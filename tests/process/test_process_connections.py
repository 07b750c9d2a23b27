"""More connections than descriptors, and clients that send too much: bounded, and others served."""

import asyncio
import contextlib
import re
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest
from process.program import COMMAND, TRACE, get, target

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = b"".join(b"X-%d: %s\r\n" % (n, b"a" * 15_000) for n in range(60))
KB = 1000
DESCRIPTORS = 256


def resident(program):
    status = Path(f"/proc/{program.pid}/status").read_text()
    return 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])


async def memory(program):
    """Resident memory in bytes, once it no longer changes."""
    found = []
    while len(found) < 4 or len(set(found[-4:])) > 1:
        await asyncio.sleep(0.3)
        found.append(resident(program))
    return found[-1]


def descriptors(program):
    return len(list(Path(f"/proc/{program.pid}/fd").iterdir()))


@pytest.fixture
async def program(start, closed_port):
    """It may open 256 files, and its target does not answer."""
    service = SimpleNamespace(url=f"http://127.0.0.1:{closed_port}")
    limited = ("sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh", *COMMAND)
    options = {"poll__interval": "1h", "poll__stale_after": "3h", "api__retries": 0}
    program = start(*target(service, **options), command=limited)
    program.at = await program.url()
    await program.said("poll failed")
    return program


@pytest.fixture
async def connect(program):
    """Opens connections, all of which end with the test."""
    port = int(program.at.rpartition(":")[2])
    async with contextlib.AsyncExitStack() as stack:

        async def connect(data=b""):
            """Send as much as the server takes."""
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
            stack.callback(writer.close)
            writer.write(data)
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(1):
                    await writer.drain()
            return reader, writer

        yield connect


async def healthy(program):
    async with asyncio.timeout(10):
        assert (await get(f"{program.at}/-/healthy"))[0] == 200


async def test_row_77_more_connections_than_descriptors(program, connect):
    """The log was 188 MB after a minute, and nobody was served."""
    opened = [await connect() for _ in range(2 * DESCRIPTORS)]
    await healthy(program)
    assert descriptors(program) < DESCRIPTORS * 3 / 4  # the service needs some, too

    (line,) = [line for line in program.log if "connections" in line]
    assert line.startswith(
        "WARNING more than 128 connections; closing the oldest idle ones closed="
    )
    first, last = opened[0], opened[-1]
    assert await first[0].read() == b""
    last[1].write(REQUEST)
    assert await last[0].readexactly(15) == b"HTTP/1.1 200 OK"
    assert not TRACE.search(program.stderr)
    assert await program.stops() == 0


async def test_row_77_descriptors_that_are_used_up_otherwise(program, connect):
    """No accept in a tight loop; once there are descriptors, there are connections."""
    resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (descriptors(program), DESCRIPTORS))
    opened = await connect(REQUEST)
    await program.said("WARNING cannot accept connections: Too many open files")
    before = process_time(program)
    await asyncio.sleep(1.5)
    assert process_time(program) - before < 0.5
    assert len(program.log) < 10

    resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    assert await opened[0].readexactly(15) == b"HTTP/1.1 200 OK"
    await healthy(program)
    assert not TRACE.search(program.stderr)


def process_time(program):
    """Seconds of CPU time."""
    fields = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.parametrize(
    "data",
    [
        REQUEST[:-2] + LARGE,
        REQUEST[:-2] + b"".join(b"X-%d:\r\n" % n for n in range(61)) + b"X:" + b"a" * 15_000,
        (REQUEST[:-2] + LARGE + b"\r\n") * 40,
        (REQUEST[:-2] + b"X:" + b"a" * 15_000 + b"\r\n\r\n") * 2000,
        REQUEST * 500_000,
        REQUEST[:-2] + b"Content-Length: 999999999\r\n\r\n" + b"a" * 20_000 * KB,
        b"POST /-/reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n"
        + b"a" * 20_000 * KB,
        b"POST /-/reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\na\r\n" * 4_000 * KB,
    ],
    ids=["head", "fields", "large-ahead", "ahead", "small-ahead", "body", "chunk", "chunks"],
)
async def test_row_78_what_clients_send_takes_little_memory(program, connect, data):
    """Ten connections took 300 MB, and it was not given back."""
    await healthy(program)
    before = await memory(program)
    await asyncio.gather(*(connect(data) for _ in range(10)))

    assert await memory(program) - before < 10 * 200 * KB
    await healthy(program)
    assert not TRACE.search(program.stderr)
    assert await program.stops() == 0


async def test_row_78_all_connections_together_take_little_memory(program, connect):
    await healthy(program)
    before = await memory(program)
    fields = b"".join(b"X-%d:\r\n" % n for n in range(61))
    await asyncio.gather(
        *(connect(REQUEST[:-2] + fields + b"X:" + b"a" * 15_000) for _ in range(500))
    )

    assert await memory(program) - before < 20_000 * KB
    await healthy(program)


async def test_row_78_a_head_that_does_not_end_is_refused(program, connect):
    reader, _ = await connect(REQUEST[:-2] + LARGE)
    assert await reader.readuntil(b"\r\n") == b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    assert (await reader.read()).endswith(b"\r\n\r\nrequest header fields too large\n")
