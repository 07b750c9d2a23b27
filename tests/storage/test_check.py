"""Damage in rows and indexes: found at the start, later, or when it is met, but never believed."""

import asyncio
import contextlib
import random
import sqlite3

import pytest
from storage.test_sqlite import ASIDE, as_after_a_kill, moved_aside
from storage.test_store import (
    HISTOGRAM,
    NEVER,
    NOTHING,
    NOW,
    OBSERVED,
    OTHER,
    ZERO,
    T,
    created,
    expected,
    known,
    loaded,
    opened,
    reloaded,
)

from exporter.clock import Clocks
from exporter.errors import HistoryLostError, StateError
from exporter.jobs.tracked import Base
from exporter.metrics.counters import CREATED, FINISHED
from exporter.storage import check, store
from exporter.storage.store import StateChange, Store

KEY, SERIES = created()
JOBS = {f"job-{number}": known(f"job-{number}", created=NOW - 999 * number) for number in range(9)}
JOBS["job-7"] = known("job-7", created=NOW - 6000, phase="Completed")  # no start loads it
JOBS["open"] = known("open", phase="Running", ended=None, created=NOW - 7000)
JOBS["timeless"] = known("timeless", created=None)
CHANGE = StateChange(
    JOBS,
    (),
    {"0": NOW},
    {KEY: SERIES, HISTOGRAM: OBSERVED},
    [KEY],
    {Base(*ZERO): NOW},
    pool_names={"pool-1": (NOW, "nlp")},
    verification={"0": b"page 3"},
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


@pytest.fixture(autouse=True)
def in_small_steps(monkeypatch):
    monkeypatch.setattr(check, "_ROWS", 3)
    monkeypatch.setattr(check, "_ENTRIES", 3)


_filled = []


async def filled(path):
    """Put a file there that was closed in order. It is made only once."""
    if not _filled:
        async with opened(path) as store:
            await store.commit(T, CHANGE)
            await store.commit(OTHER, StateChange(newest_created={"1": NOW}))
        _filled.append(path.read_bytes())
    write_file(path, _filled[0])


def write_file(path, content):
    for each in path.parent.glob("state.db*"):
        each.unlink()
    path.write_bytes(content)
    path.chmod(0o600)


async def check_all(store):
    while await store._run(store._database.check_step):
        pass


async def found_later(path):
    """Open a file that was closed in order, and check it; damage must be found."""
    problems = []
    async with opened(path, lambda: problems.append(1)) as store:
        if not problems:
            with pytest.raises(HistoryLostError):
                await check_all(store)
        assert problems == [1]
        assert await loaded(store) == NOTHING
        await store.commit(T, CHANGE)
        await check_all(store)
        assert problems == [1]
    assert (await reloaded(path)).open == {"open": JOBS["open"]}
    assert len(list(path.parent.glob("state.db.damaged-*"))) == 1


def change_file(path, statement, *parameters):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement, parameters).rowcount


@pytest.mark.parametrize("end", ["killed", "stopped"])
@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("job", "scope", 2),
        ("job", "id", "job-x"),
        ("job", "job_group", 2),
        ("job", "created", NOW - 1),
        ("job", "created", None),
        ("job", "ended", NOW + 1),
        ("job", "ended", None),
        ("job", "digest", 0),
        ("job_group", "id", 7),
        ("job_group", "scope", 2),
        ("job_group", "pool", "pool-2"),
        ("job_group", "flavor_type", "GPU"),
        ("job_group", "user", "wang"),
        ("job_group", "phase", "Abnormal"),
        ("job_group", "number", 1024),
        ("hour", "scope", 2),
        ("hour", "hour", 0),
        ("hour", "number", 0),
        ("hour", "number", 1024),
        ("hour", "checksum", 0),
        ("pool", "pool", "pool-2"),
        ("pool", "created", NOW + 1),
        ("pool", "pool_name", "vision"),
        ("series", "scope", 2),
        ("series", "family", FINISHED.metric.name),
        ("series", "released", 0),
        ("series", "released", 1),
        ("scope", "id", 3),
        ("scope", "region", "eu-west-101"),
        ("scope", "project", "q"),
        ("scope", "name", "u"),
        ("scope", "endpoint", "https://two"),
        ("scope", "workspace", "2"),
        ("scope", "newest", NOW + 1),
        ("scope", "newest", None),
        ("scope", "unified", 1),
        ("scope", "incomplete", 1),
        ("scope", "verification", b"page 4"),
        ("activity", "scope", 2),
        ("activity", "at", NOW + 1),
        (
            "generation",
            "value",
            "exporter state format 00003 commit 000000000000007 check 00000000 stopped",
        ),
    ],
)
async def test_a_value_that_was_not_written_by_us_is_damage(
    path, caplog, *, end, table, column, value
):
    """The job would be new when it is seen next, and there twice; the counter would be 0 again."""
    await filled(path)
    if end == "killed":
        as_after_a_kill(path)
    first = "hour = (SELECT max(hour) FROM hour)" if table == "hour" else "rowid = 1"
    change_file(path, f"UPDATE {table} SET {column} = ? WHERE {first}", value)

    if end == "killed":
        assert await moved_aside(path, caplog) == {"state.db", ASIDE}
    else:
        await found_later(path)
    assert "is damaged (" in caplog.text


