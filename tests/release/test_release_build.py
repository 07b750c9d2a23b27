"""What `make release` builds: complete, from the commit, and each time the same."""

import hashlib
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from deploy.manifests import CHART, Helm, by_kind, find_helm

import exporter

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION = exporter.__version__
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]


def git(*arguments, repository=ROOT):
    command = ["git", "-c", "safe.directory=*", "-C", repository, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def build(repository, destination, **environ):
    command = [sys.executable, ROOT / "release/build.py", "--repository", repository, destination]
    umask = int(environ.pop("UMASK", "022"), 8)
    subprocess.run(
        command, check=True, capture_output=True, env=os.environ | environ, umask=umask, cwd="/"
    )
    return destination


@pytest.fixture(scope="module")
def commit():
    try:
        return git("rev-parse", "HEAD")
    except subprocess.CalledProcessError:
        pytest.skip("not a git checkout")


@pytest.fixture(scope="module")
def release(commit, tmp_path_factory):
    return build(ROOT, tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def wheel(release):
    with zipfile.ZipFile(release / f"modelarts_exporter-{VERSION}-py3-none-any.whl") as archive:
        yield archive


@pytest.fixture(scope="module")
def sdist(release):
    with tarfile.open(release / f"modelarts_exporter-{VERSION}.tar.gz") as archive:
        yield archive


def test_two_builds_are_equal_byte_for_byte(release, tmp_path):
    # In another checkout, with other file times and modes, in another time zone, by another user.
    other = tmp_path / "checkout"
    environ = {"TZ": "Asia/Shanghai", "HOME": str(tmp_path), "UMASK": "077", "LC_ALL": "C"}
    git("clone", "--quiet", "--no-hardlinks", f"file://{ROOT}", other)
    git("checkout", "--quiet", git("rev-parse", "HEAD"), repository=other)
    os.utime(other / "pyproject.toml", (1, 1))
    again = build(other, tmp_path / "again", **environ)
    names = {path.name for path in release.iterdir()}
    assert names == {path.name for path in again.iterdir()}
    differing = [
        name for name in names if (release / name).read_bytes() != (again / name).read_bytes()
    ]
    assert differing == []


def test_the_checksums_are_those_of_all_files(release):
    lines = dict(
        reversed(line.split("  ")) for line in (release / "SHA256SUMS").read_text().splitlines()
    )
    assert lines == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in release.iterdir()
        if path.name != "SHA256SUMS"
    }
    assert len(lines) == 3


def test_wheel_and_sdist_know_their_commit(wheel, sdist, commit):
    source = wheel.read("exporter/__init__.py").decode()
    assert f'_COMMIT = "{commit}"' in source
    entry = sdist.extractfile(f"modelarts_exporter-{VERSION}/exporter/__init__.py")
    assert entry.read().decode() == source


def test_the_wheel_has_the_code_and_nothing_else(wheel, commit):
    tracked = git("ls-files", "exporter", "modelarts_exporter").splitlines()
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == set(tracked)
    metadata = wheel.read(f"modelarts_exporter-{VERSION}.dist-info/METADATA").decode()
    assert f"\nVersion: {VERSION}\n" in metadata
    for name, url in PROJECT["urls"].items():
        assert f"\nProject-URL: {name}, {url}\n" in metadata


def test_the_sdist_has_what_the_tests_need(sdist):
    names = {name.partition("/")[2] for name in sdist.getnames()}
    folders = ("tests/", "docs/", "deploy/", "grafana/", "benchmarks/", "release/", ".github/")
    tracked = git("ls-files").splitlines()
    wanted = {name for name in tracked if name.startswith(folders)}
    assert wanted - names == set()
    assert {"Makefile", "Dockerfile", "requirements.lock", ".gitattributes"} <= names


def test_times_are_that_of_the_commit(release, sdist):
    time = int(git("log", "-1", "--format=%ct"))
    assert {entry.mtime for entry in sdist} == {time}
    with tarfile.open(release / f"modelarts-exporter-{VERSION}.tgz") as chart:
        assert {entry.mtime for entry in chart} == {time}
        assert {(entry.mode, entry.uid, entry.uname) for entry in chart} == {(0o644, 0, "")}


def test_the_chart_is_what_helm_packages(release, tmp_path):
    # Of the commit: tracked files only, and as they were there.
    helm = Helm(find_helm(), tmp_path)
    source = tmp_path / "source"
    git("clone", "--quiet", f"file://{ROOT}", source)
    chart = source / CHART.relative_to(ROOT)
    code, _, err = helm("package", chart, "--destination", tmp_path)
    assert code == 0, err
    name = f"modelarts-exporter-{VERSION}.tgz"
    contents = []
    for path in (release / name, tmp_path / name):
        with tarfile.open(path) as archive:
            contents.append(
                {each.name: archive.extractfile(each).read() for each in archive if each.isfile()}
            )
    ours, helms = contents
    assert ours.keys() == helms.keys()
    for file in ours.keys() - {"modelarts-exporter/Chart.yaml"}:  # helm rewrites it
        assert ours[file] == helms[file], file
    metadata = "modelarts-exporter/Chart.yaml"
    assert yaml.safe_load(ours[metadata]) == yaml.safe_load(helms[metadata])
    demo = ("--set", "demo.enabled=true,dashboards.enabled=true,prometheusRule.enabled=true")
    objects = helm.render(*demo, chart=release / name)
    assert by_kind(objects, "PrometheusRule")["spec"]["groups"]
    code, out, err = helm("lint", "--strict", release / name, "--set", "demo.enabled=true")
    assert code == 0, out + err


def test_it_builds_into_an_empty_folder_only(commit, release):
    command = [sys.executable, ROOT / "release/build.py", release]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is not empty" in done.stderr
