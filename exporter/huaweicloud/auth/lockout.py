"""Keeps access keys and users from being locked by the service.

More than five signature failures in a row lock an access key for five minutes; wrong passwords
lock an IAM user in a similar way. Every other program that uses the same key would suffer. So
after three failures in a row nothing is sent for a while, then a single try, and so on. While a
key is not known to be good, one request is in flight at a time: otherwise parallel requests
would use up all tries at once.

A secret that was never accepted is probably wrong for good, and that the service forgets failures
is nowhere promised: so its pauses grow, up to an hour. One that was accepted before is refused for
reasons that may pass (the key is disabled, a clock is off, the service is in trouble): its pauses
do not grow.

Failures count for each secret of a key, because two targets may use one access key and only one
of them have the right secret, and because a corrected secret deserves to be tried at once; and
over all secrets of a key, because that is how the service counts.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache

from exporter.errors import AuthError
from exporter.huaweicloud.auth.signature import Key

_TRIES = 3
"""Failures in a row with one secret, then a pause."""

_TRIES_OF_ALL = 5
"""Failures in a row over all secrets of a key, then a pause for all; one more locks it."""

_KEY_PAUSE_SECONDS = 300.0
_USER_PAUSE_SECONDS = 900.0
"""The usual rule locks a user at five wrong passwords within 15 minutes."""

_LONGEST_PAUSE_SECONDS = 3600.0


@dataclass
class _Record:
    """What is known of one secret of a key; monotonic seconds."""

    proven: bool = False
    ever_accepted: bool = False
    failures: int = 0
    tries: int = _TRIES
    pauses: int = 0
    paused_until: float = float("-inf")
    last_error: str = ""


class LockoutTrial:
    """One use of a secret. Say how it went, or nothing if the service did not judge it."""

    __slots__ = ("_guard", "_record")

    def __init__(self, guard: "KeyLockout", record: _Record) -> None:
        self._guard = guard
        self._record = record

    def succeeded(self) -> None:
        """The service knows us; whether it lets us do what we asked for is another matter."""
        self._guard.succeeded(self._record)

    def failed(self, error: AuthError) -> None:
        """The service refused the secret."""
        self._guard.failed(self._record, error)


class KeyLockout:
    """Counts the failures of one key, or one user, over all who use it.

    Args:
        what: names the key in messages.
        pause: seconds, of the first pause.
        monotonic: seconds.
    """

    def __init__(self, what: str, *, pause: float, monotonic: Callable[[], float]) -> None:
        self._what = what
        self._pause = pause
        self._monotonic = monotonic
        # Keyed by a hash, so that old secrets are not kept; those long unused are forgotten.
        self._record_of = lru_cache(maxsize=32)(_new_record)
        self._in_a_row = 0
        self._last_failure = float("-inf")
        self._paused_until = float("-inf")
        self._one_at_a_time = asyncio.Lock()

    @asynccontextmanager
    async def trial(self, secret: str) -> AsyncIterator[LockoutTrial]:
        """Wait until the secret may be tried; the trial ends with the context, judged or not.

        Raises:
            AuthError: not now; nothing must be sent.
        """
        record = self._record_of(hash(secret))
        async with AsyncExitStack() as turn:
            if not record.proven:
                await turn.enter_async_context(self._one_at_a_time)
                record = self._record_of(hash(secret))
                if record.proven:  # by the one we waited for: all may go
                    await turn.aclose()
                else:
                    self._refuse_in_pause(record)
            yield LockoutTrial(self, record)

    def succeeded(self, record: _Record) -> None:
        """Forget the failures of this secret, and the row."""
        record.proven = record.ever_accepted = True
        record.failures = record.pauses = 0
        record.tries = _TRIES
        record.paused_until = self._paused_until = float("-inf")
        self._in_a_row = 0

    def failed(self, record: _Record, error: AuthError) -> None:
        """Count a failure, and begin a pause when it was one too many."""
        now = self._monotonic()
        if now - self._last_failure >= self._pause:
            self._in_a_row = 0  # the service has forgotten the row, or unlocked the key
        self._last_failure = now
        self._in_a_row += 1
        record.proven = False
        record.failures += 1
        record.last_error = str(error)
        if record.failures >= record.tries or self._in_a_row >= _TRIES:
            record.failures = 0
            record.tries = 1
            record.paused_until = now + self._next_pause(record)
        if self._in_a_row >= _TRIES_OF_ALL:
            self._paused_until = now + self._pause

    def _next_pause(self, record: _Record) -> float:
        if record.ever_accepted:
            return self._pause
        record.pauses += 1
        return min(self._pause * 2.0 ** (record.pauses - 1), _LONGEST_PAUSE_SECONDS)

    def _refuse_in_pause(self, record: _Record) -> None:
        wait = max(record.paused_until, self._paused_until) - self._monotonic()
        if wait > 0:
            last = f"; last answer: {record.last_error}" if record.last_error else ""
            raise AuthError(
                f"{self._what} was refused several times in a row: not tried again for "
                f"{wait:.0f} s, or the service would lock it; a corrected secret is tried at "
                f"once{last}"
            )


class KeyLockouts:
    """The lockouts of a process: one for each access key and user, shared by all targets."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        def of_key(access: str) -> KeyLockout:
            what = f"access key {shown(access)}"
            return KeyLockout(what, pause=_KEY_PAUSE_SECONDS, monotonic=monotonic)

        def of_user(domain: str, name: str) -> KeyLockout:
            what = f"user {name} of domain {domain}"
            return KeyLockout(what, pause=_USER_PAUSE_SECONDS, monotonic=monotonic)

        # Temporary keys come and go for years: those longest unused are forgotten.
        self._of_key = lru_cache(maxsize=1000)(of_key)
        self._of_user = lru_cache(maxsize=1000)(of_user)

    def of_key(self, key: Key) -> KeyLockout:
        """The guard of an access key."""
        return self._of_key(key.access)

    def of_user(self, domain: str, name: str) -> KeyLockout:
        """The guard of an IAM user's password."""
        return self._of_user(domain, name)


def shown(access: str) -> str:
    """An access key as people may see it."""
    return f"{access[:4]}…"


def _new_record(_fingerprint: int) -> _Record:
    return _Record()
