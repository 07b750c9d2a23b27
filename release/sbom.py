"""Describe the packages of the wheel or of an image as a CycloneDX bill of materials.

Reads the inventory of an environment, printed by inventory.py, from standard input. The bill is
the same each time: its time is that of the commit, and its serial number follows from its content.
"""

import argparse
import json
import re
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).parents[1]
PROJECT = "modelarts-exporter"
SOURCE = "https://github.com/modelarts-exporter/modelarts-exporter"
JsonObject = dict[str, Any]


def normalized(name: str) -> str:
    """The name of a Python package as package indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(lock: str) -> set[str]:
    """The names of the packages in a lock file."""
    return {normalized(name) for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}


def package_url(kind: str, name: str, version: str, **qualifiers: str) -> str:
    """A package URL: ``pkg:pypi/aiohttp@3.14.5``."""
    more = "&".join(f"{key}={quote(value, safe=':')}" for key, value in sorted(qualifiers.items()))
    url = f"pkg:{kind}/{quote(name, safe='/')}@{quote(version, safe=':')}"
    return f"{url}?{more}" if more else url


def licenses(package: Mapping[str, Any]) -> list[JsonObject]:
    """The license of a Python package: an SPDX expression, or else its name."""
    if package["expression"]:
        return [{"expression": package["expression"]}]
    return [{"license": {"name": package["license"]}}] if package["license"] else []


def python_component(package: Mapping[str, Any]) -> JsonObject:
    """A Python package."""
    name, version = normalized(package["name"]), package["version"]
    url = package_url("pypi", name, version)
    return {
        "type": "library",
        "bom-ref": url,
        "name": name,
        "version": version,
        "licenses": licenses(package),
        "purl": url,
    }


def debian_components(inventory: Mapping[str, Any]) -> Iterator[JsonObject]:
    """The Debian packages of an image."""
    system = inventory["system"]
    distribution = system.get("ID", "debian")
    for package in inventory["debian_packages"]:
        url = package_url(
            "deb",
            f"{distribution}/{package['name']}",
            package["version"],
            arch=package["architecture"],
            distro=f"{distribution}-{system.get('VERSION_ID', '')}",
        )
        yield {
            "type": "library",
            "bom-ref": url,
            "name": package["name"],
            "version": package["version"],
            "purl": url,
        }


def interpreter(inventory: Mapping[str, Any]) -> JsonObject:
    """The Python of an image."""
    version = inventory["python"]
    url = package_url("generic", "python", version)
    return {
        "type": "platform",
        "bom-ref": url,
        "name": "python",
        "version": version,
        "licenses": [{"license": {"id": "PSF-2.0"}}],
        "purl": url,
        "cpe": f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*",
    }


def dependencies(packages: Mapping[str, Mapping[str, Any]]) -> list[JsonObject]:
    """Which Python package requires which, of those that are there."""
    urls = {name: package_url("pypi", name, each["version"]) for name, each in packages.items()}
    found = []
    for name, package in sorted(packages.items()):
        names = {
            normalized(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in package["requires"]
        }
        needed = sorted(urls[each] for each in names & urls.keys())
        found.append({"ref": urls[name], "dependsOn": needed})
    return found


def bill(inventory: Mapping[str, Any], lock: str, time: int, *, image: str = "") -> JsonObject:
    """The bill of materials.

    Args:
        inventory: of the environment.
        lock: content of requirements.lock.
        time: of the commit, in unix seconds.
        image: name of the image. "" = the wheel: only its locked dependencies, whatever else is
            installed in the environment.
    """
    packages: dict[str, Mapping[str, Any]] = {}
    for each in inventory["python_packages"]:
        packages.setdefault(normalized(each["name"]), each)  # the first is the one that is imported
    if not image:
        names = locked(lock) | {PROJECT}
        packages = {name: each for name, each in packages.items() if name in names}
    subject = python_component(packages[PROJECT]) | {
        "type": "application",
        "externalReferences": [{"type": "vcs", "url": SOURCE}],
    }
    components = [
        python_component(each) for name, each in sorted(packages.items()) if name != PROJECT
    ]
    if image:
        components = [subject, interpreter(inventory), *components, *debian_components(inventory)]
        subject = {
            "type": "container",
            "bom-ref": image,
            "name": image,
            "version": subject["version"],
        }
    content: JsonObject = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(time, UTC).isoformat(),
            "lifecycles": [{"phase": "build"}],
            "component": subject,
        },
        "components": components,
        "dependencies": dependencies(packages),
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, SOURCE + json.dumps(content, sort_keys=True))
    return content | {"serialNumber": serial.urn}


def main(arguments: Sequence[str]) -> int:
    """Print the bill. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--image", default="", help="name of the image; default: the wheel")
    parser.add_argument("--time", type=int, required=True, help="of the commit, in unix seconds")
    options = parser.parse_args(arguments)
    lock = (ROOT / "requirements.lock").read_text()
    made = bill(json.load(sys.stdin), lock, options.time, image=options.image)
    print(json.dumps(made, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
