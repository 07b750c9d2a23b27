"""A day in which jobs come, run, end and are deleted: row 60 of the fault matrix."""

import gc
import itertools
import tracemalloc
from collections import deque

import pytest

import exporter

QUARTER = 900.0
EACH = 10
"""Jobs that are created in every quarter of an hour."""
PHASES = ("Completed", "Failed", "Terminated")


def allocated():
    """Bytes that the exporter holds. The simulated service remembers the whole day on purpose."""
    gc.collect()
    folder = exporter.__file__.removesuffix("__init__.py")
    ours = [
        tracemalloc.Filter(True, f"{folder}*"),
        tracemalloc.Filter(False, f"{folder}simulator/*"),
    ]
    traces = tracemalloc.take_snapshot().filter_traces(ours)
    return sum(each.size for each in traces.statistics("filename"))


@pytest.fixture
def _traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.usefixtures("_traced")
async def test_row_60_a_day_of_churn(rig, clock):
    clock.patience = 1e9
    await rig.serve()
    poller = await rig.add(jobs={"retention": "30m"})
    phases, batches = itertools.cycle(PHASES), deque()
    held, lines = [], []
    for _ in range(24):
        for _ in range(4):
            clock.passes(QUARTER)
            rig.fleet.advance(clock.service())
            for job in batches[-1] if batches else ():
                rig.fleet.finish(job, next(phases))
            batches.append([rig.fleet.create() for _ in range(EACH)])
            for job in batches[-1]:
                rig.fleet.start(job)
            if len(batches) > 8:
                for job in batches.popleft():
                    rig.fleet.delete(job)
            assert await poller.poll(), poller.error
        assert await poller.sweep(), poller.error
        held.append(allocated())
        lines.append(rig.publisher.exposition.text.count(b"\n"))

    assert len(rig.fleet) == 8 * EACH
    assert rig.value("modelarts_training_jobs") == len(rig.fleet)
    assert sum(rig.counted("jobs_finished").values()) > 900
    assert max(lines[12:]) <= max(lines[3:12]), lines
    assert max(held[12:]) < 1.1 * max(held[3:12]), held
