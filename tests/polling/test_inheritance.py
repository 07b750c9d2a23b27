"""Which saved state is whose: two targets of one project, renamed and moved targets."""

import contextlib
import logging

import pytest
from polling.rig import events
from storage.test_migrations import EMPTY, PROJECT_ID, format_1

from exporter.polling.identity import TargetIdentity
from exporter.polling.inheritance import find_inheritance
from exporter.polling.registry import TargetRegistry
from exporter.simulator.fleet import Fleet
from exporter.simulator.server import SimulatedService
from exporter.storage.scopes import StateKey
from exporter.storage.store import Store

A, B = "https://a", "https://b"
OTHER = "0123456789abcdef0123456789abcdef"


def key(name="", endpoint="", project_id="p"):
    return StateKey("cn-north-4", project_id, name, endpoint)


def found(target, saved, *in_use, workspaces=("0",)):
    """Previous key by workspace; ``...`` where it is unclear."""
    pairs = [each if isinstance(each[1], str) and len(each) == 2 else (each, "0") for each in saved]
    used = {each if len(each) == 2 else (each, "0") for each in in_use}
    result = find_inheritance(target, workspaces, pairs, lambda *each: each in used)
    by_workspace = {ws: before for before, some in result.workspaces.items() for ws in some}
    return by_workspace | dict.fromkeys(result.unclear, ...)


def test_a_target_continues_what_it_was_before():
    one, two = key("one", A), key("two", A)

    assert found(one, []) == {}
    assert found(one, [one, two]) == {}  # it has its own
    assert found(two, [one]) == {"0": one}  # renamed
    assert found(two, [one], one) == {}  # one is still there: two is another target
    assert found(key("one", B), [one]) == {"0": one}  # moved
    assert found(key("two", B), [one]) == {}  # neither the name nor the endpoint is the same
    assert found(one, [key()]) == {"0": key()}  # from a file of format 1
    assert found(one, [key()], key()) == {"0": ...}  # two targets had one state
    assert found(two, [one, key()], one, key()) == {"0": ...}


def test_a_name_and_an_endpoint_that_are_exchanged():
    """The jobs are where the endpoint is."""
    saved = [key("one", A), key("two", B)]

    assert found(key("one", B), saved) == {"0": key("two", B)}
    assert found(key("two", A), saved) == {"0": key("one", A)}


def test_what_could_be_of_two_is_of_nobody():
    assert found(key("three", A), [key("one", A), key("two", A)]) == {"0": ...}
    assert found(key("three", A), [key("one", A), key("two", A)], key("one", A)) == {
        "0": key("two", A)
    }


def test_every_workspace_by_itself():
    """One target for two workspaces becomes two targets, and the other way round."""
    both = [(key("both", A), "0"), (key("both", A), "1")]
    assert found(key("one", A), both, workspaces=("0",)) == {"0": key("both", A)}
    assert found(key("two", A), both, workspaces=("1", "2")) == {"1": key("both", A)}

    each = [(key("one", A), "0"), (key("two", A), "1")]
    assert found(key("both", A), each, workspaces=("0", "1")) == {
        "0": key("one", A),
        "1": key("two", A),
    }
    assert found(key("one", A), each, (key("two", A), "1"), workspaces=("0", "1")) == {}


class Registered:
    def __init__(self, name, project_id="p", endpoint=A, workspaces=("0",), state_key=None):
        self.identity = TargetIdentity(name, "cn-north-4", project_id, endpoint, "", workspaces)
        self.state_key = state_key


@pytest.mark.parametrize(
    ("other", "state", "used"),
    [
        (Registered("one"), key("one", A), True),
        (Registered("two"), key("one", A), False),
        (Registered("one", endpoint=B), key("one", A), False),
        (Registered("one", workspaces=("1",)), key("one", A), False),
        (Registered("one", project_id="q"), key("one", A), False),
        (Registered("one", project_id=None), key("one", A), True),  # it may turn out to be p
        (Registered("two", project_id=None), key("one", A), False),
        (Registered(None, project_id=None), key("one", A), False),
        (Registered(None, project_id=None), key("p", A), True),
        (Registered(None), key("p", A), True),
        (Registered("new", state_key=key("old", A)), key("old", A), True),  # being renamed
        (Registered("two"), key(), True),
        (Registered("two", project_id=None), key(), False),
        (Registered("two", project_id="q"), key(), False),
    ],
)
def test_whose_state_it_is(other, state, used):
    me = Registered("me")
    registry = TargetRegistry([me, other])

    assert registry.uses(state, "0", other_than=me) == used
    assert not TargetRegistry([me]).uses(key("me", A), "0", other_than=me)


# --- With a file and a service --------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


@pytest.fixture
def life(rig, path):
    """One life of the exporter, with some targets that have polled."""

    @contextlib.asynccontextmanager
    async def life(*targets):
        store = await Store.open(path, problem=rig.instruments.state_errors.inc)
        pollers = [await rig.add(store=store, **options) for options in targets]
        try:
            for poller in pollers:
                assert await poller.poll(), poller.error
            yield pollers
        finally:
            rig.publisher.pollers.clear()
            await store.close()

    return life


async def settle(rig, *pollers):
    for _ in range(2):
        for poller in pollers:
            await rig.settle(poller)


def counts(rig, project):
    """Created, deleted, finished."""
    names = ("jobs_created", "jobs_deleted", "jobs_finished")
    found = (rig.value(f"modelarts_training_{name}_total", project=project) for name in names)
    return tuple(value or 0 for value in found)


