"""Making the best of JSON that is not as documented: what has the right type is kept.

Slower than msgspec in one go and much more patient: numbers of any length, lone surrogates, wrong
UTF-8, NaN. Given what msgspec accepts at once, it makes the same structs.
"""

import functools
import json
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import msgspec

from exporter.errors import BrokenResponseError, InvalidResponseError

_Struct = TypeVar("_Struct", bound=msgspec.Struct)
_LONGEST_INTEGER = 18


class UnusableError(Exception):
    """No object, or one without what it cannot do without."""


def json_object(body: bytes) -> dict[str, Any]:
    """The object that an answer consists of.

    Raises:
        InvalidResponseError: empty, HTML or anything else than an object.
        BrokenResponseError: JSON that was cut off or garbled.
        RecursionError: nested too deeply.
    """
    text = body.decode("utf-8-sig", errors="replace").strip()
    if not text.startswith(("{", "[")):
        kind = "empty" if not text else "an HTML page" if text[0] == "<" else "no JSON object"
        raise InvalidResponseError(f"the answer is {kind}")
    parsed: Any = None
    try:
        parsed = json.loads(text, parse_int=_integer, strict=False)
    except ValueError:
        cut_off = True
    else:
        cut_off = False
    if cut_off:  # raised here, where no context drags the body along
        raise BrokenResponseError("the answer is JSON that was cut off or garbled")
    if not isinstance(parsed, dict):
        raise InvalidResponseError("the answer is no JSON object")
    return parsed


def _integer(digits: str) -> float:
    """Python refuses to read integers of thousands of digits; as float they are infinite."""
    return int(digits) if len(digits) <= _LONGEST_INTEGER else float(digits)


def salvage(struct: type[_Struct], value: Any, wrong: list[str], path: str = "") -> _Struct:
    """A struct made of all fields of ``value`` that have the right type; null is absent.

    Args:
        struct: what to make: fields are leaves, structs, or tuples of structs without
            required fields; each with a default of its own or required.
        value: JSON of any type.
        wrong: gets the paths of what was left out, such as ``status.start_time``.
        path: where ``value`` stands, such as ``status.``.

    Raises:
        UnusableError: ``value`` is no object or lacks a required field.
    """
    if not isinstance(value, dict):
        raise UnusableError
    found: dict[str, Any] = {}
    for field in _fields(struct):
        if value.get(field.name) is not None:
            try:
                found[field.name] = _salvage_field(field, value[field.name], wrong, path)
            except (UnusableError, ValueError):
                wrong.append(path + field.name)
        if field.required and field.name not in found:
            raise UnusableError
    return struct(**found)


def leaf(kind: Any, value: Any) -> Any:
    """A text, a number, or any JSON kept as such; a ValueError when the type is wrong."""
    if kind is msgspec.Raw:
        return msgspec.Raw(json.dumps(value).encode())
    return msgspec.convert(value, kind, strict=False)


class _Field(NamedTuple):
    """A field; ``struct`` is what it is made of, if that is structs, ``many`` a tuple of them."""

    name: str
    kind: Any
    struct: type[msgspec.Struct] | None
    many: bool
    required: bool


@functools.cache
def _fields(struct: type[msgspec.Struct]) -> tuple[_Field, ...]:
    return tuple(_described(struct))


def _described(struct: type[msgspec.Struct]) -> Iterator[_Field]:
    for field in msgspec.structs.fields(struct):
        kind = field.type
        if isinstance(kind, types.UnionType):  # with None
            kind = typing.get_args(kind)[0]
        many = typing.get_origin(kind) is tuple
        inner = typing.get_args(kind)[0] if many else kind
        nested = isinstance(inner, type) and issubclass(inner, msgspec.Struct)
        yield _Field(
            field.name, field.type, inner if nested else None, many and nested, field.required
        )


def _salvage_field(field: _Field, value: Any, wrong: list[str], path: str) -> Any:
    path += field.name
    if field.struct is None:
        return leaf(field.kind, value)
    if not field.many:
        return salvage(field.struct, value, wrong, f"{path}.")
    if not isinstance(value, list):
        raise UnusableError
    return tuple(_salvage_element(field.struct, element, wrong, path) for element in value)


def _salvage_element(struct: type[_Struct], value: Any, wrong: list[str], path: str) -> _Struct:
    """An element; an empty one for what is no object, since their number has a meaning."""
    try:
        return salvage(struct, value, wrong, f"{path}.")
    except UnusableError:
        wrong.append(path)
        return struct()
