"""Print what is installed beside this Python, as JSON for sbom.py: Python and Debian packages.

Needs nothing but Python 3.11, so that it can be piped into any container.
"""

import json
import platform
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import Distribution, distributions


def python_package(found: Distribution) -> dict[str, object]:
    """Name, version, license and requirements of a Python package."""
    metadata = found.metadata
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier", [])
        if line.startswith("License :: ") and line != "License :: OSI Approved"
    ]
    text = metadata.get("License", "")
    return {
        "name": metadata["Name"],
        "version": found.version,
        "expression": metadata.get("License-Expression", ""),
        "license": text if text and "\n" not in text else " or ".join(classifiers),
        "requires": [line for line in found.requires or [] if "extra ==" not in line],
    }


def python_packages() -> list[dict[str, object]]:
    """The packages of this environment, and of the Python that it is based on."""
    base = sysconfig.get_path("purelib", vars={"base": sys.base_prefix})
    return [python_package(found) for found in distributions(path=[*sys.path, base])]


def debian_packages() -> list[dict[str, str]]:
    """Name, version and architecture of all Debian packages."""
    if shutil.which("dpkg-query") is None:
        return []
    command = ["dpkg-query", "--show", "--showformat=${Package}\t${Version}\t${Architecture}\n"]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
    keys = ("name", "version", "architecture")
    return [dict(zip(keys, line.split("\t"), strict=True)) for line in done.stdout.splitlines()]


def system() -> dict[str, str]:
    """The lines of os-release; empty on other systems."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


if __name__ == "__main__":
    inventory = {
        "python": platform.python_version(),
        "python_packages": python_packages(),
        "debian_packages": debian_packages(),
        "system": system(),
    }
    json.dump(inventory, sys.stdout, indent=1)
