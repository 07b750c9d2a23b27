import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from exporter.settings import load, options
from exporter.settings.file import parse
from exporter.settings.words import dotted

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy(generate, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "HERE", tmp_path)
    return tmp_path


def test_generated_pages_are_current(generate):
    assert [path.name for path in generate.stale()] == [], "run python docs/generate.py"


def test_pages_are_written_once_and_then_current(generate, copy, capsys):
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().err.count("is stale") == 2
    assert generate.main([]) == 0
    assert sorted(path.name for path in copy.iterdir()) == ["configuration.md", "metrics.md"]
    assert generate.main(["--check"]) == 0
    capsys.readouterr()
    assert generate.main([]) == 0
    assert capsys.readouterr().out == ""


def test_check_names_the_stale_page_and_leaves_it(generate, copy, capsys):
    generate.main([])
    page = copy / "configuration.md"
    page.write_bytes(page.read_bytes() + b"\n")
    before = page.read_bytes()
    capsys.readouterr()
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().err == (
        "docs/configuration.md is stale: run python docs/generate.py\n"
    )
    assert page.read_bytes() == before


def test_the_script_runs_by_itself():
    # With the directory of the package that is tested, be it the checkout or an installed wheel.
    found = str(Path(sys.modules["exporter"].__file__).parents[1])
    done = subprocess.run(
        [sys.executable, ROOT / "docs/generate.py", "--check"],
        env={"PYTHONPATH": found},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_option_is_in_the_page():
    page = (ROOT / "docs/configuration.md").read_text()
    for option in options():
        assert f"| `{option.name}` |" in page


def test_prose_fits_into_120_columns():
    for name in ("configuration.md", "metrics.md"):
        lines = (ROOT / "docs" / name).read_text().splitlines()
        assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


def test_examples_of_the_page_work(tmp_path):
    page = (ROOT / "docs/configuration.md").read_text()
    examples = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        (tmp_path / "sk").write_text("x")
        file = tmp_path / "exporter.yml"
        file.write_text(re.sub(r"/run/secrets/\S+", "sk", example))
        settings = load(["--config.file", str(file)], {})
        assert len(settings.all_targets()) == (2 if "targets:" in example else 1)


def test_options_named_in_prose_exist(generate):
    text = generate.CONFIGURATION + generate.SIGN_IN
    groups = {option.path[0] for option in options()} - {"targets"}
    named = set(re.findall(rf"`((?:{'|'.join(groups)})\.[a-z_.]+)`", text))
    flags = set(re.findall(r"`(--[a-z][a-z._-]+)", text))
    variables = set(re.findall(r"(MODELARTS_EXPORTER_[A-Z]+__[A-Z_]+)", text))
    known = options()
    assert named
    assert named <= {option.name for option in known}
    spelled = {option.flag for option in known} | {option.no_flag for option in known}
    assert {flag.replace("_", "-") for flag in flags} <= spelled
    assert variables <= {option.variable for option in known}


def test_examples_have_no_keys_twice():
    for text in re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs/configuration.md").read_text(), re.DOTALL
    ):
        assert [dotted(path) for path, _ in parse(text).twice] == []
        assert parse(text).value == yaml.safe_load(text)
