"""The dashboard *Exporter*: whether the data is reliable, and what it costs to collect."""

from boards import annotation, board, scrape_variables
from grafana_foundation_sdk.models import dashboard as model
from panels import (
    POLL,
    Builder,
    Column,
    Query,
    bar_gauge,
    stat_panel,
    state_timeline,
    table_panel,
    time_series,
)
from promql import TARGET, exporter_series, increase, quantile, rate, total

SCRAPE = 'job=~"$job", instance=~"$instance"'
NAME = "{{region}} {{project}}"
BY_TARGET = "region, project"
UP = f"modelarts_up{{{TARGET}}}"
POLLS = exporter_series("polls_total")
FAILED_POLLS = exporter_series("polls_total", f'{TARGET}, result!="success"')
REQUESTS = exporter_series("api_requests_total")
RETRIES = exporter_series("api_retries_total")
THROTTLED = exporter_series("api_requests_total", f'{TARGET}, code="429"')
AGE = f"time() - {exporter_series('last_success_timestamp_seconds')}"
OLD = ((None, "green"), (180, "yellow"), (300, "red"))
EXPIRES = exporter_series("credentials_expiry_timestamp_seconds")
GOOD_AND_BAD = {
    "success": "green",
    "auth": "purple",
    "throttled": "yellow",
    "timeout": "orange",
    "upstream": "red",
    "invalid": "dark-red",
    "internal": "#8e8e8e",
}
CODES = {
    "200": "green",
    "429": "yellow",
    "401": "purple",
    "403": "dark-purple",
    "timeout": "orange",
    "connection": "dark-orange",
    "500": "red",
    "502": "dark-red",
    "503": "semi-dark-red",
}


def process(name: str) -> str:
    """Selector of a series of the exporter's process, or of its scrapes."""
    return f"{name}{{{SCRAPE}}}"


def health_section() -> list[Builder]:
    """Overall health, in one row."""
    return [
        stat_panel(
            "Exporter",
            "Whether Prometheus can scrape every selected exporter.",
            [Query(f"min({process('up')})")],
            unit="none",
            none="Not scraped",
            texts={"1": ("Up", "green"), "0": ("Down", "red")},
        ),
        stat_panel(
            "Last poll",
            "Whether the last poll of every selected target succeeded.",
            [Query(f"min({UP})")],
            unit="none",
            none="No poll yet",
            texts={"1": ("Success", "green"), "0": ("Failed", "red")},
        ),
        stat_panel(
            "Age of the data",
            "Time since the last successful poll, for the worst target. After poll.stale_after (5 min) "
            "without one, the series of jobs are withdrawn.",
            [Query(f"max({AGE})")],
            unit="s",
            none="No successful poll yet",
            colors=OLD,
            graph=True,
        ),
        stat_panel(
            "Failed polls",
            "Polls that failed in this time range. No events are lost: the next successful poll catches "
            "up.",
            [Query(f"round({total(increase(FAILED_POLLS))})", instant=True)],
            none="No data",
            colors=((None, "green"), (1, "yellow"), (10, "red")),
            decimals=0,
        ),
        stat_panel(
            "Throttled requests",
            "Requests that the service rejected with 429 (too many requests) in this time range. Lower "
            "api.max_requests_per_second if this continues.",
            [Query(f"round({total(increase(THROTTLED))})", instant=True)],
            none="None seen",
            colors=((None, "green"), (1, "yellow"), (50, "red")),
            decimals=0,
        ),
        stat_panel(
            "Credentials expire in",
            "Time until the first of the credentials in use expires. The exporter renews the tokens and "
            "temporary keys that it obtained; you must replace an existing token or security token.",
            [Query(f"min({EXPIRES} - time())")],
            unit="s",
            none="No expiry",
            colors=((None, "red"), (900, "yellow"), (3600, "green")),
        ),
        stat_panel(
            "Memory",
            "Resident memory of the exporter process; the largest if there are several.",
            [Query(f"max({process('process_resident_memory_bytes')})")],
            unit="bytes",
            none="Not available on this system",
            graph=True,
        ),
        stat_panel(
            "State file errors",
            "Number of times the state file could not be read or written in this time range. With "
            "errors, counters may not survive a restart of the exporter.",
            [
                Query(
                    f"round({total(increase(exporter_series('state_errors_total', SCRAPE)))})",
                    instant=True,
                )
            ],
            none="No data",
            colors=((None, "green"), (1, "red")),
            decimals=0,
        ),
    ]


