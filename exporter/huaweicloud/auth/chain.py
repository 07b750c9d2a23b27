"""The credential chain: from a target's own options and the vendor SDK's configuration."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from exporter.clock import Clocks
from exporter.errors import AuthError, ConfigError
from exporter.huaweicloud.auth import sdk_config
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
from exporter.settings.schema import AuthSettings, Method
from exporter.settings.secret_values import IN_QUOTES, IS_A_TOKEN, is_a_token

log = logging.getLogger(__name__)

_OWN_NAMES = {
    "access_key": "target.auth.access_key",
    "secret_key": "target.auth.secret_key_file (or secret_key)",
    "security_token": "target.auth.security_token_file (or security_token)",
    "idp_id": "target.auth.idp_id",
    "id_token_file": "target.auth.id_token_file",
}


@dataclass(frozen=True, kw_only=True)
class AuthContext:
    """Everything that credentials need besides the options ``target.auth.*``.

    Attributes:
        region: such as ``cn-north-4``; scope of tokens when the project id is unknown.
        iam_endpoint: base URL of IAM.
        project_id: scope of tokens.
        of_account: tokens are for no project, which is enough to list the projects.
        environ: environment variables.
        http: sends the requests of sign-ins.
        lockouts: of the process.
        clocks: of the machine.
        metadata_endpoint: base URL of the metadata service.
    """

    region: str
    iam_endpoint: str
    project_id: str | None
    environ: Mapping[str, str]
    http: Http
    lockouts: KeyLockouts
    clocks: Clocks
    of_account: bool = False
    metadata_endpoint: str = METADATA


def resolve(auth: AuthSettings, context: AuthContext) -> Credentials:
    """Choose the credentials of a target. Sends nothing.

    With ``auto``, the first of these that has what it needs: the target's own options, the
    environment, the profile file, the agency of the server. Within one source OIDC comes before
    the access key, as in the vendor's SDK. Own options that are incomplete select their method all
    the same, so that their gap is reported. So is half a key elsewhere, unless another source has
    a whole one: somebody who sets it does not want the agency.

    Raises:
        ConfigError: something is missing that cannot appear while the exporter runs.
    """
    method = _method(auth)
    match method:
        case "password":
            return _password(auth, context)
        case "token":
            return _token(auth)
        case "agency":
            return _agency(context)
        case "none":
            return NoAuth()
    own, others = _own(auth), list[SdkConfig]()
    for credentials in _from_sources(own, context, others):
        if method in {"auto", credentials.method}:
            for gap in _gaps(method, *others):
                log.warning("%s; using %s instead", gap, credentials.identity)
            return credentials
    if gaps := [*_gaps(method, own, *others)]:
        raise ConfigError(*gaps)
    if method == "auto":
        return _agency(context, tried=_tried_sources(context.environ))
    raise ConfigError(*_missing(method))


def _method(auth: AuthSettings) -> Method:
    """The configured method; for ``auto``, the one that the target's own options select."""
    if auth.method != "auto":
        return auth.method
    if auth.idp_id or auth.id_token_file:
        return "oidc"
    if auth.access_key or _secret(auth, "secret_key"):
        return "aksk"
    if auth.username or _secret(auth, "password"):
        return "password"
    return "token" if _secret(auth, "token") else "auto"


def _secret(auth: AuthSettings, name: str) -> Secret | None:
    """The secret of an option or of its ``_file`` twin; None = neither is set."""
    file, value = getattr(auth, f"{name}_file"), getattr(auth, name)
    quotes = name == "password"
    if file is not None:
        return Secret(f"target.auth.{name}_file", file=file, quotes=quotes)
    if value is None:
        return None
    return Secret(f"target.auth.{name}", value.get_secret_value(), quotes=quotes)


def _own(auth: AuthSettings) -> SdkConfig:
    """The target's own options for OIDC and access keys."""
    return SdkConfig(
        origin="target.auth",
        names=_OWN_NAMES,
        access_key=auth.access_key,
        secret_key=_secret(auth, "secret_key"),
        security_token=_secret(auth, "security_token"),
        idp_id=auth.idp_id,
        id_token_file=auth.id_token_file,
    )


def _from_sources(
    own: SdkConfig, context: AuthContext, others: list[SdkConfig]
) -> Iterator[Credentials]:
    """Credentials for OIDC and access keys, source by source in the vendor's order.

    The target's own options come first; other sources complete them.

    Args:
        own: options of the target.
        context: of the target.
        others: gets the sources that did not have what is needed.

    Raises:
        ConfigError: a source has a value in quotes.
    """
    for read in _sources(own, context.environ):
        try:
            source = read()
        except AuthError:
            continue  # usually there is no profile file
        if source.in_quotes:
            raise ConfigError(*(_quotes(source, name) for name in source.in_quotes))
        config = _merged(own, source)
        if config.idp_id and config.id_token_file:
            if is_a_token(config.id_token_file):
                name = source.names["id_token_file"]
                raise ConfigError(f"{name} in {source.origin} {IS_A_TOKEN}")
            yield _oidc(context, config.idp_id, config.id_token_file)
        if config.access_key and config.secret_key:
            yield AccessKey(
                partial(_read_key, own, read),
                origin=config.origin,
                lockouts=context.lockouts,
                clock=context.clocks.wall,
            )
        if source is not own:
            others.append(source)


_TOGETHER = {"oidc": ("idp_id", "id_token_file"), "aksk": ("access_key", "secret_key")}


