"""A generation is a snapshot of one moment."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from exporter.metrics.self_metrics import Instruments, TargetInstruments
from exporter.web import publisher as module
from exporter.web.publisher import Publisher


@pytest.fixture
async def publisher():
    instruments = Instruments()
    publisher = Publisher(instruments)
    publisher.target = TargetInstruments(instruments, "r", "p")
    publisher.pollers = [SimpleNamespace(rendered={}, ended_polls=0)]
    task = asyncio.create_task(publisher.run())
    yield publisher
    task.cancel()


@pytest.fixture
def slow_render(monkeypatch):
    """Rendering starts, and continues when the test allows it."""
    begun, go_on = threading.Event(), threading.Event()
    render = module.render

    def slow(*arguments):
        begun.set()
        assert go_on.wait(20)
        return render(*arguments)

    monkeypatch.setattr(module, "render", slow)
    yield SimpleNamespace(begun=begun, go_on=go_on)
    go_on.set()


UP = b'modelarts_up{project="p",region="r"} 1.0'


async def test_what_ends_while_a_generation_is_rendered_is_in_the_next(publisher, slow_render):
    first = asyncio.create_task(publisher.publish())
    await asyncio.to_thread(slow_render.begun.wait, 20)
    publisher.target.polled("sweep", "success", 1.0, now=1.0)  # its series appear with publish()
    slow_render.go_on.set()
    await first
    assert UP not in publisher.exposition.text

    await publisher.publish()
    assert UP in publisher.exposition.text


async def test_the_first_generation_needs_no_poll_and_nobody_who_asks():
    instruments = Instruments()
    publisher = Publisher(instruments)
    TargetInstruments(instruments, "r", "p").show()
    publisher.pollers = [SimpleNamespace(rendered={}, ended_polls=0)]
    await publisher.update()

    assert b'modelarts_up{project="p",region="r"} 0.0' in publisher.exposition.text
    assert publisher.exposition.generation == 1
    assert not publisher.ready