def polls_section() -> list[Builder]:
    """Polls, and the age of the data."""
    durations = exporter_series("poll_duration_seconds_bucket")
    return [
        state_timeline(
            "Targets over time",
            "Whether the last poll of each target succeeded.",
            [Query(f"min by ({BY_TARGET}) ({UP})", NAME)],
            texts={"1": ("Success", "green"), "0": ("Failed", "red")},
            none="No target was polled in this time range",
            width=12,
            height=8,
        ),
        time_series(
            "Age of the data by target",
            "Time since the last successful poll of each target: normally a sawtooth between 0 and "
            "poll.interval. A target that rises above the lines is no longer being read.",
            [Query(f"max by ({BY_TARGET}) ({AGE})", NAME)],
            unit="s",
            none="No successful poll in this time range",
            limits=((None, "transparent"), *OLD[1:]),
        ),
        time_series(
            "Polls by result",
            "Polls per minute. auth: rejected credentials; throttled: too many requests; timeout: no "
            "response in time; upstream: errors of the service; invalid: unusable responses; internal: "
            "a bug in the exporter or a state file error.",
            [Query(f"{total(rate(POLLS), 'result')} * 60", "{{result}}", POLL)],
            colors=GOOD_AND_BAD,
            bars=True,
            axis="polls per minute",
            width=8,
            calcs=("mean", "max"),
        ),
        time_series(
            "Poll duration, 95th percentile",
            "95% of the polls took less than this. incremental: reads changes; sweep: reads all jobs, "
            "at the first start and where the list cannot be verified.",
            [Query(quantile(0.95, durations, "kind"), "{{kind}}", POLL)],
            unit="s",
            none="No poll in this time range",
            sparse=True,
            width=8,
        ),
        time_series(
            "Late polls",
            "Polls per minute that started more than poll.interval after the previous one, because that "
            "one took too long. If this is regularly above 0, raise poll.interval.",
            [
                Query(
                    f"{total(rate(exporter_series('late_polls_total')), BY_TARGET)} * 60",
                    NAME,
                    POLL,
                )
            ],
            axis="polls per minute",
            width=8,
            calcs=("mean", "max"),
        ),
    ]


def api_section() -> list[Builder]:
    """Requests to the service."""
    durations = exporter_series("api_request_duration_seconds_bucket", SCRAPE)
    return [
        time_series(
            "API requests by code",
            "Requests per second to the service, by HTTP status; timeout or connection if there was no "
            "response.",
            [Query(total(rate(REQUESTS), "code"), "{{code}}", POLL)],
            unit="reqps",
            colors=CODES,
            stacked=True,
            calcs=("mean", "max"),
        ),
        time_series(
            "API requests by operation",
            "Requests per second by operation: search lists jobs, get reads one job, token signs in.",
            [Query(total(rate(REQUESTS), "operation"), "{{operation}}", POLL)],
            unit="reqps",
            stacked=True,
            calcs=("mean", "max"),
        ),
        time_series(
            "API response time",
            "How long requests took. Half of them took less than the median.",
            [
                Query(quantile(0.5, durations), "median", POLL),
                Query(quantile(0.95, durations), "95th percentile", POLL),
            ],
            unit="s",
            none="No request in this time range",
            colors={"median": "green", "95th percentile": "yellow"},
            width=8,
        ),
        time_series(
            "Retries by reason",
            "Retries per second. throttled: the service asked to slow down.",
            [Query(total(rate(RETRIES), "reason"), "{{reason}}", POLL)],
            unit="reqps",
            colors=GOOD_AND_BAD,
            stacked=True,
            width=8,
            calcs=("mean", "max"),
        ),
        time_series(
            "Share of throttled requests",
            "The share of requests that the service rejected with 429 (too many requests).",
            [
                Query(
                    f"{total(rate(THROTTLED), BY_TARGET)} / "
                    f"({total(rate(REQUESTS), BY_TARGET)} > 0)",
                    NAME,
                    POLL,
                )
            ],
            unit="percentunit",
            none="No request was throttled in this time range",
            width=8,
            calcs=("mean", "max"),
        ),
    ]


