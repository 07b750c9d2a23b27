"""Limits the number of users that have series of their own; the rest are together ``other``.

Users that are seen first with an unfinished job, or with an event, keep their names. After a
restart they are known from the saved counters. A user who has become ``other`` stays ``other``; so
do all events of a job that has counted under it, even if the limit is raised meanwhile. Sums over
users stay exact.
"""

import logging
from collections.abc import Iterable

from exporter.jobs.job import OTHER
from exporter.jobs.tracked import TrackedJob
from exporter.metrics.counters import EVENT_FAMILY_BY_NAME, USER_FAMILIES, SeriesKey

log = logging.getLogger(__name__)

_ALWAYS_ALLOWED = frozenset({"", OTHER})


class UserLimiter:
    """Names the users of one target.

    Args:
        limit: users that keep their names; jobs without a user ("") are not limited.
        target: its name, for log lines.
    """

    def __init__(self, limit: int, target: str) -> None:
        self._limit = limit
        self._target = target
        self._named: set[str] = set()
        self._others: set[str] = set()

    def resume(self, limit: int, target: str) -> None:
        """Continue under a new poller of the same target."""
        self._limit, self._target = limit, target

    @property
    def without_series(self) -> int:
        """Number of users that are part of ``other``, as far as they were seen."""
        return len(self._others)

    def learn(self, ledger: Iterable[SeriesKey], jobs: Iterable[TrackedJob]) -> None:
        """Keep the names that counters and jobs have; users of jobs in ``other`` stay there."""
        for name, values in ledger:
            if name in USER_FAMILIES:
                self._named.add(values[EVENT_FAMILY_BY_NAME[name].key_labels.index("user")])
        for known in jobs:
            if known.user == OTHER:
                self._others.add(known.job.user)
            elif known.user is not None:
                self._named.add(known.user)
        self._named -= _ALWAYS_ALLOWED
        self._others -= self._named | _ALWAYS_ALLOWED

    def name(self, user: str) -> str:
        """The name under which a user counts; new users get one as long as there are some left."""
        if user in self._named or user in _ALWAYS_ALLOWED:
            return user
        if user in self._others:
            return OTHER
        if len(self._named) < self._limit:
            self._named.add(user)
            return user
        if not self._others:
            log.warning(
                "more users than jobs.max_users; further ones are shown as %s",
                OTHER,
                extra={"target": self._target, "limit": self._limit},
            )
        self._others.add(user)
        return OTHER
