"""The keys of a web configuration, and the values that each accepts."""

import re
import ssl
from collections.abc import Mapping
from typing import Any

from exporter.settings import durations, types
from exporter.settings.problems import (
    InvalidValueError,
    alternatives,
    invalid_value,
    quoted,
    type_name,
    unknown_word,
)
from exporter.settings.tree import AnyKeys, KeyTree, ReadValue

TLS_SERVER = "tls_server_config"
USERS = "basic_auth_users"

_MAX_COST = 14  # takes 2.4 s: a shutdown or another client may have to wait that long

# Version, cost, 128 bits of salt, hash.
_BCRYPT = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_USER = re.compile(r"[^:\x00-\x1f\x7f]+")
_GO_DURATION = re.compile(r"(?:[0-9]{1,6}(?:ms|[hms]))+")

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
CURVES = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}
_TLS13_CIPHERS = {
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
}
"""Always enabled with TLS 1.3; they cannot be selected, as in Go."""

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


def _one_of(words: Mapping[str, Any] | set[str]) -> ReadValue:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise unknown_word(value, sorted(words))
        return value

    return read


def _version(value: object) -> object:
    if value in ("TLS10", "TLS11"):
        raise InvalidValueError(f"{quoted(value)} is not secure; use TLS12 or TLS13")
    return _VERSIONS[_one_of(_VERSIONS)(value)]


def _client_auth(value: object) -> object:
    if isinstance(value, str) and value in _UNVERIFIED:
        words = alternatives([*_CLIENT_AUTH])
        wrong = f"{quoted(value)} would accept certificates without verifying them; use {words}"
        raise InvalidValueError(wrong)
    return _CLIENT_AUTH[_one_of(_CLIENT_AUTH)(value)]


def _list_of(read_item: ReadValue, noun: str) -> ReadValue:
    def read(value: object) -> list[Any]:
        if not isinstance(value, list):
            raise InvalidValueError(f"expected a list of {noun}, got {type_name(value)}")
        return [read_item(item) for item in value]

    return read


def _boolean(value: object) -> object:
    if not isinstance(value, bool):
        raise InvalidValueError(f"expected true or false, got {quoted(value)}")
    return value


def _pem(value: object) -> object:
    if not isinstance(value, str) or "-----BEGIN " not in value:
        raise invalid_value(value, "PEM text", 'a block of lines after "|"', hidden=True)
    return value


def _check_user(name: object) -> None:
    if not isinstance(name, str) or not _USER.fullmatch(name):
        wrong = "invalid user name; use text without a colon, in quotes if it looks like a number"
        raise InvalidValueError(wrong)


def _bcrypt_hash(value: object) -> bytes:
    match = _BCRYPT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise invalid_value(
            value, "bcrypt hash", "the output of htpasswd -nBC 10 USER", hidden=True
        )
    if not 4 <= int(match[1]) <= _MAX_COST:  # noqa: PLR2004 - the minimum of bcrypt
        raise InvalidValueError(
            f"invalid bcrypt cost {match[1]}; use 04 to {_MAX_COST}, usually 10"
        )
    return match[0].encode()


def _header(*values: str) -> ReadValue:
    def read(value: object) -> object:
        if values:
            return _one_of(set(values))(value)
        if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
            raise invalid_value(value, "header value", "one line of printable ASCII")
        return value.strip()

    return read


def _interval(value: object) -> object:
    if value == 0 and not isinstance(value, bool):
        return 0.0
    text = value if isinstance(value, str) and _GO_DURATION.fullmatch(value) else ""
    if (seconds := durations.parse(text)) is None:
        raise invalid_value(value, "interval", "100ms, 1s, 1m30s, or 0 for no limit")
    return seconds


KEYS: KeyTree = {
    TLS_SERVER: {
        "cert_file": types.PATH.take,
        "key_file": types.PATH.take,
        "cert": _pem,
        "key": _pem,
        "client_auth_type": _client_auth,
        "client_ca_file": types.PATH.take,
        "client_ca": _pem,
        "client_allowed_sans": _list_of(types.text().take, "names"),
        "min_version": _version,
        "max_version": _version,
        "cipher_suites": _list_of(_one_of(CIPHERS.keys() | _TLS13_CIPHERS), "ciphers"),
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
    USERS: AnyKeys(_check_user, _bcrypt_hash),
    "rate_limit": {"interval": _interval, "burst": types.whole(at_least=0).take},
}
