"""The exporter's own metrics, in a registry of their own.

Every counter of a target exists at 0 before it counts, so that ``increase()`` sees its first step.
"""

import platform
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from exporter import __revision__, __version__

TARGET = ("region", "project")

RESULTS = (
    "success",
    "auth",
    "throttled",
    "timeout",
    "upstream",
    "invalid",
    "internal",
)
KINDS = ("sweep", "incremental")
RETRY_REASONS = ("auth", "throttled", "timeout", "upstream", "invalid")
SEARCH_CODES = ("200", "401", "403", "429", "500", "502", "503", "timeout", "connection")
"""Common codes of searches; other series start when their code first occurs."""

UNKNOWN_FIELDS = ("phase", "flavor_type", "start_type", "recovery")

_REQUEST_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_POLL_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


class TargetInfo(Collector):
    """The family `modelarts_target_info`, whose labels differ between targets.

    Attributes:
        labels: those that are configured, by ``region`` and ``project``.
    """

    name = "modelarts_target_info"
    help = "A target, with its labels (target.labels), for joins; always 1."

    def __init__(self) -> None:
        self.labels: dict[tuple[str, str], Mapping[str, str]] = {}

    def collect(self) -> Iterator[Metric]:
        """The family as it is now."""
        family = Metric(self.name, self.help, "gauge")
        for target, labels in self.labels.items():
            constant = dict(zip(TARGET, target, strict=True))
            family.add_sample(self.name, {**labels, **constant}, 1)
        yield family


