"""Authentication and permissions: access keys, tokens, expiry and lockout."""

import random
import string
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from exporter.simulator.reply import ApiError
from exporter.simulator.signature import (
    Authorization,
    Incoming,
    SignatureError,
    authorization,
    signed_at,
    verify,
)

PROJECT_ID = "0605767eb780d5762f5ec0196d1d2f3a"
PROJECT_NAME = "cn-north-4"

LIST_JOBS = "modelarts:trainJob:list"
GET_JOB = "modelarts:trainJob:get"
LIST_POOLS = "modelarts:pool:list"
GET_POOL = "modelarts:pool:get"
GET_QUOTAS = "modelarts:trainJob:getQuotas"
LIST_WORKSPACES = "modelarts:workspace:list"
LIST_PROJECTS = "iam:projects:listProjects"
ALL_PERMISSIONS = frozenset(
    {LIST_JOBS, GET_JOB, LIST_POOLS, GET_POOL, GET_QUOTAS, LIST_WORKSPACES, LIST_PROJECTS}
)

_SKEW_SECONDS = 15 * 60
_FAILURES_THAT_DO_NOT_LOCK = 5
_LOCK_SECONDS = 5 * 60


@dataclass(frozen=True, slots=True)
class Identity:
    """An IAM user or agency.

    ``projects`` maps names to ids. ``workspaces`` are those visible to it, None: all; lists of
    other workspaces are silently empty.
    """

    name: str = "exporter"
    domain: str = "simulated"
    password: str = field(default="", repr=False)
    projects: Mapping[str, str] = field(default_factory=lambda: {PROJECT_NAME: PROJECT_ID})
    permissions: frozenset[str] = ALL_PERMISSIONS
    workspaces: frozenset[str] | None = None

    def require(self, action: str, code: str = "ModelArts.0112") -> None:
        """Check a permission.

        Raises:
            ApiError: 403 that names the action, with the code.
        """
        if action not in self.permissions:
            raise ApiError(
                403,
                code,
                f"Policy doesn't allow {action} to be performed by user {self.name}.",
            )


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An AK/SK; a temporary one has a security token and an expiry time (unix seconds)."""

    access: str
    secret: str = field(repr=False)
    identity: Identity
    security_token: str = field(default="", repr=False)
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """An issued token; ``project_id`` None: not scoped to a project."""

    value: str = field(repr=False)
    identity: Identity
    project_name: str | None
    project_id: str | None
    issued_at: float
    expires_at: float


class Accounts:
    """All identities and their credentials.

    Args:
        keys: access keys.
        users: IAM users who can sign in with a password.
        id_tokens: OIDC tokens and their identities.
        idp_id: provider of the OIDC tokens.
        agency: the agency whose temporary keys the metadata service returns.
        token_lifetime: seconds, for tokens.
        agency_lifetime: seconds, for temporary keys.
        seed: for tokens and temporary keys.

    Attributes:
        failures: refused signatures by access key, including unknown keys.
        locked_until: unix seconds by access key.
    """

    def __init__(
        self,
        keys: Iterable[AccessKey] = (),
        users: Iterable[Identity] = (),
        *,
        id_tokens: Mapping[str, Identity] | None = None,
        idp_id: str = "simulated-idp",
        agency: Identity | None = None,
        token_lifetime: float = 86_400.0,
        agency_lifetime: float = 6 * 3600.0,
        seed: int = 0,
    ) -> None:
        self.keys = {key.access: key for key in keys}
        self.users = {(user.domain, user.name): user for user in users}
        self.id_tokens = dict(id_tokens or {})
        self.idp_id = idp_id
        self.agency = agency
        self.token_lifetime = token_lifetime
        self.agency_lifetime = agency_lifetime
        self.failures: Counter[str] = Counter()
        self.locked_until: dict[str, float] = {}
        self._in_a_row: Counter[str] = Counter()
        self._tokens: dict[str, Token] = {}
        self._agency_key: AccessKey | None = None
        self._random = random.Random(seed)

    def authenticate(self, request: Incoming, now: float) -> tuple[Identity, str | None]:
        """Return who sends a request, and the project of the token, if it has one.

        Raises:
            ApiError: 401.
        """
        value = request.headers.get("x-auth-token")
        if value is not None:
            token = self.token(value, now)
            return token.identity, token.project_id or ""
        if "authorization" not in request.headers:
            raise _unknown("x-auth-token not found")
        return self._signer(request, now), None

    def authorize(self, request: Incoming, project_id: str, action: str, now: float) -> Identity:
        """Return the identity that may do something in a project.

        Raises:
            ApiError: 401, or 403 for another project or a missing permission.
        """
        identity, scope = self.authenticate(request, now)
        projects = set(identity.projects.values()) if scope is None else {scope}
        named = request.headers.get("x-project-id", project_id)
        if project_id not in projects or named != project_id:
            raise ApiError(403, "ModelArts.0210", "The project id does not match the identity.")
        identity.require(action)
        return identity

    def projects(self, domain: str) -> dict[str, str]:
        """Return the IDs of all projects of an account by name."""
        identities = [*self.users.values(), *self.id_tokens.values()]
        identities += [key.identity for key in self.keys.values()]
        return {
            name: id_
            for identity in identities
            if identity.domain == domain
            for name, id_ in identity.projects.items()
        }

    def issue(self, identity: Identity, project_name: str | None, now: float) -> Token:
        """Return a new token, some kilobytes long like real ones."""
        token = Token(
            value="MII" + self._text(2000),
            identity=identity,
            project_name=project_name,
            project_id=None if project_name is None else identity.projects[project_name],
            issued_at=now,
            expires_at=now + self.token_lifetime,
        )
        self._tokens[token.value] = token
        return token

    def token(self, value: str, now: float) -> Token:
        """Return an issued token that is still valid.

        Raises:
            ApiError: 401.
        """
        token = self._tokens.get(value)
        if token is None:
            raise _unknown("decrypt token fail")
        if now >= token.expires_at:
            raise ApiError(401, "APIG.0307", "The token must be updated.")
        return token

    def revoke_tokens(self) -> None:
        """Invalidate all issued tokens."""
        self._tokens.clear()

    def agency_key(self, now: float) -> AccessKey | None:
        """Return the agency's temporary key; the same one for half its lifetime."""
        if self.agency is None:
            return None
        key = self._agency_key
        if key is None or key.expires_at is None or key.expires_at - now < self.agency_lifetime / 2:
            key = AccessKey(
                access="HST" + self._text(17).upper(),
                secret=self._text(40),
                identity=self.agency,
                security_token="ggpjbi1ub3J0aC00" + self._text(400),
                expires_at=now + self.agency_lifetime,
            )
            self.keys[key.access] = self._agency_key = key
        return key

    def _signer(self, request: Incoming, now: float) -> Identity:
        try:
            claim = authorization(request)
        except SignatureError as error:
            raise _unknown(str(error)) from None
        if self.locked_until.get(claim.access, 0.0) > now:
            raise _unknown("the access key is locked")
        try:
            identity = self._verified(request, claim, now)
        except ApiError:
            self._failed(claim.access, now)
            raise
        self._in_a_row[claim.access] = 0
        return identity

    def _verified(self, request: Incoming, claim: Authorization, now: float) -> Identity:
        key = self.keys.get(claim.access)
        if key is None:
            raise _unknown("AK access failed to reach the limit or AK does not exist")
        try:
            if abs(signed_at(request) - now) > _SKEW_SECONDS:
                raise ApiError(
                    401, "APIG.0303", "Incorrect app authentication information: clock skew."
                )
            verify(request, claim, key.secret)
        except SignatureError as error:
            raise _unknown(f"verify aksk signature fail: {error}") from None
        if key.security_token and request.headers.get("x-security-token") != key.security_token:
            raise _unknown("the security token is missing or wrong")
        if key.expires_at is not None and now >= key.expires_at:
            raise ApiError(401, "APIG.0307", "The security token has expired.")
        return key.identity

    def _failed(self, access: str, now: float) -> None:
        self.failures[access] += 1
        self._in_a_row[access] += 1
        if self._in_a_row[access] > _FAILURES_THAT_DO_NOT_LOCK:
            self._in_a_row[access] = 0
            self.locked_until[access] = now + _LOCK_SECONDS

    def _text(self, length: int) -> str:
        return "".join(self._random.choices(string.ascii_letters + string.digits, k=length))


def _unknown(why: str) -> ApiError:
    return ApiError(401, "APIG.0301", f"Incorrect IAM authentication information: {why}.")
