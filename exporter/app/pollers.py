"""Who polls which target, also when the targets change while the program runs.

A target whose plan stays the same goes on undisturbed. One that gets another plan gets another
poller, which takes over what the old one knew when that has stopped: no target ever has two.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from exporter.app.factory import SharedParts, TargetPlan, make_poller
from exporter.polling.poller import Poller
from exporter.polling.target import Target
from exporter.web.publisher import Publisher


class Member(NamedTuple):
    """A poller and what it was made of."""

    plan: TargetPlan
    poller: Poller


class Pending(NamedTuple):
    """Who is to poll: all, in the order of the configuration, and which of them are new."""

    members: Sequence[Member]
    new: Sequence[Poller]


class Changes(NamedTuple):
    """Pollers; of those that took over from others, the new ones."""

    added: Sequence[Poller]
    removed: Sequence[Poller]
    changed: Sequence[Poller]
    unchanged: Sequence[Poller]


class PollerManager:
    """The pollers of a process.

    Args:
        shared: what they have in common.
        publisher: shows what they know.
    """

    def __init__(self, shared: SharedParts, publisher: Publisher) -> None:
        self._shared = shared
        self._publisher = publisher
        self._members: Sequence[Member] = ()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[Poller, asyncio.Task[None]] = {}

    def start(self, group: asyncio.TaskGroup) -> None:
        """Poll from now on, as tasks of the group."""
        self._group = group
        self._begin(member.poller for member in self._members)

    async def draft(self, plans: Iterable[TargetPlan]) -> Pending:
        """Make the pollers that are missing; nothing changes yet.

        Raises:
            ConfigError: the credentials of a target can never work.
            OSError: a file of a target cannot be read any more.
        """
        members: list[Member] = []
        new: list[Poller] = []
        try:
            for plan in plans:
                member = next((each for each in self._members if each.plan == plan), None)
                if member is None:
                    member = Member(plan, await make_poller(plan, self._shared))
                    new.append(member.poller)
                members.append(member)
        except BaseException:
            await _close(new)
            raise
        return Pending(members, new)

    async def adopt(self, draft: Pending) -> Changes:
        """Let those who are not in a draft stop, and those who are new take their places."""
        before = [member.poller for member in self._members]
        after = [member.poller for member in draft.members]
        leaving = [poller for poller in before if poller not in after]
        left_by = _predecessors(draft.new, leaving)
        try:
            await self._end(leaving)
            await asyncio.gather(*(heir.take_over(old) for heir, old in left_by.items()))
        except BaseException:
            await _close(draft.new)
            raise
        # All at once: whoever publishes meanwhile shows either who was there before or who is now.
        go_on = [old for heir, old in left_by.items() if heir.target.labels == old.target.labels]
        for poller in leaving:
            if poller not in go_on:
                poller.remove()
        for poller in draft.new:
            poller.show()
        self._members = draft.members
        self._publisher.show(after)
        self._begin(draft.new)
        return Changes(
            added=[poller for poller in draft.new if poller not in left_by],
            removed=[poller for poller in leaving if poller not in left_by.values()],
            changed=list(left_by),
            unchanged=[poller for poller in after if poller not in draft.new],
        )

    async def close(self) -> None:
        """Stop all, and close their connections."""
        await self._end([member.poller for member in self._members])

    def _begin(self, pollers: Iterable[Poller]) -> None:
        if self._group is not None:
            self._tasks |= {poller: self._group.create_task(poller.run()) for poller in pollers}

    async def _end(self, pollers: Sequence[Poller]) -> None:
        """Return when they do nothing any more."""
        tasks = [self._tasks.pop(poller) for poller in pollers if poller in self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await _close(pollers)


async def _close(pollers: Iterable[Poller]) -> None:
    await asyncio.gather(*(poller.target.close() for poller in pollers))


Fits: TypeAlias = Callable[[Target, Target], bool]


def _predecessors(new: Iterable[Poller], old: Iterable[Poller]) -> dict[Poller, Poller]:
    """By whom of the old ones the new ones' targets were polled before.

    The project decides. Where that is not known, because it is looked up when the target is first
    polled, the name does; `exporter.polling.state.TargetState.load` finds out if it was wrong.
    """
    found: dict[Poller, Poller] = {}
    left = list(old)
    for fits in (_same_project_and_name, _same_project, _same_name):
        for poller in new:
            for other in left if poller not in found else ():
                if poller.target.identity.region == other.target.identity.region and fits(
                    poller.target, other.target
                ):
                    found[poller] = other
                    left.remove(other)
                    break
    return found


def _same_project(one: Target, other: Target) -> bool:
    return one.project_id is not None and one.project_id == other.project_id


def _same_project_and_name(one: Target, other: Target) -> bool:
    return _same_project(one, other) and one.identity.name == other.identity.name


def _same_name(one: Target, other: Target) -> bool:
    """Of targets without a name there is at most one whose project is looked up."""
    if one.project_id is not None and other.project_id is not None:
        return False
    named = one.identity.name is not None
    looked_up = one.identity.project_id is None and other.identity.project_id is None
    return one.identity.name == other.identity.name and (named or looked_up)
