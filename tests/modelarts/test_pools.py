"""Names of pools: one request for each workspace, and what is known stays where one fails."""

import json
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from polling.test_paging_property import Clock

from exporter.clock import Clocks
from exporter.huaweicloud.auth.static import NoAuth
from exporter.huaweicloud.http import Response
from exporter.modelarts.client import LIST_POOLS, Client
from exporter.modelarts.pools import PoolReader
from exporter.modelarts.rate_limit import RateLimiter


class Service:
    """Lists the pools of one workspace at a time, or answers with a status."""

    def __init__(self, **names):
        self.names = names
        self.status = {}
        self.asked = []

    async def __call__(self, request):
        (workspace,) = parse_qs(urlsplit(request.url).query)["workspaceId"]
        self.asked.append(workspace)
        labels = self.names.get(workspace)
        items = [
            {"metadata": {"name": pool, "labels": {"os.modelarts/name": name}}}
            for pool, name in (labels or {}).items()
        ]
        body = json.dumps({"items": items if labels is not None else None}).encode()
        return Response(self.status.get(workspace, 200), {}, body)


def pool_names(service, *workspaces):
    clock = Clock()
    clocks = Clocks(clock.wall, clock.monotonic, clock.sleep)
    client = Client(
        service,
        NoAuth(),
        endpoint="http://service.test",
        project_id="project",
        rate_limiter=RateLimiter(5, clocks),
        concurrency=2,
        retries=3,
        longest_pause=120,
        meter=SimpleNamespace(retried=pytest.fail),
        clocks=clocks,
    )
    reader = PoolReader("t", clocks)
    reader.connect(client, workspaces, target="t", max_wait=0.2, interval=0)
    return reader


async def test_input_16_one_request_for_each_workspace():
    service = Service(**{"0": {"p0": "llm"}, "ws1": {"p1": "vision"}})
    names = pool_names(service, "0", "ws1", "a&b")

    assert (await names.list_pools()).names == {"p0": "llm", "p1": "vision"}
    assert service.asked == ["0", "ws1", "a&b"]
    assert names.requests == 3
    assert names.error == ""


async def test_names_of_a_workspace_that_fails_stay():
    service = Service(**{"0": {"p0": "llm"}, "ws1": {"p1": "vision"}})
    names = pool_names(service, "0", "ws1")
    await names.list_pools()
    service.names["0"] = {"p0": "renamed"}
    service.status["ws1"] = 403

    assert (await names.list_pools()).names == {"p0": "renamed", "p1": "vision"}
    assert names.permissions == {LIST_POOLS: False}
    service.status["0"] = 500
    assert await names.list_pools() is None
    service.status.clear()
    assert (await names.list_pools()).names == {"p0": "renamed", "p1": "vision"}
    assert (names.error, names.permissions) == ("", {LIST_POOLS: True})


async def test_a_workspace_without_pools_has_none():
    names = pool_names(Service(), "0")

    assert (await names.list_pools()).pools == {}
    assert names.error == ""
