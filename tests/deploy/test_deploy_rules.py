"""The rules of deploy/prometheus are sound, tested, documented, and use what the exporter has."""

import os
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from exporter.metrics.exposition import Metric
from exporter.metrics.self_metrics import Instruments, TargetInfo
from exporter.settings.options import options
from exporter.web.publisher import FAMILIES

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus"
RUNBOOKS = ROOT / "docs/runbooks"
FILES = sorted(RULES.glob("modelarts.*.yml"))
TESTS = sorted(RULES.glob("tests/*.test.yml"))

GROUPS = [group for path in FILES for group in yaml.safe_load(path.read_text())["groups"]]
PRICES = next(group["rules"] for group in GROUPS if group["name"] == "modelarts-prices")
ALL = [rule for group in GROUPS for rule in group["rules"] if rule not in PRICES]
ALERTS = {rule["alert"]: rule for rule in ALL if "alert" in rule}
RECORDS = {rule["record"]: rule for rule in ALL if "record" in rule}
EXPRESSIONS = {name: rule["expr"] for name, rule in {**ALERTS, **RECORDS}.items()}

OWN = [
    Metric(f"{family.name}_total" if family.type == "counter" else family.name, family.type, "")
    for instrument in Instruments().all()
    for family in instrument.describe()
]
OWN.append(Metric(TargetInfo.name, "gauge", ""))
TYPES = {metric.name: metric.type for metric in (*FAMILIES, *OWN)}
FOREIGN = {"up": "gauge", "process_start_time_seconds": "gauge"}
FOREIGN |= {price["record"]: "gauge" for price in PRICES}
PER_JOB = {name for name in ALERTS if name.startswith("ModelArtsTrainingJob")}
ENDED = {"ModelArtsTrainingJobFailed", "ModelArtsTrainingJobAbnormal"}
OF_POOLS = {name for name in ALERTS if "pool" in ALERTS[name]["expr"]} - PER_JOB
OVER_TIME = r"\b(?:rate|irate|increase)\(\s*(?:max by \([^)]*\) \()?([a-z_:]+)"
STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"')
POOL_NAME = re.compile(
    r"\{\{ with printf \"last_over_time\(modelarts_pool_info\{region=%q, project=%q, pool=%q, "
    r"pool_name!=''\}\[1h\]\)\" \$labels\.region \$labels\.project \$labels\.pool \| query \}\}"
    r"\{\{ \. \| first \| label \"pool_name\" \| printf \"%q\" \}\}"
    r"\{\{ else \}\}\{\{ printf \"%q\" \$labels\.pool \}\}\{\{ end \}\}"
)
"""The name of the pool of an alert, or else its ID."""


def promtools():
    """Those of the system and of the newer Prometheus, as far as they are there."""
    for where in ("PATH", "PROMETHEUS3_DIR"):
        folder = os.environ.get(where)
        yield pytest.param(folder and shutil.which("promtool", path=folder), id=where)


