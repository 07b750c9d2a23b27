import gzip
import json

import pytest

from exporter.simulator.catalog import USERS, VISION_WORKSPACE

T = 1_750_000_000.0
SEARCH = "/v2/0605767eb780d5762f5ec0196d1d2f3a/training-job-searches"


def filters(*conditions):
    return [{"key": k, "operator": o, "value": v} for k, o, v in conditions]


DAYS = ("2025-06-15T00:00:00Z", "2025-06-16T00:00:00+08:00", "2025-07-16T00:00:01Z")
TOO_MANY = filters(*[("phase", "in", ["Running"])] * 21)
REFUSED = [
    ([], "ModelArts.2764"),
    ("text", "ModelArts.2764"),
    (None, "ModelArts.2764"),
    ({"limit": "5"}, "ModelArts.2764"),
    ({"limit": True}, "ModelArts.2764"),
    ({"limit": 1.0}, "ModelArts.2764"),
    ({"limit": None}, "ModelArts.2764"),
    ({"offset": "0"}, "ModelArts.2764"),
    ({"order": 1}, "ModelArts.2764"),
    ({"filters": {}}, "ModelArts.2764"),
    ({"filters": ["phase"]}, "ModelArts.2764"),
    ({"filters": [{"key": "phase", "operator": "in"}]}, "ModelArts.2764"),
    ({"filters": filters(("phase", "in", "Running"))}, "ModelArts.2764"),
    ({"filters": filters(("phase", "in", [1]))}, "ModelArts.2764"),
    ({"limit": 0}, "ModelArts.2816"),
    ({"limit": 51}, "ModelArts.2816"),
    ({"offset": -1}, "ModelArts.2816"),
    ({"sort_by": "name"}, "ModelArts.2790"),
    ({"order": "up"}, "ModelArts.2788"),
    ({"workspace_id": "mine"}, "ModelArts.2788"),
    ({"filters": TOO_MANY}, "ModelArts.2788"),
    ({"filters": filters(("id", "in", ["x"] * 11))}, "ModelArts.2788"),
    ({"filters": filters(("colour", "in", ["red"]))}, "ModelArts.2789"),
    ({"filters": filters(("phase", "like", ["Run"]))}, "ModelArts.2789"),
    ({"filters": filters(("phase", "is", ["Running"]))}, "ModelArts.2789"),
    ({"filters": filters(("create_time", "between", [DAYS[0]]))}, "ModelArts.2788"),
    ({"filters": filters(("create_time", "between", [DAYS[0], ""]))}, "ModelArts.2788"),
    ({"filters": filters(("create_time", "between", DAYS[1::-1]))}, "ModelArts.2788"),
    ({"filters": filters(("create_time", "between", DAYS[::2]))}, "ModelArts.2788"),
    ({"filters": filters(("create_time", "between", ["1750000000000"] * 2))}, "ModelArts.2788"),
    ({"filters": filters(("create_time", "between", ["2025-06-15"] * 2))}, "ModelArts.2788"),
    ({"unified_jobs": "true"}, "ModelArts.2764"),
    ({"unified_jobs": None}, "ModelArts.2764"),
]


@pytest.mark.parametrize(("body", "code"), REFUSED, ids=lambda value: json.dumps(value)[:60])
async def test_what_is_wrong_is_refused(client, body, code):
    answer = await client.search(body)
    assert (answer.status, (await answer.json())["error_code"]) == (400, code)
    assert answer.headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/json;charset=utf-8", 200),
        ("application/json; charset=UTF-8", 200),
        ("text/plain", 400),
        ("application/json-seq", 400),
    ],
)
async def test_json_has_to_be_called_json(client, kind, status):
    answer = await client("POST", SEARCH, data=b"{}", headers={"Content-Type": kind})
    assert answer.status == status


async def test_what_is_no_json_is_refused(client):
    headers = {"Content-Type": "application/json"}
    for body in (b"", b"{", b'{"limit":1}}', b"\xff"):
        answer = await client("POST", SEARCH, data=body, headers=headers)
        assert (await answer.json())["error_code"] == "ModelArts.2764"


async def test_unknown_paths_and_methods_are_refused(client):
    for method, path in (("GET", SEARCH), ("POST", SEARCH + "/"), ("GET", "/")):
        answer = await client(method, path)
        assert (answer.status, (await answer.json())["error_code"]) == (404, "APIG.0101")


async def test_pages_of_both_kinds(client, service, fleet):
    ids = [fleet.create(T + second).id for second in range(7)][::-1]
    assert await client.ids(limit=3) == ids[:3]
    assert await client.ids(limit=3, offset=1) == ids[3:6]
    assert await client.ids(limit=3, offset=2) == ids[6:]
    assert await client.ids(limit=3, offset=3) == []
    service.behaviour.offset = "row"
    assert await client.ids(limit=3, offset=1) == ids[1:4]
    assert await client.ids(limit=3, offset=5) == ids[5:]
    assert await client.ids(limit=3, offset=7) == []
    assert await client.ids(limit=3, offset=10**15) == []
    assert await client.ids(limit=3, offset=1, order="asc") == ids[::-1][1:4]


