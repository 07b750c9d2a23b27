"""Jobs in the order of the service's lists."""

from bisect import bisect_left, insort
from collections.abc import Iterator

from exporter.simulator.job import Job

Entry = tuple[int, str, Job]
"""Create time in ms, id, job: sorted by time, ties by id."""


class Index:
    """All jobs by id, and sorted lists for each workspace: all jobs, and active jobs.

    Each of them is there with fine-tuning jobs and without. Ids are unique, so comparing two
    entries never compares jobs.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Job] = {}
        self._lists: dict[tuple[str, bool, bool], list[Entry]] = {}
        self._lists_of_kind: dict[tuple[str, bool, bool], tuple[list[Entry], ...]] = {}

    def __getitem__(self, job_id: str) -> Job:
        return self._by_id[job_id]

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._by_id

    def __iter__(self) -> Iterator[Job]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def sorted(self, workspace: str, *, active: bool = False, unified: bool = True) -> list[Entry]:
        """Return the jobs of a workspace, oldest first; the list itself, not to be changed.

        ``unified``: with fine-tuning jobs.
        """
        return self._lists.get((workspace, active, unified), [])

    def add(self, job: Job) -> None:
        """Add a job.

        Raises:
            ValueError: its id is taken.
        """
        if job.id in self._by_id:
            raise ValueError(f"job {job.id} exists")
        self._by_id[job.id] = job
        for entries in self._lists_of(job, active=False):
            insort(entries, _entry(job))
        self.phase_changed(job)

    def remove(self, job: Job) -> None:
        """Remove a job."""
        del self._by_id[job.id]
        for active in (False, True):
            for entries in self._lists_of(job, active=active):
                _discard(entries, job)

    def phase_changed(self, job: Job) -> None:
        """Update the lists; call it whenever a job becomes active or ends."""
        for entries in self._lists_of(job, active=True):
            if not job.active:
                _discard(entries, job)
            elif not _holds(entries, job):
                insort(entries, _entry(job))

    def _lists_of(self, job: Job, *, active: bool) -> tuple[list[Entry], ...]:
        key = (job.workspace, active, job.fine_tuning)
        found = self._lists_of_kind.get(key)
        if found is None:
            kinds = (True,) if job.fine_tuning else (True, False)
            found = self._lists_of_kind[key] = tuple(
                self._lists.setdefault((job.workspace, active, unified), []) for unified in kinds
            )
        return found


def _entry(job: Job) -> Entry:
    return job.created_ms, job.id, job


def _holds(entries: list[Entry], job: Job) -> bool:
    position = bisect_left(entries, (job.created_ms, job.id))
    return position < len(entries) and entries[position][2] is job


def _discard(entries: list[Entry], job: Job) -> None:
    position = bisect_left(entries, (job.created_ms, job.id))
    if position < len(entries) and entries[position][2] is job:
        del entries[position]
