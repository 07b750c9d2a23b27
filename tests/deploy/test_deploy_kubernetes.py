"""The plain Kubernetes manifests are valid, and deploy what the chart deploys."""

import pytest
import yaml
from deploy.manifests import (
    DEPLOY,
    PROBES,
    by_kind,
    documents,
    hardened,
    one_series,
    one_writer,
    valid,
    workload,
)

import exporter
from exporter.settings.load import load

FILES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
OBJECTS = {path.stem: documents(path.read_text()) for path in FILES}
WITH_PODS = ["demo", "modelarts-exporter"]


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_are_valid(name):
    for document in OBJECTS[name]:
        valid(document, kubernetes=["1.25", "1.30", "1.37"])
        assert "namespace" not in document["metadata"], "kubectl is told the namespace"


@pytest.mark.parametrize("name", WITH_PODS)
def test_what_is_deployed(name):
    found, pod, container = workload(OBJECTS[name])
    hardened(pod)
    one_writer(found, container)
    assert container["image"] == f"modelarts-exporter:{exporter.__version__}"
    for probe, path in PROBES.items():
        assert container[probe]["httpGet"] == {"path": path, "port": "metrics"}
    labels = found["spec"]["template"]["metadata"]["labels"]
    assert found["spec"]["selector"]["matchLabels"] == labels
    assert by_kind(OBJECTS[name], "Service")["spec"]["selector"] == labels


def test_the_demo_can_be_reached_from_outside_the_pod():
    _, _, container = workload(OBJECTS["demo"])
    assert container["args"] == ["demo", "--web.listen-address=0.0.0.0:9978"]


def test_the_check_runs_with_what_the_exporter_has():
    (job,) = OBJECTS["check"]
    _, pod, container = workload(OBJECTS["modelarts-exporter"])
    template = job["spec"]["template"]
    checking = template["spec"]
    hardened(checking)
    assert checking.pop("restartPolicy") == "Never"
    assert job["spec"]["backoffLimit"] == 0, "a second attempt finds the same"
    (check,) = checking.pop("containers")
    assert checking.pop("volumes") == pod.pop("volumes")
    assert checking == {key: value for key, value in pod.items() if key != "containers"}
    command, config, state = container["args"]
    assert (command, state.split("=")[0]) == ("serve", "--state.file")
    assert check["args"] == ["check", config]
    mounts = [each for each in container["volumeMounts"] if each["name"] != "state"]
    assert check["volumeMounts"] == mounts
    for key in ("image", "env", "securityContext", "resources"):
        assert check[key] == container[key]
    labels = template["metadata"]["labels"]
    selector = by_kind(OBJECTS["modelarts-exporter"], "Service")["spec"]["selector"]
    assert not selector.items() <= labels.items(), "it serves nothing"


def test_everybody_finds_the_others():
    objects = OBJECTS["modelarts-exporter"]
    found, _, _ = workload(objects)
    labels = found["spec"]["template"]["metadata"]["labels"]
    assert by_kind(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    (monitor,) = OBJECTS["servicemonitor"]
    assert monitor["spec"]["selector"]["matchLabels"] == labels
    assert one_series(monitor) == "modelarts-exporter"
    assert by_kind(objects, "Service")["metadata"]["labels"] == labels
    demo, _, _ = workload(OBJECTS["demo"])
    assert demo["spec"]["template"]["metadata"]["labels"] != labels


def test_the_exporter_understands_its_options(tmp_path):
    objects = OBJECTS["modelarts-exporter"]
    _, _, container = workload(objects)
    config = tmp_path / "config.yaml"
    config.write_text(by_kind(objects, "ConfigMap")["data"]["config.yaml"])
    path = "/etc/modelarts-exporter/config/config.yaml"
    settings = load([each.replace(path, str(config)) for each in container["args"][1:]], {})
    assert settings.state.file == "/var/lib/modelarts-exporter/state.db"
    assert yaml.safe_load(config.read_text())["target"]["region"] == settings.target.region
