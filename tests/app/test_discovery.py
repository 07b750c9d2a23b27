"""Targets that are looked up, or listed in files, against a simulated service."""

import contextlib
from functools import partial

import pytest
import yaml

from exporter.app import factory
from exporter.app.exporter import exporter
from exporter.commands.discovered import discovered
from exporter.errors import ConfigError
from exporter.settings.load import load
from exporter.simulator.behaviour import Behaviour
from exporter.simulator.catalog import DEFAULT_WORKSPACE, REGION, VISION_WORKSPACE
from exporter.simulator.faults import Fault
from exporter.simulator.fleet import Fleet
from exporter.simulator.identity import LIST_JOBS, PROJECT_ID, AccessKey, Accounts, Identity
from exporter.simulator.server import SimulatedService

OWN = "cn-north-4"
TEAM, LAB, FAR = "cn-north-4_team", "cn-north-4_lab", "cn-east-3"
IDS = {OWN: PROJECT_ID, TEAM: "t" * 32, LAB: "1" * 32, FAR: "f" * 32}
KEY = {"access_key": "AK", "secret_key": "SK"}
EVERYTHING = Identity().permissions


class Region:
    """A service, an identity whose projects tests change, and configurations for both."""

    def __init__(self, service, identity, folder):
        self.service = service
        self.projects = identity.projects
        self.folder = folder
        self.environ = {"HOME": str(folder)}

    def only(self, *names):
        """From now on the identity has these projects."""
        self.projects.clear()
        self.projects.update({name: IDS[name] for name in names})

    def target(self, **more):
        place = {"region": OWN, "endpoint": self.service.url, "iam_endpoint": self.service.url}
        return place | {"auth": KEY} | more

    def settings(self, *targets, **groups):
        """The settings with these targets, from a file."""
        document = {"api": {"retries": 0, "max_requests_per_second": 1000}, **groups}
        document |= {"targets": list(targets)} if targets else {}
        path = self.folder / "exporter.yml"
        path.write_text(yaml.safe_dump(document))
        return load([f"--config.file={path}"], self.environ)

    @contextlib.asynccontextmanager
    async def running(self, *targets, **groups):
        settings = self.settings(*targets, **groups)
        async with exporter(settings, self.environ, look_up=True) as running:
            yield running

    def listed(self, name, *targets):
        """Write a file of targets."""
        path = self.folder / name
        path.write_text(yaml.safe_dump(list(targets)))
        return path

    def asked(self, operation):
        return sum(each.operation == operation for each in self.service.requests)


@pytest.fixture
def behaviour():
    return Behaviour()


@pytest.fixture
def permissions():
    return EVERYTHING


@pytest.fixture
async def region(tmp_path, behaviour, permissions):
    names = {name: IDS[name] for name in (OWN, TEAM, FAR)}
    identity = Identity(password="pw", projects=names, permissions=permissions)
    accounts = Accounts([AccessKey("AK", "SK", identity)], [identity], agency=identity)
    accounts.id_tokens["jwt"] = identity
    fleet = Fleet(1, pools=REGION)
    fleet.start(fleet.create())
    service = SimulatedService(fleet, behaviour, accounts=accounts)
    async with service:
        yield Region(service, identity, tmp_path)


def polled(running):
    """What is polled: the IDs of projects by their label."""
    places = [poller.target.identity for poller in running.pollers]
    return {place.labels["project"]: place.project_id for place in places}


def workspaces(running):
    places = [poller.target.identity for poller in running.pollers]
    return {place.labels["project"]: place.workspaces for place in places}


