"""Requests signed with an access key, permanent or temporary (method ``aksk``)."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from exporter.errors import AuthError
from exporter.huaweicloud.auth.base import AuthenticatedRequest, Credentials
from exporter.huaweicloud.auth.lockout import KeyLockouts, masked
from exporter.huaweicloud.auth.signature import Key, sign
from exporter.huaweicloud.http import Request


class AccessKey(Credentials):
    """Requests signed with an access key, permanent or temporary.

    Args:
        read_key: returns the current key; called for every request.
        origin: where the key comes from, for people.
        lockouts: of the process.
        clock: unix seconds.
    """

    method = "aksk"

    def __init__(
        self,
        read_key: Callable[[], Key],
        *,
        origin: str,
        lockouts: KeyLockouts,
        clock: Callable[[], float],
    ) -> None:
        self._read_key = read_key
        self._origin = origin
        self._lockouts = lockouts
        self._clock = clock

    @property
    def identity(self) -> str:
        """See `Credentials`."""
        try:
            access = masked(self._read_key().access)
        except AuthError:
            access = "(unreadable)"
        return f"access key {access} from {self._origin}"

    async def authenticate(self, request: Request) -> AuthenticatedRequest:
        """See `Credentials`. A refused key is never sent twice for one request."""
        key = self._read_key()
        return AuthenticatedRequest(
            request,
            signer(request, key, self._clock),
            secrets=(key.secret, key.security_token),
            turn=self._lockouts.for_key(key).attempt(key.secret),
        )


def signer(
    request: Request, key: Key, clock: Callable[[], float]
) -> Callable[[], Mapping[str, str]]:
    """A function that signs the request with the key, at the time it is called."""

    def signed_headers() -> Mapping[str, str]:
        now = datetime.fromtimestamp(clock(), UTC)
        return sign(request.method, request.url, request.headers, request.body, key=key, now=now)

    return signed_headers
