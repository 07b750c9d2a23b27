"""One request well done: signed, in its turn, tried again where that can help, or a typed error."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from exporter.credentials.attempt import Attempt, Credentials
from exporter.errors import AuthError, Forbidden, PollError, Throttled, UpstreamFailed
from exporter.http import Answer, Http, error_of
from exporter.pacing import Pacer

T = TypeVar("T")

_OK = range(200, 300)
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 60.0


class RetryMeter(Protocol):
    """Is told of every request that will be sent again."""

    def retried(self, reason: str) -> None:
        """Count a retry; ``reason`` is a `PollError.reason`."""


class Client:
    """The ModelArts API of one project.

    Args:
        http: sends one request.
        credentials: who we are.
        endpoint: base URL of ModelArts.
        project_id: part of every path.
        pacer: this target's turn-taking.
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
        pacer: Pacer,
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
        self._pacer = pacer
        self._slots = asyncio.Semaphore(concurrency)
        self._retries = retries
        self._longest_pause = longest_pause
        self._meter = meter
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._jitter = jitter

    async def search(
        self, query: dict[str, Any], read: Callable[[bytes], T], *, deadline: float
    ) -> T:
        """``POST training-job-searches``.

        Args:
            query: the request's JSON document.
            read: makes sense of the answer's body; if it cannot, the request has failed.
            deadline: monotonic seconds; nothing is tried again that cannot end before it.

        Raises:
            PollError: after the last try.
        """
        return await self._call(
            "search",
            "POST",
            "/training-job-searches",
            json.dumps(query).encode(),
            read,
            permission="modelarts:trainJob:list",
            deadline=deadline,
        )

    async def _call(
        self,
        operation: str,
        method: str,
        path: str,
        body: bytes,
        read: Callable[[bytes], T],
        *,
        permission: str,
        deadline: float,
    ) -> T:
        failures = 0
        while True:
            if self._pacer.free_at >= deadline:
                raise Throttled("throttled: the service asked for a pause longer than this poll")
            try:
                answer = await self._send(operation, method, path, body, permission)
                result = read(answer.body)
            except PollError as error:
                failures += 1
                delay = self._delay(error, failures)
                if isinstance(error, Throttled):
                    self._pacer.pause(delay)  # for every request of this target, also the next poll
                if not error.retryable or failures > self._retries:
                    raise
                if self._monotonic() + delay >= deadline:
                    raise
                self._meter.retried(error.reason)
                await self._sleep(delay)
            else:
                return result

    def _delay(self, error: PollError, failures: int) -> float:
        """Seconds until the next try: what the service asks for, else exponential with jitter."""
        if isinstance(error, Throttled | UpstreamFailed) and error.retry_after is not None:
            return min(error.retry_after, self._longest_pause)
        ceiling = min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0 ** (failures - 1))
        return ceiling * (1 + self._jitter()) / 2

    async def _send(
        self,
        operation: str,
        method: str,
        path: str,
        body: bytes,
        permission: str,
        *,
        again: bool = True,
    ) -> Answer:
        """Send, and once more if the service no longer accepts what we showed and we have new."""
        url = self._base + path
        async with (
            self._slots,
            self._credentials.attempt(method, url, headers=self._headers, body=body) as attempt,
        ):
            await self._pacer.turn()
            answer = await self._http(operation, method, url, headers=attempt.headers, body=body)
            if answer.status in _OK:
                attempt.accepted()
                return answer
            error = error_of(answer, permission=permission, now=self._clock)
            if not await _renewed(attempt, error) or not again:
                raise error
        self._meter.retried(error.reason)
        return await self._send(operation, method, path, body, permission, again=False)


async def _renewed(attempt: Attempt, error: PollError) -> bool:
    """Tell the credentials what came of the attempt; whether they have something new to show."""
    if isinstance(error, Forbidden):
        attempt.accepted()  # we were recognised: signing in again would not give us more rights
        return False
    return isinstance(error, AuthError) and await attempt.rejected(error)
