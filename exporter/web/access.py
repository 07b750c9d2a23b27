"""Access control for the exporter's own port: passwords, rate limit, TLS; reloaded on change.

Passwords are checked with bcrypt, which is slow on purpose (about 100 ms of CPU time). Therefore

* checks run in one thread beside the event loop: guessing can use one CPU, not all of them;
* each client address has at most one check in the queue: guessing delays only the guesser;
* results are cached under a keyed hash: a scraper pays for one check and then passes at once.
  Accepted and rejected passwords have separate caches, so guesses cannot evict accepted ones.

Timing does not reveal whether a user exists: unknown users are checked against a dummy hash of
equal cost.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakValueDictionary

import bcrypt

from exporter.clock import Clocks
from exporter.web.config.model import LoadedConfig, Rate, WebConfig
from exporter.web.config.tls import ReloadableContext

log = logging.getLogger(__name__)

CHECK_INTERVAL = 1.0
"""How often the files are checked; a change counts once two checks in a row have seen it."""

_MAX_PASSWORD_BYTES = 72
"""bcrypt ignores the rest: any longer password with the right beginning would match."""

_MAX_ACCEPTED = 100
_MAX_REJECTED = 1000
_BCRYPT_DIGITS = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_DIGEST_LENGTH = 31


class AccessControl:
    """Enforces a web configuration, and applies its changes.

    Args:
        loaded: the initial configuration; without problems.
        check_files: returns the new content of the files, None if nothing changed; blocking, called
            in a thread.
        clocks: replaced in tests.

    Attributes:
        tls: for the listening sockets; None for plain HTTP.
        headers: additional headers of every response.
    """

    def __init__(
        self,
        loaded: LoadedConfig,
        check_files: Callable[[], LoadedConfig | None] = lambda: None,
        clocks: Clocks | None = None,
    ) -> None:
        self.tls = ReloadableContext.of(loaded.context) if loaded.context else None
        self.headers: Mapping[str, str] = {}
        self._check_files = check_files
        self._clocks = clocks or Clocks()
        self._passwords = _PasswordChecker()
        self._bucket: _TokenBucket | None = None
        self._apply(loaded.config or WebConfig())

    async def run(self) -> None:
        """Check the files for changes, forever."""
        while True:
            await self._clocks.sleep(CHECK_INTERVAL)
            if loaded := await asyncio.to_thread(self._check_files):
                self.update(loaded)

    def close(self) -> None:
        """Stop checking passwords."""
        self._passwords.close()

    def update(self, loaded: LoadedConfig) -> None:
        """Apply what is valid; keep the previous values of the rest, and log why."""
        problems = [*loaded.problems, *self._needs_restart(loaded.config)]
        for problem in problems:
            log.error("not applied: %s", problem)
        if loaded.config:
            self._apply(loaded.config)
        if loaded.context and self.tls:
            self.tls.context = loaded.context
        if not problems:
            log.info("web configuration or certificates changed and reloaded")

    def _needs_restart(self, config: WebConfig | None) -> list[str]:
        """Changes that need a restart, so that a truncated file cannot disable protection."""
        if config is None:
            return []
        found = []
        if config.tls and not self.tls:
            found.append("tls_server_config: was added; restart to enable TLS")
        if self.tls and not config.tls:
            found.append("tls_server_config: was removed; restart to disable TLS")
        if self._passwords.users and not config.users:
            found.append("basic_auth_users: was removed; restart to disable passwords")
        return [f"web.config.file: {problem}" for problem in found]

    def _apply(self, config: WebConfig) -> None:
        self.headers = config.headers
        if config.users:
            self._passwords.users = config.users
        if config.rate != (self._bucket and self._bucket.rate):
            self._bucket = config.rate and _TokenBucket(config.rate, self._clocks.monotonic)

    def within_rate_limit(self) -> bool:
        """Count a request; False if it exceeds the rate limit."""
        return self._bucket is None or self._bucket.take()

    @property
    def needs_password(self) -> bool:
        """True if no request is admitted without a password."""
        return bool(self._passwords.users)

    async def authenticate(
        self,
        authorization: str | None,
        client: str | None,
        connected: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Check the credentials of a request.

        Args:
            authorization: the header.
            client: its address.
            connected: False once the client has disconnected.
        """
        return await self._passwords.check(authorization, client or "", connected)


