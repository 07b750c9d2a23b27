"""How full pools are: values that can be used are, whatever stands beside them."""

import json

import pytest

from exporter.errors import BrokenResponseError, InvalidResponseError, PollError
from exporter.jobs.pool import NodeCards, PoolUsage, Quota
from exporter.modelarts.decode.capacity import (
    decode_flavors,
    decode_queue,
    decode_quotas,
    decode_usage,
)

GPU = "nvidia.com/gpu"


def encoded(**document):
    return json.dumps(document).encode()


def usage(pool="p", **table):
    items = [{"metadata": {"name": pool}, "table": table}]
    return decode_usage(encoded(items=items))[pool]


def amounts(**value):
    return {"value": {"cpu": 5, "memory": "15548Mi", "pods": 110, **value}, "window": "1m"}


@pytest.mark.parametrize("eight", [8, "8", 8.0, "8.0", "8000m", "0.008k", "8e0"])
def test_cards_are_quantities(eight):
    found = usage(
        capacity=amounts(**{GPU: 64}), allocated=amounts(**{GPU: eight}), available=amounts()
    )
    assert found.cards == {(GPU, "capacity"): 64, (GPU, "allocated"): 8}


@pytest.mark.parametrize("key", [GPU, "huawei.com/ascend-1980", "tnt004", "x" * 300])
def test_the_resource_of_cards_has_any_name(key):
    ((resource, state),) = usage(capacity=amounts(**{key: 1})).cards
    assert (resource[:255], state) == (key[:255], "capacity")
    assert len(resource) <= 256


@pytest.mark.parametrize(
    "key", ["cpu", "memory", "pods", "storage", "ephemeral-storage", "hugepages-2Mi"]
)
def test_other_resources_are_no_cards(key):
    assert usage(capacity=amounts(**{key: 7})).cards == {}


def test_cards_that_there_are_none_of_are_left_out_beside_others():
    both = amounts(**{GPU: 0, "huawei.com/ascend-1980": 8})
    assert usage(capacity=both).cards == {("huawei.com/ascend-1980", "capacity"): 8}
    assert usage(capacity=amounts(**{GPU: 0})).cards == {(GPU, "capacity"): 0}


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(odd, id=str(number))
        for number, odd in enumerate(
            [-1, "-1", "many", None, True, [8], {}, "", "8Q", "1e400", "9" * 50, 10**9, "٣"]
        )
    ],
)
def test_an_amount_that_cannot_be_right_is_left_out(odd):
    found = usage(capacity=amounts(**{GPU: odd}), allocated=amounts(**{GPU: 3}))
    assert found.cards == {(GPU, "allocated"): 3}


def test_workloads_by_type():
    workload = {
        "allocated": {"train": 3, "infer": "1", "notebook": 0, "x-infer": 2, "sum": 6},
        "queue": {"train": 7, "sum": 7, "<b>": 1, "infer": None},
        "window": "1m",
    }
    assert usage(workload=workload).workloads == {
        ("train", "allocated"): 3,
        ("infer", "allocated"): 1,
        ("notebook", "allocated"): 0,
        ("x-infer", "allocated"): 2,
        ("train", "queue"): 7,
    }


@pytest.mark.parametrize("odd", [None, 7, "?", [], {"value": 7}, {"value": [1]}])
def test_odd_parts_do_not_cost_the_others(odd):
    items = [
        None,
        {"metadata": None},
        {"metadata": {"name": "q"}, "table": odd},
        {
            "metadata": {"name": "p"},
            "table": {"capacity": odd, "workload": odd, "allocated": amounts(**{GPU: 3})},
        },
    ]
    found = decode_usage(encoded(items=items))
    assert found["p"] == PoolUsage({(GPU, "allocated"): 3}, {})


