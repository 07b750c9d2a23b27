"""The scopes of the state file: the workspaces of targets, to which all other rows belong.

What identifies saved data is the region, the project ID and the workspace. The name and the
endpoint of the target only tell apart the data of two targets of one project: they can be changed
(`rename`) without touching the rows.
"""

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from exporter.storage.rows import checksum, damaged

UNKNOWN = ""
"""Name and endpoint of data from files of format 1, which do not have them."""

IDS = "(SELECT id FROM scope WHERE region = ? AND project = ? AND name = ? AND endpoint = ?)"
"""SQL: the scopes of a target, whose `StateKey` is the parameters."""

_COLUMNS = (
    "id, region, project, name, endpoint, workspace, newest, unified, incomplete, verification,"
    " checksum"
)


class StateKey(NamedTuple):
    """The name of a target's saved state.

    Attributes:
        region: of the target.
        project_id: of the target.
        name: its label ``project``.
        endpoint: its base URL.
    """

    region: str
    project_id: str
    name: str = UNKNOWN
    endpoint: str = UNKNOWN


class Scope(NamedTuple):
    """A workspace of a target.

    Attributes:
        id: what its rows refer to.
        key: of the target.
        workspace: its ID.
        newest: create time (unix seconds) of its newest job, -inf = it had none; None = it was
            never read, only jobs of other workspaces refer to it.
        unified: whether its baseline has fine-tuning jobs.
        incomplete: whether its finished jobs were lost.
        verification: opaque; empty = none.
    """

    id: int
    key: StateKey
    workspace: str
    newest: float | None
    unified: bool = False
    incomplete: bool = False
    verification: bytes = b""


def create(connection: sqlite3.Connection) -> None:
    """Create the table."""
    connection.execute(
        "CREATE TABLE scope ("
        " id INTEGER PRIMARY KEY, region TEXT NOT NULL, project TEXT NOT NULL, name TEXT NOT NULL,"
        " endpoint TEXT NOT NULL, workspace TEXT NOT NULL, newest REAL, unified INTEGER NOT NULL,"
        " incomplete INTEGER NOT NULL, verification BLOB NOT NULL, checksum INTEGER NOT NULL,"
        " UNIQUE (region, project, name, endpoint, workspace))"
    )


def scopes_of(connection: sqlite3.Connection, key: StateKey) -> dict[str, Scope]:
    """The scopes of a target by workspace."""
    query = f"SELECT {_COLUMNS} FROM scope WHERE id IN {IDS}"
    return {scope.workspace: scope for scope in _read(connection.execute(query, key))}


def scopes_of_project(
    connection: sqlite3.Connection, region: str, project_id: str
) -> list[tuple[StateKey, str]]:
    """The targets and workspaces of a project that have been read."""
    query = f"SELECT {_COLUMNS} FROM scope WHERE region = ? AND project = ?"
    found = _read(connection.execute(query, (region, project_id)))
    return [(scope.key, scope.workspace) for scope in found if scope.newest is not None]


def all_ids(connection: sqlite3.Connection) -> frozenset[int]:
    """The IDs of all scopes; each is verified."""
    found = connection.execute(f"SELECT {_COLUMNS} FROM scope")
    return frozenset(scope.id for scope in _read(found))


def _read(rows: sqlite3.Cursor) -> Iterator[Scope]:
    for *values, found in rows.fetchall():
        if found != checksum(values):
            raise damaged("scope", str(values[5]), "wrong checksum")
        scope_id, *key, workspace, newest, unified, incomplete, verification = values
        yield Scope(
            scope_id, StateKey(*key), workspace, newest, bool(unified), bool(incomplete),
            verification,
        )  # fmt: skip


def write(connection: sqlite3.Connection, scope: Scope) -> None:
    """Insert or replace a scope."""
    values = (
        scope.id, *scope.key, scope.workspace, scope.newest, int(scope.unified),
        int(scope.incomplete), scope.verification,
    )  # fmt: skip
    connection.execute(
        f"INSERT OR REPLACE INTO scope ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*values, checksum(values)),
    )


class TargetScopes:
    """The scopes of a target while it is written; missing ones are added."""

    def __init__(self, connection: sqlite3.Connection, key: StateKey) -> None:
        self._connection = connection
        self._key = key
        self._scopes = scopes_of(connection, key)

    def of(self, workspace: str) -> Scope:
        """The scope of a workspace."""
        if (scope := self._scopes.get(workspace)) is None:
            (last,) = self._connection.execute("SELECT ifnull(max(id), 0) FROM scope").fetchone()
            scope = Scope(last + 1, self._key, workspace, None)
            self.write(scope)
        return scope

    def write(self, scope: Scope) -> None:
        """Save a scope if it has changed."""
        if self._scopes.get(scope.workspace) != scope:
            write(self._connection, scope)
            self._scopes[scope.workspace] = scope

    @property
    def ids(self) -> frozenset[int]:
        """The IDs of all scopes of the target."""
        return frozenset(scope.id for scope in self._scopes.values())


def write_workspaces(
    scopes: TargetScopes,
    newest_created: Mapping[str, float],
    unified: Collection[str],
    incomplete: Collection[str],
    verification: Mapping[str, bytes],
) -> None:
    """Save what is known about workspaces; the arguments are those of a `StateChange`."""
    for workspace, newest in newest_created.items():
        scope = scopes.of(workspace)
        scopes.write(
            scope._replace(
                newest=newest, unified=workspace in unified, incomplete=workspace in incomplete
            )
        )
    for workspace, value in verification.items():
        scopes.write(scopes.of(workspace)._replace(verification=value))


_DELETE = (
    *(f"DELETE FROM {each} WHERE scope = ?" for each in ("job", "hour", "series", "activity")),
    "DELETE FROM job_group WHERE scope = ?",
    "DELETE FROM scope WHERE id = ?",
)


def rename(
    connection: sqlite3.Connection, old: StateKey, new: StateKey, workspaces: Collection[str]
) -> None:
    """Give the data of some workspaces to another target. It replaces what that target has."""
    theirs = scopes_of(connection, new)
    for workspace, scope in scopes_of(connection, old).items():
        if workspace not in workspaces:
            continue
        if replaced := theirs.get(workspace):
            for statement in _DELETE:
                connection.execute(statement, (replaced.id,))
        write(connection, scope._replace(key=new))
