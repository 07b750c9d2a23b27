"""The state of one target: computed from what was read, saved, and only then published."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

from exporter.clock import Clocks, wait
from exporter.errors import HistoryLostError, StateError
from exporter.jobs.fleet import EVERYTHING, Fleet, advance
from exporter.jobs.job import View
from exporter.jobs.tracked import Base, Group, NameUser, TrackedJob
from exporter.jobs.tracker import Observation, observe, pools_with_news
from exporter.metrics.counter_lines import LineCache, counter_lines
from exporter.metrics.counters import (
    EVENT_FAMILY_BY_NAME,
    Ledger,
    Series,
    SeriesKey,
    add,
    user_zero_series,
)
from exporter.metrics.idle import advance_activity, first_activity, idle_bases
from exporter.metrics.per_job import new_restarts
from exporter.metrics.self_metrics import TargetInstruments
from exporter.metrics.zero_init import ZeroInit
from exporter.modelarts.verification.marks import oldest_verification
from exporter.polling import trace
from exporter.polling.anomalies import Anomalies
from exporter.polling.handover import (
    Handover,
    merge,
    restored_fleet,
    restrict,
    whole_state,
    without_users,
)
from exporter.polling.inheritance import inherit
from exporter.polling.known_jobs import TargetJobs, TargetList
from exporter.polling.label_limit import LabelLimiter
from exporter.polling.render import Rendered, RenderedGauges, render_gauges
from exporter.polling.target import Target
from exporter.polling.user_limit import UserLimiter
from exporter.polling.whole_reading import WholeReading
from exporter.settings.schema import JobsSettings, PollSettings
from exporter.storage.scopes import StateKey
from exporter.storage.store import SavedState, StateChange, Store, Whole

log = logging.getLogger(__name__)

_ALWAYS = float("inf")


class TargetState:
    """What is known about one target.

    Args:
        target: whose state it is.
        instruments: count anomalies and jobs.
        poll: the interval, for which a new counter is held at zero, and when job states are stale.
        jobs: which jobs have series.
        store: saves the state beyond the process.
        publish: makes changes visible; returns the generation that shows them.
        clocks: the machine's.

    Attributes:
        fleet: the target's jobs.
        rendered: the series to publish.
        unloaded: workspaces whose saved state has not been loaded yet.
    """

    def __init__(
        self,
        target: Target,
        instruments: TargetInstruments,
        *,
        poll: PollSettings,
        jobs: JobsSettings,
        store: Store,
        publish: Callable[[], Awaitable[int]],
        clocks: Clocks,
    ) -> None:
        self.fleet = Fleet()
        self.rendered: Rendered = {}
        self.unloaded = frozenset(target.identity.workspaces)
        self._target = target
        self._instruments = instruments
        self._poll = poll
        self._store = store
        self._publish = publish
        self._clocks = clocks
        self._jobs = jobs
        self._key: StateKey | None = None
        self._ledger: Ledger = {}
        self._last_active: dict[Base, float] = {}
        self._whole: Whole | None = None
        """What the store would save again if its file was lost; it does not keep this itself."""
        self._zero_init = ZeroInit(poll.interval)
        self._anomalies = Anomalies(target.name, instruments)
        self._label_limiter = LabelLimiter(jobs.max_label_values, target.name)
        self._users = self._new_users()
        self._line_cache: LineCache = {}
        self._gauges = RenderedGauges()
        self._commit_interrupted = False
        self._applying = asyncio.Lock()
        self._publishing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._fresh_until: float | None = None
        self._release_from = 0.0

    def _new_users(self) -> UserLimiter | None:
        jobs = self._jobs
        return UserLimiter(jobs.max_users, self._target.name) if jobs.by_user else None

    @property
    def _name_user(self) -> NameUser | None:
        return None if self._users is None else self._users.name

    @property
    def loaded(self) -> bool:
        """Whether all saved state has been loaded."""
        return not self.unloaded

    @property
    def has_baseline(self) -> bool:
        """Whether incremental polls are possible: every workspace has been read once."""
        read = self.fleet.newest_created.keys() - self.fleet.incomplete
        return self.loaded and read >= set(self._target.identity.workspaces)

    @property
    def known(self) -> TargetJobs:
        """Looks up jobs that are only in the store."""
        return self._known_in(lambda: self.fleet)

    def _known_in(self, fleet: Callable[[], Fleet]) -> TargetJobs:
        identity = self._target.identity
        return TargetJobs(self._store, self._state_key, identity.workspaces, fleet)

    @property
    def _state_key(self) -> StateKey:
        """The name of the saved state; before it is loaded, that of the target as it is now."""
        return self._key or self._target.identity.key

    def known_list(self, workspace: str) -> TargetList:
        """The known jobs of a workspace, in the order of its list."""
        return TargetList(self._store, self._state_key, workspace)

    async def load(self) -> None:
        """Load the saved state, as far as it is not in memory already.

        Raises:
            StateError: it cannot be read now.
        """
        key = self._target.identity.key
        if self.loaded and self._key == key:
            return
        async with self._applying:
            if self._key is not None and self._key != key:
                await self._rename_or_forget(self._key, key)
            if self.unloaded:
                await inherit(self._target, self.unloaded, self._store)
            now = self._clocks.wall()
            since = self._since(now)
            saved = await self._store.load(key, self.unloaded, recent_since=since[0])
            restored = restored_fleet(saved, await self._counted(key, saved, since), since)
            before = await self._advanced(self.fleet, now)
            jobs = list(restored.whole_jobs())
            if self._users is None:
                saved = saved._replace(ledger=without_users(saved.ledger))
            else:
                await asyncio.to_thread(self._users.learn, saved.ledger, jobs)
            await asyncio.to_thread(
                self._label_limiter.learn, jobs, saved.ledger.keys(), saved.finished
            )
            # No await from here on: a concurrent publish must not show series that will be held.
            known = frozenset(self._target.identity.workspaces) - self.unloaded
            fleet, ledger = restrict(before, self._ledger, known)
            self.fleet = merge(fleet, restored)
            self._ledger = {**ledger, **saved.ledger}
            self._last_active = {**self._last_active, **saved.last_active}
            self._zero_init.retain(self._exists)
            held = saved.ledger.keys() - saved.released
            self._zero_init.hold(held)
            if trace.is_enabled():
                trace.log_held(self._target.name, held)
            self._set_key(key)
            self.unloaded = frozenset()

    def _since(self, now: float) -> tuple[float, float]:
        """Which finished jobs are kept whole, and which ones count: those that ended since."""
        history = self._jobs.history
        return now - self._jobs.retention, now - history if history else EVERYTHING

    async def _counted(
        self, key: StateKey, saved: SavedState, since: tuple[float, float]
    ) -> Mapping[Group, int]:
        if since[1] == EVERYTHING:
            return saved.finished
        return await self._store.finished_between(key, self.unloaded, since[1], _ALWAYS)

    async def _advanced(self, fleet: Fleet, now: float) -> Fleet:
        """The jobs as they are now, without any change but that of time."""
        recent_since, counted_since = self._since(now)
        left: Mapping[Group, int] = {}
        if counted_since != fleet.counted_since and fleet.listed:
            span = sorted((fleet.counted_since, counted_since))
            workspaces = fleet.listed.keys() - self.unloaded
            key = self._state_key
            left = await self._store.finished_between(key, workspaces, *span)
        return advance(fleet, recent_since=recent_since, counted_since=counted_since, left=left)

    def must_load_again(self) -> None:
        """Load everything before the next poll: finished jobs in the store were lost."""
        self.unloaded = frozenset(self._target.identity.workspaces)

    async def _rename_or_forget(self, old: StateKey, new: StateKey) -> None:
        """The state in memory is that of this target under another name, or of another project."""
        if (old.region, old.project_id) != (new.region, new.project_id):
            self._forget()
            return
        await self._store.rename(old, new, self._target.identity.workspaces)
        self._set_key(new)

    def _set_key(self, key: StateKey | None) -> None:
        self._key = self._target.state_key = key

    def hand_over(self) -> Handover | None:
        """The state for a successor, once this poller has stopped for good; None: there is none."""
        if self._key is None:
            return None
        workspaces = frozenset(self._target.identity.workspaces)
        # If a commit was interrupted, only the store knows whether it was made.
        loaded = frozenset() if self._commit_interrupted else workspaces - self.unloaded
        fresh = self._fresh_until
        return Handover(
            key=self._key,
            labels=self._target.identity.labels,
            workspaces=workspaces,
            loaded=loaded,
            fleet=self.fleet,
            ledger=self._ledger,
            last_active=self._last_active,
            zero_init=self._zero_init,
            anomalies=self._anomalies,
            label_limiter=self._label_limiter,
            users=self._users,
            refreshed=None if fresh is None else fresh - self._poll.stale_after,
            whole=self._whole,
        )

    async def take_over(self, left: Handover) -> None:
        """Continue with the state of a predecessor, and show it.

        Workspaces that are no longer configured are left out. `load` adds the new ones, and
        forgets everything if the target turns out to be another project than assumed.
        """
        workspaces = frozenset(self._target.identity.workspaces)
        self._set_key(left.key)
        self.unloaded = workspaces - left.loaded
        self.fleet, self._ledger = left.fleet, left.ledger
        self._last_active = dict(left.last_active)
        self._whole = left.whole
        if workspaces != left.workspaces:
            self.fleet, self._ledger = await asyncio.to_thread(
                restrict, left.fleet, left.ledger, workspaces & left.workspaces
            )
        if self._users is None:
            self._ledger = without_users(self._ledger)
        elif left.users is None:
            self._users.learn(self._ledger, self.fleet.whole_jobs())
        else:
            self._users = left.users
            self._users.resume(self._jobs.max_users, self._target.name)
        renamed = self._target.identity.labels != left.labels
        self._zero_init = left.zero_init
        self._zero_init.resume(self._poll.interval, unpublished=renamed)
        self._zero_init.retain(self._exists)
        self._anomalies = left.anomalies
        self._anomalies.resume(self._target.name, self._instruments)
        self._label_limiter = left.label_limiter
        self._label_limiter.resume(self._jobs.max_label_values, self._target.name)
        if left.refreshed is not None:
            self._fresh_until = left.refreshed + self._poll.stale_after
            now = self._clocks.wall()
            self._gauges = await self._render_gauges(self.fleet, (), (), now, self._last_active)
        self.rendered = {**self._gauges.lines, **await self._render_counters()}

    def report(self) -> None:
        """Update the instruments that say how many jobs there are."""
        if self._gauges.lines:
            self._instruments.tracking(
                jobs=len(self.fleet), without_series=self._gauges.without_series
            )
            self._instruments.label_values(self._label_limiter.over_limit())
            self._instruments.users(
                without_series=None if self._users is None else self._users.without_series
            )
            self._instruments.verified(
                oldest_verification(self.fleet.verification, self._target.identity.workspaces)
            )

    async def limit_labels(self, view: View, known: Mapping[str, TrackedJob] = {}) -> View:
        """Replace label values beyond ``jobs.max_label_values``.

        Args:
            view: as read.
            known: the jobs of the view that are known, by id.
        """
        return await asyncio.to_thread(self._label_limiter.apply, view, known.get)

    async def begin_reading(self) -> WholeReading:
        """Prepare to read the whole list: most of its jobs need not be kept in memory.

        Raises:
            StateError: what an earlier reading left behind cannot be removed now.
        """
        workspaces = self._target.identity.workspaces
        first = [name for name in workspaces if name not in self.fleet.newest_created]
        if first:
            await self._store.start_over(self._state_key, first)
        fleet = await self._advanced(self.fleet, self._clocks.wall())
        return WholeReading(self, fleet, frozenset(first))

    async def save_part(self, fleet: Fleet, view: View) -> tuple[Fleet, dict[Base, float]]:
        """Save a part of a baseline. It is not shown, and does not count as known yet.

        Args:
            fleet: with the parts before.
            view: of jobs that existed before.

        Returns:
            The fleet with this part, and when its new bases were last active.

        Raises:
            StateError: it cannot be saved now.
        """
        now = self._clocks.wall()
        key = self._state_key
        # The list may show a job twice.
        read_before = await self._known_in(lambda: fleet).find_ids(dict.fromkeys(view.jobs))
        known = {**await self._of_unknown_type(fleet, view), **read_before}
        view = await self.limit_labels(view, known)
        observed = await asyncio.to_thread(observe, fleet, view, now, known)
        names = observed.fleet.names_in_jobs.items() - fleet.names_in_jobs.items()
        await self._store.commit(key, StateChange(jobs=observed.jobs, pool_names=dict(names)))
        return observed.fleet, await self._first_activity(observed, now)

    async def apply(self, view: View, reading: WholeReading | None = None) -> int:
        """Make a view part of the state; computed beside the event loop.

        Args:
            view: what was read.
            reading: of the whole list, with the parts that are saved already.

        Returns:
            How many events it has brought.

        Raises:
            StateError: it cannot be saved now. The state is unchanged.
        """
        async with self._applying:
            now = self._clocks.wall()
            fleet = await self._advanced(self.fleet if reading is None else reading.fleet, now)
            known = await self._look_up(view, fleet)
            view = await self.limit_labels(view, known)
            observed, ledger, changed = await asyncio.to_thread(
                _digest, fleet, self._ledger, view, known, now=now, name_user=self._name_user
            )
            released = self._zero_init.releasable(self._clocks.monotonic())
            restarts = new_restarts(observed.changes, observed.events)
            new = (ledger.keys() - self._ledger.keys()) | restarts
            first = await self._first_activity(observed, now)
            if reading is not None:
                first |= reading.activity
            events = {event.base: now for event in observed.events}
            gauges = await self._render_gauges(
                observed.fleet, released, restarts, now, self._last_active | first | events
            )
            active = first | advance_activity(
                self._last_active | first,
                active=gauges.bases | events.keys(),
                left=self._gauges.bases - gauges.bases,
                retention=self._jobs.idle_retention,
                now=now,
            )
            last_active = self._last_active | active
            await self._commit(
                StateChange(
                    jobs=observed.jobs,
                    deleted=observed.gone,
                    newest_created=observed.fleet.newest_created,
                    unified=observed.fleet.unified,
                    incomplete=observed.fleet.incomplete,
                    verification=dict(
                        observed.fleet.verification.items() - self.fleet.verification.items()
                    ),
                    pool_names=dict(
                        observed.fleet.names_in_jobs.items() - self.fleet.names_in_jobs.items()
                    ),
                    series=changed,
                    released=released & ledger.keys(),
                    last_active=active,
                ),
                whole_state(
                    observed.fleet, ledger, self._zero_init.held() - released | new, last_active
                ),
            )
            # No await from here on: a concurrent publish shows all of it or nothing.
            self._zero_init.release(released)
            self._zero_init.hold(new)
            before, self.fleet = self.fleet, observed.fleet
            self._ledger, self._gauges, self._last_active = ledger, gauges, last_active
            if trace.is_enabled():
                trace.log_events(self._target.name, before, observed)
                trace.log_held(self._target.name, new)
                trace.log_released(self._target.name, released, ledger)
        self._anomalies.report(view)
        self.report()
        if view.newest_created:  # a verification does not read what may have changed
            self._fresh_until = self._clocks.monotonic() + self._poll.stale_after
        return len(observed.events)

    async def _look_up(self, view: View, fleet: Fleet) -> Mapping[str, TrackedJob]:
        """The jobs that a view may change, as they are known in a fleet and the store."""
        ids = dict.fromkeys(view.deleted | view.forgotten, None)
        created = ids | {job.id: job.created for job in view.jobs.values()}
        known = await self._known_in(lambda: fleet).find_ids(created)
        return {**await self._of_unknown_type(fleet, view), **known}

    async def _of_unknown_type(self, fleet: Fleet, view: View) -> dict[str, TrackedJob]:
        """The finished jobs whose flavor type a view may tell without mentioning them."""
        if not (pools := pools_with_news(fleet, view)):
            return {}
        return await self._store.of_unknown_type(
            self._state_key, self._target.identity.workspaces, pools
        )

    async def publish(self, conclude: Callable[[], None] = lambda: None) -> None:
        """Publish the state. New counters are published as zeros first.

        Args:
            conclude: records how a poll has ended, in the same generation as what it has found.
        """
        async with self._publishing:
            gauges, new = self._gauges, self._zero_init.unpublished()
            self.rendered = {**gauges.lines, **await self._render_counters()}
            conclude()
            generation = await self._publish()
            self._zero_init.mark_published(new, self._clocks.monotonic(), generation)
        self._changed.set()

    def mark_scraped(self, generation: int) -> None:
        """Prometheus has read that generation of what is published."""
        self._zero_init.mark_scraped(generation)
        self._changed.set()

    async def run(self) -> None:
        """Withdraw stale job states and release series held at zero, until cancelled."""
        while True:
            self._changed.clear()
            release = self._zero_init.next_release()
            if release is not None:
                release = max(release, self._release_from)
            moments = (self._fresh_until, release)
            first = min((each for each in moments if each is not None), default=None)
            await wait(self._changed, first, self._clocks)
            await self._withdraw_if_stale()
            await self._release_if_due()

    async def _first_activity(self, observed: Observation, now: float) -> dict[Base, float]:
        """Of bases that were not known before, or were saved by an older version."""
        missing = observed.fleet.accelerators.keys() - self._last_active.keys()
        if not (missing and self._jobs.idle_retention):
            return {}
        history = self._jobs.history
        return await asyncio.to_thread(
            first_activity, observed.jobs.values(), missing, history=history, now=now
        )

    async def _render_gauges(
        self,
        fleet: Fleet,
        released: Collection[SeriesKey],
        new: Collection[SeriesKey],
        now: float,
        last_active: Mapping[Base, float],
    ) -> RenderedGauges:
        """The gauges, as if some series were released and others held at zero already."""

        def is_held(key: SeriesKey) -> bool:
            return key in new or (self._zero_init.is_held(key) and key not in released)

        labels, retention = self._target.identity.labels, self._jobs.idle_retention
        return await asyncio.to_thread(
            render_gauges,
            fleet,
            labels,
            self._jobs,
            is_held,
            idle=idle_bases(last_active, retention, now),
            pools=self._target.pools.snapshot,
            name_user=self._name_user,
        )

    async def _render_counters(self) -> Rendered:
        return await asyncio.to_thread(
            counter_lines,
            self._ledger,
            self._target.identity.labels,
            self._zero_init.is_held,
            self._line_cache,
        )

    async def _commit(self, change: StateChange, whole: Whole) -> None:
        try:
            await self._store.commit(self._state_key, change, whole)
            self._whole = whole
        except HistoryLostError:
            self.must_load_again()
            raise
        except asyncio.CancelledError:
            self._commit_interrupted = True
            raise

    def _exists(self, key: SeriesKey) -> bool:
        """Whether a series exists. Those of single jobs come and go with the jobs."""
        return key in self._ledger or key[0] not in EVENT_FAMILY_BY_NAME

    def _forget(self) -> None:
        """Start afresh: the state was that of another project."""
        self.fleet, self._ledger, self._gauges = Fleet(), {}, RenderedGauges()
        self.unloaded = frozenset(self._target.identity.workspaces)
        self._line_cache = {}
        self._zero_init = ZeroInit(self._poll.interval)
        self._anomalies = Anomalies(self._target.name, self._instruments)
        self._label_limiter = LabelLimiter(self._jobs.max_label_values, self._target.name)
        self._users = self._new_users()
        self._last_active = {}
        self._fresh_until = None
        self._set_key(None)

    async def _withdraw_if_stale(self) -> None:
        """Withdraw job states that no poll has renewed: none are better than old ones."""
        if self._fresh_until is None or self._clocks.monotonic() < self._fresh_until:
            return
        self._fresh_until = None
        self._gauges = RenderedGauges()
        log.warning(
            "job series withdrawn, no poll succeeded",
            extra={"target": self._target.name},
        )
        await self.publish()

    async def _release_if_due(self) -> None:
        """Show the values of new counters whose zeros were visible for long enough."""
        if self._clocks.monotonic() < self._release_from:
            return
        try:
            async with self._applying:
                released = self._zero_init.releasable(self._clocks.monotonic())
                if not released:
                    return
                counters = released & self._ledger.keys()
                held = self._zero_init.held() - released
                await self._commit(
                    StateChange(released=counters),
                    whole_state(self.fleet, self._ledger, held, self._last_active),
                )
                if self._gauges.lines and counters != released:  # the rest belong to single jobs
                    now = self._clocks.wall()
                    self._gauges = await self._render_gauges(
                        self.fleet, released, (), now, self._last_active
                    )
                self._zero_init.release(released)
                if trace.is_enabled():
                    trace.log_released(self._target.name, released, self._ledger)
        except StateError as error:
            log.warning("state not saved: %s", error, extra={"target": self._target.name})
            self._release_from = self._clocks.monotonic() + self._poll.interval
            return
        await self.publish()


def _digest(
    fleet: Fleet,
    ledger: Ledger,
    view: View,
    known: Mapping[str, TrackedJob],
    *,
    now: float,
    name_user: NameUser | None,
) -> tuple[Observation, Ledger, dict[SeriesKey, Series]]:
    """The new jobs and counters after a view. Runs in a thread: many jobs take a while."""
    observed = observe(fleet, view, now, known, name_user)
    after_fleet = observed.fleet
    zeros: Iterable[SeriesKey] = ()
    if name_user is not None:
        zeros = user_zero_series(after_fleet.open.values(), observed.events, name_user, ledger)
    after, changed = add(ledger, observed.events, after_fleet.accelerators, now, zeros)
    return observed, after, changed
