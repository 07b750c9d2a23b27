"""Checkpoint of the jobs read, so that an interrupted backfill resumes from the same data.

A second reading would list other jobs, because some have been deleted since. Counters in the days
still to be written would then start below those of the days before, which Prometheus takes for a
counter reset. So the rest is written from the same reading.

A line of JSON says what was asked for and of which targets, and every further line is a job.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from exporter import __version__
from exporter.commands.backfill.options import BackfillPlan
from exporter.errors import ConfigError, StartError
from exporter.jobs.job import Job

NAME = "reading.jsonl"


class TargetRead(msgspec.Struct):
    """What was read of one target.

    Attributes:
        region, project: label values.
        at: unix seconds; what came later, while it was read, counts as then.
        jobs: how many.
        pools: names by pool id.
    """

    region: str
    project: str
    at: float
    jobs: int
    pools: dict[str, str]


class CheckpointHeader(msgspec.Struct):
    """What a reading is for.

    Attributes:
        asked: the options as written, and what else the numbers depend on.
        plan: what they meant when it began.
        targets: in the order of their jobs.
    """

    version: str
    asked: dict[str, str]
    plan: BackfillPlan
    targets: list[TargetRead]


class Checkpoint:
    """The file of a reading in an output directory."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def head(self) -> CheckpointHeader | None:
        """What the reading there is for; None: there is none.

        Raises:
            ConfigError: it cannot be used.
        """
        if not self.path.exists():
            return None
        try:
            with self.path.open("rb") as file:
                head = msgspec.json.decode(file.readline(), type=CheckpointHeader)
        except (OSError, msgspec.MsgspecError) as error:
            raise self._unreadable(error) from None
        if head.version != __version__:
            wrong = f"version {head.version} began there; valid: that version, or another directory"
            raise ConfigError(f"--output: {wrong}")
        return head

    def write(self, head: CheckpointHeader, jobs: Iterable[tuple[TargetRead, Job]]) -> None:
        """Keep a reading, whole or not at all; the jobs in the order of their targets."""
        with whole(self.path) as file:
            file.write(msgspec.json.encode(head) + b"\n")
            for _, job in jobs:
                file.write(msgspec.json.encode(job) + b"\n")

    def jobs(self, head: CheckpointHeader) -> Iterator[tuple[TargetRead, Job]]:
        """Every job, with the target it is of.

        Raises:
            ConfigError: the file is damaged.
        """
        decoder = msgspec.json.Decoder(Job)
        try:
            with self.path.open("rb") as file:
                file.readline()
                for target in head.targets:
                    for _ in range(target.jobs):
                        yield target, decoder.decode(file.readline())
        except (OSError, msgspec.MsgspecError) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"--output: {self.path} cannot be read: {error}; valid: another directory"
        )

    def forget(self) -> None:
        """It is not needed any more."""
        self.path.unlink()


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file that is there once it is complete and safe on the disk, and not before.

    Raises:
        StartError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise StartError(f"cannot write {path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
