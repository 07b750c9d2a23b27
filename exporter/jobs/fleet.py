"""What is kept in memory about one target's jobs. Pure.

Unfinished jobs and those that finished recently are kept whole. Of all other finished jobs, which
are the most, only numbers are kept: the store has the jobs themselves. So what a poll costs depends
on what has changed, not on the length of the history.

A `Fleet` is immutable. The next one is computed from the changes, and replaces it once they are
committed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from heapq import nlargest
from typing import NamedTuple

from exporter.jobs.job import FAILED, TERMINAL, WAITING, Job
from exporter.jobs.tracked import Base, Group, TrackedJob, group_of

MAX_FAILURES = 200
"""Failed jobs that are kept whole, however long ago they failed; the page shows fewer."""

EVERYTHING = float("-inf")

NewestName = tuple[float, str]
"""Create time (unix seconds) of the newest job of a pool that has a name for it, and that name."""


@dataclass(frozen=True)
class Fleet:
    """Everything known about one target's jobs that is not only in the store.

    Attributes:
        open: by id, jobs that are not in a terminal phase.
        recent: by id, finished jobs that ended after ``recent_since``.
        failures: by id, the `MAX_FAILURES` failed jobs that ended last.
        listed: by workspace, the number of all jobs, finished ones included.
        counted: numbers of finished jobs that count in the gauges: those that ended after
            ``counted_since``.
        recent_since, counted_since: unix seconds.
        accelerators: every product name seen for a base; empty for a base without cards.
        newest_created: by workspace, create time (unix seconds) of the newest job ever listed, -inf
            if none was. A workspace that is missing here has not been read yet.
        pool_names: by pool id, as last received.
        pool_types: by pool id, the flavor type of its nodes, as last received. It matters for
            pools whose jobs do not show it; what they show is part of ``accelerators``.
        names_in_jobs: by pool id, the name in the newest job that has one.
        unified: workspaces whose baseline includes fine-tuning jobs (``unified_jobs``).
        incomplete: workspaces of which finished jobs were lost: their list must be read as a whole,
            and what was known before is not new.
        verification: by workspace, when which part of its list was last compared with what is
            known (`exporter.modelarts.verification.marks`), encoded.
    """

    open: Mapping[str, TrackedJob] = field(default_factory=dict)
    recent: Mapping[str, TrackedJob] = field(default_factory=dict)
    failures: Mapping[str, TrackedJob] = field(default_factory=dict)
    listed: Mapping[str, int] = field(default_factory=dict)
    counted: Mapping[Group, int] = field(default_factory=dict)
    recent_since: float = EVERYTHING
    counted_since: float = EVERYTHING
    accelerators: Mapping[Base, frozenset[str]] = field(default_factory=dict)
    newest_created: Mapping[str, float] = field(default_factory=dict)
    pool_names: Mapping[str, str] = field(default_factory=dict)
    pool_types: Mapping[str, str] = field(default_factory=dict)
    names_in_jobs: Mapping[str, NewestName] = field(default_factory=dict)
    unified: frozenset[str] = frozenset()
    incomplete: frozenset[str] = frozenset()
    verification: Mapping[str, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of all jobs, finished ones included."""
        return sum(self.listed.values())

    def find(self, job_id: str) -> TrackedJob | None:
        """Return a job that is kept whole."""
        return self.open.get(job_id) or self.recent.get(job_id) or self.failures.get(job_id)

    def whole_jobs(self) -> Iterator[TrackedJob]:
        """Iterate over all jobs that are kept whole, each once."""
        yield from self.open.values()
        yield from self.recent.values()
        yield from (known for job_id, known in self.failures.items() if job_id not in self.recent)

    def counts(self, known: TrackedJob) -> bool:
        """Whether a job counts in the gauges; all unfinished ones do."""
        return known.job.phase not in TERMINAL or ended_since(known, self.counted_since)

    def jobs_by_phase(self) -> Counter[str]:
        """The numbers of jobs that count in the gauges, by phase."""
        phases = Counter(known.job.phase for known in self.open.values())
        for group, number in self.counted.items():
            phases[group.phase] += number
        return phases


