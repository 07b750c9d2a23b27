"""Jobs in the order of the service's lists."""

from bisect import bisect_left, insort
from collections.abc import Iterator

from exporter.simulator.job import Job

Entry = tuple[int, str, Job]
"""Create time in ms, id, job: sorted by time, ties by id."""


class Index:
    """All jobs by id, and two sorted lists for each workspace: all jobs, and active jobs.

    Ids are unique, so comparing two entries never compares jobs.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Job] = {}
        self._all: dict[str, list[Entry]] = {}
        self._active: dict[str, list[Entry]] = {}

    def __getitem__(self, job_id: str) -> Job:
        return self._by_id[job_id]

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._by_id

    def __iter__(self) -> Iterator[Job]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def sorted(self, workspace: str, *, active: bool = False) -> list[Entry]:
        """Return the jobs of a workspace, oldest first; the list itself, not to be changed."""
        return (self._active if active else self._all).get(workspace, [])

    def add(self, job: Job) -> None:
        """Add a job.

        Raises:
            ValueError: its id is taken.
        """
        if job.id in self._by_id:
            raise ValueError(f"job {job.id} exists")
        self._by_id[job.id] = job
        insort(self._all.setdefault(job.workspace, []), _entry(job))
        self.phase_changed(job)

    def remove(self, job: Job) -> None:
        """Remove a job."""
        del self._by_id[job.id]
        _discard(self._all[job.workspace], job)
        _discard(self._active.get(job.workspace, []), job)

    def phase_changed(self, job: Job) -> None:
        """Update the lists; call it whenever a job becomes active or ends."""
        active = self._active.setdefault(job.workspace, [])
        if not job.active:
            _discard(active, job)
        elif not _holds(active, job):
            insort(active, _entry(job))


def _entry(job: Job) -> Entry:
    return job.created_ms, job.id, job


def _holds(entries: list[Entry], job: Job) -> bool:
    position = bisect_left(entries, (job.created_ms, job.id))
    return position < len(entries) and entries[position][2] is job


def _discard(entries: list[Entry], job: Job) -> None:
    position = bisect_left(entries, (job.created_ms, job.id))
    if position < len(entries) and entries[position][2] is job:
        del entries[position]
