"""Decode responses to the structs of `exporter.modelarts.decode.schema`, fast or leniently.

Nearly all pages have the documented types and are decoded in one pass. Any other page is decoded
again item by item and field by field: a wrong type loses that field, a missing id loses that item.
Both ways return equal structs. A fleet has few different ``spec.resource``, so this stays JSON at
first; it is decoded separately, in the same two ways.

The work and the memory for a response are bounded, whatever it contains: more items than requested
are refused before they become objects, and of arrays and texts only so much is read (`Many`,
`Text`). An array that is longer costs its job a field, never the other jobs.
"""

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from exporter.errors import InvalidResponseError, one_line
from exporter.modelarts.decode.lenient import (
    NOT_AS_DOCUMENTED,
    Budget,
    Envelope,
    Number,
    Text,
    UnusableError,
    bounded_array,
    convert_leaf,
    convert_leniently,
    elements,
    has_more,
    is_small,
    open_response,
    present,
)
from exporter.modelarts.decode.resources import Resource
from exporter.modelarts.decode.schema import DecodedSpec, Item, ListingEnvelope


@dataclass(frozen=True)
class DecodedItems:
    """The items of a response.

    Attributes:
        items: those with a usable id.
        invalid: by position in ``items``, paths of fields left out because of their type.
        undecodable: for every item without a usable id ``#`` and a hash, see `_fingerprint`.
        total, count: as reported by the service, unchecked.
    """

    items: list[Item]
    invalid: Mapping[int, list[str]] = field(default_factory=dict)
    undecodable: list[str] = field(default_factory=list)
    total: Number = None
    count: Number = None


MAX_ITEMS = 1000
"""Items of a response if the request had no limit."""

_IDENTIFIER = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\n"
_IDENTIFIERS = re.compile(f"(?:{_IDENTIFIER})*")
_ITEM = msgspec.json.Decoder(Item, strict=False)
_SPEC = msgspec.json.Decoder(DecodedSpec, strict=False)
_NAMES = msgspec.json.Decoder(list[str])
_MAX_OBJECTS_OF_ITEM = 5000
_NULL = msgspec.Raw(b"null")
_MAX_METADATA = 65_536
_MAX_NAMES_BYTES = 2**18  # 10,000 workers


@functools.cache
def _listing_decoder(limit: int) -> msgspec.json.Decoder[Any]:
    items = ("items", bounded_array(Item, limit) | None)
    return msgspec.json.Decoder(
        msgspec.defstruct("Listing", [items], bases=(ListingEnvelope,), kw_only=True, gc=False),
        strict=False,
    )


def decode_listing(body: bytes, limit: int = MAX_ITEMS) -> DecodedItems:
    """Decode the response to a search of at most ``limit`` items.

    Raises:
        InvalidResponseError: not the response to a search, or an error in a 200.
        BrokenResponseError: JSON that is truncated or garbled.
    """
    if is_small(body):
        with contextlib.suppress(*NOT_AS_DOCUMENTED):
            listing = _listing_decoder(limit).decode(body)
            items = None if listing.items is None else present(listing.items)
            if items is None and _is_empty_list(listing.total, listing.count, listing.offset):
                items = []
            failed = listing.error_code or listing.error_code_ or listing.error
            if not failed and items is not None and _have_valid_ids(items):
                return DecodedItems(items, total=listing.total, count=listing.count)
    return _decode_listing_leniently(body, limit)


def decode_item(body: bytes) -> DecodedItems:
    """Decode the response for a single job; raises as `decode_listing`."""
    if item := _decode_item(body):
        return DecodedItems([item])
    response, body = open_response(body)
    if not response.metadata or response.metadata == _NULL:
        raise InvalidResponseError(error_message(response, body, missing="metadata"))
    return _convert_items([msgspec.Raw(body)])


def decode_resource(resource: bytes) -> tuple[Resource, list[str]]:
    """Decode ``spec.resource``; also return the paths of fields left out because of their type.

    Raises as `decode_listing`.
    """
    body = b'{"resource":%s}' % resource
    if is_small(body, _MAX_OBJECTS_OF_ITEM):
        with contextlib.suppress(*NOT_AS_DOCUMENTED):
            return _SPEC.decode(body).resource or Resource(), []
    invalid: list[str] = []
    _, body = open_response(body)
    spec = convert_leniently(DecodedSpec, body, invalid, Budget(), "spec.")
    return spec.resource or Resource(), invalid


def decode_names(names: bytes) -> list[str] | None:
    """Decode a list of strings, such as ``status.tasks``; None if it is anything else."""
    if len(names) <= _MAX_NAMES_BYTES:
        with contextlib.suppress(*NOT_AS_DOCUMENTED):
            return _NAMES.decode(names)
    return None


