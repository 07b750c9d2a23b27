"""Limits the number of values of each label that the service chooses; the rest are ``other``.

A project, or anybody who may create jobs in it, can bring any number of pools, flavors or recovery
policies. Each is a series, or several, and counters never disappear. So the values are limited
where jobs come in, before anything is counted or saved: sums over a label stay exact.

Values that are seen first keep their names. Those of counters are known from the counters, which
are saved, and the others from the jobs: so a restart changes no name. A value of a job that has
become ``other`` stays ``other``, even if the limit is raised: a job counts under the same labels
for its life.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter, contains

import msgspec

from exporter.jobs.job import OTHER, Fault, Job, Run, View
from exporter.jobs.tracked import Group, TrackedJob
from exporter.metrics.counters import EVENT_FAMILY_BY_NAME, USER_FAMILIES, SeriesKey

log = logging.getLogger(__name__)

_LABEL_BY_FIELD = {
    "user": "user",
    "kind": "kind",
    "pool": "pool",
    "pool_name": "pool_name",
    "flavor": "flavor",
    "accelerator": "accelerator",
    "engine": "engine",
    "failed_task": "task",
    "policy": "policy",
    "algorithm": "algorithm",
    "runtime_type": "runtime_type",
}
"""Labels that show a field of a job."""

_LABEL_BY_FIELD_OF_RUN = {"recovery": "recovery", "recovery_before": "recovery"}
_LABEL_BY_FIELD_OF_FAULT = {
    "scenario": "fault_scenario",
    "recovery": "recovery",
    "result": "result",
}
_SAME_VALUES = {"from_recovery": "recovery", "to_recovery": "recovery"}

LIMITED_LABELS = (*_LABEL_BY_FIELD.values(), *_LABEL_BY_FIELD_OF_FAULT.values())

_ALWAYS_ALLOWED = ("", "unknown", "public", "job", "recovering", OTHER)
_values_of_job: Callable[[Job], tuple[str, ...]] = attrgetter(*_LABEL_BY_FIELD)
_MAX_COUNTED = 10_000
"""Values of a label that are counted as part of ``other``."""


class LabelLimiter:
    """Limits the label values of one target.

    Args:
        limit: values of each label; as many of the first ones as there were keep their names.
        target: its name, for log lines.
    """

    def __init__(self, limit: int, target: str) -> None:
        self._limit = limit
        self._target = target
        self._named = {label: set(_ALWAYS_ALLOWED) for label in LIMITED_LABELS}
        self._named_of_job = [self._named[label] for label in _LABEL_BY_FIELD.values()]
        self._over: dict[str, set[int]] = {label: set() for label in LIMITED_LABELS}
        self._logged: set[str] = set()

    def resume(self, limit: int, target: str) -> None:
        """Continue under a new poller of the same target."""
        self._limit, self._target = limit, target

    def over_limit(self) -> dict[str, int]:
        """Number of values that are part of ``other``, as far as they are counted, by label."""
        return {label: len(values) for label, values in self._over.items()}

    def learn(
        self, jobs: Iterable[TrackedJob], ledger: Iterable[SeriesKey], groups: Iterable[Group]
    ) -> None:
        """Keep the names of values that saved counters, jobs or groups of jobs have."""
        for name, values in ledger:
            if name in USER_FAMILIES:  # their names are those of `exporter.polling.user_limit`
                continue
            labels = EVENT_FAMILY_BY_NAME[name].key_labels
            for label, value in zip(labels, values, strict=True):
                self._keep(_SAME_VALUES.get(label, label), value)
        for group in groups:
            self._keep("pool", group.pool)
            self._keep("user", group.user)
        for known in jobs:
            self._keep_fields(known.job, _LABEL_BY_FIELD)
            for run in known.job.runs or ():
                self._keep_fields(run, _LABEL_BY_FIELD_OF_RUN)
                for fault in run.faults or ():
                    self._keep_fields(fault, _LABEL_BY_FIELD_OF_FAULT)

    def apply(self, view: View, find: Callable[[str], TrackedJob | None]) -> View:
        """Return the view with the values beyond the limits replaced.

        Args:
            view: as read.
            find: returns a job as it was known before, by its id.
        """
        jobs = {job_id: self._limited(job, find(job_id)) for job_id, job in view.jobs.items()}
        names = view.pool_names
        return view._replace(jobs=jobs, pool_names=names and self._limited_names(names))

    def _limited(self, job: Job, known: TrackedJob | None) -> Job:
        before = None if known is None else known.job
        if before == job:
            return job
        if self._are_named(job) and (before is None or OTHER not in _values_of_job(before)):
            return job
        changes: dict[str, object] = {}
        for field, label in _LABEL_BY_FIELD.items():
            value = getattr(job, field)
            is_other = before is not None and getattr(before, field) == OTHER
            if (shown := self._shown(label, value, is_other=is_other)) != value:
                changes[field] = shown
        if OTHER in (changes.get("pool"), job.pool) and job.pool_name:
            changes["pool_name"] = ""  # these are several pools
        if job.runs and (runs := tuple(map(self._limited_run, job.runs))) != job.runs:
            changes["runs"] = runs
        return msgspec.structs.replace(job, **changes) if changes else job

    def _are_named(self, job: Job) -> bool:
        """Whether all values have names already, which most have: must be fast."""
        named = self._named
        if not all(map(contains, self._named_of_job, _values_of_job(job))):
            return False
        recoveries = named["recovery"]
        for run in job.runs or ():
            if run.recovery not in recoveries or run.recovery_before not in recoveries:
                return False
            if run.faults or run.recovery == OTHER:
                return False
        return True

    def _limited_run(self, run: Run) -> Run:
        changes = self._changes(run, _LABEL_BY_FIELD_OF_RUN)
        if run.faults and (faults := tuple(map(self._limited_fault, run.faults))) != run.faults:
            changes["faults"] = faults
        is_other = OTHER in (run.recovery_before, changes.get("recovery_before"))
        if is_other and run.recovery == run.recovery_before:
            changes["recovery_before"] = ""  # no other policy was tried first
        return msgspec.structs.replace(run, **changes) if changes else run

    def _limited_fault(self, fault: Fault) -> Fault:
        changes = self._changes(fault, _LABEL_BY_FIELD_OF_FAULT)
        return msgspec.structs.replace(fault, **changes) if changes else fault

    def _changes(self, struct: Run | Fault, labels: Mapping[str, str]) -> dict[str, object]:
        """Fields of a struct whose values are beyond the limits."""
        values = {field: getattr(struct, field) for field in labels}
        shown = {field: self._shown(labels[field], value) for field, value in values.items()}
        return {field: value for field, value in shown.items() if value != values[field]}

    def _limited_names(self, names: Mapping[str, str]) -> Mapping[str, str]:
        """The names of no more pools than there may be values: first of those that have jobs."""
        with_jobs = self._named["pool"].difference(_ALWAYS_ALLOWED)
        others = [pool for pool in names if pool not in with_jobs]
        kept = {*others[: max(0, self._limit - len(with_jobs))], *with_jobs}
        return {
            pool: self._shown("pool_name", name) for pool, name in names.items() if pool in kept
        }

    def _shown(self, label: str, value: str, *, is_other: bool = False) -> str:
        """The value to show; ``is_other``: the job has shown `OTHER` before."""
        if value in _ALWAYS_ALLOWED:
            return value
        named = self._named[label]
        if not is_other and len(named) < self._limit + len(_ALWAYS_ALLOWED):
            named.add(value)
        if not is_other and value in named:
            return value
        self._count(label, value, is_new=not is_other)
        return OTHER

    def _count(self, label: str, value: str, *, is_new: bool) -> None:
        over = self._over[label]
        if is_new and label not in self._logged:
            self._logged.add(label)
            log.warning(
                "a label has too many values; further ones are shown as %s",
                OTHER,
                extra={"target": self._target, "label": label, "limit": self._limit},
            )
        if len(over) < _MAX_COUNTED:
            over.add(hash(value))

    def _keep(self, label: str, value: str) -> None:
        if label in self._named:
            self._named[label].add(value)

    def _keep_fields(self, struct: Job | Run | Fault, labels: Mapping[str, str]) -> None:
        for field, label in labels.items():
            self._keep(label, getattr(struct, field))
