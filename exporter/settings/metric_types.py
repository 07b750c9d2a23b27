"""Types of options about metrics: static labels, and patterns of family names."""

import json
import re
from contextlib import suppress
from dataclasses import replace
from typing import Any

from exporter.settings.problems import InvalidValueError, invalid_value, quoted
from exporter.settings.types import OptionType, several, text

_MAX_LABELS = 30
_NAME = "[a-zA-Z_][a-zA-Z0-9_]{0,63}"
_NAME_HINT = 'at most 64 letters, digits and "_", not starting with a digit or "__"'
_VALUE = text(
    "label value",
    "one line of at most 200 characters, in quotes in YAML if it looks like a number",
    ".{1,200}",
)
_RESERVED = ("region", "project", "job", "instance")
"""Labels that the exporter or Prometheus sets."""


def _labels(value: Any) -> dict[str, str]:
    """Labels from a mapping, in JSON too, or from ``NAME=VALUE`` items."""
    if isinstance(value, dict):
        pairs = list(value.items())
    else:
        given = value if isinstance(value, list) else [value]
        pairs = [pair for each in given for pair in _pairs(each)]
    labels: dict[str, str] = {}
    for name, label_value in pairs:
        _check_name(name)
        if name in labels:
            raise InvalidValueError(f"duplicate label {quoted(name)}")
        try:
            labels[name] = str(_VALUE.take(label_value))
        except InvalidValueError as error:
            raise InvalidValueError(f"label {quoted(name)}: {error}") from None
    if len(labels) > _MAX_LABELS:
        raise InvalidValueError(f"{len(labels)} labels are too many; use at most {_MAX_LABELS}")
    return labels


def _pairs(item: Any) -> list[tuple[Any, Any]]:
    """The names and values in one string."""
    if not isinstance(item, str):
        raise invalid_value(item, "labels", "NAME: VALUE lines in YAML, or NAME=VALUE")
    if item.lstrip().startswith("{"):
        with suppress(ValueError):
            return list(json.loads(item).items())
    pairs = []
    for part in item.split(","):
        name, equals, value = part.partition("=")
        if not equals:
            raise invalid_value(part, "label", "NAME=VALUE")
        pairs.append((name.strip(), value))
    return pairs


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not re.fullmatch(_NAME, name) or name.startswith("__"):
        raise invalid_value(name, "label name", _NAME_HINT)
    if name in _RESERVED:
        raise InvalidValueError(
            f"label {quoted(name)} is set by the exporter or by Prometheus; use another name"
        )


_ITEM = {"type": "string", "pattern": "[={]"}
LABELS = OptionType(
    name="labels",
    parse=_labels,
    many=True,
    schema={
        "type": ["object", "array", "string"],
        "pattern": _ITEM["pattern"],
        "items": _ITEM,
        "maxProperties": _MAX_LABELS,
        "propertyNames": {"pattern": f"^{_NAME}$", "not": {"enum": list(_RESERVED)}},
        "additionalProperties": _VALUE.schema,
    },
)


def _expression(value: Any) -> str:
    found = str(_ONE_LINE.take(value))
    try:
        re.compile(found)
    except (re.error, OverflowError, RecursionError) as error:
        wrong = f"invalid regular expression {quoted(found)}: {error}"
        raise InvalidValueError(wrong) from None
    return found


_ONE_LINE = text("regular expression", "one line of at most 500 characters", ".{1,500}")
FAMILIES = several(
    replace(_ONE_LINE, parse=_expression),
    "regular expression",
    "regular expressions",
    separator=r",(?![0-9]*\})",  # not the comma of a{1,2}
    may_be_empty=True,
)
"""Regular expressions that match names of metric families."""
