"""Targets that cannot be read: the message for each, and that each recovers.

All at once, so that none hides another: a wrong secret, a wrong project, a missing permission,
nobody listening, an unknown certificate.
"""

import re
import ssl
from dataclasses import replace

import pytest
import trustme
import yaml
from process.program import get, up, values

from exporter.simulator.identity import AccessKey, Accounts, Identity
from exporter.simulator.server import SimulatedService

GOOD = AccessKey("GOOD", "secret-of-good", Identity())
WRONG = replace(GOOD, access="WRONG", secret="secret-of-wrong")
OTHER = replace(GOOD, access="OTHER")
NOBODY = AccessKey("NOBODY", "secret-of-good", Identity(permissions=frozenset()))
PROJECT = "0123456789abcdef"

PROBLEMS = {
    "wrong": (
        "credentials not accepted: 401 APIG.0301 Incorrect IAM authentication information: verify "
        "aksk signature fail: The signature is not the one of this request (request ID); check "
        "target.auth.*"
    ),
    "other": (
        "not allowed: 403 ModelArts.0210 The project id does not match the identity (request ID); "
        "check target.project_id"
    ),
    "nobody": (
        "not allowed: 403 ModelArts.0112 Policy doesn't allow modelarts:trainJob:list to be "
        "performed by user exporter (request ID); grant modelarts:trainJob:list to this identity "
        "in this project and workspace 0"
    ),
    "refused": (
        "cannot connect to http://127.0.0.1:PORT: Connection refused; check target.endpoint and "
        "the network"
    ),
    "tls": (
        "TLS to https://127.0.0.1:PORT failed: unable to get local issuer certificate; check "
        "target.endpoint, and whether target.ca_file contains the issuing CA"
    ),
}

TABLE = """\
target          cn-north-4/good
identity        access key GOOD… from target.auth
result          ok
jobs            10
  Running       10
paging          unknown: one page holds all jobs
pool names      4 pools
granted         modelarts:pool:list, for names of resource pools and how full they are; optional
not needed yet  modelarts:pool:get, for places of waiting jobs in the queues of pools; optional
granted         modelarts:trainJob:getQuotas, for quotas; optional
a poll costs    2 API calls, N s
a sweep costs   2 API calls, N s; the first start needs one
pools cost      3 API calls every 5m
a day costs     about 173,665 API calls, with a poll every 1s, and every job verified within 1d

target          cn-north-4/wrong
identity        access key WRON… from target.auth
result          FAILED: credentials not accepted: 401 APIG.0301 Incorrect IAM authentication
                information: verify aksk signature fail: The signature is not the one of this
                request (request ID); check target.auth.*

target          cn-north-4/other
identity        access key OTHE… from target.auth
result          FAILED: not allowed: 403 ModelArts.0210 The project id does not match the identity
                (request ID); check target.project_id

target          cn-north-4/nobody
identity        access key NOBO… from target.auth
result          FAILED: not allowed: 403 ModelArts.0112 Policy doesn't allow
                modelarts:trainJob:list to be performed by user exporter (request ID); grant
                modelarts:trainJob:list to this identity in this project and workspace 0

target          cn-north-4/refused
identity        access key GOOD… from target.auth
result          FAILED: cannot connect to http://127.0.0.1:PORT: Connection refused; check
                target.endpoint and the network

target          cn-north-4/tls
identity        access key GOOD… from target.auth
result          FAILED: TLS to https://127.0.0.1:PORT failed: unable to get local issuer
                certificate; check target.endpoint, and whether target.ca_file contains the issuing
                CA

5 of 6 targets failed.
"""


def normal(text):
    """Mask what differs from run to run."""
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", text)
    text = re.sub(r"request\s[0-9a-f]{32}", "request ID", text)
    return re.sub(r"\d+\.\d s(?=;|$)", "N s", text, flags=re.MULTILINE)


def flowing(text):
    """Remove the line breaks of a table, which depend on ids."""
    return " ".join(normal(text).split())


def port_of(service):
    return int(service.url.rpartition(":")[2])


