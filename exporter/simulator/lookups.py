"""What an identity can look up: the projects of its own or of its account, and workspaces."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from exporter.simulator.catalog import DEFAULT_WORKSPACE
from exporter.simulator.identity import Identity
from exporter.simulator.reply import ApiError
from exporter.simulator.world import World

_MOST_PROJECTS = 5000
_MOST_WORKSPACES = 1000


def domain_id(domain: str) -> str:
    """Return the ID of an account."""
    return domain.encode().hex()[:32]


def projects(found: Mapping[str, str], domain: str, query: str) -> dict[str, Any]:
    """Return the document of ``GET /v3/projects`` and ``GET /v3/auth/projects``.

    Args:
        found: IDs by name.
        domain: the account.
        query: may have ``name``, ``enabled``, and both ``page`` and ``per_page``.

    Raises:
        ApiError: 400 for other parameters and values.
    """
    wanted = _parameters(query, ("name", "enabled", "page", "per_page"), "IAM")
    if wanted.get("enabled", "true") not in ("true", "false"):
        raise ApiError(400, "IAM", "enabled is not a boolean.")
    if ("page" in wanted) != ("per_page" in wanted):
        raise ApiError(400, "IAM", "page and per_page must be given together.")
    page = _number(wanted, "page", 1, range(1, 2**31), "IAM")
    size = _number(wanted, "per_page", _MOST_PROJECTS, range(1, _MOST_PROJECTS + 1), "IAM")
    items = [
        {
            "id": id_,
            "name": name,
            "enabled": True,
            "is_domain": False,
            "description": "",
            "domain_id": domain_id(domain),
            "parent_id": domain_id(domain),
        }
        for name, id_ in found.items()
        if wanted.get("name", name) == name and wanted.get("enabled") != "false"
    ]
    links = {"self": "https://iam.example/v3/projects", "next": None, "previous": None}
    return {"links": links, "projects": items[(page - 1) * size : page * size]}


def workspaces(world: World, identity: Identity, query: str) -> dict[str, Any]:
    """Return the document of ``GET /v1/{project_id}/workspaces``; ``offset`` counts pages.

    Raises:
        ApiError: 400 for other parameters and values.
    """
    names = ("offset", "limit", "filter_accessible")
    wanted = _parameters(query, names, "ModelArts.2764")
    if (accessible := wanted.get("filter_accessible", "false")) not in ("true", "false"):
        raise ApiError(400, "ModelArts.2788", "filter_accessible is not a boolean.")
    offset = _number(wanted, "offset", 0, range(2**31), "ModelArts.2816")
    limits = range(1, _MOST_WORKSPACES + 1)
    limit = _number(wanted, "limit", _MOST_WORKSPACES, limits, "ModelArts.2816")
    found = dict.fromkeys([DEFAULT_WORKSPACE, *(pool.workspace for pool in world.pools.values())])
    seen = [
        each
        for each in found
        if accessible == "false" or identity.workspaces is None or each in identity.workspaces
    ]
    some = seen[offset * limit : (offset + 1) * limit]
    items = [_workspace(each) for each in some]
    return {"total_count": len(seen), "count": len(items), "workspaces": items}


def _workspace(workspace: str) -> dict[str, Any]:
    return {
        "id": workspace,
        "name": "default" if workspace == DEFAULT_WORKSPACE else f"workspace-{workspace[:6]}",
        "status": "NORMAL",
        "auth_type": "PUBLIC",
        "enterprise_project_id": "0",
        "description": "",
    }


def _parameters(query: str, known: Sequence[str], code: str) -> dict[str, str]:
    """Return the query parameters.

    Raises:
        ApiError: 400 for those that are unknown or repeated.
    """
    found = parse_qs(query, keep_blank_values=True)
    for name, values in found.items():
        if name not in known or len(values) > 1:
            raise ApiError(400, code, f"The parameter {name} is unknown or repeated.")
    return {name: values[0] for name, values in found.items()}


def _number(wanted: Mapping[str, str], name: str, default: int, allowed: range, code: str) -> int:
    value = wanted.get(name, str(default))
    if not (value.isascii() and value.isdecimal()) or int(value) not in allowed:
        raise ApiError(400, code, f"{name} is out of range.")
    return int(value)
