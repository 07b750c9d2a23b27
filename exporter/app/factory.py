"""Settings → parts: what a target's poller is made of, and making it."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import NamedTuple

from exporter.clock import Clocks
from exporter.errors import AuthError, ConfigError
from exporter.huaweicloud.auth import sdk_config
from exporter.huaweicloud.auth.chain import AuthContext, resolve
from exporter.huaweicloud.auth.lockout import KeyLockouts
from exporter.huaweicloud.http import Session
from exporter.metrics.scope import Scope
from exporter.metrics.self_metrics import Instruments, TargetInstruments
from exporter.modelarts.search import Paging
from exporter.polling.poller import Cadence, Poller
from exporter.polling.target import UNKNOWN_PROJECT, Manners, Target, TargetIdentity
from exporter.settings.options import options
from exporter.settings.schema import Settings, TargetSettings
from exporter.storage.store import MemoryStore, StateFile, Store
from exporter.web.access import AccessControl
from exporter.web.config.file import WebFile

_FIXED = ("state", "web")
"""Groups of options: who listens and who keeps the state file cannot change its mind."""


class SharedParts(NamedTuple):
    """What the targets of a process have in common.

    Attributes:
        environ: where the vendor's variables are looked for.
        clocks: the machine's.
        instruments: of the process.
        lockouts: of the access keys and users.
        store: what must outlive the process.
        publish: makes what changed visible; returns the generation that shows it.
    """

    environ: Mapping[str, str]
    clocks: Clocks
    instruments: Instruments
    lockouts: KeyLockouts
    store: Store
    publish: Callable[[], Awaitable[int]]


@dataclass(frozen=True)
class TargetPlan:
    """All that a target's poller is made of: with equal plans, nothing would be different.

    Attributes:
        options: of the target.
        place: where it is, with what the profile file adds.
        cadence: when it is polled.
        manners: how it is asked.
        timeout: seconds for one request.
        scope: which of its jobs have series.
        profile: what the profile file says, without secrets: those are read anew each time.
        authorities: what is in the target's ``ca_file``.
    """

    options: TargetSettings
    place: TargetIdentity
    cadence: Cadence
    manners: Manners
    timeout: float
    scope: Scope
    profile: sdk_config.SdkConfig | None = field(repr=False)
    authorities: bytes | None = field(repr=False)


def plans(settings: Settings, environ: Mapping[str, str]) -> list[TargetPlan]:
    """A plan for each target. Reads files.

    Args:
        settings: validated.
        environ: where the vendor's variables are looked for.

    Raises:
        ConfigError: a file that was there when the settings were validated is gone.
    """
    targets = settings.all_targets()
    known = _profile(environ)
    poll, api, jobs = settings.poll, settings.api, settings.jobs
    return [
        TargetPlan(
            options=target,
            place=_place(target, known if len(targets) == 1 else None),
            cadence=Cadence(
                interval=poll.interval,
                timeout=poll.timeout,
                sweep_interval=poll.sweep_interval,
                sweep_timeout=poll.sweep_timeout,
                stale_after=poll.stale_after,
            ),
            manners=Manners(
                requests_per_second=api.max_requests_per_second,
                concurrency=api.concurrency,
                retries=api.retries,
                longest_pause=poll.timeout,
            ),
            timeout=api.timeout,
            scope=Scope(
                history=jobs.history,
                retention=jobs.retention,
                per_job=jobs.per_job,
                max_series_jobs=jobs.max_series_jobs,
            ),
            profile=_without_secrets(known),
            authorities=_content("target.ca_file", target.ca_file),
        )
        for target in targets
    ]


def needing_restart(old: Settings, new: Settings) -> list[str]:
    """Names of options that differ, and that only a start can give another value."""
    return [
        option.name
        for option in options()
        if option.path[0] in _FIXED
        and reduce(getattr, option.path, old) != reduce(getattr, option.path, new)
    ]


async def make_poller(plan: TargetPlan, shared: SharedParts) -> Poller:
    """The poller of a target; its connections are closed with its target.

    Raises:
        ConfigError: the credentials can never work.
    """
    given, place, clocks = plan.options, plan.place, shared.clocks
    project = place.name or place.project_id or UNKNOWN_PROJECT
    instruments = TargetInstruments(shared.instruments, place.region, project)
    session = Session(
        timeout=plan.timeout,
        meter=instruments,
        target=f"{place.region}/{project}",
        proxy=given.proxy,
        ca_file=given.ca_file,
    )
    context = AuthContext(
        region=place.region,
        iam_endpoint=place.iam_endpoint,
        project_id=place.project_id,
        environ=shared.environ,
        http=session,
        lockouts=shared.lockouts,
        clocks=clocks,
    )
    try:
        credentials = resolve(given.auth, context)
    except BaseException:
        await session.close()
        raise
    target = Target(
        place,
        plan.manners,
        paging=Paging(
            None if given.pagination == "auto" else given.pagination,
            fixed=given.pagination != "auto",
        ),
        session=session,
        credentials=credentials,
        instruments=instruments,
        clocks=clocks,
    )
    return Poller(
        target,
        instruments,
        cadence=plan.cadence,
        scope=plan.scope,
        store=shared.store,
        publish=shared.publish,
        clocks=clocks,
    )


async def make_guard(file: str | None, clocks: Clocks) -> AccessControl | None:
    """Who watches the door; None: it is open.

    Raises:
        ConfigError: the web configuration is not what it was when it was checked.
    """
    if file is None:
        return None
    web_file = WebFile(file)
    loaded = await asyncio.to_thread(web_file.load)
    if loaded.problems:
        raise ConfigError(*loaded.problems)
    return AccessControl(loaded, web_file.look, clocks)


async def open_store(file: str | None, instruments: Instruments) -> Store:
    """The state file, or what is as good without one.

    Raises:
        ConfigError, StartError: as `exporter.storage.store.StateFile.open`.
    """
    if file is None:
        return MemoryStore()
    return await StateFile.open(Path(file), problem=instruments.state_errors.inc)


def _place(given: TargetSettings, known: sdk_config.SdkConfig | None) -> TargetIdentity:
    """Where the target is; what its options leave open is taken from the profile file."""
    iam_endpoint = given.iam_endpoint
    if known and known.iam_endpoint and "iam_endpoint" not in given.model_fields_set:
        iam_endpoint = known.iam_endpoint
    return TargetIdentity(
        name=given.name,
        region=given.region,
        project_id=given.project_id or (known and known.project_id) or None,
        endpoint=given.endpoint,
        iam_endpoint=iam_endpoint,
        workspaces=tuple(given.workspaces),
    )


def _profile(environ: Mapping[str, str]) -> sdk_config.SdkConfig | None:
    """The values in the vendor's profile file, if there is one and it is readable."""
    path = sdk_config.profile_path(environ)
    if path is None:
        return None
    try:
        return sdk_config.read_profile(path)
    except AuthError:
        return None


def _without_secrets(known: sdk_config.SdkConfig | None) -> sdk_config.SdkConfig | None:
    """The comparable part of a profile: which secrets it has, but not their values."""
    if known is None:
        return None
    has = [name for name in ("secret_key", "security_token") if getattr(known, name)]
    return dataclasses.replace(
        known, origin=f"{known.origin} {has}", secret_key=None, security_token=None
    )


def _content(option: str, file: str | None) -> bytes | None:
    try:
        return None if file is None else Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(f"{option}: {file} cannot be read: {error.strerror}") from error
