"""The resource pools of a target: useful, but never worth a failed poll.

The service lists the pools of one workspace at a time, and what is used of all pools in one
response. Names and flavor types stay as they were last read; how full pools are is shown for a
limited time only.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from exporter.clock import Clocks
from exporter.errors import TimedOutError
from exporter.jobs.pool import NodeCards, Pool, PoolSnapshot, PoolUsage, Quota
from exporter.modelarts.client import GET_POOL, GET_QUOTAS, LIST_POOLS, Client
from exporter.modelarts.decode.capacity import (
    FlavorPage,
    decode_flavors,
    decode_queue,
    decode_quotas,
    decode_usage,
)
from exporter.modelarts.decode.pools import MAX_POOLS, PoolList, decode_pools
from exporter.modelarts.optional import FailureLog, OptionalAnswer

T = TypeVar("T")

TIMEOUT_SECONDS = 5.0
"""Limit for each response; a poll waits no longer than this for the pools of a workspace."""

_MAX_FLAVOR_PAGES = 4
_KEPT_INTERVALS = 2.5
"""What is older was missed for the third time: readings are an interval apart."""
_MAX_QUEUES = 100
"""Pools whose queues are read at a time."""

_LISTS = "the list of pools; names already known are kept, other pools show their IDs"


class PoolReader:
    """Reads the pools of one target; `connect` comes first.

    Args:
        target: its name, for log lines.
        clocks: of the machine.

    Attributes:
        timeout: seconds from asking to the response, at most, for each workspace.
        requests: number of requests of the last call of `list_pools`.
    """

    def __init__(self, target: str, clocks: Clocks) -> None:
        self.timeout = TIMEOUT_SECONDS
        self.requests = 0
        self._keep = 0.0
        self._failures = FailureLog(target)
        self._clocks = clocks
        self._client: Client | None = None
        self._workspaces: dict[str, OptionalAnswer[PoolList]] = {}
        self._usage: OptionalAnswer[dict[str, PoolUsage]] = self._answer(
            "how full pools are", LIST_POOLS
        )
        self._flavors: OptionalAnswer[dict[str, NodeCards]] = self._answer(
            "the cards of nodes", LIST_POOLS
        )
        self._quotas: OptionalAnswer[dict[str, Quota]] = self._answer("quotas", GET_QUOTAS)
        self._queues: dict[str, OptionalAnswer[dict[str, int]]] = {}
        self._looked_up: frozenset[str] = frozenset()
        self._listed_at: float | None = None
        self._listing = asyncio.Lock()

    def connect(
        self,
        client: Client,
        workspaces: Sequence[str],
        *,
        target: str,
        max_wait: float,
        interval: float,
    ) -> None:
        """Begin, or continue under a new poller of the same target.

        Args:
            client: the API of the target.
            workspaces: workspace IDs.
            target: its name, for log lines.
            max_wait: seconds; the longest wait for the rate limiter if nothing else is sent.
            interval: seconds between two calls of `read`; 0 = there are none.
        """
        self._keep = _KEPT_INTERVALS * interval
        self.timeout = TIMEOUT_SECONDS + max_wait
        self._client = client
        self._failures.target = target
        self._workspaces = {
            workspace: self._workspaces.get(workspace) or self._answer(_LISTS, LIST_POOLS)
            for workspace in workspaces
        }
        self._listed_at = None

    # --- What is known --------------------------------------------------------------------------

    @property
    def error(self) -> str:
        """Why the last attempt to list pools failed; "" if it succeeded for all workspaces."""
        return next((each.error for each in self._workspaces.values() if each.error), "")

    @property
    def cost(self) -> int:
        """Number of requests of a reading once the cards of all nodes are known."""
        if not self._usage.attempted:
            return 0
        return len(self._workspaces) + len((self._usage, self._quotas)) + len(self._queues)

    @property
    def permissions(self) -> dict[str, bool]:
        """IAM actions that requests have needed so far, and whether they are granted."""
        granted: dict[str, bool] = {}
        for answer in self._answers():
            if answer.attempted and (answer.forbidden or answer.failure is None):
                known = granted.get(answer.permission, True)
                granted[answer.permission] = known and not answer.forbidden
        return granted

    @property
    def snapshot(self) -> PoolSnapshot:
        """What is known; how full pools are only until `read` has failed three times in a row."""
        keep = self._keep
        pools: dict[str, Pool] = {}
        for answer in self._workspaces.values():
            is_fresh = answer.value(keep) is not None
            for pool_id, pool in answer.latest.pools.items() if answer.latest else ():
                if pool_id in pools or len(pools) < MAX_POOLS:
                    pools[pool_id] = pool if is_fresh else Pool(pool.info, pool.flavor_type)
        usage = self._usage.value(keep) or {}
        positions: dict[str, int] = {}
        for queue in self._queues.values():
            positions |= queue.value(keep) or {}
        return PoolSnapshot(
            pools=pools,
            usage={pool_id: usage[pool_id] for pool_id in pools if pool_id in usage},
            flavors=self._flavors.latest or {},
            quotas=self._quotas.value(keep) or {},
            positions=positions,
        )

    # --- Reading ----------------------------------------------------------------------------------

    async def list_pools(
        self, *, max_age: float = 0.0, deadline: float | None = None
    ) -> PoolList | None:
        """Return the pools, with one request for each workspace; None if none succeeds.

        After a timeout the remaining workspaces are not tried.

        Args:
            max_age: seconds; the lists are not requested if they were within this time.
            deadline: monotonic seconds; in the background until then. None: not in the background.
        """
        self.requests = 0
        if not self._were_listed_within(max_age):  # otherwise do not wait for another reading
            async with self._listing:
                if not self._were_listed_within(max_age):
                    await self._list_workspaces(deadline)
        answers = self._workspaces.values()
        if not any(answer.latest and answer.failure is None for answer in answers):
            return None
        return PoolList(dict(self.snapshot.pools))

    async def read(self, queues: Collection[str], *, max_age: float, seconds: float) -> bool:
        """Read how full the pools are, in the background; return whether that succeeded.

        Quotas and queues may fail: they need other permissions.

        Args:
            queues: IDs of pools with waiting jobs.
            max_age: as `list_pools`.
            seconds: limit for all requests together.
        """
        deadline = self._clocks.monotonic() + seconds
        client = self._connected()
        await self.list_pools(max_age=max_age, deadline=deadline)
        await self._attempt(self._usage, deadline, partial(client.pool_usage, decode_usage))
        if (unknown := self._unknown_flavors()) - self._looked_up:
            read_flavors = partial(self._read_flavors, client)
            if await self._attempt(self._flavors, deadline, read_flavors):
                self._looked_up = unknown
        await self._attempt(self._quotas, deadline, partial(client.quotas, decode_quotas))
        known = self.snapshot.pools
        wanted = sorted(queue for queue in queues if not known or queue in known)[:_MAX_QUEUES]
        self._queues = {
            pool: self._queues.get(pool) or self._answer("the queues of pools", GET_POOL)
            for pool in wanted
        }
        for pool, answer in self._queues.items():
            read_queue = partial(client.pool_queue, pool, decode_queue)
            await self._attempt(answer, deadline, read_queue)
        return self._usage.failure is None and not self.error

    async def _list_workspaces(self, deadline: float | None) -> None:
        client = self._connected()
        self._listed_at = self._clocks.monotonic()
        for workspace, answer in self._workspaces.items():
            self.requests += 1
            limit = self.timeout if deadline is None else self._seconds_until(deadline)
            request = partial(
                client.pools,
                workspace,
                decode_pools,
                deadline=self._clocks.monotonic() + limit,
                background=deadline is not None,
            )
            await answer.attempt(request, limit)
            if isinstance(answer.failure, TimedOutError):
                break

    async def _attempt(
        self, answer: OptionalAnswer[T], deadline: float, request: Callable[..., Awaitable[T]]
    ) -> bool:
        limit = self._seconds_until(deadline)
        return await answer.attempt(partial(request, deadline=deadline), limit)

    async def _read_flavors(self, client: Client, *, deadline: float) -> dict[str, NodeCards]:
        flavors: dict[str, NodeCards] = {}
        page = FlavorPage({}, "")
        for _ in range(_MAX_FLAVOR_PAGES):
            page = await client.flavors(page.following, decode_flavors, deadline=deadline)
            flavors |= page.flavors
            if not page.following:
                break
        return flavors

    def _unknown_flavors(self) -> frozenset[str]:
        known = self._flavors.latest or {}
        used = {
            flavor
            for answer in self._workspaces.values()
            if answer.latest
            for pool in answer.latest.pools.values()
            for flavor, _ in pool.nodes
        }
        return frozenset(used - known.keys())

    def _were_listed_within(self, max_age: float) -> bool:
        now = self._clocks.monotonic()
        return self._listed_at is not None and now - self._listed_at < max_age

    def _seconds_until(self, deadline: float) -> float:
        return deadline - self._clocks.monotonic()

    def _connected(self) -> Client:
        if self._client is None:
            raise RuntimeError("not connected")
        return self._client

    def _answer(self, what: str, permission: str) -> OptionalAnswer[Any]:
        return OptionalAnswer(what, permission, self._failures, self._clocks)

    def _answers(self) -> Iterator[OptionalAnswer[Any]]:
        yield from self._workspaces.values()
        yield from (self._usage, self._flavors, self._quotas)
        yield from self._queues.values()
