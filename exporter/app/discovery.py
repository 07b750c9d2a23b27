"""Keeps the list of targets current, and the pollers in step with it, one change at a time.

Every change, whether a reload, a file or a lookup brings it, takes the same way: first everything
that can fail, then all at once (`exporter.app.pollers`).
"""

import asyncio
import logging
import math

from exporter.app.factory import ProcessContext
from exporter.app.pollers import Changes, Pending, PollerManager
from exporter.app.targets import TargetList
from exporter.clock import wait
from exporter.errors import ConfigError
from exporter.settings.schema import Settings
from exporter.web.publisher import Publisher

log = logging.getLogger(__name__)

CHECK_SECONDS = 5.0
"""How often files of targets are examined."""


class Discovery:
    """The current list of targets.

    Args:
        context: what all targets share.
        pollers: the pollers to change.
        publisher: publishes what was found.
    """

    def __init__(
        self, context: ProcessContext, pollers: PollerManager, publisher: Publisher
    ) -> None:
        self._context = context
        self._pollers = pollers
        self._publisher = publisher
        self._targets: TargetList | None = None
        self._changing = asyncio.Lock()
        self._reloaded = asyncio.Event()

    @property
    def targets(self) -> TargetList:
        """The current list."""
        if self._targets is None:
            raise RuntimeError("not configured")
        return self._targets

    async def configure(self, settings: Settings, *, look_up: bool) -> Changes:
        """Poll the targets of a configuration, as far as they are known.

        Args:
            settings: validated.
            look_up: whether to look up first what is not known yet.

        Raises:
            ConfigError: a target can never work, or nothing is known of it and a lookup failed;
                nothing has changed.
            OSError: a file of a target cannot be read any more.
        """
        async with self._changing:
            targets = await asyncio.to_thread(TargetList, settings, self._context, self._targets)
            if look_up:
                new = targets.new_lookups
                await targets.look_up(new)
                if failed := [f"{each.name}: {each.error}" for each in new if each.found is None]:
                    raise ConfigError(*failed)
            pending = await self._prepare(targets)
            if self._targets is None:
                self._publisher.awaits_targets = bool(targets.lookups)
            self._targets = targets
            self._reloaded.set()
            return await self._apply(pending)

    async def look_up(self) -> None:
        """Look up everything once. What fails stays as it was."""
        targets = self.targets
        await targets.look_up()
        await self._update(targets)

    async def run(self) -> None:
        """Look up at intervals, and read files that change, until cancelled."""
        monotonic = self._context.clocks.monotonic
        due = math.inf
        while True:
            targets = self.targets
            if self._reloaded.is_set() or monotonic() >= due or await self._files_changed():
                self._reloaded.clear()
                await self.look_up()
                due = monotonic() + self._pause(targets) if targets.lookups else math.inf
                self._publisher.awaits_targets = False
                await self._publisher.publish()
            check = monotonic() + CHECK_SECONDS if targets.has_files else math.inf
            until = min(due, check)
            await wait(self._reloaded, None if until == math.inf else until, self._context.clocks)

    async def _files_changed(self) -> bool:
        return await asyncio.to_thread(self.targets.read_files)

    def _pause(self, targets: TargetList) -> float:
        """Seconds until the next lookup; fewer after a failure."""
        settings, interval = targets.settings, targets.settings.discovery.interval
        failed = any(lookup.error for lookup in targets.lookups)
        return min(interval, settings.poll.interval) if failed else interval

    async def _update(self, targets: TargetList) -> None:
        """Poll what the list has now, unless a reload has replaced it."""
        async with self._changing:
            if targets is not self._targets:
                return
            try:
                pending = await self._prepare(targets)
            except (ConfigError, OSError) as error:
                log.error("targets not changed: %s", error)  # noqa: TRY400 - expected
                return
            if not pending.new and len(pending.members) == len(self._publisher.pollers):
                self._show(targets)
                return
            log_changes("targets changed", await self._apply(pending))

    async def _prepare(self, targets: TargetList) -> Pending:
        return await self._pollers.prepare(await asyncio.to_thread(targets.plans))

    async def _apply(self, pending: Pending) -> Changes:
        self._show(self.targets)
        return await self._pollers.apply(pending)

    def _show(self, targets: TargetList) -> None:
        instruments, shard = self._context.instruments, targets.settings.shard
        instruments.found(targets=targets.discovered, successful=not targets.problems)
        instruments.in_shard(shard.index, shard.count)


def log_changes(what: str, changes: Changes) -> None:
    """Log how many targets have changed, and how they are polled."""
    pollers_by_change = changes._asdict()
    numbers = ", ".join(f"{len(pollers)} {how}" for how, pollers in pollers_by_change.items())
    names = {
        how: ",".join(each.name for each in some) for how, some in pollers_by_change.items() if some
    }
    log.info("%s, targets: %s", what, numbers, extra=names)
    for poller in (*changes.added, *changes.changed):
        identity = poller.target.credentials.identity
        log.info("polling as %s", identity, extra={"target": poller.name})
