"""The committed dashboards, and what is in them."""

import json
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "grafana"
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


class Question(NamedTuple):
    """A query of a dashboard.

    ``place`` says where it stands; ``kind`` is how it is asked: ``instant``, ``range``, or
    ``annotation``.
    """

    board: str
    place: str
    ref: str
    expr: str
    kind: str


def panels(board):
    """All but rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def variables(board):
    return {each["name"]: each for each in board["templating"]["list"]}


def asked(board):
    """The variables that have a query: name → (function, its argument), in their order."""
    found = {}
    for name, each in variables(board).items():
        if each["type"] == "query":
            match = re.fullmatch(r"(label_values|query_result)\((.+)\)", each["query"])
            assert match, each["query"]
            found[name] = match.groups()
    return found


def questions(name):
    """Every query of a dashboard's panels and annotations."""
    board = BOARDS[name]
    for panel in panels(board):
        for target in panel["targets"]:
            kind = "instant" if target.get("instant") else "range"
            yield Question(name, panel["title"], target["refId"], target["expr"], kind)
    for each in board["annotations"].get("list", []):
        yield Question(name, each["name"], "annotation", each["expr"], "annotation")


QUESTIONS = [question for name in BOARDS for question in questions(name)]


def selectors(expr):
    """Name, matchers, what stands before and what after, of every selector of a query."""
    return [
        (match[1], match[2], expr[: match.start()], expr[match.end() :])
        for match in re.finditer(r"(\w+)\{([^{}]*)\}", expr)
    ]
