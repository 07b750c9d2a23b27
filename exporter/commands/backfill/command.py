"""Read the list of jobs, reconstruct the past of each, and write it day by day."""

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
    atomic_file,
)
from exporter.commands.backfill.grid import Day, Grid
from exporter.commands.backfill.openmetrics import TargetSeries, document
from exporter.commands.backfill.options import BackfillArguments, plan, show_time
from exporter.commands.backfill.series import SeriesBuilder
from exporter.commands.console import (
    in_background,
    print_note,
    print_output,
    progress_bar,
    show_progress,
)
from exporter.errors import ConfigError, ExporterError, PollError, StartError
from exporter.jobs.flavor_types import complete_all
from exporter.jobs.job import Job
from exporter.polling.user_limit import UserLimiter
from exporter.settings.schema import Settings

LOOKBACK_SECONDS = 300.0
"""Prometheus's default lookback: queries ignore samples that are older."""

_HEAD_SECONDS = 3 * 3600.0
"""How long Prometheus keeps samples in memory. A newer block on disk would make it drop them."""

_JOBS_PER_TURN = 500  # between two checks for Ctrl-C

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
    arguments: BackfillArguments,
    clock: Callable[[], float],
) -> None:
    """Write the history.

    Args:
        settings: with the targets.
        environ: environment variables.
        arguments: time range, output and so on.
        clock: unix seconds.

    Raises:
        ConfigError: the options are invalid, or the directory cannot be used.
        StartError: the history cannot be written.
        UnreadableTargetsError: the history cannot be read.
    """
    if arguments.output is None:
        header, jobs = await _read(settings, environ, arguments, clock)
        await _write_document(header, jobs)
        return
    folder = arguments.output
    with _locked(folder), _note_on_interruption(folder):
        checkpoint = Checkpoint(folder)
        found = checkpoint.header()
        if found is None:
            _refuse_finished(folder)
            header, jobs = await _read(settings, environ, arguments, clock)
            checkpoint.write(header, jobs)
            jobs.clear()
        else:
            header = found
            _refuse_different(header, _options(settings, arguments), folder)
        await _write_files(header, checkpoint.jobs(header), folder)
        checkpoint.remove()


# --- Reading --------------------------------------------------------------------------------------


async def _read(
    settings: Settings,
    environ: Mapping[str, str],
    arguments: BackfillArguments,
    clock: Callable[[], float],
) -> tuple[CheckpointHeader, list[tuple[TargetRead, Job]]]:
    """Read all jobs of all targets."""
    now = round(clock(), 3)  # all times are whole milliseconds
    limits = settings.jobs
    planned = plan(
        arguments,
        history=limits.history,
        now=now,
        idle_retention=limits.idle_retention,
        users=limits.max_users if limits.by_user else None,
    )
    if planned.step > LOOKBACK_SECONDS:
        print_note(f"--step {arguments.step} leaves gaps in graphs: Prometheus looks back 5m only")
    targets: list[TargetRead] = []
    jobs: list[tuple[TargetRead, Job]] = []
    async with exporter(settings, environ, keep_state=False, look_up=True) as running:
        problems = running.discovery.targets.problems
        async with in_background(_show_jobs_read(running)):
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
                pools = poller.target.pools.snapshot.infos(view.pool_names or {})
                # As of now, so that the last sample equals the first one of a live scrape.
                read = TargetRead(labels["region"], labels["project"], now, len(view.jobs), pools)
                targets.append(read)
                jobs += ((read, job) for job in complete_all(view.jobs, view.pool_types).values())
    if problems:
        raise UnreadableTargetsError(*problems)
    options = _options(settings, arguments)
    return CheckpointHeader(__version__, options, planned, targets), jobs


async def _show_jobs_read(running: Exporter) -> None:
    while True:
        swept = [poller.target.sweep_progress for poller in running.pollers]
        jobs, total = (sum(sweep[part] for sweep in swept) for part in (0, 1))
        # The service's total may be wrong, and some targets may not have reported one yet.
        share = f"{progress_bar(jobs, total)} " if total >= jobs > 0 else ""
        show_progress(f"Reading the list of jobs {share}{jobs:,}")
        await asyncio.sleep(0.2)


def _options(settings: Settings, arguments: BackfillArguments) -> dict[str, str]:
    """Return everything that the numbers of a backfill depend on, as it was written."""
    targets = (
        "/".join(
            filter(
                None,
                (
                    target.region,
                    target.name,
                    target.project_id,
                    *(target.projects or ()),
                    *target.workspaces,
                ),
            )
        )
        for target in settings.all_targets()
    )
    return {
        "--from": arguments.start,
        "--to": arguments.stop or "",
        "--step": arguments.step,
        "--label": " ".join(arguments.labels),
        "--histograms": str(arguments.histograms),
        "jobs.history": f"{settings.jobs.history:g}",
        "jobs.idle_retention": f"{settings.jobs.idle_retention:g}",
        "jobs.by_user": str(settings.jobs.by_user),
        "jobs.max_users": str(settings.jobs.max_users),
        "targets": " ".join([*targets, *(settings.targets_files or ())]),
    }


