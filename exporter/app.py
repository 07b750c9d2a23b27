"""The composition root: settings in, a running exporter out."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

from exporter.assembly import Shared, make_guard, make_poller, open_store, plans
from exporter.clocks import Clocks
from exporter.credentials.keyguard import KeyGuards
from exporter.guard import Guard
from exporter.instruments import Instruments
from exporter.poller import Poller
from exporter.publisher import Publisher
from exporter.settings import Settings
from exporter.web import make_app, serve


class Exporter:
    """All targets of a configuration, and what they publish. Made by `exporter`.

    Attributes:
        pollers: one for each target.
        publisher: holds the body that is served.
    """

    def __init__(self, settings: Settings, publisher: Publisher, clocks: Clocks) -> None:
        self.publisher = publisher
        self._web = settings.web
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
        self, stop: asyncio.Event, started: Callable[[list[str]], None] = lambda _: None
    ) -> None:
        """Serve and poll until ``stop``; an actor that dies of a bug ends them all.

        Args:
            stop: ends it.
            started: is told the URLs that are served, once they are.

        Raises:
            StartError: an address cannot be had.
            ConfigError: the web configuration is no longer what it was when it was checked.
        """
        guard = await make_guard(self._web.config.file, self._clocks)
        app = make_app(
            self.publisher,
            telemetry_path=self._web.telemetry_path,
            scraped=self.publisher.scraped,
            guard=guard,
            clock=self._clocks.wall,
        )
        async with (
            _closing(guard),
            serve(app, self._web.listen_address, guard.tls if guard else None) as urls,
            asyncio.TaskGroup() as group,
        ):
            started(urls)
            actors = [group.create_task(self.publisher.run())]
            actors += [group.create_task(poller.run()) for poller in self.pollers]
            actors += [group.create_task(guard.run())] if guard else []
            await stop.wait()
            for actor in actors:
                actor.cancel()


@contextlib.asynccontextmanager
async def exporter(
    settings: Settings,
    environ: Mapping[str, str],
    clocks: Clocks | None = None,
    *,
    keep_state: bool = True,
) -> AsyncIterator[Exporter]:
    """Make the targets; their connections are closed at the end.

    Args:
        settings: validated.
        environ: where the vendor's variables are looked for.
        clocks: other than the machine's, for tests.
        keep_state: whether ``state.file`` is used, where one is configured.

    Raises:
        ConfigError: a target's credentials can never work.
    """
    clocks = clocks or Clocks()
    instruments = Instruments()
    publisher = Publisher(instruments)
    async with contextlib.AsyncExitStack() as stack:
        store = await open_store(settings.state.file if keep_state else None, instruments)
        stack.push_async_callback(store.close)
        guards = KeyGuards(clocks.monotonic)
        shared = Shared(environ, clocks, instruments, guards, store, publisher.publish)
        for plan in plans(settings, environ):
            poller = await make_poller(plan, shared)
            stack.push_async_callback(poller.target.close)
            publisher.pollers.append(poller)
        yield Exporter(settings, publisher, clocks)


@contextlib.asynccontextmanager
async def _closing(guard: Guard | None) -> AsyncIterator[None]:
    try:
        yield
    finally:
        if guard:
            guard.close()
