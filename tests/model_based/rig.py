"""One life of the exporter after another, driven through one world, and checked at every turn."""

import asyncio
import contextlib
import logging
import shutil
import tempfile
from bisect import bisect_left
from collections import Counter
from pathlib import Path
from unittest.mock import patch

from model_based.hands import POOLS, WORKSPACES, Hands
from model_based.oracle import Attempt, History, MismatchError, Oracle, shown_phase
from model_based.virtual import AtOnce
from model_based.wire import ATTEMPT, ENDPOINT, Wire
from prometheus_client.utils import floatToGoString

from exporter.app.factory import ProcessContext, make_poller, plans
from exporter.clock import Clocks
from exporter.errors import StateError
from exporter.huaweicloud.auth.lockout import KeyLockouts
from exporter.jobs.fleet import EVERYTHING
from exporter.jobs.tracker import observe
from exporter.metrics.counters import EVENT_FAMILIES
from exporter.metrics.self_metrics import Instruments
from exporter.modelarts.sync import Sync
from exporter.modelarts.verification.marks import oldest_verification
from exporter.polling.handover import restored_fleet
from exporter.polling.registry import TargetRegistry
from exporter.polling.whole_reading import WholeReading
from exporter.settings.schema import Settings
from exporter.simulator.behaviour import Behaviour
from exporter.simulator.fleet import Fleet
from exporter.simulator.job import TERMINAL
from exporter.storage.jobs import finished_between
from exporter.storage.scopes import scopes_of
from exporter.storage.store import Store
from exporter.web.publisher import Publisher

START = 1_750_000_000.0
INTERVAL = 60.0
LONGEST_BIRTH = 300.0
EVENTS = {row.metric.name: row for row in EVENT_FAMILIES}
CONSTANT = 'project="p",region="r"'
FILTERS = ("phase", "id", "name")
FAULTS = (
    {"do": "status", "status": 429, "code": "APIG.0308", "retry_after": "7"},
    {"do": "status", "status": 429, "code": "APIG.0308"},
    {"do": "status", "status": 500},
    {"do": "status", "status": 502, "form": "html"},
    {"do": "latency", "seconds": 3.0},
    {"do": "latency", "seconds": 31.0},
    {"do": "hang"},
    {"do": "cut"},
    {"do": "cut_body"},
    {"do": "truncate", "operation": "search"},
    {"do": "same_page", "operation": "search"},
    {"do": "duplicate", "operation": "search", "item": 0},
    {"do": "replace", "operation": "search", "body": '{"total":0,"count":0,"items":[]}'},
    {"do": "replace", "body": '{"error_code":"ModelArts.2799","error_msg":"odd"}'},
    {"do": "replace", "body": "<html>"},
    {"do": "latency", "seconds": 20.0},
    {"do": "latency", "seconds": 20.0},
    {"do": "latency", "seconds": 12.0},
)
EMPTY_LIST = 12
POINTS = (
    "request", "before_commit", "after_commit", "before_publish", "after_publish", "load",
    "verification", "part_commit",
)  # fmt: skip
PART = POINTS.index("part_commit")
NUMBERS_CHECKED_EVERY = 4
"""So many times something is published."""


class _Log(logging.Handler):
    """Bugs that the poller survives."""

    def __init__(self, failed):
        super().__init__(logging.ERROR)
        self._failed = failed

    def emit(self, record):
        if record.exc_info:
            self._failed(f"{record.getMessage()}: {record.exc_info[1]!r}", record.exc_info[1])


