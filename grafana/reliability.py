"""The dashboard *Reliability*: restarts, recoveries and failures, and their cost in card-hours."""

from boards import board, console_variable, scrape_variables
from grafana_foundation_sdk.models import dashboard as model
from lists import (
    FLAVOR_TYPE,
    JOB_NAME,
    PHASE,
    PLACE,
    POOL_NAME,
    TO_CONSOLE,
    TO_JOB,
    USER,
    finished,
    hours,
    job_variables,
    user_variable,
)
from panels import (
    COLORS,
    POLL,
    SPARSE,
    Builder,
    Column,
    Query,
    bar_gauge,
    stat_panel,
    table_panel,
    time_series,
)
from promql import (
    BAD,
    FLEET,
    JOB,
    RANGE,
    TARGET,
    by_pool,
    increase,
    last_in_range,
    only_for,
    quantile,
    rate,
    share,
    total,
    training_series,
    with_job_info,
)

RESTARTS = training_series("restarts_total")
DOWNGRADES = training_series("recovery_downgrades_total")
LOST = training_series("recovery_accelerator_seconds_total")
ATTEMPTS = training_series("attempt_duration_seconds_bucket")
GAPS = training_series("recovery_duration_seconds_bucket")
BAD_JOBS = training_series("job_phase", f"{TARGET}, {BAD}")
ABNORMAL = 'phase="Abnormal"'
QUIET = "No restart in this time range"
LEFT = "{{recovery}}"


def spent(phases: str = "") -> str:
    """Card seconds of finished jobs in the given phases."""
    return training_series(
        "finished_accelerator_seconds_total", f"{FLEET}, {phases}" if phases else FLEET
    )


def mean(histogram: str, growth: str, by: str = "") -> str:
    """The mean of a histogram's observations; empty if there are none.

    Args:
        histogram: its name.
        growth: ``rate``, or ``increase`` over the dashboard's time range.
        by: labels to keep.
    """
    grown = rate if growth == "rate" else increase
    return share(
        grown(training_series(f"{histogram}_sum")), grown(training_series(f"{histogram}_count")), by
    )


def summary_section() -> list[Builder]:
    """The whole time range, in one row."""
    return [
        stat_panel(
            "Restarts",
            "How often the platform (or a user) restarted a job in this time range.",
            [Query(f"round({total(increase(RESTARTS))})", instant=True)],
            none="None seen",
            colors=((None, "green"), (1, "yellow")),
            decimals=0,
        ),
        stat_panel(
            "Downgraded recoveries",
            "Recoveries for which the service had to fall back from a lighter policy (such as "
            "restarting a process) to a heavier one (such as rescheduling the whole job).",
            [Query(f"round({total(increase(DOWNGRADES))})", instant=True)],
            none="None seen",
            colors=((None, "green"), (1, "orange")),
            decimals=0,
        ),
        stat_panel(
            "Mean time between failures",
            "How long a run of a job lasted, on average, before a failure that the job was recovered "
            "from.",
            [Query(mean("attempt_duration_seconds", "increase"), instant=True)],
            unit="s",
            none=QUIET,
        ),
        stat_panel(
            "Median recovery time",
            "Half of the recoveries took less than this, from the end of one run to the start of the "
            "next. Estimated from a histogram.",
            [Query(quantile(0.5, GAPS, span=RANGE), instant=True)],
            unit="s",
            none=QUIET,
            colors=((None, "green"), (300, "yellow"), (1800, "red")),
        ),
        stat_panel(
            "Card-hours lost to recovery",
            "Cards of a job times the hours between two of its runs, when the cards were idle.",
            [Query(f"{total(increase(LOST))} / 3600", instant=True)],
            none="None seen",
            colors=((None, "orange"),),
            decimals=1,
        ),
        stat_panel(
            "Card-hours in failed runs",
            "Total run time of the jobs that ended as Failed or Abnormal in this time range, times "
            "their cards. If they wrote checkpoints, not all of it is lost.",
            [Query(f"{total(increase(spent(BAD)))} / 3600", instant=True)],
            none="None seen",
            colors=((None, "red"),),
            decimals=1,
        ),
        stat_panel(
            "Share of failed card-hours",
            "The share of jobs that ended as Failed or Abnormal in the card-hours of all jobs that "
            "ended in this time range.",
            [Query(share(increase(spent(BAD)), increase(spent())), instant=True)],
            unit="percentunit",
            none="No failed runs",
            colors=((None, "green"), (0.1, "yellow"), (0.3, "red")),
            decimals=1,
        ),
        stat_panel(
            "Abnormal jobs",
            "Jobs that ended as Abnormal in this time range: a failure of the platform, not of the job.",
            [
                Query(
                    f"round({total(increase(finished(ABNORMAL)))})",
                    instant=True,
                )
            ],
            none="No data",
            colors=((None, "green"), (1, COLORS["Abnormal"])),
            decimals=0,
        ),
    ]


