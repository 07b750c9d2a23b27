"""The number of the last commit, stored in the file, to notice a file and a WAL that do not match.

SQLite replays a WAL over whatever file is beside it, for example an older copy that was restored
after a crash. Every commit counts up one number. So the file alone, without its WAL, must be at the
commit before the first one in the WAL, or later if it was checkpointed since, and never later than
file and WAL together.
"""

import contextlib
import re
import sqlite3
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from exporter.storage.damage import DamagedFileError

_TEXT = re.compile(
    rb"(exporter state format (\d{5}) commit (\d{15}) check )([0-9a-f]{8})(?: (stopped|running))?"
)
"""Always of the same length: it is overwritten in place. Format 2 had no last word, and ignores it;
anything but that the exporter has stopped means that it may have been killed."""

_WAL_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24  # https://www.sqlite.org/fileformat2.html#walformat


class Generation(NamedTuple):
    """What a file says about itself.

    Attributes:
        format: of the file.
        number: of its last commit.
        stopped: whether the exporter that made this commit has stopped in order since.
    """

    format: int
    number: int
    stopped: bool = False


def create(connection: sqlite3.Connection, version: int) -> None:
    """Create the table, for a file of this format."""
    connection.execute("CREATE TABLE generation (value TEXT NOT NULL)")
    connection.execute("INSERT INTO generation VALUES (?)", (_encode(Generation(version, 1)),))


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Note another format of the file, in the transaction that changes it."""
    _write(connection, _existing(connection)._replace(format=version))


def advance(connection: sqlite3.Connection, *, stopped: bool = False) -> None:
    """Count a commit, in its transaction.

    Args:
        connection: to the file.
        stopped: it is the last one before the file is closed.
    """
    last = _existing(connection)
    _write(connection, last._replace(number=last.number + 1, stopped=stopped))


def _existing(connection: sqlite3.Connection) -> Generation:
    if (last := read(connection)) is None:
        raise DamagedFileError("is damaged (the table of generations is missing)")
    return last


def _write(connection: sqlite3.Connection, generation: Generation) -> None:
    connection.execute("UPDATE generation SET value = ?", (_encode(generation),))


def read(connection: sqlite3.Connection) -> Generation | None:
    """Read the generation; None = the file has none, because it is of format 1 or empty.

    Raises:
        DamagedFileError: it is not readable.
    """
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'generation'").fetchone():
        return None
    values = connection.execute("SELECT value FROM generation").fetchall()
    found = _decode(str(values[0][0]).encode()) if len(values) == 1 else None
    if found is None:
        raise DamagedFileError("is damaged (generation: wrong checksum)")
    return found


def check_wal(connection: sqlite3.Connection, real: Path) -> None:
    """Check that file and WAL belong together. The caller must hold the lock of the file.

    Raises:
        DamagedFileError: they do not.
    """
    wal = real.with_name(f"{real.name}-wal")
    if not (wal.exists() and wal.stat().st_size):
        return
    file, first, last = _number_in_file(real), _first_in_wal(wal), read(connection)
    if file is None:
        return
    begin, end = (file if first is None else first - 1), (0 if last is None else last.number)
    if not begin <= file <= end:
        raise DamagedFileError(
            f"does not match {wal.name} beside it (the file is at commit {file}, the log "
            f"{f'follows commit {begin}' if file < begin else f'ends at commit {end}'}; was one of "
            "them restored from a copy?)"
        )


def _number_in_file(real: Path) -> int | None:
    """The number in the file without its WAL: 0 = it has none, None = unreadable, after a crash."""
    uri = f"{real.as_uri()}?immutable=1"  # SQLite ignores the WAL then, and takes no locks
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as alone:
        try:
            found = read(alone)
        except (sqlite3.Error, DamagedFileError, UnicodeDecodeError):
            return None
    return 0 if found is None else found.number


def _first_in_wal(wal: Path) -> int | None:
    """The number of the first commit in a WAL; None = it has no valid commit with a number."""
    with wal.open("rb") as file:
        header = file.read(_WAL_HEADER_BYTES)
        page_size, salts = int.from_bytes(header[8:12]), header[16:24]
        while len(frame := file.read(_FRAME_HEADER_BYTES)) == _FRAME_HEADER_BYTES:
            if frame[8:16] != salts:  # left over from before the WAL was reset
                return None
            if found := _decode(file.read(page_size)):
                return found.number
            if any(frame[4:8]):  # the last frame of a commit
                return None
    return None


def _encode(generation: Generation) -> str:
    text = f"exporter state format {generation.format:05} commit {generation.number:015} check "
    word = "stopped" if generation.stopped else "running"
    return f"{text}{crc32(text.encode()):08x} {word}"


def _decode(page: bytes) -> Generation | None:
    """The newest generation in a page: one of format 2 may remain beside it."""
    found = [
        Generation(int(match[2]), int(match[3]), match[5] == b"stopped")
        for match in _TEXT.finditer(page)
        if int(match[4], 16) == crc32(match[1])
    ]
    return max(found, default=None)
