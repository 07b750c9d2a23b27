"""What the store answers about jobs that are not in memory, against a plain dictionary."""

import os
import random
import sqlite3
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from storage.test_store import NEVER, NOW, OTHER, T, expected, group_of, known, loaded, opened

from exporter.errors import StartError
from exporter.jobs.job import PHASES, TERMINAL, UNKNOWN_PHASE
from exporter.storage import jobs as jobs_table
from exporter.storage.store import StateChange, Store

HOUR = 3600.0
CREATED = NOW - NOW % HOUR
"""The beginning of an hour."""


@pytest.fixture(params=["file", "temporary"])
async def store(request, tmp_path):
    async with opened(tmp_path / "state.db" if request.param == "file" else None) as store:
        yield store


def some_job(chance, job_id):
    """A job with a create time that others may have, too, or none."""
    phase = chance.choice([*PHASES, UNKNOWN_PHASE])
    created = CREATED + chance.choice([0.0, HOUR, -0.001, chance.randrange(40_000) / 4])
    return known(
        job_id,
        ended=NOW + chance.randrange(100) if phase in TERMINAL else None,
        phase=phase,
        created=None if chance.random() < 0.05 else created,
        pool=f"pool-{chance.randrange(2)}",
        user=chance.choice(["li", "wang"]),
        workspace=chance.choice(["0", "1"]),
    )


async def check_all(store, jobs):
    """Compare every answer with what follows from the jobs."""
    saved = await loaded(store, workspaces=("0", "1"))
    right = expected(jobs)
    assert (saved.open, saved.recent) == (right.open, right.recent)
    assert list(saved.recent) == list(right.recent)
    assert saved.finished == right.finished
    assert [job.ended for job in saved.failures] == [job.ended for job in right.failures]
    assert {job.job.id for job in saved.failures} == {job.job.id for job in right.failures}
    for since, until in [(NOW + 10, NOW + 30), (NEVER, NOW + 1), (NOW + 5, NOW + 5)]:
        ended = [
            job for job in jobs.values() if job.ended is not None and since <= job.ended < until
        ]
        found = await store.finished_between(T, ["0", "1"], since, until)
        assert found == Counter(group_of(job.job) for job in ended)
    for workspace in ("0", "1"):
        await check_list(
            store, workspace, [job for job in jobs.values() if job.job.workspace == workspace]
        )


