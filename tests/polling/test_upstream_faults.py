"""The service fails, or the way to it: rows 1-15 of the fault matrix."""

import json
import socket
import ssl
import threading
from copy import copy
from datetime import UTC, datetime
from email.utils import formatdate
from itertools import pairwise
from urllib.parse import urlsplit

import pytest
import trustme
from polling.rig import (
    POLLS,
    REQUESTS,
    RETRIES,
    START,
    RecordedSession,
    both_ways,
    events,
    states,
    until,
)

from exporter.huaweicloud.http import Response
from exporter.modelarts import search
from exporter.modelarts.decode.jobs import decode_page
from exporter.simulator.faults import Fault
from exporter.simulator.fleet import Fleet
from exporter.simulator.identity import AccessKey, Accounts, Identity
from exporter.simulator.server import SimulatedService

WORKSPACE = "0123456789abcdef0123456789abcdef"
HTML = "<html><body>Welcome to the hotel's network</body></html>"


@pytest.fixture
async def poller(rig):
    """A poller that has seen 60 jobs, on two pages."""
    await rig.serve()
    rig.populate(60)
    poller = await rig.add()
    assert (await rig.step(poller)).ok
    return poller


def port_of(url):
    return urlsplit(url).port


def signing(key):
    """How a target signs with a key."""
    return {"method": "aksk", "access_key": key.access, "secret_key": key.secret}


@both_ways
async def test_row_01_connection_refused(rig, poller):
    port = port_of(rig.service.url)
    await rig.service.close()

    step = (await rig.step(poller)).kept("upstream")
    assert step.grew(REQUESTS, "code") == {"connection": 6}
    assert step.grew(RETRIES, "reason") == {"upstream": 5}
    assert "cannot connect to http://127.0.0.1" in poller.error

    await rig.service.start(port=port)
    await rig.recovers(poller)


@pytest.mark.parametrize("host", ["127.0.0.1:1", "modelarts.invalid"])
async def test_somebody_who_waits_is_told_at_once_that_there_is_no_connection(
    rig, monkeypatch, host
):
    await rig.serve()

    def resolve(name, *arguments, real=socket.getaddrinfo, **options):
        if name == "modelarts.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(name, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    poller = await rig.add(endpoint=f"http://{host}", retry_unreachable=False)

    step = await rig.step(poller)

    assert not step.ok
    assert step.grew(REQUESTS, "code") == {"connection": 1}
    assert step.grew(RETRIES, "reason") == {}


async def test_a_lost_connection_is_retried_for_somebody_who_waits_too(rig):
    await rig.serve()
    rig.populate(3)
    poller = await rig.add(retry_unreachable=False)
    rig.service.faults.add(Fault("reset", times=2))

    step = await rig.step(poller)

    assert step.ok
    assert step.grew(RETRIES, "reason") == {"upstream": 2}


@pytest.mark.parametrize("do", ["reset", "cut"])
@both_ways
async def test_row_01_connection_reset(rig, poller, do):
    rig.service.faults.add(Fault(do))

    step = (await rig.step(poller)).kept("upstream")
    assert step.grew(REQUESTS, "code") == {"connection": 6}
    assert step.grew(RETRIES, "reason") == {"upstream": 5}

    await rig.recovers(poller)


@pytest.mark.parametrize("do", ["reset", "cut"])
@both_ways
async def test_row_01_one_reset_is_only_a_retry(rig, poller, do):
    rig.service.faults.add(Fault(do, nth=2, times=1))

    step = await rig.step(poller)

    assert step.ok
    assert step.grew(RETRIES, "reason") == {"upstream": 1}


async def test_row_02_the_name_does_not_resolve_at_start(rig, monkeypatch):
    await rig.serve()
    known_names = set()

    def resolve(host, *arguments, real=socket.getaddrinfo, **options):
        if host == "modelarts.invalid":
            if host not in known_names:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            host = "127.0.0.1"
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    poller = await rig.add(endpoint=f"http://modelarts.invalid:{port_of(rig.service.url)}")
    rig.populate(3)
    assert not rig.publisher.ready

    step = await rig.step(poller)
    assert not step.ok
    assert step.grew(POLLS, "result") == {"upstream": 1}
    assert rig.value("modelarts_up") == 0
    assert states(step.after) == {}
    assert rig.publisher.ready
    assert poller.error.startswith("the name modelarts.invalid does not resolve")

    known_names.add("modelarts.invalid")
    await rig.recovers(poller)


