"""Quantities as Kubernetes writes them."""

import json

import pytest

from exporter.modelarts.decode.quantity import quantity, whole


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (5, 5), (0, 0), ("0", 0), (1.5, 1.5), ("1.5", 1.5), (".5", 0.5), ("5.", 5), ("+5", 5),
        ("15548Mi", 15548 * 2**20), ("1073m", 1.073), ("1Ki", 1024), ("2k", 2000), ("1G", 1e9),
        ("1Ti", 2**40), ("3e3", 3000), ("3E3", 3000), ("1e-3", 0.001), ("12E", None),
        ("100u", 1e-4), ("100n", 1e-7), ("1Pi", 2**50), (1e3, 1000),
    ],
)  # fmt: skip
def test_quantities(value, number):
    found = quantity(json.dumps(value).encode())
    assert found == (None if number is None else pytest.approx(number))


@pytest.mark.parametrize(
    "value",
    ["", "Mi", "5 Mi", "5MI", "5K", "-5", -5, "0x5", "1_000", "NaN", "inf", "1e999", "5KiB", "٣",
     None, True, [], {}, "5\n", "9" * 100],
)  # fmt: skip
def test_what_is_no_quantity(value):
    assert quantity(json.dumps(value).encode()) is None


@pytest.mark.parametrize("value", [b"", b"NaN", b"Infinity", b'"\xff"', b"5x", b"\xff"])
def test_what_is_no_json_either(value):
    assert quantity(value) is None


def test_whole_numbers_up_to_a_limit():
    values = [b"0", b"8", b'"8000m"', b"9", b"1.5", b'"x"']
    assert [whole(value, 8) for value in values] == [0, 8, 8, None, None, None]
