"""What is known of the job list of one workspace, in the order of the list."""

from collections.abc import Mapping
from typing import Protocol

from exporter.jobs.tracked import TrackedJob


class KnownList(Protocol):
    """The known jobs of one workspace, sorted by create time, newest first.

    All times are create times in unix seconds; infinities are allowed as arguments.
    """

    async def count(self) -> tuple[int, int]:
        """Return the number of known jobs, and how many of them have no create time."""
        ...

    async def count_newer(self, created: float) -> int:
        """Return the number of known jobs that are newer than ``created``."""
        ...

    async def created_at(self, rank: int) -> float | None:
        """Return the create time of the job at ``rank`` (0 = newest); None if there is none."""
        ...

    async def between(self, oldest: float, newest: float) -> Mapping[str, TrackedJob]:
        """Return the known jobs, by ID, with ``oldest <= create time <= newest``."""
        ...
