"""Text for people: standard output, notes on standard error, and progress on a terminal."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TextIO

from exporter.errors import StartError

_BAR_WIDTH = 40


def open_standard_streams() -> None:
    """Open /dev/null for standard streams that are closed, as with ``2>&-``.

    Otherwise the next socket or file would take their numbers. `print_output` still reports a
    closed standard output.
    """
    devnull = os.open(os.devnull, os.O_RDWR)
    while devnull <= 2:  # noqa: PLR2004 - standard error
        devnull = os.dup(devnull)
    os.close(devnull)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w")


def print_output(text: str | bytes) -> None:
    """Write lines to standard output and flush them.

    It is not an error if the reader has closed the pipe, as ``| head`` does.

    Raises:
        StartError: standard output cannot be written, for example because the disk is full.
    """
    show_progress("")
    out = sys.stdout
    if out is None:
        raise StartError("cannot write to standard output: it is closed")
    # A name that the terminal's encoding cannot show must not cost the line.
    line = text if isinstance(text, bytes) else f"{text}\n".encode(out.encoding, "replace")
    try:
        out.buffer.write(line)
        out.flush()
    except BrokenPipeError:
        _discard(out)
    except OSError as error:
        _discard(out)
        raise StartError(f"cannot write to standard output: {error.strerror}") from error


def print_note(text: str) -> None:
    """Write a line to standard error, since standard output may carry a document."""
    show_progress("")
    _write_error(f"{text}\n")


def show_progress(text: str) -> None:
    """Show a line that the next one overwrites; only if standard error is a terminal."""
    if sys.stderr.isatty():
        _write_error(f"\r\x1b[K{text}")


def show_progress_line(text: str) -> None:
    """As `show_progress`, but if standard error is no terminal, write a line of its own."""
    show_progress(text) if sys.stderr.isatty() else print_note(text)


def progress_bar(done: int, total: int) -> str:
    """Return a bar such as ``[########                ]  33%``."""
    share = done / total if total else 1.0
    return f"[{'#' * int(share * _BAR_WIDTH):<{_BAR_WIDTH}}] {share:4.0%}"


@contextlib.asynccontextmanager
async def in_background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a coroutine, for example one that shows progress, until the context ends."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def terminal_watcher() -> Callable[[], bool]:
    """Return a function that reports whether the current terminal was closed since."""
    terminals = [number for number in range(3) if os.isatty(number)]
    return lambda: bool(terminals) and not any(map(os.isatty, terminals))


def _write_error(text: str) -> None:
    """Write to standard error. If that fails, there is nowhere to say so, and the work goes on."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    """Redirect a stream to /dev/null, or flushing it at exit would fail again."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, stream.fileno())
    os.close(devnull)
