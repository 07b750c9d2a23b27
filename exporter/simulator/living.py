"""The world with a life of its own: discrete events on a heap, equal for equal seeds.

A job waits for cards in its pool's queue, and has at most one scheduled event of its own: the end
of what it is doing. Manual changes are possible: an event does nothing if its job is in another
state by then, and the cards in use depend on the state of jobs, not on how they got there.
"""

import heapq
import itertools
from bisect import insort
from collections.abc import Callable, Iterable
from typing import Any, Self

from exporter.simulator.catalog import POOLS, Pool
from exporter.simulator.chance import (
    DAY,
    HOUR,
    MEAN_ACTIVITY,
    MEAN_QUICK_ACTIVITY,
    Chance,
    Fault,
    Plan,
    Request,
    quick_activity,
    serious_per_day,
)
from exporter.simulator.fleet import Fleet
from exporter.simulator.job import IN_PLACE, Job
from exporter.simulator.nodes import Node
from exporter.simulator.recipes import FINETUNING

_QUICK_PER_SECOND = 1 / 3.0
_HISTORY_DAYS = ((1500, 14), (300, 7), (0, 3))
"""So many jobs at least, and the days in which they were."""
_OVERHEAD = 1.2
"""Simulate more history than requested; its oldest part is deleted again."""
_HEAD_IS_PATIENT_SECONDS = 2 * HOUR
_MOST_QUICK_PER_DAY = 15_000.0
_LEAST_EVENTS = 10_000
_BUSY_SECONDS = 600.0
_CROWD = 40
"""Users do not submit a job to a pool where so many wait for cards."""
_EVENTS_PER_JOB = 10
_TIDY_SECONDS = HOUR


