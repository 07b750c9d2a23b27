"""The configuration file as a layer of values with their origins."""

import os
from collections.abc import Sequence
from pathlib import Path as File
from typing import Any, TypeAlias

from exporter.settings.options import Option
from exporter.settings.problems import (
    OptionPath,
    dotted,
    key,
    nearest,
    printable,
    problem,
    quoted,
    type_name,
    unknown,
)
from exporter.settings.sources import Layer, wrapped
from exporter.settings.types import TARGETS
from exporter.settings.yaml import Document, InvalidYamlError, parse

_MAX_BYTES = 2**20
_MAPPING = 'valid: "OPTION: VALUE" lines, with a blank after the colon'

OptionTree: TypeAlias = "dict[str, Option | OptionTree]"
"""What may stand in a mapping of the file: options, and groups with their own level."""


def read(path: str, origin: str, options: Sequence[Option]) -> Layer:
    """What the file says.

    Args:
        path: of the file.
        origin: what named the file.
        options: the known ones.
    """
    try:
        document = parse(_content(path))
    except InvalidYamlError as error:
        at = f", line {error.place.line}, column {error.place.column}" if error.place else ""
        line = problem("config.file", f"{quoted(path)}{at}: {error}", origin)
        return Layer(problems=[line], unread=True)
    return _Reader(path, options, document).layer


def _content(path: str) -> str:
    try:
        with File(path).open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InvalidYamlError(
            f"cannot be read: {error.strerror}; valid: a readable YAML file"
        ) from None
    if len(content) > _MAX_BYTES:
        raise InvalidYamlError(f"is larger than {_MAX_BYTES} bytes; valid: a YAML file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidYamlError("is not UTF-8 text; valid: a YAML file") from None


class _Reader:
    """Walks through a document along the tree of options."""

    def __init__(self, path: str, options: Sequence[Option], document: Document) -> None:
        self.layer = Layer()
        self._path = path
        self._options = [option for option in options if option.in_file]
        self._document = document
        top = _levels(self._options)
        target = top["target"]
        self._target: OptionTree = target if isinstance(target, dict) else {}
        for inner, second in document.twice:
            first = document.lines[inner]
            lines = f"line {first}" if first == second else f"lines {first} and {second}"
            self._complain(inner, f"is there twice, on {lines}; valid: once")
        if document.value is not None:
            self.layer.values = self._mapping(document.value, top, ())

    def _origin(self, path: OptionPath) -> str:
        file = f"file {printable(self._path)}"
        line = self._document.lines.get(path)
        return f"{file}, key {_shown(path)}" + (f", line {line}" if line else "")

    def _complain(self, path: OptionPath, wrong: str) -> None:
        self.layer.problems.append(problem(_shown(path), wrong, self._origin(path)))

    def _mapping(self, value: object, level: OptionTree, path: OptionPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if not isinstance(value, dict):
            self.layer.unread = True
            if path:
                self._complain(path, f"{type_name(value)} where options belong; {_MAPPING}")
            else:
                wrong = f"{type_name(value)} where options belong; {_MAPPING}"
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

    def _value(self, option: Option, value: object, path: OptionPath) -> object:
        if option.kind is TARGETS:
            return self._targets(value, path)
        if option.kind.path and isinstance(value, str) and value.strip():
            value = os.path.join(os.path.dirname(self._path), value.strip())  # noqa: PTH118, PTH120 - "a" stays "a"
        return wrapped(option.kind, value)

    def _targets(self, value: object, path: OptionPath) -> list[dict[str, Any]]:
        if not isinstance(value, list):
            self._complain(
                path,
                f'{type_name(value)} is no list; valid: a list, such as "- region: cn-north-4"',
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

    def _unknown(self, path: OptionPath, name: object, level: OptionTree) -> None:
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


def _levels(options: Sequence[Option]) -> OptionTree:
    top: OptionTree = {}
    for option in options:
        level = top
        for name in option.path[:-1]:
            inner = level.setdefault(name, {})
            level = inner if isinstance(inner, dict) else {}
        level[option.path[-1]] = option
    return top


def _shown(path: OptionPath) -> str:
    return dotted(tuple(part if isinstance(part, int) else key(part) for part in path))
