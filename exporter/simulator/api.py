"""Routes requests to operations and answers them."""

import math
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import msgspec

from exporter.simulator import capacity
from exporter.simulator.behaviour import Behaviour
from exporter.simulator.catalog import DEFAULT_WORKSPACE
from exporter.simulator.fleet import Fleet
from exporter.simulator.iam import Iam
from exporter.simulator.identity import (
    GET_JOB,
    GET_POOL,
    GET_QUOTAS,
    LIST_JOBS,
    LIST_POOLS,
    LIST_WORKSPACES,
    Accounts,
    Identity,
)
from exporter.simulator.lookups import workspaces
from exporter.simulator.pools import pools
from exporter.simulator.query import parse
from exporter.simulator.reply import ApiError, Reply
from exporter.simulator.search import Searches, detail
from exporter.simulator.signature import Incoming

_JSON = re.compile(r"application/json(\s*;\s*charset=[\w-]+)?", re.IGNORECASE)
_WINDOW_SECONDS = 60.0
_Call = Callable[["Operation", Incoming, Identity], bytes]
_IamCall = Callable[[Incoming, float], Reply]
_ROUTES = (
    ("search", "POST", re.compile(r"/v2/([^/]+)/training-job-searches")),
    ("get", "GET", re.compile(r"/v2/([^/]+)/training-jobs/([^/]+)")),
    ("pools", "GET", re.compile(r"/v2/([^/]+)/pools")),
    ("pool_usage", "GET", re.compile(r"/v2/([^/]+)/metrics/runtime/pools")),
    ("flavors", "GET", re.compile(r"/v1/([^/]+)/resourceflavors")),
    ("pool_queue", "GET", re.compile(r"/v2/([^/]+)/pools/([^/]+)/workloads")),
    ("quotas", "GET", re.compile(r"/v2/([^/]+)/training-quotas")),
    ("workspaces", "GET", re.compile(r"/v1/([^/]+)/workspaces")),
    ("token", "POST", re.compile(r"/v3/auth/tokens")),
    ("id_token", "POST", re.compile(r"/v3\.0/OS-AUTH/id-token/tokens")),
    ("projects", "GET", re.compile(r"/v3/projects")),
    ("own_projects", "GET", re.compile(r"/v3/auth/projects")),
    ("metadata_token", "PUT", re.compile(r"/meta-data/latest/api/token")),
    ("securitykey", "GET", re.compile(r"/openstack/latest/securitykey")),
)


@dataclass(frozen=True, slots=True)
class Operation:
    """A known request: its name and the variable parts of its path."""

    name: str
    arguments: tuple[str, ...] = ()


def route(method: str, path: str) -> Operation:
    """Return the operation of a request; ``unknown`` if there is none."""
    for name, verb, pattern in _ROUTES:
        match = pattern.fullmatch(path)
        if match and method == verb:
            return Operation(name, match.groups())
    return Operation("unknown")


