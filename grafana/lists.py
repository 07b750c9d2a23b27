"""What dashboards with jobs share: series, variables, links, and tables of jobs and pools."""

from boards import variable
from panels import Builder, Column, Link, Query, rows
from promql import (
    BAD,
    FLEET,
    INFO_NOW,
    JOB,
    POOL,
    TARGET,
    WAITING,
    among,
    by_pool,
    identified,
    increase,
    lately,
    of,
    total,
    training,
)

_SCRAPE = "${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&${console:queryparam}"

TO_JOB = Link(
    "Show this job",
    f"/d/modelarts-job?${{__url_time_range}}&{_SCRAPE}&var-region=${{__data.fields.region}}"
    "&var-project=${__data.fields.project}&var-job_id=${__data.fields.job_id}",
)
TO_CONSOLE = Link(
    "Open it in the ModelArts console",
    "${console:raw}/modelarts/?region=${__data.fields.region}"
    "#/training/detail/${__data.fields.job_id}",
    new_tab=True,
)

LONG_WAIT = ((None, "green"), (1800, "yellow"), (7200, "red"))
"""Thresholds of seconds."""

LONG_WAIT_IN_HOURS = ((None, "green"), (0.5, "yellow"), (2, "red"))


COMPLETED = 'phase="Completed"'
RUNNING = 'phase="Running"'
ENDED = 'phase=~"Completed|Failed|Abnormal"'
"""Not those that somebody stopped: they neither succeeded nor failed."""


def jobs(phases: str) -> str:
    """The number of jobs in some phases."""
    return training("jobs", f"{FLEET}, {phases}")


def finished(phases: str) -> str:
    """The counter of jobs that ended in some phases."""
    return training("jobs_finished_total", f"{FLEET}, {phases}")


def cards(phases: str) -> str:
    """The cards of jobs in some phases."""
    return training("accelerators", f"{FLEET}, {phases}")


IN_USE = 'phase=~"Running|Terminating"'
AGE = f"time() - {training('oldest_pending_timestamp_seconds')}"


def hours(seconds: str) -> str:
    """Seconds as hours that can be read in a table, whose columns have no units of their own."""
    return f"round(({seconds}) / 3600, 0.01)"


def job_variables() -> list[Builder]:
    """Pools, flavor types and users."""
    names = training("pool_info", TARGET)
    ids = f'label_replace({training("jobs", TARGET)}, "pool_name", "$1", "pool", "(.*)")'
    pools = f"group by (pool, pool_name) ({names}) or on (pool) group by (pool, pool_name) ({ids})"
    return [
        variable(
            "pool",
            "Pool",
            f"query_result({pools})",
            regex='/pool="(?<value>[^"]*)".*pool_name="(?<text>[^"]*)"/',
        ),
        variable(
            "flavor_type",
            "Flavor type",
            f"label_values({training('jobs', POOL)}, flavor_type)",
        ),
    ]


def user_variable(label: str = "User (lists of jobs)") -> Builder:
    """Users, of whom only the series of single jobs know."""
    return variable("user", label, f"label_values({training('job_info')}, user)")


JOB_NAME = Column("job_name", "Job")
USER = Column("user", "User")
POOL_NAME = Column("pool_name", "Pool")
FLAVOR_TYPE = Column("flavor_type", "Type")
PHASE = Column("phase", "Phase")
# Without titles: links refer to them.
PLACE = (Column("project"), Column("region"), Column("job_id"))


def failures() -> Builder:
    """The table of failed jobs."""
    bad = training("job_phase", f"{TARGET}, {BAD}")
    those = among(lately(bad), lately(INFO_NOW))
    restarts = increase(training("job_restarts_total", TARGET))
    return rows(
        "Jobs that failed",
        "Every job that was seen Failed (its own error) or Abnormal (the platform's) in this time "
        "range, the latest first. Click on a row for the job's story, or for the ModelArts "
        "console. Restarts are those within the time range. A job is exported for jobs.retention "
        "(1 h) after its end; older failures are found as long as Prometheus keeps them.",
        [
            Query(identified(lately(bad), "phase")),
            Query(of(those, f"{lately(training('job_end_timestamp_seconds', TARGET))} * 1000")),
            Query(of(those, lately(training("job_accelerators", TARGET)))),
            Query(of(those, f"round({total(restarts, JOB)})")),
            Query(of(those, lately(training("job_exit_code", TARGET)), "task")),
            Query(hours(of(those, lately(training("job_duration_seconds", TARGET))))),
        ],
        [
            JOB_NAME,
            PHASE,
            USER,
            POOL_NAME,
            FLAVOR_TYPE,
            Column("Value #C", "Cards"),
            Column("Value #D", "Restarts"),
            Column("Value #E", "Exit code"),
            Column("task", "Task"),
            Column("Value #F", "Ran for (h)"),
            Column("Value #B", "Ended", time=True),
            *PLACE,
        ],
        links=[TO_JOB, TO_CONSOLE],
        sort="Ended",
        height=10,
    )


def waiting() -> Builder:
    """The table of jobs that wait."""
    now = training("job_phase", f"{TARGET}, {WAITING}")
    those = among(now, INFO_NOW)
    age = f"time() - {training('job_created_timestamp_seconds', TARGET)}"
    return rows(
        "Jobs that wait now",
        "Jobs that are Creating or Pending at the end of the time range, the longest first, with "
        "the nodes and cards they ask for. Click on a row for more.",
        [
            Query(identified(now, "phase", INFO_NOW)),
            Query(hours(of(those, age))),
            Query(of(those, training("job_nodes", TARGET))),
            Query(of(those, training("job_accelerators", TARGET))),
        ],
        [
            JOB_NAME,
            PHASE,
            Column("Value #B", "Waits for (h)", colors=LONG_WAIT_IN_HOURS),
            Column("Value #C", "Nodes"),
            Column("Value #D", "Cards"),
            USER,
            POOL_NAME,
            FLAVOR_TYPE,
            *PLACE,
        ],
        links=[TO_JOB, TO_CONSOLE],
        sort="Waits for (h)",
        width=16,
    )


def pools() -> Builder:
    """The table of pools."""
    return rows(
        "Pools",
        "One row for each pool and flavor type: what runs and waits now, the cards of both, how "
        "long the oldest job has waited, and how many jobs failed (Failed or Abnormal) in the time "
        "range.",
        [
            Query(by_pool(jobs(RUNNING), "flavor_type")),
            Query(by_pool(jobs(WAITING), "flavor_type")),
            Query(by_pool(cards(IN_USE), "flavor_type")),
            Query(by_pool(cards(WAITING), "flavor_type")),
            Query(hours(by_pool(f"({AGE})", "flavor_type", "max"))),
            Query(f"round({by_pool(increase(finished(BAD)), 'flavor_type')})"),
        ],
        [
            Column("pool_name", "Pool"),
            FLAVOR_TYPE,
            Column("Value #A", "Running"),
            Column("Value #B", "Waiting"),
            Column("Value #C", "Cards in use"),
            Column("Value #D", "Cards queued"),
            Column("Value #E", "Oldest waits (h)", colors=LONG_WAIT_IN_HOURS),
            Column("Value #F", "Failed", colors=((None, "text"), (1, "red"))),
        ],
        sort="Waiting",
        width=12,
    )
