"""The fault matrix, docs/faults.md: every row has a test, and every reference leads to a row."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/faults.md").read_text()
SOURCES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in sorted(ROOT.glob("tests/**/*.py"))
    if path != Path(__file__)
}
TESTS = {
    f"{name}::{node.name}"
    for name, text in SOURCES.items()
    for node in ast.parse(text).body
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
}
ROWS = {
    int(number): re.findall(r"`([^`]+)`", tests)
    for number, tests in re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", PAGE, re.MULTILINE)
}


def references(text):
    """The numbers of the rows that a text mentions, one by one."""
    for numbers in re.findall(r"(?i)(?<![a-z])rows?[ _](\d+(?:(?:, |-|[ _]and[ _])\d+)*)", text):
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", numbers):
            yield from range(int(first), int(last or first) + 1)


def test_references_are_found_in_every_form():
    text = "Rows 1-3 and 7: row 9, test_row_04_x, test_rows_62_and_63_y, a row, throw 5, arrow_6"
    assert [*references(text)] == [1, 2, 3, 7, 9, 4, 62, 63]


def test_rows_are_numbered_without_a_gap():
    assert len(ROWS) >= 76
    assert [*ROWS] == [*range(1, len(ROWS) + 1)]


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_tests_that_exist(row):
    assert ROWS[row]
    assert set(ROWS[row]) - TESTS == set()


@pytest.mark.parametrize("row", ROWS)
def test_a_test_with_the_number_in_its_name_is_in_the_row(row):
    named = {name for name in TESTS if row in references(name)}
    assert named - set(ROWS[row]) == set()


def test_comments_and_names_refer_to_rows_that_exist():
    found = {number for text in SOURCES.values() for number in references(text)}
    assert len(found) > 50
    assert found - ROWS.keys() == set()
