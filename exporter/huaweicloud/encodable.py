"""Makes JSON from outside encodable: a lone surrogate must not fail later, where it is written."""

import re

_REPLACEMENT = rb"\ufffd"
# The first two alternatives are not lone surrogates: an escaped backslash, and a pair.
_SURROGATE = re.compile(
    rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)


def encodable(text: bytes) -> bytes:
    r"""Replace the escapes of lone surrogates, such as ``\ud800``, which no encoding can carry."""
    if rb"\ud" not in text and rb"\uD" not in text:
        return text
    result = bytearray(text)
    for match in _SURROGATE.finditer(text):
        if match["lone"]:
            result[match.start() : match.end()] = _REPLACEMENT  # in place: it is as long
    return bytes(result)
