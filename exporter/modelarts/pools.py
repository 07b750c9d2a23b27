"""Names of a target's resource pools: useful, but never worth a failed poll.

On any failure there are simply no names. Each kind of failure is logged once, because names are
requested again and again.
"""

import asyncio
import logging
from collections.abc import Mapping

from exporter.clock import Clocks
from exporter.errors import PollError, TimedOutError
from exporter.modelarts.client import Client
from exporter.modelarts.decode.pools import decode_pools

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 5.0
"""Limit for the response; a poll waits no longer than this for names."""


class PoolNames:
    """Requests the pool names of one target.

    Args:
        client: its API.
        target: its name, for log lines.
        max_wait: seconds; the longest wait for the rate limiter if nothing else is sent.
        clocks: of the machine.

    Attributes:
        timeout: seconds from asking to the response, at most.
        attempted: whether names were ever requested.
        error: why the last attempt failed; "" if it succeeded.
    """

    def __init__(self, client: Client, *, target: str, max_wait: float, clocks: Clocks) -> None:
        self.timeout = TIMEOUT_SECONDS + max_wait
        self.attempted = False
        self.error = ""
        self._client = client
        self._target = target
        self._monotonic = clocks.monotonic
        self._logged: set[type[PollError]] = set()

    async def fetch(self) -> Mapping[str, str] | None:
        """Return names by pool id, with one request; None if they are not available now."""
        self.attempted = True
        try:
            names = await self._fetch()
        except PollError as error:
            self._fail(error)
            return None
        self.error = ""
        return names

    async def _fetch(self) -> Mapping[str, str]:
        deadline = self._monotonic() + self.timeout
        try:
            async with asyncio.timeout(self.timeout):
                return await self._client.pools(decode_pools, deadline=deadline)
        except TimeoutError:
            raise TimedOutError(f"no response within {self.timeout:g} s") from None

    def _fail(self, error: PollError) -> None:
        self.error = str(error)
        level = logging.DEBUG if type(error) in self._logged else logging.INFO
        self._logged.add(type(error))
        log.log(
            level,
            "cannot read pool names; names already known are kept, other pools show their IDs: %s",
            error,
            extra={"target": self._target},
        )
