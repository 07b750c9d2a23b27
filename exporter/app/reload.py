"""The configuration read again while the program runs: all of it is taken over, or nothing."""

import asyncio
import logging
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from exporter.app import log as logs
from exporter.app.factory import SharedParts, TargetPlan, needing_restart, plans
from exporter.app.pollers import Changes, Pending, PollerManager
from exporter.errors import ConfigError
from exporter.settings.schema import Settings
from exporter.web.publisher import Publisher

log = logging.getLogger(__name__)

Problems = Sequence[str]
"""A line for each; none: all is well."""

ENDING = ("the exporter is being stopped",)


class Reloader:
    """Reads the configuration again when somebody asks, one time after the other.

    Args:
        settings: in force.
        load: what they would be if the program was started now; slow, called beside the event loop.
        shared: what all targets have in common.
        pollers: who polls.
        publisher: shows how it went.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        shared: SharedParts,
        pollers: PollerManager,
        publisher: Publisher,
    ) -> None:
        self._settings = settings
        self._load = load
        self._shared = shared
        self._pollers = pollers
        self._publisher = publisher
        self._succeeded = shared.instruments.config_reload
        self._wanted = asyncio.Event()
        self._waiting: list[asyncio.Future[Problems]] = []
        self._ended = False

    def want(self) -> None:
        """Ask, and do not wait."""
        self._wanted.set()

    async def ask(self) -> Problems:
        """What hinders, once a reload that was begun after this call has ended and is published."""
        if self._ended:
            return ENDING
        done: asyncio.Future[Problems] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._wanted.set()
        return await done

    async def run(self) -> None:
        """Do what is asked for, for ever; those who ask while one is under way share the next."""
        waiting: list[asyncio.Future[Problems]] = []
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                waiting, self._waiting = self._waiting, []
                problems = await self._once()
                await self._publisher.publish()
                _answer(waiting, problems)
        finally:
            self._ended = True
            _answer([*waiting, *self._waiting], ENDING)

    async def _once(self) -> Problems:
        problems: Problems = ()
        try:
            settings, draft = await self._prepared()
        except ConfigError as error:
            problems = error.problems
        except OSError as error:
            problems = (str(error),)
        except Exception:  # a bug in reading a file must not end what runs well
            log.exception("the configuration could not be read, please report it")
            problems = ("internal error, see the log",)
        else:
            _tell(await self._pollers.adopt(draft))
            if settings.log != self._settings.log:
                logs.setup(settings.log.level, settings.log.format)
            self._settings = settings
        for problem in problems:
            log.error("configuration not reloaded, the old one stays: %s", problem)
        self._succeeded.set(not problems)
        return problems

    async def _prepared(self) -> tuple[Settings, Pending]:
        """All that can fail, before anything changes."""
        settings, wanted = await asyncio.to_thread(self._read)
        return settings, await self._pollers.draft(wanted)

    def _read(self) -> tuple[Settings, list[TargetPlan]]:
        _again(self._settings.config.file)
        settings = self._load()
        if names := needing_restart(self._settings, settings):
            raise ConfigError(*(f"{name}: is different; valid: a restart" for name in names))
        return settings, plans(settings, self._shared.environ)


def _again(file: str | None) -> None:
    """A pipe can be read once, and then waits for ever."""
    try:
        if file is not None and not stat.S_ISREG(Path(file).stat().st_mode):
            raise ConfigError(f"config.file: {file} cannot be read again; valid: a regular file")
    except OSError:
        return  # who reads it says what is wrong


def _answer(waiting: Sequence[asyncio.Future[Problems]], problems: Problems) -> None:
    for done in waiting:
        if not done.done():
            done.set_result(problems)


def _tell(changes: Changes) -> None:
    told = changes._asdict()
    numbers = ", ".join(f"{len(pollers)} {how}" for how, pollers in told.items())
    names = {how: ",".join(each.name for each in some) for how, some in told.items() if some}
    log.info("configuration reloaded, targets: %s", numbers, extra=names)
    for poller in (*changes.added, *changes.changed):
        identity = poller.target.credentials.identity
        log.info("polling as %s", identity, extra={"target": poller.name})