async def shown(running, name):
    """The values of all samples of a name by their labels."""
    await running.publisher.update()
    lines = running.publisher.exposition.text.decode().splitlines()
    found = [line.rpartition(" ") for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
    return {sample.removeprefix(name): float(value) for sample, _, value in found}


# --- what is found --------------------------------------------------------------------------------


async def test_every_project_of_the_region_is_a_target_named_after_it(region):
    async with region.running(region.target(projects="all")) as running:
        assert polled(running) == {OWN: IDS[OWN], TEAM: IDS[TEAM]}
        assert workspaces(running) == {OWN: ("0",), TEAM: ("0",)}
        assert await running.poll_once()
        assert set(await shown(running, "modelarts_up")) == {
            f'{{project="{name}",region="{OWN}"}}' for name in (OWN, TEAM)
        }
        assert await shown(running, "modelarts_exporter_discovered_targets") == {"": 2}
        assert await shown(running, "modelarts_exporter_discovery_successful") == {"": 1}


@pytest.mark.parametrize("wanted", [[TEAM], IDS[TEAM], f"{TEAM},{FAR}"])
async def test_projects_are_chosen_by_name_or_id_within_the_region(region, wanted):
    async with region.running(region.target(projects=wanted)) as running:
        assert polled(running) == {TEAM: IDS[TEAM]}


async def test_projects_that_cannot_be_seen_are_named(region):
    async with region.running(region.target(projects=[TEAM, LAB])) as running:
        assert polled(running) == {TEAM: IDS[TEAM]}
        assert await shown(running, "modelarts_exporter_discovery_successful") == {"": 0}
        assert running.discovery.targets.problems == [
            f"{OWN}: this identity cannot see the projects {LAB}"
        ]


async def test_disabled_projects_are_left_out(region):
    edit = Fault("edit", "projects", edits={"projects.1.enabled": False})
    region.service.faults.add(edit)
    async with region.running(region.target(projects="all")) as running:
        assert polled(running) == {OWN: IDS[OWN]}


async def test_all_workspaces_that_the_identity_can_access(region):
    one = region.target(name="x", project_id=PROJECT_ID, workspaces="all")
    async with region.running(one) as running:
        assert workspaces(running) == {"x": (DEFAULT_WORKSPACE, VISION_WORKSPACE)}
        assert await shown(running, "modelarts_exporter_discovered_targets") == {"": 0}
        assert await running.poll_once()


async def test_workspaces_of_the_regions_own_project(region):
    async with region.running(region.target(workspaces=["all"])) as running:
        assert workspaces(running) == {"unknown": (DEFAULT_WORKSPACE, VISION_WORKSPACE)}
        assert await running.poll_once()
        assert polled(running) == {PROJECT_ID: PROJECT_ID}


async def test_several_regions_are_several_targets(region):
    targets = [region.target(projects="all"), region.target(region=FAR, projects="all")]
    async with region.running(*targets) as running:
        names = [poller.name for poller in running.pollers]
        assert names == [f"{OWN}/{OWN}", f"{OWN}/{TEAM}", f"{FAR}/{FAR}"]


async def test_a_project_that_is_listed_is_polled_as_it_is_listed(region):
    listed = region.target(name="nlp", project_id=IDS[TEAM], workspaces=[VISION_WORKSPACE])
    async with region.running(region.target(projects="all"), listed) as running:
        assert polled(running) == {"nlp": IDS[TEAM], OWN: IDS[OWN]}
        assert workspaces(running)["nlp"] == (VISION_WORKSPACE,)


async def test_no_two_targets_have_the_same_labels(region, caplog):
    listed = region.target(name=TEAM, project_id=IDS[LAB])
    async with region.running(region.target(projects="all"), listed) as running:
        assert polled(running) == {TEAM: IDS[LAB], OWN: IDS[OWN]}
        await running.discovery.look_up()
    begin = f"region {OWN} has more than one target with the label project={TEAM}; only the first"
    assert len([line for line in caplog.messages if line.startswith(begin)]) == 1


async def test_check_lists_what_was_found(region, tmp_path):
    (tmp_path / "team-a.yml").write_text("- {")
    targets = [
        region.target(projects="all"),
        region.target(region=FAR, projects="all", workspaces="all"),
        region.target(project_id=PROJECT_ID, workspaces="all"),
    ]
    async with region.running(*targets, targets_files=["team-*.yml"]) as running:
        file, *lookups = discovered(running.discovery.targets, looked_up=True)
        assert discovered(running.discovery.targets, looked_up=False) == [file]
    assert (file.source, file.found) == (f"{tmp_path}/team-a.yml", [])
    assert file.error.startswith("targets_files: invalid YAML")
    assert lookups == [
        (OWN, "projects", [OWN, TEAM], ""),
        (FAR, "projects and workspaces", [f"{FAR} (2)"], ""),
        (f"{OWN}/{PROJECT_ID}", "workspaces", [DEFAULT_WORKSPACE, VISION_WORKSPACE], ""),
    ]


# --- ways to sign in ------------------------------------------------------------------------------


@pytest.fixture
def auths(region, monkeypatch):
    monkeypatch.setattr(
        factory,
        "AuthContext",
        partial(factory.AuthContext, metadata_endpoint=region.service.url),
    )
    (region.folder / "jwt").write_text("jwt")
    token = region.service.accounts.issue(
        next(iter(region.service.accounts.users.values())), OWN, region.service.fleet.now
    )
    (region.folder / "token").write_text(token.value)
    return {
        "aksk": KEY,
        "password": {"username": "exporter", "password": "pw", "domain": "simulated"},
        "oidc": {"idp_id": "simulated-idp", "id_token_file": "jwt"},
        "agency": {"method": "agency"},
        "token": {"token_file": "token"},
    }


SIGNED = ("aksk", "agency")


@pytest.mark.parametrize("method", [*SIGNED, "password", "oidc"])
async def test_lookups_work_with_every_way_to_sign_in(region, auths, method):
    target = region.target(auth=auths[method], projects="all", workspaces="all")
    async with region.running(target) as running:
        both = (DEFAULT_WORKSPACE, VISION_WORKSPACE)
        assert workspaces(running) == {OWN: both, TEAM: both}
        assert await running.poll_once()
        assert running.discovery.targets.problems == []


async def test_a_token_of_one_project_finds_its_workspaces(region, auths, monkeypatch):
    monkeypatch.setattr(region.service, "_clock", lambda: region.service.fleet.now)
    target = region.target(auth=auths["token"], project_id=PROJECT_ID, workspaces="all")
    async with region.running(target) as running:
        assert workspaces(running) == {PROJECT_ID: (DEFAULT_WORKSPACE, VISION_WORKSPACE)}
        assert await running.poll_once()


@pytest.mark.parametrize("method", [*SIGNED, "password", "oidc"])
async def test_tokens_list_the_identitys_own_projects_and_keys_those_of_the_account(
    region, auths, method
):
    async with region.running(region.target(auth=auths[method], projects="all")) as running:
        await running.discovery.look_up()
        own, account = region.asked("own_projects"), region.asked("projects")
        assert (own, account) == ((1, 2) if method in SIGNED else (2, 0))
        assert region.service.accounts.failures == {}


@pytest.mark.parametrize("permissions", [frozenset({LIST_JOBS})])
async def test_a_token_needs_no_permission(region, auths):
    async with region.running(region.target(auth=auths["oidc"], projects="all")) as running:
        assert polled(running) == {OWN: IDS[OWN], TEAM: IDS[TEAM]}


@pytest.mark.parametrize("behaviour", [Behaviour(signed_own_projects=True)])
@pytest.mark.parametrize("permissions", [frozenset({LIST_JOBS})])
async def test_a_key_needs_none_where_iam_accepts_it(region):
    async with region.running(region.target(projects="all")) as running:
        assert polled(running) == {OWN: IDS[OWN], TEAM: IDS[TEAM]}
        assert region.asked("projects") == 0


@pytest.mark.parametrize("permissions", [frozenset({LIST_JOBS})])
async def test_missing_permissions_are_named(region):
    targets = [
        region.target(projects="all"),
        region.target(project_id=PROJECT_ID, workspaces="all"),
    ]
    async with region.running(*targets) as running:
        projects, spaces = running.discovery.targets.problems
        assert "iam:projects:listProjects" in projects
        assert "modelarts:workspace:list" in spaces
        assert polled(running) == {}


async def test_a_wrong_key_is_not_locked_by_lookups(region):
    wrong = region.target(auth=KEY | {"secret_key": "wrong"}, projects="all")
    async with region.running(wrong) as running:
        for _ in range(10):
            await running.discovery.look_up()
        (problem,) = running.discovery.targets.problems
    assert "not tried again for" in problem
    assert "wrong" not in problem
    assert region.service.accounts.locked_until == {}


# --- changes --------------------------------------------------------------------------------------


async def test_projects_come_and_go_and_leave_the_others_alone(region):
    async with region.running(region.target(projects="all")) as running:
        await running.poll_once()
        first, second = running.pollers
        region.only(OWN, LAB)
        await running.discovery.look_up()
        assert polled(running) == {OWN: IDS[OWN], LAB: IDS[LAB]}
        assert first in running.pollers
        assert second not in running.pollers
        up = await shown(running, "modelarts_up")
        assert up == {
            f'{{project="{OWN}",region="{OWN}"}}': 1,
            f'{{project="{LAB}",region="{OWN}"}}': 0,
        }
        assert await running.poll_once()


async def test_what_goes_keeps_its_counters_for_its_return(region):
    fleet = region.service.fleet
    # Counters show what they count after an interval at 0.
    groups = {"state": {"file": f"{region.folder}/state.db"}, "poll": {"interval": "1ms"}}
    settings = region.settings(region.target(projects="all"), **groups)
    async with exporter(settings, region.environ, look_up=True) as running:

        async def count(project):
            values = await shown(running, "modelarts_training_jobs_created_total")
            return sum(value for labels, value in values.items() if f'"{project}"' in labels)

        async def polls_until(number):
            for _ in range(50):
                await running.poll_once()
                if await count(TEAM) == number:
                    return
            raise AssertionError(f"{await count(TEAM)} jobs created, not {number}")

        await running.poll_once()
        fleet.create()
        await polls_until(1)
        region.only(OWN)
        await running.discovery.look_up()
        assert await count(TEAM) == 0
        fleet.create()
        region.only(OWN, TEAM, LAB)
        await running.discovery.look_up()
        await polls_until(2)  # with what happened meanwhile, as after a restart
        assert await count(LAB) == 0, "a new baseline"


async def test_workspaces_come_and_go(region):
    target = region.target(name="x", project_id=PROJECT_ID, workspaces="all")
    async with region.running(target) as running:
        await running.poll_once()
        (before,) = running.pollers
        fewer = Fault("edit", "workspaces", remove=["workspaces.1"], times=1)
        region.service.faults.add(fewer)
        await running.discovery.look_up()
        assert workspaces(running) == {"x": (DEFAULT_WORKSPACE,)}
        (after,) = running.pollers
        assert after.ended_polls == before.ended_polls, "it goes on with the state of the other"
        await running.discovery.look_up()
        assert workspaces(running) == {"x": (DEFAULT_WORKSPACE, VISION_WORKSPACE)}
        assert await running.poll_once()


FAILURES = {
    "down": Fault("status", "projects", status=503),
    "forbidden": Fault("status", "projects", status=403, code="IAM"),
    "garbled": Fault("truncate", "projects"),
    "nothing": Fault("edit", "projects", edits={"projects": []}),
    "hostile ID": Fault("edit", "projects", edits={"projects.0.id": "../x"}),
    "hanging up": Fault("cut", "projects"),
}


@pytest.mark.parametrize("fault", FAILURES.values(), ids=FAILURES)
async def test_a_lookup_that_fails_or_shows_nothing_changes_nothing(region, fault):
    async with region.running(region.target(projects="all", workspaces="all")) as running:
        before, spaces = list(running.pollers), workspaces(running)
        region.only(OWN)
        region.service.faults.add(fault)
        await running.discovery.look_up()
        assert running.pollers == before
        assert workspaces(running) == spaces
        assert await shown(running, "modelarts_exporter_discovery_successful") == {"": 0}
        region.service.faults.clear()
        await running.discovery.look_up()
        assert polled(running) == {OWN: IDS[OWN]}
        assert await shown(running, "modelarts_exporter_discovery_successful") == {"": 1}


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", "workspaces", path=IDS[TEAM], status=503),
        Fault("edit", "workspaces", path=IDS[TEAM], edits={"workspaces": []}),
        Fault("edit", "workspaces", path=IDS[TEAM], edits={"workspaces.0.id": "a/b"}),
        Fault("cut", "workspaces", path=IDS[TEAM]),
    ],
)
async def test_the_workspaces_of_one_project_fail_alone(region, fault):
    region.only(OWN, TEAM)
    async with region.running(region.target(projects="all", workspaces="all")) as running:
        both = (DEFAULT_WORKSPACE, VISION_WORKSPACE)
        region.service.faults.add(fault)
        await running.discovery.look_up()
        assert workspaces(running) == {OWN: both, TEAM: both}
        assert len(running.discovery.targets.problems) == 1


