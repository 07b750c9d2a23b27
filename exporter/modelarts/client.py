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
GET_POOL = "modelarts:pool:get"
GET_QUOTAS = "modelarts:trainJob:getQuotas"
"""The IAM actions that optional requests need."""

OPTIONAL_SECONDS = 5.0
"""Limit for the exchange of an optional request, which may occupy one of few connections."""

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
        self._endpoint = endpoint.rstrip("/")
        self._project_id = project_id
        self._headers = {"Content-Type": "application/json", "X-Project-Id": project_id}
        self._rate_limiter = rate_limiter
        self._slots = asyncio.Semaphore(concurrency)
        self._background_slots = asyncio.Semaphore(max(1, concurrency - 1))
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

    async def pools(
        self,
        workspace: str,
        read: Callable[[bytes], T],
        *,
        deadline: float,
        background: bool = False,
    ) -> T:
        """``GET pools`` of a workspace; arguments and errors as `search`.

        This and the following requests are optional: they are not retried, and a 401 does not count
        against the credentials and causes no new sign-in: where searches succeed, that would pause
        them.
        """
        path = f"/pools?workspaceId={quote(workspace, safe='')}"
        request = self._make_optional("pools", path, LIST_POOLS)
        return await self._request(request, read, deadline, background=background)

    async def pool_usage(self, read: Callable[[bytes], T], *, deadline: float) -> T:
        """``GET metrics/runtime/pools`` in the background: all pools of the project."""
        request = self._make_optional("pool_usage", "/metrics/runtime/pools", LIST_POOLS)
        return await self._request(request, read, deadline, background=True)

    async def flavors(self, start: str, read: Callable[[bytes], T], *, deadline: float) -> T:
        """``GET resourceflavors`` in the background.

        Args:
            start: where the page begins, from the page before; "" is the first one.
            read: as `search`.
            deadline: as `search`.
        """
        path = "/resourceflavors?limit=500"
        if start:
            path += f"&continue={quote(start, safe='')}"
        request = self._make_optional("flavors", path, LIST_POOLS, version="v1")
        return await self._request(request, read, deadline, background=True)

    async def pool_queue(self, pool: str, read: Callable[[bytes], T], *, deadline: float) -> T:
        """``GET pools/{pool}/workloads`` in the background: the first 500 waiting jobs."""
        path = f"/pools/{quote(pool, safe='')}/workloads?type=train&status=Queue&limit=500"
        request = self._make_optional("pool_queue", path, GET_POOL)
        return await self._request(request, read, deadline, background=True)

    async def quotas(self, read: Callable[[bytes], T], *, deadline: float) -> T:
        """``GET training-quotas`` in the background: of the number of jobs."""
        path = "/training-quotas?resource=job-num"
        request = self._make_optional("quotas", path, GET_QUOTAS)
        return await self._request(request, read, deadline, background=True)

    def urgent(self) -> AbstractContextManager[None]:
        """While this lasts, requests in the background wait."""
        return self._rate_limiter.urgent()

    def _make_optional(
        self, operation: str, path: str, permission: str, *, version: str = "v2"
    ) -> Request:
        return self._make_request(
            operation,
            "GET",
            path,
            version=version,
            permission=permission,
            timeout=OPTIONAL_SECONDS,
            optional=True,
        )

    def _make_request(
        self, operation: str, method: str, path: str, *, version: str = "v2", **more: Any
    ) -> Request:
        return Request(
            operation=operation,
            method=method,
            url=f"{self._endpoint}/{version}/{self._project_id}{path}",
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
        """One of the requests in flight; in the background, only while nothing is urgent.

        Requests in the background leave one free, so that a poll never waits for their responses.
        """
        if not background:
            async with self._slots:
                yield
            return
        async with self._background_slots:
            while True:
                await self._rate_limiter.wait_while_urgent()
                async with self._slots:
                    if not self._rate_limiter.is_urgent:
                        yield
                        return
