"""Ledgers in, the literal exposition out; the library, given the same samples, writes the same."""

from itertools import accumulate

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import Metric as LibraryMetric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Exemplar as LibraryExemplar
from prometheus_client.utils import floatToGoString

from exporter.jobs.tracked import Base, Event
from exporter.metrics.counter_lines import counter_lines
from exporter.metrics.counters import (
    EVENT_FAMILIES,
    EVENT_FAMILY_BY_NAME,
    TERMINAL_PHASES,
    Exemplar,
    Series,
    add,
    shown_key,
)
from exporter.metrics.exposition import assemble

NOW = 1_750_000_000.0
TARGET = {"region": "cn-north-4", "project": "llm"}
P1 = Base("0", "p1", "Ascend")
LABELS = 'flavor_type="Ascend",{}pool="p1",project="llm",{}region="cn-north-4",{}workspace="0"'


def never(_key):
    return False


def exposed(ledger, is_held=never, cache=None, constant=TARGET):
    lines = counter_lines(ledger, constant, is_held, {} if cache is None else cache)
    return assemble([(row.metric, [lines[row.metric.name]]) for row in EVENT_FAMILIES])


def family(body, name):
    """The lines of one family, its header included."""
    lines = body.decode().splitlines()
    begins = [number for number, line in enumerate(lines) if line.startswith(f"# HELP {name} ")]
    (first,) = begins
    rest = lines[first + 1 :]
    end = next((n for n, line in enumerate(rest) if line.startswith(("# HELP", "# EOF"))), None)
    return [lines[first], *rest[:end]]


def example():
    """A base with one event of each kind."""
    kinds = [
        Event("created", "a", P1),
        Event("started", "a", P1, seconds=90.0),
        Event("restarted", "a", P1, ("restarted", "proc_restart")),
        Event("recovered", "a", P1, ("proc_restart",), seconds=42.0, card_seconds=336.0),
        Event("attempted", "a", P1, ("proc_restart",), seconds=86_401.0),
        Event("downgraded", "a", P1, ("proc_restart", "job_reschedule")),
        Event("ran", "a", P1, ("D910B",), card_seconds=8000.5),
        Event("finished", "a", P1, ("Failed",), seconds=1000.0, card_seconds=8000.0),
        Event("deleted", "a", P1, ("Failed",)),
    ]
    return add({}, kinds, {P1: {"D910B"}}, NOW)[0]


def row(name, labels, value):
    return f"modelarts_training_{name}{{{LABELS.format(*labels)}}} {value}"


BASE_ONLY = ("", "", "")
PHASE = 'phase="Failed",'
RECOVERY = ("", 'recovery="proc_restart",', "")
JOB = ' # {job_id="a"}'

GOLDEN_COUNTERS = {
    "jobs_created": [
        "Training jobs seen for the first time.",
        (BASE_ONLY, "1.0", ""),
    ],
    "jobs_finished": [
        "Transitions of training jobs into a terminal phase (status.phase).",
        (('phase="Completed",', "", ""), "0.0", ""),
        ((PHASE, "", ""), "1.0", f"{JOB} 1.0 1750000000.0"),
        (('phase="Terminated",', "", ""), "0.0", ""),
        (('phase="Abnormal",', "", ""), "0.0", ""),
    ],
    "jobs_deleted": [
        "Training jobs that no longer exist in the service, by the phase last seen.",
        ((PHASE, "", ""), "1.0", ""),
    ],
    "restarts": [
        (
            "Runs of training jobs after the first (status.running_records), by start_type and by "
            "end_recover of the previous run."
        ),
        (("", 'recovery="proc_restart",', 'start_type="restarted",'), "1.0", ""),
    ],
    "accelerator_seconds": [
        (
            "Run time of training jobs times their cards, in seconds (status.duration); grows "
            "while they run; jobs with an unknown number of cards are omitted."
        ),
        (None, "8000.5", ""),
    ],
    "finished_accelerator_seconds": [
        (
            "Run time of finished training jobs times their cards, in seconds (status.duration), "
            "by how they ended; counted once, at the end."
        ),
        ((PHASE, "", ""), "8000.0", ""),
    ],
    "recovery_accelerator_seconds": [
        (
            "Time between two runs of a training job (start_at minus end_at of the previous run) "
            "times its cards, in seconds, by recovery policy."
        ),
        (RECOVERY, "336.0", ""),
    ],
}
CARDS = f'accelerator="D910B",{LABELS.format("", "", "")}'


