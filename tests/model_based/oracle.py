"""What counters, histograms and gauges must say, by the world's own record of what happened.

The oracle knows the world's events, which documents of a job were on their way to the exporter and
what a successful poll took of them; it knows nothing of how the exporter counts. Rules that depend
on what was seen (`exporter/jobs/tracker.py`) are few, and applied to the phases that the world had
then:

- the first view of a workspace is a baseline, and so is a job found later that is more than an hour
  older than the newest known before;
- an end counts when it is seen after the job was seen active, however often it ended in between;
- what happened after the last look at a job that is gone, or to a job that no look has caught, or
  in records that were never listed, nobody can know.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from typing import NamedTuple

from exporter.simulator.job import ACTIVE, TERMINAL

HIDDEN_SECONDS = 3600


class Failure(AssertionError):  # noqa: N818 - a verdict on the exporter
    """A promise that was broken."""


class Shown(NamedTuple):
    """A job as an answer has shown it: what a look at it can be told by."""

    phase: str
    ran: float
    runs: int | None
    last: tuple


class Look(NamedTuple):
    """A job as a successful poll took it.

    Attributes:
        events: so many of its events had happened.
        phase: as shown.
        ran: seconds.
        records: whether they were shown.
        baseline: whether all of that is no event.
        at: when it was taken, by the exporter's clock.
    """

    events: int
    phase: str
    ran: float
    records: bool
    baseline: bool
    at: float


class Attempt:
    """One poll or sweep on its way.

    Attributes:
        kind: incremental or sweep.
        start, end: positions in the world's record of events.
        began, done: ticks of the rig's own clock.
        shown: by job, how many of its events had happened and what was shown, in order.
        vague: jobs that were shown without a phase, and how many of their events had happened.
        odd: jobs whose documents were not what they should be, at any time meanwhile.
        narrowed: lists were empty, at any time meanwhile.
        view: what came of it.
    """

    def __init__(self, kind, start, began):
        self.kind = kind
        self.start = self.end = start
        self.began = self.done = began
        self.shown = defaultdict(list)
        self.vague = {}
        self.odd = set()
        self.narrowed = False
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

    Attributes:
        unknowable: jobs that came and went unseen.
    """

    def __init__(self, world, history):
        self.world = world
        self.history = history
        self.looks = defaultdict(list)
        self.gone = {}
        self.current = {}
        self.allowed = defaultdict(set)
        self.leaving = set()
        self._horizons = {}
        self._taken_in = {}
        self._untold = set()
        self._horizon_before = {}
        self.sweeps = self.polls = 0
        self.phase_filter = True

    # --- What a poll may bring --------------------------------------------------------------------

    def take(self, attempt, wall, workspaces):
        """A poll is committed: check what it brought against the truth, and remember it."""
        view, history = attempt.view, self.history
        self.leaving = set()
        horizons = self._horizon_before = dict(self._horizons)
        before = dict(self.current)
        for job_id, job in view.jobs.items():
            looked = self._look_of(attempt, job)
            phases = history.phases(job_id, attempt.start, attempt.end)
            self._taken_in[job_id] = attempt.done
            if looked is None:
                self._remember_vague(job, horizons)
                continue
            if job.phase not in phases:
                raise Failure(f"{job_id} read in {job.phase}, but it was {sorted(phases)}")
            self._remember(job, looked, horizons, wall)
            self.allowed[job_id] = {self.current.get(job_id, job.phase), job.phase}
            self.current[job_id] = job.phase
        self._check_gone(view.gone)
        for workspace, newest in view.horizons.items():
            self._horizons[workspace] = max(newest, self._horizons.get(workspace, newest))
        self._check_complete(attempt, before, workspaces)
        if attempt.kind == "sweep":
            self.sweeps += 1
        else:
            self.polls += 1

    def _look_of(self, attempt, job):
        if job.id in attempt.view.vague:
            if job.id not in attempt.vague:
                raise Failure(f"{job.id} is vague, but was shown with a phase")
            return None
        runs = None if job.runs is None else len(job.runs)
        last = () if not job.runs else (job.runs[-1].end, job.runs[-1].recovery)
        taken = Shown(job.phase, job.duration, runs, last)
        for events, shown in reversed(attempt.shown[job.id]):
            if shown == taken:
                return events, shown
        raise Failure(f"{job.id} was read as {taken}, but shown as {attempt.shown[job.id]}")

    def _remember(self, job, looked, horizons, wall):
        events, shown = looked
        if job.id in self.gone:
            raise Failure(f"{job.id} is back from the dead")
        known = self.looks[job.id]
        baseline = known[0].baseline if known else self._is_baseline(job, horizons)
        records = shown.runs is not None
        if known and events < known[-1].events:
            raise Failure(f"{job.id} goes back in time: {known[-1]}, now {events} {shown}")
        known.append(Look(events, shown.phase, shown.ran, records, baseline, wall))

    def _remember_vague(self, job, horizons):
        """A job without a phase stays as it is; a new one tells of its creation and no more."""
        if job.id in self.current:
            return
        self.current[job.id] = "Unknown"
        self.allowed[job.id] = {"Unknown"}
        if self._is_baseline(job, horizons):
            self._untold.add(job.id)
        else:
            self.looks[job.id].append(Look(1, "Unknown", 0.0, False, False, 0.0))

    def _is_baseline(self, job, horizons):
        created, horizon = self.history[job.id][0].job.created, horizons.get(job.workspace)
        hidden = horizon is None or created < horizon - HIDDEN_SECONDS
        return hidden or job.id in self._untold

    def _check_gone(self, gone):
        for job_id in gone:
            if job_id in self.world:
                raise Failure(f"{job_id} is said to be deleted, but it is there")
            if job_id in self.current:
                self.gone[job_id] = self.current.pop(job_id)
                self.leaving.add(job_id)

    def _check_complete(self, attempt, before, workspaces):
        """Nobody who was there all the time is missing, or shown as he was before."""
        for job in self.world:
            if job.workspace not in workspaces or job.id in attempt.odd or attempt.narrowed:
                continue
            if not self.history.existed(job.id, attempt.start, attempt.end):
                continue
            if job.id not in self.current:
                if attempt.kind == "sweep" or not self._is_below(job, attempt):
                    raise Failure(f"{attempt.kind}: {job.id} was there and is not known")
            elif attempt.kind == "sweep":
                if self._taken_in.get(job.id, -1) < attempt.began:
                    raise Failure(f"sweep: {job.id} was there all the time and was not read")
            elif job.id not in attempt.view.jobs:
                self._check_left_out(job, attempt, before)

    def _check_left_out(self, job, attempt, before):
        """A poll need not read what has ended, nor what it leaves to the sweep that follows."""
        if job.id in attempt.view.undecided:
            return
        phases = self.history.phases(job.id, attempt.start, attempt.end)
        if before.get(job.id) not in TERMINAL:
            raise Failure(f"incremental: {job.id}, known as active, was not read")
        if self.phase_filter and phases <= set(ACTIVE):
            raise Failure(f"incremental: {job.id}, active again, was not read")

    def _is_below(self, job, attempt):
        """Whether only a sweep can find it: older than what was known, and not active."""
        horizon = self._horizon_before.get(job.workspace, float("-inf"))
        phases = self.history.phases(job.id, attempt.start, attempt.end)
        searched = self.phase_filter and phases <= set(ACTIVE)
        return job.created <= horizon and not searched

    # --- What must be counted ---------------------------------------------------------------------

    def expected(self, workspaces):
        """Counters, and observed seconds, by name and labels."""
        told = _Told()
        for job_id in self._untold & self.gone.keys() - self.looks.keys():
            told.forget(self.history[job_id][0].job, self.gone[job_id])
        for job_id, looks in self.looks.items():
            job = self.history[job_id][0].job
            if job.workspace not in workspaces:
                continue
            told.tell(self.history[job_id], looks, self.gone.get(job_id))
        return told

    def unseen(self):
        """Jobs that came and went without any successful poll, or are not seen yet."""
        return sum(job_id not in self.looks for job_id in self.history.ids())


