"""Odd jobs are counted and logged once, however many polls see them."""

import logging

import pytest

from exporter.jobs.job import Problem, View
from exporter.polling.anomalies import Anomalies

LINE = "a job has a field that cannot be used; the job counts without it"
MORE = "more jobs with unusable fields"
VALUE = "a value is not documented; it is shown as unknown"


def invalid(job_id, field="status.duration"):
    return Problem(job_id, field, "", "invalid")


def unknown(job_id, value, field="phase"):
    return Problem(job_id, field, value, "unknown")


def view(*problems, healthy=(), undecodable=(), without_phase=(), deleted=()):
    """What lists the jobs that have problems, and others that have none."""
    ids = {*healthy, *without_phase, *(problem.job_id for problem in problems)}
    return View(
        dict.fromkeys(ids),
        deleted=frozenset(deleted),
        problems=problems,
        undecodable=frozenset(undecodable),
        without_phase=frozenset(without_phase),
    )


class Instruments:
    def __init__(self):
        self.invalid_jobs = []
        self.unknown_values = []

    def anomalies(self, *, invalid_jobs, unknown_values):
        self.invalid_jobs.append(invalid_jobs)
        self.unknown_values.append(dict(unknown_values))


@pytest.fixture
def instruments():
    return Instruments()


@pytest.fixture
def anomalies(instruments):
    return Anomalies("cn-north-4", instruments)


@pytest.fixture
def lines(caplog):
    """What was logged so far: message and what goes with it."""
    caplog.set_level(logging.DEBUG)
    names = ("target", "job_id", "field", "value", "jobs")

    def read():
        return [
            (record.getMessage(), {n: vars(record)[n] for n in names if n in vars(record)})
            for record in caplog.records
        ]

    return read


def take(anomalies, *views):
    for each in views:
        anomalies.report(each)


def test_jobs_without_problems_are_no_news(anomalies, instruments, lines):
    take(anomalies, view(healthy="ab"))

    assert (instruments.invalid_jobs, instruments.unknown_values, lines()) == ([0], [{}], [])


def test_an_invalid_job_is_counted_and_logged_once(anomalies, instruments, lines):
    take(anomalies, view(invalid("a")), view(invalid("a")), view(invalid("a")))

    assert instruments.invalid_jobs == [1, 0, 0]
    assert lines() == [(LINE, {"target": "cn-north-4", "job_id": "a", "field": "status.duration"})]


def test_a_job_with_many_invalid_fields_is_one(anomalies, instruments, lines):
    take(
        anomalies,
        view(invalid("a", "status.duration"), invalid("a", "status.start_time")),
        view(invalid("a", "metadata.create_time")),
    )

    assert instruments.invalid_jobs == [1, 0]
    assert len(lines()) == 1


def test_a_job_that_is_well_for_a_while_is_not_counted_again(anomalies, instruments):
    take(anomalies, view(invalid("a")), view(healthy="a"), view(invalid("a")))

    assert instruments.invalid_jobs == [1, 0, 0]


def test_a_job_that_was_gone_is_news_again(anomalies, instruments):
    take(anomalies, view(invalid("a")), view(deleted="a"), view(invalid("a")))

    assert instruments.invalid_jobs == [1, 0, 1]


def test_a_job_that_a_poll_did_not_read_is_no_news_at_the_next(anomalies, instruments, lines):
    odd = invalid("a"), unknown("a", "Paused")
    take(anomalies, view(*odd), view(healthy="b"), view(), view(*odd))

    assert instruments.invalid_jobs == [1, 0, 0, 0]
    assert instruments.unknown_values == [{"phase": 1}, {}, {}, {}]
    assert len(lines()) == 2


def test_a_job_without_a_usable_phase_is_invalid(anomalies, instruments, lines):
    take(
        anomalies,
        view(without_phase="a"),
        view(without_phase="a"),
        view(healthy="a"),
        view(invalid("a")),
    )

    assert instruments.invalid_jobs == [1, 0, 0, 0]
    assert lines() == [(LINE, {"target": "cn-north-4", "job_id": "a", "field": "status.phase"})]


