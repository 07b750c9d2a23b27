"""Shared by the benchmarks: processes, a cheap HTTP client, medians, and the table of results."""

import contextlib
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
PYTHON = sys.executable

_PATIENCE_SECONDS = 120.0
_STOP_SECONDS = 10.0
_ANSWER_SECONDS = 60.0
_NODE_EXPORTER = "prometheus-node-exporter"


# --- Other processes ------------------------------------------------------------------------------


class Peer(NamedTuple):
    """A process that serves on this machine."""

    pid: int
    port: int


@contextlib.contextmanager
def peer(command: Sequence[str], says: str, **environ: str) -> Iterator[Peer]:
    """Run a process until the end of the context.

    Args:
        command: program and arguments.
        says: pattern of the output once it serves; the first group is the port.
        environ: additional environment variables.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environ},
        )
        try:
            yield Peer(process.pid, _port(process, says, output))
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, by force if it does not obey."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _port(process: subprocess.Popen[bytes], says: str, output: Any) -> int:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        ended = process.poll() is not None
        written = os.pread(output.fileno(), 2**20, 0).decode("utf-8", "replace")
        if found := re.search(says, written):
            return int(found[1])
        if ended or time.monotonic() > deadline:
            raise SystemExit(f"{process.args!r} does not serve:\n{written[-2000:]}")
        time.sleep(0.05)


def simulator(*arguments: str) -> contextlib.AbstractContextManager[Peer]:
    """Run the simulated service."""
    command = (PYTHON, "-m", "exporter", "simulate", "--listen-address", "127.0.0.1:0", *arguments)
    return peer(command, r"jobs: http://127\.0\.0\.1:(\d+)")


def world(finished: int, active: int, *arguments: str) -> contextlib.AbstractContextManager[Peer]:
    """Run the simulated service of `world`."""
    command = (PYTHON, str(HERE / "world.py"), str(finished), str(active), *arguments)
    return peer(command, r"world at http://127\.0\.0\.1:(\d+)")


def control(port: int, method: str, name: str, document: Any = None) -> Any:
    """Call the control API of the simulated service."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/-/sim/{name}",
        method=method,
        data=json.dumps(document).encode() if document else None,
    )
    with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:
        return json.loads(answer.read())


def environment(simulated: Peer | str, **options: str) -> dict[str, str]:
    """Environment of an exporter whose only target is a simulated service; ``a__b`` is a.b.

    If the service is given by its URL, only the default workspace is read.
    """
    # Imported here, so that benchmarks that measure memory import only what they measure.
    from exporter.simulator.catalog import (  # noqa: PLC0415
        DEFAULT_WORKSPACE,
        VISION_WORKSPACE,
    )
    from exporter.simulator.command import ACCESS_KEY, SECRET_KEY  # noqa: PLC0415
    from exporter.simulator.identity import PROJECT_ID, PROJECT_NAME  # noqa: PLC0415

    if isinstance(simulated, str):
        url, workspaces = simulated, DEFAULT_WORKSPACE
    else:
        url = f"http://127.0.0.1:{simulated.port}"
        workspaces = f"{DEFAULT_WORKSPACE},{VISION_WORKSPACE}"
    values = {
        "target__region": PROJECT_NAME,
        "target__project_id": PROJECT_ID,
        "target__endpoint": url,
        "target__iam_endpoint": url,
        "target__workspaces": workspaces,
        "target__auth__method": "aksk",
        "target__auth__access_key": ACCESS_KEY,
        "target__auth__secret_key": SECRET_KEY,
        "api__max_requests_per_second": "1000000",
        "web__listen_address": "127.0.0.1:0",
        **options,
    }
    return {f"MODELARTS_EXPORTER_{name.upper()}": value for name, value in values.items()}


