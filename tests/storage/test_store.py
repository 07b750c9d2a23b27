"""What is remembered of targets: whole, exactly, and by one process at a time."""

import asyncio
import contextlib
import hashlib
import os
import random
import signal
import sqlite3
import sys
import threading
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from jobs import examples

from exporter.errors import StateError
from exporter.jobs.job import TERMINAL, Run
from exporter.jobs.tracked import Base, Group, Restart, TrackedJob
from exporter.metrics.counters import CREATED, QUEUE, Exemplar, Series
from exporter.storage import jobs, rows
from exporter.storage.layout import LAYOUT
from exporter.storage.scopes import StateKey
from exporter.storage.store import SavedState, StateChange, Store

T = StateKey("cn-north-4", "p", "t", "https://one")
OTHER = T._replace(name="other")
NOW = 1_700_000_000.0
NEVER = float("-inf")
ZERO = ("0", "pool-1", "Ascend")
ZERO_BASE = Base(*ZERO)


def known(job_id="a", *, ended=NOW - 1, **changes):
    job = examples.job(
        job_id,
        phase="Failed",
        accelerator="Ascend 910B",
        created=NOW - 3600,
        started=NOW - 3000,
        duration=3000.25,
        runs=(Run(NOW - 3000, None, "restarted", "proc_restart", "", "node lost"),),
        failed_task="worker-0",
        exit_code=137,
        message="killed … 内存不足",
    )
    return TrackedJob(
        msgspec.structs.replace(job, **changes),
        ended=ended,
        end_counted=True,
        start_counted=True,
        restarts=(Restart("restarted", "unknown"), Restart("init_or_rescheduled", "job_restart")),
        records_checked=2,
        count_records_from=NEVER,
        run_seconds_counted=0.1 + 0.2,
        end_seconds_counted=None,
    )


def group_of(job):
    return Group(job.workspace, job.pool, job.flavor_type, job.user, job.phase)


def expected(jobs, newest_created=None, ledger=None, released=(), **more):
    """The saved state with these jobs."""
    done = [known for known in jobs.values() if known.job.phase in TERMINAL]
    done.sort(key=lambda known: (known.ended, known.job.id))
    failed = [known for known in reversed(done) if known.job.phase in ("Failed", "Abnormal")]
    return SavedState(
        open={key: known for key, known in jobs.items() if known.job.phase not in TERMINAL},
        recent={known.job.id: known for known in done},
        failures=failed[:200],
        finished=dict(Counter(group_of(known.job) for known in done)),
        newest_created=newest_created or {},
        ledger=ledger or {},
        released=frozenset(released),
        **more,
    )


NOTHING = expected({})


def jobs_of(saved):
    """All jobs that were loaded, by ID."""
    return {**saved.open, **saved.recent}


def created(workspace="0", value=1.0):
    return (CREATED.metric.name, (workspace, *ZERO[1:])), Series(NOW, value)


