"""The world under manual control: jobs, their transitions, and the record of events.

`LivingFleet` adds a life of its own. Times are unix seconds with milliseconds. The default for the
``at`` of a transition is the world's own `Fleet.now`. Tests may give times out of order or in the
future: the service may do that, too.
"""

import math
import random
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from exporter.simulator.catalog import DEFAULT_WORKSPACE, POOLS, USERS, Flavor, Pool, Role, User
from exporter.simulator.edits import as_edits
from exporter.simulator.index import Index
from exporter.simulator.job import (
    FIRST,
    IN_PLACE,
    RESCHEDULING,
    RESTARTED,
    SECONDARY,
    Job,
    Run,
)
from exporter.simulator.recipes import RECIPES, REINFORCEMENT, Recipe
from exporter.simulator.truth import Event, facts, summary

_NOISE_MS = 1e-3
"""More than the rounding error of a current timestamp in ms."""
_REASONS = {"Completed": "job completed", "Terminated": "job terminated", "Abnormal": "job lost"}


class Fleet:
    """Jobs of one project.

    Args:
        seed: for ids and names; equal seeds and calls make equal worlds.
        start: unix seconds at which the world begins.
        pools: pools for jobs; the first is the default.

    Attributes:
        now: the world's clock, unix seconds; `advance` moves it.
        events: everything that happened, in order; append-only.
    """

    def __init__(
        self, seed: int = 0, start: float = 1_750_000_000.0, *, pools: Iterable[Pool] = POOLS
    ) -> None:
        self.now = start
        self.pools = {pool.name: pool for pool in pools}
        self.events: list[Event] = []
        self.index = Index()
        self._random = random.Random(seed)
        self._paused = False

    def __getitem__(self, job_id: str) -> Job:
        return self.index[job_id]

    def __contains__(self, job_id: str) -> bool:
        return job_id in self.index

    def __iter__(self) -> Iterator[Job]:
        return iter(self.index)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def paused(self) -> bool:
        """Whether the world's clock is stopped."""
        return self._paused

    def pause(self) -> None:
        """Stop the world's clock: `advance` does nothing; manual changes still work."""
        self._paused = True

    def resume(self) -> None:
        """Let the clock continue."""
        self._paused = False

    def advance(self, now: float) -> None:
        """Move the clock to ``now``, but never backward."""
        if not self._paused:
            self.now = max(self.now, now)

    def isolated_nodes(self, pool: Pool) -> int:  # noqa: ARG002 - without a life of its own, no node ever fails
        """Return the number of faulty nodes of a pool, which take no jobs."""
        return 0

    def summary(self) -> dict[str, Any]:
        """Return the current state; see `truth.summary`."""
        return {"now": self.now, "events": len(self.events)} | summary(self)

    def facts(self, job: Job | str) -> dict[str, Any]:
        """Return the facts of a job that a client should find out; see `truth.facts`."""
        return facts(self._job(job), self.now)

    def create(
        self,
        at: float | None = None,
        *,
        id: str | None = None,  # noqa: A002 - the name of the field
        name: str | None = None,
        user: User | str | None = None,
        workspace: str = DEFAULT_WORKSPACE,
        pool: Pool | str | None = None,
        flavor: Flavor | int = 0,
        nodes: int = 1,
        kind: str = "job",
        roles: tuple[Role, ...] = (),
        recipe: Recipe | None = None,
        retries: int | None = None,
        overrides: Mapping[Any, Any] | None = None,
    ) -> Job:
        """Create a job, in phase Creating.

        Args:
            at: create time.
            id: a UUID; None: a random one.
            name: None: a random one.
            user: a user, or the name of a new one; None: a random one.
            workspace: ``0`` or 32 hexadecimal digits.
            pool: a pool of the catalog, or its name.
            flavor: a flavor of the pool, or its position there.
            nodes: at least 1.
            kind: ``job`` …
            roles: tasks of a heterogeneous job.
            recipe: the program to run; None: a random one that fits the pool.
            retries: budget of automatic restarts; None: not given.
            overrides: edits of its document, see `override`.

        Raises:
            KeyError: no such pool.
            ValueError: the id is taken.
        """
        where = self._pool(pool)
        if recipe is None:
            recipe = REINFORCEMENT if roles else self._random.choice(RECIPES[where.flavor_type])
        number = self._random.getrandbits(128)
        job = Job(
            id=id or str(uuid.UUID(int=number, version=4)),
            name=name or f"{recipe.prefix}-{number % 1000:03d}",
            user=_user(user) or USERS[number % len(USERS)],
            workspace=workspace,
            kind=kind,
            pool=where,
            flavor=where.flavors[flavor] if isinstance(flavor, int) else flavor,
            nodes=nodes,
            roles=roles,
            recipe=recipe,
            retries=retries,
            created=self._when(at),
            overrides=as_edits(overrides) if overrides else None,
        )
        self.index.add(job)
        self._record(job, job.created, "created")
        return job

    def override(self, job: Job | str, overrides: Mapping[Any, Any]) -> None:
        """Edit the document that the service shows for a job; replaces earlier edits.

        Keys are paths (``status.start_time``, or tuples of parts), values any JSON or
        `edits.ABSENT`. The world and its truth do not change.
        """
        self._job(job).overrides = as_edits(overrides) or None

    def queue(self, job: Job | str, at: float | None = None) -> None:
        """Creating → Pending."""
        self.enter(job, "Pending", at, kind="queued")

    def enter(
        self,
        job: Job | str,
        phase: str,
        at: float | None = None,
        *,
        secondary: str | None = None,
        kind: str = "entered",
    ) -> None:
        """Enter any phase, documented or not, and change nothing else."""
        job = self._job(job)
        job.phase = phase
        job.secondary = secondary or SECONDARY.get(phase, phase)
        self.index.phase_changed(job)
        self._record(job, self._when(at), kind)

    def start(self, job: Job | str, at: float | None = None, *, restarted: bool = False) -> None:
        """Begin a run; the first one is the job's start.

        Args:
            job: the job or its id.
            at: time.
            restarted: in existing containers.
        """
        job, when = self._job(job), self._when(at)
        before = job.runs[-1].recovery or "unknown" if job.runs else ""
        start_type = RESTARTED if restarted else FIRST
        job.runs.append(Run(when, start_type))
        job.phase = job.secondary = "Running"
        job.nodes_up = job.nodes
        self.index.phase_changed(job)
        if job.started is None:
            job.started = when
            self._record(job, when, "started")
        if before:
            self._record(job, when, "restarted", start_type=start_type, recovery=before)

    def interrupt(
        self,
        job: Job | str,
        policy: str,
        at: float | None = None,
        *,
        downgraded_from: str = "",
        phase: str | None = None,
        reason: str = "exit with 1",
        task: str = "worker-0",
        scenario: str = "job_failed",
    ) -> None:
        """End the run and begin a recovery; `start` ends the recovery.

        Args:
            job: the job or its id.
            policy: ``end_recover``.
            at: time.
            downgraded_from: ``end_recover_before_downgrade``.
            phase: until the next run; None: Running, and Pending where all pods are rebuilt.
            reason: ``end_reason``.
            task: ``end_related_task``.
            scenario: ``fault_scenario`` of the newer record.
        """
        job, when = self._job(job), self._when(at)
        run = job.runs[-1]
        run.end, run.reason, run.task, run.scenario = when, reason, task, scenario
        run.recovery, run.recovery_before = policy, downgraded_from
        rebuilt = policy in RESCHEDULING[1:]
        if policy not in IN_PLACE:
            job.nodes_up = 0 if rebuilt else job.nodes - 1
        job.phase = phase or ("Pending" if rebuilt else "Running")
        job.secondary = SECONDARY.get(job.phase, job.phase)
        self._record(job, when, "interrupted", recovery=policy)
        if downgraded_from and downgraded_from != policy:
            self._record(job, when, "downgraded", from_recovery=downgraded_from, to_recovery=policy)

    def recover(
        self,
        job: Job | str,
        policy: str,
        at: float | None = None,
        *,
        gap: float = 0.0,
        downgraded_from: str = "",
        restarted: bool | None = None,
    ) -> None:
        """Call `interrupt`, and `start` after ``gap`` seconds.

        ``restarted`` None: depends on the policy, in place or rescheduled.
        """
        when = self._when(at)
        self.interrupt(job, policy, when, downgraded_from=downgraded_from)
        in_place = policy in IN_PLACE if restarted is None else restarted
        self.start(job, when + gap, restarted=in_place)

    def stop(self, job: Job | str, at: float | None = None) -> None:
        """Stop the job as a user: Terminating; `finish` with Terminated ends that."""
        self.enter(job, "Terminating", at, kind="stopping")

    def finish(
        self,
        job: Job | str,
        phase: str = "Completed",
        exit_code: int | None = None,
        at: float | None = None,
        *,
        secondary: str | None = None,
        task: str = "",
        message: str = "",
        reason: str | None = None,
    ) -> None:
        """End the job.

        Args:
            job: the job or its id.
            phase: one of `job.TERMINAL`.
            exit_code: of the failed task; None: 1 for Failed, else no task failed.
            at: time.
            secondary: None: the usual one, CreateFailed for Abnormal jobs that never ran.
            task: the failed task; default the first worker.
            message: of the failed task.
            reason: ``end_reason`` of the last run; default a usual one.
        """
        job, when = self._job(job), self._when(at)
        if exit_code is None and phase == "Failed":
            exit_code = 1
        job.phase, job.exit_code, job.ended, job.nodes_up = phase, exit_code, when, 0
        unstarted = "CreateFailed" if phase == "Abnormal" and job.started is None else phase
        job.secondary = secondary or SECONDARY.get(unstarted, unstarted)
        if exit_code:
            job.failed_task = task or job.workers()[0]
            job.message = message or f"exit with {exit_code}"
        if job.runs and job.runs[-1].end is None:
            run = job.runs[-1]
            usual = f"exit with {exit_code}" if exit_code else _REASONS.get(phase, "")
            run.end, run.task = when, job.failed_task
            run.reason = usual if reason is None else reason
        self.index.phase_changed(job)
        self._record(job, when, "finished", exit_code=exit_code)

    def reactivate(self, job: Job | str, at: float | None = None) -> None:
        """Run a finished job again, as after a hidden restart."""
        job, when = self._job(job), self._when(at)
        job.ended = job.exit_code = None
        job.failed_task = job.message = ""
        job.phase = "Running"
        self._record(job, when, "reactivated")
        self.start(job, when)

    def delete(self, job: Job | str, at: float | None = None) -> None:
        """Delete the job from the service, in any phase."""
        job = self._job(job)
        self.index.remove(job)
        self._record(job, self._when(at), "deleted")

    def _job(self, job: Job | str) -> Job:
        return self.index[job] if isinstance(job, str) else job

    def _pool(self, pool: Pool | str | None) -> Pool:
        if pool is None:
            return next(iter(self.pools.values()))
        return self.pools[pool] if isinstance(pool, str) else pool

    def _when(self, at: float | None) -> float:
        if at is not None:
            return round(at, 3)
        return math.floor(self.now * 1000 + _NOISE_MS) / 1000  # never in the future

    def _record(self, job: Job, at: float, kind: str, **details: Any) -> None:
        self.events.append(Event(at, kind, job, job.phase, **details))


def _user(user: User | str | None) -> User | None:
    return User(user, uuid.uuid5(uuid.NAMESPACE_DNS, user).hex) if isinstance(user, str) else user
