"""Credentials without a sign-in: a token that is renewed elsewhere, and none at all."""

from exporter.errors import AuthError
from exporter.huaweicloud.auth.base import AuthenticatedRequest, Credentials
from exporter.huaweicloud.auth.secret import Secret
from exporter.huaweicloud.http import Request


class NoAuth(Credentials):
    """No credentials, for tests (method ``none``)."""

    method = "none"
    identity = "nobody"

    async def authenticate(self, request: Request) -> AuthenticatedRequest:
        """See `Credentials`."""
        return AuthenticatedRequest(request, lambda: request.headers)


class StaticToken(Credentials):
    """A token that something else renews, perhaps in a file."""

    method = "token"

    def __init__(self, token: Secret) -> None:
        self._token = token

    @property
    def identity(self) -> str:
        """See `Credentials`."""
        return f"token from {self._token.origin}"

    async def authenticate(self, request: Request) -> AuthenticatedRequest:
        """See `Credentials`."""
        token = self._token.read()

        async def changed(_error: AuthError) -> bool:
            try:
                return self._token.read() != token
            except AuthError:
                return False

        return AuthenticatedRequest(
            request,
            lambda: {**request.headers, "X-Auth-Token": token},
            secrets=(token,),
            on_rejected=changed,
        )
