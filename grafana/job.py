"""The dashboard *Job*: the history of one job."""

from boards import annotation, board, console_variable, scrape_variables, single_variable
from grafana_foundation_sdk.models import dashboard as model
from lists import LONG_WAIT, PLACE, TO_CONSOLE, job_variables, user_variable
from panels import (
    PHASE_NUMBERS,
    POLL,
    Builder,
    Column,
    Query,
    stat_panel,
    state_timeline,
    table_panel,
    time_series,
)
from promql import (
    INFO,
    ONE_JOB,
    RATE,
    WAITING,
    increase,
    last_in_range,
    phases,
    total,
    training_series,
)

RESTARTS = training_series("job_restarts_total", ONE_JOB)
RESTARTED = 10
"""The number for a restart in the timeline; phases have lower numbers."""


def number(name: str) -> str:
    """The last value of one of the job's gauges."""
    return f"max({last_in_range(training_series(f'job_{name}', ONE_JOB))})"


def summary_section() -> list[Builder]:
    """The job and its outcome."""
    waits = training_series("job_phase", f"{ONE_JOB}, {WAITING}")
    queued = (
        f"({number('start_timestamp_seconds')} - {number('created_timestamp_seconds')}) or "
        f"(time() - {number('created_timestamp_seconds')} and max({waits}))"
    )
    info = last_in_range(training_series("job_info", ONE_JOB))
    kept = (
        "job_name, job_id, region, project, user, workspace, pool, pool_name, flavor_type, flavor, "
        "accelerator, engine, kind"
    )
    return [
        table_panel(
            "Job",
            "The job's name and owner, its pool and its hardware. There are several rows if this changed "
            "within the time range. Click a row for the ModelArts console.",
            [Query(f"max by ({kept}) ({info})")],
            [
                Column("job_name", "Job"),
                Column("user", "User"),
                Column("pool_name", "Pool"),
                Column("pool", "Pool ID"),
                Column("flavor_type", "Type"),
                Column("accelerator", "Card"),
                Column("flavor", "Flavor"),
                Column("engine", "Engine"),
                Column("kind", "Kind"),
                Column("workspace", "Workspace"),
                *PLACE,
            ],
            links=[TO_CONSOLE],
            height=4,
        ),
        stat_panel(
            "Phase",
            "The last phase seen. Finished jobs are exported for jobs.retention (1 h).",
            [Query(phases(ONE_JOB))],
            unit="none",
            texts=PHASE_NUMBERS,
            none="Unknown in this time range",
        ),
        stat_panel(
            "Exit code",
            "Exit code of the first task that failed, and the name of the task. 137: killed, often "
            "because it ran out of memory.",
            [
                Query(
                    f"max by (task) ({last_in_range(training_series('job_exit_code', ONE_JOB))})",
                    "{{task}}",
                    instant=True,
                )
            ],
            unit="none",
            colors=((None, "red"),),
            show="value_and_name",
            none="No failed task",
        ),
        stat_panel(
            "Restarts",
            "Runs after the first that started within the time range, as seen by the exporter. Select "
            "a range that covers the lifetime of the job to see all of them.",
            [Query(f"round({total(increase(RESTARTS))})", instant=True)],
            colors=((None, "green"), (1, "yellow"), (5, "red")),
            decimals=0,
            none="None seen",
        ),
        stat_panel(
            "Nodes",
            "Nodes that the job runs on now, or requested.",
            [Query(number("nodes"), instant=True)],
            none="Not reported",
        ),
        stat_panel(
            "Cards",
            "Cards (NPUs, GPUs) of the job: cards per node times nodes.",
            [Query(number("accelerators"), instant=True)],
            none="None, or not reported",
        ),
        stat_panel(
            "Card-hours",
            "Run time so far times cards.",
            [
                Query(
                    f"{number('duration_seconds')} * {number('accelerators')} / 3600",
                    instant=True,
                )
            ],
            decimals=1,
            none="No cards, or not reported",
        ),
        stat_panel(
            "Waited for",
            "From creation to the first start; until now if it is still waiting.",
            [Query(queued, instant=True)],
            unit="s",
            colors=LONG_WAIT,
            none="Never started",
        ),
        stat_panel(
            "Ran for",
            "Total run time of all runs so far.",
            [Query(number("duration_seconds"), instant=True)],
            unit="s",
            none="Has not run",
        ),
        *(
            stat_panel(
                title,
                text,
                [Query(f"{number(name)} * 1000", instant=True)],
                unit="dateTimeAsIso",
                none=none,
                width=8,
                height=3,
            )
            for title, text, name, none in (
                (
                    "Created",
                    "When the job was created.",
                    "created_timestamp_seconds",
                    "Unknown in this time range",
                ),
                (
                    "Started",
                    "When the job started for the first time.",
                    "start_timestamp_seconds",
                    "Has not started",
                ),
                (
                    "Ended",
                    "When the job ended, successfully or not.",
                    "end_timestamp_seconds",
                    "Has not ended, or never started",
                ),
            )
        ),
    ]


