"""The command line: commands, their help, and the options that belong to one command only.

argparse reads the command and its own options and leaves all other words alone. The options of the
configuration are read by `exporter.settings.sources.flags`, which argparse cannot replace: it stops
at the first problem and quotes what it does not know, while a misspelled flag may carry a secret;
and it keeps no origins. That is also why argparse does not know ``-h``: it would quote the rest of
``-hunter2``. The command is found before argparse runs, since ``serve`` may be left out, and
argparse would take the value of a flag for the command.
"""

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, NoReturn

from exporter.errors import ConfigError
from exporter.settings.options import help_text as settings_help
from exporter.settings.problems import nearest, printable, unknown
from exporter.settings.sources import flags

PROGRAM = "modelarts-exporter"
DEFAULT_COMMAND = "serve"
COMMANDS = {
    "serve": "poll the targets and serve their metrics (default)",
    "demo": "serve the metrics of a simulated service; no account needed",
    "check": "check the configuration and every target, and print the cost of polls",
    "dump": "poll once and write the metrics to standard output",
    "backfill": "write the job history as OpenMetrics with timestamps, for promtool",
    "simulate": "run the simulated service alone, for tests",
    "completion": "print a completion script for bash, fish or zsh",
    "help": "show the help of a command",
    "version": "print the version",
}
CONFIGURABLE = ("serve", "demo", "check", "dump", "backfill")
"""The commands that take the options of the configuration too."""

_EXIT_CODES = "Exit code: 0 = ok, 1 = a target failed, 2 = bad configuration, 130 = interrupted."
_DETAILS = {
    "serve": "It runs until SIGTERM or SIGINT. SIGHUP reloads the configuration.",
    "demo": "Targets and credentials in the environment are ignored. It polls every 5 seconds,\n"
    "and listens on 127.0.0.1:9978 unless --web.listen-address is given.",
    "check": "It examines the state file and the listen addresses, signs in, reads the job list\n"
    f"and polls once more. It changes nothing.\n{_EXIT_CODES}",
    "dump": _EXIT_CODES,
    "backfill": f"See docs/backfill.md.\n{_EXIT_CODES}",
    "simulate": "It runs until SIGTERM or SIGINT.",
    "completion": "To load it:\n\n"
    f"  bash  source <({PROGRAM} completion bash)\n"
    f"  fish  {PROGRAM} completion fish | source\n"
    f"  zsh   source <({PROGRAM} completion zsh)",
}
_PLAIN_FLAG = re.compile("--[a-z_-]+")
"""A flag without a dot. All options of the configuration have one."""


class Parser(argparse.ArgumentParser):
    """Reports problems as `ConfigError`."""

    def error(self, message: str) -> NoReturn:
        """Raise the problem."""
        raise ConfigError(message.removeprefix("argument "))


class CommandLine(NamedTuple):
    """A command, its own arguments, and the options of the configuration, not read yet."""

    command: str
    arguments: argparse.Namespace
    options: Sequence[str] = ()


def parse(words: Sequence[str]) -> CommandLine:
    """Read a command line.

    Raises:
        ConfigError: the command is unknown, or its own arguments are invalid.
    """
    given = words[0] if words and not words[0].startswith("-") else None
    if "--version" in words:
        return CommandLine("version", argparse.Namespace())
    name = _known_command(DEFAULT_COMMAND if given is None else given)
    if {"-h", "--help"} & set(words):
        return CommandLine("help", argparse.Namespace(topic=given))
    root, (parser,) = build([name])
    arguments, rest = root.parse_known_args([name, *words[given is not None :]])
    _refuse_misspelled(rest, parser)
    if rest and name not in CONFIGURABLE:
        raise ConfigError(*flags(rest, ()).problems)
    if name == "help" and arguments.topic is not None:
        _known_command(arguments.topic)
    return CommandLine(name, arguments, rest)


def build(names: Iterable[str]) -> tuple[Parser, list[Parser]]:
    """Return the parser of the command line and those of some commands.

    Only some, since the arguments of ``demo`` and ``simulate`` import the simulator. ``serve`` does
    without: it starts faster and needs less memory.
    """
    root = Parser(prog=PROGRAM, add_help=False)
    commands = root.add_subparsers(dest="command", required=True)
    parsers = []
    for name in names:
        summary = COMMANDS[name]
        parser = commands.add_parser(
            name,
            add_help=False,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            usage=f"{PROGRAM} {name} [--OPTION VALUE ...]" if name in CONFIGURABLE else None,
            description=f"{summary[:1].upper()}{summary[1:]}.\n{_DETAILS.get(name, '')}",
        )
        _add_arguments(parser, name)
        parsers.append(parser)
    return root, parsers


def _add_arguments(parser: Parser, name: str) -> None:
    if name in ("demo", "simulate"):
        from exporter.simulator import command  # noqa: PLC0415 - see `build`

        command.add_arguments(parser, listening=name == "simulate")
    elif name == "backfill":
        from exporter.commands.backfill import options  # noqa: PLC0415 - likewise

        options.add_arguments(parser)
    elif name == "check":
        _add_check_arguments(parser)
    elif name == "completion":
        parser.add_argument("shell", metavar="SHELL", choices=("bash", "fish", "zsh"))
    elif name == "help":
        parser.add_argument("topic", metavar="COMMAND", nargs="?")


def _add_check_arguments(parser: Parser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--quick", action="store_true", help="read one page of the job list only, not all of it"
    )
    how.add_argument(
        "--offline",
        action="store_true",
        help="check the configuration, files and addresses only; send nothing",
    )
    parser.add_argument(
        "--output", choices=("text", "json"), default="text", help="format (default: text)"
    )


def _known_command(name: str) -> str:
    if name not in COMMANDS:
        near = nearest(name, COMMANDS)
        hint = f"did you mean {near}?" if near else f"use {', '.join(COMMANDS)}"
        raise ConfigError(f'unknown command "{printable(name)}"; {hint}')
    return name


def own_actions(parser: Parser) -> list[argparse.Action]:
    """Return the arguments that belong to the command itself."""
    return parser._actions  # noqa: SLF001 - argparse has no public list


def _refuse_misspelled(rest: Sequence[str], parser: Parser) -> None:
    """Suggest the command's own flag for one that is not an option of the configuration."""
    own = [flag for action in own_actions(parser) for flag in action.option_strings]
    for flag in (word.partition("=")[0] for word in rest):
        near = nearest(flag, own, prefix="--") if _PLAIN_FLAG.fullmatch(flag) else None
        if near:
            raise ConfigError(unknown(f"flag {flag}", near))


def help_text(command: str | None = None) -> str:
    """Return the help of a command; None = the list of commands."""
    if command is None:
        return _overview()
    _, (parser,) = build([command])
    if command == DEFAULT_COMMAND:
        parser.epilog = settings_help()
    elif command in CONFIGURABLE:
        parser.epilog = f"It also takes all options of {DEFAULT_COMMAND}: {PROGRAM} help serve"
    return parser.format_help().rstrip()


def _overview() -> str:
    commands = "\n".join(f"  {name:<12}{summary}" for name, summary in COMMANDS.items())
    return f"""\
usage: {PROGRAM} [COMMAND] [--OPTION VALUE ...]

Prometheus exporter for training jobs on Huawei Cloud ModelArts.

Commands:
{commands}

Options of every command:
  -h, --help  show the help of the command
  --version   print the version

To list the options of the configuration: {PROGRAM} help {DEFAULT_COMMAND}
To try it without an account: {PROGRAM} demo"""
