"""Bad configurations, and the exact messages about them.

Most are in ``problems.yml``, whose first lines explain how to update the messages.
"""

from pathlib import Path

import pytest
import trustme
from message_table import MessageTable

from exporter.errors import ConfigError
from exporter.settings.load import load

REGION = ["--target.region", "cn-north-4"]
TABLE = MessageTable(Path(__file__).with_name("problems.yml"))


@pytest.fixture(scope="module", autouse=True)
def _update():
    yield
    TABLE.save()


def complaints(arguments=(), environ=None):
    with pytest.raises(ConfigError) as caught:
        load(arguments, environ or {})
    return list(caught.value.problems)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def in_file(here, text):
    (here / "exporter.yml").write_text(text)
    return complaints(["--config.file=exporter.yml"])


@pytest.mark.parametrize("case", TABLE.params())
def test_messages(here, case):
    for name, text in case.get("files", {}).items():
        (here / name).write_text(text)
    problems = complaints(case["arguments"], case.get("environment"))
    TABLE.check(case, problems)
    assert "geheim" not in str(problems)


def test_a_good_ca_file(here):
    trustme.CA().cert_pem.write_to_path(here / "ca.pem")
    assert load([*REGION, "--target.ca-file=ca.pem"], {}).target.ca_file == "ca.pem"


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"[" * 3000, 'invalid YAML in "exporter.yml": nested too deeply'),
        (b"x: " + b"y" * 2**20, '"exporter.yml" is larger than 1048576 bytes'),
        ("x: \u00fc".encode("latin-1"), 'invalid YAML in "exporter.yml": not UTF-8 text'),
    ],
    ids=["deep", "large", "latin"],
)
def test_files_that_cannot_be_written_in_a_table(here, content, wrong):
    (here / "exporter.yml").write_bytes(content)
    assert complaints(["--config.file", "exporter.yml"]) == [
        f"config.file: {wrong} (from flag --config.file)"
    ]


@pytest.mark.parametrize(
    "text", ["target: &a {auth: *a}\n", "targets: &a [*a]\n", "poll: &a {poll: *a}\n"]
)
def test_a_file_that_contains_itself_is_read_to_an_end(here, text):
    assert in_file(here, text)


def test_aliases_of_aliases_of_aliases_take_no_time(here):
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    assert len(in_file(here, f"a0: &a0 x\n{levels}")) == 31
