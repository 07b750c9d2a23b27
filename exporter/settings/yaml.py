"""A YAML document with the line of every key, or an explained error."""

import re
from typing import NamedTuple

import yaml

from exporter.settings.problems import OptionPath


class Position(NamedTuple):
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
    lines: dict[OptionPath, int]
    twice: list[tuple[OptionPath, int]]


class InvalidYamlError(ValueError):
    """The file cannot be used at all; says why, and what would be valid."""

    def __init__(self, wrong: str, place: Position | None = None) -> None:
        super().__init__(wrong)
        self.place = place


def parse(text: str) -> Document:
    """A YAML document as ``yaml.safe_load`` reads it, with line numbers.

    Raises:
        InvalidYamlError: it is none. Nothing of the text is quoted: it may be a secret.
    """
    try:
        return _parse(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Position(mark.line + 1, mark.column + 1) if mark else None
        raise InvalidYamlError(_explained(error.problem or ""), place) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position].split("\n")
        place = Position(len(before), len(before[-1]) + 1)
        raise InvalidYamlError("a control character; valid: printable text", place) from None
    except RecursionError:
        raise InvalidYamlError("is nested too deeply; valid: YAML with options") from None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        # PyYAML lets errors of its constructors pass: a date like 2026-99-99, "!!bool x".
        raise InvalidYamlError(
            "a date or number that does not exist; valid: quotes around it"
        ) from None


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


def _look(node: yaml.Node, path: OptionPath, document: Document, seen: set[int]) -> None:
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
