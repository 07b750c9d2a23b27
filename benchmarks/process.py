"""A running exporter, seen from outside: is it ready, how often it has polled, what it costs."""

import gzip
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from common import PYTHON, Client, Peer, end, peer

_MB = 2**20
_SAYS = r"serving http://127\.0\.0\.1:(\d+)"
_COMMAND = (PYTHON, "-m", "exporter")
_SCHEDULED = 2
_PATIENCE_SECONDS = 300.0


def running(environ: Mapping[str, str]) -> AbstractContextManager[Peer]:
    """Run an exporter; it serves when the context begins."""
    return peer(_COMMAND, _SAYS, **environ)


@contextmanager
def begun(environ: Mapping[str, str]) -> Iterator[int]:
    """Start an exporter without waiting until it serves; yields its process ID."""
    process = subprocess.Popen(
        _COMMAND,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environ},
    )
    try:
        yield process.pid
    finally:
        end(process)


def is_ready(port: int) -> bool:
    """Whether ``/-/ready`` returns 200."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /-/ready HTTP/1.0\r\nHost: x\r\n\r\n")
            return b" 200 " in connection.recv(100)
    except OSError:
        return False


def wait_until_ready(port: int, seconds: float = _PATIENCE_SECONDS) -> None:
    """Wait until the exporter is ready, but no longer than that; checks every 10 ms."""
    deadline = time.monotonic() + seconds
    while not is_ready(port):
        if time.monotonic() > deadline:
            raise SystemExit("the exporter did not become ready")
        time.sleep(0.01)


def polls(port: int) -> dict[str, float]:
    """Number of successful polls by kind."""
    client = Client(port)
    text = gzip.decompress(client.body()).decode()
    client.close()
    rows = re.findall(r"exporter_polls_total\{(.*?)\} (\S+)", text)
    for labels, number in rows:
        if float(number) and 'result="success"' not in labels:
            raise SystemExit(f"polls have failed: {labels}")
    return {
        kind: sum(float(number) for labels, number in rows if f'kind="{kind}"' in labels)
        for kind in ("incremental", "sweep")
    }


def wait_for(port: int, kind: str, number: float) -> None:
    """Wait for a number of successful polls."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while polls(port)[kind] < number:
        if time.monotonic() > deadline:
            raise SystemExit(f"no {kind} poll")
        time.sleep(0.2)


def cpu(pid: int) -> float:
    """CPU seconds of all threads of a process, to some milliseconds."""
    return time.clock_gettime((~pid << 3) | _SCHEDULED)  # as clock_getcpuclockid() makes it


def resident(pid: int, which: str = "VmRSS") -> float:
    """Resident memory of a process in MB; its peak with ``VmHWM``."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{which}:\s*(\d+) kB", status, re.MULTILINE)
    if not found:
        raise SystemExit(f"no {which}")
    return int(found[1]) * 1024 / _MB