def timeline_section() -> list[Builder]:
    """Events over time."""
    restarted = f"({total(increase(RESTARTS, RATE))} > 0) * 0 + {RESTARTED}"
    return [
        state_timeline(
            "Timeline",
            "Phases of the job, and its restarts: each mark ends at the time of the restart, and is as "
            "long as the window in which the query looks for restarts.",
            [
                Query(phases(ONE_JOB), "phase", POLL),
                Query(restarted, "restarts", POLL),
            ],
            texts={**PHASE_NUMBERS, str(RESTARTED): ("Restarted", "orange")},
            none="This job is unknown in this time range: select a longer one",
            height=6,
        ),
        time_series(
            "Restarts by kind and recovery policy",
            "Restarts in windows of at least four minutes, by start type and by the policy with which "
            "the previous run was recovered.",
            [
                Query(
                    total(increase(RESTARTS, RATE), "start_type, recovery"),
                    "{{start_type}}, {{recovery}}",
                    POLL,
                )
            ],
            none="No restart in this time range",
            bars=True,
            width=8,
            calcs=("max",),
        ),
        time_series(
            "Nodes and cards",
            "Nodes that the job runs on, and its cards. Elastic jobs change them; a failed node shows as "
            "a dip.",
            [
                Query(f"max({training_series('job_nodes', ONE_JOB)})", "nodes", POLL),
                Query(f"max({training_series('job_accelerators', ONE_JOB)})", "cards", POLL),
            ],
            none="Not reported by the service",
            colors={"nodes": "blue", "cards": "green"},
            width=8,
            calcs=("lastNotNull", "min"),
        ),
        time_series(
            "Run time",
            "Total run time of the job. The line rises while the job runs, and is flat while it does "
            "not.",
            [Query(f"max({training_series('job_duration_seconds', ONE_JOB)})", "run time", POLL)],
            unit="s",
            none="The job did not run in this time range",
            colors={"run time": "green"},
            width=8,
            calcs=("lastNotNull",),
        ),
    ]


def job_variable() -> Builder:
    """Variable for the job: shows names and IDs, selects an ID."""
    labelled = f'label_join({INFO}, "text", " ", "job_name", "job_id")'
    return single_variable(
        "job_id",
        "Training job",
        f"query_result({labelled})",
        regex='/job_id="(?<value>[^"]+)".*text="(?<text>[^"]+)"/',
    )


def job() -> model.Dashboard:
    """The dashboard."""

    def mark(name: str, what: str, color: str) -> Builder:
        expr = (
            f"max by (job_id) ({training_series(f'job_{name}_timestamp_seconds', ONE_JOB)}) * 1000"
        )
        return annotation(what, expr, color=color, title=what, text="job {{job_id}}")

    return board(
        "job",
        "Job",
        "One ModelArts training job: its phases over time, restarts, exit code, nodes, cards and "
        "times. Pool, flavor type and user only filter the list of jobs.",
        since="now-24h",
        refresh="1m",
        variables=[
            *scrape_variables(),
            *job_variables(),
            user_variable("User"),
            job_variable(),
            console_variable(),
        ],
        annotations=[
            mark("created", "Created", "yellow"),
            mark("start", "Started", "green"),
            mark("end", "Ended", "blue"),
        ],
        sections={"Summary": summary_section(), "Over time": timeline_section()},
    )