async def check_list(store, workspace, jobs):
    """The answers about the order of the list."""
    times = sorted((job.job.created for job in jobs if job.job.created is not None), reverse=True)
    assert await store.count(T, workspace) == (len(jobs), len(jobs) - len(times))
    for rank in {0, 1, len(times) // 2, len(times) - 1, len(times)}:
        right = times[rank] if 0 <= rank < len(times) else None
        if rank >= 0:
            assert await store.created_at(T, workspace, rank) == right
    for time in {*times[:5], *times[-5:], CREATED, CREATED + HOUR, CREATED + 17.1, NOW + 1e6}:
        assert await store.count_newer(T, workspace, time) == sum(each > time for each in times)
    for oldest, newest in [(CREATED, CREATED + HOUR), (NEVER, CREATED), (CREATED + 1, CREATED)]:
        found = await store.jobs_between(T, workspace, oldest, newest)
        assert found == {
            job.job.id: job
            for job in jobs
            if job.job.created is not None and oldest <= job.job.created <= newest
        }


@pytest.mark.parametrize("seed", range(6))
async def test_every_answer_is_that_of_the_jobs(store, seed):
    chance = random.Random(seed)
    jobs = {}
    for _ in range(12):
        ids = [f"job-{chance.randrange(60)}" for _ in range(chance.randrange(30))]
        changed = {job_id: some_job(chance, job_id) for job_id in ids}
        deleted = [key for key in jobs if key not in changed and chance.random() < 0.2]
        await store.commit(T, StateChange(changed, [*deleted, "never seen"]))
        jobs = {key: job for key, job in {**jobs, **changed}.items() if key not in deleted}
        await check_all(store, jobs)
    await store.commit(T, StateChange(deleted=list(jobs)))
    await check_all(store, {})


async def test_more_jobs_than_are_written_at_once(store):
    chance = random.Random(9)
    jobs = {str(number): some_job(chance, str(number)) for number in range(1300)}
    await store.commit(T, StateChange(jobs))
    await store.commit(T, StateChange({key: jobs[key] for key in list(jobs)[:1100]}))

    assert await store.jobs(T, jobs) == jobs
    assert sum((await loaded(store, workspaces=("0", "1"))).finished.values()) == sum(
        job.job.phase in TERMINAL for job in jobs.values()
    )
    await store.commit(T, StateChange(deleted=list(jobs)[50:]))
    assert (await store.jobs(T, jobs)).keys() == set(list(jobs)[:50])


async def test_jobs_of_no_workspace_or_target_are_unknown(store):
    await store.commit(OTHER, StateChange({"a": known()}))

    assert await store.jobs(T, ["a"], {"a": NOW}) == {}
    assert await store.unchanged(T, {"a": known().job}) == set()
    assert await store.count(T, "0") == (0, 0)
    assert await store.count_newer(T, "0", NEVER) == 0
    assert await store.created_at(T, "0", 0) is None
    assert await store.jobs_between(T, "0", NEVER, NOW) == {}
    assert await store.finished_between(T, ["0"], NEVER, NOW) == {}
    assert (await loaded(store)).failures == []
    assert await store.jobs(OTHER, ["a", "b"], {"b": NOW}) == {"a": known()}


async def test_recent_jobs_are_those_that_ended_since(store):
    jobs = {str(number): known(str(number), ended=NOW + number % 7) for number in range(20)}
    await store.commit(T, StateChange(jobs))

    saved = await store.load(T, ["0"], recent_since=NOW + 5)

    assert {job.ended for job in saved.recent.values()} == {NOW + 5, NOW + 6}
    assert list(saved.recent.values()) == sorted(saved.recent.values(), key=lambda job: job.ended)
    assert saved.finished == expected(jobs).finished


async def test_the_last_failures_of_all_groups(store):
    jobs = {
        str(number): known(
            str(number),
            ended=NOW + number * 7919 % 1000,
            user=f"user-{number % 9}",
            phase=["Failed", "Abnormal", "Completed"][number % 3],
        )
        for number in range(900)
    }
    await store.commit(T, StateChange(jobs))

    failures = (await store.load(T, ["0"], recent_since=NOW + 2000)).failures

    assert len(failures) == jobs_table.MAX_FAILURES
    assert failures == expected(jobs).failures


async def test_finished_jobs_whose_flavor_type_is_unknown(store):
    jobs = {
        "a": known("a", pool="p", flavor_type="unknown"),
        "b": known("b", pool="p"),
        "c": known("c", pool="q", flavor_type="unknown"),
        "d": known("d", pool="p", flavor_type="unknown", phase="Running"),
    }
    await store.commit(T, StateChange(jobs))

    assert await store.of_unknown_type(T, ["0"], {"p"}) == {"a": jobs["a"]}
    assert await store.of_unknown_type(T, ["1"], {"p"}) == {}


async def test_jobs_that_a_reading_of_the_list_has_omitted(store):
    jobs = {each: known(each) for each in "abc"}
    await store.commit(T, StateChange(jobs))

    assert await store.omitted(T, "0", "ab".__contains__) == {"c": jobs["c"]}
    assert await store.omitted(T, "1", "ab".__contains__) == {}


async def test_a_first_reading_that_was_interrupted_is_forgotten(store):
    jobs = {each: known(each) for each in "abc"} | {"d": known("d", workspace="1")}
    await store.commit(T, StateChange(jobs))

    await store.start_over(T, ["0"])

    assert await store.jobs(T, "abcd") == {"d": jobs["d"]}
    assert (await store.count(T, "0"), await store.count(T, "1")) == ((0, 0), (1, 0))
    assert await store.count_newer(T, "0", 0.0) == 0


async def test_jobs_that_are_saved_exactly_as_they_are(store):
    jobs = {each: known(each) for each in "abc"}
    await store.commit(T, StateChange(jobs))
    listed = {
        "a": jobs["a"].job,
        "b": msgspec.structs.replace(jobs["b"].job, priority=2),
        "x": jobs["c"].job,
    }

    assert await store.unchanged(T, listed) == {"a"}


# --- Without a state file -------------------------------------------------------------------------


def temporary_files():
    """Files that SQLite has open and that have no name any more."""
    names = [os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()]
    return [name for name in names if "etilqs" in name]


async def fill(store):
    chance = random.Random(1)
    jobs = {str(each): known(str(each), message=chance.randbytes(99).hex()) for each in range(9000)}
    await store.commit(T, StateChange(jobs))
    assert await store.jobs(T, ["0", "8999"]) == {key: jobs[key] for key in ("0", "8999")}


async def test_a_small_temporary_store_is_in_memory_and_a_large_one_in_a_file():
    before = len(temporary_files())
    async with opened(None) as store:
        await store.commit(T, StateChange({"a": known()}))
        assert len(temporary_files()) == before
        await fill(store)
        assert len(temporary_files()) > before
    assert len(temporary_files()) == before


async def test_without_a_directory_for_temporary_files_all_is_in_memory(monkeypatch):
    before = len(temporary_files())
    monkeypatch.setattr("os.access", lambda *_: False)
    async with opened(None) as store:
        await fill(store)
        assert len(temporary_files()) == before


async def test_a_temporary_store_that_cannot_be_created(monkeypatch):
    def fail(*_, **__):
        raise sqlite3.OperationalError("out of memory")

    monkeypatch.setattr("sqlite3.connect", fail)
    with pytest.raises(StartError, match=r"^temporary database: out of memory$"):
        await Store.temporary(problem=lambda: pytest.fail("counted"))
