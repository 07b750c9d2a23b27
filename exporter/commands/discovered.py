"""What lookups and files have found, for ``check``."""

from collections.abc import Sequence
from typing import NamedTuple

from exporter.app.lookup import TargetLookup
from exporter.app.targets import TargetList
from exporter.settings.problems import printable
from exporter.settings.schema import ALL, TargetSettings


class Discovered(NamedTuple):
    """What one lookup, or one file of targets, has found.

    Attributes:
        source: the target as configured, or the path of the file.
        looks_for: what was looked up; ``targets`` in a file.
        found: names or IDs, perhaps with a remark.
        error: why it failed, or what was not found; "" if it succeeded.
    """

    source: str
    looks_for: str
    found: Sequence[str]
    error: str


def discovered(targets: TargetList, *, looked_up: bool) -> list[Discovered]:
    """Return what was found.

    Args:
        targets: of the configuration.
        looked_up: whether lookups were done, not only files read.
    """
    files = [
        Discovered(
            source=printable(path),
            looks_for="targets",
            found=[_name(target) for target in file.targets],
            error="; ".join(file.problems),
        )
        for path, file in targets.files.known.items()
    ]
    return files + [_of_lookup(each) for each in targets.lookups if looked_up]


def _of_lookup(lookup: TargetLookup) -> Discovered:
    found = lookup.found or ()
    if lookup.options.projects is None:
        names = [workspace for target in found for workspace in target.workspaces]
    elif lookup.options.workspaces == ALL:
        names = [f"{_name(target)} ({len(target.workspaces)})" for target in found]
    else:
        names = [_name(target) for target in found]
    return Discovered(lookup.name, lookup.subject, names, lookup.error)


def _name(target: TargetSettings) -> str:
    return target.name or target.project_id or target.region
