"""The JSON schema of training jobs: only the fields needed, decoded fast or leniently.

The structs name the fields that the exporter reads and nothing else: environments, commands and
endpoints of a job, which hold secrets, are skipped and never become objects. Every field may be
absent or null, except a job's id.

Nearly all pages have the documented types and are decoded in one pass. Any other page is decoded
again item by item and field by field: a wrong type loses that field, a missing id loses that item.
Both ways return equal structs. A fleet has few different ``spec.resource``, so this stays JSON at
first; it is decoded separately, in the same two ways.

Source: the vendor's documentation of ``POST /v2/{project_id}/training-job-searches`` (2024-06-20),
and its SDK 3.1.219 for the fields called newer. Units are the service's; `jobs` converts them.
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
from exporter.modelarts.decode.lenient import (
    UnusableError,
    convert_leaf,
    convert_leniently,
    parse_object,
)

_Result = TypeVar("_Result")

Text: TypeAlias = str | None
Number: TypeAlias = float | None
"""Also an integer, or a string of digits: the service mixes them. NaN and inf are possible."""


class Metadata(msgspec.Struct, frozen=True, gc=False):
    """``items[].metadata``; ``create_time`` in ms.

    ``id`` is documented as a UUID. It becomes part of a URL, so not every string is accepted: see
    `_have_valid_ids`.
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

    ``node_count_metrics`` stays JSON: only one of its hundreds of points is needed.
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
    """``items[].algorithm`` and ``tasks[].algorithm``; its other fields may hold secrets."""

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
    """As `Spec`, with ``resource`` decoded."""

    resource: Resource | None = None


class Item(msgspec.Struct, frozen=True, gc=False):
    """One training job, in a list or as the response for a single job."""

    metadata: Metadata
    kind: Text = None
    status: Status | None = None
    algorithm: Algorithm | None = None
    tasks: tuple[Task, ...] | None = None
    spec: Spec | None = None


class Listing(msgspec.Struct, frozen=True, gc=False):
    """The response to a search; one with an error is not a list, whatever its HTTP status."""

    items: list[Item]
    total: Number = None
    count: Number = None
    error_code: Text = None
    error_code_: Text = msgspec.field(default=None, name="errorCode")
    error: msgspec.Raw = msgspec.Raw()


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


ERROR_FIELDS = ("error_code", "errorCode", "error")
"""Fields of a response that is an error, whatever its HTTP status."""

_IDENTIFIER = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\n"
_IDENTIFIERS = re.compile(f"(?:{_IDENTIFIER})*")
_LISTING = msgspec.json.Decoder(Listing, strict=False)
_ITEM = msgspec.json.Decoder(Item, strict=False)
_SPEC = msgspec.json.Decoder(DecodedSpec, strict=False)

# Everything that msgspec raises for unexpected input, such as invalid UTF-8, is a ValueError.
_NOT_AS_DOCUMENTED = (ValueError, RecursionError)


def decode_listing(body: bytes) -> DecodedItems:
    """Decode the response to a search.

    Raises:
        InvalidResponseError: not the response to a search, or an error in a 200.
        BrokenResponseError: JSON that is truncated or garbled.
    """
    with contextlib.suppress(*_NOT_AS_DOCUMENTED):
        listing = _LISTING.decode(body)
        failed = listing.error_code or listing.error_code_ or listing.error
        if not failed and _have_valid_ids(listing.items):
            return DecodedItems(listing.items, total=listing.total, count=listing.count)
    return _decode_leniently(_convert_listing, body)


def decode_item(body: bytes) -> DecodedItems:
    """Decode the response for a single job; raises as `decode_listing`."""
    with contextlib.suppress(*_NOT_AS_DOCUMENTED):
        item = _ITEM.decode(body)
        if _have_valid_ids([item]):
            return DecodedItems([item])
    return _decode_leniently(_convert_single, body)


def decode_resource(resource: bytes) -> tuple[Resource, list[str]]:
    """Decode ``spec.resource``; also return the paths of fields left out because of their type.

    Raises as `decode_listing`.
    """
    body = b'{"resource":%s}' % resource
    with contextlib.suppress(*_NOT_AS_DOCUMENTED):
        return _SPEC.decode(body).resource or Resource(), []
    invalid: list[str] = []
    spec = _decode_leniently(
        lambda parsed: convert_leniently(DecodedSpec, parsed, invalid, "spec."), body
    )
    return spec.resource or Resource(), invalid


def _have_valid_ids(items: list[Item]) -> bool:
    """Whether all ids are valid; checked together, which takes a third of the time."""
    lines = "".join([f"{item.metadata.id}\n" for item in items])
    return lines.count("\n") == len(items) and _IDENTIFIERS.fullmatch(lines) is not None


# --- Responses that are not as documented ---------------------------------------------------------


def _decode_leniently(convert: Callable[[dict[str, Any]], _Result], body: bytes) -> _Result:
    with contextlib.suppress(RecursionError):
        return convert(parse_object(body))
    raise InvalidResponseError("the response is nested too deeply")


def _convert_listing(response: dict[str, Any]) -> DecodedItems:
    items = response.get("items")
    if any(map(response.get, ERROR_FIELDS)) or not isinstance(items, list):
        raise InvalidResponseError(error_message(response, missing="list of items"))
    return _convert_items(items, _number(response, "total"), _number(response, "count"))


def _convert_single(response: dict[str, Any]) -> DecodedItems:
    if response.get("metadata") is None:
        raise InvalidResponseError(error_message(response, missing="metadata"))
    return _convert_items([response])


def _convert_items(items: list[Any], total: Number = None, count: Number = None) -> DecodedItems:
    usable: list[Item] = []
    invalid: dict[int, list[str]] = {}
    undecodable: list[str] = []
    for value in items:
        paths: list[str] = []
        item: Item | None = None
        with contextlib.suppress(UnusableError):
            item = convert_leniently(Item, value, paths)
        if item is None or not _have_valid_ids([item]):
            undecodable.append(_fingerprint(value))
        else:
            invalid[len(usable)] = paths
            usable.append(item)
    return DecodedItems(usable, invalid, undecodable, total, count)


def _number(response: dict[str, Any], key: str) -> Number:
    number: Number = None
    with contextlib.suppress(ValueError):
        number = convert_leaf(Number, response.get(key))
    return number


def _fingerprint(item: Any) -> str:
    """Return ``#`` and a hash that is the same in every poll: metadata changes least."""
    part = item.get("metadata") or item if isinstance(item, dict) else item
    text = json.dumps(part, sort_keys=True)
    return "#" + hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def error_message(response: dict[str, Any], *, missing: str) -> str:
    """Describe an object that is not the expected response, in any of the service's error forms."""
    nested = response.get("error")
    error = nested if isinstance(nested, dict) else response
    words = [
        one_line(str(error[key]), 200)
        for key in ("error_code", "errorCode", "code", "error_msg", "errorMsg", "message")
        if isinstance(error.get(key), str | int | float)
    ]
    if words:
        return f"the service returned status 200 with an error: {' '.join(words)}"
    return f"the response has no {missing}"
