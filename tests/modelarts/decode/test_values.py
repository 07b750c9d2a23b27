"""Single values: used as they are, or unset and reported."""

import math

import pytest

from exporter.modelarts.decode.values import MS, SECONDS, Checker, label, shared_label

NOW = 1_750_000_000.0
YEAR = 365.25 * 86400


@pytest.fixture
def check():
    return Checker(NOW)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param(None, "", id="absent"),
        pytest.param("", "", id="empty"),
        pytest.param("train-01", "train-01", id="plain"),
        pytest.param("训练作业 🚀", "训练作业 🚀", id="not ASCII"),
        pytest.param('"\\{}%', '"\\{}%', id="special in expositions"),
        pytest.param("<b>&amp;", "<b>&amp;", id="HTML"),
        pytest.param("a\nb", "a\nb", id="newline"),
        pytest.param("a\x00b", "a\ufffdb", id="NUL"),
        pytest.param("a\r\x1b\x7f\x85b", "a" + 4 * "\ufffd" + "b", id="other control characters"),
        pytest.param("a\ud800b", "a\ufffdb", id="lone surrogate"),
        pytest.param("x" * 256, "x" * 256, id="as long as may be"),
        pytest.param("x" * 257, "x" * 255 + "…", id="too long"),
        pytest.param("\ud800" * 10_000, "\ufffd" * 255 + "…", id="too long and not encodable"),
    ],
)
def test_texts_as_labels(text, shown):
    assert label(text) == shown
    assert shared_label(text) == shown


def test_the_length_of_a_text_may_be_limited_further():
    assert label("exit with 127", 6) == "exit …"


def test_equal_texts_are_one_object():
    names = [b"zhang_min".decode() for _ in range(2)]

    assert names[0] is not names[1]
    assert shared_label(names[0]) is shared_label(names[1])


@pytest.mark.parametrize(
    ("value", "unit", "seconds"),
    [
        pytest.param(1_749_999_999_123.0, MS, 1_749_999_999.123, id="ms"),
        pytest.param(1_749_999_999.0, SECONDS, 1_749_999_999.0, id="s"),
        pytest.param((NOW + 900) * 1000, MS, NOW + 900, id="by a clock that is ahead"),
        pytest.param(1_420_070_400_000.0, MS, 1_420_070_400.0, id="2015"),
        pytest.param(None, MS, None, id="absent"),
        pytest.param(0.0, MS, None, id="never"),
    ],
)
def test_times(check, value, unit, seconds):
    assert check.time(value, unit, "field") == seconds
    assert check.problems == {}


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        pytest.param(NOW, MS, id="seconds where ms belong"),
        pytest.param(NOW * 1000, SECONDS, id="ms where seconds belong"),
        pytest.param((NOW + 901) * 1000, MS, id="future"),
        pytest.param(1_420_070_399_000.0, MS, id="2014"),
        pytest.param(-1.0, MS, id="negative"),
        pytest.param(1.0, MS, id="1970"),
        pytest.param(math.nan, MS, id="NaN"),
        pytest.param(math.inf, MS, id="infinite"),
    ],
)
def test_impossible_times_are_unset_and_said(check, value, unit):
    assert check.time(value, unit, "field") is None
    assert check.problems == {("field", "invalid"): ""}


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, None), (0.0, 0.0), (1.0, 0.001), (9 * YEAR * 1000, 9 * YEAR)]
)
def test_durations(check, value, seconds):
    assert check.duration(value, MS, "field") == seconds
    assert check.problems == {}


@pytest.mark.parametrize("value", [-1.0, 11 * YEAR * 1000, math.nan, math.inf, -math.inf])
def test_impossible_durations_are_unset_and_said(check, value):
    assert check.duration(value, MS, "field") is None
    assert check.problems == {("field", "invalid"): ""}


@pytest.mark.parametrize(("value", "number"), [(None, None), (0.0, 0), (1.0, 1), (8.0, 8)])
@pytest.mark.parametrize("whole", [True, False])
def test_amounts(check, value, number, whole):
    assert check.amount(value, 8, "field", whole=whole) == number
    assert check.problems == {}


def test_amounts_with_a_fraction(check):
    assert check.amount(0.5, 8, "field", whole=False) == 0.5
    assert check.problems == {}


@pytest.mark.parametrize("value", [-1.0, 0.5, 9.0, 1e300, math.nan, math.inf])
def test_impossible_amounts_are_unset_and_said(check, value):
    assert check.amount(value, 8, "field") is None
    assert check.problems == {("field", "invalid"): ""}


@pytest.mark.parametrize(("value", "shown"), [(None, ""), ("", ""), ("GPU", "GPU")])
def test_choices(check, value, shown):
    assert check.choice(value, ("CPU", "GPU"), "flavor_type") == shown
    assert check.problems == {}


def test_a_choice_that_is_not_documented_is_unknown_and_said(check):
    assert check.choice("gpu", ("CPU", "GPU"), "flavor_type") == "unknown"
    assert check.problems == {("flavor_type", "unknown"): "gpu"}


@pytest.mark.parametrize("value", ["proc_restart", "npu_step_retry", "a_policy_of_2031"])
def test_recovery_policies_are_an_open_set(check, value):
    assert check.policy(value) == value
    assert check.problems == {}


@pytest.mark.parametrize("value", ["exit with 127", "Proc", "proc_restart\n", "重启", "x" * 65])
def test_what_cannot_be_a_recovery_policy_is_unknown_and_said(check, value):
    assert check.policy(value) == "unknown"
    assert check.problems.keys() == {("recovery", "unknown")}


def test_what_is_said_of_a_value_is_one_short_line(check):
    check.unknown("phase", 'Pa"used\n\x00\ud800' + "x" * 10_000)

    shown = r'Pa"used\n\x00\ud800' + "x" * 60 + "…"
    assert check.problems == {("phase", "unknown"): shown}


def test_a_value_that_is_just_short_enough_is_said_in_full(check):
    check.unknown("phase", "x" * 80)

    assert check.problems == {("phase", "unknown"): "x" * 80}


def test_of_a_field_the_first_odd_value_is_said(check):
    check.unknown("phase", "Paused")
    check.unknown("phase", "Frozen")

    assert check.problems == {("phase", "unknown"): "Paused"}
