"""From a job's failure in the service to the webhook: exporter, Prometheus and Alertmanager.

Polls, scrapes and evaluations happen every 15 seconds, with the rules as shipped and the default
request rate. One Prometheus scrapes six exporters of the same service, whose polls are spread over
the interval. So each failure is reported six times, each time with different moments of poll and
scrape. Jobs fail at random moments.

Alertmanager does not group or wait (``group_wait: 0s``), because that is up to its user. Both
programs are taken from the directory PROMETHEUS3_DIR, or from the PATH if that is not set.
"""

import calendar
import contextlib
import json
import os
import random
import re
import shutil
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self

from bench_freshness import running_jobs
from bench_state import running, wait_until_ready
from common import HERE, Client, Figure, Peer, control, environment, free_port, peer, report, world

_JOBS = 5_000
_ACTIVE = 200
_INTERVAL = 15.0
_EXPORTERS = 6
_FAILURES = 12
_OURS = 3.0
"""Seconds allowed in addition to the intervals."""

_RULES = HERE.parent / "deploy/prometheus"
_ALERT = "ModelArtsTrainingJobFailed"
_PATIENCE_SECONDS = 120.0


class FailureTimes(NamedTuple):
    """When one exporter's report of a failed job passed each stage, in unix seconds.

    Attributes:
        failed: the job failed in the service.
        shown: the failure was in ``/metrics``.
        scraped: Prometheus scraped it.
        fired: the evaluation found it.
        arrived: the webhook was called.
    """

    failed: float
    shown: float
    scraped: float
    fired: float
    arrived: float


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # with the default of 5, some connections would wait for a second


class Webhook:
    """Records the first notification for each job of each exporter.

    Attributes:
        received: by project and job ID, when the alert fired and when the webhook was called.
    """

    def __init__(self) -> None:
        self.received: dict[tuple[str, str], tuple[float, float]] = {}
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                arrived = time.time()
                document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for alert in document["alerts"]:
                    labels = alert["labels"]
                    if labels["alertname"] == _ALERT:
                        key = labels["project"], labels["job_id"]
                        received.setdefault(key, (_unix(alert["startsAt"]), arrived))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _unix(moment: str) -> float:
    """Unix seconds of a UTC time with any number of decimals, as Go writes it."""
    whole, _, digits = moment.removesuffix("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{digits or 0}")


def program(*names: str) -> str:
    """The path of a program that may have several names."""
    folder = os.environ.get("PROMETHEUS3_DIR")
    for name in names:
        if found := shutil.which(name, path=folder) if folder else shutil.which(name):
            return found
    raise SystemExit(f"{names[0]} is required, on the PATH or in the directory PROMETHEUS3_DIR")


@contextlib.contextmanager
def alertmanager(folder: Path, webhook: str) -> Iterator[Peer]:
    """Run an Alertmanager that sends every alert immediately and separately."""
    config = {
        "route": {
            "receiver": "webhook",
            "group_by": ["..."],
            "group_wait": "0s",
            "group_interval": "1s",
            "repeat_interval": "1h",
        },
        "receivers": [{"name": "webhook", "webhook_configs": [{"url": webhook}]}],
    }
    path = folder / "alertmanager.yml"
    path.write_text(json.dumps(config))  # JSON is valid YAML
    command = (
        program("alertmanager", "prometheus-alertmanager"),
        f"--config.file={path}",
        f"--storage.path={folder / 'alerts'}",
        "--cluster.listen-address=",
        f"--web.listen-address=127.0.0.1:{free_port()}",
    )
    with peer(command, r"Listening on.*?address=127\.0\.0\.1:(\d+)") as begun:
        yield begun


@contextlib.contextmanager
def prometheus(folder: Path, exporters: list[Peer], manager: Peer) -> Iterator[Peer]:
    """Run a Prometheus that scrapes all exporters and evaluates our rules."""
    interval = f"{_INTERVAL:g}s"
    addresses = [f"127.0.0.1:{each.port}" for each in exporters]
    managers = [{"static_configs": [{"targets": [f"127.0.0.1:{manager.port}"]}]}]
    config = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [str(path) for path in sorted(_RULES.glob("modelarts.*.yml"))],
        "scrape_configs": [{"job_name": "modelarts", "static_configs": [{"targets": addresses}]}],
        "alerting": {"alertmanagers": managers},
    }
    path = folder / "prometheus.yml"
    path.write_text(json.dumps(config))
    command = (
        program("prometheus"),
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{free_port()}",
    )
    with peer(command, r"Start listening for connections.*?address=127\.0\.0\.1:(\d+)") as begun:
        yield begun


