"""Verification of a workspace's job list: finds where it differs without reading it all.

An incremental poll reads the jobs that are new or active. It does not see when a finished job is
deleted, corrected late, or shown although it was hidden before. A *round* of verification, beside a
poll, looks for that:

1. *The end*: is the list as long as what is known? A total reported by the service tells, where
   requests have shown it to be honest; otherwise a request for the last row does.
2. *Bisection*, if it is not: `exporter.modelarts.verification.differences`.
3. *Scrub*: one page, of the part that was verified longest ago, so that late corrections and
   differences that cancel out are found, too. `Verification` records how far this is.

For each workspace, keep a `Verifier` in memory and its `Verification` in the state file. After a
poll was committed, and while no sweep is running::

    reader = WorkspaceReader(source, workspace, deadline=..., background=..., unified=...)
    findings = await verifier.verify(reader, known, verification, totals=view.totals[workspace])

- ``reader.jobs`` has every job that was read: apply them like those of a poll. Unknown ones among
  them are in ``findings.unknown``: new jobs, and hidden ones that are shown now.
- ``findings.missing`` are known jobs that the list omits. They are not necessarily deleted: look
  them all up (`exporter.modelarts.missing`) before the next round begins.
- Commit ``findings.verification`` with the changes, and hand it to the next round.
- ``findings.verdict`` is ``agrees``: there is nothing else to do; ``differs``: the next round goes
  on; ``sweep``: read the whole list now; ``unverifiable``: read the whole list every
  ``poll.sweep_interval``, since rounds cannot tell. (The verifier tries again every hour. In
  between it sends no requests, and the verdict stays.)

After a sweep, call ``verifier.swept()``; its verification is ``Verification.complete(time)``.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from exporter.jobs.tracked import TrackedJob
from exporter.modelarts.verification.differences import TooDifferentError
from exporter.modelarts.verification.end_of_list import HonestTotal
from exporter.modelarts.verification.known_list import KnownList
from exporter.modelarts.verification.marks import Verification
from exporter.modelarts.verification.one_round import Round
from exporter.modelarts.verification.pages import (
    LimitReachedError,
    ListChangedError,
    Pages,
    UnverifiableError,
)
from exporter.modelarts.workspace import WorkspaceReader

MAX_REQUESTS = 100
"""Requests of one round; the next one goes on."""

_TRY_AGAIN_SECONDS = 3600.0
_STALLED_ROUNDS = 3
"""Rounds in a row that differ and bring nothing new: enough to do something else."""

Verdict = Literal["agrees", "differs", "sweep", "unverifiable"]


@dataclass(frozen=True)
class Findings:
    """The result of a round.

    Attributes:
        verdict: what to do; see the module.
        verification: when which part of the list was verified, including this round.
        missing: known jobs that the list omits, by ID; to be looked up.
        unknown: IDs of listed jobs that were not known.
        reason: of ``sweep`` and ``unverifiable``, for people.
        requests: number of requests sent.
    """

    verdict: Verdict
    verification: Verification
    missing: Mapping[str, TrackedJob] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    reason: str = ""
    requests: int = 0


class Verifier:
    """Verifies the list of one workspace, round after round.

    Args:
        interval: seconds in which every page should be verified once (``poll.sweep_interval``).
        clock: unix seconds.
        max_requests: of one round; at least 50, or it may not get to the differences.
    """

    def __init__(
        self, *, interval: float, clock: Callable[[], float], max_requests: int = MAX_REQUESTS
    ) -> None:
        self._interval = interval
        self._clock = clock
        self._max_requests = max_requests
        self._total = HonestTotal()
        self._unverifiable = ""
        self._unverifiable_since = 0.0
        self._missing: frozenset[str] = frozenset()
        self._unknown: frozenset[str] = frozenset()
        self._stalled = 0
        self._sweep_wanted = self._swept_in_vain = False

    def swept(self) -> None:
        """Take note that the whole list was read: what prevented verification may be gone."""
        self._unverifiable = ""
        self._swept_in_vain |= self._sweep_wanted
        self._sweep_wanted = False

    async def verify(
        self,
        reader: WorkspaceReader,
        known: KnownList,
        verification: Verification,
        *,
        totals: Mapping[str, int | None],
        suspects: Collection[float] = (),
    ) -> Findings:
        """Do a round.

        Args:
            reader: of the workspace, for this round only.
            known: what is known of the list. If it changes during the round, that costs requests.
            verification: of the latest round whose findings were kept.
            totals: the numbers of jobs in the list as just reported by the service, by field name.
            suspects: create times (unix seconds) of jobs to look for in the list.

        Raises:
            PollError: a page could not be read.
        """
        now = self._clock()
        if self._unverifiable and 0 <= now - self._unverifiable_since < _TRY_AGAIN_SECONDS:
            return Findings("unverifiable", verification, reason=self._unverifiable)
        self._unverifiable = ""
        pages = Pages(reader, budget=self._max_requests)
        round_ = Round(pages, known, verification, totals=totals, honest=self._total, now=now)
        finished = False
        try:
            await round_.run(interval=self._interval, suspects=suspects)
            finished = True
        except UnverifiableError as error:
            return self._give_up(str(error), verification, pages.requests)
        except TooDifferentError as error:
            return self._stop(str(error), verification, pages.requests)
        except ListChangedError:
            # Pages that contradict others prove nothing, nor do the others.
            return self._judge(Findings("differs", verification, requests=pages.requests))
        except LimitReachedError:
            pass  # the next round goes on
        return self._judge(
            Findings(
                "agrees" if finished and not round_.comparison.differs else "differs",
                round_.verification,
                round_.comparison.missing,
                frozenset(round_.comparison.unknown),
                requests=pages.requests,
            ),
            scrubbed=round_.scrubbed,
        )

    def _judge(self, findings: Findings, *, scrubbed: bool = False) -> Findings:
        """Return the findings, unless round after round brings the same, or nothing."""
        missing, unknown = frozenset(findings.missing), findings.unknown
        if (
            missing - self._missing
            or unknown - self._unknown
            or (scrubbed and findings.verdict == "agrees")
        ):
            self._stalled = 0
            self._sweep_wanted = self._swept_in_vain = False
        elif findings.verdict == "agrees":
            return findings  # only the length of the list was looked at
        else:
            self._stalled += 1
        self._missing, self._unknown = missing, unknown
        if self._stalled < _STALLED_ROUNDS:
            return findings
        reason = "the list differs from what is known, and the reason cannot be found"
        return self._stop(reason, findings.verification, findings.requests)

    def _stop(self, reason: str, verification: Verification, requests: int) -> Findings:
        """Ask for a sweep; if one has not helped, do without verification."""
        if self._swept_in_vain:
            return self._give_up(reason, verification, requests)
        self._sweep_wanted = True
        return Findings("sweep", verification, reason=reason, requests=requests)

    def _give_up(self, reason: str, verification: Verification, requests: int) -> Findings:
        self._unverifiable, self._unverifiable_since = reason, self._clock()
        return Findings("unverifiable", verification, reason=reason, requests=requests)
