"""The identity service and the metadata service: all documented ways to sign in."""

import json
from datetime import UTC, datetime
from typing import Any

from exporter.simulator.behaviour import Behaviour
from exporter.simulator.identity import LIST_PROJECTS, Accounts, Identity, Token
from exporter.simulator.lookups import domain_id, projects
from exporter.simulator.reply import ApiError, Reply, encoded
from exporter.simulator.signature import Incoming

_LONGEST_METADATA_TOKEN_SECONDS = 21_600


class Iam:
    """Answers requests to IAM and, under the same base URL, to the metadata service of a server."""

    def __init__(self, accounts: Accounts, behaviour: Behaviour) -> None:
        self._accounts = accounts
        self._behaviour = behaviour
        self._metadata_tokens: dict[str, float] = {}

    def password(self, request: Incoming, now: float) -> Reply:
        """``POST /v3/auth/tokens``."""
        auth = _auth(request)
        identity = _dig(auth, "identity")
        if _dig(identity, "methods") != ["password"]:
            raise _bad_request('methods must be ["password"]')
        claimed = _dig(identity, "password", "user")
        domain, name = _dig(claimed, "domain", "name"), _dig(claimed, "name")
        password = _dig(claimed, "password")
        user = self._accounts.users.get((str(domain), str(name)))
        if user is None or not user.password or user.password != password:
            raise ApiError(401, "IAM", "The username or password is wrong.")
        return self._issued(user, auth, now, "password")

    def id_token(self, request: Incoming, now: float) -> Reply:
        """``POST /v3.0/OS-AUTH/id-token/tokens``."""
        auth = _auth(request)
        if request.headers.get("x-idp-id") != self._accounts.idp_id:
            raise ApiError(401, "IAM", "The identity provider is unknown.")
        identity = self._accounts.id_tokens.get(str(_dig(auth, "id_token", "id")))
        if identity is None:
            raise ApiError(401, "IAM", "The id token is not valid.")
        return self._issued(identity, auth, now, "mapped")

    def projects(self, request: Incoming, now: float) -> Reply:
        """``GET /v3/projects``: those of the account; signed or with a token."""
        identity, _ = self._accounts.authenticate(request, now)
        identity.require(LIST_PROJECTS, "IAM")
        found = self._accounts.projects(identity.domain)
        return encoded(200, projects(found, identity.domain, request.query))

    def own_projects(self, request: Incoming, now: float) -> Reply:
        """``GET /v3/auth/projects``: those of the identity; no permission is needed."""
        if "x-auth-token" not in request.headers and not self._behaviour.signed_own_projects:
            raise ApiError(401, "IAM", "The request you have made requires a token.")
        identity, _ = self._accounts.authenticate(request, now)
        return encoded(200, projects(identity.projects, identity.domain, request.query))

    def metadata_token(self, request: Incoming, now: float) -> Reply:
        """``PUT /meta-data/latest/api/token``."""
        old = self._behaviour.old_metadata
        if old is not None:
            return Reply(old, b"", content_type="text/html")
        ttl = request.headers.get("x-metadata-token-ttl-seconds", "")
        if not ttl.isdecimal() or not 1 <= int(ttl) <= _LONGEST_METADATA_TOKEN_SECONDS:
            return Reply(400, b"", content_type="text/html")
        token = f"metadata-token-{len(self._metadata_tokens)}"
        self._metadata_tokens[token] = now + int(ttl)
        return Reply(200, token.encode(), content_type="text/plain")

    def securitykey(self, request: Incoming, now: float) -> Reply:
        """``GET /openstack/latest/securitykey``: the agency's temporary key."""
        if self._behaviour.old_metadata is None:
            token = request.headers.get("x-metadata-token", "")
            if self._metadata_tokens.get(token, 0.0) <= now:
                return Reply(401, b"", content_type="text/html")
        key = self._accounts.agency_key(now)
        if key is None or key.expires_at is None:
            return Reply(404, b"", content_type="text/html")  # no agency is assigned to the server
        credential = {
            "access": key.access,
            "secret": key.secret,
            "securitytoken": key.security_token,
            "expires_at": _iso(key.expires_at),
        }
        return encoded(200, {"credential": credential})

    def _issued(self, identity: Identity, auth: Any, now: float, method: str) -> Reply:
        token = self._accounts.issue(identity, _project(identity, auth), now)
        return encoded(201, {"token": _described(token, method)}, {"X-Subject-Token": token.value})


def _auth(request: Incoming) -> Any:
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise _bad_request("Content-Type must be application/json")
    try:
        return _dig(json.loads(request.body), "auth")
    except (ValueError, RecursionError):
        raise _bad_request("the body is not JSON") from None


def _dig(document: Any, *keys: str) -> Any:
    for key in keys:
        if not isinstance(document, dict) or key not in document:
            raise _bad_request(f"{key} is missing")
        document = document[key]
    return document


def _project(identity: Identity, auth: Any) -> str | None:
    """Return the name of the project that the sign-in is for."""
    scope = auth.get("scope")
    if not isinstance(scope, dict) or "project" not in scope:
        return None
    wanted = scope["project"]
    for name, id_ in identity.projects.items():
        if isinstance(wanted, dict) and (wanted.get("id") == id_ or wanted.get("name") == name):
            return name
    raise ApiError(401, "IAM", "The user has no such project.")


def _described(token: Token, method: str) -> dict[str, Any]:
    domain = {"id": domain_id(token.identity.domain), "name": token.identity.domain}
    document: dict[str, Any] = {
        "expires_at": _iso(token.expires_at),
        "issued_at": _iso(token.issued_at),
        "methods": [method],
        "catalog": [],
        "roles": [{"id": "0", "name": "te_admin"}],
        "user": {"id": "2c6d5e3b798a402d", "name": token.identity.name, "domain": domain},
    }
    if token.project_id is not None:
        document["project"] = {
            "id": token.project_id,
            "name": token.project_name,
            "domain": domain,
        }
    return document


def _iso(seconds: float) -> str:
    """Return a time in the format of IAM: ``2020-01-04T09:05:22.701000Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _bad_request(message: str) -> ApiError:
    return ApiError(400, "IAM", f"Request body is invalid: {message}.")