@both_ways
async def test_row_03_headers_never_come(rig):
    await rig.serve()
    rig.populate(20)
    poller = await rig.add(retries=1)
    assert (await rig.step(poller)).ok
    rig.service.faults.add(Fault("hang"))
    poller.session.timeout = 0.15

    step = (await rig.step(poller)).kept("timeout")
    assert step.grew(REQUESTS, "code") == {"timeout": 2}
    assert step.grew(RETRIES, "reason") == {"timeout": 1}
    assert "did not answer within 0.15 s" in poller.error

    poller.session.timeout = 10.0
    await rig.recovers(poller)


@both_ways
async def test_row_04_the_timeout_is_total_and_not_per_read(rig):
    await rig.serve()
    rig.populate(20)
    poller = await rig.add(retries=0)
    assert (await rig.step(poller)).ok
    poller.session.timeout = 0.3
    rig.service.faults.add(
        Fault("trickle", size=200, seconds=0.01)
    )  # headers, then a bit at a time

    step = (await rig.step(poller)).kept("timeout")
    assert step.grew(REQUESTS, "code") == {"timeout": 1}

    poller.session.timeout = 10.0
    await rig.recovers(poller)


async def test_row_05_retry_after_pauses_the_whole_target(rig):
    await rig.serve()
    rig.populate(120)
    for _ in range(120):
        rig.fleet.create(workspace=WORKSPACE)
    poller = await rig.add(workspaces=("0", WORKSPACE))
    rig.service.faults.add(Fault("status", status=429, retry_after="47", times=1))

    step = await rig.step(poller)

    assert step.ok
    assert step.grew(RETRIES, "reason") == {"throttled": 1}
    refused, in_flight, *later = poller.session.times()
    assert in_flight < refused + 1
    assert len(later) == 5
    assert min(later) >= refused + 47


@both_ways
async def test_row_05_the_next_poll_waits_too(rig):
    await rig.serve()
    rig.populate(20)
    poller = await rig.add(retries=0)
    assert (await rig.step(poller)).ok
    rig.service.faults.add(Fault("status", status=429, retry_after="100", times=1))

    (await rig.step(poller)).kept("throttled")
    rig.clock.passes(60)
    assert (await rig.step(poller)).ok

    _, refused, next_request, *_ = poller.session.times()
    assert next_request >= refused + 100


BACKOFF = (0.2, 0.6)


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("7", 7, 7.1),
        ("0", 0, 0.3),
        ("120", 120, 120.1),
        ("86400", 120, 120.1),
        ("9" * 40, 120, 120.1),
        (formatdate(START + 30, usegmt=True), 30, 30.1),
        (formatdate(START + 86400, usegmt=True), 120, 120.1),
        (formatdate(START - 3600, usegmt=True), 0, 0.3),
        ("Sun, 31 Dec 9999 23:59:59 GMT", 120, 120.1),
        ("Sun, 99 Foo 2025 99:99:99 GMT", *BACKOFF),
        ("-5", *BACKOFF),
        ("1.5", *BACKOFF),
        ("1e99", *BACKOFF),
        ("soon", *BACKOFF),
        ("", *BACKOFF),
        (None, *BACKOFF),
    ],
)
async def test_row_06_forms_of_retry_after(rig, value, least, most):
    await rig.serve()
    rig.populate(3)
    poller = await rig.add()
    rig.service.faults.add(Fault("status", status=429, retry_after=value, times=1))

    assert (await rig.step(poller)).ok

    first, second = poller.session.times()
    assert least - 1e-6 <= second - first <= most


async def test_row_06_an_http_date_counts_by_the_services_own_clock(rig, clock):
    await rig.serve()
    poller = await rig.add()
    clock.off = -3600.0
    in_half_a_minute = formatdate(START + 30, usegmt=True)
    rig.service.faults.add(Fault("status", status=429, retry_after=in_half_a_minute, times=1))

    assert (await rig.step(poller)).ok

    first, second = poller.session.times()
    assert second - first == pytest.approx(30)


