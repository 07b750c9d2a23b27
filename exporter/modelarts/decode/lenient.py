"""Lenient decoding of JSON that is not as documented: fields of the right type are kept.

Slower than msgspec in one pass, but much more tolerant: numbers of any length, lone surrogates,
invalid UTF-8, NaN. For JSON that msgspec accepts it returns equal structs.
"""

import functools
import json
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import msgspec

from exporter.errors import BrokenResponseError, InvalidResponseError

IF_INVALID = "if_invalid"
"""Key in the ``extra`` of a field: its value if the type is wrong, instead of the default."""

_Struct = TypeVar("_Struct", bound=msgspec.Struct)
_MAX_DIGITS = 18


class UnusableError(Exception):
    """Not an object, or one without a required field."""


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a response that is a JSON object.

    Raises:
        InvalidResponseError: empty, HTML or anything else than an object.
        BrokenResponseError: JSON that is truncated or garbled.
        RecursionError: nested too deeply.
    """
    text = body.decode("utf-8-sig", errors="replace").strip()
    if not text.startswith(("{", "[")):
        kind = "empty" if not text else "an HTML page" if text[0] == "<" else "not a JSON object"
        raise InvalidResponseError(f"the response is {kind}")
    parsed: Any = None
    try:
        parsed = json.loads(text, parse_int=_parse_integer, strict=False)
    except ValueError:
        garbled = True
    else:
        garbled = False
    if garbled:  # raised here, so that the error's context does not keep the body in memory
        raise BrokenResponseError("the response is truncated or garbled JSON")
    if not isinstance(parsed, dict):
        raise InvalidResponseError("the response is not a JSON object")
    return parsed


def _parse_integer(digits: str) -> float:
    """Parse long integers as floats: Python rejects thousands of digits; as float they are inf."""
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def convert_leniently(
    struct: type[_Struct], value: Any, invalid: list[str], path: str = ""
) -> _Struct:
    """Convert to a struct with all fields of ``value`` that have the right type; null is absent.

    Args:
        struct: the type to convert to: fields are leaves, structs, or tuples of structs without
            required fields; each with a default of its own or required. A leaf may have a value
            for `IF_INVALID`.
        value: JSON of any type.
        invalid: receives the paths of fields left out, such as ``status.start_time``.
        path: the position of ``value``, such as ``status.``.

    Raises:
        UnusableError: ``value`` is not an object or lacks a required field.
    """
    if not isinstance(value, dict):
        raise UnusableError
    converted: dict[str, Any] = {}
    for field in _fields(struct):
        found = value.get(field.json_name)
        if found is not None:
            try:
                converted[field.name] = _convert_field(field, found, invalid, path)
            except (UnusableError, ValueError):
                invalid.append(path + field.json_name)
                if found != "":  # Go writes an unset string like this
                    converted |= field.if_invalid
        if field.required and field.name not in converted:
            raise UnusableError
    return struct(**converted)


def convert_leaf(kind: Any, value: Any) -> Any:
    """Convert a string or number, or keep any JSON as it is; ValueError if the type is wrong."""
    if kind is msgspec.Raw:
        return msgspec.Raw(json.dumps(value).encode())
    return msgspec.convert(value, kind, strict=False)


class _Field(NamedTuple):
    """A field of a struct.

    Attributes:
        name, json_name: in the struct, and in JSON.
        kind: its type.
        struct: the type of its value or, if ``many``, of its elements; None = a leaf.
        required: whether it has no default.
        if_invalid: its name and value if the type is wrong; empty = the default.
    """

    name: str
    json_name: str
    kind: Any
    struct: type[msgspec.Struct] | None
    many: bool
    required: bool
    if_invalid: dict[str, Any]


@functools.cache
def _fields(struct: type[msgspec.Struct]) -> tuple[_Field, ...]:
    return tuple(_describe_fields(struct))


def _describe_fields(struct: type[msgspec.Struct]) -> Iterator[_Field]:
    for field in msgspec.structs.fields(struct):
        kind, if_invalid = field.type, {}
        if typing.get_origin(kind) is typing.Annotated:
            kind, meta = typing.get_args(kind)
            if_invalid = {field.name: meta.extra[IF_INVALID]}
        leaf = kind
        if isinstance(kind, types.UnionType):  # with None
            kind = typing.get_args(kind)[0]
        many = typing.get_origin(kind) is tuple
        inner = typing.get_args(kind)[0] if many else kind
        nested = isinstance(inner, type) and issubclass(inner, msgspec.Struct)
        yield _Field(
            name=field.name,
            json_name=field.encode_name,
            kind=leaf,
            struct=inner if nested else None,
            many=many and nested,
            required=field.required,
            if_invalid=if_invalid,
        )


def _convert_field(field: _Field, value: Any, invalid: list[str], path: str) -> Any:
    path += field.json_name
    if field.struct is None:
        return convert_leaf(field.kind, value)
    if not field.many:
        return convert_leniently(field.struct, value, invalid, f"{path}.")
    if not isinstance(value, list):
        raise UnusableError
    return tuple(_convert_element(field.struct, element, invalid, path) for element in value)


def _convert_element(struct: type[_Struct], value: Any, invalid: list[str], path: str) -> _Struct:
    """Convert an element; an empty struct if it is not an object, since the count matters."""
    try:
        return convert_leniently(struct, value, invalid, f"{path}.")
    except UnusableError:
        invalid.append(path)
        return struct()
