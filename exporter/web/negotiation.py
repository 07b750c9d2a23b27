"""What a client wants: text or OpenMetrics, in which version, compressed or not (RFC 9110, 12.5).

Never an error. What cannot be read is as if it were not said, and who can be given nothing of what
was asked for gets uncompressed text 0.0.4, which every scraper reads.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

Format = Literal["text", "openmetrics"]


class Negotiated(NamedTuple):
    """What to send.

    Attributes:
        format: of the body.
        content_type: its exact label.
        gzip: whether to send it compressed.
    """

    format: Format
    content_type: str
    gzip: bool


class _MediaType(NamedTuple):
    """A representation that we have; ``escapes``: whether its version knows ``escaping``."""

    format: Format
    media_type: str
    version: str
    escapes: bool

    def content_type(self, escaping: str) -> str:
        label = f"{self.media_type}; version={self.version}; charset=utf-8"
        return f"{label}; escaping={escaping}" if self.escapes and escaping else label


class _Range(NamedTuple):
    """One element of ``Accept``; "" for a version or an escaping that is not there or not known."""

    media_type: str
    version: str
    escaping: str
    quality: float


class _Match(NamedTuple):
    """How well the best range for a kind fits it, and what it says."""

    precision: int
    quality: float
    escaping: str


_TEXT = _MediaType("text", "text/plain", "0.0.4", escapes=False)
_TEXT_1 = _MediaType("text", "text/plain", "1.0.0", escapes=True)
_OPENMETRICS_0 = _MediaType("openmetrics", "application/openmetrics-text", "0.0.1", escapes=False)
_OPENMETRICS_1 = _MediaType("openmetrics", "application/openmetrics-text", "1.0.0", escapes=True)

_NAMED = {_OPENMETRICS_1: 3, _OPENMETRICS_0: 4, _TEXT_1: 4}
"""From which precision on a kind was asked for by name: of equals those come first, in this order.

The type alone, without a version, names OpenMetrics 1.0.0 and text 0.0.4.
"""
_PREFERENCE = (_TEXT, _TEXT_1, _OPENMETRICS_1, _OPENMETRICS_0)
"""Then comes what any client can read."""

_ESCAPINGS = frozenset({"allow-utf-8", "underscores", "dots", "values"})
"""All are true of our names, which need no escaping."""

CONTENT_TYPES = frozenset(
    kind.content_type(escaping) for kind in _PREFERENCE for escaping in ("", *_ESCAPINGS)
)
"""Every label there is."""

_LONGEST = 2**16
"""Characters of a header that are worth reading."""

# In both, whatever follows can always match nothing, so nothing is ever tried twice.
_ELEMENTS = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*"?)+', re.DOTALL)
_PARTS = re.compile(r'(?:[^";]|"(?:[^"\\]|\\.)*"?)+', re.DOTALL)
_QUALITY = re.compile(r"(?:0?\.[0-9]+|0\.?|1(?:\.0*)?)")


def negotiate(accept: str | None, accept_encoding: str | None) -> Negotiated:
    """The best that we have for a client.

    Args:
        accept: the header, several of them joined by commas, or None.
        accept_encoding: likewise.
    """
    kind, escaping = _kind(list(_ranges(accept)))
    return Negotiated(kind.format, kind.content_type(escaping), _wants_gzip(accept_encoding))


def _kind(ranges: Iterable[_Range]) -> tuple[_MediaType, str]:
    """The kind of highest quality, and how to name its escaping."""
    matches = {kind: _match(kind, ranges) for kind in _PREFERENCE}
    named = [kind for kind, least in _NAMED.items() if matches[kind].precision >= least]
    best = max((*named, *_PREFERENCE), key=lambda kind: matches[kind].quality)
    if not matches[best].quality:
        return _TEXT, ""
    return best, matches[best].escaping


def _match(kind: _MediaType, ranges: Iterable[_Range]) -> _Match:
    """The most precise range counts; of equally precise ones the best."""
    best = _Match(0, 0.0, "")
    for one in ranges:
        match = _Match(_precision(one, kind), one.quality, one.escaping)
        if match.precision and match[:2] > best[:2]:
            best = match
    return best


def _precision(one: _Range, kind: _MediaType) -> int:
    """0: the range does not cover the kind."""
    if one.media_type == kind.media_type:
        return {kind.version: 4, "": 3}.get(one.version, 0)
    if one.media_type == kind.media_type.partition("/")[0] + "/*":
        return 2
    return int(one.media_type in ("*/*", "*"))


def _wants_gzip(accept_encoding: str | None) -> bool:
    """Whether gzip is named or covered by ``*``, and not liked less than no compression."""
    qualities: dict[str, float] = {}
    for coding, parameters in _elements(accept_encoding):
        name = "gzip" if coding == "x-gzip" else coding
        quality = _quality(parameters)
        if quality is not None:
            qualities[name] = max(quality, qualities.get(name, 0.0))
    gzip = qualities.get("gzip", qualities.get("*", 0.0))
    return gzip > 0 and gzip >= qualities.get("identity", 0.0)


def _ranges(accept: str | None) -> Iterator[_Range]:
    for media_type, parameters in _elements(accept):
        quality = _quality(parameters)
        if quality is not None:
            escaping = parameters.get("escaping", "").lower()
            known = escaping if escaping in _ESCAPINGS else ""
            yield _Range(media_type, parameters.get("version", ""), known, quality)


def _elements(header: str | None) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Each element of a list: its value in lower case, and its parameters."""
    if header is None or len(header) > _LONGEST:
        return
    for element in _ELEMENTS.findall(header):
        value, *parameters = _PARTS.findall(element) or [""]
        pairs = (parameter.partition("=") for parameter in parameters)
        yield (
            value.strip().lower(),
            {name.strip().lower(): _unquoted(text.strip()) for name, _, text in pairs},
        )


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text


def _quality(parameters: Mapping[str, str]) -> float | None:
    """``q``; None if it cannot be read."""
    text = parameters.get("q", "1")
    return float(text) if _QUALITY.fullmatch(text) else None
