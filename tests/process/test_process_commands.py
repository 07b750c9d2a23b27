"""What demo, simulate, dump and check do for a new user."""

import asyncio
import json
import os
import pty
import re
import shlex
import signal
import stat
import subprocess

import pytest
from process.program import (
    COMMAND,
    TRACE,
    get,
    samples,
    surroundings,
    target,
    up,
    values,
)

from exporter.simulator.fleet import Fleet
from exporter.simulator.server import SimulatedService

SMALL = ("--jobs=60", "--rate=0", "--seed=5")
"""A small world without new jobs."""

OFFLINE = (
    "check --offline --target.region=r --target.auth.method=none --web.listen-address=127.0.0.1:0"
)
ANYWHERE = "--web.listen-address=127.0.0.1:0"


@pytest.fixture
async def still(fleet):
    """A service whose clock stands still, with jobs in several phases."""
    for number in range(120):
        job = fleet.create()
        if number % 3:
            fleet.start(job)
        if number % 3 == 2:
            fleet.finish(job, "Failed")
    fleet.pause()
    async with SimulatedService(fleet) as still:
        yield still


def states(text):
    """The samples of jobs, without those of the exporter itself."""
    return [line for line in text.splitlines() if line.startswith("modelarts_training_")]


def families(text):
    return re.findall(r"^# TYPE (.*)$", text, re.MULTILINE)


async def test_demo_prints_what_to_open(start):
    program = start("demo", *SMALL, "--web.listen-address=0.0.0.0:0", "--poll.interval=2s")
    await program.said("Ctrl-C stops both")

    story = re.sub(r":\d{4,5}\b", ":PORT", program.stdout)
    story = re.sub(r"\d+\.\d s", "N s", story)
    story = re.sub(r"\b\d+ (training|requests|jobs run|wait|have)", r"N \1", story)
    assert story == STORY
    urls = dict.fromkeys(re.findall(r"http://\S+\d(?:/\S*)?(?=\s)", program.stdout))
    answers = {url.partition("/-/")[2] or url[-1]: await get(url) for url in urls}
    assert {status for status, _, _ in answers.values()} == {200}
    (curl,) = re.findall(r"^  (curl .*)$", program.stdout, re.MULTILINE)
    url, pattern = shlex.split(curl)[2], shlex.split(curl)[-1]
    assert [line for line in (await get(url))[2].splitlines() if re.search(pattern, line)]
    assert program.stderr == ""
    assert await program.stops(signal.SIGINT) == 0
    assert program.stderr == ""


STORY = """\
Made a simulated region with N training jobs in N s.
The simulated service is at http://127.0.0.1:PORT, the exporter at http://localhost:PORT.
The first poll took N requests and N s.

N jobs run, N wait, N have failed. Open
  http://localhost:PORT/metrics      what Prometheus scrapes: jobs by phase, pool and card type
  http://localhost:PORT/             a status page: what runs, what waits, what failed
  http://127.0.0.1:PORT/-/sim/truth  the true state of the simulated region, to compare
Jobs arrive, run, fail and recover while you watch. A poll runs every 2 s. To follow a number:
  curl -s http://localhost:PORT/metrics | grep 'modelarts_training_jobs{.*Running'
Ctrl-C stops both.
"""


async def test_demo_continues_from_a_state_file(start, tmp_path):
    for _ in range(2):
        program = start("demo", *SMALL, ANYWHERE, f"--state.file={tmp_path / 'state.db'}")
        await program.said("Ctrl-C stops both")
        assert await program.stops(signal.SIGINT) == 0
        assert "The first poll took" in program.stdout


async def test_demo_takes_nothing_from_the_environment_about_real_targets(start, tmp_path):
    (tmp_path / ".huaweicloud").mkdir()
    (tmp_path / ".huaweicloud" / "credentials").write_text("[basic]\nak = real\nsk = real\n")
    nowhere = "http://127.0.0.1:1"
    real = {
        "HUAWEICLOUD_SDK_AK": "real",
        "HUAWEICLOUD_SDK_SK": "real",
        "HUAWEICLOUD_SDK_SECURITY_TOKEN": "real",
        "HUAWEICLOUD_SDK_PROJECT_ID": "real",
        "HUAWEICLOUD_SDK_IAM_ENDPOINT": nowhere,
        "HUAWEICLOUD_SDK_IDP_ID": "real",
        "HUAWEICLOUD_SDK_ID_TOKEN_FILE": "missing",
        "MODELARTS_EXPORTER_CONFIG__FILE": "missing.yml",
        "MODELARTS_EXPORTER_TARGETS": "nonsense",
        "MODELARTS_EXPORTER_TARGET__REGION": "No Region",
        "MODELARTS_EXPORTER_TARGET__NOTHING": "unknown",
        "MODELARTS_EXPORTER_TARGET__PROXY": nowhere,
        "MODELARTS_EXPORTER_TARGET__CA_FILE": "missing.pem",
        "MODELARTS_EXPORTER_TARGET__AUTH__PASSWORD": "real",
        "MODELARTS_EXPORTER_TARGET__AUTH__SECRET_KEY_FILE": "missing",
        "MODELARTS_EXPORTER_POLL__INTERVAL": "7s",
    }
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), nowhere)
    program = start("demo", *SMALL, ANYWHERE, environ=real | proxies)

    await program.said("A poll runs every 7 s")  # other variables apply
    assert "have failed. Open" in program.stdout
    assert program.stderr == ""


