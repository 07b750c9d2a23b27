"""What may happen to the jobs of a world, chosen by small numbers: any step fits any world."""

import random

from exporter.simulator.catalog import (
    ASCEND_PUBLIC,
    ASCEND_ROLES,
    CPU_PUBLIC,
    GPU_PUBLIC,
    GPU_ROLES,
    LLM_POOL,
    OLD_POOL,
    PREPARATION_POOL,
    VISION_POOL,
    Flavor,
    Pool,
    visual,
)
from exporter.simulator.edits import ABSENT
from exporter.simulator.job import ACTIVE, IN_PLACE, RESCHEDULING, TERMINAL

WORKSPACES = ("0", "0123456789abcdef0123456789abcdef")
STRANGE_POOL = Pool(
    name="strange",
    id="pool-strange",
    flavor_type="Ascend",
    product="unknown",
    card_memory="",
    nodes=4,
    node_cards=0,
    tells="flavor_id",
    flavors=(Flavor("modelarts.pool.strange", "", 0, 8, 64),),
)
"""Nothing tells how many cards there are."""
LATE_POOL = Pool(
    name="late",
    id="pool-late",
    flavor_type="GPU",
    product="nvidia-Ant8",
    card_memory="",
    nodes=4,
    node_cards=8,
    tells="allocated",
    flavors=(visual(8), visual(4)),
    programs="image",
)
"""Its jobs show their flavor type once they have started."""
POOLS = (
    (ASCEND_PUBLIC, LLM_POOL, CPU_PUBLIC),
    (GPU_PUBLIC, VISION_POOL, PREPARATION_POOL),
    (OLD_POOL, LATE_POOL, STRANGE_POOL, LATE_POOL),
)
ROLES = {ASCEND_PUBLIC.name: ASCEND_ROLES, GPU_PUBLIC.name: GPU_ROLES}
POLICIES = (*IN_PLACE, *RESCHEDULING, "of_tomorrow")
NAMES = (None, None, "train", "train-1", "TRAIN", "x" * 100)
ODD = (
    {"metadata.id": ABSENT},
    {"metadata.id": "no id / at all"},
    {"status": "odd"},
    {"status.phase": ABSENT},
    {"status.phase": 7},
    {"status.running_records": ABSENT},
)
WITHOUT_ID, WITHOUT_PHASE, WITHOUT_RECORDS = (0, 1), (2, 3, 4), (5,)
UNDOCUMENTED = "Suspended"
MOST_ACTIVE = 160
"""Older jobs of the past have ended."""


