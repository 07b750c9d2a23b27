"""The nodes of a pool, and the jobs on them.

A job takes cards on the nodes of its pool, or CPU cores where these have no cards. The tasks of a
heterogeneous job that run on CPUs beside cards take nothing. Several small jobs share a node.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from exporter.simulator.catalog import Pool
from exporter.simulator.job import Job

NodeState = Literal["available", "abnormal", "creating", "deleting"]
STATES: tuple[NodeState, ...] = ("available", "abnormal", "creating", "deleting")


@dataclass(slots=True, eq=False)
class Node:
    """A node; only an available one takes jobs.

    ``free`` are cards (CPU cores); negative if jobs were started manually in a full pool.
    ``for_trials``: long jobs of the living world leave it to short ones.
    """

    name: str
    free: int
    for_trials: bool
    state: NodeState = "available"


Placement = list[tuple[Node, int]]
"""Nodes, and the cards (CPU cores) that a job takes there."""


class Nodes:
    """All nodes of one pool.

    Attributes:
        used: cards (nodes, in CPU pools) of the jobs that hold some.
    """

    def __init__(self, pool: Pool) -> None:
        self.used = 0
        self._pool = pool
        self._size = pool.node_cards or pool.node_cpu_cores
        self._nodes = [
            Node(f"{pool.label}-{number:02d}", self._size, number < pool.trial_nodes)
            for number in range(pool.nodes)
        ]
        self._placements: dict[str, Placement] = {}

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes)

    def count(self) -> dict[NodeState, int]:
        """Return the number of nodes in every state."""
        counted = Counter(node.state for node in self._nodes)
        return {state: counted[state] for state in STATES}

    def summary(self) -> dict[str, Any]:
        """Return nodes by state, and cards (0 in CPU pools): all, healthy, in use and free.

        Free are cards on healthy nodes that no job uses.
        """
        states = self.count()
        cards = self._pool.node_cards
        free = sum(max(node.free, 0) for node in self._nodes if node.state == "available")
        return {
            "nodes": states,
            "capacity_cards": len(self._nodes) * cards,
            "available_cards": states["available"] * cards,
            "allocated_cards": self.used if cards else 0,
            "free_cards": free if cards else 0,
        }

    def find(self, job: Job, *, trial: bool = True) -> Placement | None:
        """Return a place for a job, or None; ``trial``: on nodes for short jobs, too.

        The fullest nodes come first, so that others stay free for large jobs.
        """
        able = [node for node in self._nodes if node.state == "available" and node.free > 0]
        if not trial:
            able = [node for node in able if not node.for_trials]
        sizes = self._sizes(job)
        if sum(sizes) > sum(node.free for node in able):
            return None
        able.sort(key=lambda node: (not node.for_trials, node.free))
        taken: Counter[int] = Counter()
        placement = []
        for size in sizes:
            for number, node in enumerate(able):
                if node.free - taken[number] >= size:
                    taken[number] += size
                    placement.append((node, size))
                    break
            else:
                return None
        return placement

    def hold(self, job: Job, placement: Placement | None = None) -> None:
        """Give a job its place; None: where there is one, or beyond the capacity."""
        if job.id in self._placements:
            return
        if placement is None:
            placement = self.find(job)
        if placement is None:
            emptiest = max(self._nodes, key=lambda node: node.free)
            placement = [(emptiest, size) for size in self._sizes(job)]
        for node, size in placement:
            node.free -= size
        self._placements[job.id] = placement
        self.used += job.units

    def release(self, job: Job) -> bool:
        """Take a job's place from it; return whether it had one."""
        placement = self._placements.pop(job.id, None)
        if placement is None:
            return False
        for node, size in placement:
            node.free += size
        self.used -= job.units
        return True

    def nodes_of(self, job: Job) -> list[Node]:
        """Return the nodes on which a job is."""
        return [node for node, _ in self._placements.get(job.id, ())]

    def _sizes(self, job: Job) -> list[int]:
        """Return what the job takes on each of its nodes, largest first."""
        if not job.roles:
            return [job.flavor.cards if self._pool.node_cards else job.flavor.cpu_cores] * job.nodes
        sizes = [role.flavor.cards for role in job.roles for _ in range(role.nodes)]
        return sorted(filter(None, sizes), reverse=True)
