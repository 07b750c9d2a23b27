"""The jobs of a target as they are known: in memory, or else in the store."""

from collections.abc import Callable, Collection, Mapping

from exporter.jobs.fleet import Fleet
from exporter.jobs.job import Job
from exporter.jobs.tracked import TrackedJob
from exporter.storage.scopes import StateKey
from exporter.storage.store import Store

_INFINITE = float("inf")


class TargetJobs:
    """Looks up jobs. As `exporter.modelarts.known_jobs.KnownJobs`.

    Args:
        store: has all jobs.
        key: the name of the target's state.
        workspaces: of the target; the store may have others, which are no longer configured.
        fleet: returns what is in memory now.
    """

    def __init__(
        self,
        store: Store,
        key: StateKey,
        workspaces: Collection[str],
        fleet: Callable[[], Fleet],
    ) -> None:
        self._store = store
        self._key = key
        self._workspaces = workspaces
        self._fleet = fleet

    async def find(self, jobs: Collection[Job]) -> Mapping[str, TrackedJob]:
        """Return, by id, those of these jobs that are known."""
        return await self.find_ids({job.id: job.created for job in jobs})

    async def find_ids(self, created: Mapping[str, float | None]) -> Mapping[str, TrackedJob]:
        """Return, by id, those of these jobs that are known.

        Args:
            created: by id, the create time as far as it is known.
        """
        fleet = self._fleet()
        found = {job_id: known for job_id in created if (known := fleet.find(job_id))}
        if len(fleet) <= len(fleet.open) + len(fleet.recent) or len(found) == len(created):
            return found
        rest = {job_id: at for job_id, at in created.items() if job_id not in found}
        stored = await self._store.jobs(self._key, rest.keys(), rest)
        return found | {
            job_id: known
            for job_id, known in stored.items()
            if known.job.workspace in self._workspaces
        }

    async def unchanged(self, jobs: Collection[Job]) -> Collection[str]:
        """Return the ids of those of these jobs that are as they are known."""
        fleet = self._fleet()
        found, rest = set(), {}
        for job in jobs:
            if known := fleet.find(job.id):
                if known.job == job:
                    found.add(job.id)
            else:
                rest[job.id] = job
        return found | await self._store.unchanged(self._key, rest)

    async def omitted(
        self, workspace: str, was_read: Callable[[str], bool]
    ) -> Mapping[str, TrackedJob]:
        """Return, by id, the jobs of a workspace that a reading of its whole list has omitted."""
        return await self._store.omitted(self._key, workspace, was_read)


class TargetList:
    """The known jobs of a workspace, as `exporter.modelarts.verification.known_list.KnownList`.

    Args:
        store: has all jobs.
        key: the name of the target's state.
        workspace: its id.
    """

    def __init__(self, store: Store, key: StateKey, workspace: str) -> None:
        self._store = store
        self._key = key
        self._workspace = workspace

    async def count(self) -> tuple[int, int]:
        """Return the number of known jobs, and how many of them have no create time."""
        return await self._store.count(self._key, self._workspace)

    async def count_newer(self, created: float) -> int:
        """Return the number of known jobs that are newer than ``created``, in unix seconds."""
        if created == -_INFINITE:
            number, _ = await self.count()
            return number
        if created == _INFINITE:
            return 0
        return await self._store.count_newer(self._key, self._workspace, created)

    async def created_at(self, rank: int) -> float | None:
        """Return the create time of the job at ``rank`` (0 = newest); None if there is none."""
        return await self._store.created_at(self._key, self._workspace, rank)

    async def between(self, oldest: float, newest: float) -> Mapping[str, TrackedJob]:
        """Return the known jobs, by ID, with ``oldest <= create time <= newest``."""
        return await self._store.jobs_between(self._key, self._workspace, oldest, newest)
