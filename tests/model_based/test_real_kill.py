"""`kill -9` of a real process in the middle of its commits: what it had said is kept, and whole."""

import asyncio
import random
import subprocess
import sys

import pytest

from exporter.metrics.counters import CREATED
from exporter.storage.scopes import StateKey
from exporter.storage.store import Store

pytestmark = pytest.mark.integration

KEY = (CREATED.metric.name, ("0", "public", "GPU"))
PROGRAM = """
import asyncio, itertools, sys
from pathlib import Path
from exporter.metrics.counters import Series
from exporter.storage.scopes import StateKey
from exporter.storage.store import StateChange, Store
target = StateKey("cn-north-4", "p")
key = (sys.argv[2], ("0", "public", "GPU"))
async def main():
    store = await Store.open(Path(sys.argv[1]), problem=lambda: None)
    saved = await store.load(target, ["0"], recent_since=0.0)
    first = int(saved.ledger[key].value) if saved.ledger else 0
    for number in itertools.count(first + 1):
        many = {(key[0], ("0", f"pool-{pool}", "GPU")): Series(0.0, number) for pool in range(200)}
        series = {**many, key: Series(0.0, number)}
        await store.commit(target, StateChange(newest_created={"0": float(number)}, series=series))
        print(number, flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(2))
async def test_what_was_shown_before_a_kill_is_kept(tmp_path, seed):
    path = tmp_path / "state"
    chance = random.Random(seed)
    shown = 0
    for _ in range(3):
        said = await asyncio.to_thread(_killed, path, chance.randint(1, 20), chance.random() / 100)
        assert said > shown
        store = await Store.open(path, problem=lambda: pytest.fail("damaged"))
        saved = await store.load(StateKey("cn-north-4", "p"), ["0"], recent_since=0.0)
        await store.close()
        values = {series.value for series in saved.ledger.values()}
        assert len(saved.ledger) == 201
        assert values == {saved.newest_created["0"]}  # the whole commit or nothing of it
        shown = int(saved.newest_created["0"])
        assert said <= shown <= said + 1


def _killed(path, commits, later):
    """Let the program commit so often, kill it a little later; the last that it has said."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, path, CREATED.metric.name], stdout=subprocess.PIPE
    ) as program:
        for _ in range(commits):
            line = program.stdout.readline()
        try:
            program.wait(later)
        except subprocess.TimeoutExpired:
            program.kill()
        rest = program.stdout.read().split()
    return int(rest[-1] if rest else line)
