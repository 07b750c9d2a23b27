"""Temporary keys of the agency that is attached to the cloud server we run on (method ``agency``).

The metadata service hands them out to whoever asks on that server; it changes them some time
before they expire.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import msgspec

from exporter.errors import AuthError, InvalidResponseError, PollError
from exporter.huaweicloud.auth.access_key import signed
from exporter.huaweicloud.auth.base import NO_HEADERS, AuthenticatedRequest
from exporter.huaweicloud.auth.lockout import KeyLockouts, shown
from exporter.huaweicloud.auth.refresh import Grant, Refresher, granted
from exporter.huaweicloud.auth.secret import redacting
from exporter.huaweicloud.auth.signature import Key
from exporter.huaweicloud.http import Http, Response, error_of

METADATA = "http://169.254.169.254"

_TOKEN_PATH = "/meta-data/latest/api/token"  # noqa: S105 - a path
_KEY_PATH = "/openstack/latest/securitykey"
_TOKEN_SECONDS = 21_600
_TIMEOUT_SECONDS = 3.0
_OK, _NOT_FOUND = 200, 404
_NO_TOKENS = (_NOT_FOUND, 405, 503)
"""Answers of metadata services that know no tokens yet."""


class Agency:
    """Requests signed with the temporary keys of the server's agency.

    Args:
        http: sends one request.
        lockouts: of the process.
        clock: unix seconds.
        monotonic: seconds.
        endpoint: base URL of the metadata service.
        looked_for: where else credentials were looked for in vain, if this is the last resort.
    """

    method = "agency"
    project_id = None

    def __init__(
        self,
        http: Http,
        *,
        lockouts: KeyLockouts,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        endpoint: str = METADATA,
        looked_for: str = "",
    ) -> None:
        self._http = http
        self._lockouts = lockouts
        self._clock = clock
        self._endpoint = endpoint
        self._looked_for = looked_for
        self._renewal = Refresher(
            self._new_key,
            what="the temporary key of this server's agency",
            clock=clock,
            monotonic=monotonic,
        )

    @property
    def identity(self) -> str:
        """See `Credentials`."""
        grant = self._renewal.grant
        key = "" if grant is None else f", access key {shown(grant.value.access)}"
        return f"agency of this server{key}"

    @property
    def expires_at(self) -> float | None:
        """See `Credentials`."""
        grant = self._renewal.grant
        return None if grant is None else grant.expires_at

    @asynccontextmanager
    async def attempt(
        self, method: str, url: str, *, headers: Mapping[str, str] = NO_HEADERS, body: bytes = b""
    ) -> AsyncIterator[AuthenticatedRequest]:
        """See `Credentials`."""
        grant = await self._renewal.current()

        async def rejected(error: AuthError) -> bool:
            return await self._renewal.refused(grant, error)

        async with signed(
            grant.value,
            method,
            url,
            headers,
            body,
            lockouts=self._lockouts,
            clock=self._clock,
            accepted=lambda: self._renewal.accepted(grant),
            rejected=rejected,
        ) as attempt:
            yield attempt

    async def _new_key(self) -> Grant[Key]:
        try:
            token = await self._metadata_token()
            headers = {"X-Metadata-Token": token} if token else NO_HEADERS
            with redacting(token, doing="asking the metadata service for the agency's key"):
                answer = await self._ask("GET", _KEY_PATH, headers)
                if answer.status != _OK:
                    raise _no_key(answer)
                return _key(answer, self._clock())
        except PollError as error:
            if not self._looked_for or self._renewal.grant is not None:
                raise
            raise AuthError(
                f"no credentials: looked for {self._looked_for}, and an agency of this server "
                f"({error})"
            ) from error

    async def _metadata_token(self) -> str | None:
        """The token that newer metadata services want to see; None at an older one."""
        headers = {"X-Metadata-Token-Ttl-Seconds": str(_TOKEN_SECONDS)}
        with redacting(doing="asking the metadata service for its token"):
            answer = await self._ask("PUT", _TOKEN_PATH, headers)
            if answer.status in _NO_TOKENS:
                return None
            if answer.status != _OK:
                raise error_of(answer)
            token = answer.body.decode("ascii", "replace").strip()
            if not token or not token.isprintable():
                raise InvalidResponseError("the answer is no token")
            return token

    async def _ask(self, method: str, path: str, headers: Mapping[str, str]) -> Response:
        return await self._http(
            "metadata",
            method,
            self._endpoint + path,
            headers=headers,
            timeout=_TIMEOUT_SECONDS,
            direct=True,
        )


def _no_key(answer: Response) -> PollError:
    if answer.status == _NOT_FOUND or b"Agency" in answer.body:
        return AuthError("no agency is attached to this server: attach one that may list jobs")
    return error_of(answer)


class _Credential(msgspec.Struct):
    access: str
    secret: str
    securitytoken: str
    expires_at: str | None = None


class _KeyAnswer(msgspec.Struct):
    credential: _Credential


def _key(answer: Response, now: float) -> Grant[Key]:
    try:
        given = msgspec.json.decode(answer.body, type=_KeyAnswer).credential
    except (ValueError, RecursionError):
        raise InvalidResponseError("the answer holds no key") from None
    parts = (given.access, given.secret, given.securitytoken)
    if not all(part and part.isprintable() for part in parts):
        raise InvalidResponseError("the key in the answer is garbled")
    return granted(Key(*parts), given.expires_at, issued_at=None, now=now)
