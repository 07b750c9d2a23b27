"""Whatever happens in the world while it is read, a sweep that succeeds is whole and true.

The real client, search and sync; the simulated service answers in memory, without sockets.
"""

import json
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelarts.jobs_in_memory import JobsInMemory
from polling.rig import START, Clock

from exporter.clock import Clocks
from exporter.errors import ConnectionFailedError, InconsistentPagesError, PollError, TimedOutError
from exporter.huaweicloud.auth.static import NoAuth
from exporter.huaweicloud.http import Response
from exporter.jobs.fleet import Fleet as Known
from exporter.modelarts.client import Client
from exporter.modelarts.rate_limit import RateLimiter
from exporter.modelarts.search import Paging
from exporter.modelarts.sync import Sync
from exporter.modelarts.workspace import JobSource
from exporter.simulator.api import Api, route
from exporter.simulator.behaviour import Behaviour
from exporter.simulator.faults import INSTEAD, Fault, Faults, damaged, disturbed, instead
from exporter.simulator.fleet import Fleet
from exporter.simulator.job import PHASES
from exporter.simulator.reply import ApiError
from exporter.simulator.signature import Incoming

pytestmark = pytest.mark.slow

WORKSPACES = ("0", "0123456789abcdef0123456789abcdef")
PATH = "/v2/project/training-job-searches"
SEARCH = route("POST", PATH)
NO_ANSWER = {"hang": TimedOutError, "cut": ConnectionFailedError, "reset": ConnectionFailedError}


class World:
    """A fleet, and what a client may have seen of it."""

    def __init__(self, workspaces):
        self.fleet = Fleet(1, START)
        self.phases = defaultdict(set)
        self.workspaces = {}
        self.throughout = set()
        for workspace, jobs in zip(WORKSPACES, workspaces, strict=True):
            for age, phase in jobs:
                self.create(workspace, age, phase)
        self.throughout = set(self.phases)

    def create(self, workspace, age, phase):
        job = self.fleet.create(START - age, workspace=workspace)
        self.workspaces[job.id] = workspace
        self.show(job, phase)

    def show(self, job, phase):
        self.fleet.enter(job, phase)
        self.phases[job.id].add(phase)

    def find(self, workspace, which):
        """A job by its place from the newest, counted round and round; None: there are none."""
        entries = self.fleet.index.sorted(workspace)
        return entries[-1 - which % len(entries)][2] if entries else None

    def happen(self, events):
        """Change the world: between two requests, so that no one sees half of it."""
        for what, workspace, number, phase in events:
            job = self.find(workspace, number)
            if what == "create":
                self.create(workspace, 0, phase)
            elif what == "burst":
                for _ in range(number):
                    self.create(workspace, 0, phase)
            elif what == "backdate" and job is not None:
                self.create(workspace, START - job.created, phase)
            elif what == "delete" and job is not None:
                self.throughout.discard(job.id)
                self.fleet.delete(job)
            elif what == "massacre":
                for entry in self.fleet.index.sorted(workspace)[: -1 - number : -1]:
                    self.throughout.discard(entry[2].id)
                    self.fleet.delete(entry[2])
            elif what == "enter" and job is not None:
                self.show(job, phase)


class Service:
    """An `exporter.huaweicloud.http.Http` that asks the simulated service itself."""

    def __init__(self, world, behaviour, faults):
        self.faults = Faults()
        for fault in faults:
            self.faults.add(fault)
        self.requests = 0
        self._fleet = world.fleet
        self._api = Api(world.fleet, behaviour, None)

    async def __call__(self, sent):
        self.requests += 1
        names = {name.lower(): value for name, value in sent.headers.items()}
        request = Incoming(sent.method, PATH, "", names, sent.body)
        striking = self.faults.striking("search", PATH)
        for fault in striking:
            if fault.do == "act":
                fault.action(self._fleet)
        for fault in striking:
            if fault.do in NO_ANSWER:
                raise NO_ANSWER[fault.do]("no answer")
            if fault.do in INSTEAD:
                reply = instead(fault, "1")
                return Response(reply.status, reply.headers, reply.body)
        try:
            reply = self._api.answer(SEARCH, disturbed(request, striking), START)[1]
        except ApiError as refusal:
            reply = refusal.reply("1")
        reply = damaged(reply, striking)
        return Response(reply.status, reply.headers, reply.body)


class Meter:
    def __init__(self):
        self.retries = Counter()
        self.inconsistent = 0

    def retried(self, reason):
        self.retries[reason] += 1

    def paged(self, *, duplicates, inconsistent):
        self.inconsistent += inconsistent


def sync_of(service, paging):
    clock, meter = Clock(), Meter()
    clocks = Clocks(clock.wall, clock.monotonic, clock.sleep)
    client = Client(
        service,
        NoAuth(),
        endpoint="http://service.test",
        project_id="project",
        rate_limiter=RateLimiter(5, clocks),
        concurrency=2,
        retries=3,
        longest_pause=120,
        meter=meter,
        clocks=clocks,
    )
    return Sync(JobSource(client, paging, WORKSPACES, meter, clock.wall), 86400)