class _Told:
    """Adds up.

    Attributes:
        counters: by name and labels.
        observed: seconds, likewise.
    """

    def __init__(self):
        self.counters = Counter()
        self.observed = defaultdict(list)

    def tell(self, events, looks, gone):
        self._job = events[0].job
        self._behind = looks[0].events if looks[0].baseline else 0
        if not self._behind:
            self._count("jobs_created")
        if gone is not None:
            self._count("jobs_deleted", gone)
        for event in events[self._behind : looks[-1].events]:
            if event.kind == "started":
                self._observe("queue", event.at - self._job.created)
        self._tell_runs(events, looks)
        before = looks[0].ran if looks[0].baseline else 0
        self._cards("accelerator", looks[-1].ran - before, self._job.accelerator)
        self._tell_ends(events, looks)

    def forget(self, job, phase):
        """A job of the baseline that has never shown a phase is gone."""
        self._job = job
        self._count("jobs_deleted", phase)

    def _tell_runs(self, events, looks):
        """Records are in whole seconds; what was not listed before the last look is not known."""
        known = max((look.events for look in looks if look.records), default=0)
        start = end = None
        for number, event in enumerate(events[:known]):
            counts = self._is_news(events, looks, number)
            match event.kind:
                case "started":
                    start, end = int(event.at), None
                case "restarted":
                    if counts:
                        self._count("restarts", event.start_type, event.recovery)
                        self._observe("recovery", int(event.at) - end, event.recovery)
                        self._cards("recovery_accelerator", int(event.at) - end, event.recovery)
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

    def _is_news(self, events, looks, number):
        """Whether it happened after the baseline.

        If a job had run and told no records then, all that can be gone by is time, in seconds.
        """
        had_run = any(event.kind == "started" for event in events[: self._behind])
        if looks[0].baseline and had_run and not looks[0].records:
            return int(events[number].at) + 1 > looks[0].at
        return number >= self._behind

    def _tell_ends(self, events, looks):
        """A job has ended whenever it is found so after it was active or unknown to us."""
        ended = False
        counted = None
        for look in looks:
            if look.phase in ACTIVE:
                ended = False
            elif look.phase in TERMINAL and not ended:
                ended = True
                started = any(event.kind == "started" for event in events[: look.events])
                if not look.baseline or look is not looks[0]:
                    self._count("jobs_finished", look.phase)
                    if started:
                        self._cards("finished_accelerator", look.ran - (counted or 0), look.phase)
                        if counted is None:
                            self._observe("run", look.ran, look.phase)
                counted = look.ran if started else counted

    def _key(self, name, labels):
        return f"modelarts_training_{name}", (*self._job.base, *labels)

    def _count(self, name, *labels):
        self.counters[self._key(f"{name}_total", labels)] += 1

    def _cards(self, name, seconds, *labels):
        self.counters[self._key(f"{name}_seconds_total", labels)] += seconds * self._job.cards

    def _observe(self, name, seconds, *labels):
        self.observed[self._key(f"{name}_duration_seconds", labels)].append(round(seconds, 3))
