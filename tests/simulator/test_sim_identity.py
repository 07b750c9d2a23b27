import json
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.simulator.catalog import VISION_WORKSPACE
from exporter.simulator.identity import (
    GET_JOB,
    LIST_JOBS,
    PROJECT_ID,
    PROJECT_NAME,
    AccessKey,
    Accounts,
    Identity,
)
from exporter.simulator.server import SimulatedService
from exporter.simulator.signature import Incoming, SignatureError, authorization, signed_at, verify

T = 1_750_000_000.0
SEARCH = f"/v2/{PROJECT_ID}/training-job-searches"
USER = Identity("exporter", "simulated", password="right")


def signed(method, path, *, query=(), headers=None, body=b"", at=T, access="AK", secret="SK"):
    """Return a request signed by the vendor's SDK; ``path`` as on the wire."""
    date = datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")
    request = SdkRequest(
        method=method,
        schema="http",
        host="modelarts.example",
        resource_path=path,
        query_params=list(query),
        header_params={"X-Sdk-Date": date, "Host": "modelarts.example", **(headers or {})},
        body=body,
        stream=None,
        signing_algorithm=None,
    )
    request = Signer(BasicCredentials(access, secret, PROJECT_ID)).sign(request)
    return request.uri, request.header_params


def incoming(method, uri, headers, body):
    parts = urlsplit(uri)
    lower = {name.lower(): value.encode("latin-1").decode() for name, value in headers.items()}
    return Incoming(method, parts.path, parts.query, lower, body)


SEGMENT = st.sampled_from(["v2", "a%20b", "%E4%BD%9C", "~x-._", "a+b", "(1)", "%2Fq", ":!@$"])
WORD = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
HEADER = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), max_size=20
)


@settings(max_examples=300, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    segments=st.lists(SEGMENT, max_size=4),
    slash=st.booleans(),
    query=st.lists(st.tuples(WORD.filter(bool), WORD), max_size=4),
    values=st.dictionaries(st.sampled_from(["X-Project-Id", "X-A", "X-Security-Token"]), HEADER),
    body=st.binary(max_size=64),
)
def test_what_the_vendors_signer_signs_is_verified(*, method, segments, slash, query, values, body):
    path = "/" + "/".join(segments) + ("/" if slash and segments else "")
    uri, headers = signed(method, path, query=query, headers=values, body=body)
    request = incoming(method, uri, headers, body)
    claim = authorization(request)
    verify(request, claim, "SK")
    assert claim.access == "AK"
    assert signed_at(request) == T
    with pytest.raises(SignatureError, match="not the one"):
        verify(request, claim, "SL")


def test_every_part_of_the_request_is_signed():
    uri, headers = signed("POST", "/v2/x", query=[("a", "1")], headers={"X-A": "b"}, body=b"{}")
    request = incoming("POST", uri, headers, b"{}")
    claim = authorization(request)
    verify(request, claim, "SK")
    for field, value in (
        ("method", "PUT"),
        ("path", "/v2/y"),
        ("query", "a=2"),
        ("body", b"{} "),
        ("headers", request.headers | {"x-a": "c"}),
        ("headers", request.headers | {"host": "other.example"}),
    ):
        parts = {name: getattr(request, name) for name in request.__slots__} | {field: value}
        with pytest.raises(SignatureError, match="not the one"):
            verify(Incoming(**parts), claim, "SK")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"x-project-id": "p"}, "x-project-id is not signed"),
        ({"x-security-token": "t"}, "x-security-token is not signed"),
        ({"x-sdk-date": None}, "was not sent"),
    ],
)
def test_headers_that_have_to_be_signed(change, why):
    uri, headers = signed("GET", "/v2/x")
    request = incoming("GET", uri, headers, b"")
    changed = {k: v for k, v in (request.headers | change).items() if v is not None}
    with pytest.raises(SignatureError, match=why):
        verify(Incoming("GET", "/v2/x", "", changed, b""), authorization(request), "SK")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "SDK-HMAC-SHA256 Access=AK, SignedHeaders=host;x-sdk-date, Signature=xyz",
        "SDK-HMAC-SHA256 Access=AK,SignedHeaders=host;x-sdk-date,Signature=" + "0" * 64,
        "sdk-hmac-sha256 Access=AK, SignedHeaders=host;x-sdk-date, Signature=" + "0" * 64,
        "SDK-HMAC-SHA256 Access=AK, SignedHeaders=Host;X-Sdk-Date, Signature=" + "0" * 64,
    ],
)
def test_headers_of_another_form_are_refused(header):
    with pytest.raises(SignatureError, match="malformed"):
        authorization(Incoming("GET", "/", "", {"authorization": header}, b""))


