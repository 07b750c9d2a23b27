"""Look up jobs that no search returns any more: they still exist, or the service confirms deletion.

A job missing from the results was not necessarily deleted: pages shift, filters are ignored, and a
response may just once be empty. So missing jobs are requested, in the cheapest way that the service
supports; which ways work is detected and remembered.

- By id, ten at a time. One of the ten is a witness, a job that was read a moment ago: if the
  response has the witness and no job that was not requested, the filter works, and jobs that are
  missing from it are deleted.
- By name. This can only prove that a job exists.
- By a GET for each job, if permitted: the service says that a job does not exist.

The last two need a request per job; for many jobs, reading the whole list is cheaper.

A response with items that cannot be decoded proves nothing about missing jobs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.errors import ForbiddenError, RejectedError
from exporter.jobs.job import Job
from exporter.modelarts.workspace import FilterRefusedError, WorkspaceReader

_MAX_IDS = 10
_MAX_NAME_LENGTH = 64
_MAX_SINGLE_JOBS = 50
"""Jobs looked up one by one; any others stay unresolved."""


@dataclass
class SupportedFilters:
    """The lookups that a service supports; each is assumed to work until it fails."""

    by_phase: bool = True
    by_id: bool = True
    by_name: bool = True
    by_get: bool = True


async def look_up_missing(
    reader: WorkspaceReader,
    jobs: Sequence[Job],
    supported: SupportedFilters,
    *,
    witness: Job | None,
) -> list[Job]:
    """Look up jobs; existing ones end up in ``reader.jobs``, others in ``reader.deleted``.

    Args:
        reader: of their workspace.
        jobs: as last known.
        supported: of the target; updated when a lookup turns out not to work.
        witness: another job of the workspace that was just read, if any.

    Returns:
        Jobs that stay unresolved.

    Raises:
        PollError: the service gave no usable response.
    """
    unresolved = list(jobs)
    if supported.by_id and witness is not None:
        unresolved = await _by_id(reader, unresolved, supported, witness)
    unresolved, rest = unresolved[:_MAX_SINGLE_JOBS], unresolved[_MAX_SINGLE_JOBS:]
    if supported.by_name:
        unresolved = await _by_name(reader, unresolved, supported)
    if supported.by_get:
        unresolved = await _by_get(reader, unresolved, supported)
    return [job for job in unresolved + rest if job.id not in reader.jobs]


async def _by_id(
    reader: WorkspaceReader, jobs: Sequence[Job], supported: SupportedFilters, witness: Job
) -> list[Job]:
    unresolved: list[Job] = []
    size = _MAX_IDS - 1
    queue = [jobs[start : start + size] for start in range(0, len(jobs), size)]
    while queue:
        batch = queue.pop(0)
        if not supported.by_id:
            unresolved += batch
            continue
        ids = [*(job.id for job in batch), witness.id]
        try:
            result = await reader.by_ids(ids)
        except FilterRefusedError:
            supported.by_id = False
            unresolved += batch
            continue
        missing = [job for job in batch if job.id not in result.jobs]
        if not missing:
            continue
        if witness.id not in result.jobs:
            supported.by_id = False
            unresolved += missing
        elif not result.undecodable:
            reader.deleted.update(job.id for job in missing)
        elif len(batch) > 1:
            queue += [[job] for job in missing]
    return unresolved


async def _by_name(
    reader: WorkspaceReader, jobs: Sequence[Job], supported: SupportedFilters
) -> list[Job]:
    unresolved: list[Job] = []
    for job in jobs:
        if supported.by_name and 0 < len(job.name) <= _MAX_NAME_LENGTH:
            try:
                await reader.by_name(job.name)
            except FilterRefusedError:
                supported.by_name = False
        if job.id not in reader.jobs:
            unresolved.append(job)
    return unresolved


async def _by_get(
    reader: WorkspaceReader, jobs: Sequence[Job], supported: SupportedFilters
) -> list[Job]:
    unresolved: list[Job] = []
    for job in jobs:
        if not supported.by_get:
            unresolved.append(job)
            continue
        try:
            if not await reader.get(job.id):
                reader.deleted.add(job.id)
        except (ForbiddenError, RejectedError):
            supported.by_get = False
            unresolved.append(job)
    return unresolved