async def test_ten_jobs_where_no_limit_is_said(client, fleet):
    for _ in range(12):
        fleet.create(T)
    assert len(await client.ids()) == 10


async def test_ties_are_in_a_stable_order(client, fleet):
    ids = sorted(fleet.create(T).id for _ in range(5))
    assert await client.ids(order="asc") == ids
    assert await client.ids(order="desc") == ids[::-1]


async def test_a_workspace_is_searched_alone(client, fleet):
    here, there = fleet.create(), fleet.create(workspace=VISION_WORKSPACE)
    assert await client.ids() == await client.ids(workspace_id="0") == [here.id]
    assert await client.ids(workspace_id=VISION_WORKSPACE) == [there.id]
    assert await client.ids(workspace_id="f" * 32) == []


async def test_filters(client, fleet):
    one = fleet.create(T, name="trainjob-1", user=USERS[0], pool="vision", priority=2)
    two = fleet.create(T + 60, name="search-2", user=USERS[1], kind="hetero_job", runtime="debug")
    fleet.start(two)

    async def found(*conditions):
        names = {one.id: "one", two.id: "two"}
        return [names[id_] for id_ in await client.ids(filters=filters(*conditions), order="asc")]

    assert await found(("name", "like", ["job"])) == ["one"]
    assert await found(("phase", "in", ["Running", "Pending"])) == ["two"]
    assert await found(("phase", "in", ["Creating", "Failed"])) == ["one"]
    assert await found(("phase", "not", ["Running"])) == ["one"]
    assert await found(("kind", "in", ["hetero_job"])) == ["two"]
    assert await found(("user_id", "in", [USERS[0].id])) == ["one"]
    assert await found(("id", "in", [two.id, "x"])) == ["two"]
    assert await found(("pool_id", "in", ["pool-8c21e4aa"])) == ["one"]
    assert await found(("name", "like", ["1"]), ("phase", "in", ["Running"])) == []
    assert await found(("phase", "in", [""]), ("kind", "in", [])) == ["one", "two"]
    moment = "2025-06-15T15:06:40Z"
    assert await found(("create_time", "between", [moment, moment])) == ["one"]
    assert await found(("runtime_type", "in", ["debug"])) == ["two"]
    assert await found(("priority", "in", ["2"])) == ["one"]


async def test_a_selection_follows_the_world(client, fleet):
    running = filters(("phase", "in", ["Running"]))
    job = fleet.create()
    assert await client.ids(filters=running) == []
    fleet.start(job)
    assert await client.ids(filters=running) == [job.id]
    fleet.finish(job)
    assert await client.ids(filters=running) == []


async def test_filters_ignored_and_rejected(client, service, fleet):
    job = fleet.create()
    query = {"filters": filters(("phase", "in", ["Failed"]))}
    service.behaviour.ignored_filters = frozenset({"phase"})
    assert await client.ids(**query) == [job.id]
    service.behaviour.rejected_filters = frozenset({"phase"})
    assert (await (await client.search(query)).json())["error_code"] == "ModelArts.2789"


async def test_create_time_in_the_other_format(client, service, fleet):
    job = fleet.create(T)
    service.behaviour.create_time_values = "ms"
    span = ["1750000000000", str(1_750_000_000_000 + 31 * 86_400_000)]
    assert await client.ids(filters=filters(("create_time", "between", span))) == [job.id]
    for wrong in (DAYS[:2], ["0", "2678400001"]):
        query = {"filters": filters(("create_time", "between", wrong))}
        assert (await (await client.search(query)).json())["error_code"] == "ModelArts.2788"


async def test_fine_tuning_jobs_are_listed_on_request(client, service, fleet):
    tuning, other = fleet.create(T, fine_tuning=True), fleet.create(T + 1)
    running = filters(("phase", "in", ["Running"]))
    fleet.start(tuning)
    assert await client.ids() == await client.ids(unified_jobs=False) == [other.id]
    assert await client.ids(unified_jobs=True) == [other.id, tuning.id]
    assert await client.ids(unified_jobs=True, filters=running) == [tuning.id]
    assert await client.ids(filters=running) == []
    totals = [
        (await (await client.search({"unified_jobs": u})).json())["total"] for u in (False, True)
    ]
    assert totals == [1, 2]
    assert (await client("GET", SEARCH.replace("job-searches", f"jobs/{tuning.id}"))).status == 200
    truth = await (await client("GET", "/-/sim/truth?jobs=1&unified=0")).json()
    assert [job["id"] for job in truth["facts"]] == [other.id]

    service.behaviour.unified_jobs = "ignored"
    assert await client.ids(unified_jobs=True) == [other.id]
    service.behaviour.unified_jobs = "rejected"
    answer = await client.search({"unified_jobs": True})
    assert (answer.status, (await answer.json())["error_code"]) == (400, "ModelArts.2764")
    assert await client.ids() == [other.id]


