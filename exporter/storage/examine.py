"""Examine a state file without opening it, so that a running exporter is not disturbed."""

import errno
import os
import stat
from pathlib import Path

from exporter.errors import ConfigError
from exporter.storage.layout import LAYOUT
from exporter.storage.sqlite import newer_version_error

_MAGIC = b"SQLite format 3\0"
_HEADER_SIZE = 100  # https://www.sqlite.org/fileformat.html, 1.3
_VERSION, _APPLICATION = slice(60, 64), slice(68, 72)


def examine(path: Path) -> str:
    """Return what a user should know about a file that the exporter could use; "" if nothing.

    Nothing is created, locked or changed. That its content is intact is seen only when it is
    opened.

    Raises:
        ConfigError: the exporter could not use the path.
    """
    real = Path(os.path.realpath(path))
    try:
        header = _read_header(real)
    except FileNotFoundError as error:
        if not real.parent.is_dir() or not os.access(real.parent, os.W_OK | os.X_OK):
            reason = error.strerror if not real.parent.is_dir() else os.strerror(errno.EACCES)
            raise ConfigError(f"state.file: {path}: {reason}") from None
        return "will be created; counters start from a baseline"
    except OSError as error:
        raise ConfigError(f"state.file: {path}: {error.strerror}") from error
    if _has_wal(real):
        return ""  # the header may be newer there
    version = int.from_bytes(header[_VERSION], "big")
    application = int.from_bytes(header[_APPLICATION], "big")
    if header and (not header.startswith(_MAGIC) or application != LAYOUT.application_id):
        return "is not a state file; it will be moved aside, and counters start from a baseline"
    if version > max(LAYOUT.steps):
        raise newer_version_error(path, version, max(LAYOUT.steps))
    return ""


def _has_wal(real: Path) -> bool:
    """Whether there is a write-ahead log with content, as while an exporter runs."""
    wal = real.with_name(f"{real.name}-wal")
    return wal.exists() and wal.stat().st_size > 0


def _read_header(real: Path) -> bytes:
    if not stat.S_ISREG(real.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if not (os.access(real, os.W_OK) and os.access(real.parent, os.W_OK | os.X_OK)):
        raise OSError(errno.EACCES, "the file and its directory must be writable")
    with real.open("rb") as file:
        return file.read(_HEADER_SIZE)
