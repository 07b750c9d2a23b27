"""A rig for every test, and nothing of this machine between it and the service."""

import os

import pytest
from polling.rig import Clock, Rig


@pytest.fixture(autouse=True)
def _only_the_service(monkeypatch):
    monkeypatch.setenv(
        "SSL_CERT_FILE", os.devnull
    )  # tests bring their own CA; this one loads slowly
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def rig(clock):
    async with Rig(clock) as rig:
        yield rig


@pytest.fixture
def _both_ways(rig, request):
    """The test is about polls of either kind, once something is known."""
    rig.read = request.param
