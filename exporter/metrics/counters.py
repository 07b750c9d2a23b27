"""The counters and histograms of a target: events added up, by family and labels. Pure.

A `Ledger` maps each family and label set to a `Series`. `add` adds events; nothing is ever
subtracted, so no value ever falls.

What is counted by user is a part of another family: each event adds the same to both. Its series
are kept by base and user. They are shown by pool and user, see `exporter.metrics.visible`.

Card seconds are added up in whole milliseconds, as the service reports durations. So sums and
differences are exact, whatever their order.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from exporter.jobs.job import PHASES, TERMINAL
from exporter.jobs.tracked import (
    Base,
    Event,
    EventKind,
    NameUser,
    TrackedJob,
    counted_base,
    counted_user,
)
from exporter.metrics.exposition import Metric

BASE = ("workspace", "pool", "flavor_type")
TERMINAL_PHASES = tuple(phase for phase in PHASES if phase in TERMINAL)
_BAD_ENDS = ("Failed", "Abnormal")
_CLOCK_TOLERANCE = 60.0
"""Seconds by which the clock may be set back without a correction: the time has come soon."""
_MAX_JOB_ID_LENGTH = 128 - len("job_id")

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_LIFETIME_BUCKETS = (
    *(1, 10, 30, _MINUTE, 5 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 4 * _HOUR, 8 * _HOUR),
    *(_DAY, 2 * _DAY, 4 * _DAY, 7 * _DAY, 14 * _DAY, 30 * _DAY),
)
_GAP_BUCKETS = (
    *(1, 5, 15, 30, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 15 * _MINUTE),
    *(_HOUR, 6 * _HOUR, _DAY),
)


class EventFamily(NamedTuple):
    """A counter or histogram of one kind of event.

    Attributes:
        metric: name, type, help.
        labels: those of the event, in addition to `BASE`.
        kind: of the events.
        amount: what an event adds (or observes); events without it are skipped.
        buckets: upper bounds of a histogram in seconds, without +Inf.
        total: of a family by user: the family that counts the same for all users together.
    """

    metric: Metric
    labels: tuple[str, ...]
    kind: EventKind
    amount: Literal["one", "seconds", "card_seconds"] = "one"
    buckets: tuple[float, ...] = ()
    total: "EventFamily | None" = None

    @property
    def key_labels(self) -> tuple[str, ...]:
        """Names of the label values in a `SeriesKey`."""
        return (*BASE, *self.labels) if self.total is None else (*BASE, "user", *self.labels)

    @property
    def shown_labels(self) -> tuple[str, ...]:
        """Names of the labels of a series that is shown."""
        return (*BASE, *self.labels) if self.total is None else ("user", "pool", *self.labels)


def _counter(name: str, text: str) -> Metric:
    return Metric(f"modelarts_training_{name}_total", "counter", text)


def _histogram(name: str, text: str) -> Metric:
    return Metric(f"modelarts_training_{name}_duration_seconds", "histogram", text)


CREATED = EventFamily(
    _counter("jobs_created", "Training jobs seen for the first time."), (), "created"
)
FINISHED = EventFamily(
    _counter(
        "jobs_finished",
        "Transitions of training jobs into a terminal phase (status.phase).",
    ),
    ("phase",),
    "finished",
)
CARD_SECONDS = EventFamily(
    _counter(
        "accelerator_seconds",
        "Run time of training jobs times their cards, in seconds (status.duration); grows while "
        "they run; jobs with an unknown number of cards are omitted.",
    ),
    ("accelerator",),
    "ran",
    "card_seconds",
)
QUEUE = EventFamily(
    _histogram(
        "queue",
        "Time that training jobs waited for their first start, in seconds: status.start_time minus "
        "metadata.create_time; once per job.",
    ),
    (),
    "started",
    "seconds",
    _LIFETIME_BUCKETS,
)


def _by_user(total: EventFamily, name: str, text: str) -> EventFamily:
    return total._replace(metric=_counter(name, text), total=total)


USER_FINISHED = _by_user(
    FINISHED,
    "user_jobs_finished",
    "Transitions of training jobs into a terminal phase (status.phase), by user "
    "(metadata.user_name).",
)
USER_CARD_SECONDS = _by_user(
    CARD_SECONDS,
    "user_accelerator_seconds",
    "Run time of training jobs times their cards, in seconds (status.duration), by user "
    "(metadata.user_name); jobs with an unknown number of cards are omitted.",
)

EVENT_FAMILIES = (
    CREATED,
    FINISHED,
    EventFamily(
        _counter(
            "jobs_deleted",
            "Training jobs that no longer exist in the service, by the phase last seen.",
        ),
        ("phase",),
        "deleted",
    ),
    EventFamily(
        _counter(
            "restarts",
            "Runs of training jobs after the first (status.running_records), by start_type and by "
            "end_recover of the previous run.",
        ),
        ("start_type", "recovery"),
        "restarted",
    ),
    EventFamily(
        _counter(
            "faults",
            "Faults of training jobs whose recovery has ended, by what failed (fault_scenario), "
            "policy (recover) and result (recover_result), from recover_records.",
        ),
        ("fault_scenario", "recovery", "result"),
        "faulted",
    ),
    EventFamily(
        _counter(
            "recovery_downgrades",
            "Recoveries for which another policy was tried first: end_recover differs from "
            "end_recover_before_downgrade.",
        ),
        ("from_recovery", "to_recovery"),
        "downgraded",
    ),
    CARD_SECONDS,
    EventFamily(
        _counter(
            "finished_accelerator_seconds",
            "Run time of finished training jobs times their cards, in seconds (status.duration), "
            "by how they ended; counted once, at the end.",
        ),
        ("phase",),
        "finished",
        "card_seconds",
    ),
    EventFamily(
        _counter(
            "recovery_accelerator_seconds",
            "Time between two runs of a training job (start_at minus end_at of the previous run) "
            "times its cards, in seconds, by recovery policy.",
        ),
        ("recovery",),
        "recovered",
        "card_seconds",
    ),
    QUEUE,
    EventFamily(
        _histogram(
            "run",
            "Run time of finished training jobs, in seconds (status.duration), by how they ended; "
            "once per job, only for jobs that ran.",
        ),
        ("phase",),
        "finished",
        "seconds",
        _LIFETIME_BUCKETS,
    ),
    EventFamily(
        _histogram(
            "startup",
            "Start-up time of runs of training jobs, in seconds: xpu_start_at, when the cards "
            "began to compute, minus start_at of the run.",
        ),
        (),
        "initialized",
        "seconds",
        _GAP_BUCKETS,
    ),
    EventFamily(
        _histogram(
            "recovery",
            "Time between two runs of a training job, in seconds: start_at minus end_at of the "
            "previous run, by recovery policy.",
        ),
        ("recovery",),
        "recovered",
        "seconds",
        _GAP_BUCKETS,
    ),
    EventFamily(
        _histogram(
            "attempt",
            "Duration of runs that ended in a recovery, in seconds (end_at minus start_at): time "
            "between failures.",
        ),
        ("recovery",),
        "attempted",
        "seconds",
        _LIFETIME_BUCKETS,
    ),
    USER_FINISHED,
    USER_CARD_SECONDS,
)
EVENT_FAMILY_BY_NAME = {family.metric.name: family for family in EVENT_FAMILIES}
USER_FAMILIES = {family.metric.name: family.total for family in EVENT_FAMILIES if family.total}
"""By name of a family by user, the family that is its total."""


class Exemplar(NamedTuple):
    """The job behind an increment, when it was added (unix seconds), and how much."""

    job_id: str
    at: float
    value: float


class Series(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One counter or histogram.

    Attributes:
        created: unix seconds.
        value: of a counter; the sum of a histogram.
        counts: observations by bucket, not cumulative, the last for +Inf; of a counter empty.
        exemplars: the latest job by bucket, of a counter one; () = none yet.
    """

    created: float
    value: float = 0.0
    counts: tuple[int, ...] = ()
    exemplars: tuple[Exemplar | None, ...] = ()


