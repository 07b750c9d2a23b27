"""The flavor types of dedicated pools, and of jobs that do not show their own. Pure.

A job in a dedicated pool often has no flavor type before its cards are allocated: the pool assigns
its flavor. The other jobs of the pool, or the list of pools, have it.

- A job's own flavor type wins; after it, the type that the job had before, in the same pool.
- Otherwise the job has the type that all other jobs of its pool have shown. Types are kept even if
  these jobs are gone. A job that has cards is not of type CPU, whatever else the pool runs.
- If no job of the pool has shown a type, the job has that of the list of pools.
- If the pool has several types, nothing is guessed: the type is ``unknown``.

The public pool has nodes of all types: nothing is learned about it. Nor is it about the pools that
are shown together as ``other``.
"""

from collections.abc import Iterable, Mapping

import msgspec

from exporter.jobs.job import OTHER, PUBLIC_POOL, Job
from exporter.jobs.tracked import Base

_UNKNOWN = "unknown"
_WITHOUT_CARDS = frozenset({"CPU"})
_OF_ALL_TYPES = (PUBLIC_POOL, OTHER)


class PoolTypes:
    """The flavor types of dedicated pools.

    Args:
        bases: every combination of labels seen so far.
        listed: by pool id, the flavor type in the list of pools.

    Attributes:
        news: ids of pools of which `learn` or `learn_list` has seen another flavor type.
    """

    def __init__(self, bases: Iterable[Base] = (), listed: Mapping[str, str] | None = None) -> None:
        self._seen: dict[str, frozenset[str]] = {}
        self._listed = dict(listed or {})
        for base in bases:
            self._add(base.pool, base.flavor_type)
        self.news: set[str] = set()

    def learn(self, job: Job) -> None:
        """Note the flavor type that a job shows for its pool."""
        if job.flavor_type not in self._seen.get(job.pool, ()) and self._add(
            job.pool, job.flavor_type
        ):
            self.news.add(job.pool)

    def learn_list(self, listed: Mapping[str, str]) -> None:
        """Note the flavor types in a newer list of pools."""
        self.news |= {pool for pool, kind in listed.items() if kind != self._listed.get(pool)}
        self._listed = dict(listed)

    def complete(self, job: Job, before: Job | None = None) -> Job:
        """Return the job with the best flavor type known.

        Args:
            job: as read.
            before: the job as it was known, completed.
        """
        if job.flavor_type != _UNKNOWN:
            return job
        known = _UNKNOWN
        if before is not None and before.pool == job.pool:
            known = before.flavor_type
        if known == _UNKNOWN:
            known = self._of_pool(job)
        return job if known == _UNKNOWN else msgspec.structs.replace(job, flavor_type=known)

    def _add(self, pool: str, flavor_type: str) -> bool:
        if flavor_type == _UNKNOWN or pool in _OF_ALL_TYPES:
            return False
        self._seen[pool] = self._seen.get(pool, frozenset()) | {flavor_type}
        return True

    def _of_pool(self, job: Job) -> str:
        if job.pool in _OF_ALL_TYPES:
            return _UNKNOWN
        seen = self._seen.get(job.pool, frozenset())
        if job.accelerators:
            seen -= _WITHOUT_CARDS
        if not seen:
            return self._listed.get(job.pool, _UNKNOWN)
        return next(iter(seen)) if len(seen) == 1 else _UNKNOWN


def complete_all(jobs: Mapping[str, Job], listed: Mapping[str, str] | None) -> dict[str, Job]:
    """Return jobs read together, by id, with the best flavor types known.

    Args:
        jobs: by id.
        listed: by pool id, the flavor type in the list of pools.
    """
    types = PoolTypes((), listed)
    for job in jobs.values():
        types.learn(job)
    return {job_id: types.complete(job) for job_id, job in jobs.items()}
