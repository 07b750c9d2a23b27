"""The rules at work: a job fails in the simulated service, and somebody is told, once."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from e2e import alertmanager as manager
from e2e import prometheus as real
from process.program import eventually, free_port, target, up

from exporter.simulator.fleet import Fleet
from exporter.simulator.identity import PROJECT_NAME
from exporter.simulator.server import SimulatedService

pytestmark = pytest.mark.integration

RULES = Path(__file__).parents[2] / "deploy/prometheus"
INTERVALS = 3 * 1.0
"""Seconds of poll, scrape and evaluation together."""
OURS = 3.0
"""Seconds that we may take in addition."""

FAILED = 'modelarts_training_job_phase{phase=~"Failed|Abnormal"}'
TOLD = 'ALERTS{alertname=~"ModelArtsTrainingJob(Failed|Abnormal)", alertstate="firing"}'


@pytest.fixture(params=["PATH", "PROMETHEUS3_DIR"])
def where(request):
    real.binary(request.param)
    real.binary(request.param, manager.NAMES)
    return request.param


@pytest.fixture
def rules(tmp_path):
    """All files, without the intervals of single groups: all are evaluated every second."""
    paths = []
    for source in RULES.glob("modelarts.*.yml"):
        document = yaml.safe_load(source.read_text())
        for group in document["groups"]:
            group.pop("interval", None)
        paths.append(tmp_path / source.name)
        paths[-1].write_text(yaml.safe_dump(document))
    assert len(paths) == 3
    return {"rule_files": [path.name for path in paths]}


@pytest.fixture
async def service():
    async with SimulatedService(Fleet(1, time.time())) as service:
        yield service


@pytest.fixture
async def receiver():
    async with manager.Receiver() as receiver:
        yield receiver


@pytest.fixture
def observing(start, receiver, rules, tmp_path, where):
    """Begins to scrape an address and to tell the receiver of alerts; the Prometheus."""

    async def begin(address):
        alertmanager = await manager.running(start, tmp_path, where, manager.alone(receiver.url))
        alerting = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
        return await real.running(start, tmp_path, where, address, alerting=alerting, **rules)

    return begin


async def healthy_rules(prometheus):
    """All rules, once each was evaluated; with none of them anything is wrong."""

    async def evaluated():
        groups = (await prometheus.api("rules"))["groups"]
        found = [rule for group in groups for rule in group["rules"]]
        return None if any(rule["health"] == "unknown" for rule in found) else found

    found = await eventually(evaluated)
    assert {rule["name"]: rule.get("lastError") for rule in found if rule["health"] != "ok"} == {}
    return found


def brief(alerts):
    return [
        (alert["status"], alert["labels"]["alertname"], alert["labels"].get("job_id"))
        for alert in alerts
    ]


async def test_a_failed_job_is_told_once(start, service, receiver, observing):
    fleet = service.fleet
    nasty = 'say "hi" {{ $value }}'
    failing = fleet.create(name=nasty, user="张三", pool="llm-pretraining")
    others = [fleet.create(pool="llm-pretraining") for _ in range(5)]
    for job in (failing, *others):
        fleet.start(job)
    lost, meanwhile, last, *_ = others

    address = f"127.0.0.1:{free_port()}"
    options = target(service, web__listen_address=address, target__name="research")
    exporter = start(*options, "--state.file=state.db")
    await up(await exporter.url())
    prometheus = await observing(address)
    await prometheus.until('count(modelarts_training_job_phase{phase="Running"}) == 6')
    await healthy_rules(prometheus)
    assert receiver.alerts == []

    # The notification for exactly that job, in time.
    failed = time.time()
    fleet.finish(failing, "Failed", 137, at=failed, task="worker-0")
    (alert,) = await receiver.until(1)
    assert time.time() - failed < INTERVALS + OURS
    assert alert["status"] == "firing"
    assert alert["labels"] == {
        "alertname": "ModelArtsTrainingJobFailed",
        "severity": "info",
        "ended": datetime.fromtimestamp(round(failed, 3), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": PROJECT_NAME,
        "project": "research",
        "workspace": "0",
        "pool": failing.pool.id,
        "flavor_type": "Ascend",
        "job_id": failing.id,
        "job_name": nasty,
        "user": "张三",
        "phase": "Failed",
    }
    said = alert["annotations"]
    assert said["summary"] == r'Training job "say \"hi\" {{ $value }}" of user "张三" is Failed'
    assert 'Exit code: 137 (task "worker-0").' in said["description"]
    assert said["console_url"] == (
        f"https://console.huaweicloud.com/modelarts/?region={PROJECT_NAME}"
        f"#/training/detail/{failing.id}"
    )
    assert said["runbook_url"].endswith("docs/runbooks/ModelArtsTrainingJobFailed.md")

    fleet.finish(lost, "Abnormal", secondary="Lost")
    alerts = await receiver.until(2)
    assert brief(alerts)[1:] == [("firing", "ModelArtsTrainingJobAbnormal", lost.id)]
    assert "Exit code: none reported." in alerts[1]["annotations"]["description"]

    # A restart: rules see nothing for a while; what failed meanwhile is told, nothing else.
    assert await exporter.stops() == 0
    fleet.finish(meanwhile, "Failed")
    await prometheus.until("count_over_time((up == 0)[1m:1s]) >= 3")
    assert await prometheus.one("count(modelarts_training_job_phase)") is None
    exporter = start(*options, "--state.file=state.db")
    assert brief(await receiver.until(3))[2:] == [
        ("firing", "ModelArtsTrainingJobFailed", meanwhile.id)
    ]

    # And one without a state file: everything is new to that exporter, but not to others.
    assert await exporter.stops() == 0
    await prometheus.until("count_over_time((up == 0)[1m:1s]) >= 6")
    assert await prometheus.one("count(modelarts_training_job_phase)") is None
    exporter = start(*options)
    await prometheus.until("count(modelarts_training_job_phase) == 6")
    fleet.finish(last, "Failed")
    assert brief(await receiver.until(4)) == [
        ("firing", "ModelArtsTrainingJobFailed", failing.id),
        ("firing", "ModelArtsTrainingJobAbnormal", lost.id),
        ("firing", "ModelArtsTrainingJobFailed", meanwhile.id),
        ("firing", "ModelArtsTrainingJobFailed", last.id),
    ]
    await healthy_rules(prometheus)
    assert await exporter.stops() == 0


async def test_all_rules_work_on_a_busy_region(start, rules, tmp_path, where):
    demo = start(
        "demo",
        *("--seed=11", "--jobs=300", "--rate=20"),
        *("--web.listen-address=127.0.0.1:0", "--poll.interval=1s", "--jobs.retention=100d"),
    )
    url = (await demo.said(r"the exporter at http://(\S+)\.\n"))[1]
    await demo.said("Ctrl-C stops both")
    prometheus = await real.running(start, tmp_path, where, url, **rules)
    await prometheus.until("count_over_time(up[5m]) >= 4")
    found = await healthy_rules(prometheus)
    for rule in found:
        await prometheus.api("query", query=rule["query"])  # objects to warnings and infos
    await prometheus.until("count(pool_phase:modelarts_training_jobs:sum)")

    async def every_failure_is_told():
        return await prometheus.one(f"count({FAILED})") and not await prometheus.one(
            f"count({FAILED} unless on (job_id) {TOLD})"
        )

    await eventually(every_failure_is_told)
    assert await demo.stops() == 0
