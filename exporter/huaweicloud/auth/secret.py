"""Secrets: where they come from, and how they stay out of every message."""

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.errors import AuthError, PollError

_MAX_BYTES = 65_536
"""IAM tokens have some 10 kB; what is larger is the wrong file."""

_TELLING = 8
"""So many leading characters of a secret are enough to recognise it where it was cut off."""


class Secret:
    """A secret value, or the file that holds it.

    A file is read anew each time: it costs some 20 microseconds, and no rotation is ever missed
    (symlinks swapped by Kubernetes, files rewritten within one tick of their time stamps).

    Args:
        name: the option or variable that gives it, for messages.
        value: the secret itself, or
        file: the path of the file; UTF-8, one trailing line break does not count.
    """

    __slots__ = ("_file", "_value", "origin")

    def __init__(
        self, name: str, value: str | None = None, *, file: str | Path | None = None
    ) -> None:
        if (value is None) == (file is None):
            raise ValueError(f"{name}: a secret has either a value or a file")
        self._value = value
        self._file = None if file is None else Path(file)
        self.origin = name if file is None else f"{name} {file}"

    def __repr__(self) -> str:
        return f"Secret({self.origin})"

    def read(self) -> str:
        """The secret as it is now.

        Raises:
            AuthError: missing, unreadable, empty or garbled; names the option and the path.
        """
        value = self._value if self._file is None else read_text(self._file, self.origin)
        value = (value or "").removesuffix("\n").removesuffix("\r")
        if not value.strip():
            raise AuthError(f"{self.origin} is empty")
        if not value.isprintable():
            raise AuthError(f"{self.origin} has a line break or a control character inside")
        return value


def read_text(path: Path, origin: str) -> str:
    """The text of a small file.

    Args:
        path: a regular file; UTF-8.
        origin: names option and path in messages.

    Raises:
        AuthError: what is wrong with the file.
    """
    try:
        # Opening a named pipe would block for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise AuthError(f"{origin} is not a regular file")
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise AuthError(f"{origin} cannot be read: {reason}") from None
    if len(content) > _MAX_BYTES:
        raise AuthError(f"{origin} is larger than {_MAX_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise AuthError(f"{origin} is not UTF-8 text") from None


def redact(text: str, *secrets: str | None) -> str:
    """The text without the secrets, in whole or cut off: services like to quote what they refuse.

    The gateway, for one, answers a wrong signature with the whole canonical request, security
    token included.
    """
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
        text = re.sub(re.escape(secret[:_TELLING]) + r"\S*", "***", text)
    return text


def redact_error(error: PollError, *secrets: str | None, doing: str = "") -> None:
    """Blot the secrets out of an error's message, and say what was being done."""
    prefix = f"{doing}: " if doing else ""
    error.args = (prefix + redact(str(error), *secrets),)


@contextmanager
def redacting(*secrets: str | None, doing: str = "") -> Iterator[None]:
    """`redact_error` every `PollError` that passes."""
    try:
        yield
    except PollError as error:
        redact_error(error, *secrets, doing=doing)
        raise