class Rig:
    """A world, the service before it, and the exporter that lives for now.

    Args:
        config: see `model_based.steps.config_of`.
    """

    def __init__(self, config):
        self.config = config
        self.world = Fleet(config["seed"], START, pools={p for some in POOLS for p in some})
        self.history = History(self.world)
        self.hands = Hands(self.world, POOLS[config["pools"]])
        self.unified = config.get("unified", "taken")
        self.behaviour = Behaviour(offset=config["offset"], gzip=False, unified_jobs=self.unified)
        self.wire = Wire(self.world, self.history, self.hands, self.behaviour, self.service_clock)
        self.wire.latency = config["latency"]
        self.wire.at_request = self._at_request
        self.jobs_history = config.get("history") or 0.0
        self.oracle = self._new_oracle()
        self.running = set()
        self.counts = Counter()
        self.workspaces = WORKSPACES
        self.full_disk = 0
        self.dirty = False
        self._failure = None
        self._asleep = 0.0
        self._skew = 0.0
        self._ticks = 0
        self._armed = None
        self._killed = asyncio.Event()
        self._directory = Path(
            tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        )
        self._generation = 0
        self._path = self._directory / "state-0"
        self._tasks = []
        self._values = {}
        self._born = {}
        self._restarts = {}
        self._lines = {}
        self._has_left = False
        """Whether a workspace has left whose users are still part of their counters."""
        self._log = _Log(self.fail)

    async def __aenter__(self):
        self._patches = contextlib.ExitStack()
        self._patches.enter_context(patch("exporter.polling.state.observe", _watched_observe))
        self._patches.enter_context(patch("exporter.polling.state.WholeReading", WatchedReading))
        part = self.config.get("part", 3)
        self._patches.enter_context(patch("exporter.polling.whole_reading.PART", part))
        self._patches.enter_context(patch("exporter.metrics.self_metrics.ProcessCollector"))
        self._patches.enter_context(patch("exporter.simulator.wire.node_counts", _last_node_count))
        self._patches.enter_context(
            patch("exporter.polling.target.Sync", lambda *arguments: WatchedSync(self, *arguments))
        )
        logging.getLogger("exporter").addHandler(self._log)
        self.hands.past(
            self.config["past"],
            together=self.config.get("together", 1),
            disordered=self.config.get("disordered", False),
        )
        await self.begin()
        return self

    async def __aexit__(self, *_):
        await self._abandon()
        self._patches.close()
        logging.getLogger("exporter").removeHandler(self._log)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _new_oracle(self):
        return Oracle(self.world, self.history, unified=self.unified == "taken")

    # --- Clocks -----------------------------------------------------------------------------------

    def service_clock(self):
        return START + asyncio.get_running_loop().time() - 1000.0 + self._asleep

    def wall(self):
        return self.service_clock() + self._skew

    def sleep_machine(self, seconds, *, monotonic):
        """Time passes while nothing runs; the monotonic clock may miss it."""
        if monotonic:
            asyncio.get_running_loop().jump(seconds)
        else:
            self._asleep += seconds

    def skew(self, seconds):
        self._skew = seconds

    # --- Lives ------------------------------------------------------------------------------------

    async def begin(self):
        """A new process."""
        self.instruments = Instruments()
        self.publisher = Publisher(self.instruments)
        self.store = await self._open()
        self._lines = {}
        self._alive = True
        self._tasks = [asyncio.create_task(self._act(self.publisher.run))]
        self._begin_to_poll(await self._make_poller())

    def _begin_to_poll(self, poller):
        poller.show()
        self.poller = poller
        self.publisher.set_pollers([poller])
        self._tasks.append(asyncio.create_task(self._act(poller.run)))

    async def _make_poller(self):
        settings = Settings.model_validate(
            {
                "target": {
                    "name": "p",
                    "region": "r",
                    "project_id": "project",
                    "endpoint": ENDPOINT,
                    "iam_endpoint": ENDPOINT,
                    "workspaces": list(self.workspaces),
                    "auth": {"method": "none"},
                    "pagination": self.config["offset"] if self.config["fixed"] else "auto",
                },
                "poll": {
                    "interval": INTERVAL,
                    "timeout": 120.0,
                    "sweep_interval": self.config["sweep_interval"],
                    "sweep_timeout": 1800.0,
                    "stale_after": 300.0,
                },
                "api": {"max_requests_per_second": self.config["rate"]},
                "jobs": {
                    "history": self.jobs_history,
                    "retention": self.config.get("retention", 3600.0),
                },
            }
        )
        clocks = Clocks(self.wall, asyncio.get_running_loop().time, asyncio.sleep)
        context = ProcessContext(
            environ={},
            clocks=clocks,
            instruments=self.instruments,
            lockouts=KeyLockouts(clocks.monotonic),
            store=WatchedStore(self, self.store),
            publish=self._publish,
            registry=TargetRegistry(),
            connect=self.wire.connect,
        )
        (plan,) = plans(settings, settings.all_targets(), None)
        return await make_poller(plan, context)

    async def _act(self, actor):
        try:
            await actor()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - the program would have ended
            self.fail(f"an actor died: {error!r}", error)

    async def _open(self):
        if self.config["state"] == "memory":
            return await Store.temporary(problem=lambda: None)
        return await Store.open(self._path, problem=lambda: None, clocks=Clocks(wall=self.wall))

    async def _abandon(self):
        """The process is gone; nothing of it is closed."""
        self._alive = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self.running.clear()
        self._armed = None
        self.dirty = False

    async def restart(self, how, *, lose_state=False, workspaces=None):
        """End the process and start another.

        Args:
            how: ``stop``: in order; ``kill``: as it is.
            lose_state: the new one has no memory.
            workspaces: which the new one is to read; None: the same.
        """
        if how == "kill":
            self._save_wreck()
        await self._abandon()
        await self.store.close()
        if how == "kill" and self.config["state"] != "memory":
            self._path = self._wreck
        if lose_state and self.config["state"] != "memory":
            self._generation += 1
            self._path = self._directory / f"state-{self._generation}"
        if lose_state or self.config["state"] == "memory":
            self.oracle = self._new_oracle()
            self._values, self._born, self._restarts = {}, {}, {}
            self._has_left = False
        self.oracle.phase_filter = True
        self.full_disk = 0
        self._switch(
            workspaces or self.workspaces, keeps=not lose_state and self.config["state"] != "memory"
        )
        self.counts[f"{how}s"] += 1
        await self.begin()

    async def reload(self, workspaces=None):
        """Another poller takes over while the process lives on.

        Args:
            workspaces: which it is to read; None: the same.
        """
        polling = self._tasks.pop()
        polling.cancel()
        await asyncio.wait([polling])
        self.running.clear()
        self.dirty = False
        self._armed = None
        self.oracle.phase_filter = True
        if workspaces:
            self._switch(workspaces, keeps=True)
            self._lines = {}
        poller = await self._make_poller()
        await poller.take_over(self.poller)
        self._begin_to_poll(poller)
        self.counts["reloads"] += 1
        await self.publisher.publish()
        self._inspect(self.publisher.exposition.text.decode())

    def _switch(self, workspaces, *, keeps):
        self._has_left |= keeps and not set(self.workspaces) <= set(workspaces)
        self.workspaces = workspaces

    def _save_wreck(self):
        """What a process that is killed leaves: the file and its log, as they are."""
        self._generation += 1
        self._wreck = self._directory / f"state-{self._generation}"
        for suffix in ("", "-wal"):
            source = Path(f"{self._path}{suffix}")
            if source.exists():
                shutil.copy(source, f"{self._wreck}{suffix}")

    async def kill_at(self, point, nth, patience):
        """Kill the process when it comes to that point, or after a while anyway."""
        self._killed.clear()
        self._armed = [POINTS[point % len(POINTS)], nth]
        AtOnce.lazy = bool(nth % 2)
        try:
            async with asyncio.timeout(patience):
                await self._killed.wait()
            self.counts[f"killed at {self._armed[0]}"] += 1
        except TimeoutError:
            pass
        finally:
            AtOnce.lazy = False

    async def _at_request(self):
        await self.point("request")
        if ATTEMPT.get().kind == "verify":
            await self.point("verification")

    async def point(self, name):
        """A place at which the process may be killed."""
        if self._armed is None or self._armed[0] != name:
            return
        self._armed[1] -= 1
        if self._armed[1] <= 0:
            self._killed.set()
            await asyncio.get_running_loop().create_future()

    # --- Checks -----------------------------------------------------------------------------------

    def fail(self, message, cause=None):
        if self._failure is None and self._alive:
            self._failure = MismatchError(message)
            self._failure.__cause__ = cause

    def check(self):
        if self._failure is not None:
            raise self._failure

    def reading(self, kind):
        """A poll begins."""
        attempt = Attempt(kind, len(self.history), self.tick())
        attempt.odd = set(self.hands.odd) | self.hands.hidden
        attempt.narrowed = bool(self.wire.narrowed)
        self.running.add(attempt)
        return attempt

    def tick(self):
        self._ticks += 1
        return self._ticks

    def taken(self, attempt):
        attempt.done = self.tick()
        try:
            self.oracle.take(attempt, self.wall(), self.workspaces)
        except MismatchError as failure:
            self.fail(str(failure), failure)

    async def _publish(self):
        await self.point("before_publish")
        generation = await self.publisher.publish()
        try:
            self._inspect(self.publisher.exposition.text.decode())
            if self.counts["published"] % NUMBERS_CHECKED_EVERY == 0:
                self._check_numbers()
        except MismatchError as failure:
            self.fail(str(failure), failure)
        self.dirty = False
        await self.point("after_publish")
        return generation

    def _inspect(self, text):
        """Nothing falls, nothing vanishes, everything is born at zero, every phase was real."""
        now = asyncio.get_running_loop().time()
        lines = dict(
            line.rsplit(" ", 1)
            for line in text.splitlines()
            if line.startswith("modelarts_") and not line.startswith("modelarts_exporter_poll_dur")
        )
        before, self._lines = self._lines, lines
        for key in before.keys() - lines.keys():
            if _is_event(key):
                raise MismatchError(f"vanished: {key}")
        for key, value in lines.items():
            if before.get(key) != value:
                self._check_line(key, float(value), before.get(key), now)
        if not self._has_left:
            for total, by_user in _BY_USER:
                _check_users(lines, total, by_user)
        self.counts["published"] += 1

    def _check_line(self, key, number, before, now):
        if key.startswith("modelarts_training_job_phase"):
            self._check_phase(key)
        if not key.partition("{")[0].endswith(("_total", "_bucket", "_count", "_sum")):
            return
        if before is not None and number < float(before):
            raise MismatchError(f"fell from {before} to {number}: {key}")
        if _is_event(key):
            self._check_birth(key, number, now)
        elif key.startswith(_JOB_RESTARTS):
            if number < self._restarts.get(key, 0.0):
                raise MismatchError(f"fell from {self._restarts[key]} to {number}: {key}")
            self._restarts[key] = number

    def _check_numbers(self):
        """What memory has is what the store has, also where it is only numbers."""
        state = self.poller.state
        if state.unloaded or state._applying.locked():
            return
        fleet, read = state.fleet, frozenset(state.fleet.newest_created)
        since = fleet.recent_since, fleet.counted_since
        saved = self.store._read_saved(state._key, read, since[0])
        counted = saved.finished
        if since[1] != EVERYTHING:
            with self.store._database.working() as connection:
                ours = scopes_of(connection, state._key).values()
                counted = finished_between(
                    connection,
                    {scope.id: scope for scope in ours if scope.workspace in read},
                    since[1],
                    float("inf"),
                )
        stored = restored_fleet(saved, counted, since)
        for name in ("open", "listed", "counted", "newest_created", "unified", "verification"):
            ours, theirs = getattr(fleet, name), getattr(stored, name)
            if ours != theirs:
                raise MismatchError(f"{name} in memory and in the store: {ours} {theirs}"[:2000])
        for job_id, known in fleet.recent.items():  # some are only in the store: clocks are set
            if stored.recent.get(job_id) != known:
                raise MismatchError(f"{job_id} is not in the store as it is in memory")
        self.counts["numbers checked"] += 1

    def _check_phase(self, key):
        labels = _labels(key)
        job_id, phase = labels["job_id"], labels["phase"]
        known = job_id in self.oracle.current or job_id in self.oracle.leaving
        if not known or phase not in self.oracle.allowed[job_id]:
            raise MismatchError(f"{job_id} is shown in {phase}: {self.oracle.allowed[job_id]}")

    def _check_birth(self, key, number, now):
        if number < self._values.get(key, 0.0):
            raise MismatchError(f"fell from {self._values[key]} to {number}: {key}")
        if key not in self._born:
            if number:
                raise MismatchError(f"born at {number}: {key}")
            self._born[key] = now
        elif number and not self._values[key] and now - self._born[key] < INTERVAL - 1e-6:
            raise MismatchError(f"{number} only {now - self._born[key]} s after its birth: {key}")
        self._values[key] = number

    # --- Quiet ------------------------------------------------------------------------------------

    def be_good(self):
        """All is well again with the service."""
        self.wire.faults.clear()
        self.wire.forbidden = False
        self.wire.narrowed = set()
        self.wire.latency = 0.05
        self.hands.make_even()
        self.hands.show_all()
        self.behaviour.records_in_list = True
        self.behaviour.ignored_filters = self.behaviour.rejected_filters = frozenset()
        self.behaviour.totals = self.config.get("totals", "documented")
        self.full_disk = 0
        self._skew = 0.0

    async def quiet(self):
        """Wait until the exporter can know everything, then compare."""
        self.be_good()
        self.world.advance(self.service_clock())
        for act in [act for _, act in self.wire.sudden]:
            act()
        self.wire.sudden = []
        await asyncio.sleep(2 * INTERVAL)  # what was begun before is over, or nearly
        since, polls = self.wall(), self.oracle.polls
        await self._until(
            lambda: self._verified_since(since) and self.oracle.polls >= polls + 2,
            3 * self.config["sweep_interval"] + 8000.0,
            "no poll and verification of all lists succeeded although all is well",
        )
        await asyncio.sleep(LONGEST_BIRTH + 2 * INTERVAL + 1.0)
        await self._until(lambda: not self.running and not self.dirty, 600.0, "always busy")
        self._compare()
        self.counts["compared"] += 1

    def _verified_since(self, moment):
        """Whether every page of every list was compared with what is known."""
        oldest = oldest_verification(self.poller.state.fleet.verification, self.workspaces)
        return oldest is not None and oldest > moment

    async def _until(self, condition, patience, complaint):
        end = asyncio.get_running_loop().time() + patience
        while not condition():
            self.check()
            if asyncio.get_running_loop().time() > end:
                raise MismatchError(f"{complaint}: {self.poller.error}")
            await asyncio.sleep(1.0)
        self.check()

    def _compare(self):
        expected = {}
        totals = self.oracle.expected(self.workspaces)
        for (name, labels), value in totals.counters.items():
            expected[_line(name, (*_BASE, *EVENTS[name].labels), labels)] = value
        for (name, labels), seen in totals.observed.items():
            expected |= _histogram(EVENTS[name], labels, sorted(seen))
        expected |= self._gauges()
        shown = {key: float(v) for key, v in self._lines.items() if key.startswith(_COMPARED)}
        if self.jobs_history:  # finished jobs leave; `_check_numbers` knows how many
            for key in [key for key in {*shown, *expected} if _is_finished(key)]:
                shown.pop(key, None)
                expected.pop(key, None)
        wrong = {
            key: (shown.get(key, 0.0), expected.get(key, 0.0))
            for key in shown.keys() | expected.keys()
            if not _close(shown.get(key, 0.0), expected.get(key, 0.0))
        }
        if wrong:
            lines = [f"{key}: {a} but should be {b}" for key, (a, b) in sorted(wrong.items())]
            raise MismatchError("\n".join(["after quiet, wrong:", *lines[:40]]))
        self._check_known()
        self._check_numbers()

    def _gauges(self):
        """What is, by the world."""
        gauges = Counter()
        listed = self.oracle.listed(self.workspaces)
        for job in listed:
            phase = shown_phase(job.phase)
            base = self.oracle.bases.shown(job.id)
            gauges[_line("modelarts_training_jobs", (*_BASE, "phase"), (*base, phase))] += 1
            if not job.active or phase == "Unknown":
                continue
            gauges[_line("modelarts_training_nodes", (*_BASE, "phase"), (*base, phase))] += (
                job.nodes
            )
            names = (*_BASE, "phase", "accelerator")
            labels = (*base, phase, job.accelerator)
            gauges[_line("modelarts_training_accelerators", names, labels)] += job.cards
        gauges[f"modelarts_exporter_tracked_jobs{{{CONSTANT}}}"] = len(listed)
        gauges[f"modelarts_up{{{CONSTANT}}}"] = 1
        return gauges

    def _check_known(self):
        active = {job.id for job in self.oracle.listed(self.workspaces) if job.active}
        shown = {
            _labels(key)["job_id"]: _labels(key)["phase"]
            for key in self._lines
            if key.startswith("modelarts_training_job_phase")
        }
        for job_id in active - shown.keys():
            raise MismatchError(f"{job_id} is active and has no series")
        for job_id, phase in shown.items():
            if job_id not in self.world:
                raise MismatchError(f"{job_id} is gone and still has series")
            real = self.world[job_id].phase
            if phase != shown_phase(real):
                raise MismatchError(f"{job_id} is {real} and shown as {phase}")
        self._check_restarts(shown)

    def _check_restarts(self, job_ids):
        names = ("job_id", "start_type", "recovery")
        real = {
            _line(_JOB_RESTARTS, names, (job_id, each["start_type"], each["recovery"])): each[
                "count"
            ]
            for job_id in job_ids
            for each in self.world.facts(job_id)["restarts"]
        }
        shown = {
            key: float(value) for key, value in self._lines.items() if key.startswith(_JOB_RESTARTS)
        }
        if real != shown:
            raise MismatchError(f"restarts of jobs {sorted(shown.items() ^ real.items())}")


