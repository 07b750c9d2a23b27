"""Counters and histograms of events, rendered as lines."""

from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import TypeAlias

from prometheus_client.samples import Exemplar as LibraryExemplar
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from exporter.metrics.counters import (
    EVENT_FAMILIES,
    EVENT_FAMILY_BY_NAME,
    EventFamily,
    Exemplar,
    Ledger,
    Series,
    SeriesKey,
)
from exporter.metrics.exposition import FamilyLines, number, render_samples
from exporter.metrics.visible import visible_series

LineCache: TypeAlias = dict[SeriesKey, tuple[Series, FamilyLines]]
"""The lines of each series as last rendered: few change from poll to poll."""


def counter_lines(
    ledger: Ledger,
    constant: Mapping[str, str],
    is_held: Callable[[SeriesKey], bool],
    cache: LineCache,
) -> dict[str, FamilyLines]:
    """The lines of a target's counters and histograms, by family.

    Args:
        ledger: the values.
        constant: the target's labels.
        is_held: whether a series is held at zero.
        cache: for this target and these labels; is updated.
    """
    parts: dict[str, list[FamilyLines]] = {family.metric.name: [] for family in EVENT_FAMILIES}
    for key, series in visible_series(ledger, is_held).items():
        cached = cache.get(key)
        if cached is None or cached[0] != series:
            lines = cached and _changed_value(*cached, series)
            cached = cache[key] = (series, lines or _lines(key, series, constant))
        parts[key[0]].append(cached[1])
    return {
        name: FamilyLines(
            "".join(lines.text for lines in rendered),
            "".join(lines.openmetrics for lines in rendered),
        )
        for name, rendered in parts.items()
    }


def _changed_value(before: Series, lines: FamilyLines, series: Series) -> FamilyLines | None:
    """The lines of a counter of which only the value has changed; None = more has changed.

    All users with running jobs have such a counter, so it must be fast.
    """
    if series.counts or before.exemplars or series.exemplars or before.created != series.created:
        return None
    line = f"{lines.text.rpartition(' ')[0]} {number(series.value)}\n"
    return FamilyLines(line, line + lines.openmetrics.partition("\n")[2])


def _lines(key: SeriesKey, series: Series, constant: Mapping[str, str]) -> FamilyLines:
    family = EVENT_FAMILY_BY_NAME[key[0]]
    labels = {**constant, **dict(zip(family.shown_labels, key[1], strict=True))}
    return render_samples(
        _histogram(family, labels, series) if family.buckets else _counter(family, labels, series)
    )


def _counter(family: EventFamily, labels: dict[str, str], series: Series) -> list[Sample]:
    name = family.metric.name.removesuffix("_total")
    exemplar = _exemplar(series.exemplars[0] if series.exemplars else None)
    return [
        Sample(f"{name}_total", labels, series.value, None, exemplar),
        Sample(f"{name}_created", labels, series.created),
    ]


def _histogram(family: EventFamily, labels: dict[str, str], series: Series) -> list[Sample]:
    name = family.metric.name
    bounds = [*map(floatToGoString, family.buckets), "+Inf"]
    exemplars = series.exemplars or (None,) * len(bounds)
    totals = list(accumulate(series.counts))
    return [
        *(
            Sample(f"{name}_bucket", {**labels, "le": bound}, total, None, _exemplar(exemplar))
            for bound, total, exemplar in zip(bounds, totals, exemplars, strict=True)
        ),
        Sample(f"{name}_count", labels, totals[-1]),
        Sample(f"{name}_sum", labels, series.value),
        Sample(f"{name}_created", labels, series.created),
    ]


def _exemplar(exemplar: Exemplar | None) -> LibraryExemplar | None:
    if exemplar is None:
        return None
    return LibraryExemplar({"job_id": exemplar.job_id}, exemplar.value, exemplar.at)
