"""Resource pools: what they are, how full they are, and who waits for them. Pure."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

UNKNOWN = "unknown"
NODE_STATES = ("available", "abnormal", "creating", "deleting")
"""States of nodes; ``available`` are healthy ones, whether jobs use them or not."""
CARD_STATES = ("capacity", "allocated", "available")
WORKLOAD_STATES = ("allocated", "queue")


class PoolInfo(NamedTuple):
    """The labels of a pool, for joins.

    Attributes:
        name: given by its owner; "" = none.
        type: ``Dedicate``, ``Logical`` or ``unknown``.
        workspace: its ID, or ``unknown``.
    """

    name: str
    type: str = UNKNOWN
    workspace: str = UNKNOWN


class Pool(NamedTuple):
    """A pool as the service lists it.

    Attributes:
        info: its labels.
        flavor_type: of its nodes, if their flavors imply one, the same for all; else "".
        status: ``Running``, ``Abnormal`` …; "" = unknown.
        nodes: number of nodes by flavor and state, as far as it is known.
    """

    info: PoolInfo
    flavor_type: str = ""
    status: str = ""
    nodes: Mapping[tuple[str, str], int] = {}


class PoolUsage(NamedTuple):
    """What is used of a pool.

    Attributes:
        cards: by resource, such as ``nvidia.com/gpu``, and state; empty if it has no cards.
        workloads: number of workloads by type, such as ``train``, and state.
    """

    cards: Mapping[tuple[str, str], float] = {}
    workloads: Mapping[tuple[str, str], float] = {}


class NodeCards(NamedTuple):
    """The cards of one node of a flavor: their product, "" if it is unknown, and their number."""

    accelerator: str
    number: int


class Quota(NamedTuple):
    """How much of something a project may have, and has; None = unknown or unlimited."""

    limit: float | None
    used: float | None


class Fullness(NamedTuple):
    """A pool in three numbers; None = unknown."""

    free_cards: float | None
    cards: float | None
    abnormal_nodes: int | None


class PoolSnapshot(NamedTuple):
    """What is known about the pools of a target.

    Attributes:
        pools: by pool ID. Old ones keep their info and lose the rest.
        usage: by pool ID, for some of ``pools``.
        flavors: cards of a node by flavor.
        quotas: by resource.
        positions: places in the queues of pools by job ID, as the service counts them.
    """

    pools: Mapping[str, Pool] = {}
    usage: Mapping[str, PoolUsage] = {}
    flavors: Mapping[str, NodeCards] = {}
    quotas: Mapping[str, Quota] = {}
    positions: Mapping[str, int] = {}

    def infos(self, names: Mapping[str, str]) -> dict[str, PoolInfo]:
        """Return the labels of the pools that have a name.

        Args:
            names: to show, by pool ID.
        """
        no_pool = Pool(PoolInfo(""))
        return {
            pool_id: self.pools.get(pool_id, no_pool).info._replace(name=name)
            for pool_id, name in names.items()
        }

    def cards(self, pool_id: str) -> dict[tuple[str, str], float]:
        """Return the cards of a pool by accelerator and state.

        The accelerator is the product if the flavors of the nodes tell it, so that it equals that
        of the pool's jobs, else the resource. Without the usage, the nodes tell the capacity.
        """
        pool, usage = self.pools.get(pool_id), self.usage.get(pool_id)
        nodes = pool.nodes if pool else {}
        known = {flavor: self.flavors[flavor] for flavor, _ in nodes if flavor in self.flavors}
        products = {cards.accelerator for cards in known.values() if cards.number}
        if usage and usage.cards:
            one_kind = len({resource for resource, _ in usage.cards}) == len(products) == 1
            product = products.pop() if one_kind else ""
            return {
                (product or resource, state): number
                for (resource, state), number in usage.cards.items()
            }
        capacity: Counter[tuple[str, str]] = Counter()
        for (flavor, _), count in nodes.items():
            if flavor not in known:
                return {}
            if known[flavor].number:
                product = known[flavor].accelerator or UNKNOWN
                capacity[product, "capacity"] += count * known[flavor].number
        return dict(capacity)

    def fullness(self, pool_id: str) -> Fullness:
        """Return how full a pool is."""
        states: dict[str, float] = {}
        for (_, state), number in self.cards(pool_id).items():
            states[state] = states.get(state, 0) + number
        cards, free = states.get("capacity"), states.get("available")
        if free is None and cards is not None and "allocated" in states:
            free = max(0.0, cards - states["allocated"])
        pool = self.pools.get(pool_id)
        abnormal = [
            count
            for (_, state), count in (pool.nodes if pool else {}).items()
            if state == "abnormal"
        ]
        return Fullness(free, cards, sum(abnormal) if abnormal else None)
