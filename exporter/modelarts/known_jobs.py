"""What a search may ask about the jobs that are known already."""

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from exporter.jobs.job import Job
from exporter.jobs.tracked import TrackedJob


class KnownJobs(Protocol):
    """The jobs of a target, as they are known while they are read again.

    All methods raise `StateError` if the store cannot be read now.
    """

    async def find(self, jobs: Collection[Job]) -> Mapping[str, TrackedJob]:
        """Return, by id, those of these jobs that are known."""

    async def unchanged(self, jobs: Collection[Job]) -> Collection[str]:
        """Return the ids of those of these jobs that are as they are known."""

    async def omitted(
        self, workspace: str, was_read: Callable[[str], bool]
    ) -> Mapping[str, TrackedJob]:
        """Return, by id, the jobs of a workspace that a reading of its whole list has omitted.

        Args:
            workspace: its id.
            was_read: whether the list has a job with an id.
        """