@pytest.mark.parametrize("end", ["killed", "stopped"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE job SET known = x'c1' WHERE id = 'job-7'",
        "UPDATE job SET known = substr(known, 1, 20) WHERE id = 'job-7'",
        "UPDATE job SET known = 'text' WHERE id = 'job-7'",
        "UPDATE job SET known = CAST(replace(known, 'train', 'drain') AS BLOB) WHERE id = 'job-7'",
        "UPDATE job SET known = (SELECT known FROM job WHERE id = 'job-8') WHERE id = 'job-7'",
        "UPDATE job SET scope = 9, known = x'90' WHERE id = 'job-7'",
        "UPDATE job SET id = CAST(x'ff' AS TEXT) WHERE id = 'job-7'",
        "DELETE FROM job WHERE id = 'job-7'",
        "DELETE FROM job",
        "DELETE FROM job_group",
        "DELETE FROM hour",
        "UPDATE scope SET newest = 'yesterday'",
        "DELETE FROM scope",
        "DELETE FROM generation",
        f"INSERT INTO series VALUES (1, '{CREATED.metric.name}', x'93', x'91', 0)",
        "DROP TABLE scope",
        "DROP INDEX job_by_created",
        "ALTER TABLE job RENAME COLUMN known TO forgotten",
    ],
)
async def test_rows_that_are_wrong_or_missing_are_damage(path, caplog, end, statement):
    await filled(path)
    if end == "killed":
        as_after_a_kill(path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)

    if end == "killed":
        assert await moved_aside(path, caplog) == {"state.db", ASIDE}
    else:
        await found_later(path)
    assert "is damaged (" in caplog.text


# --- Indexes --------------------------------------------------------------------------------------

INDEXES = ("job_by_id", "job_by_group", "job_by_created")


def behind_the_back_of(indexes, path, *statements):
    """Change the table, but not these indexes."""
    names = ",".join(f"'{each}'" for each in indexes)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        query = f"SELECT * FROM sqlite_master WHERE name IN ({names})"
        rows = connection.execute(query).fetchall()
        connection.execute(f"DELETE FROM sqlite_master WHERE name IN ({names})")
        connection.execute(f"PRAGMA schema_version = {reread(connection)}")
        for statement in statements:
            assert connection.execute(statement).rowcount == 1
        connection.executemany("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", rows)


def reread(connection):
    """A schema version that makes SQLite read the schema again."""
    return connection.execute("PRAGMA schema_version").fetchone()[0] + 1


@pytest.mark.parametrize("end", ["killed", "stopped"])
@pytest.mark.parametrize(
    "indexes", [*((each,) for each in INDEXES), INDEXES], ids=[*INDEXES, "all of them"]
)
@pytest.mark.parametrize(
    "statement",
    ["UPDATE job SET rowid = 99 WHERE rowid = 5", "DELETE FROM job WHERE rowid = 5"],
    ids=["other rows", "missing rows"],
)
async def test_an_index_that_disagrees_is_damage(path, caplog, *, end, indexes, statement):
    await filled(path)
    if end == "killed":
        as_after_a_kill(path)
    behind_the_back_of(indexes, path, statement)

    if end == "killed":
        assert await moved_aside(path, caplog) == {"state.db", ASIDE}
    else:
        await found_later(path)


