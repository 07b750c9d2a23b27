"""Reading a small file, with an error that explains why it is not possible."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from exporter.settings.problems import InvalidValueError, quoted_path

MAX_BYTES = 2**20
"""A larger file is not a configuration, a certificate or a secret, but the wrong file."""


@contextmanager
def open_file(path: str, *, allow_pipe: bool = False) -> Iterator[BinaryIO]:
    """Open a file for reading.

    Args:
        path: of the file.
        allow_pipe: also open named pipes and devices; opening a pipe may block forever.

    Raises:
        InvalidValueError: it is not a regular file, or cannot be opened or read.
    """
    try:
        if not (allow_pipe or stat.S_ISREG(Path(path).stat().st_mode)):
            raise InvalidValueError(f"{quoted_path(path)} is not a regular file")
        with Path(path).open("rb") as file:
            yield file
    except OSError as error:
        reason = error.strerror or "I/O error"
        raise InvalidValueError(f"cannot read {quoted_path(path)}: {reason}") from None


def read_file(path: str, *, allow_pipe: bool = False) -> bytes:
    """Read a small file; see `open_file`.

    Raises:
        InvalidValueError: it cannot be read, or is too large.
    """
    with open_file(path, allow_pipe=allow_pipe) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InvalidValueError(f"{quoted_path(path)} is larger than {MAX_BYTES} bytes")
    return content
