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
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from exporter.errors import InvalidResponseError, one_line
from exporter.modelarts.decode.lenient import (
    IF_INVALID,
    UnusableError,
    convert_leaf,
    convert_leniently,
    parse_object,
)

_Result = TypeVar("_Result")

Text: TypeAlias = str | None
Number: TypeAlias = float | None
"""Also an integer, or a string of digits: the service mixes them. NaN and inf are possible."""
Amount: TypeAlias = Annotated[float | None, msgspec.Meta(extra={IF_INVALID: float("nan")})]
"""As `Number`. NaN if its type is wrong, because an unusable value is not an absent one: no other
field takes its place."""


class Annotations(msgspec.Struct, frozen=True, gc=False):
    """``metadata.annotations``."""

    job_retry_num: Number = msgspec.field(default=None, name="fault-tolerance/job-retry-num")


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
    annotations: Annotations | None = None


class TaskStatus(msgspec.Struct, frozen=True, gc=False):
    """``status.task_statuses[]``."""

    task: Text = None
    exit_code: Number = None
    message: Text = None


class RecoverRecord(msgspec.Struct, frozen=True, gc=False):
    """Newer ``running_records[].recover_records[]``; times in **seconds**."""

    recover_start_at: Number = None
    recover_end_at: Number = None
    recover: Text = None
    fault_scenario: Text = None
    recover_result: Text = None


class Record(msgspec.Struct, frozen=True, gc=False):
    """``status.running_records[]``; times in **seconds**; the last two newer."""

    start_at: Number = None
    end_at: Number = None
    start_type: Text = None
    end_reason: Text = None
    end_recover: Text = None
    end_recover_before_downgrade: Text = None
    xpu_start_at: Number = None
    recover_records: tuple[RecoverRecord, ...] | None = None


class Status(msgspec.Struct, frozen=True, gc=False):
    """``items[].status``; ``duration`` and ``start_time`` in ms.

    ``node_count_metrics`` stays JSON: only one of its hundreds of points is needed. So does
    ``tasks``, the names of all workers, which only heterogeneous jobs need (`decode_names`).
    """

    phase: Text = None
    duration: Number = None
    start_time: Number = None
    node_count_metrics: msgspec.Raw = msgspec.Raw()
    tasks: msgspec.Raw = msgspec.Raw()
    task_statuses: tuple[TaskStatus, ...] | None = None
    running_records: tuple[Record, ...] | None = None


class Engine(msgspec.Struct, frozen=True, gc=False):
    """``algorithm.engine``."""

    engine_id: Text = None
    engine_name: Text = None


class Algorithm(msgspec.Struct, frozen=True, gc=False):
    """``items[].algorithm``; its other fields may hold secrets."""

    id: Text = None
    name: Text = None
    engine: Engine | None = None


class TaskAlgorithm(msgspec.Struct, frozen=True, gc=False):
    """``tasks[].algorithm``; its other fields may hold secrets."""

    engine: Engine | None = None


class Accelerator(msgspec.Struct, frozen=True, gc=False):
    """``flavor_info.npu`` and ``flavor_info.gpu``: cards of one node."""

    unit_num: Amount = None
    product_name: Text = None


class Cpu(msgspec.Struct, frozen=True, gc=False):
    """``flavor_info.cpu``: CPU cores of one node."""

    core_num: Amount = None


class Memory(msgspec.Struct, frozen=True, gc=False):
    """``flavor_info.memory``: memory of one node."""

    size: Amount = None
    unit: Text = None


class FlavorInfo(msgspec.Struct, frozen=True, gc=False):
    """``flavor_info`` of a flavor."""

    cpu: Cpu | None = None
    npu: Accelerator | None = None
    gpu: Accelerator | None = None
    memory: Memory | None = None


class Flavor(msgspec.Struct, frozen=True, gc=False):
    """``flavor_detail``."""

    flavor_type: Text = None
    flavor_info: FlavorInfo | None = None


class CustomizedFlavor(msgspec.Struct, frozen=True, gc=False):
    """Newer ``main_container_customized_flavor``: requested, of one node; ``mem_size`` in GiB."""

    cpu_core_num: Amount = None
    mem_size: Amount = None
    accelerator_num: Amount = None


class AllocatedResources(msgspec.Struct, frozen=True, gc=False):
    """Newer ``main_container_allocated_resources``: of one node; ``mem_size`` in GiB."""

    cpu_core_num: Amount = None
    mem_size: Amount = None
    accelerator_num: Amount = None
    accelerator_type: Text = None