HISTOGRAM = (QUEUE.metric.name, ZERO)
OBSERVED = Series(
    NOW,
    7.5,
    (1, 2, *(0,) * (len(QUEUE.buckets) - 1)),
    (Exemplar("a", NOW, 7.5), *(None,) * len(QUEUE.buckets)),
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


@contextlib.asynccontextmanager
async def opened(path, problem=lambda: pytest.fail("a problem was counted")):
    """A store in a file; None = a temporary one."""
    store = await (
        Store.temporary(problem=problem) if path is None else Store.open(path, problem=problem)
    )
    try:
        yield store
    finally:
        await store.close()


async def loaded(store, target=T, workspaces=("0",)):
    """The state, with all finished jobs among the recent ones."""
    return await store.load(target, workspaces, recent_since=NEVER)


async def reloaded(path, target=T, workspaces=("0",)):
    async with opened(path) as store:
        return await loaded(store, target, workspaces)


@pytest.fixture(params=["file", "temporary"])
async def store(request, path):
    async with opened(path if request.param == "file" else None) as store:
        yield store


def test_what_is_kept_is_known_by_its_version():
    """Golden: a new field at the end, with a default, only needs a new hash here.

    Any other change needs a new version, with a step that rewrites the rows of this one.
    """
    connection = sqlite3.connect(":memory:")
    for step in LAYOUT.steps.values():
        step(connection)
    query = "SELECT sql FROM sqlite_master WHERE sql != '' ORDER BY name"
    schema = [sql for (sql,) in connection.execute(query)]
    connection.close()
    key = rows.key_of(1, "a")
    kept = [*schema, rows.pack(OBSERVED, key).hex(), repr(jobs.encode(1, "a", 2, known()))]

    assert max(LAYOUT.steps) == 3
    assert hashlib.sha256("\n".join(kept).encode()).hexdigest() == (
        "505a7ec2d63fb8ab53ede0ea23be4b65515fd28d00f353ab3493454094bae998"
    )


async def test_a_new_file_remembers_nothing_and_is_for_us_only(path):
    umask = os.umask(0)
    try:
        async with opened(path) as store:
            assert await loaded(store) == NOTHING
            await store.commit(T, StateChange({"a": known()}))
            modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    finally:
        os.umask(umask)

    assert modes == {"state.db": 0o600, "state.db-wal": 0o600}
    assert [each.name for each in path.parent.iterdir()] == ["state.db"]


async def test_everything_comes_back_as_it_was(path):
    plain = known("b", runs=None, started=None, accelerators=None, message="", phase="Running")
    bare = msgspec.structs.replace(
        plain,
        ended=None,
        count_records_from=None,
        restarts=(),
        run_seconds_counted=None,
        end_seconds_counted=1e9,
    )
    key, counted = created()
    change = StateChange(
        {"a": known(), "b": bare},
        (),
        {"0": NOW, "1": NEVER},
        {key: counted, HISTOGRAM: OBSERVED},
        last_active={ZERO_BASE: NOW, Base("1", "public", "GPU"): NOW - 1},
        unified={"1"},
        pool_names={"pool-1": (NOW, "nlp"), "pool-2": (0.0, "vision")},
        verification={"1": b"page 7"},
        incomplete={"0"},
    )
    async with opened(path) as store:
        await store.commit(T, change)
        await store.commit(T, StateChange(released=[key]))

    everything = expected(
        {"a": known(), "b": bare},
        {"0": NOW, "1": NEVER},
        {key: counted, HISTOGRAM: OBSERVED},
        [key],
        last_active={ZERO_BASE: NOW, Base("1", "public", "GPU"): NOW - 1},
        unified=frozenset({"1"}),
        pool_names={"pool-1": (NOW, "nlp"), "pool-2": (0.0, "vision")},
        verification={"1": b"page 7"},
        incomplete=frozenset({"0"}),
    )
    assert await reloaded(path, workspaces=("0", "1")) == everything
    assert everything.open == {"b": bare}
    async with opened(path) as store:
        await store.commit(T, StateChange(newest_created={"1": NOW}, last_active={ZERO_BASE: NOW}))
        await store.commit(T, StateChange(newest_created={"0": NOW}, verification={"0": b"page 1"}))
    after = await reloaded(path, workspaces=("0", "1"))
    assert (after.unified, after.incomplete) == (frozenset(), frozenset())
    assert after.verification == {"0": b"page 1", "1": b"page 7"}


async def test_later_changes_replace_earlier_ones(store):
    key, before = created()
    await store.commit(
        T, StateChange({"a": known(), "b": known("b")}, (), {"0": NEVER}, {key: before}, [key])
    )
    later = {"a": known(phase="Running", ended=None)}
    await store.commit(T, StateChange(later, ["b", "x"], {"0": NOW}, {key: created(value=2)[1]}))

    assert await loaded(store) == expected(later, {"0": NOW}, {key: Series(NOW, 2.0)}, [key])


async def test_a_job_that_moves_to_another_workspace_moves_here_too(store):
    await store.commit(T, StateChange({"a": known()}))
    await store.commit(T, StateChange({"a": known(workspace="1")}))

    assert await loaded(store) == NOTHING
    assert await loaded(store, workspaces=["1"]) == expected({"a": known(workspace="1")})
    assert await store.count(T, "0") == (0, 0)


async def test_what_is_not_asked_for_waits(store):
    zero, one = created("0"), created("1")
    await store.commit(
        T,
        StateChange(
            {"a": known(), "b": known("b", workspace="1")},
            (),
            {"0": NOW, "1": NEVER},
            dict([zero, one]),
            [zero[0], one[0]],
        ),
    )
    await store.commit(OTHER, StateChange({"a": known(name="other")}))
    await store.commit(OTHER, StateChange(deleted=["b"]))

    assert await loaded(store) == expected({"a": known()}, {"0": NOW}, dict([zero]), [zero[0]])
    assert await loaded(store, workspaces=["1", "2"]) == expected(
        {"b": known("b", workspace="1")}, {"1": NEVER}, dict([one]), [one[0]]
    )
    assert await loaded(store, OTHER) == expected({"a": known(name="other")})
    assert await loaded(store, workspaces=[]) == NOTHING
    assert await loaded(store, T._replace(project_id="gone")) == NOTHING


async def test_series_of_other_versions_are_kept_but_not_used(path):
    key, series = created()
    strange = [
        (("modelarts_training_moons_total", ZERO), series),
        ((CREATED.metric.name, (*ZERO, "more")), series),
        (HISTOGRAM, msgspec.structs.replace(OBSERVED, counts=(1, 2))),
    ]
    async with opened(path) as store:
        await store.commit(
            T, StateChange(series=dict([*strange, (key, series)]), released=[HISTOGRAM])
        )

    assert await reloaded(path) == expected({}, ledger={key: series})
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM series").fetchone() == (4,)


async def test_jobs_share_the_texts_that_they_have_in_common(store):
    await store.commit(T, StateChange({each: known(each) for each in "ab"}))
    jobs = (await loaded(store)).recent

    assert jobs["a"].job.pool is jobs["b"].job.pool
    assert jobs["a"].job.engine is jobs["b"].job.engine
    assert jobs["a"].job.runs[0].reason is jobs["b"].job.runs[0].reason


async def test_a_series_cannot_be_released_before_it_is_known(store):
    key, _ = created()
    with pytest.raises(LookupError):
        await store.commit(T, StateChange({"a": known()}, released=[key]))

    assert await loaded(store) == NOTHING


async def test_a_target_that_is_renamed_keeps_its_state(store):
    await store.commit(T, StateChange({"a": known()}, (), {"0": NOW}, pool_names={"p": (1.0, "x")}))
    await store.commit(OTHER, StateChange({"b": known("b")}, (), {"0": NOW, "1": NOW}))

    await store.rename(T, OTHER, ["0"])

    assert await loaded(store, OTHER, ["0", "1"]) == expected(
        {"a": known()}, {"0": NOW, "1": NOW}, pool_names={"p": (1.0, "x")}
    )
    assert (await loaded(store)).finished == {}
    assert await store.count(OTHER, "0") == (1, 0)


async def test_a_job_that_two_renamed_workspaces_have_becomes_one(store):
    await store.commit(T, StateChange({"a": known()}, (), {"0": NOW}))
    await store.commit(OTHER, StateChange({"a": known(workspace="1")}, (), {"1": NOW}))
    await store.rename(T, OTHER, ["0"])

    await store.commit(OTHER, StateChange({"a": known(name="new")}))

    assert await loaded(store, OTHER, ["0", "1"]) == expected(
        {"a": known(name="new")}, {"0": NOW, "1": NOW}
    )
    assert await store.count(OTHER, "1") == (0, 0)
    assert await store.jobs_between(OTHER, "1", 0, NOW) == {}


async def test_a_commit_survives_a_power_cut_and_its_log_stays_small(path):
    """No power can be cut here: the first half is SQLite's word for it."""
    async with opened(path) as store:
        assert await in_thread(store, "PRAGMA journal_mode") == "wal"
        assert await in_thread(store, "PRAGMA synchronous") == 2  # FULL
        for number in range(30):
            jobs = {str(each): known(str(each), duration=float(number)) for each in range(300)}
            await store.commit(T, StateChange(jobs))
            await loaded(store, workspaces=[])
        assert path.with_name("state.db-wal").stat().st_size < 2 * path.stat().st_size


# --- When a commit fails --------------------------------------------------------------------------


async def test_a_full_disk_keeps_what_was_there_and_recovers_by_itself(path):
    problems = []
    many = {str(number): known(str(number), ended=NOW - number) for number in range(500)}
    async with opened(path, lambda: problems.append(1)) as store:
        await store.commit(T, StateChange({"a": known()}, (), {"0": NOW}))
        pages = await in_thread(store, "PRAGMA page_count")
        await in_thread(store, f"PRAGMA max_page_count = {pages}")
        for _ in range(2):
            with pytest.raises(StateError, match=r"state file .*state\.db: .*full.*free space"):
                await store.commit(T, StateChange(many, ["a"], {"0": NOW + 1}))
            assert await loaded(store) == expected({"a": known()}, {"0": NOW})
        assert len(problems) == 2

        await in_thread(store, "PRAGMA max_page_count = 100000")
        await store.commit(T, StateChange(many, ["a"], {"0": NOW + 1}))

    assert await reloaded(path) == expected(many, {"0": NOW + 1})


async def in_thread(store, statement):
    row = await store._run(lambda: store._database._connection.execute(statement).fetchone())
    return row[0]


async def test_a_lock_is_an_error_that_passes(path, monkeypatch):
    """Nobody else can have one; so somebody else is played here."""
    monkeypatch.setattr("exporter.storage.sqlite.LOCK_SECONDS", 0)
    monkeypatch.setattr("exporter.storage.database.fingerprint", lambda _: (1, 2, 3))
    problems = []
    async with opened(path, lambda: problems.append(1)) as store:
        await in_thread(store, "PRAGMA journal_mode = DELETE")
        await in_thread(store, "PRAGMA locking_mode = NORMAL")
        await in_thread(store, "SELECT count(*) FROM job")  # lets go of the lock
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StateError, match=r"locked .*another process"):
                await store.commit(T, StateChange({"a": known()}))
            other.execute("ROLLBACK")
        assert len(problems) == 1
        await store.commit(T, StateChange({"a": known()}))

        assert await loaded(store) == expected({"a": known()})


