"""The options as a list, for flags, variables, ``--help`` and docs."""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from exporter.settings.schema import Settings, TargetSettings
from exporter.settings.types import BOOLEAN, TARGETS, OptionType

PREFIX = "MODELARTS_EXPORTER_"
_WIDTH = 100


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option.

    Attributes:
        path: its place in the tree.
        type: of its value.
        default: as people write it, or in words with `backticks`; "" = required.
        help: what it means.
        in_file: whether it may be set in the configuration file.
        example: a value, for a required option.
    """

    path: tuple[str, ...]
    type: OptionType
    default: str
    help: str
    in_file: bool
    example: str

    @property
    def name(self) -> str:
        """``poll.interval``."""
        return ".".join(self.path)

    @property
    def group(self) -> str:
        """``poll``; "" for an option at the top level."""
        return ".".join(self.path[:-1])

    @property
    def flag(self) -> str | None:
        """``--poll.interval``; None if the value is secret (process lists show it) or not text."""
        return f"--{self.name.replace('_', '-')}" if self.type.flag else None

    @property
    def no_flag(self) -> str | None:
        """``--no-jobs.per-job``."""
        return f"--no-{self.name.replace('_', '-')}" if self.type is BOOLEAN else None

    @property
    def variable(self) -> str | None:
        """``MODELARTS_EXPORTER_POLL__INTERVAL``; None if the value cannot be written as text."""
        return None if self.type is TARGETS else PREFIX + "__".join(self.path).upper()

    @property
    def list_key(self) -> str | None:
        """``targets[].region``: its key in a list of targets; None if it is not a target's."""
        return f"targets[].{'.'.join(self.path[1:])}" if self.path[0] == "target" else None

    @property
    def places(self) -> str:
        """Where it can be set, for people."""
        places = [f"flag {self.flag}"] if self.flag else []
        if self.variable:
            places.append(f"environment variable {self.variable}")
        if self.in_file:
            places.append(f"file key {self.name}")
        last = f", or {places.pop()}" if len(places) > 1 else ""
        return ", ".join(places) + last


def options() -> tuple[Option, ...]:
    """Every option, in the order of the tree."""
    return tuple(_options(Settings, ()))


def groups() -> Iterator[tuple[str, str, tuple[Option, ...]]]:
    """The options by group: name and description of the group, and its options."""
    for name, found in groupby(options(), key=lambda option: option.group):
        yield name, _description(name), tuple(found)


def help_text() -> str:
    """All options, for ``--help``."""
    lines = []
    for name, description, found in groups():
        subject = description.replace('".', '" in docs/configuration.md.')  # a section there
        lines += [f"{name}: {subject}" if name else "More than one target:", ""]
        for option in found:
            lines += [f"  {_usage(option)}", *_wrapped(_meaning(option))]
        lines.append("")
    lines += _wrapped(
        "Every option can also be set by an environment variable (--poll.interval is "
        f"{PREFIX}POLL__INTERVAL) and in the file (poll: {{interval: 60s}}). Separate the items of "
        "a list by commas, or repeat the flag. "
        "Flags take precedence over environment variables, and those over the file.",
        indent="",
    )
    return "\n".join(lines) + "\n"


def _usage(option: Option) -> str:
    if option.flag is None:
        return f"{option.name} (no flag)"
    if option.no_flag:
        return f"{option.flag}, {option.no_flag}"
    name = option.type.name.removeprefix("list of ").upper().replace(" ", "-")
    return f"{option.flag} {'WORD' if _words(option) else name}"


def _meaning(option: Option) -> str:
    default = f"Default: {option.default}." if option.default else "Required."
    words = f"One of {_words(option)}. " if _words(option) else ""
    return f"{option.help} {words}{default}".replace("`", "")


def _words(option: Option) -> str:
    """The words that the option takes: ``text, json``; "" if it takes other values."""
    name = option.type.name
    return name.removeprefix("one of ") if name.startswith("one of ") else ""


def _wrapped(text: str, indent: str = " " * 8) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _options(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[Option]:
    """The options of a model, before those of the groups inside it."""
    inner = {name: found for name, field in model.model_fields.items() if (found := _model(field))}
    for name, field in model.model_fields.items():
        if name not in inner:
            yield _option(field, (*path, name))
    for name, group in inner.items():
        yield from _options(group, (*path, name))


def _option(field: FieldInfo, path: tuple[str, ...]) -> Option:
    extra: dict[str, Any] = (
        dict(field.json_schema_extra) if isinstance(field.json_schema_extra, dict) else {}
    )
    return Option(
        path=path,
        type=next(_types((*field.metadata, field.annotation))),
        default="" if field.is_required() else extra.get("shown") or str(field.default or "none"),
        help=field.description or "",
        in_file=extra.get("in_file", True),
        example=str(next(iter(field.examples or ()), "")),
    )


def _types(annotations: tuple[Any, ...]) -> Iterator[OptionType]:
    """The option types somewhere inside annotations; every option has one."""
    for annotation in annotations:
        if isinstance(annotation, OptionType):
            yield annotation
        yield from _types(get_args(annotation))


def _model(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a group; None for an option."""
    if field.metadata:
        return None
    candidates = (field.annotation, *get_args(field.annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _description(group: str) -> str:
    """The first line of the docstring of a group's model."""
    model: type[BaseModel] = Settings
    for name in filter(None, group.split(".")):
        model = _model(model.model_fields[name]) or TargetSettings
    return (model.__doc__ or "").split("\n", 1)[0]
