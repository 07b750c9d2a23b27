"""Content negotiation (RFC 9110, 12.5): text or OpenMetrics, the version, and compression.

Never an error: unparsable parts are ignored; a client that accepts nothing we have gets
uncompressed text 0.0.4, which every scraper reads.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

Format = Literal["text", "openmetrics"]


class Negotiated(NamedTuple):
    """The representation to send.

    Attributes:
        format: of the body.
        content_type: value of the header.
        gzip: whether to compress the body.
    """

    format: Format
    content_type: str
    gzip: bool


class _MediaType(NamedTuple):
    """An available representation; ``escapes``: its version has the parameter ``escaping``."""

    format: Format
    media_type: str
    version: str
    escapes: bool

    def content_type(self, escaping: str) -> str:
        label = f"{self.media_type}; version={self.version}; charset=utf-8"
        return f"{label}; escaping={escaping}" if self.escapes and escaping else label


class _Range(NamedTuple):
    """One element of ``Accept``; version and escaping are "" if absent, or unknown."""

    media_type: str
    version: str
    escaping: str
    quality: float


class _Match(NamedTuple):
    """The best range for a media type, and how precisely it matches."""

    precision: int
    quality: float
    escaping: str


_TEXT = _MediaType("text", "text/plain", "0.0.4", escapes=False)
_TEXT_1 = _MediaType("text", "text/plain", "1.0.0", escapes=True)
_OPENMETRICS_0 = _MediaType("openmetrics", "application/openmetrics-text", "0.0.1", escapes=False)
_OPENMETRICS_1 = _MediaType("openmetrics", "application/openmetrics-text", "1.0.0", escapes=True)

_NAMED_FROM = {_OPENMETRICS_1: 3, _OPENMETRICS_0: 4, _TEXT_1: 4}
"""The precision from which a media type counts as requested by name.

Of equal quality, these are preferred, in this order. A type without a version names OpenMetrics
1.0.0 and text 0.0.4.
"""
_PREFERENCE = (_TEXT, _TEXT_1, _OPENMETRICS_1, _OPENMETRICS_0)
"""The order of the others: first what any client can read."""

_ESCAPINGS = frozenset({"allow-utf-8", "underscores", "dots", "values"})
"""All of them are correct: our names need no escaping."""

CONTENT_TYPES = frozenset(
    each.content_type(escaping) for each in _PREFERENCE for escaping in ("", *_ESCAPINGS)
)
"""Every possible Content-Type."""

_RANGES = frozenset(
    {"*", "*/*", *(each.media_type for each in _PREFERENCE)}
    | {each.media_type.partition("/")[0] + "/*" for each in _PREFERENCE}
)
_CODINGS = frozenset({"*", "gzip", "x-gzip", "identity"})
"""Elements of other values cannot change the choice, and are passed over quickly."""

_MAX_LENGTH = 2**12
"""This much of a header is read, without an element that is cut off by it."""

# Neither pattern backtracks: what follows a part can always match nothing.
_ELEMENTS = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*"?)+', re.DOTALL)
_PARTS = re.compile(r'(?:[^";]|"(?:[^"\\]|\\.)*"?)+', re.DOTALL)
_QUALITY = re.compile(r"(?:0?\.[0-9]+|0\.?|1(?:\.0*)?)")


def negotiate(accept: str | None, accept_encoding: str | None) -> Negotiated:
    """Choose the best available representation.

    Args:
        accept: the header, repeated ones joined by commas, or None.
        accept_encoding: likewise.
    """
    chosen, escaping = _choose(dict.fromkeys(_ranges(accept)))  # each range once
    return Negotiated(chosen.format, chosen.content_type(escaping), _wants_gzip(accept_encoding))


def _choose(ranges: Iterable[_Range]) -> tuple[_MediaType, str]:
    """The media type of highest quality, and the escaping to name with it."""
    matches = {each: _match(each, ranges) for each in _PREFERENCE}
    named = [each for each, least in _NAMED_FROM.items() if matches[each].precision >= least]
    best = max((*named, *_PREFERENCE), key=lambda each: matches[each].quality)
    if not matches[best].quality:
        return _TEXT, ""
    return best, matches[best].escaping


def _match(available: _MediaType, ranges: Iterable[_Range]) -> _Match:
    """The most precise range counts; of equally precise ones, the one of highest quality."""
    best = _Match(0, 0.0, "")
    for accepted in ranges:
        match = _Match(_precision(accepted, available), accepted.quality, accepted.escaping)
        if match.precision and match[:2] > best[:2]:
            best = match
    return best


def _precision(accepted: _Range, available: _MediaType) -> int:
    """How precisely a range names a media type; 0 if it does not cover it."""
    if accepted.media_type == available.media_type:
        return {available.version: 4, "": 3}.get(accepted.version, 0)
    if accepted.media_type == available.media_type.partition("/")[0] + "/*":
        return 2
    return int(accepted.media_type in ("*/*", "*"))


def _wants_gzip(accept_encoding: str | None) -> bool:
    """True if gzip is named or covered by ``*``, and not ranked below no compression."""
    qualities: dict[str, float] = {}
    for coding, parameters in _elements(accept_encoding, _CODINGS):
        name = "gzip" if coding == "x-gzip" else coding
        quality = _quality(parameters)
        if quality is not None:
            qualities[name] = max(quality, qualities.get(name, 0.0))
    gzip = qualities.get("gzip", qualities.get("*", 0.0))
    return gzip > 0 and gzip >= qualities.get("identity", 0.0)


def _ranges(accept: str | None) -> Iterator[_Range]:
    for media_type, parameters in _elements(accept, _RANGES):
        quality = _quality(parameters)
        if quality is not None:
            escaping = parameters.get("escaping", "").lower()
            known = escaping if escaping in _ESCAPINGS else ""
            yield _Range(media_type, parameters.get("version", ""), known, quality)


def _elements(
    header: str | None, wanted: Collection[str]
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Each wanted element of a list header: its value in lower case, and its parameters."""
    for match in _ELEMENTS.finditer((header or "")[:_MAX_LENGTH]):
        if match.end() == _MAX_LENGTH and (header or "")[_MAX_LENGTH:][:1] not in ("", ","):
            return  # cut off: q=0.5 may have become q=0
        value = match[0].partition(";")[0].strip().lower()
        if value in wanted:
            pairs = (each.partition("=") for each in _PARTS.findall(match[0])[1:])
            yield (
                value,
                {name.strip().lower(): _unquoted(text.strip()) for name, _, text in pairs},
            )


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text


def _quality(parameters: Mapping[str, str]) -> float | None:
    """The value of ``q``; None if it is malformed."""
    text = parameters.get("q", "1")
    return float(text) if _QUALITY.fullmatch(text) else None
