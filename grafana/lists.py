"""Series, variables, links and tables shared by dashboards that show jobs."""

from boards import variable
from panels import Builder, Column, Link, Query, table_panel
from promql import (
    BAD,
    FLEET,
    INFO_NOW,
    JOB,
    POOL,
    TARGET,
    WAITING,
    by_pool,
    increase,
    last_in_range,
    matching,
    only_for,
    pool_series,
    total,
    training_series,
    with_job_info,
)

_SCRAPE = "${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&${console:queryparam}"

TO_JOB = Link(
    "Show this job",
    f"/d/modelarts-job?${{__url_time_range}}&{_SCRAPE}&var-region=${{__data.fields.region}}"
    "&var-project=${__data.fields.project}&var-job_id=${__data.fields.job_id}",
)
TO_CONSOLE = Link(
    "Open in the ModelArts console",
    "${console:raw}/modelarts/?region=${__data.fields.region}"
    "#/training/detail/${__data.fields.job_id}",
    new_tab=True,
)

LONG_WAIT = ((None, "green"), (1800, "yellow"), (7200, "red"))
"""Thresholds, in seconds."""

LONG_WAIT_IN_HOURS = ((None, "green"), (0.5, "yellow"), (2, "red"))


COMPLETED = 'phase="Completed"'
RUNNING = 'phase="Running"'
ENDED = 'phase=~"Completed|Failed|Abnormal"'
"""Without jobs that users stopped: they neither succeeded nor failed."""


def jobs(phases: str) -> str:
    """The number of jobs in the given phases."""
    return training_series("jobs", f"{FLEET}, {phases}")


def finished(phases: str) -> str:
    """The counter of jobs that ended in the given phases."""
    return training_series("jobs_finished_total", f"{FLEET}, {phases}")


def cards(phases: str) -> str:
    """The cards of jobs in the given phases."""
    return training_series("accelerators", f"{FLEET}, {phases}")


IN_USE = 'phase=~"Running|Terminating"'
AGE = f"time() - {training_series('oldest_pending_timestamp_seconds')}"


def hours(seconds: str) -> str:
    """Seconds as rounded hours, for tables: their columns have no units."""
    return f"round(({seconds}) / 3600, 0.01)"


def job_variables() -> list[Builder]:
    """Variables for pools and flavor types."""
    names = pool_series("info")
    ids = f'label_replace({training_series("jobs", TARGET)}, "pool_name", "$1", "pool", "(.*)")'
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
            f"label_values({training_series('jobs', POOL)}, flavor_type)",
        ),
    ]


def user_variable(label: str = "User (job lists)") -> Builder:
    """Variable for users, who are known from per-job series only."""
    return variable("user", label, f"label_values({training_series('job_info')}, user)")


JOB_NAME = Column("job_name", "Job")
USER = Column("user", "User")
POOL_NAME = Column("pool_name", "Pool")
FLAVOR_TYPE = Column("flavor_type", "Type")
PHASE = Column("phase", "Phase")
# Without titles, because links refer to these columns.
PLACE = (Column("project"), Column("region"), Column("job_id"))


def failures() -> Builder:
    """The table of failed jobs."""
    bad = training_series("job_phase", f"{TARGET}, {BAD}")
    those = matching(last_in_range(bad), last_in_range(INFO_NOW))
    restarts = increase(training_series("job_restarts_total", TARGET))
    return table_panel(
        "Latest failures",
        "All jobs seen as Failed (an error of the job) or Abnormal (an error of the platform) in this "
        "time range, most recent first. Click a row for the details of the job, or for the "
        "ModelArts console. Restarts are counted within the time range. A job is exported for "
        "jobs.retention (1 h) after it ends; older failures can be found as long as Prometheus "
        "keeps them.",
        [
            Query(with_job_info(last_in_range(bad), "phase")),
            Query(
                only_for(
                    those,
                    f"{last_in_range(training_series('job_end_timestamp_seconds', TARGET))} * 1000",
                )
            ),
            Query(only_for(those, last_in_range(training_series("job_accelerators", TARGET)))),
            Query(only_for(those, f"round({total(restarts, JOB)})")),
            Query(only_for(those, last_in_range(training_series("job_exit_code", TARGET)), "task")),
            Query(
                hours(
                    only_for(those, last_in_range(training_series("job_duration_seconds", TARGET)))
                )
            ),
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
    """The table of waiting jobs."""
    now = training_series("job_phase", f"{TARGET}, {WAITING}")
    those = matching(now, INFO_NOW)
    age = f"time() - {training_series('job_created_timestamp_seconds', TARGET)}"
    return table_panel(
        "Jobs waiting now",
        "Jobs in the phase Creating or Pending at the end of the time range, longest wait first, "
        "with the nodes and cards they request. Click a row for details.",
        [
            Query(with_job_info(now, "phase", INFO_NOW)),
            Query(hours(only_for(those, age))),
            Query(only_for(those, training_series("job_nodes", TARGET))),
            Query(only_for(those, training_series("job_accelerators", TARGET))),
        ],
        [
            JOB_NAME,
            PHASE,
            Column("Value #B", "Waiting for (h)", colors=LONG_WAIT_IN_HOURS),
            Column("Value #C", "Nodes"),
            Column("Value #D", "Cards"),
            USER,
            POOL_NAME,
            FLAVOR_TYPE,
            *PLACE,
        ],
        links=[TO_JOB, TO_CONSOLE],
        sort="Waiting for (h)",
        width=16,
    )


def pools() -> Builder:
    """The table of pools."""
    return table_panel(
        "Pools",
        "One row for each pool and flavor type: jobs running and waiting now and their cards, how "
        "long the oldest job has been waiting, and how many jobs failed (Failed or Abnormal) in the "
        "time range.",
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
            Column("Value #E", "Longest wait (h)", colors=LONG_WAIT_IN_HOURS),
            Column("Value #F", "Failed", colors=((None, "text"), (1, "red"))),
        ],
        sort="Waiting",
        width=12,
    )