@pytest.mark.parametrize("retry_after", [None, "3", "0", "100000"])
@both_ways
async def test_row_07_throttled_for_ever(rig, poller, retry_after):
    rig.service.faults.add(Fault("status", status=429, retry_after=retry_after))
    before = len(poller.session.times())
    waits = rig.read == "sweep" or retry_after != "100000"  # else for longer than the poll may take

    step = (await rig.step(poller)).kept("throttled")
    assert step.grew(RETRIES, "reason") == ({"throttled": 5} if waits else {})
    assert step.grew(REQUESTS, "code") == {"429": 6 if waits else 1}
    for _ in range(5):
        rig.clock.passes(60)
        (await rig.step(poller)).kept("throttled")

    times = poller.session.times()
    assert len(times) == before + 36 if waits else before + 3
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert min(gaps) >= 0.2 - 1e-6
    rig.clock.passes(60)
    await rig.recovers(poller)


async def test_row_07_a_real_limit_is_survived_at_the_configured_rate(rig):
    await rig.serve()
    rig.service.behaviour.requests_per_minute = 10
    ids = rig.populate(1000)
    poller = await rig.add()

    step = await rig.step(poller)

    assert step.ok
    assert rig.shown() == set(ids)
    assert step.grew(RETRIES, "reason") == {"throttled": step.grew(REQUESTS, "code")["429"]}


@pytest.mark.parametrize(
    ("status", "form"),
    [(500, "error_code"), (500, "error"), (502, "html"), (503, "empty"), (504, "errorMsg")],
)
@both_ways
async def test_row_08_one_failure_is_only_a_retry(rig, poller, status, form):
    rig.service.faults.add(Fault("status", status=status, form=form, code="X.1", nth=2, times=1))

    step = await rig.step(poller)

    assert step.ok
    assert step.grew(RETRIES, "reason") == {"upstream": 1}
    # A sweep takes two pages; what is active takes two, what is new one.
    pages = 2 if step.kind == "sweep" else 3
    assert step.grew(REQUESTS, "code") == {"200": pages, str(status): 1}


@both_ways
async def test_row_08_failures_for_ever(rig, poller):
    rig.service.faults.add(Fault("status", status=502, form="html"))

    step = (await rig.step(poller)).kept("upstream")
    assert step.grew(RETRIES, "reason") == {"upstream": 5}
    assert step.grew(REQUESTS, "code") == {"502": 6}
    assert poller.error == f"the service failed: 502 (an HTML page) (request {9:032x})"

    await rig.recovers(poller)


NOT_OF_JOBS = ("modelarts_pool_", "modelarts_exporter_series")
"""What the names of other series that vanish begin with."""


async def test_row_09_states_are_withdrawn_when_stale_and_counters_stay(rig, clock):
    await rig.serve()
    rig.populate(20)
    poller = await rig.add(retries=0, sweep_interval=7200.0)
    clock.patience = 1.0
    async with rig.running(poller):
        await rig.polled(poller, 1)
        shown = rig.samples()
        assert len(states(shown)) > 100
        counted = events(shown)
        assert counted
        rig.service.faults.add(Fault("status", status=503, form="html", retry_after="10"))
        for number in range(1, 5):
            clock.passes_until(60 * number)
            await rig.polled(poller, number + 1)
            assert states(rig.samples()) == states(shown)
        clock.passes_until(299)
        assert states(rig.samples()) == states(shown)
        clock.passes_until(300)
        await until(lambda: states(rig.samples()) == counted)
        for number in range(5, 61):
            clock.passes_until(60 * number)
            await rig.polled(poller, number + 1)

        after = rig.samples()
        assert states(after) == counted
        vanished = shown.keys() - after.keys()
        vanished = {key for key in vanished if not key[0].startswith(NOT_OF_JOBS)}
        assert states(shown).keys() - counted.keys() == vanished
        assert rig.value(POLLS, kind="incremental", result="upstream") == 60
        assert rig.value(POLLS, result="success") == 1
        assert rig.value("modelarts_up") == 0

        rig.service.faults.clear()
        clock.passes_until(3660)
        await rig.polled(poller, 62)
        assert states(rig.samples()).keys() == states(shown).keys()
        assert rig.value("modelarts_up") == 1


