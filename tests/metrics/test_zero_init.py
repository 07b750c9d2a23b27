"""A new counter is 0 for a while, and never 0 again."""

import pytest

from exporter.metrics.zero_init import LONGEST_SECONDS, ZeroInit

A, B = ("a_total", ("x",)), ("b_total", ("x",))
INTERVAL = 60.0


def publish(births, keys, now, generation):
    births.announce(keys)
    births.published(births.unpublished(), now, generation)


@pytest.fixture
def births():
    return ZeroInit(INTERVAL)


def test_nothing_is_held_at_first(births):
    assert births.due(1e9) == frozenset()
    assert births.next_due() is None
    assert not births.is_held(A)


def test_what_is_announced_is_held_and_not_due_before_it_is_published(births):
    births.announce([A])

    assert births.is_held(A)
    assert births.due(1e9) == frozenset()
    assert births.next_due() is None


def test_what_was_announced_before_it_was_published_is_not_seen_by_a_scrape(births):
    births.announce([A])
    births.scraped(7)
    births.published([A], 100.0, 8)

    assert births.due(160.0) == frozenset()


def test_a_series_is_held_for_the_interval(births):
    publish(births, [A], 100.0, 1)

    assert births.is_held(A)
    assert births.due(159.9) == frozenset()
    assert births.next_due() == 160.0
    assert births.due(160.0) == {A}


def test_what_is_due_is_held_until_its_release(births):
    publish(births, [A], 100.0, 1)

    assert births.due(160.0) == births.due(161.0) == {A}
    assert births.is_held(A)


def test_what_is_released_is_held_no_more(births):
    publish(births, [A, B], 100.0, 1)
    births.release([A])
    births.published([A, B], 1000.0, 9)

    assert not births.is_held(A)
    assert births.is_held(B)
    assert births.due(1e9) == {B}


def test_a_series_is_held_from_its_first_publication_on(births):
    publish(births, [A], 100.0, 1)
    publish(births, [A, B], 130.0, 2)

    assert births.due(160.0) == {A}
    assert births.next_due() == 160.0


def test_the_next_is_due_after_one_was_released(births):
    publish(births, [A], 100.0, 1)
    publish(births, [B], 130.0, 2)
    births.release([A])

    assert births.next_due() == 190.0


class TestScraped:
    """Prometheus scrapes us."""

    @pytest.fixture
    def births(self, births):
        births.scraped(0)
        return births

    def test_no_series_is_released_before_its_zero_was_seen(self, births):
        publish(births, [A], 100.0, 5)

        assert births.due(100.0 + LONGEST_SECONDS - 1) == frozenset()

    def test_a_zero_that_was_seen_is_held_for_the_interval(self, births):
        publish(births, [A], 100.0, 5)
        births.scraped(5)

        assert births.due(159.0) == frozenset()
        assert births.next_due() == 160.0
        assert births.due(160.0) == {A}

    def test_a_zero_that_was_seen_late_is_due_at_once(self, births):
        publish(births, [A], 100.0, 5)
        births.scraped(5)

        assert births.due(250.0) == {A}

    def test_nobody_waits_longer_than_five_minutes(self, births):
        publish(births, [A], 100.0, 5)

        assert births.next_due() == 400.0
        assert births.due(400.0) == {A}

    def test_an_older_generation_does_not_show_the_zero(self, births):
        publish(births, [A], 100.0, 5)
        births.scraped(4)

        assert births.due(160.0) == frozenset()

    def test_a_newer_generation_shows_it_too(self, births):
        publish(births, [A], 100.0, 5)
        publish(births, [B], 110.0, 7)
        births.scraped(6)

        assert births.due(200.0) == {A}
        assert births.next_due() == 160.0

    def test_seen_once_is_seen(self, births):
        publish(births, [A], 100.0, 5)
        births.scraped(6)
        births.scraped(4)

        assert births.due(160.0) == {A}

    def test_series_are_held_that_were_published_before_the_first_scrape(self):
        births = ZeroInit(INTERVAL)
        publish(births, [A], 100.0, 5)
        births.scraped(4)

        assert births.due(160.0) == frozenset()

    def test_an_interval_above_five_minutes_holds_longer(self):
        births = ZeroInit(600.0)
        births.scraped(0)
        publish(births, [A], 100.0, 5)

        assert births.due(699.0) == frozenset()
        assert births.due(700.0) == {A}
