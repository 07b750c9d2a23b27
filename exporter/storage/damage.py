"""What makes a SQLite file unusable for us. Everything here raises `DamagedFileError`."""

import sqlite3
from pathlib import Path
from typing import TypeAlias

_LATEST_WRITE_VERSION = 2
"""Byte 18 of the header: 1 = rollback journal, 2 = WAL. SQLite does not write to later ones."""

SchemaObjects: TypeAlias = frozenset[tuple[str, str, str, str | None]]
"""Type, name, table and SQL text of everything in a schema."""


class DamagedFileError(Exception):
    """The file is damaged or foreign. The message continues the words "state file PATH"."""


def check_size(connection: sqlite3.Connection, real: Path) -> None:
    """Check for a truncated page. SQLite would read zeros. What is in the WAL may be missing."""
    wal = real.with_name(f"{real.name}-wal")
    if wal.exists() and wal.stat().st_size:
        return
    if real.stat().st_size % connection.execute("PRAGMA page_size").fetchone()[0]:
        raise DamagedFileError("is damaged (its last page is truncated)")


def check_structure(connection: sqlite3.Connection) -> None:
    """Check every page, but not that the indexes agree with their tables."""
    _check_found(connection.execute("PRAGMA quick_check(1)"))


def check_table(connection: sqlite3.Connection, table: str) -> None:
    """Check the pages of a table and its indexes, and that they agree.

    SQLite before 3.33 checks all tables.
    """
    _check_found(connection.execute(f"PRAGMA integrity_check({table})"))


def _check_found(result: sqlite3.Cursor) -> None:
    if (found := result.fetchone()[0]) != "ok":
        raise DamagedFileError(f"is damaged ({' '.join(found.split())})")


def check_header(real: Path) -> None:
    """Check why SQLite considers a file read-only that is writable. Nothing may have it open."""
    with real.open("rb") as file:
        if file.read(19)[18:] > bytes([_LATEST_WRITE_VERSION]):
            raise DamagedFileError("is damaged (unsupported write version in its header)")


def schema_of(connection: sqlite3.Connection) -> SchemaObjects:
    """Everything in the schema, except for the statistics of ``ANALYZE``."""
    query = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_stat%'"
    return frozenset(connection.execute(query))


def check_schema(connection: sqlite3.Connection, expected: SchemaObjects) -> None:
    """Check that there is nothing else: a trigger or a view could change what is read or saved."""
    found = schema_of(connection)
    names = {each[:2] for each in expected}
    if strange := sorted(
        f"{kind} {name[:64]!r}" for kind, name, *_ in found if (kind, name) not in names
    ):
        raise DamagedFileError(f"contains objects of another application ({', '.join(strange)})")
    if wrong := sorted(f"{kind} {name!r}" for kind, name, *_ in expected - found):
        raise DamagedFileError(f"is damaged ({', '.join(wrong)} is missing or was changed)")