def restarts_section() -> list[Builder]:
    """Restarts and recoveries by policy, and downgraded recoveries."""
    return [
        time_series(
            "Restarts by recovery policy",
            "Restarts per hour, by the policy with which the previous run was recovered (end_recover in "
            "the API), such as npu_step_retry, proc_restart, pod_reschedule or job_reschedule; "
            "unknown: none was given.",
            [Query(f"{total(rate(RESTARTS), 'recovery')} * 3600", LEFT, POLL)],
            none=QUIET,
            bars=True,
            axis="restarts per hour",
            calcs=("mean", "max"),
        ),
        time_series(
            "Downgraded recoveries by policy",
            "Recoveries per hour whose first policy failed: the policy that was tried, and the one "
            "that was used instead.",
            [
                Query(
                    f"{total(rate(DOWNGRADES), 'from_recovery, to_recovery')} * 3600",
                    "{{from_recovery}} → {{to_recovery}}",
                    POLL,
                )
            ],
            none="No recovery was downgraded in this time range",
            bars=True,
            axis="downgrades per hour",
            calcs=("mean", "max"),
        ),
        bar_gauge(
            "Recoveries by policy",
            "Restarts in this time range, by the recovery policy.",
            [Query(f"round({total(increase(RESTARTS), 'recovery')})", LEFT, instant=True)],
            none=QUIET,
            decimals=0,
        ),
        bar_gauge(
            "Restarts by kind",
            "init_or_rescheduled: new processes, perhaps on other nodes; restarted: in place.",
            [
                Query(
                    f"round({total(increase(RESTARTS), 'start_type')})",
                    "{{start_type}}",
                    instant=True,
                )
            ],
            none=QUIET,
            decimals=0,
        ),
        bar_gauge(
            "Restarts by pool",
            "Pools with the most restarts in this time range. A pool with bad hardware stands out.",
            [Query(f"round({by_pool(increase(RESTARTS))})", "{{pool_name}}", instant=True)],
            none=QUIET,
            decimals=0,
        ),
    ]


def times_section() -> list[Builder]:
    """Time between failures, and recovery time."""
    return [
        time_series(
            "Time between failures",
            "How long runs lasted on average before a recovery, by recovery policy, in windows of at "
            "least an hour. Higher is better. Gaps: no such recovery.",
            [Query(mean("attempt_duration_seconds", "rate", "recovery"), LEFT, SPARSE)],
            unit="s",
            none=QUIET,
            sparse=True,
            calcs=("mean", "min"),
        ),
        time_series(
            "Recovery time",
            "Average time from the end of one run to the start of the next, by policy, in windows of "
            "at least an hour. Lower is better.",
            [Query(mean("recovery_duration_seconds", "rate", "recovery"), LEFT, SPARSE)],
            unit="s",
            none=QUIET,
            sparse=True,
            calcs=("mean", "max"),
        ),
        bar_gauge(
            "Median time between failures by policy",
            "Half of the runs that ended with such a recovery in this time range had lasted longer "
            "than this.",
            [Query(quantile(0.5, ATTEMPTS, "recovery", RANGE), LEFT, instant=True)],
            unit="s",
            none=QUIET,
        ),
        bar_gauge(
            "Recovery time by policy, 90th percentile",
            "90% of the recoveries in this time range took less than this.",
            [Query(quantile(0.9, GAPS, "recovery", RANGE), LEFT, instant=True)],
            unit="s",
            none=QUIET,
        ),
        bar_gauge(
            "Run time of ended jobs, median",
            "Run time of the jobs that ended in this time range. Failed jobs that ran for long cost the "
            "most; jobs that fail immediately are most likely misconfigured.",
            [
                Query(
                    quantile(0.5, training_series("run_duration_seconds_bucket"), "phase", RANGE),
                    "{{phase}}",
                    instant=True,
                )
            ],
            unit="s",
            none="No job ended in this time range",
            colors=COLORS,
        ),
    ]


