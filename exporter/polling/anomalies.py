"""Jobs with unusable or undocumented values: each counted and logged once, not at every poll."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping

from exporter.jobs.job import Problem, View
from exporter.metrics.self_metrics import TargetInstruments

log = logging.getLogger(__name__)

_MAX_LINES = 20
"""Lines a poll, even if every job of a project has an unusable field."""

_MAX_VALUES = 1000
_MAX_UNDECODABLE = 10_000
"""Undecodable items to remember. Nothing ever says that such an item is gone."""


class Anomalies:
    """Remembers the anomalies of one target until the jobs are gone.

    Args:
        target: its name, for log lines.
        instruments: count the anomalies.
    """

    def __init__(self, target: str, instruments: TargetInstruments) -> None:
        self._target = target
        self._instruments = instruments
        self._invalid_jobs: set[str] = set()
        self._undecodable: dict[str, None] = {}
        self._unknown_fields: set[tuple[str, str]] = set()
        self._logged_values: set[tuple[str, str]] = set()

    def report(self, view: View) -> None:
        """Count and log the anomalies that this view is the first to show."""
        invalid = {p.job_id: p.field for p in view.problems if p.kind == "invalid"}
        invalid |= dict.fromkeys(view.without_phase, "status.phase")
        unknown = {(p.job_id, p.field): p for p in view.problems if p.kind == "unknown"}
        new_jobs = invalid.keys() - self._invalid_jobs
        invalid |= dict.fromkeys(view.undecodable, "the whole item")
        new_jobs |= view.undecodable - self._undecodable.keys()
        new_fields = unknown.keys() - self._unknown_fields
        self._instruments.anomalies(
            invalid_jobs=len(new_jobs),
            unknown_values=Counter(field for _, field in new_fields),
        )
        self._log_invalid({job_id: invalid[job_id] for job_id in sorted(new_jobs)})
        self._log_unknown([unknown[key] for key in sorted(unknown)])
        self._remember_undecodable(view.undecodable)
        invalid_jobs = invalid.keys() - view.undecodable
        self._invalid_jobs = (self._invalid_jobs | invalid_jobs) - view.deleted
        remaining = {key for key in self._unknown_fields if key[0] not in view.deleted}
        self._unknown_fields = remaining | unknown.keys()

    def resume(self, target: str, instruments: TargetInstruments) -> None:
        """Continue under a new poller of the same target: nothing is reported again."""
        self._target, self._instruments = target, instruments

    def _remember_undecodable(self, items: Iterable[str]) -> None:
        """Remember the items seen last; forget those seen longest ago."""
        for item in items:
            self._undecodable.pop(item, None)
            self._undecodable[item] = None
        for item in list(self._undecodable)[:-_MAX_UNDECODABLE]:
            del self._undecodable[item]

    def _log_invalid(self, fields: Mapping[str, str]) -> None:
        for number, (job_id, field) in enumerate(fields.items()):
            if number == _MAX_LINES:
                log.warning(
                    "more jobs with unusable fields",
                    extra={"target": self._target, "jobs": len(fields) - number},
                )
                return
            log.warning(
                "a job has a field that cannot be used; the job counts without it",
                extra={"target": self._target, "job_id": job_id, "field": field},
            )

    def _log_unknown(self, problems: list[Problem]) -> None:
        for problem in problems:
            value = (problem.field, problem.value)
            if value in self._logged_values or len(self._logged_values) >= _MAX_VALUES:
                continue
            self._logged_values.add(value)
            log.warning(
                "a value is not documented; it is shown as unknown",
                extra={
                    "target": self._target,
                    "field": problem.field,
                    "value": problem.value,
                    "job_id": problem.job_id,
                },
            )
