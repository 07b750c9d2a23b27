"""Duration of a scrape: idle, while a poll runs, while the service hangs, with slow readers.

Two exporter processes, each with about 80,000 series of the same simulated service: one has polled
once and is idle, one polls without a pause, unless the service is stopped. The states alternate.
"""

import contextlib
import gzip
import os
import re
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator

from common import (
    PYTHON,
    Client,
    Figure,
    Peer,
    environment,
    peer,
    percentile,
    report,
    simulator,
)

_JOBS = "20000"
_ROUNDS = 6
_SCRAPES = 60
_READERS = 50
_PAUSE = 0.02
_SAYS = r"serving http://127\.0\.0\.1:(\d+)"
_OPTIONS = {"jobs__retention": "30d", "api__timeout": "10m", "poll__sweep_timeout": "10m"}


def ready(port: int) -> None:
    """Return once the first poll is published."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=10) as answer,
        ):
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise SystemExit("the first poll did not end")


@contextlib.contextmanager
def slow_readers(port: int) -> Iterator[None]:
    """Clients that request the uncompressed body and read almost nothing of it."""
    with contextlib.ExitStack() as stack:
        for _ in range(_READERS):
            reader = stack.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", port))
            reader.sendall(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            reader.recv(16)
        yield


def scrapes(client: Client) -> list[float]:
    """Durations of some scrapes in a row, in milliseconds."""
    found = []
    for _ in range(_SCRAPES):
        found.append(client.scrape() * 1000)
        time.sleep(_PAUSE)
    return found


def polls_of(client: Client) -> float:
    """Number of successful polls."""
    text = gzip.decompress(client.body())
    return sum(map(float, re.findall(rb'polls_total\{.*result="success"\} (\S+)', text)))


def measure(simulated: Peer, resting: Peer, polling: Peer) -> dict[str, list[float]]:
    """Durations of all scrapes by state, in milliseconds."""
    ready(resting.port)
    ready(polling.port)
    rest, poll = Client(resting.port), Client(polling.port)
    before = polls_of(poll)
    times: dict[str, list[float]] = {"idle": [], "hanging": [], "readers": [], "polling": []}
    for _ in range(_ROUNDS):
        os.kill(simulated.pid, signal.SIGSTOP)
        time.sleep(0.3)  # let requests in progress end
        times["idle"] += scrapes(rest)
        times["hanging"] += scrapes(poll)
        with slow_readers(resting.port):
            times["readers"] += scrapes(rest)
        os.kill(simulated.pid, signal.SIGCONT)
        times["polling"] += scrapes(poll)
    if polls_of(poll) < before + 2:
        raise SystemExit("there were no polls")
    rest.close()
    poll.close()
    return times


def main() -> int:
    """Start all processes, measure, and compare with idle."""
    with simulator("--jobs", _JOBS) as simulated:
        command = (PYTHON, "-m", "exporter")
        rests = environment(simulated, poll__interval="1h", poll__stale_after="2h", **_OPTIONS)
        polls = environment(simulated, poll__interval="0.001", poll__stale_after="1h", **_OPTIONS)
        with peer(command, _SAYS, **rests) as resting, peer(command, _SAYS, **polls) as polling:
            times = measure(simulated, resting, polling)
    names = {
        "hanging": "service hangs",
        "readers": f"{_READERS} slow readers",
        "polling": "poll runs",
    }
    rows = []
    for state, name in names.items():
        for percent in (50, 99):
            idle = percentile(times["idle"], percent)
            ratio = percentile(times[state], percent) / idle
            target = 2.0 if percent == 50 and state != "polling" else None
            text = f"{name}: p{percent} relative to idle"
            rows.append(Figure(text, [ratio], "times", target, most=True))
    rows += [
        Figure(f"{state}: p{percent}", [percentile(values, percent)], "ms")
        for state, values in times.items()
        for percent in (50, 99)
    ]
    return report(rows)


if __name__ == "__main__":
    sys.exit(main())
