"""The jobs of a world, their nodes, and the record of events.

`fleet.Fleet` adds the transitions of jobs, `living.LivingFleet` a life of its own. Times are unix
seconds with milliseconds.
"""

import math
import random
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from exporter.simulator.catalog import DEFAULT_WORKSPACE, POOLS, USERS, Flavor, Pool, Role, User
from exporter.simulator.edits import as_edits
from exporter.simulator.index import Index
from exporter.simulator.job import Job
from exporter.simulator.nodes import Nodes
from exporter.simulator.recipes import RECIPES, REINFORCEMENT, Recipe
from exporter.simulator.truth import Event, Events, Totals, facts, summary

_NOISE_MS = 1e-3
"""More than the rounding error of a current timestamp in ms."""


class World:
    """Jobs of one project.

    Args:
        seed: for ids and names; equal seeds and calls make equal worlds.
        start: unix seconds at which the world begins.
        pools: pools for jobs; the first is the default.

    Attributes:
        now: the world's clock, unix seconds; `advance` moves it.
        events: everything that happened, in order.
        job_quota: job records that the project may have; when they are used up, users submit no
            more jobs.
    """

    def __init__(
        self, seed: int = 0, start: float = 1_750_000_000.0, *, pools: Iterable[Pool] = POOLS
    ) -> None:
        self.now = start
        self.pools = {pool.name: pool for pool in pools}
        self.events = Events()
        self.job_quota = 100_000
        self.index = Index()
        self._totals = Totals()
        self._nodes: dict[str, Nodes] = {}
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

    def nodes(self, pool: Pool) -> Nodes:
        """Return the nodes of a pool."""
        if pool.name not in self._nodes:
            self._nodes[pool.name] = Nodes(pool)
        return self._nodes[pool.name]

    def used(self, pool: Pool) -> int:
        """Return the cards (nodes in CPU pools) in use."""
        return self.nodes(pool).used

    def isolated_nodes(self, pool: Pool) -> int:
        """Return the number of nodes that take no jobs."""
        return pool.nodes - self.nodes(pool).count()["available"]

    def summary(self, *, unified: bool = True) -> dict[str, Any]:
        """Return the current state: see `truth.summary`, `truth.Totals` and `Nodes.summary`.

        ``unified``: with fine-tuning jobs.
        """
        jobs = [job for job in self if unified or not job.fine_tuning]
        pools = [
            {"pool": pool.label, "name": pool.name, **self.nodes(pool).summary()}
            for pool in self.pools.values()
        ]
        times = {"now": self.now, "events": len(self.events)}
        return times | summary(jobs) | self._totals.rows() | {"pools": pools}

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
        policy: str = "regular",
        runtime: str = "production",
        priority: int | None = None,
        fine_tuning: bool = False,
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
            nodes: at least 1; those of the roles, if there are any.
            kind: ``job`` …
            roles: tasks of a heterogeneous job.
            recipe: the program to run; None: a random one that fits the pool.
            retries: budget of automatic restarts; None: not given.
            policy: of its resources.
            runtime: ``debug`` or ``production``.
            priority: 0 to 3; None: not given.
            fine_tuning: listed only by searches with ``unified_jobs``.
            overrides: edits of its document, see `override`.

        Raises:
            KeyError: no such pool.
            ValueError: the id is taken.
        """
        where = self._pool(pool)
        if recipe is None:
            recipe = (
                REINFORCEMENT
                if roles
                else self._random.choice(RECIPES[where.programs or where.flavor_type])
            )
        number = self._random.getrandbits(128)
        job = Job(
            id=id or str(uuid.UUID(int=number, version=4)),
            name=name or f"{recipe.prefix}-{number % 1000:03d}",
            user=_user(user) or USERS[number % len(USERS)],
            workspace=workspace,
            kind=kind,
            pool=where,
            flavor=where.flavors[flavor] if isinstance(flavor, int) else flavor,
            nodes=sum(role.nodes for role in roles) or nodes,
            roles=roles,
            recipe=recipe,
            retries=retries,
            policy=policy,
            runtime=runtime,
            priority=priority,
            fine_tuning=fine_tuning,
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
        """Record a change, as every change does, and keep account of the nodes."""
        event = Event(at, kind, job, job.phase, **details)
        self.events.append(event)
        self._totals.add(event)
        if kind != "deleted" and job.holds_cards:
            self.nodes(job.pool).hold(job)
        elif self.nodes(job.pool).release(job):
            self._has_room(job.pool)

    def _has_room(self, pool: Pool) -> None:
        """Do something when there may be room for other jobs."""


def _user(user: User | str | None) -> User | None:
    return User(user, uuid.uuid5(uuid.NAMESPACE_DNS, user).hex) if isinstance(user, str) else user
