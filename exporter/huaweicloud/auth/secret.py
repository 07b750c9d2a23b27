"""Secrets: where they come from, and how they stay out of every message."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.errors import AuthError, PollError
from exporter.huaweicloud.redaction import redact
from exporter.settings.secret_values import IN_QUOTES, is_in_quotes, stripped

_MAX_BYTES = 2**17
"""IAM tokens have up to 102,400 characters; a larger file is the wrong one."""


class Secret:
    """A secret value, or the file that holds it.

    A file is read every time: that costs about 20 microseconds, and no rotation is missed
    (symlinks swapped by Kubernetes, files rewritten within one tick of their time stamps).

    Args:
        name: the option or variable that it comes from, for messages.
        value: the secret itself, or
        file: the path of the file; UTF-8.
        quotes: whether it may begin and end with a quote.
    """

    __slots__ = ("_file", "_quotes", "_value", "origin")

    def __init__(
        self,
        name: str,
        value: str | None = None,
        *,
        file: str | Path | None = None,
        quotes: bool = False,
    ) -> None:
        if (value is None) == (file is None):
            raise ValueError(f"{name}: a secret has either a value or a file")
        self._value = value
        self._quotes = quotes
        self._file = None if file is None else Path(file)
        self.origin = name if file is None else f"{name} {file}"

    def __repr__(self) -> str:
        return f"Secret({self.origin})"

    def read(self) -> str:
        """The current secret, without byte order mark, blanks and line breaks at its ends.

        Raises:
            AuthError: missing, unreadable, empty or garbled; names the option and the path.
        """
        value = self._value if self._file is None else read_text(self._file, self.origin)
        value = stripped(value or "")
        if not value:
            raise AuthError(f"{self.origin} is empty")
        if not value.isprintable():
            raise AuthError(f"{self.origin} contains a line break or a control character")
        if is_in_quotes(value) and not self._quotes:
            raise AuthError(f"{self.origin} {IN_QUOTES}")
        return value


def read_text(path: Path, origin: str) -> str:
    """The text of a small file.

    Args:
        path: a regular file; UTF-8.
        origin: option and path, for messages.

    Raises:
        AuthError: the file cannot be used; names the origin.
    """
    try:
        # Opening a named pipe would block forever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise AuthError(f"{origin} is not a regular file")
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a valid path"
        raise AuthError(f"{origin} cannot be read: {reason}") from None
    if len(content) > _MAX_BYTES:
        raise AuthError(f"{origin} is larger than {_MAX_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise AuthError(f"{origin} is not UTF-8 text") from None


def redact_error(error: PollError, *secrets: str | None, doing: str = "") -> None:
    """Redact the secrets in an error's message, and prefix it with what was being done.

    What services say is quoted by `exporter.huaweicloud.redaction.quote`; this is for the rest.
    """
    prefix = f"{doing}: " if doing else ""
    error.args = (prefix + redact(str(error), secrets),)


@contextmanager
def redacting(*secrets: str | None, doing: str = "") -> Iterator[None]:
    """Apply `redact_error` to every `PollError` that passes."""
    try:
        yield
    except PollError as error:
        redact_error(error, *secrets, doing=doing)
        raise
