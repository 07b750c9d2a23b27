"""Start with the state of 100,000 jobs, and the memory that an exporter with them needs.

The simulated service runs in another process. *Start*: from the start of the process until
``/-/ready`` returns 200, at the default request rate, with 30 active jobs and without a sweep.
*Memory*: resident memory after polls of 2,000 active jobs, started without and with the state file,
each of which verifies a page of the list.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from common import Figure, Peer, environment, free_port, report, world
from process import begun, cpu, polls, resident, running, wait_for, wait_until_ready

_JOBS = 100_000
_STARTS = 7
_LATER = 30


class Start(NamedTuple):
    """Seconds until ready, and CPU seconds until then."""

    seconds: float
    cpu: float


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
            with begun(environ) as process:
                wait_until_ready(port)
                found.append(Start(time.monotonic() - started, cpu(process)))
                if polls(port) != {"incremental": 1, "sweep": 0}:
                    raise SystemExit("there was a sweep")
    return found


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
            wait_for(exporter.port, "incremental", _LATER)
            look(f"without a state file, {_LATER} polls later", exporter)
        with running(environment(url, **common)) as exporter:
            wait_until_ready(exporter.port)
            found["from a state file, ready"] = [resident(exporter.pid)]
            wait_for(exporter.port, "incremental", _LATER)
            look(f"from a state file, {_LATER} polls later", exporter)
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
