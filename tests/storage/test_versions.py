"""Rows of the version before and the version after: fields are only appended, with a default."""

import contextlib
import importlib
import logging
import sys

import msgspec
import pytest
from storage.test_store import HISTOGRAM, NOW, OBSERVED, T, known

import exporter.storage
from exporter.jobs.job import Job, Run
from exporter.jobs.tracked import Restart, TrackedJob
from exporter.metrics.counters import Series
from exporter.storage.store import StateChange, Store


def with_new_field(struct, **types):
    """The struct as the next version may have it: with one more field, and other field types."""
    fields = [
        (field.name, types.get(field.name, field.type))
        if field.required
        else (field.name, field.type, field.default)
        for field in msgspec.structs.fields(struct)
    ]
    fields.append(("added", str, "the default"))
    return msgspec.defstruct(struct.__name__, fields, frozen=True, gc=False, array_like=True)


STORAGE = [
    name.removeprefix("exporter.storage.")
    for name in sorted(sys.modules)
    if name.startswith("exporter.storage.") and not name.endswith(("damage", "examine"))
]
"""The modules that are imported anew for the next version."""

NextRun = with_new_field(Run)
NextJob = with_new_field(Job, runs=tuple[NextRun, ...] | None)
NextTrackedJob = with_new_field(TrackedJob, job=NextJob)
NextSeries = with_new_field(Series)


def as_next(struct, **changes):
    """The same in the next version."""
    twins = {Run: NextRun, Job: NextJob, TrackedJob: NextTrackedJob, Series: NextSeries}
    values = {name: getattr(struct, name) for name in struct.__struct_fields__}
    if isinstance(struct, TrackedJob):
        values["job"] = as_next(struct.job, **changes)
    if isinstance(struct, Job) and struct.runs is not None:
        values["runs"] = tuple(as_next(run, **changes) for run in struct.runs)
    return twins[type(struct)](**(values | changes))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


@pytest.fixture
def next_version(monkeypatch):
    """The modules of the state file as of the next version; ours come back afterwards."""

    @contextlib.contextmanager
    def install(tracked_job=NextTrackedJob, series=NextSeries):
        with monkeypatch.context() as patch:
            patch.setattr("exporter.jobs.tracked.TrackedJob", tracked_job)
            patch.setattr("exporter.metrics.counters.Series", series)
            for module in STORAGE:
                patch.delattr(exporter.storage, module)
                patch.delitem(sys.modules, f"exporter.storage.{module}")
            yield importlib.import_module("exporter.storage.store").Store

    return install


@contextlib.asynccontextmanager
async def opened(path, store_class=Store):
    store = await store_class.open(path, problem=lambda: pytest.fail("a problem was counted"))
    try:
        yield store
    finally:
        await store.close()


async def committed(path, jobs, series, store_class=Store):
    async with opened(path, store_class) as store:
        await store.commit(T, StateChange(jobs, (), {"0": NOW}, {HISTOGRAM: series}, [HISTOGRAM]))


async def loaded(path, store_class=Store):
    async with opened(path, store_class) as store:
        saved = await store.load(T, ["0"], recent_since=0)
    assert saved.released == {HISTOGRAM}
    return saved.recent, saved.ledger[HISTOGRAM]


async def test_rows_of_the_version_before_have_the_default(path, next_version, caplog):
    await committed(path, {"a": known(), "b": known("b", runs=None)}, OBSERVED)

    with next_version() as store_class:
        jobs, series = await loaded(path, store_class)

    assert jobs == {"a": as_next(known()), "b": as_next(known("b", runs=None))}
    assert jobs["a"].added == jobs["a"].job.added == jobs["a"].job.runs[0].added == "the default"
    assert series == as_next(OBSERVED)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_rows_of_the_version_after_are_read_without_the_field(path, next_version, caplog):
    with next_version() as store_class:
        jobs = {"a": as_next(known(), added="new"), "b": as_next(known("b"), added="new")}
        await committed(path, jobs, as_next(OBSERVED, added="new"), store_class)
        assert await loaded(path, store_class) == (jobs, as_next(OBSERVED, added="new"))

    assert await loaded(path) == ({"a": known(), "b": known("b")}, OBSERVED)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_only_rows_that_an_older_version_rewrites_lose_the_field(path, next_version):
    with next_version() as store_class:
        jobs = {"a": as_next(known(), added="new"), "b": as_next(known("b"), added="new")}
        await committed(path, jobs, as_next(OBSERVED, added="new"), store_class)

    async with opened(path) as store:
        await store.commit(T, StateChange({"b": known("b", name="other")}))

    with next_version() as store_class:
        saved, series = await loaded(path, store_class)
    assert saved == {"a": jobs["a"], "b": as_next(known("b", name="other"))}
    assert series.added == "new"


async def test_named_tuples_must_not_grow(path, next_version, caplog):
    """An older version refuses them: hence a change to them needs a new version of the file."""
    restart = msgspec.defstruct(
        "Restart", [("start_type", str), ("recovery", str), ("added", str, "")], array_like=True
    )
    tracked_job = with_new_field(TrackedJob, restarts=tuple[restart, ...])
    values = {name: getattr(known(), name) for name in known().__struct_fields__}
    values["restarts"] = (restart("restarted", "proc_restart", "new"),)
    assert len(Restart._fields) == 2
    with next_version(tracked_job) as store_class:
        await committed(path, {"a": tracked_job(**values)}, as_next(OBSERVED), store_class)

    problems = []
    store = await Store.open(path, problem=lambda: problems.append(1))
    assert (await store.load(T, ["0"], recent_since=0)).recent == {}
    assert problems == [1]
    assert "damaged (job 'a'" in caplog.text
    await store.close()
