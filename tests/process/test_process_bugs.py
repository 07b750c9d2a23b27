"""A bug ends the program or is reported: the program never hangs silently (row 59)."""

import pytest
from process.program import PYTHON, target, up, values

BROKEN = """
import sys
from exporter.commands import main as cli
from exporter.{module} import {owner}

async def broken(self, *_, **__):
    raise ZeroDivisionError("planted")

assert {owner}.{method}
{owner}.{method} = broken
sys.exit(cli.main())
"""


def broken(start, place, *arguments):
    module, owner, method = place.rsplit(".", 2)
    source = BROKEN.format(module=module, owner=owner, method=method)
    return start("-c", source, *arguments, command=PYTHON)


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("serve", "polling.poller.Poller._poll_at_intervals"),
        ("serve", "polling.state.TargetState.run"),
        ("serve", "web.publisher.Publisher.run"),
        ("check", "web.publisher.Publisher.run"),
        ("dump", "web.publisher.Publisher.run"),
        ("demo", "web.publisher.Publisher.run"),
    ],
)
async def test_row_59_a_bug_ends_the_program(start, service, command, place):
    options = ["--jobs=10", "--web.listen-address=127.0.0.1:0"]
    program = broken(start, place, command, *(target(service) if command != "demo" else options))

    assert await program.ended() == 1
    assert "ERROR ended by a bug, please report it" in program.log
    assert "ZeroDivisionError: planted" in program.stderr


async def test_a_bug_in_a_poll_fails_the_poll(start, service):
    program = broken(start, "modelarts.sync.Sync.sweep", *target(service))

    found = await up(await program.url(), 0)
    assert values(found, "modelarts_exporter_polls_total", result="internal") > [0]
    assert "ZeroDivisionError: planted" in program.stderr
    assert await program.stops() == 0
