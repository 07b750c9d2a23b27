"""A real Prometheus, the exporter as a process, and TLS with passwords between them."""

import asyncio
import re
import signal

import aiohttp
import pytest
from e2e import prometheus as real
from web.config.entrance import MUTUAL, Files, basic, users

pytestmark = pytest.mark.integration
DEMO = ("demo", "--jobs=20", "--web.listen-address=127.0.0.1:0", "--log.level=info")


@pytest.fixture(params=["PATH", "PROMETHEUS3_DIR"])
def where(request):
    return request.param


@pytest.fixture
def files(tmp_path):
    """Certificates of the server, and of a client that is allowed to come in."""
    files = Files(tmp_path)
    files.certify()
    files.certify("client", "prometheus.example")
    files.ca.cert_pem.write_to_path(tmp_path / "clients.pem")
    sans = "  client_allowed_sans: [prometheus.example]\n"
    files.write(MUTUAL + sans + users(10, prometheus="secret"))
    return files


def scrape(address, **more):
    return {
        "job_name": "modelarts",
        "scheme": "https",
        "tls_config": {
            "ca_file": "clients.pem",
            "cert_file": "client.pem",
            "key_file": "client.key",
        },
        "static_configs": [{"targets": [address]}],
        **more,
    }


async def test_prometheus_comes_in(start, files, tmp_path, where):
    program = start(*DEMO, "--web.config.file=web.yml")
    url = (await program.said(r"the exporter at (https://\S+)\."))[1]
    address = url.removeprefix("https://")
    right = {"basic_auth": {"username": "prometheus", "password": "secret"}}
    wrong = {"basic_auth": {"username": "prometheus", "password": "Secret"}}
    configs = [
        scrape(address, **right),
        scrape(address, **wrong) | {"job_name": "wrong"},
        scrape(address, **right) | {"job_name": "nobody", "tls_config": {"ca_file": "clients.pem"}},
    ]
    prometheus = await real.running(start, tmp_path, where, address, scrape_configs=configs)
    await prometheus.until('modelarts_up{job="modelarts"} == 1')
    await prometheus.until('count(up{job=~"wrong|nobody"} == 0) == 2')
    targets = {
        each["labels"]["job"]: each["lastError"]
        for each in (await prometheus.api("targets"))["activeTargets"]
    }
    assert targets["modelarts"] == ""
    assert "401" in targets["wrong"]
    assert targets["nobody"]

    files.certify()
    files.write(MUTUAL + users(10, prometheus="new"))
    await program.said("web configuration or certificates changed and reloaded")
    await prometheus.until('up{job="modelarts"} == 0')
    tls = files.client(files.ca.issue_cert("anybody"))
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}/metrics", ssl=tls, headers=basic("prometheus", "new")) as answer,
    ):
        assert answer.status == 200
    assert await program.stops(signal.SIGTERM) == 0
    assert not re.search("Traceback|ERROR", program.stderr)


async def test_a_bad_file_is_told_in_lines(start, files):
    files.write("tls_server_config: {cert_file: no.pem, key_file: server.key}\n")
    program = start("--target.region=cn-north-4", "--web.config.file=web.yml")
    assert await program.ended() == 2
    assert program.stderr == (
        'modelarts-exporter: web.config.file: tls_server_config.cert_file: cannot read "no.pem": '
        "No such file or directory (from file web.yml)\n"
    )


async def test_a_stop_amid_guesses(start, files):
    """No more than one check is under way, and the end waits for no others."""
    files.write(users(12, me="secret"))
    program = start(*DEMO, "--web.config.file=web.yml")
    url = (await program.said(r"the exporter at (http://\S+)\."))[1]
    async with aiohttp.ClientSession() as session:

        async def guess(number):
            async with session.get(url, headers=basic("me", str(number))) as answer:
                return answer.status

        guesses = [asyncio.create_task(guess(number)) for number in range(30)]
        assert await next(asyncio.as_completed(guesses)) == 401
        assert await program.stops(signal.SIGTERM) == 0
        statuses = await asyncio.gather(*guesses, return_exceptions=True)
    assert 1 <= statuses.count(401) < 30
    assert not re.search("Traceback|ERROR", program.stderr)
