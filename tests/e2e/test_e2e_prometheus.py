"""What a real Prometheus knows after scraping the demo is what is true in the simulated region."""

import re
from collections import Counter

import aiohttp
import pytest
from e2e import prometheus as real
from process.program import get, scraped, values

pytestmark = pytest.mark.integration

REGION = ("--seed=11", "--jobs=300", "--rate=20")
"""Busy until it is paused."""

OPTIONS = (
    "--web.listen-address=127.0.0.1:0",
    "--poll.interval=1s",
    "--jobs.retention=100d",
    "--api.retries=0",
)
SAID = "WARNING poll failed: the service failed: 500 ModelArts.0010"
"""Without the text "Simulated fault.", since it resembles the secret key of the demo."""
ACTIVE = {"Creating", "Pending", "Running", "Terminating"}
POLLS = "modelarts_exporter_polls_total"
NEVER = (
    "prometheus_target_scrapes_sample_duplicate_timestamp_total",
    "prometheus_target_scrapes_sample_out_of_order_total",
    "prometheus_target_scrapes_sample_out_of_bounds_total",
    "prometheus_target_scrapes_exceeded_sample_limit_total",
    "prometheus_target_scrapes_exceeded_body_size_limit_total",
)


async def control(url, path, **document):
    """Ask the simulated service something, or tell it."""
    method = "POST" if document or path == "pause" else "GET"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{url}/-/sim/{path}", json=document or None) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return await answer.json()


@pytest.fixture(params=["PATH", "PROMETHEUS3_DIR"])
def where(request):
    real.binary(request.param)
    return request.param


@pytest.fixture
async def demo(start):
    """The URLs of the simulated service and of the exporter that reads it."""
    program = start("demo", *REGION, *OPTIONS)
    story = await program.said(r"service is at (\S+), the exporter at (\S+)\.\n")
    await program.said("Ctrl-C stops both")
    yield story.groups()
    assert await program.stops() == 0
    assert {line.partition(" (")[0] for line in program.log} <= {SAID}


@pytest.fixture
async def prometheus(start, tmp_path, where, demo):
    """Has scraped the demo a few times while much happened there."""
    prometheus = await real.running(start, tmp_path, where, demo[1].removeprefix("http://"))
    await prometheus.until("count_over_time(up[5m]) >= 4")
    return prometheus


async def paused(prometheus, demo):
    """What is true now and stays true, when Prometheus has seen it."""
    service, exporter = demo
    await control(service, "pause")
    labels = 'kind="incremental",result="success"'
    (polls,) = values(await scraped(exporter), POLLS, kind="incremental", result="success")
    # One may have been under way; the list is verified after each of them.
    await prometheus.until(f"{POLLS}{{{labels}}} >= {polls} + 4")
    return await control(service, "truth?jobs=1")


def summed(rows, *labels):
    total = Counter()
    for row in rows:
        total[tuple(row[label] for label in labels)] += row["value"]
    return dict(total)


def by_id(jobs, value):
    """What the truth has for each job; jobs for which that is None have no series."""
    found = {(job["id"],): value(job) for job in jobs}
    return {key: number for key, number in found.items() if number is not None}


async def the_fleet_is_right(prometheus, truth):
    base = ("workspace", "pool", "flavor_type")
    for metric, rows, labels in (
        ("modelarts_training_jobs", truth["jobs"], ("phase", "pool", "flavor_type")),
        ("modelarts_training_jobs", truth["jobs"], (*base, "phase")),
        ("modelarts_training_nodes", truth["nodes"], (*base, "phase")),
        ("modelarts_training_accelerators", truth["cards"], (*base, "phase", "accelerator")),
    ):
        answer = await prometheus.ask(f"sum by ({', '.join(labels)}) ({metric}) > 0", *labels)
        assert answer == summed(rows, *labels)
    zeros = await prometheus.ask(f"count by ({', '.join(base)}) (modelarts_training_jobs)", *base)
    assert zeros.keys() == summed(truth["jobs"], *base).keys()
    assert set(zeros.values()) == {8}
    answer = await prometheus.ask("modelarts_training_oldest_pending_timestamp_seconds", *base)
    assert answer == pytest.approx(summed(truth["oldest_pending"], *base), abs=0.001)


async def each_job_is_right(prometheus, truth):
    jobs = truth["facts"]
    active = [job for job in jobs if job["phase"] in ACTIVE]
    started = [job for job in jobs if job["started"] is not None]
    assert len(active) > 20
    assert len(started) > 200
    answer = await prometheus.ask("modelarts_training_job_phase", "job_id", "phase")
    assert answer.keys() >= {(job["id"], job["phase"]) for job in (*active, *started)}
    assert {key for key in answer if key[1] in ACTIVE} == {
        (job["id"], job["phase"]) for job in active
    }
    for name, some, value, exact in (
        ("created_timestamp_seconds", active, lambda job: job["created"], 0.001),
        ("start_timestamp_seconds", jobs, lambda job: job["started"], 0.001),
        ("end_timestamp_seconds", started, lambda job: job["ended"], 1),
        ("duration_seconds", active, lambda job: job["duration"], 1),
        ("nodes", active, lambda job: job["nodes_up" if job["phase"] == "Running" else "nodes"], 0),
        ("accelerators", active, lambda job: job["cards"], 0),
    ):
        metric = f"modelarts_training_job_{name}"
        shown = f'{metric} and on (job_id) modelarts_training_job_phase{{phase=~"{PHASES}"}}'
        answer = await prometheus.ask(shown if some is active else metric, "job_id")
        assert {key: number for key, number in answer.items() if number} == pytest.approx(
            {key: number for key, number in by_id(some, value).items() if number}, abs=exact
        ), name
    answer = await prometheus.ask("modelarts_training_job_exit_code", "job_id", "task")
    failures = [job for job in started if job["exit_code"]]
    assert len(failures) > 20
    assert answer == {(job["id"], job["failed_task"]): job["exit_code"] for job in failures}
    restarts = "modelarts_training_job_restarts_total"
    answer = await prometheus.ask(restarts, "job_id", "start_type", "recovery")
    assert answer == {
        (job["id"], restart["start_type"], restart["recovery"]): restart["count"]
        for job in started
        for restart in job["restarts"]
    }


PHASES = "|".join(sorted(ACTIVE))


async def the_join_of_the_readme_works(prometheus, truth):
    answer = await prometheus.ask(
        'modelarts_training_job_phase{phase=~"Failed|Abnormal"} * on (region, project, job_id) '
        "group_left (job_name, user, pool) modelarts_training_job_info",
        *("job_id", "job_name", "user", "pool"),
    )
    failed = {
        (job["id"], job["name"], job["user"], job["pool"])
        for job in truth["facts"]
        if job["phase"] in ("Failed", "Abnormal") and job["started"] is not None
    }
    assert failed
    assert answer.keys() >= failed


async def nothing_was_lost(prometheus):
    assert await prometheus.ask("min_over_time(up[10m])", "job") == {("modelarts",): 1}
    assert (await prometheus.ask("count_over_time(up[10m])", "job"))[("modelarts",)] >= 6
    scraped = await prometheus.ask("min_over_time(scrape_samples_scraped[10m])", "job")
    assert scraped[("modelarts",)] > 500
    assert await prometheus.ask(
        "max_over_time(scrape_samples_post_metric_relabeling[10m]) "
        "- max_over_time(scrape_samples_scraped[10m])",
        "job",
    ) == {("modelarts",): 0}
    assert {name: await prometheus.own(name) for name in NEVER} == dict.fromkeys(NEVER, 0)
    (target,) = (await prometheus.api("targets"))["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert not re.search("(?i)error|warn", prometheus.program.stderr)


async def openmetrics_was_negotiated(prometheus):
    """Only there the name of a counter's family does not end in ``_total``."""
    metadata = "targets/metadata"
    (found,) = await prometheus.api(metadata, metric="modelarts_exporter_polls")
    assert found["type"] == "counter"
    assert await prometheus.api(metadata, metric="modelarts_exporter_polls_total") == []


async def test_prometheus_knows_what_is_true(prometheus, demo):
    truth = await paused(prometheus, demo)
    await the_fleet_is_right(prometheus, truth)
    await each_job_is_right(prometheus, truth)
    await the_join_of_the_readme_works(prometheus, truth)
    await openmetrics_was_negotiated(prometheus)
    for query in (
        "sum by (result) (rate(modelarts_exporter_polls_total[1m]))",
        "sum by (code) (increase(modelarts_exporter_api_requests_total[1m]))",
        "histogram_quantile(0.9, rate(modelarts_exporter_poll_duration_seconds_bucket[1m]))",
    ):
        assert await prometheus.ask(query, "result", "code", "kind"), query

    # The service fails: the exporter says so, and keeps what it knows.
    await control(demo[0], "faults", do="status", status=500, code="ModelArts.0010")
    await prometheus.until("modelarts_up == 0")
    await the_fleet_is_right(prometheus, truth)
    assert (await get(f"{demo[1]}/-/ready"))[0] == 200
    await nothing_was_lost(prometheus)
