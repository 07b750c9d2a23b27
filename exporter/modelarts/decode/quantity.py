"""Kubernetes quantities: numbers, or texts such as ``15548Mi`` and ``1073m``."""

import contextlib
import re

import msgspec

from exporter.modelarts.decode.lenient import NOT_AS_DOCUMENTED, Text, convert_leaf

_MOST = 2.0**63
_QUANTITY = re.compile(
    r"\+?(?P<number>[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})"
    r"(?:(?P<suffix>[KMGTPE]i|[numkMGTPE])|[eE](?P<exponent>[+-]?[0-9]{1,3}))?"
)
_FACTORS = {
    **{f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", 1)},
    **{letter: 1000.0**power for power, letter in enumerate("kMGTPE", 1)},
    **{letter: 1000.0**-power for power, letter in enumerate("mun", 1)},
}


def quantity(value: msgspec.Raw | bytes) -> float | None:
    """Return a quantity that is a number or a text in JSON; None for anything else.

    Negative numbers, and those beyond what Kubernetes can write, are None too.
    """
    text: str | None = None
    with contextlib.suppress(*NOT_AS_DOCUMENTED):
        raw = bytes(value)
        text = convert_leaf(Text, value) if raw[:1] == b'"' else raw.decode("ascii")
    match = _QUANTITY.fullmatch(text or "")
    if match is None:
        return None
    number, suffix, exponent = match.group("number", "suffix", "exponent")
    found = float(f"{number}e{exponent}") if exponent else float(number) * _FACTORS.get(suffix, 1)
    return found if found <= _MOST else None


def whole(value: msgspec.Raw | bytes, most: float) -> int | None:
    """Return a quantity that is an integer from 0 to ``most``; else None."""
    number = quantity(value)
    return int(number) if number is not None and number <= most and number.is_integer() else None
