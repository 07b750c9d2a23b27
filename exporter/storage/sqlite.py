"""A SQLite file for one process: locked, checked, migrated, moved aside, or written anew.

Or a private temporary database, for which nothing of this is needed.

All functions block and must run in the same thread. Nothing else in the process may open the file,
not even to read it: closing it would drop SQLite's locks (POSIX; see
https://www.sqlite.org/howtocorrupt.html, 2.2). The caller is responsible for checkpoints.
"""

import contextlib
import errno
import logging
import os
import sqlite3
import stat
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

from exporter.clock import Clocks
from exporter.errors import ConfigError, StartError
from exporter.storage import damage as checks
from exporter.storage import generation
from exporter.storage.damage import DamagedFileError

log = logging.getLogger(__name__)

LOCK_SECONDS = 1.0
"""How long to wait for the lock of a predecessor that is about to exit."""
LONGEST_WAL_BYTES = 16 * 2**20
"""The first commit of a large fleet needs more; the space is released afterwards."""

_COMPANIONS = ("", "-wal", "-shm", "-journal")  # the file first: the others are useless without it
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_FORBIDDEN = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM})
_OTHERS_READ, _OTHERS_WRITE = 0o004, 0o002
"""Access of the group is left alone: Kubernetes grants it with ``fsGroup``."""
_LEAP = 16
"""No future version is that far ahead: if the content says otherwise, the header is damaged."""

_TEMPORARY_DIRECTORIES = ("/var/tmp", "/usr/tmp", "/tmp", ".")  # noqa: S108 - SQLite uses them
"""After those in the environment: https://www.sqlite.org/tempfiles.html, 5."""
_TRANSIENT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})  # a restart may help
_ADVICE = {
    sqlite3.SQLITE_FULL: "free space on its disk",
    sqlite3.SQLITE_IOERR: "check its disk",
    **dict.fromkeys(_BUSY, "in use by another process; each exporter needs its own file"),
    **dict.fromkeys(_FORBIDDEN, "the file and its directory must be writable"),
}


class Layout(NamedTuple):
    """The format of a file.

    Attributes:
        application_id: marks files of the exporter, 32 bits.
        steps: migrations by version, from 1 without a gap, each from the version before. Version 0
            is an empty file. All that are needed run in one transaction. What a schema contains
            besides is foreign.
        check: reads everything, a little in each step; the first one is taken whenever a file is
            opened. Like the migrations, it raises `DamagedFileError` if that fails.
    """

    application_id: int
    steps: Mapping[int, Callable[[sqlite3.Connection], None]]
    check: Callable[[sqlite3.Connection], Iterator[None]]


class Opened(NamedTuple):
    """A database that was opened.

    Attributes:
        connection: in autocommit mode.
        check: the steps of the check that remain.
    """

    connection: sqlite3.Connection
    check: Iterator[None]


def open_file(
    path: Path,
    layout: Layout,
    *,
    moved: Callable[[], None],
    clocks: Clocks = Clocks(),  # noqa: B008 - it is immutable
    can_wait: bool = False,
) -> Opened:
    """Open a file exclusively. Create it if it is missing, migrate it to the newest version.

    Its rows are checked now only if it was not closed in order (`exporter.storage.generation`).

    Args:
        path: of the file; its directory must exist.
        layout: its format.
        moved: called when a damaged or foreign file was moved aside.
        clocks: for the name of the moved file.
        can_wait: it is a copy that was just made; its rows need not be checked now.

    Raises:
        ConfigError: the path cannot be used, or a newer version wrote the file.
        StartError: another process uses it, or its disk fails.
    """
    try:
        real = _regular(path)
        try:
            return _open(
                path,
                real,
                layout,
                lambda: _move_aside(real, clocks.wall(), "damaged"),
                can_wait=can_wait,
            )
        except _MovedAsideError as error:
            moved()
            log.error(  # noqa: TRY400 - the message says it all; a traceback would hide it
                "state file %s %s: moved to %s, all counters start from a new baseline",
                path,
                error.damage,
                error.aside,
            )
        return _open(path, _regular(path), layout, None, can_wait=False)
    except DamagedFileError as damage:
        raise StartError(f"state file {path} {damage}, although it is new") from damage
    except sqlite3.Error as error:
        if _code(error) in _FORBIDDEN:
            raise ConfigError(f"state.file: {path}: {explain(error)}") from error
        raise StartError(f"state file {path}: {explain(error)}") from error
    except OSError as error:
        if error.errno in _TRANSIENT:
            raise StartError(f"state file {path}: {error.strerror}") from error
        raise ConfigError(f"state.file: {path}: {error.strerror}") from error


