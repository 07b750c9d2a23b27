"""A snapshot of a poller, for people: the status page, ``check`` and ``demo``."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from exporter.jobs.fleet import Fleet
from exporter.jobs.pool import PoolSnapshot

PollKind = Literal["sweep", "incremental"]


class PollCost(NamedTuple):
    """The cost of a poll: API requests and seconds."""

    requests: int
    seconds: float


class FirstPages(NamedTuple):
    """What one page of each workspace shows.

    Attributes:
        listed: jobs that the service lists, as far as it says so or one page holds them all.
        pools: pools with a name; None = they could not be listed.
        cost: of reading the pages.
    """

    listed: int | None
    pools: int | None
    cost: PollCost


class PollerStatus(NamedTuple):
    """A poller and its target at one moment.

    Attributes:
        name: of the target, for people.
        labels: of all its series.
        identity: of the credentials, without secrets.
        polled: whether a poll has ended.
        error: why the last poll failed; "" if it succeeded.
        last_success: unix seconds.
        costs: of the last good poll of each kind.
        fleet: the jobs.
        history: seconds that finished jobs count; 0 = all (``jobs.history``).
        pagination: meaning of ``offset``, ``page`` or ``row``; None = not known yet.
        pools_trouble: why the list of pools could not be read; "" if it could.
        permissions: optional IAM actions that were needed, and whether they are granted.
        pools: how full the pools are.
        pools_cost: API requests to read that.
    """

    name: str
    labels: Mapping[str, str]
    identity: str
    polled: bool
    error: str
    last_success: float | None
    costs: Mapping[PollKind, PollCost]
    fleet: Fleet
    history: float
    pagination: str | None
    pools_trouble: str
    permissions: Mapping[str, bool] = {}
    pools: PoolSnapshot = PoolSnapshot()
    pools_cost: int = 0

    @property
    def missing_permissions(self) -> tuple[str, ...]:
        """Optional IAM actions that the identity lacks."""
        return tuple(action for action, granted in self.permissions.items() if not granted)

    @property
    def region(self) -> str:
        """Region of the target."""
        return self.labels["region"]
