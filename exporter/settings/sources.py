"""Flags and environment variables, each as a layer of values with their origins."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Secret

from exporter.settings.options import PREFIX, Option
from exporter.settings.problems import OptionPath, nearest, printable, problem, unknown
from exporter.settings.types import BOOLEAN, OptionType

_UNSAFE = re.compile(r"[^A-Za-z0-9._-].*", re.DOTALL)
"""The rest of an unknown flag that is not shown: it may be a secret."""

_WORDS = {"true", "false", "yes", "no", "on", "off", "1", "0"}

# Kubernetes tells every pod of each service like this; a service named modelarts-exporter is usual.
_SERVICE = re.compile(
    r"(?:[A-Z0-9_]*_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?"
    r"|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:ADDR|PORT|PROTO))?)"
)
_PORT = re.compile(r"(?:[A-Z0-9_]*_)?PORT")
_PORT_VALUE = re.compile(r"(?:tcp|udp|sctp)://.*")


@dataclass
class Layer:
    """What one source says.

    Attributes:
        values: a tree as `Settings` has it.
        origins: where each value comes from, for people.
        problems: what is wrong already, one line each.
        unread: nothing could be read, so that what is missing may be there.
    """

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[OptionPath, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unread: bool = False

    def put(self, option: Option, value: object, origin: str) -> None:
        """Remember a value."""
        group = self.values
        for name in option.path[:-1]:
            group = group.setdefault(name, {})
        group[option.path[-1]] = wrapped(option.kind, value)
        self.origins[option.path] = origin


def wrapped(kind: OptionType, value: object) -> object:
    """The value; if it must not be shown, so that nothing that prints a layer shows it."""
    return Secret(value) if kind.hidden else value


# --- flags ----------------------------------------------------------------------------------------


def flags(arguments: Sequence[str], options: Sequence[Option]) -> Layer:
    """What the command line says."""
    reader = _Flags(options)
    reader.read(list(arguments))
    return reader.layer


class _Flags:
    """Reads a command line from left to right.

    Words that belong to no flag are quoted only where they cannot be part of a secret.
    """

    def __init__(self, options: Sequence[Option]) -> None:
        self.layer = Layer()
        self._known = {option.flag: option for option in options if option.flag}
        self._no = {option.no_flag: option for option in options if option.no_flag}
        self._never = {
            f"--{option.name.replace('_', '-')}": option for option in options if not option.flag
        }
        self._rest: list[str] = []
        self._quiet = False  # the words that follow may be a secret

    def read(self, arguments: list[str]) -> None:
        self._rest = arguments
        while self._rest:
            word = self._rest.pop(0)
            if word.startswith("-" * (1 + self._quiet)) and word.strip("-"):
                self._flag(*word.partition("="))
            elif not self._quiet:
                self._complain(f'"{printable(word)}" belongs to no flag; valid: --OPTION VALUE')

    def _complain(self, line: str) -> None:
        self.layer.problems.append(line)

    def _flag(self, written: str, equals: str, value: str) -> None:
        name = written.replace("_", "-")
        origin = f"flag {_UNSAFE.sub('...', written)}"
        self._quiet = True
        if option := self._known.get(name):
            self._quiet = option.kind.hidden
            self._take(option, value if equals else self._following(option), f"flag {name}")
        elif option := self._no.get(name):
            self._quiet = False
            if equals:
                self._complain(f"{origin}: takes no value; valid: {name}")
            else:
                self._take(option, "false", f"flag {name}")
        elif option := self._never.get(name):
            self._complain(_not_a_flag(option, f"flag {name}"))
            if not equals and self._rest and not self._is_flag(self._rest[0]):
                self._rest.pop(0)
        else:
            self._complain(unknown(origin, nearest(name, [*self._known, *self._no], prefix="--")))

    def _is_flag(self, word: str) -> bool:
        return word.partition("=")[0].replace("_", "-") in self._known | self._no | self._never

    def _following(self, option: Option) -> str | None:
        """The value that follows; None if there is none."""
        following = self._rest[0] if self._rest else "--"
        if option.kind is BOOLEAN:
            return self._rest.pop(0) if following.lower() in _WORDS else "true"
        return None if following.startswith("--") else self._rest.pop(0)

    def _take(self, option: Option, value: str | None, origin: str) -> None:
        given = self.layer.origins.get(option.path)
        if value is None:
            self._complain(f"{origin}: has no value; valid: {option.flag} VALUE")
        elif given is None:
            self.layer.put(option, [value] if option.kind.many else value, origin)
        elif option.kind.many:
            group = self.layer.values
            for name in option.path[:-1]:
                group = group[name]
            group[option.path[-1]].append(value)
        else:
            self._complain(f"{option.name}: is given twice; valid: once (from {origin})")


def _not_a_flag(option: Option, origin: str) -> str:
    if not option.kind.hidden:
        return problem(option.name, f"only in the file; valid: {option.places}", origin)
    valid = f"{option.places}, or flag {origin.removeprefix('flag ')}-file"
    wrong = "not as a flag, process lists show it"
    return problem(
        option.name, f"{wrong}; valid: {valid.replace(', or file key', ', file key')}", origin
    )


# --- environment ----------------------------------------------------------------------------------


def environment(environ: Mapping[str, str], options: Sequence[Option]) -> Layer:
    """What the environment says. An empty variable says nothing."""
    layer = Layer()
    known = {option.variable: option for option in options if option.variable}
    for name, value in sorted(environ.items()):
        if not name.upper().startswith(PREFIX):
            continue
        origin = f"environment variable {printable(name)}"
        if option := known.get(name):
            if value.strip():
                layer.put(option, value, origin)
        elif name == f"{PREFIX}TARGETS":
            layer.problems.append(
                problem("targets", "only in the file; valid: file key targets", origin)
            )
        elif not _from_kubernetes(name.removeprefix(PREFIX), value):
            layer.problems.append(unknown(origin, nearest(name.upper(), known, prefix=PREFIX)))
    return layer


def _from_kubernetes(rest: str, value: str) -> bool:
    if "__" in rest:
        return False
    return bool(_SERVICE.fullmatch(rest) or (_PORT.fullmatch(rest) and _PORT_VALUE.match(value)))


def vendor(environ: Mapping[str, str], options: Sequence[Option], file: Layer) -> Layer:
    """What the vendor's own variables say of where the target is.

    The project id goes with a single target only, IAM's address with all. Of several targets, those
    that the file lists, the values are put beside what the file says.
    """
    layer = Layer()
    targets = file.values.get("targets")
    for key in ("project_id", "iam_endpoint"):
        name = f"HUAWEICLOUD_SDK_{key.upper()}"
        value = environ.get(name, "").strip()
        option = next(option for option in options if option.path == ("target", key))
        if not value:
            continue
        if targets is None:
            layer.put(option, value, f"environment variable {name}")
        elif key == "iam_endpoint" or len(targets) == 1:
            for position, target in enumerate(targets):
                if key not in target:
                    target[key] = value
                    file.origins["targets", position, key] = f"environment variable {name}"
    return layer
