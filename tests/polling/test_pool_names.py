"""Names of pools: asked for seldom, after the searches, and never worth a poll."""

import asyncio
import json
import logging
from dataclasses import replace

import pytest
from polling.rig import POLLS, REQUESTS, RETRIES, until
from polling.test_auth_faults import KEY, USER, password, signature

from exporter.modelarts import pools
from exporter.simulator.behaviour import Behaviour
from exporter.simulator.faults import Fault
from exporter.simulator.identity import LIST_POOLS, AccessKey, Accounts
from exporter.storage.store import Store

POOL_INFO = "modelarts_pool_info"
JOB_INFO = "modelarts_training_job_info"
NAMES = {
    "llm-pretraining-0f3c7d92": "llm-pretraining",
    "pool-8c21e4aa": "vision",
    "pool-1b90d7f3": "lab-old",
    "pool-c5d6e0b4": "data-preparation",
}
OLD = Behaviour(pool_names_in_jobs=False)
MINUTE = 60.0
HOUR = 3600.0


@pytest.fixture(autouse=True)
def _all_lines(caplog):
    caplog.set_level(logging.DEBUG, "exporter.modelarts.optional")


@pytest.fixture
def lines(caplog):
    """What was logged about names, without debug."""
    return lambda: [
        record.getMessage()
        for record in caplog.records
        if record.name == "exporter.modelarts.optional" and record.levelno > logging.DEBUG
    ]


async def serve(rig, behaviour=OLD, accounts=None):
    """A service with a job in a dedicated pool and one in the public one."""
    await rig.serve(behaviour=behaviour, accounts=accounts)
    rig.fleet.start(rig.fleet.create(pool="vision"))
    rig.fleet.start(rig.fleet.create())


def named(rig):
    """The published names by pool; no pool has two."""
    pairs = [
        (labels["pool"], labels["pool_name"])
        for labels in (dict(labels) for _, labels in rig._samples_of(POOL_INFO))
    ]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def of_jobs(rig):
    return rig.label_values(JOB_INFO, "pool_name")


def rename(fleet, key, name):
    """What the list of pools says from now on; jobs keep the name they were created with."""
    fleet.pools[key] = replace(fleet.pools[key], name=name)


def asked(poller):
    return len(poller.session.times("pools"))


async def later(rig, poller):
    """Poll an hour later, when names are asked for again."""
    rig.clock.passes(HOUR)
    assert (await rig.step(poller, "poll")).ok


@pytest.mark.parametrize("resources", ["array", "object"])
async def test_names_of_pools_where_jobs_do_not_tell_them(rig, resources):
    await serve(rig, replace(OLD, pool_resources=resources))
    poller = await rig.add()

    assert await poller.poll()

    assert named(rig) == NAMES
    assert of_jobs(rig) == {"vision", ""}
    assert rig.value(REQUESTS, operation="pools", code="200") == 1
    assert poller.status().costs["sweep"].requests == len(poller.session.sent) == 2


async def test_asked_for_at_the_first_poll_of_a_process_that_goes_on(rig, tmp_path):
    await serve(rig)
    for cost in ({"list": 1}, {"phase": 1, "list": 1}):
        store = await Store.open(tmp_path / "state.db", problem=pytest.fail)
        poller = await rig.add(store=store)
        try:
            assert await rig.cost(poller) == cost | {"pools": 1}
            assert named(rig) == NAMES
            assert await rig.cost(poller, "poll") == {"phase": 1, "list": 1}
        finally:
            await store.close()
        rig.publisher.pollers.clear()


async def test_asked_for_at_the_first_poll_and_once_an_hour(rig):
    await serve(rig)
    poller = await rig.add()
    assert await rig.cost(poller) == {"list": 1, "pools": 1}
    assert await rig.cost(poller, "sweep") == {"list": 1}

    rename(rig.fleet, "vision", "robotics")
    rig.clock.passes(3599.0)
    assert await rig.cost(poller, "poll") == {"phase": 1, "list": 1}
    assert named(rig) == NAMES
    rig.clock.passes(1.0)
    assert await rig.cost(poller, "poll") == {"phase": 1, "list": 1, "pools": 1}
    assert named(rig)["pool-8c21e4aa"] == "robotics"
    assert await rig.cost(poller, "poll") == {"phase": 1, "list": 1}


async def test_a_new_name_takes_the_place_of_the_old_one(rig):
    await serve(rig, Behaviour())
    poller = await rig.add()
    assert await poller.poll()
    assert named(rig) == NAMES

    rename(rig.fleet, "vision", "robotics")
    rename(rig.fleet, "lab-old", "")
    assert await poller.poll()
    assert named(rig) == NAMES
    await later(rig, poller)

    assert named(rig)["pool-8c21e4aa"] == "robotics"
    assert "pool-1b90d7f3" not in named(rig)
    assert of_jobs(rig) == {"vision", ""}  # its own name comes first