async def test_a_project_without_known_workspaces_waits(region):
    fault = Fault("status", "workspaces", path=IDS[TEAM], status=503)
    region.service.faults.add(fault)
    async with region.running(region.target(projects="all", workspaces="all")) as running:
        assert set(polled(running)) == {OWN}
        region.service.faults.clear()
        await running.discovery.look_up()
        assert set(polled(running)) == {OWN, TEAM}


# --- reload ---------------------------------------------------------------------------------------


async def test_a_reload_looks_up_what_is_new_and_keeps_what_is_known(region):
    known = region.target(projects="all")
    async with region.running(known) as running:
        before = list(running.pollers)
        asked = region.asked("projects")
        settings = region.settings(known, region.target(region=FAR, projects="all"))
        await running.discovery.configure(settings, look_up=True)
        assert running.pollers[:2] == before
        assert set(polled(running)) == {OWN, TEAM, FAR}
        assert region.asked("projects") == asked + 1


async def test_a_reload_whose_lookup_fails_changes_nothing(region):
    known = region.target(projects="all")
    async with region.running(known) as running:
        before = list(running.pollers)
        region.service.faults.add(Fault("status", "projects", status=503))
        settings = region.settings(known, region.target(region=FAR, projects="all"))
        with pytest.raises(ConfigError, match=f"{FAR}: looking up the projects of region {FAR}"):
            await running.discovery.configure(settings, look_up=True)
        assert running.pollers == before
        await running.discovery.look_up()
        assert running.pollers == before


