"""The wording of everything that is said about a configuration.

One line a problem: ``OPTION: WHAT IS WRONG; valid: WHAT WOULD BE (from ORIGIN)``. A value is quoted
by `quoted` only, and a value that may be secret not at all.
"""

import datetime as dt
import difflib
import json
import re
from collections.abc import Iterable
from typing import TypeAlias

OptionPath: TypeAlias = tuple[str | int, ...]
"""Where an option is: ``("targets", 1, "auth", "method")``."""

DEFAULT = "the default"
"""The origin of a value that nobody gave."""

_LONGEST = 60
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,40}")


class InvalidValueError(ValueError):
    """A value is not what its option takes; the message goes on after the option's name."""


def invalid_value(
    value: object, noun: str, valid: str, *, hidden: bool = False
) -> InvalidValueError:
    """The usual message: what the value is not, and what would be valid."""
    shown = f"{type_name(value)} (not shown)" if hidden else quoted(value)
    return InvalidValueError(f"{shown} is no {noun}; valid: {valid}")


def quoted(value: object) -> str:
    """A value for people, on one line and not too long."""
    match value:
        case str():
            text = printable(value)
            return f'"{text}"' if len(text) <= _LONGEST else f'"{text[:_LONGEST]}..."'
        case bool() | int() | float():
            text = json.dumps(value) if abs(value) < 10**_LONGEST else type_name(value)
            return text if len(text) <= _LONGEST else type_name(value)
        case _:
            return type_name(value)


def type_name(value: object) -> str:
    """What a value is, without saying it."""
    match value:
        case str():
            return "a text" if value else "an empty text"
        case None:
            return "nothing"
        case bool():
            return "a yes or no"
        case int() | float():
            return "a number"
        case dt.date():
            return "a date"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return "this"


def printable(text: str) -> str:
    """The text on one line, whatever is in it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def key(name: object) -> str:
    """A key of a file, unless it looks like more than a key: ``password:secret``."""
    text = str(name).lower() if isinstance(name, bool) else str(name)
    return text if _KEY.fullmatch(text) else "(odd key)"


def dotted(path: OptionPath) -> str:
    """``targets[1].auth.method``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def problem(name: str, wrong: str, origin: str) -> str:
    """The line for one problem."""
    return f"{name}: {wrong} (from {origin})"


def unknown(origin: str, meant: str | None) -> str:
    """The line for a name that is none, with the one that was perhaps meant."""
    hint = f"did you mean {meant}?" if meant else "valid: the options that --help lists"
    return f"{origin}: unknown; {hint}"


def nearest(name: str, known: Iterable[str], *, prefix: str = "") -> str | None:
    """The known name that is most like it; a prefix that all have does not count."""
    bare = {each.removeprefix(prefix): each for each in known}
    near = difflib.get_close_matches(name.removeprefix(prefix), list(bare), 1)
    return bare[near[0]] if near else None
