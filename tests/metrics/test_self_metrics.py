"""What the exporter says of itself."""

import platform

import pytest

from exporter import __revision__, __version__
from exporter.metrics.self_metrics import Instruments, TargetInstruments

ON_DEMAND = {
    "modelarts_exporter_api_requests_total": "not all of its codes are known before",
}
"""Counters of a target that are not there from the start, and why."""


def shown(instruments, project):
    target = TargetInstruments(instruments, "cn-north-4", project)
    target.show()
    return target


@pytest.fixture
def instruments():
    return Instruments()


@pytest.fixture
def target(instruments):
    return shown(instruments, "llm")


def samples(instruments, name):
    """Value by label values, in the order of the labels' names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in instruments.registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def exposed(instruments):
    """Everything about targets, by family, name and labels; without times of creation."""
    return {
        (family.name, sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in instruments.registry.collect()
        for sample in family.samples
        if "project" in sample.labels and not sample.name.endswith("_created")
    }


def target_counters():
    return sorted(
        f"{family.name}_total"
        for family in Instruments().registry.collect()
        if family.type == "counter" and family.name.startswith("modelarts")
    )


def test_the_counters_are_those_of_the_contract():
    assert {
        "modelarts_exporter_polls_total",
        "modelarts_exporter_api_requests_total",
        "modelarts_exporter_api_retries_total",
        "modelarts_exporter_duplicate_jobs_total",
        "modelarts_exporter_invalid_jobs_total",
        "modelarts_exporter_inconsistent_pages_total",
        "modelarts_exporter_unknown_values_total",
    } <= set(target_counters())


@pytest.mark.parametrize("name", sorted(set(target_counters()) - ON_DEMAND.keys()))
def test_every_counter_of_a_target_is_there_at_zero_from_the_start(instruments, target, name):
    assert set(samples(instruments, name).values()) == {0.0}


def test_polls_are_there_for_every_kind_and_result(instruments, target):
    kinds = ("incremental", "sweep")
    results = ("auth", "internal", "invalid", "success", "throttled", "timeout", "upstream")

    assert samples(instruments, "modelarts_exporter_polls_total") == {
        (kind, "llm", "cn-north-4", result): 0.0 for kind in kinds for result in results
    }
    assert samples(instruments, "modelarts_exporter_poll_duration_seconds_count") == {
        (kind, "llm", "cn-north-4"): 0.0 for kind in kinds
    }


def test_unknown_values_are_there_for_every_open_label(instruments, target):
    assert samples(instruments, "modelarts_exporter_unknown_values_total") == {
        (field, "llm", "cn-north-4"): 0.0
        for field in ("flavor_type", "phase", "recovery", "start_type")
    }


def test_before_the_first_poll_a_target_is_not_up(instruments, target):
    assert samples(instruments, "modelarts_up") == {("llm", "cn-north-4"): 0.0}
    assert samples(instruments, "modelarts_exporter_last_success_timestamp_seconds") == {}


def test_a_target_that_is_up_stays_so_when_another_poller_takes_it_over(instruments, target):
    target.polled("sweep", "success", 2.5, now=1_750_000_000.0)
    TargetInstruments(instruments, "cn-north-4", "llm").show()

    assert samples(instruments, "modelarts_up") == {("llm", "cn-north-4"): 1.0}


def test_a_good_poll(instruments, target):
    target.polled("sweep", "success", 2.5, now=1_750_000_000.0)

    labels = ("llm", "cn-north-4")
    assert samples(instruments, "modelarts_up") == {labels: 1.0}
    assert samples(instruments, "modelarts_exporter_last_success_timestamp_seconds") == {
        labels: 1_750_000_000.0
    }
    polls = samples(instruments, "modelarts_exporter_polls_total")
    assert {key for key, value in polls.items() if value} == {
        ("sweep", "llm", "cn-north-4", "success")
    }
    seconds = samples(instruments, "modelarts_exporter_poll_duration_seconds_sum")
    assert seconds["sweep", "llm", "cn-north-4"] == 2.5


def test_a_bad_poll_after_a_good_one(instruments, target):
    target.polled("sweep", "success", 2.5, now=1_750_000_000.0)
    target.polled("incremental", "throttled", 1.0, now=1_750_000_060.0)

    labels = ("llm", "cn-north-4")
    assert samples(instruments, "modelarts_up") == {labels: 0.0}
    assert samples(instruments, "modelarts_exporter_last_success_timestamp_seconds") == {
        labels: 1_750_000_000.0
    }
    polls = samples(instruments, "modelarts_exporter_polls_total")
    assert polls["incremental", "llm", "cn-north-4", "throttled"] == 1.0


def test_requests_by_operation_and_code(instruments, target):
    target.requested("search", "200", 0.2)
    target.requested("search", "timeout", 30.0)
    target.requested("search", "200", 0.3)

    found = samples(instruments, "modelarts_exporter_api_requests_total")
    assert found["429", "search", "llm", "cn-north-4"] == 0.0  # so that increase() sees the first
    assert {labels: value for labels, value in found.items() if value} == {
        ("200", "search", "llm", "cn-north-4"): 2.0,
        ("timeout", "search", "llm", "cn-north-4"): 1.0,
    }
    assert samples(instruments, "modelarts_exporter_api_request_duration_seconds_count") == {
        ("search",): 3.0
    }


@pytest.mark.parametrize(
    ("act", "series", "value"),
    [
        (lambda t: t.retried("throttled"), ("api_retries", "throttled"), 1.0),
        (lambda t: t.paged(duplicates=3, inconsistent=0), ("duplicate_jobs",), 3.0),
        (lambda t: t.paged(duplicates=0, inconsistent=2), ("inconsistent_pages",), 2.0),
        (lambda t: t.anomalies(invalid_jobs=4, unknown_values={}), ("invalid_jobs",), 4.0),
        (
            lambda t: t.anomalies(invalid_jobs=0, unknown_values={"phase": 5}),
            ("unknown_values", "phase"),
            5.0,
        ),
        (lambda t: t.started_late(), ("late_polls",), 1.0),
    ],
)
def test_what_is_counted(instruments, target, act, series, value):
    before = exposed(instruments)
    act(target)
    changed = {
        (sample, *(value for label, value in labels if label not in ("region", "project"))): now
        for (family, sample, labels), now in exposed(instruments).items()
        if now != before[family, sample, labels]
    }
    name, *labels = series

    assert changed == {(f"modelarts_exporter_{name}_total", *labels): value}


def test_tracked_jobs(instruments, target):
    target.tracking(jobs=12_000, without_series=2000)

    labels = ("llm", "cn-north-4")
    assert samples(instruments, "modelarts_exporter_tracked_jobs") == {labels: 12_000.0}
    assert samples(instruments, "modelarts_exporter_jobs_without_series") == {labels: 2000.0}


def test_one_paging_mode_at_a_time(instruments, target):
    target.identified(mode="auto", expires_at=None)
    target.identified(mode="page", expires_at=None)

    assert samples(instruments, "modelarts_exporter_pagination_info") == {
        ("page", "llm", "cn-north-4"): 1.0
    }


EXPIRY = "modelarts_exporter_credentials_expiry_timestamp_seconds"


def test_credentials_that_do_not_expire_have_no_expiry(instruments, target):
    target.identified(mode="row", expires_at=None)

    assert samples(instruments, EXPIRY) == {}


def test_the_expiry_goes_with_the_credentials_that_had_one(instruments, target):
    target.identified(mode="row", expires_at=1_750_086_400.0)
    assert samples(instruments, EXPIRY) == {("llm", "cn-north-4"): 1_750_086_400.0}

    target.identified(mode="row", expires_at=None)
    assert samples(instruments, EXPIRY) == {}


def everything(target):
    """Use every instrument that a target has."""
    target.requested("search", "200", 0.2)
    target.retried("upstream")
    target.paged(duplicates=1, inconsistent=1)
    target.anomalies(invalid_jobs=1, unknown_values={"phase": 1})
    target.started_late()
    target.identified(mode="row", expires_at=1_750_086_400.0)
    target.tracking(jobs=1, without_series=0)
    target.polled("sweep", "success", 1.0, now=1_750_000_000.0)


def test_a_renamed_target_leaves_nothing_behind_and_starts_at_zero(instruments, target):
    everything(target)
    target.rename("0605767eb780")

    fresh = Instruments()
    shown(fresh, "0605767eb780")
    assert exposed(instruments) == exposed(fresh)


def test_a_target_renamed_to_its_own_name_goes_on(instruments, target):
    everything(target)
    before = exposed(instruments)
    target.rename("llm")

    assert exposed(instruments) == before


def test_another_target_is_not_touched(instruments, target):
    other = shown(instruments, "vision")
    everything(other)
    before = {key: value for key, value in exposed(instruments).items() if "vision" in str(key)}
    everything(target)
    target.identified(mode="page", expires_at=None)
    target.rename("0605767eb780")
    after = {key: value for key, value in exposed(instruments).items() if "vision" in str(key)}

    assert before == after


INFO = "modelarts_target_info"


def test_the_labels_of_a_target_follow_it_and_end_with_it(instruments):
    info = {"team": 'n"l\\p'}
    target = TargetInstruments(instruments, "cn-north-4", "unknown", info=info)
    other = TargetInstruments(instruments, "cn-north-4", "vision", info={"stage": "test"})
    assert samples(instruments, INFO) == {}
    target.show()
    other.show()
    target.rename("llm")
    assert samples(instruments, INFO) == {
        ("llm", "cn-north-4", 'n"l\\p'): 1.0,
        ("vision", "cn-north-4", "test"): 1.0,
    }

    TargetInstruments(instruments, "cn-north-4", "llm", info={"team": "cv"}).show()
    other.remove()
    assert samples(instruments, INFO) == {("llm", "cn-north-4", "cv"): 1.0}


def test_a_target_that_never_ran_shows_nothing(instruments):
    target = TargetInstruments(instruments, "cn-north-4", "unknown")
    target.rename("0605767eb780")

    assert exposed(instruments) == {}


def test_of_a_target_that_vanishes_nothing_stays(instruments, target):
    other = shown(instruments, "vision")
    before = {key: value for key, value in exposed(instruments).items() if "vision" in str(key)}
    everything(target)
    target.remove()

    assert exposed(instruments) == before
    name = "modelarts_exporter_api_request_duration_seconds_count"
    assert samples(instruments, name) == {("search",): 1.0}  # it is nobody's
    other.remove()
    assert exposed(instruments) == {}


def test_what_appears_again_goes_on(instruments, target):
    everything(target)
    before = exposed(instruments)
    shown(instruments, "llm")

    assert exposed(instruments) == before


def test_the_build_is_named(instruments):
    assert samples(instruments, "modelarts_exporter_build_info") == {
        (platform.python_version(), __revision__, __version__): 1.0
    }


def test_the_process_is_measured(instruments):
    (seconds,) = samples(instruments, "process_cpu_seconds_total").values()
    assert seconds > 0


def test_two_processes_worth_of_instruments_do_not_share_a_registry(instruments, target):
    everything(target)

    assert exposed(Instruments()) == {}
