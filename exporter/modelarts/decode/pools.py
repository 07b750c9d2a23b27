"""The service's list of resource pools → their names.

Source: the vendor's document of ``GET /v2/{project_id}/pools``. All but id and name is skipped:
nodes per flavor come as an array or as one object, and neither matters here.
"""

import contextlib
from collections.abc import Iterable
from typing import Any

import msgspec

from exporter.errors import InvalidResponseError
from exporter.modelarts.decode.hardware import PUBLIC_POOL
from exporter.modelarts.decode.lenient import json_object
from exporter.modelarts.decode.schema import ERRORS, Text, complaint
from exporter.modelarts.decode.values import label

MOST_POOLS = 1000
"""So many names are taken, the first ones: a project has some dozens of pools, a fault any number.
"""


class _Labels(msgspec.Struct, gc=False):
    """``metadata.labels``; the name is the one that its owner gave."""

    name: Text = msgspec.field(default=None, name="os.modelarts/name")


class _Metadata(msgspec.Struct, gc=False):
    """``items[].metadata``; ``name`` is the pool's id, ``spec.resource.pool_id`` of its jobs."""

    name: str
    labels: _Labels | None = None


class _Pool(msgspec.Struct, gc=False):
    """``items[]``."""

    metadata: _Metadata


class _Pools(msgspec.Struct, gc=False):
    """The answer; with an error it is none, whatever its HTTP status."""

    items: list[_Pool]
    error_code: Text = None
    error_code_: Text = msgspec.field(default=None, name="errorCode")
    error: msgspec.Raw = msgspec.Raw()


_NO_LABELS = _Labels()
_DECODER = msgspec.json.Decoder(_Pools)


def decode_pools(body: bytes) -> dict[str, str]:
    """Decode the list of pools: names by pool id, as label values.

    A pool without a name, or that cannot be decoded, is left out; so is one whose id is the label
    of jobs without a pool.

    Raises:
        InvalidResponseError: no list of pools, or an error in a 200.
        BrokenAnswer: JSON that was cut off or garbled.
    """
    with contextlib.suppress(ValueError, RecursionError):  # all that msgspec raises, see `wire`
        answer = _DECODER.decode(body)
        if not (answer.error_code or answer.error_code_ or answer.error):
            return _names(answer.items)
    with contextlib.suppress(RecursionError):
        return _names(_salvaged(json_object(body)))
    raise InvalidResponseError("the answer is nested too deeply")


def _salvaged(answer: dict[str, Any]) -> list[_Pool]:
    """The pools that have the right types, of an answer of which something has not."""
    items = answer.get("items")
    if any(map(answer.get, ERRORS)) or not isinstance(items, list):
        raise InvalidResponseError(complaint(answer, missing="list of pools"))
    pools: list[_Pool] = []
    for item in items:
        with contextlib.suppress(msgspec.ValidationError):
            pools.append(msgspec.convert(item, _Pool))
    if items and not pools:
        raise InvalidResponseError("the answer lists things of which none is a pool")
    return pools


def _names(pools: Iterable[_Pool]) -> dict[str, str]:
    names: dict[str, str] = {}
    for pool in pools:
        if len(names) == MOST_POOLS:
            break
        labels = pool.metadata.labels or _NO_LABELS
        pool_id, name = label(pool.metadata.name), label(labels.name)
        if pool_id and name and pool_id != PUBLIC_POOL:
            names[pool_id] = name
    return names