@pytest.fixture(params=promtools())
def promtool(request):
    if request.param is None:
        if os.environ.get("REQUIRE_PROMETHEUS") == "1" and request.node.callspec.id == "PATH":
            pytest.fail("promtool is missing")
        pytest.skip("no promtool")

    def run(*arguments):
        done = subprocess.run(
            [request.param, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    return run


def family(name):
    """The family of a metric as a query names it, and its type."""
    for suffix in ("", "_bucket", "_sum", "_count"):
        plain = name.removesuffix(suffix) if suffix else name
        if plain in TYPES and (not suffix or TYPES[plain] == "histogram"):
            return plain, TYPES[plain]
    return name, {**FOREIGN, **dict.fromkeys(RECORDS, "gauge")}.get(name)


def metrics(expression):
    """The names of metrics in an expression."""
    bare = re.sub(r"#.*", "", STRINGS.sub('""', expression))
    return set(re.findall(r"\b(?:modelarts_\w+|process_\w+|up|\w+:\w+:\w+)\b", bare))


def test_promtool_finds_nothing_wrong(promtool):
    for path in FILES:
        code, said = promtool("check", "rules", "--lint=all", "--lint-fatal", path)
        assert code == 0, said


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_rules_fire_and_end_as_told(promtool, path):
    code, said = promtool("test", "rules", path)
    assert code == 0, said


def test_every_alert_is_seen_firing_silent_and_ended():
    times = defaultdict(list)
    for path in TESTS:
        for number, test in enumerate(yaml.safe_load(path.read_text())["tests"]):
            for case in test.get("alert_rule_test", ()):
                minute = int(case["eval_time"].removesuffix("m"))
                times[case["alertname"]].append((path.name, number, minute, case["exp_alerts"]))
    assert times.keys() == ALERTS.keys()
    for name, cases in times.items():
        good = [
            (file, number)
            for file, number, minute, firing in cases
            if firing
            and any(c[:2] == (file, number) and c[2] < minute and not c[3] for c in cases)
            and any(c[:2] == (file, number) and c[2] > minute and not c[3] for c in cases)
        ]
        assert good, f"no test sees {name} silent, then firing, then ended"


def test_every_record_is_tested():
    said = "\n".join(path.read_text() for path in TESTS)
    assert {name for name in RECORDS if not re.search(rf"expr: .*(?<!\w){name}\b", said)} == set()


def test_records_are_named_level_metric_operations():
    for name, rule in RECORDS.items():
        level, metric, operations = name.split(":")
        added = "phase|accelerator|recovery|code|pool"
        assert re.fullmatch(rf"(dedicated|pool|project|user)(_({added}))*", level)
        assert re.fullmatch(r"[a-z_]+", metric)
        assert not metric.endswith("_total"), name
        assert re.fullmatch(r"[a-z0-9_]+", operations)
        by = {
            "pool": {"region", "project", "pool", "flavor_type"},
            "dedicated": {"region", "project", "pool"},
            "project": {"region", "project"},
            "user": {"region", "project", "user"},
        }
        whole = by[level.split("_")[0]] | set(level.split("_")[1:])
        aggregated = re.search(r"by \(([^)]*)\)", rule["expr"])[1].split(", ")
        assert set(aggregated) - {"le"} == whole, name


def test_prices_are_constants_with_one_label():
    labels = {
        "modelarts_price_per_card_hour": "accelerator",
        "modelarts_price_per_node_hour": "flavor",
    }
    assert {price["record"] for price in PRICES} == labels.keys()
    for price in PRICES:
        assert re.fullmatch(r"vector\([0-9.]+\)", price["expr"])
        assert price["labels"].keys() == {labels[price["record"]]}


def test_alerts_have_all_that_a_person_on_call_needs():
    assert len(ALERTS) + len(RECORDS) == len(ALL)
    for name, rule in ALERTS.items():
        assert name.startswith("ModelArts")
        assert re.fullmatch(r"\d+[smh]", rule["for"]), name
        assert rule["labels"].keys() == {"severity"} | ({"ended"} if name in ENDED else set()), name
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}, name
        needed = {"summary", "description", "runbook_url"}
        needed |= {"console_url"} if name in PER_JOB else set()
        assert rule["annotations"].keys() == needed, name
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{name}.md")
        summary = POOL_NAME.sub("POOL", rule["annotations"]["summary"])
        assert len(summary) < 140, name


def test_alerts_on_jobs_tell_who_and_where():
    for name in PER_JOB:
        rule = ALERTS[name]
        assert "group_left (job_name, user, workspace, pool, flavor_type)\n" in rule["expr"], name
        assert "last_over_time(modelarts_training_job_info[10m])" in rule["expr"], name
        assert "keep_firing_for" not in rule, "or a job would not end its alert"
        for label in ("job_name", "user"):
            assert f"$labels.{label}" in rule["annotations"]["description"], name
        assert POOL_NAME.search(rule["annotations"]["description"]), name
    for name in ENDED:
        assert "modelarts_training_job_exit_code" in ALERTS[name]["annotations"]["description"]
        assert ALERTS[name]["for"] == "0s"


def test_alerts_on_pools_name_the_pool():
    assert len(OF_POOLS) > 5
    for name in OF_POOLS:
        assert POOL_NAME.search(ALERTS[name]["annotations"]["summary"]), name


def test_texts_of_strangers_are_quoted():
    strange = r"\$labels\.(?:job_name|user|pool|workspace|from_recovery|to_recovery|job|resource)\b"
    for name, rule in ALERTS.items():
        for text in rule["annotations"].values():
            bare = re.sub(rf'printf "%q" {strange}', "", POOL_NAME.sub("", text))
            assert not re.search(strange, bare), name


def test_nothing_that_changes_is_in_a_label():
    """The end of a run does not."""
    for name, rule in ALERTS.items():
        assert "{{" not in str(rule["labels"] | {"ended": ""}), name


def test_the_console_is_named_in_one_place():
    named = [path for path in FILES for _ in re.findall(r"https://console\.", path.read_text())]
    assert len(named) == 1
    assert len({ALERTS[name]["annotations"]["console_url"] for name in PER_JOB}) == 1


def test_every_metric_exists():
    assert metrics(EXPRESSIONS["ModelArtsExporterStateFileErrors"]) == {
        "modelarts_exporter_state_errors_total",
        "process_start_time_seconds",
    }
    queries = [text for rule in ALERTS.values() for text in rule["annotations"].values()]
    in_texts = set(re.findall(r"modelarts_[a-z_]+(?=\{)", "".join(queries)))
    used = {name for text in EXPRESSIONS.values() for name in metrics(text)} | in_texts
    assert len(used) > 20
    assert {name for name in used if family(name)[1] is None} == set()


def test_rates_are_of_counters():
    found = 0
    for name, expression in EXPRESSIONS.items():
        for metric in re.findall(OVER_TIME, expression):
            assert family(metric)[1] in {"counter", "histogram"}, (name, metric)
            found += 1
    assert found > 20
    for rule in ALERTS.values():
        for metric in re.findall(OVER_TIME, "".join(rule["annotations"].values())):
            assert family(metric)[1] == "counter"


def test_joins_cannot_fail_by_duplicates():
    for name, text in EXPRESSIONS.items():
        expression = re.sub(r"\(\s+1,\s+", "(1, ", text)
        for on, one in re.findall(r"on \(([^)]*)\)\s+group_left \([^)]*\)\s+(.*)", expression):
            assert one.startswith(f"topk by ({on}) (1, "), name
        assert expression.count("group_left") == expression.count("topk by"), name
        assert "group_right" not in expression


def test_every_alert_has_its_runbook_and_the_index_has_all():
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == ALERTS.keys()
    index = (RUNBOOKS / "README.md").read_text()
    for name, rule in ALERTS.items():
        text = (RUNBOOKS / f"{name}.md").read_text()
        assert text.startswith(f"# {name}\n")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
            "What it means",
            "What to do",
            "When it resolves",
        ], name
        assert f"[{name}]({name}.md) | {rule['labels']['severity']} |" in index
        assert all(len(line) <= 120 for line in text.splitlines() if not line.startswith("|")), name


def test_metrics_and_options_in_the_pages_exist():
    known = {option.name for option in options()}
    for path in (*RUNBOOKS.glob("*.md"), RULES / "README.md"):
        text = path.read_text()
        for name in set(re.findall(r"(?<![\w:])modelarts_[a-z_]+", text)) - {"modelarts_exporter"}:
            assert family(name)[1], (path.name, name)
        named = set(re.findall(r"`((?:poll|jobs|api|state|target|web|log)\.[a-z_.]+)`", text))
        assert {name for name in named if not {name, f"targets.{name}"} & known} == set(), path.name


def test_thresholds_and_records_are_in_the_readme():
    text = (RULES / "README.md").read_text()
    changeable = [name for name, rule in ALERTS.items() if "<--" in rule["expr"]]
    assert len(changeable) == 16
    assert [name for name in changeable if f"| `{name}` |" not in text] == []
    # Families in one row share what is before the last colon.
    parts = {part for name in RECORDS for part in (name.rpartition(":")[0], name.split(":")[2])}
    assert [part for part in parts if part not in text] == []
