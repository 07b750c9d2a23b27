"""Types of options for secrets and for the files that contain them."""

from dataclasses import replace
from functools import partial
from typing import Any, Self

from pydantic import SecretStr

from exporter.settings.problems import InvalidValueError, invalid_value
from exporter.settings.secret_values import (
    IN_QUOTES,
    IS_A_TOKEN,
    is_a_token,
    is_in_quotes,
    is_surely_a_path,
    stripped,
)
from exporter.settings.small_file import open_file
from exporter.settings.types import PATH, OptionType


def _secret(value: Any, *, quotes: bool = False) -> SecretStr:
    if not isinstance(value, str | None):
        raise invalid_value(value, "secret", "one line of text, in quotes in YAML", hidden=True)
    found = stripped(value or "")
    if not found:
        raise InvalidValueError("is empty; use one line of text, in quotes in YAML")
    if not found.isprintable():
        raise InvalidValueError("contains a line break or control character; use one line of text")
    if not quotes and is_in_quotes(found):
        raise InvalidValueError(IN_QUOTES)
    return SecretStr(found)


SECRET = OptionType(
    name="secret", parse=_secret, hidden=True, flag=False, schema={"type": "string"}
)
PASSWORD = replace(SECRET, parse=partial(_secret, quotes=True))
"""A secret that somebody chose, perhaps with quotes at its ends."""


class WrittenPath(str):
    """A path that was written relative to the directory of the configuration file."""

    __slots__ = ("written",)
    written: str

    def __new__(cls, path: str, written: str) -> Self:
        """Make the path, and remember what was written."""
        made = super().__new__(cls, path)
        made.written = written
        return made


def _secret_file(value: Any) -> str:
    """The path of a file, not shown if it may be the secret itself."""
    written = getattr(value, "written", value)
    if isinstance(value, str) and is_in_quotes(written.strip()):
        raise InvalidValueError(IN_QUOTES)
    try:
        path = str(PATH.take(value))
        with open_file(path):
            return path
    except (InvalidValueError, ValueError):
        if not isinstance(value, str) or not value.strip() or is_surely_a_path(written, value):
            raise
    wrong = "no such file (value not shown, it may be the secret itself); use the path of a file"
    raise InvalidValueError(wrong) from None


def _id_token_file(value: Any) -> str:
    if isinstance(value, str) and is_a_token(getattr(value, "written", value).strip()):
        raise InvalidValueError(IS_A_TOKEN)
    return str(PATH.take(value))


SECRET_FILE = replace(PATH, parse=_secret_file)
"""The path of a file that exists and can be opened now; its content is not checked."""

ID_TOKEN_FILE = replace(PATH, parse=_id_token_file)