async def test_a_lookup_that_failed_before_does_not_refuse_a_reload(region):
    region.service.faults.add(Fault("status", "projects", status=503))
    down = region.target(projects="all")
    async with region.running(down) as running:
        assert polled(running) == {}
        settings = region.settings(down, region.target(project_id=IDS[LAB]))
        await running.discovery.configure(settings, look_up=True)
        assert polled(running) == {IDS[LAB]: IDS[LAB]}


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture
def of_files(region):
    """An exporter whose targets are all in files."""
    return partial(region.running, targets_files=["team-*.yml"])


async def read_again(running):
    running.discovery.targets.read_files()
    await running.discovery.look_up()


async def test_files_are_read_again_when_they_change(region, of_files):
    region.listed("team-a.yml", region.target(name="a", project_id=IDS[OWN]))
    async with of_files() as running:
        assert polled(running) == {"a": IDS[OWN]}
        (first,) = running.pollers
        region.listed("team-b.yml", region.target(name="b", project_id=IDS[TEAM]))
        await read_again(running)
        assert polled(running) == {"a": IDS[OWN], "b": IDS[TEAM]}
        assert running.pollers[0] is first
        assert await shown(running, "modelarts_exporter_discovered_targets") == {"": 2}
        (region.folder / "team-a.yml").unlink()
        await read_again(running)
        assert polled(running) == {"b": IDS[TEAM]}


