"""The bills of materials: valid CycloneDX, complete, and each time the same."""

import importlib.metadata
import importlib.util
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
LOCKED = dict(re.findall(r"^([\w.-]+)==([^ \\]+)", LOCK, re.MULTILINE))
IMAGE = {
    "python": "3.13.9",
    "python_packages": [
        {
            "name": "modelarts-exporter",
            "version": "0.1.0",
            "expression": "Apache-2.0",
            "license": "",
            "requires": ["PyYAML>=6.0.2", "aiohttp>=3", "not-there>=1"],
        },
        {"name": "PyYAML", "version": "6.0.3", "expression": "", "license": "MIT", "requires": []},
        {"name": "aiohttp", "version": "3.14.5", "expression": "", "license": "", "requires": []},
        {"name": "pip", "version": "26.0", "expression": "MIT", "license": "", "requires": []},
        {"name": "PyYAML", "version": "5.0", "expression": "", "license": "", "requires": []},
    ],
    "debian_packages": [
        {"name": "libstdc++6", "version": "1:12.2.0-14+deb12u1", "architecture": "arm64"},
        {"name": "tzdata", "version": "2026a-0+deb12u1", "architecture": "all"},
    ],
    "system": {"ID": "debian", "VERSION_ID": "12"},
}


@pytest.fixture(scope="module")
def sbom():
    spec = importlib.util.spec_from_file_location("sbom", ROOT / "release/sbom.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def inventory():
    command = [sys.executable, "-"]
    with (ROOT / "release/inventory.py").open() as script:
        done = subprocess.run(command, stdin=script, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def problems(bill):
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill))
    return found and found.data


def components(bill):
    return {each["name"]: each for each in bill["components"]}


@pytest.mark.integration
def test_the_inventory_is_that_of_the_environment(inventory):
    assert inventory["python"] == platform.python_version()
    found = {each["name"]: each for each in reversed(inventory["python_packages"])}
    assert found["pytest"]["version"] == importlib.metadata.version("pytest")
    assert found["pytest"]["expression"] or found["pytest"]["license"]
    assert any(line.startswith("pluggy") for line in found["pytest"]["requires"])
    assert not [line for each in found.values() for line in each["requires"] if "extra ==" in line]


@pytest.mark.integration
def test_the_wheel_needs_what_is_locked_and_nothing_else(sbom, inventory):
    if "modelarts-exporter" not in {each["name"] for each in inventory["python_packages"]}:
        pytest.skip("modelarts-exporter is not installed in this environment")
    bill = sbom.bill(inventory, LOCK, 1)
    assert problems(bill) is None
    assert {name: each["version"] for name, each in components(bill).items()} == LOCKED
    (direct,) = [each for each in bill["dependencies"] if "modelarts-exporter" in each["ref"]]
    assert any("/aiohttp@" in ref for ref in direct["dependsOn"])
    reached, todo = set(), [direct["ref"]]
    needs = {each["ref"]: each["dependsOn"] for each in bill["dependencies"]}
    while todo:
        ref = todo.pop()
        if ref not in reached:
            reached.add(ref)
            todo += needs[ref]
    assert reached == needs.keys()
    assert [each["name"] for each in bill["components"] if not each["licenses"]] == []


def test_an_image_has_python_and_debian_packages_too(sbom):
    bill = sbom.bill(IMAGE, LOCK, 1, image="registry.example.com/modelarts-exporter:0.1.0")
    assert problems(bill) is None
    assert bill["metadata"]["component"]["type"] == "container"
    assert {name: each["version"] for name, each in components(bill).items()} == {
        "modelarts-exporter": "0.1.0",
        "python": "3.13.9",
        "aiohttp": "3.14.5",
        "pip": "26.0",
        "pyyaml": "6.0.3",
        "libstdc++6": "1:12.2.0-14+deb12u1",
        "tzdata": "2026a-0+deb12u1",
    }
    (direct,) = [each for each in bill["dependencies"] if "modelarts-exporter" in each["ref"]]
    assert direct["dependsOn"] == ["pkg:pypi/aiohttp@3.14.5", "pkg:pypi/pyyaml@6.0.3"]


def test_package_urls_are_canonical(sbom):
    bill = sbom.bill(IMAGE, LOCK, 1, image="x")
    urls = [each["purl"] for each in bill["components"]]
    assert [PackageURL.from_string(url).to_string() for url in urls] == urls
    debian = PackageURL.from_string(components(bill)["libstdc++6"]["purl"])
    assert (debian.type, debian.namespace, debian.name) == ("deb", "debian", "libstdc++6")
    assert debian.version == "1:12.2.0-14+deb12u1"
    assert debian.qualifiers == {"arch": "arm64", "distro": "debian-12"}


def test_a_bill_is_the_same_each_time(sbom):
    one, two = (sbom.bill(IMAGE, LOCK, 1, image="x") for _ in range(2))
    assert one == two
    assert one["serialNumber"] != sbom.bill(IMAGE, LOCK, 2, image="x")["serialNumber"]
