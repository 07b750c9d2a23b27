"""Signing in goes wrong: rows 39-44 and 47-48 of the fault matrix.

Each way to sign in by itself is tested in tests/huaweicloud/auth.
"""

import re
from dataclasses import replace

import pytest
from polling.rig import EXPIRY, POLLS, RETRIES, START

from exporter.simulator.faults import Fault
from exporter.simulator.identity import GET_JOB, PROJECT_ID, AccessKey, Accounts, Identity

USER = Identity(password="open sesame")
KEY = AccessKey("AKEXAMPLE", "the right secret", USER)
MINUTE, HOUR = 60.0, 3600.0


def password(text=USER.password, *, file=None):
    """How a target signs in with a password."""
    return {
        "method": "password",
        "username": USER.name,
        "domain": USER.domain,
        **({"password_file": str(file)} if file else {"password": text}),
    }


def signature(text=KEY.secret, *, file=None):
    """How a target signs with a key."""
    secret = {"secret_key_file": str(file)} if file else {"secret_key": text}
    return {"method": "aksk", "access_key": KEY.access} | secret


@pytest.fixture
async def accounts(rig):
    accounts = Accounts([KEY], [USER])
    await rig.serve(accounts=accounts)
    rig.populate(60)
    return accounts


@pytest.fixture
def received(rig):
    """How many requests of an operation the service has received."""
    return lambda operation: sum(1 for one in rig.service.requests if one.operation == operation)


async def test_row_39_the_token_expires_in_the_middle_of_a_poll(rig, accounts, received):
    poller = await rig.add(auth=password())
    assert (await rig.step(poller)).ok
    revoke = Fault("act", "search", nth=2, times=1, action=lambda _: accounts.revoke_tokens())
    rig.service.faults.add(revoke)

    step = await rig.step(poller)

    assert step.ok
    assert revoke.hits == 1
    assert received("token") == 2
    assert step.grew(RETRIES, "reason") == {"auth": 1}


async def test_row_39_one_renewal_for_all_workspaces(rig, accounts, received):
    other = "0123456789abcdef0123456789abcdef"
    for _ in range(120):
        rig.fleet.create(workspace=other)
    poller = await rig.add(auth=password(), workspaces=("0", other))
    assert (await rig.step(poller)).ok
    action = lambda _: accounts.revoke_tokens()  # noqa: E731 - one line for one word
    rig.service.faults.add(Fault("act", "search", nth=4, times=1, action=action))

    assert (await rig.step(poller)).ok

    assert received("token") == 2


async def test_row_40_renewal_before_expiry(rig, accounts, received, clock):
    poller = await rig.add(auth=password())
    assert (await rig.step(poller)).ok
    assert rig.value(EXPIRY) == START + 24 * HOUR

    clock.passes(22.9 * HOUR)
    assert (await rig.step(poller)).ok
    assert received("token") == 1
    assert rig.value(EXPIRY) == START + 24 * HOUR

    clock.passes(0.2 * HOUR)
    renewed = clock.service()
    step = await rig.step(poller)
    assert step.ok
    assert step.grew(RETRIES, "reason") == {}
    assert received("token") == 2
    assert rig.value(EXPIRY) == pytest.approx(renewed + 24 * HOUR, abs=1)
    assert not [one for one in rig.service.requests if one.status == 401]


async def test_row_41_a_401_after_the_renewal(rig, accounts, received, clock):
    poller = await rig.add(auth=password())
    assert (await rig.step(poller)).ok
    searches = received("search")
    rig.service.faults.add(Fault("status", "search", status=401, form="apig", code="APIG.0301"))

    step = (await rig.step(poller)).kept("auth")
    assert step.grew(RETRIES, "reason") == {"auth": 1}
    assert (received("token"), received("search")) == (2, searches + 2)
    assert "credentials not accepted" in poller.error

    for _ in range(60):
        clock.passes(MINUTE)
        assert not await poller.poll()
    assert received("token") <= 2 + 15
    assert received("search") <= searches + 2 + 15
    assert rig.value(POLLS, result="auth") == 61

    clock.passes(5 * MINUTE)
    await rig.recovers(poller)


async def test_row_42_a_wrong_secret_is_hardly_ever_sent(rig, accounts, clock):
    pollers = [
        await rig.add("one", auth=signature("a wrong secret")),
        await rig.add("two", auth=signature("a wrong secret")),
    ]
    failures = []  # seconds at which the service has seen one

    for _ in range(60):
        for poller in pollers:
            before = accounts.failures[KEY.access]
            assert not await poller.poll()
            new = accounts.failures[KEY.access] - before
            assert new <= 1
            failures += [clock.service()] * new
        clock.passes(MINUTE)

    assert rig.value(POLLS, result="auth") == 120
    assert rig.value(RETRIES) == 0
    assert len(failures) == 6  # three, then after 5, 10 and 20 minutes
    for first in failures:
        assert sum(first <= moment <= first + 5 * MINUTE for moment in failures) <= 4
    assert [len(poller.session.sent) for poller in pollers] != [60, 60]
    assert "access key AKEX… was refused" in pollers[0].error
    assert "a wrong secret" not in pollers[0].error


