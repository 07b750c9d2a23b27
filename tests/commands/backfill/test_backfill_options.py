"""Which time is meant, and what is said where none is."""

import pytest

from exporter.commands.backfill.options import parse, plan
from exporter.errors import ConfigError

NOW = 1_795_500_000.0  # 2026-11-24T06:00:00Z
TIMES = (
    "a date such as 2026-08-01, a time such as 2026-08-01T12:00:00Z, unix seconds, or how long "
    "ago, such as 30d"
)


def planned(*options):
    wanted, rest = parse(options)
    assert rest == []
    return plan(wanted, kept=0.0, now=NOW)


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
    wanted, _ = parse([])
    found = plan(wanted, kept=0.0, now=NOW + fraction)
    assert found.stop == round(NOW + fraction, 3)


def test_labels():
    options = ("--label", "job=modelarts", "--label=instance=host:9978", "--label", "x=a=b")
    assert planned(*options).labels == {"job": "modelarts", "instance": "host:9978", "x": "a=b"}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--from", "yesterday"], f"--from: 'yesterday' is no time; valid: {TIMES}"),
        (["--to", "90"], f"--to: '90' is no time; valid: {TIMES}"),
        (["--from", "1785542400000"], f"--from: '1785542400000' is no time; valid: {TIMES}"),
        (["--from", ""], f"--from: '' is no time; valid: {TIMES}"),
        (["--from", "nan"], f"--from: 'nan' is no time; valid: {TIMES}"),
        (["--from", "2026-13-01"], f"--from: '2026-13-01' is no time; valid: {TIMES}"),
        (
            ["--from", "1h", "--to", "2h"],
            "--from: 2026-11-24T05:00:00Z is not before --to, 2026-11-24T04:00:00Z",
        ),
        (
            ["--to", "2027-01-01"],
            (
                "--to: 2027-01-01T00:00:00Z lies in the future; valid: at most now, "
                "2026-11-24T06:00:00Z"
            ),
        ),
        (["--step", "0"], "--step: '0' is not valid; valid: a duration of at least 1s, such as 5m"),
        (["--step", "x"], "--step: 'x' is not valid; valid: a duration of at least 1s, such as 5m"),
        (
            ["--step", "1s"],
            (
                "--step: 2,592,000 samples of every series; valid: a longer step or a shorter "
                "time, at most 1,000,000 samples"
            ),
        ),
        (
            ["--label", "job"],
            "--label: 'job' is no label; valid: NAME=VALUE, such as job=modelarts",
        ),
        (
            ["--label", "1=x"],
            "--label: '1=x' is no label; valid: NAME=VALUE, such as job=modelarts",
        ),
        (["--label", "pool=x"], "--label: the name pool is taken; valid: others, such as job"),
        (["--label", "le=x"], "--label: the name le is taken; valid: others, such as job"),
        (["--label", "__x=x"], "--label: the name __x is taken; valid: others, such as job"),
        (["--label", "x="], "--label: 'x=' is no label; valid: NAME=VALUE, such as job=modelarts"),
        (["--label", "x=a", "--label", "x=b"], "--label: x is given twice; valid: once"),
        (["--output", ""], "--output: '' is no directory; valid: a path, . for this one"),
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
    wanted, rest = parse(["--from=1d", "--target.region", "cn-north-4", "--api.retries=1"])
    assert wanted.since == "1d"
    assert rest == ["--target.region", "cn-north-4", "--api.retries=1"]
