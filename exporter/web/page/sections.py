"""The sections of the page that show jobs."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import nlargest
from operator import itemgetter
from typing import NamedTuple
from urllib.parse import quote

from exporter.jobs.fleet import phase_since
from exporter.jobs.job import ACTIVE, FAILED, PHASES, TERMINAL, UNKNOWN_PHASE, WAITING, Job
from exporter.jobs.pool import PoolSnapshot
from exporter.jobs.tracked import TrackedJob
from exporter.web.page.markup import NOTHING, Column, bar, duration, elapsed, name, table, text
from exporter.web.page.summary import ROWS, JobList, Summary

_MAX_REASON_LENGTH = 200
_UNKNOWN = "unknown"
_ORDER = ("Running", "Pending", "Creating", "Terminating")


class TargetJobs(NamedTuple):
    """The jobs of a target.

    Attributes:
        target: the target's name, "" if it is the only target.
        region: for links to the console.
        summary: its jobs.
        pools: how full its pools are.
    """

    target: str
    region: str
    summary: Summary
    pools: PoolSnapshot = PoolSnapshot()


class _JobRow(NamedTuple):
    tracked: TrackedJob
    source: TargetJobs


class _JobRows(NamedTuple):
    """The rows of a table of jobs, and how many jobs there are in total."""

    rows: Sequence[_JobRow]
    total: int


def phases(sources: Iterable[TargetJobs]) -> str:
    """Jobs by phase; active and finished phases have separate scales."""
    numbers: Counter[str] = Counter()
    for source in sources:
        numbers.update(source.summary.phases)
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


def pools(sources: Iterable[TargetJobs]) -> str:
    """Jobs by pool, those with the most unfinished jobs first."""
    found = [
        (_sum(pool.phases, ACTIVE), sum(pool.phases.values()), source, pool)
        for source in sources
        for pool in source.summary.pools.values()
    ]
    first = nlargest(ROWS, found, key=itemgetter(0, 1))
    scale = max((active for active, *_ in found), default=0)
    lines = [
        (
            name(pool.name) + _small(source.target),
            bar([(phase, pool.phases.get(phase, 0)) for phase in _ORDER], scale),
            _cards(pool.phases.get("Running", 0), pool.cards_used),
            _cards(_sum(pool.phases, WAITING), pool.cards_queued),
            f"{_sum(pool.phases, FAILED):,}",
        )
        for *_, source, pool in first
    ]
    columns = (
        Column("Pool"), Column("", "w"), Column("Running", "n"), Column("Waiting", "n"),
        Column("Failures", "n"),
    )  # fmt: skip
    body = table(columns, lines, empty="No jobs.", style="few")
    return "<h2>Jobs by pool</h2>\n" + body + _more(len(found) - len(first))


def running(sources: Sequence[TargetJobs], now: float, limit: int) -> str:
    """The table of running jobs."""
    columns = (
        Column("Job"), Column("User", "u"), Column("Pool", "u"), Column("Cards"),
        Column("Restarts"), Column("Running for", "t"),
    )  # fmt: skip

    def cells(row: _JobRow) -> tuple[str, ...]:
        ran = elapsed(row.tracked.job.started, now)
        return (*_identity_cells(row), _size(row), _restarts(row.tracked), ran)

    found = _top_rows(sources, limit, lambda summary: summary.running)
    return _section("Running", "most recently started first", columns, cells, found)


def waiting(sources: Sequence[TargetJobs], now: float, limit: int) -> str:
    """The table of waiting jobs."""
    columns = (
        Column("Job"), Column("User", "u"), Column("Pool", "u"), Column("Cards"), Column("Phase"),
        Column("Waiting for", "t"),
    )  # fmt: skip

    def cells(row: _JobRow) -> tuple[str, ...]:
        job = row.tracked.job
        phase = _phase(job.phase) + _small(_why_waiting(job, row.source.pools))
        return (*_identity_cells(row), _size(row), phase, elapsed(job.created, now))

    found = _top_rows(sources, limit, lambda summary: summary.waiting, sign=-1)
    return _section("Waiting", "longest wait first", columns, cells, found)


def failed(sources: Sequence[TargetJobs], now: float, limit: int) -> str:
    """The table of failed jobs, with their reasons."""
    return _ended("Failures", now, _top_rows(sources, limit, lambda summary: summary.failed))


def others(sources: Sequence[TargetJobs], now: float, limit: int) -> str:
    """The table of all other jobs that match a search."""
    found = _top_rows(sources, limit, lambda summary: summary.others)
    return _ended("Other jobs", now, found) if found.total else ""


def _ended(title: str, now: float, found: _JobRows) -> str:
    columns = (
        Column("Job"), Column("User", "u"), Column("Pool", "u"), Column("Phase"),
        Column("Exit code"), Column("Reason", "r"), Column("Restarts"), Column("When", "t"),
    )  # fmt: skip
    return _section(title, "most recent first", columns, lambda row: _ended_cells(row, now), found)


def _ended_cells(row: _JobRow, now: float) -> tuple[str, ...]:
    job = row.tracked.job
    reason = job.message or (job.runs[-1].reason if job.runs else "")
    code = "" if job.exit_code is None else f'<b class="code">{job.exit_code}</b>'
    ran = f"<small>ran {duration(job.duration)}</small>" if job.duration else ""
    return (
        *_identity_cells(row),
        _phase(job.phase),
        (code + _small(job.failed_task)) or NOTHING,
        f"<bdi>{text(reason, _MAX_REASON_LENGTH)}</bdi>" if reason else NOTHING,
        _restarts(row.tracked),
        elapsed(phase_since(row.tracked), now, after=" ago") + ran,
    )


def _section(
    title: str,
    order: str,
    columns: Sequence[Column],
    cells: Callable[[_JobRow], Sequence[str]],
    found: _JobRows,
) -> str:
    head = f"{found.total:,}, {order}" if found.total > 1 else f"{found.total}"
    rows = table(columns, map(cells, found.rows), empty="None.")
    more = _more(found.total - len(found.rows))
    key = title.partition(" ")[0].lower()
    return f'<section id="{key}">\n<h2>{title} <span>{head}</span></h2>\n{rows}{more}</section>\n'


def _top_rows(
    sources: Sequence[TargetJobs], limit: int, of: Callable[[Summary], JobList], *, sign: int = 1
) -> _JobRows:
    lists = [(source, of(source.summary)) for source in sources]
    rows = [_JobRow(tracked, source) for source, jobs in lists for tracked in jobs.first]
    first = nlargest(limit, rows, key=lambda row: sign * phase_since(row.tracked))
    return _JobRows(first, sum(jobs.total for _, jobs in lists))


def _identity_cells(row: _JobRow) -> tuple[str, str, str]:
    job, source = row.tracked.job, row.source
    link = _console(source.region, job.id)
    label = f'<a href="{_href(link)}" rel="noopener noreferrer">{name(job.name or job.id)}</a>'
    pool = name(source.summary.pools[job.pool].name) + _small(source.target)
    return label + _small(job.id), name(job.user) if job.user else NOTHING, pool


def _console(region: str, job_id: str) -> str:
    """URL of the job in the console; deploy/prometheus/README.md lists other sites."""
    in_region, job = (quote(each[:200], safe="", errors="replace") for each in (region, job_id))
    return f"https://console.huaweicloud.com/modelarts/?region={in_region}#/training/detail/{job}"


def _href(url: str) -> str:
    """Escape a URL for an attribute, without truncating it."""
    return text(url, len(url))


def _size(row: _JobRow) -> str:
    job = row.tracked.job
    if job.accelerators is None:
        cards = '<span class="dim">CPU</span>' if job.flavor_type == "CPU" else NOTHING
    else:
        unnamed = f"card{'s' * (job.accelerators != 1)}"
        kind = unnamed if job.accelerator == _UNKNOWN else name(job.accelerator)
        cards = f"{job.accelerators:,} {kind}"
    if job.nodes is None:
        return cards
    changed = job.current_nodes is not None and job.current_nodes != job.nodes
    count = f"{job.current_nodes} of {job.nodes}" if changed else f"{job.nodes}"
    return f"{cards}<small>{count} node{'s' * (count != '1')}</small>"


def _restarts(tracked: TrackedJob) -> str:
    if not tracked.restarts:
        return '<span class="dim">0</span>'
    return f"{len(tracked.restarts)}" + _small(tracked.restarts[-1].recovery)


def _why_waiting(job: Job, pools: PoolSnapshot) -> str:
    """Why a job waits, as far as known: "place 3; 0 of 64 cards free; 2 nodes abnormal"."""
    full = pools.fullness(job.pool)
    facts = []
    if (place := pools.positions.get(job.id)) is not None:
        facts.append(f"place {place}")
    if full.free_cards is not None and full.cards is not None:
        facts.append(f"{full.free_cards:,.0f} of {full.cards:,.0f} cards free")
    if full.abnormal_nodes:
        facts.append(f"{full.abnormal_nodes:,} node{'s' * (full.abnormal_nodes != 1)} abnormal")
    return "; ".join(facts)


def _phase(phase: str) -> str:
    return f'<span class="phase {text(phase)}">{text(phase)}</span>'


def _cards(jobs: int, cards: int) -> str:
    return f"{jobs:,}" + (f"<small>{cards:,} card{'s' * (cards != 1)}</small>" if cards else "")


def _small(value: str) -> str:
    return f"<small>{name(value)}</small>" if value else ""


def _more(number: int) -> str:
    return f'<p class="more">and {number:,} more</p>\n' if number > 0 else ""


def _sum(numbers: Mapping[str, int], keys: Iterable[str]) -> int:
    return sum(numbers.get(key, 0) for key in keys)