@pytest.mark.parametrize(
    "text", ["", "[]", "- regoin: x", "- {", "- {region: x, auth: {method: aksk}}"]
)
async def test_an_invalid_file_leaves_its_targets_as_they_were(region, of_files, text, caplog):
    path = region.listed("team-a.yml", region.target(name="a", project_id=IDS[OWN]))
    region.listed("team-b.yml", region.target(name="b", project_id=IDS[TEAM]))
    async with of_files() as running:
        before = list(running.pollers)
        path.write_text(text)
        region.listed("team-b.yml", region.target(name="c", project_id=IDS[TEAM]))
        await read_again(running)
        await read_again(running)
        assert polled(running) == {"a": IDS[OWN], "c": IDS[TEAM]}
        assert running.pollers[0] is before[0]
        assert await shown(running, "modelarts_exporter_discovery_successful") == {"": 0}
        problems = running.discovery.targets.problems
        said = [line for line in caplog.messages if line.startswith("file not used")]
        assert said == [f"file not used, keeping its previous targets: {each}" for each in problems]
        region.listed("team-a.yml", region.target(name="d", project_id=IDS[OWN]))
        await read_again(running)
        assert polled(running) == {"d": IDS[OWN], "c": IDS[TEAM]}
        assert await shown(running, "modelarts_exporter_discovery_successful") == {"": 1}