@pytest.mark.parametrize("name", GOLDEN_COUNTERS)
def test_a_counter_in_full(name):
    text, *samples = GOLDEN_COUNTERS[name]
    full = f"modelarts_training_{name}"
    shown = [
        (CARDS if labels is None else LABELS.format(*labels), value, exemplar)
        for labels, value, exemplar in samples
    ]
    body = exposed(example())

    assert family(body.text, f"{full}_total") == [
        f"# HELP {full}_total {text}",
        f"# TYPE {full}_total counter",
        *(f"{full}_total{{{labels}}} {value}" for labels, value, _ in shown),
    ]
    assert family(body.openmetrics, full) == [
        f"# HELP {full} {text}",
        f"# TYPE {full} counter",
        *(
            line
            for labels, value, exemplar in shown
            for line in (
                f"{full}_total{{{labels}}} {value}{exemplar}",
                f"{full}_created{{{labels}}} 1.75e+09",
            )
        ),
    ]


def test_downgrades_in_full():
    labels = (
        'flavor_type="Ascend",from_recovery="proc_restart",pool="p1",project="llm",'
        'region="cn-north-4",to_recovery="job_reschedule",workspace="0"'
    )
    full = "modelarts_training_recovery_downgrades"

    assert family(exposed(example()).text, f"{full}_total")[2:] == [f"{full}_total{{{labels}}} 1.0"]
    assert family(exposed(example()).openmetrics, full)[2:] == [
        f"{full}_total{{{labels}}} 1.0",
        f"{full}_created{{{labels}}} 1.75e+09",
    ]


GOLDEN_HISTOGRAM = """\
# HELP modelarts_training_recovery_duration_seconds Time between two runs of a training job, in \
seconds: start_at minus end_at of the previous run, by recovery policy.
# TYPE modelarts_training_recovery_duration_seconds histogram
modelarts_training_recovery_duration_seconds_bucket{flavor_type="Ascend",le="1.0",pool="p1",\
project="llm",recovery="proc_restart",region="cn-north-4",workspace="0"} 0.0
modelarts_training_recovery_duration_seconds_bucket{flavor_type="Ascend",le="5.0",pool="p1",\
project="llm",recovery="proc_restart",region="cn-north-4",workspace="0"} 0.0
modelarts_training_recovery_duration_seconds_bucket{flavor_type="Ascend",le="15.0",pool="p1",\
project="llm",recovery="proc_restart",region="cn-north-4",workspace="0"} 0.0
modelarts_training_recovery_duration_seconds_bucket{flavor_type="Ascend",le="30.0",pool="p1",\
project="llm",recovery="proc_restart",region="cn-north-4",workspace="0"} 0.0
modelarts_training_recovery_duration_seconds_bucket{flavor_type="Ascend",le="60.0",pool="p1",\
project="llm",recovery="proc_restart",region="cn-north-4",workspace="0"} 1.0EXEMPLAR
modelarts_training_recovery_duration_seconds_bucket{flavor_type="Ascend",le="120.0",pool="p1",\
project="llm",recovery="proc_restart",region="cn-north-4",workspace="0"} 1.0
modelarts_training_recovery_duration_seconds_bucket{flavor_type="Ascend",le="300.0",pool="p1",\
project="llm",recovery="proc_restart",region="cn-north-4",workspace="0"} 1.0
modelarts_training_recovery_duration_seconds_bucket{flavor_type="Ascend",le="900.0",pool="p1",\
project="llm",recovery="proc_restart",region="cn-north-4",workspace="0"} 1.0
modelarts_training_recovery_duration_seconds_bucket{flavor_type="Ascend",le="3600.0",pool="p1",\
project="llm",recovery="proc_restart",region="cn-north-4",workspace="0"} 1.0
modelarts_training_recovery_duration_seconds_bucket{flavor_type="Ascend",le="21600.0",pool="p1",\
project="llm",recovery="proc_restart",region="cn-north-4",workspace="0"} 1.0
modelarts_training_recovery_duration_seconds_bucket{flavor_type="Ascend",le="86400.0",pool="p1",\
project="llm",recovery="proc_restart",region="cn-north-4",workspace="0"} 1.0
modelarts_training_recovery_duration_seconds_bucket{flavor_type="Ascend",le="+Inf",pool="p1",\
project="llm",recovery="proc_restart",region="cn-north-4",workspace="0"} 1.0
modelarts_training_recovery_duration_seconds_count{flavor_type="Ascend",pool="p1",project="llm",\
recovery="proc_restart",region="cn-north-4",workspace="0"} 1.0
modelarts_training_recovery_duration_seconds_sum{flavor_type="Ascend",pool="p1",project="llm",\
recovery="proc_restart",region="cn-north-4",workspace="0"} 42.0
"""
CREATED = """\
modelarts_training_recovery_duration_seconds_created{flavor_type="Ascend",pool="p1",\
project="llm",recovery="proc_restart",region="cn-north-4",workspace="0"} 1.75e+09
"""


