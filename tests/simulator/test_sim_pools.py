"""How full the pools are: every call shows the same world, and is as strict as the service."""

import asyncio

import pytest
from huaweicloudsdkmodelarts.v1 import (
    ListResourceFlavorsRequest,
    ListWorkloadsRequest,
    ShowPoolRuntimeMetricsRequest,
    ShowTrainingQuotasRequest,
)
from simulator.conftest import PROJECT, START
from simulator.test_sim_vendor import vendors_client

from exporter.simulator.catalog import LLM_POOL, REGION, VISION_WORKSPACE
from exporter.simulator.fleet import Fleet
from exporter.simulator.identity import ALL_PERMISSIONS, AccessKey, Accounts, Identity
from exporter.simulator.living import LivingFleet
from exporter.simulator.server import SimulatedService

USAGE = f"/v2/{PROJECT}/metrics/runtime/pools"
FLAVORS = f"/v1/{PROJECT}/resourceflavors"
QUOTAS = f"/v2/{PROJECT}/training-quotas"
QUEUE = f"/v2/{PROJECT}/pools/{LLM_POOL.id}/workloads"
CARDS = "huawei.com/ascend-1980"


async def read(client, path):
    answer = await client("GET", path)
    assert answer.status == 200, await answer.text()
    return await answer.json()


async def table(client, pool=LLM_POOL):
    items = (await read(client, USAGE))["items"]
    (found,) = (item["table"] for item in items if item["metadata"]["name"] == pool.id)
    return found


def cards(found):
    return {name: found[name]["value"][CARDS] for name in ("capacity", "allocated", "available")}


async def test_jobs_use_the_cards_of_their_pool_and_broken_nodes_have_none_free(client, fleet):
    fleet.start(fleet.create(pool=LLM_POOL, nodes=4))
    fleet.queue(fleet.create(pool=LLM_POOL, nodes=40))
    list(fleet.nodes(LLM_POOL))[-1].state = "abnormal"

    found = await table(client)

    assert cards(found) == {"capacity": "256", "allocated": "32", "available": "216"}
    assert found["workload"]["allocated"] == {"train": 1, "infer": 0, "notebook": 0, "sum": 1}
    assert found["workload"]["queue"]["train"] == 1
    (row,) = (row for row in fleet.summary()["pools"] if row["pool"] == LLM_POOL.id)
    assert (row["capacity_cards"], row["allocated_cards"], row["free_cards"]) == (256, 32, 216)


async def test_quantities_are_strings_or_numbers(client, service):
    value = (await table(client))["capacity"]["value"]
    assert value == {"cpu": "6144000m", "memory": "50331648Mi", CARDS: "256"}
    service.behaviour.quantities = "number"
    value = (await table(client))["capacity"]["value"]
    assert value == {"cpu": 6144, "memory": "50331648Mi", CARDS: 256}


async def test_only_dedicated_pools_have_a_table(client):
    items = (await read(client, USAGE))["items"]
    listed = (await read(client, f"/v2/{PROJECT}/pools"))["items"]
    assert [item["metadata"]["name"] for item in items] == [
        item["metadata"]["name"] for item in listed
    ]


async def test_every_node_has_a_flavor_with_its_cards(client):
    spec = {
        item["metadata"]["name"]: item["spec"] for item in (await read(client, FLAVORS))["items"]
    }
    nodes = {
        item["metadata"]["labels"]["os.modelarts/name"]: item["spec"]["resources"][0]["flavor"]
        for item in (await read(client, f"/v2/{PROJECT}/pools"))["items"]
    }
    assert spec[nodes["llm-pretraining"]]["npu"]["card"] == "8"
    assert spec[nodes["llm-pretraining"]]["npu"]["type"] == "ascend-snt9b"
    assert spec[nodes["vision"]]["gpu"]["type"] == "nvidia-ant8"
    assert "type" not in spec[nodes["lab-old"]]["npu"]
    assert spec[nodes["data-preparation"]].keys().isdisjoint({"npu", "gpu"})


async def test_flavors_come_in_pages(client):
    names, following = [], ""
    while following is not None:
        page = await read(client, f"{FLAVORS}?limit=3&continue={following}")
        names += [item["metadata"]["name"] for item in page["items"]]
        following = page["metadata"].get("continue")
    everything = (await read(client, FLAVORS))["items"]
    assert names == [item["metadata"]["name"] for item in everything]
    assert len(names) == 4


