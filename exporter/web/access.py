"""Who may come in at our own port: passwords, rate, TLS; and the file that says so, read again.

A password is checked with bcrypt, which is slow on purpose (some 100 ms of a processor). So

* it is done beside the event loop, by one thread: who guesses gets one processor and not all;
* the callers take turns by their address: who guesses waits for himself, and not the others;
* what came out is remembered, by a keyed hash: a scraper costs it once, and is then let in without
  a turn. What was right and what was wrong is remembered apart, and so no guess pushes a right
  password out.

Nothing tells from outside whether a user exists: for one that does not, the password is checked
against a hash that nobody has the password of, as costly as those of the others.
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

LOOK_SECONDS = 1.0
"""From one look at the files to the next; a change counts once two looks have seen it."""

_LONGEST_PASSWORD = 72
"""Bytes. bcrypt looks at no more: any longer one would do that begins like the right one."""

_MOST_RIGHT = 100
_MOST_WRONG = 1000
_BCRYPT_DIGITS = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_DIGEST_LENGTH = 31


class AccessControl:
    """Keeps to a web configuration while it changes.

    Args:
        loaded: what is in force at first; without problems.
        look: what has become of the files, None: nothing new; slow, called beside the event loop.
        clocks: other than the machine's, for tests.

    Attributes:
        tls: for the sockets that listen; None: plain HTTP.
        headers: more header fields for every answer.
    """

    def __init__(
        self,
        loaded: LoadedConfig,
        look: Callable[[], LoadedConfig | None] = lambda: None,
        clocks: Clocks | None = None,
    ) -> None:
        self.tls = ReloadableContext.of(loaded.context) if loaded.context else None
        self.headers: Mapping[str, str] = {}
        self._look = look
        self._clocks = clocks or Clocks()
        self._passwords = _Passwords()
        self._bucket: _Bucket | None = None
        self._take_over(loaded.config or WebConfig())

    async def run(self) -> None:
        """Look at the files for ever."""
        while True:
            await self._clocks.sleep(LOOK_SECONDS)
            if loaded := await asyncio.to_thread(self._look):
                self.renew(loaded)

    def close(self) -> None:
        """Check no more passwords."""
        self._passwords.close()

    def renew(self, loaded: LoadedConfig) -> None:
        """Take over what is sound; for the rest, what was in force stays, and is told."""
        problems = [*loaded.problems, *self._too_open(loaded.config)]
        for problem in problems:
            log.error("not taken over: %s", problem)
        if loaded.config:
            self._take_over(loaded.config)
        if loaded.context and self.tls:
            self.tls.context = loaded.context
        if not problems:
            log.info("web configuration or certificates changed, now in force")

    def _too_open(self, config: WebConfig | None) -> list[str]:
        """What only a start may do: a file that was cut off must not open the door."""
        if config is None:
            return []
        found = []
        if config.tls and not self.tls:
            found.append(("tls_server_config", "is new; valid: a restart, to begin with TLS"))
        if self.tls and not config.tls:
            found.append(("tls_server_config", "is gone; valid: a restart, to go on without TLS"))
        if self._passwords.users and not config.users:
            wrong = "are gone; valid: a restart, to go on without passwords"
            found.append(("basic_auth_users", wrong))
        return [f"web.config.file: {key}: {wrong}" for key, wrong in found]

    def _take_over(self, config: WebConfig) -> None:
        self.headers = config.headers
        if config.users:
            self._passwords.users = config.users
        if config.rate != (self._bucket and self._bucket.rate):
            self._bucket = config.rate and _Bucket(config.rate, self._clocks.monotonic)

    def has_time(self) -> bool:
        """Whether one more request is within the rate; it counts."""
        return self._bucket is None or self._bucket.take()

    async def admits(
        self,
        authorization: str | None,
        client: str | None,
        waits: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Whether a request may come in.

        Args:
            authorization: its header field.
            client: its address.
            waits: whether the client is still there.
        """
        return await self._passwords.admit(authorization, client or "", waits)


class _Passwords:
    """Users, their hashes, and what was found out."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "password")
        self._key = secrets.token_bytes()
        self._right = _Recent(_MOST_RIGHT)
        self._wrong = _Recent(_MOST_WRONG)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._users: Mapping[str, bytes] = {}
        self._nobodies: list[bytes] = []

    @property
    def users(self) -> Mapping[str, bytes]:
        """The hashes of their passwords."""
        return self._users

    @users.setter
    def users(self, users: Mapping[str, bytes]) -> None:
        self._users = users
        self._nobodies = [_like(hashed) for hashed in users.values()]

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def admit(
        self, authorization: str | None, client: str, waits: Callable[[], bool]
    ) -> bool:
        if not self._users:
            return True
        user, password = _credentials(authorization)
        # bcrypt ends a password with a NUL, and then begins again: "a\0a" is as good as "a".
        if user is None or b"\0" in password or len(password) > _LONGEST_PASSWORD:
            return False
        known, hashed = self._hash_of(user)
        mark = self._mac(user, hashed, password)
        if mark in self._right or mark in self._wrong:
            return mark in self._right
        turn = self._turns.setdefault(client, asyncio.Lock())
        async with turn:
            if mark in self._right or mark in self._wrong or not waits():
                return mark in self._right
            loop = asyncio.get_running_loop()
            fits = await loop.run_in_executor(self._pool, _fits, password, hashed)
        (self._right if fits and known else self._wrong).add(mark)
        return fits and known

    def _hash_of(self, user: bytes) -> tuple[bool, bytes]:
        """Whether there is the user; and the hash of his password, or one that is as costly."""
        found = None
        for name, hashed in self._users.items():
            if hmac.compare_digest(name.encode(), user):
                found = hashed
        if found is not None:
            return True, found
        # The same one each time, or the time would tell that it is none of a real user's.
        number = int.from_bytes(self._mac(user)[:8], "big")
        return False, self._nobodies[number % len(self._nobodies)]

    def _mac(self, *parts: bytes) -> bytes:
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._key, message, hashlib.sha256)


class _Recent:
    """The last few marks that were added or looked for."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._marks: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, mark: bytes) -> bool:
        if mark not in self._marks:
            return False
        self._marks.move_to_end(mark)
        return True

    def add(self, mark: bytes) -> None:
        self._marks[mark] = None
        while len(self._marks) > self._most:
            self._marks.popitem(last=False)


class _Bucket:
    """So many requests at once, and one more every interval."""

    def __init__(self, rate: Rate, monotonic: Callable[[], float]) -> None:
        self.rate = rate
        self._monotonic = monotonic
        self._level = float(rate.burst)
        self._seen = monotonic()

    def take(self) -> bool:
        now = self._monotonic()
        self._level += (now - self._seen) / self.rate.interval
        self._level = min(self._level, self.rate.burst)
        self._seen = now
        if self._level < 1:
            return False
        self._level -= 1
        return True


def _credentials(authorization: str | None) -> tuple[bytes | None, bytes]:
    """User and password of a header field; None: there are none."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None, b""
    try:
        plain = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):  # the latter: not ASCII
        return None, b""
    user, colon, password = plain.partition(b":")
    return (user, password) if colon else (None, b"")


def _fits(password: bytes, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(password, hashed)
    except ValueError:
        return False


def _like(hashed: bytes) -> bytes:
    """A hash of the same cost that nobody has the password of."""
    cost = int(hashed.split(b"$")[2])
    digest = "".join(secrets.choice(_BCRYPT_DIGITS) for _ in range(_DIGEST_LENGTH))
    return bcrypt.gensalt(cost) + digest.encode()
