"""What became of jobs that no search brings any more: found again, or gone as the service says.

Whoever misses a job must not conclude that it was deleted: pages shift, filters are ignored, an
answer may be empty for once. So the jobs are asked for, in the cheapest way that the service
honours; which ones it does is found out and remembered.

- By id, ten at a time. One of the ten is a witness, a job that was read a moment ago: if the answer
  has it and nothing that was not asked for, then the filter works, and who is missing is gone.
- By name. It only proves that a job is there.
- By a call for each job, if we may: it says that a job does not exist.

The last two take a request for each job; for many, reading the whole list is cheaper.

An answer with items that cannot be decoded proves nothing about those who are missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from exporter.errors import ForbiddenError, RejectedError
from exporter.jobs.job import Job
from exporter.modelarts.workspace import FilterRefusedError, WorkspaceReader

_MOST_VALUES = 10
_LONGEST_NAME = 64
_MOST_REQUESTS = 50
"""For jobs one by one; of those beyond, nothing is found out."""


@dataclass
class SupportedFilters:
    """What a service is known to honour; all of it until the contrary is seen."""

    by_phase: bool = True
    by_id: bool = True
    by_name: bool = True
    by_call: bool = True


async def confirm(
    reading: WorkspaceReader,
    jobs: Sequence[Job],
    supported: SupportedFilters,
    *,
    witness: Job | None,
) -> list[Job]:
    """Ask for jobs; those there are then among ``reading.jobs``, the others in ``reading.gone``.

    Args:
        reading: of their workspace.
        jobs: as known before.
        supported: of the target; what turns out not to work is noted.
        witness: another job of the workspace that was read just now, if there is one.

    Returns:
        Those of which nothing could be found out.

    Raises:
        PollError: the service did not answer.
    """
    left = list(jobs)
    if supported.by_id and witness is not None:
        left = await _by_id(reading, left, supported, witness)
    left, rest = left[:_MOST_REQUESTS], left[_MOST_REQUESTS:]
    if supported.by_name:
        left = await _by_name(reading, left, supported)
    if supported.by_call:
        left = await _by_call(reading, left, supported)
    return [job for job in left + rest if job.id not in reading.jobs]


async def _by_id(
    reading: WorkspaceReader, jobs: Sequence[Job], supported: SupportedFilters, witness: Job
) -> list[Job]:
    left: list[Job] = []
    queue = [*_batches(jobs, _MOST_VALUES - 1)]
    while queue:
        batch = queue.pop(0)
        if not supported.by_id:
            left += batch
            continue
        ids = [*(job.id for job in batch), witness.id]
        try:
            found = await reading.by_ids(ids)
        except FilterRefusedError:
            supported.by_id = False
            left += batch
            continue
        missing = [job for job in batch if job.id not in found.jobs]
        if not missing:
            continue
        if witness.id not in found.jobs:
            supported.by_id = False
            left += missing
        elif not found.broken:
            reading.gone.update(job.id for job in missing)
        elif len(batch) > 1:
            queue += [[job] for job in missing]
    return left


async def _by_name(
    reading: WorkspaceReader, jobs: Sequence[Job], supported: SupportedFilters
) -> list[Job]:
    left: list[Job] = []
    for job in jobs:
        if supported.by_name and 0 < len(job.name) <= _LONGEST_NAME:
            try:
                await reading.by_name(job.name)
            except FilterRefusedError:
                supported.by_name = False
        if job.id not in reading.jobs:
            left.append(job)
    return left


async def _by_call(
    reading: WorkspaceReader, jobs: Sequence[Job], supported: SupportedFilters
) -> list[Job]:
    left: list[Job] = []
    for job in jobs:
        if not supported.by_call:
            left.append(job)
            continue
        try:
            if not await reading.get(job.id):
                reading.gone.add(job.id)
        except (ForbiddenError, RejectedError):
            supported.by_call = False
            left.append(job)
    return left


def _batches(jobs: Sequence[Job], size: int) -> list[list[Job]]:
    rest = iter(jobs)
    return [*iter(lambda: [*islice(rest, size)], [])]
