"""The commands, and what their exit codes mean.

0: done, or ended by Ctrl-C or SIGTERM. 1: a target failed (``check``, ``dump``), the start failed,
or a bug ended the program. 2: the configuration or the command line can never work. 130: ``check``
or ``dump`` was interrupted before it was done.
"""

import argparse
import asyncio
import difflib
import itertools
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
from exporter.app import log
from exporter.app.exporter import Exporter, exporter
from exporter.commands import check
from exporter.commands.console import beside, progress, say, terminal_gone
from exporter.errors import ConfigError, StartError
from exporter.settings.load import load
from exporter.settings.options import help_text
from exporter.settings.schema import Settings
from exporter.web.config.file import check_file

PROGRAM = "modelarts-exporter"
_GOOD, _FAILED, _BAD_CONFIGURATION, _INTERRUPTED = 0, 1, 2, 130

_COMMANDS = {
    "serve": "poll the targets and serve their metrics (the default)",
    "demo": "the same, on a simulated service that it starts; no account needed",
    "check": "sign in to every target, search once, print what was found and what polls cost",
    "dump": "poll once, write the metrics to standard output",
    "backfill": "write the job history as OpenMetrics with timestamps, for promtool",
    "simulate": "the simulated service alone, for tests",
}

_logger = logging.getLogger(__name__)

load_settings = partial(load, check_web_config=check_file)
"""The configuration from flags, environment and files, the web configuration checked too."""


