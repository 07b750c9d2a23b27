"""Checkpoint of the jobs read, so that an interrupted backfill resumes from the same data.

A second reading would list other jobs, because some have been deleted since. Counters in the days
still to be written would then start below those of the days before, which Prometheus takes for a
counter reset. So the remaining days are written from the same jobs.

The first line of the file is JSON with the options and targets; every further line is a job.
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
from exporter.jobs.pool import PoolInfo

NAME = "reading.jsonl"


class TargetRead(msgspec.Struct):
    """One target, and how many of the jobs are its.

    Attributes:
        region, project: label values.
        at: when it was read, in unix seconds; anything later counts as then.
        jobs: number of jobs.
        pools: labels by pool id.
    """

    region: str
    project: str
    at: float
    jobs: int
    pools: dict[str, PoolInfo]


class CheckpointHeader(msgspec.Struct):
    """The options and targets of a backfill.

    Attributes:
        version: of the exporter.
        options: as written, and everything else that the numbers depend on.
        plan: what the options meant when the backfill began.
        targets: in the order of their jobs.
    """

    version: str
    options: dict[str, str]
    plan: BackfillPlan
    targets: list[TargetRead]


class Checkpoint:
    """The checkpoint file in an output directory."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def header(self) -> CheckpointHeader | None:
        """Read the header; None if there is no checkpoint.

        Raises:
            ConfigError: the file is damaged, or of another version.
        """
        if not self.path.exists():
            return None
        try:
            with self.path.open("rb") as file:
                header = msgspec.json.decode(file.readline(), type=CheckpointHeader)
        except (OSError, msgspec.MsgspecError) as error:
            raise self._unreadable(error) from None
        if header.version != __version__:
            raise ConfigError(
                f"--output: the backfill there was started by version {header.version}; use that "
                "version, or another directory"
            )
        return header

    def write(self, header: CheckpointHeader, jobs: Iterable[tuple[TargetRead, Job]]) -> None:
        """Write the file, completely or not at all; jobs are in the order of their targets."""
        with atomic_file(self.path) as file:
            file.write(msgspec.json.encode(header) + b"\n")
            for _, job in jobs:
                file.write(msgspec.json.encode(job) + b"\n")

    def jobs(self, header: CheckpointHeader) -> Iterator[tuple[TargetRead, Job]]:
        """Read every job with its target.

        Raises:
            ConfigError: the file is damaged.
        """
        decoder = msgspec.json.Decoder(Job)
        try:
            with self.path.open("rb") as file:
                file.readline()
                for target in header.targets:
                    for _ in range(target.jobs):
                        yield target, decoder.decode(file.readline())
        except (OSError, msgspec.MsgspecError) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> ConfigError:
        return ConfigError(f"--output: cannot read {self.path}: {error}; use another directory")

    def remove(self) -> None:
        """Delete the file once the backfill is complete."""
        self.path.unlink()


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under its name only when it is complete and synced to disk.

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
