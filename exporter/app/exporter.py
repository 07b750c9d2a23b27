"""The running exporter: polls all targets and serves their metrics."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

from exporter.app.discovery import Discovery
from exporter.app.factory import ProcessContext, make_access_control, open_store
from exporter.app.pollers import PollerManager
from exporter.app.reload import Reloader
from exporter.clock import Clocks
from exporter.huaweicloud.auth.lockout import KeyLockouts
from exporter.metrics.self_metrics import Instruments
from exporter.polling.poller import Poller
from exporter.polling.registry import TargetRegistry
from exporter.settings.schema import Settings
from exporter.web.access import AccessControl
from exporter.web.listen import serve
from exporter.web.publisher import Publisher
from exporter.web.server import make_app


class Exporter:
    """All targets of a configuration, and the server of their metrics. Created by `exporter`.

    Args:
        settings: at the start.
        publisher: holds the body that is served.
        pollers: one for each target.
        discovery: keeps the list of targets current.
        reloader: reloads the configuration.
        clocks: the machine's.

    Attributes:
        publisher: as given.
        discovery: as given.
    """

    def __init__(
        self,
        settings: Settings,
        publisher: Publisher,
        pollers: PollerManager,
        discovery: Discovery,
        reloader: Reloader,
        *,
        clocks: Clocks,
    ) -> None:
        self.publisher = publisher
        self.discovery = discovery
        self._web = settings.web
        self._interval = settings.poll.interval
        self._pollers = pollers
        self._reloader = reloader
        self._clocks = clocks

    @property
    def pollers(self) -> list[Poller]:
        """One for each target."""
        return self.publisher.pollers

    async def poll_once(self) -> bool:
        """Poll each target once, unless its last poll failed; True if no target has failed."""
        async with asyncio.TaskGroup() as group:
            publishing = group.create_task(self.publisher.run())
            await asyncio.gather(*(each.poll_once() for each in self.pollers if not each.error))
            publishing.cancel()
        return not any(poller.error for poller in self.pollers)

    async def run(
        self,
        stop: asyncio.Event,
        started: Callable[[list[str]], None] = lambda _: None,
        hangup: asyncio.Event | None = None,
    ) -> None:
        """Serve and poll until ``stop`` is set. A task that dies of a bug ends all of them.

        Args:
            stop: set to end it.
            started: called with the URLs that are served.
            hangup: set to request a reload.

        Raises:
            StartError: an address is not available.
            ConfigError: the web configuration has become invalid since it was checked.
        """
        access = await make_access_control(self._web.config.file, self._clocks)
        app = make_app(
            self.publisher,
            telemetry_path=self._web.telemetry_path,
            scraped=self.publisher.scraped,
            reload=self._reloader.reload if self._web.enable_reload else None,
            access=access,
            clock=self._clocks.wall,
        )
        await self.publisher.update()  # from the first request on, there is something to serve
        async with (
            _closing(access),
            serve(app, self._web.listen_address, access.tls if access else None) as urls,
            asyncio.TaskGroup() as group,
        ):
            started(urls)
            tasks = [group.create_task(self.publisher.run())]
            tasks += [group.create_task(access.run())] if access else []
            tasks += [group.create_task(self._publish_until_ready())]
            self._pollers.start(group)
            reloading = [group.create_task(self.discovery.run())]
            reloading += [group.create_task(self._reloader.run())]
            reloading += [group.create_task(self._reload_at(hangup))] if hangup else []
            await stop.wait()
            await _end(reloading)  # first, since they start pollers
            await self._pollers.close()
            await _end(tasks)

    async def _publish_until_ready(self) -> None:
        """Publish the progress of the first polls. They publish only when they end."""
        while not self.publisher.ready:
            await self._clocks.sleep(self._interval)
            await self.publisher.publish()

    async def _reload_at(self, hangup: asyncio.Event) -> None:
        while True:
            await hangup.wait()
            hangup.clear()
            self._reloader.request()


@contextlib.asynccontextmanager
async def exporter(
    settings: Settings,
    environ: Mapping[str, str],
    clocks: Clocks | None = None,
    *,
    keep_state: bool = True,
    retry_unreachable: bool = True,
    look_up: bool = False,
    load: Callable[[], Settings] | None = None,
) -> AsyncIterator[Exporter]:
    """Create the exporter; close its connections at the end.

    Args:
        settings: validated.
        environ: has the vendor's variables.
        clocks: other than the machine's, for tests.
        keep_state: whether ``state.file`` is used, if one is configured.
        retry_unreachable: whether requests are retried if there is no connection at all; a user
            who waits for the result wants to know at once.
        look_up: whether projects and workspaces are looked up before anything else; `Exporter.run`
            does it while it serves.
        load: reads the settings again; None: they cannot change.

    Raises:
        ConfigError: a target's credentials can never work.
    """
    clocks = clocks or Clocks()
    instruments = Instruments()
    publisher = Publisher(instruments)
    publisher.deny(settings.metrics.deny)
    async with contextlib.AsyncExitStack() as stack:
        store = await open_store(settings.state.file if keep_state else None, instruments, clocks)
        stack.push_async_callback(store.close)
        lockouts = KeyLockouts(clocks.monotonic)
        context = ProcessContext(
            environ,
            clocks,
            instruments,
            lockouts,
            store,
            publisher.publish,
            TargetRegistry(),
            retry_unreachable=retry_unreachable,
        )
        pollers = PollerManager(context, publisher)
        stack.push_async_callback(pollers.close)
        discovery = Discovery(context, pollers, publisher)
        await discovery.configure(settings, look_up=False)
        if look_up:
            await discovery.look_up()
        reloader = Reloader(settings, load or (lambda: settings), discovery, instruments, publisher)
        yield Exporter(settings, publisher, pollers, discovery, reloader, clocks=clocks)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@contextlib.asynccontextmanager
async def _closing(access: AccessControl | None) -> AsyncIterator[None]:
    try:
        yield
    finally:
        if access:
            access.close()
