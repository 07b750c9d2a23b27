"""One interface for all ways to sign in, and the one flow of an authenticated request."""

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace

from exporter.errors import AuthError, ForbiddenError, PollError
from exporter.huaweicloud.auth.lockout import LockoutAttempt
from exporter.huaweicloud.auth.secret import redact_error, redacting
from exporter.huaweicloud.errors import error_of
from exporter.huaweicloud.http import Request, Response

_OK = range(200, 300)


async def _no_refresh(_error: AuthError) -> bool:
    return False


class AuthenticatedRequest:
    """One attempt to send a request with the credentials in use.

    Args:
        request: what to send.
        sign: returns all headers to send, secrets included.
        secrets: kept out of every error.
        turn: waits until the secret may be used, and counts its failures; None = cannot be locked.
        on_accepted: called when the service recognizes the credentials.
        on_rejected: called when it does not; returns whether there are different ones now.
    """

    def __init__(
        self,
        request: Request,
        sign: Callable[[], Mapping[str, str]],
        *,
        secrets: tuple[str | None, ...] = (),
        turn: AbstractAsyncContextManager[LockoutAttempt] | None = None,
        on_accepted: Callable[[], None] = lambda: None,
        on_rejected: Callable[[AuthError], Awaitable[bool]] = _no_refresh,
    ) -> None:
        self._request = request
        self._sign = sign
        self.secrets = secrets
        self._turn = turn
        self._on_accepted = on_accepted
        self._on_rejected = on_rejected
        self._lockout_attempt: LockoutAttempt | None = None

    @asynccontextmanager
    async def in_turn(self) -> AsyncIterator["AuthenticatedRequest"]:
        """Wait until the secret may be used, and redact every `PollError` that leaves."""
        async with self._turn or nullcontext() as self._lockout_attempt:
            with redacting(*self.secrets):
                yield self

    def signed(self) -> Request:
        """The request with all its headers. Call it just before sending: signatures age."""
        return replace(self._request, headers=self._sign())

    def accepted(self) -> None:
        """Report a success (2xx): failures are forgotten."""
        if self._lockout_attempt:
            self._lockout_attempt.succeeded()
        self._on_accepted()

    def forbidden(self) -> None:
        """Report that the service recognizes the credentials, but denies a permission (403).

        Failures are not forgotten: a service that answers 401 and 403 in turn would get any number
        of wrong signatures, and lock the key.
        """
        self._on_accepted()

    async def rejected(self, error: AuthError) -> bool:
        """Report that the service does not accept the credentials: 401, whatever the code.

        Signs in again where that can help, which may take a request to IAM.

        Returns:
            True if a retry would use different credentials. Retry once; always False for fixed
            keys.
        """
        redact_error(error, *self.secrets)  # it is kept for later messages
        if self._lockout_attempt:
            self._lockout_attempt.failed(error)
        return await self._on_rejected(error)


class Credentials(ABC):
    """A way to sign in.

    Attributes:
        method: value of the option ``target.auth.method`` that selects it; never ``auto``.
    """

    method: str

    @property
    @abstractmethod
    def identity(self) -> str:
        """A description for people; never contains a secret."""

    @property
    def expires_at(self) -> float | None:
        """Unix seconds when the current grant expires, by the service's clock; None = unknown."""
        return None

    async def project_id(self) -> str | None:
        """The project that the sign-in reports, if it does. Signs in first where needed."""
        return None

    @abstractmethod
    async def authenticate(self, request: Request) -> AuthenticatedRequest:
        """Prepare a request; sign in first where needed.

        Raises:
            PollError: there are no credentials now; nothing must be sent.
        """

    @asynccontextmanager
    async def attempt(self, request: Request) -> AsyncIterator[AuthenticatedRequest]:
        """Begin an attempt to send a request; wait for its turn and sign in first where needed.

        Send what `AuthenticatedRequest.signed` returns, then report `accepted`, `forbidden` or
        `rejected`, or none of them if the service gave no verdict: a request that timed out says
        nothing about the credentials. The attempt ends with the context, however it went.

        Raises:
            PollError: nothing must be sent now; or raised inside, then redacted.
        """
        async with (await self.authenticate(request)).in_turn() as attempt:
            yield attempt


async def send_authenticated(
    send: Callable[[AuthenticatedRequest], Awaitable[Response]],
    credentials: Credentials,
    request: Request,
    *,
    clock: Callable[[], float] = time.time,
    on_retry: Callable[[str], None] = lambda _reason: None,
) -> Response:
    """Sign and send a request. On a 401, refresh the credentials and send it once more.

    Args:
        send: sends an attempt once.
        credentials: who we are.
        request: what to send, without credentials.
        clock: unix seconds, to report how far the service's clock is from ours.
        on_retry: called with a `PollError.reason` before the request is sent again.

    Raises:
        PollError: there is no 2xx response.
    """
    retried = False
    while True:
        async with credentials.attempt(request) as attempt:
            response = await send(attempt)
            if response.status in _OK:
                attempt.accepted()
                return response
            error = error_of(
                response,
                permission=request.permission,
                workspace=request.workspace,
                endpoint_option=request.endpoint_option,
                secrets=attempt.secrets,
                now=clock,
            )
            if request.optional or not await _refreshed(attempt, error) or retried:
                raise error
        on_retry(error.reason)
        retried = True


async def _refreshed(attempt: AuthenticatedRequest, error: PollError) -> bool:
    """Report the verdict of an error response; True if there are different credentials now."""
    if isinstance(error, ForbiddenError):
        attempt.forbidden()  # we were recognized: signing in again would not grant more rights
        return False
    return isinstance(error, AuthError) and await attempt.rejected(error)