@pytest.fixture
async def elsewhere(rig):
    """Another service that knows the same project ID."""
    fleet = Fleet(2, rig.clock.service() - 1000)
    async with SimulatedService(fleet, clock=rig.clock.service) as service:
        yield service


async def test_two_targets_with_one_project_id_keep_their_counters(rig, life, elsewhere):
    await rig.serve()
    rig.populate(20)
    for _ in range(15):
        elsewhere.fleet.start(elsewhere.fleet.create())
    both = ({"name": "one"}, {"name": "two", "endpoint": elsewhere.url})
    async with life(*both) as pollers:
        for _ in range(10):
            rig.fleet.create()
        for _ in range(3):
            elsewhere.fleet.create()
        await settle(rig, *pollers)
        before = {project: counts(rig, project) for project in ("one", "two")}
        assert before == {"one": (10, 0, 0), "two": (3, 0, 0)}

    async with life(*both) as pollers:
        await settle(rig, *pollers)
        for poller in pollers:
            assert await poller.sweep()
        assert {project: counts(rig, project) for project in before} == before

    async with life(*reversed(both)) as pollers:
        await settle(rig, *pollers)
        assert {project: counts(rig, project) for project in before} == before


async def test_targets_that_are_renamed_and_moved(rig, life):
    await rig.serve()
    ids = rig.populate(20)
    async with life({"name": "one"}) as pollers:
        rig.fleet.finish(ids[0], "Failed")
        await settle(rig, *pollers)
        assert counts(rig, "one") == (0, 0, 1)
    moved = rig.service.url.replace("127.0.0.1", "localhost")
    for options in ({"name": "two"}, {"name": "two", "endpoint": moved}, {"name": None}):
        async with life({"endpoint": moved if options["name"] is None else None, **options}):
            project = options["name"] or rig.publisher.pollers[0].target.identity.project_id
            assert counts(rig, project) == (0, 0, 1)
    async with life({"name": "one"}) as pollers:  # both are different: a new baseline
        assert counts(rig, "one") == (0, 0, 0)
    assert rig.value("modelarts_exporter_state_errors_total") == 0


async def test_a_target_that_is_added_does_not_take_the_state_of_another(rig, life):
    await rig.serve()
    ids = rig.populate(20)
    async with life({"name": "one"}) as pollers:
        rig.fleet.finish(ids[0], "Failed")
        await settle(rig, *pollers)
    for targets in ([{"name": "two"}, {"name": "one"}], [{"name": "one"}, {"name": "two"}]):
        async with life(*targets):
            assert counts(rig, "one") == (0, 0, 1)
            assert counts(rig, "two") == (0, 0, 0)


async def test_a_file_of_format_1(rig, life, path, caplog):
    """Its only target has all of it; if two could, none has."""
    caplog.set_level(logging.INFO)
    await rig.serve()
    workspaces = ("0", EMPTY)
    format_1(path)
    async with life({"name": "nlp", "project_id": PROJECT_ID, "workspaces": workspaces}):
        # its jobs are not in this world; they are gone
        assert counts(rig, "nlp")[::2] == (2, 2)
        before = events(rig.samples())
    async with life({"name": "vision", "project_id": PROJECT_ID, "workspaces": workspaces}):
        after = events(rig.samples())
        assert len(after) >= len(before)
        assert counts(rig, "vision")[0] == 2
    assert caplog.text.count("the target continues the saved state") == 2

    path.unlink()
    format_1(path)
    caplog.clear()
    both = [{"name": name, "project_id": PROJECT_ID} for name in ("one", "two")]
    async with life(*both):
        assert counts(rig, "one") == counts(rig, "two") == (0, 0, 0)
    assert caplog.text.count("several targets could continue the saved state") == 2


async def test_a_reload_that_renames(rig, life, path):
    """In memory and in the file, also if another target of the project is added at once."""
    await rig.serve()
    ids = rig.populate(20)
    async with life({"name": "one"}) as (one,):
        rig.fleet.finish(ids[0], "Failed")
        await settle(rig, one)
        store = one.state._store
        two, three = [await rig.add(store=store, name=name) for name in ("two", "three")]
        await two.take_over(one)
        rig.publisher.pollers.remove(one)
        assert await three.poll()
        assert await two.poll()
        assert counts(rig, "two") == (0, 0, 1)
        assert counts(rig, "three") == (0, 0, 0)
        rig.fleet.finish(ids[1], "Failed")
        await settle(rig, two, three)
    async with life({"name": "three"}, {"name": "two"}):
        assert counts(rig, "two") == (0, 0, 2)
        assert counts(rig, "three") == (0, 0, 1)


async def test_what_is_written_anew_is_whole(rig, life, path):
    """Whatever happened to the file, a clean stop loses nothing."""
    await rig.serve()
    ids = rig.populate(30)
    async with life({"name": "one"}, {"name": "two"}) as pollers:
        for job_id in ids[:5]:
            rig.fleet.finish(job_id, "Failed")
        await settle(rig, *pollers)
        await pollers[0].state._store.load(key(), [], recent_since=0.0)  # the checkpoint is done
        path.write_bytes(b"overwritten")
        rig.fleet.finish(ids[5], "Failed")
        for poller in pollers:
            assert not await poller.poll()  # finished jobs are lost: the next poll reads them
            assert "written anew" in poller.error
        await settle(rig, pollers[0])
        rig.fleet.delete(ids[6])
        await settle(rig, *pollers)
        assert rig.value("modelarts_exporter_state_errors_total") == 1
        before = events(rig.samples())
        path.unlink()
    async with life({"name": "one"}, {"name": "two"}):
        assert events(rig.samples()) == before
    assert counts(rig, "two") == (0, 1, 6)
