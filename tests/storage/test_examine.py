"""A state file is examined without being opened: nothing is created, locked or changed."""

import sqlite3

import pytest

from exporter.errors import ConfigError
from exporter.storage.examine import examine
from exporter.storage.layout import LAYOUT
from exporter.storage.store import Store


@pytest.fixture
async def used(tmp_path):
    """A state file that a running exporter holds open."""
    path = tmp_path / "state.db"
    store = await Store.open(path, problem=lambda: None)
    yield path
    await store.close()


async def test_a_file_in_use(used):
    before = used.read_bytes()
    assert examine(used) == ""
    assert used.read_bytes() == before


def test_a_file_that_does_not_exist_yet(tmp_path):
    assert examine(tmp_path / "state.db").startswith("will be created")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("content", [b"garbage" * 100, b"SQLite format 3\0", b"x"])
def test_a_file_that_is_not_ours(tmp_path, content):
    path = tmp_path / "state.db"
    path.write_bytes(content)
    assert "is not a state file" in examine(path)


def test_an_empty_file_is_as_good_as_none(tmp_path):
    (tmp_path / "state.db").touch()
    assert examine(tmp_path / "state.db") == ""


def test_a_file_of_a_newer_version(tmp_path):
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute(f"PRAGMA application_id = {LAYOUT.application_id}")
        connection.execute(f"PRAGMA user_version = {max(LAYOUT.steps) + 1}")
    connection.close()
    with pytest.raises(ConfigError, match="was written by a newer version"):
        examine(path)


@pytest.mark.parametrize("name", ["nowhere/state.db", "."])
def test_a_path_that_cannot_be_used(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(ConfigError, match=r"^state\.file: .*(No such file|not a regular file)"):
        examine(path)
