"""The web configuration as data, in the format of Prometheus's exporter-toolkit.

`exporter.web.config.file` reads it from a file, `exporter.web.config.tls` creates a TLS context
from it, and `exporter.web.access` enforces it.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from exporter.settings.problems import InvalidValueError, quoted_path
from exporter.settings.small_file import read_file


class WebConfigError(ValueError):
    """A part of a web configuration cannot work.

    Attributes:
        key: such as ``tls_server_config.cert_file``.
        wrong: what is wrong, and what would be valid. Never quotes a secret.
    """

    def __init__(self, key: str, wrong: str) -> None:
        super().__init__(f"{key}: {wrong}")
        self.key = key
        self.wrong = wrong


@dataclass(frozen=True)
class Pem:
    """Certificates or a private key in PEM format, in a file or inline.

    Attributes:
        key: of the configuration that names it.
        file: path; None = inline.
        text: the inline PEM text.
    """

    key: str
    file: str | None = None
    text: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """For messages."""
        return "the text" if self.file is None else quoted_path(self.file)

    def read(self) -> bytes:
        """The current content.

        Raises:
            WebConfigError: it cannot be read.
        """
        try:
            return self.text.encode() if self.file is None else read_file(self.file)
        except InvalidValueError as error:
            raise WebConfigError(self.key, str(error)) from None


@dataclass(frozen=True, kw_only=True)
class Tls:
    """``tls_server_config``.

    Attributes:
        certificate: of the exporter, with intermediate certificates.
        private_key: of the certificate.
        client_ca: CA certificates that client certificates are verified against.
        client_auth: whether clients must present a certificate.
        client_sans: a client certificate must contain one of these names; empty = any name.
        min_version: of TLS.
        max_version: of TLS.
        ciphers: of TLS 1.2, by OpenSSL's names; empty = the defaults.
        prefer_server_ciphers: whether the server's order of ciphers takes precedence.
        curve: the only one, by OpenSSL's name; None = the defaults.
    """

    certificate: Pem
    private_key: Pem
    client_ca: Pem | None = None
    client_auth: ssl.VerifyMode = ssl.CERT_NONE
    client_sans: frozenset[str] = frozenset()
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    max_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ciphers: tuple[str, ...] = ()
    prefer_server_ciphers: bool = True
    curve: str | None = None


class Rate(NamedTuple):
    """``rate_limit``: a bucket of ``burst`` tokens that gets one every ``interval`` seconds."""

    interval: float
    burst: int


@dataclass(frozen=True, kw_only=True)
class WebConfig:
    """A whole web configuration.

    Attributes:
        tls: None = plain HTTP.
        users: the bcrypt hash of each user's password; empty = no authentication.
        headers: additional header fields of every response.
        rate: None = no limit.
    """

    tls: Tls | None = None
    users: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    rate: Rate | None = None


class LoadedConfig(NamedTuple):
    """The result of loading a web configuration.

    Attributes:
        config: None = it cannot be used at all.
        context: for ``config.tls``; None = there is no TLS, or it cannot be used.
        problems: one line each; not empty if anything cannot be used.
    """

    config: WebConfig | None
    context: ssl.SSLContext | None
    problems: tuple[str, ...]
