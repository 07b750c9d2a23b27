"""One HTTP request: sent once, answered within its time and size, or a typed error.

No retries, no waiting for a turn, no credentials: that is `client`'s. Redirects are never
followed, so that credentials go nowhere else.
"""

import asyncio
import ipaddress
import json
import logging
import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import yarl

from exporter import __version__
from exporter.errors import (
    AuthError,
    BrokenResponseError,
    ConnectionFailedError,
    ForbiddenError,
    InvalidResponseError,
    PollError,
    RejectedError,
    ThrottledError,
    TimedOutError,
    UpstreamError,
)

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 16 * 2**20
"""A page of 50 jobs is some 100 kB; what is a hundred times larger is no page of jobs."""


@dataclass(frozen=True)
class Response:
    """A complete HTTP answer, whatever its status; ``headers`` ignore case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Meter(Protocol):
    """Is told of every request that was sent."""

    def requested(self, operation: str, code: str, seconds: float) -> None:
        """Count a request; ``code`` is the HTTP status, ``timeout`` or ``connection``."""


class Http(Protocol):
    """Sends one request once."""

    async def __call__(
        self,
        operation: str,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
        timeout: float | None = None,  # noqa: ASYNC109 - a total for this request, see Session
        direct: bool = False,
    ) -> Response:
        """Return the response, whatever its status.

        Args:
            operation: bounded name for metrics.
            method: HTTP method.
            url: absolute and already encoded; sent as it is, because it may be signed.
            headers: sent as they are.
            body: sent as it is.
            timeout: seconds for the whole exchange; default `Session.timeout`.
            direct: never through a proxy (link-local metadata service).

        Raises:
            TimedOutError, ConnectionFailedError, BrokenResponseError, InvalidResponseError: there
                is no usable response.
        """


class Session:
    """Connections of one target, which log lines name ``target``; an `Http`."""

    def __init__(
        self,
        *,
        timeout: float,
        meter: Meter,
        target: str = "",
        proxy: str | None = None,
        ca_file: str | None = None,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self.timeout = timeout
        self.target = target
        self._meter = meter
        self._proxy = proxy
        self._max_bytes = max_bytes
        context = ssl.create_default_context()
        if ca_file is not None:
            context.load_verify_locations(cafile=ca_file)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "User-Agent": f"modelarts-exporter/{__version__}",
                "Accept": "application/json",
                "Accept-Encoding": "gzip, deflate",
            },
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def __call__(
        self,
        operation: str,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
        timeout: float | None = None,  # noqa: ASYNC109 - handed to aiohttp as its total timeout
        direct: bool = False,
    ) -> Response:
        """Send once; see `Http`."""
        total = self.timeout if timeout is None else timeout
        started = time.perf_counter()
        code = "connection"
        try:
            async with self._session.request(
                method,
                yarl.URL(url, encoded=True),
                data=body or None,
                headers=headers,
                allow_redirects=False,
                proxy=None if direct else self._proxy or _usual_proxy(url),
                timeout=aiohttp.ClientTimeout(total=total),
            ) as response:
                content = await self._read(response)
                code = str(response.status)
                return Response(response.status, response.headers, content)
        except TimeoutError as error:
            code = "timeout"
            raise TimedOutError(f"{_place(url)} did not answer within {total:g} s") from error
        except aiohttp.ClientError as error:
            raise _no_answer(error, url) from error
        except (OSError, ValueError) as error:
            raise ConnectionFailedError(f"{_place(url)}: {_short(str(error))}") from error
        except InvalidResponseError:
            code = "200"
            raise
        except asyncio.CancelledError:
            code = "timeout"  # the poll's own time limit ended this request
            raise
        finally:
            seconds = time.perf_counter() - started
            self._meter.requested(operation, code, seconds)
            # Never URL, headers or body: they may hold secrets.
            facts = {"target": self.target, "operation": operation, "method": method, "code": code}
            log.debug("API request", extra=facts | {"seconds": f"{seconds:.3f}"})

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        size = 0
        chunks = []
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > self._max_bytes:
                response.close()
                raise InvalidResponseError(f"the answer is larger than {self._max_bytes} bytes")
            chunks.append(chunk)
        return b"".join(chunks)


def _usual_proxy(url: str) -> str | None:
    """The proxy that the environment or the system names for this URL.

    None for this machine itself, which no proxy can reach (Go does the same).
    aiohttp's own ``trust_env`` would also add passwords from ``~/.netrc`` to signed requests.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host) or proxy_bypass(host):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _no_answer(error: aiohttp.ClientError, url: str) -> PollError:
    """The typed error for an exchange that ended without an answer."""
    place = _place(url)
    match error:
        case aiohttp.ClientConnectorDNSError():
            return ConnectionFailedError(
                f"the name {urlsplit(url).hostname} does not resolve: "
                "check target.region, target.endpoint and the DNS of this machine"
            )
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return ConnectionFailedError(
                f"TLS to {place} failed: {_tls_reason(error)}; "
                "check target.endpoint, or give the issuing CA with target.ca_file"
            )
        case aiohttp.ClientProxyConnectionError():
            return ConnectionFailedError(
                f"cannot connect to the proxy for {place}: check target.proxy"
            )
        case aiohttp.ClientHttpProxyError():
            return ConnectionFailedError(f"the proxy refused {place} with status {error.status}")
        case aiohttp.ClientConnectorError():
            return ConnectionFailedError(
                f"cannot connect to {place}: {_os_reason(error.os_error)}; "
                "check target.endpoint and the network"
            )
        case aiohttp.ClientPayloadError() | aiohttp.ClientResponseError():
            return BrokenResponseError(f"the answer of {place} was cut off or garbled")
        case aiohttp.InvalidURL():
            return RejectedError(f"{_short(url)} is not a URL: check target.endpoint", status=0)
    return ConnectionFailedError(f"the connection to {place} was lost")


