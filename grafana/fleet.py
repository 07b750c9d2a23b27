"""The dashboard *Fleet overview*: running, waiting and failed jobs, and the use of cards."""

from boards import annotation, board, console_variable, scrape_variables
from grafana_foundation_sdk.models import dashboard as model
from lists import (
    AGE,
    COMPLETED,
    ENDED,
    IN_USE,
    LONG_WAIT,
    RUNNING,
    cards,
    failures,
    finished,
    job_variables,
    jobs,
    pools,
    user_variable,
    waiting,
)
from panels import (
    COLORS,
    POLL,
    SPARSE,
    Builder,
    Query,
    bar_gauge,
    stat_panel,
    time_series,
)
from promql import (
    BAD,
    INFO_NOW,
    JOB,
    RANGE,
    TARGET,
    WAITING,
    by_pool,
    increase,
    quantile,
    rate,
    share,
    total,
    training_series,
    with_job_info,
)


def now_section() -> list[Builder]:
    """The current state, in one row."""
    return [
        stat_panel(
            "Data",
            "Whether the last poll of every selected target succeeded. If not, the numbers below are "
            "outdated; see the Exporter dashboard.",
            [Query(f"min(modelarts_up{{{TARGET}}})")],
            unit="none",
            texts={"1": ("Current", "green"), "0": ("Failing", "red")},
            none="No exporter",
        ),
        stat_panel(
            "Running jobs",
            "Training jobs currently in the phase Running.",
            [Query(total(jobs(RUNNING)))],
            colors=((None, COLORS["Running"]),),
            graph=True,
            none="No data",
        ),
        stat_panel(
            "Waiting jobs",
            "Training jobs currently in the phase Creating or Pending: accepted, but not started.",
            [Query(total(jobs(WAITING)))],
            colors=((None, COLORS["Pending"]),),
            graph=True,
            none="No data",
        ),
        stat_panel(
            "Oldest waiting job",
            "How long the oldest waiting job has been waiting.",
            [Query(f"max({AGE})")],
            unit="s",
            colors=LONG_WAIT,
            decimals=0,
            none="None waiting",
        ),
        stat_panel(
            "Cards in use",
            "Cards (NPUs, GPUs) of jobs that are Running or Terminating. Jobs that do not report their "
            "cards are not included.",
            [Query(total(cards(IN_USE)))],
            colors=((None, COLORS["Running"]),),
            graph=True,
            none="No cards seen",
        ),
        stat_panel(
            "Cards queued",
            "Cards requested by waiting jobs.",
            [Query(total(cards(WAITING)))],
            colors=((None, COLORS["Pending"]),),
            graph=True,
            none="No cards seen",
        ),
        stat_panel(
            "Failed jobs",
            "Jobs that ended as Failed or Abnormal in this time range.",
            [Query(f"round({total(increase(finished(BAD)))})", instant=True)],
            colors=((None, "green"), (1, "red")),
            decimals=0,
            none="No data",
        ),
        stat_panel(
            "Success rate",
            "The share of jobs that Completed, of those that ended on their own in this time range. "
            "Jobs stopped by users (Terminated) do not count.",
            [
                Query(
                    share(increase(finished(COMPLETED)), increase(finished(ENDED))),
                    instant=True,
                )
            ],
            unit="percentunit",
            colors=((None, "red"), (0.8, "yellow"), (0.95, "green")),
            decimals=1,
            none="None ended",
        ),
    ]


def jobs_section() -> list[Builder]:
    """Jobs by phase, and how they ended."""
    return [
        time_series(
            "Active jobs by phase",
            "Jobs that have not ended. Creating: being set up; Pending: waiting for resources; "
            "Running; Terminating: being stopped.",
            [
                Query(
                    total(jobs('phase=~"Creating|Pending|Running|Terminating|Unknown"'), "phase"),
                    "{{phase}}",
                    POLL,
                )
            ],
            colors=COLORS,
            stacked=True,
            axis="jobs",
        ),
        time_series(
            "Ended jobs by phase",
            "Jobs that ended, per hour. Completed: successfully; Failed: with an error; Abnormal: a "
            "failure of the platform; Terminated: stopped by a user.",
            [
                Query(
                    f"{total(rate(training_series('jobs_finished_total')), 'phase')} * 3600",
                    "{{phase}}",
                    POLL,
                )
            ],
            colors=COLORS,
            bars=True,
            axis="jobs per hour",
            calcs=("mean", "max"),
        ),
        time_series(
            "Success rate by pool",
            "The share of jobs that Completed, of those that ended on their own, in windows of at "
            "least an hour. Gaps: no job ended.",
            [
                Query(
                    f"{by_pool(rate(finished(COMPLETED)))} / "
                    f"({by_pool(rate(finished(ENDED)))} > 0)",
                    "{{pool_name}}",
                    SPARSE,
                )
            ],
            unit="percentunit",
            highest=1,
            sparse=True,
            width=8,
            calcs=("lastNotNull", "min"),
            none="No job ended in this time range",
        ),
        time_series(
            "Created jobs by pool",
            "New jobs per hour, a measure of demand.",
            [
                Query(
                    f"{by_pool(rate(training_series('jobs_created_total')))} * 3600",
                    "{{pool_name}}",
                    POLL,
                )
            ],
            bars=True,
            axis="jobs per hour",
            width=8,
            calcs=("mean", "max"),
            none="No pool has been seen yet",
        ),
        bar_gauge(
            "Listed jobs by phase",
            "All jobs that the service currently lists, including finished jobs (as far back as "
            "jobs.history allows).",
            [Query(total(training_series("jobs"), "phase"), "{{phase}}", instant=True)],
            colors=COLORS,
            none="No jobs",
        ),
    ]


