"""Lenient decoding of JSON that is not as documented: fields of the right type are kept.

Slower than msgspec in one pass, but much more tolerant: numbers of any length, lone surrogates,
invalid UTF-8, control characters, NaN, deep nesting. For JSON that msgspec accepts it returns equal
structs.

JSON is taken apart field by field: what no struct names stays JSON and is skipped. So the memory
needed depends on the structs, and not on what a response contains.
"""

import contextlib
import functools
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from exporter.clock import let_other_threads_run
from exporter.errors import BrokenResponseError, InvalidResponseError
from exporter.modelarts.decode.repair import BYTE_ORDER_MARK, repair

_T = TypeVar("_T")
_Struct = TypeVar("_Struct", bound=msgspec.Struct)

MAX_ELEMENTS = 2000
"""Elements that are read of an array; what is real has a few hundred at most."""
MAX_OBJECTS = 100_000
"""Objects in a response that is decoded in one pass."""
MAX_TOGETHER = 3 * MAX_OBJECTS
"""Elements that are read of all arrays of a response."""
MAX_TEXT = 512
"""Characters that are read of a text; labels are shorter."""

Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] | None
LongText: TypeAlias = str | None
"""A text that is often long. Cut it before it is kept."""
IF_INVALID = "if_invalid"
"""Key in the ``extra`` of a field: its value if the type is wrong, instead of the default."""
Number: TypeAlias = float | None
"""Also an integer, or a string of digits: the service mixes them. NaN and inf are possible."""
Amount: TypeAlias = Annotated[float | None, msgspec.Meta(extra={IF_INVALID: float("nan")})]
"""As `Number`. NaN if its type is wrong, because an unusable value is not an absent one: no other
field takes its place."""
Many: TypeAlias = Annotated[tuple[_T, ...], msgspec.Meta(max_length=MAX_ELEMENTS)]
"""An array of objects."""

# Everything that msgspec raises for unexpected input, such as invalid UTF-8, is a ValueError.
NOT_AS_DOCUMENTED = (ValueError, RecursionError)

_JSON: TypeAlias = bytes | msgspec.Raw
_FEW = 64
_LARGE = 2**20
_MAX_BYTES_AT_ONCE = 4 * _LARGE
_MIN_BYTES = len(b"{},")
_EMPTY = (b"", b"null", b"false", b"0", b'""', b"{}", b"[]")


class UnusableError(Exception):
    """Not an object, or one without a required field."""


class Envelope(msgspec.Struct, gc=False, rename={"error_code_": "errorCode"}):
    """The fields that tell what a response is, as JSON; empty if absent."""

    items: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.Raw()
    total: msgspec.Raw = msgspec.Raw()
    count: msgspec.Raw = msgspec.Raw()
    offset: msgspec.Raw = msgspec.Raw()
    error_code: msgspec.Raw = msgspec.Raw()
    error_code_: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()

    @property
    def is_error(self) -> bool:
        """Whether it is an error, whatever its HTTP status."""
        return not all(map(is_empty, (self.error_code, self.error_code_, self.error)))


def is_empty(value: msgspec.Raw) -> bool:
    """Whether a field is absent, null, or empty."""
    return len(memoryview(value)) < _FEW and bytes(value) in _EMPTY


_ENVELOPE = msgspec.json.Decoder(Envelope)


def open_response(body: bytes) -> tuple[Envelope, bytes]:
    """Open a response that is a JSON object; also return it as JSON that msgspec accepts.

    Raises:
        InvalidResponseError: empty, HTML, anything else than an object, or nested too deeply.
        BrokenResponseError: JSON that is truncated or garbled.
    """
    with contextlib.suppress(*NOT_AS_DOCUMENTED):
        return _scan(_ENVELOPE, body), body
    start = body[:256].removeprefix(BYTE_ORDER_MARK).lstrip()[:1]
    if start not in (b"{", b"["):
        kind = "an HTML page" if start == b"<" else "not a JSON object"
        raise InvalidResponseError(f"the response is {kind if body.strip() else 'empty'}")
    repaired = repair(body)
    # Raised outside of the handlers, so that no context keeps the body in memory.
    with contextlib.suppress(*NOT_AS_DOCUMENTED):
        return _scan(_ENVELOPE, repaired), repaired
    with contextlib.suppress(*NOT_AS_DOCUMENTED):
        _scan(_decoder(msgspec.Raw), repaired)
        raise InvalidResponseError("the response is not a JSON object")
    raise BrokenResponseError("the response is truncated or garbled JSON")


