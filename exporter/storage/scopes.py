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
    """

    id: int
    key: StateKey
    workspace: str
    newest: float | None
    unified: bool = False


_DELETE = (
    "DELETE FROM job WHERE scope = ?",
    "DELETE FROM series WHERE scope = ?",
    "DELETE FROM activity WHERE scope = ?",
    "DELETE FROM scope WHERE id = ?",
)


def create(connection: sqlite3.Connection) -> None:
    """Create the table."""
    connection.execute(
        "CREATE TABLE scope ("
        " id INTEGER PRIMARY KEY, region TEXT NOT NULL, project TEXT NOT NULL, name TEXT NOT NULL,"
        " endpoint TEXT NOT NULL, workspace TEXT NOT NULL, newest REAL, unified INTEGER NOT NULL,"
        " checksum INTEGER NOT NULL,"
        " UNIQUE (region, project, name, endpoint, workspace))"
    )


def scopes_of(connection: sqlite3.Connection, key: StateKey) -> dict[str, Scope]:
    """The scopes of a target by workspace."""
    query = "SELECT * FROM scope WHERE region = ? AND project = ? AND name = ? AND endpoint = ?"
    return {scope.workspace: scope for scope in _read(connection.execute(query, key))}


def scopes_of_project(
    connection: sqlite3.Connection, region: str, project_id: str
) -> list[tuple[StateKey, str]]:
    """The targets and workspaces of a project that have been read."""
    query = "SELECT * FROM scope WHERE region = ? AND project = ?"
    found = _read(connection.execute(query, (region, project_id)))
    return [(scope.key, scope.workspace) for scope in found if scope.newest is not None]


def all_ids(connection: sqlite3.Connection) -> frozenset[int]:
    """The IDs of all scopes; each is verified."""
    return frozenset(scope.id for scope in _read(connection.execute("SELECT * FROM scope")))


def _read(rows: sqlite3.Cursor) -> Iterator[Scope]:
    for *values, found in rows.fetchall():
        scope_id, *key, workspace, newest, unified = values
        if found != checksum(values):
            raise damaged("scope", str(workspace), "wrong checksum")
        yield Scope(scope_id, StateKey(*key), workspace, newest, bool(unified))


def write(connection: sqlite3.Connection, scope: Scope) -> None:
    """Insert or replace a scope."""
    values = (scope.id, *scope.key, scope.workspace, scope.newest, int(scope.unified))
    connection.execute(
        "INSERT OR REPLACE INTO scope VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*values, checksum(values)),
    )


def add(connection: sqlite3.Connection, key: StateKey, workspace: str) -> Scope:
    """Add a scope that does not exist yet."""
    (last,) = connection.execute("SELECT ifnull(max(id), 0) FROM scope").fetchone()
    scope = Scope(last + 1, key, workspace, None)
    write(connection, scope)
    return scope


def write_workspaces(
    connection: sqlite3.Connection,
    key: StateKey,
    newest_created: Mapping[str, float],
    unified: Collection[str],
) -> None:
    """Save the create time of the newest job of workspaces, and which have fine-tuning jobs."""
    known = scopes_of(connection, key)
    for workspace, newest in newest_created.items():
        scope = known.get(workspace) or add(connection, key, workspace)
        changed = scope._replace(newest=newest, unified=workspace in unified)
        if changed != scope:
            write(connection, changed)


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
