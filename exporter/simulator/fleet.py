"""The world by hand: jobs, what may happen to them, and the record of what did.

`LivingFleet` adds a life of its own. Times are unix seconds, kept to the millisecond; where a
transition takes ``at``, the default is the world's own `Fleet.now`. Nothing stops a test from
giving times out of order or from the future: the service is not above that.
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
"""More than a float of today's milliseconds is off."""
_REASONS = {"Completed": "job completed", "Terminated": "job terminated", "Abnormal": "job lost"}


class Fleet:
    """Jobs of one project.

    Args:
        seed: makes ids and names; equal seeds and calls give equal worlds.
        start: unix seconds at which the world begins.
        pools: what jobs can run on; the first is the default.

    Attributes:
        now: the world's clock, unix seconds; `advance` moves it.
        events: everything that happened, in order; only ever appended to.
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
        """Whether the world's clock stands still."""
        return self._paused

    def pause(self) -> None:
        """Stop the world's clock: `advance` does nothing; changes by hand still work."""
        self._paused = True

    def resume(self) -> None:
        """Let the clock go on."""
        self._paused = False

    def advance(self, now: float) -> None:
        """Move the clock to ``now``; a clock never goes back."""
        if not self._paused:
            self.now = max(self.now, now)

    def isolated_nodes(self, pool: Pool) -> int:  # noqa: ARG002 - by hand, no node ever fails
        """Nodes of a pool that take no jobs because they are faulty."""
        return 0

    def summary(self) -> dict[str, Any]:
        """What is now; see `truth.summary`."""
        return {"now": self.now, "events": len(self.events)} | summary(self)

    def facts(self, job: Job | str) -> dict[str, Any]:
        """What a client should find out about a job; see `truth.facts`."""
        return facts(self._job(job), self.now)

    def create(
        self,
        at: float | None = None,
        *,
        id: str | None = None,  # noqa: A002 - the document's word
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
        """A new job, Creating.

        Args:
            at: create time.
            id: a UUID; None makes one.
            name: None makes one.
            user: a user, or the name of a new one; None takes one.
            workspace: ``0`` or 32 hexadecimal digits.
            pool: one of the catalog's or its name.
            flavor: one of the pool's, or its position there.
            nodes: at least 1.
            kind: ``job`` …
            roles: tasks of a heterogeneous job.
            recipe: what it runs; None takes one that fits the pool.
            retries: budget of automatic restarts; None does not say.
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
        """Edit the document that the service shows of a job; replaces earlier edits.

        Keys are paths (``status.start_time``, or tuples of parts), values anything that JSON
        can say, or `edits.ABSENT`. The world and its truth stay as they are.
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
        """Any phase, known or not, with nothing else changed."""
        job = self._job(job)
        job.phase = phase
        job.secondary = secondary or SECONDARY.get(phase, phase)
        self.index.phase_changed(job)
        self._record(job, self._when(at), kind)

    def start(self, job: Job | str, at: float | None = None, *, restarted: bool = False) -> None:
        """A run begins; the first one is the job's start.

        Args:
            job: the job or its id.
            at: when.
            restarted: in containers that are there already.
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
        """The run ends and is answered with a recovery; `start` ends that.

        Args:
            job: the job or its id.
            policy: ``end_recover``.
            at: when.
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
        """`interrupt`, and `start` after ``gap`` seconds.

        ``restarted`` None: as the policy says, in place or scheduled again.
        """
        when = self._when(at)
        self.interrupt(job, policy, when, downgraded_from=downgraded_from)
        in_place = policy in IN_PLACE if restarted is None else restarted
        self.start(job, when + gap, restarted=in_place)

    def stop(self, job: Job | str, at: float | None = None) -> None:
        """A user stops it: Terminating; `finish` with Terminated ends that."""
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
        """The job ends.

        Args:
            job: the job or its id.
            phase: one of `job.TERMINAL`.
            exit_code: of the task that failed; None: 1 for Failed, else none failed.
            at: when.
            secondary: None: the usual one, CreateFailed for Abnormal jobs that never ran.
            task: which failed; default the first worker.
            message: what it said.
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
        """An ended job runs again, as a hidden restart would have it."""
        job, when = self._job(job), self._when(at)
        job.ended = job.exit_code = None
        job.failed_task = job.message = ""
        job.phase = "Running"
        self._record(job, when, "reactivated")
        self.start(job, when)

    def delete(self, job: Job | str, at: float | None = None) -> None:
        """It is gone from the service, whatever its phase was."""
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