# --- Values ---------------------------------------------------------------------------------------


class Budget:
    """Limits the elements that are read of the arrays of one response."""

    def __init__(self) -> None:
        self._left = MAX_TOGETHER

    def spend(self, elements: int) -> None:
        """Raise InvalidResponseError if there are too many."""
        self._left -= elements
        if self._left < 0:
            raise InvalidResponseError("the response has too many values")


def convert_leniently(
    struct: type[_Struct], value: _JSON, invalid: list[str], budget: Budget, path: str = ""
) -> _Struct:
    """Convert to a struct with all fields of ``value`` that have the right type; null is absent.

    Args:
        struct: the type to convert to: fields are leaves, structs, or tuples of structs without
            required fields; each with a default of its own or required. A leaf may have a value
            for `IF_INVALID`.
        value: JSON of any type.
        invalid: receives the paths of fields left out, such as ``status.start_time``.
        budget: of the response.
        path: the position of ``value``, such as ``status.``.

    Raises:
        UnusableError: ``value`` is not an object or lacks a required field.
        InvalidResponseError: the budget is exhausted.
    """
    raw = _raw_fields(struct, value)
    converted: dict[str, Any] = {}
    for field in _fields(struct):
        part: msgspec.Raw = getattr(raw, field.name)
        if part and part != _NULL:
            try:
                converted[field.name] = _convert_field(field, part, invalid, budget, path)
            except (UnusableError, ValueError):
                invalid.append(path + field.json_name)
                if part != _NO_TEXT:  # Go writes an unset string like this
                    converted |= field.if_invalid
        if field.required and field.name not in converted:
            raise UnusableError
    return struct(**converted)


def convert_leaf(kind: Any, value: _JSON) -> Any:
    """Convert a string or number, or keep any JSON as it is; ValueError if the type is wrong."""
    if kind is msgspec.Raw:
        return value
    if len(memoryview(value)) > _LARGE:
        raise ValueError
    with contextlib.suppress(*NOT_AS_DOCUMENTED):
        return _decoder(kind).decode(value)
    # Perhaps a text that is too long, or not UTF-8.
    valid = bytes(value).decode("utf-8", "replace").encode()
    return msgspec.convert(_TEXT.decode(valid)[:MAX_TEXT], kind, strict=False)


def elements(value: _JSON, most: int) -> tuple[list[msgspec.Raw], bool]:
    """Return the first ``most`` elements of an array, and whether there are others.

    Raises:
        ValueError: ``value`` is not an array.
    """
    for limit in (min(_FEW, most), most):
        array = msgspec.structs.astuple(_scan(_array_decoder(limit + 1), value))
        if not array[limit]:
            return list(filter(None, array)), False
    return list(array[:most]), True


_NULL = msgspec.Raw(b"null")
_NO_TEXT = msgspec.Raw(b'""')
_TEXT = msgspec.json.Decoder(str)


@functools.cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, strict=False)


@functools.cache
def _array_decoder(most: int) -> msgspec.json.Decoder[Any]:
    """Decodes as many elements of an array, as JSON; skips the others without making objects."""
    fields = [(f"element{number}", msgspec.Raw, msgspec.Raw()) for number in range(most)]
    return msgspec.json.Decoder(msgspec.defstruct("Array", fields, array_like=True, gc=False))


