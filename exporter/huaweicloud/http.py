"""One HTTP request: sent once, answered within its limits of time and size, or a typed error.

There are no retries, no rate limit and no credentials here. Redirects are never followed, so that
credentials are sent nowhere else.
"""

import asyncio
import ipaddress
import logging
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import yarl

from exporter import __version__
from exporter.errors import (
    BrokenResponseError,
    ConnectionFailedError,
    InvalidResponseError,
    PollError,
    RejectedError,
    TimedOutError,
    one_line,
)
from exporter.metrics.self_metrics import TargetInstruments

log = logging.getLogger(__name__)

MAX_RESPONSE_BYTES = 16 * 2**20
"""A page of 50 jobs has about 100 kB; a body a hundred times larger is not a page of jobs."""

_TEXT_LIMIT = 200


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request.

    Attributes:
        operation: bounded name for metrics.
        method: HTTP method.
        url: absolute and already encoded; sent as it is, because it may be signed.
        headers: sent as they are.
        body: sent as it is.
        timeout: seconds for the whole exchange; None = `Session.timeout`.
        direct: never use a proxy (link-local metadata service).
        optional: nothing depends on it: sent once, and a refusal says nothing about the
            credentials.
        permission: the IAM action that it needs, for error messages.
        endpoint_option: the option that holds the base URL, for error messages; "" for the
            metadata service, whose URL is fixed.
    """

    operation: str
    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    timeout: float | None = None
    direct: bool = False
    optional: bool = False
    permission: str = ""
    endpoint_option: str = ""


@dataclass(frozen=True)
class Response:
    """A complete HTTP response, whatever its status; header names are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Http: TypeAlias = Callable[[Request], Awaitable[Response]]
"""Sends a request once and returns the response, whatever its status.

Raises TimedOutError, ConnectionFailedError, BrokenResponseError, InvalidResponseError or
RejectedError if there is no usable response.
"""


class Session:
    """The connections of one target, which log lines name ``target``; an `Http`."""

    def __init__(
        self,
        *,
        timeout: float,
        meter: TargetInstruments,
        target: str = "",
        proxy: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        self.timeout = timeout
        self.target = target
        self._meter = meter
        self._proxy = proxy
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

    async def __call__(self, request: Request) -> Response:
        """Send a request once; see `Http`."""
        url = request.url
        timeout = self.timeout if request.timeout is None else request.timeout
        started = time.perf_counter()
        code = "connection"
        try:
            async with self._session.request(
                request.method,
                yarl.URL(url, encoded=True),
                data=request.body or None,
                headers=request.headers,
                allow_redirects=False,
                proxy=None if request.direct else self._proxy or _system_proxy(url),
                timeout=aiohttp.ClientTimeout(total=timeout),
            ) as response:
                content = await _read(response)
                code = str(response.status)
                return Response(response.status, response.headers, content)
        except TimeoutError as error:
            code = "timeout"
            raise TimedOutError(f"{_server(url)} did not answer within {timeout:g} s") from error
        except aiohttp.ClientError as error:
            raise _no_response(error, request) from error
        except (OSError, ValueError) as error:
            reason = one_line(str(error), _TEXT_LIMIT)
            raise ConnectionFailedError(f"{_server(url)}: {reason}") from error
        except InvalidResponseError:
            code = "200"
            raise
        except asyncio.CancelledError:
            code = "timeout"  # the poll's own time limit ended this request
            raise
        finally:
            seconds = time.perf_counter() - started
            self._meter.requested(request.operation, code, seconds)
            # Never URL, headers or body: they may hold secrets.
            facts = {
                "target": self.target,
                "operation": request.operation,
                "method": request.method,
                "code": code,
                "seconds": f"{seconds:.3f}",
            }
            log.debug("API request", extra=facts)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    size = 0
    chunks = []
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_RESPONSE_BYTES:
            response.close()
            raise InvalidResponseError(f"the response is larger than {MAX_RESPONSE_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _system_proxy(url: str) -> str | None:
    """The proxy that the environment or the system sets for this URL.

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


def _no_response(error: aiohttp.ClientError, request: Request) -> PollError:
    """The typed error for an exchange that ended without a response."""
    server, option = _server(request.url), request.endpoint_option
    match error:
        case aiohttp.ClientConnectorDNSError():
            return ConnectionFailedError(
                f"the name {urlsplit(request.url).hostname} does not resolve: "
                f"check target.region, {option} and the DNS of this machine"
            )
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return ConnectionFailedError(
                f"TLS to {server} failed: {_tls_reason(error)}; "
                f"check {option}, or give the issuing CA with target.ca_file"
            )
        case aiohttp.ClientProxyConnectionError():
            return ConnectionFailedError(
                f"cannot connect to the proxy for {server}: check target.proxy"
            )
        case aiohttp.ClientHttpProxyError():
            return ConnectionFailedError(f"the proxy refused {server} with status {error.status}")
        case aiohttp.ClientConnectorError():
            check = f"check {option} and the network" if option else "check the network"
            return ConnectionFailedError(
                f"cannot connect to {server}: {_os_reason(error.os_error)}; {check}"
            )
        case aiohttp.ClientPayloadError() | aiohttp.ClientResponseError():
            return BrokenResponseError(f"the response from {server} was cut off or garbled")
        case aiohttp.InvalidURL():
            url = one_line(request.url, _TEXT_LIMIT)
            return RejectedError(f"{url} is not a valid URL: check {option}", status=0)
    return ConnectionFailedError(f"the connection to {server} was lost")


def _tls_reason(error: Exception) -> str:
    certificate_error = getattr(error, "certificate_error", None) or getattr(
        error, "os_error", None
    )
    reason = getattr(certificate_error, "verify_message", None)
    reason = reason or getattr(certificate_error, "reason", None) or "no usable TLS"
    return one_line(str(reason), _TEXT_LIMIT)


def _os_reason(error: OSError) -> str:
    """The reason in a few words; asyncio's own text repeats the address."""
    if error.errno and error.errno > 0:  # those of getaddrinfo are negative
        return os.strerror(error.errno)
    return one_line(error.strerror or str(error) or type(error).__name__, _TEXT_LIMIT)


def _server(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
