"""docs/fields.md says of every field what becomes of it, as the decoder has it."""

import re
import types
import typing
from pathlib import Path

import msgspec
import pytest

from exporter.jobs.pool import NODE_STATES
from exporter.metrics.counters import EVENT_FAMILIES
from exporter.metrics.fleet import FLEET_FAMILIES
from exporter.metrics.per_job import JOB_FAMILIES
from exporter.metrics.pools import POOL_FAMILIES
from exporter.modelarts.decode import capacity, pools
from exporter.modelarts.decode.hardware import CHAINS, SPELLINGS
from exporter.modelarts.decode.resources import Resource
from exporter.modelarts.decode.schema import Item, ListingEnvelope

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/fields.md").read_text()
ROW = re.compile(r"^\| (new|[\d, ]+) \| `(\S+)` \| (.+) \|$", re.MULTILINE)
RESPONSE = PAGE.partition("## Response")[2]
RAW = {"items[].spec.resource": Resource}
NODES = {"spec.resources", *(f"status.resources.{state}" for state in NODE_STATES)}
RAW_ARRAYS = {f"pools.items[].{name}": pools._Nodes for name in NODES}
OTHER_RESPONSES = {
    "pools.items[].": pools._Pool,
    "pool_usage.items[].": capacity._PoolMetrics,
    "flavors.metadata.": capacity._Page,
    "flavors.items[].": capacity._Flavor,
    "workloads.items[].": capacity._Workload,
    "training-quotas.quotas[].": capacity._Quota,
}
NOT_USED = "not used: "


def decoded(struct, path=""):
    """The paths of all leaves of a struct, as in the page."""
    for field in msgspec.structs.fields(struct):
        name = path + field.encode_name
        kind = field.type
        for _ in range(2):  # a limit, None or one object instead of many, a limit again
            if typing.get_origin(kind) is typing.Annotated:
                kind = typing.get_args(kind)[0]
            if typing.get_origin(kind) in (types.UnionType, typing.Union):
                kind = typing.get_args(kind)[0]
        many = typing.get_origin(kind) in (list, tuple) or name in RAW_ARRAYS
        inner = kind
        if name in RAW | RAW_ARRAYS:
            inner = (RAW | RAW_ARRAYS)[name]
        elif many:
            inner = typing.get_args(kind)[0]
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            if many:
                yield name
            yield from decoded(inner, f"{name}[]." if many else f"{name}.")
        else:
            yield name


def as_in_the_page(path):
    path = path.removeprefix("items[].")
    path = re.sub(r"^(spec\.resource|tasks\[\]\.task_resource)\.", "RESOURCE.", path)
    path = path.replace("RESOURCE.flavor_detail.", "RESOURCE.")
    path = re.sub(r"^(algorithm\.environments|RESOURCE\.attributes)\b.*", r"\1", path)
    return re.sub(r"(\[\])+$", "", path)


def rows(text=PAGE):
    return [(table, as_in_the_page(field), what) for table, field, what in ROW.findall(text)]


def test_a_field_is_there_once():
    fields = [field for _, field, _ in rows(RESPONSE)]
    assert len(fields) == len(set(fields)) > 150


def test_what_the_page_calls_used_is_decoded_and_nothing_else():
    used = {field for _, field, what in rows(RESPONSE) if not what.startswith(NOT_USED)}
    lists = {"items", "tasks", "status.task_statuses", "status.running_records", *RAW_ARRAYS}
    lists |= {"status.running_records[].recover_records"}
    paths = ("items", *decoded(ListingEnvelope), *decoded(Item, "items[]."))
    found = {as_in_the_page(path) for path in paths}
    for path, struct in OTHER_RESPONSES.items():
        found |= set(decoded(struct, path))
    assert found - lists == used - lists


def test_every_documented_field_is_in_the_page():
    documented = (ROOT / "tests/data/documented-fields.txt").read_text().split()
    assert len(documented) > 150
    assert {as_in_the_page(field) for field in documented} <= {field for _, field, _ in rows()}


def test_every_table_of_the_vendor_is_in_the_page():
    numbers = {int(number) for table, *_ in rows() for number in re.findall(r"\d+", table)}
    only_objects = {
        int(number)
        for line in re.findall(r"^Tables? .*$", PAGE, re.MULTILINE)
        for number in re.findall(r"\d+", line)
    }
    assert numbers | only_objects == set(range(1, 59))


def test_fields_that_are_not_used_have_a_reason():
    assert [field for _, field, what in rows() if what in (NOT_USED.strip(), "not used")] == []


def test_metrics_and_labels_of_the_page_exist():
    families = {
        row.metric.name: set(row.labels)
        for row in (*FLEET_FAMILIES, *POOL_FAMILIES, *EVENT_FAMILIES, *JOB_FAMILIES)
    }
    own = {"modelarts_exporter_invalid_jobs_total"}
    assert set(re.findall(r"\bmodelarts_\w+", PAGE)) - own <= families.keys()
    labels = set().union(*families.values()) | {"job_id"}
    assert set(re.findall(r"\blabel `(\w+)`", PAGE)) <= labels


@pytest.mark.parametrize("value", CHAINS)
def test_the_page_lists_the_sources_in_the_order_of_the_code(value):
    (fields,) = re.findall(rf"^\| {value} \| (`.*`) \|$", PAGE, re.MULTILINE)
    assert re.findall(r"`([^`]+)`", fields) == list(CHAINS[value])


def test_the_page_lists_nothing_else_as_a_source():
    table = PAGE.partition("## Where hardware comes from")[2].partition("\n- ")[0]
    assert re.findall(r"^\| ([^|`]+) \| `", table, re.MULTILINE) == list(CHAINS)


def test_the_page_has_the_spellings_of_accelerators():
    section = PAGE.partition("### Spelling")[2].partition("\n## ")[0]
    assert set(SPELLINGS) <= set(re.findall(r"`([^`]+)`", section))