def test_signed_headers_are_sorted():
    headers = {
        "authorization": "SDK-HMAC-SHA256 Access=AK, SignedHeaders=x-sdk-date;host, Signature="
        + "0" * 64
    }
    request = Incoming("GET", "/", "", headers, b"")
    with pytest.raises(SignatureError, match="not sorted"):
        verify(request, authorization(request), "SK")


@pytest.fixture
def accounts():
    return Accounts([AccessKey("AK", "SK", USER)], [USER], token_lifetime=3600.0)


@pytest.fixture
async def service(fleet, clock, accounts):
    async with SimulatedService(fleet, accounts=accounts, clock=clock) as service:
        yield service


async def searched(client, clock, *, path=SEARCH, **how):
    body = b'{"limit": 1}'
    headers = {"Content-Type": "application/json", **how.pop("headers", {})}
    _, sent = signed("POST", path, headers=headers, body=body, **({"at": clock.now} | how))
    answer = await client("POST", path, data=body, headers=sent)
    code = (await answer.json()).get("error_code", "")
    return answer.status, code


async def test_signed_searches(client, clock):
    assert await searched(client, clock) == (200, "")
    assert await searched(client, clock, secret="wrong") == (401, "APIG.0301")
    assert await searched(client, clock, access="unknown") == (401, "APIG.0301")
    assert await searched(client, clock, at=T - 899) == (200, "")
    assert await searched(client, clock, at=T - 901) == (401, "APIG.0303")
    assert await searched(client, clock, at=T + 901) == (401, "APIG.0303")


async def test_nobody_gets_in_without_credentials(client):
    assert (await client.search({})).status == 401
    answer = await client.search({}, headers={"Authorization": "Bearer x"})
    assert (await answer.json())["error_code"] == "APIG.0301"


async def test_the_sixth_failure_in_a_row_locks_the_key(client, clock, accounts):
    for _ in range(5):
        await searched(client, clock, secret="wrong")
    assert await searched(client, clock) == (200, "")
    for _ in range(6):
        await searched(client, clock, secret="wrong")
    assert accounts.failures["AK"] == 11
    assert await searched(client, clock) == (401, "APIG.0301")
    clock.now += 299
    assert await searched(client, clock) == (401, "APIG.0301")
    clock.now += 2
    assert await searched(client, clock) == (200, "")
    assert accounts.failures["AK"] == 11


async def test_temporary_keys(client, clock, accounts):
    accounts.keys["TMP"] = AccessKey("TMP", "SK2", USER, "token", T + 100)
    key = {"access": "TMP", "secret": "SK2"}
    right = {"X-Security-Token": "token"}
    assert await searched(client, clock, headers=right, **key) == (200, "")
    assert await searched(client, clock, **key) == (401, "APIG.0301")
    other = {"X-Security-Token": "other"}
    assert await searched(client, clock, headers=other, **key) == (401, "APIG.0301")
    clock.now += 100
    assert await searched(client, clock, headers=right, **key) == (401, "APIG.0307")


async def test_another_project_is_forbidden(client, clock):
    path = SEARCH.replace(PROJECT_ID, "f" * 32)
    assert await searched(client, clock, path=path) == (403, "ModelArts.0210")
    headers = {"X-Project-Id": "f" * 32}
    assert await searched(client, clock, headers=headers) == (403, "ModelArts.0210")
    assert await searched(client, clock, headers={"X-Project-Id": PROJECT_ID}) == (200, "")


