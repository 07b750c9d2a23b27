r"""Strict verification of SDK-HMAC-SHA256 signatures.

::

    canonical = METHOD \n URI, always ending in "/" \n sorted query \n
                "k:v\n" per signed header, lower case, sorted \n
                ";".join(signed) \n sha256hex(body)
    to_sign   = "SDK-HMAC-SHA256\n" + yyyymmddThhmmssZ + "\n" + sha256hex(canonical)
    signature = hmac_sha256_hex(secret key, to_sign)
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote

_ALGORITHM = "SDK-HMAC-SHA256"
_AUTHORIZATION = re.compile(
    rf"{_ALGORITHM} Access=([^\s,]+), SignedHeaders=([a-z0-9!#$%&'*+.^`|~;-]+), "
    r"Signature=([0-9a-f]{64})"
)
_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_MUST_BE_SIGNED = ("host", "x-sdk-date")
_SIGNED_IF_SENT = ("x-security-token", "x-project-id")


class SignatureError(Exception):
    """The signature is incomplete or wrong."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as received.

    ``path`` and ``query`` are still percent-encoded; names of ``headers`` are in lower case, and
    repeated headers are left out.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Authorization:
    """The parts of an ``Authorization`` header."""

    access: str
    signed: tuple[str, ...]
    signature: str


def authorization(request: Incoming) -> Authorization:
    """Parse the ``Authorization`` header of a request.

    Raises:
        SignatureError: it is missing or malformed.
    """
    match = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
    if match is None:
        raise SignatureError("The Authorization header is malformed.")
    return Authorization(match[1], tuple(match[2].split(";")), match[3])


def signed_at(request: Incoming) -> float:
    """Return ``X-Sdk-Date`` in unix seconds.

    Raises:
        SignatureError: it is missing or malformed.
    """
    text = request.headers.get("x-sdk-date", "")
    if not _DATE.fullmatch(text):
        raise SignatureError("X-Sdk-Date is missing or malformed.")
    try:
        moment = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise SignatureError("X-Sdk-Date is not a valid time.") from None
    return moment.timestamp()


def verify(request: Incoming, claim: Authorization, secret: str) -> None:
    """Verify everything that is signed.

    Raises:
        SignatureError: with the reason, and nothing secret.
    """
    signed = claim.signed
    if list(signed) != sorted(set(signed)):
        raise SignatureError("SignedHeaders are not sorted.")
    sent = [name for name in _SIGNED_IF_SENT if name in request.headers]
    for name in (*_MUST_BE_SIGNED, *sent):
        if name not in signed:
            raise SignatureError(f"{name} is not signed.")
    for name in signed:
        if name not in request.headers:
            raise SignatureError(f"The signed header {name} was not sent, or more than once.")
    to_sign = "\n".join(
        (_ALGORITHM, request.headers["x-sdk-date"], _sha256(_canonical(request, signed)))
    )
    expected = hmac.new(secret.encode(), to_sign.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, claim.signature):
        raise SignatureError("The signature is not the one of this request.")


def _canonical(request: Incoming, signed: tuple[str, ...]) -> bytes:
    path = "/".join(map(_encoded, unquote(request.path).split("/")))
    pairs = [part.partition("=") for part in request.query.split("&") if part]
    query = sorted((unquote(name), unquote(value)) for name, _, value in pairs)
    lines = [
        request.method.upper(),
        path if path.endswith("/") else path + "/",
        "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in query),
        *(f"{name}:{request.headers[name].strip()}" for name in signed),
        "",
        ";".join(signed),
        _sha256(request.body),
    ]
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _encoded(text: str) -> str:
    return quote(text, safe="~")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
