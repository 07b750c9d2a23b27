"""What the page shows of a target's jobs: numbers, and the first few jobs of each kind."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest
from typing import NamedTuple, TypeAlias

from exporter.jobs.job import TERMINAL
from exporter.jobs.tracker import Fleet, TrackedJob

ROWS = 50
"""At most so many rows in a table."""

FEW_ROWS = 20
"""So many rows in a table of jobs when nothing is searched for, or nobody gets past the first."""

LONGEST_QUERY = 100
"""At most so many characters are searched for."""

WAITING = ("Creating", "Pending")
FAILED = ("Failed", "Abnormal")

Words: TypeAlias = Sequence[str]
"""All of them must be found; none finds everything."""


class JobList(NamedTuple):
    """The first few jobs of a kind, and how many there are in all."""

    first: Sequence[TrackedJob]
    number: int


class PoolSummary(NamedTuple):
    """A pool's jobs: how many in each phase, and the cards that they use or wait for."""

    name: str
    phases: Mapping[str, int]
    used: int
    wanted: int


class Summary(NamedTuple):
    """What the page shows of a target's jobs.

    Attributes:
        phases: jobs by phase.
        pools: by id.
        running: those that started last come first.
        waiting: those that wait longest come first.
        failed: those that ended last come first.
        others: all the rest, likewise; empty unless something is searched for.
    """

    phases: Mapping[str, int]
    pools: Mapping[str, PoolSummary]
    running: JobList
    waiting: JobList
    failed: JobList
    others: JobList


def words_of(query: str) -> Words:
    """What a query looks for; it is cut off where it is too long."""
    return query[:LONGEST_QUERY].casefold().split()


def summarize(fleet: Fleet, words: Words = (), *, horizon: float | None = None) -> Summary:
    """Sum up jobs; nothing is sorted that is not shown.

    Args:
        fleet: of a target.
        words: jobs without one of them are left out.
        horizon: those that ended before are left out; unix seconds.
    """
    by_phase: dict[str, list[TrackedJob]] = {}
    names = fleet.pool_names
    for known in fleet.jobs.values():
        if horizon is not None and _is_over_since(known, horizon):
            continue
        if not words or _has(known, words, names):
            by_phase.setdefault(known.job.phase, []).append(known)
    shown = {"Running", *WAITING, *FAILED}
    rest = [phase for phase in by_phase if phase not in shown] if words else []
    return Summary(
        phases={phase: len(found) for phase, found in by_phase.items()},
        pools=_pools(by_phase, names),
        running=_some(by_phase, ("Running",)),
        waiting=_some(by_phase, WAITING, sign=-1),
        failed=_some(by_phase, FAILED),
        others=_some(by_phase, rest),
    )


def moment(known: TrackedJob) -> float:
    """Since when a job is as it is, as well as that is known, in unix seconds."""
    job = known.job
    since = known.ended if job.phase in TERMINAL else job.started
    if job.phase in WAITING:  # a job that has run may wait again; it was created once
        since = job.created
    return since if since is not None else job.created or 0.0


def _is_over_since(known: TrackedJob, moment: float) -> bool:
    return known.job.phase in TERMINAL and (known.ended is None or known.ended < moment)


def _has(known: TrackedJob, words: Words, names: Mapping[str, str]) -> bool:
    job = known.job
    pool = job.pool, job.pool_name, names.get(job.pool, "")
    places = job.workspace, *pool, job.flavor, job.accelerator, job.engine
    text = "\n".join((job.id, job.name, job.user, job.phase, job.message, *places)).casefold()
    return all(word in text for word in words)


def _some(
    by_phase: Mapping[str, Sequence[TrackedJob]], phases: Iterable[str], *, sign: int = 1
) -> JobList:
    jobs = [known for phase in phases for known in by_phase.get(phase, ())]
    first = nlargest(ROWS, jobs, key=lambda known: (sign * moment(known), known.job.id))
    return JobList(first, len(jobs))


def _pools(
    by_phase: Mapping[str, Sequence[TrackedJob]], told: Mapping[str, str]
) -> Mapping[str, PoolSummary]:
    names: dict[str, str] = {}
    phases: dict[str, dict[str, int]] = {}
    used: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    for phase, found in by_phase.items():
        for pool, number in Counter(known.job.pool for known in found).items():
            phases.setdefault(pool, {})[phase] = number
        names.update(
            (known.job.pool, known.job.pool_name) for known in found if known.job.pool_name
        )
        cards = used if phase == "Running" else wanted if phase in WAITING else None
        if cards is not None:
            for known in found:
                cards[known.job.pool] += known.job.accelerators or 0
    return {
        pool: PoolSummary(
            told.get(pool) or names.get(pool) or pool, numbers, used[pool], wanted[pool]
        )
        for pool, numbers in phases.items()
    }