SeriesKey: TypeAlias = tuple[str, tuple[str, ...]]
"""Name of the family, and label values: those of `EventFamily.key_labels`."""

Ledger: TypeAlias = Mapping[SeriesKey, Series]


def add(
    ledger: Ledger,
    events: Iterable[Event],
    bases: Mapping[Base, Iterable[str]],
    now: float,
    zeros: Iterable[SeriesKey] = (),
) -> tuple[Ledger, dict[SeriesKey, Series]]:
    """Add events, and zeros for series that are known before their first event.

    Times of series that are far in the future, because the clock was ahead, become the current
    time.

    Args:
        ledger: before.
        events: each is passed once.
        bases: all that were ever seen, with their accelerators.
        now: unix seconds.
        zeros: further series that exist before their first event, see `user_zero_series`.

    Returns:
        The ledger after, and its series that are new or have changed.
    """
    changed: dict[SeriesKey, Series] = {
        key: _new(EVENT_FAMILY_BY_NAME[key[0]], now)
        for key in chain(zero_series(bases), zeros)
        if key not in ledger
    }
    latest = now + _CLOCK_TOLERANCE
    for key, series in ledger.items():
        if series.created > latest or (
            series.exemplars and any(each and each.at > latest for each in series.exemplars)
        ):
            changed[key] = _not_after(now, series)
    for event in events:
        for family, key, amount in increments(event):
            series = changed.get(key) or ledger.get(key) or _new(family, now)
            exemplar = _exemplar(family, event, amount, now)
            changed[key] = _incremented(series, family, amount, exemplar)
    return {**ledger, **changed} if changed else ledger, changed


FAMILIES_BY_KIND: Mapping[str, tuple[EventFamily, ...]] = {
    kind: tuple(family for family in EVENT_FAMILIES if family.kind == kind)
    for kind in {family.kind for family in EVENT_FAMILIES}
}


