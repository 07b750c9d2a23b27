"""Concurrent searches."""

import asyncio
import contextlib
import json

import pytest
from modelarts.jobs_in_memory import JobsInMemory

from exporter.errors import RejectedError, TimedOutError
from exporter.jobs.fleet import Fleet
from exporter.jobs.tracker import observe
from exporter.metrics.self_metrics import Instruments, TargetInstruments
from exporter.modelarts.search import Paging
from exporter.modelarts.sync import Sync, _gather
from exporter.modelarts.workspace import JobSource

NOW = 1_750_000_000.0


async def wait_for(answer):
    return await answer


async def test_a_poll_that_fails_just_when_it_is_cancelled_is_cancelled():
    """Otherwise poll and program would go on: before Python 3.13, a task group forgets it."""
    answer = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(_gather([wait_for(answer)]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    answer.set_exception(TimedOutError("late"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_first_failure_fails_the_poll():
    answers = [asyncio.get_running_loop().create_future() for _ in range(2)]
    task = asyncio.create_task(_gather(map(wait_for, answers)))
    await asyncio.sleep(0)
    answers[1].set_exception(TimedOutError("late"))
    with pytest.raises(TimedOutError, match="late"):
        await task
    assert answers[0].cancelled()


TUNING = "fine-tuning"


class TwoWorkspaces:
    """A client of a service with two workspaces, one of which suddenly rejects `unified_jobs`.

    From then on, the other lists its jobs only after the exporter has found that out.
    """

    def __init__(self):
        self.phases = dict.fromkeys(map(str, range(60)), "Failed") | {TUNING: "Running"}
        self.rejects = False
        self.found_out = asyncio.Event()
        self.urgent = contextlib.nullcontext

    async def search(self, query, read, **_):
        if query["workspace_id"] == "two":
            return read(self.second_workspace(query))
        filters = query.get("filters", [])
        if self.rejects and not filters:
            await self.found_out.wait()
        items = [item(*each) for each in enumerate(self.phases.items())]
        for each in filters:
            path = {"id": ("metadata", "id"), "phase": ("status", "phase")}[each["key"]]
            items = [item for item in items if item[path[0]][path[1]] in each["value"]]
        if "unified_jobs" not in query:
            items = [item for item in items if item["metadata"]["id"] != TUNING]
        return read(json.dumps({"items": items[query["offset"] :][: query["limit"]]}).encode())

    def second_workspace(self, query):
        if self.rejects and "unified_jobs" in query:
            raise RejectedError("unknown field", status=400)
        if self.rejects:
            self.found_out.set()
        return b'{"items": []}'


def item(age, job):
    job_id, phase = job
    metadata = {"id": job_id, "create_time": (NOW - 60 - age) * 1000}
    return {"kind": "job", "metadata": metadata, "status": {"phase": phase}}


async def test_a_workspace_finds_out_while_another_looks_up_a_job():
    """The lookup no longer asks for fine-tuning jobs: that such a job is missing says nothing."""
    service = TwoWorkspaces()
    instruments = TargetInstruments(Instruments(), "cn-north-4", "project")
    source = JobSource(service, Paging("row"), ("one", "two"), instruments, lambda: NOW)
    sync = Sync(source, 86400)
    view = await sync.sweep(Fleet(), JobsInMemory(Fleet()), deadline=1e9, background=False)
    fleet = observe(Fleet(), view, NOW).fleet
    assert TUNING in fleet.open

    service.phases[TUNING] = "Completed"
    service.rejects = True
    view = await sync.incremental(fleet, JobsInMemory(fleet), deadline=1e9)

    assert not source.unified.requested
    assert (view.deleted, view.unresolved) == (set(), {TUNING})