class _PasswordChecker:
    """Users, the hashes of their passwords, and the cached results of checks."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "password")
        self._key = secrets.token_bytes()
        self._accepted = _LRUSet(_MAX_ACCEPTED)
        self._rejected = _LRUSet(_MAX_REJECTED)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._users: Mapping[str, bytes] = {}
        self._dummy_hashes: list[bytes] = []

    @property
    def users(self) -> Mapping[str, bytes]:
        """The password hash of each user."""
        return self._users

    @users.setter
    def users(self, users: Mapping[str, bytes]) -> None:
        self._users = users
        self._dummy_hashes = [_dummy_hash(hashed) for hashed in users.values()]

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def check(
        self, authorization: str | None, client: str, connected: Callable[[], bool]
    ) -> bool:
        if not self._users:
            return True
        user, password = _credentials(authorization)
        # bcrypt stops at a NUL and then starts over: "a\0a" would match as "a".
        if user is None or b"\0" in password or len(password) > _MAX_PASSWORD_BYTES:
            return False
        exists, hashed = self._hash_of(user)
        key = self._mac(user, hashed, password)
        if key in self._accepted or key in self._rejected:
            return key in self._accepted
        lock = self._locks.setdefault(client, asyncio.Lock())
        async with lock:
            if key in self._accepted or key in self._rejected or not connected():
                return key in self._accepted
            loop = asyncio.get_running_loop()
            matches = await loop.run_in_executor(self._pool, _matches, password, hashed)
        (self._accepted if matches and exists else self._rejected).add(key)
        return matches and exists

    def _hash_of(self, user: bytes) -> tuple[bool, bytes]:
        """Whether the user exists, and the user's hash or a dummy hash of equal cost."""
        found = None
        for name, hashed in self._users.items():
            if hmac.compare_digest(name.encode(), user):
                found = hashed
        if found is not None:
            return True, found
        # The same dummy each time: a varying cost would give away that the user does not exist.
        number = int.from_bytes(self._mac(user)[:8], "big")
        return False, self._dummy_hashes[number % len(self._dummy_hashes)]

    def _mac(self, *parts: bytes) -> bytes:
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._key, message, hashlib.sha256)


class _LRUSet:
    """The keys that were added or looked up most recently."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._keys: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        if key not in self._keys:
            return False
        self._keys.move_to_end(key)
        return True

    def add(self, key: bytes) -> None:
        self._keys[key] = None
        while len(self._keys) > self._size:
            self._keys.popitem(last=False)


class _TokenBucket:
    """A burst of requests at once, and one more per interval."""

    def __init__(self, rate: Rate, monotonic: Callable[[], float]) -> None:
        self.rate = rate
        self._monotonic = monotonic
        self._tokens = float(rate.burst)
        self._updated = monotonic()

    def take(self) -> bool:
        now = self._monotonic()
        self._tokens += (now - self._updated) / self.rate.interval
        self._tokens = min(self._tokens, self.rate.burst)
        self._updated = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _credentials(authorization: str | None) -> tuple[bytes | None, bytes]:
    """User and password from the header; the user is None if there are none."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None, b""
    try:
        plain = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        return None, b""
    user, colon, password = plain.partition(b":")
    return (user, password) if colon else (None, b"")


def _matches(password: bytes, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(password, hashed)
    except ValueError:
        return False


def _dummy_hash(hashed: bytes) -> bytes:
    """A random hash of the same cost, which no password matches."""
    cost = int(hashed.split(b"$")[2])
    digest = "".join(secrets.choice(_BCRYPT_DIGITS) for _ in range(_DIGEST_LENGTH))
    return bcrypt.gensalt(cost) + digest.encode()
