"""What the running records of a job say has happened to it. Pure; `tracker` has the rules."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from exporter.jobs.job import OTHER, Job, Run
from exporter.jobs.tracked import ALWAYS, Base, Checked, Event, Restart, TrackedJob, has_run

_UNKNOWN = "unknown"
_NOT_FINAL = ("", "recovering")


class Progress(NamedTuple):
    """The fields of `TrackedJob` about running records."""

    restarts: tuple[Restart, ...] = ()
    records_checked: int = 0
    count_records_from: float | None = None
    startups: Checked | None = Checked()
    faults: tuple[Checked, ...] = ()
    count_details_from: float = ALWAYS


def baseline(job: Job, now: float) -> Progress:
    """Return the progress of a job whose records belong to the baseline."""
    runs = job.runs or ()
    return Progress(
        tuple(restart for _, restart in _restarts(runs, 0)),
        _count_until_last_recovery(runs),
        now if has_run(job) and not runs else ALWAYS,
        *_details_baseline(job, runs, now),
    )


def count_records(
    known: TrackedJob, job: Job, base: Base, now: float, events: list[Event]
) -> Progress:
    """Append the events of running records; return the progress after."""
    details = _count_details(known, job, base, now)
    if not job.runs:
        return Progress(
            known.restarts, known.records_checked, known.count_records_from, *details[1:]
        )
    count_from = ALWAYS if known.count_records_from is None else known.count_records_from
    restarts = list(known.restarts)
    for number, restart in _restarts(job.runs, len(restarts)):
        restarts.append(restart)
        if _may_be_since(count_from, job.runs[number].start):
            events.append(Event("restarted", job.id, base, restart))
            events += _recovery_events(job, job.runs[number - 1], job.runs[number], base)
    checked = max(known.records_checked, _count_until_last_recovery(job.runs))
    for run in job.runs[known.records_checked : checked]:
        if run.recovery and _may_be_since(count_from, run.end):
            events += _attempt_events(job, run, base)
    events += details[0]
    return Progress(
        tuple(restarts),
        checked,
        None if known.count_records_from is None else ALWAYS,
        *details[1:],
    )


def _restarts(runs: tuple[Run, ...], known: int) -> Iterator[tuple[int, Restart]]:
    """Yield the restarts after the first ``known`` ones, with the number of their record."""
    for number in range(known + 1, len(runs)):
        yield number, Restart(runs[number].start_type, runs[number - 1].recovery or _UNKNOWN)


def _count_until_last_recovery(runs: tuple[Run, ...]) -> int:
    """Count the records from the first to the last that names a recovery."""
    return max((number + 1 for number, run in enumerate(runs) if run.recovery), default=0)


def _may_be_since(count_from: float, moment: float | None) -> bool:
    """Whether it may be after the baseline; records have whole seconds, rounded down."""
    return count_from == ALWAYS or (moment is not None and moment + 1 > count_from)


def _recovery_events(job: Job, ended: Run, following: Run, base: Base) -> Iterator[Event]:
    if ended.end is None or following.start is None:
        return
    gap = max(0.0, following.start - ended.end)
    card_seconds = None if job.accelerators is None else gap * job.accelerators
    labels = (ended.recovery or _UNKNOWN,)
    yield Event("recovered", job.id, base, labels, seconds=gap, card_seconds=card_seconds)


def _attempt_events(job: Job, run: Run, base: Base) -> Iterator[Event]:
    if run.start is not None and run.end is not None:
        yield Event("attempted", job.id, base, (run.recovery,), seconds=run.end - run.start)
    # Two policies that are both shown as "other" differ: else the first would not be mentioned.
    differs = run.recovery_before != run.recovery or run.recovery == OTHER
    if run.recovery_before and differs:
        yield Event("downgraded", job.id, base, (run.recovery_before, run.recovery))


# --- Faults and start-ups: newer details of a record ----------------------------------------------


class _Details(NamedTuple):
    """The last three fields of `Progress`, after the events that led to them."""

    events: list[Event]
    startups: Checked
    faults: tuple[Checked, ...]
    count_from: float


def _details_baseline(
    job: Job, runs: Sequence[Run], now: float
) -> tuple[Checked, tuple[Checked, ...], float]:
    """Return `startups`, `faults` and `count_details_from` if these runs are the baseline."""
    _, startups = _check(Checked(), _started_computing(runs))
    faults = tuple(_check(Checked(), _final_faults(run))[1] for run in runs)
    return startups, faults, ALWAYS if not has_run(job) or _has_details(runs) else now


def _has_details(runs: Sequence[Run]) -> bool:
    """Whether the service lists them; where it does not, they may still exist."""
    return any(run.computing is not None or run.faults is not None for run in runs)


def _started_computing(runs: Sequence[Run]) -> list[bool]:
    return [run.computing is not None for run in runs]


def _final_faults(run: Run) -> list[bool]:
    return [fault.result not in _NOT_FINAL for fault in run.faults or ()]


def _check(checked: Checked, counts: Sequence[bool]) -> tuple[list[int], Checked]:
    """Return the positions that count now for the first time, and the progress after."""
    if checked.number >= len(counts) and not checked.pending:
        return [], checked
    number = max(checked.number, len(counts))
    positions = (*checked.pending, *range(checked.number, number))
    new = [position for position in positions if position < len(counts) and counts[position]]
    return new, Checked(number, tuple(sorted(set(positions) - set(new))))


def _count_details(known: TrackedJob, job: Job, base: Base, now: float) -> _Details:
    startups, faults, count_from = known.startups, known.faults, known.count_details_from
    if startups is None:
        startups, faults, count_from = _adopt(known, job, now)
    runs = job.runs or ()
    events: list[Event] = []
    after: list[Checked] = []
    for number, run in enumerate(runs):
        before = faults[number] if number < len(faults) else Checked()
        new, checked = _check(before, _final_faults(run))
        after.append(checked)
        events += _fault_events(job, run, new, base, count_from)
    new, startups = _check(startups, _started_computing(runs))
    for number in new:
        start, computing = runs[number].start, runs[number].computing
        if start is None or computing is None or not _may_be_since(count_from, computing):
            continue
        events.append(Event("initialized", job.id, base, seconds=computing - start))
    return _Details(
        events,
        startups,
        _trimmed((*after, *faults[len(after) :])),
        ALWAYS if _has_details(runs) else count_from,
    )


def _adopt(known: TrackedJob, job: Job, now: float) -> tuple[Checked, tuple[Checked, ...], float]:
    """Take what a job of an older version's state file has done so far as its baseline."""
    if not has_run(known.job):
        return Checked(), (), ALWAYS
    before = None if known.job.runs is None else len(known.job.runs)
    return _details_baseline(job, (job.runs or ())[:before], now)


def _fault_events(
    job: Job, run: Run, new: Sequence[int], base: Base, count_from: float
) -> Iterator[Event]:
    for position in new:
        fault = (run.faults or ())[position]
        times = (fault.end, fault.start, run.end, run.start)
        moment = next((time for time in times if time is not None), None)
        if _may_be_since(count_from, moment):
            labels = (fault.scenario or _UNKNOWN, fault.recovery or _UNKNOWN, fault.result)
            yield Event("faulted", job.id, base, labels)


def _trimmed(faults: tuple[Checked, ...]) -> tuple[Checked, ...]:
    """Leave out the last runs if they have no fault records: most runs have none."""
    number = len(faults)
    while number and faults[number - 1] == Checked():
        number -= 1
    return faults[:number]