def open_temporary(layout: Layout) -> Opened:
    """Open a private database: in memory if it is small, else in an unnamed temporary file.

    Without a directory for such files, all of it is in memory.

    Raises:
        StartError: it cannot be created.
    """
    directories = filter(None, map(os.environ.get, ("SQLITE_TMPDIR", "TMPDIR")))
    has_directory = any(
        Path(each).is_dir() and os.access(each, os.W_OK | os.X_OK)
        for each in (*directories, *_TEMPORARY_DIRECTORIES)
    )
    try:
        connection = sqlite3.connect("" if has_directory else ":memory:", isolation_level=None)
        if not has_directory:
            connection.execute("PRAGMA temp_store = MEMORY")
        with transaction(connection):
            for step in range(1, max(layout.steps) + 1):
                layout.steps[step](connection)
    except sqlite3.Error as error:
        raise StartError(f"temporary database: {explain(error)}") from error
    return Opened(connection, iter(()))


def newer_version_error(path: Path, version: int, newest: int) -> ConfigError:
    """The error for a file of a version that is newer than those known here."""
    return ConfigError(
        f"state.file: {path} was written by a newer version of the exporter (format {version},"
        f" this one reads up to {newest}): use that version, or another file"
    )


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit the block, or roll it back if it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors roll back by themselves
            connection.execute("ROLLBACK")
        raise