async def sweep(sync):
    """Read everything, knowing nothing."""
    return await sync.sweep(Known(), JobsInMemory(Known()), deadline=1e9, background=False)


ages = st.one_of(st.integers(0, 3), st.integers(0, 100_000))  # with ties, or hardly any
jobs = st.tuples(ages, st.sampled_from(PHASES))
workspace = st.sampled_from(WORKSPACES)
events = st.one_of(
    st.tuples(
        st.sampled_from(["create", "backdate", "delete", "delete", "enter"]),
        workspace,
        st.integers(0, 300),
        st.sampled_from(PHASES),
    ),
    st.tuples(
        st.sampled_from(["burst", "massacre"]),
        workspace,
        st.integers(1, 120),
        st.sampled_from(PHASES),
    ),
)
moments = st.dictionaries(st.integers(1, 25), st.lists(events, min_size=1, max_size=5), max_size=10)


@st.composite
def worlds(draw):
    """Two workspaces of 0 to 300 jobs each; sizes first, as lists tend to be short."""
    sizes = draw(
        st.tuples(*[st.one_of(st.sampled_from([0, 1, 49, 50, 51, 98]), st.integers(0, 300))] * 2)
    )
    seeds = draw(st.lists(jobs, min_size=1, max_size=20))
    spread = draw(st.integers(0, 60))
    return [
        [
            (age + number * spread, phase)
            for number in range(size)
            for age, phase in [seeds[number % len(seeds)]]
        ]
        for size in sizes
    ]


faults = st.lists(
    st.builds(
        Fault,
        st.sampled_from(["status", "hang", "cut", "truncate", "duplicate", "replace", "edit"]),
        nth=st.integers(1, 15),
        times=st.integers(1, 2),
        status=st.sampled_from([None, 429, 500, 503]),
        item=st.integers(0, 60),
        edits=st.just({"kind": 5}),
        body=st.just(""),
    ),
    max_size=2,
)


@pytest.mark.parametrize("offset", ["page", "row"])
@pytest.mark.parametrize("known", [True, False], ids=["known", "to be found out"])
@settings(max_examples=90, deadline=None, derandomize=True, database=None)
@given(jobs=worlds(), moments=moments, faults=faults)
async def test_a_sweep_that_succeeds_is_whole_and_true(offset, known, jobs, moments, faults):
    world = World(jobs)
    acts = [
        Fault("act", nth=nth, times=1, action=lambda _, events=events: world.happen(events))
        for nth, events in moments.items()
    ]
    service = Service(world, Behaviour(offset=offset), [*acts, *map(fresh, faults)])
    sync = sync_of(service, Paging(offset if known else None, fixed=known))

    try:
        view = await sweep(sync)
    except PollError:
        assert moments or faults
        assert service.requests < 150
        return

    assert service.requests < 150
    assert world.throughout <= view.jobs.keys() <= world.phases.keys()
    for job_id, job in view.jobs.items():
        assert (job.id, job.workspace) == (job_id, world.workspaces[job_id])
        assert job.phase in world.phases[job_id]


def fresh(fault):
    """A fault that has not been used by an earlier example."""
    return Fault(**{name: getattr(fault, name) for name in fault.__struct_fields__} | NEW)


NEW = {"seen": 0, "hits": 0}


@pytest.mark.parametrize("offset", ["page", "row"])
@settings(max_examples=45, deadline=None, derandomize=True, database=None)
@given(jobs=worlds(), moments=moments)
async def test_a_wrong_mode_makes_no_wrong_view(offset, jobs, moments):
    world = World(jobs)
    acts = [
        Fault("act", nth=nth, times=1, action=lambda _, events=events: world.happen(events))
        for nth, events in moments.items()
    ]
    service = Service(world, Behaviour(offset=offset), acts)
    paging = Paging("row" if offset == "page" else "page")

    try:
        view = await sweep(sync_of(service, paging))
    except InconsistentPagesError:
        assert paging.mode is None
    else:
        assert world.throughout <= view.jobs.keys() <= world.phases.keys()
    assert service.requests < 150


@pytest.mark.parametrize("offset", ["page", "row"])
async def test_the_service_in_memory_is_the_one_on_a_port(offset, rig):
    """The shortcut of this file answers as the real thing does."""
    await rig.serve(behaviour=Behaviour(offset=offset))
    ids = rig.populate(230)
    poller = await rig.add()
    assert await poller.poll()
    world = World([[], []])
    world.fleet = rig.fleet
    service = Service(world, Behaviour(offset=offset), [])

    view = await sweep(sync_of(service, Paging()))

    assert view.jobs.keys() == rig.shown() == set(ids)
    assert service.requests == len(poller.session.times()) + 1
    assert json.loads(rig.service.requests[0].body)["limit"] == 50
