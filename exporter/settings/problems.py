"""The wording of messages about a configuration.

One line per problem: ``OPTION: WHAT IS WRONG; WHAT WOULD BE VALID (from ORIGIN)``. Values are
quoted only by `quoted`; a value that may be secret is never quoted.
"""

import datetime as dt
import difflib
import json
import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

OptionPath: TypeAlias = tuple[str | int, ...]
"""Where an option is: ``("targets", 1, "auth", "method")``."""

DEFAULT = "the default"
"""The origin of a value that was not set anywhere."""

_MAX_LENGTH = 60
_TYPE_NAMES: dict[type, str] = {
    str: "a string",
    bool: "a boolean",  # before int, its base class
    int: "a number",
    float: "a number",
    dt.date: "a date",
    dict: "a mapping",
    list: "a list",
}
_SAFE_KEY = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_LIKE_AN_OPTION = re.compile(r"[A-Za-z]?[a-z_.-]{0,39}|[0-9]{1,3}")
_LIKE_A_TYPO = re.compile(r"[A-Za-z_.-]{1,40}")


class HiddenKey(str):
    """A key that is not shown, because it may be a secret in the wrong place."""

    __slots__ = ()


class InvalidValueError(ValueError):
    """A value is not valid for its option. The message continues the option's name."""


def invalid_value(
    value: object, noun: str, hint: str, *, hidden: bool = False
) -> InvalidValueError:
    """The usual message: what was expected, and what to use instead."""
    if hidden:
        got = ": got null" if value is None else f": got {type_name(value)} (not shown)"
    else:
        shown = quoted(value)
        got = f": got {shown}" if shown == type_name(value) else f" {shown}"
    return InvalidValueError(f"invalid {noun}{got}; use {hint}")


def unknown_word(value: object, words: Sequence[str]) -> InvalidValueError:
    """The message for a value that is not one of the known words."""
    text = value.strip() if isinstance(value, str) else ""
    near = nearest(text, words) or nearest(text.lower(), words)
    hint = f" (did you mean {near}?)" if near else ""
    return InvalidValueError(f"invalid value {quoted(value)}{hint}; use {alternatives(words)}")


def alternatives(words: Sequence[str]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def quoted(value: object) -> str:
    """A value for people, on one line and not too long."""
    match value:
        case str():
            text = printable(value)
            return f'"{text}"' if len(text) <= _MAX_LENGTH else f'"{text[:_MAX_LENGTH]}..."'
        case bool() | int() | float():
            text = json.dumps(value) if abs(value) < 10**_MAX_LENGTH else type_name(value)
            return text if len(text) <= _MAX_LENGTH else type_name(value)
        case _:
            return type_name(value)


def quoted_path(path: str) -> str:
    """The whole path of a file, on one line."""
    return f'"{printable(path)}"'


def type_name(value: object) -> str:
    """The type of a value for people, without the value."""
    if value is None:
        return "null"
    if value == "":
        return "an empty string"
    names = (name for each, name in _TYPE_NAMES.items() if isinstance(value, each))
    return next(names, "another type")


def printable(text: str) -> str:
    """The text on one line, with everything unprintable escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def safe_key(name: str) -> str:
    """A key of a file, unless it may contain more than a key: ``password:secret``."""
    hidden = isinstance(name, HiddenKey) or not _SAFE_KEY.fullmatch(name)
    return "(key not shown)" if hidden else name


def is_plausible_key(name: str, known: Iterable[str], *, among_secrets: bool) -> bool:
    """Whether an unknown key looks like the name of an option, and not like a secret.

    Among secrets, it must be similar to a known key.
    """
    if _LIKE_AN_OPTION.fullmatch(name) and not among_secrets:
        return True
    return bool(_LIKE_A_TYPO.fullmatch(name)) and nearest(name.lower(), known) is not None


def dotted(path: OptionPath) -> str:
    """``targets[1].auth.method``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def problem(name: str, wrong: str, origin: str) -> str:
    """The line for one problem."""
    return f"{name}: {wrong} (from {origin})"


def unknown(origin: str, suggestion: str | None) -> str:
    """The line for an unknown name, with the known name that was probably meant."""
    hint = f"did you mean {suggestion}?" if suggestion else "see --help for all options"
    return f"{origin}: unknown; {hint}"


def nearest(name: str, known: Iterable[str], *, prefix: str = "") -> str | None:
    """The most similar known name. A prefix that all names share does not count."""
    bare = {each.removeprefix(prefix): each for each in known}
    near = difflib.get_close_matches(name.removeprefix(prefix), list(bare), 1)
    return bare[near[0]] if near else None