def shown(folder, *arguments, until, terminal=True):
    """The output of a command up to some text, to a terminal or to a file."""
    ours, theirs = pty.openpty()
    written = folder / "written"
    try:
        with written.open("wb") as file:
            process = subprocess.Popen(
                [*COMMAND, *arguments],
                env=surroundings(folder),
                stdin=subprocess.DEVNULL,
                stdout=theirs if terminal else file,
                stderr=theirs if terminal else file,
                start_new_session=True,
            )
        try:
            text = b""
            while until not in text:
                text = text + os.read(ours, 4096) if terminal else written.read_bytes()
        finally:
            process.kill()
            process.wait()
    finally:
        os.close(ours)
        os.close(theirs)
    return text


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_for_terminals(tmp_path, terminal):
    text = shown(tmp_path, "demo", *SMALL, ANYWHERE, until=b"Ctrl-C stops both", terminal=terminal)
    assert (b"\r\x1b[K" in text) == terminal
    assert (b"Reading the list of jobs" in text) == terminal


async def test_simulate_prints_instructions_that_work(start, tmp_path):
    service = start("simulate", "--listen-address=127.0.0.1:0", *SMALL)
    await service.said("The truth")
    lines = [line for line in service.stdout.splitlines() if line.startswith("  ")]
    assert [shlex.split(line)[0] for line in lines] == ["export"] * 3 + ["modelarts-exporter"]

    command = tmp_path / "bin" / "modelarts-exporter"  # as if it was installed there
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    command.chmod(stat.S_IRWXU)
    lines[-1] = f"exec {lines[-1].strip()}"
    environ = {
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "MODELARTS_EXPORTER_WEB__LISTEN_ADDRESS": "127.0.0.1:0",  # the usual port may be in use
    }
    exporter = start("-c", "\n".join(lines), command=("/bin/sh",), environ=environ)
    found = await up(await exporter.url())
    assert sum(values(found, "modelarts_training_jobs")) > 0
    for url in re.findall(r"http://\S+/-/sim/\w+", service.stdout):
        assert (await get(url))[0] == 200
    assert [await program.stops() for program in (exporter, service)] == [0, 0]
    assert service.stderr == ""


async def test_check_of_a_healthy_target(start, still):
    program = start("check", *target(still))

    assert await program.ended() == 0
    calls = len([each for each in still.requests if each.operation in ("search", "pools")])
    sweep = calls - POLL
    table = TABLE.format(poll=POLL, sweep=sweep, day=POLL * 86_400 + PAGES + 3 * 288)
    assert re.sub(r"\d+\.\d s(?=;|$)", "N s", program.stdout, flags=re.MULTILINE) == table
    assert program.stderr.splitlines()[0] == "Signing in ..."


async def test_quick_check_reads_one_page(start, still):
    program = start("check", "--quick", "--output=json", *target(still))

    assert await program.ended() == 0
    assert [each.operation for each in still.requests] == ["search", "pools"]
    (found,) = json.loads(program.stdout)["targets"]
    assert (found["ok"], found["jobs"], found["pools"]) == (True, 120, 4)


async def test_offline_check_sends_nothing(start, still):
    program = start("check", "--offline", *target(still))

    assert await program.ended() == 0
    assert len(still.requests) == 0
    assert (program.stdout, program.stderr) == ("The configuration is ok.\n", "")


async def test_check_beside_the_running_exporter(start, still, tmp_path):
    """Its port and its state file are in use; neither is a failure, and nothing is disturbed."""
    state = f"--state.file={tmp_path / 'state.db'}"
    running = start(state, *target(still))
    url = await running.url()
    await up(url)
    listening = url.removeprefix("http://")
    address = f"--web.listen-address={listening}"
    flags = [flag for flag in target(still) if "listen" not in flag]
    program = start("check", "--quick", state, address, *flags)

    assert await program.ended() == 0
    assert f"web.listen_address: {listening} is in use" in program.stdout
    assert await running.stops() == 0
    assert not re.search("WARNING|ERROR", running.stderr)


