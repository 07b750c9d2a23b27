"""The dashboard *Job*: the story of one job."""

from boards import annotation, board, console_variable, one, scrape_variables
from grafana_foundation_sdk.models import dashboard as model
from lists import LONG_WAIT, PLACE, TO_CONSOLE, job_variables, user_variable
from panels import PHASE_NUMBERS, POLL, Builder, Column, Query, curves, rows, single, states
from promql import (
    INFO,
    ONE_JOB,
    RATE,
    WAITING,
    increase,
    lately,
    phases,
    total,
    training,
)

RESTARTS = training("job_restarts_total", ONE_JOB)
RESTARTED = 10
"""What the timeline shows for a restart; phases have lower numbers."""


def number(name: str) -> str:
    """The last value of one of the job's gauges."""
    return f"max({lately(training(f'job_{name}', ONE_JOB))})"


def story_section() -> list[Builder]:
    """What the job is, and what became of it."""
    waits = training("job_phase", f"{ONE_JOB}, {WAITING}")
    queued = (
        f"({number('start_timestamp_seconds')} - {number('created_timestamp_seconds')}) or "
        f"(time() - {number('created_timestamp_seconds')} and max({waits}))"
    )
    info = lately(training("job_info", ONE_JOB))
    kept = (
        "job_name, job_id, region, project, user, workspace, pool, pool_name, flavor_type, flavor, "
        "accelerator, engine, kind"
    )
    return [
        rows(
            "What it is",
            "The job's name and owner, and where and on what it runs. Several rows: this changed "
            "within the time range. Click on it for the "
            "ModelArts console.",
            [Query(f"max by ({kept}) ({info})")],
            [
                Column("job_name", "Job"),
                Column("user", "User"),
                Column("pool_name", "Pool"),
                Column("pool", "Pool id"),
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
        single(
            "Phase",
            "The last phase that was seen. Finished jobs are exported for jobs.retention (1 h).",
            [Query(phases(ONE_JOB))],
            unit="none",
            texts=PHASE_NUMBERS,
            none="Unknown in this time range",
        ),
        single(
            "Exit code",
            "Exit code of the first task that failed, and the task's name. 137: killed, often for "
            "lack of memory.",
            [
                Query(
                    f"max by (task) ({lately(training('job_exit_code', ONE_JOB))})",
                    "{{task}}",
                    instant=True,
                )
            ],
            unit="none",
            colors=((None, "red"),),
            show="value_and_name",
            none="No failed task",
        ),
        single(
            "Restarts",
            "Runs after the first that began within the time range, as seen by the exporter. "
            "Choose a range that covers the job's life to see all.",
            [Query(f"round({total(increase(RESTARTS))})", instant=True)],
            colors=((None, "green"), (1, "yellow"), (5, "red")),
            decimals=0,
            none="None seen",
        ),
        single(
            "Nodes",
            "Nodes that work on the job now, or that it asked for.",
            [Query(number("nodes"), instant=True)],
            none="Not told",
        ),
        single(
            "Cards",
            "Cards (NPUs, GPUs) of the job: cards per node times nodes.",
            [Query(number("accelerators"), instant=True)],
            none="None, or not told",
        ),
        single(
            "Card-hours",
            "Run time times cards so far.",
            [
                Query(
                    f"{number('duration_seconds')} * {number('accelerators')} / 3600",
                    instant=True,
                )
            ],
            decimals=1,
            none="No cards, or not told",
        ),
        single(
            "Waited for",
            "From the job's creation to its first start; while it waits, until now.",
            [Query(queued, instant=True)],
            unit="s",
            colors=LONG_WAIT,
            none="Never started",
        ),
        single(
            "Ran for",
            "How long the job has run so far, all its runs together.",
            [Query(number("duration_seconds"), instant=True)],
            unit="s",
            none="Has not run",
        ),
        *(
            single(
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
                    "When the job was submitted.",
                    "created_timestamp_seconds",
                    "Not known in this time range",
                ),
                (
                    "Started",
                    "When the job first started to run.",
                    "start_timestamp_seconds",
                    "Has not started",
                ),
                (
                    "Ended",
                    "When the job ended, in whatever way.",
                    "end_timestamp_seconds",
                    "Has not ended, or never started",
                ),
            )
        ),
    ]


def timeline_section() -> list[Builder]:
    """What happened when."""
    restarted = f"({total(increase(RESTARTS, RATE))} > 0) * 0 + {RESTARTED}"
    return [
        states(
            "Timeline",
            "The job's phases, and when a restart was counted: each mark ends at the moment, and "
            "is as long as the window in which the query looks for restarts.",
            [
                Query(phases(ONE_JOB), "phase", POLL),
                Query(restarted, "restarts", POLL),
            ],
            texts={**PHASE_NUMBERS, str(RESTARTED): ("Restarted", "orange")},
            none="This job is not known in this time range: choose a wider one",
            height=6,
        ),
        curves(
            "Restarts by kind and recovery policy",
            "Restarts within windows of at least four minutes, by start type and by the policy "
            "with which the run before was recovered.",
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
        curves(
            "Nodes and cards",
            "How many nodes work on the job, and its cards. Elastic jobs change them; a node that "
            "fails shows as a dip.",
            [
                Query(f"max({training('job_nodes', ONE_JOB)})", "nodes", POLL),
                Query(f"max({training('job_accelerators', ONE_JOB)})", "cards", POLL),
            ],
            none="Not told by the service",
            colors={"nodes": "blue", "cards": "green"},
            width=8,
            calcs=("lastNotNull", "min"),
        ),
        curves(
            "Run time",
            "How long the job has run. The line climbs while it runs and is level while it does "
            "not.",
            [Query(f"max({training('job_duration_seconds', ONE_JOB)})", "run time", POLL)],
            unit="s",
            none="The job did not run in this time range",
            colors={"run time": "green"},
            width=8,
            calcs=("lastNotNull",),
        ),
    ]


def job_variable() -> Builder:
    """The job: found by name, told by id."""
    labelled = f'label_join({INFO}, "text", " ", "job_name", "job_id")'
    return one(
        "job_id",
        "Training job",
        f"query_result({labelled})",
        regex='/job_id="(?<value>[^"]+)".*text="(?<text>[^"]+)"/',
    )


def job() -> model.Dashboard:
    """The dashboard."""

    def mark(name: str, what: str, color: str) -> Builder:
        expr = f"max by (job_id) ({training(f'job_{name}_timestamp_seconds', ONE_JOB)}) * 1000"
        return annotation(what, expr, color=color, title=what, text="job {{job_id}}")

    return board(
        "job",
        "Job",
        "One ModelArts training job: its phases over time, restarts, exit code, nodes, cards and "
        "times. Pools, flavor types and users only narrow the list of jobs.",
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
        sections={"Story": story_section(), "Over time": timeline_section()},
    )
