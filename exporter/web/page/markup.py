"""Texts, times, bars and tables as HTML. All untrusted strings are escaped by `text`."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import NamedTuple

NOTHING = "\N{EN DASH}"
"""Placeholder for a missing value."""

_MAX_LENGTH = 64
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


class Column(NamedTuple):
    """A column of a table: its heading, and the CSS class of its cells."""

    heading: str
    style: str = ""


def text(value: object, max_length: int = _MAX_LENGTH) -> str:
    """Escape and truncate an untrusted string; safe in a quoted attribute too."""
    plain = str(value)
    return escape(plain if len(plain) <= max_length else f"{plain[: max_length - 1]}…")


def name(value: str) -> str:
    """An untrusted name, isolated from the direction of the surrounding text."""
    return f"<bdi>{text(value)}</bdi>"


def duration(seconds: float) -> str:
    """Format a duration in its two largest units."""
    whole = int(max(0.0, seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def elapsed(since: float | None, now: float, *, after: str = "") -> str:
    """The time elapsed since a timestamp, and the timestamp; both arguments in Unix seconds."""
    try:
        at = datetime.fromtimestamp(since or 0.0, UTC)
    except (OverflowError, ValueError, OSError):
        at = None
    if not since or at is None:
        return '<span class="dim">unknown</span>'
    return (
        f"{duration(now - since)}{after}"
        f'<small><time datetime="{at:%Y-%m-%dT%H:%M:%SZ}">{at:%Y-%m-%d %H:%M:%S} UTC</time></small>'
    )


def bar(parts: Iterable[tuple[str, int]], scale: int) -> str:
    """A bar of numbers by phase, in the colors of the phases; ``scale`` is its full width."""
    left, rects, labels = 0.0, [], []
    for phase, number in parts:
        if number:
            width = 100 * number / max(1, scale)
            rects.append(f'<rect class="{phase}" x="{left:.2f}" width="{width:.2f}" height="8"/>')
            labels.append(f"{number} {phase}")
            left += width
    label = ", ".join(labels) or "none"
    return (
        f'<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}"><rect class="rest" width="100" height="8"/>{"".join(rects)}</svg>'
    )


def table(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], *, empty: str, style: str = "rows"
) -> str:
    """A table of cells that are already HTML, or the text ``empty`` if it has no rows."""
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
