"""From a job's failure in the service to the new value in ``/metrics``, while a sweep is running.

100,000 jobs are known from a state file, 30 are active; the exporter polls every 5 seconds with the
default rate of 5 requests a second, so the sweep after the start takes longer than the benchmark.
Jobs fail at random moments; their counter already exists. The client scrapes every 20 ms.
"""

import random
import sys
import tempfile
import time
from pathlib import Path

from bench_state import polls, running, wait_for, wait_until_ready
from common import Client, Figure, control, environment, report, world

_JOBS = 100_000
_ACTIVE = 30
_INTERVAL = 5.0
_FAILURES = 16
_FAMILY = b"modelarts_training_jobs_finished_total{"


def failed(client: Client) -> float:
    """Sum of the counters of all pools."""
    lines = client.body().split(b"\n")
    found = [each for each in lines if each.startswith(_FAMILY) and b'phase="Failed"' in each]
    return sum(float(each.rpartition(b" ")[2]) for each in found)


def measure(service: int, exporter: int, ids: list[str]) -> list[float]:
    """Seconds until each failure was counted."""
    chance = random.Random(0)
    client = Client(exporter, gzip=False)
    found = []
    for job_id in ids:
        time.sleep(chance.uniform(0, _INTERVAL))
        before = failed(client)
        control(service, "POST", "jobs", {"do": "finish", "job": job_id, "phase": "Failed"})
        started = time.monotonic()
        while failed(client) == before:
            time.sleep(0.02)
            if time.monotonic() - started > 60:
                raise SystemExit("never counted")
        found.append(time.monotonic() - started)
    return found


def running_jobs(service: int) -> list[str]:
    """IDs of the running jobs."""
    facts = control(service, "GET", "truth?jobs=1")["facts"]
    return [job["id"] for job in facts if job["phase"] == "Running"]


def main() -> int:
    """Create the state file with one exporter, then measure a second one."""
    with tempfile.TemporaryDirectory() as folder, world(_JOBS - _ACTIVE, _ACTIVE) as service:
        url = f"http://127.0.0.1:{service.port}"
        state = str(Path(folder) / "state.db")
        common = {"state__file": state, "poll__interval": f"{_INTERVAL:g}"}
        with running(environment(url, **common)) as exporter:
            wait_until_ready(exporter.port)
        ids = running_jobs(service.port)[:_FAILURES]
        usual = environment(url, api__max_requests_per_second="5", **common)
        with running(usual) as exporter:
            wait_for(exporter.port, "incremental", 2)
            found = measure(service.port, exporter.port, ids)
            if polls(exporter.port)["sweep"]:
                raise SystemExit("the sweep ended too early")
    return report(
        [
            Figure("seconds until counted, at most", [max(found)], "s", _INTERVAL + 1, most=True),
            Figure("seconds until counted", found, "s"),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
