"""Decode the list of resource pools: their names.

Source: the vendor's documentation of ``GET /v2/{project_id}/pools``. Everything but ID and name is
skipped: nodes per flavor come as an array or as one object, and neither is needed.
"""

import contextlib
from collections.abc import Iterable
from typing import Any

import msgspec

from exporter.errors import InvalidResponseError
from exporter.modelarts.decode.hardware import PUBLIC_POOL
from exporter.modelarts.decode.lenient import parse_object
from exporter.modelarts.decode.schema import ERROR_FIELDS, Text, error_message
from exporter.modelarts.decode.values import label

MAX_POOLS = 1000
"""Names taken from one response; a project has dozens of pools, a faulty response any number."""


class _Labels(msgspec.Struct, gc=False):
    """``metadata.labels``; the name is the one given by the owner."""

    name: Text = msgspec.field(default=None, name="os.modelarts/name")


class _Metadata(msgspec.Struct, gc=False):
    """``items[].metadata``; ``name`` is the pool's ID, ``spec.resource.pool_id`` of its jobs."""

    name: str
    labels: _Labels | None = None


class _Pool(msgspec.Struct, gc=False):
    """``items[]``."""

    metadata: _Metadata


class _Pools(msgspec.Struct, gc=False):
    """The response; one with an error is not a list, whatever its HTTP status."""

    items: list[_Pool]
    error_code: Text = None
    error_code_: Text = msgspec.field(default=None, name="errorCode")
    error: msgspec.Raw = msgspec.Raw()


_NO_LABELS = _Labels()
_DECODER = msgspec.json.Decoder(_Pools)


def decode_pools(body: bytes) -> dict[str, str]:
    """Decode the list of pools: names by pool ID, as label values.

    Leaves out pools that have no name or cannot be decoded, and one whose ID is the label of jobs
    without a pool.

    Raises:
        InvalidResponseError: not a list of pools, or an error in a 200.
        BrokenResponseError: JSON that is truncated or garbled.
    """
    with contextlib.suppress(ValueError, RecursionError):  # all that msgspec raises, see `schema`
        response = _DECODER.decode(body)
        if not (response.error_code or response.error_code_ or response.error):
            return _names(response.items)
    with contextlib.suppress(RecursionError):
        return _names(_decode_leniently(parse_object(body)))
    raise InvalidResponseError("the response is nested too deeply")


def _decode_leniently(response: dict[str, Any]) -> list[_Pool]:
    """Return the pools with the right types from a response that has wrong ones elsewhere."""
    items = response.get("items")
    if any(map(response.get, ERROR_FIELDS)) or not isinstance(items, list):
        raise InvalidResponseError(error_message(response, missing="list of pools"))
    pools: list[_Pool] = []
    for item in items:
        with contextlib.suppress(msgspec.ValidationError):
            pools.append(msgspec.convert(item, _Pool))
    if items and not pools:
        raise InvalidResponseError("none of the items in the response is a pool")
    return pools


def _names(pools: Iterable[_Pool]) -> dict[str, str]:
    names: dict[str, str] = {}
    for pool in pools:
        if len(names) == MAX_POOLS:
            break
        labels = pool.metadata.labels or _NO_LABELS
        pool_id, name = label(pool.metadata.name), label(labels.name)
        if pool_id and name and pool_id != PUBLIC_POOL:
            names[pool_id] = name
    return names