def certified(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def accounts():
    return Accounts([GOOD, WRONG, OTHER, NOBODY])


@pytest.fixture
async def guarded(service, accounts):
    """A service with authentication."""
    async with SimulatedService(service.fleet, accounts=accounts) as guarded:
        yield guarded


@pytest.fixture
async def secure(service, accounts):
    """The same with a certificate of an unknown authority."""
    secure = SimulatedService(service.fleet, accounts=accounts)
    await secure.start(ssl_context=certified(trustme.CA()))
    yield secure
    await secure.close()


@pytest.fixture
def authority(tmp_path):
    """An authority that the exporter trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return authority


@pytest.fixture
def configuration(tmp_path, guarded, secure, authority, closed_port):
    (tmp_path / "good").write_text(GOOD.secret)
    (tmp_path / "wrong").write_text("secret-of-another")
    project_id = next(iter(GOOD.identity.projects.values()))

    def one(name, key=GOOD, secret="good", **more):
        place = {"name": name, "region": "cn-north-4", "project_id": project_id}
        auth = {"access_key": key.access, "secret_key_file": secret}
        return place | {"endpoint": guarded.url, "auth": auth} | more

    targets = [
        one("good"),
        one("wrong", WRONG, "wrong"),
        one("other", OTHER, project_id=PROJECT),
        one("nobody", NOBODY),
        one("refused", endpoint=f"http://127.0.0.1:{closed_port}"),
        one("tls", endpoint=secure.url, ca_file="ca.pem"),
    ]
    document = {
        "targets": targets,
        "poll": {"interval": "1s"},
        "api": {"retries": 0},
        "web": {"listen_address": "127.0.0.1:0"},
    }
    (tmp_path / "exporter.yml").write_text(yaml.safe_dump(document))
    return "--config.file=exporter.yml"


@pytest.fixture
async def heal(guarded, secure, authority, closed_port, tmp_path):
    """Removes every cause."""
    accounts = guarded.accounts
    later = SimulatedService(guarded.fleet, accounts=accounts)

    async def heal():
        (tmp_path / "wrong").write_text(WRONG.secret)
        accounts.keys["OTHER"] = replace(OTHER, identity=Identity(projects={"cn-north-4": PROJECT}))
        accounts.keys["NOBODY"] = replace(NOBODY, identity=Identity())
        port = port_of(secure)
        await secure.close()
        await secure.start(port=port, ssl_context=certified(authority))
        await later.start(port=closed_port)

    yield heal
    await later.close()


async def test_check_says_what_is_wrong_with_each(start, configuration):
    program = start("check", "--web.listen-address=127.0.0.1:0", configuration)

    assert await program.ended() == 1
    lines = program.stderr.splitlines()
    assert lines[0] == "Signing in ..."
    assert {line.partition(" ")[0] for line in lines} <= {"Signing", "Reading", "Polling"}
    assert flowing(program.stdout) == flowing(TABLE)
    lines = program.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert {line[:16].strip() for line in lines if not line.startswith(" ")} == {
        *("target", "identity", "result", "jobs", "paging", "pool names"),
        *("granted", "not needed yet", "a poll costs", "a sweep costs", "pools cost"),
        *("a day costs", ""),
        "5 of 6 targets f",
    }


async def test_a_project_that_was_looked_up_is_named(start, guarded):
    program = start(
        "check",
        "--web.listen-address=127.0.0.1:0",
        "--target.region=cn-north-4",
        f"--target.endpoint={guarded.url}",
        f"--target.iam-endpoint={guarded.url}",
        environ={"HUAWEICLOUD_SDK_AK": GOOD.access, "HUAWEICLOUD_SDK_SK": GOOD.secret},
    )
    assert await program.ended() == 0
    assert program.stdout.splitlines()[:2] == [
        "target          cn-north-4/0605767eb780d5762f5ec0196d1d2f3a",
        "identity        access key GOOD… from the environment",
    ]


async def test_each_recovers_once_its_cause_is_gone(start, configuration, accounts, heal):
    program = start(configuration)
    url = await program.url()
    found = await up(url, project="good")
    assert values(found, "modelarts_training_jobs", phase="Running") == [10]
    for name, said in PROBLEMS.items():
        line = f"WARNING poll failed: {said} target=cn-north-4/{name} "
        await program.until(lambda line=line: line in normal(program.stderr))
    found = await up(url, 0, project="wrong")
    assert sum(values(found, "modelarts_up")) == 1
    assert (await get(f"{url}/-/ready"))[0] == 200

    await heal()
    found = await up(url)
    assert values(found, "modelarts_training_jobs", phase="Running") == [10] * 6
    assert accounts.locked_until == {}
    assert "secret-of" not in program.stderr
    assert await program.stops() == 0
