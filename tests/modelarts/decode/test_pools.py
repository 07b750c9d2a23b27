"""Names from the list of pools: valid items are used, whatever the others are."""

import json

import pytest

from exporter.errors import BrokenResponseError, InvalidResponseError, PollError
from exporter.jobs.pool import NODE_STATES
from exporter.modelarts.decode.pools import MAX_POOLS, decode_pools

NODES = {"flavor": "modelarts.kat1.8xlarge", "count": 4, "maxCount": 4}


def pool(pool_id="pool-1", name="vision", **more):
    labels = {"os.modelarts/name": name, "os.modelarts/workspace.id": "0"}
    return {"kind": "Pool", "metadata": {"name": pool_id, "labels": labels}, **more}


def decode(*items, **more):
    return decode_pools(json.dumps({"kind": "PoolList", "items": items, **more}).encode()).names


@pytest.mark.parametrize("available", [[NODES], NODES, None, "?", [[7]]])
def test_both_documented_forms_and_others(available):
    status = {"phase": "Running", "resources": {"available": available}}
    assert decode(pool(status=status)) == {"pool-1": "vision"}


ASCEND, GPU = "modelarts.bm.npu.arm.8snt9b3.d", "modelarts.vm.gpu.v100"


@pytest.mark.parametrize("odd", [{}, {"x": "\ud800"}], ids=["fast", "patient"])
@pytest.mark.parametrize(
    ("spec", "flavor_type"),
    [
        ({"resources": [{"flavor": ASCEND, "count": 4, "maxCount": 4}]}, "Ascend"),
        ({"resources": {"flavor": GPU}}, "GPU"),
        ({"resources": [{"flavor": "modelarts.vm.cpu.16u"}, {"flavor": "a.cpu"}]}, "CPU"),
        ({"resources": [{"flavor": "modelarts.kat1.8xlarge"}]}, "Ascend"),
        ({"resources": [{"flavor": "modelarts.vm.pnt1.large.eco"}]}, "GPU"),
        ({"resources": [{"flavor": ASCEND}, {"flavor": GPU}]}, None),
        ({"resources": [{"flavor": ASCEND}, {"flavor": "modelarts.x.8xlarge"}]}, None),
        ({"resources": []}, None),
        ({"resources": [{"flavor": 7}]}, None),
        ({"resources": "?"}, None),
        ([], None),
        (None, None),
    ],
)
def test_the_flavors_of_its_nodes_imply_the_type_of_a_pool(spec, flavor_type, odd):
    body = json.dumps({"items": [pool(spec=spec), {"metadata": odd}]}).encode()
    found = decode_pools(body)

    assert found.names == {"pool-1": "vision"}
    assert found.flavor_types == ({"pool-1": flavor_type} if flavor_type else {})


def nodes_of(**resources):
    body = json.dumps({"items": [pool(status={"resources": resources})]}).encode()
    return decode_pools(body).pools["pool-1"].nodes


def count(number, flavor="f"):
    return {"flavor": flavor, "count": number}


ALL_ZERO = {("f", state): 0 for state in NODE_STATES}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        pytest.param({"available": [count(4)]}, {("f", "available"): 4}, id="array"),
        pytest.param({"available": count(4)}, {("f", "available"): 4}, id="object"),
        pytest.param({"available": [count("4")]}, {("f", "available"): 4}, id="text"),
        pytest.param(
            {"available": [count(4), count(3)]}, {("f", "available"): 7}, id="two node pools"
        ),
        pytest.param(
            {"available": [count(4)], "abnormal": None, "creating": [], "deleting": count(1)},
            {("f", "available"): 4, ("f", "deleting"): 1},
            id="empty states",
        ),
        pytest.param({"available": [count(0)]}, {}, id="no nodes"),
    ],
)
def test_nodes_by_state(resources, expected):
    assert nodes_of(**resources) == ALL_ZERO | expected


def test_every_flavor_has_every_state():
    found = nodes_of(available=[count(4)], abnormal=[count(1, "g")])
    assert found["f", "abnormal"] == found["g", "available"] == 0
    assert len(found) == 8


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(odd, id=str(number))
        for number, odd in enumerate(
            [
                "?", 7, [7], [None], [count(-1)], [count(1.5)], [count(10**9)], [count("many")],
                [{"flavor": "f"}], [{"count": 1}], [count(1, "")], [count(1)] * 51,
            ]
        )
    ],
)  # fmt: skip
def test_a_state_that_cannot_be_read_is_unknown_and_not_zero(odd):
    found = nodes_of(available=[count(4)], abnormal=odd)
    assert found == {
        ("f", state): number
        for state, number in zip(("available", "creating", "deleting"), (4, 0, 0), strict=True)
    }


def test_what_a_pool_is():
    given = pool(spec={"type": "Dedicate"}, status={"phase": "Running"})
    odd = pool("pool-2", spec={"type": "<b>"}, status={"phase": "\ud800"})
    found = decode_pools(json.dumps({"items": [given, odd, {"metadata": {"name": "x"}}]}).encode())

    assert found.pools["pool-1"][:3:2] == (("vision", "Dedicate", "0"), "Running")
    assert found.pools["pool-2"][:3:2] == (("vision", "unknown", "0"), "unknown")
    assert found.pools["x"] == (("", "unknown", "unknown"), "", "", {})


