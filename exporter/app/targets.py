"""The one list of the targets to poll, from the configuration, from files and from lookups."""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence

from exporter.app.factory import (
    ProcessContext,
    TargetPlan,
    complete,
    make_credentials,
    plans,
    read_profile,
)
from exporter.app.lookup import TargetLookup
from exporter.app.permissions import warn_of_readable_secrets
from exporter.app.shards import shard_of
from exporter.app.target_files import TargetFiles
from exporter.huaweicloud.http import Request, Response
from exporter.settings.schema import Settings, TargetSettings

log = logging.getLogger(__name__)


class TargetList:
    """The targets of one configuration, as far as they are known.

    Making it reads files, and so does `read_files`.

    Args:
        settings: validated.
        context: what all targets share.
        before: the list of the configuration before; what it knows of the same files, and of the
            same lookups, stays known.

    Attributes:
        settings: as given.
        files: those that ``targets_files`` names.
        lookups: one for each target that leaves projects or workspaces open.

    Raises:
        ConfigError: a target of the configuration can never work.
    """

    def __init__(
        self, settings: Settings, context: ProcessContext, before: "TargetList | None" = None
    ) -> None:
        self.settings = settings
        self.lookups: list[TargetLookup] = before.lookups if before else []
        self._context = context
        self._profile = read_profile(context.environ)
        targets = settings.all_targets()
        if len(targets) == 1:
            targets = (complete(targets[0], self._profile),)
        self._configured = targets
        self.files: TargetFiles = TargetFiles(
            settings.targets_files or (),
            context.environ,
            self._check,
            before.files.known if before else {},
        )
        self._reported: set[tuple[str, str]] = set()
        self.read_files()
        warn_of_readable_secrets(targets, settings.config.file, context.environ, self._profile)
        for path, file in self.files.known.items():
            warn_of_readable_secrets(file.targets, path, context.environ, self._profile)

    @property
    def has_files(self) -> bool:
        """Whether targets are read from files."""
        return bool(self.settings.targets_files)

    @property
    def problems(self) -> list[str]:
        """What is wrong with files and lookups, a line each."""
        failed = [f"{each.name}: {each.error}" for each in self.lookups if each.error]
        return self.files.problems + failed

    @property
    def new_lookups(self) -> list[TargetLookup]:
        """Those of the configuration that have not been done yet."""
        return [
            each for each in self.lookups if each.options in self._configured and not each.attempted
        ]

    def read_files(self) -> bool:
        """Read the files that changed; True if anything did."""
        changed = self.files.read()
        self.lookups = [self._lookup(target) for target in self._listed if target.is_looked_up]
        return changed

    async def look_up(self, lookups: Sequence[TargetLookup] | None = None) -> None:
        """Look up projects and workspaces, by default all of them. A failure changes nothing."""
        wanted = self.lookups if lookups is None else lookups
        await asyncio.gather(*(each.look_up() for each in wanted))

    @property
    def discovered(self) -> int:
        """Number of targets from files and from lookups of projects, of all shards."""
        return len(self._all()) - len([*self._resolved(self._configured, projects=False)])

    def plans(self) -> list[TargetPlan]:
        """Plan the pollers of this shard. Reads the files of CA certificates.

        Raises:
            ConfigError: a file has disappeared since the settings were validated.
        """
        shard = self.settings.shard
        ours = [
            target
            for target in self._all()
            if shard_of(*_labels(target), count=shard.count) == shard.index
        ]
        return plans(self.settings, ours, self._profile)

    def _all(self) -> list[TargetSettings]:
        """The targets of all shards, none with the labels of another.

        A project that is found, but is also listed on its own, is polled as it is listed.
        """
        listed = self._listed
        chosen: dict[tuple[str, str], TargetSettings] = {}
        for target in self._resolved(listed, projects=False):
            self._choose(target, chosen)
        own = {_place(target) for target in listed if target.projects is None}
        for target in self._resolved(listed, projects=True):
            if _place(target) not in own:
                self._choose(target, chosen)
        return [*chosen.values()]

    @property
    def _listed(self) -> list[TargetSettings]:
        files = self.files.known.values()
        return [*self._configured, *(target for file in files for target in file.targets)]

    def _resolved(
        self, targets: Iterable[TargetSettings], *, projects: bool
    ) -> Iterator[TargetSettings]:
        """The targets as they are polled: those of which projects are looked up, or the others."""
        for target in targets:
            if (target.projects is not None) != projects:
                continue
            if target.is_looked_up:
                yield from self._lookup(target).found or ()
            else:
                yield target

    def _choose(
        self, target: TargetSettings, chosen: dict[tuple[str, str], TargetSettings]
    ) -> None:
        labels = _labels(target)
        if chosen.setdefault(labels, target) is not target and labels not in self._reported:
            self._reported.add(labels)
            log.warning(
                "region %s has more than one target with the label project=%s; only the first is "
                "polled; give the others another target.name",
                *labels,
            )

    def _lookup(self, target: TargetSettings) -> TargetLookup:
        """The lookup of a target; a new one if there is none yet."""
        api = self.settings.api
        known = (each for each in self.lookups if each.options == target and each.api == api)
        return next(known, None) or TargetLookup(target, api, self._context)

    def _check(self, target: TargetSettings) -> None:
        make_credentials(target, self._context, _unconnected, project_id=target.project_id)


def _labels(target: TargetSettings) -> tuple[str, str]:
    """The labels of a target; a project that the poller looks up has none yet."""
    return target.region, target.name or target.project_id or ""


def _place(target: TargetSettings) -> tuple[str, str, str | None]:
    return target.region, target.endpoint, target.project_id


async def _unconnected(_request: Request) -> Response:
    raise RuntimeError("not connected")
