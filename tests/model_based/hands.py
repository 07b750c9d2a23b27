"""What may happen to the jobs of a world, chosen by small numbers: any step fits any world."""

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


class Hands:
    """Do to a world what is possible.

    Attributes:
        odd: positions in `ODD`, by job.
    """

    def __init__(self, world, pools):
        self.world = world
        self.odd = {}
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

    def past(self, number):
        """Jobs of the past, an hour apart, of which one in eight still runs."""
        for position in range(number):
            pool = self._pools[position % len(self._pools)]
            at = self.world.now - 3600.0 * (number - position) - 1800.5
            job = self.world.create(at, pool=pool, workspace=WORKSPACES[position % 3 == 0])
            self.world.start(job, at + 60)
            if position % 8:
                self.world.finish(job, TERMINAL[position % 4], at=at + 600)

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
            case "reactivate":
                return job.phase in TERMINAL
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

    def _reactivate(self, job, _):
        self.world.reactivate(job)

    def _bounce(self, job, how):
        """Ended, active and ended again, at once."""
        if job.phase in TERMINAL:
            self.world.reactivate(job)
            self.world.finish(job, TERMINAL[how % 4])

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