async def test_an_error_of_ours_keeps_nothing_either(path):
    async with opened(path) as store:
        with pytest.raises(TypeError):
            await store.commit(T, StateChange({"a": known(), "b": known("b", exit_code=object())}))
        assert await loaded(store) == NOTHING
        await store.commit(T, StateChange({"a": known()}))

    assert await reloaded(path) == expected({"a": known()})


# --- When nobody waits for it ---------------------------------------------------------------------


class Held(dict):
    """Jobs whose commit waits, in its thread, until it is let go."""

    def __init__(self, jobs):
        super().__init__(jobs)
        self.reached = threading.Event()
        self.go = threading.Event()

    def items(self):
        self.reached.set()
        assert self.go.wait(20)
        return super().items()


async def test_a_cancelled_commit_is_finished(path):
    key, series = created()
    held = Held({"a": known()})
    async with opened(path) as store:
        running = asyncio.create_task(store.commit(T, StateChange(held, (), {"0": NOW})))
        await asyncio.to_thread(held.reached.wait, 20)
        waiting = asyncio.create_task(store.commit(T, StateChange(series={key: series})))
        await asyncio.sleep(0)
        for task in (running, waiting):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
        assert not closing.done()
        held.go.set()
        await closing

    assert await reloaded(path) == expected({"a": known()}, {"0": NOW}, {key: series})


