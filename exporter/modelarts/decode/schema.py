"""The service's JSON for training jobs: the fields that are needed, decoded fast or tolerantly.

The structs name what the exporter reads and nothing else: environments, commands and endpoints of
a job, which hold secrets, are skipped and never become objects. Every field may be absent or null,
except a job's id.

Nearly all pages have the documented types and are decoded in one go. A page that has not is decoded
again item by item and field by field: a field of a wrong type costs that field, an item without an
id costs that item. Both ways give equal structs. ``spec.resource``, of which a fleet has few
different ones, stays JSON at first; it is decoded by itself, in the same two ways.

Source: the vendor's document of ``POST /v2/{project_id}/training-job-searches`` (2024-06-20), and
for the fields called newer its SDK 3.1.219. Units are the service's; `model` converts them.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import msgspec

from exporter.errors import InvalidResponseError, one_line
from exporter.modelarts.decode.lenient import UnusableError, json_object, leaf, salvage

_Found = TypeVar("_Found")

Text: TypeAlias = str | None
Number: TypeAlias = float | None
"""Also an Integer, or a String of digits: the service mixes them. NaN and inf are possible."""


class Metadata(msgspec.Struct, frozen=True, gc=False):
    """``items[].metadata``; ``create_time`` in ms.

    ``id`` is documented as a UUID. It becomes part of a URL, so it is never just any string: see
    `_identified`.
    """

    id: str
    name: Text = None
    workspace_id: Text = None
    user_name: Text = None
    create_time: Number = None


class TaskStatus(msgspec.Struct, frozen=True, gc=False):
    """``status.task_statuses[]``."""

    task: Text = None
    exit_code: Number = None
    message: Text = None


class Record(msgspec.Struct, frozen=True, gc=False):
    """``status.running_records[]``; times in **seconds**."""

    start_at: Number = None
    end_at: Number = None
    start_type: Text = None
    end_reason: Text = None
    end_recover: Text = None
    end_recover_before_downgrade: Text = None


class Status(msgspec.Struct, frozen=True, gc=False):
    """``items[].status``; ``duration`` and ``start_time`` in ms.

    ``node_count_metrics`` has hundreds of points of which one is needed: it stays JSON.
    """

    phase: Text = None
    duration: Number = None
    start_time: Number = None
    node_count_metrics: msgspec.Raw = msgspec.Raw()
    task_statuses: tuple[TaskStatus, ...] | None = None
    running_records: tuple[Record, ...] | None = None


class Engine(msgspec.Struct, frozen=True, gc=False):
    """``algorithm.engine``."""

    engine_id: Text = None
    engine_name: Text = None


class Algorithm(msgspec.Struct, frozen=True, gc=False):
    """``items[].algorithm`` and ``tasks[].algorithm``; the rest of it may hold secrets."""

    engine: Engine | None = None


class Accelerator(msgspec.Struct, frozen=True, gc=False):
    """``flavor_info.npu`` and ``flavor_info.gpu``: cards of one node."""

    unit_num: Number = None
    product_name: Text = None


class FlavorInfo(msgspec.Struct, frozen=True, gc=False):
    """``flavor_info`` of a flavor."""

    npu: Accelerator | None = None
    gpu: Accelerator | None = None


class Flavor(msgspec.Struct, frozen=True, gc=False):
    """``spec.resource.flavor_detail`` and ``tasks[].task_resource``; the last two newer."""

    flavor_id: Text = None
    flavor_type: Text = None
    flavor_info: FlavorInfo | None = None
    pool_id: Text = None
    node_count: Number = None


class Task(msgspec.Struct, frozen=True, gc=False):
    """``items[].tasks[]``, heterogeneous jobs only."""

    algorithm: Algorithm | None = None
    task_resource: Flavor | None = None


class Allocation(msgspec.Struct, frozen=True, gc=False):
    """Newer ``main_container_allocated_resources`` and ``pool_info``: cards of one node."""

    accelerator_num: Number = None
    accelerator_type: Text = None


class Resource(msgspec.Struct, frozen=True, gc=False):
    """``spec.resource``."""

    flavor_id: Text = None
    node_count: Number = None
    pool_id: Text = None
    pool_name: Text = None
    flavor_detail: Flavor | None = None
    main_container_allocated_resources: Allocation | None = None
    pool_info: Allocation | None = None


class Spec(msgspec.Struct, frozen=True, gc=False):
    """``items[].spec``; ``resource`` stays JSON until `decode_resource`."""

    resource: msgspec.Raw = msgspec.Raw(b"null")


class DecodedSpec(msgspec.Struct, frozen=True, gc=False):
    """The same, decoded."""

    resource: Resource | None = None


class Item(msgspec.Struct, frozen=True, gc=False):
    """One training job, as listed and as in the answer for a single job."""

    metadata: Metadata
    kind: Text = None
    status: Status | None = None
    algorithm: Algorithm | None = None
    tasks: tuple[Task, ...] | None = None
    spec: Spec | None = None


class Listing(msgspec.Struct, frozen=True, gc=False):
    """The answer to a search; with an error it is none, whatever its HTTP status."""

    items: list[Item]
    total: Number = None
    count: Number = None
    error_code: Text = None
    error_code_: Text = msgspec.field(default=None, name="errorCode")
    error: msgspec.Raw = msgspec.Raw()


@dataclass(frozen=True)
class Decoded:
    """The items of an answer.

    Attributes:
        items: those that have an id.
        wrong: by position in ``items``, paths of fields left out because of their type.
        broken: ``#`` and a hash for every item without a usable id.
        total, count: as the service says, unchecked.
    """

    items: list[Item]
    wrong: Mapping[int, list[str]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    total: Number = None
    count: Number = None


ERRORS = ("error_code", "errorCode", "error")
"""Fields of an answer that is an error, whatever its HTTP status."""

_IDENTIFIER = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\n"
_IDENTIFIERS = re.compile(f"(?:{_IDENTIFIER})*")
_LISTING = msgspec.json.Decoder(Listing, strict=False)
_ITEM = msgspec.json.Decoder(Item, strict=False)
_SPEC = msgspec.json.Decoder(DecodedSpec, strict=False)

# All that msgspec raises for strange input, wrong UTF-8 among it, is a ValueError.
_NOT_AS_DOCUMENTED = (ValueError, RecursionError)


def decode_listing(body: bytes) -> Decoded:
    """Decode the answer to a search.

    Raises:
        InvalidResponseError: not the answer to a search, or an error in a 200.
        BrokenAnswer: JSON that was cut off or garbled.
    """
    with contextlib.suppress(*_NOT_AS_DOCUMENTED):
        listing = _LISTING.decode(body)
        failed = listing.error_code or listing.error_code_ or listing.error
        if not failed and _identified(listing.items):
            return Decoded(listing.items, total=listing.total, count=listing.count)
    return _patiently(_salvage_listing, body)


def decode_item(body: bytes) -> Decoded:
    """Decode the answer for a single job; raises as `decode_listing`."""
    with contextlib.suppress(*_NOT_AS_DOCUMENTED):
        item = _ITEM.decode(body)
        if _identified([item]):
            return Decoded([item])
    return _patiently(_salvage_detail, body)


def decode_resource(resource: bytes) -> tuple[Resource, list[str]]:
    """Decode ``spec.resource``; also gives the paths of fields left out because of their type.

    Raises as `decode_listing`.
    """
    body = b'{"resource":%s}' % resource
    with contextlib.suppress(*_NOT_AS_DOCUMENTED):
        return _SPEC.decode(body).resource or Resource(), []
    wrong: list[str] = []
    spec = _patiently(lambda spec: salvage(DecodedSpec, spec, wrong, "spec."), body)
    return spec.resource or Resource(), wrong


def _identified(items: list[Item]) -> bool:
    """Whether all ids are such; together, since that takes a third of the time."""
    lines = "".join([f"{item.metadata.id}\n" for item in items])
    return lines.count("\n") == len(items) and _IDENTIFIERS.fullmatch(lines) is not None


# --- What is not as documented --------------------------------------------------------------------


def _patiently(decode: Callable[[dict[str, Any]], _Found], body: bytes) -> _Found:
    with contextlib.suppress(RecursionError):
        return decode(json_object(body))
    raise InvalidResponseError("the answer is nested too deeply")


def _salvage_listing(answer: dict[str, Any]) -> Decoded:
    items = answer.get("items")
    if any(map(answer.get, ERRORS)) or not isinstance(items, list):
        raise InvalidResponseError(complaint(answer, missing="list of items"))
    return _salvage_items(items, total=_number(answer, "total"), count=_number(answer, "count"))


def _salvage_detail(answer: dict[str, Any]) -> Decoded:
    if answer.get("metadata") is None:
        raise InvalidResponseError(complaint(answer, missing="metadata"))
    return _salvage_items([answer])


def _salvage_items(items: list[Any], *, total: Number = None, count: Number = None) -> Decoded:
    usable: list[Item] = []
    wrong: dict[int, list[str]] = {}
    broken: list[str] = []
    for item in items:
        paths: list[str] = []
        try:
            usable.append(_identifiable(salvage(Item, item, paths)))
        except UnusableError:
            broken.append(_fingerprint(item))
        else:
            wrong[len(usable) - 1] = paths
    return Decoded(usable, wrong, broken, total, count)


def _identifiable(item: Item) -> Item:
    if not _identified([item]):
        raise UnusableError
    return item


def _number(answer: dict[str, Any], key: str) -> Number:
    number: Number = None
    with contextlib.suppress(ValueError):
        number = leaf(Number, answer.get(key))
    return number


def _fingerprint(item: Any) -> str:
    """``#`` and a hash that names an item from poll to poll: metadata change least."""
    part = item.get("metadata") or item if isinstance(item, dict) else item
    text = json.dumps(part, sort_keys=True)
    return "#" + hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def complaint(answer: dict[str, Any], *, missing: str) -> str:
    """What an object that is no answer says, in any of the forms of the service's errors."""
    error = answer.get("error")
    place = error if isinstance(error, dict) else answer
    words = [
        one_line(str(place[key]), 200)
        for key in ("error_code", "errorCode", "code", "error_msg", "errorMsg", "message")
        if isinstance(place.get(key), str | int | float)
    ]
    if words:
        return f"the service answered 200 with an error: {' '.join(words)}"
    return f"the answer has no {missing}"
