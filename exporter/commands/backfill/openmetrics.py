"""Families over a part of the grid as an OpenMetrics document with timestamps.

The format requires this order: family by family, in each series by series (or histogram by
histogram), and in each of those sample by sample.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from prometheus_client.utils import floatToGoString

from exporter.commands.backfill.grid import Grid
from exporter.commands.backfill.histogram import HistogramCurve
from exporter.commands.backfill.series import Family
from exporter.metrics.exposition import escape, header, number


class TargetSeries(NamedTuple):
    """The families of one target, and the labels that all its series have."""

    families: Sequence[Family]
    labels: Mapping[str, str]


def document(targets: Sequence[TargetSeries], grid: Grid, start: int, stop: int) -> Iterator[bytes]:
    """Yield the document in pieces, one for each series or histogram.

    Args:
        targets: all with the same families.
        grid: the times.
        start: position of the first.
        stop: position after the last.
    """
    for families in zip(*(target.families for target in targets), strict=True):
        metric = families[0].metric
        opening = header(metric, metric.name.removesuffix("_total"), escape(metric.help))
        for family, target in zip(families, targets, strict=True):
            for labels, curve in family.series.items():
                all_labels = {**target.labels, **dict(zip(family.labels, labels, strict=True))}
                if isinstance(curve, HistogramCurve):
                    lines = "".join(
                        _histogram(family, all_labels, curve.stretches(start, stop), grid)
                    )
                else:
                    series = _series(metric.name, all_labels)
                    lines = "".join(_values(series, curve.stretches(start, stop), grid))
                if lines:
                    yield f"{opening}{lines}".encode("utf-8", "replace")
                    opening = ""
    yield b"# EOF\n"


def _series(name: str, labels: Mapping[str, str]) -> str:
    """Format name and labels, sorted as on ``/metrics``."""
    inner = ",".join(f'{name}="{escape(value)}"' for name, value in sorted(labels.items()))
    return f"{name}{{{inner}}}"


def _values(series: str, stretches: Iterable[tuple[int, int, float]], grid: Grid) -> Iterator[str]:
    for start, stop, value in stretches:
        before = f"{series} {number(value)} "
        between = f"\n{before}"
        yield f"{before}{between.join(grid.texts[start:stop])}\n"


def _histogram(
    family: Family,
    labels: Mapping[str, str],
    stretches: Iterable[tuple[int, int, tuple[float, ...]]],
    grid: Grid,
) -> Iterator[str]:
    """Yield all lines of a time, then those of the next."""
    name = family.metric.name
    bounds = [*map(floatToGoString, family.buckets), "+Inf"]
    series = [_series(f"{name}_bucket", {**labels, "le": bound}) for bound in bounds]
    series += [_series(f"{name}_count", labels), _series(f"{name}_sum", labels)]
    for start, stop, values in stretches:
        *counts, total = values
        numbers = [*counts, counts[-1], total]
        lines = [f"{each} {number(value)}" for each, value in zip(series, numbers, strict=True)]
        for text in grid.texts[start:stop]:
            end = f" {text}\n"
            yield end.join([*lines, ""])