class WatchedSync(Sync):
    """Tells the rig what was read, and by whom."""

    def __init__(self, rig, *arguments):
        super().__init__(*arguments)
        self._rig = rig

    async def incremental(self, fleet, known, **options):
        return await self._watched("incremental", super().incremental(fleet, known, **options))

    async def sweep(self, fleet, known, **options):
        return await self._watched("sweep", super().sweep(fleet, known, **options))

    async def verify(self, fleet, lists, view, **options):
        found, sweep = await self._watched("verify", super().verify(fleet, lists, view, **options))
        if not (found.jobs or found.deleted or found.verification):
            self._rig.running.discard(ATTEMPT.get())
        return found, sweep

    async def _watched(self, kind, reading):
        attempt = self._rig.reading(kind)
        ATTEMPT.set(attempt)
        try:
            view = await reading
        except BaseException:
            self._rig.running.discard(attempt)
            raise
        attempt.end = len(self._rig.history)
        if not self._supported.by_phase:
            self._rig.oracle.phase_filter = False
        return view


def _last_node_count(job, now):
    """Hundreds of points would take most of the time."""
    return [[round(now * 1000), job.nodes_up]]


def _watched_observe(fleet, view, now, known, name_user=None):
    """What a poll is about to take, or a part of it."""
    attempt = ATTEMPT.get()
    if view.newest_created or attempt.kind == "verify":
        attempt.view = view._replace(jobs={**attempt.parts, **view.jobs})
    else:
        attempt.parts |= view.jobs
        attempt.saved_at = dict.fromkeys(view.jobs, now) | attempt.saved_at
    return observe(fleet, view, now, known, name_user)


