"""The simple ways to sign in: a token that somebody else made, and nothing at all."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from exporter.errors import AuthError
from exporter.huaweicloud.auth.base import NO_HEADERS, AuthenticatedRequest
from exporter.huaweicloud.auth.secret import Secret, redacting


class NoAuth:
    """No credentials at all, for tests (method ``none``)."""

    method = "none"
    identity = "nobody"
    expires_at = None
    project_id = None

    @asynccontextmanager
    async def attempt(
        self,
        method: str,  # noqa: ARG002 - the interface
        url: str,  # noqa: ARG002 - the interface
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        body: bytes = b"",  # noqa: ARG002 - the interface
    ) -> AsyncIterator[AuthenticatedRequest]:
        """See `Credentials`."""
        yield AuthenticatedRequest(lambda: headers)


class StaticToken:
    """A token that somebody else renews, perhaps in a file."""

    method = "token"
    expires_at = None
    project_id = None

    def __init__(self, token: Secret) -> None:
        self._token = token
        self.identity = f"ready token from {token.origin}"

    @asynccontextmanager
    async def attempt(
        self,
        method: str,  # noqa: ARG002 - the interface
        url: str,  # noqa: ARG002 - the interface
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        body: bytes = b"",  # noqa: ARG002 - the interface
    ) -> AsyncIterator[AuthenticatedRequest]:
        """See `Credentials`."""
        token = self._token.read()

        async def rejected(_error: AuthError) -> bool:
            try:
                return self._token.read() != token
            except AuthError:
                return False

        with redacting(token):
            yield AuthenticatedRequest(
                lambda: {**headers, "X-Auth-Token": token}, secrets=(token,), rejected=rejected
            )
