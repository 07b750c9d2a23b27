"""Lists of anything but jobs: items that can be used are, whatever the others are."""

import contextlib
from typing import TypeVar

import msgspec

from exporter.errors import InvalidResponseError
from exporter.modelarts.decode.lenient import (
    MAX_ELEMENTS,
    NOT_AS_DOCUMENTED,
    Budget,
    Envelope,
    UnusableError,
    convert_leniently,
    elements,
    open_response,
)
from exporter.modelarts.decode.responses import error_message

_Struct = TypeVar("_Struct", bound=msgspec.Struct)
_NULL = msgspec.Raw(b"null")


def decode_list(body: bytes, struct: type[_Struct], what: str) -> tuple[list[_Struct], Envelope]:
    """Decode a response with ``items``; also return the rest of the response.

    Args:
        body: of the response.
        struct: of an item; an item without its required fields is left out.
        what: an item, for messages.

    Raises:
        InvalidResponseError: not such a list, or an error in a 200.
        BrokenResponseError: JSON that is truncated or garbled.
    """
    response, body = open_response(body)
    items: list[msgspec.Raw] | None = None
    if not response.is_error:
        if response.items == _NULL:  # which is how Go writes an empty list
            items = []
        with contextlib.suppress(*NOT_AS_DOCUMENTED):
            items, _ = elements(response.items, MAX_ELEMENTS)
    if items is None:
        raise InvalidResponseError(error_message(response, body, missing=f"list of {what}s"))
    found = objects(items, struct)
    if items and not found:
        raise InvalidResponseError(f"none of the items in the response is a {what}")
    return found, response


def objects(items: list[msgspec.Raw], struct: type[_Struct]) -> list[_Struct]:
    """Convert those elements of an array that can be."""
    found = []
    for item in items:
        with contextlib.suppress(UnusableError):
            found.append(convert_leniently(struct, item, [], Budget()))
    return found
