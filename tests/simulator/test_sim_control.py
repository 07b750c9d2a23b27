import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
from argparse import ArgumentParser, Namespace

import aiohttp
import pytest
import trustme

from exporter.simulator import command
from exporter.simulator.api import route
from exporter.simulator.control import Control
from exporter.simulator.identity import PROJECT_ID
from exporter.simulator.server import SimulatedService, _is_loopback

T = 1_750_000_000.0


async def get(client, name):
    return await (await client("GET", f"/-/sim/{name}")).json()


async def test_truth_over_http(client, fleet, clock):
    job = fleet.create(T, pool="vision", nodes=2)
    clock.now += 60
    truth = await get(client, "truth")
    assert truth == json.loads(json.dumps(fleet.summary()))
    assert truth["now"] == T + 60
    assert (await get(client, "truth?jobs=1"))["facts"] == [await get(client, f"truth/{job.id}")]
    assert (await get(client, f"truth/{job.id}"))["cards"] == 2
    assert (await client("GET", "/-/sim/truth/none")).status == 400


async def test_events_go_on_where_they_were_left(client, fleet):
    job = fleet.create(T)
    first = await get(client, "events")
    fleet.start(job, T + 1, startup=7)
    later = await get(client, f"events?since={first['next']}")
    assert [event["kind"] for event in first["events"]] == ["created"]
    started = {
        "at": T + 1,
        "kind": "started",
        "job": job.id,
        "phase": "Running",
        "workspace": "0",
        "pool": "public",
        "flavor_type": "Ascend",
        "nodes": 1,
        "cards": 1,
        "accelerator": "Ascend-D910B",
        "cpu_cores": 24,
        "memory_bytes": 96 * 2**30,
    }
    assert later["events"] == [started, started | {"kind": "computing", "startup": 7}]
    assert (await get(client, f"events?since={later['next']}"))["events"] == []


async def test_requests_are_told(client):
    await client.search({"limit": 3})
    await client.search({"limit": 99})
    requests = (await get(client, "requests"))["requests"]
    assert [(row["operation"], row["status"]) for row in requests] == [
        ("search", 200),
        ("search", 400),
    ]
    assert json.loads(requests[0]["body"]) == {"limit": 3}


async def test_the_world_stands_still(client, fleet, clock):
    await client("POST", "/-/sim/pause")
    clock.now += 60
    assert (await get(client, "truth"))["now"] == T
    await client("POST", "/-/sim/resume")
    assert (await get(client, "truth"))["now"] == T + 60


async def test_faults_over_http(client):
    fault = {"do": "status", "operation": "search", "status": 502, "form": "html"}
    assert (await client("POST", "/-/sim/faults", json=fault)).status == 200
    assert (await client.search({})).status == 502
    await client("DELETE", "/-/sim/faults")
    assert (await client.search({})).status == 200


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("faults", {"do": "explode"}),
        ("faults", {"do": "status", "colour": "red"}),
        ("faults", []),
        ("jobs", {"do": "explode"}),
        ("jobs", {"do": "finish", "job": "none"}),
        ("jobs", {"do": "create", "colour": "red"}),
        ("jobs", []),
    ],
)
async def test_wrong_documents_are_refused(client, fleet, name, body):
    answer = await client("POST", f"/-/sim/{name}", json=body)
    assert answer.status == 400
    assert (await answer.json())["error"]
    assert len(fleet) == 0


async def test_unknown_controls(client):
    assert (await client("GET", "/-/sim/nothing")).status == 404
    assert (await client("POST", "/-/sim/truth")).status == 404


async def test_jobs_over_http(client, fleet):
    async def act(**action):
        return (await (await client("POST", "/-/sim/jobs", json=action)).json())["jobs"]

    ids = await act(do="create", count=3, pool="vision", nodes=2, flavor=1, user="<b>")
    assert {(fleet[id_].user.name, fleet[id_].cards) for id_ in ids} == {("<b>", 4)}
    ordered = [entry[1] for entry in fleet.index.sorted("0")[::-1]]
    assert sorted(ids) == sorted(ordered)
    assert await act(do="start", job="newest") == [ordered[0]]
    assert await act(do="recover", job=ordered[0], policy="proc_restart", gap=1) == [ordered[0]]
    assert await act(do="finish", job=ordered[0], phase="Failed", exit_code=9) == [ordered[0]]
    assert await act(do="delete", job="oldest") == [ordered[2]]
    assert await act(do="override", job=1, edits={"kind": "x"}, remove=["spec"]) == [ordered[1]]
    assert fleet.facts(ordered[0])["exit_code"] == 9
    (_, shown) = (await (await client.search({})).json())["items"]
    assert (shown["kind"], "spec" in shown) == ("x", False)


