"""Reading a YAML document along a tree of the keys that it may contain."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from exporter.settings.problems import (
    HiddenKey,
    InvalidValueError,
    OptionPath,
    alternatives,
    dotted,
    is_plausible_key,
    nearest,
    safe_key,
    type_name,
)
from exporter.settings.yaml import Document

ReadValue: TypeAlias = Callable[[object], Any]
"""Takes a value as YAML has it; returns it converted, or raises `InvalidValueError`."""


@dataclass(frozen=True)
class NotNull:
    """A key that must not be left empty; other empty keys count as not set."""

    read: ReadValue


@dataclass(frozen=True)
class ListOf:
    """A list of mappings.

    Attributes:
        keys: of each mapping.
        noun: name of an item.
        example: first line of an item.
    """

    keys: "KeyTree"
    noun: str
    example: str


@dataclass(frozen=True)
class AnyKeys:
    """A mapping with keys that the user chooses.

    Attributes:
        check_key: raises `InvalidValueError` for an invalid key.
        read: converts each value; null too.
    """

    check_key: Callable[[object], None]
    read: ReadValue


KeyTree: TypeAlias = "Mapping[str, ReadValue | NotNull | ListOf | AnyKeys | KeyTree]"
"""The keys of a mapping. A nested mapping is a group of keys."""


class KeyProblem(NamedTuple):
    """A problem with one key.

    Attributes:
        path: of the key; () = the whole document.
        wrong: what is wrong, and what would be valid.
    """

    path: OptionPath
    wrong: str


class TreeReader:
    """The values of a document, and everything that is wrong with its keys.

    Attributes:
        values: nested like the tree, without those that are invalid.
        paths: of all values, list items included.
        problems: in the order of the document.
        incomplete: something other than a mapping stood where keys are expected, so a key that
            seems to be missing may just be unreadable.
    """

    def __init__(self, document: Document, tree: KeyTree) -> None:
        self.values: dict[str, Any] = {}
        self.paths: list[OptionPath] = []
        self.problems: list[KeyProblem] = []
        self.incomplete = False
        self._tree = tree
        for path, second in document.duplicates:
            first = document.lines[path]
            lines = f"line {first}" if first == second else f"lines {first} and {second}"
            self._complain(path, f"duplicate key ({lines})")
        if document.value is not None:
            self.values = self._group(document.value, tree, ())

    def _complain(self, path: OptionPath, wrong: str) -> None:
        self.problems.append(KeyProblem(self._guarded(path), wrong))

    def _guarded(self, path: OptionPath) -> OptionPath:
        """The path, with every key hidden that may be a secret instead of a key."""
        names = {str(part) for known in _paths(self._tree) for part in known}
        node: object = self._tree
        parts: list[str | int] = []
        for part in path:
            keys = node.keys if isinstance(node, ListOf) else node
            if isinstance(part, str) and isinstance(keys, Mapping):
                secrets = "auth" in parts
                shown = part in keys or is_plausible_key(part, names, among_secrets=secrets)
                node = keys.get(part, {})
                parts.append(part if shown else HiddenKey(part))
            else:
                parts.append(part)
        return tuple(parts)

    def _items(self, value: object, path: OptionPath) -> Iterator[tuple[object, object]]:
        """The keys and values of a mapping; none, and a problem, if it is not a mapping."""
        if isinstance(value, dict):
            yield from value.items()
            return
        self.incomplete = True
        hint = '; write "KEY: VALUE" with a space after the colon' if isinstance(value, str) else ""
        self._complain(path, f"expected a mapping, got {type_name(value)}{hint}")

    def _group(self, value: object, tree: KeyTree, path: OptionPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, inner in self._items(value, path):
            here = (*path, _text(name))
            node = tree.get(name) if isinstance(name, str) else None
            if node is None:
                self._unknown(here, name, tree)
            elif isinstance(node, ListOf):
                values[_text(name)] = self._list(inner, node, here)
            elif isinstance(node, NotNull):
                self._value(values, inner, node.read, here)
            elif inner is None:
                continue
            elif isinstance(node, Mapping):
                values[_text(name)] = self._group(inner, node, here)
            elif isinstance(node, AnyKeys):
                values[_text(name)] = self._any_keys(inner, node, here)
            else:
                self._value(values, inner, node, here)
        return values

    def _value(
        self, values: dict[str, Any], value: object, read: ReadValue, path: OptionPath
    ) -> None:
        self.paths.append(path)
        try:
            values[str(path[-1])] = read(value)
        except InvalidValueError as error:
            self._complain(path, str(error))

    def _any_keys(self, value: object, node: AnyKeys, path: OptionPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, inner in self._items(value, path):
            here = (*path, _text(name))
            try:
                node.check_key(name)
            except InvalidValueError as error:
                self._complain(here, str(error))
            else:
                self._value(values, inner, node.read, here)
        return values

    def _list(self, value: object, node: ListOf, path: OptionPath) -> list[dict[str, Any]]:
        self.paths.append(path)
        items = value if isinstance(value, list) else []
        if not isinstance(value, list):
            wrong = f'expected a list such as "- {node.example}", got {type_name(value)}'
            self._complain(path, wrong)
        elif not items:
            self._complain(path, f"the list is empty; add at least one {node.noun}")
        paths: list[OptionPath] = [(*path, position) for position in range(len(items))]
        self.paths += paths
        return [self._group(item, node.keys, here) for item, here in zip(items, paths, strict=True)]

    def _unknown(self, path: OptionPath, name: object, siblings: KeyTree) -> None:
        """Suggest the most similar sibling, or else the most similar key anywhere."""
        if not isinstance(name, str) or isinstance(self._guarded(path)[-1], HiddenKey):
            suggestion = None
        elif sibling := nearest(name, siblings):
            suggestion = dotted((*path[:-1], sibling))
        else:
            names = {str(each[-1]): dotted(each) for each in reversed([*_paths(self._tree)])}
            suggestion = names.get(nearest(name, names) or "")
        hint = f"did you mean {suggestion}?" if suggestion else f"use {alternatives([*siblings])}"
        self._complain(path, f"unknown key; {hint}")


def shown(path: OptionPath) -> str:
    """A path for people: ``targets[1].auth.method``."""
    return dotted(tuple(part if isinstance(part, int) else safe_key(part) for part in path))


def _text(key: object) -> str:
    """A key as text. YAML reads some words as booleans."""
    return str(key).lower() if isinstance(key, bool) else str(key)


def _paths(tree: KeyTree, path: OptionPath = ()) -> Iterator[OptionPath]:
    """The paths of all keys that are not groups."""
    for name, node in tree.items():
        if isinstance(node, Mapping):
            yield from _paths(node, (*path, name))
        else:
            yield (*path, name)
