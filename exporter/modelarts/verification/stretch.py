"""Rows of the job list that were read without a gap, and what they prove. Pure.

The list is sorted by create time, newest first. Jobs of equal create time are one *group*; their
order within the group means nothing. A stretch may begin and end in the middle of a group, so it
proves something only about the groups between its two *edges*: every listed job of these groups is
in the stretch.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple


class Edge(NamedTuple):
    """A place between two groups of the list.

    Attributes:
        created: create time, unix seconds; jobs newer than it are before the edge, others after.
        row: number of listed jobs before the edge.
    """

    created: float
    row: int


@dataclass(frozen=True)
class Stretch:
    """Consecutive rows of the list, as one request or several overlapping ones returned them.

    Attributes:
        start: number of the first row.
        ids: of the jobs, newest first; each occurs once.
        created: their create times, which never rise.
        ends: the list ends with the last row.
    """

    start: int
    ids: tuple[str, ...]
    created: tuple[float, ...]
    ends: bool

    @property
    def end(self) -> int:
        """Number of the row after the last one."""
        return self.start + len(self.ids)

    @property
    def has_edges(self) -> bool:
        """Whether the stretch contains an edge at all: not if it is part of a single group."""
        if not self.ids:
            return self.start == 0
        return self.start == 0 or self.ends or self.created[0] != self.created[-1]

    @property
    def upper(self) -> Edge:
        """The first edge; requires `has_edges`."""
        if self.start == 0:
            return Edge(math.inf, 0)
        first = self.created[0]
        return Edge(math.nextafter(first, -math.inf), self.start + self.created.count(first))

    @property
    def lower(self) -> Edge:
        """The last edge; requires `has_edges`."""
        if self.ends:
            return Edge(-math.inf, self.end)
        last = self.created[-1]
        return Edge(last, self.end - self.created.count(last))

    def listed_between(self, oldest: float, newest: float) -> frozenset[str]:
        """Return the IDs of the jobs with ``oldest < create time <= newest``."""
        return frozenset(
            job_id
            for job_id, created in zip(self.ids, self.created, strict=True)
            if oldest < created <= newest
        )

    def joined(self, other: "Stretch") -> "Stretch | None":
        """Return both as one; None if they have no row in common, or not the same jobs in it."""
        first, second = sorted((self, other), key=lambda stretch: stretch.start)
        skipped = second.start - first.start
        common = min(len(first.ids) - skipped, len(second.ids))
        if common <= 0 or first.ids[skipped:][:common] != second.ids[:common]:
            return None
        ids = first.ids + second.ids[common:]
        if len(set(ids)) < len(ids):
            return None
        created = first.created + second.created[common:]
        return Stretch(first.start, ids, created, first.ends or second.ends)
