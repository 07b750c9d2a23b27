"""The command ``demo``: the exporter as it is, on a simulated service in the same process."""

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from exporter.app.exporter import Exporter
from exporter.commands.console import progress, say
from exporter.simulator.behaviour import Behaviour
from exporter.simulator.catalog import DEFAULT_WORKSPACE, VISION_WORKSPACE
from exporter.simulator.command import simulated_service
from exporter.simulator.identity import PROJECT_ID, PROJECT_NAME
from exporter.simulator.server import SimulatedService

_NOT_FOR_THE_DEMO = (
    "MODELARTS_EXPORTER_CONFIG__",
    "MODELARTS_EXPORTER_TARGET",
    "HUAWEICLOUD_SDK_",
)
_ALL_INTERFACES = ("0.0.0.0", "::")  # noqa: S104 - to be told from others


def make_service(arguments: argparse.Namespace) -> SimulatedService:
    """The simulated service, not yet started; says how long its world took."""
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
    say(f"Made a simulated region with {len(service.fleet)} training jobs in {took:.1f} s.")
    return service


def environment(
    environ: Mapping[str, str], url: str, arguments: argparse.Namespace
) -> dict[str, str]:
    """The environment with the simulated service as the only target, polled every 5 seconds.

    What the user's environment says about targets, credentials and a configuration file, which may
    have targets too, is left out; everything else stays and wins.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if not name.upper().startswith(_NOT_FOR_THE_DEMO)
    }
    defaults = {
        "MODELARTS_EXPORTER_POLL__INTERVAL": "5s",
        "MODELARTS_EXPORTER_API__MAX_REQUESTS_PER_SECOND": "100",
        "MODELARTS_EXPORTER_LOG__LEVEL": "warning",
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
    """Say what happens until the first poll has ended, and then what to look at.

    Args:
        exporter: at work on the service.
        service: started.
        urls: under which the exporter serves.
        path: of the metrics.
        interval: seconds between polls.
    """
    url = reachable(urls[0])
    say(f"The simulated service answers at {service.url}, the exporter at {url}.")
    started = time.perf_counter()
    while not exporter.publisher.ready:
        progress(f"Reading the list of jobs, 50 a page: {len(service.requests)} requests ...")
        await asyncio.sleep(0.1)
    took = time.perf_counter() - started
    status = exporter.pollers[0].status()
    if status.error:
        say(f"The first poll failed: {status.error}")
        return
    say(f"The first poll took {status.costs['sweep'].requests} requests and {took:.1f} s.")
    phases = Counter(known.job.phase for known in status.fleet.jobs.values())
    waiting = phases["Pending"] + phases["Creating"]
    places = {
        f"{url}{path}": "what Prometheus scrapes: jobs by phase, pool and card type",
        f"{url}/": "a page for people: who runs, who waits, what failed",
        f"{service.url}/-/sim/truth": "what is true in the simulated region, to compare",
    }
    width = max(map(len, places))
    say(
        f"\n{phases['Running']} jobs run, {waiting} wait, {phases['Failed']} have failed. Look at\n"
        + "".join(f"  {place:<{width}}  {text}\n" for place, text in places.items())
        + f"Jobs come, run, fail and recover while you watch. Every {interval:g} s they are polled "
        "again, e.g.\n"
        f"  curl -s {url}{path} | grep 'modelarts_training_jobs{{.*Running'\n"
        "Ctrl-C ends both."
    )


def reachable(url: str) -> str:
    """The URL as somebody on this machine can open it."""
    parts = urlsplit(url)
    if parts.hostname not in _ALL_INTERFACES:
        return url
    return f"{parts.scheme}://localhost:{parts.port}"
