"""The world with a life of its own: discrete events on a heap, equal for equal seeds.

A job waits for cards in its pool's queue, and has at most one scheduled event of its own: the end
of what it is doing. Manual changes are possible: an event does nothing if its job is in another
state by then, and the cards in use depend on the state of jobs, not on how they got there.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable
from typing import Any, Self

from exporter.simulator.catalog import POOLS, Pool
from exporter.simulator.chance import (
    DAY,
    HOUR,
    MEAN_ACTIVITY,
    MEAN_QUICK_ACTIVITY,
    SERIOUS_PER_DAY,
    Chance,
    Plan,
    Request,
    activity,
    quick_activity,
)
from exporter.simulator.fleet import Fleet
from exporter.simulator.job import IN_PLACE, Job

_QUICK_PER_SECOND = 1 / 3.0
_HISTORY_SECONDS = 14 * DAY
_OVERHEAD = 1.2
"""Simulate more history than requested; its oldest part is deleted again."""
_LOOK_AHEAD = 8
_HEAD_IS_PATIENT_SECONDS = 2 * HOUR


class LivingFleet(Fleet):
    """A busy region.

    Args:
        seed: equal seeds and starts make equal worlds, however `advance` is called.
        start: unix seconds; nothing runs yet.
        pools: pools of the catalog, some or all.
        rate: arrival rate of short jobs: 1.0 is one every 3 seconds in the busiest hours.
    """

    def __init__(
        self,
        seed: int = 0,
        start: float = 1_750_000_000.0,
        *,
        pools: Iterable[Pool] = POOLS,
        rate: float = 1.0,
    ) -> None:
        super().__init__(seed, start, pools=pools)
        self._chance = Chance(self._random)
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._plans: dict[str, Plan] = {}
        self._queues: dict[str, list[Job]] = {name: [] for name in self.pools}
        self._held: dict[str, int] = {}
        self._used = dict.fromkeys(self.pools, 0)
        self._isolated = dict.fromkeys(self.pools, 0)
        self._changed: dict[str, None] = {}  # a dict for its order, which a set does not have
        self._resumed = False
        self._arrivals = 0
        self.set_rate(rate)
        self._after(0.0, self._serious)

    @classmethod
    def populated(
        cls,
        seed: int,
        now: float,
        *,
        jobs: int = 5000,
        rate: float = 1.0,
        pools: Iterable[Pool] = POOLS,
    ) -> Self:
        """Return a world after two weeks, with ``jobs`` finished jobs in its lists."""
        wanted = jobs * _OVERHEAD / (_HISTORY_SECONDS / DAY) - SERIOUS_PER_DAY
        per_second = max(wanted, 10.0) / DAY / MEAN_QUICK_ACTIVITY
        start = now - _HISTORY_SECONDS
        fleet = cls(seed, start, pools=pools, rate=per_second / _QUICK_PER_SECOND)
        fleet.advance(now)
        finished = sorted((job for job in fleet if not job.active), key=lambda job: job.created)
        for job in finished[: max(len(finished) - jobs, 0)]:
            fleet.delete(job)
        fleet.set_rate(rate)
        return fleet

    def set_rate(self, rate: float) -> None:
        """Change the arrival rate of short jobs from now on."""
        self._rate = rate
        self._arrivals += 1
        if rate > 0:
            self._after(self._until_quick(), self._quick, self._arrivals)

    def used(self, pool: Pool) -> int:
        """Return the cards (nodes in CPU pools) in use."""
        return self._used[pool.name]

    def isolated_nodes(self, pool: Pool) -> int:
        """Return the number of faulty nodes, which take no jobs."""
        return self._isolated[pool.name]

    def resume(self) -> None:
        """Let the clock continue; events due during the pause are delayed by it."""
        self._resumed = self._resumed or self.paused
        super().resume()

    def advance(self, now: float) -> None:
        """Simulate until ``now``."""
        if self.paused or now <= self.now:
            return
        if self._resumed:
            late, self._resumed = now - self.now, False
            self._heap = [(round(at + late, 3), *rest) for at, *rest in self._heap]  # type: ignore[misc] # mypy forgets the tuple's types
            self.now = now
        self._dispatch()  # after manual changes
        heap = self._heap
        while heap and heap[0][0] <= now:
            self.now, _, happen, arguments = heapq.heappop(heap)
            happen(*arguments)
            self._dispatch()
        self.now = now

    def _after(self, seconds: float, happen: Callable[..., None], *arguments: Any) -> None:
        at = round(self.now + seconds, 3)
        heapq.heappush(self._heap, (at, next(self._order), happen, arguments))

    # Arrivals

    def _serious(self) -> None:
        if self._chance.happens(activity(self.now)):
            self._arrive(self._chance.serious())
        self._after(self._chance.exponential(DAY * MEAN_ACTIVITY / SERIOUS_PER_DAY), self._serious)

    def _until_quick(self) -> float:
        return self._chance.exponential(1 / (_QUICK_PER_SECOND * self._rate))

    def _quick(self, arrivals: int) -> None:
        if arrivals != self._arrivals:
            return  # the rate was changed
        if self._chance.happens(quick_activity(self.now)):
            self._arrive(self._chance.quick())
        self._after(self._until_quick(), self._quick, arrivals)

    def _arrive(self, request: Request) -> None:
        if request.pool not in self.pools:
            return
        pool = self.pools[request.pool]
        position = request.flavor
        if position is None:
            position = int(self._chance.between(0, len(pool.flavors)))
        job = self.create(
            pool=pool,
            flavor=pool.flavors[position],
            nodes=request.nodes,
            workspace=request.workspace,
            retries=request.retries,
            roles=request.roles,
            kind="hetero_job" if request.roles else "job",
        )
        self._plans[job.id] = self._chance.plan(request)
        low, high = (0.5, 3.0) if request.quick else (2.0, 20.0)
        if self._chance.happens(0.01):
            self._after(self._chance.between(low, high), self._not_created, job)
        else:
            self._after(self._chance.between(low, high), self._wait, job)

    def _not_created(self, job: Job) -> None:
        if self._is(job, "Creating"):
            self._end(job, "Abnormal", secondary="CreateFailed")

    # Queueing

    def _wait(self, job: Job) -> None:
        """Enter the queue; a job that ran before goes first."""
        if not self._is(job, "Creating", "Pending"):
            return
        queue = self._queues[job.pool.name]
        if job.runs:
            queue.insert(0, job)
        else:
            self.queue(job)
            queue.append(job)
            self._after(self._chance.exponential(3 * DAY), self._impatient, job)
        self._changed[job.pool.name] = None

    def _impatient(self, job: Job) -> None:
        if self._is(job, "Pending") and not job.runs:
            self._stopped(job)

    def _dispatch(self) -> None:
        """Start jobs that fit: the first in a queue, then others unless it waited too long."""
        while self._changed:
            pool = self.pools[self._changed.popitem()[0]]
            queue = self._queues[pool.name]
            free = pool.capacity - self._used[pool.name]
            free -= self._isolated[pool.name] * max(pool.node_cards, 1)
            position = 0
            while position < min(len(queue), _LOOK_AHEAD):
                job = queue[position]
                if not self._is(job, "Pending"):
                    del queue[position]
                elif job.units <= free:
                    del queue[position]
                    free -= job.units
                    self._run(job)
                elif position == 0 and self.now - job.created > _HEAD_IS_PATIENT_SECONDS:
                    break
                else:
                    position += 1

    # Running

    def _run(self, job: Job, *, restarted: bool = False) -> None:
        self.start(job, restarted=restarted)
        plan = self._plans.get(job.id)
        if plan is None:
            return  # created manually, and controlled manually
        fault = self._chance.until_fault(plan)
        if fault < plan.left:
            self._after(fault, self._breaks, job, len(job.runs), fault)
        else:
            self._after(plan.left, self._meets_fate, job, len(job.runs))

    def _in_run(self, job: Job, number: int) -> bool:
        """Whether the job is still in this run, which was not ended manually."""
        return self._is(job, "Running") and len(job.runs) == number and job.runs[-1].end is None

    def _meets_fate(self, job: Job, number: int) -> None:
        if not self._in_run(job, number):
            return
        fate = self._plans[job.id].fate
        if fate == "Terminating":
            self._stopped(job)
        elif fate == "Failed":
            self._end(job, fate, self._chance.exit_code(), task=self._chance.worker(job))
        elif fate == "Abnormal":
            self._end(job, fate, secondary="Lost")
        else:
            self._end(job, fate)

    def _breaks(self, job: Job, number: int, after: float) -> None:
        if not self._in_run(job, number):
            return
        plan = self._plans[job.id]
        plan.left -= after
        fault = self._chance.fault(job)
        if fault.policy is None:
            self._end(job, "Failed", fault.exit_code, task=fault.task)
            return
        self.interrupt(
            job,
            fault.policy,
            downgraded_from=fault.downgraded_from,
            reason=fault.reason,
            task=fault.task,
            scenario=fault.scenario,
        )
        slow = 1.0 if plan.quick else 10.0
        if fault.policy in IN_PLACE:
            self._after(self._chance.between(1.0, 5.0) * slow, self._again, job, True)
        elif fault.policy == "pod_reschedule":
            self._after(self._chance.between(5.0, 15.0) * slow, self._again, job, False)
        else:
            if fault.policy == "job_reschedule_with_taint":
                self._isolate(job.pool)
            self._after(self._chance.between(2.0, 6.0) * slow, self._wait, job)

    def _again(self, job: Job, restarted: bool) -> None:  # noqa: FBT001 - called by the heap
        if self._is(job, "Running") and job.runs[-1].end is not None:
            self._run(job, restarted=restarted)

    def _isolate(self, pool: Pool) -> None:
        """Take a node of a dedicated pool out of service until it is repaired."""
        if pool.id is not None and self._isolated[pool.name] < pool.nodes // 8:
            self._isolated[pool.name] += 1
            self._after(self._chance.exponential(4 * HOUR), self._repaired, pool)

    def _repaired(self, pool: Pool) -> None:
        self._isolated[pool.name] -= 1
        self._changed[pool.name] = None

    # Ends

    def _stopped(self, job: Job) -> None:
        self.stop(job)
        self._after(self._chance.between(2.0, 12.0), self._terminated, job)

    def _terminated(self, job: Job) -> None:
        if not self._is(job, "Terminating"):
            return
        if self._chance.happens(0.05):
            self.delete(job)
        elif self._chance.happens(0.03):
            self._end(job, "Abnormal", secondary="TerminatedFailed")
        else:
            self._end(job, "Terminated")

    def _end(self, job: Job, phase: str, exit_code: int | None = None, **details: Any) -> None:
        self.finish(job, phase, exit_code, **details)
        if self._chance.happens(0.08):
            quick = self._plans[job.id].quick
            self._after(self._chance.exponential(HOUR if quick else 3 * DAY), self._cleaned, job)
        del self._plans[job.id]

    def _cleaned(self, job: Job) -> None:
        if job.id in self and not job.active:
            self.delete(job)

    def _is(self, job: Job, *phases: str) -> bool:
        return job.phase in phases and job.id in self

    def _record(self, job: Job, at: float, kind: str, **details: Any) -> None:
        """Record a change, as every change does, and keep account of the cards."""
        super()._record(job, at, kind, **details)
        holds = job.units if kind != "deleted" and _holds_cards(job) else 0
        before = self._held.pop(job.id, 0)
        if holds:
            self._held[job.id] = holds
        if holds != before:
            self._used[job.pool.name] += holds - before
            self._changed[job.pool.name] = None


def _holds_cards(job: Job) -> bool:
    """Whether a job uses cards: from its start until it has ended or waits again."""
    return job.phase == "Running" or (job.phase == "Terminating" and job.nodes_up > 0)
