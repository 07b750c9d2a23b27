"""One target: its connections, who we are there, and its searches, put together on first use."""

from dataclasses import dataclass

from exporter.clock import Clocks
from exporter.huaweicloud.auth.base import Credentials
from exporter.huaweicloud.auth.iam import find_project_id
from exporter.huaweicloud.http import Session
from exporter.metrics.self_metrics import TargetInstruments
from exporter.modelarts.client import Client
from exporter.modelarts.pools import PoolNames
from exporter.modelarts.rate_limit import RateLimiter
from exporter.modelarts.search import Paging
from exporter.modelarts.sync import Sync
from exporter.modelarts.workspace import JobSource

UNKNOWN_PROJECT = "unknown"
"""The label ``project`` of a target without name whose project id has not been looked up yet."""


@dataclass(frozen=True)
class TargetIdentity:
    """Where a target is.

    Attributes:
        name: value of the label ``project``; None = the project id.
        region: value of the label ``region``.
        project_id: None = looked up from the region.
        endpoint: base URL of ModelArts.
        iam_endpoint: base URL of IAM.
        workspaces: workspace ids.
    """

    name: str | None
    region: str
    project_id: str | None
    endpoint: str
    iam_endpoint: str
    workspaces: tuple[str, ...]


@dataclass(frozen=True)
class Manners:
    """How a target is treated: at most so many requests, retries, seconds.

    Attributes:
        requests_per_second: retries included.
        concurrency: requests in flight.
        retries: further tries of one request.
        longest_pause: seconds; what a ``Retry-After`` can ask for at most.
    """

    requests_per_second: float
    concurrency: int
    retries: int
    longest_pause: float


class Target:
    """What the poller reads.

    Args:
        place: where it is.
        manners: how it is treated.
        paging: what is known of ``offset`` there.
        session: its connections.
        credentials: who we are there.
        instruments: are told of requests and pages.
        clocks: the machine's.
    """

    def __init__(
        self,
        place: TargetIdentity,
        manners: Manners,
        *,
        paging: Paging,
        session: Session,
        credentials: Credentials,
        instruments: TargetInstruments,
        clocks: Clocks,
    ) -> None:
        self.paging = paging
        self.credentials = credentials
        self._place = place
        self._manners = manners
        self._session = session
        self._instruments = instruments
        self._clocks = clocks
        self._project_id = place.project_id
        self._presumed: str | None = None
        self._sync: Sync | None = None
        self._pools: PoolNames | None = None

    @property
    def labels(self) -> dict[str, str]:
        """The labels that all series of the target carry."""
        project = self._place.name or self.project_id or UNKNOWN_PROJECT
        return {"region": self._place.region, "project": project}

    @property
    def project_id(self) -> str | None:
        """Its project, as well as it is known: until it is connected, that of its predecessor."""
        return self._project_id or self._presumed

    @property
    def place(self) -> TargetIdentity:
        """Where it is, as configured."""
        return self._place

    @property
    def name(self) -> str:
        """For log lines and tables."""
        return f"{self._place.region}/{self.labels['project']}"

    @property
    def key(self) -> str:
        """Names the target's data, whatever its labels are; known once it is connected."""
        return f"{self._place.region}/{self._project_id}"

    @property
    def workspaces(self) -> tuple[str, ...]:
        """Workspace ids."""
        return self._place.workspaces

    @property
    def sweep_progress(self) -> tuple[int, int]:
        """As `exporter.modelarts.sync.Sync.sweep_progress`; nothing before it is connected."""
        return (0, 0) if self._sync is None else self._sync.sweep_progress

    def take_over(self, other: "Target") -> None:
        """Begin with what another one has found out, which is probably the same target."""
        self._presumed = other.project_id
        same_place = self.place.endpoint == other.place.endpoint
        if same_place and not self.paging.fixed and not other.paging.fixed:
            self.paging = other.paging

    async def connect(self) -> None:
        """Find out what has to be known before the first search.

        Raises:
            PollError: it could not be found out.
        """
        if self._project_id is None:
            self._project_id = await find_project_id(
                self._session, self.credentials, self._place.iam_endpoint, self._place.region
            )
            self._session.target = self.name
        if self._sync is None:
            client = self._make_client(self._project_id)
            workspaces, clocks = self._place.workspaces, self._clocks
            self._sync = Sync(
                JobSource(client, self.paging, workspaces, self._instruments, clocks.wall)
            )
            max_wait = 1 / self._manners.requests_per_second
            self._pools = PoolNames(client, target=self.name, max_wait=max_wait, clocks=clocks)

    @property
    def sync(self) -> Sync:
        """Reads its jobs; there once it is connected."""
        if self._sync is None:
            raise RuntimeError("not connected")
        return self._sync

    @property
    def pools(self) -> PoolNames:
        """Reads the names of its pools; there once it is connected."""
        if self._pools is None:
            raise RuntimeError("not connected")
        return self._pools

    async def close(self) -> None:
        """Close its connections."""
        await self._session.close()

    def _make_client(self, project_id: str) -> Client:
        clocks = self._clocks
        return Client(
            self._session,
            self.credentials,
            endpoint=self._place.endpoint,
            project_id=project_id,
            rate_limiter=RateLimiter(self._manners.requests_per_second, clocks),
            concurrency=self._manners.concurrency,
            retries=self._manners.retries,
            longest_pause=self._manners.longest_pause,
            meter=self._instruments,
            clocks=clocks,
        )