@pytest.mark.parametrize("wrong", ["0", WORKSPACE])
@pytest.mark.parametrize(
    ("status", "place"),
    [
        (400, "check target.endpoint, target.project_id and target.workspaces (here {})"),
        (404, "check target.endpoint, target.project_id and target.workspaces (here {})"),
        (403, "grant modelarts:trainJob:list to this identity in this project and workspace {}"),
    ],
)
async def test_a_refusal_names_the_workspace(rig, monkeypatch, status, place, wrong):
    await rig.serve()

    async def answer(session, request, real=RecordedSession.__call__):
        if request.body and json.loads(request.body)["workspace_id"] == wrong:
            body = b'{"error_code": "ModelArts.0102", "error_msg": "Bad parameters."}'
            return Response(status, {}, body)
        return await real(session, request)

    monkeypatch.setattr(RecordedSession, "__call__", answer)
    poller = await rig.add(workspaces=("0", WORKSPACE))
    assert not await poller.poll()
    assert f"{status} ModelArts.0102 Bad parameters; {place.format(wrong)}" in poller.error


@pytest.mark.parametrize(
    "body",
    [
        HTML,
        "",
        " \n",
        "[]",
        "null",
        "42",
        '"jobs"',
        "jobs: none",
        "[" * 100_000,
        '{"items":' * 50_000,
    ],
    ids=lambda body: body[:9],
)
@both_ways
async def test_row_10_no_object(rig, poller, body):
    rig.service.faults.add(Fault("replace", body=body, nth=2))

    step = (await rig.step(poller)).kept("invalid")
    assert HTML not in poller.error

    if step.grew(RETRIES, "reason") == {}:
        assert step.grew(REQUESTS, "code") == {"200": 2}
    else:  # it could be the beginning of an answer that was cut off
        assert body.startswith("{")
    await rig.recovers(poller)


NO_LISTS = {
    "error_code": Fault("status", status=200, code="ModelArts.0001"),
    "errorCode": Fault("status", status=200, form="errorMsg", code="ModelArts.0001"),
    "error": Fault("status", status=200, form="error"),
    "an empty object": Fault("replace", body="{}"),
    "no items": Fault("edit", remove=["items"]),
    "items null": Fault("edit", edits={"items": None}),
    "items an object": Fault("edit", edits={"items": {}}),
    "items a text": Fault("edit", edits={"items": "none"}),
    "no items and an error": Fault("edit", edits={"items": [], "error_code": "ModelArts.0001"}),
}


@pytest.mark.parametrize("case", NO_LISTS)
@both_ways
async def test_row_11_an_error_in_a_200_is_no_empty_fleet(rig, poller, case):
    rig.service.faults.add(copy(NO_LISTS[case]))

    step = (await rig.step(poller)).kept("invalid")
    assert step.grew(RETRIES, "reason") == {}
    assert len(rig.shown()) == 60

    await rig.recovers(poller)


@pytest.mark.parametrize(
    ("do", "code"),
    [("truncate", "200"), ("broken_chunking", "connection"), ("cut_body", "connection")],
)
@both_ways
async def test_row_12_cut_off_answers_are_asked_for_again(rig, poller, do, code):
    fault = rig.service.faults.add(Fault(do, nth=2, times=1))
    step = await rig.step(poller)
    assert step.ok
    assert fault.hits == 1
    assert step.grew(RETRIES, "reason") == {"invalid": 1}

    rig.service.faults.add(Fault(do, nth=2))
    step = (await rig.step(poller)).kept("invalid")
    assert step.grew(RETRIES, "reason") == {"invalid": 5}
    assert step.grew(REQUESTS, "code")[code] >= 6

    await rig.recovers(poller)


