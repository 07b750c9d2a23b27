"""The command ``simulate``: the simulated service alone, until SIGINT or SIGTERM."""

import argparse
import asyncio
import gc
import signal
import sys
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from exporter.simulator.behaviour import Behaviour
from exporter.simulator.catalog import REGION
from exporter.simulator.identity import (
    PROJECT_ID,
    PROJECT_NAME,
    AccessKey,
    Accounts,
    Identity,
)
from exporter.simulator.living import LivingFleet
from exporter.simulator.server import SimulatedService

ACCESS_KEY = "SIMULATEDACCESSKEY"
SECRET_KEY = "SIMULATEDSECRETKEYOFNOVALUE"  # noqa: S105 - of the simulated service, not a secret
USER = "exporter"
DOMAIN = "simulated"
FINISHED_JOBS = 5000
_LEAST_HISTORY = 10_000
_BAD_CONFIGURATION = 2


def simulated_service(
    *,
    seed: int = 0,
    jobs: int = FINISHED_JOBS,
    rate: float = 1.0,
    behaviour: Behaviour | None = None,
    access_key: str = ACCESS_KEY,
    secret_key: str = SECRET_KEY,
    token_lifetime: float = 86_400.0,
    clock: Callable[[], float] = time.time,
) -> SimulatedService:
    """Make a living world behind a service, not started yet.

    Its only identity has the access key, is the user `USER` of `DOMAIN` with the secret key as
    password, and is the agency of the metadata service. Building 100,000 jobs takes some seconds.
    The world keeps twice as many finished jobs, at least 10,000: older ones are deleted.

    Args:
        seed: of the world.
        jobs: number of jobs that have finished already.
        rate: of short jobs, see `LivingFleet`.
        behaviour: how the service interprets the API documentation.
        access_key: AK.
        secret_key: SK.
        token_lifetime: seconds.
        clock: unix seconds.
    """
    identity = Identity(USER, DOMAIN, password=secret_key)
    accounts = Accounts(
        [AccessKey(access_key, secret_key, identity)],
        [identity],
        agency=identity,
        token_lifetime=token_lifetime,
    )
    history = max(2 * jobs, _LEAST_HISTORY)
    fleet = LivingFleet.populated(
        seed, clock(), jobs=jobs, rate=rate, pools=REGION, history=history
    )
    return SimulatedService(fleet, behaviour, accounts=accounts, clock=clock)


def add_arguments(parser: argparse.ArgumentParser, *, listening: bool = True) -> None:
    """Add the options of the command; without ``listening`` only those of the world."""
    if listening:
        parser.add_argument(
            "--listen-address",
            type=_address,
            default=("127.0.0.1", 9979),
            metavar="HOST:PORT",
            help="address to listen on; port 0 takes a free one (default: 127.0.0.1:9979)",
        )
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of the simulated world (default: 0)"
    )
    parser.add_argument(
        "--jobs",
        type=_at_least_zero,
        default=FINISHED_JOBS,
        help=f"jobs that have finished already (default: {FINISHED_JOBS})",
    )
    parser.add_argument(
        "--rate",
        type=_rate,
        default=1.0,
        help="rate of short jobs; 1 is one every 3 seconds in the busiest hours (default: 1)",
    )
    parser.add_argument(
        "--offset",
        choices=("page", "row"),
        default="page",
        help="what the offset of a search counts: pages or rows (default: page)",
    )
    parser.add_argument(
        "--token-lifetime",
        type=_rate,
        default=86_400.0,
        metavar="SECONDS",
        help="lifetime of IAM tokens (default: 86400)",
    )
    parser.add_argument(
        "--access-key", default=ACCESS_KEY, help=f"access key to accept (default: {ACCESS_KEY})"
    )
    parser.add_argument(
        "--secret-key", default=SECRET_KEY, help=f"its secret key (default: {SECRET_KEY})"
    )


async def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM.

    Returns:
        The exit code: 0, or 2 if the address cannot be listened on.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    service = simulated_service(
        seed=arguments.seed,
        jobs=arguments.jobs,
        rate=arguments.rate,
        behaviour=Behaviour(offset=arguments.offset),
        access_key=arguments.access_key,
        secret_key=arguments.secret_key,
        token_lifetime=arguments.token_lifetime,
    )
    gc.collect()
    gc.freeze()  # the history stays, and collecting it would only delay answers
    host, port = arguments.listen_address
    try:
        url = await service.start(host, port)
    except OSError as error:
        sys.stderr.write(f"--listen-address {host}:{port}: {error.strerror}\n")
        return _BAD_CONFIGURATION
    sys.stdout.write(_instructions(url, arguments, len(service.fleet)))
    sys.stdout.flush()
    try:
        await stop.wait()
    finally:
        await service.close()
    return 0


def _instructions(url: str, arguments: argparse.Namespace, jobs: int) -> str:
    return f"""\
Simulated ModelArts service with {jobs} jobs: {url}
To point the exporter at it:
  export HUAWEICLOUD_SDK_AK={arguments.access_key}
  export HUAWEICLOUD_SDK_SK={arguments.secret_key}
  export HUAWEICLOUD_SDK_PROJECT_ID={PROJECT_ID}
  modelarts-exporter --target.region {PROJECT_NAME} --target.endpoint {url} \
--target.iam-endpoint {url}
The truth: {url}/-/sim/truth and {url}/-/sim/events
"""


def _address(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None or parts.netloc != text:
        raise argparse.ArgumentTypeError(f"invalid address {text!r}; use HOST:PORT")
    return host, port


def _at_least_zero(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"invalid number of jobs {text!r}; use 0, 1, ...")
    return int(text)


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"invalid number {text!r}; use 0 or more")
    return value
