"""The dashboard *Fleet overview*: what runs, what waits, what failed, who has the cards."""

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
    curves,
    ranking,
    single,
)
from promql import (
    BAD,
    INFO_NOW,
    JOB,
    RANGE,
    TARGET,
    WAITING,
    by_pool,
    identified,
    increase,
    quantile,
    rate,
    share,
    total,
    training,
)


def now_section() -> list[Builder]:
    """What is, in one line."""
    return [
        single(
            "Data",
            "Whether the exporter could read every chosen target at its last poll. If not, the "
            "numbers below are old; see the dashboard Exporter.",
            [Query(f"min(modelarts_up{{{TARGET}}})")],
            unit="none",
            texts={"1": ("Current", "green"), "0": ("Failing", "red")},
            none="No exporter",
        ),
        single(
            "Running jobs",
            "Training jobs in the phase Running now.",
            [Query(total(jobs(RUNNING)))],
            colors=((None, COLORS["Running"]),),
            graph=True,
            none="No data",
        ),
        single(
            "Waiting jobs",
            "Training jobs that are Creating or Pending now: accepted, but not started.",
            [Query(total(jobs(WAITING)))],
            colors=((None, COLORS["Pending"]),),
            graph=True,
            none="No data",
        ),
        single(
            "Oldest waiting job",
            "How long the job that was created first, of those that still wait, has waited.",
            [Query(f"max({AGE})")],
            unit="s",
            colors=LONG_WAIT,
            decimals=0,
            none="None waits",
        ),
        single(
            "Cards in use",
            "Cards (NPUs, GPUs) of jobs that are Running or Terminating. Jobs that do not tell "
            "their cards are left out.",
            [Query(total(cards(IN_USE)))],
            colors=((None, COLORS["Running"]),),
            graph=True,
            none="No cards seen",
        ),
        single(
            "Cards queued",
            "Cards that the waiting jobs ask for.",
            [Query(total(cards(WAITING)))],
            colors=((None, COLORS["Pending"]),),
            graph=True,
            none="No cards seen",
        ),
        single(
            "Failed jobs",
            "Jobs that ended Failed or Abnormal in this time range.",
            [Query(f"round({total(increase(finished(BAD)))})", instant=True)],
            colors=((None, "green"), (1, "red")),
            decimals=0,
            none="No data",
        ),
        single(
            "Success rate",
            "Of the jobs that ended by themselves in this time range, the share that Completed. "
            "Jobs that somebody stopped (Terminated) do not count.",
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
    """Jobs by phase, and how they end."""
    return [
        curves(
            "Active jobs by phase",
            "Jobs that have not ended. Creating: being set up; Pending: waits for resources; "
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
        curves(
            "Ended jobs by phase",
            "Jobs that end, per hour. Completed: by themselves; Failed: with an error; Abnormal: "
            "the platform's failure; Terminated: somebody stopped them.",
            [
                Query(
                    f"{total(rate(training('jobs_finished_total')), 'phase')} * 3600",
                    "{{phase}}",
                    POLL,
                )
            ],
            colors=COLORS,
            bars=True,
            axis="jobs per hour",
            calcs=("mean", "max"),
        ),
        curves(
            "Success rate by pool",
            "Of the jobs that ended by themselves, the share that Completed, in windows of at "
            "least an hour. Gaps: none ended.",
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
        curves(
            "Created jobs by pool",
            "New jobs per hour: the demand.",
            [
                Query(
                    f"{by_pool(rate(training('jobs_created_total')))} * 3600",
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
        ranking(
            "Listed jobs by phase",
            "All jobs that the service lists now, finished ones too (as far back as jobs.history "
            "says).",
            [Query(total(training("jobs"), "phase"), "{{phase}}", instant=True)],
            colors=COLORS,
            none="No jobs",
        ),
    ]


def cards_section() -> list[Builder]:
    """Cards by pool and type."""
    return [
        curves(
            "Cards in use by pool",
            "Cards of jobs that are Running or Terminating.",
            [Query(by_pool(cards(IN_USE)), "{{pool_name}}", POLL)],
            stacked=True,
            axis="cards",
            none="No job with cards has been seen",
        ),
        curves(
            "Cards queued by pool",
            "Cards that jobs in Creating or Pending ask for. What stays here for long is missing.",
            [Query(by_pool(cards(WAITING)), "{{pool_name}}", POLL)],
            stacked=True,
            axis="cards",
            none="No job with cards has been seen",
        ),
        curves(
            "Cards in use by type",
            "The same by the product name of the card, or unknown where the service does not tell "
            "it.",
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
        curves(
            "Cards queued by type",
            "Cards that waiting jobs ask for, by the product name of the card.",
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
        ranking(
            "Card-hours used by pool",
            "Run time of jobs times their cards, within this time range: what is paid for.",
            [
                Query(
                    f"{by_pool(increase(training('accelerator_seconds_total')))} / 3600",
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
    """How long jobs wait."""
    queue = training("queue_duration_seconds_bucket")
    return [
        curves(
            "Oldest waiting job by pool",
            "How long the oldest job in Creating or Pending has waited. A line that climbs without "
            "end is a job that nothing moves.",
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
        curves(
            "Time in the queue",
            "How long jobs that started had waited since their creation, in windows of at least an "
            "hour: half of them less than the median, nine of ten less than the 90th percentile. "
            "Read from a histogram, so roughly. Gaps: none started.",
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
        ranking(
            "Time in the queue by flavor type, 90th percentile",
            "Nine of ten jobs that started in this time range had waited less than this.",
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
    ended = training("job_end_timestamp_seconds", TARGET)
    bad = training("job_phase", f"{TARGET}, {BAD}")
    return board(
        "fleet",
        "Fleet overview",
        "Training jobs on Huawei Cloud ModelArts: what runs, what waits and since when, what "
        "failed, and who has the cards. Read by modelarts-exporter.",
        since="now-24h",
        refresh="1m",
        variables=[*scrape_variables(), *job_variables(), user_variable(), console_variable()],
        annotations=[
            annotation(
                "Failures",
                f"{identified(f'{ended} * 1000', info=INFO_NOW)} and on ({JOB}) {bad}",
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
