"""The example for Alertmanager: valid, with the routes and messages that the README describes."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/prometheus"
CONFIG = FOLDER / "alertmanager.example.yml"
EXAMPLE = yaml.safe_load(CONFIG.read_text())
SMALL = yaml.safe_load((ROOT / "deploy/compose/alertmanager.yml").read_text())
RULES = yaml.safe_load((FOLDER / "modelarts.alerts.yml").read_text())
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
TRICK = '"<b> [x](http://x.example.com)'


@pytest.fixture(params=["PATH", "PROMETHEUS3_DIR"])
def amtool(request):
    folder = os.environ.get(request.param)
    path = folder and shutil.which("amtool", path=folder)
    if not path:
        if os.environ.get("REQUIRE_PROMETHEUS") == "1" and folder:
            pytest.fail("amtool is missing")
        pytest.skip("no amtool")

    def run(*arguments):
        done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def rules(source):
    return [
        json.dumps({key: sorted(map(str, value)) for key, value in rule.items()})
        for rule in source["inhibit_rules"]
    ]


def test_amtool_takes_the_example(amtool):
    said = amtool("check-config", CONFIG)
    assert "6 receivers" in said
    assert "1 templates" in said


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("alertname=ModelArtsTrainingJobFailed severity=info user=u pool=p", "users"),
        ("alertname=ModelArtsTrainingJobFailed severity=info user=USER pool=POOL_ID", "user"),
        ("alertname=ModelArtsTrainingJobFailed severity=info user=u pool=POOL_ID", "team"),
        ("alertname=ModelArtsTrainingJobFailed severity=info workspace=WORKSPACE_ID", "team"),
        ("alertname=ModelArtsTrainingJobAbnormal severity=warning user=USER", "platform-jobs"),
        ("alertname=ModelArtsTrainingJobPendingTooLong severity=warning", "platform-jobs"),
        ("alertname=ModelArtsPoolIdle severity=warning", "platform-jobs"),
        ("alertname=ModelArtsQuotaAlmostFull severity=warning", "platform-jobs"),
        ("alertname=ModelArtsPoolFailureBurst severity=critical", "on-call"),
        ("alertname=ModelArtsExporterDown severity=critical", "on-call"),
        ("alertname=ModelArtsExporterThrottled severity=warning", "platform"),
        ("alertname=ModelArtsExporterInvalidJobs severity=info", "platform"),
    ],
)
def test_alerts_go_by_severity_team_and_user(amtool, labels, receiver):
    said = amtool("config", "routes", "test", f"--config.file={CONFIG}", *labels.split())
    assert said.split() == [receiver]


def test_alerts_on_jobs_and_pools_are_grouped_by_pool():
    (route, _) = EXAMPLE["route"]["routes"]
    (small,) = SMALL["route"]["routes"]
    (matcher,) = route["matchers"]
    pattern = re.fullmatch(r'alertname =~ "(.+)"', matcher)[1]
    grouped = {name for name in ALERTS if re.fullmatch(pattern, name)}
    assert grouped == {name for name in ALERTS if not name.startswith("ModelArtsExporter")}
    assert route["group_by"] == ["alertname", "region", "project", "pool", "flavor_type"]
    assert (small["matchers"], small["group_by"]) == (route["matchers"], route["group_by"])
    assert EXAMPLE["route"]["group_by"] == SMALL["route"]["group_by"] == ["alertname"]


def test_only_alerts_on_exporters_inhibit():
    assert rules(EXAMPLE) == rules(SMALL)
    for rule in EXAMPLE["inhibit_rules"]:
        (source,) = rule["source_matchers"]
        names = re.findall(r"ModelArts\w+", source.replace('"', ""))
        assert all(name.startswith("ModelArtsExporter") for name in names)
    (first, *_) = EXAMPLE["inhibit_rules"]
    assert "ExporterDown" not in str(first), "another exporter may read the project"


def test_no_receiver_is_told_that_a_failed_job_is_resolved():
    resolved = {
        receiver["name"]: {
            way["send_resolved"]
            for kind, ways in receiver.items()
            if kind != "name"
            for way in ways
        }
        for receiver in EXAMPLE["receivers"]
    }
    told = {name for name, values in resolved.items() if values == {True}}
    assert told == {"on-call", "platform"}
    assert all(values == {False} for name, values in resolved.items() if name not in told)


def data(number):
    alerts = [
        {
            "status": "firing",
            "labels": {"alertname": "ModelArtsTrainingJobFailed", "job_id": f"{job}"},
            "annotations": {
                "summary": f"Training job {job} {TRICK} is Failed",
                "description": "Exit code: 1.",
                "console_url": f"https://console.example.com/#/{job}",
            },
        }
        for job in range(1, number + 1)
    ]
    return {
        "receiver": "users",
        "status": "firing",
        "externalURL": "http://alertmanager.example.com",
        "groupLabels": {"alertname": "ModelArtsTrainingJobFailed", "region": "r", "project": "p"},
        "commonAnnotations": {"runbook_url": "https://runbook.example.com"},
        "alerts": alerts,
    }


@pytest.fixture
def rendered(amtool, tmp_path):
    def render(template, number):
        path = tmp_path / "data.json"
        path.write_text(json.dumps(data(number)))
        return amtool(
            *("template", "render", f"--template.glob={FOLDER / 'modelarts.tmpl'}"),
            f'--template.text={{{{ template "modelarts.{template}" . }}}}',
            *(f"--template.type={'html' if template == 'html' else 'text'}",),
            f"--template.data={path}",
        )

    return render


def test_a_message_has_a_count_and_the_newest_ten(rendered):
    said = rendered("text", 300)
    assert said.startswith("300 firing: ModelArtsTrainingJobFailed in r/p\n")
    assert re.findall(r"^- Training job (\d+) ", said, re.MULTILINE) == [
        str(job) for job in range(291, 301)
    ]
    assert "the newest 10 of 300: http://alertmanager.example.com/#/alerts?receiver=users" in said
    assert said.rstrip().endswith("https://runbook.example.com")
    assert len(said.encode()) < 2048, "what WeCom accepts"
    assert "newest" not in rendered("text", 10)


def test_an_email_names_all_jobs_and_escapes_them(rendered):
    said = rendered("html", 300)
    assert sorted(map(int, re.findall(r"Training job (\d+) ", said))) == list(range(1, 301))
    assert said.count("Exit code: 1.") == 10
    assert said.count('<a href="https://console.example.com/#/') == 300
    assert "<b> [x]" not in said
    assert "&lt;b&gt;" in said
