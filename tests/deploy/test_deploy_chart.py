"""The Helm chart renders what a cluster takes, and what the exporter understands."""

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml
from deploy.manifests import (
    CHART,
    DEPLOY,
    PROBES,
    ROOT,
    as_values,
    by_kind,
    crd,
    hardened,
    one_series,
    one_writer,
    tool,
    valid,
    workload,
)

import exporter
from exporter.settings.load import load

pytestmark = pytest.mark.timeout(600)  # helm may have to be fetched

CASES = {path.stem.removesuffix("-values"): path for path in sorted(CHART.glob("ci/*-values.yaml"))}
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
RULES = {path.name: path for path in (DEPLOY / "prometheus").glob("modelarts.*.yml")}
DEFAULT_RULES = RULES.keys() - {"modelarts.cost.rules.yml"}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DASHBOARDS = {path.name: path for path in (ROOT / "grafana").glob("*.json")}

each_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="session")
def rendered(helm):
    known = {}

    def render(case):
        if case not in known:
            known[case] = helm.render("--values", CASES[case])
        return known[case]

    return render


def groups(*names):
    return [group for name in names for group in yaml.safe_load(RULES[name].read_text())["groups"]]


# --- one source -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "sources"), [("rules", RULES), ("dashboards", DASHBOARDS)])
def test_the_chart_has_every_rule_and_dashboard_as_a_link(folder, sources):
    linked = {path.name: path for path in (CHART / "files" / folder).iterdir()}
    assert linked.keys() == sources.keys()
    for name, path in linked.items():
        assert path.is_symlink(), "a copy would drift"
        assert path.resolve() == sources[name].resolve()
        assert not path.readlink().is_absolute()


def test_a_packaged_chart_has_them_as_files(helm, tmp_path):
    code, _, err = helm("package", CHART, "--destination", tmp_path)
    assert code == 0, err
    (archive,) = tmp_path.glob("*.tgz")
    objects = helm.render("--values", CASES["demo"], chart=archive)
    assert by_kind(objects, "PrometheusRule")["spec"] == {"groups": groups(*sorted(DEFAULT_RULES))}
    assert archive.stat().st_size < 500_000, "a release must fit into a Secret of 1 MB"


def test_rules_arrive_as_they_are(rendered):
    spec = by_kind(rendered("demo"), "PrometheusRule")["spec"]
    assert spec == {"groups": groups(*sorted(DEFAULT_RULES))}


def test_costs_have_the_prices_of_the_values(rendered):
    spec = by_kind(rendered("full"), "PrometheusRule")["spec"]
    arrived = {group["name"]: group for group in spec["groups"]}
    prices, *others = groups("modelarts.cost.rules.yml")
    assert [arrived[group["name"]] for group in others] == others
    found = [
        (rule["record"], *rule["labels"].items(), float(rule["expr"][len("vector(") : -1]))
        for rule in arrived[prices["name"]]["rules"]
    ]
    assert found == [
        ("modelarts_price_per_card_hour", ("accelerator", "ascend-Snt9b"), 16.5),
        ("modelarts_price_per_card_hour", ("accelerator", "unknown"), 1e6),
        ("modelarts_price_per_node_hour", ("flavor", "modelarts.vm.gpu.8ant8"), 70.0),
    ]


def test_costs_without_prices_are_refused(helm):
    said = helm.refuse("--values", CASES["demo"], "--set", "prometheusRule.costs.enabled=true")
    assert "set prices in cardHour or nodeHour" in said


def test_dashboards_arrive_as_they_are(rendered):
    maps = [each for each in rendered("demo") if each["kind"] == "ConfigMap"]
    assert all(each["metadata"]["labels"]["grafana_dashboard"] == "1" for each in maps)
    arrived = {name: text for each in maps for name, text in each["data"].items()}
    assert {name: json.loads(text) for name, text in arrived.items()} == {
        f"modelarts-{name}": json.loads(path.read_text()) for name, path in DASHBOARDS.items()
    }
    assert all(len(text) < 2**20 for text in arrived.values())