def explain(error: sqlite3.Error) -> str:
    """What is wrong, and what to do about it, on one line."""
    advice = _ADVICE.get(_code(error))
    return f"{error}" + (f" ({advice})" if advice else "")


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error means that the file is damaged."""
    return _code(error) in _DAMAGE or str(error).startswith("Could not decode to UTF-8")


def _code(error: sqlite3.Error) -> int:
    """The primary result code. Errors of the Python module itself have none."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _regular(path: Path) -> Path:
    """The file without symbolic links, created if missing. SQLite puts its companions beside it."""
    real = Path(os.path.realpath(path))
    try:
        mode = real.stat().st_mode
    except FileNotFoundError:
        os.close(os.open(real, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        return real
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if not (os.access(real, os.W_OK) and os.access(real.parent, os.W_OK | os.X_OK)):
        raise OSError(errno.EACCES, _ADVICE[sqlite3.SQLITE_READONLY])
    return real


def _warn_if_accessible(path: Path, real: Path) -> None:
    """The file has names of jobs and users, and anyone who can change it can change counters."""
    mode = real.stat().st_mode & 0o777
    if mode & (_OTHERS_READ | _OTHERS_WRITE):
        access = "change" if mode & _OTHERS_WRITE else "read"
        text = (
            "every user of this machine can %s state file %s (mode %03o): restrict its mode, for "
            "example with chmod o-rwx"
        )
        log.warning(text, access, path, mode)


class _MovedAsideError(Exception):
    """A file was damaged and is moved aside."""

    def __init__(self, damage: DamagedFileError, aside: Path) -> None:
        super().__init__(str(damage))
        self.damage = damage
        self.aside = aside


def _open(
    path: Path,
    real: Path,
    layout: Layout,
    move_aside: Callable[[], Path] | None,
    *,
    can_wait: bool,
) -> Opened:
    connection = sqlite3.connect(
        f"{real.as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=LOCK_SECONDS
    )
    try:
        with _explained_damage(real):
            version = _examine(connection, path, real, layout, can_wait=can_wait)
            check = _prepare(connection, path, version, layout, can_wait=can_wait)
    except DamagedFileError as damage:
        traceback.clear_frames(damage.__traceback__)  # a cursor in them would keep the file open
        if move_aside is None:
            raise
        try:
            # Before it is closed, since SQLite would write the WAL into the file, even a wrong one.
            raise _MovedAsideError(damage, move_aside()) from damage
        except OSError as error:
            text = f"state.file: {path} {damage} and cannot be moved aside: {error.strerror}"
            raise ConfigError(text) from error
        finally:
            connection.close()
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        connection.close()
        raise
    _warn_if_accessible(path, real)
    return Opened(connection, check)


@contextlib.contextmanager
def _explained_damage(real: Path) -> Iterator[None]:
    """Turn the errors that mean damage into `DamagedFileError`."""
    try:
        yield
    except sqlite3.Error as error:
        if is_damage(error):
            raise DamagedFileError(f"is damaged ({error})") from error
        if _code(error) == sqlite3.SQLITE_READONLY:
            checks.check_header(real)
        raise
    except UnicodeDecodeError as error:  # in an error message that quotes the file
        raise DamagedFileError("is damaged (invalid text)") from error


def _examine(
    connection: sqlite3.Connection, path: Path, real: Path, layout: Layout, *, can_wait: bool
) -> int:
    """Take the lock, and check everything but the rows. Return the version, 0 for an empty file."""
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    with _errors_are_damage():
        with transaction(connection):  # take the lock before reading anything
            ours = _number(connection, "PRAGMA application_id") == layout.application_id
            version = _number(connection, "PRAGMA user_version")
            empty = not _number(connection, "SELECT count(*) FROM sqlite_master")
        generation.check_wal(connection, real)
        if ours and version > max(layout.steps):
            _refuse_newer(connection, path, version, layout)
        if empty:
            return 0
        if not (ours and version in layout.steps):
            raise DamagedFileError("belongs to another application")
        checks.check_schema(connection, _expected_schema(layout, version))
        checks.check_size(connection, real)
        if version < max(layout.steps) or not (can_wait or _was_stopped(connection)):
            checks.check_structure(connection)
    return version


def _was_stopped(connection: sqlite3.Connection) -> bool:
    """Whether the last exporter that wrote to the file has closed it in order."""
    last = generation.read(connection)
    return last is not None and last.stopped


def _refuse_newer(
    connection: sqlite3.Connection, path: Path, version: int, layout: Layout
) -> NoReturn:
    """Refuse the file of a newer version, unless it is clear that no version wrote this number."""
    newest, content = max(layout.steps), generation.read(connection)
    flipped = content is not None and (version ^ content.format).bit_count() == 1
    if flipped and version > newest + _LEAP:
        raise DamagedFileError(f"is damaged (format {version} in its header)")
    raise newer_version_error(path, version, newest)


def _expected_schema(layout: Layout, version: int) -> checks.SchemaObjects:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as example:
        for step in range(1, version + 1):
            layout.steps[step](example)
        return checks.schema_of(example)


def _prepare(
    connection: sqlite3.Connection, path: Path, version: int, layout: Layout, *, can_wait: bool
) -> Iterator[None]:
    """Migrate, and check every row if that cannot wait. Return what remains of the check."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA journal_size_limit = {LONGEST_WAL_BYTES}")
    if version < max(layout.steps):
        _migrate(connection, path, version, layout)  # has read all jobs
        can_wait = True
    check = layout.check(connection)
    with _errors_are_damage():
        if can_wait or _was_stopped(connection):
            next(check, None)
        else:
            log.info("checking state file %s: the exporter before was killed", path)
            deque(check, 0)
    return check


def _migrate(connection: sqlite3.Connection, path: Path, version: int, layout: Layout) -> None:
    newest = max(layout.steps)
    if version:
        log.info("migrating state file %s from format %d to %d", path, version, newest)
    with transaction(connection):
        for step in range(version, newest):
            layout.steps[step + 1](connection)
        connection.execute(f"PRAGMA application_id = {layout.application_id}")
        connection.execute(f"PRAGMA user_version = {newest}")
    with contextlib.suppress(sqlite3.Error):  # it can be done later
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if version:
        log.info("migrated state file %s", path)
    else:
        log.info("created state file %s: all counters start from a baseline", path)


@contextlib.contextmanager
def _errors_are_damage() -> Iterator[None]:
    """Statements that are always right fail only if the file is not as it should be."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if _code(error) != sqlite3.SQLITE_ERROR:
            raise
        raise DamagedFileError(f"is damaged ({error})") from error


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def fingerprint(real: Path) -> tuple[int, ...] | None:
    """Changes when the file is replaced or written to; None = it does not exist."""
    try:
        found = real.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def rescue(
    connection: sqlite3.Connection, real: Path, *, intact: bool, now: float, why: str = "replaced"
) -> Path | None:
    """Give up a file that was deleted, changed or damaged while open; put a copy in its place.

    Args:
        connection: is closed.
        real: path of the file, without symbolic links.
        intact: whether the connection still has its own file, without a name, to copy from.
        now: unix seconds, for the name of what is moved aside.
        why: likewise.

    Returns:
        What was found in its place and is moved aside; None = nothing.

    Raises:
        sqlite3.Error, OSError: the connection is open as before.
    """
    copy = real.with_name(f"{real.name}.new")
    if intact:
        copy.unlink(missing_ok=True)
        os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        connection.execute("VACUUM INTO ?", (str(copy),))
        with copy.open("rb") as file:
            os.fsync(file.fileno())
    aside = None
    if real.exists():
        if intact:
            _check_unused(real)
        aside = _move_aside(real, now, why)
    for suffix in _COMPANIONS[1:]:  # before the copy is there: they do not belong to it
        real.with_name(f"{real.name}{suffix}").unlink(missing_ok=True)
    if intact:
        copy.replace(real)
    connection.close()  # SQLite notices that its file was moved, and leaves the new one alone
    return aside


def _check_unused(real: Path) -> None:
    """Raise if another process has locked the file."""
    try:
        other = sqlite3.connect(
            f"{real.as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=LOCK_SECONDS
        )
        with contextlib.closing(other), transaction(other):
            pass
    except sqlite3.Error as error:
        if _code(error) in _BUSY:
            raise


def _move_aside(path: Path, now: float, why: str) -> Path:
    """Rename a file and its companions, unless they are empty, without overwriting anything."""
    stem = path.name + time.strftime(f".{why}-%Y%m%dT%H%M%SZ", time.gmtime(now))
    aside, number = path.with_name(stem), 1
    while any(os.path.lexists(f"{aside}{suffix}") for suffix in _COMPANIONS):
        number += 1
        aside = path.with_name(f"{stem}-{number}")
    for suffix in _COMPANIONS:
        with contextlib.suppress(FileNotFoundError):
            if suffix and not os.path.getsize(f"{path}{suffix}"):  # noqa: PTH202
                os.unlink(f"{path}{suffix}")  # noqa: PTH108
            else:
                os.rename(f"{path}{suffix}", f"{aside}{suffix}")  # noqa: PTH104
    return aside
