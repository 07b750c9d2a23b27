"""Series of the jobs' past over a grid: fleet gauges and event counters, as curves.

Gauges show the state at each time. Counters start at zero at the start of the grid, like those of
an exporter started then. `exporter.jobs.tracker` finds the events in the jobs' past states, so that
the rules of counting are not repeated here.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from exporter.commands.backfill.curve import Curve
from exporter.commands.backfill.grid import Grid
from exporter.commands.backfill.histogram import HistogramCurve
from exporter.commands.backfill.idle import PresentCurve, ShownCurve, ShownSpans
from exporter.commands.backfill.oldest import OldestWaiting
from exporter.commands.backfill.reconstruct import JobState, reconstruct
from exporter.jobs.fleet import Fleet, NewestName, note_pool_name
from exporter.jobs.job import ACTIVE, TERMINAL, Job, View
from exporter.jobs.pool import PoolInfo
from exporter.jobs.tracked import Base, Event, base_of
from exporter.jobs.tracker import observe
from exporter.metrics.counters import (
    BASE,
    EVENT_FAMILIES,
    EVENT_FAMILY_BY_NAME,
    EventFamily,
    increments,
    shown_key,
    user_zero_keys,
    zero_series,
)
from exporter.metrics.exposition import Metric
from exporter.metrics.fleet import (
    FAMILIES_BY_PHASE,
    FLEET_FAMILIES,
    zero_samples,
)
from exporter.metrics.pools import POOL_INFO, pool_info_samples
from exporter.polling.user_limit import UserLimiter

LabelValues: TypeAlias = tuple[str, ...]

_NO_HORIZON = float("-inf")
_GAUGES = frozenset(family.metric.name for family in FLEET_FAMILIES)
_DIGITS = 6  # so that CPU cores that are added and subtracted again leave nothing

EVENTS = tuple(row for row in EVENT_FAMILIES if row.kind != "deleted")
"""Without deleted jobs: the service no longer lists them."""


class Family(NamedTuple):
    """A family of one target.

    Attributes:
        metric: name, type, help.
        labels: names of its own labels.
        series: curves by label values; an `OldestWaiting` has no value while no job waits, a
            `ShownCurve` none while its base is idle, a `PresentCurve` none while it is zero.
        buckets: upper bounds of a `HistogramCurve`; () = no histogram.
    """

    metric: Metric
    labels: tuple[str, ...]
    series: Mapping[LabelValues, Curve | ShownCurve | PresentCurve | OldestWaiting | HistogramCurve]
    buckets: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """The number of series that Prometheus will store."""
        return len(self.series) * (len(self.buckets) + 3 if self.buckets else 1)


class SeriesBuilder:
    """Builds the series of one target from its jobs.

    Args:
        grid: the times of the samples.
        pools: labels by pool id, as the service lists them; other names come from jobs.
        kept: seconds for which finished jobs count in the gauges; 0 = all (``jobs.history``).
        idle: seconds for which bases without jobs keep their gauges; 0 = forever.
        histograms: whether to include them; they are most of the series.
        users: names users; None = there are no series by user.

    Attributes:
        jobs: number of jobs added.
        undated: how many of them have no time at all and are left out.
    """

    def __init__(
        self,
        grid: Grid,
        pools: Mapping[str, PoolInfo] | None = None,
        *,
        kept: float = 0.0,
        idle: float = 0.0,
        histograms: bool = False,
        users: UserLimiter | None = None,
    ) -> None:
        self.jobs = self.undated = 0
        self._grid = grid
        self._kept = kept
        self._shown = ShownSpans(grid, idle)
        self._bases: dict[Base, set[str]] = {}
        self._name_user = None if users is None else users.name
        self._users: dict[tuple[Base, str], set[str]] = {}
        self._listed_pools = pools or {}
        self._names_in_jobs: dict[str, NewestName] = {}
        self._curves: dict[str, dict[LabelValues, Curve]] = {}
        self._histograms: dict[str, dict[LabelValues, HistogramCurve]] = {}
        self._events = tuple(row for row in EVENTS if histograms or not row.buckets)
        self._oldest: dict[str, dict[LabelValues, OldestWaiting]] = {}

    def add(self, job: Job, read_at: float) -> None:
        """Add a job with its past.

        Args:
            job: as read.
            read_at: unix seconds.
        """
        self.jobs += 1
        accelerators = self._bases.setdefault(base_of(job), set())
        if job.accelerators is not None:
            accelerators.add(job.accelerator)
        note_pool_name(self._names_in_jobs, job)
        states = reconstruct(job, read_at)
        if not states:
            self.undated += 1
            return
        for state, following in pairwise((*states, None)):
            if state is not None:
                self._show(state, following)
        self._count_events(states)

    def families(self) -> Iterator[Family]:
        """Yield all families, those of `exporter.metrics.fleet` first."""
        self._foresee()
        for row in FLEET_FAMILIES:
            if row.aggregate is min:
                yield Family(row.metric, row.labels, self._oldest.get(row.metric.name, {}))
            elif row.by_user:
                curves = sorted(self._curves.get(row.metric.name, {}).items())
                present = {values: PresentCurve(curve) for values, curve in curves}
                yield Family(row.metric, row.labels, present)
            else:
                yield self._gauges(row.metric, row.labels)
        yield Family(POOL_INFO.metric, POOL_INFO.labels, self._pools())
        for each in self._events:
            yield self._family(each.metric, each.shown_labels, each.buckets)

    def _gauges(self, metric: Metric, labels: tuple[str, ...]) -> Family:
        curves = sorted(self._curves.get(metric.name, {}).items())
        spans = {base: self._shown.of(base) for base in self._bases}
        series = {
            values: ShownCurve(curve, spans[Base(*values[: len(BASE)])]) for values, curve in curves
        }
        return Family(metric, labels, series)

    def _family(
        self, metric: Metric, labels: tuple[str, ...], buckets: tuple[float, ...] = ()
    ) -> Family:
        found = (self._histograms if buckets else self._curves).get(metric.name, {})
        return Family(metric, labels, dict(sorted(found.items())), buckets)

    def _curve(self, name: str, labels: LabelValues) -> Curve:
        curves = self._curves.setdefault(name, {})
        curve = curves.get(labels)
        if curve is None:
            curve = curves[labels] = Curve(_DIGITS if name in _GAUGES else None)
        return curve

    def _histogram(self, row: EventFamily, labels: LabelValues) -> HistogramCurve:
        curves = self._histograms.setdefault(row.metric.name, {})
        if labels not in curves:
            curves[labels] = HistogramCurve(row.buckets)
        return curves[labels]

    def _foresee(self) -> None:
        """Create every phase of every combination, as a live exporter does."""
        for family, labels in zero_samples(self._bases):
            self._curve(family.metric.name, labels)
        for key in (*zero_series(self._bases), *user_zero_keys(self._users, {})):
            name, labels = shown_key(key)
            row = EVENT_FAMILY_BY_NAME[name]
            if row in self._events:
                self._histogram(row, labels) if row.buckets else self._curve(name, labels)

    def _pools(self) -> Mapping[LabelValues, Curve]:
        one = Curve()
        one.add(0, 1)
        return dict.fromkeys(pool_info_samples(self._names_in_jobs, self._listed_pools), one)

    # --- What was ---------------------------------------------------------------------------------

    def _show(self, moment: JobState, following: JobState | None) -> None:
        """Count a state of a job in the gauges, until the next state begins."""
        job = moment.job
        lo = self._grid.at(moment.at)
        hi = len(self._grid) if following is None else self._grid.at(following.at)
        stop = None if following is None else following.at
        if following is None and self._kept and job.phase in TERMINAL:
            stop = moment.at + self._kept
            hi = min(hi, self._grid.after(stop))
        self._shown.add(base_of(job), lo, stop)
        if lo >= hi:
            return
        user = None if self._name_user is None else self._name_user(job.user)
        if user is not None and job.phase in ACTIVE:
            accelerators = self._users.setdefault((base_of(job), user), set())
            if job.accelerators is not None:
                accelerators.add(job.accelerator)
        for family in FAMILIES_BY_PHASE[job.phase]:
            value = family.value(job)
            labels = family.series_of(job, value, user)
            if value is None or labels is None:
                continue
            name = family.metric.name
            if family.aggregate is min:
                oldest = self._oldest.setdefault(name, {})
                oldest.setdefault(labels, OldestWaiting()).add(lo, hi, value)
            else:
                self._raise(name, labels, lo, hi, value)

    def _raise(self, name: str, labels: LabelValues, lo: int, hi: int, amount: float) -> None:
        curve = self._curve(name, labels)
        curve.add(lo, amount)
        curve.add(hi, -amount)

    # --- Events -----------------------------------------------------------------------------------

    def _count_events(self, states: list[JobState]) -> None:
        """Count the events that the tracker finds in a job's states, one after the other."""
        job_id, workspace = states[-1].job.id, states[-1].job.workspace
        fleet = Fleet(newest_created={workspace: _NO_HORIZON})  # so that nothing is a baseline
        before = states[0].at
        for at, job in states:
            fleet, events, _ = observe(fleet, View({job_id: job}), at, name_user=self._name_user)
            if at > self._grid.times[0]:
                self._add_events(events, before, at)
            before = at

    def _add_events(self, events: list[Event], before: float, at: float) -> None:
        for event in events:
            for row, key, amount in increments(event):
                if row not in self._events:
                    continue
                name, labels = shown_key(key)
                if row.buckets:
                    self._histogram(row, labels).observe(self._grid.at(at), amount)
                elif row.kind == "ran":  # run time grew while the job ran
                    self._curve(name, labels).spread(self._grid, before, at, amount)
                else:
                    self._curve(name, labels).add(self._grid.at(at), amount)
