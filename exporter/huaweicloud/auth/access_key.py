"""Requests signed with an access key, permanent or temporary (method ``aksk``)."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from exporter.errors import AuthError
from exporter.huaweicloud.auth.base import NO_HEADERS, Attempt
from exporter.huaweicloud.auth.lockout import KeyGuards, shown
from exporter.huaweicloud.auth.secret import hushed
from exporter.huaweicloud.auth.signature import Key, sign


class AccessKey:
    """Requests signed with an access key, permanent or temporary.

    Args:
        read_key: the key as it is now, read from wherever it is for every request.
        origin: where it comes from, for people.
        guards: of the process.
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
        guards: KeyGuards,
        clock: Callable[[], float],
    ) -> None:
        self._read_key = read_key
        self._origin = origin
        self._guards = guards
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
    ) -> AsyncIterator[Attempt]:
        """See `Credentials`. A refused key is never sent twice for one request."""
        key = self._read_key()
        async with signed(
            key, method, url, headers, body, guards=self._guards, clock=self._clock
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
    guards: KeyGuards,
    clock: Callable[[], float],
    accepted: Callable[[], None] = lambda: None,
    rejected: Callable[[AuthError], Awaitable[bool]] = _no_renewal,
) -> AsyncIterator[Attempt]:
    """An attempt signed with a key, under the guard of that key.

    Args:
        key: who asks.
        method: see `Credentials.attempt`.
        url: see `Credentials.attempt`.
        headers: see `Credentials.attempt`.
        body: see `Credentials.attempt`.
        guards: of the process.
        clock: unix seconds.
        accepted: told too when the key was accepted.
        rejected: asked, when the key was refused, whether there is another one now.
    """
    async with guards.of_key(key).trial(key.secret) as trial:
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

        with hushed(*secrets):
            yield Attempt(sent, secrets=secrets, accepted=was_accepted, rejected=was_rejected)