async def test_missing_permissions_are_named(client, clock, accounts, fleet):
    accounts.keys["RO"] = AccessKey("RO", "SK", Identity(permissions=frozenset({LIST_JOBS})))
    assert await searched(client, clock, access="RO") == (200, "")
    path = f"/v2/{PROJECT_ID}/training-jobs/{fleet.create().id}"
    _, headers = signed("GET", path, access="RO")
    answer = await client("GET", path, headers=headers)
    document = await answer.json()
    assert (answer.status, document["error_code"]) == (403, "ModelArts.0112")
    assert GET_JOB in document["error_msg"]


async def test_what_may_not_be_seen_is_silently_missing(client, clock, accounts, fleet):
    seen, hidden = fleet.create(), fleet.create(workspace=VISION_WORKSPACE)
    narrow = Identity(workspaces=frozenset({"0"}))
    token = accounts.issue(narrow, PROJECT_NAME, T).value
    headers = {"X-Auth-Token": token}
    for workspace, ids in (("0", [seen.id]), (VISION_WORKSPACE, [])):
        answer = await client.search({"workspace_id": workspace}, headers=headers)
        items = (await answer.json())["items"]
        assert [item["metadata"]["id"] for item in items] == ids
    path = f"/v2/{PROJECT_ID}/training-jobs/{hidden.id}"
    assert (await client("GET", path, headers=headers)).status == 400


def sign_in(scope, password="right", user="exporter", methods=("password",)):
    user = {"name": user, "password": password, "domain": {"name": "simulated"}}
    identity = {"methods": list(methods), "password": {"user": user}}
    return {"auth": {"identity": identity, "scope": scope}}


@pytest.mark.parametrize("scope", [{"name": PROJECT_NAME}, {"id": PROJECT_ID}])
async def test_a_token_by_password(client, clock, scope):
    answer = await client(
        "POST", "/v3/auth/tokens?nocatalog=true", json=sign_in({"project": scope})
    )
    token = (await answer.json())["token"]
    assert answer.status == 201
    assert token["expires_at"] == "2025-06-15T16:06:40.000000Z"
    assert (token["project"]["id"], token["project"]["name"]) == (PROJECT_ID, PROJECT_NAME)
    headers = {"X-Auth-Token": answer.headers["X-Subject-Token"]}
    assert (await client.search({}, headers=headers)).status == 200
    clock.now += 3600
    late = await client.search({}, headers=headers)
    assert (late.status, (await late.json())["error_code"]) == (401, "APIG.0307")


async def test_a_token_of_no_project_opens_none(client):
    answer = await client(
        "POST", "/v3/auth/tokens", json=sign_in({"domain": {"name": "simulated"}})
    )
    assert "project" not in (await answer.json())["token"]
    headers = {"X-Auth-Token": answer.headers["X-Subject-Token"]}
    assert (await client.search({}, headers=headers)).status == 403


async def test_revoked_and_invented_tokens_are_refused(client, accounts):
    token = accounts.issue(USER, PROJECT_NAME, T).value
    assert len(token) > 2000
    assert (await client.search({}, headers={"X-Auth-Token": token})).status == 200
    accounts.revoke_tokens()
    for value in (token, "invented"):
        answer = await client.search({}, headers={"X-Auth-Token": value})
        assert (answer.status, (await answer.json())["error_code"]) == (401, "APIG.0301")


PROJECT = {"project": {"name": PROJECT_NAME}}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (sign_in(PROJECT, password="wrong"), 401),
        (sign_in(PROJECT, user="nobody"), 401),
        (sign_in({"project": {"name": "mars-1"}}), 401),
        (sign_in(PROJECT, methods=["token"]), 400),
        ({"auth": {}}, 400),
        ([], 400),
    ],
)
async def test_sign_ins_that_fail_have_iams_form(client, body, status):
    answer = await client("POST", "/v3/auth/tokens", json=body)
    error = (await answer.json())["error"]
    assert (answer.status, error["code"]) == (status, status)
    assert error["title"] in ("Unauthorized", "Bad Request")
    assert "X-Subject-Token" not in answer.headers


