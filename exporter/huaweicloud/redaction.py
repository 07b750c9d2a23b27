"""Quoting what a service says, without the secrets that it may repeat.

Services quote what they refuse. The gateway answers a wrong signature with the whole canonical
request, security token included; others repeat the body of the request, encoded for JSON, HTML or a
URL, or cut off. A text is therefore looked at decoded in every way, before it is cut to a length
for people.

Nothing is masked in the middle of a sentence: that would show which word of it the secret is. A
text that may contain a piece of a secret is not shown at all. A long secret, such as a token, is
recognized by a few characters. A short one is guarded more strictly, since three of its characters
are already a part of it; so for passwords, often only the well-known messages of IAM are shown.
"""

import base64
import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import unquote, unquote_plus

from exporter.errors import one_line

NOT_SHOWN = "(message not shown, it may contain a secret)"

_TINY, _LONG = 6, 16
_LONG_PIECE, _SHORT_PIECE, _END_PIECE = 8, 3, 4
"""So many characters in a row are a piece of a long or short secret; at an end of the text, of a
long one. Nothing is quoted that may contain a tiny one."""

_NOT_ALPHANUMERIC = re.compile(r"[^0-9a-z]+")

_TOKEN = 32
"""A longer secret without blanks was made by a machine: what comes before it is safe to show."""

_MARGIN = 200
"""Looked at beyond what is shown, so that a secret that begins at the end is recognized."""

_MAX_VIEWS = 40

_WELL_KNOWN = frozenset(
    {
        "Authentication failed",
        "Bad Request",
        "Incorrect password",
        "Invalid id token",
        "Invalid username",
        "Invalid username or password",
        "Request body is invalid",
        "The account is disabled",
        "The account is locked",
        "The password has expired",
        "The request you have made requires authentication",
        "The token is expired",
        "The user is disabled",
        "The user is locked",
        "The username or password is incorrect",
        "The username or password is wrong",
        "Unauthorized",
        "You are not authorized to perform the requested action",
    }
)
"""Messages of IAM. They show nothing of a secret, even if it is one of their words."""


def quote(text: str, limit: int, secrets: Iterable[str | None]) -> str:
    """The text on one line, with at most ``limit`` characters, or the note that it is not shown.

    Args:
        text: from a service.
        limit: maximum number of characters.
        secrets: that the service was sent, or may know.
    """
    seen = text.strip()[: limit + _MARGIN]
    if seen.rstrip(".") not in _WELL_KNOWN | {""}:
        for secret in filter(None, secrets):
            seen = _until(seen, secret)
            if len(secret) < _TINY or _shows(_views(seen), secret):
                return NOT_SHOWN
    return one_line(seen, limit)


def redact(text: str, secrets: Iterable[str | None]) -> str:
    """Replace long secrets in a message of our own, in case one got into it."""
    for secret in filter(None, secrets):
        if len(secret) >= _LONG:
            text = text.replace(secret, "***")
    return text


def _until(text: str, secret: str) -> str:
    """The text up to the first piece of a token."""
    if len(secret) < _TOKEN or any(char.isspace() for char in secret):
        return text
    pieces = _pieces(secret, _LONG_PIECE)
    for start in range(len(text) - _LONG_PIECE + 1):
        if text[start : start + _LONG_PIECE] in pieces:
            return f"{text[:start]}***"
    return text


def _shows(texts: Iterable[str], secret: str) -> bool:
    """Whether a text shows a piece of a secret, whatever became of case, blanks and accents."""
    parts = [part for text in texts for part in text.split(_SEPARATOR)]
    for form in (_bare, _alphanumeric):
        hidden = form(secret)
        size = _LONG_PIECE if len(secret) >= _LONG else _SHORT_PIECE
        size = min(size, max(len(hidden), _SHORT_PIECE))
        pieces, ends = _pieces(hidden, size), range(_END_PIECE, size)
        for shown in map(form, parts):
            if any(shown[at : at + size] in pieces for at in range(len(shown) - size + 1)):
                return True
            if any(shown.endswith(hidden[:n]) or shown.startswith(hidden[-n:]) for n in ends):
                return True
    return False


def _pieces(text: str, size: int) -> set[str]:
    return {text[at : at + size] for at in range(len(text) - size + 1)}


def _bare(text: str) -> str:
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return "".join(plain.casefold().split())


def _alphanumeric(text: str) -> str:
    return _NOT_ALPHANUMERIC.sub("", _bare(text))


# --- decoding -------------------------------------------------------------------------------------


def _views(text: str) -> Iterator[str]:
    """The text, and what it becomes if it is decoded, also more than once."""
    views = [text]
    for view in views:
        yield view
        for decode in _DECODERS:
            if len(views) < _MAX_VIEWS and (decoded := decode(view)) and decoded not in views:
                views.append(decoded)


_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_BASE64 = re.compile(r"[A-Za-z0-9+/]{4,}")
_HEX = re.compile(r"[0-9a-fA-F]{6,}")
_SEPARATOR = "\0"
"""Between pieces that were decoded each for itself."""


def _from_json(text: str) -> str:
    def char(match: re.Match[str]) -> str:
        escaped = match[1]
        if len(escaped) > 1:
            return chr(int(escaped[1:], 16))
        return " " if escaped in "nrtbf" else escaped

    decoded = _ESCAPE.sub(char, text)
    return decoded.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _from_base64(text: str) -> str:
    found = _BASE64.findall("".join(text.split()).replace("-", "+").replace("_", "/"))
    runs = [run[start:] for run in found for start in range(4)]
    whole = [run[:-1] if len(run) % 4 == 1 else run for run in runs]
    padded = [run + "=" * (-len(run) % 4) for run in whole]
    return _SEPARATOR.join(base64.b64decode(run).decode("utf-8", "replace") for run in padded)


def _from_hex(text: str) -> str:
    runs = [run[start:] for run in _HEX.findall(text) for start in range(2)]
    return _SEPARATOR.join(
        bytes.fromhex(run[: len(run) // 2 * 2]).decode("utf-8", "replace") for run in runs
    )


def _from_latin1(text: str) -> str:
    """UTF-8 that was taken for Latin-1."""
    return text.encode("latin-1", "replace").decode("utf-8", "replace")


_DECODERS: tuple[Callable[[str], str], ...] = (
    html.unescape,
    unquote,
    unquote_plus,
    _from_json,
    _from_base64,
    _from_hex,
    _from_latin1,
)
