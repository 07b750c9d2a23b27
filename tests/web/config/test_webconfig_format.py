"""The format of the web configuration: what is taken, and the exact lines about what is not."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import trustme
import yaml
from web.config.entrance import MUTUAL, TLS, Files

from exporter.commands.main import load_settings
from exporter.errors import ConfigError
from exporter.web.config.file import WebFile

REGION = ["--target.region", "cn-north-4"]
DOCS = Path(__file__).parents[3] / "docs/web-configuration.md"
# Of "secret". Fixed: it is part of the ids of tests.
HASH = "$2b$04$GBM.rMQFtyp6t5gpscWYXOdCu2jGJvuN54/FauvSyBLI/oWu6KJRy"
NO_HASH = "is no bcrypt hash; valid: as htpasswd -nBC 10 USER prints it"
PEM = 'a text (not shown) is no text in PEM format; valid: a text of lines, after "|"'
LISTED = "valid: NoClientCert, VerifyClientCertIfGiven, RequireAndVerifyClientCert"
UNREAD = f"would take any certificate unread; {LISTED}"
GOOD_CIPHERS = ", ".join(
    sorted(
        [
            f"TLS_ECDHE_{sign}_WITH_{cipher}"
            for sign in ("ECDSA", "RSA")
            for cipher in (
                "AES_128_CBC_SHA",
                "AES_128_GCM_SHA256",
                "AES_256_CBC_SHA",
                "AES_256_GCM_SHA384",
                "CHACHA20_POLY1305_SHA256",
            )
        ]
        + ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
    )
)


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


T = "tls_server_config"
BAD = {
    # the document
    "a b": [
        (
            "",
            (
                'a text where a mapping belongs; valid: "KEY: VALUE" lines, with a blank after '
                "the colon"
            ),
            None,
        )
    ],
    "[]": [
        (
            "",
            (
                'a list where a mapping belongs; valid: "KEY: VALUE" lines, with a blank after '
                "the colon"
            ),
            None,
        )
    ],
    "basic_auth_users: {": [
        ("", "expected the node content, but found '<stream end>'; valid: YAML", 1)
    ],
    "\tx: 1": [("", "a tab; valid: spaces", 1)],
    f"{T}: yes": [
        (
            T,
            (
                'a yes or no where a mapping belongs; valid: "KEY: VALUE" lines, with a '
                "blank after the colon"
            ),
            1,
        )
    ],
    # unknown keys
    "tls_config: {}": [("tls_config", "unknown; did you mean tls_server_config?", 1)],
    "\nbasic_auth: {}": [("basic_auth", "unknown; did you mean basic_auth_users?", 2)],
    "cert_file: a": [("cert_file", f"unknown; did you mean {T}.cert_file?", 1)],
    "zzz: 1": [
        ("zzz", f"unknown; valid: {T}, http_server_config, basic_auth_users, rate_limit", 1)
    ],
    "1: 1": [("1", f"unknown; valid: {T}, http_server_config, basic_auth_users, rate_limit", 1)],
    in_tls("cert_fil: x"): [(f"{T}.cert_fil", f"unknown; did you mean {T}.cert_file?", 4)],
    "http_server_config: {headers: {X-Frame-Option: deny}}": [
        (
            "http_server_config.headers.X-Frame-Option",
            ("unknown; did you mean http_server_config.headers.X-Frame-Options?"),
            1,
        )
    ],
    "http_server_config: {headers: {Server: x}}": [
        (
            "http_server_config.headers.Server",
            (
                "unknown; valid: Content-Security-Policy, Strict-Transport-Security, "
                "X-Content-Type-Options, X-Frame-Options, X-XSS-Protection"
            ),
            1,
        )
    ],
    in_tls("cert_file: b"): [(f"{T}.cert_file", "is there twice; valid: once", 2)],
    # users
    "basic_auth_users: {me: geheim}": [("basic_auth_users.me", f"a text (not shown) {NO_HASH}", 1)],
    "basic_auth_users:\n  me:\n": [("basic_auth_users.me", f"nothing (not shown) {NO_HASH}", 2)],
    f"basic_auth_users: {{me: '{HASH[:-1]}'}}": [
        ("basic_auth_users.me", f"a text (not shown) {NO_HASH}", 1)
    ],
    f"basic_auth_users: {{me: '{HASH[:28]}A{HASH[29:]}'}}": [
        ("basic_auth_users.me", f"a text (not shown) {NO_HASH}", 1)
    ],
    f"basic_auth_users: {{me: '{HASH.replace('$04', '$15')}'}}": [
        ("basic_auth_users.me", "its cost is 15; valid: 04 to 14, 10 is usual", 1)
    ],
    f"basic_auth_users: {{me: '{HASH.replace('$04', '$03')}'}}": [
        ("basic_auth_users.me", "its cost is 03; valid: 04 to 14, 10 is usual", 1)
    ],
    f"basic_auth_users: {{1: '{HASH}', a:b: '{HASH}', '': '{HASH}'}}": [
        (
            f"basic_auth_users.{name}",
            ("is no user; valid: text without a colon, in quotes if it looks like a number"),
            1,
        )
        for name in ("1", "(odd key)", "(odd key)")
    ],
    f"basic_auth_users: [me, '{HASH}']": [
        (
            "basic_auth_users",
            (
                'a list where a mapping belongs; valid: "KEY: VALUE" lines, with a '
                "blank after the colon"
            ),
            1,
        )
    ],
    # certificates
    f"{T}: {{cert_file: server.pem}}": [
        (f"{T}.key_file", "required for TLS, or key; valid: a path", None)
    ],
    f"{T}: {{min_version: TLS13}}": [
        (f"{T}.cert_file", "required for TLS, or cert; valid: a path", None)
    ],
    in_tls("key: '-----BEGIN '"): [
        (f"{T}.key", "key_file is given, too; valid: only one of the two", 4)
    ],
    in_tls("cert: geheim"): [(f"{T}.cert", PEM, 4)],
    f"{T}: {{cert_file: no.pem, key_file: server.key}}": [
        (
            f"{T}.cert_file",
            ('"HERE/no.pem" cannot be read: No such file or directory; valid: a readable file'),
            None,
        )
    ],
    f"{T}: {{cert_file: server.pem, key_file: pipe}}": [
        (f"{T}.key_file", '"HERE/pipe" is no regular file; valid: a file that can be read', None)
    ],
    f"{T}: {{cert_file: /dev/zero, key_file: server.key}}": [
        (f"{T}.cert_file", '"/dev/zero" is no regular file; valid: a file that can be read', None)
    ],
    f"{T}: {{cert_file: server.key, key_file: server.pem}}": [
        (
            f"{T}.cert_file",
            ('"HERE/server.key" holds no sound certificate; valid: one or more in PEM format'),
            None,
        )
    ],
    f"{T}: {{cert_file: clients.pem, key_file: server.key}}": [
        (
            f"{T}.key_file",
            (
                f'"HERE/server.key" does not belong to the certificate of {T}.cert_file; '
                "valid: its private key"
            ),
            None,
        )
    ],
    in_tls("cert_file: 5").replace("  cert_file: server.pem\n", ""): [
        (f"{T}.cert_file", "5 is no path of a file; valid: the path of a file", 3)
    ],
    # clients
    in_tls("client_auth_type: RequireAndVerifyClientCert"): [
        (
            f"{T}.client_ca_file",
            ("required with this client_auth_type: who signs the certificates of clients"),
            None,
        )
    ],
    in_tls("client_ca_file: clients.pem"): [
        (
            f"{T}.client_ca_file",
            ("is not used with NoClientCert; valid: client_auth_type RequireAndVerifyClientCert"),
            4,
        )
    ],
    MUTUAL.replace("clients.pem", "server.key"): [
        (
            f"{T}.client_ca_file",
            ('"HERE/server.key" holds no sound certificate; valid: one or more in PEM format'),
            None,
        )
    ],
    in_tls("client_auth_type: RequireAnyClientCert"): [
        (f"{T}.client_auth_type", f'"RequireAnyClientCert" {UNREAD}', 4)
    ],
    in_tls("client_auth_type: RequestClientCert"): [
        (f"{T}.client_auth_type", f'"RequestClientCert" {UNREAD}', 4)
    ],
    in_tls("client_auth_type: [RequestClientCert]"): [
        (
            f"{T}.client_auth_type",
            (
                "a list is no choice; valid: NoClientCert, "
                "RequireAndVerifyClientCert, VerifyClientCertIfGiven"
            ),
            4,
        )
    ],
    in_tls("client_auth_type: RequireAndVerifyClientcert"): [
        (
            f"{T}.client_auth_type",
            (
                '"RequireAndVerifyClientcert" is no choice; valid: NoClientCert, '
                "RequireAndVerifyClientCert, VerifyClientCertIfGiven; did you mean "
                "RequireAndVerifyClientCert?"
            ),
            4,
        )
    ],
    in_tls("client_allowed_sans: [a]"): [
        (
            f"{T}.client_allowed_sans",
            ("needs client_auth_type RequireAndVerifyClientCert; valid: both, or neither"),
            4,
        )
    ],
    f"{MUTUAL}  client_allowed_sans: []": [
        (f"{T}.client_allowed_sans", "the list is empty; valid: at least one name", 6)
    ],
    f"{MUTUAL}  client_allowed_sans: a": [
        (f"{T}.client_allowed_sans", "a text is no list; valid: a list of names", 6)
    ],
    # what TLS is made of
    in_tls("min_version: TLS10"): [
        (f"{T}.min_version", '"TLS10" is no longer safe; valid: TLS12, TLS13', 4)
    ],
    in_tls("max_version: 1.2"): [(f"{T}.max_version", "1.2 is no choice; valid: TLS12, TLS13", 4)],
    in_tls("min_version: TLS13", "max_version: TLS12"): [
        (f"{T}.max_version", "TLS12 is below min_version TLS13; valid: TLS13", 5)
    ],
    in_tls("cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]"): [
        (
            f"{T}.cipher_suites",
            (
                '"TLS_RSA_WITH_AES_128_CBC_SHA" is no choice; valid: '
                f"{GOOD_CIPHERS}; did you mean TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA?"
            ),
            4,
        )
    ],
    in_tls("cipher_suites: [TLS_AES_128_GCM_SHA256]", "max_version: TLS12"): [
        (f"{T}.cipher_suites", "has none for max_version TLS12; valid: one of TLS_ECDHE_*", 4)
    ],
    in_tls("curve_preferences: [X25519, CurveP256]"): [
        (
            f"{T}.curve_preferences",
            ("Python's TLS takes one; valid: one, or none for the usual ones"),
            4,
        )
    ],
    in_tls("curve_preferences: [P256]"): [
        (
            f"{T}.curve_preferences",
            (
                '"P256" is no choice; valid: CurveP256, CurveP384, CurveP521, '
                "X25519; did you mean CurveP256?"
            ),
            4,
        )
    ],
    in_tls("prefer_server_cipher_suites: 1"): [
        (f"{T}.prefer_server_cipher_suites", "1 is no yes or no; valid: true, false", 4)
    ],
    # the rest
    "http_server_config: {http2: 'yes'}": [
        ("http_server_config.http2", '"yes" is no yes or no; valid: true, false', 1)
    ],
    "http_server_config: {headers: {X-Frame-Options: allow}}": [
        (
            "http_server_config.headers.X-Frame-Options",
            ('"allow" is no choice; valid: deny, sameorigin'),
            1,
        )
    ],
    'http_server_config: {headers: {X-XSS-Protection: "a\\r\\nSet-Cookie: b"}}': [
        (
            "http_server_config.headers.X-XSS-Protection",
            ('"a\\r\\nSet-Cookie: b" is no header field; valid: printable ASCII on one line'),
            1,
        )
    ],
    "rate_limit: {interval: 1, burst: 5}": [
        ("rate_limit.interval", "1 is no interval; valid: 100ms, 1s, 1m30s, or 0 for no limit", 1)
    ],
    "rate_limit: {interval: 1d, burst: 5}": [
        (
            "rate_limit.interval",
            '"1d" is no interval; valid: 100ms, 1s, 1m30s, or 0 for no limit',
            1,
        )
    ],
    "rate_limit: {interval: 1s}": [
        ("rate_limit.burst", "0 would refuse every request; valid: 1 or more", None)
    ],
    "rate_limit: {burst: -1}": [
        ("rate_limit.burst", "-1 is no whole number from 0; valid: 0, 1, ...", 1)
    ],
}


def expected(here, where, wrong, line):
    name = f"web.config.file: {where}" if where else "web.config.file"
    at = f", line {line}" if line else ""
    return f"{name}: {wrong.replace('HERE', str(here.folder))} (from file {here.path}{at})"


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong_is_told_line_by_line(here, text):
    here.write(text)
    with pytest.raises(ConfigError) as caught:
        load_settings([*REGION, f"--web.config.file={here.path}"], {})
    assert list(caught.value.problems) == [expected(here, *each) for each in BAD[text]]
    assert "geheim" not in str(caught.value)


def test_all_mistakes_at_once(here):
    here.write(f"{T}: {{min_version: 1}}\nrate_limit: {{burst: x}}\nbasic: {{}}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(["--poll.interval=x", "--web.config.file", str(here.path)], {})
    said = [problem.split(": ")[:2] for problem in caught.value.problems]
    assert said == [
        ["web.config.file", f"{T}.min_version"],
        ["web.config.file", "rate_limit.burst"],
        ["web.config.file", "basic"],
        ["target.region", said[3][1]],
        ["poll.interval", said[4][1]],
    ]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("no.yml", '"no.yml" cannot be read: No such file or directory; valid: a readable file'),
        (".", '"." is no regular file; valid: a file that can be read'),
        ("pipe", '"pipe" is no regular file; valid: a file that can be read'),
        ("latin", "is not UTF-8 text; valid: a YAML file"),
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
