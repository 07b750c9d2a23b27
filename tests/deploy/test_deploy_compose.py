"""The compose stack fits together: files, ports, names; the programs take their files."""

import re
import shutil
import subprocess

import pytest
import yaml
from deploy.manifests import DEPLOY, ROOT, tool

from exporter.settings.load import load

COMPOSE = DEPLOY / "compose"
STACK = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
SERVICES = STACK["services"]
EXAMPLE = (COMPOSE / "real.env.example").read_text()


def mounts(service):
    """Source, target and options of every mount."""
    return [each.split(":") for each in SERVICES[service].get("volumes", [])]


def provisioned(kind):
    (path,) = (COMPOSE / "grafana" / kind).glob("*.yaml")
    return yaml.safe_load(path.read_text())


def run(*command, cwd=None):
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("service", SERVICES)
def test_every_mount_is_there(service):
    for source, target, *options in mounts(service):
        assert target.startswith("/")
        if source.startswith("."):
            assert (COMPOSE / source).exists(), source
            assert options == ["ro"]
        else:
            assert source in STACK["volumes"]


@pytest.mark.parametrize("service", SERVICES)
def test_rights_are_few_and_ports_are_for_this_machine(service):
    options = SERVICES[service]
    assert options["cap_drop"] == ["ALL"]
    assert options["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in options
    for port in options.get("ports", []):
        assert port.startswith("127.0.0.1:")
    if service != "grafana":
        assert options["read_only"] is True


@pytest.mark.parametrize("service", SERVICES)
def test_images_have_versions(service):
    image = SERVICES[service]["image"]
    assert image == "modelarts-exporter" or re.search(r":v?\d+\.\d+\.\d+$", image)


def test_one_exporter_writes_the_state():
    exporter = SERVICES["exporter"]
    assert "deploy" not in exporter
    assert "scale" not in exporter
    owner = SERVICES["state"]
    user = re.search(r"^USER (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1]
    assert owner["entrypoint"] == ["chown", user, "/var/lib/modelarts-exporter"]
    assert owner["cap_add"] == ["CHOWN"]
    assert owner["network_mode"] == "none"
    assert exporter["depends_on"] == {"state": {"condition": "service_completed_successfully"}}


def test_the_demo_is_the_default_and_one_file_makes_it_real():
    mode, *options = SERVICES["exporter"]["command"]
    assert options == ["--web.listen-address=0.0.0.0:9978"], "the demo listens on 127.0.0.1"
    assert mode == "${MODE:-demo}"
    assert SERVICES["exporter"]["env_file"] == [{"path": ".env", "required": False}]
    assert ".env" in (COMPOSE / ".gitignore").read_text().split()
    lines = [line for line in EXAMPLE.splitlines() if line and not line.startswith("#")]
    given = dict(line.split("=", 1) for line in lines)
    assert given.pop("MODE") == "serve"
    assert {given[name] for name in given if name.startswith("HUAWEICLOUD_SDK_")} == {""}
    settings = load(options, given)
    (port,) = SERVICES["exporter"]["ports"]
    assert settings.web.listen_address == (("0.0.0.0", int(port.split(":")[-1])),)
    ((source, _),) = mounts("exporter")
    assert source == "state"
    assert settings.state.file == "/var/lib/modelarts-exporter/state.db"


def optional_mounts():
    """Those that are commented out."""
    lines = re.findall(r"^ +# - (\S+)$", (COMPOSE / "compose.yaml").read_text(), re.MULTILINE)
    return [line.split(":") for line in lines]


def test_prometheus_takes_its_files(tmp_path):
    shutil.copy(COMPOSE / "prometheus.yml", tmp_path)
    assert len(optional_mounts()) == 1
    for source, target, *_ in (*mounts("prometheus"), *optional_mounts()):
        if "/rules/" in target:
            here = tmp_path / target.removeprefix("/etc/prometheus/")
            here.parent.mkdir(exist_ok=True)
            shutil.copy(COMPOSE / source, here)
    said = run(tool("promtool"), "check", "config", "prometheus.yml", cwd=tmp_path)
    rules = {path.name for path in (DEPLOY / "prometheus").glob("modelarts.*.yml")}
    assert {name for name in rules if name in said} == rules


def test_alertmanager_takes_its_file():
    run(tool("amtool"), "check-config", COMPOSE / "alertmanager.yml")


def test_the_programs_find_each_other():
    config = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
    targets = [
        target
        for job in config["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    ]
    (manager,) = config["alerting"]["alertmanagers"]
    targets += manager["static_configs"][0]["targets"]
    (source,) = provisioned("datasources")["datasources"]
    targets.append(source["url"].removeprefix("http://"))
    for target in targets:
        host, port = target.split(":")
        if host != "localhost":
            assert f"127.0.0.1:{port}:{port}" in SERVICES[host]["ports"]
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]


def test_grafana_is_provisioned():
    at = {target: COMPOSE / source for source, target, *_ in mounts("grafana")}
    for kind in ("datasources", "dashboards"):
        assert list(at[f"/etc/grafana/provisioning/{kind}"].glob("*.yaml"))
    (provider,) = provisioned("dashboards")["providers"]
    path = provider["options"]["path"]
    assert at[path].resolve() == ROOT / "grafana"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    folder, name = home.rsplit("/", 1)
    assert (at[folder] / name).is_file()