@pytest.mark.parametrize("auth", [password, signature])
async def test_row_43_without_the_permission_pools_go_by_their_ids(rig, clock, lines, auth):
    user = replace(USER, permissions=USER.permissions - {LIST_POOLS})
    accounts = Accounts([replace(KEY, identity=user)], [user])
    await serve(rig, accounts=accounts)
    poller = await rig.add(auth=auth())

    for _ in range(5):
        await later(rig, poller)
        clock.passes(MINUTE)
        assert (await rig.step(poller, "poll")).ok

    assert named(rig) == {}
    assert rig.value("modelarts_training_jobs", pool="pool-8c21e4aa", phase="Running") == 1
    (line,) = lines()
    assert "grant modelarts:pool:list to this identity in this project" in line
    assert rig.value(REQUESTS, operation="pools", code="403") == asked(poller) == 5
    assert rig.value(RETRIES) == 0
    assert rig.value(POLLS) == rig.value(POLLS, result="success") == 10
    assert len(poller.session.times("sign_in")) == (auth is password)
    assert accounts.failures == {}

    accounts.keys[KEY.access] = KEY
    accounts.users[USER.domain, USER.name] = USER
    accounts.revoke_tokens()
    await later(rig, poller)
    assert named(rig) == NAMES
    assert poller.target.pools.error == ""


@pytest.mark.parametrize("auth", [password, signature])
async def test_a_401_for_pools_alone_harms_nobody(rig, clock, lines, auth):
    await serve(rig, accounts=Accounts([KEY], [USER]))
    poller = await rig.add(auth=auth())
    rig.service.faults.add(Fault("status", "pools", status=401, code="APIG.0301"))

    for _ in range(10):
        await later(rig, poller)
        clock.passes(MINUTE)
        assert (await rig.step(poller, "poll")).ok

    assert asked(poller) == 10
    assert rig.value(RETRIES) == 0
    assert len(poller.session.times("sign_in")) == (auth is password)
    assert len(lines()) == 1


async def test_row_42_not_asked_for_while_searches_fail(rig, clock):
    accounts = Accounts([AccessKey(KEY.access, "the right secret", USER)], [USER])
    await serve(rig, accounts=accounts)
    poller = await rig.add(auth=signature("a wrong secret"))

    for _ in range(10):
        assert not await poller.poll()
        clock.passes(MINUTE)
    assert asked(poller) == 0
    assert accounts.locked_until == {}

    accounts.keys[KEY.access] = replace(KEY, secret="a wrong secret")
    clock.passes(10 * MINUTE)
    assert await poller.poll()
    rig.service.faults.add(Fault("status", "search", status=502))
    clock.passes(HOUR)
    assert not await poller.poll()
    assert asked(poller) == 1


FAULTS = [
    Fault("status", status=404, form="html"),
    Fault("status", status=400, code="ModelArts.2788"),
    Fault("status", status=500),
    Fault("status", status=502, form="html"),
    Fault("status", status=503, code="X.1", retry_after="3600"),
    Fault("redirect", status=302, location="http://127.0.0.1:1/"),
    Fault("replace", body="<html>", content_type="text/html"),
    Fault("replace", body=""),
    Fault("replace", body="[]"),
    Fault("replace", body='{"kind": "PoolList"}'),
    Fault("replace", body='{"items": {}}'),
    Fault("replace", body='{"error_code": "X.1", "error_msg": "odd"}'),
    Fault("truncate"),
    Fault("cut"),
    Fault("reset"),
    Fault("cut_body"),
    Fault("broken_chunking"),
    Fault("oversized", size=2**25),
    Fault("gzip_bomb", size=2**25),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.do}-{fault.status or ''}")
async def test_whatever_goes_wrong_names_stay_and_polls_go_on(rig, clock, lines, fault):
    await serve(rig)
    poller = await rig.add()
    assert await poller.poll()
    rig.service.faults.add(replace_fault(fault, operation="pools"))

    for _ in range(3):
        before = clock.monotonic()
        await later(rig, poller)
        assert clock.monotonic() - before < HOUR + 1.0  # nothing is waited for
        assert (await rig.step(poller, "poll")).ok
        assert named(rig) == NAMES
        assert of_jobs(rig) == {"vision", ""}

    assert asked(poller) == 4
    assert rig.value(RETRIES) == 0
    assert rig.value("modelarts_up") == 1
    assert len(lines()) == 1
    assert poller.target.pools.error

    rig.service.faults.clear()
    rename(rig.fleet, "vision", "robotics")
    await later(rig, poller)
    assert named(rig)["pool-8c21e4aa"] == "robotics"


def replace_fault(fault, **changes):
    """A copy: faults count what they strike."""
    fields = {name: getattr(fault, name) for name in fault.__struct_fields__}
    return Fault(**fields | changes)


