"""Odd jobs, each counted and logged once, however many polls see it."""

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from exporter.jobs.job import Problem, View

log = logging.getLogger(__name__)

_MOST_LINES = 20
"""A project whose every job is odd is said in so many lines a poll."""

_MOST_VALUES = 1000


class NoticeMeter(Protocol):
    """Is told how many jobs have something wrong that had not before."""

    def noticed(self, *, invalid_jobs: int, unknown_values: Mapping[str, int]) -> None:
        """Count them; ``unknown_values`` by field."""


class Anomalies:
    """Remembers the odd jobs of one target, until they are gone."""

    def __init__(self, target: str, meter: NoticeMeter) -> None:
        self._target = target
        self._meter = meter
        self._invalid: set[str] = set()
        self._unknown: set[tuple[str, str]] = set()
        self._values: set[tuple[str, str]] = set()

    def take(self, view: View) -> None:
        """Count and log what this view shows for the first time."""
        invalid = {p.job_id: p.field for p in view.problems if p.kind == "invalid"}
        invalid |= dict.fromkeys(view.without_phase, "status.phase")
        invalid |= dict.fromkeys(view.undecodable, "the whole item")
        unknown = {(p.job_id, p.field): p for p in view.problems if p.kind == "unknown"}
        new_jobs = invalid.keys() - self._invalid
        new_values = unknown.keys() - self._unknown
        self._meter.noticed(
            invalid_jobs=len(new_jobs),
            unknown_values=Counter(field for _, field in new_values),
        )
        self._log_invalid({job_id: invalid[job_id] for job_id in sorted(new_jobs)})
        self._log_unknown([unknown[key] for key in sorted(unknown)])
        deleted = view.deleted
        self._invalid = (self._invalid | invalid.keys()) - deleted
        self._unknown = {key for key in self._unknown if key[0] not in deleted} | unknown.keys()

    def go_on(self, target: str, meter: NoticeMeter) -> None:
        """For another poller of the target: what was told is not told again."""
        self._target, self._meter = target, meter

    def _log_invalid(self, fields: Mapping[str, str]) -> None:
        for number, (job_id, field) in enumerate(fields.items()):
            if number == _MOST_LINES:
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
            if value in self._values or len(self._values) >= _MOST_VALUES:
                continue
            self._values.add(value)
            log.warning(
                "a value is not documented; it is shown as unknown",
                extra={
                    "target": self._target,
                    "field": problem.field,
                    "value": problem.value,
                    "job_id": problem.job_id,
                },
            )
