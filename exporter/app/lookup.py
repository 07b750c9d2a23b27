"""Looks up the projects and workspaces of one configured target."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from exporter.app.factory import ProcessContext, make_credentials, make_session
from exporter.errors import ConnectionFailedError, PollError, RejectedError, TimedOutError
from exporter.huaweicloud.http import Request, Response, Session
from exporter.huaweicloud.projects import ProjectList, find_project_id
from exporter.metrics.self_metrics import TargetInstruments
from exporter.modelarts.workspaces import find_workspaces
from exporter.settings.schema import ALL, ApiSettings, TargetSettings

if TYPE_CHECKING:
    from exporter.huaweicloud.auth.base import Credentials

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 120.0
"""Limit for a whole lookup."""

_OK = 200
_LONGEST_NAME = 64


class _Found(NamedTuple):
    """The targets that were found, and what was not."""

    targets: tuple[TargetSettings, ...]
    error: str = ""


class TargetLookup:
    """Looks up what a target leaves open: its projects, their workspaces, or both.

    Args:
        options: of the target.
        api: limits on requests.
        context: what all targets share.

    Attributes:
        options: as given.
        api: as given.
        found: a target for each project; None = no lookup has succeeded yet. A lookup that fails
            leaves it as it was.
        error: why the last lookup failed, or what it did not find; "" if it succeeded.
        attempted: whether a lookup has ended.

    Raises:
        ConfigError: the credentials can never work.
    """

    def __init__(self, options: TargetSettings, api: ApiSettings, context: ProcessContext) -> None:
        self.options = options
        self.found: tuple[TargetSettings, ...] | None = None
        self.error = ""
        self.attempted = False
        self.api = api
        self._context = context
        self._session: Session | None = None
        self._one_at_a_time = asyncio.Lock()
        self._credentials = make_credentials(
            options,
            context,
            self._send,
            project_id=options.project_id,
            of_account=options.projects is not None,
        )
        self._projects = ProjectList(
            self._send, self._credentials, options.iam_endpoint, options.region
        )
        # Tokens are for a project, and valid for a day: they are kept from lookup to lookup.
        self._of_project: dict[str, Credentials] = {}

    @property
    def name(self) -> str:
        """The target in log lines and tables."""
        project = self.options.name or self.options.project_id
        return "/".join(filter(None, (self.options.region, project)))

    @property
    def subject(self) -> str:
        """What is looked up, for people."""
        if self.options.projects is None:
            return "workspaces"
        return "projects and workspaces" if self.options.workspaces == ALL else "projects"

    async def look_up(self) -> None:
        """Look up everything once; note what was found, and why anything failed."""
        async with self._one_at_a_time:
            before, self.error = self.error, await self._attempt()
            self.attempted = True
        if self.error:
            level = logging.WARNING if self.error != before else logging.DEBUG
            text = "lookup of %s failed, keeping what is known: %s"
            log.log(level, text, self.subject, self.error, extra={"target": self.name})
        elif before:
            log.info("lookup of %s succeeds again", self.subject, extra={"target": self.name})

    async def _attempt(self) -> str:
        """Look up everything once; return why that failed, or what was not found."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS), self._connected():
                self.found, error = await self._find()
        except PollError as failure:
            return str(failure)
        except TimeoutError:
            return f"not done within {TIMEOUT_SECONDS:g} s"
        except Exception:  # a bug in a lookup must not end the polls
            log.exception("lookup failed unexpectedly", extra={"target": self.name})
            return "internal error, see the log"
        return error

    async def _find(self) -> _Found:
        """Find the targets.

        Raises:
            PollError: nothing could be found.
        """
        if self.options.projects is None:
            return _Found((await self._with_workspaces(self.options),))
        targets, error = await self._find_projects()
        if self.options.workspaces != ALL:
            return _Found(targets, error)
        known = {target.project_id: target.workspaces for target in self.found or ()}
        found: list[TargetSettings] = []
        failure: PollError | None = None
        for target in targets:
            try:
                if isinstance(failure, TimedOutError | ConnectionFailedError):
                    raise failure  # the service is out of reach for all of them
                found.append(await self._with_workspaces(target))
            except PollError as reason:
                failure = failure or reason
                if workspaces := known.get(target.project_id):
                    found.append(target.model_copy(update={"workspaces": workspaces}))
        if failure and not found:
            raise failure
        return _Found(tuple(found), error or str(failure or ""))

    async def _find_projects(self) -> _Found:
        """A target for each of the wanted projects.

        Raises:
            PollError: the lookup failed, or nothing was found.
        """
        found = await self._projects.fetch()
        error = ""
        wanted = self.options.projects or ()
        if wanted != ALL:
            listed = {*found, *found.values()}
            missing = [project for project in wanted if project not in listed]
            found = {name: id_ for name, id_ in found.items() if {name, id_} & {*wanted}}
            if missing:
                error = f"this identity cannot see the projects {', '.join(missing)}"
        if not found:
            wrong = error or f"this identity sees no project of region {self.options.region}"
            raise RejectedError(wrong, status=_OK)
        targets = (
            self.options.model_copy(
                update={"projects": None, "project_id": project_id, "name": _label(name)}
            )
            for name, project_id in sorted(found.items())
        )
        return _Found(tuple(targets), error)

    async def _with_workspaces(self, target: TargetSettings) -> TargetSettings:
        """The target with all workspaces of its project.

        Raises:
            PollError: the lookup failed, or nothing was found.
        """
        credentials = self._credentials
        project_id = target.project_id
        if project_id is None:
            project_id = await find_project_id(
                self._send, credentials, target.iam_endpoint, target.region
            )
        elif self.options.projects is not None:
            if project_id not in self._of_project:
                self._of_project[project_id] = make_credentials(
                    target, self._context, self._send, project_id=project_id
                )
            credentials = self._of_project[project_id]
        workspaces = await find_workspaces(self._send, credentials, target.endpoint, project_id)
        if not workspaces:
            wrong = f"this identity sees no workspace of project {project_id}"
            raise RejectedError(wrong, status=_OK)
        return target.model_copy(update={"workspaces": workspaces})

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        """Connections for one lookup; minutes pass until the next."""
        region, project = self.options.region, self.options.name or ""
        meter = TargetInstruments(self._context.instruments, region, project)
        session = make_session(self.options, self.api, self._context, meter, name=self.name)
        self._session = session
        try:
            yield
        finally:
            self._session = None
            await session.close()

    async def _send(self, request: Request) -> Response:
        if self._session is None:
            raise RuntimeError("not connected")
        return await self._session(request)


def _label(name: str) -> str | None:
    """The label for a project's name; None = its ID, if the name is not a short plain text."""
    return name if name.isprintable() and len(name) <= _LONGEST_NAME else None
