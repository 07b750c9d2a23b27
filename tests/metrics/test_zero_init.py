"""A new counter is 0 for a while, and never 0 again."""

import pytest

from exporter.metrics.zero_init import MAX_HOLD_SECONDS, ZeroInit

A, B = ("a_total", ("x",)), ("b_total", ("x",))
INTERVAL = 60.0


def publish(zero_init, keys, now, generation):
    zero_init.hold(keys)
    zero_init.mark_published(zero_init.unpublished(), now, generation)


@pytest.fixture
def zero_init():
    return ZeroInit(INTERVAL)


def test_nothing_is_held_at_first(zero_init):
    assert zero_init.releasable(1e9) == frozenset()
    assert zero_init.next_release() is None
    assert not zero_init.is_held(A)


def test_what_is_announced_is_held_and_not_due_before_it_is_published(zero_init):
    zero_init.hold([A])

    assert zero_init.is_held(A)
    assert zero_init.releasable(1e9) == frozenset()
    assert zero_init.next_release() is None


def test_what_was_announced_before_it_was_published_is_not_seen_by_a_scrape(zero_init):
    zero_init.hold([A])
    zero_init.mark_scraped(7)
    zero_init.mark_published([A], 100.0, 8)

    assert zero_init.releasable(160.0) == frozenset()


def test_a_series_is_held_for_the_interval(zero_init):
    publish(zero_init, [A], 100.0, 1)

    assert zero_init.is_held(A)
    assert zero_init.releasable(159.9) == frozenset()
    assert zero_init.next_release() == 160.0
    assert zero_init.releasable(160.0) == {A}


def test_what_is_due_is_held_until_its_release(zero_init):
    publish(zero_init, [A], 100.0, 1)

    assert zero_init.releasable(160.0) == zero_init.releasable(161.0) == {A}
    assert zero_init.is_held(A)


def test_what_is_released_is_held_no_more(zero_init):
    publish(zero_init, [A, B], 100.0, 1)
    zero_init.release([A])
    zero_init.mark_published([A, B], 1000.0, 9)

    assert not zero_init.is_held(A)
    assert zero_init.is_held(B)
    assert zero_init.releasable(1e9) == {B}


def test_a_series_is_held_from_its_first_publication_on(zero_init):
    publish(zero_init, [A], 100.0, 1)
    publish(zero_init, [A, B], 130.0, 2)

    assert zero_init.releasable(160.0) == {A}
    assert zero_init.next_release() == 160.0


def test_the_next_is_due_after_one_was_released(zero_init):
    publish(zero_init, [A], 100.0, 1)
    publish(zero_init, [B], 130.0, 2)
    zero_init.release([A])

    assert zero_init.next_release() == 190.0


class TestScraped:
    """Prometheus scrapes us."""

    @pytest.fixture
    def zero_init(self, zero_init):
        zero_init.mark_scraped(0)
        return zero_init

    def test_no_series_is_released_before_its_zero_was_seen(self, zero_init):
        publish(zero_init, [A], 100.0, 5)

        assert zero_init.releasable(100.0 + MAX_HOLD_SECONDS - 1) == frozenset()

    def test_a_zero_that_was_seen_is_held_for_the_interval(self, zero_init):
        publish(zero_init, [A], 100.0, 5)
        zero_init.mark_scraped(5)

        assert zero_init.releasable(159.0) == frozenset()
        assert zero_init.next_release() == 160.0
        assert zero_init.releasable(160.0) == {A}

    def test_a_zero_that_was_seen_late_is_due_at_once(self, zero_init):
        publish(zero_init, [A], 100.0, 5)
        zero_init.mark_scraped(5)

        assert zero_init.releasable(250.0) == {A}

    def test_nobody_waits_longer_than_five_minutes(self, zero_init):
        publish(zero_init, [A], 100.0, 5)

        assert zero_init.next_release() == 400.0
        assert zero_init.releasable(400.0) == {A}

    def test_an_older_generation_does_not_show_the_zero(self, zero_init):
        publish(zero_init, [A], 100.0, 5)
        zero_init.mark_scraped(4)

        assert zero_init.releasable(160.0) == frozenset()

    def test_a_newer_generation_shows_it_too(self, zero_init):
        publish(zero_init, [A], 100.0, 5)
        publish(zero_init, [B], 110.0, 7)
        zero_init.mark_scraped(6)

        assert zero_init.releasable(200.0) == {A}
        assert zero_init.next_release() == 160.0

    def test_seen_once_is_seen(self, zero_init):
        publish(zero_init, [A], 100.0, 5)
        zero_init.mark_scraped(6)
        zero_init.mark_scraped(4)

        assert zero_init.releasable(160.0) == {A}

    def test_series_are_held_that_were_published_before_the_first_scrape(self):
        zero_init = ZeroInit(INTERVAL)
        publish(zero_init, [A], 100.0, 5)
        zero_init.mark_scraped(4)

        assert zero_init.releasable(160.0) == frozenset()

    def test_an_interval_above_five_minutes_holds_longer(self):
        zero_init = ZeroInit(600.0)
        zero_init.mark_scraped(0)
        publish(zero_init, [A], 100.0, 5)

        assert zero_init.releasable(699.0) == frozenset()
        assert zero_init.releasable(700.0) == {A}
