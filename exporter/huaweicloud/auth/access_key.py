"""Requests signed with an access key, permanent or temporary (method ``aksk``)."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from exporter.errors import AuthError
from exporter.huaweicloud.auth.base import NO_HEADERS, AuthenticatedRequest
from exporter.huaweicloud.auth.lockout import KeyLockouts, shown
from exporter.huaweicloud.auth.secret import redacting
from exporter.huaweicloud.auth.signature import Key, sign


class AccessKey:
    """Requests signed with an access key, permanent or temporary.

    Args:
        read_key: the key as it is now, read from wherever it is for every request.
        origin: where it comes from, for people.
        lockouts: of the process.
        clock: unix seconds.
    """

    method = "aksk"
    expires_at = None
    project_id = None

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
            access = shown(self._read_key().access)
        except AuthError:
            access = "(unreadable)"
        return f"access key {access} from {self._origin}"

    @asynccontextmanager
    async def attempt(
        self, method: str, url: str, *, headers: Mapping[str, str] = NO_HEADERS, body: bytes = b""
    ) -> AsyncIterator[AuthenticatedRequest]:
        """See `Credentials`. A refused key is never sent twice for one request."""
        key = self._read_key()
        async with signed(
            key, method, url, headers, body, lockouts=self._lockouts, clock=self._clock
        ) as attempt:
            yield attempt


async def _no_renewal(_error: AuthError) -> bool:
    return False


@asynccontextmanager
async def signed(
    key: Key,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    lockouts: KeyLockouts,
    clock: Callable[[], float],
    accepted: Callable[[], None] = lambda: None,
    rejected: Callable[[AuthError], Awaitable[bool]] = _no_renewal,
) -> AsyncIterator[AuthenticatedRequest]:
    """An attempt signed with a key, under the guard of that key.

    Args:
        key: who asks.
        method: see `Credentials.attempt`.
        url: see `Credentials.attempt`.
        headers: see `Credentials.attempt`.
        body: see `Credentials.attempt`.
        lockouts: of the process.
        clock: unix seconds.
        accepted: told too when the key was accepted.
        rejected: asked, when the key was refused, whether there is another one now.
    """
    async with lockouts.of_key(key).trial(key.secret) as trial:
        secrets = (key.secret, key.security_token)

        def sent() -> Mapping[str, str]:
            now = datetime.fromtimestamp(clock(), UTC)
            return sign(method, url, headers, body, key=key, now=now)

        def was_accepted() -> None:
            trial.succeeded()
            accepted()

        async def was_rejected(error: AuthError) -> bool:
            trial.failed(error)
            return await rejected(error)

        with redacting(*secrets):
            yield AuthenticatedRequest(
                sent, secrets=secrets, accepted=was_accepted, rejected=was_rejected
            )
