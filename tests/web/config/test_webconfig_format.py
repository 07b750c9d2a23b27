"""The format of the web configuration: what is taken, and the exact lines about what is not."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import trustme
import yaml
from message_table import MessageTable
from web.config.entrance import MUTUAL, TLS, Files

from exporter.commands.main import load_settings
from exporter.errors import ConfigError
from exporter.web.config.file import WebFile

REGION = ["--target.region", "cn-north-4"]
DOCS = Path(__file__).parents[3] / "docs/web-configuration.md"
# Of "secret". Fixed: it is part of the ids of tests.
HASH = "$2b$04$GBM.rMQFtyp6t5gpscWYXOdCu2jGJvuN54/FauvSyBLI/oWu6KJRy"
TABLE = MessageTable(Path(__file__).with_name("problems.yml"))


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    files = Files(tmp_path_factory.mktemp("web"))
    files.certify()
    trustme.CA().cert_pem.write_to_path(files.folder / "clients.pem")
    (files.folder / "a pipe").parent.mkdir(exist_ok=True)
    os.mkfifo(files.folder / "pipe")
    return files


def in_tls(*lines):
    return TLS + "".join(f"  {line}\n" for line in lines)


def indented(text):
    return text.replace("\n", "\n    ")


GOOD = {
    "nothing": "",
    "a comment": "# later\n",
    "empty sections": "tls_server_config:\nhttp_server_config: {headers: }\nbasic_auth_users: {}\n",
    "TLS": TLS,
    "clients": MUTUAL,
    "clients, if they like": MUTUAL.replace(
        "RequireAndVerifyClientCert", "VerifyClientCertIfGiven"
    ),
    "no clients": in_tls("client_auth_type: NoClientCert"),
    "versions": in_tls("min_version: TLS12", "max_version: TLS13"),
    "new only": in_tls("min_version: TLS13"),
    "old only": in_tls("max_version: TLS12"),
    "ciphers": in_tls(
        "cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]",
        "prefer_server_cipher_suites: false",
    ),
    "no choice of ciphers": in_tls("cipher_suites: []", "curve_preferences: []"),
    "curve": in_tls("curve_preferences: [CurveP384]"),
    "users": f"basic_auth_users: {{me: '{HASH}', 训练: '{HASH}', a b: '{HASH}'}}",
    "user that is a number": f"basic_auth_users: {{'123': '{HASH}'}}",
    "HTTP/2": "http_server_config: {http2: false}",
    "headers": (
        "http_server_config:\n  headers: {X-Frame-Options: sameorigin, "
        "X-Content-Type-Options: nosniff, X-XSS-Protection: '', "
        "Content-Security-Policy: \"default-src 'none'\"}\n"
    ),
}
NEW = {
    "names of clients": f"{MUTUAL}  client_allowed_sans: [prometheus.example]\n",
    "rate": "rate_limit: {interval: 1m30s, burst: 10}",
    "fast rate": "rate_limit: {interval: 100ms, burst: 1}",
    "no rate": "rate_limit: {interval: 0, burst: 0}",
}
"""What is taken by newer programs than Debian 12's only."""


@pytest.mark.parametrize("name", [*GOOD, *NEW])
def test_what_is_taken(here, name):
    here.write((GOOD | NEW)[name])
    loaded = WebFile(str(here.path)).load()
    assert loaded.problems == ()
    assert loaded.config is not None
    assert (loaded.context is None) == (loaded.config.tls is None)
    assert HASH not in repr(loaded)


def checkers():
    """The folders in which there may be a promtool: the one of the system, and a newer one."""
    for where in ("PATH", "PROMETHEUS3_DIR"):
        folder = os.environ.get(where)
        yield pytest.param(folder and shutil.which("promtool", path=folder), id=where)


@pytest.mark.parametrize("promtool", [*checkers()])
def test_promtool_takes_what_is_taken_here(here, promtool, request):
    if promtool is None:
        pytest.skip("no promtool there")
    names = {**GOOD, **(NEW if "PROMETHEUS3_DIR" in request.node.name else {})}
    files = []
    for number, text in enumerate(names.values()):
        files.append(here.folder / f"good{number}.yml")
        files[-1].write_text(text)
    done = subprocess.run(
        [promtool, "check", "web-config", *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("SUCCESS") == len(files)


@pytest.fixture(scope="module", autouse=True)
def _update():
    yield
    TABLE.save()


@pytest.mark.parametrize("case", TABLE.params())
def test_messages(here, case):
    here.write(case["file"])
    with pytest.raises(ConfigError) as caught:
        load_settings([*REGION, f"--web.config.file={here.path}"], {})
    said = [problem.replace(str(here.folder), "HERE") for problem in caught.value.problems]
    TABLE.check(case, said)
    assert "geheim" not in str(said)


def test_all_mistakes_at_once(here):
    here.write("tls_server_config: {min_version: 1}\nrate_limit: {burst: x}\nbasic: {}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(["--poll.interval=x", "--web.config.file", str(here.path)], {})
    said = [problem.split(": ")[:2] for problem in caught.value.problems]
    assert said == [
        ["web.config.file", "tls_server_config.min_version"],
        ["web.config.file", "rate_limit.burst"],
        ["web.config.file", "basic"],
        ["target.region", said[3][1]],
        ["poll.interval", said[4][1]],
    ]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("no.yml", 'cannot read "no.yml": No such file or directory'),
        (".", '"." is not a regular file'),
        ("pipe", '"pipe" is not a regular file'),
        ("latin", "invalid YAML: not UTF-8 text"),
    ],
)
def test_a_file_that_is_none(here, monkeypatch, name, wrong):
    monkeypatch.chdir(here.folder)
    (here.folder / "latin").write_bytes(b"# \xe9\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(REGION, {"MODELARTS_EXPORTER_WEB__CONFIG__FILE": name})
    origin = (
        "file latin"
        if name == "latin"
        else ("environment variable MODELARTS_EXPORTER_WEB__CONFIG__FILE")
    )
    assert list(caught.value.problems) == [f"web.config.file: {wrong} (from {origin})"]


def test_paths_are_relative_to_the_file(here, monkeypatch):
    here.write(TLS)
    monkeypatch.chdir(here.folder.parent)
    relative = f"{here.folder.name}/web.yml"
    assert load_settings([*REGION, f"--web.config.file={relative}"], {}).web.config.file == relative
    (here.folder / "exporter.yml").write_text(
        "target: {region: cn-north-4}\nweb: {config: {file: web.yml}}\n"
    )
    found = load_settings([f"--config.file={here.folder.name}/exporter.yml"], {})
    assert found.web.config.file == relative


def test_examples_of_the_page_work(here):
    page = DOCS.read_text()
    examples = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    ours = [text for text in examples if "scrape_configs" not in text]
    assert len(ours) == 2
    (here.folder / "clients-ca.pem").write_bytes((here.folder / "clients.pem").read_bytes())
    for text in ours:
        here.write(text)
        assert WebFile(str(here.path)).load().problems == ()


def test_the_page_names_every_key():
    page = DOCS.read_text()
    for text in (*GOOD.values(), *NEW.values()):
        for section, keys in (yaml.safe_load(text) or {}).items():
            assert section in page
            if section != "basic_auth_users":
                assert [key for key in keys or () if key not in page] == []


def test_prose_of_the_page_fits_into_120_columns():
    lines = DOCS.read_text().splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []
