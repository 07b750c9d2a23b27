"""Names and flavor types of a target's resource pools: useful, but never worth a failed poll.

The service lists the pools of one workspace at a time. Where that fails, even because of a bug of
the exporter, what is already known of the pools of that workspace stays. Each kind of failure is
logged once, because names are requested again and again.
"""

import asyncio
import logging
from collections.abc import Sequence

from exporter.clock import Clocks
from exporter.errors import ForbiddenError, PollError, TimedOutError
from exporter.modelarts.client import Client
from exporter.modelarts.decode.pools import PoolList, decode_pools

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 5.0
"""Limit for each response; a poll waits no longer than this for the names of a workspace."""


class PoolNames:
    """Requests the pool names of one target.

    Args:
        client: its API.
        workspaces: workspace ids.
        target: its name, for log lines.
        max_wait: seconds; the longest wait for the rate limiter if nothing else is sent.
        clocks: of the machine.

    Attributes:
        timeout: seconds from asking to the response, at most, for each workspace.
        requests: number of requests of the last attempt.
        error: why the last attempt failed; "" if it succeeded for all workspaces.
        forbidden: whether that was because the permission is missing.
    """

    def __init__(
        self,
        client: Client,
        workspaces: Sequence[str],
        *,
        target: str,
        max_wait: float,
        clocks: Clocks,
    ) -> None:
        self.timeout = TIMEOUT_SECONDS + max_wait
        self.requests = 0
        self.error = ""
        self.forbidden = False
        self._client = client
        self._workspaces = workspaces
        self._pools: dict[str, PoolList] = {}
        self._target = target
        self._monotonic = clocks.monotonic
        self._logged: set[type[Exception]] = set()

    async def fetch(self) -> PoolList | None:
        """Return the pools, with one request for each workspace; None if none succeeds.

        After a timeout the remaining workspaces are not tried.
        """
        self.requests = 0
        failure: Exception | None = None
        succeeded = False
        for workspace in self._workspaces:
            self.requests += 1
            try:
                self._pools[workspace] = await self._fetch(workspace)
                succeeded = True
            except Exception as error:  # noqa: BLE001 - whatever happens, it must not cost the poll
                failure = failure or error
                if isinstance(error, TimedOutError):
                    break
        self.error, self.forbidden = "", False
        if failure is not None:
            self._fail(failure)
        if not succeeded:
            return None
        found = PoolList({}, {})
        for pools in self._pools.values():
            found.names.update(pools.names)
            found.flavor_types.update(pools.flavor_types)
        return found

    async def _fetch(self, workspace: str) -> PoolList:
        deadline = self._monotonic() + self.timeout
        try:
            async with asyncio.timeout(self.timeout):
                return await self._client.pools(workspace, decode_pools, deadline=deadline)
        except TimeoutError:
            raise TimedOutError(f"no response within {self.timeout:g} s") from None

    def _fail(self, error: Exception) -> None:
        is_expected = isinstance(error, PollError)
        self.error = str(error) if is_expected else "internal error, see the log"
        self.forbidden = isinstance(error, ForbiddenError)
        level = logging.DEBUG if type(error) in self._logged else logging.INFO
        self._logged.add(type(error))
        log.log(
            level,
            "cannot read pool names; names already known are kept, other pools show their IDs: %s",
            self.error,
            exc_info=None if is_expected else error,
            extra={"target": self._target},
        )
