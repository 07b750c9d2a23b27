"""The end: Ctrl-C and SIGTERM end the program cleanly and soon, whatever it is doing (row 52)."""

import asyncio
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from process.program import COMMAND, PYTHON, TRACE, get, surroundings, target, up

from exporter.simulator.faults import Fault


def can_be_pid_1():
    unshare = shutil.which("unshare")
    return (
        unshare
        and not subprocess.run(
            [unshare, "--pid", "--fork", "true"], capture_output=True, check=False
        ).returncode
    )


def child_of(pid):
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


async def idle(program, service):
    await up(await program.url())


async def starting(program, service):
    await program.said("INFO modelarts-exporter .* starts")


async def polling(program, service):
    """In the middle of a poll of a dozen pages, with time between them."""
    for _ in range(590):
        service.fleet.create()
    fault = service.faults.add(Fault("latency", seconds=0.3))
    await program.until(lambda: fault.hits >= 3)


async def hanging(program, service):
    fault = service.faults.add(Fault("hang"))
    await program.until(lambda: fault.hits)


async def stalled(program, service):
    """Clients that request more than all buffers hold and read none of it, or stop reading."""
    url = await program.url()
    await up(url)
    size = len((await get(f"{url}/metrics"))[2])
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    for part in [request * (40_000_000 // size)] * 10 + [request[:-2], b"GET", b""]:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(part)
        if part.endswith(b"\r\n\r\n"):
            await reader.readexactly(4)  # it is being served
        stalled.connections.append(writer)  # or it would be closed


stalled.connections = []


@pytest.mark.parametrize(
    ("number", "doing"),
    [
        (signal.SIGINT, idle),
        (signal.SIGTERM, idle),
        (signal.SIGTERM, starting),
        (signal.SIGINT, polling),
        (signal.SIGTERM, polling),
        (signal.SIGINT, hanging),
        (signal.SIGTERM, hanging),
        (signal.SIGTERM, stalled),
    ],
)
async def test_row_52_ends_well(start, service, number, doing):
    program = start(*target(service))
    await doing(program, service)

    assert await program.stops(number) == 0
    assert program.log.count(f"INFO {number.name} received, stopping") == 1
    assert not TRACE.search(program.stderr)
    assert program.stdout == ""
    for writer in stalled.connections:
        writer.close()
    stalled.connections.clear()


@pytest.mark.skipif(not can_be_pid_1(), reason="needs unshare and the right to use it")
async def test_row_52_ends_well_as_pid_1(start, service):
    unshare = (shutil.which("unshare"), "--pid", "--fork")
    program = start(*target(service), command=(*unshare, *COMMAND))
    await up(await program.url())

    assert await program.stops(signal.SIGTERM, pid=child_of(program.pid)) == 0
    assert program.log[-1] == "INFO SIGTERM received, stopping"


@pytest.mark.parametrize("command", ["check", "dump"])
async def test_ctrl_c_gives_up_what_would_end_by_itself(start, service, command):
    fault = service.faults.add(Fault("hang"))
    program = start(command, *target(service))
    await program.until(lambda: fault.hits)

    assert await program.stops(signal.SIGINT) == 130
    assert program.stdout == ""
    assert set(program.stderr.splitlines()) <= {"Signing in ..."}  # the progress of check


async def again_and_again(program, *numbers):
    """Send signals until the program has ended; its exit code."""
    while program.process.poll() is None:
        for number in numbers:
            program.process.send_signal(number)
        await asyncio.sleep(0.001)
    return program.process.returncode


@pytest.mark.parametrize("doing", [idle, starting, hanging])
@pytest.mark.parametrize(
    "then",
    [(signal.SIGHUP,), (signal.SIGTERM,), (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)],
    ids=["hangup", "term", "all"],
)
async def test_row_79_further_signals_change_nothing(start, service, doing, then):
    program = start(*target(service))
    await doing(program, service)
    program.process.send_signal(signal.SIGTERM)

    assert await again_and_again(program, *then) == 0
    assert not TRACE.search(program.stderr)
    assert sum("stopping" in line for line in program.log) <= 1


@pytest.mark.parametrize("command", ["check", "dump"])
async def test_row_79_further_signals_do_not_change_the_exit_code(start, service, command):
    fault = service.faults.add(Fault("hang"))
    program = start(command, *target(service))
    await program.until(lambda: fault.hits)
    program.process.send_signal(signal.SIGINT)

    assert await again_and_again(program, signal.SIGINT, signal.SIGTERM) == 130
    assert program.stdout == ""
    assert set(program.stderr.splitlines()) <= {"Signing in ..."}  # the progress of check


IMPORTING = """
import os, runpy, signal, sys

class Signals:
    def find_spec(self, name, *_):
        if name in {modules}:
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Signals())
runpy.run_module("exporter", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_row_79_a_hangup_while_modules_are_loaded(tmp_path, command):
    """They take a moment, and what a reload would read is read anyway."""
    modules = ("exporter.commands.main", "exporter.settings.load", "exporter.web.server", "aiohttp")
    done = subprocess.run(
        [
            *PYTHON,
            "-c",
            IMPORTING.format(modules=modules, number=int(signal.SIGHUP)),
            command,
            "--poll.interval=never",
        ],
        env=surroundings(tmp_path),
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "poll.interval" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("command", "code"), [("serve", 0), ("check", 130)])
def test_row_52_before_anything_has_begun(tmp_path, number, command, code):
    """While modules are loaded, which takes a moment."""
    slowly = (
        "import os, runpy, signal, sys\n"
        "class Slowly:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'exporter.commands.main':\n"
        f"            os.kill(os.getpid(), signal.{number.name})\n"
        "sys.meta_path.insert(0, Slowly())\n"
        "runpy.run_module('exporter', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run(
        [*PYTHON, "-c", slowly, command],
        env=surroundings(tmp_path),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")