def free_port() -> int:
    """A port that is free at the moment, for programs that cannot choose one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def node_exporter() -> str:
    """Path of node_exporter. If missing, Debian's package is unpacked but not installed.

    Installing it would start a service. The files stay in the virtual environment.
    """
    for name in ("node_exporter", _NODE_EXPORTER):
        if path := shutil.which(name):
            return path
    folder = Path(sys.prefix) / "peers"
    program = folder / "usr/bin" / _NODE_EXPORTER
    if not program.exists():
        with tempfile.TemporaryDirectory() as download:
            _quietly("apt-get", "-qq", "download", _NODE_EXPORTER, folder=download) or (
                _quietly("apt-get", "-qq", "update", folder=download)
                and _quietly("apt-get", "-qq", "download", _NODE_EXPORTER, folder=download)
            )
            for package in Path(download).glob("*.deb"):
                _quietly("dpkg", "-x", str(package), str(folder), folder=download)
    if not program.exists():
        raise SystemExit(
            f"node_exporter is needed: apt-get install {_NODE_EXPORTER}, or put it on the PATH"
        )
    return str(program)


def _quietly(*command: str, folder: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    return done.returncode == 0


# --- A client -------------------------------------------------------------------------------------


class Client:
    """Requests ``/metrics`` and only counts the bytes; reconnects if the server closes."""

    def __init__(self, port: int, *, accept: str = "", gzip: bool = True) -> None:
        lines = ["GET /metrics HTTP/1.1", f"Host: 127.0.0.1:{port}"]
        lines += [f"Accept: {accept}"] if accept else []
        lines += ["Accept-Encoding: gzip"] if gzip else []
        self._request = "\r\n".join([*lines, "", ""]).encode()
        self._port = port
        self._buffer = memoryview(bytearray(2**18))
        self._socket: socket.socket | None = None

    def scrape(self) -> float:
        """Seconds from sending the request to the last byte; without connecting."""
        return self._scrape(None)

    def body(self) -> bytes:
        """The body as received, possibly chunked."""
        parts: list[bytes] = []
        self._scrape(parts)
        return b"".join(parts).partition(b"\r\n\r\n")[2]

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _scrape(self, parts: list[bytes] | None) -> float:
        # Reconnect if the server closed the connection, as prometheus_client (HTTP/1.0) does.
        if self._socket is None:
            self._socket = socket.create_connection(
                ("127.0.0.1", self._port), timeout=_ANSWER_SECONDS
            )
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection, buffer = self._socket, self._buffer
        started = time.perf_counter()
        connection.sendall(self._request)
        head = b""
        while b"\r\n\r\n" not in head:
            size = connection.recv_into(buffer)
            if not size:
                raise SystemExit(f"no answer on port {self._port}")
            head += buffer[:size]
        if parts is not None:
            parts.append(head)
        fields, _, rest = head.partition(b"\r\n\r\n")
        if not re.match(rb"HTTP/1\.[01] 200 ", fields):
            raise SystemExit(f"port {self._port} answered {fields[:80]!r}")
        ended = self._whole(_ending(fields), len(rest), rest[-5:], parts)
        seconds = time.perf_counter() - started
        if ended or fields.startswith(b"HTTP/1.0") or b"\r\nconnection: close" in fields.lower():
            self.close()
        return seconds

    def _whole(
        self, ending: int | bytes | None, got: int, tail: bytes, parts: list[bytes] | None
    ) -> bool:
        """Read to the end. Returns whether the server closed the connection there."""
        connection = self._socket
        if connection is None:
            raise RuntimeError("no connection")
        while not (
            (isinstance(ending, int) and got >= ending)
            or (isinstance(ending, bytes) and tail.endswith(ending))
        ):
            size = connection.recv_into(self._buffer)
            if not size:
                if ending is not None:
                    raise SystemExit(f"port {self._port} closed the connection early")
                return True
            got += size
            tail = (tail + self._buffer[max(0, size - 5) : size])[-5:]
            if parts is not None:
                parts.append(bytes(self._buffer[:size]))
        return False


def _ending(fields: bytes) -> int | bytes | None:
    """How a body ends: by its length, by the last chunk, or (None) with the connection."""
    if length := re.search(rb"\r\nContent-Length: *(\d+)", fields, re.IGNORECASE):
        return int(length[1])
    if re.search(rb"\r\nTransfer-Encoding: *chunked", fields, re.IGNORECASE):
        return b"0\r\n\r\n"
    return None


# --- Results --------------------------------------------------------------------------------------


def interleaved(
    actions: Mapping[str, Callable[[], float]],
    rounds: int,
    repeat: Mapping[str, int] | None = None,
) -> dict[str, list[float]]:
    """Run all actions in turns, so that other load on the machine affects them equally.

    Args:
        actions: each returns its own measurement.
        rounds: number of rounds of all actions.
        repeat: number of runs in a row, for fast actions.
    """
    results: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            results[name] += [action() for _ in range((repeat or {}).get(name, 1))]
    return results


def clocked(
    action: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> Callable[[], float]:
    """Wrap an action so that it returns the time it took."""

    def measure() -> float:
        started = clock()
        action()
        return clock() - started

    return measure


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def percentile(values: Sequence[float], percent: int) -> float:
    """The percentile of some values."""
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)]


class Figure(NamedTuple):
    """A row of the results: a measurement and its target.

    Attributes:
        values: all measured values; the median counts.
        target: lower limit, or with ``most`` the upper limit; None: for information only.
    """

    name: str
    values: Sequence[float]
    unit: str
    target: float | None = None
    most: bool = False

    @property
    def reached(self) -> bool:
        """Whether the median meets the target."""
        if self.target is None:
            return True
        value = median(self.values)
        return value <= self.target if self.most else value >= self.target

    def cells(self) -> tuple[str, ...]:
        """The cells of the row."""
        target = "-"
        if self.target is not None:
            target = f"{'<=' if self.most else '>='} {_short(self.target)} {self.unit}"
        return (
            self.name,
            target,
            f"{_short(median(self.values))} {self.unit}",
            f"{_short(min(self.values))} - {_short(max(self.values))}",
            "" if self.target is None else "ok" if self.reached else "MISSED",
        )


def report(figures: Sequence[Figure]) -> int:
    """Print the table. Returns the exit code: 1 if a figure misses its target."""
    rows = [("figure", "target", "median", "min - max", ""), *(each.cells() for each in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"{machine()}\n")
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    print(flush=True)
    return 0 if all(each.reached for each in figures) else 1


def ratios(slow: Sequence[float], fast: Sequence[float]) -> list[float]:
    """Speedups: each slow value divided by the median of the fast ones.

    The median of the result is the ratio of the medians.
    """
    return [value / median(fast) for value in slow]


def machine() -> str:
    """The machine and Python version, on one line."""
    model = ""
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
        model = f"{found[1]}, " if found else ""
    return f"{model}{os.cpu_count()} CPUs, {platform.system()}, Python {platform.python_version()}"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
