"""Changes to the world as JSON documents: over HTTP, and between two requests of a client."""

from collections.abc import Mapping
from typing import Any

from exporter.simulator.catalog import DEFAULT_WORKSPACE
from exporter.simulator.edits import ABSENT
from exporter.simulator.fleet import Fleet
from exporter.simulator.job import Job

_BY_HAND = (
    *("queue", "start", "compute", "interrupt", "recover", "resize", "enter", "stop", "finish"),
    "reactivate",
)


def perform(fleet: Fleet, action: Mapping[str, Any]) -> list[str]:
    """Change the world.

    ``do`` is ``create`` (with ``count``), ``delete``, ``override`` (with ``edits`` and
    ``remove``), or one of `Fleet`'s transitions. ``job`` is an id, ``newest``, ``oldest``, or a
    position in the service's order, newest first from 0, in ``workspace``. All other fields are
    arguments for the method of `Fleet` with that name.

    Returns:
        Ids of the jobs changed.

    Raises:
        LookupError: no such job.
        TypeError: no such argument.
        ValueError: no such action.
    """
    arguments = dict(action)
    do = arguments.pop("do", None)
    if do == "create":
        count = arguments.pop("count", 1)
        return [fleet.create(**arguments).id for _ in range(count)]
    workspace = arguments.pop("workspace", DEFAULT_WORKSPACE)
    if do not in (*_BY_HAND, "delete", "override"):
        raise ValueError(f"no such action: {do}")
    job = _find(fleet, arguments.pop("job", None), workspace)
    if do == "override":
        removed = dict.fromkeys(arguments.get("remove", ()), ABSENT)
        fleet.override(job, {**arguments.get("edits", {}), **removed})
    else:
        getattr(fleet, do)(job, **arguments)
    return [job.id]


def _find(fleet: Fleet, which: Any, workspace: str) -> Job:
    if isinstance(which, str) and which in fleet:
        return fleet[which]
    positions = {"newest": 0, "oldest": -1}
    position = positions.get(which, which) if isinstance(which, str) else which
    if not isinstance(position, int):
        raise LookupError(f"no such job: {which}")  # noqa: TRY004 - an unknown id, most likely
    return fleet.index.sorted(workspace)[::-1][position][2]