@pytest.mark.parametrize("do", ["gzip_bomb", "oversized"])
@both_ways
async def test_row_13_answers_have_a_limit(rig, poller, do):
    rig.service.faults.add(Fault(do, size=2**30))

    step = (await rig.step(poller)).kept("invalid")
    assert step.grew(REQUESTS, "code") == {"200": 1}
    assert step.grew(RETRIES, "reason") == {}
    assert "larger than 16777216 bytes" in poller.error

    await rig.recovers(poller)


HEAVY = {
    "items": b'{"items": [%s]}' % b",".join([b"0"] * 4_000_000),
    "records": b'{"items": [{"metadata": {"id": "a"}, "status": {"running_records": [%s]}}]}'
    % b",".join([b'{"start_type": "restarted"}'] * 100_000),
    "nesting": b'{"items": [%s' % (b"[" * 1_000_000),
}


@pytest.mark.parametrize("kind", HEAVY)
async def test_row_13_the_event_loop_goes_on(rig, poller, kind, monkeypatch):
    """Neither decompression nor decoding of more than a little happens in its thread."""
    loop = threading.get_ident()
    threads = []

    def decoding(body, **options):
        threads.append(threading.get_ident())
        return decode_page(body, **options)

    monkeypatch.setattr(search, "decode_page", decoding)
    body = HEAVY[kind].decode()
    rig.service.faults.add(Fault("replace", "search", body=body, times=1))

    assert (await rig.step(poller)).ok == (kind == "records")
    assert loop not in threads
    assert threads


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@both_ways
async def test_row_14_nothing_goes_where_a_redirect_points(rig, status):
    key = AccessKey("AKEXAMPLE", "a secret", Identity())
    await rig.serve(accounts=Accounts([key]))
    rig.populate(20)
    poller = await rig.add(auth=signing(key))
    assert (await rig.step(poller)).ok
    async with SimulatedService(Fleet(), clock=rig.clock.service) as elsewhere:
        location = elsewhere.url + rig.service.requests[0].path
        rig.service.faults.add(Fault("redirect", status=status, location=location))

        step = (await rig.step(poller)).kept("upstream")

        assert step.grew(REQUESTS, "code") == {str(status): 1}
        assert step.grew(RETRIES, "reason") == {}
        assert not elsewhere.requests
    assert "redirect not followed" in poller.error
    await rig.recovers(poller)


@pytest.mark.parametrize("case", ["unknown CA", "expired", "another name", "no TLS at all"])
async def test_row_15_a_wrong_certificate(rig, tmp_path, case):
    good, other = trustme.CA(), trustme.CA()
    good.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = {
        "unknown CA": lambda: other.issue_cert("127.0.0.1"),
        "expired": lambda: good.issue_cert("127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=UTC)),
        "another name": lambda: good.issue_cert("modelarts.example"),
        "no TLS at all": lambda: None,
    }[case]()
    problem = {
        "unknown CA": "unable to get local issuer certificate",
        "expired": "certificate has expired",
        "another name": "IP address mismatch, certificate is not valid for '127.0.0.1'.",
        "no TLS at all": "WRONG_VERSION_NUMBER",
    }[case]
    key = AccessKey("AKEXAMPLE", "a secret", Identity())
    await rig.serve(accounts=Accounts([key]), ssl_context=serving(good.issue_cert("127.0.0.1")))
    port = port_of(rig.service.url)
    rig.populate(20)
    poller = await rig.add(ca_file=str(tmp_path / "ca.pem"), auth=signing(key))
    assert (await rig.step(poller)).ok

    await rig.service.close()
    received = len(rig.service.requests)
    await rig.service.start(port=port, ssl_context=serving(certificate))
    step = (await rig.step(poller)).kept("upstream")

    assert len(rig.service.requests) == received
    assert step.grew(REQUESTS, "code") == {"connection": 6}
    assert poller.error.startswith(f"TLS to https://127.0.0.1:{port} failed: {problem}; check ")
    assert "target.ca_file" in poller.error

    await rig.service.close()
    await rig.service.start(port=port, ssl_context=serving(good.issue_cert("127.0.0.1")))
    await rig.recovers(poller)


def serving(certificate):
    """A server's TLS with a certificate; None: no TLS."""
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context
