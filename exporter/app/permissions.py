"""A warning for files with secrets that every user of the machine can read."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from exporter.huaweicloud.auth import sdk_config
from exporter.settings.options import PREFIX
from exporter.settings.schema import SECRETS, TargetSettings

log = logging.getLogger(__name__)

_MOUNTED = ("/run/secrets", "/var/run/secrets")
"""Where Docker and Kubernetes put secrets, with the mode that they choose."""

_KUBERNETES_LINK = "..data"
_READ, _ENTER = 0o004, 0o001


def warn_of_readable_secrets(
    targets: Iterable[TargetSettings],
    file: str | None,
    environ: Mapping[str, str],
    profile: sdk_config.SdkConfig | None,
) -> None:
    """Log a warning for each file that others can read although it contains a secret.

    Args:
        targets: of the file.
        file: the configuration file, or one that lists targets.
        environ: environment variables.
        profile: what the profile file says, if it is used.
    """
    for each in sorted(set(_files_with_secrets(targets, file, environ, profile))):
        if _others_can_read(Path(each), environ):
            log.warning(
                "every user of this machine can read %s, which contains a secret: restrict its "
                "mode, for example with chmod o-r",
                each,
            )


def _files_with_secrets(
    targets: Iterable[TargetSettings],
    file: str | None,
    environ: Mapping[str, str],
    profile: sdk_config.SdkConfig | None,
) -> Iterator[str]:
    for target in targets:
        auth = target.auth
        for name in SECRETS:
            if secret_file := getattr(auth, f"{name}_file"):
                yield secret_file
            variable = f"{PREFIX}TARGET__AUTH__{name.upper()}"
            if getattr(auth, name) and file and not environ.get(variable):
                yield file
        if auth.id_token_file:
            yield auth.id_token_file
    path = sdk_config.profile_path(environ)
    if path and profile and (profile.secret_key or profile.security_token):
        yield str(path)


def _others_can_read(path: Path, environ: Mapping[str, str]) -> bool:
    """Whether users other than the owner and the group can read a file.

    Not where somebody mounted it: Kubernetes, Docker and systemd decide on mode and owner then, and
    other users cannot get there.
    """
    mounted = [*_MOUNTED, *filter(None, [environ.get("CREDENTIALS_DIRECTORY")])]
    try:
        if (path.parent / _KUBERNETES_LINK).is_symlink() or os.path.ismount(path):
            return False
        real = path.resolve(strict=True)
        if any(real.is_relative_to(Path(folder).resolve()) for folder in mounted):
            return False
        reachable = all(folder.stat().st_mode & _ENTER for folder in real.parents)
        return reachable and bool(real.stat().st_mode & _READ)
    except (OSError, RuntimeError):  # it vanished, or the links form a circle
        return False
