"""Samples to Prometheus text and OpenMetrics bytes, equal to the output of prometheus_client.

``prometheus_client.generate_latest`` costs about 10 microseconds a sample. Here, a target's samples
are rendered once a poll (`render_block`), and the lines of all targets are joined, encoded and
compressed (`assemble`). Both formats share the lines wherever they are equal.
"""

from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from itertools import chain, repeat
from typing import NamedTuple

from isal import igzip
from prometheus_client.metrics_core import Metric as LibraryMetric
from prometheus_client.samples import Exemplar, Sample

_LONGEST_WHOLE_PART = 6
"""Digits before the decimal point that Go writes without an exponent."""

_WORDS = {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}
_EXPONENTS = [f"e+{digits - 1:02d}" for digits in range(20)]
_BATCH = 10_000  # samples: a few milliseconds in which no other thread runs


class Metric(NamedTuple):
    """A metric family: full name (counters with ``_total``), type, help."""

    name: str
    type: str
    help: str


class SampleBlock(NamedTuple):
    """The samples of one target in one family: gauges, and counters without ``_created``.

    Attributes:
        metric: the family.
        labels: names of the labels that differ between samples.
        constant: labels that all samples share.
        samples: the values of ``labels``, in their order, and the value of the sample.
    """

    metric: Metric
    labels: tuple[str, ...]
    constant: Mapping[str, str]
    samples: Sequence[tuple[tuple[str, ...], float]]


class FamilyLines(NamedTuple):
    """The rendered samples of one family in both formats; the same string if they are equal."""

    text: str
    openmetrics: str


class Exposition(NamedTuple):
    """One generation of the whole body, in every format."""

    text: bytes
    text_gzip: bytes
    openmetrics: bytes
    openmetrics_gzip: bytes
    generation: int = 0


def escape(value: str) -> str:
    """Escape a label value."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def number(value: float) -> str:
    """Format a value as Go does, like prometheus_client and Prometheus."""
    text = repr(float(value))
    whole, _, fraction = text.partition(".")
    if not fraction:
        return _WORDS.get(text, text)
    if len(whole) > _LONGEST_WHOLE_PART and value > 0:
        mantissa = f"{whole[0]}.{whole[1:]}{fraction}".rstrip("0.")
        return mantissa + _EXPONENTS[len(whole)]
    return text


class _Numbers(dict[float, str]):
    """A cache, since values repeat within a block."""

    def __missing__(self, value: float) -> str:
        text = number(value)
        if value:  # 0.0 and -0.0 are one key
            self[value] = text
        return text


def render_block(block: SampleBlock) -> FamilyLines:
    """Render a block, column by column: a Python loop over the samples would be much slower."""
    pieces, order = _pieces(block)
    numbers = _Numbers().__getitem__
    batches = []
    for start in range(0, len(block.samples), _BATCH):
        batch = block.samples[start : start + _BATCH]
        parts: list[Iterable[str]] = []
        for piece, position in zip(pieces, order, strict=False):
            parts += repeat(piece), _escaped([labels[position] for labels, _ in batch])
        parts += repeat(pieces[-1]), [numbers(value) for _, value in batch], repeat("\n")
        batches.append("".join(chain.from_iterable(zip(*parts, strict=False))))
    joined = "".join(batches)
    return FamilyLines(joined, joined)


def _pieces(block: SampleBlock) -> tuple[list[str], tuple[int, ...]]:
    """The constant text before each varying label value and before the sample's value.

    Labels are sorted as in prometheus_client. Also returns the positions of the varying values.
    """
    positions = {name: position for position, name in enumerate(block.labels)}
    order = []
    pieces = []
    piece = block.metric.name
    opening = "{"
    for name in sorted({*block.constant, *block.labels}):
        piece += f'{opening}{name}="'
        if name in positions:
            order.append(positions[name])
            pieces.append(piece)
            piece = '"'
        else:
            piece += f'{escape(block.constant[name])}"'
        opening = ","
    pieces.append(piece + (" " if opening == "{" else "} "))
    return pieces, tuple(order)


def _escaped(values: Sequence[str]) -> Sequence[str]:
    """Escaped label values. There is hardly ever anything to escape."""
    together = "".join(values)
    if any(char in together for char in '\\\n"'):
        return list(map(escape, values))
    return values


def render_samples(samples: Iterable[Sample]) -> FamilyLines:
    """Render histograms, counters with ``_created``, and exemplars, one sample at a time.

    The text format gets no ``_created``: it would be an additional gauge for each counter.
    """
    text, openmetrics = [], []
    for sample in samples:
        line = _line(sample)
        if not sample.name.endswith("_created"):
            text.append(line + "\n")
        openmetrics.append(f"{line}{_exemplar(sample.exemplar)}\n")
    return FamilyLines("".join(text), "".join(openmetrics))


def _line(sample: Sample) -> str:
    labels = ",".join(f'{name}="{escape(value)}"' for name, value in sorted(sample.labels.items()))
    name = f"{sample.name}{{{labels}}}" if labels else sample.name
    return f"{name} {number(sample.value)}"


def _exemplar(exemplar: Exemplar | None) -> str:
    if exemplar is None:
        return ""
    labels = ",".join(
        f'{name}="{escape(value)}"' for name, value in sorted(exemplar.labels.items())
    )
    time = "" if exemplar.timestamp is None else f" {exemplar.timestamp}"
    return f" # {{{labels}}} {number(exemplar.value)}{time}"


def from_library(family: LibraryMetric) -> tuple[Metric, FamilyLines]:
    """Convert a family of a prometheus_client registry."""
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return Metric(name, family.type, family.documentation), render_samples(family.samples)


def assemble(
    families: Iterable[tuple[Metric, Sequence[FamilyLines]]], generation: int = 0
) -> Exposition:
    """Join families, each with the lines of all targets, into one body.

    Args:
        families: in the order of the output; a family without samples gets no header.
        generation: its number.
    """
    text: list[str] = []
    openmetrics: list[str] = []
    for metric, blocks in families:
        if not any(lines.openmetrics for lines in blocks):
            continue
        help_text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
        text.append(header(metric, metric.name, help_text))
        openmetrics.append(header(metric, metric.name.removesuffix("_total"), escape(metric.help)))
        text += [lines.text for lines in blocks]
        openmetrics += [lines.openmetrics for lines in blocks]
    openmetrics.append("# EOF\n")
    plain, rich = _encode(text), _encode(openmetrics)
    return Exposition(plain, _compress(plain), rich, _compress(rich), generation)


def header(metric: Metric, name: str, text: str) -> str:
    """The lines before a family's samples; name and help text as the format requires."""
    return f"# HELP {name} {text}\n# TYPE {name} {metric.type}\n"


def _encode(parts: Sequence[str]) -> bytes:
    """Encode as UTF-8; a lone surrogate becomes ``?`` instead of an error."""
    body = BytesIO()  # one part at a time, to avoid a second copy of all of it as text
    for part in parts:
        body.write(part.encode("utf-8", "replace"))
    return body.getvalue()


def _compress(body: bytes) -> bytes:
    """Compress into one gzip member (curl cannot read several), equal for equal bodies."""
    return igzip.compress(body, 1, mtime=0)
