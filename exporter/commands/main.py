"""The commands, and what their exit codes mean.

0: done, or ended by Ctrl-C or SIGTERM. 1: a target failed (``check``, ``dump``), the start failed,
or a bug ended the program. 2: the configuration or the command line is invalid. 130: ``check``,
``dump`` or ``backfill`` was interrupted before it was done.
"""

import asyncio
import logging
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from exporter import __version__
from exporter.app.exporter import Exporter, exporter
from exporter.app.log import setup as setup_log
from exporter.commands import check
from exporter.commands.console import (
    in_background,
    open_standard_streams,
    print_note,
    print_output,
    terminal_watcher,
)
from exporter.commands.discovered import discovered
from exporter.commands.parser import PROGRAM, CommandLine, help_text, parse
from exporter.commands.preflight import preflight
from exporter.commands.signals import on_signal
from exporter.errors import ConfigError, StartError
from exporter.settings.load import load
from exporter.settings.options import PREFIX
from exporter.settings.schema import Settings
from exporter.web.config.file import check_file

_SUCCESS, _FAILURE, _INVALID, _INTERRUPTED = 0, 1, 2, 130

log = logging.getLogger(__name__)

load_settings = partial(load, check_web_config=check_file)
"""Load the configuration from flags, environment and files; check the web configuration too."""


def main() -> int:
    """Run the command of the command line and return the exit code."""
    open_standard_streams()
    try:
        return run(sys.argv[1:], os.environ)
    except KeyboardInterrupt:  # before or after the event loop, which has handlers of its own
        return _INTERRUPTED


