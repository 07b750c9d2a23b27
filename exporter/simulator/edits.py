"""Edits of a JSON document by path: ``status.start_time`` or ``spec.resource.0.name``."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

Path = tuple[str, ...]


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()
"""As a value: removes the field."""


def as_path(path: str | Iterable[str]) -> Path:
    """Return a path from its dotted form, or from its parts if keys contain dots."""
    return tuple(path.split(".")) if isinstance(path, str) else tuple(path)


def as_edits(edits: Mapping[Any, Any]) -> dict[Path, Any]:
    """Parse edits whose keys are paths in either form."""
    return {as_path(path): value for path, value in edits.items()}


def edit(document: Any, path: Path, value: Any) -> Any:
    """Return a copy of the document with one field set or, by `ABSENT`, removed.

    Numbers in the path are positions in arrays. Missing objects on the path are created. An empty
    path replaces the document.
    """
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(document, list):
        items = list(document)
        position = int(key)
        if value is ABSENT and not rest:
            del items[position]
        else:
            items[position] = edit(items[position], rest, value)
        return items
    fields = dict(document) if isinstance(document, dict) else {}
    if value is ABSENT and not rest:
        fields.pop(key, None)
    elif value is not ABSENT or key in fields:
        fields[key] = edit(fields.get(key), rest, value)
    return fields
