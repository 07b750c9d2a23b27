"""One interface for all ways to sign in.

A request is an attempt::

    async with credentials.attempt("POST", url, headers=headers, body=body) as attempt:
        answer = await http(operation, "POST", url, headers=attempt.headers, body=body)
        ...  # attempt.accepted(), or await attempt.rejected(error), or neither

The context ends the attempt however it went (a request that timed out says nothing about the
credentials), and blots our secrets out of every `PollError` that leaves it.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from types import MappingProxyType
from typing import Protocol

from exporter.errors import AuthError
from exporter.huaweicloud.auth.secret import redact_error

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class AuthenticatedRequest:
    """One request on its way."""

    def __init__(
        self,
        headers: Callable[[], Mapping[str, str]],
        *,
        secrets: tuple[str | None, ...] = (),
        accepted: Callable[[], None] = lambda: None,
        rejected: Callable[[AuthError], Awaitable[bool]] | None = None,
    ) -> None:
        self._headers = headers
        self._secrets = secrets
        self._accepted = accepted
        self._rejected = rejected

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """All headers to send, secrets included. Signed when first asked for: ask just before."""
        return self._headers()

    def accepted(self) -> None:
        """The service knows us: 2xx, and 403 too. Failures are forgotten."""
        self._accepted()

    async def rejected(self, error: AuthError) -> bool:
        """The service does not accept what we showed: 401, whatever the code.

        Signs in again where that can help, which may take a request to IAM.

        Returns:
            Whether another attempt would show something new; one is enough. Never for fixed keys.
        """
        redact_error(error, *self._secrets)  # it is kept for later messages
        return await self._rejected(error) if self._rejected else False


class Credentials(Protocol):
    """A way to sign in."""

    @property
    def method(self) -> str:
        """Value of the option ``target.auth.method`` that chooses it; never ``auto``."""

    @property
    def identity(self) -> str:
        """For people; never a secret."""

    @property
    def expires_at(self) -> float | None:
        """Unix seconds when what we hold now expires, by the service's clock; None = unknown."""

    @property
    def project_id(self) -> str | None:
        """The project, if the sign-in told it."""

    def attempt(
        self, method: str, url: str, *, headers: Mapping[str, str] = NO_HEADERS, body: bytes = b""
    ) -> AbstractAsyncContextManager[AuthenticatedRequest]:
        """Begin a request; waits for its turn and signs in first where needed.

        Args:
            method: HTTP method.
            url: absolute and encoded, exactly as it will be sent.
            headers: more headers to send; signed where requests are signed.
            body: exactly as it will be sent.

        Raises:
            PollError: no credentials now; nothing must be sent.
        """
