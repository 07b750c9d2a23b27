"""Sign-in at IAM for tokens."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from exporter.clock import Clocks
from exporter.errors import AuthError, ForbiddenError, InvalidResponseError
from exporter.huaweicloud.auth.base import AuthenticatedRequest, Credentials
from exporter.huaweicloud.auth.lockout import KeyLockouts
from exporter.huaweicloud.auth.refresh import Grant, Refresher, granted
from exporter.huaweicloud.auth.secret import Secret, redact_error, redacting
from exporter.huaweicloud.encodable import encodable
from exporter.huaweicloud.errors import error_of
from exporter.huaweicloud.http import Http, Request, Response
from exporter.settings.secret_values import is_in_quotes

T = TypeVar("T")

ENDPOINT_OPTION = "target.iam_endpoint"

_JSON = {"Content-Type": "application/json;charset=utf8"}
_CREATED = 201
_MAX_TOKEN_HEADER = 2**17
"""IAM documents tokens of up to 102,400 characters, in the header ``X-Subject-Token``."""

_MAX_BYTES = 2 * 2**20
"""Of a response."""


class IamToken(Credentials):
    """A token that IAM issues, renewed in time.

    Args:
        method: see `Credentials`.
        identity: see `Credentials`.
        sign_in: requests a token from IAM.
        clocks: of the machine.
    """

    def __init__(
        self,
        method: str,
        identity: str,
        sign_in: Callable[[], Awaitable[Grant[str]]],
        *,
        clocks: Clocks,
    ) -> None:
        self.method = method
        self._identity = identity
        self._refresher = Refresher(sign_in, name=f"the token of {identity}", clocks=clocks)

    @property
    def identity(self) -> str:
        """See `Credentials`."""
        return self._identity

    @property
    def expires_at(self) -> float | None:
        """See `Credentials`."""
        return self._refresher.expires_at

    async def project_id(self) -> str | None:
        """See `Credentials`."""
        return (await self._refresher.current()).project_id

    async def authenticate(self, request: Request) -> AuthenticatedRequest:
        """See `Credentials`."""
        grant = await self._refresher.current()
        return AuthenticatedRequest(
            request,
            lambda: {**request.headers, "X-Auth-Token": grant.value},
            secrets=(grant.value,),
            on_accepted=lambda: self._refresher.accepted(grant),
            on_rejected=lambda error: self._refresher.refused(grant, error),
        )


def scope(project_id: str | None, region: str) -> dict[str, Any]:
    """The scope of a token: the project by its id, or the region's own project by its name."""
    return {"project": {"id": project_id} if project_id else {"name": region}}


def by_password(
    http: Http,
    iam_endpoint: str,
    *,
    user: str,
    domain: str,
    password: Secret,
    scope: Mapping[str, Any],
    lockouts: KeyLockouts,
    clock: Callable[[], float],
) -> Callable[[], Awaitable[Grant[str]]]:
    """The sign-in of an IAM user, protected against locking the user."""
    path = "/v3/auth/tokens?nocatalog=true"
    lockout = lockouts.for_user(domain, user)

    async def sign_in() -> Grant[str]:
        secret = password.read()
        who = {"name": user, "password": secret, "domain": {"name": domain}}
        identity = {"methods": ["password"], "password": {"user": who}}
        request = _sign_in_request(iam_endpoint, path, {"identity": identity, "scope": scope})
        async with lockout.attempt(secret) as attempt:
            with redacting(secret, doing=f"signing in to IAM as user {user} of domain {domain}"):
                response = await http(request)
                if response.status == _CREATED:
                    attempt.succeeded()
                    return _granted(response, clock())
                error = error_of(response, endpoint_option=ENDPOINT_OPTION, secrets=(secret,))
                if isinstance(error, AuthError) and not isinstance(error, ForbiddenError):
                    if is_in_quotes(secret):
                        error.args = (f"{error}; the password begins and ends with a quote",)
                    redact_error(error, secret)  # it is kept for later messages
                    attempt.failed(error)
                raise error

    return sign_in


def by_id_token(
    http: Http,
    iam_endpoint: str,
    *,
    idp_id: str,
    id_token: Secret,
    scope: Mapping[str, Any] | None,
    clock: Callable[[], float],
) -> Callable[[], Awaitable[Grant[str]]]:
    """The sign-in of a workload with the token of its own identity provider (OIDC).

    Without a scope, the token is for no project.
    """
    path = "/v3.0/OS-AUTH/id-token/tokens"

    async def sign_in() -> Grant[str]:
        secret = id_token.read()
        auth = {"id_token": {"id": secret}} | ({"scope": scope} if scope else {})
        request = _sign_in_request(iam_endpoint, path, auth, **{"X-Idp-Id": idp_id})
        with redacting(secret, doing=f"signing in to IAM with identity provider {idp_id}"):
            response = await http(request)
            if response.status == _CREATED:
                return _granted(response, clock())
            raise error_of(response, endpoint_option=ENDPOINT_OPTION, secrets=(secret,))

    return sign_in


def _sign_in_request(
    iam_endpoint: str, path: str, auth: Mapping[str, Any], **headers: str
) -> Request:
    return Request(
        operation="sign_in",
        method="POST",
        url=iam_endpoint.rstrip("/") + path,
        headers=_JSON | headers,
        body=json.dumps({"auth": auth}).encode(),
        endpoint_option=ENDPOINT_OPTION,
        max_bytes=_MAX_BYTES,
        max_header_bytes=_MAX_TOKEN_HEADER,
    )


class _Project(msgspec.Struct):
    id: str


class _Token(msgspec.Struct):
    expires_at: str | None = None
    issued_at: str | None = None
    project: _Project | None = None


class _TokenResponse(msgspec.Struct):
    token: _Token


def _granted(response: Response, now: float) -> Grant[str]:
    """The token in a 201 response to either sign-in."""
    value = response.headers.get("X-Subject-Token", "")
    if not value or not value.isprintable():
        raise InvalidResponseError(f"the response has no X-Subject-Token: check {ENDPOINT_OPTION}")
    token = decoded(response, _TokenResponse).token
    project_id = token.project.id if token.project else None
    return granted(
        value, token.expires_at, issued_at=token.issued_at, now=now, project_id=project_id
    )


def decoded(response: Response, type_: type[T]) -> T:
    """Decode the body of a response of IAM.

    Raises:
        InvalidResponseError: it is not as documented.
    """
    try:
        return msgspec.json.decode(encodable(response.body), type=type_)
    except (ValueError, RecursionError) as error:
        problem = f"{error}" if isinstance(error, msgspec.ValidationError) else "not JSON"
        raise InvalidResponseError(
            f"unexpected response from IAM ({problem}): check {ENDPOINT_OPTION}"
        ) from None
