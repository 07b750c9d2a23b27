"""Texts, times, pictures and tables as HTML. All that comes from outside passes through `text`."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import NamedTuple

NOTHING = "\N{EN DASH}"
"""Stands where there is nothing to tell."""

_LONGEST = 64
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


class Column(NamedTuple):
    """A column of a table: its heading, and a class of the style sheet for all its cells."""

    heading: str
    style: str = ""


def text(value: object, longest: int = _LONGEST) -> str:
    """A text from anywhere, cut short; also fit for a quoted attribute."""
    plain = str(value)
    return escape(plain if len(plain) <= longest else f"{plain[: longest - 1]}…")


def name(value: str) -> str:
    """A name from anywhere, in whatever direction it is written."""
    return f"<bdi>{text(value)}</bdi>"


def span(seconds: float) -> str:
    """How long something takes, in the two largest units."""
    whole = int(max(0.0, seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def since(seconds: float | None, now: float, before: str = "", after: str = "") -> str:
    """How long ago a moment was, and the moment itself; both in unix seconds."""
    try:
        at = datetime.fromtimestamp(seconds or 0.0, UTC)
    except (OverflowError, ValueError, OSError):
        at = None
    if not seconds or at is None:
        return '<span class="dim">unknown</span>'
    return (
        f"{before}{span(now - seconds)}{after}"
        f'<small><time datetime="{at:%Y-%m-%dT%H:%M:%SZ}">{at:%Y-%m-%d %H:%M:%S} UTC</time></small>'
    )


def bar(parts: Iterable[tuple[str, int]], scale: int) -> str:
    """A picture of numbers, each in the colour of its phase, of which ``scale`` fill it."""
    left, rects, words = 0.0, [], []
    for phase, number in parts:
        if number:
            width = 100 * number / max(1, scale)
            rects.append(f'<rect class="{phase}" x="{left:.2f}" width="{width:.2f}" height="8"/>')
            words.append(f"{number} {phase}")
            left += width
    label = ", ".join(words) or "none"
    return (
        f'<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}"><rect class="rest" width="100" height="8"/>{"".join(rects)}</svg>'
    )


def table(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], *, empty: str, style: str = "rows"
) -> str:
    """A table of cells that are HTML already, or a sentence if it has no rows."""
    starts = [
        (f'<td class="{column.style}"' if column.style else "<td")
        + f' data-label="{column.heading}"><span>'
        for column in columns
    ]
    body = "".join(
        "<tr>"
        + "".join(f"{start}{cell}</span></td>" for start, cell in zip(starts, cells, strict=True))
        + "</tr>\n"
        for cells in rows
    )
    if not body:
        return f'<p class="dim">{empty}</p>\n'
    head = "".join(
        f'<th scope="col" class="{column.style}">{column.heading}</th>' for column in columns
    )
    return (
        f'<table class="{style}">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table>\n"
    )
