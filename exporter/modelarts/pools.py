"""Names of a target's resource pools: useful, but never worth a failed poll.

On any failure there are simply no names, even if it is a bug of the exporter. Each kind of failure
is logged once, because names are requested again and again.
"""

import asyncio
import logging
from collections.abc import Mapping

from exporter.clock import Clocks
from exporter.errors import ForbiddenError, PollError, TimedOutError
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
        forbidden: whether that was because the permission is missing.
    """

    def __init__(self, client: Client, *, target: str, max_wait: float, clocks: Clocks) -> None:
        self.timeout = TIMEOUT_SECONDS + max_wait
        self.attempted = False
        self.error = ""
        self.forbidden = False
        self._client = client
        self._target = target
        self._monotonic = clocks.monotonic
        self._logged: set[type[Exception]] = set()

    async def fetch(self) -> Mapping[str, str] | None:
        """Return names by pool id, with one request; None if they are not available now."""
        self.attempted = True
        try:
            names = await self._fetch()
        except Exception as error:  # noqa: BLE001 - whatever happens, it must not cost the poll
            self._fail(error)
            return None
        self.error, self.forbidden = "", False
        return names

    async def _fetch(self) -> Mapping[str, str]:
        deadline = self._monotonic() + self.timeout
        try:
            async with asyncio.timeout(self.timeout):
                return await self._client.pools(decode_pools, deadline=deadline)
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
