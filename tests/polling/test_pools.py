"""How full pools are: read beside the polls, never in their way, and gone when it is old."""

import asyncio
import json
import logging
from dataclasses import replace

import pytest
from polling.rig import INTERVAL, POLLS, RETRIES, START, until
from polling.test_auth_faults import KEY, USER, signature

from exporter.modelarts import pools
from exporter.modelarts.client import GET_POOL, GET_QUOTAS, LIST_POOLS
from exporter.simulator.catalog import LLM_POOL
from exporter.simulator.faults import Fault
from exporter.simulator.fleet import Fleet
from exporter.simulator.identity import ALL_PERMISSIONS, AccessKey, Accounts

POOLS_INTERVAL = 300.0
STATUS = "modelarts_pool_status"
NODES = "modelarts_pool_nodes"
CARDS = "modelarts_pool_accelerators"
WORKLOADS = "modelarts_pool_workloads"
INFO = "modelarts_pool_info"
LIMIT = "modelarts_training_quota_limit"
USED = "modelarts_training_quota_used"
PLACE = "modelarts_training_job_queue_position"
LAST = "modelarts_exporter_pools_last_success_timestamp_seconds"
OF_POOLS = (STATUS, NODES, CARDS, WORKLOADS, LIMIT, USED)
OPERATIONS = ("pools", "pool_usage", "flavors", "pool_queue", "quotas")
LLM = LLM_POOL.id


@pytest.fixture
def lines(caplog):
    """What was logged about optional requests, without debug."""
    caplog.set_level(logging.DEBUG, "exporter.modelarts.optional")
    return lambda: [
        record.getMessage()
        for record in caplog.records
        if record.name == "exporter.modelarts.optional" and record.levelno > logging.DEBUG
    ]


async def add(rig, **options):
    """A service with 4 nodes of the pool in use and a job that waits, and its poller."""
    await rig.serve(accounts=options.pop("accounts", None))
    rig.fleet.start(rig.fleet.create(START - 500, pool=LLM_POOL, nodes=4))
    rig.fleet.queue(rig.fleet.create(START - 400, id="waits", pool=LLM_POOL, nodes=30))
    return await rig.add(**{"pools_interval": POOLS_INTERVAL} | options)


async def read_once(rig, poller):
    """Poll, and read the pools; both are published."""
    succeeded = await poller.poll_once()
    await rig.publisher.publish()
    return succeeded


def shown(rig):
    """The families of pools that are published."""
    return {name for name, _ in rig.samples() if name in OF_POOLS}


def asked(poller):
    return {operation: len(poller.session.times(operation)) for operation in OPERATIONS}


async def test_everything_is_shown(rig, clock):
    poller = await add(rig)
    for node, state in zip(rig.fleet.nodes(LLM_POOL), ("abnormal", "creating"), strict=False):
        node.state = state
    rig.fleet.job_quota = 1000

    assert await read_once(rig, poller)

    assert rig.value(STATUS, pool=LLM, status="Running") == 1
    counts = {"available": 30, "abnormal": 1, "creating": 1, "deleting": 0}
    flavor = "modelarts.bm.npu.arm.8snt9b.d"
    for state, number in counts.items():
        assert rig.value(NODES, pool=LLM, state=state, flavor=flavor) == number
    (row,) = (row for row in rig.fleet.summary()["pools"] if row["pool"] == LLM)
    for state, key in (("capacity", "capacity"), ("allocated", "allocated"), ("available", "free")):
        found = rig.value(CARDS, pool=LLM, state=state, accelerator="ascend-Snt9b")
        assert found == row[f"{key}_cards"]
    assert rig.value(WORKLOADS, pool=LLM, type="train", state="allocated") == 1
    assert rig.value(WORKLOADS, pool=LLM, type="train", state="queue") == 1
    assert (rig.value(LIMIT, resource="job-num"), rig.value(USED, resource="job-num")) == (1000, 2)
    labels = {"pool_name": "llm-pretraining", "type": "Dedicate", "workspace": "0"}
    assert rig.value(INFO, pool=LLM, **labels) == 1
    assert rig.value(LAST) == clock.wall()
    assert shown(rig) == set(OF_POOLS)
    assert rig.label_values(CARDS, "pool") == {LLM, "pool-8c21e4aa", "pool-1b90d7f3"}


