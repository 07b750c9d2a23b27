"""All sources together: one `Settings`, or everything that is wrong with them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import ValidationError

from exporter.errors import ConfigError
from exporter.settings import file, sources
from exporter.settings.options import Option, options
from exporter.settings.problems import DEFAULT, InvalidValueError, OptionPath, dotted, problem
from exporter.settings.schema import ConflictsError, Settings
from exporter.settings.sources import Layer

CheckFile: TypeAlias = Callable[[str, str], Iterable[str]]
"""Takes a path and its origin; returns one line per problem."""


def load(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    *,
    check_web_config: CheckFile = lambda _path, _origin: (),
) -> Settings:
    """The configuration from flags, environment and file.

    Args:
        arguments: flags, without the command.
        environ: environment variables.
        check_web_config: checks the file that ``web.config.file`` names.

    Raises:
        ConfigError: with a line for every problem.
    """
    known = options()
    from_flags = sources.flags(arguments, known)
    from_environ = sources.environment(environ, known)
    from_file = _file(from_flags, from_environ, known)
    from_vendor = Layer() if from_file.unread else sources.vendor(environ, known, from_file)
    found = (from_flags, from_environ, from_file, from_vendor)
    problems = [line for layer in found for line in layer.problems]
    problems += _one_or_several(found)
    problems += _web_config(found, check_web_config)
    origins: dict[OptionPath, str] = {}
    for layer in reversed(found):
        origins |= layer.origins
    try:
        settings = Settings.merged(*(layer.values for layer in found))
    except ValidationError as error:
        lines = _lines(error, origins, known, only_values=from_file.unread)
        raise ConfigError(*problems, *lines) from None
    if problems:
        raise ConfigError(*problems)
    return settings


def _file(from_flags: Layer, from_environ: Layer, known: Sequence[Option]) -> Layer:
    """The layer of the file that flags or environment name, if they do."""
    path: OptionPath = ("config", "file")
    for layer in (from_flags, from_environ):
        named = layer.values.get("config", {}).get("file", "").strip()
        if named:
            return file.read(named, layer.origins[path], known)
    return Layer()


def _web_config(found: Sequence[Layer], check: CheckFile) -> Iterator[str]:
    """What is wrong with the file of the web configuration, and with those that it names."""
    path: OptionPath = ("web", "config", "file")
    for layer in found:
        if path in layer.origins:
            named = layer.values["web"]["config"]["file"]
            if isinstance(named, str) and named.strip() and named.isprintable():
                yield from check(named, layer.origins[path])
            return


def _one_or_several(found: Sequence[Layer]) -> Iterator[str]:
    """``target`` and ``targets`` are alternatives; where both are given, go on with the latter."""
    if not any("targets" in layer.values for layer in found):
        return
    for layer in found:
        for path, origin in layer.origins.items():
            if path[0] == "target":
                wrong = "targets is given, too; valid: only one of target and targets"
                yield problem(dotted(path), wrong, origin)
        layer.values.pop("target", None)


def _lines(
    error: ValidationError,
    origins: Mapping[OptionPath, str],
    known: Sequence[Option],
    *,
    only_values: bool,
) -> Iterator[str]:
    """A line for each problem that the validation has found.

    Args:
        error: what it raised.
        origins: of the values.
        known: the options.
        only_values: nothing that may be otherwise in the file that could not be read.
    """
    for each in error.errors(include_url=False, include_input=False):
        path: OptionPath = each["loc"]
        context: dict[str, Any] = each.get("ctx", {})
        match context.get("error"):
            case InvalidValueError() as unfit:
                yield problem(dotted(path), str(unfit), _origin(path, origins))
            case ConflictsError(found=conflicts):
                for conflict in () if only_values else conflicts:
                    paths = [(*path, *inner) for inner in conflict.paths]
                    yield problem(dotted(paths[0]), conflict.wrong, _together(paths, origins))
            case _ if each["type"] == "missing":
                if not only_values:
                    yield _missing(path, origins, known)
            case _ if each["type"] != "default_factory_not_called":
                yield problem(dotted(path), "is not valid", _origin(path, origins))


def _origin(path: OptionPath, origins: Mapping[OptionPath, str]) -> str:
    """Where a value comes from; of one in a list of targets, at least where the target is."""
    listed = path[:2] if path[:1] == ("targets",) else path
    return origins.get(path) or origins.get(listed) or DEFAULT


def _together(paths: Sequence[OptionPath], origins: Mapping[OptionPath, str]) -> str:
    """Where values come from that do not go together."""
    others = [f"{dotted(path)} from {origins[path]}" for path in paths[1:] if path in origins]
    return "; ".join([_origin(paths[0], origins), *others])


def _missing(path: OptionPath, origins: Mapping[OptionPath, str], known: Sequence[Option]) -> str:
    """The line for a required option that nobody gave."""
    named = next((option for option in known if option.path == path), None)
    target = next(option for option in known if option.path[-1] == path[-1])
    wrong = f"required, for example {target.example}"
    if named is None:
        return problem(dotted(path), wrong, _origin(path, origins))
    return f"{named.name}: {wrong} ({named.places})"
