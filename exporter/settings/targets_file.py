"""Files that list targets, so that teams can own a file each (``targets_files``)."""

import glob
from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from exporter.errors import ConfigError
from exporter.settings import file, proxies, sources
from exporter.settings.load import lines_of
from exporter.settings.options import options
from exporter.settings.problems import InvalidValueError
from exporter.settings.schema import ListedTargets, TargetSettings
from exporter.settings.small_file import read_file

OPTION = "targets_files"


def find(patterns: Iterable[str]) -> list[str]:
    """Return the paths of the files that match any of the patterns, sorted."""
    return sorted({path for each in patterns for path in glob.glob(each, recursive=True)})  # noqa: PTH207 - a pattern may be absolute


def content(path: str) -> bytes:
    """Return the content of a file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return read_file(path)
    except InvalidValueError as error:
        raise ConfigError(f"{OPTION}: {error}") from None


def parse(path: str, text: bytes, environ: Mapping[str, str]) -> tuple[TargetSettings, ...]:
    """Return the targets that a file lists.

    An empty file is not valid: it is being written, or was cut off.

    Args:
        path: of the file; paths in it are relative to its directory.
        text: its content.
        environ: has the vendor's address of IAM.

    Raises:
        ConfigError: the content is not valid, with one line per problem.
    """
    known = options()
    try:
        listed = file.read_targets(path, text, known)
    except InvalidValueError as error:
        raise ConfigError(f"{OPTION}: {error}") from None
    # A project ID in the environment belongs to a target of the configuration.
    names = {name: value for name, value in environ.items() if "PROJECT_ID" not in name}
    values, origins = sources.merged([listed, sources.vendor(names, listed.values)])
    problems = list(listed.problems)
    try:
        targets = ListedTargets(**values).targets
    except ValidationError as error:
        problems += lines_of(error, origins, known, only_values=listed.incomplete)
        raise ConfigError(*problems) from None
    problems += proxies.problems(targets, environ)
    if problems:
        raise ConfigError(*problems)
    return targets
