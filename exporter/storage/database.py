"""The connection to the state file or to a temporary database, and what happens when it is lost.

A file that is deleted or replaced while it is open is written anew as a copy of what is still open.
If it is overwritten, or damage is found in it, it is written anew from memory, which has only some
of the jobs.

All functions block and must run in the same thread.
"""

import contextlib
import logging
import os
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from exporter.clock import Clocks
from exporter.errors import ConfigError, HistoryLostError, StartError, StateError
from exporter.storage import generation
from exporter.storage.damage import DamagedFileError
from exporter.storage.layout import LAYOUT
from exporter.storage.sqlite import (
    explain,
    fingerprint,
    is_damage,
    open_file,
    open_temporary,
    rescue,
    transaction,
)

log = logging.getLogger(__name__)


class Database:
    """A database that is opened, and opened again when it is lost.

    Args:
        path: of the state file; None = a temporary database.
        problem: called for every error and every move aside.
        clocks: the machine's.
        lost: called when the content is lost; returns whether there is anything to refill it with.
        refill: called in a transaction after that, when the database is there again.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        problem: Callable[[], None],
        clocks: Clocks,
        lost: Callable[[], bool],
        refill: Callable[[sqlite3.Connection], None],
    ) -> None:
        self.name = "temporary database" if path is None else f"state file {path}"
        self._path = path
        self._real = None if path is None else Path(os.path.realpath(path))
        self._problem = problem
        self._clocks = clocks
        self._lost = lost
        self._refill = refill
        self._connection: sqlite3.Connection | None = None
        self._check: Iterator[None] = iter(())
        """What remains of the check of all rows."""
        self._fingerprint: tuple[int, ...] | None = None
        self._is_empty = False
        """Whether it was made anew and is still empty."""

    def open(self) -> None:
        """Open it for the first time.

        Raises:
            ConfigError, StartError: as `exporter.storage.sqlite.open_file`.
        """
        self._open(is_copy=False)

    def _open(self, *, is_copy: bool) -> None:
        if self._path is None:
            opened = open_temporary(LAYOUT)
        else:
            opened = open_file(
                self._path,
                LAYOUT,
                moved=self._problem,
                clocks=self._clocks,
                can_wait=is_copy,
            )
        self._connection = opened.connection
        self._check = opened.check
        self._fingerprint = self._found()

    def _found(self) -> tuple[int, ...] | None:
        return None if self._real is None else fingerprint(self._real)

    @contextlib.contextmanager
    def working(self) -> Iterator[sqlite3.Connection]:
        """Give the connection; count and explain its errors.

        Raises:
            HistoryLostError: damage was found.
            StateError: something else failed.
        """
        try:
            yield self._connected()
        except sqlite3.Error as error:
            self._problem()
            if not is_damage(error):
                raise StateError(f"{self.name}: {explain(error)}") from error
            raise self._give_up(f"is damaged ({error})", error) from error
        except DamagedFileError as error:
            self._problem()
            raise self._give_up(str(error), error) from error

    def check_step(self) -> bool:
        """Check some more rows. Return whether there are more.

        Raises:
            HistoryLostError, StateError: as `working`.
        """
        with self.working() as connection:
            try:
                return not next(self._check, True)
            except sqlite3.Error:
                self._check = LAYOUT.check(connection)  # from the beginning
                raise

    def checkpoint(self) -> None:
        """Checkpoint the WAL. If it fails the WAL grows until a commit fails and reports it."""
        before = self._fingerprint
        if self._connection is None or before is None or self._found() != before:
            return
        size = None
        with contextlib.suppress(sqlite3.Error):
            size = _checkpointed_size(self._connection)
        found = self._found()
        if found is not None and found[:2] == before[:2] and size in {None, found[2]}:
            self._fingerprint = found  # neither replaced nor overwritten meanwhile

    def close(self) -> None:
        """Close it, and note in the file that this was done in order."""
        if self._connection is None and self._fingerprint is None:  # opening it failed
            return
        try:
            if self._path is not None:
                self._stop()
        except StateError as error:
            log.warning("%s; nothing is lost if you keep the files beside it", error)
        finally:
            if self._connection is not None:
                self._connection.close()

    def _stop(self) -> None:
        with self.working() as connection:
            last = generation.read(connection)
            if last is None or not last.stopped:
                with transaction(connection):
                    generation.advance(connection, stopped=True)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # --- When it is lost --------------------------------------------------------------------------

    def _connected(self) -> sqlite3.Connection:
        """The connection to the file at its path, written anew if somebody has changed that."""
        is_copy = False
        found = self._found()
        if self._connection is not None and found != self._fingerprint:
            is_copy = self._replace(self._connection, found)
        if self._connection is None:
            try:
                self._open(is_copy=is_copy)
            except (ConfigError, StartError) as error:
                self._problem()
                raise StateError(str(error)) from error
        if self._connection is None:
            raise sqlite3.ProgrammingError("not open")
        if self._is_empty:
            with transaction(self._connection):
                self._refill(self._connection)
                generation.advance(self._connection)
            self._is_empty = False
        return self._connection

    def _replace(self, connection: sqlite3.Connection, found: tuple[int, ...] | None) -> bool:
        """Put a copy in place of the file, or make place for a new file. Return which."""
        before = self._fingerprint
        if self._real is None or before is None:
            return False
        overwritten = found is not None and found[:2] == before[:2]
        aside = self._move_aside(connection, self._real, intact=not overwritten)
        if overwritten:
            self._is_empty = True
            self._lost()
        self._problem()
        log.error(
            "%s was %s while in use: written anew%s, all counters continue%s",
            self.name,
            "deleted" if found is None else "overwritten" if overwritten else "replaced",
            " from memory" if overwritten else "",
            f"; what was found there is moved to {aside}" if aside else "",
        )
        return not overwritten

    def _give_up(self, damage: str, error: Exception) -> StateError:
        """Move the damaged file aside; the next use writes it anew. Return what to raise."""
        if self._connection is None:
            return StateError(f"{self.name} {damage}")
        traceback.clear_frames(error.__traceback__)  # a cursor in them would keep the file open
        aside = None
        if self._real is None:
            self._connection.close()
            self._connection = None
        else:
            aside = self._move_aside(self._connection, self._real, intact=False, why="damaged")
        self._is_empty = True
        log.error(
            "%s %s%s, %s",
            self.name,
            damage,
            f": moved to {aside}" if aside else "",
            "written anew from memory: all counters continue"
            if self._lost()
            else "all counters start from a new baseline",
        )
        return HistoryLostError(f"{self.name} {damage}: written anew")

    def _move_aside(
        self, connection: sqlite3.Connection, real: Path, *, intact: bool, why: str = "replaced"
    ) -> Path | None:
        try:
            aside = rescue(connection, real, intact=intact, now=self._clocks.wall(), why=why)
        except OSError as error:
            self._problem()
            raise StateError(f"{self.name}: {error.strerror}") from error
        self._connection = None
        return aside


def _checkpointed_size(connection: sqlite3.Connection) -> int | None:
    """Checkpoint. Return the size of the file if it has the whole database now, in bytes."""
    _, frames, done = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if frames != done:
        return None
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(page_size)
