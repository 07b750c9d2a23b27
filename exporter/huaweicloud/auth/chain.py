"""Which credentials a target has: its own options, and what the vendor's tools already know."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from exporter.errors import AuthError, ConfigError
from exporter.huaweicloud.auth import sdk_config as vendor
from exporter.huaweicloud.auth.access_key import AccessKey
from exporter.huaweicloud.auth.agency import METADATA, Agency
from exporter.huaweicloud.auth.base import Credentials
from exporter.huaweicloud.auth.iam import IamToken, by_id_token, by_password, scope
from exporter.huaweicloud.auth.lockout import KeyLockouts
from exporter.huaweicloud.auth.sdk_config import SdkConfig
from exporter.huaweicloud.auth.secret import Secret
from exporter.huaweicloud.auth.signature import Key
from exporter.huaweicloud.auth.static import NoAuth, StaticToken
from exporter.huaweicloud.http import Http

Method = Literal["auto", "aksk", "password", "token", "agency", "oidc", "none"]


@dataclass(frozen=True, kw_only=True)
class AuthOptions:
    """``target.auth.*`` of one target, and what a sign-in must know about the target.

    Attributes:
        region: such as ``cn-north-4``; scope of tokens when the project id is unknown.
        iam_endpoint: base URL of IAM.
        project_id: scope of tokens.
    """

    region: str
    iam_endpoint: str
    project_id: str | None = None
    method: Method = "auto"
    access_key: str | None = None
    secret_key: Secret | None = None
    security_token: Secret | None = None
    username: str | None = None
    password: Secret | None = None
    domain: str | None = None
    token: Secret | None = None
    idp_id: str | None = None
    id_token_file: str | None = None


@dataclass(frozen=True, kw_only=True)
class AuthContext:
    """What all targets of a process share, and the target's HTTP.

    Attributes:
        environ: environment variables.
        http: sends the requests of sign-ins.
        lockouts: one for the process.
        clock: unix seconds.
        monotonic: seconds.
        metadata_endpoint: base URL of the metadata service.
    """

    environ: Mapping[str, str]
    http: Http
    lockouts: KeyLockouts
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    metadata_endpoint: str = METADATA


def resolve(options: AuthOptions, around: AuthContext) -> Credentials:
    """The credentials of a target. Nothing is sent yet.

    ``auto`` takes the first that is there: what the target's own options begin to say, the
    environment, the profile file, the agency of the server; within one place OIDC before the
    access key, as the vendor's SDK does.

    Raises:
        ConfigError: something is missing that cannot appear while we run.
    """
    match options.method:
        case "auto":
            return _auto(options, around)
        case "aksk" | "oidc":
            for found in _found(options, around):
                if found.method == options.method:
                    return found
            raise ConfigError(*_missing(options))
        case "password":
            return _password(options, around)
        case "token":
            if options.token is None:
                raise ConfigError("target.auth.token_file (or token) is missing")
            return StaticToken(options.token)
        case "agency":
            return _agency(around)
        case "none":
            return NoAuth()


def _auto(options: AuthOptions, around: AuthContext) -> Credentials:
    if options.idp_id or options.id_token_file:
        return resolve(replace(options, method="oidc"), around)
    if options.access_key or options.secret_key:
        return resolve(replace(options, method="aksk"), around)
    if options.username or options.password:
        return resolve(replace(options, method="password"), around)
    if options.token:
        return resolve(replace(options, method="token"), around)
    for found in _found(options, around):
        return found
    return _agency(around, looked_for=_looked_for(around.environ))


def _found(options: AuthOptions, around: AuthContext) -> Iterator[Credentials]:
    """Credentials for OIDC and access keys, place by place in the vendor's order.

    The target's own options come first, and go with what another place adds to them.
    """
    own = _own(options)
    for read in _places(own, around.environ):
        try:
            known = _together(own, read())
        except AuthError:
            continue  # no profile file, usually
        if known.idp_id and known.id_token_file:
            yield _oidc(options, around, known.idp_id, known.id_token_file)
        if known.access_key and known.secret_key:
            yield AccessKey(
                partial(_key, own, read),
                origin=known.origin,
                lockouts=around.lockouts,
                clock=around.clock,
            )


def _own(options: AuthOptions) -> SdkConfig:
    return SdkConfig(
        origin="target.auth",
        access_key=(options.access_key or "").strip() or None,
        secret_key=options.secret_key,
        security_token=options.security_token,
        idp_id=options.idp_id,
        id_token_file=options.id_token_file,
    )


def _places(own: SdkConfig, environ: Mapping[str, str]) -> list[Callable[[], SdkConfig]]:
    known = vendor.environment(environ)
    places = [lambda: own, lambda: known]
    if path := vendor.profile_path(environ):
        places.append(partial(vendor.profile, path))  # read again for every request
    return places


def _together(own: SdkConfig, place: SdkConfig) -> SdkConfig:
    """The target's own options, completed by what a place says; not by another key's parts."""
    if own is place:
        return own
    other_key = own.access_key and place.access_key and own.access_key != place.access_key
    key = own if other_key else place
    own_key = own.access_key or own.secret_key
    return SdkConfig(
        origin=f"{own.origin} and {place.origin}" if own_key else place.origin,
        access_key=own.access_key or key.access_key,
        secret_key=own.secret_key or key.secret_key,
        security_token=own.security_token or key.security_token,
        idp_id=own.idp_id or place.idp_id,
        id_token_file=own.id_token_file or place.id_token_file,
    )


def _key(own: SdkConfig, read: Callable[[], SdkConfig]) -> Key:
    """The key as it is now; its secrets, or all of it, may be in files."""
    known = _together(own, read())
    access = known.access_key
    if access is None or known.secret_key is None:
        raise AuthError(f"{known.origin} has no access key with a secret key any more")
    if not access.isprintable() or any(char.isspace() or char == "," for char in access):
        raise AuthError(f"the access key from {known.origin} is garbled")
    token = known.security_token
    return Key(access, known.secret_key.read(), None if token is None else token.read())


def _oidc(options: AuthOptions, around: AuthContext, idp_id: str, file: str) -> Credentials:
    sign_in = by_id_token(
        around.http,
        options.iam_endpoint,
        idp_id=idp_id,
        id_token=Secret("OIDC token file", file=file),
        scope=scope(options.project_id, options.region),
        clock=around.clock,
    )
    identity = f"identity provider {idp_id} with the token in {file}"
    return IamToken("oidc", identity, sign_in, clock=around.clock, monotonic=around.monotonic)


def _password(options: AuthOptions, around: AuthContext) -> Credentials:
    user, password, domain = options.username, options.password, options.domain
    if not (user and password and domain):
        given = {"username": user, "password_file (or password)": password, "domain": domain}
        raise ConfigError(
            *(f"target.auth.{name} is missing" for name, value in given.items() if not value)
        )
    sign_in = by_password(
        around.http,
        options.iam_endpoint,
        user=user,
        domain=domain,
        password=password,
        scope=scope(options.project_id, options.region),
        lockouts=around.lockouts,
        clock=around.clock,
    )
    identity = f"user {user} of domain {domain}"
    return IamToken("password", identity, sign_in, clock=around.clock, monotonic=around.monotonic)


def _agency(around: AuthContext, *, looked_for: str = "") -> Credentials:
    return Agency(
        around.http,
        lockouts=around.lockouts,
        clock=around.clock,
        monotonic=around.monotonic,
        endpoint=around.metadata_endpoint,
        looked_for=looked_for,
    )


def _missing(options: AuthOptions) -> Iterator[str]:
    """One line for each thing that the method needs and no place says."""
    if options.method == "oidc":
        yield (
            "target.auth.method oidc needs target.auth.idp_id and target.auth.id_token_file, "
            "HUAWEICLOUD_SDK_IDP_ID and HUAWEICLOUD_SDK_ID_TOKEN_FILE in the environment, or "
            "idp_id and id_token_file in the profile file"
        )
        return
    if not options.access_key:
        yield (
            "target.auth.access_key is missing: give it, HUAWEICLOUD_SDK_AK in the environment, "
            "or ak in the profile file"
        )
    if not options.secret_key:
        yield (
            "target.auth.secret_key_file (or secret_key) is missing: give it, HUAWEICLOUD_SDK_SK "
            "in the environment, or sk in the profile file"
        )


def _looked_for(environ: Mapping[str, str]) -> str:
    """Where `auto` has looked, for people."""
    path = vendor.profile_path(environ)
    profile = "a profile file (no HOME)" if path is None else f"the profile file {path}"
    if path is not None:
        try:
            vendor.profile(path)
            profile += " (no ak and sk in it)"
        except AuthError as error:
            profile += f" ({error})"
    return (
        "target.auth options, HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK (or "
        f"HUAWEICLOUD_SDK_IDP_ID and HUAWEICLOUD_SDK_ID_TOKEN_FILE) in the environment, {profile}"
    )