def run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command.

    Args:
        words: command and options.
        environ: environment variables.

    Returns:
        The exit code.
    """
    try:
        line = parse(words)
        runner: Callable[[CommandLine, Mapping[str, str]], int] = {
            "serve": _serve,
            "demo": _demo,
            "check": _check,
            "dump": _dump,
            "backfill": _backfill,
            "simulate": _simulate,
            "completion": _print,
            "help": _print,
            "version": _print,
        }[line.command]
        return runner(line, environ)
    except ConfigError as error:
        bare = not words and not any(name.startswith(PREFIX) for name in environ)
        hint = [f"to try it without an account, run {PROGRAM} demo"] if bare else []
        return _print_errors([*error.problems, *hint], _INVALID)
    except StartError as error:
        return _print_errors([str(error)], _FAILURE)
    except Exception:
        log.exception("ended by a bug, please report it")
        return _FAILURE


def _print_errors(problems: Sequence[str], code: int) -> int:
    for problem in problems:
        print_note(f"{PROGRAM}: {problem}")
    return code


def _print(line: CommandLine, _environ: Mapping[str, str]) -> int:
    if line.command == "completion":
        from exporter.commands.completion import script  # noqa: PLC0415 - rarely used

        print_output(script(line.arguments.shell))
    elif line.command == "help":
        print_output(help_text(line.arguments.topic))
    else:
        print_output(f"{PROGRAM} {__version__}")
    return _SUCCESS


# --- serve and demo -------------------------------------------------------------------------------


def _serve(line: CommandLine, environ: Mapping[str, str]) -> int:
    asyncio.run(_run_serve(line.options, environ))
    return _SUCCESS


async def _run_serve(options: Sequence[str], environ: Mapping[str, str]) -> None:
    signals = _SignalEvents()
    settings = _load_and_log(options, environ)
    log.info("%s %s starts", PROGRAM, __version__, extra={"python": platform.python_version()})

    def started(urls: list[str]) -> None:
        for url in urls:
            log.info("serving %s%s", url, settings.web.telemetry_path)

    async with exporter(
        settings, environ, load=partial(load_settings, options, environ)
    ) as running:
        for poller in running.pollers:
            identity = poller.target.credentials.identity
            log.info("polling as %s", identity, extra={"target": poller.name})
        await running.run(signals.stop, started, signals.hangup)


def _demo(line: CommandLine, environ: Mapping[str, str]) -> int:
    from exporter.commands import demo  # noqa: PLC0415 - imports the simulator, see parser.build

    # Report problems before the simulated region is made, which takes a moment.
    load_settings(line.options, demo.environment(environ, "http://127.0.0.1", line.arguments))
    asyncio.run(_run_demo(line, environ))
    return _SUCCESS


async def _run_demo(line: CommandLine, environ: Mapping[str, str]) -> None:
    from exporter.commands import demo  # noqa: PLC0415 - see above

    signals = _SignalEvents()
    async with demo.make_service(line.arguments) as service:
        environ = demo.environment(environ, service.url, line.arguments)
        settings = _load_and_log(line.options, environ)
        reload = partial(load_settings, line.options, environ)
        listening: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

        async def narrate(running: Exporter) -> None:
            path, interval = settings.web.telemetry_path, settings.poll.interval
            await demo.narrate(running, service, await listening, path=path, interval=interval)

        async with (
            exporter(settings, environ, load=reload) as running,
            in_background(narrate(running)),
        ):
            try:
                await running.run(signals.stop, listening.set_result, signals.hangup)
            except StartError as error:
                raise StartError(f"{error}; choose with --web.listen-address") from error


# --- check, dump, backfill, simulate --------------------------------------------------------------


def _check(line: CommandLine, environ: Mapping[str, str]) -> int:
    settings = _load_and_log(line.options, environ, quiet="error")  # the table has the errors
    notes = preflight(settings)
    arguments = line.arguments

    async def work() -> int:
        findings: list[check.Finding] = []
        looked_up = not arguments.offline
        # Also made with --offline: that a target has credentials is part of the configuration.
        async with exporter(
            settings, environ, keep_state=False, retry_unreachable=False, look_up=looked_up
        ) as running:
            found = discovered(running.discovery.targets, looked_up=looked_up)
            if looked_up and settings.shard.count > 1:
                notes.append(f"shard.index: this shard polls {len(running.pollers)} targets")
            if looked_up:
                findings = await check.read_targets(running, quick=arguments.quick)
        print_output(check.OUTPUTS[arguments.output](findings, notes, settings.poll, found))
        errors = [each.error for each in findings] + [each.error for each in found]
        return _FAILURE if any(errors) else _SUCCESS

    return asyncio.run(_interruptible(work()))


def _dump(line: CommandLine, environ: Mapping[str, str]) -> int:
    settings = _load_and_log(line.options, environ)

    async def work() -> int:
        async with exporter(settings, environ, keep_state=False, look_up=True) as running:
            succeeded = await running.poll_once() and not running.discovery.targets.problems
            body = running.publisher.exposition.text
        print_output(_without_process(body))
        return _SUCCESS if succeeded else _FAILURE

    return asyncio.run(_interruptible(work()))


def _without_process(body: bytes) -> bytes:
    """The families of the exporter, without those that every exporter has.

    In a file for node_exporter's textfile collector they would collide with its own.
    """
    lines = body.splitlines(keepends=True)
    ours = (b"modelarts_", b"# HELP modelarts_", b"# TYPE modelarts_")
    return b"".join(line for line in lines if line.startswith(ours))


def _backfill(line: CommandLine, environ: Mapping[str, str]) -> int:
    from exporter.commands.backfill import command  # noqa: PLC0415 - serve does without
    from exporter.commands.backfill.options import BackfillArguments  # noqa: PLC0415

    arguments = BackfillArguments.of(line.arguments)
    settings = _load_and_log(line.options, environ, quiet="warning")

    async def work() -> int:
        try:
            await command.run(settings, environ, arguments, time.time)
        except command.UnreadableTargetsError as error:
            return _print_errors(error.problems, _FAILURE)
        return _SUCCESS

    return asyncio.run(_interruptible(work()))


def _simulate(line: CommandLine, _environ: Mapping[str, str]) -> int:
    from exporter.simulator import command  # noqa: PLC0415 - see parser.build

    return asyncio.run(command.run(line.arguments))


# --- shared ---------------------------------------------------------------------------------------


def _load_and_log(
    options: Sequence[str], environ: Mapping[str, str], *, quiet: str | None = None
) -> Settings:
    """Load the settings and set up the log, at level ``quiet`` unless they give a level."""
    settings = load_settings(options, environ)
    given = "level" in settings.log.model_fields_set
    setup_log(quiet if quiet and not given else settings.log.level, settings.log.format)
    return settings


class _SignalEvents:
    """Signals as events.

    Attributes:
        stop: set by SIGINT and SIGTERM, and when the terminal is closed.
        hangup: set by every other SIGHUP.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hangup = asyncio.Event()
        self._terminal_closed = terminal_watcher()
        for number in (signal.SIGINT, signal.SIGTERM):
            on_signal(number, partial(self._on_stop, number))
        on_signal(signal.SIGHUP, self._on_hangup)

    def _on_stop(self, number: signal.Signals) -> None:
        if not self.stop.is_set():
            log.info("%s received, stopping", number.name)
        self.stop.set()

    def _on_hangup(self) -> None:
        if self.stop.is_set():
            return
        if self._terminal_closed():
            self.stop.set()  # nobody is left to read a log line
        else:
            log.info("SIGHUP received, reloading the configuration")
            self.hangup.set()


async def _interruptible(work: Coroutine[Any, Any, int]) -> int:
    """Do the work; the first SIGINT or SIGTERM cancels it, further ones do not disturb its end."""
    task = asyncio.create_task(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        on_signal(number, lambda: task.cancelling() or task.cancel())
    try:
        return await task
    except asyncio.CancelledError:
        return _INTERRUPTED
