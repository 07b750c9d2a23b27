"""Keeps the service from locking access keys and users.

More than five signature failures in a row lock an access key for five minutes. Wrong passwords
lock an IAM user in a similar way. A lock hits every other program that uses the same key. So after
three failures in a row nothing is sent for a while, then one attempt is made, and so on. Until a
key is known to be good, only one request is in flight at a time: parallel requests would use up
all attempts at once.

A secret that was never accepted is probably wrong for good, and the service does not document that
it ever forgets failures. So the pauses grow, up to an hour. A secret that was accepted before is
refused for reasons that may pass: the key is disabled, a clock is wrong, the service has a problem.
So its pauses do not grow.

Failures are counted for each secret of a key: two targets may use the same access key, one of them
with a wrong secret, and a corrected secret should be tried at once. They are also counted over all
secrets of a key, because that is how the service counts.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache

from exporter.errors import AuthError
from exporter.huaweicloud.auth.signature import Key

_ATTEMPTS = 3
"""Failures in a row with one secret before a pause."""

_ATTEMPTS_OF_ALL = 5
"""Failures in a row over all secrets of a key before a pause for all; one more locks it."""

_KEY_PAUSE_SECONDS = 300.0
_USER_PAUSE_SECONDS = 900.0
"""By default, five wrong passwords within 15 minutes lock a user."""

_LONGEST_PAUSE_SECONDS = 3600.0


@dataclass
class _Record:
    """The history of one secret of a key; times in monotonic seconds."""

    proven: bool = False
    ever_accepted: bool = False
    failures: int = 0
    max_failures: int = _ATTEMPTS
    pauses: int = 0
    paused_until: float = float("-inf")
    last_error: str = ""


class LockoutAttempt:
    """One use of a secret. Call succeeded() or failed(); neither if the service gave no verdict.

    A 403 is no verdict: it does not prove that the signature was checked.
    """

    __slots__ = ("_lockout", "_record")

    def __init__(self, lockout: "KeyLockout", record: _Record) -> None:
        self._lockout = lockout
        self._record = record

    def succeeded(self) -> None:
        """Report that a request with the secret succeeded."""
        self._lockout.succeeded(self._record)

    def failed(self, error: AuthError) -> None:
        """Report that the service refused the secret."""
        self._lockout.failed(self._record, error)


class KeyLockout:
    """Counts the failures of one key, or one user, over all targets that use it.

    Args:
        name: of the key, for messages.
        pause: length of the first pause in seconds.
        monotonic: seconds.
    """

    def __init__(self, name: str, *, pause: float, monotonic: Callable[[], float]) -> None:
        self._name = name
        self._pause = pause
        self._monotonic = monotonic
        # Keyed by a hash, so that old secrets are not kept. The least recently used are dropped.
        self._record_for = lru_cache(maxsize=32)(_new_record)
        self._in_a_row = 0
        self._last_failure = float("-inf")
        self._paused_until = float("-inf")
        self._one_at_a_time = asyncio.Lock()

    @asynccontextmanager
    async def attempt(self, secret: str) -> AsyncIterator[LockoutAttempt]:
        """Wait until the secret may be used. The attempt ends with the context.

        Raises:
            AuthError: there is a pause; nothing must be sent.
        """
        record = self._record_for(hash(secret))
        async with AsyncExitStack() as turn:
            if not record.proven:
                await turn.enter_async_context(self._one_at_a_time)
                record = self._record_for(hash(secret))
                if record.proven:  # by the request we waited for: all may go
                    await turn.aclose()
                else:
                    self._refuse_in_pause(record)
            yield LockoutAttempt(self, record)

    def succeeded(self, record: _Record) -> None:
        """Forget the failures of this secret, and those in a row."""
        record.proven = record.ever_accepted = True
        record.failures = record.pauses = 0
        record.max_failures = _ATTEMPTS
        record.paused_until = self._paused_until = float("-inf")
        self._in_a_row = 0

    def failed(self, record: _Record, error: AuthError) -> None:
        """Count a failure, and begin a pause if there were too many."""
        now = self._monotonic()
        if now - self._last_failure >= self._pause:
            self._in_a_row = 0  # the service has forgotten them, or unlocked the key
        self._last_failure = now
        self._in_a_row += 1
        record.proven = False
        record.failures += 1
        record.last_error = str(error)
        if record.failures >= record.max_failures or self._in_a_row >= _ATTEMPTS:
            record.failures = 0
            record.max_failures = 1
            record.paused_until = now + self._next_pause(record)
        if self._in_a_row >= _ATTEMPTS_OF_ALL:
            self._paused_until = now + self._pause

    def _next_pause(self, record: _Record) -> float:
        if record.ever_accepted:
            return self._pause
        record.pauses += 1
        return min(self._pause * 2.0 ** (record.pauses - 1), _LONGEST_PAUSE_SECONDS)

    def _refuse_in_pause(self, record: _Record) -> None:
        wait = max(record.paused_until, self._paused_until) - self._monotonic()
        if wait > 0:
            last = f"; last response: {record.last_error}" if record.last_error else ""
            raise AuthError(
                f"{self._name} was refused several times in a row: not tried again for "
                f"{wait:.0f} s, or the service would lock it; a corrected secret is tried at "
                f"once{last}"
            )


class KeyLockouts:
    """The lockouts of a process: one for each access key and user, shared by all targets."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        def for_key(access: str) -> KeyLockout:
            name = f"access key {masked(access)}"
            return KeyLockout(name, pause=_KEY_PAUSE_SECONDS, monotonic=monotonic)

        def for_user(domain: str, user: str) -> KeyLockout:
            name = f"user {user} of domain {domain}"
            return KeyLockout(name, pause=_USER_PAUSE_SECONDS, monotonic=monotonic)

        # Temporary keys come and go for years. The least recently used are dropped.
        self._for_key = lru_cache(maxsize=1000)(for_key)
        self._for_user = lru_cache(maxsize=1000)(for_user)

    def for_key(self, key: Key) -> KeyLockout:
        """The lockout of an access key."""
        return self._for_key(key.access)

    def for_user(self, domain: str, user: str) -> KeyLockout:
        """The lockout of an IAM user's password."""
        return self._for_user(domain, user)


def masked(access: str) -> str:
    """The part of an access key that may be shown."""
    return f"{access[:4]}…"


def _new_record(_fingerprint: int) -> _Record:
    return _Record()