async def test_the_queue_has_the_places_of_waiting_jobs(client, fleet):
    jobs = [fleet.create(START + n, pool=LLM_POOL, priority=n % 2) for n in range(4)]
    for job in jobs[:3]:
        fleet.queue(job)
    fleet.start(jobs[3])

    items = (await read(client, f"{QUEUE}?type=train&status=Queue"))["items"]

    places = {item["jobUUID"]: item["pendingPosition"] for item in items}
    assert places == {jobs[1].id: 1, jobs[0].id: 2, jobs[2].id: 3}
    (item,) = (await read(client, f"{QUEUE}?type=train&status=Running"))["items"]
    assert (item["jobUUID"], item["pendingPosition"]) == (jobs[3].id, -1)
    assert len((await read(client, QUEUE))["items"]) == 4
    assert len((await read(client, f"{QUEUE}?limit=3&offset=2"))["items"]) == 2
    assert (await read(client, f"{QUEUE}?type=infer"))["items"] == []


async def test_quotas_fill(client, fleet):
    for _ in range(3):
        fleet.create()
    (quota,) = (await read(client, f"{QUOTAS}?resource=job-num"))["quotas"]
    assert quota == {"resource": "job-num", "quota": 100_000, "used": 3}


def test_nobody_submits_beyond_the_quota():
    limited, free = (LivingFleet(1, START, rate=5) for _ in range(2))
    limited.job_quota = 20
    for world in (limited, free):
        world.advance(START + 3600)
    assert len(limited) <= 20 < len(free)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{QUEUE}?type=cooking", 400),
        (f"{QUEUE}?status=Asleep", 400),
        (f"{QUEUE}?limit=501", 400),
        (f"{QUEUE}?offset=-1", 400),
        (f"{QUOTAS}?resource=cards", 400),
        (f"{FLAVORS}?limit=many", 400),
        (f"/v2/{PROJECT}/pools/no-such-pool/workloads", 404),
        (f"/v2/{PROJECT}/pools/pool-group-7e1d04/workloads", 404),
        (f"/v2/{PROJECT}/resourceflavors", 404),
        (f"/v1/{PROJECT}/metrics/runtime/pools", 404),
    ],
)
async def test_what_is_refused(client, path, status):
    answer = await client("GET", path)
    assert answer.status == status
    assert (await answer.json())["error_code"]


ACTIONS = {
    USAGE: "modelarts:pool:list",
    FLAVORS: "modelarts:pool:list",
    QUEUE: "modelarts:pool:get",
    QUOTAS: "modelarts:trainJob:getQuotas",
}


@pytest.mark.parametrize(("path", "action"), ACTIONS.items())
async def test_each_call_needs_a_permission_of_its_own(client, fleet, path, action):
    for permissions, status in ((ALL_PERMISSIONS, 200), (ALL_PERMISSIONS - {action}, 403)):
        identity = Identity("u", password="p", permissions=permissions)
        accounts = Accounts([], [identity])
        async with SimulatedService(fleet, accounts=accounts) as service:
            client.service = service
            token = accounts.issue(identity, "cn-north-4", service._clock())
            answer = await client("GET", path, headers={"X-Auth-Token": token.value})
            assert answer.status == status
            if status == 403:
                assert action in (await answer.json())["error_msg"]


async def test_pools_of_other_workspaces_are_not_seen(client):
    fleet = Fleet(1, START, pools=REGION)
    identity = Identity("u", password="p", workspaces=frozenset({VISION_WORKSPACE}))
    accounts = Accounts([], [identity])
    async with SimulatedService(fleet, accounts=accounts) as service:
        client.service = service
        token = accounts.issue(identity, "cn-north-4", service._clock())
        headers = {"X-Auth-Token": token.value}
        items = (await (await client("GET", USAGE, headers=headers)).json())["items"]
        assert [item["metadata"]["name"] for item in items] == ["pool-2f60b9d8"]
        assert (await client("GET", QUEUE, headers=headers)).status == 404


async def test_the_vendors_client_understands_the_answers(fleet):
    fleet.queue(fleet.create(pool=LLM_POOL))
    accounts = Accounts([AccessKey("AK", "SK", Identity())])
    async with SimulatedService(fleet, accounts=accounts) as service:

        def ask():
            client = vendors_client(service.url, "SK")
            usage = client.show_pool_runtime_metrics(ShowPoolRuntimeMetricsRequest())
            flavors = client.list_resource_flavors(ListResourceFlavorsRequest(limit=500))
            queue = client.list_workloads(
                ListWorkloadsRequest(pool_name=LLM_POOL.id, type="train", status="Queue")
            )
            quotas = client.show_training_quotas(ShowTrainingQuotasRequest(resource="job-num"))
            return (
                usage.items[0].table.workload.queue.train,
                {flavor.spec.npu.card for flavor in flavors.items if flavor.spec.npu},
                [item.pending_position for item in queue.items],
                [(quota.resource, quota.used) for quota in quotas.quotas],
            )

        assert await asyncio.to_thread(ask) == (1, {"8"}, [1], [("job-num", 1)])