async def test_a_waiting_job_has_its_place(rig):
    poller = await add(rig)
    assert await read_once(rig, poller)
    assert poller.status().pools.positions == {"waits": 1}
    assert asked(poller)["pool_queue"] == 1  # of five pools only this one has jobs that wait

    assert await poller.poll()
    assert rig.value(PLACE, job_id="waits") == 1

    rig.fleet.start("waits")
    assert await poller.poll()
    assert rig.value(PLACE) is None
    assert await read_once(rig, poller)
    assert asked(poller)["pool_queue"] == 1


# --- Cost -----------------------------------------------------------------------------------------


WORKSPACES = ("0", "a" * 32, "b" * 32)


def many_pools():
    return [
        replace(LLM_POOL, name=f"pool {n}", id=f"pool-{n}", workspace=WORKSPACES[n % 3])
        for n in range(20)
    ]


async def minutes(rig, clock, poller, number):
    """Let so many polls pass, and whatever else is due."""
    for _ in range(number):
        polls = poller.ended_polls
        clock.passes(INTERVAL)
        await rig.polled(poller, polls + 1)
        await rig.breathe()


def record_polls(poller):
    """A list that gets what is sent while each poll reads, whoever sends it."""
    read, polls = poller.target.sync.incremental, []

    async def incremental(*args, **options):
        before = len(poller.session.sent)
        view = await read(*args, **options)
        polls.append([operation for _, operation in poller.session.sent[before:]])
        return view

    poller.target.sync.incremental = incremental
    return polls


async def test_the_cost_of_20_pools_in_3_workspaces(rig, clock):
    """At most 6 requests every interval, and none between those of a poll."""
    rig.fleet = Fleet(1, START, pools=many_pools())
    await rig.serve()
    for number in range(20):
        rig.fleet.start(rig.fleet.create(START - 1000 + number, pool=f"pool {number}"))
    poller = await rig.add(workspaces=WORKSPACES, pools_interval=POOLS_INTERVAL, rate=50.0)
    clock.patience = 1.0
    async with rig.running(poller):
        await rig.polled(poller, 1)
        await until(lambda: rig.value(LAST))
        first = asked(poller)
        assert first == {"pools": 3, "pool_usage": 1, "flavors": 1, "pool_queue": 0, "quotas": 1}
        assert len(rig.label_values(NODES, "pool")) == 20
        polls = record_polls(poller)
        await minutes(rig, clock, poller, 21)
        await until(lambda: asked(poller)["quotas"] == 5)

    assert asked(poller) == {
        "pools": 15, "pool_usage": 5, "flavors": 1, "pool_queue": 0, "quotas": 5
    }  # fmt: skip
    assert [set(operations) for operations in polls] == [{"search"}] * 21
    assert rig.value(POLLS, kind="incremental", result="success") == 21


async def test_names_are_not_requested_again_for_polls_and_sweeps(rig, clock):
    poller = await add(rig)
    assert await read_once(rig, poller)
    assert asked(poller)["pools"] == 1
    for read in ("poll", "sweep", "poll"):
        assert (await rig.step(poller, read)).ok
    assert asked(poller)["pools"] == 1
    clock.passes(POOLS_INTERVAL)
    rig.fleet.pools["llm-pretraining"] = replace(LLM_POOL, name="renamed")
    assert await read_once(rig, poller)
    assert await poller.poll()
    assert asked(poller)["pools"] == 2
    assert rig.label_values(INFO, "pool_name") >= {"renamed"}


async def test_never(rig, clock):
    poller = await add(rig, pools_interval=0.0)
    clock.patience = 1.0
    async with rig.running(poller):
        await rig.polled(poller, 1)
        await minutes(rig, clock, poller, 10)
    assert await read_once(rig, poller)
    assert shown(rig) == set()
    assert asked(poller) == dict.fromkeys(OPERATIONS, 0) | {"pools": 1}  # the names
    assert rig.value(LAST) is None