async def test_row_42_a_wrong_secret_of_one_target_does_not_stop_the_other(rig, accounts, clock):
    right, wrong = (
        await rig.add("one", auth=signature()),
        await rig.add("two", auth=signature("wrong")),
    )

    for _ in range(60):
        assert await right.poll()
        assert not await wrong.poll()
        clock.passes(MINUTE)

    assert accounts.locked_until == {}
    assert rig.value("modelarts_up", project="one") == 1
    assert rig.value("modelarts_up", project="two") == 0
    assert rig.value(RETRIES) == 0


async def test_row_42_only_a_success_forgets_failures(rig, accounts):
    poller = await rig.add(auth=signature())
    for nth in range(1, 41):
        status, code = (401, "APIG.0301") if nth % 2 else (403, "APIG.0302")
        rig.service.faults.add(
            Fault("status", "search", status=status, code=code, nth=nth, times=1)
        )

    for _ in range(20):
        assert not await poller.poll()

    seen = [one.status for one in rig.service.requests if one.operation == "search"]
    assert seen == [401, 403, 401, 403, 401]
    assert "access key AKEX… was refused several times in a row" in poller.error


@pytest.mark.parametrize("auth", [password, signature])
async def test_row_43_a_missing_permission(rig, clock, received, auth):
    nobody = replace(USER, permissions=frozenset({GET_JOB}))
    accounts = Accounts([replace(KEY, identity=nobody)], [nobody])
    await rig.serve(accounts=accounts)
    poller = await rig.add(auth=auth())

    for _ in range(10):
        step = (await rig.step(poller)).kept("auth")
        assert step.grew(RETRIES, "reason") == {}
        clock.passes(MINUTE)

    assert received("search") == 10
    assert received("token") == (auth is password)
    grant = "grant modelarts:trainJob:list to this identity in this project and workspace 0"
    assert grant in poller.error
    assert accounts.failures == {}

    accounts.keys[KEY.access] = KEY
    accounts.users[USER.domain, USER.name] = USER
    accounts.revoke_tokens()
    await rig.recovers(poller)


async def test_row_44_a_rotated_secret_key_file(rig, accounts, tmp_path, clock):
    file = tmp_path / "secret_key"
    file.write_text(KEY.secret)
    poller = await rig.add(auth=signature(file=file))
    assert (await rig.step(poller)).ok

    accounts.keys[KEY.access] = replace(KEY, secret="rotated")
    (await rig.step(poller)).kept("auth")
    clock.passes(MINUTE)
    file.write_text("rotated\n")
    await rig.recovers(poller)
    assert accounts.failures == {KEY.access: 1}


async def test_row_44_a_rotated_password_file(rig, accounts, tmp_path, clock):
    file = tmp_path / "password"
    file.write_text(USER.password)
    poller = await rig.add(auth=password(file=file))
    assert (await rig.step(poller)).ok

    accounts.users[USER.domain, USER.name] = replace(USER, password="rotated")
    file.write_text("rotated\n")
    clock.passes(23.5 * HOUR)
    await rig.recovers(poller)
    accounts.revoke_tokens()
    await rig.recovers(poller)


async def test_row_47_iam_is_down_while_the_token_is_valid(rig, accounts, received, clock):
    poller = await rig.add(auth=password())
    assert (await rig.step(poller)).ok
    rig.service.faults.add(Fault("status", "token", status=503, form="html"))

    clock.passes(22.95 * HOUR)
    while clock.service() < START + 24 * HOUR - MINUTE:
        assert await poller.poll()
        clock.passes(MINUTE)
    assert rig.value(RETRIES) == 0
    assert 50 < received("token") <= 62
    assert rig.value(EXPIRY) == START + 24 * HOUR

    clock.passes(2 * MINUTE)
    (await rig.step(poller)).kept("upstream")
    assert "signing in to IAM as user exporter" in poller.error
    await rig.recovers(poller)


@pytest.mark.parametrize(("minutes", "where"), [(20, "ahead"), (-20, "behind")])
async def test_row_48_the_wall_clock_jumps(rig, accounts, clock, minutes, where):
    poller = await rig.add(auth=signature())
    assert (await rig.step(poller)).ok
    clock.off = minutes * MINUTE

    step = (await rig.step(poller)).kept("auth")
    assert step.grew(RETRIES, "reason") == {}
    message = rf"clock skew: our clock is (1199|1200|1201) s {where}; set this machine's clock: "
    assert re.match(message, poller.error)
    for _ in range(30):
        clock.passes(MINUTE)
        assert not await poller.poll()
        assert "clock skew" in poller.error
    assert accounts.failures[KEY.access] <= 4 + 30 // 5

    clock.off = 0.0
    clock.passes(5 * MINUTE)
    await rig.recovers(poller)


async def test_a_project_that_was_looked_up_is_the_label_from_its_first_poll_on(rig, accounts):
    """What the first poll has counted, found and used is under the label that stays."""
    rig.fleet.override(rig.populate(1)[0], {"status.duration": "?"})
    poller = await rig.add(None, project_id=None, auth=password())
    rig.service.faults.add(Fault("status", status=500, form="html", nth=3, times=1))

    assert (await rig.step(poller)).ok

    assert {
        dict(labels)["project"] for _, labels in rig.samples() if dict(labels).get("region")
    } == {PROJECT_ID}
    assert rig.value("modelarts_exporter_tracked_jobs") == 61
    assert rig.value("modelarts_exporter_invalid_jobs_total") == 1
    assert rig.value(RETRIES) == 1
    assert rig.value("modelarts_exporter_api_requests_total", operation="search") == 3
    assert (await rig.step(poller)).ok
    assert rig.value(POLLS, result="success") == 2
