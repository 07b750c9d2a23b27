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
    is_empty,
    is_small,
    open_response,
    present,
)
from exporter.modelarts.decode.schema import DecodedSpec, Item, ListingEnvelope, Resource


@dataclass(frozen=True)
class DecodedItems:
    """The items of a response.

    Attributes:
        items: those with a usable id.
        invalid: by position in ``items``, paths of fields left out because of their type.
        undecodable: ``#`` and a hash for every item without a usable id.
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
_MAX_OBJECTS_OF_ITEM = 5000
_MAX_CANONICAL = 65_536


@functools.cache
def _listing_decoder(limit: int) -> msgspec.json.Decoder[Any]:
    items = ("items", bounded_array(Item, limit))
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
            items = present(listing.items)
            failed = listing.error_code or listing.error_code_ or listing.error
            if not failed and _have_valid_ids(items):
                return DecodedItems(items, total=listing.total, count=listing.count)
    return _decode_listing_leniently(body, limit)


def decode_item(body: bytes) -> DecodedItems:
    """Decode the response for a single job; raises as `decode_listing`."""
    if item := _decode_item(body):
        return DecodedItems([item])
    response, body = open_response(body)
    if not response.metadata or bytes(response.metadata) == b"null":
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
    more = has_more(body, limit)
    items: list[msgspec.Raw] | None = None
    if not more:
        response, body = open_response(body)
        if not response.is_error:
            with contextlib.suppress(*NOT_AS_DOCUMENTED):
                items, more = elements(response.items, limit)
        if items is None:
            raise InvalidResponseError(error_message(response, body, missing="list of items"))
    if more or items is None:
        raise InvalidResponseError(f"the response has more than the {limit} items requested")
    return _convert_items(items, _number(response.total), _number(response.count))


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
    """Return ``#`` and a hash that is the same in every poll: metadata changes least."""
    part = bytes(item)
    with contextlib.suppress(*NOT_AS_DOCUMENTED):
        metadata = msgspec.json.decode(item, type=Envelope).metadata
        if not is_empty(metadata):
            part = bytes(metadata)
    if len(part) <= _MAX_CANONICAL:
        with contextlib.suppress(*NOT_AS_DOCUMENTED):
            part = json.dumps(json.loads(part), sort_keys=True).encode()
    return "#" + hashlib.blake2b(part, digest_size=8).hexdigest()


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