def _tls_reason(error: Exception) -> str:
    certificate_error = getattr(error, "certificate_error", None) or getattr(
        error, "os_error", None
    )
    reason = getattr(certificate_error, "verify_message", None)
    return _short(str(reason or getattr(certificate_error, "reason", None) or "no usable TLS"))


def _os_reason(error: OSError) -> str:
    """Why, in a few words: asyncio's own text repeats the address."""
    if error.errno and error.errno > 0:  # those of getaddrinfo are negative
        return os.strerror(error.errno)
    return _short(error.strerror or str(error) or type(error).__name__)


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


# What the gateway (APIG., APIGW.) and ModelArts mean by their codes; some come with a status
# that would say something else.
_SKEW = (".0303",)
_AUTH = (".0301", ".0303", ".0307", "ModelArts.0201", "ModelArts.0202", "ModelArts.0203")
_FORBIDDEN = (
    ".0302",
    "ModelArts.0108",
    "ModelArts.0112",
    "ModelArts.0206",
    "ModelArts.0210",
)
_OTHER_PROJECT = ("ModelArts.0210",)
_THROTTLED = (".0308", "ModelArts.2799")

_UNAUTHORIZED, _FORBIDDEN_STATUS, _TOO_MANY, _SERVER_ERROR = 401, 403, 429, 500
_OK = range(200, 300)
_REDIRECT = range(300, 400)


def error_of(
    answer: Response, *, permission: str = "", now: Callable[[], float] = time.time
) -> PollError:
    """The typed error that a non-2xx answer means, in every form that the service uses.

    Args:
        answer: an HTTP answer.
        permission: the IAM action that the request needs, named when it is missing.
        now: unix seconds, to tell how far the clocks are apart.
    """
    code, text = _code_and_text(answer.body)
    said = f"{answer.status} {code} {text}".replace("  ", " ").strip()
    request_id = answer.headers.get("X-Request-Id")
    if request_id:
        said += f" (request {_short(request_id)})"
    if answer.status == _TOO_MANY or _means(code, _THROTTLED):
        return ThrottledError(f"throttled: {said}", retry_after=_retry_after(answer, now()))
    if _means(code, _SKEW):
        return AuthError(f"clock skew: {_skew(answer, now())}; set this machine's clock: {said}")
    if answer.status == _FORBIDDEN_STATUS or _means(code, _FORBIDDEN):
        hint = f"; grant {permission} to this identity in this project" if permission else ""
        if code in _OTHER_PROJECT:
            hint = "; check target.project_id"
        return ForbiddenError(f"not allowed: {said}{hint}")
    if answer.status == _UNAUTHORIZED or _means(code, _AUTH):
        return AuthError(f"credentials not accepted: {said}; check target.auth.*")
    if answer.status >= _SERVER_ERROR:
        return UpstreamError(f"the service failed: {said}", retry_after=_retry_after(answer, now()))
    if answer.status in _REDIRECT:
        return RejectedError(
            f"redirect not followed: {said}; check target.endpoint", status=answer.status
        )
    if answer.status in _OK:
        return InvalidResponseError(f"unexpected answer: {said}")
    return RejectedError(
        f"refused: {said}; check target.endpoint and target.project_id",
        status=answer.status,
        code=code,
    )


def _means(code: str, codes: tuple[str, ...]) -> bool:
    """Whether a code is one of those; ``.0301`` stands for the gateway's APIG. and APIGW."""
    if code.startswith(("APIG.", "APIGW.")):
        code = code[code.index(".") :]
    return code in codes


def _code_and_text(body: bytes) -> tuple[str, str]:
    """Code and message of an error body, or a word about what it is instead."""
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        kind = "an HTML page" if b"<" in body[:256] else "no JSON" if body.strip() else "no body"
        return "", f"({kind})"
    if not isinstance(document, dict):
        return "", "(no JSON object)"
    error = document.get("error")
    if isinstance(error, dict):
        document = error
    code = _first(document, "error_code", "errorCode", "code")
    text = _first(document, "error_msg", "errorMsg", "message", "title")
    return ("" if code.isdigit() else code), text


def _first(document: dict[str, Any], *keys: str) -> str:
    for key in keys:
        value = document.get(key)
        if isinstance(value, str | int) and value != "":
            return _short(str(value))
    return ""


def _short(text: str, limit: int = 200) -> str:
    """A stranger's text as one printable line."""
    line = "".join(char if char.isprintable() else " " for char in text[: limit + 1])
    return line if len(line) <= limit else line[:limit] + "…"


def _retry_after(answer: Response, now: float) -> float | None:
    """Seconds to wait by the Retry-After header (seconds or HTTP date), None when unusable."""
    value = answer.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    date = _http_date(value)
    return None if date is None else max(0.0, date - (_http_date(_date(answer)) or now))


def _skew(answer: Response, now: float) -> str:
    theirs = _http_date(_date(answer))
    if theirs is None:
        return "the service's clock and ours differ by more than 15 minutes"
    return f"our clock is {abs(now - theirs):.0f} s {'ahead' if now > theirs else 'behind'}"


def _date(answer: Response) -> str:
    return answer.headers.get("Date", "")


def _http_date(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
