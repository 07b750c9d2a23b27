"""Our output is the library's, byte for byte."""

import gzip
import os
import shutil
import subprocess
from string import ascii_lowercase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as LibraryMetric
from prometheus_client.openmetrics import exposition as library_openmetrics
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from exporter.metrics.exposition import (
    FamilyLines,
    Metric,
    SampleBlock,
    assemble,
    from_library,
    render_block,
)

NAMES = st.lists(st.text(ascii_lowercase, min_size=1, max_size=8), min_size=1, max_size=3).map(
    lambda words: "_".join([*words, "x"])
)
TEXTS = st.text(
    st.one_of(
        st.sampled_from('"\\\n%{}=, \x00\x7f训练作业🚀'), st.characters(exclude_categories=["Cs"])
    ),
    max_size=20,
)
NUMBERS = st.one_of(
    st.floats(),
    st.integers(-(10**20), 10**20),
    st.sampled_from([0.0, -0.0, 1.0, 1e6, 999999.0, 1234567.5, 1.7e9, 1e-7, 1e21, 5e-324]),
)


@st.composite
def blocks(draw, kinds=("gauge", "counter")):
    names = draw(st.lists(NAMES, unique=True, max_size=5))
    split = draw(st.integers(0, len(names)))
    values = st.tuples(*[TEXTS] * (len(names) - split))
    samples = draw(st.dictionaries(values, NUMBERS, min_size=1, max_size=5))
    kind = draw(st.sampled_from(kinds))
    name = draw(NAMES) + ("_total" if kind == "counter" else "")
    return SampleBlock(
        Metric(name, kind, draw(TEXTS)),
        tuple(names[split:]),
        {constant: draw(TEXTS) for constant in names[:split]},
        list(samples.items()),
    )


class Families:
    """A collector of ready families, for the library's renderer."""

    def __init__(self, families):
        self.families = families

    def collect(self):
        return self.families


def as_library(block):
    labels = (*block.constant, *block.labels)
    make = CounterMetricFamily if block.metric.type == "counter" else GaugeMetricFamily
    family = make(block.metric.name, block.metric.help, labels=labels)
    for values, value in block.samples:
        family.add_metric((*block.constant.values(), *values), value)
    return family


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.lists(blocks(), max_size=4, unique_by=lambda block: block.metric.name))
def test_equal_to_the_library(many):
    ours = assemble([(block.metric, [render_block(block)]) for block in many])
    theirs = Families([as_library(block) for block in many])

    assert ours.text == generate_latest(theirs)
    assert ours.openmetrics == library_openmetrics.generate_latest(theirs)
    assert gzip.decompress(ours.text_gzip) == ours.text
    assert gzip.decompress(ours.openmetrics_gzip) == ours.openmetrics


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(blocks(kinds=["gauge"]))
def test_parsers_read_back_what_was_meant(block):
    ours = assemble([(block.metric, [render_block(block)])])
    meant = {
        (tuple(sorted({**block.constant, **dict(zip(block.labels, values, strict=True))}.items())))
        for values, _ in block.samples
    }

    for families in (
        openmetrics_parser.text_string_to_metric_families(ours.openmetrics.decode()),
        text_string_to_metric_families(ours.text.decode()),
    ):
        read = [sample for family in families for sample in family.samples]
        assert {tuple(sorted(sample.labels.items())) for sample in read} == meant


def instruments():
    registry = CollectorRegistry()
    counter = Counter("things_total", 'With "quotes"\nand \\', ["what"], registry=registry)
    counter.labels('a"b\\c\nd').inc(3, exemplar={"job_id": 'x"y'})
    Gauge("level", "A gauge.", registry=registry).set(1e6)
    histogram = Histogram("wait_seconds", "A histogram.", ["pool"], registry=registry)
    histogram.labels("训练").observe(0.3, exemplar={"job_id": "🚀"})
    return registry


def test_instruments_equal_to_the_library_in_openmetrics():
    registry = instruments()
    ours = assemble([(metric, [lines]) for metric, lines in map(from_library, registry.collect())])

    assert ours.openmetrics == library_openmetrics.generate_latest(registry)


def test_text_has_no_created_series():
    registry = instruments()
    ours = assemble([(metric, [lines]) for metric, lines in map(from_library, registry.collect())])

    def without_created():
        for family in registry.collect():
            kept = LibraryMetric(family.name, family.documentation, family.type)
            kept.samples = [s for s in family.samples if not s.name.endswith("_created")]
            yield kept

    assert b"_created" in ours.openmetrics
    assert ours.text == generate_latest(Families(list(without_created())))


def test_targets_share_one_header():
    metric = Metric("jobs", "gauge", "Jobs.")
    rendered = [
        render_block(SampleBlock(metric, ("phase",), {"project": project}, [(("Running",), 1)]))
        for project in ("a", "b")
    ]

    assert assemble([(metric, rendered)]).text.decode() == (
        "# HELP jobs Jobs.\n"
        "# TYPE jobs gauge\n"
        'jobs{phase="Running",project="a"} 1.0\n'
        'jobs{phase="Running",project="b"} 1.0\n'
    )


def test_a_family_without_samples_is_not_there():
    empty = assemble(
        [
            (Metric("jobs", "gauge", "Jobs."), []),
            (Metric("x", "gauge", "X."), [FamilyLines("", "")]),
        ]
    )

    assert empty.text == b""
    assert empty.openmetrics == b"# EOF\n"


def test_a_lone_surrogate_is_no_error():
    metric = Metric("jobs", "gauge", "Jobs.")
    lines = render_block(SampleBlock(metric, ("name",), {}, [(("a\ud800b",), 1)]))

    assert b'jobs{name="a?b"} 1.0\n' in assemble([(metric, [lines])]).text


@pytest.mark.integration
@pytest.mark.skipif(
    not shutil.which("promtool") and "REQUIRE_PROMETHEUS" not in os.environ,
    reason="promtool is not installed",
)
def test_promtool_has_nothing_to_say():
    body = assemble(
        [
            (metric, [lines])
            for metric, lines in map(from_library, instruments().collect())
            if metric.name != "level"
        ]
    )
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=body.text, capture_output=True, check=False
    )

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
