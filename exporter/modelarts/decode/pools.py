"""Decode the list of resource pools: what they are, and the state of their nodes.

Source: the vendor's documentation of ``GET /v2/{project_id}/pools``. Everything else is skipped.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from exporter.jobs.job import PUBLIC_POOL
from exporter.jobs.pool import NODE_STATES, UNKNOWN, Pool, PoolInfo
from exporter.modelarts.decode.hardware import MAX_NODES, imply_flavor_type
from exporter.modelarts.decode.lenient import (
    NOT_AS_DOCUMENTED,
    Text,
    elements,
    is_empty,
)
from exporter.modelarts.decode.listing import decode_list, objects
from exporter.modelarts.decode.quantity import whole
from exporter.modelarts.decode.values import Checker, label

MAX_POOLS = 1000
"""Pools taken from one response; a project has dozens of them, a faulty response any number."""

_MAX_FLAVORS = 50
"""Entries of an array of nodes, which has one for each flavor and node pool."""


class _Labels(msgspec.Struct, gc=False):
    """``metadata.labels``; the name is the one given by the owner."""

    name: Text = msgspec.field(default=None, name="os.modelarts/name")
    workspace: Text = msgspec.field(default=None, name="os.modelarts/workspace.id")


class _Metadata(msgspec.Struct, gc=False):
    """``items[].metadata``; ``name`` is the pool's ID, ``spec.resource.pool_id`` of its jobs."""

    name: str
    labels: _Labels | None = None


class _Nodes(msgspec.Struct, gc=False):
    """Nodes of one flavor; ``count`` is a number."""

    flavor: Text = None
    count: msgspec.Raw = msgspec.Raw()


class _Spec(msgspec.Struct, gc=False):
    """``items[].spec``."""

    type: Text = None
    resources: msgspec.Raw = msgspec.Raw()


class _States(msgspec.Struct, gc=False):
    """``items[].status.resources``: nodes by state."""

    available: msgspec.Raw = msgspec.Raw()
    abnormal: msgspec.Raw = msgspec.Raw()
    creating: msgspec.Raw = msgspec.Raw()
    deleting: msgspec.Raw = msgspec.Raw()


class _Status(msgspec.Struct, gc=False):
    """``items[].status``."""

    phase: Text = None
    resources: _States | None = None


class _Pool(msgspec.Struct, gc=False):
    """``items[]``; the rest must not cost the name."""

    metadata: _Metadata
    spec: _Spec | None = None
    status: _Status | None = None


class PoolList(NamedTuple):
    """The pools of a response, by pool ID."""

    pools: dict[str, Pool]

    @property
    def names(self) -> dict[str, str]:
        """The names of pools that have one."""
        return {pool_id: pool.info.name for pool_id, pool in self.pools.items() if pool.info.name}

    @property
    def flavor_types(self) -> dict[str, str]:
        """The flavor types of pools whose nodes imply one."""
        return {
            pool_id: pool.flavor_type for pool_id, pool in self.pools.items() if pool.flavor_type
        }


_NO_LABELS, _NO_SPEC, _NO_STATUS = _Labels(), _Spec(), _Status()


def decode_pools(body: bytes) -> PoolList:
    """Decode the list of pools.

    Leaves out pools that cannot be decoded, and one whose ID is the label of jobs without a pool.

    Raises:
        InvalidResponseError: not a list of pools, or an error in a 200.
        BrokenResponseError: JSON that is truncated or garbled.
    """
    found: dict[str, Pool] = {}
    for item in decode_list(body, _Pool, "pool")[0]:
        pool_id = label(item.metadata.name)
        if not pool_id or pool_id == PUBLIC_POOL:
            continue
        pool = _pool(item)
        if before := found.get(pool_id):
            name = pool.info.name or before.info.name
            pool = pool._replace(info=pool.info._replace(name=name))
        if pool_id in found or len(found) < MAX_POOLS:
            found[pool_id] = pool
    return PoolList(found)


def _pool(item: _Pool) -> Pool:
    labels = item.metadata.labels or _NO_LABELS
    spec, status = item.spec or _NO_SPEC, item.status or _NO_STATUS
    check = Checker()
    return Pool(
        PoolInfo(
            name=label(labels.name),
            type=check.identifier(spec.type, "type") or UNKNOWN,
            workspace=label(labels.workspace) or UNKNOWN,
        ),
        flavor_type=_flavor_type(spec.resources),
        status=check.identifier(status.phase, "status"),
        nodes=_count_nodes(status.resources),
    )


def _flavor_type(resources: msgspec.Raw) -> str:
    """Return the flavor type of all nodes of a pool, or "" if it is unknown."""
    implied = {imply_flavor_type(each.flavor, cpu=True) for each in _nodes(resources) or ()}
    return implied.pop() if len(implied) == 1 else ""


def _count_nodes(states: _States | None) -> Mapping[tuple[str, str], int]:
    """Count nodes by flavor and state. An absent state has none; one that is invalid is left out.

    Several entries of one flavor are node pools.
    """
    counted: Counter[tuple[str, str]] = Counter()
    flavors: dict[str, None] = {}
    valid = []
    for state in NODE_STATES if states else ():
        entries = _nodes(getattr(states, state))
        counts = [(label(each.flavor), whole(each.count, MAX_NODES)) for each in entries or ()]
        if entries is None or not all(flavor and count is not None for flavor, count in counts):
            continue
        valid.append(state)
        for flavor, count in counts:
            flavors[flavor] = None
            counted[flavor, state] += count or 0
    return {(flavor, state): counted[flavor, state] for flavor in flavors for state in valid}


def _nodes(value: msgspec.Raw) -> list[_Nodes] | None:
    """Decode an array of nodes, or one object instead; None if it is anything else."""
    if is_empty(value):
        return []
    items = [value]
    if bytes(value)[:1] != b"{":
        try:
            items, more = elements(value, _MAX_FLAVORS)
        except NOT_AS_DOCUMENTED:
            return None
        if more:
            return None
    found = objects(items, _Nodes)
    return found if len(found) == len(items) else None
