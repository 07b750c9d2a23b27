"""Requests behind which there may be another site, by their headers."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.web.origin import is_cross_origin, is_rebound


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    ("host", "rebound"),
    [
        ("localhost", False),
        ("LOCALHOST:9978", False),
        ("localhost.:9978", False),
        ("localhost.localdomain", False),
        ("exporter.localhost:9978", False),
        ("127.0.0.1:9978", False),
        ("10.1.2.3", False),
        ("[::1]:9978", False),
        ("[fd00::1]", False),
        ("exporter:9978", False),  # a name of Docker or Kubernetes, or of this machine
        (socket.gethostname(), False),
        ("", False),
        ("rebound.example", True),
        ("rebound.example:9978", True),
        ("REBOUND.EXAMPLE.", True),
        ("127.0.0.1.rebound.example", True),
        ("localhost.rebound.example", True),
        ("127.0.0.1@rebound.example", True),
        ("rebound.example#localhost", True),
        ("rebound.example/localhost", True),
        ("notlocalhost.localhost.example", True),
        ("[::1", True),
        ("[rebound.example]", True),
    ],
)
def test_rebound(host, rebound, address):
    assert is_rebound({"Host": host}, address) == rebound


@pytest.mark.parametrize("address", ["10.1.2.3", "192.0.2.1", "fd00::1", "::ffff:10.1.2.3"])
def test_elsewhere_services_have_names_that_nobody_knows(address):
    assert not is_rebound({"Host": "exporter.monitoring.svc.cluster.local"}, address)
    assert not is_rebound({"Host": "rebound.example"}, address)


@pytest.mark.parametrize("header", ["Via", "Sec-Fetch-Site"])
def test_behind_a_proxy_names_are_the_proxys(header):
    assert not is_rebound({"Host": "exporter.example.org", header: "x"}, "127.0.0.1")


def test_headers_that_scripts_can_set_prove_nothing():
    headers = {"Host": "rebound.example", "X-Forwarded-For": "1.2.3.4", "Forwarded": "for=1.2.3.4"}
    assert is_rebound(headers, "127.0.0.1")


def test_a_client_without_host_is_no_browser():
    assert not is_rebound({}, "127.0.0.1")


@given(st.text(), st.text(), st.text())
def test_every_header_has_an_answer(host, origin, site):
    headers = {"Host": host, "Origin": origin, "Sec-Fetch-Site": site}
    assert is_cross_origin(headers) in (True, False)
    assert is_rebound({"Host": host}, "127.0.0.1") in (True, False)
