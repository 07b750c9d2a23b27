"""The program as its users run it: as a process with an environment, output and an end.

Tests wait for conditions, never for time to pass.
"""

import asyncio
import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

import exporter
from exporter.simulator.identity import PROJECT_ID, PROJECT_NAME

PYTHON = (sys.executable,)
COMMAND = (*PYTHON, "-m", "exporter")
TRACE = re.compile("Traceback|Exception ignored|Warning:|never retrieved|was destroyed")
"""Output of Python for errors that were not handled."""

_PATIENCE = 90.0


class Program:
    """A process and what it has written so far.

    It has a session of its own, as under a service manager, and no terminal.
    """

    def __init__(self, arguments, environ, folder, name):
        self._files = {which: folder / f"{name}.{which}" for which in ("out", "err")}
        with self._files["out"].open("wb") as out, self._files["err"].open("wb") as err:
            self.process = subprocess.Popen(
                arguments,
                env=environ,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.pid = self.process.pid

    @property
    def stdout(self):
        return self._files["out"].read_text()

    @property
    def stderr(self):
        return self._files["err"].read_text()

    @property
    def written(self):
        """The end of its output, for failure messages."""
        return f"{self.stdout[-2000:]}\n{self.stderr[-2000:]}"

    @property
    def log(self):
        """The lines of its log, without times."""
        return [line.partition(" ")[2] for line in self.stderr.splitlines()]

    async def until(self, condition):
        """Wait until a condition is true, and return its value; the program must not end before."""

        def living():
            assert self.process.poll() is None, f"ended:\n{self.written}"
            return condition()

        try:
            return await until(living)
        except TimeoutError:
            raise AssertionError(f"never true:\n{self.written}") from None

    async def said(self, pattern):
        """Wait until its output matches a pattern, and return the match."""
        return await self.until(
            lambda: re.search(pattern, self.stdout) or re.search(pattern, self.stderr)
        )

    async def url(self):
        """Wait until it serves, and return its URL."""
        return (await self.said(r"INFO serving (http://\S+)/metrics"))[1]

    async def ended(self):
        """Wait until it has ended by itself, and return its exit code."""
        await until(lambda: self.process.poll() is not None)
        return self.process.returncode

    async def stops(self, number=signal.SIGTERM, pid=None):
        """Send a signal, and return its exit code; it must end within 5 seconds."""
        os.kill(pid or self.pid, number)
        started = time.monotonic()
        code = await self.ended()
        assert time.monotonic() - started < 5
        return code

    def kill(self):
        """Kill it and its children."""
        if self.process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)  # the group is its own
        self.process.wait()


@contextlib.contextmanager
def programs(folder):
    """Start programs, which are killed when the context ends.

    ``command`` are the first words; the default is the exporter.
    """
    started = []

    def start(*arguments, command=COMMAND, environ=None):
        words = [str(word) for word in (*command, *arguments)]
        name = f"program{len(started)}"
        started.append(Program(words, surroundings(folder) | (environ or {}), folder, name))
        return started[-1]

    try:
        yield start
    finally:
        for program in started:
            program.kill()


def surroundings(home):
    """An environment with nothing from the one that the tests run in."""
    return {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(exporter.__file__).parents[1]),  # the package under test
        "PYTHONWARNINGS": "error",
    }


def target(service, **more):
    """Flags for a single target: a service without authentication."""
    options = {
        "target.region": PROJECT_NAME,
        "target.project-id": PROJECT_ID,
        "target.endpoint": service.url,
        "target.auth.method": "none",
        "web.listen-address": "127.0.0.1:0",
        "poll.interval": "1s",
        "api.max-requests-per-second": "1000",
    }
    options |= {name.replace("__", ".").replace("_", "-"): value for name, value in more.items()}
    return [f"--{name}={value}" for name, value in options.items()]


def free_port():
    """A port of 127.0.0.1 on which a program can listen soon.

    Not one of those that the system gives to connections: other tests, which run at the same time,
    would take it before the program does.
    """
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


async def until(condition):
    """Wait until a condition is true, and return its value."""
    async with asyncio.timeout(_PATIENCE):
        while not (found := condition()):  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.02)
        return found


async def eventually(condition):
    """Wait until an asynchronous condition is true, and return its value."""
    async with asyncio.timeout(_PATIENCE):
        while not (found := await condition()):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.1)
        return found


async def get(url, **headers):
    """Send a GET; return status, headers and text."""
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, answer.headers, await answer.text()


async def scraped(url):
    """Scrape; return the values by name and labels."""
    _, _, text = await get(f"{url}/metrics")
    return await asyncio.to_thread(samples, text)  # the simulated service must go on meanwhile


def samples(text):
    """Parse an exposition; return the values by name and labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def values(found, name, **labels):
    """The values of all samples of that name with those labels."""
    return [
        value
        for (sample, given), value in found.items()
        if sample == name and labels.items() <= dict(given).items()
    ]


async def up(url, number=1, **labels):
    """Wait until `modelarts_up` of all targets with the labels is ``number``; return the scrape.

    At least one poll of each has ended.
    """

    async def so():
        found = await scraped(url)
        seen = {
            value
            if sum(values(found, "modelarts_exporter_polls_total", **labels | dict(given)))
            else None
            for (name, given), value in found.items()
            if name == "modelarts_up" and labels.items() <= dict(given).items()
        }
        return found if seen == {number} else None

    return await eventually(so)
