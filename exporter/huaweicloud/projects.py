"""Looking up projects at IAM: that of a region, or all that an identity can see in it."""

import re
from urllib.parse import quote

import msgspec

from exporter.errors import AuthError, ForbiddenError, InvalidResponseError, RejectedError
from exporter.huaweicloud.auth.base import Credentials, send_authenticated
from exporter.huaweicloud.auth.iam import ENDPOINT_OPTION, decoded
from exporter.huaweicloud.auth.secret import redacting
from exporter.huaweicloud.http import Http, Request

LIST_PROJECTS = "iam:projects:listProjects"
"""The IAM action that listing the projects of an account needs."""

_SIGNED = ("aksk", "agency")
"""Methods that sign requests. IAM documents the list of one's own projects for tokens only."""

_OK, _NOT_FOUND = 200, 404
_SHOWN_PROJECTS = 5
_PAGE = 1000
_MOST_PAGES = 20
_MAX_BYTES = 2 * 2**20
"""Of a response. A project takes less than 500 bytes."""
_PROJECT_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
"""The same as for the option ``target.project_id``."""


class _Project(msgspec.Struct):
    id: str
    name: str = ""
    enabled: bool = True


class _ProjectsResponse(msgspec.Struct):
    projects: list[_Project]


async def find_project_id(
    http: Http, credentials: Credentials, iam_endpoint: str, region: str
) -> str:
    """Look up the id of a region's own project, which is named after the region.

    Raises:
        PollError: no sign-in, no permission, or no such project.
    """
    doing = f"looking up the project of region {region} (not needed with target.project_id)"
    with redacting(doing=doing):
        if reported := await credentials.project_id():
            return _checked_id(reported)
        request = _request(iam_endpoint, f"/v3/projects?name={quote(region, safe='')}")
        return _only_project(await _fetch(http, credentials, request), region)


class ProjectList:
    """Lists the projects of a region that an identity can see.

    Args:
        http: sends a request once.
        credentials: who looks.
        iam_endpoint: base URL of IAM.
        region: whose projects; their names begin with that of the region.
    """

    def __init__(
        self, http: Http, credentials: Credentials, iam_endpoint: str, region: str
    ) -> None:
        self._http = http
        self._credentials = credentials
        self._endpoint = iam_endpoint
        self._region = region
        self._own_refused = False

    async def fetch(self) -> dict[str, str]:
        """Return the IDs of all enabled projects of the region by name.

        Asks for the identity's own projects, which needs no permission. If IAM refuses that, asks
        for those of the account, also from then on.

        Raises:
            PollError: neither could be read as a whole.
        """
        with redacting(doing=f"looking up the projects of region {self._region}"):
            found = None if self._own_refused else await self._own()
            if found is None:
                found = await self._of_account()
        return {
            project.name: _checked_id(project.id)
            for project in found
            if project.enabled and self._is_in_region(project.name)
        }

    def _is_in_region(self, name: str) -> bool:
        return name == self._region or name.startswith(f"{self._region}_")

    async def _own(self) -> list[_Project] | None:
        """The projects of the identity; None if IAM refuses to list them."""
        signed = self._credentials.method in _SIGNED
        # Optional: a refusal of this request alone must not pause a good key. Nor must it be sent
        # again and again with a bad one, or the service would lock that.
        request = _request(self._endpoint, "/v3/auth/projects", "own_projects", optional=signed)
        try:
            return await _fetch(self._http, self._credentials, request)
        except AuthError:
            self._own_refused = True
        except RejectedError as error:
            if error.status != _NOT_FOUND:
                raise
            self._own_refused = True
        return None

    async def _of_account(self) -> list[_Project]:
        """All projects of the account."""
        projects: list[_Project] = []
        for page in range(1, _MOST_PAGES + 1):
            request = _request(self._endpoint, f"/v3/projects?page={page}&per_page={_PAGE}")
            try:
                found = await _fetch(self._http, self._credentials, request)
            except ForbiddenError:
                self._own_refused = False  # the credentials are good: try the other list again
                raise
            projects += found
            if len(found) < _PAGE:
                return projects
        raise InvalidResponseError(f"IAM lists more than {_PAGE * _MOST_PAGES} projects")


def _request(
    iam_endpoint: str, path: str, operation: str = "projects", *, optional: bool = False
) -> Request:
    return Request(
        operation=operation,
        method="GET",
        url=iam_endpoint.rstrip("/") + path,
        permission="" if operation == "own_projects" else LIST_PROJECTS,
        endpoint_option=ENDPOINT_OPTION,
        optional=optional,
        max_bytes=_MAX_BYTES,
    )


async def _fetch(http: Http, credentials: Credentials, request: Request) -> list[_Project]:
    response = await send_authenticated(
        lambda attempt: http(attempt.signed()), credentials, request
    )
    return decoded(response, _ProjectsResponse).projects


def _only_project(projects: list[_Project], region: str) -> str:
    ids = [project.id for project in projects if project.name == region]
    if len(ids) == 1:
        return _checked_id(ids[0])
    if ids:
        some = ", ".join(map(_checked_id, ids[:_SHOWN_PROJECTS]))
        raise RejectedError(f"several projects: set target.project_id to one of {some}", status=_OK)
    raise RejectedError(
        f"this identity has no project named {region}: check target.region, or set "
        "target.project_id",
        status=_OK,
    )


def _checked_id(project_id: str) -> str:
    """The ID, which becomes part of URLs, labels and messages.

    Raises:
        InvalidResponseError: it is not a short word of plain characters. Does not quote it.
    """
    if not _PROJECT_ID.fullmatch(project_id):
        raise InvalidResponseError(
            f"IAM reports an invalid project ID: check {ENDPOINT_OPTION}, or set target.project_id"
        )
    return project_id