async def test_an_invalid_file_at_the_start_costs_only_its_own_targets(region, of_files):
    (region.folder / "team-a.yml").write_text("- {")
    region.listed("team-b.yml", region.target(name="b", project_id=IDS[TEAM]))
    async with of_files() as running:
        assert polled(running) == {"b": IDS[TEAM]}
        assert len(running.discovery.targets.problems) == 1


async def test_a_secret_that_appears_later_makes_its_file_valid(region, of_files):
    auth = {"access_key": "AK", "secret_key_file": "sk"}
    region.listed("team-a.yml", region.target(project_id=IDS[OWN], auth=auth))
    async with of_files() as running:
        assert polled(running) == {}
        (region.folder / "sk").write_text("SK")
        await read_again(running)
        assert await running.poll_once()
        assert polled(running) == {IDS[OWN]: IDS[OWN]}


async def test_targets_of_files_are_looked_up_too(region, of_files):
    region.listed("team-a.yml", region.target(projects="all", workspaces="all"))
    async with of_files() as running:
        assert set(polled(running)) == {OWN, TEAM}


async def test_a_target_of_the_configuration_wins_over_one_of_a_file(region, of_files):
    region.listed("team-a.yml", region.target(name="a", project_id=IDS[TEAM]))
    async with of_files(region.target(name="a", project_id=IDS[OWN])) as running:
        assert polled(running) == {"a": IDS[OWN]}


async def test_files_stay_known_through_a_reload(region):
    path = region.listed("team-a.yml", region.target(name="a", project_id=IDS[OWN]))
    files = {"targets_files": ["team-*.yml"]}
    async with region.running(**files) as running:
        (before,) = running.pollers
        path.write_text("- {")
        settings = region.settings(region.target(project_id=IDS[TEAM]), **files)
        await running.discovery.configure(settings, look_up=True)
        assert before in running.pollers
        assert polled(running) == {"a": IDS[OWN], IDS[TEAM]: IDS[TEAM]}
