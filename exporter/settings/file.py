"""The configuration file as a layer of values with their origins."""

import os
import re
from collections.abc import Sequence
from pathlib import Path as File
from typing import Any, NamedTuple, TypeAlias

import yaml

from exporter.settings.kinds import TARGETS
from exporter.settings.layers import Layer, wrapped
from exporter.settings.options import Option
from exporter.settings.words import (
    Path,
    a,
    dotted,
    key,
    nearest,
    printable,
    problem,
    quoted,
    unknown,
)

_MAX_BYTES = 2**20
_MAPPING = 'valid: "OPTION: VALUE" lines, with a blank after the colon'

Level: TypeAlias = "dict[str, Option | Level]"
"""What may stand in a mapping of the file: options, and groups with their own level."""


class Place(NamedTuple):
    """Where something is in a file, from 1."""

    line: int
    column: int


class Document(NamedTuple):
    """A YAML document.

    Attributes:
        value: what ``yaml.safe_load`` makes of it.
        lines: of every key.
        twice: keys that one mapping has twice, with their second line.
    """

    value: object
    lines: dict[Path, int]
    twice: list[tuple[Path, int]]


class Unusable(ValueError):
    """The file cannot be used at all; says why, and what would be valid."""

    def __init__(self, wrong: str, place: Place | None = None) -> None:
        super().__init__(wrong)
        self.place = place


def read(path: str, origin: str, options: Sequence[Option]) -> Layer:
    """What the file says.

    Args:
        path: of the file.
        origin: what named the file.
        options: the known ones.
    """
    try:
        document = parse(_content(path))
    except Unusable as error:
        at = f", line {error.place.line}, column {error.place.column}" if error.place else ""
        line = problem("config.file", f"{quoted(path)}{at}: {error}", origin)
        return Layer(problems=[line], unread=True)
    return _Reader(path, options, document).layer


