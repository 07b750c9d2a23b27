"""Makes the parts of an exporter from its settings: pollers, access control, the store."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial, reduce
from pathlib import Path
from typing import NamedTuple

from exporter.clock import Clocks
from exporter.errors import AuthError, ConfigError
from exporter.huaweicloud.auth import sdk_config
from exporter.huaweicloud.auth.base import Credentials
from exporter.huaweicloud.auth.chain import AuthContext, resolve
from exporter.huaweicloud.auth.lockout import KeyLockouts
from exporter.huaweicloud.http import Http, Session
from exporter.metrics.self_metrics import Instruments, TargetInstruments
from exporter.modelarts.search import Paging, UnifiedJobs
from exporter.polling.identity import TargetIdentity
from exporter.polling.poller import Poller
from exporter.polling.registry import TargetRegistry
from exporter.polling.target import Target
from exporter.settings.options import options
from exporter.settings.problems import InvalidValueError, problem
from exporter.settings.proxies import proxy_for
from exporter.settings.schema import (
    ApiSettings,
    JobsSettings,
    PollSettings,
    Settings,
    TargetSettings,
)
from exporter.settings.types import IAM_URL, PROJECT_ID, OptionType, without_path
from exporter.storage.store import Store
from exporter.web.access import AccessControl
from exporter.web.config.file import WebFile

_FIXED = ("state", "web")
"""Groups of options that a reload cannot change: the listening sockets and the state file."""


class ProcessContext(NamedTuple):
    """What all targets of a process share.

    Attributes:
        environ: has the vendor's variables.
        clocks: the machine's.
        instruments: of the process.
        lockouts: of the access keys and users.
        store: saves the state beyond the process.
        publish: makes changes visible; returns the generation that shows them.
        registry: knows all targets.
        connect: makes the connections of a target.
        retry_unreachable: whether requests are retried if there is no connection at all.
    """

    environ: Mapping[str, str]
    clocks: Clocks
    instruments: Instruments
    lockouts: KeyLockouts
    store: Store
    publish: Callable[[], Awaitable[int]]
    registry: TargetRegistry
    connect: Callable[..., Session] = Session
    retry_unreachable: bool = True


@dataclass(frozen=True)
class TargetPlan:
    """Everything a target's poller is made of. Equal plans make equal pollers.

    Attributes:
        options: of the target; neither its projects nor its workspaces are to be looked up.
        identity: where it is.
        poll: when it is polled.
        api: limits on its requests.
        jobs: which of its jobs have series.
        profile: content of the profile file, without secrets: those are read each time.
        authorities: content of the target's ``ca_file``.
    """

    options: TargetSettings
    identity: TargetIdentity
    poll: PollSettings
    api: ApiSettings
    jobs: JobsSettings
    profile: sdk_config.SdkConfig | None = field(repr=False)
    authorities: bytes | None = field(repr=False)


def plans(
    settings: Settings, targets: Iterable[TargetSettings], profile: sdk_config.SdkConfig | None
) -> list[TargetPlan]:
    """Plan the poller of each target. Reads the files of CA certificates.

    Args:
        settings: validated.
        targets: to poll.
        profile: what the profile file says, if there is one.

    Raises:
        ConfigError: a file has disappeared since the settings were validated.
    """
    return [
        TargetPlan(
            options=target,
            identity=identity_of(target),
            poll=settings.poll,
            api=settings.api,
            jobs=settings.jobs,
            profile=_without_secrets(profile),
            authorities=_content("target.ca_file", target.ca_file),
        )
        for target in targets
    ]


def needing_restart(old: Settings, new: Settings) -> list[str]:
    """Names of changed options that need a restart."""
    return [
        option.name
        for option in options()
        if option.path[0] in _FIXED
        and reduce(getattr, option.path, old) != reduce(getattr, option.path, new)
    ]


async def make_poller(plan: TargetPlan, context: ProcessContext) -> Poller:
    """Make the poller of a target. Close its target to close its connections.

    Raises:
        ConfigError: the credentials can never work.
    """
    given, identity, clocks = plan.options, plan.identity, context.clocks
    instruments = TargetInstruments(context.instruments, **identity.labels, info=given.labels)
    session = make_session(given, plan.api, context, instruments, name=identity.display_name)
    try:
        credentials = make_credentials(given, context, session, project_id=given.project_id)
    except BaseException:
        await session.close()
        raise
    target = Target(
        identity,
        api=plan.api,
        pools_interval=plan.poll.pools_interval,
        longest_pause=plan.poll.timeout,
        verify_interval=plan.poll.sweep_interval,
        retry_unreachable=context.retry_unreachable,
        paging=Paging(
            None if given.pagination == "auto" else given.pagination,
            fixed=given.pagination != "auto",
        ),
        unified=UnifiedJobs(plan.jobs.unified),
        session=session,
        credentials=credentials,
        instruments=instruments,
        registry=context.registry,
        clocks=clocks,
    )
    return Poller(
        target,
        instruments,
        poll=plan.poll,
        jobs=plan.jobs,
        store=context.store,
        publish=context.publish,
        clocks=clocks,
    )


def make_session(
    given: TargetSettings,
    api: ApiSettings,
    context: ProcessContext,
    meter: TargetInstruments,
    *,
    name: str,
) -> Session:
    """Make the connections of a target. Close them at the end."""
    return context.connect(
        timeout=api.timeout,
        meter=meter,
        target=name,
        proxy_for=partial(proxy_for, option=given.proxy, environ=context.environ),
        ca_file=given.ca_file,
    )


def make_credentials(
    given: TargetSettings,
    context: ProcessContext,
    http: Http,
    *,
    project_id: str | None,
    of_account: bool = False,
) -> Credentials:
    """Make the credentials of a target; arguments as of `AuthContext`.

    Raises:
        ConfigError: the credentials can never work.
    """
    auth_context = AuthContext(
        region=given.region,
        iam_endpoint=given.iam_endpoint,
        project_id=project_id,
        environ=context.environ,
        http=http,
        lockouts=context.lockouts,
        clocks=context.clocks,
        of_account=of_account,
    )
    return resolve(given.auth, auth_context)


async def make_access_control(file: str | None, clocks: Clocks) -> AccessControl | None:
    """Make the access control of the exporter's own port; None: everyone has access.

    Raises:
        ConfigError: the web configuration has become invalid since it was checked.
    """
    if file is None:
        return None
    web_file = WebFile(file)
    loaded = await asyncio.to_thread(web_file.load)
    if loaded.problems:
        raise ConfigError(*loaded.problems)
    return AccessControl(loaded, web_file.look, clocks)


async def open_store(file: str | None, instruments: Instruments, clocks: Clocks) -> Store:
    """Open the state file, or a temporary store if none is configured.

    Raises:
        ConfigError, StartError: as `exporter.storage.store.Store.open`.
    """
    problem = instruments.state_errors.inc
    if file is None:
        return await Store.temporary(problem=problem, clocks=clocks)
    return await Store.open(Path(file), problem=problem, clocks=clocks)


def identity_of(given: TargetSettings) -> TargetIdentity:
    """Where a target is."""
    return TargetIdentity(
        name=given.name,
        region=given.region,
        project_id=given.project_id,
        endpoint=given.endpoint,
        iam_endpoint=given.iam_endpoint,
        workspaces=tuple(given.workspaces),
    )


def complete(given: TargetSettings, known: sdk_config.SdkConfig | None) -> TargetSettings:
    """The only target, with what its options leave open and the profile file tells.

    Raises:
        ConfigError: a value is needed from the profile file, and not valid there.
    """
    found: dict[str, str] = {}
    if known and known.iam_endpoint and "iam_endpoint" not in given.model_fields_set:
        url = without_path(known.iam_endpoint)
        found["iam_endpoint"] = _from_profile(known, "iam_endpoint", IAM_URL, url)
    if known and known.project_id and given.project_id is None and given.projects is None:
        found["project_id"] = _from_profile(known, "project_id", PROJECT_ID, known.project_id)
    return given.model_copy(update=found)


def _from_profile(
    known: sdk_config.SdkConfig, name: str, option_type: OptionType, value: str
) -> str:
    try:
        return str(option_type.take(value))
    except InvalidValueError as error:
        raise ConfigError(problem(f"target.{name}", str(error), known.origin)) from None


def read_profile(environ: Mapping[str, str]) -> sdk_config.SdkConfig | None:
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
