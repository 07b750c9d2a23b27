"""What the counters of a target show: what they have counted, unless it is held at zero. Pure.

A series by user is kept by base and user, and is a part of the total of its base. It is shown as a
sum over workspaces and flavor types. An event that counts in a series that is held is not part of
the total either until then. So at any time, what the users show adds up to what the total shows.

A part is never held for less time than its total, since it is never older.
"""

from collections.abc import Callable

from exporter.metrics.counters import (
    USER_FAMILIES,
    Ledger,
    Series,
    SeriesKey,
    milliseconds,
    shown_key,
    total_of,
)


def visible_series(ledger: Ledger, is_held: Callable[[SeriesKey], bool]) -> dict[SeriesKey, Series]:
    """The series to show, by family and `EventFamily.shown_labels`.

    Args:
        ledger: the values.
        is_held: whether a series is held at zero.
    """
    shown: dict[SeriesKey, Series] = {}
    held_back: dict[SeriesKey, int] = {}
    for key, series in ledger.items():
        is_zero = is_held(key)
        visible = _at_zero(series) if is_zero else series
        if key[0] not in USER_FAMILIES:
            shown[key] = visible
            continue
        shows = shown_key(key)
        other = shown.get(shows)
        shown[shows] = visible if other is None else _sum(other, visible)
        if is_zero and series.value:
            total = total_of(key)
            held_back[total] = held_back.get(total, 0) + milliseconds(series.value)
    for total, amount in held_back.items():
        if total in shown and not is_held(total):
            shown[total] = _less(shown[total], amount)
    return shown


def _at_zero(series: Series) -> Series:
    return Series(series.created, counts=(0,) * len(series.counts))


def _less(series: Series, amount: int) -> Series:
    """A counter without some milliseconds; without its exemplar, which may be part of them."""
    return Series(series.created, (milliseconds(series.value) - amount) / 1000)


def _sum(one: Series, other: Series) -> Series:
    total = milliseconds(one.value) + milliseconds(other.value)
    return Series(min(one.created, other.created), total / 1000)
