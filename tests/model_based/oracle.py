"""What polls may read, and the looks at each job from which `jobs.oracle` expects the counters.

The oracle knows the world's events, which documents of a job were sent to the exporter and which of
them a successful poll used; it knows nothing of how the exporter counts. The first view of a
workspace is a baseline, and so is a job found later that is more than an hour older than the newest
known before. Jobs that no poll has seen cannot be counted.
"""

from bisect import bisect_left
from collections import defaultdict
from typing import NamedTuple

from jobs.oracle import Bases, Expected, Look

from exporter.simulator.job import ACTIVE, TERMINAL

HIDDEN_SECONDS = 3600


class MismatchError(AssertionError):
    """A promise that was broken."""


class Shown(NamedTuple):
    """A job as an answer has shown it: what a look at it can be told by."""

    phase: str
    ran: float
    runs: int | None
    last: tuple


class Attempt:
    """One poll or sweep on its way.

    Attributes:
        kind: incremental, sweep or verify.
        start, end: positions in the world's record of events.
        began, done: ticks of the rig's own clock.
        shown: by job, how many of its events had happened and what was shown, in order.
        without_phase: jobs shown without a phase, with the number of their events by then.
        odd: jobs whose documents were not what they should be, at any time meanwhile.
        narrowed: lists were empty, at any time meanwhile.
        parts: jobs that were saved while the rest was read, by id.
        saved_at: when that was first, by id.
        unchanged: ids of jobs that were read and left out.
        view: what came of it.
    """

    def __init__(self, kind, start, began):
        self.kind = kind
        self.start = self.end = start
        self.began = self.done = began
        self.shown = defaultdict(list)
        self.without_phase = {}
        self.odd = set()
        self.narrowed = False
        self.parts = {}
        self.saved_at = {}
        self.unchanged = set()
        self.view = None


class History:
    """The events of every job, with their positions in the world's record."""

    def __init__(self, world):
        self._world = world
        self._read = 0
        self._events = defaultdict(list)
        self._positions = defaultdict(list)

    def __getitem__(self, job_id):
        self._catch_up()
        return self._events[job_id]

    def __len__(self):
        return len(self._world.events)

    def _catch_up(self):
        events = self._world.events
        for position in range(self._read, len(events)):
            job_id = events[position].job.id
            self._events[job_id].append(events[position])
            self._positions[job_id].append(position)
        self._read = len(events)

    def ids(self):
        self._catch_up()
        return self._events.keys()

    def phases(self, job_id, start, end):
        """Phases that the job had between two positions."""
        events = self[job_id]
        positions = self._positions[job_id]
        first = max(bisect_left(positions, start) - 1, 0)
        last = bisect_left(positions, end)
        return {shown_phase(event.phase) for event in events[first:last]}

    def existed(self, job_id, start, end):
        """Whether the job was there all the time between two positions."""
        events, positions = self[job_id], self._positions[job_id]
        if positions[0] >= start:
            return False
        return events[-1].kind != "deleted" or positions[-1] >= end


def shown_phase(phase):
    return phase if phase in ACTIVE or phase in TERMINAL else "Unknown"


