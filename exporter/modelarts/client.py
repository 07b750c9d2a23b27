"""One request to the job API: authenticated, rate-limited, retried, or a typed error."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote

from exporter.clock import Clocks
from exporter.errors import ConnectionFailedError, PollError, ThrottledError, UpstreamError
from exporter.huaweicloud.auth.base import AuthenticatedRequest, Credentials, send_authenticated
from exporter.huaweicloud.http import Http, Request, Response
from exporter.metrics.self_metrics import TargetInstruments
from exporter.modelarts.rate_limit import RateLimiter

T = TypeVar("T")

LIST_POOLS = "modelarts:pool:list"
"""The IAM action that reading the pool list needs."""

_FIRST_BACKOFF_SECONDS = 0.5
_MAX_BACKOFF_SECONDS = 60.0


class Client:
    """The ModelArts API of one project.

    Args:
        http: sends a request once.
        credentials: how to sign in.
        endpoint: base URL of ModelArts.
        project_id: part of every path.
        rate_limiter: of this target.
        concurrency: maximum number of requests in flight.
        retries: how often a failed request is sent again, if its error is retryable.
        retry_unreachable: also if there was no connection at all.
        longest_pause: seconds; upper limit for a ``Retry-After``.
        meter: counts retries.
        clocks: of the machine.
        jitter: random numbers from 0 to 1.
    """

    def __init__(
        self,
        http: Http,
        credentials: Credentials,
        *,
        endpoint: str,
        project_id: str,
        rate_limiter: RateLimiter,
        concurrency: int,
        retries: int,
        retry_unreachable: bool = True,
        longest_pause: float,
        meter: TargetInstruments,
        clocks: Clocks,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._http = http
        self._credentials = credentials
        self._base = f"{endpoint.rstrip('/')}/v2/{project_id}"
        self._headers = {"Content-Type": "application/json", "X-Project-Id": project_id}
        self._rate_limiter = rate_limiter
        self._slots = asyncio.Semaphore(concurrency)
        self._retries = retries
        self._retry_unreachable = retry_unreachable
        self._longest_pause = longest_pause
        self._meter = meter
        self._clocks = clocks
        self._jitter = jitter

    async def search(
        self,
        query: dict[str, Any],
        read: Callable[[bytes], T],
        *,
        deadline: float,
        background: bool = False,
    ) -> T:
        """``POST training-job-searches``.

        Args:
            query: the request's JSON document.
            read: decodes the response body, in a thread; if it raises a `PollError`, the request
                has failed.
            deadline: monotonic seconds; a retry that could not start before it is not made.
            background: wait while anything is `urgent`.

        Raises:
            PollError: after the last retry.
        """
        request = self._make_request(
            "search",
            "POST",
            "/training-job-searches",
            body=json.dumps(query).encode(),
            permission="modelarts:trainJob:list",
            workspace=query.get("workspace_id", ""),
        )
        return await self._request(request, read, deadline, background=background)

    async def job(
        self,
        job_id: str,
        read: Callable[[bytes], T],
        *,
        deadline: float,
        background: bool = False,
    ) -> T:
        """``GET training-jobs/{id}``; arguments and errors as `search`."""
        path = f"/training-jobs/{quote(job_id, safe='')}"
        request = self._make_request("get", "GET", path, permission="modelarts:trainJob:get")
        return await self._request(request, read, deadline, background=background)

    async def pools(self, workspace: str, read: Callable[[bytes], T], *, deadline: float) -> T:
        """``GET pools`` of a workspace, without retries; arguments and errors as `search`.

        A 401 does not count against the credentials and causes no new sign-in: where searches
        succeed, that would pause them.
        """
        path = f"/pools?workspaceId={quote(workspace, safe='')}"
        request = self._make_request("pools", "GET", path, permission=LIST_POOLS, optional=True)
        return await self._request(request, read, deadline, background=False)

    def urgent(self) -> AbstractContextManager[None]:
        """While this lasts, requests in the background wait."""
        return self._rate_limiter.urgent()

    def _make_request(self, operation: str, method: str, path: str, **more: Any) -> Request:
        return Request(
            operation=operation,
            method=method,
            url=self._base + path,
            headers=self._headers,
            endpoint_option="target.endpoint",
            **more,
        )

    async def _request(
        self, request: Request, read: Callable[[bytes], T], deadline: float, *, background: bool
    ) -> T:
        """Send a request, with retries, and decode its response."""
        failures = 0
        while True:
            if self._rate_limiter.free_at >= deadline:
                raise ThrottledError(
                    "throttled: the service asked for a pause longer than this poll"
                )
            try:
                response = await self._send(request, background=background)
                result = await asyncio.to_thread(read, response.body)
            except PollError as error:
                failures += 1
                delay = self._delay(error, failures)
                if isinstance(error, ThrottledError):
                    # For every request of this target, also in the next poll.
                    self._rate_limiter.pause(delay)
                if request.optional or failures > self._retries or not self._is_retryable(error):
                    raise
                if self._clocks.monotonic() + delay >= deadline:
                    raise
                self._meter.retried(error.reason)
                await self._clocks.sleep(delay)
            else:
                return result

    def _is_retryable(self, error: PollError) -> bool:
        if isinstance(error, ConnectionFailedError) and error.lasting:
            return self._retry_unreachable
        return error.retryable

    def _delay(self, error: PollError, failures: int) -> float:
        """Seconds until the next retry: as the service asks, else exponential with jitter."""
        if isinstance(error, ThrottledError | UpstreamError) and error.retry_after is not None:
            return min(error.retry_after, self._longest_pause)
        ceiling = min(_MAX_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0 ** (failures - 1))
        return ceiling * (1 + self._jitter()) / 2

    async def _send(self, request: Request, *, background: bool) -> Response:
        async def send(attempt: AuthenticatedRequest) -> Response:
            await self._rate_limiter.acquire()
            return await self._http(attempt.signed())

        async with self._slot(background=background):
            return await send_authenticated(
                send,
                self._credentials,
                request,
                clock=self._clocks.wall,
                on_retry=self._meter.retried,
            )

    @asynccontextmanager
    async def _slot(self, *, background: bool) -> AsyncIterator[None]:
        """One of the requests in flight; in the background, only while nothing is urgent."""
        while True:
            if background:
                await self._rate_limiter.wait_while_urgent()
            async with self._slots:
                if not (background and self._rate_limiter.is_urgent):
                    yield
                    return
