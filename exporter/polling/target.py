"""One target: its connections, credentials and searches."""

from dataclasses import replace
from typing import TYPE_CHECKING

from exporter.clock import Clocks
from exporter.errors import PollError
from exporter.huaweicloud.auth.base import Credentials
from exporter.huaweicloud.http import Session
from exporter.huaweicloud.projects import find_project_id
from exporter.metrics.self_metrics import TargetInstruments
from exporter.modelarts.client import Client
from exporter.modelarts.pools import PoolReader
from exporter.modelarts.rate_limit import RateLimiter
from exporter.modelarts.search import Paging, UnifiedJobs
from exporter.modelarts.sync import Sync
from exporter.modelarts.workspace import JobSource
from exporter.polling.identity import TargetIdentity
from exporter.polling.registry import TargetRegistry
from exporter.settings.schema import ApiSettings

if TYPE_CHECKING:
    from exporter.storage.scopes import StateKey


class Target:
    """The connection to a target, set up on first use.

    Args:
        identity: as configured.
        api: limits on its requests.
        pools_interval: seconds between two readings of its pools; 0 = never.
        verify_interval: seconds in which every page of its lists should be verified once.
        longest_pause: seconds; a ``Retry-After`` is honored up to this.
        retry_unreachable: whether to retry if there is no connection at all.
        paging: what is known about ``offset`` there.
        unified: whether to ask for fine-tuning jobs.
        session: its connections.
        credentials: its requests are signed with.
        instruments: count its requests and pages.
        registry: knows the other targets.
        clocks: the machine's.

    Attributes:
        configured: its identity as configured.
        identity: with the project ID once it is known; until then, with that of a predecessor.
        credentials: as given.
        paging: what has been learned about ``offset``.
        pools: reads its resource pools, once it is connected.
        registry: as given.
        state_key: the name of its saved state, once that is loaded.
        unified: whether it accepts to be asked for fine-tuning jobs.
    """

    def __init__(
        self,
        identity: TargetIdentity,
        *,
        api: ApiSettings,
        pools_interval: float,
        longest_pause: float,
        verify_interval: float,
        retry_unreachable: bool,
        paging: Paging,
        unified: UnifiedJobs,
        session: Session,
        credentials: Credentials,
        instruments: TargetInstruments,
        registry: TargetRegistry,
        clocks: Clocks,
    ) -> None:
        self.configured = self.identity = identity
        self.credentials = credentials
        self.paging = paging
        self.registry = registry
        self.state_key: StateKey | None = None
        self.unified = unified
        self._api = api
        self._pools_interval = pools_interval
        self._longest_pause = longest_pause
        self._verify_interval = verify_interval
        self._retry_unreachable = retry_unreachable
        self._session = session
        self._instruments = instruments
        self._clocks = clocks
        self._sync: Sync | None = None
        self.pools = PoolReader(self.name, clocks)

    @property
    def name(self) -> str:
        """The name in log lines and tables."""
        return self.identity.display_name

    @property
    def sweep_progress(self) -> tuple[int, int]:
        """As `exporter.modelarts.sync.Sync.sweep_progress`; zeros before it is connected."""
        return (0, 0) if self._sync is None else self._sync.sweep_progress

    def take_over(self, other: "Target") -> None:
        """Start with what a predecessor has found out. It is probably the same target."""
        if self.configured.project_id is None:
            self.identity = replace(self.identity, project_id=other.identity.project_id)
        if self.identity.project_id == other.identity.project_id:
            self.pools = other.pools
        same_endpoint = self.identity.endpoint == other.identity.endpoint
        if same_endpoint and not self.paging.fixed and not other.paging.fixed:
            self.paging = other.paging
        if same_endpoint:
            wanted = self.unified.wanted
            self.unified = replace(other.unified, wanted=wanted)

    async def connect(self) -> None:
        """Prepare the first search: look up the project ID, if it is not configured.

        Raises:
            PollError: the lookup failed, or another target has the same labels.
        """
        if self._sync is not None:
            return
        project_id = self.configured.project_id or await find_project_id(
            self._session, self.credentials, self.identity.iam_endpoint, self.identity.region
        )
        identity = replace(self.identity, project_id=project_id)
        if self.registry.has_labels(identity, other_than=self):
            region, project = identity.labels.values()
            raise PollError(
                f"another target has the labels region={region}, project={project} already; "
                "give one of them another target.name"
            )
        if self.identity.project_id != project_id:
            self.pools = PoolReader(self.name, self._clocks)  # those of another project are unknown
        self.identity = identity
        self._session.target = self.name
        client = self._make_client(project_id)
        clocks, workspaces = self._clocks, self.identity.workspaces
        source = JobSource(
            client, self.paging, workspaces, self._instruments, clocks.wall, self.unified
        )
        self._sync = Sync(source, self._verify_interval)
        max_wait = 1 / self._api.max_requests_per_second
        self.pools.connect(
            client,
            workspaces,
            target=self.name,
            max_wait=max_wait,
            interval=self._pools_interval,
        )

    @property
    def sync(self) -> Sync:
        """Reads its jobs. Available once the target is connected."""
        if self._sync is None:
            raise RuntimeError("not connected")
        return self._sync

    async def close(self) -> None:
        """Close its connections."""
        await self._session.close()

    def _make_client(self, project_id: str) -> Client:
        clocks = self._clocks
        return Client(
            self._session,
            self.credentials,
            endpoint=self.identity.endpoint,
            project_id=project_id,
            rate_limiter=RateLimiter(self._api.max_requests_per_second, clocks),
            concurrency=self._api.concurrency,
            retries=self._api.retries,
            retry_unreachable=self._retry_unreachable,
            longest_pause=self._longest_pause,
            meter=self._instruments,
            clocks=clocks,
        )
