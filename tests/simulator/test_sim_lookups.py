import pytest

from exporter.simulator.catalog import DEFAULT_WORKSPACE, REGION, VISION_WORKSPACE
from exporter.simulator.fleet import Fleet
from exporter.simulator.identity import (
    LIST_JOBS,
    PROJECT_ID,
    PROJECT_NAME,
    AccessKey,
    Accounts,
    Identity,
)
from exporter.simulator.server import SimulatedService

T = 1_750_000_000.0
TEAM = f"{PROJECT_NAME}_team"
USER = Identity(projects={PROJECT_NAME: PROJECT_ID, TEAM: "t" * 32})
OTHER = Identity("other", projects={"cn-east-3": "e" * 32})
STRANGER = Identity("stranger", "another account", projects={"cn-east-3": "s" * 32})
OWN, ACCOUNT = "/v3/auth/projects", "/v3/projects"
WORKSPACES = f"/v1/{PROJECT_ID}/workspaces"


@pytest.fixture
def fleet(clock):
    return Fleet(1, clock.now, pools=REGION)


@pytest.fixture
def accounts():
    users = [AccessKey(each.name, "SK", each) for each in (USER, OTHER, STRANGER)]
    return Accounts(users, token_lifetime=3600.0)


@pytest.fixture
async def service(fleet, clock, accounts):
    async with SimulatedService(fleet, accounts=accounts, clock=clock) as service:
        yield service


@pytest.fixture
def ask(client, accounts):
    """Send a GET with a token of an identity; return status and document."""

    async def ask(path, identity=USER, project=PROJECT_NAME):
        headers = {"X-Auth-Token": accounts.issue(identity, project, T).value}
        answer = await client("GET", path, headers=headers)
        return answer.status, await answer.json()

    return ask


def ids(answer):
    status, document = answer
    assert status == 200
    return [each["id"] for each in document["projects"]]


async def test_an_identity_sees_its_own_projects_without_any_permission(ask):
    assert ids(await ask(OWN, Identity(permissions=frozenset()))) == [PROJECT_ID]
    assert ids(await ask(OWN)) == [PROJECT_ID, "t" * 32]
    assert ids(await ask(OWN, project=None)) == [PROJECT_ID, "t" * 32]


async def test_the_projects_of_an_account_need_a_permission(ask):
    assert ids(await ask(ACCOUNT)) == [PROJECT_ID, "t" * 32, "e" * 32]
    status, document = await ask(ACCOUNT, Identity(permissions=frozenset({LIST_JOBS})))
    assert status == document["error"]["code"] == 403
    assert "iam:projects:listProjects" in document["error"]["message"]


async def test_projects_have_pages(ask):
    assert ids(await ask(f"{ACCOUNT}?page=1&per_page=2")) == [PROJECT_ID, "t" * 32]
    assert ids(await ask(f"{ACCOUNT}?page=2&per_page=2")) == ["e" * 32]
    assert ids(await ask(f"{ACCOUNT}?page=3&per_page=2")) == []
    assert ids(await ask(f"{ACCOUNT}?enabled=false")) == []


@pytest.mark.parametrize(
    "query", ["page=1", "page=0&per_page=1", "page=1&per_page=5001", "enabled=1", "x=1"]
)
async def test_unusable_queries_for_projects_are_refused(ask, query):
    status, _ = await ask(f"{ACCOUNT}?{query}")
    assert status == 400


async def test_workspaces_of_a_project(ask, service):
    status, document = await ask(f"{WORKSPACES}?limit=1000&offset=0&filter_accessible=true")
    assert status == 200
    assert [each["id"] for each in document["workspaces"]] == [DEFAULT_WORKSPACE, VISION_WORKSPACE]
    assert document["total_count"] == 2
    _, second = await ask(f"{WORKSPACES}?limit=1&offset=1")
    assert [each["id"] for each in second["workspaces"]] == [VISION_WORKSPACE]
    assert [each.operation for each in service.requests] == ["workspaces"] * 2


async def test_only_accessible_workspaces_are_listed_on_request(ask):
    narrow = Identity(workspaces=frozenset({DEFAULT_WORKSPACE}))
    _, all_of_them = await ask(WORKSPACES, narrow)
    _, accessible = await ask(f"{WORKSPACES}?filter_accessible=true", narrow)
    assert (all_of_them["total_count"], accessible["total_count"]) == (2, 1)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "offset=-1", "filter_accessible=1", "workspaceId=0"]
)
async def test_unusable_queries_for_workspaces_are_refused(ask, query):
    status, _ = await ask(f"{WORKSPACES}?{query}")
    assert status == 400


async def test_workspaces_need_a_permission(ask):
    status, document = await ask(WORKSPACES, Identity(permissions=frozenset({LIST_JOBS})))
    assert status == 403
    assert "modelarts:workspace:list" in document["error_msg"]
