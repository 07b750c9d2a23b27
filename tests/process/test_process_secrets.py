"""Secrets, from the configuration or from the service, appear in no output."""

import contextlib
from itertools import chain

import aiohttp
import pytest
import yaml
from process.program import get, up

from exporter.simulator.faults import Fault
from exporter.simulator.identity import PROJECT_ID, AccessKey, Accounts, Identity
from exporter.simulator.living import LivingFleet
from exporter.simulator.recipes import PLANTED_SECRETS
from exporter.simulator.server import SimulatedService

USER = Identity("watcher", "company", password="password-of-the-user")
KEY = AccessKey("ACCESSKEYOFTHETEST", "secret-key-of-the-test", USER, "security-token-of-the-test")
WRONG = "wrong-secret-of-the-test"
WAYS = {
    "key": {
        "access_key": KEY.access,
        "secret_key": KEY.secret,
        "security_token": KEY.security_token,
    },
    "wrong": {"access_key": "ANOTHERKEYOFTHETEST", "secret_key": WRONG},
    "password": {"username": USER.name, "password": USER.password, "domain": USER.domain},
}
SECRETS = {
    "key": (KEY.secret, KEY.security_token),
    "wrong": (WRONG,),
    "password": (USER.password,),
}


@pytest.fixture
def world():
    world = LivingFleet.populated(3, 1_750_000_000.0, jobs=100)
    world.pause()
    return world


@pytest.fixture
async def services(world):
    """One for each target."""
    async with contextlib.AsyncExitStack() as stack:
        accounts = Accounts([KEY], [USER])
        services = {name: SimulatedService(world, accounts=accounts) for name in WAYS}
        for service in services.values():
            await stack.enter_async_context(service)
        yield services


@pytest.fixture
def configuration(tmp_path, services):
    targets = [
        {
            "name": name,
            "region": "cn-north-4",
            "project_id": PROJECT_ID,
            "endpoint": services[name].url,
            "iam_endpoint": services[name].url,
            "auth": auth,
        }
        for name, auth in WAYS.items()
    ]
    document = {
        "targets": targets,
        "poll": {"interval": "1s"},
        "api": {"retries": 0},
        "web": {"listen_address": "127.0.0.1:0"},
        "log": {"level": "debug"},
    }
    (tmp_path / "exporter.yml").write_text(yaml.safe_dump(document))
    return "--config.file=exporter.yml"


async def documents(world):
    """The jobs as a service without authentication returns them."""
    async with (
        SimulatedService(world) as service,
        aiohttp.ClientSession() as session,
        session.post(
            f"{service.url}/v2/{PROJECT_ID}/training-job-searches", json={"limit": 50}
        ) as answer,
    ):
        return await answer.text()


def quoting(name, service):
    """Let a service quote what it refuses, as some gateways do."""
    return service.faults.add(
        Fault(
            "status",
            operation="token" if name == "password" else "search",
            status=401,
            code="APIG.0301",
            message=f"Refused: {' '.join(SECRETS[name])}",
        )
    )


async def test_secrets_come_out_nowhere(start, configuration, services, world):
    read = await documents(world)
    planted = [secret for secret in PLANTED_SECRETS if secret in read]
    assert len(planted) >= 3  # what the exporter reads is full of them

    faults = [quoting("wrong", services["wrong"])]  # now: its key has few tries
    program = start(configuration)
    url = await program.url()
    await up(url, project="key")
    await up(url, project="password")
    seen = [(await get(f"{url}{path}"))[2] for path in ("/metrics", "/", "/-/ready")]
    seen.append((await get(f"{url}/metrics", Accept="application/openmetrics-text"))[2])

    faults += [quoting(name, services[name]) for name in ("key", "password")]
    services["password"].faults.add(
        Fault("status", operation="search", status=401, code="APIG.0301")
    )
    await up(url, 0)
    await program.until(lambda: all(fault.hits for fault in faults))
    seen += [(await get(f"{url}{path}"))[2] for path in ("/metrics", "/")]
    assert seen[-1].count("(message not shown, it may contain a secret)") >= 2
    for command in ("check", "dump"):
        once = start(command, configuration)
        assert await once.ended() == 1
        seen += [once.stdout, once.stderr]
    assert await program.stops() == 0
    seen += [program.stdout, program.stderr]

    for number, text in enumerate(seen):
        found = [secret for secret in (*planted, *chain(*SECRETS.values())) if secret in text]
        assert found == [], number
