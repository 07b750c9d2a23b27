"""Decode the list of resource pools: their names.

Source: the vendor's documentation of ``GET /v2/{project_id}/pools``. Everything but ID and name is
skipped: nodes per flavor come as an array or as one object, and neither is needed.
"""

import contextlib
from collections.abc import Iterable

import msgspec

from exporter.errors import InvalidResponseError
from exporter.modelarts.decode.hardware import PUBLIC_POOL
from exporter.modelarts.decode.lenient import (
    MAX_ELEMENTS,
    NOT_AS_DOCUMENTED,
    Budget,
    Text,
    UnusableError,
    convert_leniently,
    elements,
    open_response,
)
from exporter.modelarts.decode.responses import error_message
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


_NO_LABELS = _Labels()


def decode_pools(body: bytes) -> dict[str, str]:
    """Decode the list of pools: names by pool ID, as label values.

    Leaves out pools that have no name or cannot be decoded, and one whose ID is the label of jobs
    without a pool.

    Raises:
        InvalidResponseError: not a list of pools, or an error in a 200.
        BrokenResponseError: JSON that is truncated or garbled.
    """
    response, body = open_response(body)
    items: list[msgspec.Raw] | None = None
    if not response.is_error:
        with contextlib.suppress(*NOT_AS_DOCUMENTED):
            items, _ = elements(response.items, MAX_ELEMENTS)
    if items is None:
        raise InvalidResponseError(error_message(response, body, missing="list of pools"))
    pools: list[_Pool] = []
    for item in items:
        with contextlib.suppress(UnusableError):
            pools.append(convert_leniently(_Pool, item, [], Budget()))
    if items and not pools:
        raise InvalidResponseError("none of the items in the response is a pool")
    return _names(pools)


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