class Oracle:
    """One target's truth since the last baseline.

    Args:
        world: that there is.
        history: of its jobs.
        unified: whether the service lists fine-tuning jobs.

    Attributes:
        bases: where jobs are shown and count.
        unknowable: jobs that came and went unseen.
    """

    def __init__(self, world, history, *, unified):
        self.world = world
        self.history = history
        self.bases = Bases()
        self._unified = unified
        self.looks = defaultdict(list)
        self.gone = {}
        self.current = {}
        self.allowed = defaultdict(set)
        self.leaving = set()
        self._newest_created = {}
        self._taken_in = {}
        self._without_baseline = set()
        self._newest_before = {}
        self.sweeps = self.polls = 0
        self.phase_filter = True

    # --- What a poll may bring --------------------------------------------------------------------

    def take(self, attempt, wall, workspaces):
        """A poll is committed: check what it brought against the truth, and remember it."""
        view, history = attempt.view, self.history
        self.leaving = set()
        newest_created = self._newest_before = dict(self._newest_created)
        before = dict(self.current)
        self._taken_in |= dict.fromkeys(attempt.unchanged, attempt.done)
        for job_id, job in view.jobs.items():
            looked = self._look_of(attempt, job)
            phases = history.phases(job_id, attempt.start, attempt.end)
            self._taken_in[job_id] = attempt.done
            if looked is None:
                self._remember_without_phase(job, newest_created)
                continue
            if job.phase not in phases:
                raise MismatchError(f"{job_id} read in {job.phase}, but it was {sorted(phases)}")
            self._remember(job, looked, newest_created, attempt.saved_at.get(job_id, wall))
            self.allowed[job_id] = {self.current.get(job_id, job.phase), job.phase}
            self.current[job_id] = job.phase
        self._check_gone(view.deleted)
        self.bases.look(view.jobs, view.deleted, workspaces, self._has_counted, view.without_phase)
        for workspace, newest in view.newest_created.items():
            self._newest_created[workspace] = max(
                newest, self._newest_created.get(workspace, newest)
            )
        if attempt.kind != "verify":  # which reads what it needs
            self._check_complete(attempt, before, workspaces)
        self.sweeps += attempt.kind == "sweep"
        self.polls += attempt.kind == "incremental"

    def _look_of(self, attempt, job):
        if job.id in attempt.view.without_phase:
            if job.id not in attempt.without_phase:
                raise MismatchError(f"{job.id} has no phase, but was shown with one")
            return None
        runs = None if job.runs is None else len(job.runs)
        last = () if not job.runs else (job.runs[-1].end, job.runs[-1].recovery)
        taken = Shown(job.phase, job.duration, runs, last)
        for events, shown in reversed(attempt.shown[job.id]):
            if shown == taken:
                return events, shown
        raise MismatchError(f"{job.id} was read as {taken}, but shown as {attempt.shown[job.id]}")

    def _remember(self, job, looked, newest_created, wall):
        events, shown = looked
        if job.id in self.gone:
            raise MismatchError(f"{job.id} is back from the dead")
        known = self.looks[job.id]
        baseline = known[0].baseline if known else self._is_baseline(job, newest_created)
        records = shown.runs is not None
        if known and events < known[-1].events:
            raise MismatchError(f"{job.id} goes back in time: {known[-1]}, now {events} {shown}")
        known.append(Look(wall, events, shown.phase, shown.ran, records, baseline))

    def _remember_without_phase(self, job, newest_created):
        """A job without a phase stays as it is; a new one tells of its creation and no more."""
        if job.id in self.current:
            return
        self.current[job.id] = "Unknown"
        self.allowed[job.id] = {"Unknown"}
        if self._is_baseline(job, newest_created):
            self._without_baseline.add(job.id)
        else:
            self.looks[job.id].append(Look(0.0, 1, "Unknown", 0.0, False, False))

    def _is_baseline(self, job, newest_created):
        created, newest = self.history[job.id][0].job.created, newest_created.get(job.workspace)
        hidden = newest is None or created < newest - HIDDEN_SECONDS
        return hidden or job.id in self._without_baseline

    def _check_gone(self, gone):
        for job_id in gone:
            if job_id in self.world:
                raise MismatchError(f"{job_id} is said to be deleted, but it is there")
            if job_id in self.current:
                self.gone[job_id] = self.current.pop(job_id)
                self.leaving.add(job_id)

    def _check_complete(self, attempt, before, workspaces):
        """Nobody who was there all the time is missing, or shown as he was before."""
        for job in self.listed(workspaces):
            if job.id in attempt.odd or attempt.narrowed:
                continue
            if not self.history.existed(job.id, attempt.start, attempt.end):
                continue
            if job.id not in self.current:
                if attempt.kind == "sweep" or not self._is_below(job, attempt):
                    raise MismatchError(f"{attempt.kind}: {job.id} was there and is not known")
            elif attempt.kind == "sweep":
                if self._taken_in.get(job.id, -1) < attempt.began:
                    raise MismatchError(f"sweep: {job.id} was there all the time and was not read")
            elif job.id not in attempt.view.jobs:
                self._check_left_out(job, attempt, before)

    def _check_left_out(self, job, attempt, before):
        """A poll need not read what has ended, nor what it leaves to the sweep that follows."""
        if job.id in attempt.view.unresolved:
            return
        phases = self.history.phases(job.id, attempt.start, attempt.end)
        if before.get(job.id) not in TERMINAL:
            raise MismatchError(f"incremental: {job.id}, known as active, was not read")
        if self.phase_filter and phases <= set(ACTIVE):
            raise MismatchError(f"incremental: {job.id}, active again, was not read")

    def _is_below(self, job, attempt):
        """Whether only a sweep can find it: older than what was known, and not active."""
        newest = self._newest_before.get(job.workspace, float("-inf"))
        phases = self.history.phases(job.id, attempt.start, attempt.end)
        searched = self.phase_filter and phases <= set(ACTIVE)
        return job.created <= newest and not searched

    def listed(self, workspaces):
        """The jobs that the service lists."""
        return [
            job
            for job in self.world
            if job.workspace in workspaces and (self._unified or not job.fine_tuning)
        ]

    # --- What must be counted ---------------------------------------------------------------------

    def expected(self, workspaces):
        """Counters, and observed seconds, by name and labels."""
        totals = Expected()
        for job_id in self._without_baseline & self.gone.keys() - self.looks.keys():
            base = self.bases.base(job_id)
            totals.add_deleted(self.history[job_id][0].job, self.gone[job_id], base)
        for job_id, looks in self.looks.items():
            job = self.history[job_id][0].job
            if job.workspace not in workspaces:
                continue
            base = self.bases.base(job_id)
            totals.add(self.history[job_id], looks, self.gone.get(job_id), base)
        return totals

    def _has_counted(self, job_id):
        """Whether anything is counted of a job by now."""
        if job_id in self.gone:
            return True
        totals = Expected()
        if looks := self.looks.get(job_id):
            totals.add(self.history[job_id], looks)
        return bool(totals)

    def unseen(self):
        """Jobs that came and went without any successful poll, or are not seen yet."""
        return sum(job_id not in self.looks for job_id in self.history.ids())
