"""Times, steps, labels, and the messages for invalid ones."""

import pytest

from exporter.commands.backfill.options import BackfillArguments, plan
from exporter.commands.parser import parse
from exporter.errors import ConfigError

NOW = 1_795_500_000.0  # 2026-11-24T06:00:00Z
TIMES = (
    "a date such as 2026-08-01, a time such as 2026-08-01T12:00:00Z, unix seconds, or a duration "
    "before now such as 30d"
)


def read(*options):
    line = parse(["backfill", *options])
    return BackfillArguments.of(line.arguments), line.options


def planned(*options):
    arguments, rest = read(*options)
    assert rest == []
    return plan(arguments, history=0.0, now=NOW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30d", NOW - 30 * 86_400),
        ("1h30m", NOW - 5400),
        ("2026-08-01", 1_785_542_400.0),
        ("now", NOW),
        ("2026-08-01T12:00:00Z", 1_785_585_600.0),
        ("2026-08-01T12:00:00+08:00", 1_785_556_800.0),
        ("2026-08-01T12:00:00", 1_785_585_600.0),  # UTC, as all of Prometheus
        ("1785542400", 1_785_542_400.0),
        ("1.78554240012e+09", 1_785_542_400.12),  # as Prometheus writes them
    ],
)
def test_times(text, expected):
    assert planned("--from", "2000d", "--to", text).stop == expected
    if expected < NOW:
        assert planned("--from", text).start == expected


def test_defaults():
    found = planned()
    assert (found.start, found.stop, found.step) == (NOW - 30 * 86_400, NOW, 300.0)
    assert (found.labels, found.histograms) == ({}, False)


@pytest.mark.parametrize("fraction", [0.0004, 0.0005, 0.0006])
def test_now_is_not_in_the_future(fraction):
    arguments, _ = read()
    found = plan(arguments, history=0.0, now=NOW + fraction)
    assert found.stop == round(NOW + fraction, 3)


def test_labels():
    options = ("--label", "job=modelarts", "--label=instance=host:9978", "--label", "x=a=b")
    assert planned(*options).labels == {"job": "modelarts", "instance": "host:9978", "x": "a=b"}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--from", "yesterday"], f'--from: invalid time "yesterday"; use {TIMES}'),
        (["--to", "90"], f'--to: invalid time "90"; use {TIMES}'),
        (["--from", "1785542400000"], f'--from: invalid time "1785542400000"; use {TIMES}'),
        (["--from", ""], f'--from: invalid time ""; use {TIMES}'),
        (["--from", "nan"], f'--from: invalid time "nan"; use {TIMES}'),
        (["--from", "2026-13-01"], f'--from: invalid time "2026-13-01"; use {TIMES}'),
        (
            ["--from", "1h", "--to", "2h"],
            "--from: 2026-11-24T05:00:00Z is not before --to, 2026-11-24T04:00:00Z",
        ),
        (
            ["--to", "2027-01-01"],
            (
                "--to: 2027-01-01T00:00:00Z is in the future; use a time up to now, "
                "2026-11-24T06:00:00Z"
            ),
        ),
        (
            ["--step", "0"],
            '--step: invalid duration "0"; use a duration of at least 1s, such as 5m',
        ),
        (
            ["--step", "x"],
            '--step: invalid duration "x"; use a duration of at least 1s, such as 5m',
        ),
        (
            ["--step", "1s"],
            (
                "--step: 2,592,000 samples per series are too many; use a longer step or a "
                "shorter time range, for at most 1,000,000 samples"
            ),
        ),
        (
            ["--label", "job"],
            '--label: invalid label "job"; use NAME=VALUE, such as job=modelarts',
        ),
        (
            ["--label", "1=x"],
            '--label: invalid label "1=x"; use NAME=VALUE, such as job=modelarts',
        ),
        (["--label", "pool=x"], "--label: pool is reserved; use another name, such as job"),
        (["--label", "le=x"], "--label: le is reserved; use another name, such as job"),
        (["--label", "__x=x"], "--label: __x is reserved; use another name, such as job"),
        (["--label", "x="], '--label: invalid label "x="; use NAME=VALUE, such as job=modelarts'),
        (["--label", "x=a", "--label", "x=b"], "--label: x is given twice; use it once"),
        (["--output", ""], "--output: is empty; use a path, or . for the current directory"),
        (["--form", "1d"], "flag --form: unknown; did you mean --from?"),
        (["--from"], "--from: expected one argument"),
    ],
)
def test_problems(options, problem):
    with pytest.raises(ConfigError) as raised:
        planned(*options)
    assert raised.value.problems == (problem,)


def test_all_problems_at_once():
    with pytest.raises(ConfigError) as raised:
        planned("--from", "x", "--to", "y", "--step", "z", "--label", "l")
    assert [line.partition(":")[0] for line in raised.value.problems] == [
        "--from", "--to", "--step", "--label",
    ]  # fmt: skip


def test_other_options_are_the_exporters():
    arguments, rest = read("--from=1d", "--target.region", "cn-north-4", "--api.retries=1")
    assert arguments.start == "1d"
    assert rest == ["--target.region", "cn-north-4", "--api.retries=1"]