async def test_a_hanging_service_does_not_hold_up_polls(rig, clock):
    poller = await add(rig)
    assert await read_once(rig, poller)
    for operation in OPERATIONS:
        rig.service.faults.add(Fault("hang", operation))
    clock.passes(POOLS_INTERVAL)
    reading = asyncio.create_task(poller.pools.read())
    await until(lambda: asked(poller)["pools"] == 2)
    try:
        assert (await rig.step(poller, "poll")).ok
        assert not reading.done()
    finally:
        reading.cancel()


# --- Old and missing ------------------------------------------------------------------------------


async def test_what_is_old_is_withdrawn_after_three_missed_intervals(rig, clock):
    poller = await add(rig)
    clock.patience = 1.0
    async with rig.running(poller):
        await rig.polled(poller, 1)
        await until(lambda: rig.value(LAST))
        last = rig.value(LAST)
        for operation in OPERATIONS:
            rig.service.faults.add(Fault("status", operation, status=500))
        for missed in (1, 2, 3):
            assert shown(rig) == set(OF_POOLS)
            await minutes(rig, clock, poller, 5)
            await until(lambda missed=missed: asked(poller)["quotas"] == 1 + missed)
        await until(lambda: not shown(rig))
        assert rig.value(LAST) == last
        assert rig.value(INFO, pool=LLM, type="Dedicate") == 1
        assert rig.value(PLACE) is None

        rig.service.faults.clear()
        await minutes(rig, clock, poller, 5)
        await until(lambda: shown(rig) == set(OF_POOLS))
    assert rig.value(POLLS) == rig.value(POLLS, result="success") == 21
    assert rig.value(RETRIES) == 0


async def test_nothing_is_read_while_polls_fail(rig, clock):
    """A wrong secret that is used again and again would lock the access key."""
    accounts = Accounts([KEY], [USER])
    poller = await add(rig, accounts=accounts, auth=signature())
    clock.patience = 1.0
    async with rig.running(poller):
        await rig.polled(poller, 1)
        await until(lambda: rig.value(LAST))
        before = asked(poller)
        accounts.keys[KEY.access] = AccessKey(KEY.access, "another secret", USER)
        await minutes(rig, clock, poller, 16)
        assert asked(poller) == before
        assert shown(rig) == set()
        assert accounts.locked_until == {}

        accounts.keys[KEY.access] = KEY
        await minutes(rig, clock, poller, 16)
        await until(lambda: shown(rig) == set(OF_POOLS))


def without(*actions):
    user = replace(USER, permissions=ALL_PERMISSIONS - set(actions))
    return Accounts([replace(KEY, identity=user)], [user])


@pytest.mark.parametrize(
    ("action", "missing"),
    [
        (LIST_POOLS, {STATUS, NODES, CARDS, WORKLOADS}),
        (GET_QUOTAS, {LIMIT, USED}),
        (GET_POOL, {PLACE}),
    ],
)
async def test_without_a_permission_its_metrics_are_absent(rig, clock, lines, action, missing):
    poller = await add(rig, accounts=without(action), auth=signature())
    for _ in range(4):
        assert await read_once(rig, poller)
        assert await poller.poll()
        clock.passes(POOLS_INTERVAL)

    absent = {*OF_POOLS, PLACE} - {name for name, _ in rig.samples()}
    assert absent == missing
    assert poller.status().missing_permissions == (action,)
    assert {action: False}.items() <= poller.status().permissions.items()
    assert {f"grant {action} to" in line for line in lines()} == {True}
    assert len(lines()) == (2 if action == LIST_POOLS else 1)  # without pools, flavors are known
    assert rig.value(RETRIES) == 0
    assert (rig.value(LAST) is None) == (action == LIST_POOLS)
    assert rig.value(POLLS) == rig.value(POLLS, result="success") == 8


