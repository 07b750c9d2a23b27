"""What others do to the state file: delete, replace, restore, open to all, plant, flip bits."""

import asyncio
import contextlib
import logging
import os
import shutil
import sqlite3
import sys
from collections import Counter

import pytest
from storage import test_sqlite
from storage.test_sqlite import ASIDE, as_after_a_kill, filled, moved_aside
from storage.test_store import (
    NEVER,
    NOTHING,
    NOW,
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
from exporter.errors import ConfigError, HistoryLostError, StartError, StateError
from exporter.jobs.tracked import Base
from exporter.storage.store import StateChange, Store

KEY, SERIES = created()
CHANGE = StateChange(
    {"a": known(), "b": known("b")}, (), {"0": NOW}, {KEY: SERIES}, [KEY], {Base(*ZERO): NOW}
)
SAVED = expected(CHANGE.jobs, CHANGE.newest_created, CHANGE.series, [KEY], last_active=CHANGE[5])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


# --- Deleted or replaced while it is open ---------------------------------------------------------


def deleted(path):
    path.unlink()


def deleted_with_companions(path):
    for each in path.parent.glob("state.db*"):
        each.unlink()


def replaced_by_garbage(path):
    path.with_name("garbage").write_text("garbage")
    path.with_name("garbage").replace(path)


def replaced_by_another_state(path):
    """Like a backup that is restored."""
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


def replaced_by_a_directory(path):
    path.unlink()
    path.mkdir()


def overwritten(path):
    path.write_bytes(b"x" * 20_000)


def truncated(path):
    path.write_bytes(b"")


def overwritten_by_an_older_copy(path):
    path.write_bytes(path.with_name("older").read_bytes())


LOSSES = {
    deleted: "deleted",
    deleted_with_companions: "deleted",
    replaced_by_garbage: "replaced",
    replaced_by_another_state: "replaced",
    replaced_by_a_directory: "replaced",
    overwritten: "overwritten",
    truncated: "overwritten",
    overwritten_by_an_older_copy: "overwritten",
}


COPIED = [loss for loss, said in LOSSES.items() if said != "overwritten"]
OVERWRITTEN = [loss for loss, said in LOSSES.items() if said == "overwritten"]


async def fill_and_lose(store, path, loss, whole):
    shutil.copy(path, path.with_name("older"))
    await store.commit(OTHER, StateChange({"x": known("x")}, (), {"0": NOW}))
    await store.commit(T, CHANGE, whole)
    await loaded(store, workspaces=[])  # the checkpoint is done
    loss(path)


def check_report(path, loss, caplog):
    (record,) = [each for each in caplog.records if each.levelno > logging.WARNING]
    text = record.getMessage()
    assert text.startswith(f"state file {path} was {LOSSES[loss]} while in use: written anew")
    assert ("moved to" in text) == (LOSSES[loss] != "deleted")
    left = {each.name.partition(".replaced-")[0] for each in path.parent.iterdir()}
    assert left == {"state.db", "older"}


@pytest.mark.parametrize("loss", COPIED, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("commits", [True, False], ids=["commit", "clean stop"])
async def test_a_lost_file_is_written_anew(path, loss, commits, caplog):
    problems = []
    async with opened(path, lambda: problems.append(1)) as store:
        await fill_and_lose(store, path, loss, lambda: pytest.fail("not needed"))
        if commits:
            await store.commit(T, StateChange({"c": known("c")}))
            await store.commit(T, StateChange({"d": known("d")}))
            assert path.stat().st_mode & 0o777 == 0o600

    assert problems == [1]
    check_report(path, loss, caplog)
    more = {"c": known("c"), "d": known("d")} if commits else {}
    assert await reloaded(path) == expected(
        {**CHANGE.jobs, **more}, {"0": NOW}, CHANGE.series, [KEY], last_active=CHANGE.last_active
    )
    assert (await reloaded(path, OTHER)).recent == {"x": known("x")}


@pytest.mark.parametrize("loss", OVERWRITTEN, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("commits", [True, False], ids=["commit", "clean stop"])
async def test_what_memory_has_is_written_anew_and_the_history_is_lost(path, loss, commits, caplog):
    """There is nothing to copy; memory has some of the jobs."""
    problems = []

    def whole():
        return CHANGE._replace(jobs={"a": known()}, verification={"0": b"page 3"})

    async with opened(path, lambda: problems.append(1)) as store:
        await fill_and_lose(store, path, loss, whole)
        if commits:
            for _ in range(2):
                with pytest.raises(HistoryLostError, match=r"state\.db was written anew"):
                    await store.commit(T, StateChange({"c": known("c")}), whole)
            with pytest.raises(HistoryLostError, match=r"state\.db was written anew"):
                await store.jobs(T, ["b"])
            assert (await loaded(store)).incomplete == {"0"}
            await store.commit(T, StateChange({"d": known("d")}))

    assert problems == [1]
    check_report(path, loss, caplog)
    assert await reloaded(path) == expected(
        {"a": known(), **({"d": known("d")} if commits else {})},
        {"0": NOW},
        CHANGE.series,
        [KEY],
        last_active=CHANGE.last_active,
        incomplete=frozenset({"0"}),
    )
    assert await reloaded(path, OTHER) == NOTHING


async def test_an_untouched_file_is_never_written_anew(path, caplog):
    async with opened(path) as store:
        for number in range(20):
            await store.commit(T, StateChange({"a": known(duration=float(number))}))
            if number % 3 == 0:
                await loaded(store)
        path.chmod(0o640)
        await store.commit(T, CHANGE)
    assert [each for each in caplog.records if each.levelno > logging.INFO] == []


async def test_each_target_learns_that_the_history_is_lost(path):
    async with opened(path, lambda: None) as store:
        for target in (T, OTHER):
            await store.commit(target, CHANGE)
            await loaded(store, target)
        overwritten(path)
        with pytest.raises(HistoryLostError):
            await store.commit(T, StateChange())
        await loaded(store)
        await store.commit(T, StateChange())
        renamed = OTHER._replace(name="renamed")
        await store.rename(OTHER, renamed, ["0"])
        for target in (OTHER, renamed):
            with pytest.raises(HistoryLostError):
                await store.commit(target, StateChange())
        assert await loaded(store, renamed) == SAVED._replace(incomplete=frozenset({"0"}))
        await store.commit(renamed, StateChange())


async def test_what_was_only_loaded_is_not_lost_when_the_file_is_overwritten(path):
    async with opened(path) as store:
        await store.commit(T, CHANGE)
    async with opened(path, lambda: None) as store:
        assert await loaded(store) == SAVED
        overwritten(path)
        with pytest.raises(HistoryLostError):
            await store.commit(T, StateChange({"c": known("c")}))
    assert await reloaded(path) == SAVED._replace(incomplete=frozenset({"0"}))


async def test_a_target_that_is_gone_from_memory_saves_its_next_state(path):
    """Its predecessor committed, and was replaced by a reload."""
    async with opened(path, lambda: None) as store:
        await store.commit(T, CHANGE, lambda: pytest.fail("it is gone"))
        await loaded(store, OTHER)  # the checkpoint is done
        overwritten(path)
        whole = CHANGE._replace(jobs={"c": known("c")})
        with pytest.raises(HistoryLostError):
            await store.commit(T, StateChange({"c": known("c")}), lambda: whole)
        assert (await loaded(store)).recent == {"c": known("c")}


async def test_a_lost_file_that_cannot_be_written_anew_yet(path, monkeypatch):
    problems = []
    async with opened(path, lambda: problems.append(1)) as store:
        await store.commit(T, CHANGE)
        deleted(path)
        with monkeypatch.context() as patch:
            patch.setattr("os.open", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
            for _ in range(2):
                with pytest.raises(StateError, match=r"state file .*state\.db: No space left"):
                    await store.commit(T, StateChange({"c": known("c")}))
        await store.commit(T, StateChange({"c": known("c")}))
    assert len(problems) == 3
    assert (await reloaded(path)).recent.keys() == {"a", "b", "c"}


@pytest.mark.integration
async def test_a_lost_file_in_whose_place_is_the_file_of_another_process(path):
    """A second exporter was started after the file was deleted."""
    problems = []
    async with opened(path, lambda: problems.append(1)) as store:
        await store.commit(T, CHANGE)
        deleted_with_companions(path)
        other = await asyncio.create_subprocess_exec(
            sys.executable,
            test_sqlite.__file__,
            str(path),
            "3",
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            assert await other.stdout.readline() == b"open\n"
            with pytest.raises(StateError, match="in use by another process"):
                await store.commit(T, StateChange({"c": known("c")}))
            assert not list(path.parent.glob("*replaced*"))
        finally:
            other.kill()
            await other.wait()
        await store.commit(T, StateChange({"c": known("c")}))
    assert (await reloaded(path)).recent.keys() == {"a", "b", "c"}


# --- A file and a WAL that do not match -----------------------------------------------------------


async def killed(path, folder, *numbers, checkpoint=True):
    """Copies of file and WAL after some commits, as a kill would leave them."""
    copies = {}
    async with opened(path) as store:
        if not checkpoint:
            store._database.checkpoint = lambda: None
        for number in range(max(numbers) + 1):
            key, series = created(value=float(number))
            jobs = {str(each): known(str(each), duration=float(number)) for each in range(60)}
            await store.commit(T, StateChange(jobs, (), {"0": NOW + number}, {key: series}))
            await loaded(store, workspaces=[])
            if number in numbers:
                copies[number] = folder / str(number)
                copies[number].mkdir()
                for each in path.parent.glob("state.db*"):
                    shutil.copy(each, copies[number])
    return copies


@pytest.mark.parametrize("checkpoint", [True, False])
@pytest.mark.parametrize(("file", "wal"), [(2, 9), (9, 2), (0, 1), (1, 0), (3, 4)])
async def test_a_file_beside_the_log_of_another_time_is_noticed(
    path, *, file, wal, checkpoint, caplog
):
    """The log fits if nothing was checkpointed between, or only what it begins after."""
    live = path.parent / "live/state.db"
    live.parent.mkdir()
    copies = await killed(live, path.parent, file, wal, checkpoint=checkpoint)
    shutil.copy(copies[file] / "state.db", path)
    shutil.copy(copies[wal] / "state.db-wal", path.with_name("state.db-wal"))
    problems = []

    async with opened(path, lambda: problems.append(1)) as store:
        saved = await loaded(store)

    if problems:
        assert saved == NOTHING
        assert "does not match state.db-wal beside it (the file is at commit" in caplog.text
        (aside,) = path.parent.glob("*damaged*Z")
        assert aside.read_bytes() == (copies[file] / "state.db").read_bytes()
        aside = aside.with_name(f"{aside.name}-wal")
        assert aside.read_bytes() == (copies[wal] / "state.db-wal").read_bytes()
    else:
        assert {each.job.duration for each in saved.recent.values()} == {float(wal)}
        assert saved.newest_created == {"0": NOW + wal}
    assert bool(problems) == (checkpoint and wal - file != 1)


@pytest.mark.parametrize("number", [0, 1, 5])
@pytest.mark.parametrize("checkpoint", [True, False])
async def test_what_a_kill_leaves_matches(path, tmp_path, number, checkpoint, caplog):
    (tmp_path / "live").mkdir()
    copies = await killed(tmp_path / "live/state.db", tmp_path, number, checkpoint=checkpoint)

    saved = await reloaded(copies[number] / "state.db")

    assert saved.newest_created == {"0": NOW + number}
    assert {each.job.duration for each in saved.recent.values()} == {float(number)}


async def test_a_log_of_a_file_without_numbers(path, tmp_path):
    """Of format 1, or of another application: it would be replayed over our file."""
    await filled(path)
    other = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(other)) as connection:
        connection.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x);"
            "INSERT INTO t VALUES (1);"
        )
        shutil.copy(f"{other}-wal", f"{path}-wal")

    problems = []
    async with opened(path, lambda: problems.append(1)) as store:
        assert await loaded(store) == NOTHING
    assert problems == [1]


# --- Foreign objects, and access of others --------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER forget AFTER INSERT ON job BEGIN DELETE FROM job; END",
        "CREATE VIEW jobs AS SELECT id FROM job",
        "CREATE TABLE notes (text)",
        "CREATE INDEX fast ON job (known)",
        "CREATE TEMP TABLE harmless (x)",
        "ANALYZE",
        "ALTER TABLE job ADD COLUMN note",
    ],
)
async def test_foreign_objects(path, statement, caplog):
    """A view or trigger could change what is read or saved."""
    await filled(path)
    before = await reloaded(path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)

    if "TEMP" in statement or statement == "ANALYZE":
        assert await reloaded(path) == before
        return
    assert await moved_aside(path, caplog) == {"state.db", ASIDE}
    kind, name = statement.lower().split()[1:3]
    if statement.startswith("CREATE"):
        assert f"contains objects of another application ({kind} '{name}')" in caplog.text
    else:
        assert "is damaged (table 'job' is missing or was changed)" in caplog.text


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (0o600, None),
        (0o640, None),
        (0o660, None),
        (0o644, "read"),
        (0o666, "change"),
        (0o602, "change"),
    ],
)
async def test_access_of_others_is_a_warning(path, mode, said, caplog):
    """Of the group it is not: Kubernetes grants it with fsGroup."""
    await filled(path)
    path.chmod(mode)
    caplog.clear()

    assert len((await reloaded(path)).recent) == 40

    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    expected = (
        f"every user of this machine can {said} state file {path} (mode {mode:o}): restrict its "
        "mode, for example with chmod o-rwx"
    )
    assert warnings == ([expected] if said else [])