class LivingFleet(Fleet):
    """A busy region.

    Args:
        seed: equal seeds and starts make equal worlds, however `advance` is called.
        start: unix seconds; nothing runs yet.
        pools: pools of the catalog, some or all.
        rate: arrival rate of short jobs: 1.0 is one every 3 seconds in the busiest hours.
        history: finished jobs to keep: the oldest are deleted every hour, and the oldest events
            are forgotten; None: all.
    """

    def __init__(
        self,
        seed: int = 0,
        start: float = 1_750_000_000.0,
        *,
        pools: Iterable[Pool] = POOLS,
        rate: float = 1.0,
        history: int | None = None,
    ) -> None:
        super().__init__(seed, start, pools=pools)
        self._chance = Chance(self._random, self.pools)
        self._serious_per_day = serious_per_day(self.pools.values())
        self._history = history
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._plans: dict[str, Plan] = {}
        self._queues: dict[str, list[Job]] = {name: [] for name in self.pools}
        self._changed: dict[str, None] = {}  # a dict for its order, which a set does not have
        self._resumed = False
        self._arrivals = 0
        self.set_rate(rate)
        if self._serious_per_day:
            self._after(0.0, self._serious)
        if history is not None:
            self._after(_TIDY_SECONDS, self._tidy)

    @classmethod
    def populated(
        cls,
        seed: int,
        now: float,
        *,
        jobs: int = 5000,
        rate: float = 1.0,
        pools: Iterable[Pool] = POOLS,
        history: int | None = None,
    ) -> Self:
        """Return a world after days or weeks, with ``jobs`` finished jobs in its lists.

        Whatever the time, some jobs run and some wait.
        """
        pools = tuple(pools)
        days = next(days for least, days in _HISTORY_DAYS if jobs >= least)
        quick_per_day = jobs * _OVERHEAD / days - serious_per_day(pools)
        span = days * DAY * max(1.0, quick_per_day / _MOST_QUICK_PER_DAY)
        per_second = min(max(quick_per_day, 10.0), _MOST_QUICK_PER_DAY) / DAY / MEAN_QUICK_ACTIVITY
        fleet = cls(seed, now - span, pools=pools, rate=per_second / _QUICK_PER_SECOND)
        fleet.advance(now - _BUSY_SECONDS)
        if not any(fleet._queues.values()):
            for request in fleet._chance.crowd():
                fleet._arrive(request)
        fleet.advance(now)
        fleet._delete_oldest(jobs)
        fleet.set_rate(rate)
        if history is not None:
            fleet._history = history
            fleet._after(_TIDY_SECONDS, fleet._tidy)
        return fleet

    def set_rate(self, rate: float) -> None:
        """Change the arrival rate of short jobs from now on."""
        self._rate = rate
        self._arrivals += 1
        if rate > 0 and self._chance.makes_quick_jobs:
            self._after(self._until_quick(), self._quick, self._arrivals)

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
        request = self._chance.serious(self.now)
        if request is not None:
            self._arrive(request)
        self._after(
            self._chance.exponential(DAY * MEAN_ACTIVITY / self._serious_per_day),
            self._serious,
        )

    def _until_quick(self) -> float:
        return self._chance.exponential(1 / (_QUICK_PER_SECOND * self._rate))

    def _quick(self, arrivals: int) -> None:
        if arrivals != self._arrivals:
            return  # the rate was changed
        if self._chance.happens(quick_activity(self.now)):
            self._arrive(self._chance.quick())
        self._after(self._until_quick(), self._quick, arrivals)

    def _arrive(self, request: Request) -> None:
        pool = request.pool
        if len(self._queues[pool.name]) >= _CROWD or len(self) >= self.job_quota:
            return
        job = self.create(
            pool=pool,
            flavor=request.flavor,
            nodes=request.nodes,
            workspace=request.workspace,
            retries=request.retries,
            policy=request.policy,
            priority=request.priority,
            runtime=request.runtime,
            fine_tuning=request.fine_tuning,
            roles=request.roles,
            recipe=FINETUNING if request.fine_tuning and pool.flavor_type == "Ascend" else None,
            kind=request.kind,
        )
        self._plans[job.id] = self._chance.plan(request)
        low, high = (1.0, 8.0) if request.quick else (2.0, 20.0)
        if self._chance.happens(0.01):
            self._after(self._chance.between(low, high), self._not_created, job)
        else:
            self._after(self._chance.between(low, high), self._wait, job)

    def _not_created(self, job: Job) -> None:
        if self._is(job, "Creating"):
            self._end(job, "Abnormal", secondary="CreateFailed")

    # Queueing

    def _wait(self, job: Job) -> None:
        """Enter the queue: jobs that ran before are first, then those of the highest priority."""
        if not self._is(job, "Creating", "Pending"):
            return
        if not job.runs:
            self.queue(job)
            patience = HOUR if self._is_quick(job) else DAY
            self._after(self._chance.exponential(patience), self._impatient, job)
        queue = self._queues[job.pool.name]
        insort(queue, job, key=lambda job: (not job.runs, -(job.priority or 0)))
        self._has_room(job.pool)

    def _impatient(self, job: Job) -> None:
        if self._is(job, "Pending") and not job.runs:
            self._stopped(job)

    def _dispatch(self) -> None:
        """Start jobs that fit, in order; if the first has waited too long, only short ones."""
        while self._changed:
            pool = self.pools[self._changed.popitem()[0]]
            nodes, waiting = self.nodes(pool), self._queues[pool.name]
            left: list[Job] = []
            in_vain: set[Any] = set()
            patient = True
            for job in waiting:
                if not self._is(job, "Pending"):
                    continue
                quick = self._is_quick(job)
                need = quick, job.flavor, job.nodes
                place = None
                if need not in in_vain and (quick or patient):
                    place = nodes.find(job, trial=quick)
                if place is not None:
                    nodes.hold(job, place)
                    self._run(job)
                    continue
                left.append(job)
                in_vain.add(need)
                if not quick and self.now - job.created > _HEAD_IS_PATIENT_SECONDS:
                    patient = False
            waiting[:] = left

    def _has_room(self, pool: Pool) -> None:
        if pool.name in self._queues:
            self._changed[pool.name] = None

    def _is_quick(self, job: Job) -> bool:
        return job.id not in self._plans or self._plans[job.id].quick

    # Running

    def _run(self, job: Job, *, restarted: bool = False) -> None:
        self.start(job, restarted=restarted, startup=None)
        plan = self._plans.get(job.id)
        if plan is None:
            return  # created manually, and controlled manually
        number = len(job.runs)
        if job.cards and not plan.no_image:
            self._after(self._chance.startup(plan, job.nodes), self._computes, job, number)
        fault = self._chance.until_fault(plan)
        if fault < plan.left and not plan.no_image:
            self._after(fault, self._breaks, job, number, fault)
        else:
            self._after(plan.left, self._meets_fate, job, number)

    def _computes(self, job: Job, number: int) -> None:
        if self._in_run(job, number):
            self.compute(job)

    def _in_run(self, job: Job, number: int) -> bool:
        """Whether the job is still in this run, which was not ended manually."""
        return self._is(job, "Running") and len(job.runs) == number and job.runs[-1].end is None

    def _meets_fate(self, job: Job, number: int) -> None:
        if not self._in_run(job, number):
            return
        plan = self._plans[job.id]
        if plan.fate == "Terminating":
            self._stopped(job)
        elif plan.no_image:
            self._end(job, plan.fate, coded=False, task=self._chance.worker(job))
        elif plan.fate == "Failed":
            self._end(job, plan.fate, self._chance.exit_code(), task=self._chance.worker(job))
        elif plan.fate == "Abnormal":
            self._end(job, plan.fate, secondary="Lost")
        else:
            self._end(job, plan.fate)

    def _breaks(self, job: Job, number: int, after: float) -> None:
        if not self._in_run(job, number):
            return
        plan = self._plans[job.id]
        plan.left -= after
        fault = self._chance.fault(job)
        if fault.refused:
            self._end(
                job,
                "Failed",
                fault.exit_code,
                task=fault.task,
                refused=fault.policy,
                scenario=fault.scenario,
            )
            return
        nodes = self.nodes(job.pool).nodes_of(job)
        self.interrupt(
            job,
            fault.policy,
            downgraded_from=fault.downgraded_from,
            reason=fault.reason,
            task=fault.task,
            scenario=fault.scenario,
        )
        if fault.policy == "job_reschedule_with_taint":
            self._isolate(job.pool, self._chance.one_of(nodes))
        slow = 1.0 if plan.quick else 10.0
        if self._chance.loses_recovery():
            self._after(self._chance.between(2.0, 10.0) * slow, self._lost, job, number, fault)
        elif fault.policy in IN_PLACE:
            self._after(self._chance.between(1.0, 5.0) * slow, self._again, job, True)
        elif fault.policy == "pod_reschedule":
            self._after(self._chance.between(5.0, 15.0) * slow, self._again, job, False)
        else:
            self._after(self._chance.between(2.0, 6.0) * slow, self._wait, job)

    def _lost(self, job: Job, number: int, fault: Fault) -> None:
        """The recovery does not succeed, or the user does not wait for it."""
        if not self._is(job, "Running", "Pending") or len(job.runs) != number:
            return
        if self._chance.happens(0.5) or self._is(job, "Pending"):
            self._stopped(job)
        else:
            self._end(job, "Failed", fault.exit_code, task=fault.task)

    def _again(self, job: Job, restarted: bool) -> None:  # noqa: FBT001 - called by the heap
        if self._is(job, "Running") and job.runs[-1].end is not None:
            self._run(job, restarted=restarted)

    def _isolate(self, pool: Pool, node: Node) -> None:
        """Take a node of a dedicated pool out of service until it is replaced."""
        if pool.id is not None and self.isolated_nodes(pool) < pool.nodes // 8:
            node.state = "abnormal"
            self._after(self._chance.exponential(4 * HOUR), self._replaced, pool, node)

    def _replaced(self, pool: Pool, node: Node) -> None:
        node.state = "creating"
        self._after(self._chance.between(300.0, 900.0), self._repaired, pool, node)

    def _repaired(self, pool: Pool, node: Node) -> None:
        node.state = "available"
        self._has_room(pool)

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
        quick = self._is_quick(job)
        self.finish(job, phase, exit_code, **details)
        if self._chance.happens(0.08):
            self._after(self._chance.exponential(HOUR if quick else 3 * DAY), self._cleaned, job)

    def _cleaned(self, job: Job) -> None:
        if job.id in self and not job.active:
            self.delete(job)

    def _tidy(self) -> None:
        """Forget the past, as a project does where old records are deleted."""
        self._after(_TIDY_SECONDS, self._tidy)
        history = self._history or 0
        self._delete_oldest(history)
        self.events.forget(max(history * _EVENTS_PER_JOB, _LEAST_EVENTS))

    def _delete_oldest(self, keep: int) -> None:
        finished = sorted((job for job in self if not job.active), key=lambda job: job.created)
        for job in finished[: max(len(finished) - keep, 0)]:
            self.delete(job)

    def _is(self, job: Job, *phases: str) -> bool:
        return job.phase in phases and job.id in self

    def _record(self, job: Job, at: float, kind: str, **details: Any) -> None:
        super()._record(job, at, kind, **details)
        if kind in ("finished", "deleted"):
            self._plans.pop(job.id, None)
