"""The command ``demo``: the real exporter on a simulated service in the same process."""

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from exporter.app.exporter import Exporter
from exporter.commands.console import print_output, show_progress
from exporter.simulator.behaviour import Behaviour
from exporter.simulator.catalog import DEFAULT_WORKSPACE, VISION_WORKSPACE
from exporter.simulator.command import simulated_service
from exporter.simulator.identity import PROJECT_ID, PROJECT_NAME
from exporter.simulator.server import SimulatedService

_IGNORED_VARIABLES = (
    "MODELARTS_EXPORTER_CONFIG__",
    "MODELARTS_EXPORTER_TARGET",
    "MODELARTS_EXPORTER_SHARD",
    "HUAWEICLOUD_SDK_",
)
_ALL_INTERFACES = ("0.0.0.0", "::")  # noqa: S104 - recognised, not listened on


def make_service(arguments: argparse.Namespace) -> SimulatedService:
    """Make the simulated service, not started yet, and print how long that took."""
    started = time.perf_counter()
    service = simulated_service(
        seed=arguments.seed,
        jobs=arguments.jobs,
        rate=arguments.rate,
        behaviour=Behaviour(offset=arguments.offset),
        token_lifetime=arguments.token_lifetime,
        access_key=arguments.access_key,
        secret_key=arguments.secret_key,
    )
    took = time.perf_counter() - started
    print_output(
        f"Made a simulated region with {len(service.fleet)} training jobs in {took:.1f} s."
    )
    return service


def environment(
    environ: Mapping[str, str], url: str, arguments: argparse.Namespace
) -> dict[str, str]:
    """Return the environment with the simulated service as the only target, polled every 5 s.

    Variables about targets, credentials and the configuration file, which may have targets too, are
    left out. All others stay, and win over the defaults of the demo.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if not name.upper().startswith(_IGNORED_VARIABLES)
    }
    defaults = {
        "MODELARTS_EXPORTER_POLL__INTERVAL": "5s",
        "MODELARTS_EXPORTER_API__MAX_REQUESTS_PER_SECOND": "100",
        "MODELARTS_EXPORTER_LOG__LEVEL": "warning",
        "MODELARTS_EXPORTER_WEB__LISTEN_ADDRESS": "127.0.0.1:9978",
    }
    target = {
        "MODELARTS_EXPORTER_TARGET__NAME": "demo",
        "MODELARTS_EXPORTER_TARGET__REGION": PROJECT_NAME,
        "MODELARTS_EXPORTER_TARGET__PROJECT_ID": PROJECT_ID,
        "MODELARTS_EXPORTER_TARGET__ENDPOINT": url,
        "MODELARTS_EXPORTER_TARGET__IAM_ENDPOINT": url,
        "MODELARTS_EXPORTER_TARGET__WORKSPACES": f"{DEFAULT_WORKSPACE},{VISION_WORKSPACE}",
        "MODELARTS_EXPORTER_TARGET__AUTH__METHOD": "aksk",
        "MODELARTS_EXPORTER_TARGET__AUTH__ACCESS_KEY": arguments.access_key,
        "MODELARTS_EXPORTER_TARGET__AUTH__SECRET_KEY": arguments.secret_key,
    }
    return defaults | kept | target


async def narrate(
    exporter: Exporter,
    service: SimulatedService,
    urls: Sequence[str],
    *,
    path: str,
    interval: float,
) -> None:
    """Print what happens until the first poll has ended, and then what to look at.

    Args:
        exporter: running.
        service: started.
        urls: of the exporter.
        path: of the metrics.
        interval: seconds between polls.
    """
    url = reachable(urls[0])
    print_output(f"The simulated service is at {service.url}, the exporter at {url}.")
    started = time.perf_counter()
    while not exporter.publisher.ready:
        show_progress(f"Reading the list of jobs, 50 a page: {len(service.requests)} requests ...")
        await asyncio.sleep(0.1)
    took = time.perf_counter() - started
    status = exporter.pollers[0].status()
    if status.error:
        print_output(f"The first poll failed: {status.error}")
        return
    cost = next(iter(status.costs.values()))  # not of a sweep if there is a state file
    print_output(f"The first poll took {cost.requests} requests and {took:.1f} s.")
    phases = status.fleet.jobs_by_phase()
    waiting = phases["Pending"] + phases["Creating"]
    links = {
        f"{url}{path}": "what Prometheus scrapes: jobs by phase, pool and card type",
        f"{url}/": "a status page: what runs, what waits, what failed",
        f"{service.url}/-/sim/truth": "the true state of the simulated region, to compare",
    }
    width = max(map(len, links))
    print_output(
        f"\n{phases['Running']} jobs run, {waiting} wait, {phases['Failed']} have failed. Open\n"
        + "".join(f"  {link:<{width}}  {text}\n" for link, text in links.items())
        + f"Jobs arrive, run, fail and recover while you watch. A poll runs every "
        f"{interval:g} s. To follow a number:\n"
        f"  curl -s {url}{path} | grep 'modelarts_training_jobs{{.*Running'\n"
        "Ctrl-C stops both."
    )


def reachable(url: str) -> str:
    """Return the URL as it can be opened on this machine."""
    parts = urlsplit(url)
    if parts.hostname not in _ALL_INTERFACES:
        return url
    return f"{parts.scheme}://localhost:{parts.port}"
