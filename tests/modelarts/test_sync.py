"""Several searches at once."""

import asyncio

import pytest

from exporter.errors import TimedOutError
from exporter.modelarts.sync import _all


async def test_a_poll_that_fails_just_when_it_is_cancelled_is_cancelled():
    """Else it would go on, and the program with it: a group forgets, before Python 3.13."""
    answer = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(_all([answer]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    answer.set_exception(TimedOutError("late"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_first_failure_is_the_polls():
    answers = [asyncio.get_running_loop().create_future() for _ in range(2)]
    task = asyncio.create_task(_all(answers))
    await asyncio.sleep(0)
    answers[1].set_exception(TimedOutError("late"))
    with pytest.raises(TimedOutError, match="late"):
        await task
    assert answers[0].cancelled()