def ask(port: int, query: str) -> list[dict[str, Any]]:
    """The result of a query; empty while Prometheus is starting."""
    words = urllib.parse.urlencode({"query": query})
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{words}", timeout=30) as got,
    ):
        found: list[dict[str, Any]] = json.loads(got.read())["data"]["result"]
        return found
    return []


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"timed out: {what}")
        time.sleep(0.2)


class Watch:
    """Watches ``/metrics`` of one exporter for failed jobs, every 50 ms."""

    def __init__(self, exporter: Peer, shown: dict[str, float]) -> None:
        self._client = Client(exporter.port, gzip=False)
        self._shown = shown
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            body = self._client.body()
            now = time.time()
            for row in re.findall(rb"modelarts_training_job_phase\{(.*?)\} 1", body):
                if b'phase="Failed"' in row and (job := re.search(rb'job_id="(.+?)"', row)):
                    self._shown.setdefault(job[1].decode(), now)


def fail(service: int, jobs: list[str]) -> dict[str, float]:
    """Let jobs fail one after another at random moments. Returns when each did."""
    chance = random.Random(0)
    failed = {}
    for job in jobs:
        time.sleep(chance.uniform(0.5, 1.5) * _INTERVAL)
        failed[job] = time.time()
        control(service, "POST", "jobs", {"do": "finish", "job": job, "phase": "Failed"})
    return failed


def first_sample(port: int, project: str, job: str) -> float:
    """Time of the first sample that shows a job as failed."""
    labels = f'project="{project}",job_id="{job}",phase="Failed"'
    (series,) = ask(port, f"modelarts_training_job_phase{{{labels}}}[1h]")
    return min(float(at) for at, _ in series["values"])


def measure(folder: Path) -> list[FailureTimes]:
    """The times of all failures, as reported by all exporters."""
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(world(_JOBS, _ACTIVE))
        names = [f"exporter-{number}" for number in range(_EXPORTERS)]
        exporters = []
        started = time.monotonic()
        for number, name in enumerate(names):
            wait = number * _INTERVAL / _EXPORTERS - (time.monotonic() - started)
            time.sleep(max(0.0, wait))
            environ = environment(
                f"http://127.0.0.1:{service.port}",
                target__name=name,
                poll__interval=f"{_INTERVAL:g}",
                api__max_requests_per_second="5",
            )
            exporters.append(stack.enter_context(running(environ)))
        for each in exporters:
            wait_until_ready(each.port)
        webhook = stack.enter_context(Webhook())
        manager = stack.enter_context(alertmanager(folder, webhook.url))
        server = stack.enter_context(prometheus(folder, exporters, manager))
        until(
            lambda: (
                len(ask(server.port, "count by (project) (modelarts_training_job_info)"))
                == _EXPORTERS
            ),
            "all exporters scraped",
        )
        shown: dict[str, dict[str, float]] = {name: {} for name in names}
        for name, each in zip(names, exporters, strict=True):
            stack.enter_context(Watch(each, shown[name]))
        failed = fail(service.port, running_jobs(service.port)[:_FAILURES])
        keys = [(name, job) for name in names for job in failed]
        until(lambda: all(key in webhook.received for key in keys), "all failures reported")
        return [
            FailureTimes(
                failed[job],
                shown[name][job],
                first_sample(server.port, name, job),
                *webhook.received[name, job],
            )
            for name, job in keys
        ]


def main() -> int:
    """Measure, and report where the time went."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    whole = [each.arrived - each.failed for each in found]
    parts = {
        "failure to /metrics": [each.shown - each.failed for each in found],
        "/metrics to scrape": [each.scraped - each.shown for each in found],
        "scrape to evaluation": [each.fired - each.scraped for each in found],
        "evaluation to webhook": [each.arrived - each.fired for each in found],
    }
    worst = sum(max(values) for values in parts.values())
    shown = max(parts["failure to /metrics"])
    limit = 3 * _INTERVAL + _OURS
    return report(
        [
            Figure("failure to webhook, at most", [max(whole)], "s", limit, most=True),
            Figure("the same, if the worst of all parts coincided", [worst], "s", limit, most=True),
            Figure("failure to webhook", whole, "s"),
            Figure("failure to /metrics, at most", [shown], "s", _INTERVAL + _OURS, most=True),
            *(Figure(name, values, "s") for name, values in parts.items()),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
