"""Sign-in at IAM for tokens, and the project id of a region."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from exporter.errors import (
    AuthError,
    ForbiddenError,
    InvalidResponseError,
    PollError,
    RejectedError,
)
from exporter.huaweicloud.auth.base import NO_HEADERS, AuthenticatedRequest, Credentials
from exporter.huaweicloud.auth.lockout import KeyLockouts
from exporter.huaweicloud.auth.refresh import Grant, Refresher, granted
from exporter.huaweicloud.auth.secret import Secret, redact_error, redacting
from exporter.huaweicloud.http import Http, Response, error_of

T = TypeVar("T")

_JSON = {"Content-Type": "application/json;charset=utf8"}
_OK, _CREATED = 200, 201
_LIST_PROJECTS = "iam:projects:listProjects"
_SHOWN_PROJECTS = 5


class IamToken:
    """A token that IAM gives for something else, renewed in time.

    Args:
        method: see `Credentials`.
        identity: see `Credentials`.
        sign_in: asks IAM for a token.
        clock: unix seconds.
        monotonic: seconds.
    """

    def __init__(
        self,
        method: str,
        identity: str,
        sign_in: Callable[[], Awaitable[Grant[str]]],
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self.method = method
        self.identity = identity
        self._renewal = Refresher(
            sign_in, what=f"the token of {identity}", clock=clock, monotonic=monotonic
        )

    @property
    def expires_at(self) -> float | None:
        """See `Credentials`."""
        grant = self._renewal.grant
        return None if grant is None else grant.expires_at

    @property
    def project_id(self) -> str | None:
        """See `Credentials`."""
        grant = self._renewal.grant
        return None if grant is None else grant.project_id

    @asynccontextmanager
    async def attempt(
        self,
        method: str,  # noqa: ARG002 - the interface
        url: str,  # noqa: ARG002 - the interface
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        body: bytes = b"",  # noqa: ARG002 - the interface
    ) -> AsyncIterator[AuthenticatedRequest]:
        """See `Credentials`."""
        grant = await self._renewal.current()
        token = grant.value

        async def rejected(error: AuthError) -> bool:
            return await self._renewal.refused(grant, error)

        with redacting(token):
            yield AuthenticatedRequest(
                lambda: {**headers, "X-Auth-Token": token},
                secrets=(token,),
                accepted=lambda: self._renewal.accepted(grant),
                rejected=rejected,
            )


def scope(project_id: str | None, region: str) -> dict[str, Any]:
    """What a token is for: the project by its id, or the region's own project by its name."""
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
    """Sign-in of an IAM user; the user is guarded against being locked."""
    url = f"{iam_endpoint.rstrip('/')}/v3/auth/tokens?nocatalog=true"
    guard = lockouts.of_user(domain, user)

    async def sign_in() -> Grant[str]:
        secret = password.read()
        who = {"name": user, "password": secret, "domain": {"name": domain}}
        identity = {"methods": ["password"], "password": {"user": who}}
        body = json.dumps({"auth": {"identity": identity, "scope": scope}}).encode()
        doing = f"signing in to IAM as user {user} of domain {domain}"
        async with guard.trial(secret) as trial:
            with _asking(secret, doing=doing):
                answer = await http("sign_in", "POST", url, headers=_JSON, body=body)
                if answer.status == _CREATED:
                    trial.succeeded()
                    return _granted(answer, clock())
                error = error_of(answer)
                if isinstance(error, AuthError) and not isinstance(error, ForbiddenError):
                    redact_error(error, secret)  # it is kept for later messages
                    trial.failed(error)
                raise error

    return sign_in


def by_id_token(
    http: Http,
    iam_endpoint: str,
    *,
    idp_id: str,
    id_token: Secret,
    scope: Mapping[str, Any],
    clock: Callable[[], float],
) -> Callable[[], Awaitable[Grant[str]]]:
    """Sign-in of a workload with the token of its own identity provider (OIDC)."""
    url = f"{iam_endpoint.rstrip('/')}/v3.0/OS-AUTH/id-token/tokens"
    headers = {**_JSON, "X-Idp-Id": idp_id}

    async def sign_in() -> Grant[str]:
        secret = id_token.read()
        body = json.dumps({"auth": {"id_token": {"id": secret}, "scope": scope}}).encode()
        with _asking(secret, doing=f"signing in to IAM with identity provider {idp_id}"):
            answer = await http("sign_in", "POST", url, headers=headers, body=body)
            if answer.status == _CREATED:
                return _granted(answer, clock())
            raise error_of(answer)

    return sign_in


async def find_project_id(
    http: Http, credentials: Credentials, iam_endpoint: str, region: str
) -> str:
    """The id of a region's own project, which has the region's name.

    Raises:
        PollError: no sign-in, no permission, or no such project.
    """
    url = f"{iam_endpoint.rstrip('/')}/v3/projects?name={quote(region, safe='')}"
    doing = f"looking up the project of region {region} (not needed with target.project_id)"
    with _asking(doing=doing):
        for again in (True, False):
            async with credentials.attempt("GET", url) as attempt:
                if credentials.project_id is not None:
                    return credentials.project_id  # the sign-in has told it
                answer = await http("projects", "GET", url, headers=attempt.headers)
                if answer.status == _OK:
                    attempt.accepted()
                    return _only_project(answer, region)
                error = error_of(answer, permission=_LIST_PROJECTS)
                if isinstance(error, ForbiddenError):
                    attempt.accepted()
                elif isinstance(error, AuthError) and await attempt.rejected(error) and again:
                    continue
                raise error
    raise AssertionError  # the second round returns or raises


@contextmanager
def _asking(*secrets: str | None, doing: str) -> Iterator[None]:
    """`redacting`; and what is said of the endpoint is said of IAM's."""
    with redacting(*secrets, doing=doing):
        try:
            yield
        except PollError as error:
            error.args = (str(error).replace("target.endpoint", "target.iam_endpoint"),)
            raise


class _Project(msgspec.Struct):
    id: str
    name: str = ""


class _ProjectsAnswer(msgspec.Struct):
    projects: list[_Project]


class _Token(msgspec.Struct):
    expires_at: str | None = None
    issued_at: str | None = None
    project: _Project | None = None


class _TokenAnswer(msgspec.Struct):
    token: _Token


def _only_project(answer: Response, region: str) -> str:
    projects = _decoded(answer, _ProjectsAnswer).projects
    ids = [project.id for project in projects if project.name == region]
    if len(ids) == 1:
        return ids[0]
    if ids:
        some = ", ".join(ids[:_SHOWN_PROJECTS])
        raise RejectedError(f"several projects: set target.project_id to one of {some}", status=_OK)
    raise RejectedError(
        f"this identity has no project named {region}: check target.region, or set "
        "target.project_id",
        status=_OK,
    )


def _granted(answer: Response, now: float) -> Grant[str]:
    """The token in an answer 201 of either sign-in."""
    value = answer.headers.get("X-Subject-Token", "")
    if not value or not value.isprintable():
        raise InvalidResponseError("the answer has no X-Subject-Token: check target.iam_endpoint")
    token = _decoded(answer, _TokenAnswer).token
    project_id = token.project.id if token.project else None
    return granted(
        value, token.expires_at, issued_at=token.issued_at, now=now, project_id=project_id
    )


def _decoded(answer: Response, what: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.body, type=what)
    except (ValueError, RecursionError) as error:
        problem = f"{error}" if isinstance(error, msgspec.ValidationError) else "no JSON"
        raise InvalidResponseError(
            f"unexpected answer of IAM ({problem}): check target.iam_endpoint"
        ) from None