async def test_a_bug_costs_names_and_not_polls(rig, caplog, lines, monkeypatch):
    await serve(rig)
    poller = await rig.add()
    assert await poller.poll()

    def broken(body):
        raise LookupError

    monkeypatch.setattr(pools, "decode_pools", broken)
    for _ in range(2):
        await later(rig, poller)
    assert named(rig) == NAMES
    assert poller.target.pools.error == "internal error, see the log"
    assert len(lines()) == 1
    assert "LookupError" in caplog.text


@pytest.mark.parametrize("field", ["name", r"\ud800", "annotations"])
async def test_lone_surrogates_do_not_matter(rig, field):
    """Not even in a key that nobody reads."""
    await serve(rig)
    metadata = f'{{"name": "pool-8c21e4aa", "x": 1, "{field}": "\\ud800", "name": "pool-8c21e4aa"}}'
    body = f'{{"\\udfff": 0, "items": [{{"metadata": {metadata}}}]}}'
    rig.service.faults.add(Fault("replace", "pools", body=body))
    poller = await rig.add()

    assert (await rig.step(poller)).ok
    await later(rig, poller)
    assert poller.target.pools.error == ""


@pytest.mark.parametrize("do", ["hang", "trickle"])
async def test_a_poll_waits_only_a_short_time(rig, lines, do):
    await serve(rig)
    rig.service.faults.add(Fault(do, "pools", seconds=0.05))
    poller = await rig.add()
    await poller.target.connect()
    assert poller.target.pools.timeout <= 6.0
    poller.target.pools.timeout = 0.3
    began = asyncio.get_running_loop().time()

    assert await poller.poll()

    assert asyncio.get_running_loop().time() - began < 2.0
    assert rig.value(POLLS, result="success") == 1
    assert rig.value(REQUESTS, operation="pools", code="timeout") == 1
    assert named(rig) == {}
    assert "no response within 0.3 s" in lines()[0]


async def test_a_sweep_that_waits_for_names_does_not_hold_up_polls(rig):
    await serve(rig)
    poller = await rig.add()
    assert await poller.poll()
    rig.service.faults.add(Fault("hang", "pools"))
    poller.target.pools.timeout = 1.0
    rig.clock.passes(HOUR)
    async with rig.sweeping(poller):
        await until(lambda: asked(poller) == 2)
        assert (await rig.step(poller, "poll")).ok


async def test_row_05_a_pause_that_is_asked_for_holds_for_all(rig, clock):
    await serve(rig)
    poller = await rig.add()
    fault = Fault("status", "pools", status=429, code="APIG.0308", retry_after="30", times=1)
    rig.service.faults.add(fault)

    assert await poller.poll()
    paused = clock.monotonic()
    assert await poller.poll()

    assert named(rig) == {}
    assert poller.session.times()[-2] >= paused + 30
    assert asked(poller) == 1
    await later(rig, poller)
    assert named(rig) == NAMES


async def test_slow_targets_have_names_too(rig):
    await serve(rig)
    poller = await rig.add(rate=0.1)
    assert await poller.poll()
    assert named(rig) == NAMES
    assert poller.target.pools.timeout == pytest.approx(15.0)


async def test_strange_names_are_bounded_and_harmless(rig):
    await serve(rig)
    long = "n" * 10_000
    labels = ['"\\\n\x00<script>\ud800训练', long, "", 7, None, ["a"]]
    items = [
        {"metadata": {"name": f"odd-{number}", "labels": {"os.modelarts/name": name}}}
        for number, name in enumerate(labels)
    ]
    items += [None, "pool", {"metadata": {"name": "pool-8c21e4aa", "labels": {}}}]
    items += [
        {"metadata": {"name": f"many-{number}", "labels": {"os.modelarts/name": "m"}}}
        for number in range(5000)
    ]
    rig.service.faults.add(Fault("replace", "pools", body=json.dumps({"items": items})))
    poller = await rig.add()

    assert await poller.poll()

    found = named(rig)
    assert len(found) == 1000 - 5  # five of the pools have no name
    assert found["odd-0"] == '"\\\n\ufffd<script>\ufffd训练'
    assert found["odd-1"] == "n" * 255 + "…"
    assert found.keys().isdisjoint({"odd-2", "odd-3", "odd-4", "odd-5", "pool-8c21e4aa"})


async def test_without_any_source_there_are_ids(rig):
    await serve(rig)
    rig.service.faults.add(Fault("status", "pools", status=404))
    poller = await rig.add()

    assert await poller.poll()

    assert named(rig) == {}
    assert rig.label_values(JOB_INFO, "pool") == {"pool-8c21e4aa", "public"}


async def test_names_that_jobs_bring_are_shown_where_the_list_may_not_be_read(rig):
    await serve(rig, Behaviour())
    rig.service.faults.add(Fault("status", "pools", status=403, code="ModelArts.0112"))
    poller = await rig.add()

    assert await poller.poll()

    assert named(rig) == {"pool-8c21e4aa": "vision"}
