"""The counters and histograms of what has happened, as lines."""

from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import TypeAlias

from prometheus_client.samples import Exemplar as LibraryExemplar
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from exporter.metrics.counters import (
    BASE,
    EVENT_FAMILIES,
    EVENT_FAMILY_BY_NAME,
    EventFamily,
    Exemplar,
    Ledger,
    Series,
    SeriesKey,
)
from exporter.metrics.exposition import FamilyLines, render_samples

LineCache: TypeAlias = dict[SeriesKey, tuple[Series, FamilyLines]]
"""The lines of series as rendered last: few change from poll to poll."""


def counter_lines(
    ledger: Ledger,
    constant: Mapping[str, str],
    is_held: Callable[[SeriesKey], bool],
    cache: LineCache,
) -> dict[str, FamilyLines]:
    """The lines of a target's counters and histograms, by family.

    Args:
        ledger: what they count.
        constant: the target's labels.
        is_held: whether a series shows zero, whatever it counts.
        cache: of this target and these labels, kept up to date.
    """
    parts: dict[str, list[FamilyLines]] = {row.metric.name: [] for row in EVENT_FAMILIES}
    for key, series in ledger.items():
        shown = _at_zero(series) if is_held(key) else series
        known = cache.get(key)
        if known is None or known[0] != shown:
            known = cache[key] = (shown, _lines(key, shown, constant))
        parts[key[0]].append(known[1])
    return {
        name: FamilyLines(
            "".join(lines.text for lines in rendered),
            "".join(lines.openmetrics for lines in rendered),
        )
        for name, rendered in parts.items()
    }


def _at_zero(series: Series) -> Series:
    return Series(series.created, counts=(0,) * len(series.counts))


def _lines(key: SeriesKey, series: Series, constant: Mapping[str, str]) -> FamilyLines:
    row = EVENT_FAMILY_BY_NAME[key[0]]
    labels = {**constant, **dict(zip((*BASE, *row.labels), key[1], strict=True))}
    return render_samples(
        _histogram(row, labels, series) if row.buckets else _counter(row, labels, series)
    )


def _counter(row: EventFamily, labels: dict[str, str], series: Series) -> list[Sample]:
    name = row.metric.name.removesuffix("_total")
    exemplar = _exemplar(series.exemplars[0] if series.exemplars else None)
    return [
        Sample(f"{name}_total", labels, series.value, None, exemplar),
        Sample(f"{name}_created", labels, series.created),
    ]


def _histogram(row: EventFamily, labels: dict[str, str], series: Series) -> list[Sample]:
    name = row.metric.name
    bounds = [*map(floatToGoString, row.buckets), "+Inf"]
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
