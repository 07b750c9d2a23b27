"""Summary of a target's jobs for the page: counts, and the first few jobs of each table."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest
from typing import NamedTuple, TypeAlias

from exporter.jobs.fleet import Fleet, NewestName, phase_since
from exporter.jobs.job import FAILED, WAITING
from exporter.jobs.tracked import TrackedJob

ROWS = 50
"""Maximum number of rows in a table."""

FEW_ROWS = 20
"""Rows in a table of jobs without a search, so that later tables stay within reach."""

MAX_QUERY = 100
"""Maximum number of characters of a search query."""

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


def summarize(fleet: Fleet, words: SearchWords = ()) -> Summary:
    """Summarize jobs; only the jobs shown are sorted.

    Args:
        fleet: of a target.
        words: jobs that lack one of them are omitted; of finished jobs, only those that ended
            recently and the latest failures are searched.
    """
    names = fleet.pool_names
    jobs = [
        known
        for known in fleet.whole_jobs()
        if (_matches(known, words, names) if words else fleet.counts(known))
    ]
    by_phase: dict[str, list[TrackedJob]] = {}
    for known in jobs:
        by_phase.setdefault(known.job.phase, []).append(known)
    numbers = Counter({phase: len(found) for phase, found in by_phase.items()})
    shown = {"Running", *WAITING, *FAILED}
    rest = [phase for phase in by_phase if phase not in shown] if words else []
    summary = Summary(
        phases=numbers,
        pools=_pools(_numbers_by_pool(jobs), jobs, names, fleet.names_in_jobs),
        running=_job_list(by_phase, ("Running",)),
        waiting=_job_list(by_phase, WAITING, sign=-1),
        failed=_job_list(by_phase, FAILED),
        others=_job_list(by_phase, rest),
    )
    return summary if words else _with_totals(summary, fleet)


def _with_totals(summary: Summary, fleet: Fleet) -> Summary:
    """Add the finished jobs that are counted, but not kept whole."""
    phases = fleet.jobs_by_phase()
    numbers = _numbers_by_pool(fleet.open.values())
    for group, number in fleet.counted.items():
        numbers.setdefault(group.pool, Counter())[group.phase] += number
    failed = summary.failed._replace(total=sum(phases[phase] for phase in FAILED))
    pools = _pools(numbers, fleet.open.values(), fleet.pool_names, fleet.names_in_jobs)
    return summary._replace(phases=phases, pools=pools, failed=failed)


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


def _numbers_by_pool(jobs: Iterable[TrackedJob]) -> dict[str, Counter[str]]:
    """The numbers of jobs by pool ID and phase."""
    numbers: dict[str, Counter[str]] = {}
    for known in jobs:
        numbers.setdefault(known.job.pool, Counter())[known.job.phase] += 1
    return numbers


def _pools(
    numbers: Mapping[str, Mapping[str, int]],
    jobs: Iterable[TrackedJob],
    listed_names: Mapping[str, str],
    names_in_jobs: Mapping[str, NewestName],
) -> Mapping[str, PoolSummary]:
    used: Counter[str] = Counter()
    queued: Counter[str] = Counter()
    for known in jobs:
        job = known.job
        cards = used if job.phase == "Running" else queued if job.phase in WAITING else None
        if cards is not None:
            cards[job.pool] += job.accelerators or 0
    return {
        pool: PoolSummary(
            listed_names.get(pool) or names_in_jobs.get(pool, (0, ""))[1] or pool,
            phases,
            used[pool],
            queued[pool],
        )
        for pool, phases in numbers.items()
    }
