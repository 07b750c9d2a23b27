"""Families over a stretch of the grid as an OpenMetrics document with timestamps.

As the format wants it, families stand one after the other, in each a series (or a histogram) after
the other, and in each of those one moment after the other.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from prometheus_client.utils import floatToGoString

from exporter.commands.backfill.grid import Grid
from exporter.commands.backfill.histogram import HistogramCurve
from exporter.commands.backfill.series import Family
from exporter.metrics.exposition import escape, header, number


class TargetSeries(NamedTuple):
    """The families of one target, and the labels that all of its series carry."""

    families: Sequence[Family]
    labels: Mapping[str, str]


def document(targets: Sequence[TargetSeries], grid: Grid, lo: int, hi: int) -> Iterator[bytes]:
    """The document in pieces, a series or histogram each.

    Args:
        targets: all with the same families.
        grid: the moments.
        lo: position of the first.
        hi: position after the last.
    """
    for families in zip(*(target.families for target in targets), strict=True):
        metric = families[0].metric
        opening = header(metric, metric.name.removesuffix("_total"), escape(metric.help))
        for family, target in zip(families, targets, strict=True):
            for labels, curve in family.series.items():
                named = {**target.labels, **dict(zip(family.labels, labels, strict=True))}
                if isinstance(curve, HistogramCurve):
                    lines = "".join(_histogram(family, named, curve.stretches(lo, hi), grid))
                else:
                    series = _series(metric.name, named)
                    lines = "".join(_values(series, curve.stretches(lo, hi), grid))
                if lines:
                    yield f"{opening}{lines}".encode("utf-8", "replace")
                    opening = ""
    yield b"# EOF\n"


def _series(name: str, labels: Mapping[str, str]) -> str:
    """Name and labels, sorted as on ``/metrics``."""
    inner = ",".join(f'{name}="{escape(value)}"' for name, value in sorted(labels.items()))
    return f"{name}{{{inner}}}"


def _values(series: str, stretches: Iterable[tuple[int, int, float]], grid: Grid) -> Iterator[str]:
    for lo, hi, value in stretches:
        before = f"{series} {number(value)} "
        between = f"\n{before}"
        yield f"{before}{between.join(grid.texts[lo:hi])}\n"


def _histogram(
    family: Family,
    labels: Mapping[str, str],
    stretches: Iterable[tuple[int, int, tuple[float, ...]]],
    grid: Grid,
) -> Iterator[str]:
    """All lines of a moment, then those of the next."""
    name = family.metric.name
    bounds = [*map(floatToGoString, family.buckets), "+Inf"]
    series = [_series(f"{name}_bucket", {**labels, "le": bound}) for bound in bounds]
    series += [_series(f"{name}_count", labels), _series(f"{name}_sum", labels)]
    for lo, hi, values in stretches:
        *counts, total = values
        shown = [*counts, counts[-1], total]
        lines = [f"{each} {number(value)}" for each, value in zip(series, shown, strict=True)]
        for text in grid.texts[lo:hi]:
            end = f" {text}\n"
            yield end.join([*lines, ""])