def test_a_histogram_in_full():
    name, body = "modelarts_training_recovery_duration_seconds", exposed(example())

    assert family(body.text, name) == GOLDEN_HISTOGRAM.replace("EXEMPLAR", "").splitlines()
    rich = GOLDEN_HISTOGRAM.replace("EXEMPLAR", f"{JOB} 42.0 1750000000.0") + CREATED
    assert family(body.openmetrics, name) == rich.splitlines()


BUCKETS = {
    "queue": (90.0, "300.0"),
    "run": (1000.0, "1800.0"),
    "attempt": (86_401.0, "172800.0"),
}


@pytest.mark.parametrize("name", BUCKETS)
def test_histograms_of_whole_lives(name):
    value, bucket = BUCKETS[name]
    full = f"modelarts_training_{name}_duration_seconds"
    lines = family(exposed(example()).openmetrics, full)
    bounds = [line.split('le="')[1].split('"')[0] for line in lines if "_bucket{" in line]

    assert bounds == [
        *("1.0", "10.0", "30.0", "60.0", "300.0", "900.0", "1800.0"),
        *("3600.0", "7200.0", "14400.0", "28800.0"),
        *("86400.0", "172800.0", "345600.0", "604800.0", "1.2096e+06", "2.592e+06", "+Inf"),
    ]
    (exemplar,) = [line for line in lines if " # " in line]
    assert f'le="{bucket}"' in exemplar
    assert exemplar.endswith(f" 1.0{JOB} {value} 1750000000.0")


def test_the_families_are_these():
    assert [row.metric.name for row in EVENT_FAMILIES] == [
        "modelarts_training_jobs_created_total",
        "modelarts_training_jobs_finished_total",
        "modelarts_training_jobs_deleted_total",
        "modelarts_training_restarts_total",
        "modelarts_training_faults_total",
        "modelarts_training_recovery_downgrades_total",
        "modelarts_training_accelerator_seconds_total",
        "modelarts_training_finished_accelerator_seconds_total",
        "modelarts_training_recovery_accelerator_seconds_total",
        "modelarts_training_queue_duration_seconds",
        "modelarts_training_run_duration_seconds",
        "modelarts_training_startup_duration_seconds",
        "modelarts_training_recovery_duration_seconds",
        "modelarts_training_attempt_duration_seconds",
        "modelarts_training_user_jobs_finished_total",
        "modelarts_training_user_accelerator_seconds_total",
    ]


def test_no_events_and_no_jobs_no_lines():
    assert (exposed({}).text, exposed({}).openmetrics) == (b"", b"# EOF\n")


def test_what_is_foreseen_is_there_at_zero():
    ledger, _ = add({}, [], {P1: {"D910B"}}, NOW)
    found = {
        (sample.name, sample.labels.get("phase")): sample.value
        for family in text_string_to_metric_families(exposed(ledger).text.decode())
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }

    assert set(found.values()) == {0.0}
    assert found.keys() == {
        ("modelarts_training_jobs_created_total", None),
        *(("modelarts_training_jobs_finished_total", phase) for phase in TERMINAL_PHASES),
        ("modelarts_training_accelerator_seconds_total", None),
        ("modelarts_training_queue_duration_seconds_count", None),
        ("modelarts_training_queue_duration_seconds_sum", None),
    }


def test_what_is_held_shows_zero_and_nothing_of_what_it_counts():
    ledger = example()
    held = exposed(ledger, is_held=lambda _: True).openmetrics.decode()

    assert " # {" not in held.replace("# HELP", "").replace("# TYPE", "")
    values = {
        sample.value
        for family in text_string_to_metric_families(exposed(ledger, lambda _: True).text.decode())
        for sample in family.samples
    }
    assert values == {0.0}
    assert held.count("_created{") == len(ledger)


def test_lines_are_drawn_anew_only_when_they_change():
    ledger, cache = example(), {}
    exposed(ledger, cache=cache)
    before = dict(cache)
    changed, news = add(ledger, [Event("created", "b", P1)], {}, NOW)
    body = exposed(changed, cache=cache)

    assert body == exposed(changed)
    assert {key for key, entry in cache.items() if entry is not before[key]} == news.keys()
    assert exposed(ledger, cache=cache) == exposed(ledger)
    assert len(cache) == len(ledger)


