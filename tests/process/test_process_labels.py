"""Labels of targets that become equal at run time, because a project is looked up."""

import aiohttp
import pytest
import yaml
from process.program import eventually, get, scraped, up, values

from exporter.simulator.identity import PROJECT_ID, AccessKey, Accounts, Identity
from exporter.simulator.server import SimulatedService

REGION = "cn-north-4"
KEY = AccessKey("GOOD", "secret-of-good", Identity())


@pytest.fixture
async def guarded(fleet):
    for job in [fleet.create() for _ in range(7)]:
        fleet.start(job)
    async with SimulatedService(fleet, accounts=Accounts([KEY])) as service:
        yield service


@pytest.fixture
def write(tmp_path, guarded):
    def write(*targets):
        usual = {
            "region": REGION,
            "endpoint": guarded.url,
            "iam_endpoint": guarded.url,
            "auth": {"access_key": "GOOD", "secret_key_file": "key"},
        }
        document = {
            "targets": [usual | target for target in targets],
            "poll": {"interval": "0.2"},
            "api": {"max_requests_per_second": 1000},
            "web": {"listen_address": "127.0.0.1:0", "enable_reload": True},
        }
        (tmp_path / "key").write_text(KEY.secret)
        (tmp_path / "exporter.yml").write_text(yaml.safe_dump(document))

    return write


async def reload(url):
    async with aiohttp.ClientSession() as session, session.post(f"{url}/-/reload") as answer:
        return answer.status, await answer.text()


def series(text):
    return [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("configured", [{"project_id": PROJECT_ID}, {"name": PROJECT_ID}])
async def test_a_project_that_was_looked_up(start, write, order, configured):
    """Whichever polls first: what is configured has its labels from the start."""
    if "name" in configured:
        configured = configured | {"project_id": "another-project"}
    write(*[configured, {}][::order])
    program = start("--config.file=exporter.yml")
    url = await program.url()

    async def so():
        return values(await scraped(url), "modelarts_up", project="unknown") == [0]

    await eventually(so)
    body = (await get(f"{url}/metrics"))[2]
    assert len(series(body)) == len(set(series(body)))
    said = (
        f"WARNING poll failed: another target has the labels region={REGION}, project={PROJECT_ID} "
        "already; give one of them another target.name"
    )
    assert any(line.startswith(said) for line in program.log)
    assert await program.stops() == 0


async def test_a_reload_that_adds_the_target_that_was_looked_up(start, write):
    write({})
    program = start("--config.file=exporter.yml")
    url = await program.url()
    await up(url, project=PROJECT_ID)

    for targets in (
        [{}, {"project_id": PROJECT_ID}],
        [{"workspaces": ["1"]}, {"name": PROJECT_ID}],
    ):
        write(*targets)
        status, text = await reload(url)
        assert status == 500
        assert f"\ntargets: the project {PROJECT_ID} of region {REGION} is also that of a " in text
        found = await up(url, project=PROJECT_ID)
        assert len(values(found, "modelarts_up")) == 1

    write({"project_id": PROJECT_ID})
    assert (await reload(url))[0] == 200
    await up(url, project=PROJECT_ID)
    assert await program.stops() == 0
