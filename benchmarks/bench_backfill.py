"""``backfill`` of 100,000 jobs over 90 days at 5 minutes, and promtool on its output.

The simulated service runs in another process, the command as a child process without a rate limit.
*Time*: from its start to its end, including reading. *Memory*: peak resident memory as counted by
the kernel. Then promtool creates blocks from every day's file and has to accept all of them.

For information: ``--pools 100`` for many series, ``--histograms --days 7`` for even more.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from common import PYTHON, Figure, environment, report, world

_MB = 2**20
_ACTIVE = 2000
_MOST_SECONDS = 300.0
_MOST_MB = 300.0


class FinishedProcess(NamedTuple):
    """A finished process: seconds, CPU seconds, peak resident MB, output."""

    seconds: float
    cpu: float
    resident: float
    output: str


def run(command: Iterable[str], environ: Mapping[str, str]) -> FinishedProcess:
    """Run a command until it ends."""
    with tempfile.TemporaryFile("w+") as file:
        started = time.perf_counter()
        process = subprocess.Popen(
            [*command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environ},
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        file.seek(0)
        output = file.read()
    if process.returncode:
        raise SystemExit(f"{process.args!r} ended with {process.returncode}:\n{output}")
    cpu = usage.ru_utime + usage.ru_stime
    return FinishedProcess(seconds, cpu, usage.ru_maxrss * 1024 / _MB, output)


def size(paths: Iterable[Path]) -> float:
    """Total size in MB."""
    return sum(path.stat().st_size for path in paths) / _MB


def lines(path: Path) -> int:
    """Number of samples in a file: its lines without comments."""
    found = 0
    with path.open("rb") as file:
        for line in file:
            found += not line.startswith(b"#")
    return found


def blocks(files: Iterable[Path], folder: Path, promtool: str) -> list[FinishedProcess]:
    """Create blocks from each file with promtool, which has to accept all of them."""
    make = (promtool, "tsdb", "create-blocks-from", "openmetrics")
    return [run((*make, str(file), str(folder)), {}) for file in files]


def measure(arguments: argparse.Namespace, folder: Path) -> list[Figure]:
    """Run backfill, then promtool."""
    out, made = folder / "history", folder / "blocks"
    command = (PYTHON, "-m", "exporter", "backfill")
    options = (f"--from={arguments.days}d", "--step=5m", f"--output={out}")
    labels = ("--label=job=modelarts", "--label=instance=localhost:9978")
    more = ("--histograms",) if arguments.histograms else ()
    days, pools = f"--days={arguments.days}", f"--pools={arguments.pools}"
    with world(arguments.jobs - _ACTIVE, _ACTIVE, days, pools) as service:
        environ = environment(f"http://127.0.0.1:{service.port}")
        ran = run((*command, *options, *labels, *more), environ)
    summary = re.search(r"([\d,]+) jobs, ([\d,]+) series, ([\d,]+) samples of each", ran.output)
    if not summary:
        raise SystemExit(f"unexpected output:\n{ran.output}")
    jobs, series, _ = (int(number.replace(",", "")) for number in summary.groups())
    if jobs != arguments.jobs:
        raise SystemExit("jobs are missing")
    files = sorted(out.glob("*.om"))
    samples = sum(map(lines, files))
    figures = [
        Figure("backfill", [ran.seconds], "s", _MOST_SECONDS, most=True),
        Figure("backfill: peak memory", [ran.resident], "MB", _MOST_MB, most=True),
        Figure("backfill: CPU", [ran.cpu], "s"),
        Figure("series", [series], ""),
        Figure("samples, millions", [samples / 1e6], ""),
        Figure("day files", [len(files)], ""),
        Figure("size of the files", [size(files)], "MB"),
    ]
    promtool = shutil.which("promtool")
    if promtool is None:
        print("promtool is not on the PATH: skipped", file=sys.stderr)
        return figures
    accepted = blocks(files, made, promtool)
    kept = size(path for path in made.rglob("*") if path.is_file())
    return [
        *figures,
        Figure("promtool, all files", [sum(each.seconds for each in accepted)], "s"),
        Figure("promtool, per file", [each.seconds for each in accepted], "s"),
        Figure("promtool: memory", [each.resident for each in accepted], "MB"),
        Figure("blocks", [len([*made.glob("*/meta.json")])], ""),
        Figure("size of the blocks", [kept], "MB"),
        Figure("bytes per sample in the blocks", [kept * _MB / samples], "B"),
    ]


def main() -> int:
    """Run the benchmark in a temporary directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--pools", type=int, default=0)
    parser.add_argument("--histograms", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return report(measure(arguments, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
