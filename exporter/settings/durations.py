"""Durations in the format of Prometheus (``30s``, ``5m``, ``1h30m``, ``7d``), or plain seconds."""

import re

_MILLISECONDS = {
    "y": 365 * 86_400_000,
    "w": 7 * 86_400_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1000,
    "ms": 1,
}
_SHOWN = ("d", "h", "m", "s", "ms")
_UNITS = re.compile("".join(f"(?:([0-9]{{1,12}}){unit})?" for unit in _MILLISECONDS))
_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
PATTERN = f"{_SECONDS.pattern}|{_UNITS.pattern}"
"""Every duration, and the empty string."""


def parse(text: str) -> float | None:
    """The duration in seconds; None if the text is not a duration."""
    if _SECONDS.fullmatch(text):
        return float(text)
    match = _UNITS.fullmatch(text)
    if not text or match is None:
        return None
    numbers = zip(match.groups(), _MILLISECONDS.values(), strict=True)
    return sum(int(number) * unit for number, unit in numbers if number) / 1000


def show(seconds: float) -> str:
    """A duration for people: ``1h30m``."""
    left = round(seconds * 1000)
    parts = []
    for unit in _SHOWN:
        number, left = divmod(left, _MILLISECONDS[unit])
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"
