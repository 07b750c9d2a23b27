"""The systemd unit is understood by systemd, gives few rights, and what it starts fits."""

import re
import shlex
import subprocess

import yaml
from deploy.manifests import DEPLOY, tool

from exporter.settings.load import load

FOLDER = DEPLOY / "systemd"
UNIT = FOLDER / "modelarts-exporter.service"
CHECK = FOLDER / "modelarts-exporter-check.service"
TEXT = UNIT.read_text()


def systemd_analyze(*arguments):
    done = subprocess.run(
        [tool("systemd-analyze"), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def value(key, text=TEXT):
    (found,) = re.findall(rf"^{key}=((?:.*\\\n)*.*)$", text, re.MULTILINE)
    return found.replace("\\\n", " ")


def settings_of(path):
    """The settings of the section [Service]; a key may be there twice."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    section = re.search(r"^\[Service\]\n(.*?)(?=^\[|\Z)", text, re.DOTALL | re.MULTILINE)[1]
    return [tuple(line.split("=", 1)) for line in section.splitlines() if line]


def verify(folder, text, name=UNIT.name):
    """With a program that is there."""
    path = folder / name
    path.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/sh", text, flags=re.MULTILINE))
    return systemd_analyze("verify", path)


def test_systemd_understands_it(tmp_path):
    assert verify(tmp_path, TEXT) == (0, "")


def test_systemd_understands_the_check(tmp_path):
    assert verify(tmp_path, CHECK.read_text(), CHECK.name) == (0, "")


def test_the_check_has_what_the_service_has():
    of_processes = {"Type", "ExecReload", "Restart", "RestartSec", "RestartPreventExitStatus"}
    of_processes |= {"ExecStart", "TimeoutStopSec"}
    service = [each for each in settings_of(UNIT) if each[0] not in of_processes]
    check = [each for each in settings_of(CHECK) if each[0] not in of_processes]
    (paths,) = [each for each in check if each[0] == "BindReadOnlyPaths"]
    check.remove(paths)
    assert check == service
    assert ("User", "modelarts-exporter") in service, "or the state would change its owner"
    # Where the configuration looks for its secrets.
    assert paths[1] == f"%d:/run/credentials/{UNIT.name}"
    assert paths[1].split(":")[1] in (FOLDER / "exporter.yml.example").read_text()
    text = CHECK.read_text()
    assert value("ExecStart", text) == value("ExecStart").replace(" serve ", " check ")
    assert value("Type", text) == "oneshot"
    assert "[Install]" not in text


def test_systemd_finds_misspelt_keys(tmp_path):
    _, said = verify(tmp_path, TEXT.replace("PrivateTmp=", "PrivatTmp="))
    assert "PrivatTmp" in said


def test_its_exposure_is_low():
    code, said = systemd_analyze("security", "--offline=true", "--threshold=15", UNIT)
    assert code == 0, said


def test_the_exporter_understands_its_options(tmp_path):
    program, command, *options = shlex.split(value("ExecStart"))
    assert (program, command) == ("/opt/modelarts-exporter/bin/modelarts-exporter", "serve")
    name, path = value("LoadCredential").split(":")
    assert path.startswith("/etc/modelarts-exporter/")
    config = (FOLDER / "exporter.yml.example").read_text()
    secret = f"/run/credentials/{UNIT.name}/{name}"
    assert secret in config
    (tmp_path / name).write_text("secret")
    (tmp_path / "exporter.yml").write_text(config.replace(secret, str(tmp_path / name)))
    here = [each.replace("/etc/modelarts-exporter", str(tmp_path)) for each in options]
    settings = load([each.replace("%S", "/var/lib") for each in here], {})
    (target,) = settings.targets
    assert target.auth.secret_key_file
    state = f"/var/lib/{value('StateDirectory')}/"
    assert settings.state.file.startswith(state)


def test_the_example_of_variables_is_understood():
    text = (FOLDER / "exporter.env.example").read_text()
    given = dict(re.findall(r"^#([A-Z_]+)=(.+)$", text, re.MULTILINE))
    assert given
    load(["--target.region=cn-north-4"], given)


def test_no_secret_is_in_the_examples():
    for path in FOLDER.glob("*.example"):
        assert not re.search(r"(secret_key|password|token|_SK)\s*[:=]\s*\S", path.read_text())
    assert "secret_key" not in yaml.safe_load((FOLDER / "exporter.yml.example").read_text())


def test_a_bad_configuration_is_not_tried_again():
    assert value("RestartPreventExitStatus") == "2"


def test_reload_is_the_signal_that_the_exporter_understands():
    assert value("ExecReload") == "/bin/kill -HUP $MAINPID"
    assert value("Type") == "exec"  # with notify-reload, systemd would wait for an answer
