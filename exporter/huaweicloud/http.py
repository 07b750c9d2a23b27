"""One HTTP request: sent once, answered within its limits of time and size, or a typed error.

There are no retries, no rate limit and no credentials here. Redirects are never followed, so that
credentials are sent nowhere else.
"""

import asyncio
import base64
import functools
import logging
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias
from urllib.parse import unquote, urlsplit

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
from exporter.huaweicloud.content import MAX_RESPONSE_BYTES, Content
from exporter.metrics.self_metrics import TargetInstruments

log = logging.getLogger(__name__)

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
        workspace: that it asks for, for error messages; "" = none.
        endpoint_option: the option that holds the base URL, for error messages; "" for the
            metadata service, whose URL is fixed.
        max_bytes: of the response's body.
        max_header_bytes: upper limit for one header of the response, name and value.
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
    workspace: str = ""
    endpoint_option: str = ""
    max_bytes: int = MAX_RESPONSE_BYTES
    max_header_bytes: int = 8190


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


class Proxy(Protocol):
    """A proxy to connect through."""

    @property
    def url(self) -> str:
        """May contain a password."""

    @property
    def origin(self) -> str:
        """The option or variable that it comes from, for messages."""


class Session:
    """The connections of one target; an `Http`.

    Args:
        timeout: seconds for a whole exchange.
        meter: counts requests.
        target: its name in log lines.
        proxy_for: the proxy for a URL. aiohttp's own ``trust_env`` knows less of ``NO_PROXY``, and
            would add passwords from ``~/.netrc`` to signed requests.
        ca_file: CAs to trust in addition to those of the system.
    """

    def __init__(
        self,
        *,
        timeout: float,
        meter: TargetInstruments,
        target: str = "",
        proxy_for: Callable[[str], Proxy | None] = lambda _url: None,
        ca_file: str | None = None,
    ) -> None:
        self.timeout = timeout
        self.target = target
        self._meter = meter
        self._proxy_for = proxy_for
        self._ca_hint = (
            ", or give the issuing CA with target.ca_file"
            if ca_file is None
            else ", and whether target.ca_file contains the issuing CA"
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=_tls(ca_file, _content(ca_file)), limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # aiohttp would do it in the event loop
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
        proxy = None if request.direct else self._proxy_for(url)
        started = time.perf_counter()
        code = "connection"
        try:
            async with self._session.request(
                request.method,
                yarl.URL(url, encoded=True),
                data=request.body or None,
                allow_redirects=False,
                **_headers(request, proxy),
                timeout=aiohttp.ClientTimeout(total=timeout),
                max_field_size=request.max_header_bytes,
            ) as response:
                content = await _read(response, request.max_bytes)
                code = str(response.status)
                return Response(response.status, response.headers, content)
        except TimeoutError as error:
            code = "timeout"
            raise TimedOutError(f"{_server(url)} did not answer within {timeout:g} s") from error
        except aiohttp.ClientError as error:
            raise self._no_response(error, request, proxy.origin if proxy else "") from error
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

    def _no_response(
        self, error: aiohttp.ClientError, request: Request, proxy_origin: str
    ) -> PollError:
        """The typed error for an exchange that ended without a response."""
        server, option = _server(request.url), request.endpoint_option
        if proxy_origin:
            option = f"{option} and {proxy_origin}"
        message = f"the connection to {server} was lost"
        lasting = True
        match error:
            case aiohttp.ClientConnectorDNSError() if proxy_origin:
                message = (
                    f"the name of the proxy for {server} does not resolve: check {proxy_origin}"
                )
            case aiohttp.ClientConnectorDNSError():
                message = (
                    f"the name {urlsplit(request.url).hostname} does not resolve: "
                    f"check target.region, {option} and the DNS of this machine"
                )
            case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
                check = f"check {option}{self._ca_hint}"
                message = f"TLS to {server} failed: {_tls_reason(error)}; {check}"
            case aiohttp.ClientProxyConnectionError():
                message = f"cannot connect to the proxy for {server}: check {proxy_origin}"
            case aiohttp.ClientHttpProxyError():
                status = f"with status {error.status}"
                message = f"the proxy refused {server} {status}; check {proxy_origin}"
            case aiohttp.ClientConnectorError():
                check = f"check {option} and the network" if option else "check the network"
                message = f"cannot connect to {server}: {_os_reason(error.os_error)}; {check}"
            case aiohttp.ClientPayloadError() | aiohttp.ClientResponseError():
                return BrokenResponseError(f"the response from {server} was cut off or garbled")
            case aiohttp.InvalidURL():
                url = one_line(request.url, _TEXT_LIMIT)
                return RejectedError(f"{url} is not a valid URL: check {option}", status=0)
            case _:
                lasting = False
        return ConnectionFailedError(message, lasting=lasting)


def _headers(request: Request, proxy: Proxy | None) -> dict[str, Any]:
    """The headers, also those for a proxy, as arguments of aiohttp.

    A proxy gets its password with the request itself, or with that for a tunnel. aiohttp would
    encode it in Latin-1.
    """
    if proxy is None:
        return {"headers": request.headers}
    parts = urlsplit(proxy.url)
    user, at, server = parts.netloc.rpartition("@")
    credentials = base64.b64encode(unquote(user if ":" in user else f"{user}:").encode()).decode()
    own = {"Proxy-Authorization": f"Basic {credentials}"} if at else {}
    tunnel = urlsplit(request.url).scheme == "https"
    return {
        "headers": request.headers if tunnel else {**request.headers, **own},
        "proxy": f"{parts.scheme}://{server}",
        "proxy_headers": own if tunnel else None,
    }


def _content(file: str | None) -> bytes | None:
    return None if file is None else Path(file).read_bytes()


@functools.lru_cache(maxsize=32)
def _tls(ca_file: str | None, _authorities: bytes | None) -> ssl.SSLContext:
    """Verification of the server's certificate, the same with every version of Python.

    Sessions that trust the same authorities share it: it takes 0.8 MB, and 20 ms to make.

    From version 3.13 on, Python also demands what only RFC 5280 does (``VERIFY_X509_STRICT``). Many
    company CAs do not comply, for example because their basicConstraints are not critical. OpenSSL,
    curl and Go accept them, and so does this. In return, an intermediate CA in ``ca_file`` is
    enough with older versions, too.
    """
    context = ssl.create_default_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    return context


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    content = Content(response.headers.get("Content-Encoding", ""), limit)
    try:
        async for piece in response.content.iter_any():
            await content.add(piece)
    except InvalidResponseError:
        response.close()
        raise
    return await content.read()


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