def test_promtool_takes_the_rendered_rules(rendered, tmp_path):
    for case in ("demo", "full"):
        path = tmp_path / f"{case}.yml"
        path.write_text(yaml.safe_dump(by_kind(rendered(case), "PrometheusRule")["spec"]))
        command = [tool("promtool"), "check", "rules", "--lint=all", "--lint-fatal", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


# --- what a cluster takes -------------------------------------------------------------------------


@each_case
def test_lint(helm, case):
    code, out, err = helm("lint", "--strict", CHART, "--values", CASES[case])
    assert code == 0, out + err


@each_case
def test_objects_are_valid(rendered, case):
    for document in rendered(case):
        valid(document, kubernetes=["1.25", "1.30", "1.37"])


def test_the_schemas_find_mistakes(rendered):
    monitor = by_kind(rendered("full"), "ServiceMonitor")
    rule = by_kind(rendered("full"), "PrometheusRule")
    endpoint = monitor["spec"]["endpoints"][0]
    for damaged in (
        {**endpoint, "intervall": "15s"},
        {**endpoint, "interval": "15 s"},
        {**endpoint, "relabelings": [{"action": "drops"}]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            valid({**monitor, "spec": {**monitor["spec"], "endpoints": [damaged]}}, kubernetes=[])
    group = rule["spec"]["groups"][0]
    bad = {**group["rules"][0], "keepFiringFor": "1m"}
    with pytest.raises(jsonschema.ValidationError):
        valid({**rule, "spec": {"groups": [{**group, "rules": [bad]}]}}, kubernetes=[])
    assert crd("ServiceMonitor")["properties"]["spec"]["additionalProperties"] is False


@each_case
def test_names_are_unique_and_in_the_namespace(rendered, case):
    identities = [
        (each["kind"], each["metadata"]["namespace"], each["metadata"]["name"])
        for each in rendered(case)
    ]
    assert len(identities) == len(set(identities))


def test_long_names_stay_valid(helm):
    objects = helm.render("--values", CASES["demo"], release="r" * 53)
    assert all(len(each["metadata"]["name"]) <= 63 for each in objects)


# --- what is deployed -----------------------------------------------------------------------------


@each_case
def test_one_writer(rendered, case):
    found, _, container = workload(rendered(case))
    one_writer(found, container)
    assert found["kind"] == ("Deployment" if case in ("demo", "stateless") else "StatefulSet")


@each_case
def test_security(rendered, case):
    _, pod, container = workload(rendered(case))
    hardened(pod, [container])
    hardened(by_kind(rendered(case), "Pod")["spec"])
    for account in (each for each in rendered(case) if each["kind"] == "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


@each_case
def test_probes_ask_for_health_and_never_for_metrics(rendered, case):
    _, _, container = workload(rendered(case))
    for name, path in PROBES.items():
        asked = container[name]["httpGet"]
        assert asked["path"] == path
        assert asked["port"] == "metrics"
        assert asked["scheme"] == ("HTTPS" if case == "full" else "HTTP")


def test_probes_of_a_port_with_tls_connect_only_unless_told_how_to_ask(helm, tmp_path):
    values = as_values(tmp_path, {"webConfig": {"existingSecret": "web"}})
    _, _, container = workload(helm.render("--values", CASES["default"], *values))
    for name in PROBES:
        assert container[name]["tcpSocket"] == {"port": "metrics"}
        assert "httpGet" not in container[name]


@each_case
def test_selectors_find_the_pod_and_the_service(rendered, case):
    objects = rendered(case)
    found, _, container = workload(objects)
    labels = found["spec"]["template"]["metadata"]["labels"].items()
    service = by_kind(objects, "Service")
    (port,) = service["spec"]["ports"]
    assert found["spec"]["selector"]["matchLabels"].items() <= labels
    assert service["spec"]["selector"].items() <= labels
    assert port["targetPort"] in {each["name"] for each in container["ports"]}
    for policy in (each for each in objects if each["kind"] == "NetworkPolicy"):
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels
        assert policy["spec"]["ingress"][0]["ports"][0]["port"] == "metrics"
    for budget in (each for each in objects if each["kind"] == "PodDisruptionBudget"):
        assert budget["spec"]["selector"] == found["spec"]["selector"]
    for spread in found["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
        assert spread["labelSelector"] == found["spec"]["selector"]
    for ingress in (each for each in objects if each["kind"] == "Ingress"):
        for rule in ingress["spec"]["rules"]:
            (path,) = rule["http"]["paths"]
            assert path["backend"]["service"] == {
                "name": service["metadata"]["name"],
                "port": {"name": port["name"]},
            }
    for monitor in (each for each in objects if each["kind"] == "ServiceMonitor"):
        spec = monitor["spec"]
        selected = spec["selector"]["matchLabels"].items()
        assert selected <= service["metadata"]["labels"].items()
        assert spec["namespaceSelector"]["matchNames"] == [service["metadata"]["namespace"]]
        assert spec["endpoints"][0]["port"] == port["name"]
        assert spec["endpoints"][0]["honorLabels"] is True


def test_everything_that_can_be_placed_is_in_one_case(rendered):
    kinds = {each["kind"] for each in rendered("full")}
    assert {"Ingress", "NetworkPolicy", "PodDisruptionBudget", "ServiceMonitor"} <= kinds
    found, pod, _ = workload(rendered("full"))
    assert pod["topologySpreadConstraints"]
    assert found["metadata"]["annotations"] == {"example.com/reload": "true"}
    assert found["metadata"]["labels"]["example.com/owner"] == "platform"


@pytest.mark.parametrize("limit", ["targetLimit", "sampleLimit", "labelLimit", "bodySizeLimit"])
def test_scrapes_have_limits_only_if_they_are_set(helm, rendered, limit):
    with_limits = by_kind(rendered("full"), "ServiceMonitor")["spec"]
    assert with_limits[limit] == yaml.safe_load(CASES["full"].read_text())["serviceMonitor"][limit]
    assert limit not in by_kind(rendered("demo"), "ServiceMonitor")["spec"]


def test_an_ingress_needs_a_host(helm):
    said = helm.refuse("--values", CASES["default"], "--set", "ingress.enabled=true")
    assert "ingress.hosts" in said


@pytest.mark.parametrize("case", ["default", "full", "identity", "stateless"])
def test_helm_test_checks_with_what_the_exporter_has(rendered, case):
    objects = rendered(case)
    check = by_kind(objects, "Pod")
    _, pod, container = workload(objects)
    assert check["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert not by_kind(objects, "Service")["spec"]["selector"].items() <= (
        check["metadata"]["labels"].items()
    )
    spec = check["spec"]
    (checking,) = spec.pop("containers")
    assert spec.pop("restartPolicy") == "Never"
    lacking = ("containers", "terminationGracePeriodSeconds", "topologySpreadConstraints")
    stateless = {key: value for key, value in pod.items() if key not in lacking}
    if "volumes" in stateless:
        stateless["volumes"] = [each for each in pod["volumes"] if each["name"] != "state"]
    assert spec == stateless
    for key in ("image", "env", "envFrom", "securityContext", "resources"):
        assert checking.get(key) == container.get(key)
    assert checking["volumeMounts"] == [
        each for each in container["volumeMounts"] if each["name"] != "state"
    ]
    assert checking["args"] == ["check"] + [
        each
        for each in container["args"][1:]
        if not each.startswith(("--state.file", "--web.listen-address"))
    ]


def test_helm_test_of_the_demo_connects_to_its_service(rendered):
    service = by_kind(rendered("demo"), "Service")
    (container,) = by_kind(rendered("demo"), "Pod")["spec"]["containers"]
    assert container["command"] == ["python3", "-Ic"]
    (code,) = container["args"]
    compile(code, "args", "exec")
    assert f'("{service["metadata"]["name"]}", {service["spec"]["ports"][0]["port"]})' in code


def test_other_releases_are_not_selected(helm):
    one, two = (helm.render("--values", CASES["demo"], release=name) for name in ("one", "two"))
    selector = by_kind(one, "Service")["spec"]["selector"]
    pod = by_kind(two, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert not selector.items() <= pod.items()


@each_case
def test_volumes_and_mounts_belong_together(rendered, case):
    found, pod, container = workload(rendered(case))
    claims = found["spec"].get("volumeClaimTemplates", [])
    volumes = [each["name"] for each in pod.get("volumes", [])]
    volumes += [each["metadata"]["name"] for each in claims]
    mounts = [each["name"] for each in container.get("volumeMounts", [])]
    assert sorted(volumes) == sorted(mounts)


@each_case
def test_the_exporter_understands_its_options(rendered, case, tmp_path):
    """With the files that the container would see."""
    objects = rendered(case)
    _, _, container = workload(objects)
    if container["args"][0] == "demo":
        arguments = [each for each in container["args"][1:] if each.startswith("--web")]
        arguments.append("--target.region=cn-north-4")
    else:
        arguments = container["args"][1:]
    files = {
        "/etc/modelarts-exporter/config/config.yaml": "target: {region: cn-north-4}",
        "/etc/modelarts-exporter/web/web-config.yml": "basic_auth_users: {}",
    }
    for each in objects:
        if each["kind"] == "ConfigMap" and "config.yaml" in each["data"]:
            files["/etc/modelarts-exporter/config/config.yaml"] = each["data"]["config.yaml"]
    text = json.dumps([arguments, files])
    for secret in re.findall(r"/etc/modelarts-exporter/credentials/\w+", text):
        files[secret] = "secret"
    for path, content in files.items():
        here = tmp_path / path[1:]
        here.parent.mkdir(parents=True, exist_ok=True)
        here.write_text(content.replace("/etc/", f"{tmp_path}/etc/"))
    environ = {each["name"]: each.get("value", "x") for each in container.get("env", [])}
    settings = load([each.replace("=/etc/", f"={tmp_path}/etc/") for each in arguments], environ)
    assert settings.all_targets()
    (address,) = settings.web.listen_address
    assert address[1] == container["ports"][0]["containerPort"]
    monitors = [each for each in objects if each["kind"] == "ServiceMonitor"]
    for monitor in monitors:
        assert monitor["spec"]["endpoints"][0]["path"] == settings.web.telemetry_path


@each_case
def test_secrets_come_by_reference_alone(rendered, case):
    assert "Secret" not in {each["kind"] for each in rendered(case)}


@pytest.mark.parametrize("key", ["secret_key", "security_token", "password", "token"])
def test_secrets_in_the_configuration_are_refused(helm, tmp_path, key):
    target = {"region": "cn-north-4", "auth": {key: "hunter2"}}
    for config in ({"target": target}, {"targets": [target]}):
        said = helm.refuse(*as_values(tmp_path, {"config": config}))
        assert f"auth.{key}_file" in said
        assert "hunter2" not in said


def test_a_password_of_the_proxy_is_refused(helm, tmp_path):
    target = {"region": "cn-north-4", "proxy": "http://u:hunter2@proxy:3128"}
    assert "proxy" in helm.refuse(*as_values(tmp_path, {"config": {"target": target}}))


def test_a_new_pod_continues_the_series(helm, rendered):
    # With the state file, too, and by default: else increase() would miss what it catches up with.
    with_state = helm.render("--values", CASES["default"], "--set", "serviceMonitor.enabled=true")
    assert by_kind(with_state, "StatefulSet")
    for objects in (with_state, rendered("demo")):
        assert one_series(by_kind(objects, "ServiceMonitor")) == "rel-modelarts-exporter"
    plain = by_kind(rendered("stateless"), "ServiceMonitor")["spec"]["endpoints"][0]
    assert "relabelings" not in plain


def test_the_example_of_a_pod_monitor_does_what_the_service_monitor_does(helm):
    (monitor,) = [
        yaml.safe_load(example)
        for example in re.findall(
            r"```yaml\n(.*?)```", (CHART / "README.md").read_text(), re.DOTALL
        )
        if "PodMonitor" in example
    ]
    valid(monitor, kubernetes=[])
    objects = helm.render("--values", CASES["default"], release="modelarts-exporter")
    found, _, container = workload(objects)
    labels = found["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {each["name"] for each in container["ports"]}
    assert one_series(monitor) == "modelarts-exporter"


def test_a_change_of_the_configuration_makes_a_new_pod(helm, rendered):
    changed = helm.render("--values", CASES["default"], "--set", "config.poll.interval=30s")
    sums = {
        workload(objects)[0]["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        for objects in (changed, rendered("default"))
    }
    assert len(sums) == 2


@pytest.mark.parametrize("case", ["default", "full", "stateless"])
def test_the_notes_say_how_to_check(helm, rendered, tmp_path, case):
    arguments = ("--namespace", "ns", "--dry-run=client", "--values", CASES[case])
    extra = as_values(tmp_path, {"extraArgs": ["--target.name=it's me"]})
    code, said, err = helm("install", "rel", CHART, *arguments, *extra)
    assert code == 0, err
    (line,) = [each for each in said.splitlines() if " exec " in each and each[:2] == "  "]
    kubectl, inside = (shlex.split(each) for each in line.split(" -- "))
    found, _, container = workload(rendered(case))
    place = f"{found['kind'].lower()}/{found['metadata']['name']}"
    assert kubectl == ["kubectl", "--namespace", found["metadata"]["namespace"], "exec", place]
    assert inside[:2] == ["modelarts-exporter", "check"]
    assert inside[-1] == "--target.name=it's me"
    assert {*inside[2:-1]} <= {*container["args"]}
    assert [each for each in inside if each.startswith("--config.file=")]
    assert not [each for each in inside if each.startswith(("--state", "--web.listen"))]


def test_the_notes_of_the_demo_check_nothing(helm):
    _, said, _ = helm("install", "rel", CHART, "--dry-run=client", "--values", CASES["demo"])
    assert "port-forward" in said
    assert "exporter check" not in said


# --- values ---------------------------------------------------------------------------------------


def test_the_schema_has_the_values_and_no_others():
    def compare(values, schema, path):
        if schema.get("additionalProperties") is not False or "properties" not in schema:
            return
        assert set(values) <= schema["properties"].keys(), path
        if path and not set(values):
            return  # free to be given, such as config
        if "Probe" not in path:
            assert schema["properties"].keys() - set(values) <= {"claims"}, path
        for key, value in values.items():
            if isinstance(value, dict):
                compare(value, schema["properties"][key], f"{path}.{key}")

    compare(VALUES, SCHEMA, "")
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "values",
    [
        {"persistance": {"enabled": False}},
        {"persistence": {"size": "1 GB"}},
        {"config": {"pol": {"interval": "30s"}}},
        {"config": {"poll": {"intervall": "30s"}}},
        {"config": {"poll": {"interval": "30 seconds"}}},
        {"config": {"api": {"retries": -1}}},
        {"config": {"jobs": {"per_job": "maybe"}}},
        {"config": {"target": {"region": "a-b", "auth": {"methode": "aksk"}}}},
        {"config": {"targets": [{"region": "a-b", "workspace": ["0"]}]}},
        {"config": {"targets": [{"name": "without a region"}]}},
        {"config": {"web": {"listen_address": "0.0.0.0:1"}}},
        {"config": {"state": {"file": "/tmp/state.db"}}},
        {"config": {"target": {"region": "a-b"}, "targets": [{"region": "a-b"}]}},
        {"serviceMonitor": {"interval": "30 seconds"}},
        {"image": {"digest": "latest"}},
        {"replicas": 2},
        {"extraArgs": ["jobs.retention=2h"]},
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_refused(helm, tmp_path, values):
    said = helm.refuse("--values", CASES["default"], *as_values(tmp_path, values))
    assert "schema" in said or "additional properties" in said.lower()


def test_without_a_target_it_says_what_to_do(helm):
    assert "config.target.region" in helm.refuse()


def test_two_configurations_are_refused(helm):
    said = helm.refuse("--values", CASES["default"], "--set", "existingConfigSecret.name=x")
    assert "set only one of them" in said


def test_alerts_can_be_left_out_and_changed(rendered):
    before = {
        rule["alert"]: rule for group in groups("modelarts.alerts.yml") for rule in group["rules"]
    }
    spec = by_kind(rendered("full"), "PrometheusRule")["spec"]
    after = {
        rule["alert"]: rule
        for group in spec["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert before.keys() - after.keys() == {"ModelArtsExporterJobsWithoutSeries"}
    assert after["ModelArtsExporterThrottled"]["for"] == "1h"
    assert after["ModelArtsExporterThrottled"]["labels"]["severity"] == "info"
    for name, rule in after.items():
        assert rule["labels"]["cluster"] == "cce-1"
        assert rule["expr"] == before[name]["expr"]
        page = f"https://wiki.example.com/modelarts/{name}.md"
        assert rule["annotations"]["runbook_url"] == page
    text = json.dumps(spec)
    assert "console-intl.huaweicloud.com" in text
    assert "console.huaweicloud.com" not in text
    assert spec["groups"][-1]["name"] == "mine"


@pytest.mark.parametrize("how", ["disabled[0]=ModelArtsTypo", "overrides.ModelArtsTypo.for=1m"])
def test_a_change_of_no_alert_is_refused(helm, how):
    said = helm.refuse("--values", CASES["demo"], "--set", f"prometheusRule.{how}")
    assert "no alert ModelArtsTypo" in said
    assert "ModelArtsTrainingJobFailed" in said


def test_manifests_of_ones_own(rendered):
    extra = {
        each["metadata"]["name"]: each["data"]
        for each in rendered("full")
        if each["metadata"]["name"].startswith("extra-")
    }
    assert extra == {"extra-object": {"release": "rel"}, "extra-text": {"service": "ma"}}


# --- metadata -------------------------------------------------------------------------------------


def test_the_version_is_the_exporters():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == exporter.__version__


def test_the_chart_says_where_it_comes_from():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["home"] in chart["sources"]
    assert chart["home"] == PYPROJECT["project"]["urls"]["Source"]
    assert [each["url"] for each in chart["maintainers"]] == [chart["home"].rpartition("/")[0]]
    path = chart["icon"].removeprefix(
        chart["home"].replace("//github.com/", "//raw.githubusercontent.com/") + "/main/"
    )
    assert (ROOT / path).read_text().startswith("<svg ")


def test_the_readme_names_every_value():
    text = (CHART / "README.md").read_text()
    assert [key for key in VALUES if f"`{key}" not in text] == []


def test_the_image_is_the_release_or_the_digest(rendered):
    images = {case: workload(rendered(case))[2]["image"] for case in ("default", "full")}
    place = "ghcr.io/modelarts-exporter/modelarts-exporter"
    assert images["default"] == f"{place}:{exporter.__version__}"
    registry = "swr.cn-north-4.myhuaweicloud.com/ai/modelarts-exporter@sha256:"
    assert images["full"].startswith(registry)


def test_everything_that_links_to_is_there():
    for path in [CHART / "README.md", DEPLOY / "README.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            assert Path(path.parent, target).exists(), target
