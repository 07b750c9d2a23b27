"""TLS for the exporter's own port: a context for a web configuration, replaceable at runtime."""

import contextlib
import ipaddress
import logging
import os
import re
import ssl
import tempfile
from collections.abc import Iterator
from typing import Any, NoReturn, Self

from exporter.web.config.model import Pem, Tls, WebConfigError

log = logging.getLogger(__name__)

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
_TOO_WEAK = {"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"}
_STRENGTH = "@SECLEVEL=2"
"""At least 112 bits of security, like the default ciphers of Python."""


class _EncryptedKeyError(Exception):
    """A private key needs a passphrase, which OpenSSL would ask for on the terminal."""


class _Connection(ssl.SSLObject):
    """The server side of a connection."""

    def do_handshake(self) -> None:
        """Do the handshake; reject a client whose certificate has none of the allowed names."""
        try:
            super().do_handshake()
            context = self.context
            if isinstance(context, _Context) and context.client_sans:
                names = _names(self.getpeercert())
                if not context.client_sans & names:
                    shown = ", ".join(sorted(names)) or "none"
                    wrong = f"client certificate has none of client_allowed_sans, but: {shown}"
                    raise ssl.SSLCertVerificationError(1, wrong)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            log.debug("TLS handshake failed: %s", getattr(error, "reason", None) or error.args[-1])
            raise


class _Context(ssl.SSLContext):
    """Created from one version of the files, and never changed."""

    sslobject_class = _Connection
    client_sans: frozenset[str]


class ReloadableContext(ssl.SSLContext):
    """Serves every new connection with the current context.

    A context in use can load another certificate, but cannot drop a client CA or a cipher. So every
    change creates a new context; open connections keep theirs.

    Attributes:
        context: for new connections.
    """

    context: ssl.SSLContext

    @classmethod
    def of(cls, context: ssl.SSLContext) -> Self:
        """Start with a context."""
        current = cls(ssl.PROTOCOL_TLS_SERVER)
        current.context = context
        return current

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Start a connection."""
        return self.context.wrap_bio(*arguments, **options)


def make_context(tls: Tls) -> ssl.SSLContext:
    """Create the context for a configuration from its files.

    Raises:
        WebConfigError: the configuration or a file cannot work.
    """
    context = _Context(ssl.PROTOCOL_TLS_SERVER)
    context.client_sans = tls.client_sans
    context.minimum_version = tls.min_version
    context.maximum_version = tls.max_version
    context.options |= ssl.OP_NO_RENEGOTIATION
    if not tls.prefer_server_ciphers:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    if tls.ciphers:
        _set_ciphers(context, tls.ciphers)
    if tls.curve:
        context.set_ecdh_curve(tls.curve)
    _load(context, tls.certificate, tls.private_key)
    if tls.client_ca:
        context.load_verify_locations(cadata=_certificates(tls.client_ca))
        # An intermediate CA may be the trusted one, as in other programs with this format.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_mode = tls.client_auth
    return context


def _set_ciphers(context: ssl.SSLContext, ciphers: tuple[str, ...]) -> None:
    try:
        context.set_ciphers(":".join([_STRENGTH, *ciphers]))
    except ssl.SSLError:
        wrong = "not supported by this OpenSSL; remove the key to use the defaults"
        raise WebConfigError("tls_server_config.cipher_suites", wrong) from None


def _certificates(pem: Pem) -> str:
    """The certificates in PEM format, without anything around them.

    Raises:
        WebConfigError: there is no certificate, or one is not valid.
    """
    found = b"\n".join(_CERTIFICATE.findall(pem.read())).decode()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=found or "none")
    except ssl.SSLError:
        wrong = f"{pem.shown} contains no valid certificate; use one or more in PEM format"
        raise WebConfigError(pem.key, wrong) from None
    return found


def _load(context: ssl.SSLContext, certificate: Pem, private_key: Pem) -> None:
    _certificates(certificate)
    private_key.read()
    try:
        with _path(certificate) as cert, _path(private_key) as key:
            context.load_cert_chain(cert, key, password=_refuse)
    except _EncryptedKeyError:
        wrong = f"{private_key.shown} is encrypted; use a private key without a passphrase"
        raise WebConfigError(private_key.key, wrong) from None
    except ssl.SSLError as error:
        raise _unloaded(error.reason or "", certificate, private_key) from None
    except OSError as error:  # it was removed after it had been read
        wrong = f"cannot read {private_key.shown}: {error.strerror or 'I/O error'}"
        raise WebConfigError(private_key.key, wrong) from None


def _unloaded(reason: str, certificate: Pem, private_key: Pem) -> WebConfigError:
    if reason in _TOO_WEAK:
        wrong = f"{certificate.shown} is too weak; use RSA with 2048 bits or more, or P-256"
        return WebConfigError(certificate.key, wrong)
    if "MISMATCH" in reason:
        wrong = f"{private_key.shown} does not match the certificate in {certificate.key}"
        return WebConfigError(private_key.key, f"{wrong}; use its private key")
    wrong = f"{private_key.shown} contains no valid private key; use one in PEM format"
    return WebConfigError(private_key.key, wrong)


def _refuse() -> NoReturn:
    raise _EncryptedKeyError


@contextlib.contextmanager
def _path(pem: Pem) -> Iterator[str]:
    """A path for OpenSSL; for inline text, in memory where the system supports it."""
    if pem.file is not None:
        yield pem.file
    elif hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pem")
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(pem.read())
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(pem.read())
            file.flush()
            yield file.name


def _names(certificate: Any) -> set[str]:
    """The names in a client certificate: host names, IP addresses, mail addresses and URIs."""
    found = set()
    for kind, value in (certificate or {}).get("subjectAltName", ()):
        if kind in {"DNS", "email", "URI"}:
            found.add(value)
        elif kind == "IP Address":  # OpenSSL writes IPv6 as 0:0:0:0:0:0:0:1
            with contextlib.suppress(ValueError):
                found.add(str(ipaddress.ip_address(value.strip())))
    return found
