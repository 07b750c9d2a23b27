"""What the command does: read the job history, tell every job's past, write it day by day."""

import asyncio
import fcntl
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from exporter import __version__
from exporter.app.exporter import Exporter, exporter
from exporter.commands.backfill.checkpoint import (
    NAME,
    Checkpoint,
    CheckpointHeader,
    TargetRead,
    whole,
)
from exporter.commands.backfill.grid import Day, Grid
from exporter.commands.backfill.openmetrics import TargetSeries, document
from exporter.commands.backfill.options import BackfillArguments, plan, shown
from exporter.commands.backfill.series import SeriesBuilder
from exporter.commands.console import bar, beside, note, progress, say
from exporter.errors import ConfigError, ExporterError, PollError, StartError
from exporter.jobs.job import Job
from exporter.settings.schema import Settings

LOOKBACK_SECONDS = 300.0
"""What is older than that is no answer to a query, unless Prometheus was told otherwise."""

_HELD_SECONDS = 3 * 3600.0
"""Prometheus has its latest samples in memory so long, and drops them for a newer block on disk."""

_TURN = 500  # jobs until Ctrl-C is listened to again

Jobs = Iterable[tuple[TargetRead, Job]]


class UnreadableTargetsError(ExporterError):
    """The history of some targets could not be read.

    Attributes:
        problems: a line for each.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


async def run(
    settings: Settings,
    environ: Mapping[str, str],
    asked: BackfillArguments,
    clock: Callable[[], float],
) -> None:
    """Write the history.

    Args:
        settings: with the targets.
        environ: environment variables.
        asked: which history, and where to.
        clock: unix seconds.

    Raises:
        ConfigError: what was asked for makes no sense, or the directory is not to be used.
        StartError: it cannot be written.
        UnreadableTargetsError: it cannot be read.
    """
    if asked.folder is None:
        head, jobs = await _read(settings, environ, asked, clock)
        await _to_standard_output(head, jobs)
        return
    with _alone_in(asked.folder), _told_how_to_go_on(asked.folder):
        kept = Checkpoint(asked.folder)
        head_there = kept.head()
        if head_there is None:
            _refuse_finished(asked.folder)
            head, jobs = await _read(settings, environ, asked, clock)
            kept.write(head, jobs)
            jobs.clear()
        else:
            head = head_there
            _refuse_other(head, _identity(settings, asked), asked.folder)
        await _to_files(head, kept.jobs(head), asked.folder)
        kept.forget()


# --- Reading --------------------------------------------------------------------------------------


async def _read(
    settings: Settings,
    environ: Mapping[str, str],
    asked: BackfillArguments,
    clock: Callable[[], float],
) -> tuple[CheckpointHeader, list[tuple[TargetRead, Job]]]:
    """What is to be written, and all jobs of all targets."""
    now = round(clock(), 3)  # as all times are
    planned = plan(asked, kept=settings.jobs.history, now=now)
    if planned.step > LOOKBACK_SECONDS:
        note(f"--step {asked.step} leaves gaps in graphs: Prometheus looks back for 5m, not longer")
    problems: list[str] = []
    targets: list[TargetRead] = []
    jobs: list[tuple[TargetRead, Job]] = []
    async with exporter(settings, environ, keep_state=False) as running:
        async with beside(_told_how_far(running)):
            views = await asyncio.gather(
                *(poller.read() for poller in running.pollers), return_exceptions=True
            )
        for poller, view in zip(running.pollers, views, strict=True):
            if isinstance(view, PollError):
                problems.append(f"{poller.name}: {view}")
            elif isinstance(view, BaseException):
                raise view
            else:
                labels = poller.target.identity.labels
                pools = dict(view.pools or {})
                # As of now: so the last sample shows the phases that a live scrape shows first.
                read = TargetRead(labels["region"], labels["project"], now, len(view.jobs), pools)
                targets.append(read)
                jobs += ((read, job) for job in view.jobs.values())
    if problems:
        raise UnreadableTargetsError(*problems)
    return CheckpointHeader(__version__, _identity(settings, asked), planned, targets), jobs


async def _told_how_far(running: Exporter) -> None:
    while True:
        swept = [poller.target.swept for poller in running.pollers]
        jobs, total = (sum(numbers) for numbers in zip(*swept, strict=True))
        # What the service says is not to be trusted, and others may not have been asked yet.
        share = f"{bar(jobs, total)} " if total >= jobs > 0 else ""
        progress(f"Reading the list of jobs {share}{jobs:,}")
        await asyncio.sleep(0.2)


def _identity(settings: Settings, asked: BackfillArguments) -> dict[str, str]:
    """Everything that the numbers of a backfill depend on, as it was written."""
    targets = (
        "/".join(filter(None, (target.region, target.name, target.project_id, *target.workspaces)))
        for target in settings.all_targets()
    )
    return {
        "--from": asked.since,
        "--to": asked.until or "",
        "--step": asked.step,
        "--label": " ".join(asked.labels),
        "--histograms": str(asked.histograms),
        "jobs.history": f"{settings.jobs.history:g}",
        "targets": " ".join(targets),
    }


# --- Writing --------------------------------------------------------------------------------------


class _Series(NamedTuple):
    """All series of all targets over a grid."""

    grid: Grid
    targets: list[TargetSeries]
    timeless: int


async def _series(head: CheckpointHeader, jobs: Jobs) -> _Series:
    wanted = head.plan
    grid = Grid(wanted.start, wanted.stop, wanted.step)
    histories = {
        id(read): SeriesBuilder(grid, read.pools, kept=wanted.kept, histograms=wanted.histograms)
        for read in head.targets
    }
    total = sum(read.jobs for read in head.targets)
    for number, (read, job) in enumerate(jobs):
        histories[id(read)].add(job, read.at)
        if number % _TURN == 0:
            progress(f"Telling the past of each job {bar(number, total)}")
            await asyncio.sleep(0)
    told = [
        TargetSeries(
            list(histories[id(read)].families()),
            {**wanted.labels, "region": read.region, "project": read.project},
        )
        for read in head.targets
    ]
    return _Series(grid, told, sum(each.timeless for each in histories.values()))


async def _to_standard_output(head: CheckpointHeader, jobs: Jobs) -> None:
    series = await _series(head, jobs)
    for piece in document(series.targets, series.grid, 0, len(series.grid)):
        say(piece)
        await asyncio.sleep(0)
    _note_timeless(series)


async def _to_files(head: CheckpointHeader, jobs: Jobs, folder: Path) -> None:
    series = await _series(head, jobs)
    days = list(series.grid.days())
    for number, day in enumerate(days):
        progress(f"Writing {day.name} {bar(number, len(days))}")
        file = folder / f"{day.name}.om"
        if not file.exists():
            await _write(file, series, day)
    _note_timeless(series)
    many = sum(family.size for told in series.targets for family in told.families)
    total = sum(read.jobs for read in head.targets)
    where = shlex.quote(str(folder))
    say(
        f"{_count(total, 'job')}, {many:,} series, {_count(len(series.grid), 'sample')} of each, "
        f"{_count(len(days), 'day')}, a file each. To make blocks of them for Prometheus:\n"
        f"  for day in {where}/*.om; do\n"
        f'    promtool tsdb create-blocks-from openmetrics "$day" {where}/blocks || break\n'
        f"  done\n"
        f"Move them into its data after {shown(head.plan.stop + _HELD_SECONDS)}, not before: it\n"
        "would forget at its next restart what it has in memory. More in docs/backfill.md."
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


async def _write(file: Path, series: _Series, day: Day) -> None:
    with whole(file) as out:
        for piece in document(series.targets, series.grid, day.lo, day.hi):
            out.write(piece)
            await asyncio.sleep(0)


def _note_timeless(series: _Series) -> None:
    if series.timeless:
        note(f"{series.timeless:,} jobs tell no time at all and are left out")


# --- The output directory -------------------------------------------------------------------------


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """The directory, made if need be, and ours alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"--output: {folder}: {error.strerror}") from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StartError(f"another backfill writes to {folder}") from None
    finally:
        os.close(held)


@contextmanager
def _told_how_to_go_on(folder: Path) -> Iterator[None]:
    try:
        yield
    except asyncio.CancelledError:
        if (folder / NAME).exists():
            note(f"Interrupted. The same command goes on with what is in {folder}.")
        else:
            note("Interrupted while the list was read: nothing is kept of that.")
        raise


def _refuse_finished(folder: Path) -> None:
    there = sorted(path.name for path in folder.glob("*.om"))
    if there:
        raise ConfigError(
            f"--output: {folder} has a backfill that is finished ({there[0]} to {there[-1]}); "
            "valid: another directory"
        )


def _refuse_other(head: CheckpointHeader, identity: Mapping[str, str], folder: Path) -> None:
    problems = [
        f"{name}: {identity[name]!r} differs from {value!r}, with which the backfill in "
        f"{folder} began; valid: the same, or another directory"
        for name, value in head.asked.items()
        if identity[name] != value
    ]
    if problems:
        raise ConfigError(*problems)
