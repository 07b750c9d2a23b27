"""A YAML document with the line of every key, or an error that explains what is wrong with it."""

import re
from typing import NamedTuple

import yaml

from exporter.settings.problems import OptionPath


class Position(NamedTuple):
    """A position in a file; both numbers start at 1."""

    line: int
    column: int


class Document(NamedTuple):
    """A YAML document.

    Attributes:
        value: as ``yaml.safe_load`` returns it.
        lines: the line of every key and list item.
        duplicates: keys that a mapping has more than once, with the line of the later one.
    """

    value: object
    lines: dict[OptionPath, int]
    duplicates: list[tuple[OptionPath, int]]


class InvalidYamlError(ValueError):
    """The document cannot be used at all; says why, and what to write instead."""

    def __init__(self, wrong: str, position: Position | None = None) -> None:
        super().__init__(wrong)
        self.position = position


def parse(content: bytes) -> Document:
    """Read a YAML document like ``yaml.safe_load``, with line numbers.

    Raises:
        InvalidYamlError: it is not valid. Never quotes the text, which may contain a secret.
    """
    try:
        text = content.decode("utf-8-sig")
        return _parse(text)
    except UnicodeDecodeError:
        raise InvalidYamlError("not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = Position(mark.line + 1, mark.column + 1) if mark else None
        raise InvalidYamlError(_explanation(error.problem or ""), position) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position].split("\n")
        position = Position(len(before), len(before[-1]) + 1)
        raise InvalidYamlError("control character; use printable text", position) from None
    except RecursionError:
        raise InvalidYamlError("nested too deeply") from None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        # PyYAML does not wrap errors of its constructors: a date like 2026-99-99, "!!bool x".
        raise InvalidYamlError("a date or number that does not exist; put it in quotes") from None


def _parse(text: str) -> Document:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        document = Document(None, {}, [])
        if root is None:
            return document
        _note_lines(root, (), document, set())
        return document._replace(value=loader.construct_document(root))
    finally:
        loader.dispose()


def _note_lines(node: yaml.Node, path: OptionPath, document: Document, seen: set[int]) -> None:
    """Note the lines of all keys. Visits each node once, however many aliases it has."""
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
                    document.duplicates.append((inner, line))
                keys.add((name.tag, str(name.value)))
                document.lines.setdefault(inner, line)
                _note_lines(value, inner, document, seen)
        case yaml.SequenceNode():
            for position, item in enumerate(node.value):
                document.lines.setdefault((*path, position), item.start_mark.line + 1)
                _note_lines(item, (*path, position), document, seen)


def _explanation(wrong: str) -> str:
    """The parser's message in helpful words, without the text that it quotes."""
    if r"'\t'" in wrong:
        return "tab character; use spaces"
    if "alias" in wrong:
        return "alias without an anchor; put text that starts with * in quotes"
    if "tag" in wrong:
        return "unknown tag; put text that starts with ! in quotes"
    if "occurrence" in wrong:
        return "duplicate anchor; put text that starts with & in quotes"
    return re.sub(r"(?<=\s)(['\"])(?!<)[^'\"]{2,}\1", "something", wrong)
