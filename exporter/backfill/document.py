"""Families over a stretch of the grid as an OpenMetrics document with timestamps.

As the format wants it, families stand one after the other, in each a series after the other, and
in each series one moment after the other.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from exporter.backfill.grid import Grid
from exporter.backfill.history import Family, LabelValues
from exporter.exposition import escape, header, number


class Told(NamedTuple):
    """The families of one target, and the labels that all of its series carry."""

    families: Sequence[Family]
    labels: Mapping[str, str]


def document(targets: Sequence[Told], grid: Grid, lo: int, hi: int) -> Iterator[bytes]:
    """The document in pieces, a series each.

    Args:
        targets: all with the same families.
        grid: the moments.
        lo: position of the first.
        hi: position after the last.
    """
    for families in zip(*(target.families for target in targets), strict=True):
        metric = families[0].metric
        name = metric.name.removesuffix("_total")
        opening = header(metric, name, escape(metric.help))
        for family, target in zip(families, targets, strict=True):
            for labels, curve in family.series.items():
                lines = _lines(
                    _series(family, labels, target.labels), curve.stretches(lo, hi), grid
                )
                if lines:
                    yield f"{opening}{lines}".encode("utf-8", "replace")
                    opening = ""
    yield b"# EOF\n"


def _series(family: Family, labels: LabelValues, constant: Mapping[str, str]) -> str:
    """Name and labels, sorted as on ``/metrics``."""
    named = {**constant, **dict(zip(family.labels, labels, strict=True))}
    inner = ",".join(f'{name}="{escape(value)}"' for name, value in sorted(named.items()))
    return f"{family.metric.name}{{{inner}}}"


def _lines(series: str, stretches: Iterable[tuple[int, int, float]], grid: Grid) -> str:
    parts: list[str] = []
    for lo, hi, value in stretches:
        before = f"{series} {number(value)} "
        parts += before, f"\n{before}".join(grid.texts[lo:hi]), "\n"
    return "".join(parts)
