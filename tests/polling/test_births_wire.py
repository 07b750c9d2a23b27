"""Born at zero, for a Prometheus that scrapes the real web server."""

import aiohttp
import pytest
from polling.rig import until

from exporter.web.listen import serve
from exporter.web.server import make_app

FAILED = "modelarts_training_jobs_finished_total"
CREATED = "modelarts_training_jobs_created_total"
RESTARTS = "modelarts_training_restarts_total"
OF_JOB = "modelarts_training_job_restarts_total"
GAPS = "modelarts_training_recovery_duration_seconds_count"
PROMETHEUS = {"X-Prometheus-Scrape-Timeout-Seconds": "10"}


@pytest.fixture
async def scrape(rig):
    """Reads /metrics as Prometheus does, or as somebody else."""
    app = make_app(rig.publisher, scraped=rig.publisher.scraped)
    async with serve(app, [("127.0.0.1", 0)]) as (url,), aiohttp.ClientSession() as session:

        async def scrape(*, prometheus=True):
            headers = PROMETHEUS if prometheus else {}
            async with session.get(f"{url}/metrics", headers=headers) as answer:
                assert answer.status == 200
                await answer.read()

        yield scrape


@pytest.fixture
async def poller(rig, clock):
    """It has seen one running job; nothing has been scraped."""
    await rig.serve()
    (rig.job,) = rig.populate(1)
    rig.fleet.start(rig.job)
    clock.patience = 1.0
    poller = await rig.add(sweep_interval=1e6)
    async with rig.running(poller):
        await rig.polled(poller, 1)
        yield poller


async def minute(rig, clock, poller, number):
    """Let one more poll end."""
    clock.passes_until(60 * number)
    await rig.polled(poller, number + 1)


async def second_later(rig, clock):
    clock.passes(1.5)
    for _ in range(5):
        await rig.breathe()


def restarts(rig):
    return rig.value(RESTARTS), rig.value(OF_JOB), rig.value(GAPS)


async def test_what_can_be_foreseen_is_there_at_zero_from_the_first_poll(rig, poller):
    assert rig.value(CREATED) == rig.value(FAILED) == 0
    assert rig.label_values(FAILED, "phase") == {"Completed", "Failed", "Terminated", "Abnormal"}
    assert restarts(rig) == (None, None, None)


async def test_a_series_that_is_known_shows_its_events_at_once(rig, clock, poller, scrape):
    await scrape()
    await minute(rig, clock, poller, 1)
    await second_later(rig, clock)
    rig.fleet.finish(rig.job, "Failed")
    rig.fleet.create()

    await minute(rig, clock, poller, 2)

    assert rig.value(FAILED, phase="Failed") == rig.value(CREATED) == 1


async def test_a_series_born_with_its_event_is_zero_for_an_interval(rig, clock, poller):
    """Nobody scrapes: then the interval is all it waits for."""
    rig.fleet.recover(rig.job, "proc_restart", gap=30.0)
    await minute(rig, clock, poller, 1)
    assert restarts(rig) == (0, 0, 0)
    clock.passes(50)
    await second_later(rig, clock)
    assert restarts(rig) == (0, 0, 0)

    await minute(rig, clock, poller, 2)
    await second_later(rig, clock)

    assert restarts(rig) == (1, 1, 1)
    assert poller.ended_polls == 3


async def test_it_waits_for_a_scrape_that_has_seen_the_zero(rig, clock, poller, scrape):
    await scrape()
    rig.fleet.recover(rig.job, "proc_restart", gap=30.0)
    for number in (1, 2, 3):
        await minute(rig, clock, poller, number)
        await second_later(rig, clock)
        await scrape(prometheus=False)
        assert restarts(rig) == (0, 0, 0)

    await scrape()
    await until(lambda: restarts(rig) == (1, 1, 1))

    assert poller.ended_polls == 4  # no poll was needed


async def test_a_scrape_of_an_earlier_generation_is_none(rig, clock, poller, scrape):
    rig.fleet.recover(rig.job, "proc_restart", gap=30.0)
    await scrape()
    await minute(rig, clock, poller, 1)
    await minute(rig, clock, poller, 2)
    await second_later(rig, clock)

    assert restarts(rig) == (0, 0, 0)


async def test_but_not_for_more_than_five_minutes(rig, clock, poller, scrape):
    await scrape()
    rig.fleet.recover(rig.job, "proc_restart", gap=30.0)
    for number in range(1, 6):
        await minute(rig, clock, poller, number)
        await second_later(rig, clock)
        assert restarts(rig) == (0, 0, 0)
    clock.passes_until(358)
    await second_later(rig, clock)
    assert restarts(rig) == (0, 0, 0)

    clock.passes_until(362)

    await until(lambda: restarts(rig) == (1, 1, 1))


async def test_a_pool_never_seen_before(rig, clock, poller, scrape):
    await scrape()
    job = rig.fleet.create(pool="vision")
    rig.fleet.start(job)
    rig.fleet.finish(job, "Failed")
    pool = job.pool.label
    await minute(rig, clock, poller, 1)
    assert rig.value(FAILED, pool=pool) == rig.value(CREATED, pool=pool) == 0
    await scrape()
    await minute(rig, clock, poller, 2)
    await second_later(rig, clock)

    assert rig.value(FAILED, pool=pool, phase="Failed") == rig.value(CREATED, pool=pool) == 1
    assert rig.value(FAILED) == 1


async def test_further_restarts_of_the_same_kind_show_at_once(rig, clock, poller):
    rig.fleet.recover(rig.job, "proc_restart", gap=1.0)
    await minute(rig, clock, poller, 1)
    await minute(rig, clock, poller, 2)
    await second_later(rig, clock)
    assert restarts(rig) == (1, 1, 1)
    rig.fleet.recover(rig.job, "proc_restart", gap=1.0)
    rig.fleet.recover(rig.job, "pod_reschedule", gap=1.0)

    await minute(rig, clock, poller, 3)

    assert rig.value(RESTARTS, recovery="proc_restart") == 2
    assert rig.value(OF_JOB, recovery="proc_restart") == 2
    assert rig.value(RESTARTS, recovery="pod_reschedule") == 0
    assert rig.value(OF_JOB, recovery="pod_reschedule") == 0
