"""TLS for our own port: a context made of a web configuration, and its exchange while we serve."""

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
"""At least 112 bits everywhere, as in Python's own choice of ciphers."""


class _EncryptedKeyError(Exception):
    """A key wants a passphrase; OpenSSL would ask for it on the terminal."""


class _Connection(ssl.SSLObject):
    """The server's side of one connection."""

    def do_handshake(self) -> None:
        """Shake hands; a client whose certificate has none of the right names is turned away."""
        try:
            super().do_handshake()
            context = self.context
            if isinstance(context, _Context) and context.client_sans:
                names = _names(self.getpeercert())
                if not context.client_sans & names:
                    shown = ", ".join(sorted(names)) or "none"
                    wrong = "the client's certificate has none of client_allowed_sans, but: "
                    raise ssl.SSLCertVerificationError(1, wrong + shown)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            log.debug("no TLS with a client: %s", getattr(error, "reason", None) or error.args[-1])
            raise


class _Context(ssl.SSLContext):
    """Made of one state of the files, and then never changed."""

    sslobject_class = _Connection
    client_sans: frozenset[str]


class ReloadableContext(ssl.SSLContext):
    """Serves every new connection with the context of the moment.

    A context in use can take another certificate, but never loses an authority of clients or a
    cipher. So there is a new one for every change; connections keep theirs to their end.

    Attributes:
        context: for the connections that come.
    """

    context: ssl.SSLContext

    @classmethod
    def of(cls, context: ssl.SSLContext) -> Self:
        """Begin with a context."""
        current = cls(ssl.PROTOCOL_TLS_SERVER)
        current.context = context
        return current

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Begin a connection."""
        return self.context.wrap_bio(*arguments, **options)


def make_context(tls: Tls) -> ssl.SSLContext:
    """The context that a configuration describes; reads the files.

    Raises:
        WebConfigError: it cannot work.
    """
    context = _Context(ssl.PROTOCOL_TLS_SERVER)
    context.client_sans = tls.client_sans
    context.minimum_version = tls.min_version
    context.maximum_version = tls.max_version
    context.options |= ssl.OP_NO_RENEGOTIATION
    if not tls.our_order:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    if tls.ciphers:
        _set_ciphers(context, tls.ciphers)
    if tls.curve:
        context.set_ecdh_curve(tls.curve)
    _load(context, tls.certificate, tls.private_key)
    if tls.client_ca:
        context.load_verify_locations(cadata=_certificates(tls.client_ca))
        # An authority in between may be the one that is trusted, as elsewhere in this format.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_mode = tls.client_auth
    return context


def _set_ciphers(context: ssl.SSLContext, ciphers: tuple[str, ...]) -> None:
    try:
        context.set_ciphers(":".join([_STRENGTH, *ciphers]))
    except ssl.SSLError:
        wrong = "this OpenSSL has none of them; valid: none, for the usual ones"
        raise WebConfigError("tls_server_config.cipher_suites", wrong) from None


def _certificates(pem: Pem) -> str:
    """The certificates in it, and nothing else.

    Raises:
        WebConfigError: there is none, or one that is broken.
    """
    found = b"\n".join(_CERTIFICATE.findall(pem.read())).decode()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=found or "none")
    except ssl.SSLError:
        wrong = f"{pem.shown} holds no sound certificate; valid: one or more in PEM format"
        raise WebConfigError(pem.key, wrong) from None
    return found


def _load(context: ssl.SSLContext, certificate: Pem, private_key: Pem) -> None:
    _certificates(certificate)
    private_key.read()
    try:
        with _path(certificate) as cert, _path(private_key) as key:
            context.load_cert_chain(cert, key, password=_refuse)
    except _EncryptedKeyError:
        wrong = f"{private_key.shown} is encrypted; valid: a private key without a passphrase"
        raise WebConfigError(private_key.key, wrong) from None
    except ssl.SSLError as error:
        raise _unloaded(error.reason or "", certificate, private_key) from None
    except OSError as error:  # it was there a moment ago
        reason = error.strerror or "error"
        raise WebConfigError(
            private_key.key, f"cannot be read: {reason}; valid: a readable file"
        ) from None


def _unloaded(reason: str, certificate: Pem, private_key: Pem) -> WebConfigError:
    if reason in _TOO_WEAK:
        wrong = f"{certificate.shown} is too weak; valid: RSA of 2048 bits, P-256, or better"
        return WebConfigError(certificate.key, wrong)
    if "MISMATCH" in reason:
        wrong = f"does not belong to the certificate of {certificate.key}; valid: its private key"
        return WebConfigError(private_key.key, f"{private_key.shown} {wrong}")
    wrong = f"{private_key.shown} holds no sound private key; valid: one in PEM format"
    return WebConfigError(private_key.key, wrong)


def _refuse() -> NoReturn:
    raise _EncryptedKeyError


@contextlib.contextmanager
def _path(pem: Pem) -> Iterator[str]:
    """A path under which OpenSSL finds it; for a text, as far as possible not on a disk."""
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
    """The names in a client's certificate: hosts, addresses, mail addresses, URIs."""
    found = set()
    for kind, value in (certificate or {}).get("subjectAltName", ()):
        if kind in {"DNS", "email", "URI"}:
            found.add(value)
        elif kind == "IP Address":  # OpenSSL writes IPv6 as 0:0:0:0:0:0:0:1
            with contextlib.suppress(ValueError):
                found.add(str(ipaddress.ip_address(value.strip())))
    return found
