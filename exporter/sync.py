"""Which searches a poll needs, and their results put together as one view of the target."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from exporter.client import Client
from exporter.errors import PollError
from exporter.model.job import View
from exporter.search import Found, Paging, Search


class PageMeter(Protocol):
    """Is told what paging had to put up with."""

    def paged(self, *, duplicates: int, inconsistent: int) -> None:
        """Count jobs seen twice in one search, and pages that contradicted the ones before."""


class Sync:
    """Reads the workspaces of one target.

    Args:
        client: the target's API.
        paging: what ``offset`` means there.
        workspaces: workspace ids, one search each.
        meter: is told about paging, also when a search fails.
        clock: unix seconds.
    """

    def __init__(
        self,
        client: Client,
        paging: Paging,
        workspaces: Sequence[str],
        *,
        meter: PageMeter,
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._paging = paging
        self._workspaces = workspaces
        self._meter = meter
        self._clock = clock

    async def sweep(self, *, deadline: float) -> View:
        """Read everything that the target lists, all workspaces at once.

        Args:
            deadline: monotonic seconds.

        Raises:
            PollError: a workspace could not be read; there is no partial view.
        """
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._sweep_workspace(workspace, deadline))
                    for workspace in self._workspaces
                ]
        except* PollError as errors:
            raise _first(errors) from None
        found = [task.result() for task in tasks]
        return View(
            jobs={job_id: job for each in found for job_id, job in each.jobs.items()},
            broken=frozenset().union(*(each.broken for each in found)),
            problems=tuple(problem for each in found for problem in each.problems),
            pages=sum(each.pages for each in found),
        )

    async def _sweep_workspace(self, workspace: str, deadline: float) -> Found:
        search = Search(
            self._client, self._paging, workspace=workspace, deadline=deadline, clock=self._clock
        )
        try:
            return await search.everything()
        finally:
            self._meter.paged(
                duplicates=search.found.duplicates, inconsistent=search.found.inconsistent
            )


def _first(errors: BaseExceptionGroup[PollError]) -> PollError:
    """The error that a group of failed searches is reported by."""
    for error in errors.exceptions:
        if isinstance(error, PollError):
            return error
        if isinstance(error, BaseExceptionGroup):
            return _first(error)
    raise AssertionError(errors)
