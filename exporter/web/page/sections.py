"""The parts of the page that are about jobs."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import nlargest
from typing import NamedTuple
from urllib.parse import quote

from exporter.jobs.job import ACTIVE, PHASES, TERMINAL, UNKNOWN_PHASE
from exporter.jobs.tracker import TrackedJob
from exporter.web.page.markup import NOTHING, Column, bar, name, since, span, table, text
from exporter.web.page.summary import FAILED, ROWS, WAITING, JobList, PoolSummary, Summary, moment

_LONGEST_REASON = 200
_UNKNOWN = "unknown"
_ORDER = ("Running", "Pending", "Creating", "Terminating")


class Part(NamedTuple):
    """A target's jobs.

    Attributes:
        target: its name if there are others, else "".
        region: where its console is.
    """

    target: str
    region: str
    summary: Summary


class _Line(NamedTuple):
    known: TrackedJob
    part: Part


class _JobRows(NamedTuple):
    """The jobs that a table shows, and how many there are."""

    lines: Sequence[_Line]
    number: int


def phases(parts: Iterable[Part]) -> str:
    """Jobs by phase; those that are over have a scale of their own."""
    numbers: Counter[str] = Counter()
    for part in parts:
        numbers.update(part.summary.phases)
    lines = []
    for group in (_ORDER, tuple(phase for phase in PHASES if phase in TERMINAL), (UNKNOWN_PHASE,)):
        scale = max(numbers[phase] for phase in group)
        lines += [
            (
                f'<span class="phase {phase}">{phase}</span>',
                bar([(phase, numbers[phase])], scale),
                f"{numbers[phase]:,}",
            )
            for phase in group
            if numbers[phase] or phase in ("Running", "Pending", "Failed")
        ]
    columns = (Column("Phase"), Column("", "w"), Column("Jobs", "n"))
    return "<h2>Jobs by phase</h2>\n" + table(columns, lines, empty="", style="few")


def pools(parts: Iterable[Part]) -> str:
    """Jobs by pool, those with most unfinished jobs first."""
    found = [(part, pool) for part in parts for pool in part.summary.pools.values()]
    first = nlargest(ROWS, found, key=lambda each: (_active(each[1]), sum(each[1].phases.values())))
    scale = max((_active(pool) for _, pool in found), default=0)
    lines = [
        (
            name(pool.name) + _small(part.target),
            bar([(phase, pool.phases.get(phase, 0)) for phase in _ORDER], scale),
            _cards(pool.phases.get("Running", 0), pool.used),
            _cards(_sum(pool.phases, WAITING), pool.wanted),
            f"{_sum(pool.phases, FAILED):,}",
        )
        for part, pool in first
    ]
    columns = (
        Column("Pool"), Column("", "w"), Column("Running", "n"), Column("Waiting", "n"),
        Column("Failures", "n"),
    )  # fmt: skip
    body = table(columns, lines, empty="No jobs.", style="few")
    return "<h2>Jobs by pool</h2>\n" + body + _more(len(found) - len(first))


def running(parts: Sequence[Part], now: float, limit: int) -> str:
    """Running jobs."""
    columns = (
        Column("Job"), Column("User", "u"), Column("Pool", "u"), Column("Cards"),
        Column("Restarts"), Column("Running for", "t"),
    )  # fmt: skip

    def cells(line: _Line) -> tuple[str, ...]:
        return (
            *_who(line), _size(line), _restarts(line.known), since(line.known.job.started, now),
        )  # fmt: skip

    found = _first(parts, limit, lambda summary: summary.running)
    return _section("Running", "the latest to start first", columns, cells, found)


def waiting(parts: Sequence[Part], now: float, limit: int) -> str:
    """What waits, and since when."""
    columns = (
        Column("Job"), Column("User", "u"), Column("Pool", "u"), Column("Cards"), Column("Phase"),
        Column("Waiting for", "t"),
    )  # fmt: skip

    def cells(line: _Line) -> tuple[str, ...]:
        job = line.known.job
        return (*_who(line), _size(line), _phase(job.phase), since(job.created, now))

    found = _first(parts, limit, lambda summary: summary.waiting, sign=-1)
    return _section("Waiting", "the longest first", columns, cells, found)


def failed(parts: Sequence[Part], now: float, limit: int) -> str:
    """Failures, and why."""
    found = _first(parts, limit, lambda summary: summary.failed)
    return _section("Failures", _LATEST, _ENDED, lambda line: _ended(line, now), found)


def others(parts: Sequence[Part], now: float, limit: int) -> str:
    """All other jobs, when something is searched for."""
    found = _first(parts, limit, lambda summary: summary.others)
    if not found.number:
        return ""
    return _section("Other jobs", _LATEST, _ENDED, lambda line: _ended(line, now), found)


_LATEST = "the latest first"
_ENDED = (
    Column("Job"), Column("User", "u"), Column("Pool", "u"), Column("Phase"), Column("Exit code"),
    Column("Reason", "r"), Column("Restarts"), Column("When", "t"),
)  # fmt: skip


def _ended(line: _Line, now: float) -> tuple[str, ...]:
    job = line.known.job
    reason = job.message or (job.runs[-1].reason if job.runs else "")
    code = "" if job.exit_code is None else f'<b class="code">{job.exit_code}</b>'
    ran = f"<small>ran {span(job.duration)}</small>" if job.duration else ""
    return (
        *_who(line),
        _phase(job.phase),
        (code + _small(job.failed_task)) or NOTHING,
        f"<bdi>{text(reason, _LONGEST_REASON)}</bdi>" if reason else NOTHING,
        _restarts(line.known),
        since(moment(line.known), now, after=" ago") + ran,
    )


def _section(
    title: str,
    order: str,
    columns: Sequence[Column],
    cells: Callable[[_Line], Sequence[str]],
    found: _JobRows,
) -> str:
    head = f"{found.number:,}, {order}" if found.number > 1 else f"{found.number}"
    rows = table(columns, map(cells, found.lines), empty="None.")
    more = _more(found.number - len(found.lines))
    place = title.partition(" ")[0].lower()
    return f'<section id="{place}">\n<h2>{title} <span>{head}</span></h2>\n{rows}{more}</section>\n'


def _first(
    parts: Sequence[Part], limit: int, some: Callable[[Summary], JobList], *, sign: int = 1
) -> _JobRows:
    lines = [_Line(known, part) for part in parts for known in some(part.summary).first]
    number = sum(some(part.summary).number for part in parts)
    return _JobRows(nlargest(limit, lines, key=lambda line: sign * moment(line.known)), number)


def _who(line: _Line) -> tuple[str, str, str]:
    job, part = line.known.job, line.part
    link = _console(part.region, job.id)
    label = f'<a href="{_address(link)}" rel="noopener noreferrer">{name(job.name or job.id)}</a>'
    pool = name(part.summary.pools[job.pool].name) + _small(part.target)
    return label + _small(job.id), name(job.user) if job.user else NOTHING, pool


def _console(region: str, job_id: str) -> str:
    """The job in the vendor's console; deploy/prometheus/README.md tells of other sites."""
    place, job = (quote(each[:200], safe="", errors="replace") for each in (region, job_id))
    return f"https://console.huaweicloud.com/modelarts/?region={place}#/training/detail/{job}"