async def test_an_empty_list_may_be_null(client, service, fleet):
    path = SEARCH.replace("training-job-searches", "pools?workspaceId=ws1")
    for form, empty in (("array", []), ("null", None)):
        service.behaviour.empty_items = form
        answer = await (await client.search({})).json()
        assert (answer["items"], answer["total"]) == (empty, 0)
        assert (await (await client("GET", path)).json())["items"] == empty
    fleet.create()
    assert len(await client.ids()) == 1


@pytest.mark.parametrize(("totals", "told"), [("documented", (3, 2)), ("page", (3, 1))])
async def test_totals_in_both_readings(client, service, fleet, totals, told):
    for name in ("a1", "a2", "b"):
        fleet.create(name=name)
    service.behaviour.totals = totals
    query = {"limit": 1, "filters": filters(("name", "like", ["a"]))}
    answer = await (await client.search(query)).json()
    assert (answer["total"], answer["count"]) == told


async def test_totals_that_lie(client, service, fleet):
    fleet.create()
    service.behaviour.totals = "lies"
    answers = [await (await client.search({})).json() for _ in range(3)]
    assert len({answer["total"] for answer in answers} | {1}) == 4


async def test_records_may_be_left_out_of_lists(client, service, fleet):
    job = fleet.create()
    fleet.start(job)
    service.behaviour.records_in_list = False
    (item,) = (await (await client.search({})).json())["items"]
    assert "running_records" not in item["status"]
    detail = await (await client("GET", SEARCH.replace("job-searches", f"jobs/{job.id}"))).json()
    assert len(detail["status"]["running_records"]) == 1


async def test_a_job_that_is_gone(client, fleet):
    job = fleet.create()
    path = SEARCH.replace("job-searches", f"jobs/{job.id}")
    assert (await client("GET", path)).status == 200
    fleet.delete(job)
    answer = await client("GET", path)
    assert (answer.status, (await answer.json())["error_code"]) == (400, "ModelArts.2775")


async def test_pools(client, service):
    path = SEARCH.replace("training-job-searches", "pools")
    items = (await (await client("GET", path)).json())["items"]
    names = {item["metadata"]["name"]: item["metadata"]["labels"] for item in items}
    assert names["pool-8c21e4aa"]["os.modelarts/name"] == "vision"
    assert len(names) == 4
    assert items[0]["status"]["resources"]["available"][0]["count"] == 32
    broken = list(service.fleet.nodes(service.fleet.pools["llm-pretraining"]))[:3]
    broken[0].state = broken[1].state = "abnormal"
    broken[2].state = "creating"
    items = (await (await client("GET", path)).json())["items"]
    resources = items[0]["status"]["resources"]
    assert {state: entry["count"] for state, (entry,) in resources.items()} == {
        "available": 29,
        "abnormal": 2,
        "creating": 1,
    }
    for node in broken:
        node.state = "available"
    service.behaviour.pool_resources = "object"
    items = (await (await client("GET", path)).json())["items"]
    assert items[0]["status"]["resources"]["available"]["count"] == 32


async def test_jobs_of_older_services_do_not_name_their_pool(client, service, fleet):
    job = fleet.create(pool="vision")
    detail = SEARCH.replace("job-searches", f"jobs/{job.id}")
    for named in (True, False):
        service.behaviour.pool_names_in_jobs = named
        listed = (await (await client.search({})).json())["items"][0]
        single = await (await client("GET", detail)).json()
        for document in (listed, single):
            resource = document["spec"]["resource"]
            assert resource["pool_id"] == "pool-8c21e4aa"
            assert resource.get("pool_name") == ("vision" if named else None)


async def test_compression_only_where_asked_for(client, service, fleet, session):
    for _ in range(10):
        fleet.create()
    plain = await client.search({}, headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    async with session.post(
        service.url + SEARCH, json={}, headers={"Accept-Encoding": "gzip"}, auto_decompress=False
    ) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert json.loads(gzip.decompress(await answer.read())) == await plain.json()


async def test_throttling(client, service, clock):
    service.behaviour.requests_per_minute = 3
    assert [(await client.search({})).status for _ in range(4)] == [200, 200, 200, 429]
    clock.now += 20
    answer = await client.search({})
    assert (await answer.json())["error_code"] == "APIG.0308"
    assert "limit:3,time:1 minute" in (await answer.json())["error_msg"]
    wait = int(answer.headers["Retry-After"])
    assert 40 <= wait <= 41
    clock.now += wait
    assert (await client.search({})).status == 200
    service.behaviour.retry_after = False
    service.behaviour.requests_per_minute = 0
    answer = await client.search({})
    assert (answer.status, "Retry-After" in answer.headers) == (429, False)


async def test_documents_that_no_sane_service_would_write(client, fleet):
    fleet.create(name="half a pair \ud800", overrides={"metadata.create_time": 10**30})
    (item,) = (await (await client.search({})).json())["items"]
    assert item["metadata"]["name"] == "half a pair \ud800"
    assert item["metadata"]["create_time"] == 10**30


async def test_a_body_nested_too_deep(client):
    body, headers = b"[" * 100_000, {"Content-Type": "application/json"}
    for path, status in ((SEARCH, 400), ("/v3/auth/tokens", 400)):
        assert (await client("POST", path, data=body, headers=headers)).status == status
