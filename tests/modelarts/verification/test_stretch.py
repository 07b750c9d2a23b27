"""Rows read without a gap, their edges, and the requests for them."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.modelarts.search import PAGE
from exporter.modelarts.verification.pages import request_for
from exporter.modelarts.verification.stretch import Edge, Stretch

INF = math.inf


def below(time):
    return math.nextafter(time, -INF)


def stretch(start, rows, *, ends=False):
    """Return the stretch of some (id, create time)."""
    ids, created = zip(*rows, strict=True) if rows else ((), ())
    return Stretch(start, ids, created, ends)


ROWS = (("a", 9.0), ("b", 7.0), ("c", 7.0), ("d", 5.0))


def test_a_page_in_the_middle_shows_only_the_groups_that_are_not_cut():
    page = stretch(10, ROWS)
    assert (page.upper, page.lower) == (Edge(below(9.0), 11), Edge(5.0, 13))
    assert page.listed_between(page.lower.created, page.upper.created) == {"b", "c"}


def test_the_list_begins_and_ends_with_whole_groups():
    page = stretch(0, ROWS, ends=True)
    assert (page.upper, page.lower) == (Edge(INF, 0), Edge(-INF, 4))
    assert page.listed_between(-INF, INF) == {"a", "b", "c", "d"}


@pytest.mark.parametrize(
    ("page", "has_edges"),
    [
        (stretch(3, ROWS), True),
        (stretch(3, ROWS[1:3]), False),
        (stretch(0, ROWS[1:3]), True),
        (stretch(3, ROWS[1:3], ends=True), True),
        (stretch(3, (), ends=True), False),
        (stretch(0, (), ends=True), True),
    ],
)
def test_part_of_a_single_group_has_no_edge(page, has_edges):
    assert page.has_edges == has_edges


def test_the_last_group_may_be_cut_at_its_beginning():
    page = stretch(3, ROWS[1:3], ends=True)
    assert (page.upper, page.lower) == (Edge(below(7.0), 5), Edge(-INF, 5))


@pytest.mark.parametrize(
    ("first", "second", "whole"),
    [
        (stretch(4, ROWS[:3]), stretch(6, ROWS[2:]), stretch(4, ROWS)),
        (stretch(4, ROWS[:3]), stretch(5, ROWS[1:], ends=True), stretch(4, ROWS, ends=True)),
        (stretch(4, ROWS, ends=True), stretch(5, ROWS[1:3]), stretch(4, ROWS, ends=True)),
        (stretch(4, ROWS[:2]), stretch(6, ROWS[2:]), None),  # no row in common
        (stretch(4, ROWS[:2]), stretch(7, ROWS[3:]), None),  # a row between them
        (stretch(4, ROWS[:3]), stretch(5, ROWS[2:]), None),  # shifted by one
        (stretch(4, ROWS[:3]), stretch(6, [*ROWS[2:], ROWS[0]]), None),  # a job twice
    ],
)
def test_stretches_are_joined_only_where_they_have_the_same_rows(first, second, whole):
    assert first.joined(second) == whole
    assert second.joined(first) == whole


@pytest.mark.parametrize("mode", ["page", "row"])
@settings(deadline=None)
@given(first=st.integers(0, 200_000), rows=st.integers(1, PAGE), at=st.floats(0, 1))
def test_a_request_brings_the_row_needed_and_most_of_those_wanted(mode, first, rows, at):
    containing = first + round((rows - 1) * at)

    offset, limit, start = request_for(first, first + rows, mode, containing=containing)

    assert 1 <= limit <= PAGE
    assert start == (offset * limit if mode == "page" else offset)
    assert start <= containing < start + limit
    wanted = min(first + rows, start + limit) - max(first, start)
    assert wanted >= (rows if mode == "row" else min(rows, 20))
