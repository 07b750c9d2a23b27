"""Requests that nothing depends on: a failure is logged once, and the last answer stays."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from exporter.clock import Clocks
from exporter.errors import ForbiddenError, PollError, TimedOutError

log = logging.getLogger(__name__)

T = TypeVar("T")


class FailureLog:
    """Logs each kind of failure once, because the same requests are sent again and again.

    Attributes:
        target: name of the target, for log lines.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self._logged: set[tuple[str, type[Exception]]] = set()

    def add(self, what: str, error: Exception, message: str) -> None:
        """Log why something cannot be read; a bug with its traceback."""
        kind = what, type(error)
        level = logging.DEBUG if kind in self._logged else logging.INFO
        self._logged.add(kind)
        log.log(
            level,
            "cannot read %s: %s",
            what,
            message,
            exc_info=None if isinstance(error, PollError) else error,
            extra={"target": self.target},
        )


class OptionalAnswer(Generic[T]):
    """The last answer to an optional request.

    Args:
        what: is read, and what its absence means, for log lines.
        permission: the IAM action that the request needs.
        failures: logs failures.
        clocks: of the machine.

    Attributes:
        permission: as given.
        latest: the last answer; None = there was none yet.
        failure: of the last attempt; None = it succeeded, or there was none.
        error: the same for people, or "".
        attempted: whether there was an attempt.
    """

    def __init__(self, what: str, permission: str, failures: FailureLog, clocks: Clocks) -> None:
        self.permission = permission
        self.latest: T | None = None
        self.failure: Exception | None = None
        self.error = ""
        self.attempted = False
        self._what = what
        self._failures = failures
        self._monotonic = clocks.monotonic
        self._read_at = 0.0

    @property
    def forbidden(self) -> bool:
        """Whether the last attempt failed because the permission is missing."""
        return isinstance(self.failure, ForbiddenError)

    def value(self, max_age: float) -> T | None:
        """Return the last answer, if it is less than ``max_age`` seconds old."""
        return self.latest if self._monotonic() - self._read_at < max_age else None

    async def attempt(self, request: Callable[[], Awaitable[T]], seconds: float) -> bool:
        """Send the request, and return whether it succeeded within so many seconds.

        Whatever happens, even because of a bug of the exporter, nothing is raised.
        """
        self.attempted = True
        try:
            async with asyncio.timeout(seconds):
                self.latest = await request()
        except TimeoutError:
            self._fail(TimedOutError(f"no response within {max(0.0, seconds):g} s"))
        except Exception as error:  # noqa: BLE001 - it must not cost anything else
            self._fail(error)
        else:
            self.failure, self.error = None, ""
            self._read_at = self._monotonic()
        return self.failure is None

    def _fail(self, error: Exception) -> None:
        self.failure = error
        is_expected = isinstance(error, PollError)
        self.error = str(error) if is_expected else "internal error, see the log"
        self._failures.add(self._what, error, self.error)
