"""What ships beside the code is sound: metadata, lock files, image, and no trace of a machine."""

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import exporter

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
URLS = PROJECT["urls"]
GROUPS = PYPROJECT["dependency-groups"]
# Joined here, or this file would be the first to contain them. The service's own containers have a
# /home/ma-user.
MACHINE_PATHS = re.compile(
    rb"(?<![\w.$}-])/(?:wo" rb"rk|ro" rb"ot|ho" rb"me|Use" rb"rs)/(?!ma-user)[\w.-]+"
)


def requirements(*groups):
    """All requirements of dependency groups, the included groups' too."""
    for group in groups:
        for item in GROUPS[group]:
            if isinstance(item, dict):
                yield from requirements(item["include-group"])
            else:
                yield Requirement(item)


def locked(name):
    """Name → (version, number of hashes) of a lock file."""
    text = (ROOT / name).read_text().replace("\\\n", "")
    lines = [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    entries = {}
    for line in lines:
        match = re.match(
            r"([\w.-]+)==([\w.!+]+)(?: ; [^#]+?)?((?:\s+--hash=sha256:[0-9a-f]{64})+)\s*$", line
        )
        assert match, f"{name}: not a pinned requirement with hashes: {line[:80]}"
        entries[canonicalize_name(match[1])] = (match[2], match[3].count("--hash"))
    return entries


RUNTIME = [Requirement(item) for item in PROJECT["dependencies"]]
LOCKS = {
    "requirements.lock": RUNTIME,
    "requirements-build.lock": [*map(Requirement, PYPROJECT["build-system"]["requires"])],
    "requirements-dev.lock": [*RUNTIME, *requirements("dev")],
}


@pytest.mark.parametrize("name", LOCKS)
def test_lock_files_name_no_host(name):
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-(?!-hash=)", text, re.MULTILINE), "options belong to the user's pip"


@pytest.mark.parametrize("name", LOCKS)
def test_lock_files_cover_what_is_required(name):
    entries = locked(name)
    for requirement in LOCKS[name]:
        version, _ = entries[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{requirement}: make lock"


def test_lock_files_agree():
    dev = locked("requirements-dev.lock")
    for name in LOCKS:
        assert locked(name).items() <= dev.items()


def test_development_tools_are_not_installed_at_users():
    tools = {canonicalize_name(requirement.name) for requirement in requirements("test", "lint")}
    assert locked("requirements.lock").keys() & tools == set()


def test_every_dependency_is_explained():
    page = (ROOT / "docs/dependencies.md").read_text()
    missing = {req.name for req in (*RUNTIME, *requirements("dev")) if f"`{req.name}`" not in page}
    assert missing == set()


def test_metadata():
    Version(exporter.__version__)
    assert re.fullmatch("unknown|[0-9a-f]{40}", exporter.__revision__)
    assert "Apache License" in (ROOT / PROJECT["license-files"][0]).read_text()
    assert PROJECT["license"] == "Apache-2.0"
    assert not [item for item in PROJECT["classifiers"] if item.startswith("License ::")]
    assert (ROOT / "exporter/py.typed").is_file()
    module, function = PROJECT["scripts"][PROJECT["name"]].split(":")
    assert f"def {function}(" in (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()


def test_the_package_index_shows_the_readme_with_absolute_links():
    shown = ProjectMetadata(str(ROOT), PluginManager()).core.readme
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", shown)
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)]+)\)", shown)
    assert len(pictures) >= 1
    assert len(links) > 10
    places = {
        f"{URLS['Source']}/blob/v{exporter.__version__}/": links,
        URLS["Source"].replace("//github.com/", "//raw.githubusercontent.com/")
        + f"/v{exporter.__version__}/": pictures,
    }
    for place, found in places.items():
        paths = [link.removeprefix(place).partition("#")[0] for link in found]
        assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_one_address_of_the_repository_everywhere():
    assert {url for url in URLS.values() if not url.startswith(URLS["Source"])} == set()
    alerts = (ROOT / "deploy/prometheus/modelarts.alerts.yml").read_text()
    runbooks = re.findall(r"runbook_url: (\S+)", alerts)
    assert [url for url in runbooks if not url.startswith(f"{URLS['Source']}/blob/main/")] == []
    labels = dict(
        re.findall(r'opencontainers\.image\.(\w+)="(.+?)"', (ROOT / "Dockerfile").read_text())
    )
    assert labels["source"] == labels["url"] == URLS["Source"]
    assert labels["documentation"] == URLS["Documentation"]
    assert labels.keys() >= {"created", "revision", "version", "licenses", "title"}


@pytest.mark.integration
def test_the_package_also_runs_under_the_name_of_the_distribution():
    done = subprocess.run(
        [sys.executable, "-m", PROJECT["name"].replace("-", "_"), "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"modelarts-exporter {exporter.__version__}\n"


def test_one_lowest_python_everywhere():
    (lowest,) = Requirement(f"python{PROJECT['requires-python']}").specifier
    assert lowest.operator == ">="
    assert PYPROJECT["tool"]["mypy"]["python_version"] == lowest.version
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{lowest.version.replace('.', '')}"
    assert f"Programming Language :: Python :: {lowest.version}" in PROJECT["classifiers"]


def test_changelog_has_a_place_for_the_next_version():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", line) for line in headings[1:])


@pytest.mark.integration
def test_dockerfile_passes_hadolint():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_image_has_the_version_of_the_package_and_no_rights():
    text = (ROOT / "Dockerfile").read_text()
    assert f"ARG VERSION={exporter.__version__}\n" in text
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", text, re.MULTILINE)


def test_image_is_built_from_what_the_builder_is_given():
    given = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    assert given == {source for line in copied for source in line.split()}


@pytest.mark.integration
def test_nothing_in_git_knows_the_machine_it_was_written_on():
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others"]
    done = subprocess.run(
        [*command, "--exclude-standard"], cwd=ROOT, capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("not a git checkout")
    names = [name.decode() for name in done.stdout.split(b"\0") if name]
    files = [ROOT / name for name in names if (ROOT / name).is_file()]
    assert ROOT / "pyproject.toml" in files
    found = {
        str(path): match[0] for path in files if (match := MACHINE_PATHS.search(path.read_bytes()))
    }
    assert found == {}


@pytest.mark.skipif("TEST_INSTALLED" not in os.environ, reason="set by make test")
def test_the_installed_package_is_what_is_tested():
    assert Path(exporter.__file__).is_relative_to(sysconfig.get_path("purelib"))
    metadata = importlib.metadata.metadata(PROJECT["name"])
    assert metadata["Version"] == exporter.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    files = {str(path) for path in importlib.metadata.files(PROJECT["name"])}
    assert {"exporter/py.typed", "modelarts_exporter/__main__.py"} <= files
    assert not [name for name in files if name.startswith(("tests/", "docs/", "benchmarks/"))]
