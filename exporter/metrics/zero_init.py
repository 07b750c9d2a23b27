"""Born at zero: a new counter is 0 for a while, so that ``increase()`` sees its first step.

Prometheus cannot tell a counter that was born at 1 from one that was always 1. So a series that is
published for the first time is held at 0, whatever it counts, for one poll interval; and where
Prometheus scrapes us, until such a scrape has seen the zero, but never longer than five minutes.

What was ever shown above zero must never be shown as zero again, not even after a ``kill -9``: the
release of a series is committed before it is published.
"""

from collections.abc import Callable, Iterable

from exporter.metrics.counters import SeriesKey

LONGEST_SECONDS = 300.0


class _HeldSeries:
    """When a series was first published, in monotonic seconds, and in which generation."""

    __slots__ = ("at", "generation", "seen")

    def __init__(self) -> None:
        self.at: float | None = None
        self.generation = 0
        self.seen = False


class ZeroInit:
    """Which series of a target are held at zero.

    Args:
        interval: seconds that a series is held at least.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._held: dict[SeriesKey, _HeldSeries] = {}
        self._scraped = False

    def hold(self, keys: Iterable[SeriesKey]) -> None:
        """These series are new: they are held until `release`."""
        for key in keys:
            self._held.setdefault(key, _HeldSeries())

    def is_held(self, key: SeriesKey) -> bool:
        """Whether a series shows zero."""
        return key in self._held

    def unpublished(self) -> list[SeriesKey]:
        """Series that were announced and never published."""
        return [key for key, birth in self._held.items() if birth.at is None]

    def mark_published(self, keys: Iterable[SeriesKey], now: float, generation: int) -> None:
        """These announced series are visible since that generation; monotonic seconds."""
        for key in keys:
            birth = self._held.get(key)
            if birth is not None and birth.at is None:
                birth.at, birth.generation = now, generation

    def mark_scraped(self, generation: int) -> None:
        """Prometheus has seen that generation of what we publish."""
        self._scraped = True
        for birth in self._held.values():
            birth.seen = birth.seen or (birth.at is not None and birth.generation <= generation)

    def releasable(self, now: float) -> frozenset[SeriesKey]:
        """Series that may be released now; monotonic seconds."""
        return frozenset(key for key, birth in self._held.items() if self._until(birth) <= now)

    def next_release(self) -> float | None:
        """When the next series may be released if no scrape comes; None = never."""
        moment = min(map(self._until, self._held.values()), default=float("inf"))
        return None if moment == float("inf") else moment

    def release(self, keys: Iterable[SeriesKey]) -> None:
        """Let go of these for ever; their release must be committed first."""
        for key in keys:
            self._held.pop(key, None)

    def retain(self, wanted: Callable[[SeriesKey], bool]) -> None:
        """Only these are held from now on."""
        self._held = {key: birth for key, birth in self._held.items() if wanted(key)}

    def resume(self, interval: float, *, unpublished: bool) -> None:
        """For another poller of the target.

        Args:
            interval: seconds that a series is held at least from now on.
            unpublished: the series have new names, which nobody has seen.
        """
        self._interval = interval
        if unpublished:
            self._held = {key: _HeldSeries() for key in self._held}

    def _until(self, birth: _HeldSeries) -> float:
        if birth.at is None:
            return float("inf")
        waits = self._scraped and not birth.seen
        return birth.at + (max(self._interval, LONGEST_SECONDS) if waits else self._interval)
