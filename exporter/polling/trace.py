"""A DEBUG trace of what is counted and what is held at zero: why a counter moved, or did not.

Only IDs and values that are labels of metrics are logged, never names of jobs, users or messages:
those come from strangers.
"""

import logging
from collections.abc import Iterable

from exporter.jobs.fleet import Fleet
from exporter.jobs.tracked import base_of
from exporter.jobs.tracker import Observation
from exporter.metrics.counters import (
    EVENT_FAMILY_BY_NAME,
    FAMILIES_BY_KIND,
    Ledger,
    SeriesKey,
    increments,
)
from exporter.metrics.per_job import RESTART_LABELS

_HIDDEN = "job not counted as new: created over an hour before the newest job known"

log = logging.getLogger(__name__)


def is_enabled() -> bool:
    """Whether the trace is written; ask once a poll, so that it costs nothing if it is not."""
    return log.isEnabledFor(logging.DEBUG)


def log_events(target: str, before: Fleet, observed: Observation) -> None:
    """Log each event that was committed, with the metrics that count it.

    Args:
        target: its name.
        before: the jobs before.
        observed: the events, and the jobs that have changed.
    """
    for event in observed.events:
        names = FAMILIES_BY_KIND[event.kind][0].labels
        facts = {
            "target": target,
            "job_id": event.job_id,
            "kind": event.kind,
            **event.base._asdict(),
            **dict(zip(names, event.labels, strict=True)),
            "counters": ",".join(name for _, (name, _), _ in increments(event)),
        }
        log.debug("event counted", extra=facts)
    created = {event.job_id for event in observed.events if event.kind == "created"}
    for job_id, (known, after) in observed.changes.items():
        if known is not None or after is None or job_id in created:
            continue
        job = after.job
        if job.workspace in before.newest_created:  # else all its jobs are the baseline
            facts = {"target": target, "job_id": job_id, **base_of(job)._asdict()}
            log.debug(_HIDDEN, extra=facts)


def log_held(target: str, keys: Iterable[SeriesKey]) -> None:
    """Log each series that is held at zero from now on."""
    for key in keys:
        log.debug("series held at zero", extra={"target": target, **_labels(key)})


def log_released(target: str, keys: Iterable[SeriesKey], ledger: Ledger) -> None:
    """Log each series that shows its value from now on."""
    for key in keys:
        value = {"value": ledger[key].value} if key in ledger else {}
        log.debug("series released", extra={"target": target, **_labels(key), **value})


def _labels(key: SeriesKey) -> dict[str, str]:
    name, values = key
    family = EVENT_FAMILY_BY_NAME.get(name)
    names = RESTART_LABELS if family is None else family.key_labels
    labels = zip(names, values, strict=True)
    return {"series": name, **{label: value for label, value in labels if label != "user"}}
