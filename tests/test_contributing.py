"""A contributor's loop: its pages and hooks name what exists, and unit tests are kept apart."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = ("CONTRIBUTING.md", "SECURITY.md")


@pytest.mark.parametrize("name", PAGES)
def test_prose_fits_into_120_columns(name):
    lines = (ROOT / name).read_text().splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


def test_the_files_it_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = set(re.findall(r"`([\w.-]+/[\w./-]*)`", text)) - {"docs/runbooks/ALERT.md"}
    assert len(paths) > 30
    assert {path for path in paths if not (ROOT / path).exists()} == set()


def test_the_targets_it_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = {word for words in re.findall(r"`make ([a-z ]+)", text) for word in words.split()}
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"unit", "test", "lint", "types", "docs"} <= named
    assert named - set(targets) == set()


def test_hooks_use_the_tools_of_the_project():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [each["repo"] for each in config["repos"]] == ["local"]
    for hook in config["repos"][0]["hooks"]:
        assert hook["language"] == "system"
        assert ".venv/bin/" in hook["entry"]


# --- the guard of tests/conftest.py ---------------------------------------------------------------


def starts_a_program():
    subprocess.run([sys.executable, "-c", ""], check=True)


def forks():
    if os.fork() == 0:
        os._exit(0)


def connects():
    with socket.socket() as probe:
        probe.connect(("192.0.2.1", 80))


def connects_without_waiting():
    with socket.socket() as probe:
        probe.connect_ex(("192.0.2.1", 80))


def sends():
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.sendto(b"x", ("192.0.2.1", 53))


def listens():
    with socket.socket() as probe:
        probe.bind(("", 0))


def resolves():
    socket.getaddrinfo("no-such-host.invalid", 80)


@pytest.mark.parametrize(
    "act",
    [starts_a_program, forks, connects, connects_without_waiting, sends, listens, resolves],
    ids=lambda act: act.__name__,
)
def test_a_unit_test_is_kept_from(act, guard):
    with pytest.raises(guard.error):
        act()
    assert len(guard.violations) == 1
    guard.violations.clear()


def test_a_unit_test_may_use_loopback(guard):
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(("localhost", server.getsockname()[1])),
    ):
        assert guard.violations == []
    left, right = socket.socketpair()
    with left, right:
        assert guard.violations == []