def main() -> int:
    """Run the command that the command line names; the exit code."""
    try:
        return run(sys.argv[1:], os.environ)
    except KeyboardInterrupt:  # before or after the event loop, which has handlers of its own
        return _INTERRUPTED


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command.

    Args:
        arguments: command and options.
        environ: environment variables.

    Returns:
        The exit code.
    """
    try:
        return _run(*_command(arguments), environ)
    except ConfigError as error:
        return _complain(error.problems)
    except StartError as error:
        return _complain([str(error)], _FAILED)
    except Exception:
        _logger.exception("ended by a bug, please report it")
        return _FAILED


def _run(name: str, options: Sequence[str], environ: Mapping[str, str]) -> int:
    if "--version" in options:
        say(f"{PROGRAM} {__version__}")
        return _GOOD
    runner: Callable[[Sequence[str], Mapping[str, str]], int] | None = {
        "serve": _serve,
        "demo": _demo,
        "check": _check,
        "dump": _dump,
        "backfill": _backfill,
        "simulate": _simulate,
    }.get(name)
    if runner is None:
        near = difflib.get_close_matches(name, _COMMANDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return _complain([f"no such command: {name}{hint} Commands: {', '.join(_COMMANDS)}"])
    if name != "simulate" and {"-h", "--help"} & set(options):
        say(_help(name))
        return _GOOD
    return runner(options, environ)


def _command(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    return "serve", arguments


def _complain(problems: Sequence[str], code: int = _BAD_CONFIGURATION) -> int:
    for problem in problems:
        print(f"{PROGRAM}: {problem}", file=sys.stderr)  # noqa: T201 - for people, not a log
    return code


def _help(name: str) -> str:
    commands = "\n".join(f"  {each:<10}{text}" for each, text in _COMMANDS.items())
    own = _own_help(name)
    return (
        f"usage: {PROGRAM} [COMMAND] [--OPTION VALUE ...]\n\n"
        "Prometheus exporter for training jobs on Huawei Cloud ModelArts.\n\n"
        f"Commands:\n{commands}\n\n{own}{help_text().rstrip()}"
    )


def _own_help(name: str) -> str:
    """The options that only this command has."""
    if name == "demo":
        text = _simulator_parser().format_help()
        return text.replace("options:", "demo: The simulated region.\n", 1) + "\n"
    if name == "backfill":
        from exporter.commands.backfill import options  # noqa: PLC0415 - only wanted here

        text = options.help_text()
        return text.replace("options:", "backfill: Which history, and where to.\n", 1) + "\n"
    return ""


# --- serve and demo -------------------------------------------------------------------------------


def _serve(options: Sequence[str], environ: Mapping[str, str]) -> int:
    return asyncio.run(_until_stopped(lambda signals: _serving(options, environ, signals)))


async def _serving(options: Sequence[str], environ: Mapping[str, str], signals: "_Signals") -> None:
    settings = _settings(options, environ)
    _logger.info("%s %s starts", PROGRAM, __version__, extra={"python": platform.python_version()})

    def started(urls: list[str]) -> None:
        for url in urls:
            _logger.info("serving %s%s", url, settings.web.telemetry_path)

    async with exporter(
        settings, environ, load=partial(load_settings, options, environ)
    ) as running:
        for poller in running.pollers:
            identity = poller.target.credentials.identity
            _logger.info("polling as %s", identity, extra={"target": poller.name})
        await running.run(signals.stop, started, signals.hangup)


def _demo(options: Sequence[str], environ: Mapping[str, str]) -> int:
    from exporter.commands import demo  # noqa: PLC0415 - see `_simulator_parser`

    simulator, rest = _simulator_parser().parse_known_args(options)
    load_settings(
        rest, demo.environment(environ, "http://127.0.0.1", simulator)
    )  # complain before work
    return asyncio.run(_until_stopped(partial(_demonstrating, simulator, rest, environ)))


async def _demonstrating(
    simulator: argparse.Namespace,
    options: Sequence[str],
    environ: Mapping[str, str],
    signals: "_Signals",
) -> None:
    from exporter.commands import demo  # noqa: PLC0415 - see `_simulator_parser`

    async with demo.make_service(simulator) as service:
        environ = demo.environment(environ, service.url, simulator)
        settings = _settings(options, environ)
        again = partial(load_settings, options, environ)
        listening: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

        async def narrate(running: Exporter) -> None:
            path, interval = settings.web.telemetry_path, settings.poll.interval
            await demo.narrate(running, service, await listening, path=path, interval=interval)

        async with (
            exporter(settings, environ, load=again) as running,
            beside(narrate(running)),
        ):
            try:
                await running.run(signals.stop, listening.set_result, signals.hangup)
            except StartError as error:
                raise StartError(f"{error}; choose with --web.listen-address") from error


def _simulator_parser() -> argparse.ArgumentParser:
    """The options of the simulated region, which is imported only where it is wanted.

    `serve` does without: it starts faster, and needs less memory.
    """
    from exporter.simulator import command as simulate  # noqa: PLC0415 - see above

    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} demo", usage=argparse.SUPPRESS, allow_abbrev=False, add_help=False
    )
    simulate.add_arguments(parser, listening=False)
    return parser


# --- check, dump, simulate ------------------------------------------------------------------------


def _check(options: Sequence[str], environ: Mapping[str, str]) -> int:
    settings = load_settings(options, environ)
    level = settings.log.level if _is_told(settings) else "error"  # the table says it all
    log.setup(level, settings.log.format)

    async def checking() -> int:
        poll = settings.poll
        async with exporter(
            settings, environ, keep_state=False, retry_unreachable=False
        ) as running:
            async with beside(_seconds("Signing in and reading the list of jobs")):
                await running.poll_once()
                good = await running.poll_once()  # shows what all further ones will cost
            report = check.report(
                running.pollers, interval=poll.interval, sweep_interval=poll.sweep_interval
            )
            say(report)
        return _GOOD if good else _FAILED

    return asyncio.run(_to_the_end(checking()))


async def _seconds(doing: str) -> None:
    """Show on a terminal that something is going on."""
    for second in itertools.count():
        progress(f"{doing}: {second} s ...")
        await asyncio.sleep(1)


def _dump(options: Sequence[str], environ: Mapping[str, str]) -> int:
    settings = _settings(options, environ)

    async def dumping() -> int:
        async with exporter(settings, environ, keep_state=False) as running:
            good = await running.poll_once()
            body = running.publisher.exposition.text
        say(_without_process(body))
        return _GOOD if good else _FAILED

    return asyncio.run(_to_the_end(dumping()))


def _without_process(body: bytes) -> bytes:
    """The families of the exporter, without those that every exporter has.

    In a file for node_exporter's textfile collector they would collide with its own.
    """
    lines = body.splitlines(keepends=True)
    ours = (b"modelarts_", b"# HELP modelarts_", b"# TYPE modelarts_")
    return b"".join(line for line in lines if line.startswith(ours))


def _backfill(options: Sequence[str], environ: Mapping[str, str]) -> int:
    from exporter.commands.backfill import command  # noqa: PLC0415 - as the simulator, see above
    from exporter.commands.backfill.options import parse  # noqa: PLC0415

    wanted, rest = parse(options)
    settings = load_settings(rest, environ)
    log.setup(settings.log.level if _is_told(settings) else "warning", settings.log.format)

    async def filling() -> int:
        try:
            await command.run(settings, environ, wanted, time.time)
        except command.UnreadableTargetsError as error:
            return _complain(error.problems, _FAILED)
        return _GOOD

    return asyncio.run(_to_the_end(filling()))


def _simulate(options: Sequence[str], _environ: Mapping[str, str]) -> int:
    from exporter.simulator import command as simulate  # noqa: PLC0415 - see `_simulator_parser`

    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} simulate",
        description="A simulated ModelArts service with a living world of training jobs.",
        allow_abbrev=False,
    )
    simulate.add_arguments(parser)
    return asyncio.run(simulate.run(parser.parse_args(options)))


# --- shared ---------------------------------------------------------------------------------------


def _settings(options: Sequence[str], environ: Mapping[str, str]) -> Settings:
    settings = load_settings(options, environ)
    log.setup(settings.log.level, settings.log.format)
    return settings


def _is_told(settings: Settings) -> bool:
    """Whether somebody wants another log than the usual one."""
    return "level" in settings.log.model_fields_set


class _Signals:
    """What the work is told by signals.

    Attributes:
        stop: is set by SIGINT and SIGTERM, and when the terminal is closed.
        hangup: is set by every other SIGHUP.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hangup = asyncio.Event()
        self._gone = terminal_gone()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._end, number)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    def _end(self, number: signal.Signals) -> None:
        if not self.stop.is_set():
            _logger.info("%s received, stopping", number.name)
        self.stop.set()

    def _hang_up(self) -> None:
        if self._gone():
            self.stop.set()  # there is nobody to tell
        else:
            _logger.info("SIGHUP received, reloading the configuration")
            self.hangup.set()


async def _until_stopped(work: Callable[[_Signals], Coroutine[Any, Any, None]]) -> int:
    """Do the work until SIGINT or SIGTERM."""
    await work(_Signals())
    return _GOOD


async def _to_the_end(work: Coroutine[Any, Any, int]) -> int:
    """Do the work; SIGINT or SIGTERM gives it up."""
    task = asyncio.create_task(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return _INTERRUPTED
