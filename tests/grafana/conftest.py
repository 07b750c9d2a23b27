"""Programs that end with their test."""

import pytest
from process.program import programs


@pytest.fixture
def start(tmp_path):
    with programs(tmp_path) as begin:
        yield begin
