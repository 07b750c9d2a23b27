"""Start with the state of 100,000 jobs, and the memory that an exporter with them needs.

The simulated service runs in another process. *Start*: from the start of the process until
``/-/ready`` returns 200, at the default request rate, with 30 active jobs and without a sweep.
*Memory*: resident memory after polls of 2,000 active jobs, started without and with the state file,
before and after a sweep in the background.
"""

import gzip
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from common import PYTHON, Client, Figure, Peer, environment, free_port, peer, report, world

_JOBS = 100_000
_STARTS = 7
_PATIENCE_SECONDS = 300
_MB = 2**20
_SAYS = r"serving http://127\.0\.0\.1:(\d+)"
_COMMAND = (PYTHON, "-m", "exporter")
_TICKS = os.sysconf("SC_CLK_TCK")


class Start(NamedTuple):
    """Seconds until ready, and CPU seconds until then."""

    seconds: float
    cpu: float


def is_ready(port: int) -> bool:
    """Whether ``/-/ready`` returns 200."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /-/ready HTTP/1.0\r\nHost: x\r\n\r\n")
            return b" 200 " in connection.recv(100)
    except OSError:
        return False


def wait_until_ready(port: int) -> None:
    """Wait until the exporter is ready, checking every 10 ms."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not is_ready(port):
        if time.monotonic() > deadline:
            raise SystemExit("the exporter did not become ready")
        time.sleep(0.01)


def cpu(pid: int) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident(pid: int, which: str = "VmRSS") -> float:
    """Resident memory of a process in MB; its peak with ``VmHWM``."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{which}:\s*(\d+) kB", status, re.MULTILINE)
    if not found:
        raise SystemExit(f"no {which}")
    return int(found[1]) * 1024 / _MB


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


@contextmanager
def running(environ: Mapping[str, str]) -> Iterator[Peer]:
    """An exporter as a process."""
    with peer(_COMMAND, _SAYS, **environ) as exporter:
        yield exporter


def starts(folder: Path) -> list[Start]:
    """Start once to create the state file, then measure several starts with it."""
    with world(_JOBS - 30, 30) as service:
        url = f"http://127.0.0.1:{service.port}"
        state = str(folder / "start.db")
        fast = environment(url, state__file=state, poll__interval="2s")
        with running(fast) as exporter:
            wait_until_ready(exporter.port)
        found = []
        for _ in range(_STARTS):
            port = free_port()
            environ = environment(
                url,
                state__file=state,
                api__max_requests_per_second="5",
                web__listen_address=f"127.0.0.1:{port}",
            )
            started = time.monotonic()
            with _begun(environ) as process:
                wait_until_ready(port)
                found.append(Start(time.monotonic() - started, cpu(process)))
                if polls(port) != {"incremental": 1, "sweep": 0}:
                    raise SystemExit("there was a sweep")
    return found


@contextmanager
def _begun(environ: Mapping[str, str]) -> Iterator[int]:
    """Start an exporter without waiting until it serves."""
    import subprocess  # noqa: PLC0415

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
        process.terminate()
        process.wait()


def memory(folder: Path) -> dict[str, list[float]]:
    """Resident MB by situation."""
    found: dict[str, list[float]] = {}

    def look(when: str, exporter: Peer) -> None:
        """Record the resident memory after each of five more polls."""
        found[when] = []
        for _ in range(5):
            wait_for(exporter.port, "incremental", polls(exporter.port)["incremental"] + 1)
            found[when].append(resident(exporter.pid))
        found[f"{when}, peak"] = [resident(exporter.pid, "VmHWM")]

    with world(_JOBS - 2000, 2000) as service:
        url = f"http://127.0.0.1:{service.port}"
        state = str(folder / "memory.db")
        common = {"state__file": state, "poll__interval": "2s", "poll__sweep_interval": "15s"}
        with running(environment(url, **common)) as exporter:
            wait_until_ready(exporter.port)
            look("without a state file", exporter)
            wait_for(exporter.port, "sweep", 3)
            look("without a state file, two sweeps later", exporter)
        with running(environment(url, **common)) as exporter:
            wait_until_ready(exporter.port)
            found["from a state file, ready"] = [resident(exporter.pid)]
            wait_for(exporter.port, "sweep", 2)
            look("from a state file, two sweeps later", exporter)
    return found


def main() -> int:
    """Measure the start, then memory."""
    with tempfile.TemporaryDirectory() as folder:
        begun = starts(Path(folder))
        kept = memory(Path(folder))
    return report(
        [
            Figure("start until ready", [each.seconds for each in begun], "s", 2, most=True),
            Figure("start until ready: CPU", [each.cpu for each in begun], "s"),
            *(
                Figure(f"memory, {when}", values, "MB", None if "peak" in when else 200, most=True)
                for when, values in kept.items()
            ),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
