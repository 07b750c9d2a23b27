"""The configuration file, and files of targets, as layers of values with their origins."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from exporter.settings.options import Option
from exporter.settings.problems import (
    InvalidValueError,
    OptionPath,
    printable,
    problem,
    quoted_path,
)
from exporter.settings.secret_types import WrittenPath
from exporter.settings.small_file import read_file
from exporter.settings.sources import Layer, wrapped
from exporter.settings.tree import KeyTree, ListOf, NotNull, TreeReader, shown
from exporter.settings.yaml import Document, InvalidYamlError, parse

_OPTION = "config.file"


def read(path: str, origin: str, options: Sequence[Option]) -> Layer:
    """Read the configuration file.

    Args:
        path: of the file.
        origin: what named the file.
        options: all that exist.
    """
    try:
        document = _parsed(path, read_file(path, allow_pipe=True))
    except InvalidValueError as error:
        return Layer(problems=[problem(_OPTION, str(error), origin)], incomplete=True)
    return _layer(path, document, _tree(options, _folder(path)))


def read_targets(path: str, content: bytes, options: Sequence[Option]) -> Layer:
    """Read a file that consists of a list of targets, as the value of ``targets``.

    Raises:
        InvalidValueError: it is not valid YAML.
    """
    document = _parsed(path, content)
    lines = {("targets", *inner): line for inner, line in document.lines.items()}
    duplicates = [(("targets", *inner), line) for inner, line in document.duplicates]
    listed = Document({"targets": document.value}, lines, duplicates)
    return _layer(path, listed, {"targets": _tree(options, _folder(path))["targets"]})


def _folder(path: str) -> str:
    return os.path.dirname(path)  # noqa: PTH120 - "" stays ""


def _parsed(path: str, content: bytes) -> Document:
    """The document in a file.

    Raises:
        InvalidValueError: there is none.
    """
    try:
        return parse(content)
    except InvalidYamlError as error:
        line, column = error.position or (None, None)
        at = f", line {line}, column {column}" if line else ""
        raise InvalidValueError(f"invalid YAML in {quoted_path(path)}{at}: {error}") from None


def _layer(path: str, document: Document, tree: KeyTree) -> Layer:
    reader = TreeReader(document, tree)
    return Layer(
        values=reader.values,
        origins={each: _origin(path, document, each) for each in reader.paths},
        problems=[
            problem(shown(each.path) or _OPTION, each.wrong, _origin(path, document, each.path))
            for each in reader.problems
        ],
        incomplete=reader.incomplete,
    )


def _origin(file: str, document: Document, path: OptionPath) -> str:
    key = f", key {shown(path)}" if path else ""
    line = document.lines.get(path)
    return f"file {printable(file)}{key}" + (f", line {line}" if line else "")


def _tree(options: Sequence[Option], folder: str) -> KeyTree:
    """The options as the keys of the file; paths are relative to the folder of the file."""
    top: dict[str, Any] = {}
    for option in options:
        if not option.in_file:
            continue
        group = top
        for name in option.path[:-1]:
            group = group.setdefault(name, {})
        read_value = partial(_value, option, folder)
        group[option.path[-1]] = read_value if option.type.flag else NotNull(read_value)
    return top | {"targets": ListOf(top["target"], "target", "region: cn-north-4")}


def _value(option: Option, folder: str, value: object) -> object:
    if option.type.path and option.type.many:
        given = value if isinstance(value, list) else str(value).split(",")
        return [_path(folder, each) for each in given]
    return wrapped(option.type, _path(folder, value) if option.type.path else value)


def _path(folder: str, value: object) -> object:
    if not isinstance(value, str) or not value.strip():
        return value
    path = os.path.join(folder, value.strip())  # noqa: PTH118 - "a" stays "a"
    return WrittenPath(path, value.strip())
