"""Reloads the configuration while the program runs: all of it is applied, or nothing."""

import asyncio
import logging
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from exporter.app import log as logs
from exporter.app.discovery import Discovery, log_changes
from exporter.app.factory import needing_restart
from exporter.errors import ConfigError
from exporter.metrics.self_metrics import Instruments
from exporter.settings.schema import Settings
from exporter.web.publisher import Publisher

log = logging.getLogger(__name__)

Problems = Sequence[str]
"""One line each; empty: the reload succeeded."""

SHUTTING_DOWN = ("the exporter is shutting down",)


class Reloader:
    """Reloads the configuration on request, one reload at a time.

    Args:
        settings: in force.
        load: reads the settings as at a start; slow, called beside the event loop.
        discovery: polls the targets of the settings.
        instruments: of the process.
        publisher: publishes whether the reload succeeded.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        discovery: Discovery,
        instruments: Instruments,
        publisher: Publisher,
    ) -> None:
        self._settings = settings
        self._load = load
        self._discovery = discovery
        self._publisher = publisher
        self._succeeded = instruments.config_reload
        self._requested = asyncio.Event()
        self._waiting: list[asyncio.Future[Problems]] = []
        self._has_ended = False

    def request(self) -> None:
        """Request a reload without waiting for it."""
        self._requested.set()

    async def reload(self) -> Problems:
        """Return the problems of a reload that began after this call, once it is published."""
        if self._has_ended:
            return SHUTTING_DOWN
        done: asyncio.Future[Problems] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._requested.set()
        return await done

    async def run(self) -> None:
        """Reload on request, until cancelled. Requests during a reload share the next one."""
        waiting: list[asyncio.Future[Problems]] = []
        try:
            while True:
                await self._requested.wait()
                self._requested.clear()
                waiting, self._waiting = self._waiting, []
                problems = await self._once()
                await self._publisher.publish()
                _answer(waiting, problems)
        finally:
            self._has_ended = True
            _answer([*waiting, *self._waiting], SHUTTING_DOWN)

    async def _once(self) -> Problems:
        problems: Problems = ()
        try:
            settings = await asyncio.to_thread(self._read)
            changes = await self._discovery.configure(settings, look_up=True)
        except ConfigError as error:
            problems = error.problems
        except OSError as error:
            problems = (str(error),)
        except Exception:  # a bug in reading a file must not end a running exporter
            log.exception("the configuration could not be read, please report it")
            problems = ("internal error, see the log",)
        else:
            log_changes("configuration reloaded", changes)
            if settings.log != self._settings.log:
                logs.setup(settings.log.level, settings.log.format)
            if settings.metrics != self._settings.metrics:
                self._publisher.deny(settings.metrics.deny)
            self._settings = settings
        for problem in problems:
            log.error("configuration not reloaded, keeping the previous one: %s", problem)
        self._succeeded.set(not problems)
        return problems

    def _read(self) -> Settings:
        _refuse_pipe(self._settings.config.file)
        settings = self._load()
        if names := needing_restart(self._settings, settings):
            raise ConfigError(*(f"{name}: changed; restart to apply" for name in names))
        return settings


def _refuse_pipe(file: str | None) -> None:
    """Refuse pipes: a second read would block forever."""
    try:
        if file is not None and not stat.S_ISREG(Path(file).stat().st_mode):
            raise ConfigError(f"config.file: {file} cannot be read again; use a regular file")
    except OSError:
        return  # reading it will report the error


def _answer(waiting: Sequence[asyncio.Future[Problems]], problems: Problems) -> None:
    for done in waiting:
        if not done.done():
            done.set_result(problems)
