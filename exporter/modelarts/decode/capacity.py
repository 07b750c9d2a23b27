"""Decode how full pools are: cards and workloads, cards of a node, places in queues, quotas.

Sources: the vendor's documentation and SDK of ``GET metrics/runtime/pools``, ``resourceflavors``,
``pools/{pool}/workloads`` and ``training-quotas``. Everything else is skipped. A value that cannot
be used is left out, and so has no series. All functions raise as
`exporter.modelarts.decode.listing.decode_list`.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from exporter.errors import InvalidResponseError
from exporter.jobs.pool import CARD_STATES, WORKLOAD_STATES, NodeCards, PoolUsage, Quota
from exporter.modelarts.decode.hardware import spell
from exporter.modelarts.decode.lenient import (
    NOT_AS_DOCUMENTED,
    Envelope,
    Text,
    elements,
    open_response,
)
from exporter.modelarts.decode.listing import decode_list, objects
from exporter.modelarts.decode.pools import MAX_POOLS
from exporter.modelarts.decode.quantity import quantity, whole
from exporter.modelarts.decode.responses import error_message
from exporter.modelarts.decode.values import label

_MAX_KEYS = 50
"""Keys of an object whose keys the service chooses."""
_MAX_AMOUNTS_BYTES = 16_384
_MAX_CARDS = 10_000_000.0
_MAX_WORKLOADS = 1_000_000.0
_MAX_CARDS_OF_NODE = 1024
_MAX_POSITION = 1_000_000
_MAX_CONTINUE = 512
_ABSENT = (msgspec.Raw(), msgspec.Raw(b"null"), msgspec.Raw(b'""'))
_OTHER_RESOURCES = re.compile(r"(?:cpu|memory|pods|.*storage.*|hugepages-.*|attachable-.*)")
_WORKLOAD_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")


# --- Usage ----------------------------------------------------------------------------------------


class _Name(msgspec.Struct, gc=False):
    name: str


class _Amounts(msgspec.Struct, gc=False):
    value: msgspec.Raw = msgspec.Raw()


class _Workloads(msgspec.Struct, gc=False):
    allocated: msgspec.Raw = msgspec.Raw()
    queue: msgspec.Raw = msgspec.Raw()


class _Table(msgspec.Struct, gc=False):
    capacity: _Amounts | None = None
    allocated: _Amounts | None = None
    available: _Amounts | None = None
    workload: _Workloads | None = None


class _PoolMetrics(msgspec.Struct, gc=False):
    """``items[]`` of ``metrics/runtime/pools``; ``metadata.name`` is the pool's ID."""

    metadata: _Name
    table: _Table | None = None


def decode_usage(body: bytes) -> dict[str, PoolUsage]:
    """Decode what is used of each pool, by pool ID."""
    items, _ = decode_list(body, _PoolMetrics, "pool")
    return {
        label(item.metadata.name): PoolUsage(_cards(item.table), _workloads(item.table.workload))
        for item in items[:MAX_POOLS]
        if item.table
    }


def _cards(table: _Table) -> dict[tuple[str, str], float]:
    """Return cards by resource and state; of several resources only those that there are."""
    cards: dict[tuple[str, str], float] = {}
    for state in CARD_STATES:
        amounts: _Amounts | None = getattr(table, state)
        for resource, number in _open_keys(amounts.value if amounts else msgspec.Raw()):
            if not _OTHER_RESOURCES.fullmatch(resource) and number <= _MAX_CARDS:
                cards[label(resource), state] = number
    used = {resource for (resource, _), number in cards.items() if number}
    return {key: number for key, number in cards.items() if not used or key[0] in used}


def _workloads(workloads: _Workloads | None) -> dict[tuple[str, str], float]:
    return {
        (kind, state): number
        for state in WORKLOAD_STATES
        for kind, number in _open_keys(getattr(workloads, state, msgspec.Raw()))
        if kind != "sum" and _WORKLOAD_TYPE.fullmatch(kind) and number <= _MAX_WORKLOADS
    }


