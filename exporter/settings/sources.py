"""Flags and environment variables, each as a layer of values with their origins."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Secret

from exporter.settings.options import PREFIX, Option
from exporter.settings.problems import (
    OptionPath,
    is_plausible_key,
    nearest,
    printable,
    problem,
    unknown,
)
from exporter.settings.secret_types import SECRET_FILE
from exporter.settings.types import (
    BOOLEAN,
    BOOLEAN_WORDS,
    OptionType,
    without_path,
)

_UNSAFE = re.compile(r"[^A-Za-z0-9._-].*", re.DOTALL)
"""The part of an unknown flag that is not shown, because it may be a secret."""

# Kubernetes describes every service to every pod with such variables, and a service is usually
# named modelarts-exporter.
_SERVICE = re.compile(
    r"(?:[A-Z0-9_]*_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?"
    r"|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:ADDR|PORT|PROTO))?)"
)
_PORT = re.compile(r"(?:[A-Z0-9_]*_)?PORT")
_PORT_VALUE = re.compile(r"(?:tcp|udp|sctp)://.*")


@dataclass
class Layer:
    """The values from one source.

    Attributes:
        values: nested like `Settings`.
        origins: where each value comes from, for people.
        problems: found so far, one line each.
        incomplete: the source, or a part of it, could not be read; missing values may be there.
    """

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[OptionPath, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    incomplete: bool = False

    def put(self, path: OptionPath, value: object, origin: str) -> None:
        """Set the value of an option."""
        group: dict[Any, Any] = self.values
        for name in path[:-1]:
            group = group.setdefault(name, {})
        group[path[-1]] = value
        self.origins[path] = origin


def wrapped(option_type: OptionType, value: object) -> object:
    """The value; a hidden one inside a `Secret`, so that printing a layer does not show it."""
    return Secret(value) if option_type.hidden else value


def merged(layers: Iterable[Layer]) -> tuple[dict[str, Any], dict[OptionPath, str]]:
    """The values of all layers, and their origins; the first layer wins."""
    values: dict[str, Any] = {}
    origins: dict[OptionPath, str] = {}
    for layer in layers:
        values, origins = _merged(values, layer.values), layer.origins | origins
    return values, origins


def _merged(upper: Any, lower: Any) -> Any:
    """Merge mappings. The lower layer may have values for items of a list, by position."""
    if isinstance(upper, dict) and isinstance(lower, dict):
        return lower | {name: _merged(value, lower.get(name)) for name, value in upper.items()}
    if isinstance(upper, list) and isinstance(lower, dict):
        return [_merged(item, lower.get(position)) for position, item in enumerate(upper)]
    return upper


# --- flags ----------------------------------------------------------------------------------------


def flags(arguments: Sequence[str], options: Sequence[Option]) -> Layer:
    """The values given on the command line."""
    reader = _FlagReader(options)
    reader.read(list(arguments))
    return reader.layer


class _FlagReader:
    """Reads a command line from left to right.

    Unexpected arguments are quoted only where they cannot be part of a secret.
    """

    def __init__(self, options: Sequence[Option]) -> None:
        self.layer = Layer()
        self._known = {option.flag: option for option in options if option.flag}
        self._negated = {option.no_flag: option for option in options if option.no_flag}
        self._forbidden = {
            f"--{option.name.replace('_', '-')}": option for option in options if not option.flag
        }
        self._rest: list[str] = []
        self._may_be_secret = False  # the words that follow

    def read(self, arguments: list[str]) -> None:
        self._rest = arguments
        while self._rest:
            word = self._rest.pop(0)
            if word.startswith("-" * (1 + self._may_be_secret)) and word.strip("-"):
                self._flag(*word.partition("="))
            elif not self._may_be_secret:
                shown = printable(word.partition("=")[0]) + "=..." * ("=" in word)
                self._complain(f'unexpected argument "{shown}"')

    def _complain(self, line: str) -> None:
        self.layer.problems.append(line)

    def _flag(self, written: str, equals: str, value: str) -> None:
        name = written.replace("_", "-")
        shown = _UNSAFE.sub("...", written)
        if self._may_be_secret and not is_plausible_key(shown, (), among_secrets=False):
            shown = "--..."
        origin = f"flag {shown}"
        self._may_be_secret = True
        if option := self._known.get(name):
            self._may_be_secret = option.type.hidden or option.type is SECRET_FILE
            self._take(option, value if equals else self._following(option), f"flag {name}")
        elif option := self._negated.get(name):
            self._may_be_secret = False
            if equals:
                self._complain(f"{origin}: does not take a value")
            else:
                self._take(option, "false", f"flag {name}")
        elif option := self._forbidden.get(name):
            self._complain(_forbidden(option, name))
            if not equals and self._rest and not self._is_flag(self._rest[0]):
                self._rest.pop(0)
        else:
            near = nearest(name, [*self._known, *self._negated], prefix="--")
            self._complain(unknown(origin, near))

    def _is_flag(self, word: str) -> bool:
        name = word.partition("=")[0].replace("_", "-")
        return name in self._known | self._negated | self._forbidden

    def _following(self, option: Option) -> str | None:
        """The value that follows the flag; None if there is none."""
        following = self._rest[0] if self._rest else "--"
        if option.type is BOOLEAN:
            return self._rest.pop(0) if following.lower() in BOOLEAN_WORDS else "true"
        return None if following.startswith("--") else self._rest.pop(0)

    def _take(self, option: Option, value: str | None, origin: str) -> None:
        if value is None:
            self._complain(f"{origin}: missing value; use {option.flag} VALUE")
        elif option.path not in self.layer.origins:
            given = [value] if option.type.many else value
            self.layer.put(option.path, wrapped(option.type, given), origin)
        elif option.type.many:
            group = self.layer.values
            for name in option.path[:-1]:
                group = group[name]
            group[option.path[-1]].append(value)
        else:
            self._complain(problem(option.name, "given more than once", origin))


def _forbidden(option: Option, flag: str) -> str:
    """The line for an option that has no flag."""
    if not option.type.hidden:
        wrong = f"can only be set in the file; use {option.places}"
    else:
        places = option.places.replace(", or file key", ", file key")
        wrong = "cannot be set by a flag: it would be visible in the process list"
        wrong = f"{wrong}; use {places}, or flag {flag}-file"
    return problem(option.name, wrong, f"flag {flag}")


# --- environment ----------------------------------------------------------------------------------


def environment(environ: Mapping[str, str], options: Sequence[Option]) -> Layer:
    """The values given by environment variables. An empty variable counts as not set."""
    layer = Layer()
    known = {option.variable: option for option in options if option.variable}
    for name, value in sorted(environ.items()):
        if not name.upper().startswith(PREFIX):
            continue
        origin = f"environment variable {printable(name)}"
        if option := known.get(name):
            if value.strip():
                layer.put(option.path, wrapped(option.type, value), origin)
        elif name == f"{PREFIX}TARGETS":
            wrong = "can only be set in the file; use file key targets"
            layer.problems.append(problem("targets", wrong, origin))
        elif not _from_kubernetes(name.removeprefix(PREFIX), value):
            layer.problems.append(unknown(origin, nearest(name.upper(), known, prefix=PREFIX)))
    return layer


def _from_kubernetes(rest: str, value: str) -> bool:
    if "__" in rest:
        return False
    return bool(_SERVICE.fullmatch(rest) or (_PORT.fullmatch(rest) and _PORT_VALUE.match(value)))


def vendor(environ: Mapping[str, str], values: Mapping[str, Any]) -> Layer:
    """The project ID and the address of IAM, from the variables of Huawei Cloud's SDK.

    The project ID is used for a single target with one project only, the address of IAM for every
    target, without its path: other programs want ``/v3`` there, and the SDK ignores it.

    Args:
        environ: environment variables.
        values: those of the other sources.
    """
    layer = Layer()
    targets = _targets(values)
    for key in ("project_id", "iam_endpoint"):
        variable = f"HUAWEICLOUD_SDK_{key.upper()}"
        value = environ.get(variable, "").strip()
        if key == "iam_endpoint":
            value = without_path(value)
        elif len(targets) > 1:
            continue
        for path, target in targets.items() if value else ():
            if key == "iam_endpoint" or not target.get("projects"):
                layer.put((*path, key), value, f"environment variable {variable}")
    return layer


def _targets(values: Mapping[str, Any]) -> dict[OptionPath, Mapping[str, Any]]:
    """The targets that are configured, by their paths. ``targets_files`` may be all there is."""
    if "targets" in values:
        return {("targets", position): each for position, each in enumerate(values["targets"])}
    if "target" not in values and "targets_files" in values:
        return {}
    return {("target",): values.get("target", {})}