def data_section() -> list[Builder]:
    """The data in memory, and anomalies in it."""
    odd = {
        "duplicates": exporter_series("duplicate_jobs_total"),
        "not decoded": exporter_series("invalid_jobs_total"),
        "contradictory pages": exporter_series("inconsistent_pages_total"),
    }
    return [
        table_panel(
            "Targets",
            "Each target with the age of its data, the number of jobs in memory, the number of jobs "
            "without series because of jobs.max_series_jobs, the meaning of offset in the service's "
            "list (detected by the exporter), and the expiry of its credentials.",
            [
                Query(f"round(max by ({BY_TARGET}) ({AGE}))"),
                Query(f"max by ({BY_TARGET}) ({exporter_series('tracked_jobs')})"),
                Query(f"max by ({BY_TARGET}) ({exporter_series('jobs_without_series')})"),
                Query(f"max by ({BY_TARGET}, mode) ({exporter_series('pagination_info')})"),
                Query(f"min by ({BY_TARGET}) ({EXPIRES}) * 1000"),
            ],
            [
                Column("project", "Project"),
                Column("region", "Region"),
                Column("Value #A", "Age (s)", colors=OLD),
                Column("Value #B", "Jobs"),
                Column("Value #C", "Without series", colors=((None, "text"), (1, "red"))),
                Column("mode", "Paging"),
                Column("Value #E", "Credentials until", time=True),
            ],
            sort="Age (s)",
            width=12,
            height=8,
        ),
        time_series(
            "Jobs in memory",
            "Jobs known to the exporter, including finished jobs. Memory use grows with them.",
            [Query(f"max by ({BY_TARGET}) ({exporter_series('tracked_jobs')})", NAME)],
            none="No target was polled in this time range",
        ),
        bar_gauge(
            "Anomalies in responses",
            "In this time range: jobs listed twice because pages shifted, jobs that could not be fully "
            "decoded, and contradictory pages that were read again. None of them makes a metric wrong.",
            [
                Query(f"round({total(increase(series))})", name, instant=True)
                for name, series in odd.items()
            ],
            decimals=0,
            width=12,
            height=7,
            none="None",
        ),
        bar_gauge(
            "Undocumented values by field",
            "Jobs with an undocumented value in this time range. They are counted under Unknown or "
            "unknown; the exporter's log shows the value.",
            [
                Query(
                    f"round({total(increase(exporter_series('unknown_values_total')), 'field')})",
                    "{{field}}",
                    instant=True,
                )
            ],
            decimals=0,
            width=12,
            height=7,
            none="None",
        ),
    ]


def process_section() -> list[Builder]:
    """The exporter process."""
    return [
        time_series(
            "Memory over time",
            "Resident memory of the exporter process.",
            [Query(process("process_resident_memory_bytes"), "{{instance}}")],
            unit="bytes",
            width=8,
            none="Not available on this system",
        ),
        time_series(
            "CPU",
            "CPU time per second: 100% is one core.",
            [Query(rate(process("process_cpu_seconds_total")), "{{instance}}", POLL)],
            unit="percentunit",
            width=8,
            calcs=("mean", "max"),
            none="Not available on this system",
        ),
        time_series(
            "Scrape duration",
            "How long scrapes of the exporter took. This does not depend on the service.",
            [Query(process("scrape_duration_seconds"), "{{instance}}")],
            unit="s",
            width=8,
            none="Not scraped",
        ),
        time_series(
            "Series per scrape",
            "Samples per scrape, which determine the cost in Prometheus. Most of them are per-job series; "
            "see jobs.retention, jobs.max_series_jobs and jobs.per_job.",
            [Query(process("scrape_samples_scraped"), "{{instance}}")],
            width=8,
            none="Not scraped",
        ),
        time_series(
            "Open files",
            "Open file descriptors, including connections, as a share of the limit.",
            [
                Query(
                    f"{process('process_open_fds')} / {process('process_max_fds')}",
                    "{{instance}}",
                )
            ],
            unit="percentunit",
            width=8,
            none="Not available on this system",
        ),
        table_panel(
            "Versions",
            "Exporter version, Python version and start time of each instance.",
            [
                Query(
                    f"max by (instance, version, python_version) ({exporter_series('build_info', SCRAPE)})"
                ),
                Query(f"max by (instance) ({process('process_start_time_seconds')}) * 1000"),
            ],
            [
                Column("instance", "Instance"),
                Column("version", "Version"),
                Column("python_version", "Python"),
                Column("Value #B", "Started", time=True),
            ],
            width=8,
            height=8,
        ),
        state_timeline(
            "Configuration",
            "Whether the last reload of the configuration succeeded. If not, the previous configuration "
            "remains in use, and the log shows what is wrong with the new one.",
            [
                Query(
                    f"min by (instance) ({exporter_series('config_last_reload_successful', SCRAPE)})",
                    "{{instance}}",
                )
            ],
            texts={"1": ("Applied", "green"), "0": ("Rejected", "red")},
            none="Not scraped",
            width=24,
            height=5,
        ),
    ]


def health() -> model.Dashboard:
    """The dashboard."""
    return board(
        "exporter",
        "Exporter",
        "Whether modelarts-exporter reads the service correctly: polls, API requests, throttling, "
        "age of the data, credentials, memory.",
        since="now-6h",
        refresh="1m",
        variables=scrape_variables(),
        annotations=[
            annotation(
                "Exporter starts",
                f"{process('process_start_time_seconds')} * 1000",
                color="blue",
                title="Exporter started",
                text="{{instance}}",
                tags="instance",
            )
        ],
        sections={
            "Health": health_section(),
            "Polls": polls_section(),
            "Service": api_section(),
            "Data": data_section(),
            "Process": process_section(),
        },
    )
