"""The files of .github/ are valid, safe, and name what exists. They only run on GitHub."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = {path.stem: path for path in sorted((GITHUB / "workflows").glob("*.yml"))}
LOADED = {name: yaml.safe_load(path.read_text()) for name, path in WORKFLOWS.items()}
JOBS = {
    f"{name}.{job}": content
    for name, workflow in LOADED.items()
    for job, content in workflow["jobs"].items()
}
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
SCHEMAS = [
    ("vendor.github-workflows", [*WORKFLOWS.values()]),
    ("custom.github-workflows-require-timeout", [*WORKFLOWS.values()]),
    ("vendor.dependabot", [GITHUB / "dependabot.yml"]),
    ("vendor.github-issue-forms", FORMS),
    ("vendor.github-issue-config", [GITHUB / "ISSUE_TEMPLATE/config.yml"]),
]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

each_job = pytest.mark.parametrize("name", JOBS)


def run(program, *arguments):
    """Standard output and error of a program that must succeed."""
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def tool(name):
    return Path(sys.executable).with_name(name)


def steps(job):
    return job.get("steps", [])


def commands():
    return "\n".join(step.get("run", "") for job in JOBS.values() for step in steps(job))


@pytest.mark.integration
@pytest.mark.parametrize(("schema", "files"), SCHEMAS, ids=[name for name, _ in SCHEMAS])
def test_files_have_their_schema(schema, files):
    # With no reference to the network: the tool contains these schemas.
    assert files
    found = run(tool("check-jsonschema"), "--builtin-schema", schema, *files)
    assert "ok -- validation done" in found


@pytest.mark.integration
def test_zizmor_finds_no_security_problem():
    found = run(tool("zizmor"), "--offline", "--no-progress", "--color=never", GITHUB)
    assert "No findings to report" in found


@pytest.mark.integration
@pytest.mark.skipif(not shutil.which("actionlint"), reason="no actionlint; GitHub runs it")
def test_actionlint_finds_no_problem():
    assert run(shutil.which("actionlint"), *map(str, WORKFLOWS.values())) == ""


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_action_is_pinned_by_digest_and_says_its_version(name):
    uses = re.findall(r"^ +(?:- )?uses: (.+)$", WORKFLOWS[name].read_text(), re.MULTILINE)
    assert uses
    own = "./.github/workflows/"
    pinned = re.compile(r"[\w.-]+(/[\w.-]+)+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [each for each in uses if not each.startswith(own) and not pinned.fullmatch(each)] == []


def test_an_action_has_one_version_everywhere():
    text = "".join(path.read_text() for path in WORKFLOWS.values())
    pins = set(re.findall(r"uses: ([\w.-]+/[\w.-]+)\S*@(\S+ # \S+)", text))
    names = [name for name, _ in pins]
    assert len(names) == len(set(names))


@each_job
def test_a_job_gets_its_rights_one_by_one(name):
    workflow = LOADED[name.partition(".")[0]]
    assert workflow["permissions"] == {}
    rights = JOBS[name]["permissions"]
    published = name.startswith("release.")
    allowed = {"contents": "write", "packages": "write", "attestations": "write"}
    allowed |= {"id-token": "write"}
    writing = {key for key, value in rights.items() if value == "write"}
    assert writing <= (allowed.keys() if published else {"security-events"})


def test_no_secret_is_needed():
    text = "".join(path.read_text() for path in WORKFLOWS.values())
    assert "secrets." not in text


def test_tests_run_with_every_supported_python_on_both_architectures():
    matrix = JOBS["test.test"]["strategy"]["matrix"]
    supported = re.findall(r"Python :: (3\.\d+)\"", (ROOT / "pyproject.toml").read_text())
    assert matrix["python"] == supported
    assert len(matrix["runner"]) == 2
    assert sum(runner.endswith("-arm") for runner in matrix["runner"]) == 1
    assert LOADED["release"]["jobs"]["test"]["uses"] == "./.github/workflows/test.yml"


def test_targets_and_files_of_the_commands_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = {
        word
        for words in re.findall(r"\bmake ((?:[a-z]+ ?)+)", commands())
        for word in words.split()
    }
    assert named >= {"test", "release", "sbom", "image", "fuzz"}
    assert named - set(targets) == set()
    (scanned,) = [
        step["with"]["inputs"]
        for step in steps(JOBS["scan.dependencies"])
        if "pip-audit" in step.get("uses", "")
    ]
    assert {*scanned.split()} == {path.name for path in ROOT.glob("*.lock")}


def test_a_release_needs_all_tests_and_publishes_the_page_last():
    jobs = LOADED["release"]["jobs"]

    def needed(name):
        direct = jobs[name].get("needs", [])
        return {*direct, *(each for inner in direct for each in needed(inner))}

    for name in ("pypi", "image", "chart"):
        assert {"test", "build"} <= needed(name)
    assert needed("publish") == jobs.keys() - {"publish"}


@pytest.mark.integration
def test_the_release_page_has_the_section_of_the_version(tmp_path):
    (script,) = [
        step["run"]
        for step in steps(JOBS["release.publish"])
        if "gh release" in step.get("run", "")
    ]
    extract, _, _ = script.partition("gh release")
    text = "# Changelog\n\n## [Unreleased]\n\n- x\n\n## [1.2.0] - 2026-01-01\n\n- a\n- b\n"
    (tmp_path / "CHANGELOG.md").write_text(text + "\n## [1.1.0] - 2025-01-01\n\n- c\n")
    environ = {"PATH": "/usr/bin:/bin", "GITHUB_REF_NAME": "v1.2.0"}
    subprocess.run(["bash", "-ec", extract], cwd=tmp_path, env=environ, check=True)
    assert (tmp_path / "notes.md").read_text() == "\n- a\n- b\n\n"


def test_links_and_addresses_are_those_of_the_project():
    source = PYPROJECT["project"]["urls"]["Source"]
    config = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE/config.yml").read_text())
    urls = [link["url"] for link in config["contact_links"]]
    assert [url for url in urls if not url.startswith(f"{source}/")] == []
    pages = [url.removeprefix(f"{source}/blob/main/") for url in urls if "/blob/main/" in url]
    assert [page for page in pages if not (ROOT / page).is_file()] == []
    everything = "".join(path.read_text() for path in GITHUB.rglob("*") if path.is_file())
    named = set(re.findall(r"docs/[\w.-]+\.md", everything))
    assert [page for page in named if not (ROOT / page).is_file()] == []


def test_dependabot_watches_what_it_can_renew():
    config = yaml.safe_load((GITHUB / "dependabot.yml").read_text())
    watched = {each["package-ecosystem"]: each["directory"] for each in config["updates"]}
    assert watched == {
        "github-actions": "/",
        "docker": "/",
        "docker-compose": "/deploy/compose",
    }
    assert (ROOT / "Dockerfile").is_file()
    assert (ROOT / "deploy/compose/compose.yaml").is_file()