def bounded_array(element: Any, most: int) -> Any:
    """Return a type for arrays of at most ``most`` elements, see `present`.

    A longer array is an error as soon as its first element too many is met.
    """
    kind = element | msgspec.UnsetType
    fields = [(f"element{number}", kind, msgspec.UNSET) for number in range(most)]
    return msgspec.defstruct(
        "BoundedArray", fields, array_like=True, forbid_unknown_fields=True, gc=False
    )


def has_more(body: bytes, limit: int) -> bool:
    """Whether the response lists more items; stops at the first item too many."""
    try:
        _scan(_probe(limit), body)
    except msgspec.ValidationError as error:
        return str(error).startswith("Expected `array` of at most length")
    except NOT_AS_DOCUMENTED:
        return False
    return False


@functools.cache
def _probe(limit: int) -> msgspec.json.Decoder[Any]:
    items = ("items", bounded_array(msgspec.Raw, limit))
    return msgspec.json.Decoder(msgspec.defstruct("Probe", [items], gc=False))


def present(array: Any) -> list[Any]:
    """Return the elements of a `bounded_array`."""
    return [each for each in msgspec.structs.astuple(array) if each is not msgspec.UNSET]


def is_small(value: _JSON, most: int = MAX_OBJECTS) -> bool:
    """Whether it contains so few objects that all of them may be decoded in one pass."""
    size = len(memoryview(value))
    return size <= _MIN_BYTES * most or (
        size <= _MAX_BYTES_AT_ONCE and bytes(value).count(b"{") <= most
    )


def _scan(decoder: msgspec.json.Decoder[_T], value: _JSON) -> _T:
    """Decode, then let the event loop run if that took long."""
    try:
        return decoder.decode(value)
    finally:
        if len(memoryview(value)) > _LARGE:
            let_other_threads_run()


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
        if typing.get_origin(kind) is Annotated:
            kind, meta = typing.get_args(kind)
            if_invalid = {field.name: meta.extra[IF_INVALID]}
        leaf = kind
        if typing.get_origin(kind) in (types.UnionType, typing.Union):  # with None
            kind = typing.get_args(kind)[0]
        if typing.get_origin(kind) is Annotated:
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


@functools.cache
def _raw_decoder(struct: type[msgspec.Struct]) -> msgspec.json.Decoder[Any]:
    """Decodes the fields of a struct as JSON."""
    fields = _fields(struct)
    return msgspec.json.Decoder(
        msgspec.defstruct(
            f"Raw{struct.__name__}",
            [(field.name, msgspec.Raw, msgspec.Raw()) for field in fields],
            rename={field.name: field.json_name for field in fields},
            gc=False,
        )
    )


def _raw_fields(struct: type[msgspec.Struct], value: _JSON) -> Any:
    try:
        return _scan(_raw_decoder(struct), value)
    except NOT_AS_DOCUMENTED:
        raise UnusableError from None


def _convert_field(
    field: _Field, value: msgspec.Raw, invalid: list[str], budget: Budget, path: str
) -> Any:
    path += field.json_name
    if field.struct is None:
        return convert_leaf(field.kind, value)
    if not field.many:
        return convert_leniently(field.struct, value, invalid, budget, f"{path}.")
    array, more = elements(value, MAX_ELEMENTS)
    budget.spend(len(array))
    converted = [_convert_element(field.struct, each, invalid, budget, path) for each in array]
    if more:
        # The rest counts as one element of which nothing is known: whatever is derived from all of
        # them is then unknown, too, instead of wrong.
        invalid.append(path)
        converted[-1] = field.struct()
    return tuple(converted)


def _convert_element(
    struct: type[_Struct], value: _JSON, invalid: list[str], budget: Budget, path: str
) -> _Struct:
    """Convert an element; an empty struct if it is not an object, since the count matters."""
    try:
        return convert_leniently(struct, value, invalid, budget, f"{path}.")
    except UnusableError:
        invalid.append(path)
        return struct()
