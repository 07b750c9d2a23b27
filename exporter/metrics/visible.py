"""What the counters of a target show: what they have counted, unless it is held at zero. Pure.

A series by user is kept by base and user, and is a part of the total of its base. It is shown as a
sum over workspaces and flavor types. An event that counts in a series that is held is not part of
the total either until then. So at any time, what the users show adds up to what the total shows.

A part is never held for less time than its total, since it is never older.
"""

from collections.abc import Callable

from exporter.metrics.counters import (
    EVENT_FAMILY_BY_NAME,
    Ledger,
    Series,
    SeriesKey,
    milliseconds,
    total_of,
)


def visible_series(ledger: Ledger, is_held: Callable[[SeriesKey], bool]) -> dict[SeriesKey, Series]:
    """The series to show, by family and `EventFamily.shown_labels`.

    Args:
        ledger: the values.
        is_held: whether a series is held at zero.
    """
    shown: dict[SeriesKey, Series] = {}
    parts: dict[SeriesKey, list[Series]] = {}
    held_back: dict[SeriesKey, int] = {}
    for key, series in ledger.items():
        is_zero = is_held(key)
        visible = _at_zero(series) if is_zero else series
        total = total_of(key)
        if total is None:
            shown[key] = visible
            continue
        name, values = key
        parts.setdefault((name, EVENT_FAMILY_BY_NAME[name].shown(values)), []).append(visible)
        if is_zero:
            held_back[total] = held_back.get(total, 0) + milliseconds(series.value)
    for total, amount in held_back.items():
        if amount and total in shown and not is_held(total):
            shown[total] = _less(shown[total], amount)
    return shown | {key: _sum(series) for key, series in parts.items()}


def _at_zero(series: Series) -> Series:
    return Series(series.created, counts=(0,) * len(series.counts))


def _less(series: Series, amount: int) -> Series:
    """A counter without some milliseconds; without its exemplar, which may be part of them."""
    return Series(series.created, (milliseconds(series.value) - amount) / 1000)


def _sum(parts: list[Series]) -> Series:
    if len(parts) == 1:
        return parts[0]
    total = sum(milliseconds(part.value) for part in parts)
    return Series(min(part.created for part in parts), total / 1000)