def _content(path: str) -> str:
    try:
        with File(path).open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise Unusable(f"cannot be read: {error.strerror}; valid: a readable YAML file") from None
    if len(content) > _MAX_BYTES:
        raise Unusable(f"is larger than {_MAX_BYTES} bytes; valid: a YAML file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unusable("is not UTF-8 text; valid: a YAML file") from None


# --- YAML -----------------------------------------------------------------------------------------


def parse(text: str) -> Document:
    """A YAML document as ``yaml.safe_load`` reads it, with line numbers.

    Raises:
        Unusable: it is none. Nothing of the text is quoted: it may be a secret.
    """
    try:
        return _parse(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else None
        raise Unusable(_explained(error.problem or ""), place) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position].split("\n")
        place = Place(len(before), len(before[-1]) + 1)
        raise Unusable("a control character; valid: printable text", place) from None
    except RecursionError:
        raise Unusable("is nested too deeply; valid: YAML with options") from None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        # PyYAML lets errors of its constructors pass: a date like 2026-99-99, "!!bool x".
        raise Unusable("a date or number that does not exist; valid: quotes around it") from None


def _parse(text: str) -> Document:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        document = Document(None, {}, [])
        if root is None:
            return document
        _look(root, (), document, set())
        return document._replace(value=loader.construct_document(root))
    finally:
        loader.dispose()


def _look(node: yaml.Node, path: Path, document: Document, seen: set[int]) -> None:
    """Note the lines of all keys. Each node is looked at once, however many aliases it has."""
    if id(node) in seen:
        return
    seen.add(id(node))
    match node:
        case yaml.MappingNode():
            keys = set()
            for name, value in node.value:
                inner = (*path, str(name.value))
                line = name.start_mark.line + 1
                if (name.tag, str(name.value)) in keys:
                    document.twice.append((inner, line))
                keys.add((name.tag, str(name.value)))
                document.lines.setdefault(inner, line)
                _look(value, inner, document, seen)
        case yaml.SequenceNode():
            for position, item in enumerate(node.value):
                document.lines.setdefault((*path, position), item.start_mark.line + 1)
                _look(item, (*path, position), document, seen)


def _explained(wrong: str) -> str:
    """What the parser says, in words that help and without anything that it quotes."""
    if r"'\t'" in wrong:
        return "a tab; valid: spaces"
    if "alias" in wrong:
        return "an alias without its anchor; valid: quotes around a text that starts with *"
    if "tag" in wrong:
        return "a tag; valid: quotes around a text that starts with !"
    if "occurrence" in wrong:
        return "an anchor for the second time; valid: quotes around a text that starts with &"
    return re.sub(r"(?<=\s)(['\"])(?!<)[^'\"]{2,}\1", "something", wrong) + "; valid: YAML"


# --- options --------------------------------------------------------------------------------------


class _Reader:
    """Walks through a document along the tree of options."""

    def __init__(self, path: str, options: Sequence[Option], document: Document) -> None:
        self.layer = Layer()
        self._path = path
        self._options = [option for option in options if option.in_file]
        self._document = document
        top = _levels(self._options)
        target = top["target"]
        self._target: Level = target if isinstance(target, dict) else {}
        for inner, second in document.twice:
            first = document.lines[inner]
            lines = f"line {first}" if first == second else f"lines {first} and {second}"
            self._complain(inner, f"is there twice, on {lines}; valid: once")
        if document.value is not None:
            self.layer.values = self._mapping(document.value, top, ())

    def _origin(self, path: Path) -> str:
        file = f"file {printable(self._path)}"
        line = self._document.lines.get(path)
        return f"{file}, key {_shown(path)}" + (f", line {line}" if line else "")

    def _complain(self, path: Path, wrong: str) -> None:
        self.layer.problems.append(problem(_shown(path), wrong, self._origin(path)))

    def _mapping(self, value: object, level: Level, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if not isinstance(value, dict):
            self.layer.unread = True
            if path:
                self._complain(path, f"{a(value)} where options belong; {_MAPPING}")
            else:
                wrong = f"{a(value)} where options belong; {_MAPPING}"
                self.layer.problems.append(f"file {printable(self._path)}: {wrong}")
            return found
        for name, inner in value.items():
            known = level.get(name) if isinstance(name, str) else None
            if known is None:
                self._unknown((*path, key(name)), name, level)
            elif isinstance(known, dict):
                if inner is not None:
                    found[name] = self._mapping(inner, known, (*path, name))
            elif inner is not None or not known.kind.flag:
                self.layer.origins[*path, name] = self._origin((*path, name))
                found[name] = self._value(known, inner, (*path, name))
        return found

    def _value(self, option: Option, value: object, path: Path) -> object:
        if option.kind is TARGETS:
            return self._targets(value, path)
        if option.kind.path and isinstance(value, str) and value.strip():
            value = os.path.join(os.path.dirname(self._path), value.strip())  # noqa: PTH118, PTH120 - "a" stays "a"
        return wrapped(option.kind, value)

    def _targets(self, value: object, path: Path) -> list[dict[str, Any]]:
        if not isinstance(value, list):
            self._complain(
                path, f'{a(value)} is no list; valid: a list, such as "- region: cn-north-4"'
            )
            return []
        if not value:
            self._complain(path, "the list is empty; valid: at least one target")
        for position in range(len(value)):
            self.layer.origins[*path, position] = self._origin((*path, position))
        return [
            self._mapping(item, self._target, (*path, position))
            for position, item in enumerate(value)
        ]

    def _unknown(self, path: Path, name: object, level: Level) -> None:
        """The nearest name is looked for beside the unknown one first, then everywhere."""
        beside = nearest(str(name), level)
        elsewhere = [option.name for option in self._options if option.path[-1] == name]
        if beside:
            meant: str | None = dotted((*path[:-1], beside))
        elif elsewhere:
            meant = elsewhere[0]
        else:
            meant = nearest(dotted(path), [option.name for option in self._options])
        odd = path[-1] != name
        self.layer.problems.append(unknown(self._origin(path), None if odd else meant))


def _levels(options: Sequence[Option]) -> Level:
    top: Level = {}
    for option in options:
        level = top
        for name in option.path[:-1]:
            inner = level.setdefault(name, {})
            level = inner if isinstance(inner, dict) else {}
        level[option.path[-1]] = option
    return top


def _shown(path: Path) -> str:
    return dotted(tuple(part if isinstance(part, int) else key(part) for part in path))
