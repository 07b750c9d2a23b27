"""Concurrent searches."""

import asyncio

import pytest

from exporter.errors import TimedOutError
from exporter.modelarts.sync import _gather


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
