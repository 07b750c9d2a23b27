"""What becomes of a state file that is not as it should be."""

import asyncio
import contextlib
import errno
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading

import pytest
from storage.test_store import (
    NOTHING,
    NOW,
    T,
    known,
    loaded,
    opened,
    reloaded,
)

from exporter.clock import Clocks
from exporter.errors import ConfigError, StartError, StateError
from exporter.storage import generation
from exporter.storage import sqlite as database
from exporter.storage.damage import DamagedFileError
from exporter.storage.layout import LAYOUT
from exporter.storage.sqlite import Layout, open_file
from exporter.storage.store import StateChange, Store

ASIDE = "state.db.damaged-20231114T221320Z"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("exporter.storage.sqlite.LOCK_SECONDS", 0.01)


async def filled(path, jobs=40):
    async with opened(path) as store:
        names = [str(number) for number in range(jobs)]
        await store.commit(T, StateChange({name: known(name) for name in names}, (), {"0": NOW}))
    return path.read_bytes()


def as_after_a_kill(path):
    """Mark a file as not closed in order: all of it is checked when it is opened."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        generation.advance(connection)


async def moved_aside(path, caplog):
    """Open; the names of the files there now; it must have been said and counted once."""
    caplog.clear()
    problems = []
    store = await Store.open(
        path, problem=lambda: problems.append(1), clocks=Clocks(wall=lambda: NOW)
    )
    try:
        assert await loaded(store) == NOTHING
        await store.commit(T, StateChange({"a": known()}))
    finally:
        await store.close()
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    text = record.getMessage()
    assert f"state file {path} " in text
    assert f": moved to {path.with_name(ASIDE)}" in text
    assert text.endswith("all counters start from a new baseline")
    assert "\n" not in text
    assert problems == [1]
    assert (await reloaded(path)).recent == {"a": known()}
    return {each.name for each in path.parent.iterdir()}


def refusal(path, error):
    """The only line, after the name of the file."""
    problems = []
    with pytest.raises(error) as caught:
        asyncio.run(Store.open(path, problem=lambda: problems.append(1)))
    assert problems == []
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


# --- Moved aside ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"not a database\n" * 5, id="a short text"),
        pytest.param(random.Random(1).randbytes(50_000), id="noise"),
        pytest.param(b"\0" * 8192, id="zeros"),
        pytest.param(b"SQLite format 3\0" + b"\1" * 5000, id="only the first bytes are right"),
    ],
)
async def test_garbage_is_moved_aside(path, content, caplog):
    path.write_bytes(content)

    assert await moved_aside(path, caplog) == {"state.db", ASIDE}
    assert path.with_name(ASIDE).read_bytes() == content


async def test_a_truncated_file_is_moved_aside(path, caplog):
    whole = await filled(path)
    lengths = {2, 15, 99, 100, 511, 512, 4095, *range(4096, len(whole), 4096), len(whole) - 1}
    for length in sorted(lengths):
        path.write_bytes(whole[:length])

        assert await moved_aside(path, caplog) == {"state.db", ASIDE}, length
        assert path.with_name(ASIDE).read_bytes() == whole[:length]
        path.with_name(ASIDE).unlink()


async def test_a_file_whose_last_page_is_cut_is_moved_aside(path, caplog):
    """There is nothing in that page, but who cuts files?"""
    whole = await filled(path, jobs=0)
    path.write_bytes(whole[:-1])

    assert await moved_aside(path, caplog) == {"state.db", ASIDE}


async def test_companions_go_with_the_file(path, caplog):
    path.write_bytes(b"garbage " * 1000)
    for suffix in ("-wal", "-shm", "-journal"):
        path.with_name(f"state.db{suffix}").write_text(suffix)

    names = await moved_aside(path, caplog)

    assert names >= {"state.db", ASIDE, f"{ASIDE}-shm"}
    assert {name for name in names if name.startswith("state.db-")} == set()


async def test_nothing_moved_aside_before_is_overwritten(path, caplog):
    path.with_name(ASIDE).write_text("earlier")
    path.with_name(f"{ASIDE}-2-wal").write_text("earlier too")
    path.write_text("garbage")
    third = f"{ASIDE}-3"

    assert await moved_aside(path, caplog) == {"state.db", ASIDE, f"{ASIDE}-2-wal", third}
    assert path.with_name(ASIDE).read_text() == "earlier"
    assert path.with_name(third).read_text() == "garbage"


async def test_what_cannot_be_moved_aside_is_refused(path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    path.write_text("garbage")
    monkeypatch.setattr("os.rename", refuse)

    with pytest.raises(ConfigError, match=r"is damaged .* cannot be moved aside: Perm"):
        await Store.open(path, problem=lambda: None)
    assert path.read_text() == "garbage"


@pytest.mark.parametrize(
    "pragma", ["application_id = 0", "application_id = 1196444487", "user_version = 0"]
)
async def test_a_database_of_another_application_is_moved_aside(path, pragma, caplog):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            f"PRAGMA application_id = {LAYOUT.application_id}; PRAGMA user_version = 1;"
            f"PRAGMA {pragma}; CREATE TABLE photos (name); INSERT INTO photos VALUES ('cat');"
        )

    assert await moved_aside(path, caplog) == {"state.db", ASIDE}
    assert "belongs to another application" in caplog.text
    with contextlib.closing(sqlite3.connect(path.with_name(ASIDE))) as connection:
        assert connection.execute("SELECT * FROM photos").fetchall() == [("cat",)]


@pytest.mark.parametrize("content", [b"", b"x"], ids=["empty", "for SQLite as good as empty"])
async def test_an_empty_file_is_a_new_one(path, content, caplog):
    caplog.set_level("INFO")
    path.write_bytes(content)
    path.chmod(0o600)

    assert await reloaded(path) == NOTHING
    assert f"created state file {path}" in caplog.text
    caplog.clear()
    await filled(path)
    assert len((await reloaded(path)).recent) == 40
    assert "new" not in caplog.text


async def test_an_empty_database_of_anybody_is_a_new_one(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA user_version = 9; PRAGMA application_id = 5; VACUUM;")
    assert path.stat().st_size > 0

    await filled(path)

    assert len((await reloaded(path)).recent) == 40


# --- Refused --------------------------------------------------------------------------------------


def test_a_file_of_a_newer_version_is_not_touched(path):
    asyncio.run(filled(path))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 4")
    before = path.read_bytes()

    text = refusal(path, ConfigError)

    assert text.startswith("state.file: ")
    assert "newer version" in text
    assert "(format 4, this one reads up to 3)" in text
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["state.db"]


def test_what_can_be_no_state_file(path):
    assert "No such file or directory" in refusal(path / "missing" / "state.db", ConfigError)
    path.mkdir()
    assert refusal(path, ConfigError).endswith("not a regular file")
    fifo = path / "fifo"
    os.mkfifo(fifo)
    assert refusal(fifo, ConfigError).endswith("not a regular file")
    file = path / "file"
    file.touch()
    assert "Not a directory" in refusal(file / "state.db", ConfigError)
    assert "File name too long" in refusal(path / ("x" * 300), ConfigError)
    with contextlib.chdir(path), socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert refusal(path / "socket", ConfigError).endswith("not a regular file")


def test_a_directory_where_no_file_can_be_made():
    """Root may write everywhere but in /proc."""
    text = refusal(database.Path("/proc/self/state.db"), ConfigError)
    assert text.startswith("state.file: /proc/self/state.db: ")


@pytest.mark.parametrize("what", ["state.db", ""], ids=["file", "directory"])
def test_what_cannot_be_written(path, what, monkeypatch):
    asyncio.run(filled(path))
    before = path.read_bytes()
    closed = path.parent / what
    monkeypatch.setattr("os.access", lambda where, _: where != closed)  # root may do everything

    assert refusal(path, ConfigError).endswith(": the file and its directory must be writable")
    assert path.read_bytes() == before


def test_what_cannot_be_written_as_sqlite_finds(path, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(
        "sqlite3.connect", lambda where, **more: connect(where.replace("=rw", "=ro"), **more)
    )
    path.touch()

    text = refusal(path, ConfigError)

    assert text.startswith("state.file: ")
    assert text.endswith("readonly database (the file and its directory must be writable)")


def test_a_new_file_on_a_full_disk(path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.open", full)

    assert refusal(path, StartError).endswith("state.db: No space left on device")


@pytest.fixture
def small_disk(tmp_path):
    """A megabyte, and how to remount it."""

    def mount(*arguments):
        command = ["mount", *arguments, str(tmp_path)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if not (shutil.which("mount") and mount("-t", "tmpfs", "-o", "size=1m", "none")):
        pytest.skip("mount is not permitted here")
    yield mount
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_a_disk_that_is_read_only_at_start(path, small_disk):
    asyncio.run(filled(path))
    before = path.read_bytes()
    assert small_disk("-o", "remount,ro")

    assert "must be writable" in refusal(path, ConfigError)
    assert "Read-only file system" in refusal(path.with_name("new.db"), ConfigError)
    assert path.read_bytes() == before


async def test_a_disk_that_is_really_full(path, small_disk):
    before = await filled(path)
    problems = []
    async with opened(path, lambda: problems.append(1)) as store:
        path.with_name("filler").write_bytes(b"x" * (2**20 - len(before) - 2**16))
        many = {str(number): known(str(number)) for number in range(1000)}
        for _ in range(2):
            with pytest.raises(StateError, match="free space"):
                await store.commit(T, StateChange(many))
        assert len((await loaded(store)).recent) == 40
        path.with_name("filler").unlink()
        await store.commit(T, StateChange(dict(list(many.items())[:200])))
    assert len((await reloaded(path)).recent) == 200
    assert len(problems) == 2


async def test_a_disk_that_is_full_at_start(path, small_disk):
    await filled(path)
    with contextlib.suppress(OSError), path.with_name("filler").open("wb", buffering=0) as filler:
        while filler.write(b"x" * 4096):
            pass

    assert len((await reloaded(path)).recent) == 40
    with pytest.raises(StartError, match=r"new\.db: .*(full|No space left)"):
        await Store.open(path.with_name("new.db"), problem=lambda: None)


@pytest.mark.integration
@pytest.mark.parametrize("jobs", [0, 5], ids=["new", "used"])
def test_a_second_process_is_refused(path, jobs):
    holder = subprocess.Popen(
        [sys.executable, __file__, str(path), str(jobs)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert holder.stdout.readline() == b"open\n"

        text = refusal(path, StartError)

        assert f"state file {path}: " in text
        assert "in use by another process" in text
        assert holder.poll() is None
    finally:
        holder.kill()
        holder.communicate()
    assert len(asyncio.run(reloaded(path)).recent) == jobs


async def test_a_second_use_in_the_same_process_is_refused_and_harms_nobody(path):
    async with opened(path) as store:
        await store.commit(T, StateChange({"a": known()}))
        for _ in range(2):
            with pytest.raises(StartError, match="in use by another process"):
                await Store.open(path, problem=lambda: None)
        await store.commit(T, StateChange({"b": known("b")}))

    assert (await reloaded(path)).recent.keys() == {"a", "b"}


async def test_a_cancelled_opening_lets_go_of_the_file(path, monkeypatch):
    reached, go = threading.Event(), threading.Event()

    def check(connection):
        reached.set()
        assert go.wait(20)
        yield

    with monkeypatch.context() as patch:
        patch.setattr("exporter.storage.database.LAYOUT", LAYOUT._replace(check=check))
        opening = asyncio.create_task(Store.open(path, problem=lambda: None))
        await asyncio.to_thread(reached.wait, 20)
    opening.cancel()
    asyncio.get_running_loop().call_later(0.02, go.set)
    with pytest.raises(asyncio.CancelledError):
        await opening

    assert await reloaded(path) == NOTHING


async def test_a_full_disk_at_start_is_no_damage(path, monkeypatch):
    def full(*_):
        connection = sqlite3.connect(":memory:", isolation_level=None)
        with contextlib.closing(connection):
            connection.execute("PRAGMA max_page_count = 1")
            connection.execute("CREATE TABLE x (y)")

    monkeypatch.setattr("exporter.storage.database.LAYOUT", LAYOUT._replace(steps={1: full}))

    with pytest.raises(StartError, match=r"state file .*full \(free space on its disk\)"):
        await Store.open(path, problem=lambda: pytest.fail("counted"))
    monkeypatch.undo()
    assert await reloaded(path) == NOTHING


# --- Brought to the newest version ----------------------------------------------------------------


def first(connection):
    connection.execute("CREATE TABLE t (x)")
    connection.execute("INSERT INTO t VALUES (1)")


def second(connection):
    connection.execute("UPDATE t SET x = x + 10")


def third(connection):
    connection.execute("ALTER TABLE t ADD COLUMN y")


def fails(connection):
    third(connection)
    connection.execute("UPDATE missing SET x = 1")


STEPS = {1: first, 2: second, 3: third}


def content(path, *steps, check=lambda _: iter(())):
    layout = Layout(77, dict(enumerate(steps, 1)), check)
    opened = open_file(path, layout, moved=lambda: None)
    with contextlib.closing(opened.connection) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        return version, connection.execute("SELECT * FROM t").fetchall()


def test_every_step_is_taken_once_and_in_order(path):
    assert content(path, first) == (1, [(1,)])
    assert content(path, first) == (1, [(1,)])
    assert content(path, first, second, third) == (3, [(11, None)])
    assert content(path, first, second, third) == (3, [(11, None)])
    with pytest.raises(ConfigError, match="newer"):
        content(path, first, second)


def test_a_new_file_takes_all_steps(path):
    assert content(path, first, second, third) == (3, [(11, None)])


def test_a_step_that_fails_leaves_the_version_before(path):
    assert content(path, first) == (1, [(1,)])
    with pytest.raises(StartError, match="no such table: missing"):
        content(path, first, second, fails)
    assert content(path, first) == (1, [(1,)])


def test_what_a_check_dislikes_is_moved_aside_after_the_steps(path):
    content(path, first)

    def old(connection):
        if connection.execute("SELECT x FROM t").fetchone() == (11,):
            raise DamagedFileError("is odd")
        yield

    with pytest.raises(StartError, match="is odd, although it is new"):
        content(path, first, second, check=old)


# --- Where it is ----------------------------------------------------------------------------------


async def test_a_link_and_a_name_with_odd_characters(tmp_path):
    real = tmp_path / "a?b#c %41 %Y é.db"
    link = tmp_path / "link"
    link.symlink_to(real)
    await filled(link)
    assert len((await reloaded(real)).recent) == 40
    real.write_text("garbage")

    async with opened(link, lambda: None) as store:
        assert await loaded(store) == NOTHING

    assert link.is_symlink()
    (aside,) = tmp_path.glob("*.damaged-*")
    assert aside.name.startswith(f"{real.name}.damaged-")
    assert aside.read_text() == "garbage"


async def hold(path, jobs):
    store = await Store.open(path, problem=lambda: None)
    await store.commit(T, StateChange({str(each): known(str(each)) for each in range(jobs)}))
    print("open", flush=True)  # noqa: T201
    await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(hold(database.Path(sys.argv[1]), int(sys.argv[2])))
