"""The names of a target's resource pools: good to have, and never worth a poll.

Whatever goes wrong, the answer is only that no names were told. Each kind of trouble is logged
once, since the names are asked for again and again.
"""

import asyncio
import logging
from collections.abc import Mapping

from exporter.clock import Clocks
from exporter.errors import ForbiddenError, PollError, TimedOutError
from exporter.modelarts.client import Client
from exporter.modelarts.decode.pools import decode_pools

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""For the answer; a poll waits no longer than that for names."""


class PoolNames:
    """Asks one target for the names of its pools.

    Args:
        client: its API.
        target: its name, for log lines.
        turn: seconds until a request's turn comes, at most, when nothing else is sent.
        clocks: the machine's.

    Attributes:
        patience: seconds that it may take, from the question to the answer.
        asked: whether it was tried at all.
        trouble: why the last try gave nothing; "" if it did.
        forbidden: whether that was because a permission is missing.
    """

    def __init__(self, client: Client, *, target: str, turn: float, clocks: Clocks) -> None:
        self.patience = PATIENCE_SECONDS + turn
        self.asked = False
        self.trouble = ""
        self.forbidden = False
        self._client = client
        self._target = target
        self._monotonic = clocks.monotonic
        self._said: set[type[PollError]] = set()

    async def read(self) -> Mapping[str, str] | None:
        """Names by pool id; None if they cannot be had now. One request."""
        self.asked = True
        try:
            names = await self._names()
        except PollError as error:
            self._failed(error)
            return None
        self.trouble, self.forbidden = "", False
        return names

    async def _names(self) -> Mapping[str, str]:
        deadline = self._monotonic() + self.patience
        try:
            async with asyncio.timeout(self.patience):
                return await self._client.pools(decode_pools, deadline=deadline)
        except TimeoutError:
            raise TimedOutError(f"no answer within {self.patience:g} s") from None

    def _failed(self, error: PollError) -> None:
        self.trouble = str(error)
        self.forbidden = isinstance(error, ForbiddenError)
        level = logging.DEBUG if type(error) in self._said else logging.INFO
        self._said.add(type(error))
        log.log(
            level,
            "pool names not read; those known before stay, other pools go by their ids: %s",
            error,
            extra={"target": self._target},
        )
