"""The reading of a whole list, of which only what is new or has changed is kept in memory.

A list may have a million jobs. Those that are as they were known are left out. Where nothing is
known yet, jobs are saved in parts while the list is read. Such parts are a baseline: nothing in
them is an event. They are not shown, and not used by another reading, before the list is complete.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import Protocol

from exporter.jobs.fleet import Fleet
from exporter.jobs.job import UNKNOWN_PHASE, Job, View
from exporter.jobs.tracked import Base
from exporter.modelarts.known_jobs import KnownJobs
from exporter.modelarts.search import Take

PART = 500
"""Jobs that are saved together; more would keep the event loop waiting for longer."""


class Saver(Protocol):
    """Saves parts of a baseline, see `exporter.polling.state.TargetState`."""

    @property
    def known(self) -> KnownJobs:
        """Looks up jobs."""

    async def save_part(self, fleet: Fleet, view: View) -> tuple[Fleet, dict[Base, float]]:
        """Save a part of a baseline."""


class WholeReading:
    """One reading of the whole list.

    Args:
        saver: saves parts.
        fleet: everything known at the start.
        first: workspaces of which nothing is known.

    Attributes:
        fleet: everything known at the start, and the parts.
        activity: by base in the parts, when it was last active.
    """

    def __init__(self, saver: Saver, fleet: Fleet, first: Collection[str]) -> None:
        self.fleet = fleet
        self.activity: dict[Base, float] = {}
        self._saver = saver
        self._first = first
        self._part: dict[str, Job] = {}
        self._saving = asyncio.Lock()

    def take(self, workspace: str) -> Take:
        """Return what takes jobs of a workspace."""
        return self._take_first if workspace in self._first else self._take_unchanged

    async def _take_unchanged(self, jobs: Sequence[Job]) -> Collection[str]:
        return await self._saver.known.unchanged(jobs)

    async def _take_first(self, jobs: Sequence[Job]) -> Collection[str]:
        elsewhere = await self._known_elsewhere(jobs)
        taken = [job for job in jobs if job.phase != UNKNOWN_PHASE and job.id not in elsewhere]
        self._part |= {job.id: job for job in taken}
        if len(self._part) >= PART:
            await self.save()
        return {job.id for job in taken}

    async def _known_elsewhere(self, jobs: Sequence[Job]) -> Collection[str]:
        """Jobs that another workspace listed before: what has happened to them counts."""
        known = (await self._saver.known.find(jobs)).items()
        return {job_id for job_id, each in known if each.job.workspace not in self._first}

    async def save(self) -> None:
        """Save the part that was taken last.

        Raises:
            StateError: it cannot be saved now.
        """
        async with self._saving:
            part, self._part = self._part, {}
            if not part:
                return
            view = View(part, hidden=frozenset(part))
            self.fleet, activity = await self._saver.save_part(self.fleet, view)
            for base, at in activity.items():
                self.activity[base] = max(at, self.activity.get(base, at))