class WatchedReading(WholeReading):
    """Tells what it leaves out."""

    async def _take_unchanged(self, jobs):
        unchanged = await super()._take_unchanged(jobs)
        ATTEMPT.get().unchanged |= unchanged
        return unchanged


class WatchedStore:
    """A store at whose commits the process may be killed, and that may fail."""

    def __init__(self, rig, store):
        self._rig = rig
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def load(self, *arguments, **options):
        await self._rig.point("load")
        return await self._store.load(*arguments, **options)

    async def commit(self, target, change, whole=None):
        rig, attempt = self._rig, ATTEMPT.get()
        if change.jobs and whole is None:
            await rig.point("part_commit")
        await rig.point("before_commit")
        if rig.full_disk > 0:
            rig.full_disk -= 1
            rig.counts["commits failed"] += 1
            rig.running.discard(attempt)
            raise StateError("disk full")
        try:
            await self._store.commit(target, change, whole)
        finally:  # what was begun is done, even if nobody waits for it
            rig.dirty = True
            if attempt is not None and change.newest_created:
                rig.running.discard(attempt)
                rig.taken(attempt)
        await rig.point("after_commit")


_JOB_RESTARTS = "modelarts_training_job_restarts_total"
PHASES_BY_USER = ("Creating", "Pending", "Running", "Terminating")
_BASE = ("workspace", "pool", "flavor_type")
_COMPARED = (
    *(name for name, row in EVENTS.items() if row.total is None),
    "modelarts_training_jobs{",
    "modelarts_training_nodes{",
    "modelarts_training_accelerators{",
    "modelarts_exporter_tracked_jobs",
    "modelarts_up",
)


