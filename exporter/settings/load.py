"""Loading the configuration from all its sources: a `Settings`, or a line for every problem."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import ValidationError

from exporter.errors import ConfigError
from exporter.settings import file, proxies, sources
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
    """Load the configuration from flags, environment variables and the configuration file.

    Args:
        arguments: flags, without the command.
        environ: environment variables.
        check_web_config: checks the file that ``web.config.file`` names.

    Raises:
        ConfigError: with one line per problem.
    """
    known = options()
    from_flags = sources.flags(arguments, known)
    from_environ = sources.environment(environ, known)
    from_file = _file(from_flags, from_environ, known)
    layers = [from_flags, from_environ, from_file]
    if not from_file.incomplete:
        layers.append(sources.vendor(environ, sources.merged(layers)[0]))
    problems = [line for layer in layers for line in layer.problems]
    problems += _either_target_or_targets(layers)
    values, origins = sources.merged(layers)
    problems += _web_config(values, origins, check_web_config)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        lines = lines_of(error, origins, known, only_values=from_file.incomplete)
        raise ConfigError(*problems, *lines) from None
    problems += proxies.problems(settings.all_targets(), environ)
    if problems:
        raise ConfigError(*problems)
    return settings


def _file(from_flags: Layer, from_environ: Layer, known: Sequence[Option]) -> Layer:
    """The layer of the file that a flag or an environment variable names, if any."""
    values, origins = sources.merged([from_flags, from_environ])
    path = values.get("config", {}).get("file", "").strip()
    return file.read(path, origins["config", "file"], known) if path else Layer()


def _web_config(
    values: Mapping[str, Any], origins: Mapping[OptionPath, str], check: CheckFile
) -> Iterable[str]:
    """The problems of the web configuration and of the files that it names."""
    path = values.get("web", {}).get("config", {}).get("file")
    if isinstance(path, str) and path.strip() and path.isprintable():
        return check(path, origins["web", "config", "file"])
    return ()


def _either_target_or_targets(layers: Sequence[Layer]) -> Iterator[str]:
    """The problems if both ``target`` and ``targets`` are set; then ``target`` is dropped."""
    if not any("targets" in layer.values for layer in layers):
        return
    for layer in layers:
        for path, origin in layer.origins.items():
            if path[0] == "target":
                wrong = "targets is also set; use either target or targets"
                yield problem(dotted(path), wrong, origin)
        layer.values.pop("target", None)


def lines_of(
    error: ValidationError,
    origins: Mapping[OptionPath, str],
    known: Sequence[Option],
    *,
    only_values: bool,
) -> Iterator[str]:
    """The lines for the problems that validation has found.

    Args:
        error: raised by the validation.
        origins: of the values.
        known: the options.
        only_values: leave out problems that may be due to a file that could not be read.
    """
    for each in error.errors(include_url=False, include_input=False):
        path: OptionPath = each["loc"]
        context: dict[str, Any] = each.get("ctx", {})
        match context.get("error"):
            case InvalidValueError() as invalid:
                yield problem(dotted(path), str(invalid), _origin(path, origins))
            case ConflictsError(found=conflicts):
                for conflict in () if only_values else conflicts:
                    paths = [(*path, *inner) for inner in conflict.paths]
                    yield problem(dotted(paths[0]), conflict.wrong, _origins(paths, origins))
            case _ if each["type"] == "missing":
                if not only_values:
                    yield _missing(path, origins, known)
            case _ if each["type"] != "default_factory_not_called":
                yield problem(dotted(path), "is not valid", _origin(path, origins))


def _origin(path: OptionPath, origins: Mapping[OptionPath, str]) -> str:
    """Where a value comes from; for a value of a listed target, at least where the target is."""
    listed = path[:2] if path[:1] == ("targets",) else path
    return origins.get(path) or origins.get(listed) or DEFAULT


def _origins(paths: Sequence[OptionPath], origins: Mapping[OptionPath, str]) -> str:
    """Where conflicting values come from."""
    others = [f"{dotted(path)} from {origins[path]}" for path in paths[1:] if path in origins]
    return "; ".join([_origin(paths[0], origins), *others])


def _missing(path: OptionPath, origins: Mapping[OptionPath, str], known: Sequence[Option]) -> str:
    """The line for a required option that is not set."""
    named = next((option for option in known if option.path == path), None)
    target = next(option for option in known if option.path[-1] == path[-1])
    wrong = f"required, for example {target.example}"
    if named is None:
        return problem(dotted(path), wrong, _origin(path, origins))
    return f"{named.name}: {wrong} ({named.places})"