class Instruments:
    """All instruments of one process.

    Attributes:
        registry: collects them and the process metrics.
        target_info: the targets that are shown.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        self.target_info = TargetInfo()
        registry.register(self.target_info)

        def gauge(name: str, text: str, labels: Sequence[str] = TARGET) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        def counter(name: str, text: str, labels: Sequence[str] = TARGET) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self.up = gauge(
            "modelarts_up",
            "1 if the last poll of the target succeeded, otherwise 0, also before the first poll "
            "has ended.",
        )
        self.last_success = gauge(
            "modelarts_exporter_last_success_timestamp_seconds",
            "End of the last successful poll of the target, in unix seconds.",
        )
        self.polls = counter(
            "modelarts_exporter_polls_total",
            "Polls of the target, by kind and result.",
            (*TARGET, "kind", "result"),
        )
        self.poll_duration = Histogram(
            "modelarts_exporter_poll_duration_seconds",
            "Duration of polls, in seconds, including failed ones.",
            (*TARGET, "kind"),
            buckets=_POLL_BUCKETS,
            registry=registry,
        )
        self.late_polls = counter(
            "modelarts_exporter_late_polls_total",
            "Polls that started later than poll.interval after the previous one.",
        )
        self.requests = counter(
            "modelarts_exporter_api_requests_total",
            "API requests, by operation and by HTTP status (or timeout, connection).",
            (*TARGET, "operation", "code"),
        )
        self.request_duration = Histogram(
            "modelarts_exporter_api_request_duration_seconds",
            "Duration of API requests, in seconds.",
            ("operation",),
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self.retries = counter(
            "modelarts_exporter_api_retries_total",
            "API requests that were retried, by reason.",
            (*TARGET, "reason"),
        )
        self.duplicate_jobs = counter(
            "modelarts_exporter_duplicate_jobs_total",
            "Jobs that one search returned more than once because pages shifted.",
        )
        self.invalid_jobs = counter(
            "modelarts_exporter_invalid_jobs_total",
            "Jobs that could not be decoded or had an unusable field; each counted once.",
        )
        self.inconsistent_pages = counter(
            "modelarts_exporter_inconsistent_pages_total",
            "Pages that contradicted earlier pages and were read again.",
        )
        self.unknown_values = counter(
            "modelarts_exporter_unknown_values_total",
            "Jobs with an undocumented value, by field; each counted once.",
            (*TARGET, "field"),
        )
        self.tracked_jobs = gauge(
            "modelarts_exporter_tracked_jobs", "Jobs of the target that are known."
        )
        self.oldest_verification = gauge(
            "modelarts_exporter_oldest_verification_timestamp_seconds",
            "When the page of the job list that was verified longest ago was verified, in unix "
            "seconds; absent until every page was.",
        )
        self.jobs_without_series = gauge(
            "modelarts_exporter_jobs_without_series",
            "Jobs without their own series because of jobs.max_series_jobs.",
        )
        self.users_without_series = gauge(
            "modelarts_exporter_users_without_series",
            "Users that are part of other because of jobs.max_users, as far as seen since the "
            "start; absent without jobs.by_user.",
        )
        self.label_values_over_limit = gauge(
            "modelarts_exporter_label_values_over_limit",
            "Values of a label that are shown as other because of jobs.max_label_values, as far "
            "as seen since the start; counted up to 10,000.",
            (*TARGET, "label"),
        )
        self.pools_last_success = gauge(
            "modelarts_exporter_pools_last_success_timestamp_seconds",
            "When it was last read successfully how full the resource pools of the target are, in "
            "unix seconds; absent without the permission.",
        )
        self.pagination = gauge(
            "modelarts_exporter_pagination_info",
            "What offset means for the target: page, row, or auto while one page holds all jobs; "
            "always 1.",
            (*TARGET, "mode"),
        )
        self.credentials_expiry = gauge(
            "modelarts_exporter_credentials_expiry_timestamp_seconds",
            "When the credentials in use expire, in unix seconds; absent if they do not expire.",
        )
        self.state_errors = counter(
            "modelarts_exporter_state_errors_total",
            "Times that the state file (state.file) could not be read or written.",
            (),
        )
        self.config_reload = gauge(
            "modelarts_exporter_config_last_reload_successful",
            "1 if the last configuration reload succeeded, otherwise 0.",
            (),
        )
        self.config_reload.set(1)  # otherwise the program would not have started
        self.discovered_targets = gauge(
            "modelarts_exporter_discovered_targets",
            "Targets found by target.projects or in targets_files, of all shards.",
            (),
        )
        self.discovery = gauge(
            "modelarts_exporter_discovery_successful",
            "1 if all projects and workspaces could be looked up and all targets_files be read the "
            "last time, otherwise 0.",
            (),
        )
        self.discovery.set(1)
        self.shard_info = gauge(
            "modelarts_exporter_shard_info",
            "Which share of the targets this exporter polls (shard.index, shard.count); always 1.",
            ("index", "count"),
        )
        self.build_info = gauge(
            "modelarts_exporter_build_info",
            "Version and commit of the exporter, and version of Python; always 1.",
            ("version", "revision", "python_version"),
        )
        self.build_info.labels(__version__, __revision__, platform.python_version()).set(1)

    @property
    def shared(self) -> tuple[Counter | Gauge | Histogram, ...]:
        """Instruments without labels of a target."""
        return (
            self.request_duration,
            self.state_errors,
            self.config_reload,
            self.discovered_targets,
            self.discovery,
            self.shard_info,
            self.build_info,
        )

    def found(self, *, targets: int, successful: bool) -> None:
        """Set how many targets were found, and whether everything could be looked up and read."""
        self.discovered_targets.set(targets)
        self.discovery.set(successful)

    def in_shard(self, index: int, count: int) -> None:
        """Set which share of the targets is polled."""
        self.shard_info.clear()
        self.shard_info.labels(str(index), str(count)).set(1)

    def all(self) -> list[Counter | Gauge | Histogram]:
        """Every instrument, in the order of declaration."""
        instruments = (each for each in vars(self).values())
        return [each for each in instruments if isinstance(each, Counter | Gauge | Histogram)]


class TargetInstruments:
    """The instruments of one target. Implements the meters of the other modules.

    Nothing is exposed before `show`: a target that was configured may never run.

    Args:
        instruments: of the process.
        region: label value.
        project: label value.
        info: further labels of `modelarts_target_info`.
    """

    def __init__(
        self,
        instruments: Instruments,
        region: str,
        project: str,
        *,
        info: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._all = instruments
        self._labels = (region, project)
        self._info = info
        self._is_shown = False

    def rename(self, project: str) -> None:
        """Use another label ``project``, once the project is known. Its series start from zero."""
        if project == self._labels[1]:
            return
        was_shown = self._is_shown
        self.remove()
        self._labels = (self._labels[0], project)
        if was_shown:
            self.show()

    def remove(self) -> None:
        """Remove the series of the target."""
        self._is_shown = False
        self._all.target_info.labels.pop(self._labels, None)
        for instrument in self._all.all():
            if instrument not in self._all.shared:
                instrument.remove_by_labels(dict(zip(TARGET, self._labels, strict=True)))

    def show(self) -> None:
        """Expose every counter, at zero unless it has counted already, and what is known now."""
        self._is_shown = True
        self._all.target_info.labels[self._labels] = self._info
        self._all.up.labels(*self._labels)
        for kind in KINDS:
            self._all.poll_duration.labels(*self._labels, kind)
            for result in RESULTS:
                self._all.polls.labels(*self._labels, kind, result)
        for code in SEARCH_CODES:
            self._all.requests.labels(*self._labels, "search", code)
        for reason in RETRY_REASONS:
            self._all.retries.labels(*self._labels, reason)
        for field in UNKNOWN_FIELDS:
            self._all.unknown_values.labels(*self._labels, field)
        for counter in (
            self._all.late_polls,
            self._all.duplicate_jobs,
            self._all.invalid_jobs,
            self._all.inconsistent_pages,
        ):
            counter.labels(*self._labels)

    def requested(self, operation: str, code: str, seconds: float) -> None:
        """An API request was sent; ``code`` is its HTTP status, ``timeout`` or ``connection``."""
        self._all.requests.labels(*self._labels, operation, code).inc()
        self._all.request_duration.labels(operation).observe(seconds)

    def retried(self, reason: str) -> None:
        """An API request is sent again; ``reason`` is a `PollError.reason`."""
        self._all.retries.labels(*self._labels, reason).inc()

    def paged(self, *, duplicates: int, inconsistent: int) -> None:
        """A search ended (`exporter.modelarts.workspace`)."""
        self._all.duplicate_jobs.labels(*self._labels).inc(duplicates)
        self._all.inconsistent_pages.labels(*self._labels).inc(inconsistent)

    def anomalies(self, *, invalid_jobs: int, unknown_values: Mapping[str, int]) -> None:
        """Count jobs with unusable or undocumented values; ``unknown_values`` by field."""
        self._all.invalid_jobs.labels(*self._labels).inc(invalid_jobs)
        for field, number in unknown_values.items():
            self._all.unknown_values.labels(*self._labels, field).inc(number)

    def started_late(self) -> None:
        """Count a poll that started late."""
        self._all.late_polls.labels(*self._labels).inc()

    def polled(self, kind: str, result: str, seconds: float, *, now: float) -> None:
        """Record the end of a poll; ``now`` in unix seconds."""
        self._all.polls.labels(*self._labels, kind, result).inc()
        self._all.poll_duration.labels(*self._labels, kind).observe(seconds)
        self._all.up.labels(*self._labels).set(result == "success")
        if result == "success":
            self._all.last_success.labels(*self._labels).set(now)

    def pools_read(self, *, now: float) -> None:
        """How full the resource pools are has been read; ``now`` in unix seconds."""
        self._all.pools_last_success.labels(*self._labels).set(now)

    def identified(self, *, mode: str, expires_at: float | None) -> None:
        """Set the pagination mode, and when the credentials expire (unix seconds, None = never)."""
        labels = dict(zip(TARGET, self._labels, strict=True))
        self._all.pagination.remove_by_labels(labels)
        self._all.pagination.labels(*self._labels, mode).set(1)
        if expires_at is None:
            self._all.credentials_expiry.remove_by_labels(labels)
        else:
            self._all.credentials_expiry.labels(*self._labels).set(expires_at)

    def tracking(self, *, jobs: int, without_series: int) -> None:
        """Set how many jobs are held, and how many of them lack series because of the cap."""
        self._all.tracked_jobs.labels(*self._labels).set(jobs)
        self._all.jobs_without_series.labels(*self._labels).set(without_series)

    def verified(self, oldest: float | None) -> None:
        """Set when the part of the list that was verified longest ago was, in unix seconds."""
        if oldest is not None:
            self._all.oldest_verification.labels(*self._labels).set(oldest)

    def users(self, *, without_series: int | None) -> None:
        """Set how many users are shown as ``other``; None = there are no series by user."""
        if without_series is None:
            labels = dict(zip(TARGET, self._labels, strict=True))
            self._all.users_without_series.remove_by_labels(labels)
        else:
            self._all.users_without_series.labels(*self._labels).set(without_series)

    def label_values(self, over_limit: Mapping[str, int]) -> None:
        """Set how many values of each label are shown as ``other``."""
        for label, number in over_limit.items():
            self._all.label_values_over_limit.labels(*self._labels, label).set(number)
