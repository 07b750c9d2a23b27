"""The expected counters and histograms, computed from the world's own record of events.

The oracle is given the events of each job and when polls looked at it. It knows nothing of the
tracker. The rules that depend on what was seen (`exporter/jobs/tracker.py`) are few:

- what had happened at a baseline look is not counted;
- an end counts when it is seen after the job was seen active, or first of all, however often it
  ended in between;
- what happened after the last look at a job, or in records that were never listed, is not counted;
- all that is counted of a job is counted under the best flavor type known when that began.
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


class Bases:
    """Where each job is shown, and where it counts, after every look at a part of the jobs.

    A job that does not show its flavor type has the one that it showed before, or the only one that
    jobs of its pool have shown, in workspaces that are still looked at.

    Attributes:
        types: by job id, as shown.
        counted: by job id, the base of everything that is counted of it.
    """

    def __init__(self):
        self.types = {}
        self.counted = {}
        self._last = {}
        self._shown = set()

    def look(self, jobs, deleted, workspaces, has_counted, without_phase=()):
        """Take in what was read, before anything is known about it.

        Args:
            jobs: as decoded, by id.
            deleted: ids of jobs that are gone.
            workspaces: those that are looked at now.
            has_counted: whether anything is counted of a job by now, by id.
            without_phase: ids of jobs that are left as they are if they are known.
        """
        before = self._in_pools(workspaces)
        self._shown |= {(job.workspace, job.pool, job.flavor_type) for job in jobs.values()}
        now = self._in_pools(workspaces)
        news = {pool for pool, types in now.items() if types != before[pool]}
        for job_id, job in jobs.items():
            if job_id not in without_phase or job_id not in self.types:
                last, self._last[job_id] = self._last.get(job_id, job), job
                kept = self.types.get(job_id, _UNKNOWN) if last.pool == job.pool else _UNKNOWN
                own = job.flavor_type
                self.types[job_id] = kept if own == _UNKNOWN else own
        for job_id, job in self._last.items():
            read = job_id in jobs or job.pool in news
            if read and job.workspace in workspaces and self.types[job_id] == _UNKNOWN:
                possible = now[job.pool] - ({"CPU"} if job.accelerators else set())
                self.types[job_id] = possible.pop() if len(possible) == 1 else _UNKNOWN
        for job_id in {*jobs, *deleted} & self._last.keys() - self.counted.keys():
            if has_counted(job_id):
                self.counted[job_id] = self.shown(job_id)

    def shown(self, job_id):
        """Where a job is shown now."""
        job = self._last[job_id]
        return job.workspace, job.pool, self.types[job_id]

    def base(self, job_id):
        """Where a job counts, even if nothing of it was counted before."""
        return self.counted.get(job_id) or self.shown(job_id)

    def _in_pools(self, workspaces):
        types = defaultdict(set)
        for workspace, pool, flavor_type in self._shown:
            if workspace in workspaces and pool != "public" and flavor_type != _UNKNOWN:
                types[pool].add(flavor_type)
        return types


_UNKNOWN = "unknown"


class Expected:
    """The expected totals.

    Attributes:
        counters: by name and labels.
        observed: seconds observed by histograms, likewise.
    """

    def __bool__(self):
        """Whether anything is counted or observed."""
        return any(self.counters.values()) or any(self.observed.values())

    def __init__(self):
        self.counters = Counter()
        self.observed = defaultdict(list)

    def add(self, events, looks, deleted=None, base=None):
        """Count a job.

        Args:
            events: of the job, in order.
            looks: in order.
            deleted: the phase it was deleted in, as last seen; None = not deleted.
            base: where it counts; None = where the world says that it is.
        """
        self._job = events[0].job
        self._base = base or self._job.base
        self._behind = looks[0].events if looks[0].baseline else 0
        if not self._behind:
            self._count("jobs_created")
        if deleted is not None:
            self._count("jobs_deleted", deleted)
        for event in events[self._behind : looks[-1].events]:
            if event.kind == "started":
                self._observe("queue", event.at - self._job.created)
        self._add_runs(events, looks)
        self._add_details(events, looks)
        before = looks[0].ran if looks[0].baseline else 0
        self._card_seconds("accelerator", looks[-1].ran - before, self._job.accelerator)
        self._add_ends(events, looks)

    def add_deleted(self, job, phase, base=None):
        """Count a baseline job that was deleted before it ever showed a phase."""
        self._job = job
        self._base = base or job.base
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

    def _add_details(self, events, looks):
        """Start-ups, and faults with a result: newer details of records, in whole seconds."""
        listed = max((look.events for look in looks if look.records), default=0)
        start = 0
        for number, event in enumerate(events[:listed]):
            match event.kind:
                case "started" | "restarted":
                    start = int(event.at)
                case "computing":
                    if self._is_new_detail(events, looks, number, start + event.startup):
                        self._observe("startup", event.startup)
                case "fault":
                    if self._is_new_detail(events, looks, number, int(event.at)):
                        self._count("faults", event.fault_scenario, event.recovery, event.result)

    def _is_after_baseline(self, events, looks, number):
        """If a job had run but showed no records at its baseline, only the time can tell."""
        had_run = any(event.kind == "started" for event in events[: self._behind])
        if looks[0].baseline and had_run and not looks[0].records:
            return int(events[number].at) + 1 > looks[0].at
        return number >= self._behind

    def _is_new_detail(self, events, looks, number, moment):
        """Likewise if records showed nothing that only newer services list."""
        before = [event.kind for event in events[: self._behind]]
        listed = looks[0].records and any(kind in ("computing", "interrupted") for kind in before)
        if looks[0].baseline and "started" in before and not listed:
            return moment + 1 > looks[0].at
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
        return f"modelarts_training_{name}", (*self._base, *labels)

    def _count(self, name, *labels):
        self.counters[self._key(f"{name}_total", labels)] += 1

    def _card_seconds(self, name, seconds, *labels):
        self.counters[self._key(f"{name}_seconds_total", labels)] += seconds * self._job.cards

    def _observe(self, name, seconds, *labels):
        self.observed[self._key(f"{name}_duration_seconds", labels)].append(round(seconds, 3))
