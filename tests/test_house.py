"""The house stands: imports run in one direction only, and certain rooms stay closed.

The order is the table of docs/architecture.md, row by row and within a row from left to right.
"""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "exporter"
MAIN = "__main__"  # python -m exporter: above everything
# Who may know settings and the simulator.
COMPOSE = {"app", "assembly", "backfill", "cli", "demo", "reload"}
PURE = {"model", "tracker", "metrics"}
OUTSIDE_WORLD = {"aiohttp", "asyncio", "os", "pathlib", "socket", "sqlite3", "time"}


def documented_order() -> list[str]:
    rows = re.findall(r"^\| (`.+?`) \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`([a-z_0-9]+)/?`", row)]
    assert len(names) > 10, "the table of docs/architecture.md is not found"
    return names


def imports(source: str) -> Iterator[str]:
    """Every module that a source imports, anywhere in it, as a dotted name.

    ``from a import b`` gives ``a.b`` too, since b may be a module.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def house(source: str) -> set[str]:
    """The rooms of ``exporter``, modules and packages, that a source imports."""
    names = {name.split(".")[1] for name in imports(source) if name.startswith("exporter.")}
    return names & (SOURCES.keys() | {"simulator"})


def rooms() -> dict[str, str]:
    """The source of every module, and of every package as a whole; the simulator apart."""
    found = {path.stem: path.read_text() for path in PACKAGE.glob("*.py")}
    for package in PACKAGE.glob("*/__init__.py"):
        found[package.parent.name] = "\n".join(
            path.read_text() for path in package.parent.glob("*.py")
        )
    return {name: source for name, source in found.items() if name not in ("__init__", "simulator")}


SOURCES = rooms()
SIMULATOR = {path.stem: path.read_text() for path in PACKAGE.glob("simulator/*.py")}
ORDER = documented_order()


def test_the_reader_of_imports_sees_every_form():
    source = (
        "import exporter.errors\n"
        "import os.path as p, sys\n"
        "from exporter import http, __version__\n"
        "def later():\n    from exporter.client import Client\n"
        "if TYPE_CHECKING:\n    from exporter.simulator.fleet import Fleet\n"
        "from . import pacing\n"
    )
    assert set(imports(source)) >= {"os.path", "sys", "."}
    assert house(source) == {"errors", "http", "client", "simulator"}


def test_every_module_has_one_place_in_the_order():
    assert len(ORDER) == len(set(ORDER))
    assert set(SOURCES) - {MAIN} <= set(ORDER), "add it to the table of docs/architecture.md"


def test_every_place_in_the_order_is_a_module():
    assert set(ORDER) - set(SOURCES) - {"simulator"} == set()


@pytest.mark.parametrize("module", sorted(set(SOURCES) & set(ORDER)))
def test_imports_run_down_the_list(module):
    above = set(ORDER[ORDER.index(module) :]) - {"simulator", module}
    assert house(SOURCES[module]) & above == set(), f"{module} may import only what comes before it"


@pytest.mark.parametrize("package", ["backfill", "credentials", "model", "settings"])
def test_modules_of_a_package_import_in_one_direction(package):
    inside = {path.stem: path.read_text() for path in PACKAGE.glob(f"{package}/*.py")}
    prefix = f"exporter.{package}."
    needs = {
        name: {one.removeprefix(prefix).split(".")[0] for one in imports(source)} & set(inside)
        for name, source in inside.items()
    }
    tuple(TopologicalSorter(needs).static_order())  # raises CycleError


def test_the_package_itself_imports_nothing():
    assert list(imports((PACKAGE / "__init__.py").read_text())) == []


def test_settings_and_simulator_are_known_to_the_composition_only():
    for room in ("settings", "simulator"):
        visitors = {name for name, source in SOURCES.items() if room in house(source)} - {room}
        assert visitors <= COMPOSE, f"{room} is imported by {visitors - COMPOSE}"


@pytest.mark.parametrize("module", sorted(SIMULATOR))
def test_the_simulator_imports_nothing_of_the_exporter(module):
    ours = {name for name in imports(SIMULATOR[module]) if name.split(".")[0] in {"exporter", ""}}
    assert {name for name in ours if not f"{name}.".startswith("exporter.simulator.")} == set()


@pytest.mark.parametrize("module", sorted(PURE & set(SOURCES)))
def test_pure_modules_know_no_outside_world(module):
    assert {name.split(".")[0] for name in imports(SOURCES[module])} & OUTSIDE_WORLD == set()
