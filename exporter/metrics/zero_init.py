"""Zero initialization: new counters start at 0, so that ``increase()`` sees their first step.

Prometheus cannot distinguish a counter that starts at 1 from one that was always 1. So a series
that is published for the first time is held at 0, whatever its value, for one poll interval. If
Prometheus scrapes the exporter, it is also held until a scrape has seen the zero, but never longer
than five minutes.

A series that was ever shown above zero must never be shown as zero again, not even after a
``kill -9``: the release of a series is committed before it is published.
"""

from collections.abc import Callable, Iterable

from exporter.metrics.counters import SeriesKey

MAX_HOLD_SECONDS = 300.0


class _HeldSeries:
    """When (monotonic) and in which generation a series was first published; was it scraped?"""

    __slots__ = ("generation", "published_at", "scraped")

    def __init__(self) -> None:
        self.published_at: float | None = None
        self.generation = 0
        self.scraped = False


class ZeroInit:
    """Which series of a target are held at zero.

    Args:
        interval: minimum seconds for which a series is held.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._held: dict[SeriesKey, _HeldSeries] = {}
        self._is_scraped = False

    def hold(self, keys: Iterable[SeriesKey]) -> None:
        """Hold these new series at zero until `release`."""
        for key in keys:
            self._held.setdefault(key, _HeldSeries())

    def is_held(self, key: SeriesKey) -> bool:
        """Whether a series is held at zero."""
        return key in self._held

    def held(self) -> frozenset[SeriesKey]:
        """The series that are held at zero."""
        return frozenset(self._held)

    def unpublished(self) -> list[SeriesKey]:
        """Series that are held and were never published."""
        return [key for key, held in self._held.items() if held.published_at is None]

    def mark_published(self, keys: Iterable[SeriesKey], now: float, generation: int) -> None:
        """These held series are visible since that generation; ``now`` in monotonic seconds."""
        for key in keys:
            held = self._held.get(key)
            if held is not None and held.published_at is None:
                held.published_at, held.generation = now, generation

    def mark_scraped(self, generation: int) -> None:
        """Prometheus has read that generation of the published series."""
        self._is_scraped = True
        for held in self._held.values():
            held.scraped = held.scraped or (
                held.published_at is not None and held.generation <= generation
            )

    def releasable(self, now: float) -> frozenset[SeriesKey]:
        """Series that may be released; ``now`` in monotonic seconds."""
        return frozenset(key for key, held in self._held.items() if self._release_at(held) <= now)

    def next_release(self) -> float | None:
        """When the next series may be released if there is no scrape; None = never."""
        moment = min(map(self._release_at, self._held.values()), default=float("inf"))
        return None if moment == float("inf") else moment

    def release(self, keys: Iterable[SeriesKey]) -> None:
        """Hold these series no longer. Their release must be committed first."""
        for key in keys:
            self._held.pop(key, None)

    def retain(self, exists: Callable[[SeriesKey], bool]) -> None:
        """Continue to hold only these series."""
        self._held = {key: held for key, held in self._held.items() if exists(key)}

    def resume(self, interval: float, *, unpublished: bool) -> None:
        """Continue under a new poller of the same target.

        Args:
            interval: minimum seconds for which a series is held from now on.
            unpublished: the series have new labels, so nobody has seen them yet.
        """
        self._interval = interval
        if unpublished:
            self._held = {key: _HeldSeries() for key in self._held}

    def _release_at(self, held: _HeldSeries) -> float:
        if held.published_at is None:
            return float("inf")
        must_wait = self._is_scraped and not held.scraped
        return held.published_at + (
            max(self._interval, MAX_HOLD_SECONDS) if must_wait else self._interval
        )
