"""Files of earlier formats: what they hold continues.

`state-format-1.db.gz` was written by the exporter of commit 4ff9f65, which polled a simulated
service and was stopped with SIGTERM. `state-format-1.metrics.txt` has its counters above 0, as last
scraped.
"""

import contextlib
import gzip
import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from storage.test_store import opened

from exporter.metrics.counter_lines import counter_lines
from exporter.storage import migrations
from exporter.storage.scopes import StateKey
from exporter.storage.store import StateFile

DATA = Path(__file__).parents[1] / "data"
REGION = "cn-north-4"
PROJECT_ID = "0605767eb780d5762f5ec0196d1d2f3a"
FORMAT_1 = StateKey(REGION, PROJECT_ID)
EMPTY = "5f0c2b7e9d3a4c1e8b6f7a2d4c9e1b30"
WORKSPACES = ("0", EMPTY)
LABELS = {"region": REGION, "project": PROJECT_ID}


def format_1(path):
    path.write_bytes(gzip.decompress((DATA / "state-format-1.db.gz").read_bytes()))
    path.chmod(0o600)
    return path


@pytest.fixture
def path(tmp_path):
    return format_1(tmp_path / "state.db")


def shown(saved):
    """The lines of all counters above 0."""
    families = counter_lines(saved.ledger, LABELS, lambda key: key not in saved.released, {})
    lines = "".join(each.text for each in families.values()).splitlines()
    return {line for line in lines if not line.endswith(" 0.0") and "_bucket{" not in line}


async def loaded(path):
    async with opened(path) as store:
        return await store.load(FORMAT_1, WORKSPACES)


async def test_a_file_of_format_1_continues(path, caplog):
    caplog.set_level("INFO")
    async with opened(path) as store:
        assert sorted(await store.saved(REGION, PROJECT_ID)) == [
            (FORMAT_1, each) for each in sorted(WORKSPACES)
        ]
        first = await store.load(FORMAT_1, WORKSPACES)
    assert [record.getMessage() for record in caplog.records] == [
        f"migrating state file {path} from format 1 to 2",
        f"migrated state file {path}",
    ]

    lines = (DATA / "state-format-1.metrics.txt").read_text().splitlines()
    assert shown(first) == set(lines)
    assert len(lines) == 19
    assert len(first.jobs) == 4
    assert {known.job.phase for known in first.jobs.values()} == {
        "Creating", "Running", "Completed", "Failed",
    }  # fmt: skip
    assert first.newest_created == {"0": 1796036310.346, EMPTY: float("-inf")}
    assert first.released == first.ledger.keys()
    caplog.clear()
    assert await loaded(path) == first
    assert caplog.text == ""


async def test_what_format_1_had_not_released_is_not_released(path):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE series SET released = 0 WHERE rowid <= 3")

    saved = await loaded(path)

    assert len(saved.ledger.keys() - saved.released) == 3


async def test_which_workspaces_have_fine_tuning_jobs_is_kept(path):
    """The last versions of format 1 kept it beside the newest create times."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO horizon SELECT target, 'unified:' || workspace, 1.0 FROM horizon"
            " WHERE workspace = '0'"
        )
        connection.execute(
            "INSERT INTO horizon SELECT target, 'unified:' || workspace, NULL FROM horizon"
            f" WHERE workspace = '{EMPTY}'"
        )

    saved = await loaded(path)

    assert saved.unified == {"0"}
    assert saved.newest_created.keys() == {"0", EMPTY}


async def test_a_file_of_format_1_with_the_log_that_a_kill_leaves(path, tmp_path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("UPDATE horizon SET newest = 1800000000.0 WHERE workspace = '0'")
        connection.commit()
        (tmp_path / "killed").mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", tmp_path / "killed")

    saved = await loaded(tmp_path / "killed/state.db")

    assert saved.newest_created["0"] == 1_800_000_000.0
    assert len(saved.jobs) == 4


async def test_a_long_migration_says_how_far_it_is(path, caplog, monkeypatch):
    monkeypatch.setattr(migrations, "PROGRESS_SECONDS", 0)
    caplog.set_level("INFO")

    await loaded(path)

    said = [record.getMessage() for record in caplog.records]
    assert said[1:5] == [f"migrating the state file: {each} of 4 jobs" for each in (1, 2, 3, 4)]
    assert "migrating the state file: 23 of 23 series" in said


async def test_a_migration_that_fails_leaves_the_file_as_it_was(path, monkeypatch):
    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(migrations.generation, "create", full)
        with pytest.raises(Exception, match="disk is full"):
            await StateFile.open(path, problem=lambda: pytest.fail("counted"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert len((await loaded(path)).jobs) == 4


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE job SET known = CAST(replace(known, 'job', 'jab') AS BLOB) WHERE rowid = 3",
        "UPDATE job SET workspace = '7' WHERE rowid = 3",
        "UPDATE series SET family = 'modelarts_training_x' WHERE rowid = 17",
        "UPDATE horizon SET newest = 'yesterday'",
    ],
)
async def test_damage_is_not_migrated(path, statement, caplog):
    """It would be under a correct checksum then."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement).rowcount
    problems = []

    async with opened(path, lambda: problems.append(1)) as store:
        assert (await store.load(FORMAT_1, WORKSPACES)).jobs == {}

    assert problems == [1]
    assert "is damaged (" in caplog.text
    assert sorted(each.name.partition("Z")[2] for each in path.parent.glob("*damaged*")) == [""]


@pytest.mark.slow
async def test_flipped_bits_in_format_1_are_found_or_harmless(path):
    expected = await loaded(path)
    whole = format_1(path).read_bytes()
    chance = random.Random(1)
    found = 0
    for _ in range(60):
        position, bit = chance.randrange(100, len(whole)), 1 << chance.randrange(8)
        flipped = bytes([whole[position] ^ bit])
        path.write_bytes(whole[:position] + flipped + whole[position + 1 :])
        problems = []
        async with opened(path, lambda: problems.append(1)) as store:  # noqa: B023
            saved = await store.load(FORMAT_1, WORKSPACES)
        found += len(problems)
        if not problems:
            assert saved.jobs == expected.jobs
            assert saved.ledger == expected.ledger
    assert 5 < found < 60


async def test_renaming_touches_no_row(path):
    named = FORMAT_1._replace(name="nlp", endpoint="https://modelarts.example")
    async with opened(path) as store:
        before = await store.load(FORMAT_1, WORKSPACES)
        await store.rename(FORMAT_1, named, ["0"])
        assert sorted(await store.saved(REGION, PROJECT_ID)) == [(FORMAT_1, EMPTY), (named, "0")]
    async with opened(path) as store:
        after = await store.load(named, WORKSPACES)
        assert after == before._replace(newest_created={"0": before.newest_created["0"]})
        assert (await store.load(FORMAT_1, WORKSPACES)).jobs == {}
