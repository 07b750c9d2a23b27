"""Every request leaves one line in the debug log, without secrets."""

import logging

import pytest
from polling.test_auth_faults import KEY, USER, signature

from exporter.simulator.faults import Fault
from exporter.simulator.identity import PROJECT_ID, Accounts

FACTS = ("target", "operation", "method", "code")


@pytest.fixture
def lines(caplog):
    """The fields of the lines so far, which are then forgotten."""
    caplog.set_level(logging.DEBUG, "exporter.huaweicloud.http")

    def read():
        records = [each for each in caplog.records if each.name == "exporter.huaweicloud.http"]
        caplog.clear()
        assert {(each.levelname, each.getMessage()) for each in records} <= {
            ("DEBUG", "API request")
        }
        return records

    return read


def facts(records):
    return [tuple(getattr(record, name) for name in FACTS) for record in records]


async def test_one_line_for_each_request(rig, lines):
    await rig.serve()
    poller = await rig.add("research")
    rig.service.faults.add(Fault("status", "search", status=503, times=1))
    rig.service.faults.add(Fault("reset", "search", nth=2, times=1))

    assert await poller.poll()

    records = lines()
    assert facts(records) == [
        ("cn-north-4/research", "search", "POST", "503"),
        ("cn-north-4/research", "search", "POST", "connection"),
        ("cn-north-4/research", "search", "POST", "200"),
        ("cn-north-4/research", "pools", "GET", "200"),
    ]
    assert all(0 <= float(record.seconds) < 60 for record in records)


async def test_a_project_that_was_looked_up_is_named(rig, lines):
    await rig.serve(accounts=Accounts([KEY], [USER]))
    poller = await rig.add(None, auth=signature(), project_id=None)

    assert await poller.poll()

    targets = [record.target for record in lines()]
    assert targets == ["cn-north-4/unknown", *[f"cn-north-4/{PROJECT_ID}"] * 2]


async def test_no_secret_gets_in(rig, lines):
    await rig.serve(accounts=Accounts([KEY], [USER]))
    poller = await rig.add(auth=signature(), project_id=PROJECT_ID)

    assert await poller.poll()

    sent = repr([vars(record) for record in lines()])
    assert KEY.access not in sent
    assert KEY.secret not in sent
    assert "Signature" not in sent
    assert rig.service.url not in sent