FAULTS = [
    Fault("status", status=404, form="html"),
    Fault("status", status=401, code="APIG.0301"),
    Fault("status", status=500),
    Fault("redirect", status=302, location="http://127.0.0.1:1/"),
    Fault("replace", body="<html>", content_type="text/html"),
    Fault("replace", body='{"items": {}, "quotas": 7}'),
    Fault("replace", body='{"error_code": "X.1", "error_msg": "odd"}'),
    Fault("truncate"),
    Fault("reset"),
    Fault("oversized", size=2**25),
]
BRINGS = {
    "pools": {STATUS, NODES, CARDS, WORKLOADS},
    "pool_usage": {WORKLOADS},  # the nodes tell the capacity
    "flavors": set(),  # cards have the name of their resource
    "pool_queue": set(),
    "quotas": {LIMIT, USED},
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.do}-{fault.status or ''}")
async def test_whatever_fails_costs_only_itself(rig, lines, operation, fault):
    poller = await add(rig)
    fields = {name: getattr(fault, name) for name in fault.__struct_fields__}
    rig.service.faults.add(Fault(**fields | {"operation": operation}))

    for _ in range(2):
        assert await read_once(rig, poller)

    assert set(OF_POOLS) - shown(rig) == BRINGS[operation]
    assert len(lines()) == 1
    assert rig.value(RETRIES) == 0
    assert rig.value(POLLS) == rig.value(POLLS, result="success") == 2
    if operation == "flavors":
        assert rig.label_values(CARDS, "accelerator") == {
            "huawei.com/ascend-1980",
            "nvidia.com/gpu",
        }


async def test_a_bug_costs_only_itself(rig, lines, caplog, monkeypatch):
    def broken(body):
        raise LookupError

    monkeypatch.setattr(pools, "decode_usage", broken)
    poller = await add(rig)
    for _ in range(2):
        assert await read_once(rig, poller)
    assert shown(rig) == set(OF_POOLS) - {WORKLOADS}
    assert lines() == ["cannot read how full pools are: internal error, see the log"]
    assert "LookupError" in caplog.text


async def test_pools_that_are_not_in_the_list_are_not_shown(rig):
    """Other workspaces have pools, too; and their texts may be anything."""
    poller = await add(rig)
    items = [
        {"metadata": {"name": name}, "table": {"workload": {"queue": {"train": 1}}}}
        for name in ("of another workspace", "pool-8c21e4aa", '"\n\x00\ud800')
    ]
    rig.service.faults.add(Fault("replace", "pool_usage", body=json.dumps({"items": items})))
    assert await read_once(rig, poller)
    assert rig.label_values(WORKLOADS, "pool") == {"pool-8c21e4aa"}


async def test_a_successor_goes_on_with_what_is_known(rig, clock):
    old = await add(rig)
    assert await read_once(rig, old)
    assert await old.poll()
    before = {key: value for key, value in rig.samples().items() if key[0] in (*OF_POOLS, INFO)}
    rig.publisher.pollers.clear()
    new = await rig.add(pools_interval=2 * POOLS_INTERVAL)
    await new.take_over(old)
    await rig.publisher.publish()

    after = {key: value for key, value in rig.samples().items() if key[0] in (*OF_POOLS, INFO)}
    assert after == before
    assert await new.poll()
    assert rig.value(PLACE, job_id="waits") == 1


async def test_pools_of_another_project_are_forgotten(rig):
    old = await add(rig)
    assert await read_once(rig, old)
    rig.publisher.pollers.remove(old)
    new = await rig.add(project_id="f" * 32, pools_interval=POOLS_INTERVAL)
    new.target.take_over(old.target)
    await new.target.connect()
    assert new.pools.snapshot.pools == {}
    assert new.pools.rendered == {}


async def test_how_full_a_pool_is(rig):
    poller = await add(rig)
    for node in list(rig.fleet.nodes(LLM_POOL))[-2:]:
        node.state = "abnormal"
    assert await read_once(rig, poller)
    assert poller.status().pools.fullness(LLM) == (256 - 32 - 16, 256, 2)
