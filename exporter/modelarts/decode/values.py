"""Check single values: a value that cannot be right is unset and reported, never guessed."""

import functools
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import TypeAlias

from exporter.errors import one_line
from exporter.jobs.job import ProblemKind
from exporter.modelarts.decode.lenient import Number, Text

UNKNOWN = "unknown"
MS = 1000.0
SECONDS = 1.0

_EARLIEST = datetime(2015, 1, 1, tzinfo=UTC).timestamp()  # the service is younger
_MAX_SKEW = 15 * 60.0  # with more clock skew the service would have refused the request
_MAX_DURATION = 10 * 365.25 * 86400
_MAX_LABEL = 256
_MAX_VALUE = 80

# NUL and other control characters except newline; surrogates, which no encoding can carry.
_UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_POLICY = re.compile(r"[a-z0-9_]{1,64}")
_IDENTIFIER = re.compile(r"[A-Za-z0-9_]{1,64}")


def label(text: Text, limit: int = _MAX_LABEL) -> str:
    """Return foreign text as a label value: encodable, at most ``limit`` characters; None is ""."""
    if not text:
        return ""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return text if text.isprintable() else _UNSAFE.sub("\ufffd", text)


@functools.lru_cache(maxsize=1024)
def shared_label(text: Text, limit: int = _MAX_LABEL) -> str:
    """As `label`, for texts that many jobs have: they share one string."""
    return label(text, limit)


FieldProblems: TypeAlias = Mapping[tuple[str, ProblemKind], str]
"""By field and kind of problem: the undocumented value, else ""."""


class Checker:
    """Checks values, and collects at most one problem per field and kind.

    Args:
        now: unix seconds, where times are checked.
    """

    __slots__ = ("_latest", "problems")

    def __init__(self, now: float = 0) -> None:
        self._latest = now + _MAX_SKEW
        self.problems: dict[tuple[str, ProblemKind], str] = {}

    def invalid(self, field: str) -> None:
        """Report a field that cannot be used."""
        self.problems[field, "invalid"] = ""

    def unknown(self, field: str, value: str) -> str:
        """Report an undocumented value; return the value to show instead."""
        self.problems.setdefault((field, "unknown"), one_line(value, _MAX_VALUE))
        return UNKNOWN

    def time(self, value: Number, per_second: float, field: str) -> float | None:
        """Return a timestamp in `MS` or `SECONDS` as unix seconds; 0 is unset."""
        if not value:
            return None
        seconds = value / per_second
        if _EARLIEST <= seconds <= self._latest:
            return seconds
        self.invalid(field)
        return None

    def duration(self, value: Number, per_second: float, field: str) -> float | None:
        """Return a duration in `MS` or `SECONDS` as seconds."""
        if value is None:
            return None
        seconds = value / per_second
        if 0 <= seconds <= _MAX_DURATION:
            return seconds
        self.invalid(field)
        return None

    def amount(self, value: Number, most: float, field: str, *, whole: bool = True) -> float | None:
        """Return a number from 0 to ``most``; ``whole``: without a fraction."""
        if value is None:
            return None
        if 0 <= value <= most and (not whole or value.is_integer()):
            return value
        self.invalid(field)
        return None

    def choice(self, value: Text, documented: Collection[str], field: str) -> str:
        """Return one of the documented values; "" if there is none."""
        if not value or value in documented:
            return value or ""
        return self.unknown(field, value)

    def policy(self, value: Text) -> str:
        """Return a recovery policy: any identifier, since newer documents name more of them."""
        if not value or _POLICY.fullmatch(value):
            return value or ""
        return self.unknown("recovery", value)

    def identifier(self, value: Text, field: str) -> str:
        """As `policy`, for a field with an open set of other values, such as quotaExceeded."""
        if not value or _IDENTIFIER.fullmatch(value):
            return value or ""
        return self.unknown(field, value)
