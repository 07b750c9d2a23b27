"""Decode the list of resource pools: their names, and the flavor type of their nodes.

Source: the vendor's documentation of ``GET /v2/{project_id}/pools``. Everything else is skipped.
"""

import contextlib
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from exporter.errors import InvalidResponseError
from exporter.jobs.job import PUBLIC_POOL
from exporter.modelarts.decode.hardware import imply_flavor_type
from exporter.modelarts.decode.lenient import (
    MAX_ELEMENTS,
    NOT_AS_DOCUMENTED,
    Budget,
    Text,
    UnusableError,
    convert_leniently,
    elements,
    is_small,
    open_response,
)
from exporter.modelarts.decode.responses import error_message
from exporter.modelarts.decode.values import label

MAX_POOLS = 1000
"""Pools taken from one response; a project has dozens of them, a faulty response any number."""


class _Labels(msgspec.Struct, gc=False):
    """``metadata.labels``; the name is the one given by the owner."""

    name: Text = msgspec.field(default=None, name="os.modelarts/name")


class _Metadata(msgspec.Struct, gc=False):
    """``items[].metadata``; ``name`` is the pool's ID, ``spec.resource.pool_id`` of its jobs."""

    name: str
    labels: _Labels | None = None


class _Nodes(msgspec.Struct, gc=False):
    """``spec.resources[]``: nodes of one flavor."""

    flavor: str


class _Spec(msgspec.Struct, gc=False):
    """``items[].spec``. The resources may be one object instead of an array."""

    resources: list[_Nodes] | _Nodes


class _Pool(msgspec.Struct, gc=False):
    """``items[]``; ``spec`` stays JSON, because it must not cost the name."""

    metadata: _Metadata
    spec: msgspec.Raw = msgspec.Raw()


class PoolList(NamedTuple):
    """The pools that have one, by pool ID.

    Attributes:
        names: as label values.
        flavor_types: as far as the flavors of their nodes imply one, the same for all nodes.
    """

    names: dict[str, str]
    flavor_types: dict[str, str]


_NO_LABELS = _Labels()
_NULL = msgspec.Raw(b"null")
_SPEC = msgspec.json.Decoder(_Spec)


def decode_pools(body: bytes) -> PoolList:
    """Decode the list of pools.

    Leaves out pools that cannot be decoded, and one whose ID is the label of jobs without a pool.

    Raises:
        InvalidResponseError: not a list of pools, or an error in a 200.
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
        raise InvalidResponseError(error_message(response, body, missing="list of pools"))
    pools: list[_Pool] = []
    for item in items:
        with contextlib.suppress(UnusableError):
            pools.append(convert_leniently(_Pool, item, [], Budget()))
    if items and not pools:
        raise InvalidResponseError("none of the items in the response is a pool")
    return _pool_list(pools)


def _pool_list(pools: Iterable[_Pool]) -> PoolList:
    found = PoolList({}, {})
    for pool in pools:
        labels = pool.metadata.labels or _NO_LABELS
        pool_id = label(pool.metadata.name)
        if not pool_id or pool_id == PUBLIC_POOL:
            continue
        for texts, text in zip(found, (label(labels.name), _flavor_type(pool.spec)), strict=True):
            if text and len(texts) < MAX_POOLS:
                texts[pool_id] = text
    return found


def _flavor_type(spec: msgspec.Raw) -> str:
    """Return the flavor type of all nodes of a pool, or "" if it is unknown."""
    nodes: list[_Nodes] | _Nodes = []
    if is_small(spec, MAX_ELEMENTS):
        with contextlib.suppress(*NOT_AS_DOCUMENTED):
            nodes = _SPEC.decode(spec).resources
    flavors = [nodes] if isinstance(nodes, _Nodes) else nodes
    implied = {imply_flavor_type(each.flavor, cpu=True) for each in flavors}
    return implied.pop() if len(implied) == 1 else ""