def _open_keys(value: msgspec.Raw) -> Iterator[tuple[str, float]]:
    """Yield those values of an object that are quantities, by key."""
    if len(memoryview(value)) > _MAX_AMOUNTS_BYTES:
        return
    found: dict[str, msgspec.Raw] = {}
    with contextlib.suppress(*NOT_AS_DOCUMENTED):
        found = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
    for key in list(found)[:_MAX_KEYS]:
        if (number := quantity(found[key])) is not None:
            yield key, number


# --- Flavors --------------------------------------------------------------------------------------


class _Cards(msgspec.Struct, gc=False):
    type: Text = None
    card: msgspec.Raw = msgspec.Raw()
    size: msgspec.Raw = msgspec.Raw()


class _FlavorSpec(msgspec.Struct, gc=False):
    npu: _Cards | None = None
    gpu: _Cards | None = None


class _Flavor(msgspec.Struct, gc=False):
    """``items[]`` of ``resourceflavors``."""

    metadata: _Name
    spec: _FlavorSpec


class _Page(msgspec.Struct, gc=False):
    following: Text = msgspec.field(default=None, name="continue")


class FlavorPage(NamedTuple):
    """Flavors, and where the next page begins; "" if this is the last one."""

    flavors: dict[str, NodeCards]
    following: str


def decode_flavors(body: bytes) -> FlavorPage:
    """Decode the cards of a node of each flavor; 0 if it has none."""
    items, response = decode_list(body, _Flavor, "flavor")
    found = {
        label(item.metadata.name): cards
        for item in items
        if (cards := _node_cards(item.spec)) is not None
    }
    return FlavorPage(found, _following(response))


def _node_cards(spec: _FlavorSpec) -> NodeCards | None:
    """Return the cards of a node; None if it has an unknown number."""
    for cards in filter(None, (spec.npu, spec.gpu)):
        given = cards.size if cards.card in _ABSENT else cards.card
        number = whole(given, _MAX_CARDS_OF_NODE)
        if number is None:
            return None
        if number:
            return NodeCards(spell(cards.type), number)
    return NodeCards("", 0)


def _following(response: Envelope) -> str:
    page = objects([response.metadata], _Page) if response.metadata else []
    following = (page[0].following or "") if page else ""
    return following if len(following) < _MAX_CONTINUE else ""


# --- Queues ---------------------------------------------------------------------------------------


class _Workload(msgspec.Struct, gc=False):
    """``items[]`` of ``workloads``."""

    job: str = msgspec.field(name="jobUUID")
    position: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="pendingPosition")


def decode_queue(body: bytes) -> dict[str, int]:
    """Decode the places of waiting jobs in the queue of a pool, by job ID; -1 is no place."""
    items, _ = decode_list(body, _Workload, "workload")
    places = ((label(item.job), whole(item.position, _MAX_POSITION)) for item in items)
    return {job: place for job, place in places if place is not None}


# --- Quotas ---------------------------------------------------------------------------------------


class _Quotas(msgspec.Struct, gc=False):
    quotas: msgspec.Raw = msgspec.Raw()


class _Quota(msgspec.Struct, gc=False):
    resource: str
    quota: msgspec.Raw = msgspec.Raw()
    used: msgspec.Raw = msgspec.Raw()


def decode_quotas(body: bytes) -> dict[str, Quota]:
    """Decode the quotas of the project, by resource."""
    response, body = open_response(body)
    items: Sequence[msgspec.Raw] | None = None
    if not response.is_error:
        with contextlib.suppress(*NOT_AS_DOCUMENTED):
            items, _ = elements(msgspec.json.decode(body, type=_Quotas).quotas, _MAX_KEYS)
    if items is None:
        raise InvalidResponseError(error_message(response, body, missing="list of quotas"))
    return {
        label(quota.resource): Quota(quantity(quota.quota), quantity(quota.used))
        for quota in objects(list(items), _Quota)
    }
