"""The targets of files (``targets_files``), read again when the files change."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from exporter.errors import ConfigError
from exporter.settings import targets_file
from exporter.settings.problems import quoted_path
from exporter.settings.schema import TargetSettings

log = logging.getLogger(__name__)


class KnownFile(NamedTuple):
    """A file as it was read last.

    Attributes:
        text: its content; None = it could not be read.
        targets: that it lists; if it has problems, those that it listed before.
        problems: a line each.
    """

    text: bytes | None
    targets: tuple[TargetSettings, ...]
    problems: Sequence[str] = ()


class TargetFiles:
    """The targets of all files that match the patterns.

    Args:
        patterns: of their paths.
        environ: has the vendor's variables.
        check: raises a `ConfigError` if a target can never work.
        known: what was known of each file under another configuration.

    Attributes:
        known: each file by its path.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        environ: Mapping[str, str],
        check: Callable[[TargetSettings], None],
        known: Mapping[str, KnownFile],
    ) -> None:
        self._patterns = patterns
        self._environ = environ
        self._check = check
        self.known = known

    @property
    def problems(self) -> list[str]:
        """A line for each problem of the files."""
        return [line for known in self.known.values() for line in known.problems]

    def read(self) -> bool:
        """Read the files that changed; slow. True if anything did."""
        before = self.known
        self.known = {
            path: self._read(path, before.get(path)) for path in targets_file.find(self._patterns)
        }
        return self.known != before

    def _read(self, path: str, known: KnownFile | None) -> KnownFile:
        text = None
        try:
            text = targets_file.content(path)
            if known and known.text == text and not known.problems:
                return known
            targets = targets_file.parse(path, text, self._environ)
            for target in targets:
                self._check(target)
        except ConfigError as error:
            problems: Sequence[str] = error.problems
        except Exception:  # a bug in reading a file must not end a running exporter
            log.exception("%s could not be read, please report it", quoted_path(path))
            problems = (f"{quoted_path(path)}: internal error, see the log",)
        else:
            log.info("read %d targets", len(targets), extra={"file": path})
            return KnownFile(text, targets)
        for problem in problems if known is None or known.problems != problems else ():
            log.error("file not used, keeping its previous targets: %s", problem)
        return KnownFile(text, known.targets if known else (), problems)
