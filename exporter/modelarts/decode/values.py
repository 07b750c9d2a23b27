"""Single values of the service, checked: what cannot be right is unset and said, never guessed."""

import functools
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import TypeAlias

from exporter.errors import one_line
from exporter.jobs.job import ProblemKind
from exporter.modelarts.decode.schema import Number, Text

UNKNOWN = "unknown"
MS = 1000.0
SECONDS = 1.0

_EARLIEST = datetime(2015, 1, 1, tzinfo=UTC).timestamp()  # the service is younger
_SKEW = 15 * 60.0  # with clocks further apart the service would have refused the request
_LONGEST = 10 * 365.25 * 86400
_LABEL = 256
_VALUE = 80

# NUL and other control characters but newline; surrogates, which no encoding can carry.
_UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_IDENTIFIER = re.compile(r"[a-z0-9_]{1,64}")


def label(text: Text, limit: int = _LABEL) -> str:
    """A stranger's text as a label value: encodable, at most ``limit`` characters; None is ""."""
    if not text:
        return ""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return text if text.isprintable() else _UNSAFE.sub("\ufffd", text)


@functools.lru_cache(maxsize=1024)
def shared(text: Text, limit: int = _LABEL) -> str:
    """`label` for texts that many jobs have: they share one string."""
    return label(text, limit)


Oddities: TypeAlias = Mapping[tuple[str, ProblemKind], str]
"""By field and kind of oddity: for undocumented values which, else ""."""


class Checker:
    """Checks values, and remembers what was odd once for each field.

    Args:
        now: unix seconds, where times are checked.
    """

    __slots__ = ("_latest", "odd")

    def __init__(self, now: float = 0) -> None:
        self._latest = now + _SKEW
        self.odd: dict[tuple[str, ProblemKind], str] = {}

    def invalid(self, field: str) -> None:
        """The field cannot be used."""
        self.odd[field, "invalid"] = ""

    def unknown(self, field: str, value: str) -> str:
        """The value is not documented; it is shown as what is returned."""
        self.odd.setdefault((field, "unknown"), one_line(value, _VALUE))
        return UNKNOWN

    def time(self, value: Number, unit: float, field: str) -> float | None:
        """Unix seconds of a timestamp in ``unit`` a second; 0 is unset."""
        if not value:
            return None
        seconds = value / unit
        if _EARLIEST <= seconds <= self._latest:
            return seconds
        self.invalid(field)
        return None

    def duration(self, value: Number, unit: float, field: str) -> float | None:
        """Seconds of a span."""
        if value is None:
            return None
        seconds = value / unit
        if 0 <= seconds <= _LONGEST:
            return seconds
        self.invalid(field)
        return None

    def count(self, value: Number, most: int, field: str) -> int | None:
        """A whole number from 1 to ``most``; 0 is unset."""
        if not value:
            return None
        if 0 < value <= most and value.is_integer():
            return int(value)
        self.invalid(field)
        return None

    def choice(self, value: Text, known: Collection[str], field: str) -> str:
        """One of the documented values; "" if there is none."""
        if not value or value in known:
            return value or ""
        return self.unknown(field, value)

    def policy(self, value: Text) -> str:
        """A recovery policy: newer documents name more, so that any identifier will do."""
        if not value or _IDENTIFIER.fullmatch(value):
            return value or ""
        return self.unknown("recovery", value)
