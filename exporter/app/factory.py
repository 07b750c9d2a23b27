"""Settings → parts: what a target's poller is made of, and making it."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr

from exporter.clock import Clocks
from exporter.errors import AuthError, ConfigError
from exporter.huaweicloud.auth import sdk_config as vendor
from exporter.huaweicloud.auth.chain import AuthContext, AuthOptions, resolve
from exporter.huaweicloud.auth.lockout import KeyLockouts
from exporter.huaweicloud.auth.secret import Secret
from exporter.huaweicloud.http import Session
from exporter.metrics.self_metrics import Instruments, TargetInstruments
from exporter.modelarts.search import Paging
from exporter.polling.identity import TargetIdentity
from exporter.polling.poller import Poller
from exporter.polling.target import Target
from exporter.settings.options import options
from exporter.settings.schema import (
    ApiSettings,
    JobsSettings,
    PollSettings,
    Settings,
    TargetSettings,
)
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
        connect: makes the connections of a target.
    """

    environ: Mapping[str, str]
    clocks: Clocks
    instruments: Instruments
    lockouts: KeyLockouts
    store: Store
    publish: Callable[[], Awaitable[int]]
    connect: Callable[..., Session] = Session


@dataclass(frozen=True)
class TargetPlan:
    """All that a target's poller is made of: with equal plans, nothing would be different.

    Attributes:
        options: of the target.
        identity: where it is, with what the profile file adds.
        poll: when it is polled.
        api: limits on its requests.
        jobs: which of its jobs have series.
        profile: what the profile file says, without secrets: those are read anew each time.
        authorities: what is in the target's ``ca_file``.
    """

    options: TargetSettings
    identity: TargetIdentity
    poll: PollSettings
    api: ApiSettings
    jobs: JobsSettings
    profile: vendor.SdkConfig | None = field(repr=False)
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
    return [
        TargetPlan(
            options=target,
            identity=_identity(target, known if len(targets) == 1 else None),
            poll=settings.poll,
            api=settings.api,
            jobs=settings.jobs,
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
    given, identity, clocks = plan.options, plan.identity, shared.clocks
    instruments = TargetInstruments(shared.instruments, **identity.labels)
    session = shared.connect(
        timeout=plan.api.timeout, meter=instruments, proxy=given.proxy, ca_file=given.ca_file
    )
    around = AuthContext(
        environ=shared.environ,
        http=session,
        lockouts=shared.lockouts,
        clock=clocks.wall,
        monotonic=clocks.monotonic,
    )
    try:
        credentials = resolve(_auth_options(given, identity), around)
    except BaseException:
        await session.close()
        raise
    target = Target(
        identity,
        api=plan.api,
        longest_pause=plan.poll.timeout,
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
        poll=plan.poll,
        jobs=plan.jobs,
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


def _identity(given: TargetSettings, known: vendor.SdkConfig | None) -> TargetIdentity:
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


def _auth_options(given: TargetSettings, place: TargetIdentity) -> AuthOptions:
    auth = given.auth
    return AuthOptions(
        region=place.region,
        iam_endpoint=place.iam_endpoint,
        project_id=place.project_id,
        method=auth.method,
        access_key=auth.access_key,
        secret_key=_secret("secret_key", auth.secret_key, auth.secret_key_file),
        security_token=_secret("security_token", auth.security_token, auth.security_token_file),
        username=auth.username,
        password=_secret("password", auth.password, auth.password_file),
        domain=auth.domain,
        token=_secret("token", auth.token, auth.token_file),
        idp_id=auth.idp_id,
        id_token_file=auth.id_token_file,
    )


def _secret(name: str, value: SecretStr | None, file: str | None) -> Secret | None:
    if file is not None:
        return Secret(f"target.auth.{name}_file", file=file)
    return None if value is None else Secret(f"target.auth.{name}", value.get_secret_value())


def _profile(environ: Mapping[str, str]) -> vendor.SdkConfig | None:
    """What the vendor's profile file says, if there is one that can be read."""
    path = vendor.profile_path(environ)
    if path is None:
        return None
    try:
        return vendor.profile(path)
    except AuthError:
        return None


def _without_secrets(known: vendor.SdkConfig | None) -> vendor.SdkConfig | None:
    """What of a profile can be compared: whether it has a secret, and not which."""
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
