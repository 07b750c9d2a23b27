"""The keys of a web configuration, and what values each takes."""

import re
import ssl
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from exporter.settings import durations
from exporter.settings import types as kinds
from exporter.settings.problems import InvalidValueError, invalid_value, nearest, quoted, type_name

TLS_SERVER = "tls_server_config"
USERS = "basic_auth_users"

_MOST_COST = 14  # 2.4 s here: a stop, and who else wants to come in, can wait for so long

# Of an encrypted password: version, cost, 128 bits of salt, hash.
_BCRYPT = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_GO_DURATION = re.compile(r"(?:[0-9]{1,6}(?:ms|[hms]))+")

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
CURVES = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}
_ALWAYS = {
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
}
"""Ciphers of TLS 1.3: nobody can choose among them, here as in Go."""

CIPHERS = {
    f"TLS_ECDHE_{sign}_WITH_{go}": f"ECDHE-{sign}-{openssl}"
    for sign in ("ECDSA", "RSA")
    for go, openssl in (
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
        ("AES_128_CBC_SHA", "AES128-SHA"),
        ("AES_256_CBC_SHA", "AES256-SHA"),
    )
}
_CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_UNVERIFIED = {"RequestClientCert", "RequireAnyClientCert", "RequireClientCert"}


def _one_of(words: Mapping[str, Any] | set[str]) -> "Leaf":
    listed = ", ".join(sorted(words))

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            near = nearest(value, words) if isinstance(value, str) else None
            hint = f"; did you mean {near}?" if near else ""
            raise InvalidValueError(f"{quoted(value)} is no choice; valid: {listed}{hint}")
        return value

    return read


def _version(value: object) -> object:
    if value in ("TLS10", "TLS11"):
        raise InvalidValueError(f"{quoted(value)} is no longer safe; valid: TLS12, TLS13")
    return _VERSIONS[_one_of(_VERSIONS)(value)]


def _client_auth(value: object) -> object:
    if isinstance(value, str) and value in _UNVERIFIED:
        listed = ", ".join(_CLIENT_AUTH)
        raise InvalidValueError(
            f"{quoted(value)} would take any certificate unread; valid: {listed}"
        )
    return _CLIENT_AUTH[_one_of(_CLIENT_AUTH)(value)]


def _list_of(one: "Leaf", noun: str) -> "Leaf":
    def read(value: object) -> list[Any]:
        if not isinstance(value, list):
            raise InvalidValueError(f"{type_name(value)} is no list; valid: a list of {noun}")
        return [one(item) for item in value]

    return read


def _boolean(value: object) -> object:
    if not isinstance(value, bool):
        raise invalid_value(value, "yes or no", "true, false")
    return value


def _pem(value: object) -> object:
    if not isinstance(value, str) or "-----BEGIN " not in value:
        raise invalid_value(value, "text in PEM format", 'a text of lines, after "|"', hidden=True)
    return value


def bcrypt_hash(value: object) -> bytes:
    """An encrypted password.

    Raises:
        InvalidValueError: it is none, or checking one would take too long.
    """
    match = _BCRYPT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise invalid_value(value, "bcrypt hash", "as htpasswd -nBC 10 USER prints it", hidden=True)
    if not 4 <= int(match[1]) <= _MOST_COST:  # noqa: PLR2004 - bcrypt's least
        raise InvalidValueError(f"its cost is {match[1]}; valid: 04 to {_MOST_COST}, 10 is usual")
    return match[0].encode()


def _header(*values: str) -> "Leaf":
    def read(value: object) -> object:
        if values:
            return _one_of(set(values))(value)
        if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
            raise invalid_value(value, "header field", "printable ASCII on one line")
        return value.strip()

    return read


def _interval(value: object) -> object:
    if value == 0 and not isinstance(value, bool):
        return 0.0
    text = value if isinstance(value, str) and _GO_DURATION.fullmatch(value) else ""
    if (seconds := durations.parse(text)) is None:
        raise invalid_value(value, "interval", "100ms, 1s, 1m30s, or 0 for no limit")
    return seconds


def _text(value: object) -> object:
    return kinds.text().take(value)


Leaf: TypeAlias = Callable[[object], Any]
KeyTree: TypeAlias = "dict[str, Leaf | KeyTree]"

KEYS: KeyTree = {
    TLS_SERVER: {
        "cert_file": kinds.PATH.take,
        "key_file": kinds.PATH.take,
        "cert": _pem,
        "key": _pem,
        "client_auth_type": _client_auth,
        "client_ca_file": kinds.PATH.take,
        "client_ca": _pem,
        "client_allowed_sans": _list_of(_text, "names"),
        "min_version": _version,
        "max_version": _version,
        "cipher_suites": _list_of(_one_of(CIPHERS.keys() | _ALWAYS), "ciphers"),
        "prefer_server_cipher_suites": _boolean,
        "curve_preferences": _list_of(_one_of(CURVES), "curves"),
    },
    "http_server_config": {
        "http2": _boolean,
        "headers": {
            "Content-Security-Policy": _header(),
            "Strict-Transport-Security": _header(),
            "X-Content-Type-Options": _header("nosniff"),
            "X-Frame-Options": _header("deny", "sameorigin"),
            "X-XSS-Protection": _header(),
        },
    },
    USERS: {},
    "rate_limit": {"interval": _interval, "burst": kinds.whole(at_least=0).take},
}
