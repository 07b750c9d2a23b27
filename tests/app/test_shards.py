"""Every target has exactly one shard, and another number of shards moves as few as possible."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.app.shards import shard_of

LABELS = st.tuples(st.text(max_size=8), st.text(max_size=8))
TARGETS = [("cn-north-4", f"project-{number}") for number in range(3000)]


@given(LABELS, st.integers(1, 50))
def test_every_target_has_one_shard(labels, count):
    found = shard_of(*labels, count=count)
    assert found in range(count)
    assert shard_of(*labels, count=count) == found


@given(LABELS, st.integers(1, 50))
def test_a_new_shard_only_takes(labels, count):
    before, after = shard_of(*labels, count=count), shard_of(*labels, count=count + 1)
    assert after in {before, count}


@pytest.mark.parametrize("count", [2, 3, 10])
def test_shards_are_about_equal(count):
    sizes = Counter(shard_of(*labels, count=count) for labels in TARGETS)
    fair = len(TARGETS) / count
    assert set(sizes) == set(range(count))
    assert all(0.8 * fair < size < 1.2 * fair for size in sizes.values())


def test_the_shard_is_the_same_in_every_process_and_version():
    names = [*(f"project-{number}" for number in range(9)), "\u9879\u76ee"]
    found = [shard_of("cn-north-4", name, 3) for name in names]
    assert found == [1, 1, 2, 0, 0, 0, 2, 0, 1, 2]
