"""Repair JSON that is nearly right: rewrite what msgspec rejects even where nobody reads it."""

import re

from exporter.errors import InvalidResponseError
from exporter.huaweicloud.encodable import encodable

_MAX_DEPTH = 64
_MAX_TOKENS = 1_000_000
# What is skipped before a token is limited, and so is a token: no single step takes long.
_TOKEN = re.compile(
    rb"""
    [^"\[\]{}NI-]{0,65536}+
    (?:
      (?P<token> "(?:[^"\\]{1,64}+|\\.){0,50000}+" | [\[\]{}] | NaN | -?Infinity | " )
    | [NI-]
    )?
    """,
    re.DOTALL | re.VERBOSE,
)
_STEPS = {b"{": 1, b"[": 1, b"}": -1, b"]": -1}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Control characters but the line break, as another one that is allowed.
_CONTROL = bytes.maketrans(bytes({*range(32)} - {*b"\n"}), b"\x7f" * 31)
_ODD = re.compile(rb"[\x00-\x1f]|\\u[dD]")
_ABSURD = b"{}"  # has the wrong type for texts, numbers and arrays


def repair(body: bytes) -> bytes:
    """Rewrite what msgspec rejects; anything else is unchanged.

    This is about lone surrogates and control characters in texts, NaN and Infinity, and values
    that are nested too deeply. The result may still not be JSON.

    Raises:
        InvalidResponseError: it would take too long.
    """
    parts: list[bytes] = []
    done = len(BYTE_ORDER_MARK) if body.startswith(BYTE_ORDER_MARK) else 0
    depth = 0
    deep = 0  # where a value that is nested too deeply begins
    for number, match in enumerate(_TOKEN.finditer(body)):
        if number == _MAX_TOKENS:
            raise InvalidResponseError("the response is malformed and too large to be repaired")
        token, start, replacement = match["token"], match.start("token"), b""
        if token is None:
            continue
        if token == b'"':
            break  # a text without an end
        step = _STEPS.get(token, 0)
        depth += step
        if step > 0 and depth == _MAX_DEPTH + 1:
            deep = start
        elif step < 0 and depth == _MAX_DEPTH:
            start, replacement = deep, _ABSURD
        elif not step and depth <= _MAX_DEPTH:
            replacement = _replacement(token)
        if replacement:
            parts += body[done:start], replacement
            done = match.end()
    if depth > _MAX_DEPTH:
        raise InvalidResponseError("the response is nested too deeply")
    return b"".join([*parts, body[done:]])


def _replacement(token: bytes) -> bytes:
    """Return what to write instead of a token; "" if it can stay."""
    if not token.startswith(b'"'):
        return _ABSURD
    if not _ODD.search(token):
        return b""
    better = encodable(token).translate(_CONTROL).replace(b"\n", rb"\n")
    return b"" if better == token else better
