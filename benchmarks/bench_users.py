"""CPU time of a poll with series by user, relative to one with ``jobs.by_user: false``.

500 users have a job in each of 10 pools; nine in ten of these jobs are running, so every poll
counts card seconds for all of them. Two exporters, with a state file each, poll the same service at
the same time.
"""

import re
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from common import Client, Figure, Peer, environment, report, world
from process import cpu, polls, running, wait_for

_USERS = 500
_POOLS = 10
_WINDOWS = 5
_POLLS = 4
_MOST = 4 / 3


def options(service: Peer, folder: Path, *, by_user: bool) -> dict[str, str]:
    """The environment of an exporter."""
    values = {
        "poll__interval": "5s",
        "poll__stale_after": "1h",
        "api__max_requests_per_second": "1000",
        "jobs__by_user": str(by_user).lower(),
        "state__file": str(folder / f"state-{by_user}.db"),
    }
    return environment(f"http://127.0.0.1:{service.port}", **values)


def cpu_per_poll(exporters: list[Peer]) -> list[list[float]]:
    """CPU ms per poll of exporters that run at the same time, in several windows."""
    for each in exporters:
        wait_for(each.port, "incremental", 3)  # all series are shown by then
    found: list[list[float]] = [[] for _ in exporters]
    for _ in range(_WINDOWS):
        before = [(cpu(each.pid), polls(each.port)["incremental"]) for each in exporters]
        for each, (_, number) in zip(exporters, before, strict=True):
            wait_for(each.port, "incremental", number + _POLLS)
        for each, (used, number), values in zip(exporters, before, found, strict=True):
            done = polls(each.port)["incremental"] - number
            values.append((cpu(each.pid) - used) * 1000 / done)
    return found


def series_by_user(exporter: Peer) -> int:
    """The number of samples with a user that are not about single jobs."""
    client = Client(exporter.port, gzip=False)
    text = client.body().decode()
    client.close()
    return len(re.findall(r"^modelarts_training_user_", text, re.MULTILINE))


def main() -> int:
    """Measure, and report the ratio."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        service = stack.enter_context(
            world(0, _USERS * _POOLS, "--pools", str(_POOLS), "--users", str(_USERS))
        )
        exporters = [
            stack.enter_context(running(options(service, Path(folder), by_user=by_user)))
            for by_user in (False, True)
        ]
        without, with_users = cpu_per_poll(exporters)
        series = series_by_user(exporters[1])
    ratios = [one / other for one, other in zip(with_users, without, strict=True)]
    return report(
        [
            Figure(
                "CPU of a poll relative to jobs.by_user: false", ratios, "times", _MOST, most=True
            ),
            Figure("CPU of a poll", with_users, "ms"),
            Figure("CPU of a poll, jobs.by_user: false", without, "ms"),
            Figure("series by user", [series], "series"),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
