"""The configuration of the vendor's SDK on this machine.

Environment variables and the profile file have the same names and meaning as for
``huaweicloudsdkcore`` (``auth/provider.py``), so that users of that SDK configure nothing twice.
"""

import configparser
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from exporter.errors import AuthError
from exporter.huaweicloud.auth.secret import Secret, read_text
from exporter.settings.secret_values import is_in_quotes, is_surely_a_path, stripped

VARIABLES = {
    "access_key": "HUAWEICLOUD_SDK_AK",
    "secret_key": "HUAWEICLOUD_SDK_SK",
    "security_token": "HUAWEICLOUD_SDK_SECURITY_TOKEN",
    "project_id": "HUAWEICLOUD_SDK_PROJECT_ID",
    "iam_endpoint": "HUAWEICLOUD_SDK_IAM_ENDPOINT",
    "idp_id": "HUAWEICLOUD_SDK_IDP_ID",
    "id_token_file": "HUAWEICLOUD_SDK_ID_TOKEN_FILE",
}
ENTRIES = {
    "access_key": "ak",
    "secret_key": "sk",
    "security_token": "security_token",
    "project_id": "project_id",
    "iam_endpoint": "iam_endpoint",
    "idp_id": "idp_id",
    "id_token_file": "id_token_file",
}
_PROFILE = (".huaweicloud", "credentials")
_SECTION = "basic"
_FILE_VARIABLE = "HUAWEICLOUD_SDK_CREDENTIALS_FILE"


@dataclass(frozen=True, kw_only=True)
class SdkConfig:
    """The values from one source; None = not set.

    Attributes:
        origin: the source, for people.
        names: how it calls its values.
        in_quotes: the values that still have the quotes of a shell.
    """

    origin: str
    names: Mapping[str, str] = field(default_factory=dict)
    in_quotes: tuple[str, ...] = ()
    access_key: str | None = None
    secret_key: Secret | None = None
    security_token: Secret | None = None
    project_id: str | None = None
    iam_endpoint: str | None = None
    idp_id: str | None = None
    id_token_file: str | None = None


def read_environment(environ: Mapping[str, str]) -> SdkConfig:
    """The values in the environment."""
    return _config("the environment", environ, VARIABLES)


def profile_path(environ: Mapping[str, str]) -> Path | None:
    """The path of the profile file, whether it exists or not; None without a home directory."""
    if path := environ.get(_FILE_VARIABLE):
        return Path(path)
    home = environ.get("HOME")
    return Path(home, *_PROFILE) if home else None


def shown(path: Path) -> str:
    """The path of the profile file, unless it may be a secret in the wrong variable."""
    usual = path.parts[-2:] == _PROFILE
    is_path = usual or is_surely_a_path(str(path), str(path))
    return str(path) if is_path else "(path not shown, it may be a secret)"


def read_profile(path: Path) -> SdkConfig:
    """The values in the profile file, section ``[basic]``.

    Raises:
        AuthError: missing, unreadable, not an INI file, or without the section; names the path.
    """
    origin = f"profile file {shown(path)}"
    # No interpolation: a secret may contain a percent sign.
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_text(path, origin))
    except configparser.Error:
        # The error itself quotes the line, which may contain the secret.
        raise AuthError(f"{origin} is not an INI file") from None
    if not parser.has_section(_SECTION):
        raise AuthError(f"{origin} has no section [{_SECTION}]")
    return _config(origin, parser[_SECTION], ENTRIES)


def _config(origin: str, values: Mapping[str, str], names: Mapping[str, str]) -> SdkConfig:
    def text(item: str) -> str | None:
        return stripped(values.get(names[item], "")) or None

    def secret(item: str) -> Secret | None:
        value = text(item)
        return None if value is None else Secret(f"{names[item]} ({origin})", value)

    return SdkConfig(
        origin=origin,
        names=names,
        in_quotes=tuple(name for item, name in names.items() if is_in_quotes(text(item) or "")),
        access_key=text("access_key"),
        secret_key=secret("secret_key"),
        security_token=secret("security_token"),
        project_id=text("project_id"),
        iam_endpoint=text("iam_endpoint"),
        idp_id=text("idp_id"),
        id_token_file=text("id_token_file"),
    )