def increments(event: Event) -> Iterator[tuple[EventFamily, SeriesKey, float]]:
    """The series that an event increments (or is observed in), and by how much."""
    for family in FAMILIES_BY_KIND[event.kind]:
        amount = 1.0 if family.amount == "one" else getattr(event, family.amount)
        if amount is None:
            continue
        if family.total is None:
            yield family, (family.metric.name, (*event.base, *event.labels)), amount
        elif event.user is not None:
            yield family, (family.metric.name, (*event.base, event.user, *event.labels)), amount


def total_of(key: SeriesKey) -> SeriesKey:
    """The series of which a series by user is a part."""
    name, (workspace, pool, flavor_type, _, *rest) = key
    return USER_FAMILIES[name].metric.name, (workspace, pool, flavor_type, *rest)


def shown_key(key: SeriesKey) -> SeriesKey:
    """The family and `EventFamily.shown_labels` of the series that shows a series."""
    name, values = key
    if name not in USER_FAMILIES:
        return key
    _, pool, _, user, *rest = values
    return name, (user, pool, *rest)


def zero_series(bases: Mapping[Base, Iterable[str]]) -> Iterator[SeriesKey]:
    """The series that exist, at zero, before their first event."""
    for base, accelerators in bases.items():
        yield CREATED.metric.name, base
        yield QUEUE.metric.name, base
        for phase in TERMINAL_PHASES:
            yield FINISHED.metric.name, (*base, phase)
        for accelerator in accelerators:
            yield CARD_SECONDS.metric.name, (*base, accelerator)


def user_zero_series(
    jobs: Iterable[TrackedJob],
    events: Iterable[Event],
    name_user: NameUser,
    ledger: Ledger,
) -> Iterator[SeriesKey]:
    """The series by user that exist, at zero, before their first event or with it.

    Args:
        jobs: unfinished ones.
        events: that are counted now.
        name_user: under which name a user counts.
        ledger: what exists already; most users have their series.
    """
    users: dict[tuple[Base, str], set[str]] = {
        (event.base, event.user): set() for event in events if event.user is not None
    }
    for known in jobs:
        key = counted_base(known, known.job), counted_user(known, name_user)
        accelerators = users.setdefault(key, set())
        if known.job.accelerators is not None:
            accelerators.add(known.job.accelerator)
    return user_zero_keys(users, ledger)


def user_zero_keys(
    users: Mapping[tuple[Base, str], Iterable[str]], ledger: Ledger
) -> Iterator[SeriesKey]:
    """As `zero_series`, for users and the accelerators of their unfinished jobs."""
    name = USER_FINISHED.metric.name
    for (base, user), accelerators in users.items():
        if (name, (*base, user, TERMINAL_PHASES[-1])) not in ledger:
            for phase in TERMINAL_PHASES:
                yield name, (*base, user, phase)
        for accelerator in accelerators:
            yield USER_CARD_SECONDS.metric.name, (*base, user, accelerator)


def milliseconds(value: float) -> int:
    """A counter in whole milliseconds; no less than it was, should it have a smaller fraction."""
    whole = round(value * 1000)
    return whole if whole / 1000 >= value else whole + 1


def _add_exactly(value: float, amount: float) -> float:
    return (milliseconds(value) + round(amount * 1000)) / 1000


def _new(family: EventFamily, now: float) -> Series:
    return Series(now, counts=(0,) * (len(family.buckets) + 1) if family.buckets else ())


def _not_after(now: float, series: Series) -> Series:
    exemplars = [each and each._replace(at=min(each.at, now)) for each in series.exemplars]
    created = min(series.created, now)
    return msgspec.structs.replace(series, created=created, exemplars=tuple(exemplars))


def _exemplar(family: EventFamily, event: Event, amount: float, now: float) -> Exemplar | None:
    """Only for histograms and jobs that ended badly. OpenMetrics limits the length."""
    useful = family.buckets or (family is FINISHED and event.labels[0] in _BAD_ENDS)
    if not useful or len(event.job_id) > _MAX_JOB_ID_LENGTH:
        return None
    return Exemplar(event.job_id, now, amount)


def _incremented(
    series: Series, family: EventFamily, amount: float, exemplar: Exemplar | None
) -> Series:
    exact = family.amount == "card_seconds"
    value = _add_exactly(series.value, amount) if exact else series.value + amount
    if not family.buckets:
        exemplars = series.exemplars if exemplar is None else (exemplar,)
        return Series(series.created, value, (), exemplars)
    bucket = bisect_left(family.buckets, amount)
    counts = list(series.counts)
    counts[bucket] += 1
    exemplars_of = list(series.exemplars) or [None] * len(counts)
    exemplars_of[bucket] = exemplar or exemplars_of[bucket]
    return Series(series.created, value, tuple(counts), tuple(exemplars_of))
