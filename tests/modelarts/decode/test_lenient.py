"""The lenient decoder keeps values of the right type, and agrees with the fast one."""

import functools
import json

import msgspec
import pytest

from exporter.errors import BrokenResponseError, InvalidResponseError
from exporter.modelarts.decode import lenient
from exporter.modelarts.decode.lenient import (
    MAX_ELEMENTS,
    MAX_TEXT,
    MAX_TOGETHER,
    Budget,
    UnusableError,
    convert_leaf,
    convert_leniently,
    elements,
    open_response,
)


class Leg(msgspec.Struct, frozen=True):
    length: float | None = None


class Table(msgspec.Struct, frozen=True):
    id: str
    name: str | None = None
    height: float | None = None
    top: Leg | None = None
    legs: lenient.Many[Leg] | None = None
    notes: msgspec.Raw = msgspec.Raw()


def made(value):
    wrong = []
    return convert_leniently(Table, json.dumps(value).encode(), wrong, Budget()), wrong


def test_what_is_as_documented_is_taken_over():
    whole = {
        "id": "a",
        "name": "desk",
        "height": 72,
        "top": {"length": 1.5},
        "legs": [{"length": 70}, {}],
        "unknown": {"id": 1},
    }

    assert made(whole) == (
        Table(id="a", name="desk", height=72.0, top=Leg(1.5), legs=(Leg(70.0), Leg())),
        [],
    )


@pytest.mark.parametrize("field", ["name", "height", "top", "legs", "notes"])
def test_null_is_absent(field):
    assert made({"id": "a", field: None}) == (Table(id="a"), [])


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("name", 7, "name"),
        ("name", ["desk"], "name"),
        ("height", "high", "height"),
        ("height", True, "height"),
        ("height", {}, "height"),
        ("top", "flat", "top"),
        ("top", [], "top"),
        ("top", {"length": []}, "top.length"),
        ("legs", 4, "legs"),
        ("legs", {"length": 70}, "legs"),
    ],
)
def test_a_field_of_a_wrong_type_costs_that_field(field, value, path):
    table, wrong = made({"id": "a", "name": "desk", "height": 72, field: value})
    others = {"name": "desk", "height": 72.0}
    others.pop(field, None)
    expected = Table(id="a", **others)

    assert wrong == [path]
    assert table == (msgspec.structs.replace(expected, top=Leg()) if "." in path else expected)


def test_elements_are_never_left_out_since_their_number_has_a_meaning():
    table, wrong = made({"id": "a", "legs": [{"length": 1}, None, 7, {"length": "x"}]})

    assert table.legs == (Leg(1.0), Leg(), Leg(), Leg())
    assert wrong == ["legs", "legs", "legs.length"]


@pytest.mark.parametrize("value", [None, 7, "a", [], {}, {"id": None}, {"id": 7}, {"name": "desk"}])
def test_without_what_is_required_it_is_of_no_use(value):
    with pytest.raises(UnusableError):
        made(value)


@pytest.mark.parametrize(
    ("value", "number"), [(8, 8.0), ("8", 8.0), (8.5, 8.5), ("8.5", 8.5), (10**17, 1e17)]
)
def test_numbers_may_be_strings(value, number):
    assert convert_leaf(float | None, json.dumps(value).encode()) == number


@pytest.mark.parametrize("value", ["", " 8", "8 GB", "0x10", "1_0", "\ud800", True, [8]])
def test_what_is_no_number(value):
    with pytest.raises(ValueError, match=r".+"):
        convert_leaf(float | None, json.dumps(value).encode())


def test_raw_json_stays_json():
    assert convert_leaf(msgspec.Raw, b'[[1, 2], "\xff"]') == b'[[1, 2], "\xff"]'


@pytest.mark.parametrize("text", ["x" * (MAX_TEXT + 1), "训" * 100_000, '"' * 1000])
def test_a_text_that_is_too_long_is_cut(text):
    kept = convert_leaf(lenient.Text, json.dumps(text).encode())

    assert kept == text[:MAX_TEXT]
    assert convert_leaf(lenient.Text, json.dumps(text[:MAX_TEXT]).encode()) == kept