def test_each_invalid_job_counts(anomalies, instruments):
    take(anomalies, view(invalid("a")), view(invalid("a"), invalid("b"), invalid("c")))

    assert instruments.invalid_jobs == [1, 2]


def test_a_broken_item_is_counted_and_logged_once(anomalies, instruments, lines):
    take(anomalies, view(undecodable=["#0a1b"]), view(undecodable=["#0a1b"]))

    assert instruments.invalid_jobs == [1, 0]
    assert lines() == [
        (LINE, {"target": "cn-north-4", "job_id": "#0a1b", "field": "the whole item"})
    ]


def test_a_service_that_makes_up_broken_items_does_not_fill_the_memory(anomalies, instruments):
    take(anomalies, view(undecodable=["#lasting"]))
    for poll in range(30):
        made_up = [f"#{poll}-{number}" for number in range(1000)]
        take(anomalies, view(undecodable=[*made_up, "#lasting"]))

    assert instruments.invalid_jobs == [1] + [1000] * 30
    assert len(anomalies._undecodable) == 10_000


def test_thousands_of_invalid_jobs_are_counted_but_not_all_logged(anomalies, instruments, lines):
    take(anomalies, view(*(invalid(f"job-{number:04}") for number in range(3000))))

    assert instruments.invalid_jobs == [3000]
    assert [message for message, _ in lines()] == [LINE] * 20 + [MORE]
    assert lines()[-1] == (MORE, {"target": "cn-north-4", "jobs": 2980})


def test_an_unknown_value_is_counted_and_logged_once(anomalies, instruments, lines):
    take(anomalies, view(unknown("a", "Paused")), view(unknown("a", "Paused")))

    assert instruments.unknown_values == [{"phase": 1}, {}]
    assert lines() == [
        (
            VALUE,
            {"target": "cn-north-4", "field": "phase", "value": "Paused", "job_id": "a"},
        )
    ]


@pytest.mark.parametrize(
    ("between", "counted"),
    [(view(healthy="a"), {}), (view(), {}), (view(deleted="a"), {"phase": 1})],
)
def test_a_job_has_an_unknown_value_again(anomalies, instruments, lines, between, counted):
    take(anomalies, view(unknown("a", "Paused")), between, view(unknown("a", "Paused")))

    assert instruments.unknown_values == [{"phase": 1}, {}, counted]
    assert len(lines()) == 1


def test_an_unknown_value_counts_for_each_job_but_is_logged_once(anomalies, instruments, lines):
    take(anomalies, view(unknown("a", "Paused"), unknown("b", "Paused")))

    assert instruments.unknown_values == [{"phase": 2}]
    assert len(lines()) == 1


def test_unknown_values_are_counted_by_field(anomalies, instruments):
    take(
        anomalies,
        view(
            unknown("a", "Paused"),
            unknown("a", "TPU", "flavor_type"),
            unknown("b", "TPU", "flavor_type"),
        ),
    )

    assert instruments.unknown_values == [{"phase": 1, "flavor_type": 2}]


def test_another_unknown_value_of_the_same_job_is_logged_too(anomalies, instruments, lines):
    take(anomalies, view(unknown("a", "Paused")), view(unknown("a", "Frozen")))

    assert [facts["value"] for _, facts in lines()] == ["Paused", "Frozen"]
    assert instruments.unknown_values == [{"phase": 1}, {}]


def test_the_same_word_in_another_field_is_another_value(anomalies, lines):
    take(anomalies, view(unknown("a", "x", "start_type"), unknown("a", "x", "recovery")))

    assert [facts["field"] for _, facts in lines()] == ["recovery", "start_type"]


def test_a_service_that_makes_up_values_for_ever_is_not_logged_for_ever(
    anomalies, instruments, lines
):
    for number in range(3):
        take(anomalies, view(*(unknown(f"{number}-{n}", f"{number}-{n}") for n in range(700))))

    assert instruments.unknown_values == [{"phase": 700}] * 3
    assert len(lines()) == 1000


def test_an_unknown_value_does_not_make_a_job_invalid(anomalies, instruments):
    take(anomalies, view(unknown("a", "Paused")))

    assert instruments.invalid_jobs == [0]
