"""The state file is overwritten: what memory has continues, whatever happened before."""

import gc

import pytest

from exporter.clock import Clocks
from exporter.storage.store import Store

OTHER = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("change", [{"workspaces": ("0", OTHER)}, {"name": "renamed"}])
async def test_counters_continue_if_it_happens_after_a_reload(rig, tmp_path, change):
    """The successor has loaded its state, and has not committed yet."""
    path = tmp_path / "state.db"
    store = await Store.open(path, problem=lambda: None, clocks=Clocks(rig.clock.wall))
    await rig.serve()
    ids = rig.populate(60)
    before = await rig.add(store=store)
    assert await before.poll()
    rig.fleet.finish(ids[0], "Failed")
    for _ in range(2):
        await rig.settle(before)
    after = await rig.add(store=store, **change)
    rig.publisher.pollers.remove(before)
    await after.take_over(before)
    del before
    gc.collect()
    await after.target.connect()
    await after.state.load()
    path.write_bytes(b"overwritten")
    rig.fleet.finish(ids[1], "Failed")
    assert not await after.poll()
    for _ in range(2):
        await rig.settle(after)

    assert rig.counted("jobs_finished") == {"Failed": 2}
    assert rig.counted("jobs_created", "pool") == {}
    assert len(after.state.fleet) == 60
    await store.close()
