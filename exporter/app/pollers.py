"""The pollers of a process, also when a reload changes the targets.

A target whose plan is unchanged keeps its poller. One whose plan has changed gets a new poller,
which takes over the state of the old one once that has stopped: no target ever has two.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from exporter.app.factory import ProcessContext, TargetPlan, make_poller
from exporter.errors import ConfigError
from exporter.polling.poller import Poller
from exporter.polling.target import Target
from exporter.web.publisher import Publisher


class Member(NamedTuple):
    """A poller and the plan it was made from."""

    plan: TargetPlan
    poller: Poller


class Pending(NamedTuple):
    """A prepared change: all pollers in the order of the configuration; those that are new."""

    members: Sequence[Member]
    new: Sequence[Poller]


class Changes(NamedTuple):
    """What a reload has changed; ``changed`` are the new pollers of targets with a new plan."""

    added: Sequence[Poller]
    removed: Sequence[Poller]
    changed: Sequence[Poller]
    unchanged: Sequence[Poller]


class PollerManager:
    """The pollers of a process.

    Args:
        context: what they share.
        publisher: publishes their series.
    """

    def __init__(self, context: ProcessContext, publisher: Publisher) -> None:
        self._context = context
        self._publisher = publisher
        self._members: Sequence[Member] = ()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[Poller, asyncio.Task[None]] = {}

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start polling, in tasks of the group."""
        self._group = group
        self._start(member.poller for member in self._members)

    async def prepare(self, plans: Iterable[TargetPlan]) -> Pending:
        """Make the missing pollers, without changing anything yet.

        Raises:
            ConfigError: the credentials of a target can never work, or a target would have the
                labels of one whose project was looked up.
            OSError: a file of a target cannot be read any more.
        """
        members: list[Member] = []
        new: list[Poller] = []
        try:
            for plan in plans:
                member = next((each for each in self._members if each.plan == plan), None)
                if member is None:
                    member = Member(plan, await make_poller(plan, self._context))
                    new.append(member.poller)
                members.append(member)
            _check_labels([member.poller for member in members], new, self._leaving(members))
        except BaseException:
            await _close(new)
            raise
        return Pending(members, new)

    async def apply(self, pending: Pending) -> Changes:
        """Stop the pollers that are not in a prepared change, and start the new ones."""
        after = [member.poller for member in pending.members]
        leaving = self._leaving(pending.members)
        predecessors = _predecessors(pending.new, leaving)
        try:
            await self._end(leaving)
            await asyncio.gather(*(new.take_over(old) for new, old in predecessors.items()))
        except BaseException:
            await _close(pending.new)
            raise
        # No await from here on: a concurrent publish shows either all old or all new pollers.
        same_labels = [
            old
            for new, old in predecessors.items()
            if new.target.identity.labels == old.target.identity.labels
        ]
        for poller in leaving:
            if poller not in same_labels:
                poller.remove()
        for poller in pending.new:
            poller.show()
        self._members = pending.members
        self._context.registry.targets = [poller.target for poller in after]
        self._publisher.set_pollers(after)
        self._start(pending.new)
        return Changes(
            added=[poller for poller in pending.new if poller not in predecessors],
            removed=[poller for poller in leaving if poller not in predecessors.values()],
            changed=list(predecessors),
            unchanged=[poller for poller in after if poller not in pending.new],
        )

    async def close(self) -> None:
        """Stop all pollers and close their connections."""
        await self._end([member.poller for member in self._members])

    def _leaving(self, members: Iterable[Member]) -> list[Poller]:
        staying = {member.poller for member in members}
        return [member.poller for member in self._members if member.poller not in staying]

    def _start(self, pollers: Iterable[Poller]) -> None:
        if self._group is not None:
            self._tasks |= {poller: self._group.create_task(poller.run()) for poller in pollers}

    async def _end(self, pollers: Sequence[Poller]) -> None:
        """Cancel pollers, wait until they have ended, and close their connections."""
        tasks = [self._tasks.pop(poller) for poller in pollers if poller in self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await _close(pollers)


async def _close(pollers: Iterable[Poller]) -> None:
    await asyncio.gather(*(poller.target.close() for poller in pollers))


def _check_labels(
    pollers: Iterable[Poller], new: Iterable[Poller], leaving: Iterable[Poller]
) -> None:
    """Targets differ in their configured labels; here are those whose project was looked up."""
    predecessors = _predecessors(new, leaving)
    seen = set()
    for poller in pollers:
        identity = poller.target.identity
        if not identity.has_label and poller in predecessors:
            identity = replace(identity, project_id=predecessors[poller].target.identity.project_id)
        if identity.has_label and identity.display_name in seen:
            raise ConfigError(
                f"targets: the project {identity.labels['project']} of region {identity.region} is "
                "also that of a target whose project is looked up; use a name that is unique in "
                "the region (target.name)"
            )
        seen.add(identity.display_name)


IsSameTarget: TypeAlias = Callable[[Target, Target], bool]


def _predecessors(new: Iterable[Poller], old: Iterable[Poller]) -> dict[Poller, Poller]:
    """Find the old poller of the target of each new poller.

    Targets are matched as in `exporter.polling.inheritance`: by project, and by name or endpoint.
    If the project is not known, because it is looked up at the first poll, they are matched by
    name; `exporter.polling.state.TargetState.load` notices if that was wrong.
    """
    found: dict[Poller, Poller] = {}
    left = list(old)
    for is_same in (_is_unchanged, _is_renamed, _has_moved, _same_name):
        for poller in new:
            for other in left if poller not in found else ():
                if poller.target.identity.region == other.target.identity.region and is_same(
                    poller.target, other.target
                ):
                    found[poller] = other
                    left.remove(other)
                    break
    return found


def _same_project(one: Target, other: Target) -> bool:
    project_id = one.identity.project_id
    return project_id is not None and project_id == other.identity.project_id


def _is_renamed(one: Target, other: Target) -> bool:
    return _same_project(one, other) and one.identity.endpoint == other.identity.endpoint


def _has_moved(one: Target, other: Target) -> bool:
    return _same_project(one, other) and one.identity.labels == other.identity.labels


def _is_unchanged(one: Target, other: Target) -> bool:
    return _is_renamed(one, other) and _has_moved(one, other)


def _same_name(one: Target, other: Target) -> bool:
    """Among targets without a name, at most one has its project looked up."""
    if one.identity.project_id is not None and other.identity.project_id is not None:
        return False
    named = one.configured.name is not None
    looked_up = one.configured.project_id is None and other.configured.project_id is None
    return one.identity.name == other.identity.name and (named or looked_up)
