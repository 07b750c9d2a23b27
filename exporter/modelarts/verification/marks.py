"""When which part of a list was last verified: a bounded record that the state file keeps. Pure."""

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

_MAX_MARKS = 256
_NEVER = -math.inf
_ROWS_PER_PAGE = 36
"""Jobs that a page verifies at least, as a rule: it overlaps the one before, and more so where
``offset`` counts pages."""


class Range(NamedTuple):
    """Create times (unix seconds) from ``oldest``, excluded, to ``newest``, included."""

    oldest: float
    newest: float


class Mark(NamedTuple):
    """When a part of the list was verified.

    Attributes:
        oldest: create time (unix seconds), excluded; the part begins where the one before ends.
        at: unix seconds; of the page that was verified longest ago.
    """

    oldest: float
    at: float


class Verification(msgspec.Struct, frozen=True, array_like=True):
    """When which part of one workspace's list was last verified.

    Attributes:
        marks: the parts, newest jobs first; together they cover all create times.
        scrubbed: unix seconds at which the list was last read for no other reason than this.
    """

    marks: tuple[Mark, ...] = (Mark(-math.inf, _NEVER),)
    scrubbed: float = _NEVER

    @classmethod
    def complete(cls, at: float) -> "Verification":
        """Return the record of a list that was read as a whole at ``at``, in unix seconds."""
        return cls((Mark(-math.inf, at),), at)

    @classmethod
    def decode(cls, data: bytes) -> "Verification":
        """Return the record that was encoded; that of an unverified list if it is not usable."""
        try:
            decoded = msgspec.msgpack.decode(data, type=cls)
        except msgspec.DecodeError:
            return cls()
        return decoded if _is_valid(decoded) else cls()

    def encode(self) -> bytes:
        """Encode as msgpack."""
        return msgspec.msgpack.encode(self)

    @property
    def oldest(self) -> float | None:
        """When the part verified longest ago was, in unix seconds; None = some never was."""
        at = min(mark.at for mark in self.marks)
        return None if at == _NEVER else at

    @property
    def next_range(self) -> Range:
        """The part verified longest ago; of several the newest jobs."""
        number = min(range(len(self.marks)), key=lambda number: self.marks[number].at)
        newest = self.marks[number - 1].oldest if number else math.inf
        return Range(self.marks[number].oldest, newest)

    def is_due(self, now: float, *, interval: float, jobs: int) -> bool:
        """Whether a page should be read, so that a round takes ``interval`` seconds.

        Args:
            now: unix seconds.
            interval: seconds.
            jobs: length of the list.
        """
        period = interval / max(1, pages_to_verify(jobs))
        # One page for each period, without drift; the first at once, since -inf // period is NaN.
        return now // period != self.scrubbed // period

    def with_verified(self, ranges: Iterable[Range], at: float) -> "Verification":
        """Return the record after some parts were verified at ``at``, in unix seconds."""
        marks = list(self.marks)
        for part in ranges:
            marks = _overlaid(marks, part, at)
        while len(marks) > _MAX_MARKS:
            _merge_most_similar(marks)
        return Verification(tuple(marks), self.scrubbed)

    def with_scrubbed(self, at: float) -> "Verification":
        """Return the record after a page was read for verification at ``at``, in unix seconds."""
        return Verification(self.marks, at)


def pages_to_verify(jobs: int) -> int:
    """Return how many requests it takes to verify a list of so many jobs once."""
    return math.ceil(jobs / _ROWS_PER_PAGE)


def oldest_verification(encoded: Mapping[str, bytes], workspaces: Iterable[str]) -> float | None:
    """Return when the part of some lists that was verified longest ago was, in unix seconds.

    None = some part never was.

    Args:
        encoded: records by workspace.
        workspaces: of interest.
    """
    times = [Verification.decode(encoded.get(each, b"")).oldest for each in workspaces]
    known = [at for at in times if at is not None]
    return min(known) if known and len(known) == len(times) else None


def _is_valid(verification: Verification) -> bool:
    marks = verification.marks
    limits = [math.inf, *(mark.oldest for mark in marks)]
    times = [verification.scrubbed, *(mark.at for mark in marks)]
    return (
        0 < len(marks) <= _MAX_MARKS
        and limits[-1] == -math.inf
        and all(older < newer for newer, older in itertools.pairwise(limits))
        and all(time < math.inf for time in times)
    )


def _overlaid(marks: list[Mark], part: Range, at: float) -> list[Mark]:
    """Return the marks with one part verified at ``at``; neighbors of one time become one."""
    pieces: list[Mark] = []
    newest = math.inf
    for mark in marks:
        if mark.oldest >= part.newest or newest <= part.oldest:
            pieces.append(mark)
        else:
            if newest > part.newest:
                pieces.append(Mark(part.newest, mark.at))
            pieces.append(Mark(max(mark.oldest, part.oldest), at))
            if mark.oldest < part.oldest:
                pieces.append(mark)
        newest = mark.oldest
    return [
        piece
        for piece, older in zip(pieces, [*pieces[1:], None], strict=True)
        if older is None or piece.at != older.at
    ]


def _merge_most_similar(marks: list[Mark]) -> None:
    """Make one part of the two neighbors with the most similar times; the earlier one is valid."""
    number = min(range(len(marks) - 1), key=lambda n: abs(marks[n].at - marks[n + 1].at))
    newer, older = marks[number : number + 2]
    marks[number : number + 2] = [Mark(older.oldest, min(newer.at, older.at))]