class Api:
    """Answers requests.

    Args:
        fleet: the world.
        behaviour: choices where the documentation is ambiguous.
        accounts: permitted callers; None: everybody, without credentials.
    """

    def __init__(self, fleet: Fleet, behaviour: Behaviour, accounts: Accounts | None) -> None:
        self._fleet = fleet
        self._behaviour = behaviour
        self._accounts = accounts
        self._searches = Searches(fleet, behaviour)
        iam = Iam(accounts or Accounts(), behaviour)
        self._iam: dict[str, _IamCall] = {
            "token": iam.password,
            "id_token": iam.id_token,
            "projects": iam.projects,
            "own_projects": iam.own_projects,
            "metadata_token": iam.metadata_token,
            "securitykey": iam.securitykey,
        }
        self._operations: dict[str, tuple[str, _Call]] = {
            "search": (LIST_JOBS, self._search),
            "get": (GET_JOB, self._get),
            "pools": (LIST_POOLS, self._pools),
            "pool_usage": (LIST_POOLS, self._pool_usage),
            "flavors": (LIST_POOLS, self._flavors),
            "pool_queue": (GET_POOL, self._pool_queue),
            "quotas": (GET_QUOTAS, self._quotas),
            "workspaces": (LIST_WORKSPACES, self._workspaces),
        }
        self._recent: dict[str, deque[float]] = {}

    def answer(self, operation: Operation, request: Incoming, now: float) -> tuple[str, Reply]:
        """Return the name of the calling identity, and the response.

        Raises:
            ApiError: the response is an error.
        """
        if operation.name in self._iam:
            return "", self._iam[operation.name](request, now)
        if operation.name == "unknown":
            message = "The API does not exist or has not been published in the environment."
            raise ApiError(404, "APIG.0101", message)
        action, body = self._operations[operation.name]
        identity = Identity("anonymous")
        if self._accounts is not None:
            project_id = operation.arguments[0]
            identity = self._accounts.authorize(request, project_id, action, now)
        self._throttle(identity, now)
        return identity.name, Reply(200, body(operation, request, identity))

    def _throttle(self, identity: Identity, now: float) -> None:
        limit = self._behaviour.requests_per_minute
        if limit is None:
            return
        recent = self._recent.setdefault(identity.name, deque())
        while recent and recent[0] <= now - _WINDOW_SECONDS:
            recent.popleft()
        if len(recent) >= limit:
            wait = math.ceil(recent[0] + _WINDOW_SECONDS - now) if recent else 60
            headers = {"Retry-After": str(wait)} if self._behaviour.retry_after else {}
            policy = f"policy user over ratelimit,limit:{limit},time:1 minute"
            message = f"The throttling threshold has been reached: {policy}"
            raise ApiError(429, "APIG.0308", message, headers)
        recent.append(now)

    def _search(self, _operation: Operation, request: Incoming, identity: Identity) -> bytes:
        if not _JSON.fullmatch(request.headers.get("content-type", "")):
            raise ApiError(400, "ModelArts.2764", "Content-Type must be application/json.")
        query = parse(request.body, self._behaviour)
        return self._searches.answer(query, visible=_sees(identity, query.workspace))

    def _get(self, operation: Operation, _request: Incoming, identity: Identity) -> bytes:
        job_id = operation.arguments[1]
        if job_id not in self._fleet or not _sees(identity, self._fleet[job_id].workspace):
            raise ApiError(400, "ModelArts.2775", f"Training job {job_id} not found.")
        return detail(self._fleet[job_id], self._fleet.now, self._behaviour)

    def _pools(self, _operation: Operation, request: Incoming, identity: Identity) -> bytes:
        workspace = _parameters(request).get("workspaceId", DEFAULT_WORKSPACE)
        seen = workspace if _sees(identity, workspace) else ""
        return _encoded(pools(self._fleet, self._behaviour, seen))

    def _pool_usage(self, _operation: Operation, _request: Incoming, identity: Identity) -> bytes:
        return _encoded(capacity.runtime(self._fleet, self._behaviour, identity.workspaces))

    def _flavors(self, _operation: Operation, request: Incoming, _identity: Identity) -> bytes:
        return _encoded(capacity.flavors(self._fleet, _parameters(request), self._behaviour))

    def _pool_queue(self, operation: Operation, request: Incoming, identity: Identity) -> bytes:
        pool, parameters = operation.arguments[1], _parameters(request)
        return _encoded(
            capacity.workloads(self._fleet, pool, parameters, self._behaviour, identity.workspaces)
        )

    def _quotas(self, _operation: Operation, request: Incoming, _identity: Identity) -> bytes:
        return _encoded(capacity.quotas(self._fleet, _parameters(request)))

    def _workspaces(self, _operation: Operation, request: Incoming, identity: Identity) -> bytes:
        return _encoded(workspaces(self._fleet, identity, request.query))


def _parameters(request: Incoming) -> dict[str, str]:
    """Return the query parameters; of repeated ones the first."""
    return {name: values[0] for name, values in parse_qs(request.query).items()}


def _encoded(document: Any) -> bytes:
    return msgspec.json.encode(document)


def _sees(identity: Identity, workspace: str) -> bool:
    return identity.workspaces is None or workspace in identity.workspaces