@pytest.mark.parametrize("number", [0, 1, 64, 65, MAX_ELEMENTS])
def test_an_array_is_read_up_to_its_limit(number):
    legs = [{"length": length} for length in range(number)]
    expected = tuple(Leg(float(length)) for length in range(number))

    assert made({"id": "a", "legs": legs}) == (Table("a", legs=expected), [])
    assert elements(json.dumps(legs).encode(), 65)[1] is (number > 65)


def test_what_is_beyond_the_limit_of_an_array_is_one_element_that_tells_nothing():
    legs = [{"length": length} for length in range(MAX_ELEMENTS + 1)]
    table, wrong = made({"id": "a", "legs": legs})

    assert len(table.legs) == MAX_ELEMENTS
    assert table.legs[:-1] == tuple(Leg(float(length)) for length in range(MAX_ELEMENTS - 1))
    assert table.legs[-1] == Leg()
    assert wrong == ["legs"]


def test_the_elements_of_all_arrays_together_are_limited():
    table = b'{"id": "a", "legs": [%s]}' % b",".join([b"{}"] * MAX_ELEMENTS)
    budget = Budget()

    for _ in range(MAX_TOGETHER // MAX_ELEMENTS):
        convert_leniently(Table, table, [], budget)
    with pytest.raises(InvalidResponseError, match="too many values"):
        convert_leniently(Table, table, [], budget)


# --- Answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "value"),
    [
        pytest.param(b'{"a": 1}', {"a": 1}, id="plain"),
        pytest.param(b'\xef\xbb\xbf {"a": 1}\n', {"a": 1}, id="byte order mark and spaces"),
        pytest.param(b'{"a": "\\ud800x"}', {"a": "\ufffdx"}, id="lone surrogate"),
        pytest.param(b'{"\\uDfff": "\\ud800"}', {"\ufffd": "\ufffd"}, id="surrogate in a key"),
        pytest.param(b'{"a": "\\ud83d\\ude80"}', {"a": "🚀"}, id="pair of surrogates"),
        pytest.param(b'{"a": "\\\\ud800\\n"}', {"a": "\\ud800\n"}, id="no surrogate"),
        pytest.param(b'{"a": "x\ny\x00"}', {"a": "x\ny\x7f"}, id="control characters as such"),
        pytest.param(b'{"a": NaN, "b": 1}', {"a": {}, "b": 1}, id="not a number"),
        pytest.param(b'{"a": -Infinity, "b": "NaN"}', {"a": {}, "b": "NaN"}, id="infinity"),
        pytest.param(
            b'{"a": [%s1%s, 2], "b": "\x01"}' % (b"[" * 99_999, b"]" * 99_999),
            {"a": [functools.reduce(lambda inner, _: [inner], range(62), {}), 2], "b": "\x7f"},
            id="nested too deeply",
        ),
    ],
)
def test_objects_are_read_with_patience(body, value):
    _, repaired = open_response(body)

    assert json.loads(repaired) == value


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "the response is empty"),
        (b" \r\n", "the response is empty"),
        (b"<html><body>502 Bad Gateway", "the response is an HTML page"),
        (b"OK", "the response is not a JSON object"),
        (b"null", "the response is not a JSON object"),
        (b"[]", "the response is not a JSON object"),
        (b'"text"', "the response is not a JSON object"),
        (b"\x1f\x8b\x08\x00", "the response is not a JSON object"),
    ],
)
def test_what_is_no_object_is_no_answer(body, complaint):
    with pytest.raises(InvalidResponseError, match=f"^{complaint}$") as caught:
        open_response(body)

    assert not caught.value.retryable


@pytest.mark.parametrize("body", [b"{", b'{"a": ', b'{"a": "secr', b'{"a": 1}}', b"[1,", b"{'a'}"])
def test_what_was_cut_off_or_garbled_is_worth_another_try(body):
    with pytest.raises(BrokenResponseError) as caught:
        open_response(body)

    assert caught.value.retryable


def test_an_error_does_not_drag_the_body_along():
    with pytest.raises(BrokenResponseError) as caught:
        open_response(b'{"command": "export TOKEN=hunter2')

    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None