class Hands:
    """Do to a world what is possible.

    Attributes:
        odd: positions in `ODD`, by job.
        hidden: ids of jobs that lists omit, although they are found by id.
    """

    def __init__(self, world, pools):
        self.world = world
        self.odd = {}
        self.hidden = set()
        self._pools = pools
        self._blinking = {}

    def create(self, how, number=1, step=37):
        for count in range(number):
            self._create(how + step * count)

    def _create(self, how):
        pool = self._pools[how % len(self._pools)]
        roles = ROLES.get(pool.name, ()) if how % 11 == 0 else ()
        self.world.create(
            pool=pool,
            flavor=how // 3 % len(pool.flavors),
            workspace=WORKSPACES[how // 5 % 2],
            nodes=1 if roles else 1 + how // 7 % 3,
            roles=roles,
            name=NAMES[how // 13 % len(NAMES)],
            fine_tuning=how % 9 == 0,
        )

    def past(self, number, *, together=1, disordered=False):
        """Jobs of the past, an hour apart, of which one in eight of the newest still runs.

        Args:
            number: of jobs.
            together: so many are created at the same time.
            disordered: some show another create time than that by which they are listed.
        """
        for position in range(number):
            pool = self._pools[position % len(self._pools)]
            before = (number - position - 1) // together + 1
            at = self.world.now - 3600.0 * before - 1800.5
            job = self.world.create(at, pool=pool, workspace=WORKSPACES[position % 3 == 0])
            self.world.start(job, at + 60)
            if position % 8 or number - position > MOST_ACTIVE:
                self.world.finish(job, TERMINAL[position % 4], at=at + 600)
            if disordered and position % 7 == 3:
                shown = job.created_ms - 7_200_000
                times = {"metadata.create_time": shown, "status.start_time": shown + 60_000}
                self.world.override(job, times)

    def scatter(self, number, how):
        """Delete jobs at random places."""
        jobs = sorted(self.world, key=lambda job: job.id)
        for job in random.Random(how).sample(jobs, min(number, len(jobs))):
            self._delete(job, how)

    def delete_row(self, number, how):
        """Delete jobs one after the other, from a random place on."""
        jobs = sorted(self.world, key=lambda job: (job.created, job.id))
        first = random.Random(how).randrange(len(jobs) + 1)
        for job in jobs[first : first + number]:
            self._delete(job, how)

    def show_all(self):
        self.hidden.clear()

    def do(self, what, which, how):
        """Do something to one of the jobs to which it can be done; the newest come first."""
        jobs = [job for job in self.world if self._fits(what, job)]
        if jobs:
            getattr(self, f"_{what}")(jobs[-1 - which % len(jobs)], how)

    def make_even(self):
        for job_id in self.odd:
            if job_id in self.world:
                self.world.override(job_id, {})
        self.odd.clear()

    def _fits(self, what, job):
        live = bool(job.runs) and job.runs[-1].end is None
        match what:
            case "queue":
                return job.phase == "Creating"
            case "start":
                return job.phase in ("Creating", "Pending", "Running") and not live
            case "interrupt" | "recover":
                return job.phase == "Running" and live
            case "stop":
                return job.phase in ("Creating", "Pending", "Running")
            case "finish" | "end":
                return job.phase in ACTIVE
            case "reactivate" | "correct" | "swap":
                return job.phase in TERMINAL
            case "hide" | "show":
                return (job.id in self.hidden) == (what == "show")
        return True

    def _queue(self, job, _):
        self.world.queue(job)

    def _start(self, job, how):
        self.world.start(job, restarted=how % 2 == 0)

    def _interrupt(self, job, how):
        phase = [None, "Pending", "Creating", "Running"][how % 4]
        self.world.interrupt(
            job, POLICIES[how % len(POLICIES)], downgraded_from=_before(how), phase=phase
        )

    def _recover(self, job, how):
        self.world.recover(job, POLICIES[how % len(POLICIES)], downgraded_from=_before(how))

    def _stop(self, job, _):
        self.world.stop(job)

    def _finish(self, job, how):
        self.world.finish(job, TERMINAL[how % 4], [None, 1, 137][how // 4 % 3])

    def _delete(self, job, _):
        self.world.delete(job)
        self.odd.pop(job.id, None)
        self.hidden.discard(job.id)

    def _reactivate(self, job, _):
        self.world.reactivate(job)

    def _bounce(self, job, how):
        """Ended, active and ended again, at once."""
        if job.phase in TERMINAL:
            self.world.reactivate(job)
            self.world.finish(job, TERMINAL[how % 4])

    def _correct(self, job, how):
        """From one end to another, long after it."""
        self.world.enter(job, TERMINAL[how % 4])

    def _emerge(self, job, how):
        """An older job appears beside this one; nobody could see it before."""
        pool = self._pools[how % len(self._pools)]
        at = min(job.created + (how % 3 - 1) * 0.001, self.world.now)
        new = self.world.create(at, pool=pool, workspace=job.workspace)
        self.world.start(new, at)
        self.world.finish(new, TERMINAL[how % 4], at=min(at + 60, self.world.now))

    def _swap(self, job, how):
        """Another job in its place: the list is as long as before."""
        self._emerge(job, how)
        self._delete(job, how)

    def _hide(self, job, _):
        self.hidden.add(job.id)

    def _show(self, job, _):
        self.hidden.discard(job.id)

    def _blink(self, job, _):
        """Into a phase that nobody knows, or back."""
        if job.phase == UNDOCUMENTED:
            self.world.enter(job, self._blinking.pop(job.id))
        else:
            self._blinking[job.id] = job.phase
            self.world.enter(job, UNDOCUMENTED)

    def _odd(self, job, how):
        self.odd[job.id] = how % len(ODD)
        self.world.override(job, ODD[how % len(ODD)])


def _before(how):
    return ("", "", POLICIES[how % len(POLICIES)], *POLICIES)[how // 8 % (3 + len(POLICIES))]
