"""A SQLite file for one process: locked, checked, migrated, or moved aside.

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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from exporter.clock import Clocks
from exporter.errors import ConfigError, StartError

log = logging.getLogger(__name__)

LOCK_SECONDS = 1.0
"""How long to wait for the lock of a predecessor that is about to exit."""
LONGEST_WAL_BYTES = 16 * 2**20
"""The first commit of a large fleet needs more; the space is released afterwards."""

_COMPANIONS = ("", "-wal", "-shm", "-journal")  # the file first: the others are useless without it
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_FORBIDDEN = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM})
_TEMPORARY = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})  # a restart may help
_ADVICE = {
    sqlite3.SQLITE_FULL: "free space on its disk",
    sqlite3.SQLITE_IOERR: "check its disk",
    **dict.fromkeys(_BUSY, "in use by another process; each exporter needs its own file"),
    **dict.fromkeys(_DAMAGE, "damaged; restart the exporter to move it aside"),
    **dict.fromkeys(_FORBIDDEN, "the file and its directory must be writable"),
}


class DamagedFileError(Exception):
    """The file is damaged or foreign. The message continues the words "state file PATH"."""


class Layout(NamedTuple):
    """The format of a file.

    Attributes:
        application_id: marks files of the exporter, 32 bits.
        steps: migrations by version, from 1 without a gap, each from the version before. Version 0
            is an empty file. All that are needed run in one transaction.
        check: reads everything. Like the steps, it raises `DamagedFileError` if that fails.
    """

    application_id: int
    steps: Mapping[int, Callable[[sqlite3.Connection], None]]
    check: Callable[[sqlite3.Connection], None]


def open_file(
    path: Path,
    layout: Layout,
    *,
    moved: Callable[[], None],
    clocks: Clocks = Clocks(),  # noqa: B008 - it is immutable
) -> sqlite3.Connection:
    """Open a file exclusively. Create it if it is missing, migrate it to the newest version.

    Args:
        path: of the file; its directory must exist.
        layout: its format.
        moved: called when a damaged or foreign file was moved aside.
        clocks: for the name of the moved file.

    Raises:
        ConfigError: the path cannot be used, or a newer version wrote the file.
        StartError: another process uses it, or its disk fails.
    """
    try:
        real = _regular(path)
        try:
            return _open(path, real, layout)
        except DamagedFileError as damage:
            try:
                aside = _move_aside(real, clocks.wall())
            except OSError as error:
                raise ConfigError(
                    f"state.file: {path} {damage} and cannot be moved aside: {error.strerror}"
                ) from error
            moved()
            log.error(  # noqa: TRY400 - the message says it all; a traceback would hide it
                "state file %s %s: moved to %s, all counters start from a new baseline",
                path,
                damage,
                aside,
            )
        return _open(path, _regular(path), layout)
    except DamagedFileError as damage:
        raise StartError(f"state file {path} {damage}, although it is new") from damage
    except sqlite3.Error as error:
        if _code(error) in _FORBIDDEN:
            raise ConfigError(f"state.file: {_explained(path, error)}") from error
        raise StartError(f"state file {_explained(path, error)}") from error
    except OSError as error:
        if error.errno in _TEMPORARY:
            raise StartError(f"state file {path}: {error.strerror}") from error
        raise ConfigError(f"state.file: {path}: {error.strerror}") from error


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


def explain(path: Path, error: sqlite3.Error) -> str:
    """One line: the file, what is wrong, what to do about it."""
    return f"state file {_explained(path, error)}"


def _explained(path: Path, error: sqlite3.Error) -> str:
    advice = _ADVICE.get(_code(error))
    return f"{path}: {error}" + (f" ({advice})" if advice else "")


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


def _open(path: Path, real: Path, layout: Layout) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{real.as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=LOCK_SECONDS
    )
    try:
        _prepare(connection, path, real, layout)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error) and _code(error) in _DAMAGE:
            raise DamagedFileError(f"is damaged ({error})") from error
        if isinstance(error, UnicodeDecodeError):  # in an error message that quotes the file
            raise DamagedFileError("is damaged (invalid text)") from error
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, real: Path, layout: Layout) -> None:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    with transaction(connection):  # take the lock before reading anything
        ours = _number(connection, "PRAGMA application_id") == layout.application_id
        version = _number(connection, "PRAGMA user_version")
        empty = not _number(connection, "SELECT count(*) FROM sqlite_master")
    newest = max(layout.steps)
    if ours and version > newest:
        raise newer_version_error(path, version, newest)
    if not empty and not (ours and version in layout.steps):
        raise DamagedFileError("belongs to another application")
    if not empty and _is_truncated(connection, real):
        raise DamagedFileError("is damaged (its last page is truncated)")
    if (found := connection.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
        raise DamagedFileError(f"is damaged ({' '.join(found.split())})")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA journal_size_limit = {LONGEST_WAL_BYTES}")
    if empty:
        log.info("created state file %s: all counters start from a baseline", path)
        version = 0
    if version < newest:
        with transaction(connection):
            for step in range(version, newest):
                layout.steps[step + 1](connection)
            connection.execute(f"PRAGMA application_id = {layout.application_id}")
            connection.execute(f"PRAGMA user_version = {newest}")
    try:
        layout.check(connection)
    except sqlite3.OperationalError as error:
        if _code(error) != sqlite3.SQLITE_ERROR:
            raise
        raise DamagedFileError(f"is damaged ({error})") from error  # a table or a column is missing


def _is_truncated(connection: sqlite3.Connection, real: Path) -> bool:
    """Whether the file is truncated. SQLite would read zeros. What is in the WAL may be missing."""
    wal = real.with_name(f"{real.name}-wal")
    if wal.exists() and wal.stat().st_size:
        return False
    return bool(real.stat().st_size % _number(connection, "PRAGMA page_size"))


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def _move_aside(path: Path, now: float) -> Path:
    """Rename a closed file and its companions, without overwriting an earlier one."""
    stem = path.name + time.strftime(".damaged-%Y%m%dT%H%M%SZ", time.gmtime(now))
    aside, number = path.with_name(stem), 1
    while any(os.path.lexists(f"{aside}{suffix}") for suffix in _COMPANIONS):
        number += 1
        aside = path.with_name(f"{stem}-{number}")
    for suffix in _COMPANIONS:
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", f"{aside}{suffix}")  # noqa: PTH104
    return aside
