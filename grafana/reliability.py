"""The dashboard *Reliability*: restarts, recoveries, failures, and the card time that they cost."""

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
from panels import COLORS, POLL, SPARSE, Builder, Column, Query, curves, ranking, rows, single
from promql import (
    BAD,
    FLEET,
    JOB,
    RANGE,
    TARGET,
    by_pool,
    identified,
    increase,
    lately,
    of,
    quantile,
    rate,
    share,
    total,
    training,
)

RESTARTS = training("restarts_total")
DOWNGRADES = training("recovery_downgrades_total")
LOST = training("recovery_accelerator_seconds_total")
ATTEMPTS = training("attempt_duration_seconds_bucket")
GAPS = training("recovery_duration_seconds_bucket")
BAD_JOBS = training("job_phase", f"{TARGET}, {BAD}")
ABNORMAL = 'phase="Abnormal"'
QUIET = "No restart in this time range"
LEFT = "{{recovery}}"


def spent(phases: str = "") -> str:
    """Card seconds of finished jobs, of some phases."""
    return training("finished_accelerator_seconds_total", f"{FLEET}, {phases}" if phases else FLEET)


def mean(histogram: str, growth: str, by: str = "") -> str:
    """The mean of what a histogram observed; nothing where it observed nothing.

    Args:
        histogram: its name.
        growth: ``rate``, or ``increase`` over all that the dashboard shows.
        by: labels to keep.
    """
    grown = rate if growth == "rate" else increase
    return share(grown(training(f"{histogram}_sum")), grown(training(f"{histogram}_count")), by)