class PoolInfo(msgspec.Struct, frozen=True, gc=False):
    """Newer ``pool_info``: the flavor requested, of one node; ``mem_size`` in GiB."""

    core_num: Amount = None
    mem_size: Amount = None
    accelerator_num: Amount = None
    accelerator_type: Text = None
    pool_resource_flavor: Text = None


class Resource(msgspec.Struct, frozen=True, gc=False):
    """``spec.resource`` and ``tasks[].task_resource``: each may have the fields of the other."""

    policy: Text = None
    flavor_id: Text = None
    flavor_type: Text = None
    flavor_info: FlavorInfo | None = None
    flavor_detail: Flavor | None = None
    node_count: Amount = None
    pool_id: Text = None
    pool_group_id: Text = None
    pool_name: Text = None
    main_container_allocated_resources: AllocatedResources | None = None
    main_container_customized_flavor: CustomizedFlavor | None = None
    pool_info: PoolInfo | None = None


class Task(msgspec.Struct, frozen=True, gc=False):
    """``items[].tasks[]``, heterogeneous jobs only."""

    role: Text = None
    algorithm: TaskAlgorithm | None = None
    task_resource: Resource | None = None


class SchedulePolicy(msgspec.Struct, frozen=True, gc=False):
    """Newer ``spec.schedule_policy``."""

    priority: Number = None


class Spec(msgspec.Struct, frozen=True, gc=False):
    """``items[].spec``; ``resource`` stays JSON until `decode_resource`; the others are newer."""

    resource: msgspec.Raw = msgspec.Raw(b"null")
    runtime_type: Text = None
    schedule_policy: SchedulePolicy | None = None


class DecodedSpec(msgspec.Struct, frozen=True, gc=False):
    """The ``resource`` of a `Spec`, decoded."""

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
    """The response to a search; one with an error is not a list, whatever its HTTP status.

    ``items`` may be null (`_is_empty_list`), but not absent.
    """

    items: list[Item] | None
    total: Number = None
    count: Number = None
    offset: Number = None
    error_code: Text = None
    error_code_: Text = msgspec.field(default=None, name="errorCode")
    error: msgspec.Raw = msgspec.Raw()


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


ERROR_FIELDS = ("error_code", "errorCode", "error")
"""Fields of a response that is an error, whatever its HTTP status."""

_IDENTIFIER = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\n"
_IDENTIFIERS = re.compile(f"(?:{_IDENTIFIER})*")
_LISTING = msgspec.json.Decoder(Listing, strict=False)
_ITEM = msgspec.json.Decoder(Item, strict=False)
_SPEC = msgspec.json.Decoder(DecodedSpec, strict=False)
_NAMES = msgspec.json.Decoder(list[str])

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
        items = listing.items
        if items is None and _is_empty_list(listing.total, listing.count, listing.offset):
            items = []
        if not failed and items is not None and _have_valid_ids(items):
            return DecodedItems(items, total=listing.total, count=listing.count)
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


def decode_names(names: bytes) -> list[str] | None:
    """Decode a list of strings, such as ``status.tasks``; None if it is anything else."""
    with contextlib.suppress(*_NOT_AS_DOCUMENTED):
        return _NAMES.decode(names)
    return None


def _is_empty_list(total: Number, count: Number, offset: Number) -> bool:
    """Whether ``items: null`` means no items: Go writes an empty list like this.

    It does if the response says itself that nothing matches, or if the page is not the first.
    Otherwise it contradicts itself, and is an error.
    """
    return 0 in (total, count) or (offset is not None and offset > 0)


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
    total, count, offset = (_number(response, key) for key in ("total", "count", "offset"))
    if items is None and "items" in response and _is_empty_list(total, count, offset):
        items = []
    if any(map(response.get, ERROR_FIELDS)) or not isinstance(items, list):
        raise InvalidResponseError(error_message(response, missing="list of items"))
    return _convert_items(items, total, count)


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
    """Return ``#`` and a hash of what is the same in every poll: an unusable id, or the name.

    If it has neither, ``#?`` and a hash of everything, which changes whenever the job does.
    """
    metadata = item.get("metadata") if isinstance(item, dict) else None
    part, prefix = item, "#?"
    for keys in (("id",), ("name", "create_time")):
        values = [metadata.get(key) for key in keys] if isinstance(metadata, dict) else [None]
        if values[0] and isinstance(values[0], str | int | float):
            part, prefix = values, "#"
            break
    text = json.dumps(part, sort_keys=True)
    return prefix + hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


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