def test_pools_without_a_name_have_a_type():
    body = json.dumps({"items": [pool(name=None, spec={"resources": [{"flavor": GPU}]})]}).encode()
    found = decode_pools(body)
    assert (found.names, found.flavor_types) == ({}, {"pool-1": "GPU"})


def test_no_pools():
    assert decode() == {}
    assert decode(error=None, error_code="", errorCode=None) == {}


@pytest.mark.parametrize("more", ["", ', "kind": 7, "error_code": 0'], ids=["fast", "patient"])
def test_input_15_null_is_an_empty_list(more):
    assert decode_pools(b'{"items": null%s}' % more.encode()).pools == {}


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(odd, id=str(number))
        for number, odd in enumerate(
            [
                None, 7, "pool", [], [pool()], {}, {"metadata": None}, {"metadata": []},
                {"metadata": {}}, {"metadata": {"labels": {"os.modelarts/name": "no id"}}},
                pool(None), pool(""), pool(7), pool(["a"]), pool("a", None), pool("a", ""),
                pool("a", 7), pool("a", ["b"]), pool("a", {"b": "c"}), pool("a", True),
                {"metadata": {"name": "a"}}, {"metadata": {"name": "a", "labels": None}},
                {"metadata": {"name": "a", "labels": "b"}},
                {"metadata": {"name": "a", "labels": []}},
                {"metadata": {"name": "a", "labels": {"name": "b"}}},
            ]
        )
    ],
)  # fmt: skip
def test_an_odd_item_does_not_cost_the_others(odd):
    assert decode(pool("x", "before"), odd, pool("y", "after")) == {"x": "before", "y": "after"}


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        pytest.param(rb"a\"b\\c\nd\u0000e", 'a"b\\c\nd\ufffde', id="escaped"),
        pytest.param(rb"a\ud83db", "a\ufffdb", id="lone surrogate"),
        pytest.param(rb"\ud83d\ude80", "🚀", id="pair of surrogates"),
        pytest.param(b"a\xffb", "a\ufffdb", id="wrong UTF-8"),
        pytest.param(b"a\nb\x00c", "a\nb\ufffdc", id="control characters as such"),
        pytest.param(b"x" * 10_000, "x" * 255 + "…", id="long"),
        pytest.param("训练".encode(), "训练", id="Chinese"),
        pytest.param(b"<script>", "<script>", id="HTML"),
    ],
)
def test_names_however_they_are_written(raw, name):
    body = json.dumps({"items": [pool("x", "HERE"), pool("y", "after")]}).encode()
    assert decode_pools(body.replace(b"HERE", raw)).names == {"x": name, "y": "after"}

    ids = json.dumps({"items": [pool("HERE", "name")]}).encode()
    assert decode_pools(ids.replace(b"HERE", raw)).names == {name: "name"}


def test_a_pool_that_comes_twice_has_one_name():
    assert decode(pool(name="old"), pool(name="new"), pool(name="")) == {"pool-1": "new"}


def test_jobs_without_a_pool_are_not_named():
    """They have the label ``public``, which is never the id of a pool."""
    assert decode(pool("public", "evil"), pool()) == decode(pool())


@pytest.mark.parametrize("odd", [[], [7]])
def test_the_number_of_pools_is_bounded(odd):
    names = decode(*odd, *(pool(f"pool-{number}", f"n{number}") for number in range(5000)))
    assert len(names) == MAX_POOLS
    assert names["pool-999"] == "n999"


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        (b"", InvalidResponseError, "empty"),
        (b"<html>", InvalidResponseError, "an HTML page"),
        (b"[]", InvalidResponseError, "not a JSON object"),
        (b"7", InvalidResponseError, "not a JSON object"),
        (b"{}", InvalidResponseError, "no list of pools"),
        (b'{"items": {}}', InvalidResponseError, "no list of pools"),
        (b'{"items": [null, 3, {"metadata": null}]}', InvalidResponseError, "none .* is a pool"),
        (
            b'{"items": [], "error_code": "X.1", "error_msg": "odd"}',
            InvalidResponseError,
            "X.1 odd",
        ),
        (b'{"error": {"code": 500, "message": "odd"}}', InvalidResponseError, "500 odd"),
        (b'{"items": [{"metadata"', BrokenResponseError, "truncated"),
        (b'{"items": [' + b"[" * 100_000, InvalidResponseError, "nested too deeply"),
    ],
)
def test_what_is_no_list_of_pools(body, error, said):
    with pytest.raises(error, match=said):
        decode_pools(body)


@pytest.mark.parametrize("end", range(0, 400, 7))
def test_whatever_comes_is_names_or_an_expected_error(end):
    body = json.dumps({"items": [pool(), pool("\ud800", "\x00"), 7]}).encode()
    for odd in (body[:end], body[end:], body[:end] + b"\xff\x00[" + body[end:]):
        try:
            names = decode_pools(odd).names
        except PollError:
            continue
        assert all(isinstance(text, str) for pair in names.items() for text in pair)
