"""Files of earlier formats: what they hold continues.

`state-format-1.db.gz` was written by the exporter of commit 4ff9f65, which polled a simulated
service and was stopped with SIGTERM. `state-format-1.metrics.txt` has its counters above 0, as last
scraped. `state-format-2.db.gz` is the same file after a commit of the exporter of commit c7b97fa.
"""

import contextlib
import gzip
import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from storage.test_store import expected, group_of, jobs_of, loaded, opened

from exporter.metrics.counter_lines import counter_lines
from exporter.storage import migrations
from exporter.storage.scopes import StateKey
from exporter.storage.store import Store

DATA = Path(__file__).parents[1] / "data"
REGION = "cn-north-4"
PROJECT_ID = "0605767eb780d5762f5ec0196d1d2f3a"
FORMAT_1 = StateKey(REGION, PROJECT_ID)
EMPTY = "5f0c2b7e9d3a4c1e8b6f7a2d4c9e1b30"
WORKSPACES = ("0", EMPTY)
LABELS = {"region": REGION, "project": PROJECT_ID}


def of_format(number, path):
    path.write_bytes(gzip.decompress((DATA / f"state-format-{number}.db.gz").read_bytes()))
    path.chmod(0o600)
    return path


def format_1(path):
    return of_format(1, path)


@pytest.fixture
def path(tmp_path):
    return format_1(tmp_path / "state.db")


def shown(saved):
    """The lines of all counters above 0."""
    families = counter_lines(saved.ledger, LABELS, lambda key: key not in saved.released, {})
    lines = "".join(each.text for each in families.values()).splitlines()
    return {line for line in lines if not line.endswith(" 0.0") and "_bucket{" not in line}


async def continued(path):
    async with opened(path) as store:
        return await loaded(store, FORMAT_1, WORKSPACES)


async def check_all(store):
    while await store._run(store._database.check_step):
        pass


@pytest.mark.parametrize("number", [1, 2])
async def test_a_file_of_an_earlier_format_continues(tmp_path, number, caplog):
    path = of_format(number, tmp_path / "state.db")
    caplog.set_level("INFO")
    async with opened(path) as store:
        assert sorted(await store.saved(REGION, PROJECT_ID)) == [
            (FORMAT_1, each) for each in sorted(WORKSPACES)
        ]
        first = await loaded(store, FORMAT_1, WORKSPACES)
        await check_all(store)
    assert [record.getMessage() for record in caplog.records] == [
        f"migrating state file {path} from format {number} to 3",
        f"migrated state file {path}",
    ]

    lines = (DATA / "state-format-1.metrics.txt").read_text().splitlines()
    assert shown(first) == set(lines)
    assert len(lines) == 19
    assert {known.job.phase for known in first.open.values()} == {"Creating", "Running"}
    assert [known.job.phase for known in first.recent.values()] == ["Failed", "Completed"]
    assert first.finished == {group_of(known.job): 1 for known in first.recent.values()}
    assert [known.job.phase for known in first.failures] == ["Failed"]
    assert first.pool_names == {"pool-8c21e4aa": (1796036290.346, "vision")}
    assert first.newest_created == {"0": 1796036310.346, EMPTY: float("-inf")}
    assert first.released == first.ledger.keys()
    caplog.clear()
    assert await continued(path) == first
    assert caplog.text == ""


async def test_what_format_1_had_not_released_is_not_released(path):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE series SET released = 0 WHERE rowid <= 3")

    saved = await continued(path)

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

    saved = await continued(path)

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

    saved = await continued(tmp_path / "killed/state.db")

    assert saved.newest_created["0"] == 1_800_000_000.0
    assert len(jobs_of(saved)) == 4


async def test_a_long_migration_says_how_far_it_is(path, caplog, monkeypatch):
    monkeypatch.setattr(migrations, "PROGRESS_SECONDS", 0)
    caplog.set_level("INFO")

    await continued(path)

    said = [record.getMessage() for record in caplog.records]
    jobs = [f"migrating the state file: {each} of 4 jobs" for each in (1, 2, 3, 4)]
    assert [each for each in said if each.endswith("jobs")] == [*jobs, *jobs]  # in each step
    assert "migrating the state file: 23 of 23 series" in said


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("step", ["generation.migrate", "jobs.create_indexes"])
async def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path, number, step, monkeypatch
):
    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    path = of_format(number, tmp_path / "state.db")
    with monkeypatch.context() as patch:
        patch.setattr(f"exporter.storage.{step}", full)
        with pytest.raises(Exception, match="disk is full"):
            await Store.open(path, problem=lambda: pytest.fail("counted"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (number,)
    assert len(jobs_of(await continued(path))) == 4


@pytest.mark.parametrize(
    ("number", "statement"),
    [
        (1, "UPDATE job SET known = CAST(replace(known, 'job', 'jab') AS BLOB) WHERE rowid = 3"),
        (1, "UPDATE job SET workspace = '7' WHERE rowid = 3"),
        (1, "UPDATE series SET family = 'modelarts_training_x' WHERE rowid = 17"),
        (1, "UPDATE horizon SET newest = 'yesterday'"),
        (2, "UPDATE job SET known = CAST(replace(known, 'job', 'jab') AS BLOB) WHERE rowid = 3"),
        (2, "UPDATE job SET scope = 2 WHERE rowid = 3"),
        (2, "UPDATE scope SET newest = 7.0"),
        (2, "DELETE FROM scope WHERE id = 1"),
        (2, "UPDATE generation SET value = 'x'"),
        (2, "DELETE FROM generation"),
    ],
)
async def test_damage_is_not_migrated(tmp_path, number, statement, caplog):
    """It would be under a correct checksum then."""
    path = of_format(number, tmp_path / "state.db")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement).rowcount
    problems = []

    async with opened(path, lambda: problems.append(1)) as store:
        assert await loaded(store, FORMAT_1, WORKSPACES) == expected({})

    assert problems == [1]
    assert "is damaged (" in caplog.text
    assert sorted(each.name.partition("Z")[2] for each in path.parent.glob("*damaged*")) == [""]


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
async def test_flipped_bits_in_earlier_formats_are_found_or_harmless(tmp_path, number):
    path = of_format(number, tmp_path / "state.db")
    right = await continued(path)
    whole = of_format(number, path).read_bytes()
    chance = random.Random(1)
    found = 0
    for _ in range(60):
        position, bit = chance.randrange(100, len(whole)), 1 << chance.randrange(8)
        flipped = bytes([whole[position] ^ bit])
        path.write_bytes(whole[:position] + flipped + whole[position + 1 :])
        problems = []
        async with opened(path, lambda: problems.append(1)) as store:  # noqa: B023
            saved = await loaded(store, FORMAT_1, WORKSPACES)
        found += len(problems)
        if not problems:
            assert jobs_of(saved) == jobs_of(right)
            assert saved.ledger == right.ledger
    assert 3 < found < 60


async def test_renaming_touches_no_row(path):
    named = FORMAT_1._replace(name="nlp", endpoint="https://modelarts.example")
    async with opened(path) as store:
        before = await loaded(store, FORMAT_1, WORKSPACES)
        await store.rename(FORMAT_1, named, ["0"])
        assert sorted(await store.saved(REGION, PROJECT_ID)) == [(FORMAT_1, EMPTY), (named, "0")]
    async with opened(path) as store:
        after = await loaded(store, named, WORKSPACES)
        assert after == before._replace(newest_created={"0": before.newest_created["0"]})
        assert jobs_of(await loaded(store, FORMAT_1, WORKSPACES)) == {}
