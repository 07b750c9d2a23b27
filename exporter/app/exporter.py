"""The composition root: settings in, a running exporter out."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

from exporter.app.factory import SharedParts, make_guard, open_store, plans
from exporter.app.pollers import PollerManager
from exporter.app.reload import Reloader
from exporter.clock import Clocks
from exporter.huaweicloud.auth.lockout import KeyLockouts
from exporter.metrics.self_metrics import Instruments
from exporter.polling.poller import Poller
from exporter.settings.schema import Settings
from exporter.web.access import AccessControl
from exporter.web.listen import serve
from exporter.web.publisher import Publisher
from exporter.web.server import make_app


class Exporter:
    """All targets of a configuration, and what they publish. Made by `exporter`.

    Args:
        settings: at the start.
        publisher: holds the body that is served.
        pollers: who polls.
        reload: reads the configuration again.
        clocks: the machine's.
    """

    def __init__(
        self,
        settings: Settings,
        publisher: Publisher,
        pollers: PollerManager,
        reload: Reloader,
        clocks: Clocks,
    ) -> None:
        self.publisher = publisher
        self._web = settings.web
        self._interval = settings.poll.interval
        self._pollers = pollers
        self._reload = reload
        self._clocks = clocks

    @property
    def pollers(self) -> list[Poller]:
        """One for each target."""
        return self.publisher.pollers

    async def poll_once(self) -> bool:
        """Poll once every target whose last poll has not failed; True if none has failed."""
        async with asyncio.TaskGroup() as group:
            publishing = group.create_task(self.publisher.run())
            await asyncio.gather(*(each.poll() for each in self.pollers if not each.error))
            publishing.cancel()
        return not any(poller.error for poller in self.pollers)

    async def run(
        self,
        stop: asyncio.Event,
        started: Callable[[list[str]], None] = lambda _: None,
        hangup: asyncio.Event | None = None,
    ) -> None:
        """Serve and poll until ``stop``; an actor that dies of a bug ends them all.

        Args:
            stop: ends it.
            started: is told the URLs that are served, once they are.
            hangup: asks for a reload, each time that it is set.

        Raises:
            StartError: an address cannot be had.
            ConfigError: the web configuration is no longer what it was when it was checked.
        """
        guard = await make_guard(self._web.config.file, self._clocks)
        app = make_app(
            self.publisher,
            telemetry_path=self._web.telemetry_path,
            scraped=self.publisher.scraped,
            reload=self._reload.ask if self._web.enable_reload else None,
            access=guard,
            clock=self._clocks.wall,
        )
        await self.publisher.update()  # from the first request on, there is something to serve
        async with (
            _closing(guard),
            serve(app, self._web.listen_address, guard.tls if guard else None) as urls,
            asyncio.TaskGroup() as group,
        ):
            started(urls)
            actors = [group.create_task(self.publisher.run())]
            actors += [group.create_task(guard.run())] if guard else []
            actors += [group.create_task(self._publish_until_ready())]
            self._pollers.start(group)
            reloading = [group.create_task(self._reload.run())]
            reloading += [group.create_task(self._reload_at(hangup))] if hangup else []
            await stop.wait()
            await _end(reloading)  # first: it starts others
            await self._pollers.close()
            await _end(actors)

    async def _publish_until_ready(self) -> None:
        """Show how the first polls get on, which publish when they end: that can take long."""
        while not self.publisher.ready:
            await self._clocks.sleep(self._interval)
            await self.publisher.publish()

    async def _reload_at(self, hangup: asyncio.Event) -> None:
        while True:
            await hangup.wait()
            hangup.clear()
            self._reload.want()


@contextlib.asynccontextmanager
async def exporter(
    settings: Settings,
    environ: Mapping[str, str],
    clocks: Clocks | None = None,
    *,
    keep_state: bool = True,
    load: Callable[[], Settings] | None = None,
) -> AsyncIterator[Exporter]:
    """Make the targets; their connections are closed at the end.

    Args:
        settings: validated.
        environ: where the vendor's variables are looked for.
        clocks: other than the machine's, for tests.
        keep_state: whether ``state.file`` is used, where one is configured.
        load: reads the settings again; None: they cannot change.

    Raises:
        ConfigError: a target's credentials can never work.
    """
    clocks = clocks or Clocks()
    instruments = Instruments()
    publisher = Publisher(instruments)
    async with contextlib.AsyncExitStack() as stack:
        store = await open_store(settings.state.file if keep_state else None, instruments)
        stack.push_async_callback(store.close)
        lockouts = KeyLockouts(clocks.monotonic)
        shared = SharedParts(environ, clocks, instruments, lockouts, store, publisher.publish)
        pollers = PollerManager(shared, publisher)
        stack.push_async_callback(pollers.close)
        await pollers.adopt(await pollers.draft(plans(settings, environ)))
        reload = Reloader(settings, load or (lambda: settings), shared, pollers, publisher)
        yield Exporter(settings, publisher, pollers, reload, clocks)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@contextlib.asynccontextmanager
async def _closing(guard: AccessControl | None) -> AsyncIterator[None]:
    try:
        yield
    finally:
        if guard:
            guard.close()
