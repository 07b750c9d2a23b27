"""Looking up the workspaces of a project that an identity may access."""

import re

import msgspec

from exporter.errors import InvalidResponseError
from exporter.huaweicloud.auth.base import Credentials, send_authenticated
from exporter.huaweicloud.encodable import encodable
from exporter.huaweicloud.http import Http, Request

LIST_WORKSPACES = "modelarts:workspace:list"
"""The IAM action that looking up workspaces needs."""

_PAGE = 1000
_MOST_PAGES = 20
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
"""The same as for the option ``target.workspaces``."""


class _Workspace(msgspec.Struct):
    id: str


class _WorkspacesResponse(msgspec.Struct):
    workspaces: list[_Workspace]


async def find_workspaces(
    http: Http, credentials: Credentials, endpoint: str, project_id: str
) -> tuple[str, ...]:
    """Return the IDs of all workspaces that the identity may access, sorted.

    Raises:
        PollError: they could not be read as a whole.
    """
    found: set[str] = set()
    for page in range(_MOST_PAGES):
        request = _request(endpoint, project_id, page)
        response = await send_authenticated(
            lambda attempt: http(attempt.signed()), credentials, request
        )
        ids = _ids(response.body)
        if len(ids) < _PAGE or found.issuperset(ids):
            return tuple(sorted(found.union(ids)))
        found.update(ids)
    raise InvalidResponseError(f"the service lists more than {_PAGE * _MOST_PAGES} workspaces")


def _request(endpoint: str, project_id: str, page: int) -> Request:
    query = f"offset={page}&limit={_PAGE}&filter_accessible=true"
    return Request(
        operation="workspaces",
        method="GET",
        url=f"{endpoint.rstrip('/')}/v1/{project_id}/workspaces?{query}",
        headers={"Content-Type": "application/json", "X-Project-Id": project_id},
        permission=LIST_WORKSPACES,
        endpoint_option="target.endpoint",
    )


def _ids(body: bytes) -> list[str]:
    try:
        listed = msgspec.json.decode(encodable(body), type=_WorkspacesResponse).workspaces
    except (ValueError, RecursionError) as error:
        problem = f"{error}" if isinstance(error, msgspec.ValidationError) else "not JSON"
        raise InvalidResponseError(f"unexpected list of workspaces ({problem})") from None
    ids = [workspace.id for workspace in listed]
    if not all(map(_ID.fullmatch, ids)):
        raise InvalidResponseError("the list of workspaces has an invalid ID")
    return ids
