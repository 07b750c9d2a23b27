"""One request well done: signed, in its turn, tried again where that can help, or a typed error."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import quote

from exporter.errors import AuthError, ForbiddenError, PollError, ThrottledError, UpstreamError
from exporter.huaweicloud.auth.base import AuthenticatedRequest, Credentials
from exporter.huaweicloud.http import Http, Response, error_of
from exporter.modelarts.rate_limit import RateLimiter

T = TypeVar("T")

_OK = range(200, 300)
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 60.0


class RetryMeter(Protocol):
    """Is told of every request that will be sent again."""

    def retried(self, reason: str) -> None:
        """Count a retry; ``reason`` is a `PollError.reason`."""


class _Call(NamedTuple):
    """What is asked for.

    Attributes:
        permission: the IAM action that it needs.
        optional: tried once, and whatever comes of it says nothing about the credentials.
    """

    operation: str
    method: str
    path: str
    body: bytes
    permission: str
    optional: bool = False


class Client:
    """The ModelArts API of one project.

    Args:
        http: sends one request.
        credentials: who we are.
        endpoint: base URL of ModelArts.
        project_id: part of every path.
        rate_limiter: this target's turn-taking.
        concurrency: requests in flight at once.
        retries: further tries of a request that failed in a way that may pass.
        longest_pause: seconds; what a ``Retry-After`` can ask for at most.
        meter: is told of retries.
        clock: unix seconds, to tell how far the service's clock is from ours.
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
        longest_pause: float,
        meter: RetryMeter,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._http = http
        self._credentials = credentials
        self._base = f"{endpoint.rstrip('/')}/v2/{project_id}"
        self._headers = {"Content-Type": "application/json", "X-Project-Id": project_id}
        self._rate_limiter = rate_limiter
        self._slots = asyncio.Semaphore(concurrency)
        self._retries = retries
        self._longest_pause = longest_pause
        self._meter = meter
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
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
            read: makes sense of the answer's body; if it cannot, the request has failed.
            deadline: monotonic seconds; nothing is tried again that cannot end before it.
            background: wait while anything is `urgent`.

        Raises:
            PollError: after the last try.
        """
        call = _Call(
            "search",
            "POST",
            "/training-job-searches",
            json.dumps(query).encode(),
            permission="modelarts:trainJob:list",
        )
        return await self._ask(call, read, deadline, background=background)

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
        call = _Call("get", "GET", path, b"", permission="modelarts:trainJob:get")
        return await self._ask(call, read, deadline, background=background)

    async def pools(self, read: Callable[[bytes], T], *, deadline: float) -> T:
        """``GET pools``, tried once; arguments and errors as `search`.

        A 401 is not taken for a refusal of the credentials, and nobody signs in again for it: where
        searches succeed, that would pause them.
        """
        call = _Call("pools", "GET", "/pools", b"", permission="modelarts:pool:list", optional=True)
        return await self._ask(call, read, deadline, background=False)

    def urgent(self) -> AbstractContextManager[None]:
        """While this lasts, requests in the background wait."""
        return self._rate_limiter.urgent()

    async def _ask(
        self, call: _Call, read: Callable[[bytes], T], deadline: float, *, background: bool
    ) -> T:
        failures = 0
        while True:
            if self._rate_limiter.free_at >= deadline:
                raise ThrottledError(
                    "throttled: the service asked for a pause longer than this poll"
                )
            try:
                answer = await self._send(call, background=background)
                result = read(answer.body)
            except PollError as error:
                failures += 1
                delay = self._delay(error, failures)
                if isinstance(error, ThrottledError):
                    self._rate_limiter.pause(
                        delay
                    )  # for every request of this target, also the next poll
                if not error.retryable or call.optional or failures > self._retries:
                    raise
                if self._monotonic() + delay >= deadline:
                    raise
                self._meter.retried(error.reason)
                await self._sleep(delay)
            else:
                return result

    def _delay(self, error: PollError, failures: int) -> float:
        """Seconds until the next try: what the service asks for, else exponential with jitter."""
        if isinstance(error, ThrottledError | UpstreamError) and error.retry_after is not None:
            return min(error.retry_after, self._longest_pause)
        ceiling = min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0 ** (failures - 1))
        return ceiling * (1 + self._jitter()) / 2

    async def _send(self, call: _Call, *, background: bool, again: bool = True) -> Response:
        """Send, and once more if the service no longer accepts what we showed and we have new."""
        url = self._base + call.path
        async with (
            self._slot(background=background),
            self._credentials.attempt(
                call.method, url, headers=self._headers, body=call.body
            ) as attempt,
        ):
            await self._rate_limiter.acquire()
            answer = await self._http(
                call.operation, call.method, url, headers=attempt.headers, body=call.body
            )
            if answer.status in _OK:
                attempt.accepted()
                return answer
            error = error_of(answer, permission=call.permission, now=self._clock)
            if call.optional or not await _renewed(attempt, error) or not again:
                raise error
        self._meter.retried(error.reason)
        return await self._send(call, background=background, again=False)

    @asynccontextmanager
    async def _slot(self, *, background: bool) -> AsyncIterator[None]:
        """One of the requests in flight; in the background, none while anything is urgent."""
        while True:
            if background:
                await self._rate_limiter.wait_while_urgent()
            async with self._slots:
                if not (background and self._rate_limiter.is_urgent):
                    yield
                    return


async def _renewed(attempt: AuthenticatedRequest, error: PollError) -> bool:
    """Tell the credentials what came of the attempt; whether they have something new to show."""
    if isinstance(error, ForbiddenError):
        attempt.accepted()  # we were recognised: signing in again would not give us more rights
        return False
    return isinstance(error, AuthError) and await attempt.rejected(error)