def test_the_number_of_keys_and_pools_is_bounded():
    many = {f"card-{number}": 1 for number in range(1000)}
    items = [
        {"metadata": {"name": f"p{number}"}, "table": {"capacity": {"value": many}}}
        for number in range(1500)
    ]
    found = decode_usage(encoded(items=items))
    assert len(found) == 1000
    assert max(len(pool.cards) for pool in found.values()) <= 50


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"npu": {"type": "Ascend-SNT9B", "card": "8", "size": "16"}}, ("ascend-Snt9b", 8)),
        ({"npu": {"card": None, "size": 16}}, ("", 16)),
        ({"gpu": {"type": "nvidia-a", "card": 4}}, ("nvidia-a", 4)),
        ({"npu": {"card": 0}, "gpu": {"card": 4}}, ("", 4)),
        ({"npu": {"type": 7, "card": "8"}}, ("", 8)),
        ({"cpu": "32"}, ("", 0)),
        ({"npu": None, "gpu": None}, ("", 0)),
        ({"npu": {"card": "many", "size": 8}}, None),
        ({"npu": {"card": -8}}, None),
        ({"npu": {"card": 5000}}, None),
        ({"npu": {"type": "t"}}, None),
    ],
)
def test_cards_of_a_node(spec, expected):
    found = decode_flavors(encoded(items=[{"metadata": {"name": "f"}, "spec": spec}]))
    assert found.flavors == ({"f": NodeCards(*expected)} if expected else {})


@pytest.mark.parametrize(
    ("metadata", "following"),
    [({"continue": "abc"}, "abc"), ({"continue": ""}, ""), ({}, ""), (None, ""), ("?", ""),
     ({"continue": "x" * 10_000}, "")],
)  # fmt: skip
def test_where_the_next_page_of_flavors_begins(metadata, following):
    assert decode_flavors(encoded(items=[], metadata=metadata)).following == following


def test_places_in_a_queue():
    places = [1, "2", 0, -1, None, 1.5, "first", 10**9]
    items = [
        {"jobUUID": f"j{number}", "pendingPosition": place} for number, place in enumerate(places)
    ]
    items += [None, {"pendingPosition": 1}, {"jobUUID": 7, "pendingPosition": 1}, {"jobUUID": "x"}]
    assert decode_queue(encoded(items=items)) == {"j0": 1, "j1": 2, "j2": 0}


def test_quotas():
    quotas = [
        {"resource": "job-num", "quota": 1000, "used": "20"},
        {"resource": "free", "quota": -1, "used": 3},
        {"resource": None, "quota": 1},
        7,
    ]
    assert decode_quotas(encoded(quotas=quotas)) == {
        "job-num": Quota(1000, 20),
        "free": Quota(None, 3),
    }


DECODERS = (decode_usage, decode_flavors, decode_queue, decode_quotas)


@pytest.mark.parametrize("decode", DECODERS, ids=lambda decode: decode.__name__)
@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        (b"", InvalidResponseError, "empty"),
        (b"<html>", InvalidResponseError, "an HTML page"),
        (b"[]", InvalidResponseError, "not a JSON object"),
        (b"{}", InvalidResponseError, "no list of"),
        (b'{"items": [], "quotas": [], "error_code": "X.1"}', InvalidResponseError, "X.1"),
        (b'{"items": [{"metadata"', BrokenResponseError, "truncated"),
    ],
)
def test_what_is_no_such_answer(decode, body, error, said):
    with pytest.raises(error, match=said):
        decode(body)


@pytest.mark.parametrize("decode", DECODERS[:3], ids=lambda decode: decode.__name__)
def test_an_empty_list_may_be_null(decode):
    assert not any(decode(b'{"items": null}'))


@pytest.mark.parametrize("decode", DECODERS, ids=lambda decode: decode.__name__)
@pytest.mark.parametrize("end", range(0, 200, 11))
def test_whatever_comes_is_a_result_or_an_expected_error(decode, end):
    body = encoded(
        items=[
            {
                "metadata": {"name": "\ud800"},
                "table": {"capacity": amounts(**{GPU: "8"})},
                "spec": {"npu": {"card": "8"}},
                "jobUUID": "j",
                "pendingPosition": 1,
            }
        ],
        quotas=[{"resource": "\x00", "quota": 1}],
    )
    for odd in (body, body[:end], body[end:], body[:end] + b"\xff\x00[" + body[end:]):
        try:
            found = decode(odd)
        except PollError:
            continue
        assert "\ud800" not in repr(found)
