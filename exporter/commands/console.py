"""What commands say to people: standard output, and progress where somebody watches."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from exporter.errors import StartError

_BAR = 40


def say(text: str | bytes) -> None:
    """Write lines to standard output, at once.

    A reader that has seen enough, such as ``| head``, is no error.

    Raises:
        StartError: it cannot be written, for example because the disk is full.
    """
    progress("")
    out = sys.stdout
    # A name that the terminal's encoding does not have must not cost the line.
    line = text if isinstance(text, bytes) else f"{text}\n".encode(out.encoding, "replace")
    try:
        out.buffer.write(line)
        out.flush()
    except BrokenPipeError:
        _forget()
    except OSError as error:
        _forget()
        raise StartError(f"cannot write to standard output: {error.strerror}") from error


def progress(text: str) -> None:
    """A line on the terminal that the next one overwrites; nothing where nobody watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def bar(done: int, total: int) -> str:
    """How far something is, as a picture: ``[########                ]  33 %``."""
    share = done / total if total else 1.0
    return f"[{'#' * int(share * _BAR):<{_BAR}}] {share:4.0%}"


def note(text: str) -> None:
    """A line beside standard output, where a document may be on its way."""
    progress("")
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do the work, such as to show progress, for as long as the context lasts."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def terminal_gone() -> Callable[[], bool]:
    """Tells, whenever it is asked, whether the terminal that we have now was closed since."""
    ours = [number for number in range(3) if os.isatty(number)]
    return lambda: bool(ours) and not any(map(os.isatty, ours))


def _forget() -> None:
    """Send what is still to be written nowhere, or it would fail again when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
