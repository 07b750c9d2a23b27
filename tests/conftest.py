"""Which tests are unit tests, and a guard that keeps them so.

A unit test needs nothing but Python: no network beyond loopback and no other program. All other
tests are marked `integration`: by their folder, by a fixture that starts a program, or by hand.
`make unit` leaves them out, and also those marked `slow`.
"""

import ipaddress
import os
import sys
from pathlib import Path

import pytest

INTEGRATION_FOLDERS = {"deploy", "e2e", "process"}
"""Every test in them starts a program, or belongs to tests that do."""
INTEGRATION_FIXTURES = {"helm", "promtool", "small_disk", "start", "tab"}
"""They start helm, promtool, mount, any program, a browser."""

ADDRESSED = {"socket.bind", "socket.connect", "socket.sendmsg", "socket.sendto"}
RESOLVED = {"socket.getaddrinfo", "socket.gethostbyaddr", "socket.gethostbyname"}
STARTED = {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"}
WATCHED = ADDRESSED | RESOLVED | STARTED


class NotAUnitTestError(Exception):
    """A test that is not marked `integration` starts a program or uses the network."""


class Guard:
    """Stops a unit test from starting a program or using the network beyond loopback.

    An audit hook also sees C code, threads and asyncio, unlike a patched function. It cannot be
    removed, so it is switched on and off.

    Attributes:
        on: whether a unit test is running.
        violations: what this test tried. The code under test may have handled the error.
    """

    error = NotAUnitTestError

    def __init__(self):
        self.on = False
        self.violations = []
        sys.addaudithook(self._audit)

    def _audit(self, event, arguments):
        if self.on and event in WATCHED and not _is_allowed(event, arguments):
            self.violations.append(f"{event}{arguments}")
            raise NotAUnitTestError(self.violations[-1])


def _is_allowed(event, arguments):
    if event in STARTED:
        return False
    host = arguments[0]
    if event in ADDRESSED:
        address = arguments[-1]
        if not isinstance(address, tuple):
            return True  # the path of a Unix socket, or None for a connected socket
        host = address[0]
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


GUARD = Guard()


def pytest_xdist_auto_num_workers(config):
    """As many as there are processors; twice as many if tests that mostly wait are among them."""
    processors = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return processors if "not integration" in config.option.markexpr else 2 * processors


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(here).parts[0]
        if folder in INTEGRATION_FOLDERS or not INTEGRATION_FIXTURES.isdisjoint(item.fixturenames):
            item.add_marker("integration")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    GUARD.violations.clear()
    GUARD.on = item.get_closest_marker("integration") is None
    try:
        return (yield)
    finally:
        GUARD.on = False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown():
    result = yield
    if GUARD.violations:
        pytest.fail(f"mark this test `integration`: {GUARD.violations}", pytrace=False)
    return result


@pytest.fixture
def guard():
    """The guard, for tests of it."""
    return GUARD