def cost_section() -> list[Builder]:
    """Lost card-hours."""
    return [
        time_series(
            "Cards idle in recovery",
            "Card-hours between two runs of a job, per hour: the average number of cards waiting for "
            "their job. A gap is counted when the next run starts.",
            [Query(total(rate(LOST), "recovery"), LEFT, POLL)],
            none=QUIET,
            stacked=True,
            axis="cards",
            calcs=("mean", "max"),
        ),
        time_series(
            "Card-hours of ended jobs by phase",
            "Card-hours of jobs that ended, per hour, by how they ended. The whole run time of a job is "
            "counted when it ends.",
            [Query(total(rate(spent()), "phase"), "{{phase}}", POLL)],
            none="No job with cards ended in this time range",
            colors=COLORS,
            bars=True,
            axis="card-hours per hour",
            calcs=("mean", "max"),
        ),
        bar_gauge(
            "Card-hours lost to recovery by pool",
            "Cards times hours between two runs of a job, in this time range.",
            [Query(f"{by_pool(increase(LOST))} / 3600", "{{pool_name}}", instant=True)],
            none=QUIET,
            decimals=1,
        ),
        bar_gauge(
            "Card-hours in failed runs by pool",
            "Card-hours of jobs that ended as Failed or Abnormal in this time range.",
            [Query(f"{by_pool(increase(spent(BAD)))} / 3600", "{{pool_name}}", instant=True)],
            none="No job with cards failed in this time range",
            decimals=1,
        ),
        bar_gauge(
            "Failed jobs by user",
            "Jobs seen as Failed or Abnormal in this time range, by user.",
            [
                Query(
                    f"count by (user) ({with_job_info(last_in_range(BAD_JOBS))})",
                    "{{user}}",
                    instant=True,
                )
            ],
            none="No job failed in this time range",
            decimals=0,
        ),
    ]


def worst_section() -> list[Builder]:
    """The jobs with the most restarts, and the most expensive failed jobs."""
    key = f"job, instance, {JOB}"
    number = total(increase(training_series("job_restarts_total", TARGET)), key)
    restarted = f"topk(20, {with_job_info(number)} > 0)"
    duration = last_in_range(training_series("job_duration_seconds", TARGET))
    cards = last_in_range(training_series("job_accelerators", TARGET))
    bad = last_in_range(BAD_JOBS)
    cost = f"({duration} * on ({key}) {cards} / 3600 and on ({key}) {bad})"
    most_expensive = f"topk(20, {with_job_info(cost)})"
    return [
        table_panel(
            "Jobs with the most restarts",
            "The 20 jobs with the most restarts in this time range, with their current phase (None: no "
            "longer exported) and their cards. Click a row for details.",
            [
                Query(f"round({restarted})"),
                Query(only_for(restarted, training_series("job_phase", TARGET), "phase")),
                Query(only_for(restarted, cards)),
                Query(hours(only_for(restarted, duration))),
            ],
            [
                JOB_NAME,
                Column("Value #A", "Restarts"),
                PHASE,
                Column("Value #C", "Cards"),
                Column("Value #D", "Ran for (h)"),
                USER,
                POOL_NAME,
                FLAVOR_TYPE,
                *PLACE,
            ],
            links=[TO_JOB, TO_CONSOLE],
            sort="Restarts",
        ),
        table_panel(
            "Most expensive failed jobs",
            "The 20 failed jobs in this time range that had used the most card-hours, with their exit "
            "code. Click a row for details.",
            [
                Query(f"round({most_expensive}, 0.1)"),
                Query(only_for(most_expensive, bad, "phase")),
                Query(only_for(most_expensive, cards)),
                Query(hours(only_for(most_expensive, duration))),
                Query(
                    only_for(
                        most_expensive,
                        last_in_range(training_series("job_exit_code", TARGET)),
                        "task",
                    )
                ),
            ],
            [
                JOB_NAME,
                Column("Value #A", "Card-hours"),
                PHASE,
                Column("Value #C", "Cards"),
                Column("Value #D", "Ran for (h)"),
                Column("Value #E", "Exit code"),
                Column("task", "Task"),
                USER,
                POOL_NAME,
                FLAVOR_TYPE,
                *PLACE,
            ],
            links=[TO_JOB, TO_CONSOLE],
            sort="Card-hours",
        ),
    ]


def reliability() -> model.Dashboard:
    """The dashboard."""
    return board(
        "reliability",
        "Reliability",
        "How often ModelArts training jobs are restarted and with which recovery policy, how long "
        "they run between failures, and what recoveries and failures cost in card-hours.",
        since="now-7d",
        refresh="5m",
        variables=[*scrape_variables(), *job_variables(), user_variable(), console_variable()],
        sections={
            "Summary": summary_section(),
            "Restarts and recoveries": restarts_section(),
            "Times": times_section(),
            "Cost": cost_section(),
            "Worst jobs": worst_section(),
        },
    )
