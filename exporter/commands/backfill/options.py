"""The command's own options: which time, in which steps, to where, with which further labels."""

import argparse
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, NoReturn

from exporter.commands.backfill.grid import MOST_MOMENTS
from exporter.errors import ConfigError
from exporter.metrics.counters import BASE, EVENT_FAMILIES
from exporter.metrics.fleet import FLEET_FAMILIES
from exporter.settings import durations

_TIMES = (
    "a date such as 2026-08-01, a time such as 2026-08-01T12:00:00Z, unix seconds, or how long "
    "ago, such as 30d"
)
_STEPS = "a duration of at least 1s, such as 5m"
_LABEL = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_OURS = frozenset(
    {
        "region",
        "project",
        "le",
        *BASE,
        *(name for row in (*FLEET_FAMILIES, *EVENT_FAMILIES) for name in row.labels),
    }
)
_FLAGS = ("--from", "--to", "--step", "--output", "--label", "--histograms")
_FIRST_UNIX_SECONDS = 1e9  # September 2001: no training job is older
_SHORTEST_STEP = 1.0


class BackfillArguments(NamedTuple):
    """What was asked for, as it was written; None = the default.

    Attributes:
        labels: ``NAME=VALUE``.
        histograms: whether to write them, too.
        folder: for a file a day; None: all on standard output.
    """

    since: str
    until: str | None
    step: str
    labels: tuple[str, ...]
    histograms: bool
    folder: Path | None


class BackfillPlan(NamedTuple):
    """What to write.

    Attributes:
        start, stop: unix seconds.
        step: seconds.
        kept: seconds for which finished jobs count in the gauges; 0 = all (``jobs.history``).
        labels: that all series get.
        histograms: whether to write them, too.
    """

    start: float
    stop: float
    step: float
    kept: float
    labels: Mapping[str, str]
    histograms: bool


def help_text() -> str:
    """The command's own options, for people."""
    return _parser().format_help()


def parse(options: Sequence[str]) -> tuple[BackfillArguments, list[str]]:
    """What was asked for, and the options that are the exporter's."""
    found, rest = _parser().parse_known_args(options)
    _refuse_misspelled(rest)
    labels = tuple(found.labels)
    return BackfillArguments(
        found.since, found.until, found.step, labels, found.histograms, found.folder
    ), rest


def _refuse_misspelled(rest: Sequence[str]) -> None:
    """All flags of the exporter have a point; one without is meant for us."""
    for flag in (word.partition("=")[0] for word in rest):
        near = difflib.get_close_matches(flag, _FLAGS, 1) if "." not in flag else []
        if flag.startswith("--") and near:
            raise ConfigError(f"flag {flag}: unknown; did you mean {near[0]}?")


def plan(wanted: BackfillArguments, *, kept: float, now: float) -> BackfillPlan:
    """What that means.

    Args:
        wanted: as it was written.
        kept: ``jobs.history``, seconds.
        now: unix seconds.

    Raises:
        ConfigError: with a line for each problem.
    """
    problems: list[str] = []
    now = round(now, 3)  # as all times are
    start = _time("--from", wanted.since, now, problems)
    stop = now if wanted.until is None else _time("--to", wanted.until, now, problems)
    step = _step(wanted.step, problems)
    labels = dict(_labels(wanted.labels, problems))
    if not problems:
        problems += _contradictions(start, stop, step, now)
    if problems:
        raise ConfigError(*problems)
    return BackfillPlan(start, stop, step, kept, labels, wanted.histograms)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """As all other problems of the command line are told."""
        raise ConfigError(message.removeprefix("argument "))


def _parser() -> argparse.ArgumentParser:
    made = _Parser(usage=argparse.SUPPRESS, allow_abbrev=False, add_help=False)
    made.add_argument(
        "--from", dest="since", metavar="TIME", default="30d", help=f"{_TIMES} (default: 30d)"
    )
    made.add_argument("--to", dest="until", metavar="TIME", help="likewise (default: now)")
    made.add_argument(
        "--step", metavar="DURATION", default="5m", help="from sample to sample (default: 5m)"
    )
    made.add_argument(
        "--output",
        dest="folder",
        metavar="DIR",
        type=_folder,
        help="a file for each day in this directory; after an interruption the same command goes "
        "on there (default: one document on standard output)",
    )
    made.add_argument(
        "--histograms",
        action="store_true",
        help="queue, run, recovery and attempt durations, too: four to eight times as many series",
    )
    made.add_argument(
        "--label",
        dest="labels",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a label for all series, repeatable: job and instance as Prometheus gives them",
    )
    return made


def _folder(text: str) -> Path:
    """An empty variable in a script must not fill the directory where it happens to be."""
    if not text:
        raise argparse.ArgumentTypeError("'' is no directory; valid: a path, . for this one")
    return Path(text)


def _time(option: str, text: str, now: float, problems: list[str]) -> float:
    found = now if text == "now" else _ago(text, now) or _unix(text) or _calendar(text)
    if found is None:
        problems.append(f"{option}: {text!r} is no time; valid: {_TIMES}")
        return now
    return round(found, 3)


def _ago(text: str, now: float) -> float | None:
    """``30d``; a plain number is none, it could be meant as anything."""
    seconds = None if text.isdigit() else durations.parse(text)
    return None if seconds is None or text[-1].isdigit() else now - seconds


def _unix(text: str) -> float | None:
    """Also as Prometheus writes it: ``1.79550000012e+09``."""
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
        problems.append(f"--step: {text!r} is not valid; valid: {_STEPS}")
        return 1.0
    return found


def _labels(texts: tuple[str, ...], problems: list[str]) -> Iterator[tuple[str, str]]:
    names: set[str] = set()
    for text in texts:
        match = _LABEL.fullmatch(text)
        if match is None or not match[2]:
            problems.append(
                f"--label: {text!r} is no label; valid: NAME=VALUE, such as job=modelarts"
            )
        elif match[1] in _OURS or match[1].startswith("__"):
            problems.append(f"--label: the name {match[1]} is taken; valid: others, such as job")
        elif match[1] in names:
            problems.append(f"--label: {match[1]} is given twice; valid: once")
        else:
            names.add(match[1])
            yield match[1], match[2]


def _contradictions(start: float, stop: float, step: float, now: float) -> Iterator[str]:
    if start >= stop:
        yield f"--from: {shown(start)} is not before --to, {shown(stop)}"
    elif stop > now:
        yield f"--to: {shown(stop)} lies in the future; valid: at most now, {shown(now)}"
    elif (moments := (stop - start) / step) > MOST_MOMENTS:
        yield (
            f"--step: {moments:,.0f} samples of every series; valid: a longer step or a shorter "
            f"time, at most {MOST_MOMENTS:,} samples"
        )


def shown(time: float) -> str:
    """Unix seconds for people: ``2026-08-01T12:00:00Z``."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
