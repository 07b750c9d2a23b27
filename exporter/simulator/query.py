"""Searches: parses valid request bodies, and refuses all others."""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from exporter.simulator.behaviour import Behaviour
from exporter.simulator.catalog import DEFAULT_WORKSPACE
from exporter.simulator.reply import ApiError

_MOST_JOBS = 50
_MOST_FILTERS = 20
_MOST_VALUES = 10
_LONGEST_SPAN_MS = 31 * 86_400_000
_USUAL_LIMIT = 10
_WORKSPACE = re.compile(r"0|[0-9a-z]{32}")
_OPERATORS = {
    "name": {"like"},
    "algorithm_id": {"in", "not"},
    "algorithm_name": {"like"},
    "create_time": {"between"},
    "phase": {"in", "not"},
    "kind": {"in", "not"},
    "user_id": {"in", "not"},
    "id": {"in", "not"},
    "pool_id": {"in", "not"},
    "priority": {"in", "not"},
    "runtime_type": {"in", "not"},
}


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition; ``values`` is never empty, since an empty filter is dropped.

    The values of ``create_time`` are two times in ms.
    """

    key: str
    operator: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """A valid search; ``unified``: fine-tuning jobs are listed, too."""

    offset: int
    limit: int
    sort_by: str
    order: str
    group_by: str
    workspace: str
    unified: bool
    filters: tuple[Filter, ...]


def parse(body: bytes, behaviour: Behaviour) -> Query:
    """Parse the search in a request's body.

    Raises:
        ApiError: 400 with the code of the first error.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise _malformed("The request body is not JSON.") from None
    if not isinstance(document, dict):
        raise _malformed("The request body must be an object.")
    offset = _integer(document, "offset", 0)
    limit = _integer(document, "limit", _USUAL_LIMIT)
    if not 1 <= limit <= _MOST_JOBS:
        raise ApiError(400, "ModelArts.2816", f"limit must be in range [1,{_MOST_JOBS}].")
    if offset < 0:
        raise ApiError(400, "ModelArts.2816", "offset must not be less than 0.")
    sort_by = _string(document, "sort_by", "create_time")
    if sort_by not in ("", "create_time"):
        raise ApiError(400, "ModelArts.2790", f"Sorting by {sort_by} is not supported.")
    order = _string(document, "order", "desc")
    if order not in ("", "desc", "asc"):
        raise ApiError(400, "ModelArts.2788", f"Invalid param order: {order}.")
    workspace = _string(document, "workspace_id", DEFAULT_WORKSPACE)
    if not _WORKSPACE.fullmatch(workspace):
        raise ApiError(400, "ModelArts.2788", "Invalid param workspace_id.")
    return Query(
        offset=offset,
        limit=limit,
        sort_by=sort_by or "create_time",
        order=order or "desc",
        group_by=_string(document, "group_by", ""),
        workspace=workspace,
        unified=_unified(document, behaviour),
        filters=_filters(document.get("filters", []), behaviour),
    )


def _malformed(message: str) -> ApiError:
    return ApiError(400, "ModelArts.2764", message)


def _unified(document: dict[str, Any], behaviour: Behaviour) -> bool:
    if "unified_jobs" not in document or behaviour.unified_jobs == "ignored":
        return False
    if behaviour.unified_jobs == "rejected":
        raise _malformed("Unknown field unified_jobs.")
    value = document["unified_jobs"]
    if not isinstance(value, bool):
        raise _malformed("unified_jobs must be a Boolean.")
    return value


def _integer(document: dict[str, Any], name: str, usual: int) -> int:
    value = document.get(name, usual)
    if type(value) is not int:
        raise _malformed(f"{name} must be an Integer.")
    return value


def _string(document: dict[str, Any], name: str, usual: str) -> str:
    value = document.get(name, usual)
    if not isinstance(value, str):
        raise _malformed(f"{name} must be a String.")
    return value


def _filters(entries: Any, behaviour: Behaviour) -> tuple[Filter, ...]:
    if not isinstance(entries, list):
        raise _malformed("filters must be an Array.")
    if len(entries) > _MOST_FILTERS:
        raise ApiError(400, "ModelArts.2788", f"More than {_MOST_FILTERS} filters.")
    checked = [_filter(entry, behaviour) for entry in entries]
    return tuple(item for item in checked if item is not None)


def _filter(entry: Any, behaviour: Behaviour) -> Filter | None:
    """Parse a condition; return None if it has no effect."""
    if not isinstance(entry, dict):
        raise _malformed("A filter must be an object.")
    key, operator, values = entry.get("key"), entry.get("operator"), entry.get("value")
    if not isinstance(key, str) or not isinstance(operator, str) or not isinstance(values, list):
        raise _malformed("A filter has a key, an operator and an Array of values.")
    if not all(isinstance(value, str) for value in values):
        raise _malformed(f"Values of the filter {key} must be Strings.")
    if key in behaviour.rejected_filters or operator not in _OPERATORS.get(key, ()):
        raise ApiError(400, "ModelArts.2789", f"Filtering by {key} {operator} is not supported.")
    if len(values) > _MOST_VALUES:
        raise ApiError(400, "ModelArts.2788", f"More than {_MOST_VALUES} values in {key}.")
    if not any(values):
        return None
    if key == "create_time":
        values = _span(values, behaviour)
    if key in behaviour.ignored_filters:
        return None
    return Filter(key, operator, tuple(values))


def _span(values: list[str], behaviour: Behaviour) -> list[int]:
    """Return first and last create time in ms."""
    try:
        first, last = (_time(value, behaviour) for value in values)
    except ValueError:
        raise ApiError(400, "ModelArts.2788", "create_time takes two times.") from None
    if not 0 <= last - first <= _LONGEST_SPAN_MS:
        raise ApiError(400, "ModelArts.2788", "create_time spans more than 31 days.")
    return [first, last]


def _time(value: str, behaviour: Behaviour) -> int:
    if behaviour.create_time_values == "ms":
        if not re.fullmatch(r"[0-9]{1,15}", value):
            raise ValueError(value)
        return int(value)
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError(value)
    return round(moment.timestamp() * 1000)