def cards_section() -> list[Builder]:
    """Cards by pool and type."""
    return [
        time_series(
            "Cards in use by pool",
            "Cards of jobs that are Running or Terminating.",
            [Query(by_pool(cards(IN_USE)), "{{pool_name}}", POLL)],
            stacked=True,
            axis="cards",
            none="No job with cards has been seen",
        ),
        time_series(
            "Cards queued by pool",
            "Cards requested by jobs in the phase Creating or Pending. A constantly high value means "
            "that the pool is too small.",
            [Query(by_pool(cards(WAITING)), "{{pool_name}}", POLL)],
            stacked=True,
            axis="cards",
            none="No job with cards has been seen",
        ),
        time_series(
            "Cards in use by type",
            "Cards of jobs that are Running or Terminating, by product name of the card, or unknown if "
            "the service does not report it.",
            [
                Query(
                    total(cards(IN_USE), "flavor_type, accelerator"),
                    "{{flavor_type}} {{accelerator}}",
                    POLL,
                )
            ],
            stacked=True,
            axis="cards",
            none="No job with cards has been seen",
        ),
        time_series(
            "Cards queued by type",
            "Cards requested by waiting jobs, by product name of the card.",
            [
                Query(
                    total(cards(WAITING), "flavor_type, accelerator"),
                    "{{flavor_type}} {{accelerator}}",
                    POLL,
                )
            ],
            stacked=True,
            axis="cards",
            none="No job with cards has been seen",
        ),
        pools(),
        bar_gauge(
            "Card-hours used by pool",
            "Run time of jobs times their cards, within this time range: the basis of the cost.",
            [
                Query(
                    f"{by_pool(increase(training_series('accelerator_seconds_total')))} / 3600",
                    "{{pool_name}}",
                    instant=True,
                )
            ],
            decimals=1,
            width=12,
            height=9,
            none="No job with cards has been seen",
        ),
    ]


def queue_section() -> list[Builder]:
    """Waiting times."""
    queue = training_series("queue_duration_seconds_bucket")
    return [
        time_series(
            "Oldest waiting job by pool",
            "How long the oldest job in the phase Creating or Pending has been waiting. A line that "
            "keeps rising is a job that is stuck.",
            [
                Query(
                    by_pool(f"({AGE})", operator="max"),
                    "{{pool_name}}",
                    POLL,
                )
            ],
            unit="s",
            limits=((None, "transparent"), *LONG_WAIT[1:]),
            none="No job waited in this time range",
        ),
        time_series(
            "Time in the queue",
            "How long jobs had waited when they started, in windows of at least an hour: half of them "
            "less than the median, 90% less than the 90th percentile. Estimated from a histogram. "
            "Gaps: no job started.",
            [
                Query(quantile(0.5, queue), "median", SPARSE),
                Query(quantile(0.9, queue), "90th percentile", SPARSE),
                Query(quantile(0.99, queue), "99th percentile", SPARSE),
            ],
            unit="s",
            colors={
                "median": "green",
                "90th percentile": "yellow",
                "99th percentile": "red",
            },
            sparse=True,
            none="No job started in this time range",
        ),
        bar_gauge(
            "Time in the queue by flavor type, 90th percentile",
            "90% of the jobs that started in this time range had waited less than this.",
            [
                Query(
                    quantile(0.9, queue, "flavor_type", RANGE),
                    "{{flavor_type}}",
                    instant=True,
                )
            ],
            unit="s",
            width=8,
            height=9,
            none="No job started in this time range",
        ),
        waiting(),
    ]


def fleet() -> model.Dashboard:
    """The dashboard."""
    ended = training_series("job_end_timestamp_seconds", TARGET)
    bad = training_series("job_phase", f"{TARGET}, {BAD}")
    return board(
        "fleet",
        "Fleet overview",
        "Training jobs on Huawei Cloud ModelArts: what is running, what is waiting and for how long, "
        "what failed, and who uses the cards. Data from modelarts-exporter.",
        since="now-24h",
        refresh="1m",
        variables=[*scrape_variables(), *job_variables(), user_variable(), console_variable()],
        annotations=[
            annotation(
                "Failures",
                f"{with_job_info(f'{ended} * 1000', info=INFO_NOW)} and on ({JOB}) {bad}",
                color="red",
                title="{{job_name}} failed",
                text="{{user}}, pool {{pool_name}}, job {{job_id}}",
                tags="pool_name,user",
            )
        ],
        sections={
            "Now": now_section(),
            "Failures": [failures()],
            "Jobs": jobs_section(),
            "Cards": cards_section(),
            "Queue": queue_section(),
        },
    )