async def test_the_event_loop_goes_on_while_a_commit_takes_its_time(path):
    held = Held({"a": known()})
    async with opened(path) as store:
        commit = asyncio.create_task(store.commit(T, StateChange(held)))
        await asyncio.to_thread(held.reached.wait, 20)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not commit.done()
        held.go.set()
        await commit


async def test_closing_twice_is_closing_once(path):
    async with opened(path) as store:
        await store.close()
    for thread in threading.enumerate():
        if thread.name.startswith("state"):
            thread.join(5)
            assert not thread.is_alive()


# --- When the process is killed -------------------------------------------------------------------


async def commit_for_ever(path):
    """Commit number n changes everything to n, then says so."""
    store = await Store.open(path, problem=lambda: None)
    number = max((await loaded(store)).newest_created.values(), default=0.0)
    while True:
        number += 1
        jobs = {str(each): known(str(each), duration=number) for each in range(300)}
        key, series = created(value=number)
        gone = [f"only {number - 1:g}"]
        jobs[f"only {number:g}"] = known(f"only {number:g}", duration=number)
        await store.commit(T, StateChange(jobs, gone, {"0": number}, {key: series}))
        print(f"{number:g}", flush=True)  # noqa: T201


@pytest.mark.integration
async def test_a_kill_at_any_moment_leaves_whole_commits(path):
    chance = random.Random(7)
    recovered = 0
    said = 0
    for _ in range(8):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            str(path),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        said = int(await process.stdout.readline())
        await asyncio.sleep(chance.random() / 10)
        process.send_signal(signal.SIGKILL)
        rest = await process.stdout.read()
        await process.wait()
        said = int(rest.split(b"\n")[-2]) if b"\n" in rest else said
        recovered += path.with_name("state.db-wal").exists()

        saved = await reloaded(path)
        number = saved.newest_created["0"]
        assert number in (said, said + 1)
        assert {each.job.duration for each in saved.recent.values()} == {number}
        assert saved.recent.keys() == {*map(str, range(300)), f"only {number:g}"}
        assert sum(saved.finished.values()) == 301
        assert [series.value for series in saved.ledger.values()] == [number]
    assert recovered


if __name__ == "__main__":
    asyncio.run(commit_for_ever(Path(sys.argv[1])))
