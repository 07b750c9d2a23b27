"""Request signatures for the service's gateway: SDK-HMAC-SHA256. Pure: no I/O, no clock.

The signature covers a canonical form of exactly the request that is sent: method, path, query,
all headers passed in, and the hash of the body. For JSON requests it equals the vendor's own
signer byte for byte. (For other content types that signer leaves the body unsigned, which is never
wanted here.)
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

_ALGORITHM = "SDK-HMAC-SHA256"
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class Key:
    """An access key with its secret; temporary keys come with a security token."""

    access: str
    secret: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)


def sign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    key: Key,
    now: datetime,
) -> dict[str, str]:
    """The headers of a signed request.

    Args:
        method: HTTP method.
        url: absolute and already encoded, as it goes over the wire.
        headers: other headers to send and sign; not Host, X-Sdk-Date or Authorization, and no
            name twice in different case. A name with ``_`` is sent but not signed (gateways drop
            it).
        body: the exact bytes of the body.
        key: the access key to sign with.
        now: wall clock, aware; the service tolerates 15 minutes.

    Returns:
        The headers passed in, stripped, with Host, X-Sdk-Date, X-Security-Token if the key has
        one, and Authorization.
    """
    parts = urlsplit(url)
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    sent = {name: value.strip() for name, value in headers.items()}
    sent |= {"Host": _host(parts), "X-Sdk-Date": stamp}
    if key.security_token is not None:
        sent["X-Security-Token"] = key.security_token
    lines = {name.lower(): value for name, value in sent.items() if "_" not in name}
    names = sorted(lines)
    signed_names = ";".join(names)
    canonical = "\n".join(
        (
            method.upper(),
            _path(parts.path),
            _query(parts.query),
            *(f"{name}:{lines[name]}" for name in names),
            "",
            signed_names,
            hashlib.sha256(body).hexdigest(),
        )
    )
    to_sign = f"{_ALGORITHM}\n{stamp}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.new(key.secret.encode(), to_sign.encode(), hashlib.sha256).hexdigest()
    sent["Authorization"] = (
        f"{_ALGORITHM} Access={key.access}, SignedHeaders={signed_names}, Signature={signature}"
    )
    return sent


def _host(parts: SplitResult) -> str:
    """The Host header; with a port only if it is not the scheme's default."""
    return parts.netloc.rpartition("@")[2].removesuffix(_DEFAULT_PORTS.get(parts.scheme, ":"))


def _path(path: str) -> str:
    """The canonical path: decoded, encoded again, and with a ``/`` at the end."""
    canonical = quote(unquote(path), safe="/~")
    return canonical if canonical.endswith("/") else canonical + "/"


def _query(query: str) -> str:
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    return "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs)