async def test_only_this_machine_has_control():
    assert _is_loopback("127.0.0.1")
    assert _is_loopback("::1")
    assert not _is_loopback("192.0.2.1")
    assert not _is_loopback(None)


async def test_two_services_on_one_address(service, fleet):
    port = int(service.url.rsplit(":", 1)[1])
    other = SimulatedService(fleet)
    with pytest.raises(OSError, match="in use"):
        await other.start(port=port)
    await other.close()


def test_controls_are_no_operations():
    assert route("GET", "/-/sim/truth").name == "unknown"
    documented = Control.__module__
    assert "GET /-/sim/truth" in sys.modules[documented].__doc__


def parsed(*flags):
    parser = ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(flags)


def test_options():
    assert parsed().listen_address == ("127.0.0.1", 9979)
    assert parsed("--listen-address", "[::1]:0").listen_address == ("::1", 0)
    assert (parsed("--jobs", "7").jobs, parsed("--rate", "0").rate) == (7, 0.0)


@pytest.mark.parametrize(
    "flags",
    [
        ("--listen-address", "localhost"),
        ("--listen-address", "127.0.0.1:99999"),
        ("--listen-address", "127.0.0.1:80/x"),
        ("--jobs", "-1"),
        ("--rate", "fast"),
        ("--rate", "-1"),
        ("--token-lifetime", "nan"),
        ("--offset", "byte"),
    ],
)
def test_wrong_options(flags, capsys):
    with pytest.raises(SystemExit) as caught:
        parsed(*flags)
    assert caught.value.code == 2
    assert flags[0] in capsys.readouterr().err


RUN = """
import asyncio, sys
from argparse import ArgumentParser
from exporter.simulator import command
parser = ArgumentParser()
command.add_arguments(parser)
sys.exit(asyncio.run(command.run(parser.parse_args())))
"""


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_command_serves_until_it_is_told_to_stop(session, number):
    flags = ["--listen-address", "127.0.0.1:0", "--jobs", "60", "--offset", "row"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN, *flags, stdout=subprocess.PIPE, env=os.environ
    )
    try:
        lines = [(await process.stdout.readline()).decode() for _ in range(7)]
        url = lines[0].split()[-1]
        assert f"HUAWEICLOUD_SDK_PROJECT_ID={PROJECT_ID}\n" in "".join(lines)
        user = {"name": "exporter", "password": command.SECRET_KEY, "domain": {"name": "simulated"}}
        identity = {"methods": ["password"], "password": {"user": user}}
        body = {"auth": {"identity": identity, "scope": {"project": {"name": "cn-north-4"}}}}
        async with session.post(f"{url}/v3/auth/tokens", json=body) as answer:
            headers = {"X-Auth-Token": answer.headers["X-Subject-Token"]}
        path = f"{url}/v2/{PROJECT_ID}/training-job-searches"
        pages = []
        for offset in (0, 1):
            query = {"limit": 2, "offset": offset, "order": "asc"}
            async with session.post(path, json=query, headers=headers) as answer:
                pages.append([item["metadata"]["id"] for item in (await answer.json())["items"]])
        assert pages[0][1] == pages[1][0]
    finally:
        process.send_signal(number)
        code = await process.wait()
    assert code == 0


async def test_an_address_that_is_taken(service, capsys):
    host, port = "127.0.0.1", int(service.url.rsplit(":", 1)[1])
    arguments = Namespace(**vars(parsed("--jobs", "0")) | {"listen_address": (host, port)})
    assert await command.run(arguments) == 2
    assert capsys.readouterr().err.startswith(f"--listen-address {host}:{port}: ")


async def test_a_service_over_tls(fleet, session):
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(trusting)
    service = SimulatedService(fleet)
    url = await service.start(ssl_context=server)
    try:
        assert url.startswith("https://127.0.0.1:")
        async with session.get(f"{url}/-/sim/truth", ssl=trusting) as answer:
            assert answer.status == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(f"{url}/-/sim/truth")
    finally:
        await service.close()
