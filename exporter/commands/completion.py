"""Completion scripts for shells, generated from the tables of commands and options."""

from argparse import Action
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from exporter.commands.parser import (
    COMMANDS,
    CONFIGURABLE,
    DEFAULT_COMMAND,
    PROGRAM,
    build,
    own_actions,
)
from exporter.settings.options import options


class _Flag(NamedTuple):
    """A flag; ``value`` is a placeholder, "" if it takes none."""

    name: str
    help: str
    value: str = ""
    choices: tuple[str, ...] = ()


_HELP, _VERSION = _Flag("--help", "show the help"), _Flag("--version", "print the version")


def script(shell: str) -> str:
    """Return the completion script for bash, fish or zsh."""
    flags: dict[_Flag, list[str]] = {}  # with the commands that take it
    words: dict[str, Sequence[str]] = {}  # positional arguments of a command
    _, parsers = build(COMMANDS)
    for name, parser in zip(COMMANDS, parsers, strict=True):
        own = [_own_flag(action) for action in own_actions(parser) if action.option_strings]
        settings = _settings_flags() if name in CONFIGURABLE else ()
        for flag in (*own, _HELP, _VERSION, *settings):
            flags.setdefault(flag, []).append(name)
        positional = [action for action in own_actions(parser) if not action.option_strings]
        words[name] = [word for action in positional for word in action.choices or COMMANDS]
    if shell == "fish":
        return _fish(flags, words)
    prefix = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return f"# {shell} completion for {PROGRAM}\n{prefix}{_bash(flags, words)}"


def _own_flag(action: Action) -> _Flag:
    value = "" if action.nargs == 0 else action.metavar or "VALUE"
    choices = tuple(action.choices or ())
    return _Flag(action.option_strings[0], _sentence(action.help or ""), str(value), choices)


def _settings_flags() -> Iterator[_Flag]:
    for option in options():
        text = _sentence(option.help)
        _, _, choices = option.type.name.partition("one of ")
        value = "" if option.no_flag else "PATH" if option.type.path else "VALUE"
        if option.flag:
            yield _Flag(option.flag, text, value, tuple(choices.split(", ")) if choices else ())
        if option.no_flag:
            yield _Flag(option.no_flag, text)


def _sentence(text: str) -> str:
    """Return the first sentence, without quotes and defaults."""
    return text.partition(". ")[0].partition(" (default")[0].strip(".").translate({39: None})


_BASH = """\
_modelarts_exporter() {
    local current=${COMP_WORDS[COMP_CWORD]} flag=${COMP_WORDS[COMP_CWORD - 1]}
    local command=%(default)s words=
    # bash splits --flag=value into three words.
    [[ $flag == = ]] && flag=${COMP_WORDS[COMP_CWORD - 2]}
    [[ $current == = ]] && current=
    [[ $COMP_CWORD -gt 1 && ${COMP_WORDS[1]} != -* ]] && command=${COMP_WORDS[1]}
    COMPREPLY=()
    case $flag in
%(choices)s
        %(values)s) return ;;
        *) case $command in
%(commands)s
        esac ;;
    esac
    [[ $COMP_CWORD -eq 1 ]] && words="%(names)s $words"
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _modelarts_exporter %(program)s"""
"""File names come from the shell itself, where there is nothing else to offer."""


def _bash(flags: Mapping[_Flag, list[str]], words: Mapping[str, Sequence[str]]) -> str:
    offered = {
        name: [*words[name], *(flag.name for flag, takers in flags.items() if name in takers)]
        for name in COMMANDS
    }
    return _BASH % {
        "default": DEFAULT_COMMAND,
        "choices": _cases({flag.name: flag.choices for flag in flags if flag.choices}),
        "values": "|".join(flag.name for flag in flags if flag.value and not flag.choices),
        "commands": _cases(offered),
        "names": " ".join(COMMANDS),
        "program": PROGRAM,
    }


def _cases(words: Mapping[str, Sequence[str]]) -> str:
    return "\n".join(f'        {name}) words="{" ".join(each)}" ;;' for name, each in words.items())


def _fish(flags: Mapping[_Flag, list[str]], words: Mapping[str, Sequence[str]]) -> str:
    lines = ["-f"]
    for name, summary in COMMANDS.items():
        text = _sentence(summary)
        lines.append(f"-n __fish_use_subcommand -a {name} -d '{text}'")
        if words[name]:
            lines.append(f"-n '__fish_seen_subcommand_from {name}' -a '{' '.join(words[name])}'")
    for flag, takers in flags.items():
        others = " ".join(name for name in COMMANDS if name not in takers)
        seen = f"-n '__fish_seen_subcommand_from {' '.join(takers)}'"
        if DEFAULT_COMMAND in takers:
            seen = f"-n 'not __fish_seen_subcommand_from {others}'" if others else ""
        value = " -r -F" if flag.value in {"DIR", "PATH"} else " -x" if flag.value else ""
        choices = f" -a '{' '.join(flag.choices)}'" if flag.choices else ""
        lines.append(f"{seen} -l {flag.name[2:]}{value}{choices} -d '{flag.help}'")
    return "\n".join(f"complete -c {PROGRAM} {line}" for line in lines)