def _address(url: str) -> str:
    """An address of ours, whole, for an attribute."""
    return text(url, len(url))


def _size(line: _Line) -> str:
    job = line.known.job
    if job.accelerators is None:
        cards = '<span class="dim">CPU</span>' if job.flavor_type == "CPU" else NOTHING
    else:
        kind = "cards" if job.accelerator == _UNKNOWN else name(job.accelerator)
        cards = f"{job.accelerators:,} {kind}"
    if job.nodes is None:
        return cards
    changed = job.current_nodes is not None and job.current_nodes != job.nodes
    count = f"{job.current_nodes} of {job.nodes}" if changed else f"{job.nodes}"
    return f"{cards}<small>{count} node{'s' * (count != '1')}</small>"


def _restarts(known: TrackedJob) -> str:
    if not known.restarts:
        return '<span class="dim">0</span>'
    return f"{len(known.restarts)}" + _small(known.restarts[-1].recovery)


def _phase(phase: str) -> str:
    return f'<span class="phase {text(phase)}">{text(phase)}</span>'


def _cards(jobs: int, cards: int) -> str:
    return f"{jobs:,}" + (f"<small>{cards:,} card{'s' * (cards != 1)}</small>" if cards else "")


def _small(value: str) -> str:
    return f"<small>{name(value)}</small>" if value else ""


def _more(number: int) -> str:
    return f'<p class="more">and {number:,} more</p>\n' if number > 0 else ""


def _active(pool: PoolSummary) -> int:
    return _sum(pool.phases, ACTIVE)


def _sum(numbers: Mapping[str, int], keys: Iterable[str]) -> int:
    return sum(numbers.get(key, 0) for key in keys)