@pytest.mark.parametrize(
    ("command", "code", "error"),
    [
        ("version 2>&-", 0, ""),
        ("version <&-", 0, ""),
        (f"{OFFLINE} 2>&-", 0, ""),
        ("serve --nope 2>/dev/full", 2, ""),
        (
            "version >&-",
            1,
            "modelarts-exporter: cannot write to standard output: it is closed\n",
        ),
    ],
)
def test_closed_standard_streams(tmp_path, command, code, error):
    done = subprocess.run(
        ["bash", "-c", f"{' '.join(map(shlex.quote, COMMAND))} {command}"],
        env=surroundings(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, error)


POLL = 5
"""API calls: two pages of active jobs, and three of the newest: all are equally old."""
PAGES = 4
"""API calls that verify the list once a day."""

TABLE = """\
target          cn-north-4/0605767eb780d5762f5ec0196d1d2f3a
identity        nobody
result          ok
jobs            120
  Creating       40
  Running        40
  Failed         40
paging          page: offset counts pages
pool names      4 pools
granted         modelarts:pool:list, for names of resource pools and how full they are; optional
not needed yet  modelarts:pool:get, for places of waiting jobs in the queues of pools; optional
granted         modelarts:trainJob:getQuotas, for quotas; optional
a poll costs    {poll} API calls, N s
a sweep costs   {sweep} API calls, N s; the first start needs one
pools cost      3 API calls every 5m
a day costs     about {day:,} API calls, with a poll every 1s, and every job verified within 1d
"""


async def test_dump_writes_what_would_be_served(start, still):
    flags = target(still, jobs__retention="1000d")
    once = start("dump", *flags)
    assert await once.ended() == 0
    program = start(*flags)
    url = await program.url()
    await up(url)
    served = ""
    async with asyncio.timeout(20):
        while "modelarts_training_quota_used" not in served:  # pools are read after the poll
            _, _, served = await get(f"{url}/metrics")

    assert samples(once.stdout)
    assert len(states(once.stdout)) > 120
    assert states(once.stdout) == states(served)
    ours = [each for each in families(served) if each.startswith("modelarts_")]
    assert families(once.stdout) == ours  # process_* would collide in node_exporter's collector
    assert {"modelarts_up gauge", "modelarts_exporter_polls_total counter"} <= {*ours}
    assert once.stderr == ""


async def test_dump_leaves_out_what_is_denied(start, still):
    program = start("dump", *target(still, metrics__deny="modelarts_training_.*_total,.*_info"))
    assert await program.ended() == 0

    found = families(program.stdout)
    assert {"modelarts_training_jobs gauge", "modelarts_up gauge"} <= {*found}
    assert [each for each in found if re.search("modelarts_training_.*_total|_info ", each)] == []


async def test_check_does_not_retry_where_nobody_listens(start, closed_port):
    """With so many retries, it would not end before the test does."""
    unreachable = SimulatedService(Fleet())
    unreachable.url = f"http://127.0.0.1:{closed_port}"
    program = start("check", *target(unreachable, api__retries=10_000))

    assert await program.ended() == 1
    assert "FAILED: cannot connect to" in program.stdout


async def test_dump_of_a_target_that_fails(start, closed_port):
    unreachable = SimulatedService(Fleet())
    unreachable.url = f"http://127.0.0.1:{closed_port}"
    program = start("dump", *target(unreachable, api__retries=0))

    assert await program.ended() == 1
    found = samples(program.stdout)
    assert values(found, "modelarts_up") == [0]
    assert values(found, "modelarts_exporter_polls_total", result="upstream", kind="sweep") == [1]
    assert "WARNING poll failed: cannot connect to" in program.stderr


def read_some(path, lines):
    """Read the first lines from a named pipe, and close it."""
    with path.open() as pipe:
        return [pipe.readline() for _ in range(lines)]


@pytest.fixture
def piped(start, tmp_path):
    """Start the exporter with a named pipe as standard output."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def piped(*arguments):
        script = f"exec {shlex.join([*COMMAND, *arguments])} > {pipe}"
        return start("-c", script, command=("/bin/sh",)), pipe

    return piped


async def test_dump_when_the_reader_closes_the_pipe(piped, fleet):
    """As with ``| head``."""
    for _ in range(600):
        fleet.create()  # more than a pipe holds
    # The service answers from this thread, so it must not wait for the pipe.
    async with SimulatedService(fleet) as service:
        program, pipe = piped("dump", *target(service))
        first = await asyncio.to_thread(read_some, pipe, 1)
        assert await program.ended() == 0
    assert first[0].startswith("# HELP modelarts_training_jobs ")
    assert program.stderr == ""


async def test_help_when_the_reader_closes_the_pipe(piped):
    program, pipe = piped("--help")
    await asyncio.to_thread(read_some, pipe, 0)
    assert await program.ended() == 0
    assert program.stderr == ""


async def test_demo_when_the_reader_closes_the_pipe(piped):
    """It keeps running, since it may be scraped."""
    program, pipe = piped("demo", *SMALL, ANYWHERE)
    _, line = await asyncio.to_thread(read_some, pipe, 2)
    url = re.search(r"the exporter at (http\S+)\.$", line)[1]
    found = await up(url)
    assert values(found, "modelarts_exporter_polls_total", result="success", kind="sweep") != [0]
    assert await program.stops(signal.SIGINT) == 0
    assert program.stderr == ""


async def test_a_full_disk(start, still):
    script = f"{shlex.join([*COMMAND, 'dump', *target(still)])} > /dev/full"
    program = start("-c", script, command=("/bin/sh",))

    assert await program.ended() == 1
    assert program.log[-1].endswith("cannot write to standard output: No space left on device")
    assert not TRACE.search(program.stderr)
