"""What a web configuration says: the format that exporters share (Prometheus's exporter-toolkit).

Only the outcome is here. `exporter.web.config.file` reads the file, `exporter.web.config.tls`
makes a TLS context of it, `exporter.web.access` keeps to it.
"""

import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_MAX_BYTES = 2**20


class WebConfigError(ValueError):
    """Something in a web configuration cannot work.

    Attributes:
        key: where, such as ``tls_server_config.cert_file``; "" = the whole file.
        wrong: what is wrong, and what would be valid. Quotes no secret.
    """

    def __init__(self, key: str, wrong: str) -> None:
        super().__init__(f"{key}: {wrong}" if key else wrong)
        self.key = key
        self.wrong = wrong


@dataclass(frozen=True)
class Pem:
    """Certificates or a key in PEM format: a file, or the text itself.

    Attributes:
        key: that gives it.
        file: path; None: there is none.
        text: without a file.
    """

    key: str
    file: str | None = None
    text: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """For messages."""
        return "the text" if self.file is None else f'"{self.file}"'

    def read(self) -> bytes:
        """What it is now.

        Raises:
            WebConfigError: it cannot be read.
        """
        return self.text.encode() if self.file is None else content(self.file, self.key)


@dataclass(frozen=True, kw_only=True)
class Tls:
    """``tls_server_config``.

    Attributes:
        certificate: our own, with those between it and its authority.
        private_key: of the certificate.
        client_ca: who may sign the certificates of clients.
        client_auth: whether clients must show one.
        client_sans: the names of which the certificate of a client must have one; none = any name.
        min_version: of TLS.
        max_version: of TLS.
        ciphers: of TLS 1.2, by OpenSSL's names; none = the usual ones.
        our_order: of ciphers goes before the client's.
        curve: the only one, by OpenSSL's name; None = the usual ones.
    """

    certificate: Pem
    private_key: Pem
    client_ca: Pem | None = None
    client_auth: ssl.VerifyMode = ssl.CERT_NONE
    client_sans: frozenset[str] = frozenset()
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    max_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ciphers: tuple[str, ...] = ()
    our_order: bool = True
    curve: str | None = None


class Rate(NamedTuple):
    """``rate_limit``: a bucket that holds ``burst`` requests, and gets one every ``interval``."""

    interval: float
    burst: int


@dataclass(frozen=True, kw_only=True)
class WebConfig:
    """A whole file.

    Attributes:
        tls: None = plain HTTP.
        users: their passwords' bcrypt hashes; none = everybody may come in.
        headers: more header fields for every answer.
        rate: None = as many requests as we can bear.
    """

    tls: Tls | None = None
    users: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    rate: Rate | None = None


class LoadedConfig(NamedTuple):
    """What became of a file.

    Attributes:
        config: None: it cannot be used at all.
        context: of ``config.tls``; None: that has none, or it cannot be used.
        problems: one line each; there is one for everything that cannot be used.
    """

    config: WebConfig | None
    context: ssl.SSLContext | None
    problems: tuple[str, ...]


def content(path: str, key: str = "") -> bytes:
    """The bytes of a small file.

    Raises:
        WebConfigError: it is none, or cannot be read.
    """
    try:
        # Opening a named pipe would block for ever.
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise WebConfigError(
                key, f'"{path}" is no regular file; valid: a file that can be read'
            )
        with Path(path).open("rb") as file:
            found = file.read(_MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or "error"
        raise WebConfigError(
            key, f'"{path}" cannot be read: {reason}; valid: a readable file'
        ) from None
    if len(found) > _MAX_BYTES:
        raise WebConfigError(
            key, f'"{path}" is larger than {_MAX_BYTES} bytes; valid: a smaller file'
        )
    return found