def _gaps(method: Method, *configs: SdkConfig) -> Iterator[str]:
    """A line for each value that a source lacks, although it has others that need it."""
    for config in configs:
        own = config.names is _OWN_NAMES
        where = "" if own else f" in {config.origin}"
        for needing, pair in _TOGETHER.items():
            extra = ("security_token",) if needing == "aksk" else ()
            there = [config.names[item] for item in (*pair, *extra) if getattr(config, item)]
            if there and method in {"auto", needing}:
                for item in pair:
                    if not getattr(config, item):
                        remedy = _places(item) if own else f"set both, or unset {there[0]}"
                        yield f"{there[0]} is set{where}, but {config.names[item]} is not: {remedy}"


def _places(item: str) -> str:
    """Where a value may be set, for people."""
    variable, entry = sdk_config.VARIABLES[item], sdk_config.ENTRIES[item]
    return f"set it, {variable} in the environment, or {entry} in the profile file"


def _quotes(config: SdkConfig, name: str) -> str:
    return f"{name} in {config.origin} {IN_QUOTES}"


def _sources(own: SdkConfig, environ: Mapping[str, str]) -> list[Callable[[], SdkConfig]]:
    environment = sdk_config.read_environment(environ)
    sources = [lambda: own, lambda: environment]
    if path := sdk_config.profile_path(environ):
        sources.append(partial(sdk_config.read_profile, path))  # read again for every request
    return sources


def _merged(own: SdkConfig, source: SdkConfig) -> SdkConfig:
    """The target's own options, completed from a source, but not with parts of another key."""
    if own is source:
        return own
    other_key = own.access_key and source.access_key and own.access_key != source.access_key
    key = own if other_key else source
    own_key = own.access_key or own.secret_key
    return SdkConfig(
        origin=f"{own.origin} and {source.origin}" if own_key else source.origin,
        access_key=own.access_key or key.access_key,
        secret_key=own.secret_key or key.secret_key,
        security_token=own.security_token or key.security_token,
        idp_id=own.idp_id or source.idp_id,
        id_token_file=own.id_token_file or source.id_token_file,
    )


def _read_key(own: SdkConfig, read: Callable[[], SdkConfig]) -> Key:
    """The current key; its secrets, or all of it, may be in files."""
    source = read()
    if source.in_quotes:
        raise AuthError(_quotes(source, source.in_quotes[0]))
    config = _merged(own, source)
    access = config.access_key
    if access is None or config.secret_key is None:
        raise AuthError(f"{config.origin} no longer has an access key with a secret key")
    if not access.isprintable() or any(char.isspace() or char == "," for char in access):
        raise AuthError(f"the access key from {config.origin} is garbled")
    token = config.security_token
    return Key(access, config.secret_key.read(), None if token is None else token.read())


def _oidc(context: AuthContext, idp_id: str, file: str) -> Credentials:
    sign_in = by_id_token(
        context.http,
        context.iam_endpoint,
        idp_id=idp_id,
        id_token=Secret("OIDC token file", file=file),
        scope=None if context.of_account else scope(context.project_id, context.region),
        clock=context.clocks.wall,
    )
    identity = f"identity provider {idp_id} with the token in {file}"
    return IamToken("oidc", identity, sign_in, clocks=context.clocks)


def _token(auth: AuthSettings) -> Credentials:
    token = _secret(auth, "token")
    if token is None:
        raise ConfigError("target.auth.token_file (or token) is missing")
    return StaticToken(token)


def _password(auth: AuthSettings, context: AuthContext) -> Credentials:
    user, password, domain = auth.username, _secret(auth, "password"), auth.domain
    if not (user and password and domain):
        needed = {"username": user, "password_file (or password)": password, "domain": domain}
        raise ConfigError(
            *(f"target.auth.{name} is missing" for name, value in needed.items() if not value)
        )
    of_project = scope(context.project_id, context.region)
    sign_in = by_password(
        context.http,
        context.iam_endpoint,
        user=user,
        domain=domain,
        password=password,
        scope={"domain": {"name": domain}} if context.of_account else of_project,
        lockouts=context.lockouts,
        clock=context.clocks.wall,
    )
    return IamToken("password", f"user {user} of domain {domain}", sign_in, clocks=context.clocks)


def _agency(context: AuthContext, *, tried: str = "") -> Credentials:
    return Agency(
        context.http,
        lockouts=context.lockouts,
        clocks=context.clocks,
        endpoint=context.metadata_endpoint,
        tried=tried,
    )


def _missing(method: Method) -> Iterator[str]:
    """One line for each value that the method needs and no source has."""
    if method == "oidc":
        yield (
            "target.auth.method oidc needs target.auth.idp_id and target.auth.id_token_file, "
            "HUAWEICLOUD_SDK_IDP_ID and HUAWEICLOUD_SDK_ID_TOKEN_FILE in the environment, or "
            "idp_id and id_token_file in the profile file"
        )
        return
    for item in _TOGETHER["aksk"]:
        yield f"{_OWN_NAMES[item]} is missing: {_places(item)}"


def _tried_sources(environ: Mapping[str, str]) -> str:
    """The sources that `auto` has tried, for people."""
    path = sdk_config.profile_path(environ)
    profile = "a profile file (no HOME)"
    if path is not None:
        profile = f"the profile file {sdk_config.shown(path)}"
        try:
            sdk_config.read_profile(path)
            profile += " (no ak and sk in it)"
        except AuthError as error:
            profile += f" ({error})"
    return (
        "target.auth options, HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK (or "
        f"HUAWEICLOUD_SDK_IDP_ID and HUAWEICLOUD_SDK_ID_TOKEN_FILE) in the environment, {profile}"
    )
