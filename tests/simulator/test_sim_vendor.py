"""The simulator matches the vendor's documentation (examples and tables) and SDK."""

import asyncio
import json
from pathlib import Path

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkmodelarts.v1 import (
    Filter,
    JobSearches,
    ListTrainingJobsRequest,
    ModelArtsClient,
)

from exporter.simulator.behaviour import Behaviour
from exporter.simulator.identity import PROJECT_ID, AccessKey, Accounts, Identity
from exporter.simulator.living import LivingFleet
from exporter.simulator.server import SimulatedService
from exporter.simulator.wire import document

DATA = Path(__file__).parents[1] / "data"
T = 1_750_000_000.0


def paths(value, prefix=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list):
        if not value:
            yield f"{prefix}[]"
        for inner in value:
            yield from paths(inner, f"{prefix}[]")
    else:
        yield prefix


async def test_the_request_example_is_accepted(client, fleet):
    job = fleet.create(name="trainjob--py14_mem06-byd-108")
    fleet.create(name="other")
    body = (DATA / "vendor-request.json").read_text()
    answer = await client(
        "POST",
        f"/v2/{PROJECT_ID}/training-job-searches?limit=1",
        data=body,
        headers={"Content-Type": "application/json"},
    )
    assert answer.status == 200
    found = await answer.json()
    assert [item["metadata"]["id"] for item in found["items"]] == [job.id]
    assert (found["total"], found["count"], found["limit"]) == (2, 1, 1)


async def test_every_field_of_the_response_example_is_produced(client, fleet, clock):
    job = fleet.create(pool="public-gpu", name="trainjob")
    fleet.finish(job, "Abnormal")
    clock.now += 60
    answer = await (await client.search({"limit": 1})).json()
    assert set(paths(json.loads((DATA / "vendor-response.json").read_text()))) <= set(paths(answer))


def test_every_documented_field_occurs():
    world = LivingFleet.populated(3, T, jobs=4000)
    produced = set()
    for job in world:
        produced |= set(paths(document(job, T)))
    documented = set((DATA / "documented-fields.txt").read_text().split())
    assert documented - produced == set()


@pytest.mark.parametrize("offset", ["page", "row"])
async def test_the_vendors_client_lists_everything(offset):
    world = LivingFleet.populated(1, T, jobs=120)
    identity = Identity()
    accounts = Accounts([AccessKey("AK", "SK", identity)])
    expected = [entry[1] for entry in world.index.sorted("0")[::-1]]
    async with SimulatedService(world, Behaviour(offset=offset), accounts=accounts) as service:
        world.pause()
        found = await asyncio.to_thread(list_all, service.url, 1 if offset == "page" else 50)
        assert {entry.identity for entry in service.requests} == {"exporter"}
    assert len(expected) > 100
    assert found == expected


def list_all(url, step):
    client = vendors_client(url, "SK")
    ids, page = [], None
    position = 0
    while page is None or page:
        body = JobSearches(offset=position, limit=50, order="desc", filters=[])
        page = client.list_training_jobs(ListTrainingJobsRequest(body)).items
        ids += [job.metadata.id for job in page]
        position += step
    return ids


def vendors_client(url, secret):
    config = HttpConfig(ignore_ssl_verification=True)
    return (
        ModelArtsClient.new_builder()
        .with_http_config(config)
        .with_credentials(BasicCredentials("AK", secret, PROJECT_ID))
        .with_endpoint(url)
        .build()
    )


async def test_the_vendors_client_understands_our_refusals(fleet):
    accounts = Accounts([AccessKey("AK", "SK", Identity())])
    async with SimulatedService(fleet, accounts=accounts) as service:

        def refused(secret, body):
            with pytest.raises(ClientRequestException) as caught:
                vendors_client(service.url, secret).list_training_jobs(
                    ListTrainingJobsRequest(body)
                )
            return caught.value.status_code, caught.value.error_code

        wrong = Filter(key="colour", operator="in", value=["red"])
        calls = [
            ("no", JobSearches(limit=1)),
            ("SK", JobSearches(limit=51)),
            ("SK", JobSearches(filters=[wrong])),
        ]
        answers = [await asyncio.to_thread(refused, *call) for call in calls]
    assert answers == [(401, "APIG.0301"), (400, "ModelArts.2816"), (400, "ModelArts.2789")]
