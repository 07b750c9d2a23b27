"""The dashboard *Exporter*: whether the numbers can be trusted, and what it takes to get them."""

from boards import annotation, board, scrape_variables
from grafana_foundation_sdk.models import dashboard as model
from panels import POLL, Builder, Column, Query, curves, ranking, rows, single, states
from promql import TARGET, increase, own, quantile, rate, total

SCRAPE = 'job=~"$job", instance=~"$instance"'
NAME = "{{region}} {{project}}"
BY_TARGET = "region, project"
UP = f"modelarts_up{{{TARGET}}}"
POLLS = own("polls_total")
FAILED_POLLS = own("polls_total", f'{TARGET}, result!="success"')
REQUESTS = own("api_requests_total")
RETRIES = own("api_retries_total")
THROTTLED = own("api_requests_total", f'{TARGET}, code="429"')
AGE = f"time() - {own('last_success_timestamp_seconds')}"
OLD = ((None, "green"), (180, "yellow"), (300, "red"))
EXPIRES = own("credentials_expiry_timestamp_seconds")
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
    """A series of the exporter's process, or of its scrapes."""
    return f"{name}{{{SCRAPE}}}"


def health_section() -> list[Builder]:
    """All is well, or not."""
    return [
        single(
            "Exporter",
            "Whether Prometheus can scrape every chosen exporter.",
            [Query(f"min({process('up')})")],
            unit="none",
            none="Not scraped",
            texts={"1": ("Up", "green"), "0": ("Down", "red")},
        ),
        single(
            "Last poll",
            "Whether the last poll of every chosen target succeeded.",
            [Query(f"min({UP})")],
            unit="none",
            none="No poll yet",
            texts={"1": ("Success", "green"), "0": ("Failed", "red")},
        ),
        single(
            "Age of the data",
            "Time since the last good poll, of the target that is worst. After poll.stale_after "
            "(5 min) without one, the series of jobs are withdrawn.",
            [Query(f"max({AGE})")],
            unit="s",
            none="No good poll yet",
            colors=OLD,
            graph=True,
        ),
        single(
            "Failed polls",
            "Polls that did not succeed in this time range. They count nothing and lose nothing: "
            "the next good one catches up.",
            [Query(f"round({total(increase(FAILED_POLLS))})", instant=True)],
            none="No data",
            colors=((None, "green"), (1, "yellow"), (10, "red")),
            decimals=0,
        ),
        single(
            "Throttled requests",
            "Requests that the service refused in this time range because there were too many "
            "(429). Lower api.max_requests_per_second if this goes on.",
            [Query(f"round({total(increase(THROTTLED))})", instant=True)],
            none="None seen",
            colors=((None, "green"), (1, "yellow"), (50, "red")),
            decimals=0,
        ),
        single(
            "Credentials expire in",
            "Time until the first of the credentials in use expires. Tokens and temporary keys are "
            "renewed by the exporter; a ready token or security token has to be replaced by you.",
            [Query(f"min({EXPIRES} - time())")],
            unit="s",
            none="They do not expire",
            colors=((None, "red"), (900, "yellow"), (3600, "green")),
        ),
        single(
            "Memory",
            "Resident memory of the exporter's process, the largest if there are several.",
            [Query(f"max({process('process_resident_memory_bytes')})")],
            unit="bytes",
            none="Not told on this system",
            graph=True,
        ),
        single(
            "State file errors",
            "Times that the state file could not be read or written in this time range. With "
            "errors, counters may not survive a restart of the exporter.",
            [
                Query(
                    f"round({total(increase(own('state_errors_total', SCRAPE)))})",
                    instant=True,
                )
            ],
            none="No data",
            colors=((None, "green"), (1, "red")),
            decimals=0,
        ),
    ]