def _is_empty_list(total: Number, count: Number, offset: Number) -> bool:
    """Whether ``items: null`` means no items: Go writes an empty list like this.

    It does if the response says itself that nothing matches, or if the page is not the first.
    Otherwise it contradicts itself, and is an error.
    """
    return 0 in (total, count) or (offset is not None and offset > 0)


def _decode_item(value: bytes | msgspec.Raw) -> Item | None:
    """Decode an item in one pass; None if it is not as documented."""
    if is_small(value, _MAX_OBJECTS_OF_ITEM):
        with contextlib.suppress(*NOT_AS_DOCUMENTED):
            item = _ITEM.decode(value)
            if _have_valid_ids([item]):
                return item
    return None


def _have_valid_ids(items: list[Item]) -> bool:
    """Whether all ids are valid; checked together, which takes a third of the time."""
    lines = "".join([f"{item.metadata.id}\n" for item in items])
    return lines.count("\n") == len(items) and _IDENTIFIERS.fullmatch(lines) is not None


# --- Responses that are not as documented ---------------------------------------------------------


def _decode_listing_leniently(body: bytes, limit: int) -> DecodedItems:
    if has_more(body, limit):
        raise InvalidResponseError(_too_many(limit))
    response, body = open_response(body)
    total, count, offset = map(_number, (response.total, response.count, response.offset))
    items: list[msgspec.Raw] | None = None
    more = False
    if not response.is_error:
        if response.items == _NULL and _is_empty_list(total, count, offset):
            items = []
        with contextlib.suppress(*NOT_AS_DOCUMENTED):
            items, more = elements(response.items, limit)
    if items is None:
        raise InvalidResponseError(error_message(response, body, missing="list of items"))
    if more:
        raise InvalidResponseError(_too_many(limit))
    return _convert_items(items, total, count)


def _too_many(limit: int) -> str:
    return f"the response has more than the {limit} items requested"


def _convert_items(
    items: list[msgspec.Raw], total: Number = None, count: Number = None
) -> DecodedItems:
    usable: list[Item] = []
    invalid: dict[int, list[str]] = {}
    undecodable: list[str] = []
    budget = Budget()
    for value in items:
        paths: list[str] = []
        item = _decode_item(value)
        if item is None:
            with contextlib.suppress(UnusableError):
                item = convert_leniently(Item, value, paths, budget)
        if item is None or not _have_valid_ids([item]):
            undecodable.append(_fingerprint(value))
        else:
            invalid[len(usable)] = paths
            usable.append(item)
    return DecodedItems(usable, invalid, undecodable, total, count)


def _number(value: msgspec.Raw) -> Number:
    number: Number = None
    with contextlib.suppress(*NOT_AS_DOCUMENTED):
        number = convert_leaf(Number, value)
    return number


def _fingerprint(item: msgspec.Raw) -> str:
    """Return ``#`` and a hash of what is the same in every poll: an unusable id, or the name.

    If it has neither, ``#?`` and a hash of everything, which changes whenever the job does.
    """
    metadata: Any = None
    with contextlib.suppress(*NOT_AS_DOCUMENTED):
        found = msgspec.json.decode(item, type=Envelope).metadata
        if found and len(memoryview(found)) <= _MAX_METADATA:
            metadata = json.loads(bytes(found).decode("utf-8", "replace"))
    part, prefix = bytes(item), "#?"
    for keys in (("id",), ("name", "create_time")):
        values = [metadata.get(key) for key in keys] if isinstance(metadata, dict) else [None]
        if values[0] and isinstance(values[0], str | int | float):
            part, prefix = json.dumps(values).encode(), "#"
            break
    return prefix + hashlib.blake2b(part, digest_size=8).hexdigest()


class _ErrorFields(msgspec.Struct, gc=False):
    """Code and message of an error, in any form the service uses, as JSON."""

    error_code: msgspec.Raw = msgspec.Raw()
    error_code_: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="errorCode")
    code: msgspec.Raw = msgspec.Raw()
    error_msg: msgspec.Raw = msgspec.Raw()
    error_msg_: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="errorMsg")
    message: msgspec.Raw = msgspec.Raw()


def error_message(response: Envelope, body: bytes, *, missing: str) -> str:
    """Describe an object that is not the expected response, in any of the service's error forms."""
    is_nested = bytes(response.error).startswith(b"{")
    error = msgspec.json.decode(response.error if is_nested else body, type=_ErrorFields)
    words = list(filter(None, map(_word, msgspec.structs.astuple(error))))
    if words:
        return f"the service returned status 200 with an error: {' '.join(words)}"
    return f"the response has no {missing}"


def _word(value: msgspec.Raw) -> str:
    """Return a text or a number on one line; "" for anything else."""
    with contextlib.suppress(*NOT_AS_DOCUMENTED):
        return one_line(convert_leaf(Text, value) or "", 200)
    with contextlib.suppress(*NOT_AS_DOCUMENTED):
        return f"{convert_leaf(Number, value):.15g}"
    return ""