def summary_section() -> list[Builder]:
    """The whole time range in one line."""
    return [
        single(
            "Restarts",
            "Runs of jobs after their first, in this time range: how often the platform (or a "
            "user) started a job again.",
            [Query(f"round({total(increase(RESTARTS))})", instant=True)],
            none="None seen",
            colors=((None, "green"), (1, "yellow")),
            decimals=0,
        ),
        single(
            "Downgraded recoveries",
            "Recoveries for which the service had to fall back from a gentle policy (such as "
            "restarting a process) to a harder one (such as rescheduling the whole job).",
            [Query(f"round({total(increase(DOWNGRADES))})", instant=True)],
            none="None seen",
            colors=((None, "green"), (1, "orange")),
            decimals=0,
        ),
        single(
            "Mean time between failures",
            "How long a run of a job lasted, on average, before something ended it from which the "
            "job was recovered.",
            [Query(mean("attempt_duration_seconds", "increase"), instant=True)],
            unit="s",
            none=QUIET,
        ),
        single(
            "Median recovery time",
            "Half of the recoveries took less than this from the end of one run to the start of "
            "the next. Read from a histogram, so roughly.",
            [Query(quantile(0.5, GAPS, span=RANGE), instant=True)],
            unit="s",
            none=QUIET,
            colors=((None, "green"), (300, "yellow"), (1800, "red")),
        ),
        single(
            "Card-hours lost to recovery",
            "Cards of a job times the hours between two of its runs, when they did nothing.",
            [Query(f"{total(increase(LOST))} / 3600", instant=True)],
            none="None seen",
            colors=((None, "orange"),),
            decimals=1,
        ),
        single(
            "Card-hours in failed runs",
            "All that jobs which ended Failed or Abnormal in this time range had run, times their "
            "cards. Not all of it is lost if they wrote checkpoints.",
            [Query(f"{total(increase(spent(BAD)))} / 3600", instant=True)],
            none="None seen",
            colors=((None, "red"),),
            decimals=1,
        ),
        single(
            "Share of failed card-hours",
            "Of the card-hours of all jobs that ended in this time range, the share of those that "
            "ended Failed or Abnormal.",
            [Query(share(increase(spent(BAD)), increase(spent())), instant=True)],
            unit="percentunit",
            none="No failed runs",
            colors=((None, "green"), (0.1, "yellow"), (0.3, "red")),
            decimals=1,
        ),
        single(
            "Abnormal jobs",
            "Jobs that ended Abnormal in this time range: the platform's failure, not their own.",
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
    """Restarts and recoveries by policy, and downgrades."""
    return [
        curves(
            "Restarts by recovery policy",
            "Restarts per hour, by the policy with which the run before was recovered (end_recover "
            "of the service), such as npu_step_retry, proc_restart, pod_reschedule or "
            "job_reschedule; unknown: it named none.",
            [Query(f"{total(rate(RESTARTS), 'recovery')} * 3600", LEFT, POLL)],
            none=QUIET,
            bars=True,
            axis="restarts per hour",
            calcs=("mean", "max"),
        ),
        curves(
            "Downgraded recoveries by policy",
            "Recoveries per hour whose first policy did not work: which one was tried, and which "
            "one it became.",
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
        ranking(
            "Recoveries by policy",
            "Restarts in this time range by the policy that led to them.",
            [Query(f"round({total(increase(RESTARTS), 'recovery')})", LEFT, instant=True)],
            none=QUIET,
            decimals=0,
        ),
        ranking(
            "Restarts by kind",
            "init_or_rescheduled: the job got new processes, perhaps on other nodes; restarted: in "
            "place.",
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
        ranking(
            "Restarts by pool",
            "Where jobs are restarted most often, in this time range. A pool with bad hardware "
            "stands out.",
            [Query(f"round({by_pool(increase(RESTARTS))})", "{{pool_name}}", instant=True)],
            none=QUIET,
            decimals=0,
        ),
    ]


def times_section() -> list[Builder]:
    """Time between failures, and recovery time."""
    return [
        curves(
            "Time between failures",
            "How long runs lasted on average before they ended in a recovery, by the policy that "
            "followed, in windows of at least an hour. Higher is better. Gaps: no such recovery.",
            [Query(mean("attempt_duration_seconds", "rate", "recovery"), LEFT, SPARSE)],
            unit="s",
            none=QUIET,
            sparse=True,
            calcs=("mean", "min"),
        ),
        curves(
            "Recovery time",
            "From the end of one run to the start of the next, by policy, on average in windows of "
            "at least an hour. Lower is better.",
            [Query(mean("recovery_duration_seconds", "rate", "recovery"), LEFT, SPARSE)],
            unit="s",
            none=QUIET,
            sparse=True,
            calcs=("mean", "max"),
        ),
        ranking(
            "Median time between failures by policy",
            "Half of the runs that ended in this time range with such a recovery had lasted longer "
            "than this.",
            [Query(quantile(0.5, ATTEMPTS, "recovery", RANGE), LEFT, instant=True)],
            unit="s",
            none=QUIET,
        ),
        ranking(
            "Recovery time by policy, 90th percentile",
            "Nine of ten recoveries in this time range took less than this.",
            [Query(quantile(0.9, GAPS, "recovery", RANGE), LEFT, instant=True)],
            unit="s",
            none=QUIET,
        ),
        ranking(
            "Run time of ended jobs, median",
            "How long jobs had run that ended in this time range. Failed jobs that ran long are "
            "dear; those that fail at once have a wrong configuration, most likely.",
            [
                Query(
                    quantile(0.5, training("run_duration_seconds_bucket"), "phase", RANGE),
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
    """Card time that is lost."""
    return [
        curves(
            "Cards idle in recovery",
            "Card-hours that pass between two runs of a job, per hour: so many cards were waiting "
            "for their job on average. Each gap counts at once when the next run starts.",
            [Query(total(rate(LOST), "recovery"), LEFT, POLL)],
            none=QUIET,
            stacked=True,
            axis="cards",
            calcs=("mean", "max"),
        ),
        curves(
            "Card-hours of ended jobs by phase",
            "Card-hours of jobs that end, per hour, by how they ended; all that a job has run "
            "counts at its end.",
            [Query(total(rate(spent()), "phase"), "{{phase}}", POLL)],
            none="No job with cards ended in this time range",
            colors=COLORS,
            bars=True,
            axis="card-hours per hour",
            calcs=("mean", "max"),
        ),
        ranking(
            "Card-hours lost to recovery by pool",
            "Cards times hours between two runs of a job, in this time range.",
            [Query(f"{by_pool(increase(LOST))} / 3600", "{{pool_name}}", instant=True)],
            none=QUIET,
            decimals=1,
        ),
        ranking(
            "Card-hours in failed runs by pool",
            "Card-hours of jobs that ended Failed or Abnormal in this time range.",
            [Query(f"{by_pool(increase(spent(BAD)))} / 3600", "{{pool_name}}", instant=True)],
            none="No job with cards failed in this time range",
            decimals=1,
        ),
        ranking(
            "Failed jobs by user",
            "Whose jobs were seen Failed or Abnormal in this time range.",
            [
                Query(
                    f"count by (user) ({identified(lately(BAD_JOBS))})",
                    "{{user}}",
                    instant=True,
                )
            ],
            none="No job failed in this time range",
            decimals=0,
        ),
    ]


def worst_section() -> list[Builder]:
    """The jobs that restarted most, and those whose failure cost most."""
    key = f"job, instance, {JOB}"
    number = total(increase(training("job_restarts_total", TARGET)), key)
    restarted = f"topk(20, {identified(number)} > 0)"
    duration = lately(training("job_duration_seconds", TARGET))
    cards = lately(training("job_accelerators", TARGET))
    bad = lately(BAD_JOBS)
    cost = f"({duration} * on ({key}) {cards} / 3600 and on ({key}) {bad})"
    dearest = f"topk(20, {identified(cost)})"
    return [
        rows(
            "Jobs with most restarts",
            "The 20 jobs that were restarted most often in this time range, with their phase now "
            "(None: not exported any more) and their cards. Click on a row for more.",
            [
                Query(f"round({restarted})"),
                Query(of(restarted, training("job_phase", TARGET), "phase")),
                Query(of(restarted, cards)),
                Query(hours(of(restarted, duration))),
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
        rows(
            "Dearest failed jobs",
            "The 20 failed jobs of this time range that had used most card-hours, with their exit "
            "code. Click on a row for more.",
            [
                Query(f"round({dearest}, 0.1)"),
                Query(of(dearest, bad, "phase")),
                Query(of(dearest, cards)),
                Query(hours(of(dearest, duration))),
                Query(of(dearest, lately(training("job_exit_code", TARGET)), "task")),
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
        "How often ModelArts training jobs are restarted, with which recovery policy, how long "
        "they run between failures, and the card time that recoveries and failures cost.",
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
