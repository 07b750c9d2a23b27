"""Which saved state a target continues if it has none of its own: that of the target it was before.

What identifies saved state is the region, the project ID and the workspace. The name and the
endpoint of a target only tell two targets of one project apart. So a target without saved state
continues that of a target that no longer exists:

1. with the same endpoint: it was renamed;
2. else with the same name: its endpoint has changed;
3. else without name and endpoint: it was saved by a version that did not distinguish targets of one
   project. If several targets share it, none of them can continue it.

If both name and endpoint have changed, it is another target. Credentials do not identify anything:
they are rotated.
"""

import logging
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from exporter.polling.target import Target
from exporter.storage.scopes import UNKNOWN, StateKey
from exporter.storage.store import Store

log = logging.getLogger(__name__)


class Inheritance(NamedTuple):
    """What a target continues: workspaces by previous key; workspaces for which it is unclear."""

    workspaces: dict[StateKey, frozenset[str]]
    unclear: frozenset[str]


async def inherit(target: Target, workspaces: Collection[str], store: Store) -> None:
    """Take what a target continues in some workspaces, if it has no saved state of its own.

    Raises:
        StateError: it cannot be read or written now.
    """
    key = target.identity.key
    found = find_inheritance(
        key,
        workspaces,
        await store.saved(key.region, key.project_id),
        lambda saved, workspace: target.registry.uses(saved, workspace, other_than=target),
    )
    for before, some in found.workspaces.items():
        await store.rename(before, key, some)
        facts = {"target": target.name, "before": " ".join(filter(None, before))}
        log.info(
            "the target continues the saved state of the target that it was before", extra=facts
        )
    if found.unclear:
        log.warning(
            "several targets could continue the saved state of the project; "
            "this one starts from a new baseline",
            extra={"target": target.name, "workspaces": ",".join(sorted(found.unclear))},
        )


def find_inheritance(
    key: StateKey,
    workspaces: Iterable[str],
    saved: Iterable[tuple[StateKey, str]],
    is_in_use: Callable[[StateKey, str], bool],
) -> Inheritance:
    """Find the saved state that a target continues.

    Args:
        key: of the target.
        workspaces: of the target.
        saved: all state of its project.
        is_in_use: whether state belongs to another target.
    """
    keys_by_workspace: dict[str, set[StateKey]] = {}
    for each, workspace in saved:
        keys_by_workspace.setdefault(workspace, set()).add(each)
    found: dict[StateKey, set[str]] = {}
    unclear = set()
    for workspace in workspaces:
        keys = keys_by_workspace.get(workspace, set())
        if key in keys:
            continue
        free = {each for each in keys if not is_in_use(each, workspace)}
        heirlooms = (
            {each for each in free if each.endpoint == key.endpoint}
            or {each for each in free if each.name == key.name}
            or {each for each in free if each.name == UNKNOWN}
        )
        if len(heirlooms) == 1:
            found.setdefault(heirlooms.pop(), set()).add(workspace)
        elif heirlooms or any(each.name == UNKNOWN for each in keys):
            unclear.add(workspace)
    return Inheritance({each: frozenset(some) for each, some in found.items()}, frozenset(unclear))
