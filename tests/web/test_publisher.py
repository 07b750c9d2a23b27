"""A generation is a snapshot of one moment."""

import asyncio
import re
import threading
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.metrics.exposition import FamilyLines
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


def target(**families):
    """A poller whose target has these numbers of series in its families."""
    rendered = {}
    for family, number in families.items():
        name = f"modelarts_training_{family}"
        lines = "".join(f'{name}{{n="{n}"}} 1.0\n' for n in range(number))
        rendered[name] = FamilyLines(lines, lines)
    return SimpleNamespace(rendered=rendered, ended_polls=1)


def counted(exposition):
    """`modelarts_exporter_series`, and the same counted in the text, by family."""
    families = {
        match[1]: [] for match in re.finditer(rb"^# TYPE (\S+) ", exposition.text, re.MULTILINE)
    }
    told = {}
    for family in text_string_to_metric_families(exposition.text.decode()):
        name = family.name.encode()
        name = name if name in families else name + b"_total"
        families[name] += family.samples
        if name == b"modelarts_exporter_series":
            told = {each.labels["family"].encode(): each.value for each in family.samples}
    return told, {name: len(samples) for name, samples in families.items()}


async def test_series_are_counted_by_family(publisher):
    publisher.target.show()
    publisher.target.polled("sweep", "success", 1.0, now=1.0)
    publisher.pollers = [target(jobs=3, nodes=1, job_info=0), target(jobs=2)]
    await publisher.update()

    told, true = counted(publisher.exposition)
    assert told == true
    assert told[b"modelarts_training_jobs"] == 5
    assert told[b"modelarts_exporter_polls_total"] == 14
    assert b"modelarts_training_job_info" not in told
    assert b"process_open_fds" in told


async def test_denied_families_are_not_served(publisher):
    publisher.target.show()
    publisher.pollers = [target(jobs=3, nodes=1, jobs_created_total=1)]
    await publisher.update()
    _, before = counted(publisher.exposition)

    denied = ("modelarts_training_jobs", "process_.*|modelarts_exporter_polls_total")
    publisher.deny(denied)
    await publisher.update()
    told, after = counted(publisher.exposition)
    assert told == after
    gone = {name for name in before if name.startswith(b"process_")}
    assert gone
    assert before.keys() - after.keys() == gone | {
        b"modelarts_training_jobs",
        b"modelarts_exporter_polls_total",
    }
    for name in before.keys() - after.keys():
        bare = name.removesuffix(b"_total")
        assert not re.search(
            rb"^(# TYPE )?" + bare + rb"\b", publisher.exposition.openmetrics, re.MULTILINE
        )

    publisher.deny(())
    await publisher.update()
    assert counted(publisher.exposition)[1] == before


async def test_all_families_may_be_denied(publisher):
    publisher.target.show()
    publisher.deny((".*",))
    await publisher.update()
    assert publisher.exposition.text == b""
    assert publisher.exposition.openmetrics == b"# EOF\n"


def test_an_expression_that_matches_nothing_is_a_warning(caplog):
    publisher = Publisher(Instruments())
    for each in (
        "modelarts_up",
        "modelarts_exporter_series",
        "modelarts_training_jobs",
        "process_.*",
    ):
        publisher.deny((each,))
    assert caplog.messages == []
    publisher.deny(("modelarts_u", "modelarts_training_queue_duration_seconds_bucket"))
    assert caplog.messages == [
        'metrics.deny: "modelarts_u" matches no metric family',
        'metrics.deny: "modelarts_training_queue_duration_seconds_bucket" matches no metric family',
    ]
