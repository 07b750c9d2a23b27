"""The configuration file as a layer of values with their origins."""

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
        document = parse(read_file(path, allow_pipe=True))
    except InvalidValueError as error:
        return Layer(problems=[problem(_OPTION, str(error), origin)], incomplete=True)
    except InvalidYamlError as error:
        line, column = error.position or (None, None)
        at = f", line {line}, column {column}" if line else ""
        wrong = f"invalid YAML in {quoted_path(path)}{at}: {error}"
        return Layer(problems=[problem(_OPTION, wrong, origin)], incomplete=True)
    reader = TreeReader(document, _tree(options, os.path.dirname(path)))  # noqa: PTH120 - "" stays ""
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
    if option.type.path and isinstance(value, str) and value.strip():
        path = os.path.join(folder, value.strip())  # noqa: PTH118 - "a" stays "a"
        value = WrittenPath(path, value.strip())
    return wrapped(option.type, value)