# --- Writing --------------------------------------------------------------------------------------


class _Series(NamedTuple):
    """All series of all targets over a grid; ``undated``: jobs without any time."""

    grid: Grid
    targets: list[TargetSeries]
    undated: int


async def _series(header: CheckpointHeader, jobs: Jobs) -> _Series:
    planned = header.plan
    grid = Grid(planned.start, planned.stop, planned.step)
    builders = {
        id(read): SeriesBuilder(
            grid,
            read.pools,
            kept=planned.history,
            idle=planned.idle_retention,
            histograms=planned.histograms,
            users=None if planned.users is None else UserLimiter(planned.users, read.project),
        )
        for read in header.targets
    }
    total = sum(read.jobs for read in header.targets)
    for number, (read, job) in enumerate(jobs):
        builders[id(read)].add(job, read.at)
        if number % _JOBS_PER_TURN == 0:
            show_progress(f"Reconstructing the past of each job {progress_bar(number, total)}")
            await asyncio.sleep(0)
    targets = [
        TargetSeries(
            list(builders[id(read)].families()),
            {**planned.labels, "region": read.region, "project": read.project},
        )
        for read in header.targets
    ]
    return _Series(grid, targets, sum(builder.undated for builder in builders.values()))


async def _write_document(header: CheckpointHeader, jobs: Jobs) -> None:
    series = await _series(header, jobs)
    for piece in document(series.targets, series.grid, 0, len(series.grid)):
        print_output(piece)
        await asyncio.sleep(0)
    _note_undated(series)


async def _write_files(header: CheckpointHeader, jobs: Jobs, folder: Path) -> None:
    series = await _series(header, jobs)
    days = list(series.grid.days())
    for number, day in enumerate(days):
        show_progress(f"Writing {day.name} {progress_bar(number, len(days))}")
        file = folder / f"{day.name}.om"
        if not file.exists():
            await _write_day(file, series, day)
    _note_undated(series)
    size = sum(family.size for target in series.targets for family in target.families)
    total = sum(read.jobs for read in header.targets)
    where = shlex.quote(str(folder))
    print_output(
        f"{_count(total, 'job')}, {size:,} series, {_count(len(series.grid), 'sample')} per "
        f"series, {_count(len(days), 'day')}, one file per day. To create blocks for Prometheus:\n"
        f"  for day in {where}/*.om; do\n"
        f'    promtool tsdb create-blocks-from openmetrics "$day" {where}/blocks || break\n'
        f"  done\n"
        f"Move them into its data directory after {show_time(header.plan.stop + _HEAD_SECONDS)}, "
        "not before:\n"
        "at its next restart, Prometheus would lose samples that are only in memory.\n"
        "See docs/backfill.md."
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


async def _write_day(file: Path, series: _Series, day: Day) -> None:
    with atomic_file(file) as out:
        for piece in document(series.targets, series.grid, day.start, day.stop):
            out.write(piece)
            await asyncio.sleep(0)


def _note_undated(series: _Series) -> None:
    if series.undated:
        print_note(f"{_count(series.undated, 'job')} without any time left out")


# --- The output directory -------------------------------------------------------------------------


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Create the directory if needed, and lock it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"--output: {folder}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StartError(f"another backfill writes to {folder}") from None
    finally:
        os.close(descriptor)


@contextmanager
def _note_on_interruption(folder: Path) -> Iterator[None]:
    try:
        yield
    except asyncio.CancelledError:
        if (folder / NAME).exists():
            print_note(f"Interrupted. Run the same command to resume from {folder}.")
        else:
            print_note("Interrupted while reading the list of jobs; nothing was saved.")
        raise


def _refuse_finished(folder: Path) -> None:
    files = sorted(path.name for path in folder.glob("*.om"))
    if files:
        raise ConfigError(
            f"--output: {folder} has a finished backfill ({files[0]} to {files[-1]}); "
            "use another directory"
        )


def _refuse_different(header: CheckpointHeader, options: Mapping[str, str], folder: Path) -> None:
    problems = [
        f'{name}: "{options[name]}" differs from "{value}", with which the backfill in {folder} '
        "was started; use the same value, or another directory"
        for name, value in header.options.items()
        if options[name] != value
    ]
    if problems:
        raise ConfigError(*problems)