# --- Equal to the library's -----------------------------------------------------------------------

texts = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('\\"\n'), max_size=8
)  # a lone surrogate the library cannot write
amounts = st.one_of(
    st.integers(0, 10**9).map(float), st.floats(0, 1e15), st.sampled_from([0.0, 1.0, 1e6, 123456.0])
)
moments = st.floats(1e9, 2e9).map(lambda moment: round(moment, 3))
exemplars = st.none() | st.builds(
    Exemplar, st.text("0123456789abcdef-", min_size=1, max_size=36), moments, amounts
)


@st.composite
def ledgers(draw):
    ledger, shown_as = {}, set()
    for row in draw(st.lists(st.sampled_from(EVENT_FAMILIES), max_size=8)):
        labels = tuple(draw(texts) for _ in row.key_labels)
        shown = shown_key((row.metric.name, labels))
        if shown in shown_as:
            continue
        shown_as.add(shown)
        if row.buckets:
            size = len(row.buckets) + 1
            counts = tuple(draw(st.lists(st.integers(0, 10**7), min_size=size, max_size=size)))
            given_ = draw(st.lists(exemplars, min_size=size, max_size=size))
            latest = draw(st.sampled_from([(), tuple(given_)]))
            series = Series(draw(moments), draw(amounts), counts, latest)
        else:
            one = draw(exemplars)
            series = Series(draw(moments), draw(amounts), (), () if one is None else (one,))
        ledger[row.metric.name, labels] = series
    return ledger


class Collector:
    """The ledger as the library's own families."""

    def __init__(self, ledger):
        self._ledger = ledger

    def collect(self):
        for row in EVENT_FAMILIES:
            name = row.metric.name
            mine = {key: series for key, series in self._ledger.items() if key[0] == name}
            if mine:
                yield (histograms if row.buckets else counters)(row, mine)


def counters(row, ledger):
    names = [*TARGET, *row.shown_labels]
    found = CounterMetricFamily(row.metric.name, row.metric.help, labels=names)
    for key, series in ledger.items():
        values = [*TARGET.values(), *shown_key(key)[1]]
        exemplar = library_exemplar(series.exemplars[0] if series.exemplars else None)
        found.add_metric(values, series.value, created=series.created, exemplar=exemplar)
    return found


def histograms(row, ledger):
    names = [*TARGET, *row.shown_labels]
    found = HistogramMetricFamily(row.metric.name, row.metric.help, labels=names)
    bounds = [*map(floatToGoString, row.buckets), "+Inf"]
    for (_, labels), series in ledger.items():
        shown = [library_exemplar(each) for each in series.exemplars] or [None] * len(bounds)
        buckets = zip(bounds, accumulate(series.counts), shown, strict=True)
        values = [*TARGET.values(), *labels]
        found.add_metric(values, [*buckets], sum_value=series.value)
        constant = dict(zip(names, values, strict=True))
        found.add_sample(f"{row.metric.name}_created", constant, series.created)
    return found


def library_exemplar(exemplar):
    if exemplar is None:
        return None
    return LibraryExemplar({"job_id": exemplar.job_id}, exemplar.value, exemplar.at)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(ledgers())
def test_openmetrics_is_what_the_library_writes(ledger):
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(ledger))

    assert exposed(ledger).openmetrics == openmetrics.generate_latest(registry)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(ledgers())
def test_text_is_what_the_library_writes_without_created(ledger):
    class WithoutCreated(Collector):
        def collect(self):
            for family in super().collect():
                plain = LibraryMetric(family.name, family.documentation, family.type)
                plain.samples = [
                    sample._replace(exemplar=None)
                    for sample in family.samples
                    if not sample.name.endswith("_created")
                ]
                yield plain

    registry = CollectorRegistry(auto_describe=False)
    registry.register(WithoutCreated(ledger))

    assert exposed(ledger).text == generate_latest(registry)


@settings(max_examples=50, deadline=None)
@given(ledgers(), st.data())
def test_a_cache_changes_nothing(ledger, data):
    cache = {}
    for _ in range(3):
        held = data.draw(st.sets(st.sampled_from(sorted(ledger)))) if ledger else set()
        assert exposed(ledger, held.__contains__, cache) == exposed(ledger, held.__contains__)
        ledger = {
            key: msgspec.structs.replace(series, value=series.value + data.draw(st.integers(0, 1)))
            for key, series in ledger.items()
        }


def test_every_series_has_its_row():
    for name, labels in example():
        assert len(labels) == len(EVENT_FAMILY_BY_NAME[name].key_labels)
