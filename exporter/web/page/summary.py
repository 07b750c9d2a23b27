"""Summary of a target's jobs for the page: counts, and the first few jobs of each table."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest
from typing import NamedTuple, TypeAlias

from exporter.jobs.job import TERMINAL, WAITING
from exporter.jobs.tracked import Fleet, TrackedJob

ROWS = 50
"""Maximum number of rows in a table."""

FEW_ROWS = 20
"""Rows in a table of jobs without a search, so that later tables stay within reach."""

MAX_QUERY = 100
"""Maximum number of characters of a search query."""

FAILED = ("Failed", "Abnormal")

SearchWords: TypeAlias = Sequence[str]
"""A job must contain all of them; without words all jobs match."""


class JobList(NamedTuple):
    """The first jobs of a table, and how many there are in total."""

    first: Sequence[TrackedJob]
    total: int


class PoolSummary(NamedTuple):
    """A pool's jobs by phase, and the cards that they use or wait for."""

    name: str
    phases: Mapping[str, int]
    cards_used: int
    cards_queued: int


class Summary(NamedTuple):
    """The jobs of a target that the page shows.

    Attributes:
        phases: number of jobs by phase.
        pools: by id.
        running: most recently started first.
        waiting: longest wait first.
        failed: most recently ended first.
        others: all other jobs, likewise; empty without a search.
    """

    phases: Mapping[str, int]
    pools: Mapping[str, PoolSummary]
    running: JobList
    waiting: JobList
    failed: JobList
    others: JobList


def search_words(query: str) -> SearchWords:
    """Split a query into words; a query that is too long is truncated."""
    return query[:MAX_QUERY].casefold().split()


def summarize(fleet: Fleet, words: SearchWords = (), *, horizon: float | None = None) -> Summary:
    """Summarize jobs; only the jobs shown are sorted.

    Args:
        fleet: of a target.
        words: jobs that lack one of them are omitted.
        horizon: jobs that ended before it are omitted; Unix seconds.
    """
    by_phase: dict[str, list[TrackedJob]] = {}
    names = fleet.pool_names
    for tracked in fleet.jobs.values():
        if horizon is not None and _ended_before(tracked, horizon):
            continue
        if not words or _matches(tracked, words, names):
            by_phase.setdefault(tracked.job.phase, []).append(tracked)
    shown = {"Running", *WAITING, *FAILED}
    rest = [phase for phase in by_phase if phase not in shown] if words else []
    return Summary(
        phases={phase: len(found) for phase, found in by_phase.items()},
        pools=_pools(by_phase, names),
        running=_job_list(by_phase, ("Running",)),
        waiting=_job_list(by_phase, WAITING, sign=-1),
        failed=_job_list(by_phase, FAILED),
        others=_job_list(by_phase, rest),
    )


def phase_since(tracked: TrackedJob) -> float:
    """When a job entered its current state, as far as known, in Unix seconds."""
    job = tracked.job
    since = tracked.ended if job.phase in TERMINAL else job.started
    if job.phase in WAITING:  # a job may wait again after it has run; then its creation counts
        since = job.created
    return since if since is not None else job.created or 0.0


def _ended_before(tracked: TrackedJob, horizon: float) -> bool:
    return tracked.job.phase in TERMINAL and (tracked.ended is None or tracked.ended < horizon)


def _matches(tracked: TrackedJob, words: SearchWords, names: Mapping[str, str]) -> bool:
    job = tracked.job
    pool = job.pool, job.pool_name, names.get(job.pool, "")
    more = job.workspace, *pool, job.flavor, job.accelerator, job.engine
    text = "\n".join((job.id, job.name, job.user, job.phase, job.message, *more)).casefold()
    return all(word in text for word in words)


def _job_list(
    by_phase: Mapping[str, Sequence[TrackedJob]], phases: Iterable[str], *, sign: int = 1
) -> JobList:
    jobs = [tracked for phase in phases for tracked in by_phase.get(phase, ())]
    first = nlargest(ROWS, jobs, key=lambda tracked: (sign * phase_since(tracked), tracked.job.id))
    return JobList(first, len(jobs))


def _pools(
    by_phase: Mapping[str, Sequence[TrackedJob]], listed_names: Mapping[str, str]
) -> Mapping[str, PoolSummary]:
    names: dict[str, str] = {}
    phases: dict[str, dict[str, int]] = {}
    used: Counter[str] = Counter()
    queued: Counter[str] = Counter()
    for phase, found in by_phase.items():
        for pool, number in Counter(tracked.job.pool for tracked in found).items():
            phases.setdefault(pool, {})[phase] = number
        names.update(
            (tracked.job.pool, tracked.job.pool_name) for tracked in found if tracked.job.pool_name
        )
        cards = used if phase == "Running" else queued if phase in WAITING else None
        if cards is not None:
            for tracked in found:
                cards[tracked.job.pool] += tracked.job.accelerators or 0
    return {
        pool: PoolSummary(
            listed_names.get(pool) or names.get(pool) or pool, numbers, used[pool], queued[pool]
        )
        for pool, numbers in phases.items()
    }