_BY_USER = (
    *((row.total.metric.name, name) for name, row in EVENTS.items() if row.total),
    ("modelarts_training_jobs", "modelarts_training_user_jobs"),
    ("modelarts_training_accelerators", "modelarts_training_user_accelerators"),
)


def _check_users(lines, total, by_user):
    """Users add up to their total, at every scrape."""
    wanted, found = (_sums(lines, name) for name in (total, by_user))
    for key in wanted.keys() | found.keys():
        if not _close(wanted[key], found[key]):
            raise MismatchError(f"{by_user} adds up to {found[key]}, not {wanted[key]}: {key}")


def _sums(lines, name):
    found = Counter()
    for key, value in lines.items():
        if key.startswith(f"{name}{{"):
            labels = _labels(key)
            if labels.get("phase") in (*PHASES_BY_USER, None) or name.endswith("_total"):
                found[labels["pool"], labels.get("phase"), labels.get("accelerator")] += float(
                    value
                )
    return found


def _is_event(key):
    return key.startswith(tuple(EVENTS))


def _is_finished(key):
    return key.startswith("modelarts_training_jobs{") and _labels(key)["phase"] in TERMINAL


def _labels(key):
    body = key.partition("{")[2].rstrip("}")
    return dict(pair.replace('"', "").split("=", 1) for pair in body.split(","))


def _line(name, names, labels, **more):
    pairs = dict(zip(names, labels, strict=True)) | {"project": "p", "region": "r"} | more
    shown = ",".join(f'{key}="{pairs[key]}"' for key in sorted(pairs))
    return f"{name}{{{shown}}}"


def _histogram(row, labels, seen):
    names, name = (*_BASE, *row.labels), row.metric.name
    lines = {
        _line(f"{name}_count", names, labels): len(seen),
        _line(f"{name}_sum", names, labels): sum(seen),
    }
    for bound in (*row.buckets, float("inf")):
        le = floatToGoString(bound)
        below = bisect_left(seen, bound + 1e-9)
        lines[_line(f"{name}_bucket", names, labels, le=le)] = below
    return lines


def _close(a, b):
    return abs(a - b) <= 1e-6 * max(abs(a), abs(b)) + 1e-3 * (a != int(a) or b != int(b))