@pytest.mark.parametrize("index", ["job_by_group", "job_by_created"])
async def test_an_index_that_has_a_job_twice_is_damage(path, index):
    await filled(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        row = connection.execute("SELECT * FROM job WHERE rowid = 5").fetchone()
    behind_the_back_of([index], path, "DELETE FROM job WHERE rowid = 5")
    change_file(path, "INSERT INTO job VALUES (?, ?, ?, ?, ?, ?, ?)", *row)

    await found_later(path)


async def test_an_open_job_that_an_index_does_not_find_is_noticed_at_the_start(path):
    """Nothing would ask what became of it."""
    await filled(path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        row = connection.execute("SELECT * FROM job WHERE id = 'open'").fetchone()
        connection.execute("DELETE FROM job WHERE id = 'open'")
    values = ", ".join(
        f"x'{each.hex()}'" if isinstance(each, bytes) else repr(each) for each in row
    )
    values = values.replace("None", "NULL")
    behind_the_back_of(["job_by_group"], path, f"INSERT INTO job VALUES ({values})")
    problems = []
    async with opened(path, lambda: problems.append(1)) as store:
        assert await loaded(store) == NOTHING
    assert problems == [1]


@pytest.mark.parametrize("table", ["scope", "series", "activity", "pool", "job_group"])
async def test_an_index_of_what_a_start_reads_is_checked_at_the_start(path, table, caplog):
    await filled(path)
    start = pages_of(path, f"sqlite_autoindex_{table}_1") * 4096 - 12  # in its first row
    whole = path.read_bytes()
    write_file(path, whole[:start] + bytes([whole[start] ^ 1]) + whole[start + 1 :])

    assert await moved_aside(path, caplog) == {"state.db", ASIDE}


def pages_of(path, index):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        return connection.execute(query, (index,)).fetchone()[0]


@pytest.mark.slow
@pytest.mark.parametrize("index", INDEXES)
async def test_a_known_job_is_never_taken_for_unknown(path, index):
    """Whatever bit of an index flips."""
    await filled(path)
    whole = path.read_bytes()
    start = (pages_of(path, index) - 1) * 4096
    used = [start + each for each in range(4096) if whole[start + each]]
    created = {key: job.job.created for key, job in JOBS.items()}
    chance = random.Random(index)
    raised = 0
    for position in chance.sample(used, 40):
        flipped = bytes([whole[position] ^ 1 << chance.randrange(8)])
        write_file(path, whole[:position] + flipped + whole[position + 1 :])
        async with opened(path, lambda: None) as store:
            try:
                assert await store.jobs(T, list(JOBS), created) == JOBS
                await store.commit(T, StateChange(JOBS))
                assert await store.count(T, "0") == (len(JOBS), 1)
            except StateError:
                raised += 1
    assert (raised > 5) == (index == "job_by_id")  # the only one that answers here


@pytest.mark.parametrize("moment", ["asked for", "committed"])
async def test_a_job_that_an_index_does_not_find_fails_the_poll(path, caplog, moment):
    await filled(path)
    behind_the_back_of(["job_by_id"], path, "UPDATE job SET rowid = 99 WHERE id = 'job-7'")
    async with opened(path, lambda: None) as store:
        asked = store.jobs(T, ["job-7"], {"job-7": JOBS["job-7"].job.created})
        committed = store.commit(T, StateChange({"job-7": JOBS["job-7"]}))
        with pytest.raises(HistoryLostError, match="is damaged"):
            await (asked if moment == "asked for" else committed)
        (committed if moment == "asked for" else asked).close()


async def test_a_job_without_create_time_that_an_index_does_not_find(path):
    await filled(path)
    whole = path.read_bytes()
    start = (pages_of(path, "job_by_id") - 1) * 4096
    page = whole[start : start + 4096]
    assert page.count(b"timeless") == 1
    changed = page.replace(b"timeless", b"timelesS")
    write_file(path, whole[:start] + changed + whole[start + 4096 :])
    async with opened(path, lambda: None) as store:
        with pytest.raises(HistoryLostError, match=r"job 'timeless': it is missing in an index"):
            await store.jobs(T, ["timeless"], {"timeless": None})


# --- When damage is met ---------------------------------------------------------------------------

READS = {
    "jobs": lambda store: store.jobs(T, ["job-7"]),
    "unchanged": lambda store: store.unchanged(T, {"job-7": JOBS["job-7"].job}),
    "jobs_between": lambda store: store.jobs_between(T, "0", NEVER, NOW),
    "omitted": lambda store: store.omitted(T, "0", lambda job_id: job_id != "job-7"),
    "commit": lambda store: store.commit(T, StateChange({"job-7": JOBS["job-7"]})),
    "deletion": lambda store: store.commit(T, StateChange(deleted=["job-7"])),
}


@pytest.mark.parametrize("read", READS)
async def test_damage_that_is_met_fails_the_poll_and_memory_is_saved_again(path, read, caplog):
    await filled(path)
    change_file(path, "UPDATE job SET known = substr(known, 1, 20) WHERE id = 'job-7'")
    problems = []
    async with opened(path, lambda: problems.append(1)) as store:
        before = await store.load(T, ["0"], recent_since=NOW)
        assert before.open == {"open": JOBS["open"]}

        with pytest.raises(HistoryLostError, match=r"is damaged \(job 'job-7'"):
            await READS[read](store)
        for _ in range(2):
            with pytest.raises(HistoryLostError, match="written anew"):
                await store.count(T, "0")
        with pytest.raises(HistoryLostError, match="written anew"):
            await store.commit(T, StateChange({"new": known("new")}))

        after = await store.load(T, ["0"], recent_since=NEVER)
        assert problems == [1]
        assert after.open == before.open
        assert after.recent.keys() == {job.job.id for job in before.failures}
        assert (after.ledger, after.released) == (before.ledger, before.released)
        assert after.newest_created == before.newest_created
        assert after.pool_names == before.pool_names
        assert after.incomplete == {"0"}
        assert after.verification == {}
        await store.commit(T, StateChange({"new": known("new")}, newest_created={"0": NOW + 1}))
        assert (await loaded(store)).incomplete == frozenset()
    assert "written anew from memory: all counters continue" in caplog.text
    assert [each.name.partition("-")[0] for each in path.parent.glob("*aged*")] == [
        "state.db.damaged"
    ]


async def test_damage_in_what_a_start_reads_is_a_new_baseline(path, caplog):
    await filled(path)
    change_file(path, "UPDATE job SET known = substr(known, 1, 20) WHERE id = 'open'")
    problems = []
    async with opened(path, lambda: problems.append(1)) as store:
        assert await loaded(store) == NOTHING
        await store.commit(T, StateChange({"a": known()}))
    assert problems == [1]
    assert "all counters start from a new baseline" in caplog.text
    assert await reloaded(path) == expected({"a": known()})


async def test_a_temporary_store_that_is_damaged_is_filled_again(caplog):
    problems = []
    async with opened(None, lambda: problems.append(1)) as store:
        whole = CHANGE._replace(jobs={"open": JOBS["open"]})
        await store.commit(T, CHANGE, kept := lambda: whole)
        damage = "UPDATE job SET known = x'90' WHERE id = 'job-7' RETURNING 1"
        await store._run(lambda: store._database._connection.execute(damage).fetchone())

        with pytest.raises(HistoryLostError, match="temporary database is damaged"):
            await store.jobs(T, ["job-7"])

        after = await loaded(store)
        assert after.open == {"open": JOBS["open"]}
        assert after.incomplete == {"0"}
        assert after.ledger == CHANGE.series
    del kept
    assert problems == [1]


# --- In the background ----------------------------------------------------------------------------


class Pauses:
    """Notes the pauses of the check, and ends them at once when it may go on."""

    def __init__(self):
        self.seconds = []
        self.may_go_on = asyncio.Event()

    async def sleep(self, seconds):
        self.seconds.append(seconds)
        await self.may_go_on.wait()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def checking(path, problem=lambda: pytest.fail("a problem was counted")):
    pauses = Pauses()
    clocks = Clocks(wall=lambda: NOW, sleep=pauses.sleep)
    store = await Store.open(path, problem=problem, clocks=clocks)
    try:
        yield store, pauses
    finally:
        await store.close()


async def test_a_file_that_was_closed_in_order_is_checked_later_in_small_steps(path):
    await filled(path)
    async with checking(path) as (store_, pauses):
        await loaded(store_)
        assert pauses.seconds == [store.CHECK_AFTER_SECONDS]
        pauses.may_go_on.set()
        await store_._checking
        assert len(pauses.seconds) > 8
        assert set(pauses.seconds[1:]) == {store.CHECK_PAUSE_SECONDS}


async def test_what_is_checked_later_is_moved_aside_then(path):
    await filled(path)
    change_file(path, "DELETE FROM job WHERE id = 'job-7'")
    problems = []
    async with checking(path, lambda: problems.append(1)) as (store_, pauses):
        before = await loaded(store_)
        assert problems == []
        pauses.may_go_on.set()
        await store_._checking
        assert problems == [1]
        with pytest.raises(HistoryLostError):
            await store_.commit(T, StateChange({"a": known()}))
        after = await loaded(store_)
        assert after.ledger == before.ledger
        assert after.open == before.open
    assert path.with_name(ASIDE).exists()


async def test_a_check_that_cannot_read_begins_again_later(path, monkeypatch, caplog):
    await filled(path)
    change_file(path, "DELETE FROM job WHERE id = 'job-7'")
    errors = [
        sqlite3.OperationalError("disk I/O error"),
        sqlite3.OperationalError("disk I/O error"),
    ]
    problems = []
    next_group = check.counts.next_group

    def fail(*arguments):
        if errors:
            raise errors.pop()
        return next_group(*arguments)

    monkeypatch.setattr("exporter.storage.counts.next_group", fail)
    async with checking(path, lambda: problems.append(1)) as (store_, pauses):
        pauses.may_go_on.set()
        await store_._checking
        assert pauses.seconds.count(store.CHECK_AFTER_SECONDS) == 1 + 2 + 1  # the last: for damage
    assert len(problems) == 3
    assert f"rows not checked: state file {path}: disk I/O error" in caplog.text
    assert path.with_name(ASIDE).exists()


async def test_a_close_ends_the_check(path):
    await filled(path)
    async with checking(path) as (store_, _):
        await asyncio.sleep(0)
    await asyncio.gather(store_._checking, return_exceptions=True)
    assert store_._checking.cancelled()


@pytest.mark.parametrize("seed", range(5))
async def test_commits_between_the_steps_of_the_check_are_no_damage(path, seed):
    chance = random.Random(seed)
    async with opened(path) as store_:
        await store_.commit(T, CHANGE)
    async with opened(path) as store_:
        more = True
        while more:
            more = await store_._run(store_._database.check_step)
            changed = {
                key: known(
                    key,
                    phase=chance.choice(["Failed", "Completed"]),
                    created=chance.choice([NOW, NOW - 9e4]),
                )
                for key in chance.sample(list(JOBS), 3)
            }
            gone = chance.sample(list(JOBS.keys() - changed.keys()), 1)
            if chance.random() < 0.7:
                await store_.commit(T, StateChange(changed, gone))
    await reloaded(path)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["killed", "stopped"])
async def test_damage_in_the_middle_is_found_or_harmless(path, end):
    """Nothing that is wrong is ever taken for right: a row is as it was, or all are set aside."""
    many = {str(number): known(str(number), created=NOW - number) for number in range(80)}
    async with opened(path) as store_:
        await store_.commit(T, StateChange(many, (), {"0": NOW}))
    if end == "killed":
        as_after_a_kill(path)
    whole = path.read_bytes()
    chance = random.Random(3)
    found = 0
    for _ in range(60):
        start = chance.randrange(len(whole) - 8)
        write_file(path, whole[:start] + chance.randbytes(8) + whole[start + 8 :])
        problems = []
        async with opened(path, lambda: problems.append(1)) as store_:  # noqa: B023
            saved = await loaded(store_)
            assert saved.recent == ({} if problems else many)
            with contextlib.suppress(HistoryLostError):
                await check_all(store_)
            with contextlib.suppress(HistoryLostError):
                await store_.commit(T, StateChange(many))
            await loaded(store_)
            await store_.commit(T, StateChange(many))
        assert (await reloaded(path)).finished == expected(many).finished  # none twice
        found += len(problems)
    assert found > 12
