"""The start: invalid settings are reported in one line, temporary failures are waited out."""

import contextlib
import re
import socket

import pytest
from process.program import PYTHON, eventually, get, scraped, target, up, values

from exporter import __version__
from exporter.simulator.faults import Fault

PATCHED = """
import socket, sys
from pathlib import Path
from exporter.commands import main as cli

usual = socket.getaddrinfo

def looked_up(host, *arguments, **options):
    if host == "modelarts.example":
        if not Path("hosts").exists():
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        host = Path("hosts").read_text()
    return usual(host, *arguments, **options)

socket.getaddrinfo = looked_up
sys.exit(cli.main())
"""


@contextlib.contextmanager
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def test_row_73_a_port_in_use(start, service):
    with taken_port() as port:
        address = f"127.0.0.1:{port}"
        serve = start(*target(service, web__listen_address=address))
        demo = start("demo", "--jobs=10", f"--web.listen-address={address}")
        simulate = start("simulate", "--jobs=10", "--listen-address", address)
        codes = [await program.ended() for program in (serve, demo, simulate)]

    said = f"modelarts-exporter: cannot listen on {address}: Address already in use"
    assert codes == [1, 1, 2]
    assert serve.stderr.splitlines()[2:] == [said]
    assert demo.stderr == f"{said}; choose with --web.listen-address\n"
    assert simulate.stderr.startswith(f"--listen-address {address}: ")
    assert simulate.stderr.count("\n") == 1


async def test_rows_69_and_70_every_mistake_is_a_line(start):
    program = start(
        "--poll.intervall=1m",
        "--jobs.retention=1 hour",
        environ={"MODELARTS_EXPORTER_TARGET__REGIO": "x"},
    )

    assert await program.ended() == 2
    assert program.stdout == ""
    assert (
        program.stderr
        == """\
modelarts-exporter: flag --poll.intervall: unknown; did you mean --poll.interval?
modelarts-exporter: environment variable MODELARTS_EXPORTER_TARGET__REGIO: unknown; did you mean \
MODELARTS_EXPORTER_TARGET__REGION?
modelarts-exporter: target.region: required, for example cn-north-4 (flag --target.region, \
environment variable MODELARTS_EXPORTER_TARGET__REGION, or file key target.region)
modelarts-exporter: jobs.retention: invalid duration "1 hour"; use 30s, 5m, 1h30m, 7d or \
seconds (from flag --jobs.retention)
"""
    )


async def test_what_the_log_says_of_the_start(start, service):
    program = start(*target(service, target__name="research"))
    url = await program.url()
    await up(url)
    await program.said("INFO first complete reading")

    assert [re.split(" python=| seconds=", line)[0] for line in program.log] == [
        f"INFO modelarts-exporter {__version__} starts",
        "INFO polling as nobody target=cn-north-4/research",
        f"INFO serving {url}/metrics",
        "INFO first complete reading of the target target=cn-north-4/research jobs=10 requests=2",
    ]


async def test_row_02_a_name_that_does_not_resolve_yet(start, service, tmp_path):
    port = service.url.rpartition(":")[2]
    endpoint = f"http://modelarts.example:{port}"
    program = start(
        *("-c", PATCHED, *target(service, target__endpoint=endpoint, api__retries=0)),
        command=PYTHON,
    )
    url = await program.url()
    found = await up(url, 0)
    assert (await get(f"{url}/-/ready"))[0] == 200
    assert values(found, "modelarts_training_jobs") == []
    assert (
        "WARNING poll failed: the name modelarts.example does not resolve: check target.region, "
        "target.endpoint and the DNS of this machine"
    ) in program.stderr

    (tmp_path / "hosts").write_text("127.0.0.1")
    found = await up(url)
    assert values(found, "modelarts_training_jobs", phase="Running") == [10]
    assert any(line.startswith("INFO polls succeed again") for line in program.log)


TARGETS = """
targets:
  - {{name: good, region: cn-north-4, project_id: abc, endpoint: "{good}", auth: {{method: none}}}}
  - {{name: hangs, region: cn-north-4, project_id: def, endpoint: "{good}", auth: {{method: none}}}}
poll: {{interval: 1s}}
web: {{listen_address: "127.0.0.1:0"}}
"""


async def test_a_target_that_hangs_hides_and_delays_nobody(start, service, tmp_path):
    (tmp_path / "exporter.yml").write_text(TARGETS.format(good=service.url))
    fault = service.faults.add(Fault("hang", path="/v2/def/"))
    program = start("--config.file=exporter.yml")
    url = await program.url()
    found = await up(url, project="good")
    assert values(found, "modelarts_training_jobs", phase="Running") == [10]

    service.fleet.start(service.fleet.create())

    async def shown():
        now = await scraped(url)
        return values(now, "modelarts_training_jobs", phase="Running", project="good") == [11]

    assert await eventually(shown)
    assert fault.hits == 1  # the first request of all still waits for its answer
    status, _, text = await get(f"{url}/-/ready")
    assert (status, text) == (503, "not polled yet: cn-north-4/hangs\n")


@pytest.mark.parametrize(
    "fault",
    [
        Fault("hang"),
        Fault("hang", operation="pools"),
        Fault("latency", seconds=1.0),  # the first sweep takes a while
        Fault("status", status=503),
    ],
    ids=["hangs", "pools-hang", "slow", "fails"],
)
@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
async def test_row_81_before_the_first_poll_has_ended_there_is_something_to_scrape(
    start, service, fault, accept
):
    for _ in range(300):
        service.fleet.create()
    service.faults.add(fault)
    program = start(*target(service, target__name="research", api__retries=5))
    status, _, text = await get(f"{await program.url()}/metrics", Accept=accept)

    assert status == 200
    assert '\nmodelarts_up{project="research",region="cn-north-4"} 0.0\n' in text
    for name in ("process_start_time_seconds", "modelarts_exporter_build_info"):
        assert f"\n{name}" in text
    assert not re.search("^modelarts_training", text, re.MULTILINE)


async def test_row_81_while_the_first_poll_runs_its_requests_are_shown(start, service):
    for _ in range(300):
        service.fleet.create()
    service.faults.add(Fault("latency", seconds=0.3))
    fault = service.faults.add(Fault("hang", operation="pools"))
    program = start(*target(service, target__name="research"))
    url = await program.url()
    await program.until(lambda: fault.hits)

    async def shown():
        found = await scraped(url)
        return values(found, "modelarts_exporter_api_requests_total", code="200") != [0]

    assert await eventually(shown)
    assert values(await scraped(url), "modelarts_up") == [0]
    assert (await get(f"{url}/-/ready"))[0] == 503
