"""The options of ``backfill``: time range, step, output and additional labels."""

import argparse
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self

from exporter.commands.backfill.grid import MOST_SAMPLES
from exporter.errors import ConfigError
from exporter.metrics.counters import EVENT_FAMILIES
from exporter.metrics.fleet import FLEET_FAMILIES
from exporter.metrics.pools import POOL_INFO
from exporter.settings import durations

_TIMES = (
    "a date such as 2026-08-01, a time such as 2026-08-01T12:00:00Z, unix seconds, or a duration "
    "before now such as 30d"
)
_LABEL = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.+)", re.DOTALL)
_RESERVED_LABELS = frozenset(
    {
        "region",
        "project",
        "le",
        *(name for row in (*FLEET_FAMILIES, POOL_INFO) for name in row.labels),
        *(name for row in EVENT_FAMILIES for name in row.shown_labels),
    }
)
_FIRST_UNIX_SECONDS = 1e9  # September 2001: no training job is older
_SHORTEST_STEP = 1.0


class BackfillArguments(NamedTuple):
    """The command's own options as they were written.

    Attributes:
        start: ``--from``.
        stop: ``--to``; None = now.
        labels: ``NAME=VALUE``.
        histograms: whether to write histograms too.
        output: directory for one file per day; None = standard output.
    """

    start: str
    stop: str | None
    step: str
    labels: tuple[str, ...]
    histograms: bool
    output: Path | None

    @classmethod
    def of(cls, parsed: argparse.Namespace) -> Self:
        """Take the values that argparse has read."""
        return cls(
            parsed.start,
            parsed.stop,
            parsed.step,
            tuple(parsed.labels),
            parsed.histograms,
            parsed.output,
        )


class BackfillPlan(NamedTuple):
    """What to write.

    Attributes:
        start, stop: unix seconds.
        step: seconds.
        history: seconds for which finished jobs count in the gauges; 0 = all (``jobs.history``).
        labels: added to every series.
        histograms: whether to write histograms too.
        idle_retention: seconds for which gauges without jobs are written; 0 = forever
            (``jobs.idle_retention``).
        users: how many users have series of their own (``jobs.max_users``); None = there are no
            series by user (``jobs.by_user``).
    """

    start: float
    stop: float
    step: float
    history: float
    labels: Mapping[str, str]
    histograms: bool
    idle_retention: float = 0.0
    users: int | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    parser.add_argument(
        "--from",
        dest="start",
        metavar="TIME",
        default="30d",
        help=f"start of the time range: {_TIMES} (default: 30d)",
    )
    parser.add_argument(
        "--to", dest="stop", metavar="TIME", help="end of the time range, likewise (default: now)"
    )
    parser.add_argument(
        "--step", metavar="DURATION", default="5m", help="time between samples (default: 5m)"
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=_directory,
        help="write one file per day to this directory; after an interruption, the same command "
        "resumes (default: one document on standard output)",
    )
    parser.add_argument(
        "--histograms",
        action="store_true",
        help="also write the histograms of queue, run, recovery and attempt durations: four to "
        "eight times as many series",
    )
    parser.add_argument(
        "--label",
        dest="labels",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="add a label to every series, repeatable: job and instance as Prometheus sets them",
    )


def plan(
    arguments: BackfillArguments,
    *,
    history: float,
    now: float,
    idle_retention: float = 0.0,
    users: int | None = None,
) -> BackfillPlan:
    """Parse the options and check that they fit together.

    Args:
        arguments: as written.
        history: ``jobs.history``, seconds.
        now: unix seconds.
        idle_retention: ``jobs.idle_retention``, seconds.
        users: as in `BackfillPlan`.

    Raises:
        ConfigError: with a line for each problem.
    """
    problems: list[str] = []
    now = round(now, 3)  # all times are whole milliseconds
    start = _time("--from", arguments.start, now, problems)
    stop = now if arguments.stop is None else _time("--to", arguments.stop, now, problems)
    step = _step(arguments.step, problems)
    labels = dict(_labels(arguments.labels, problems))
    if not problems:
        problems += _contradictions(start, stop, step, now)
    if problems:
        raise ConfigError(*problems)
    return BackfillPlan(
        start, stop, step, history, labels, arguments.histograms, idle_retention, users
    )


def _directory(text: str) -> Path:
    """Refuse "": an empty variable in a script must not fill the current directory."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; use a path, or . for the current directory")
    return Path(text)


def _time(option: str, text: str, now: float, problems: list[str]) -> float:
    found = now if text == "now" else _ago(text, now) or _unix(text) or _calendar(text)
    if found is None:
        problems.append(f'{option}: invalid time "{text}"; use {_TIMES}')
        return now
    return round(found, 3)


def _ago(text: str, now: float) -> float | None:
    """Parse ``30d``. A plain number is refused, since its unit would be a guess."""
    seconds = None if text.isdigit() else durations.parse(text)
    return None if seconds is None or text[-1].isdigit() else now - seconds


def _unix(text: str) -> float | None:
    """Parse unix seconds, also as Prometheus writes them: ``1.79550000012e+09``."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if _FIRST_UNIX_SECONDS <= found < 100 * _FIRST_UNIX_SECONDS else None


def _calendar(text: str) -> float | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _step(text: str, problems: list[str]) -> float:
    found = durations.parse(text)
    if found is None or found < _SHORTEST_STEP:
        problems.append(
            f'--step: invalid duration "{text}"; use a duration of at least 1s, such as 5m'
        )
        return 1.0
    return found


def _labels(texts: tuple[str, ...], problems: list[str]) -> Iterator[tuple[str, str]]:
    names: set[str] = set()
    for text in texts:
        match = _LABEL.fullmatch(text)
        if match is None:
            problems.append(
                f'--label: invalid label "{text}"; use NAME=VALUE, such as job=modelarts'
            )
        elif match[1] in _RESERVED_LABELS or match[1].startswith("__"):
            problems.append(f"--label: {match[1]} is reserved; use another name, such as job")
        elif match[1] in names:
            problems.append(f"--label: {match[1]} is given twice; use it once")
        else:
            names.add(match[1])
            yield match[1], match[2]


def _contradictions(start: float, stop: float, step: float, now: float) -> Iterator[str]:
    if start >= stop:
        yield f"--from: {show_time(start)} is not before --to, {show_time(stop)}"
    elif stop > now:
        yield (f"--to: {show_time(stop)} is in the future; use a time up to now, {show_time(now)}")
    elif (samples := (stop - start) / step) > MOST_SAMPLES:
        yield (
            f"--step: {samples:,.0f} samples per series are too many; use a longer step or a "
            f"shorter time range, for at most {MOST_SAMPLES:,} samples"
        )


def show_time(time: float) -> str:
    """Format unix seconds as ``2026-08-01T12:00:00Z``."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
