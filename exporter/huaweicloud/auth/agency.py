"""Temporary keys of the agency attached to this cloud server (method ``agency``).

The metadata service gives them to any program on that server; it changes them some time before
they expire.
"""

from collections.abc import Mapping

import msgspec

from exporter.clock import Clocks
from exporter.errors import AuthError, InvalidResponseError, PollError
from exporter.huaweicloud.auth.access_key import signer
from exporter.huaweicloud.auth.base import AuthenticatedRequest, Credentials
from exporter.huaweicloud.auth.lockout import KeyLockouts, masked
from exporter.huaweicloud.auth.refresh import Grant, Refresher, granted
from exporter.huaweicloud.auth.secret import redacting
from exporter.huaweicloud.auth.signature import Key
from exporter.huaweicloud.encodable import encodable
from exporter.huaweicloud.errors import error_of
from exporter.huaweicloud.http import Http, Request, Response

METADATA = "http://169.254.169.254"

_TOKEN_PATH = "/meta-data/latest/api/token"  # noqa: S105 - a path
_KEY_PATH = "/openstack/latest/securitykey"
_TOKEN_SECONDS = 21_600
_TIMEOUT_SECONDS = 3.0
_MAX_BYTES = 65_536
_OK, _NOT_FOUND = 200, 404
_NO_TOKENS = (_NOT_FOUND, 405, 503)
"""Status codes of older metadata services, which do not use tokens."""


class Agency(Credentials):
    """Requests signed with the temporary keys of the server's agency.

    Args:
        http: sends a request once.
        lockouts: of the process.
        clocks: of the machine.
        endpoint: base URL of the metadata service.
        tried: the sources tried before, if this is the last one.
    """

    method = "agency"

    def __init__(
        self,
        http: Http,
        *,
        lockouts: KeyLockouts,
        clocks: Clocks,
        endpoint: str = METADATA,
        tried: str = "",
    ) -> None:
        self._http = http
        self._lockouts = lockouts
        self._clock = clocks.wall
        self._endpoint = endpoint
        self._tried = tried
        self._refresher = Refresher(
            self._new_key, name="the temporary key of this server's agency", clocks=clocks
        )

    @property
    def identity(self) -> str:
        """See `Credentials`."""
        grant = self._refresher.grant
        key = "" if grant is None else f", access key {masked(grant.value.access)}"
        return f"agency of this server{key}"

    @property
    def expires_at(self) -> float | None:
        """See `Credentials`."""
        return self._refresher.expires_at

    async def authenticate(self, request: Request) -> AuthenticatedRequest:
        """See `Credentials`."""
        grant = await self._refresher.current()
        key = grant.value
        return AuthenticatedRequest(
            request,
            signer(request, key, self._clock),
            secrets=(key.secret, key.security_token),
            turn=self._lockouts.for_key(key).attempt(key.secret),
            on_accepted=lambda: self._refresher.accepted(grant),
            on_rejected=lambda error: self._refresher.refused(grant, error),
        )

    async def _new_key(self) -> Grant[Key]:
        try:
            token = await self._metadata_token()
            headers = {"X-Metadata-Token": token} if token else {}
            with redacting(token, doing="asking the metadata service for the agency's key"):
                response = await self._ask("GET", _KEY_PATH, headers)
                if response.status != _OK:
                    raise _no_key(response, token)
                return _key(response, self._clock())
        except PollError as error:
            if not self._tried or self._refresher.grant is not None:
                raise
            raise AuthError(
                f"no credentials found; tried {self._tried}, and an agency of this server ({error})"
            ) from error

    async def _metadata_token(self) -> str | None:
        """The token that newer metadata services require; None at an older one."""
        headers = {"X-Metadata-Token-Ttl-Seconds": str(_TOKEN_SECONDS)}
        with redacting(doing="asking the metadata service for its token"):
            response = await self._ask("PUT", _TOKEN_PATH, headers)
            if response.status in _NO_TOKENS:
                return None
            if response.status != _OK:
                raise error_of(response)
            token = response.body.decode("ascii", "replace").strip()
            if not token or not token.isprintable():
                raise InvalidResponseError("the response is not a token")
            return token

    async def _ask(self, method: str, path: str, headers: Mapping[str, str]) -> Response:
        return await self._http(
            Request(
                operation="metadata",
                method=method,
                url=self._endpoint + path,
                headers=headers,
                timeout=_TIMEOUT_SECONDS,
                direct=True,
                max_bytes=_MAX_BYTES,
            )
        )


def _no_key(response: Response, token: str | None) -> PollError:
    if response.status == _NOT_FOUND or b"Agency" in response.body:
        return AuthError(
            "no agency is attached to this server: attach one with permission to list jobs"
        )
    return error_of(response, secrets=(token,))


class _Credential(msgspec.Struct):
    access: str
    secret: str
    securitytoken: str
    expires_at: str | None = None


class _KeyResponse(msgspec.Struct):
    credential: _Credential


def _key(response: Response, now: float) -> Grant[Key]:
    try:
        credential = msgspec.json.decode(encodable(response.body), type=_KeyResponse).credential
    except (ValueError, RecursionError):
        raise InvalidResponseError("the response contains no key") from None
    parts = (credential.access, credential.secret, credential.securitytoken)
    if not all(part and part.isprintable() for part in parts):
        raise InvalidResponseError("the key in the response is garbled")
    return granted(Key(*parts), credential.expires_at, issued_at=None, now=now)
