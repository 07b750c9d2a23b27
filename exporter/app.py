"""The composition root: settings in, a running exporter out."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr

from exporter.clocks import Clocks
from exporter.credentials import vendor
from exporter.credentials.choice import AuthOptions, Surroundings, make
from exporter.credentials.keyguard import KeyGuards
from exporter.credentials.secret import Secret
from exporter.errors import AuthError, ConfigError
from exporter.guard import Guard
from exporter.http import Session
from exporter.instruments import Instruments, TargetInstruments
from exporter.metrics.scope import Scope
from exporter.poller import Cadence, Poller
from exporter.publisher import Publisher
from exporter.search import Paging
from exporter.settings import Settings, TargetSettings, WebFile
from exporter.store import Memory, StateFile, Store
from exporter.target import UNKNOWN_PROJECT, Manners, Place, Target
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
        guard = await _guard(self._web.config.file, self._clocks)
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
    targets = settings.all_targets()
    async with contextlib.AsyncExitStack() as stack:
        store = await _store(settings.state.file if keep_state else None, instruments)
        stack.push_async_callback(store.close)
        guards = KeyGuards(clocks.monotonic)
        shared = _Shared(settings, environ, clocks, instruments, guards, store)
        for options in targets:
            known = _profile(environ) if len(targets) == 1 else None
            poller = await _poller(options, known, shared, publisher, stack)
            publisher.pollers.append(poller)
        yield Exporter(settings, publisher, clocks)


class _Shared(NamedTuple):
    """What the targets of a process have in common."""

    settings: Settings
    environ: Mapping[str, str]
    clocks: Clocks
    instruments: Instruments
    guards: KeyGuards
    store: Store


async def _guard(file: str | None, clocks: Clocks) -> Guard | None:
    """Who watches the door; None: it is open."""
    if file is None:
        return None
    web_file = WebFile(file)
    loaded = await asyncio.to_thread(web_file.load)
    if loaded.problems:
        raise ConfigError(*loaded.problems)
    return Guard(loaded, web_file.look, clocks)


@contextlib.asynccontextmanager
async def _closing(guard: Guard | None) -> AsyncIterator[None]:
    try:
        yield
    finally:
        if guard:
            guard.close()


async def _store(file: str | None, instruments: Instruments) -> Store:
    if file is None:
        return Memory()
    return await StateFile.open(Path(file), problem=instruments.state_errors.inc)


async def _poller(
    options: TargetSettings,
    known: vendor.Known | None,
    shared: _Shared,
    publisher: Publisher,
    stack: contextlib.AsyncExitStack,
) -> Poller:
    settings, clocks = shared.settings, shared.clocks
    place = _place(options, known)
    instruments = TargetInstruments(
        shared.instruments, place.region, place.name or place.project_id or UNKNOWN_PROJECT
    )
    session = Session(
        timeout=settings.api.timeout,
        meter=instruments,
        proxy=options.proxy,
        ca_file=options.ca_file,
    )
    stack.push_async_callback(session.close)
    around = Surroundings(
        environ=shared.environ,
        http=session,
        guards=shared.guards,
        clock=clocks.wall,
        monotonic=clocks.monotonic,
    )
    target = Target(
        place,
        Manners(
            requests_per_second=settings.api.max_requests_per_second,
            concurrency=settings.api.concurrency,
            retries=settings.api.retries,
            longest_pause=settings.poll.timeout,
        ),
        paging=Paging(
            None if options.pagination == "auto" else options.pagination,
            fixed=options.pagination != "auto",
        ),
        session=session,
        credentials=make(_auth_options(options, place), around),
        instruments=instruments,
        clocks=clocks,
    )
    return Poller(
        target,
        instruments,
        cadence=Cadence(
            interval=settings.poll.interval,
            timeout=settings.poll.timeout,
            sweep_interval=settings.poll.sweep_interval,
            sweep_timeout=settings.poll.sweep_timeout,
            stale_after=settings.poll.stale_after,
        ),
        scope=Scope(
            history=settings.jobs.history,
            retention=settings.jobs.retention,
            per_job=settings.jobs.per_job,
            max_series_jobs=settings.jobs.max_series_jobs,
        ),
        store=shared.store,
        publish=publisher.publish,
        clocks=clocks,
    )


def _place(options: TargetSettings, known: vendor.Known | None) -> Place:
    """Where the target is; what its options leave open is taken from the profile file."""
    iam_endpoint = options.iam_endpoint
    if known and known.iam_endpoint and "iam_endpoint" not in options.model_fields_set:
        iam_endpoint = known.iam_endpoint
    return Place(
        name=options.name,
        region=options.region,
        project_id=options.project_id or (known and known.project_id) or None,
        endpoint=options.endpoint,
        iam_endpoint=iam_endpoint,
        workspaces=tuple(options.workspaces),
    )


def _auth_options(options: TargetSettings, place: Place) -> AuthOptions:
    auth = options.auth
    return AuthOptions(
        region=place.region,
        iam_endpoint=place.iam_endpoint,
        project_id=place.project_id,
        method=auth.method,
        access_key=auth.access_key,
        secret_key=_secret("secret_key", auth.secret_key, auth.secret_key_file),
        security_token=_secret("security_token", auth.security_token, auth.security_token_file),
        username=auth.username,
        password=_secret("password", auth.password, auth.password_file),
        domain=auth.domain,
        token=_secret("token", auth.token, auth.token_file),
        idp_id=auth.idp_id,
        id_token_file=auth.id_token_file,
    )


def _secret(name: str, value: SecretStr | None, file: str | None) -> Secret | None:
    if file is not None:
        return Secret(f"target.auth.{name}_file", file=file)
    return None if value is None else Secret(f"target.auth.{name}", value.get_secret_value())


def _profile(environ: Mapping[str, str]) -> vendor.Known | None:
    """What the vendor's profile file says, if there is one that can be read."""
    path = vendor.profile_path(environ)
    if path is None:
        return None
    try:
        return vendor.profile(path)
    except AuthError:
        return None
