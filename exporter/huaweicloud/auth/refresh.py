"""Grants (tokens, temporary keys): kept, and renewed in time.

A grant is renewed well before it expires, once for all requests that need it, and once when the
service refuses a grant that it had accepted before. When it refuses a grant that it never accepted,
the next sign-in waits: signing in again and again would not help, and may cause a lock.

Times are measured with the wall clock and the monotonic clock. The wall clock may jump; the
monotonic clock stops while the machine sleeps. A grant is renewed as soon as either clock says so,
and used as long as either clock says that it is valid.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Generic, TypeVar

from exporter.clock import Clocks
from exporter.errors import AuthError, PollError

log = logging.getLogger(__name__)

T = TypeVar("T")

_MARGIN_SHARE = 0.1
_MARGIN_SECONDS = 3600.0
_RETRY_SECONDS = 60.0
"""Between two attempts to renew a grant that is still valid."""

_FIRST_PAUSE_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 300.0


@dataclass(frozen=True)
class Grant(Generic[T]):
    """The result of one sign-in.

    Attributes:
        value: token or key.
        expires_at: unix seconds, None if the service did not say.
        lifetime: seconds from now, by the service's own clock where possible; positive.
        project_id: if the sign-in reported it.
    """

    value: T = field(repr=False)
    expires_at: float | None
    lifetime: float | None
    project_id: str | None = None


def granted(
    value: T, expires_at: object, *, issued_at: object, now: float, project_id: str | None = None
) -> Grant[T]:
    """The grant in a response.

    Args:
        value: token or key.
        expires_at: ISO 8601 as the service wrote it, or anything else for unknown.
        issued_at: likewise; makes the lifetime independent of our clock.
        now: unix seconds by our clock.
        project_id: if the response contains it.
    """
    end = _unix_seconds(expires_at)
    if end is None:
        return Grant(value, None, None, project_id)
    begin = _unix_seconds(issued_at)
    lifetime = end - (now if begin is None else begin)
    # Expired from the start: one of the clocks is wrong. Let the service decide, and do not sign in
    # with every request.
    return Grant(value, end, lifetime if lifetime > 0 else _RETRY_SECONDS, project_id)


def _unix_seconds(text: object) -> float | None:
    try:
        moment = datetime.fromisoformat(str(text))
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return None


@dataclass
class _Held(Generic[T]):
    grant: Grant[T]
    wall: float
    monotonic: float
    proven: bool = False
    not_before: float = float("-inf")


class Refresher(Generic[T]):
    """Holds the current grant and renews it.

    Args:
        sign_in: requests a new grant; raises `PollError`.
        name: of the grant in messages, such as ``the token of user u``.
        clocks: of the machine.
    """

    def __init__(
        self,
        sign_in: Callable[[], Awaitable[Grant[T]]],
        *,
        name: str,
        clocks: Clocks,
    ) -> None:
        self._sign_in = sign_in
        self._name = name
        self._clocks = clocks
        self._busy = asyncio.Lock()
        self._held: _Held[T] | None = None
        self._ended = 0  # sign-ins, successful or not
        self._last_error: PollError | None = None
        self._refusals = 0  # of grants that were never accepted, in a row
        self._not_before = float("-inf")

    @property
    def grant(self) -> Grant[T] | None:
        """The grant held now, valid or not."""
        return None if self._held is None else self._held.grant

    @property
    def expires_at(self) -> float | None:
        """When the grant held now expires, in unix seconds; None = unknown."""
        return None if self._held is None else self._held.grant.expires_at

    async def current(self) -> Grant[T]:
        """The grant to use now, renewed first if it is due.

        Raises:
            PollError: there is none, and there cannot be one now.
        """
        held = self._held
        if held is not None and not self._due(held):
            return held.grant
        if held is not None and self._valid(held) and self._busy.locked():
            return held.grant  # it is being renewed; no need to wait
        ended = self._ended
        async with self._busy:
            held = self._held
            if held is not None and not self._due(held):
                return held.grant
            if held is not None and self._valid(held):
                return await self._renewed_early(held)
            if ended != self._ended and self._last_error is not None:
                raise self._last_error  # the sign-in we waited for failed: not a second one now
            self._wait_out_pause()
            return await self._renewed()

    def accepted(self, grant: Grant[T]) -> None:
        """Report that the service accepted this grant."""
        if self._held is not None and self._held.grant is grant:
            self._held.proven = True
            self._refusals = 0

    async def refused(self, grant: Grant[T], error: AuthError) -> bool:
        """Report that the service refused this grant (401); renew it if that can help.

        Returns:
            Whether `current` returns a different grant now.
        """
        async with self._busy:
            held = self._held
            if held is None or held.grant is not grant:
                return held is not None  # another request has reported it
            self._held = None
            if held.proven:
                try:
                    if (await self._renewed()).value != grant.value:
                        return True
                except PollError as failure:
                    log.warning("%s was refused and cannot be renewed: %s", self._name, failure)
                    return False
                self._held = None
            self._refusals += 1
            pause = min(
                _FIRST_PAUSE_SECONDS * 2 ** min(self._refusals - 1, 10), _LONGEST_PAUSE_SECONDS
            )
            self._not_before = self._clocks.monotonic() + pause
            self._last_error = error
            return False

    async def _renewed(self) -> Grant[T]:
        self._last_error = None
        try:
            grant = await self._sign_in()
        except PollError as error:
            self._last_error = error
            raise
        finally:
            self._ended += 1
        self._held = _Held(grant, self._clocks.wall(), self._clocks.monotonic())
        return grant

    async def _renewed_early(self, held: _Held[T]) -> Grant[T]:
        """Renew a grant that is still valid; if that fails, use it and try again later."""
        held.not_before = self._clocks.monotonic() + _RETRY_SECONDS
        try:
            grant = await self._renewed()
        except PollError as error:
            log.warning(
                "%s could not be renewed; it is used while it is valid, next attempt in %.0f s: %s",
                self._name,
                _RETRY_SECONDS,
                error,
            )
            return held.grant
        if grant.value == held.grant.value and self._held is not None:
            # The same key again: the metadata service decides when to change it.
            self._held.proven = held.proven
            self._held.not_before = held.not_before
        return grant

    def _wait_out_pause(self) -> None:
        wait = self._not_before - self._clocks.monotonic()
        if wait > 0:
            raise AuthError(
                f"{self._name} is refused although it is new; next sign-in in {wait:.0f} s; last "
                f"response: {self._last_error}"
            )

    def _due(self, held: _Held[T]) -> bool:
        lifetime = held.grant.lifetime
        if lifetime is None:
            return False
        margin = min(_MARGIN_SHARE * lifetime, _MARGIN_SECONDS)
        if max(self._ages(held)) < lifetime - margin:
            return False
        return self._clocks.monotonic() >= held.not_before or not self._valid(held)

    def _valid(self, held: _Held[T]) -> bool:
        lifetime = held.grant.lifetime
        return lifetime is None or min(self._ages(held)) < lifetime

    def _ages(self, held: _Held[T]) -> tuple[float, float]:
        return self._clocks.wall() - held.wall, self._clocks.monotonic() - held.monotonic