class Change(NamedTuple):
    """A job before and after a poll; None = it was not known, or is forgotten."""

    before: TrackedJob | None
    after: TrackedJob | None


def apply(fleet: Fleet, changes: Mapping[str, Change]) -> Fleet:
    """Return the fleet with some jobs changed.

    Args:
        fleet: before.
        changes: by job id.
    """
    if not changes:
        return fleet
    listed, counted = Counter(fleet.listed), Counter(fleet.counted)
    for change in changes.values():
        for known, number in ((change.before, -1), (change.after, 1)):
            if known is not None:
                listed[known.job.workspace] += number
                if known.job.phase in TERMINAL and fleet.counts(known):
                    counted[group_of(known.job)] += number
    changed = [change.after for change in changes.values() if change.after is not None]
    finished = [known for known in changed if known.job.phase in TERMINAL]
    return replace(
        fleet,
        open=_changed(
            fleet.open, changes, (known for known in changed if known.job.phase not in TERMINAL)
        ),
        recent=_changed(
            fleet.recent,
            changes,
            (known for known in finished if ended_since(known, fleet.recent_since)),
        ),
        failures=_latest(
            _changed(
                fleet.failures, changes, (known for known in finished if known.job.phase in FAILED)
            )
        ),
        listed={workspace: number for workspace, number in listed.items() if number},
        counted={group: number for group, number in counted.items() if number},
        names_in_jobs=_newest_names(fleet.names_in_jobs, changed),
    )


def _changed(
    jobs: Mapping[str, TrackedJob], changes: Mapping[str, Change], after: Iterable[TrackedJob]
) -> dict[str, TrackedJob]:
    """Return some jobs without those that have changed, and with others."""
    rest = {job_id: known for job_id, known in jobs.items() if job_id not in changes}
    return rest | {known.job.id: known for known in after}


def advance(
    fleet: Fleet, *, recent_since: float, counted_since: float, left: Mapping[Group, int]
) -> Fleet:
    """Return the fleet as it is later: finished jobs stop being recent, or stop counting.

    Args:
        fleet: before.
        recent_since: unix seconds; jobs that ended earlier are only in the store.
        counted_since: unix seconds; jobs that ended earlier do not count.
        left: numbers of jobs that ended between the old ``counted_since`` and the new one.
    """
    counted = fleet.counted
    if left:
        sign = 1 if counted_since < fleet.counted_since else -1  # the clock may have been set back
        numbers = Counter(counted)
        for group, number in left.items():
            numbers[group] += sign * number
        counted = {group: number for group, number in numbers.items() if number}
    return replace(
        fleet,
        recent={
            job_id: known
            for job_id, known in fleet.recent.items()
            if ended_since(known, recent_since)
        },
        recent_since=recent_since,
        counted=counted,
        counted_since=counted_since,
    )


def ended_since(known: TrackedJob, since: float) -> bool:
    """Whether a finished job ended at or after a time, in unix seconds."""
    return since == EVERYTHING or (known.ended is not None and known.ended >= since)


def phase_since(known: TrackedJob) -> float:
    """When a job entered its current state, as far as known, in unix seconds."""
    job = known.job
    since = known.ended if job.phase in TERMINAL else job.started
    if job.phase in WAITING:  # a job may wait again after it has run; then its creation counts
        since = job.created
    return since if since is not None else job.created or 0.0


def _latest(failures: dict[str, TrackedJob]) -> dict[str, TrackedJob]:
    if len(failures) <= MAX_FAILURES:
        return failures
    latest = nlargest(
        MAX_FAILURES, failures.values(), key=lambda known: (phase_since(known), known.job.id)
    )
    return {known.job.id: known for known in latest}


def _newest_names(
    names: Mapping[str, NewestName], jobs: Iterable[TrackedJob]
) -> Mapping[str, NewestName]:
    newest = dict(names)
    for known in jobs:
        note_pool_name(newest, known.job)
    return newest


def note_pool_name(names: dict[str, NewestName], job: Job) -> None:
    """Note the name that a job has for its pool, if it is the newest one; "" = none."""
    if job.pool_name:
        found = job.created or 0.0, job.pool_name
        names[job.pool] = max(found, names.get(job.pool, found))