# --- One bit of the header ------------------------------------------------------------------------

REFUSED = {2**bit for bit in (2, 3, 4)}
"""Bits of ``user_version``, which is 3, that make it one of a few newer formats."""


def what_becomes(path, whole, before, position, bit):
    """Open the file with a flipped bit: as before, moved aside, or refused."""
    flipped = bytes([whole[position] ^ 1 << bit])
    path.write_bytes(whole[:position] + flipped + whole[position + 1 :])
    path.chmod(0o600)
    problems = []
    store = Store(path, lambda: problems.append(1), Clocks(wall=lambda: NOW))
    store._thread.shutdown()
    try:
        store._database.open()
    except (ConfigError, StartError) as error:
        return f"refused: {error}"
    saved = store._load(T, frozenset("0"), NEVER)
    store._database.close()
    for aside in path.parent.glob("*damaged*"):
        aside.unlink()
    assert saved == (NOTHING if problems else before)
    return "moved aside" if problems else "as before"


def expected_of_header(position, bit):
    refused = position in range(60, 64) and 1 << 8 * (63 - position) + bit in REFUSED
    return "refused" if refused else "as before or moved aside"


async def check_bits(path, bits, end):
    await filled(path, jobs=3)
    if end == "killed":
        as_after_a_kill(path)
    whole = path.read_bytes()
    before = await reloaded(path)
    found = Counter()
    for position, bit in bits:
        outcome = what_becomes(path, whole, before, position, bit)
        found[position // 4 * 4, outcome] += 1
        if expected_of_header(position, bit) == "refused":
            assert "was written by a newer version" in outcome
        else:
            assert outcome in ("as before", "moved aside"), (position, bit, outcome)
    return found


@pytest.mark.parametrize("position", [0, 16, 18, 19, 20, 44, 47, 56, 59, 60, 63, 68])
async def test_a_bit_of_the_header(path, position):
    """What SQLite refuses as read-only or unsupported was an endless loop of restarts."""
    await check_bits(path, [(position, bit) for bit in range(8)], "stopped")


@pytest.mark.slow
@pytest.mark.parametrize("end", ["killed", "stopped"])
async def test_every_bit_of_the_header(path, end):
    bits = [(position, bit) for position in range(100) for bit in range(8)]
    found = await check_bits(path, bits, end)
    outcomes = Counter()
    for (_, outcome), number in found.items():
        outcomes[outcome.partition(":")[0]] += number
    assert outcomes.total() == 800
    assert outcomes["refused"] == 3
    assert outcomes["moved aside"] > 300
