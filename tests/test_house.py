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
MOST_ENTRIES = 14
COMPOSING = {"app", "commands"}
VALUES = {
    f"settings.{name}"
    for name in (*("durations", "problems", "small_file", "sources", "tree", "types", "yaml"),)
}
PURE = {"jobs", "modelarts.decode"}
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


def modules() -> dict[str, str]:
    """The source of every module by its dotted name without ``exporter.``; the simulator apart."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "simulator" and parts != ("__init__",):
            found[".".join(parts).removesuffix(".__init__")] = path.read_text()
    return found


MODULES = modules()
ROOMS = {name.split(".")[0] for name in MODULES}
SIMULATOR = {path.stem: path.read_text() for path in PACKAGE.glob("simulator/*.py")}
ORDER = documented_order()


def ours(source: str) -> set[str]:
    """The modules of ``exporter`` that a source imports, by their dotted names without it."""
    names = {name.removeprefix("exporter.") for name in imports(source) if "exporter." in name}
    return {name for name in names if name in MODULES or name.split(".")[0] == "simulator"}


def rooms(source: str) -> set[str]:
    """The entries of ``exporter`` that a source imports from."""
    return {name.split(".")[0] for name in ours(source)}


def test_the_reader_of_imports_sees_every_form():
    source = (
        "import exporter.errors\n"
        "import os.path as p, sys\n"
        "from exporter import clock, __version__\n"
        "def later():\n    from exporter.modelarts.client import Client\n"
        "if TYPE_CHECKING:\n    from exporter.simulator.fleet import Fleet\n"
        "from . import pacing\n"
    )
    assert set(imports(source)) >= {"os.path", "sys", "."}
    assert rooms(source) == {"errors", "clock", "modelarts", "simulator"}


def test_the_house_has_few_rooms():
    entries = {path.name for path in PACKAGE.iterdir()} - {"__pycache__", "__init__.py", "py.typed"}
    assert len(entries) <= MOST_ENTRIES


def test_every_room_has_one_place_in_the_order():
    assert len(ORDER) == len(set(ORDER))
    assert ROOMS | {"simulator"} == {*ORDER, MAIN}, "the table of docs/architecture.md differs"


@pytest.mark.parametrize("module", sorted(set(MODULES) - {MAIN}))
def test_imports_run_down_the_list(module):
    room = module.split(".")[0]
    above = set(ORDER[ORDER.index(room) + 1 :]) - {"simulator"}
    assert rooms(MODULES[module]) & above == set(), f"{room} may import only what comes before it"


def test_no_module_imports_itself_in_a_circle():
    needs = {name: ours(source) & set(MODULES) - {name} for name, source in MODULES.items()}
    tuple(TopologicalSorter(needs).static_order())  # raises CycleError


@pytest.mark.parametrize("module", sorted(set(MODULES) - {MAIN}))
def test_rooms_below_the_composition_see_nothing_of_the_settings_but_the_schema(module):
    room = module.split(".")[0]
    if room in COMPOSING or room == "settings":
        return
    seen = {name for name in ours(MODULES[module]) if name.startswith("settings.")}
    allowed = {"settings.schema"}
    if module.startswith("web.config."):
        allowed = VALUES
    elif module.startswith("huaweicloud.auth."):
        allowed |= {"settings.secret_values"}  # one rule for secrets in options and in files
    assert seen <= allowed


def test_the_package_itself_imports_nothing():
    assert list(imports((PACKAGE / "__init__.py").read_text())) == []


def test_only_the_composition_knows_the_simulator():
    visitors = {name for name, source in MODULES.items() if "simulator" in rooms(source)}
    assert {name.split(".")[0] for name in visitors} <= {"commands"}


@pytest.mark.parametrize("module", sorted(SIMULATOR))
def test_the_simulator_imports_nothing_of_the_exporter(module):
    names = {name for name in imports(SIMULATOR[module]) if name.split(".")[0] in {"exporter", ""}}
    assert {name for name in names if not f"{name}.".startswith("exporter.simulator.")} == set()


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith(tuple(PURE))))
def test_pure_modules_know_no_outside_world(module):
    assert {name.split(".")[0] for name in imports(MODULES[module])} & OUTSIDE_WORLD == set()