def polls_section() -> list[Builder]:
    """Polls and the freshness of what they bring."""
    durations = own("poll_duration_seconds_bucket")
    return [
        states(
            "Targets over time",
            "Whether the last poll of each target succeeded.",
            [Query(f"min by ({BY_TARGET}) ({UP})", NAME)],
            texts={"1": ("Success", "green"), "0": ("Failed", "red")},
            none="No target was polled in this time range",
            width=12,
            height=8,
        ),
        curves(
            "Age of the data by target",
            "Time since the last good poll of each target: a saw between 0 and poll.interval. What "
            "climbs above the lines is not read any more.",
            [Query(f"max by ({BY_TARGET}) ({AGE})", NAME)],
            unit="s",
            none="No good poll in this time range",
            limits=((None, "transparent"), *OLD[1:]),
        ),
        curves(
            "Polls by result",
            "Polls per minute. auth: refused credentials; throttled; timeout; upstream: errors of "
            "the service; invalid: answers that make no sense; internal: our own mistakes.",
            [Query(f"{total(rate(POLLS), 'result')} * 60", "{{result}}", POLL)],
            colors=GOOD_AND_BAD,
            bars=True,
            axis="polls per minute",
            width=8,
            calcs=("mean", "max"),
        ),
        curves(
            "Poll duration, 95th percentile",
            "Nineteen of twenty polls took less than this. incremental: what has changed; sweep: "
            "everything, once per poll.sweep_interval.",
            [Query(quantile(0.95, durations, "kind"), "{{kind}}", POLL)],
            unit="s",
            none="No poll in this time range",
            sparse=True,
            width=8,
        ),
        curves(
            "Late polls",
            "Polls per minute that started later than poll.interval after the one before, because "
            "that one took so long. If this is not 0 all the time, raise poll.interval.",
            [
                Query(
                    f"{total(rate(own('late_polls_total')), BY_TARGET)} * 60",
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
    """What the service is asked."""
    durations = own("api_request_duration_seconds_bucket", SCRAPE)
    return [
        curves(
            "API requests by code",
            "Requests per second to the service, by HTTP status, or timeout, or connection where "
            "there was no answer.",
            [Query(total(rate(REQUESTS), "code"), "{{code}}", POLL)],
            unit="reqps",
            colors=CODES,
            stacked=True,
            calcs=("mean", "max"),
        ),
        curves(
            "API requests by operation",
            "Requests per second by what was asked: search lists jobs, get asks for one, token "
            "signs in.",
            [Query(total(rate(REQUESTS), "operation"), "{{operation}}", POLL)],
            unit="reqps",
            stacked=True,
            calcs=("mean", "max"),
        ),
        curves(
            "API response time",
            "How long requests took: half of them less than the median.",
            [
                Query(quantile(0.5, durations), "median", POLL),
                Query(quantile(0.95, durations), "95th percentile", POLL),
            ],
            unit="s",
            none="No request in this time range",
            colors={"median": "green", "95th percentile": "yellow"},
            width=8,
        ),
        curves(
            "Retries by reason",
            "Requests per second that were sent again. throttled: the service asked to slow down.",
            [Query(total(rate(RETRIES), "reason"), "{{reason}}", POLL)],
            unit="reqps",
            colors=GOOD_AND_BAD,
            stacked=True,
            width=8,
            calcs=("mean", "max"),
        ),
        curves(
            "Throttled share",
            "The share of requests that the service refused because there were too many (429).",
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
    """What the exporter holds, and what was odd about it."""
    odd = {
        "duplicates": own("duplicate_jobs_total"),
        "not decoded": own("invalid_jobs_total"),
        "contradictory pages": own("inconsistent_pages_total"),
    }
    return [
        rows(
            "Targets",
            "Each target with the age of its data, the jobs held in memory, the jobs that have no "
            "series of their own because of jobs.max_series_jobs, what an offset of the service's "
            "list means (found out by the exporter), and when its credentials expire.",
            [
                Query(f"round(max by ({BY_TARGET}) ({AGE}))"),
                Query(f"max by ({BY_TARGET}) ({own('tracked_jobs')})"),
                Query(f"max by ({BY_TARGET}) ({own('jobs_without_series')})"),
                Query(f"max by ({BY_TARGET}, mode) ({own('pagination_info')})"),
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
        curves(
            "Jobs in memory",
            "Jobs that the exporter knows, finished ones too. Memory grows with them.",
            [Query(f"max by ({BY_TARGET}) ({own('tracked_jobs')})", NAME)],
            none="No target was polled in this time range",
        ),
        ranking(
            "Oddities of the service's answers",
            "In this time range: jobs listed twice because pages shifted, jobs that could not be "
            "decoded (wholly), pages that contradicted each other and were read again. None of "
            "them makes a number wrong.",
            [
                Query(f"round({total(increase(series))})", name, instant=True)
                for name, series in odd.items()
            ],
            decimals=0,
            width=12,
            height=7,
            none="None",
        ),
        ranking(
            "Undocumented values by field",
            "Jobs that came with a value no document names, in this time range. They are counted "
            "under Unknown or unknown; the exporter's log says which value it was.",
            [
                Query(
                    f"round({total(increase(own('unknown_values_total')), 'field')})",
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
    """The exporter's process."""
    return [
        curves(
            "Memory over time",
            "Resident memory of the exporter's process.",
            [Query(process("process_resident_memory_bytes"), "{{instance}}")],
            unit="bytes",
            width=8,
            none="Not told on this system",
        ),
        curves(
            "CPU",
            "Processor time per second: 100 % is one core.",
            [Query(rate(process("process_cpu_seconds_total")), "{{instance}}", POLL)],
            unit="percentunit",
            width=8,
            calcs=("mean", "max"),
            none="Not told on this system",
        ),
        curves(
            "Scrape duration",
            "How long Prometheus needed to scrape the exporter. It does not depend on the service.",
            [Query(process("scrape_duration_seconds"), "{{instance}}")],
            unit="s",
            width=8,
            none="Not scraped",
        ),
        curves(
            "Series per scrape",
            "Samples that a scrape brings: what the exporter costs Prometheus. Most of them are "
            "single jobs'; see jobs.retention, jobs.max_series_jobs and jobs.per_job.",
            [Query(process("scrape_samples_scraped"), "{{instance}}")],
            width=8,
            none="Not scraped",
        ),
        curves(
            "Open files",
            "File descriptors in use, connections too, as a share of those allowed.",
            [
                Query(
                    f"{process('process_open_fds')} / {process('process_max_fds')}",
                    "{{instance}}",
                )
            ],
            unit="percentunit",
            width=8,
            none="Not told on this system",
        ),
        rows(
            "Versions",
            "The exporters with their version, that of Python, and when they were started.",
            [
                Query(f"max by (instance, version, python_version) ({own('build_info', SCRAPE)})"),
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
        states(
            "Configuration",
            "Whether the exporter took over its configuration when it was last told to read it "
            "again. If not, the old one is in force, and the log says what is wrong with the new.",
            [
                Query(
                    f"min by (instance) ({own('config_last_reload_successful', SCRAPE)})",
                    "{{instance}}",
                )
            ],
            texts={"1": ("In force", "green"), "0": ("Refused", "red")},
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
        "Whether modelarts-exporter reads the service as it should: polls, API requests, "
        "throttling, freshness of the data, credentials, memory.",
        since="now-6h",
        refresh="1m",
        variables=scrape_variables(),
        annotations=[
            annotation(
                "Starts of the exporter",
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