async def test_a_token_for_a_workload(client, accounts):
    accounts.id_tokens["jwt"] = USER
    body = {"auth": {"id_token": {"id": "jwt"}, "scope": {"project": {"id": PROJECT_ID}}}}
    path = "/v3.0/OS-AUTH/id-token/tokens"
    answer = await client("POST", path, json=body, headers={"X-Idp-Id": "simulated-idp"})
    assert answer.status == 201
    headers = {"X-Auth-Token": answer.headers["X-Subject-Token"]}
    assert (await client.search({}, headers=headers)).status == 200
    assert (await client("POST", path, json=body)).status == 401
    body["auth"]["id_token"]["id"] = "other"
    other = await client("POST", path, json=body, headers={"X-Idp-Id": "simulated-idp"})
    assert other.status == 401


async def test_projects_by_name(client, accounts):
    token = {"X-Auth-Token": accounts.issue(USER, PROJECT_NAME, T).value}
    path = "/v3/projects"
    _, signature = signed("GET", path, query=[("name", PROJECT_NAME)])
    for headers in (token, signature):
        answer = await client("GET", f"{path}?name={PROJECT_NAME}", headers=headers)
        assert [project["id"] for project in (await answer.json())["projects"]] == [PROJECT_ID]
    nothing = await client("GET", f"{path}?name=mars-1", headers=token)
    assert (await nothing.json())["projects"] == []
    assert (await client("GET", path)).status == 401


TOKEN = "/meta-data/latest/api/token"
KEY = "/openstack/latest/securitykey"
TTL = {"X-Metadata-Token-Ttl-Seconds": "21600"}


async def test_an_agencys_key(client, clock, accounts):
    accounts.agency = USER
    assert (await client("GET", KEY)).status == 401
    assert (await client("PUT", TOKEN)).status == 400
    token = await (await client("PUT", TOKEN, headers=TTL)).text()
    answer = await client("GET", KEY, headers={"X-Metadata-Token": token})
    credential = (await answer.json())["credential"]
    assert credential["expires_at"] == "2025-06-15T21:06:40.000000Z"
    key = {"access": credential["access"], "secret": credential["secret"]}
    headers = {"X-Security-Token": credential["securitytoken"]}
    assert await searched(client, clock, headers=headers, **key) == (200, "")
    clock.now += 3 * 3600 + 1
    again = await client("GET", KEY, headers={"X-Metadata-Token": token})
    assert (await again.json())["credential"]["access"] != credential["access"]
    clock.now += 3 * 3600
    assert (await client("GET", KEY, headers={"X-Metadata-Token": token})).status == 401


@pytest.mark.parametrize("status", [404, 405, 503])
async def test_an_old_metadata_service(client, service, accounts, status):
    accounts.agency = USER
    service.behaviour.old_metadata = status
    assert (await client("PUT", TOKEN, headers=TTL)).status == status
    answer = await client("GET", KEY)
    assert set((await answer.json())["credential"]) == {
        "access",
        "secret",
        "securitytoken",
        "expires_at",
    }


async def test_a_server_without_agency(client, service):
    service.behaviour.old_metadata = 404
    assert (await client("GET", KEY)).status == 404


def test_secrets_are_in_no_repr(accounts):
    accounts.agency = USER
    shown = repr(
        (accounts.keys, accounts.users, accounts.agency_key(T), accounts.issue(USER, None, T))
    )
    key = accounts.agency_key(T)
    for secret in ("SK", "right", key.secret, key.security_token):
        assert secret not in shown


async def test_the_log_names_who_called_and_holds_no_passwords(client, clock, service):
    await searched(client, clock)
    await client("POST", "/v3/auth/tokens", json=sign_in(PROJECT))
    await searched(client, clock, secret="wrong")
    log = [(entry.operation, entry.status, entry.identity) for entry in service.requests]
    assert log == [("search", 200, "exporter"), ("token", 201, ""), ("search", 401, "")]
    assert "right" not in json.dumps([entry.body.decode() for entry in service.requests])
