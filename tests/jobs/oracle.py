"""The expected counters and histograms, computed from the world's own record of events.

The oracle is given the events of each job and when polls looked at it. It knows nothing of the
tracker. The rules that depend on what was seen (`exporter/jobs/tracker.py`) are few:

- what had happened at a baseline look is not counted;
- an end counts when it is seen after the job was seen active, or first of all, however often it
  ended in between;
- what happened after the last look at a job, or in records that were never listed, is not counted.
"""

from collections import Counter, defaultdict
from typing import NamedTuple

from exporter.simulator.job import ACTIVE, TERMINAL


class Look(NamedTuple):
    """A job as a poll read it.

    Attributes:
        at: unix seconds.
        events: number of the job's events that had happened.
        phase: as shown.
        ran: run time in seconds.
        records: whether running records were shown.
        baseline: whether all of that belongs to the baseline; matters at the first look only.
    """

    at: float
    events: int
    phase: str
    ran: float
    records: bool
    baseline: bool


class Expected:
    """The expected totals.

    Attributes:
        counters: by name and labels.
        observed: seconds observed by histograms, likewise.
    """

    def __init__(self):
        self.counters = Counter()
        self.observed = defaultdict(list)

    def add(self, events, looks, deleted=None):
        """Count a job.

        Args:
            events: of the job, in order.
            looks: in order.
            deleted: the phase it was deleted in, as last seen; None = not deleted.
        """
        self._job = events[0].job
        self._behind = looks[0].events if looks[0].baseline else 0
        if not self._behind:
            self._count("jobs_created")
        if deleted is not None:
            self._count("jobs_deleted", deleted)
        for event in events[self._behind : looks[-1].events]:
            if event.kind == "started":
                self._observe("queue", event.at - self._job.created)
        self._add_runs(events, looks)
        before = looks[0].ran if looks[0].baseline else 0
        self._card_seconds("accelerator", looks[-1].ran - before, self._job.accelerator)
        self._add_ends(events, looks)

    def add_deleted(self, job, phase):
        """Count a baseline job that was deleted before it ever showed a phase."""
        self._job = job
        self._count("jobs_deleted", phase)

    def _add_runs(self, events, looks):
        """Records have whole seconds; those not listed by the last look are unknown."""
        listed = max((look.events for look in looks if look.records), default=0)
        start = end = None
        for number, event in enumerate(events[:listed]):
            counts = self._is_after_baseline(events, looks, number)
            match event.kind:
                case "started":
                    start, end = int(event.at), None
                case "restarted":
                    if counts:
                        self._count("restarts", event.start_type, event.recovery)
                        self._observe("recovery", int(event.at) - end, event.recovery)
                        self._card_seconds(
                            "recovery_accelerator", int(event.at) - end, event.recovery
                        )
                    start, end = int(event.at), None
                case "interrupted":
                    end = int(event.at)
                    if counts:
                        self._observe("attempt", end - start, event.recovery)
                case "downgraded":
                    if counts:
                        self._count("recovery_downgrades", event.from_recovery, event.to_recovery)
                case "finished":
                    end = end or int(event.at)

    def _is_after_baseline(self, events, looks, number):
        """If a job had run but showed no records at its baseline, only the time can tell."""
        had_run = any(event.kind == "started" for event in events[: self._behind])
        if looks[0].baseline and had_run and not looks[0].records:
            return int(events[number].at) + 1 > looks[0].at
        return number >= self._behind

    def _add_ends(self, events, looks):
        ends = []
        ended = False
        counted = None
        for look in looks:
            if look.phase in ACTIVE:
                ended = False
            elif look.phase in TERMINAL and not ended:
                ended = True
                started = any(event.kind == "started" for event in events[: look.events])
                if look is not looks[0] or not look.baseline:
                    ends.append(look.phase)
                    self._count("jobs_finished", look.phase)
                    if started:
                        self._card_seconds(
                            "finished_accelerator", look.ran - (counted or 0), look.phase
                        )
                        if counted is None:
                            self._observe("run", look.ran, look.phase)
                counted = look.ran if started else counted
        seen = events[: looks[-1].events]
        if all(event.kind not in ("reactivated", "entered") for event in seen):
            after = seen[self._behind :]
            assert ends == [event.phase for event in after if event.kind == "finished"]

    def _key(self, name, labels):
        return f"modelarts_training_{name}", (*self._job.base, *labels)

    def _count(self, name, *labels):
        self.counters[self._key(f"{name}_total", labels)] += 1

    def _card_seconds(self, name, seconds, *labels):
        self.counters[self._key(f"{name}_seconds_total", labels)] += seconds * self._job.cards

    def _observe(self, name, seconds, *labels):
        self.observed[self._key(f"{name}_duration_seconds", labels)].append(round(seconds, 3))
