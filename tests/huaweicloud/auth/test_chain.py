"""All ways to sign in, over real HTTP against a strict service."""

import asyncio
import base64
import html
import json
import logging
import urllib.parse
from itertools import cycle

import pytest
from aiohttp import web
from huaweicloud.fake_cloud import START, Time, api_error, iam_error, iso, running, search, session

from exporter.errors import (
    AuthError,
    ConnectionFailedError,
    ForbiddenError,
    InvalidResponseError,
    PollError,
    RejectedError,
    TimedOutError,
    UpstreamError,
)
from exporter.huaweicloud.auth.chain import AuthContext, resolve
from exporter.huaweicloud.auth.lockout import KeyLockouts
from exporter.huaweicloud.http import Request
from exporter.huaweicloud.projects import find_project_id
from exporter.settings.schema import AuthSettings

DAY = 86_400.0
SEARCH = "/v2/p/training-job-searches"
SIGN_IN = "/v3/auth/tokens"
SECURITY_KEY = "/openstack/latest/securitykey"
METADATA_TOKEN = "/meta-data/latest/api/token"
MARKERS = ("pass word MARKER", "jwt-MARKER-jwt", "sk-MARKER-sk", "st-MARKER-st", "-MARKER")


@pytest.fixture
def time():
    return Time()


@pytest.fixture
async def cloud(time):
    async with running(time) as cloud:
        yield cloud


@pytest.fixture
async def http():
    async with session() as http:
        yield http


@pytest.fixture
def lockouts(time):
    return KeyLockouts(lambda: time.monotonic)


@pytest.fixture
def signed_in(cloud, http, lockouts, time, tmp_path):
    """Make credentials for the cloud."""

    def signed_in(environ=None, *, http=http, iam_endpoint=None, project_id="p", **options):
        return resolve(
            AuthSettings(**options),
            AuthContext(
                region="cn-north-4",
                iam_endpoint=iam_endpoint or cloud.url + "/",
                project_id=project_id,
                environ=environ or {"HOME": str(tmp_path)},
                http=http,
                lockouts=lockouts,
                clocks=time.clocks,
                metadata_endpoint=cloud.url,
            ),
        )

    return signed_in


@pytest.fixture
def user(cloud, signed_in, tmp_path):
    """Credentials of an IAM user."""
    cloud.passwords["d", "u"] = "pass word MARKER"
    path = tmp_path / "password"
    path.write_text("pass word MARKER\n")
    return signed_in(username="u", domain="d", password_file=str(path))


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "sk"
    path.write_text("sk-MARKER-sk\n")
    return path


@pytest.fixture
def signer(signed_in, key_file):
    """Credentials with an access key, not yet known to the cloud."""
    return signed_in(access_key="ABCDEFGH", secret_key_file=str(key_file))


async def refused(awaitable, kind=AuthError):
    with pytest.raises(PollError) as caught:
        await awaitable
    assert type(caught.value) is kind
    return str(caught.value)


# --- IAM user -----------------------------------------------------------------------------------


async def test_a_user_signs_in_once_and_sends_the_token(cloud, http, user):
    for _ in range(3):
        assert await search(http, cloud, user) == "ok"
    (document,) = cloud.documents(SIGN_IN)
    who = {"name": "u", "password": "pass word MARKER", "domain": {"name": "d"}}
    assert document == {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": who}},
            "scope": {"project": {"id": "p"}},
        }
    }
    sent = cloud.asked(SEARCH)[0]
    assert sent["X-Auth-Token"] == "MIIF-1-MARKER"
    assert (sent["Content-Type"], sent["X-Project-Id"]) == ("application/json", "p")
    assert user.method == "password"
    assert user.identity == "user u of domain d"
    assert user.expires_at == START + DAY


@pytest.mark.parametrize("length", [8_150, 8_191, 16_384, 102_400])
async def test_a_token_may_be_long(*, cloud, http, user, workload, signed_in, tmp_path, length):
    cloud.token_length = length
    for credentials in (user, workload):
        assert await search(http, cloud, credentials) == "ok"
    (tmp_path / "token").write_text(f"{cloud.asked(SEARCH)[-1]['X-Auth-Token']}\n")
    assert (tmp_path / "token").stat().st_size == length + 1
    assert await search(http, cloud, signed_in(token_file=str(tmp_path / "token"))) == "ok"


async def test_without_a_project_id_the_token_is_for_the_region(cloud, http, signed_in):
    cloud.passwords["d", "u"] = "pw"
    user = signed_in(username="u", domain="d", password="pw", project_id=None)
    assert await find_project_id(http, user, cloud.url, "cn-north-4") == "project-of-the-region"
    (document,) = cloud.documents(SIGN_IN)
    assert document["auth"]["scope"] == {"project": {"name": "cn-north-4"}}
    assert cloud.asked("/v3/projects") == [], "the sign-in has told it"


async def test_the_token_is_renewed_before_it_expires(cloud, http, user, time):
    await search(http, cloud, user)
    time.passes(DAY - 3600)
    assert await search(http, cloud, user) == "ok"
    assert cloud.signed_in == 2
    assert user.expires_at == START + DAY - 3600 + DAY


async def test_the_token_expires_in_the_middle_of_a_poll(cloud, http, user):
    await search(http, cloud, user)
    cloud.tokens.clear()
    outcomes = await asyncio.gather(*(search(http, cloud, user) for _ in range(5)))
    assert outcomes == ["again"] * 5
    assert await search(http, cloud, user) == "ok"
    assert cloud.signed_in == 2


async def test_a_new_token_that_is_refused_is_not_renewed(cloud, http, user, time):
    await search(http, cloud, user)
    cloud.forced[SEARCH] = lambda _: always(api_error(401, "APIG.0307", "token must be updated"))
    assert await search(http, cloud, user) == "again"
    assert "token must be updated" in await refused(search(http, cloud, user))
    for _ in range(5):
        message = await refused(search(http, cloud, user))
        assert "the token of user u of domain d is refused although it is new" in message
        assert "APIG.0307 token must be updated" in message
    assert cloud.signed_in == 2
    del cloud.forced[SEARCH]
    time.passes(60)
    assert await search(http, cloud, user) == "ok"
    assert cloud.signed_in == 3


async def always(answer):
    return answer


async def test_a_missing_permission_is_no_reason_to_sign_in_again(cloud, http, user):
    cloud.forced[SEARCH] = lambda _: always(api_error(403, "ModelArts.0108", "no"))
    for _ in range(3):
        await refused(search(http, cloud, user), ForbiddenError)
    assert cloud.signed_in == 1
    del cloud.forced[SEARCH]
    assert await search(http, cloud, user) == "ok"
    assert cloud.signed_in == 1


async def test_iam_is_down_while_the_token_is_valid(cloud, http, user, time, caplog):
    await search(http, cloud, user)
    cloud.forced[SIGN_IN] = lambda _: always(web.Response(status=503, text="<html>"))
    time.passes(DAY - 3600)
    with caplog.at_level(logging.WARNING, logger="exporter"):
        assert await search(http, cloud, user) == "ok"
    assert len(caplog.messages) == 1
    assert "used while it is valid" in caplog.text
    assert "signing in to IAM as user u of domain d: the service failed: 503" in caplog.text
    time.passes(3601)
    await refused(search(http, cloud, user), UpstreamError)
    del cloud.forced[SIGN_IN]
    assert await search(http, cloud, user) == "ok"


async def test_a_wrong_password_does_not_lock_the_user(cloud, http, user, time, tmp_path):
    cloud.passwords["d", "u"] = "changed"
    for _ in range(8):
        await refused(search(http, cloud, user))
        time.passes(60)
    assert len(cloud.asked(SIGN_IN)) == 3
    message = await refused(search(http, cloud, user))
    assert message.startswith("user u of domain d was refused several times in a row")
    assert "The username or password is wrong; " in message
    (tmp_path / "password").write_text("changed\n")
    assert await search(http, cloud, user) == "ok"
    assert len(cloud.asked(SIGN_IN)) == 4


async def test_a_rotated_password_is_used_by_the_next_renewal(cloud, http, user, time, tmp_path):
    await search(http, cloud, user)
    cloud.passwords["d", "u"] = "changed"
    (tmp_path / "password").write_text("changed\n")
    time.passes(DAY)
    assert await search(http, cloud, user) == "ok"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lambda: web.json_response({"token": {}}, status=201), "has no X-Subject-Token"),
        (
            lambda: web.Response(status=201, headers={"X-Subject-Token": "T"}, text="<html>"),
            "unexpected response from IAM (not JSON)",
        ),
        (
            lambda: web.json_response({"token": 5}, status=201, headers={"X-Subject-Token": "T"}),
            "unexpected response from IAM (Expected `object`, got `int` - at `$.token`)",
        ),
        (lambda: web.json_response({"token": {}}), "unexpected response: 200"),
    ],
)
async def test_a_sign_in_that_gives_no_token(cloud, http, user, answer, problem):
    cloud.forced[SIGN_IN] = lambda _: always(answer())
    assert problem in await refused(search(http, cloud, user), InvalidResponseError)
    del cloud.forced[SIGN_IN]
    assert await search(http, cloud, user) == "ok"


async def test_a_token_without_an_end_is_renewed_when_it_is_refused(cloud, http, user, time):
    cloud.tokens.add("T")
    cloud.forced[SIGN_IN] = lambda _: always(
        web.json_response({"token": {}}, status=201, headers={"X-Subject-Token": "T"})
    )
    assert await search(http, cloud, user) == "ok"
    assert user.expires_at is None
    time.passes(10 * DAY)
    assert await search(http, cloud, user) == "ok"
    del cloud.forced[SIGN_IN]
    cloud.tokens.clear()
    assert await search(http, cloud, user) == "again"
    assert await search(http, cloud, user) == "ok"


async def test_iam_does_not_answer(cloud, user, signed_in):
    async with session(0.1) as hasty:
        cloud.forced[SIGN_IN] = lambda _: asyncio.sleep(1)
        cloud.passwords["d", "u"] = "pw"
        user = signed_in(username="u", domain="d", password="pw", http=hasty)
        message = await refused(search(hasty, cloud, user), TimedOutError)
    assert message == (
        f"signing in to IAM as user u of domain d: {cloud.url} did not answer within 0.1 s"
    )


# --- ready token --------------------------------------------------------------------------------


async def test_a_ready_token_is_sent_and_read_again(cloud, http, signed_in, tmp_path):
    path = tmp_path / "token"
    path.write_text("first-MARKER\n")
    cloud.tokens |= {"second-MARKER"}
    ready = signed_in(token_file=str(path))
    await refused(search(http, cloud, ready))

    async def rotated_meanwhile(_request):
        path.write_text("second-MARKER\n")
        return api_error(401, "APIG.0301", "decrypt token fail")

    cloud.forced[SEARCH] = rotated_meanwhile
    assert await search(http, cloud, ready) == "again"
    del cloud.forced[SEARCH]
    assert await search(http, cloud, ready) == "ok"
    path.unlink()
    assert await refused(search(http, cloud, ready)) == (
        f"target.auth.token_file {path} cannot be read: No such file or directory"
    )


# --- access key ---------------------------------------------------------------------------------


async def test_requests_are_signed(cloud, http, signed_in):
    cloud.keys["ABCDEFGH"] = ("sk-MARKER-sk", "st-MARKER-st")
    signer = signed_in(
        access_key="ABCDEFGH",
        secret_key="sk-MARKER-sk",
        security_token="st-MARKER-st",
    )
    assert await search(http, cloud, signer) == "ok"
    (sent,) = cloud.asked(SEARCH)
    assert (
        "SignedHeaders=content-type;host;x-project-id;x-sdk-date;x-security-token,"
        in (sent["Authorization"])
    )
    assert signer.method == "aksk"
    assert signer.identity == "access key ABCD… from target.auth"


async def test_the_signature_is_as_young_as_the_request(cloud, signer, time):
    request = Request(operation="search", method="POST", url=cloud.url + SEARCH)
    async with signer.attempt(request) as attempt:
        time.passes(1800)  # in the queue
        assert attempt.signed().headers["X-Sdk-Date"] == "20240620T083000Z"


async def test_a_wrong_key_is_not_tried_again_and_again(cloud, http, signer, time):
    cloud.keys["ABCDEFGH"] = ("another", None)
    for _ in range(10):
        await refused(search(http, cloud, signer))
        time.passes(30)
    assert len(cloud.asked(SEARCH)) == 3
    time.passes(60)
    await refused(search(http, cloud, signer))
    await refused(search(http, cloud, signer))
    assert len(cloud.asked(SEARCH)) == 4


async def test_a_corrected_key_file_is_tried_at_once(cloud, http, signer, key_file):
    cloud.keys["ABCDEFGH"] = ("another", None)
    for _ in range(5):
        await refused(search(http, cloud, signer))
    key_file.write_text("another\n")
    assert await search(http, cloud, signer) == "ok"
    assert len(cloud.asked(SEARCH)) == 4


async def test_targets_with_the_same_access_key_share_its_tries(cloud, http, signed_in):
    cloud.keys["ABCDEFGH"] = ("another", None)
    targets = [
        signed_in(access_key="ABCDEFGH", secret_key="wrong", project_id=name)
        for name in ("p", "q", "r", "s")
    ]
    for target in targets * 3:
        await refused(search(http, cloud, target))
    assert len(cloud.asked(SEARCH)) == 3


async def test_an_unproven_key_sends_one_request_at_a_time(cloud, http, signer):
    cloud.keys["ABCDEFGH"] = ("sk-MARKER-sk", None)
    await asyncio.gather(*(search(http, cloud, signer) for _ in range(2)))
    assert cloud.most_in_flight == 1
    cloud.hold = asyncio.Event()
    searches = [asyncio.create_task(search(http, cloud, signer)) for _ in range(4)]
    async with asyncio.timeout(5):
        await cloud.arrived(4)
    cloud.hold.set()
    assert await asyncio.gather(*searches) == ["ok"] * 4


async def test_unjudged_requests_do_not_block_an_unproven_key(cloud, http, signer):
    cloud.keys["ABCDEFGH"] = ("sk-MARKER-sk", None)
    cloud.hold = asyncio.Event()
    async with session(0.05) as hasty:
        await refused(search(hasty, cloud, signer), TimedOutError)
    given_up = asyncio.create_task(search(http, cloud, signer))
    async with asyncio.timeout(5):
        await cloud.arrived(1)
    given_up.cancel()
    await asyncio.wait([given_up])
    cloud.hold = None
    cloud.forced[SEARCH] = lambda _: always(web.Response(status=502))
    await refused(search(http, cloud, signer), UpstreamError)
    del cloud.forced[SEARCH]
    async with asyncio.timeout(5):
        assert await search(http, cloud, signer) == "ok"


async def test_a_missing_permission_is_no_failure_of_the_key(cloud, http, signer):
    cloud.keys["ABCDEFGH"] = ("sk-MARKER-sk", None)
    for _ in range(10):
        cloud.forced[SEARCH] = lambda _: always(api_error(403, "APIG.0302", "not allowed"))
        await refused(search(http, cloud, signer), ForbiddenError)
    assert len(cloud.asked(SEARCH)) == 10


@pytest.mark.parametrize("known", [True, False], ids=["a known key", "a new key"])
async def test_401_and_403_in_turn_count_as_failures(cloud, http, signer, known):
    cloud.keys["ABCDEFGH"] = ("sk-MARKER-sk", None)
    if known:
        assert await search(http, cloud, signer) == "ok"
    answers = cycle([(401, "APIG.0301"), (403, "APIG.0302")])
    statuses = []

    async def in_turn(_request):
        status, code = next(answers)
        statuses.append(status)
        return api_error(status, code, "no")

    cloud.forced[SEARCH] = in_turn
    for _ in range(20):
        with pytest.raises(AuthError):
            await search(http, cloud, signer)
    assert statuses == [401, 403, 401, 403, 401]


async def test_clock_skew_is_named_also_while_waiting(cloud, http, signer, time):
    time.wall += 1200

    async def skewed(_request):
        return api_error(401, "APIG.0303", "signature expired")

    async def dated(request):
        answer = await skewed(request)
        answer.headers["Date"] = "Thu, 20 Jun 2024 08:00:00 GMT"
        return answer

    cloud.forced[SEARCH] = dated
    for _ in range(3):
        assert "clock skew: our clock is 1200 s ahead" in await refused(search(http, cloud, signer))
    message = await refused(search(http, cloud, signer))
    assert "not tried again for 300 s" in message
    assert "clock skew: our clock is 1200 s ahead" in message


async def test_an_unreadable_key_file_heals(cloud, http, signer, key_file):
    cloud.keys["ABCDEFGH"] = ("sk-MARKER-sk", None)
    key_file.unlink()
    assert await refused(search(http, cloud, signer)) == (
        f"target.auth.secret_key_file {key_file} cannot be read: No such file or directory"
    )
    key_file.write_text("sk-MARKER-sk")
    assert await search(http, cloud, signer) == "ok"


# --- agency of the server -----------------------------------------------------------------------


@pytest.fixture
def agency(cloud, signed_in):
    """Credentials of the server's agency, which the cloud knows."""
    new_temporary_key(cloud, "TEMP1", DAY)
    return signed_in(method="agency")


def new_temporary_key(cloud, access, lifetime):
    cloud.agency_key = (access, "sk-MARKER-sk", "st-MARKER-st", iso(cloud.time.wall + lifetime))
    cloud.keys = {access: ("sk-MARKER-sk", "st-MARKER-st")}


async def test_the_agencys_key_is_used(cloud, http, agency):
    assert await search(http, cloud, agency) == "ok"
    assert await search(http, cloud, agency) == "ok"
    assert len(cloud.asked(METADATA_TOKEN)) == len(cloud.asked(SECURITY_KEY)) == 1
    assert agency.method == "agency"
    assert agency.identity == "agency of this server, access key TEMP…"
    assert agency.expires_at == START + DAY


@pytest.mark.parametrize("status", [404, 405, 503])
async def test_an_older_metadata_service_knows_no_token(cloud, http, agency, status):
    cloud.metadata_tokens = False
    cloud.forced[METADATA_TOKEN] = lambda _: always(web.Response(status=status))
    assert await search(http, cloud, agency) == "ok"
    (asked,) = cloud.asked(SECURITY_KEY)
    assert "X-Metadata-Token" not in asked


async def test_the_metadata_service_is_asked_directly_and_briefly(cloud, agency):
    asked = []

    async def recording(request):
        asked.append((request.operation, request.timeout, request.direct))
        raise ConnectionFailedError("not here")

    agency._http = recording
    await refused(search(recording, cloud, agency), ConnectionFailedError)
    assert asked == [("metadata", 3.0, True)]


async def test_the_agencys_key_is_changed_before_it_expires(cloud, http, agency, time):
    await search(http, cloud, agency)
    time.passes(DAY - 3600)
    assert await search(http, cloud, agency) == "ok"
    assert len(cloud.asked(SECURITY_KEY)) == 2, "asked, but still the old key"
    new_temporary_key(cloud, "TEMP2", DAY)
    time.passes(3600 - 360)
    assert await search(http, cloud, agency) == "ok"
    assert agency.identity == "agency of this server, access key TEMP…"
    assert "Access=TEMP2," in cloud.asked(SEARCH)[-1]["Authorization"]


async def test_the_agencys_key_is_refused(cloud, http, agency):
    await search(http, cloud, agency)
    new_temporary_key(cloud, "TEMP2", DAY)
    assert await search(http, cloud, agency) == "again"
    assert await search(http, cloud, agency) == "ok"


async def test_the_agencys_key_is_refused_and_there_is_no_other(cloud, http, agency, time):
    await search(http, cloud, agency)
    cloud.keys.clear()
    assert "wrong security token" in await refused(search(http, cloud, agency))
    message = await refused(search(http, cloud, agency))
    assert message.startswith("the temporary key of this server's agency is refused")
    assert len(cloud.asked(SEARCH)) == 2
    time.passes(60)
    new_temporary_key(cloud, "TEMP2", DAY)
    assert await search(http, cloud, agency) == "ok"


NO_AGENCY = (
    "asking the metadata service for the agency's key: no agency is attached to this server: "
    "attach one with permission to list jobs"
)


@pytest.mark.parametrize(
    ("path", "answer", "problem"),
    [
        (
            SECURITY_KEY,
            lambda: web.Response(status=404),
            NO_AGENCY,
        ),
        (
            SECURITY_KEY,
            lambda: web.Response(
                status=401, text="Please configure Cloud Service Agency first. sk-MARKER-sk"
            ),
            NO_AGENCY,
        ),
        (
            SECURITY_KEY,
            lambda: web.json_response({"credential": {"access": "A", "secret": "sk-MARKER-sk"}}),
            "asking the metadata service for the agency's key: the response contains no key",
        ),
        (
            SECURITY_KEY,
            lambda: web.json_response(
                {"credential": {"access": "A", "secret": "s\n", "securitytoken": "t"}}
            ),
            "asking the metadata service for the agency's key: the key in the response is garbled",
        ),
        (
            METADATA_TOKEN,
            lambda: web.Response(status=200, text=" "),
            "asking the metadata service for its token: the response is not a token",
        ),
        (
            METADATA_TOKEN,
            lambda: web.Response(status=500, text="oops"),
            "asking the metadata service for its token: the service failed: 500 (not JSON)",
        ),
    ],
)
async def test_a_metadata_service_that_gives_no_key(*, cloud, http, agency, path, answer, problem):
    cloud.forced[path] = lambda _: always(answer())
    with pytest.raises(PollError) as caught:
        await search(http, cloud, agency)
    assert str(caught.value) == problem


async def test_auto_without_anything_says_where_it_looked(cloud, http, signed_in, tmp_path):
    for _ in range(2):
        message = await refused(search(http, cloud, signed_in()))
        assert message == (
            "no credentials found; tried target.auth options, HUAWEICLOUD_SDK_AK and "
            "HUAWEICLOUD_SDK_SK (or HUAWEICLOUD_SDK_IDP_ID and HUAWEICLOUD_SDK_ID_TOKEN_FILE) in "
            f"the environment, the profile file {tmp_path}/.huaweicloud/credentials (profile file "
            f"{tmp_path}/.huaweicloud/credentials cannot be read: No such file or directory), and "
            "an agency of this server (asking the metadata service for the agency's key: no agency "
            "is attached to this server: attach one with permission to list jobs)"
        )


# --- workload identity --------------------------------------------------------------------------


@pytest.fixture
def id_token_file(tmp_path):
    path = tmp_path / "id-token"
    path.write_text("jwt-MARKER-jwt\n")
    return path


@pytest.fixture
def workload(cloud, signed_in, id_token_file):
    """Credentials of a workload."""
    cloud.id_tokens["jwt-MARKER-jwt"] = "idp"
    return signed_in(
        {
            "HUAWEICLOUD_SDK_IDP_ID": "idp",
            "HUAWEICLOUD_SDK_ID_TOKEN_FILE": str(id_token_file),
        }
    )


async def test_a_workload_signs_in_with_its_token(cloud, http, workload, id_token_file):
    assert await search(http, cloud, workload) == "ok"
    assert cloud.documents("/v3.0/OS-AUTH/id-token/tokens") == [
        {"auth": {"id_token": {"id": "jwt-MARKER-jwt"}, "scope": {"project": {"id": "p"}}}}
    ]
    assert workload.method == "oidc"
    assert workload.identity == f"identity provider idp with the token in {id_token_file}"


async def test_the_id_token_is_read_at_every_renewal(cloud, http, workload, time, id_token_file):
    await search(http, cloud, workload)
    cloud.id_tokens = {"rotated": "idp"}
    id_token_file.write_text("rotated")
    time.passes(DAY - 3600)
    assert await search(http, cloud, workload) == "ok"
    assert cloud.signed_in == 2


async def test_an_empty_or_missing_id_token_file_is_named_and_heals(
    cloud, http, workload, id_token_file
):
    id_token_file.write_text("\n")
    assert await refused(search(http, cloud, workload)) == (
        f"OIDC token file {id_token_file} is empty"
    )
    id_token_file.unlink()
    assert await refused(search(http, cloud, workload)) == (
        f"OIDC token file {id_token_file} cannot be read: No such file or directory"
    )
    id_token_file.write_text("jwt-MARKER-jwt")
    assert await search(http, cloud, workload) == "ok"


# --- nobody -------------------------------------------------------------------------------------


async def test_nobody_sends_nothing(cloud, http, signed_in):
    await refused(search(http, cloud, signed_in(method="none")))
    (sent,) = cloud.asked(SEARCH)
    assert not {"Authorization", "X-Auth-Token"} & set(sent)


# --- the project of a region --------------------------------------------------------------------


async def test_the_project_is_looked_up_with_a_signed_request(cloud, http, signer):
    cloud.keys["ABCDEFGH"] = ("sk-MARKER-sk", None)
    cloud.projects = [
        {"name": "cn-north-4", "id": "p1"},
        {"name": "cn-north-4_team", "id": "p2"},
    ]
    assert await find_project_id(http, signer, cloud.url + "/", "cn-north-4") == "p1"


@pytest.mark.parametrize(
    ("projects", "problem"),
    [
        ([], "this identity has no project named cn-north-4: check target.region, or set "),
        (
            [{"name": "cn-north-4", "id": "p1"}, {"name": "cn-north-4", "id": "p2"}],
            "several projects: set target.project_id to one of p1, p2",
        ),
    ],
)
async def test_no_project_or_several(cloud, http, signer, projects, problem):
    cloud.keys["ABCDEFGH"] = ("sk-MARKER-sk", None)
    cloud.projects = projects
    message = await refused(find_project_id(http, signer, cloud.url, "cn-north-4"), RejectedError)
    assert message.startswith("looking up the project of region cn-north-4 (not needed with ")
    assert problem in message


STRANGE_IDS = ["", "../../v1/x", "a" * 200_000, "p\x1b[2J", "p?x=1", "p%2f", "p\n", "\u0440", "a b"]
INVALID_ID = (
    "looking up the project of region cn-north-4 (not needed with target.project_id): IAM reports "
    "an invalid project ID: check target.iam_endpoint, or set target.project_id"
)


@pytest.mark.parametrize("strange", STRANGE_IDS, ids=lambda text: repr(text)[:20])
@pytest.mark.parametrize("number", [1, 2])
async def test_an_id_that_is_not_plain_is_not_used(cloud, http, signer, strange, number):
    cloud.keys["ABCDEFGH"] = ("sk-MARKER-sk", None)
    cloud.projects = [{"name": "cn-north-4", "id": strange}] * number
    lookup = find_project_id(http, signer, cloud.url, "cn-north-4")
    assert await refused(lookup, InvalidResponseError) == INVALID_ID


@pytest.mark.parametrize("strange", STRANGE_IDS[1:], ids=lambda text: repr(text)[:20])
async def test_an_id_in_a_sign_in_must_be_plain_too(cloud, http, user, strange):
    token = {"token": {"project": {"id": strange}}}
    cloud.forced[SIGN_IN] = lambda _: always(
        web.json_response(token, status=201, headers={"X-Subject-Token": "T"})
    )
    lookup = find_project_id(http, user, cloud.url, "cn-north-4")
    assert await refused(lookup, InvalidResponseError) == INVALID_ID


async def test_the_lookup_is_tried_once_more_with_a_new_token(cloud, http, user):
    cloud.projects = [{"name": "cn-north-4", "id": "p1"}]
    await search(http, cloud, user)
    user._refresher.grant.__dict__["project_id"] = None  # a sign-in that did not tell
    cloud.tokens.clear()
    cloud.forced[SIGN_IN] = lambda _: always(
        web.json_response({"token": {}}, status=201, headers={"X-Subject-Token": "T"})
    )
    cloud.tokens.add("T")
    assert await find_project_id(http, user, cloud.url, "cn-north-4") == "p1"
    assert len(cloud.asked("/v3/projects")) == 2


async def test_a_lookup_without_permission_names_it(cloud, http, signer):
    cloud.forced["/v3/projects"] = lambda _: always(iam_error(403, "no"))
    message = await refused(find_project_id(http, signer, cloud.url, "cn-north-4"), ForbiddenError)
    assert "iam:projects:listProjects" in message
    for _ in range(5):
        await refused(find_project_id(http, signer, cloud.url, "cn-north-4"), ForbiddenError)


async def test_what_is_said_of_the_endpoint_is_said_of_iams(cloud, http, signer, signed_in):
    nobody = "http://127.0.0.1:1"
    lookup = find_project_id(http, signer, nobody, "cn-north-4")
    password = "pass word MARKER"
    user = signed_in(iam_endpoint=nobody, username="u", domain="d", password=password)
    for asking in (lookup, search(http, cloud, user)):
        message = await refused(asking, ConnectionFailedError)
        assert "cannot connect to http://127.0.0.1:1" in message
        assert "check target.iam_endpoint and the network" in message


# --- secrets ------------------------------------------------------------------------------------


@pytest.fixture(params=[400, 401, 403, 404, 429, 500])
def quoting(request):
    """A service's answer with this status that quotes the request."""

    async def quoting(asked):
        sent = "|".join(f"{name}:{value}" for name, value in asked.headers.items())
        text = f"{(await asked.read()).decode()} {sent}"
        start = max(0, text.find("MARKER") - 12)  # messages are cut off: bring the secret into view
        document = {"error_code": "APIG.9999", "error_msg": text[start:]}
        return web.json_response(document, status=request.param)

    return quoting


@pytest.mark.parametrize("who", ["user", "signer", "agency", "workload"])
@pytest.mark.parametrize("where", ["sign-in", "request", "request after a good one"])
async def test_no_secret_is_ever_told(request, cloud, http, quoting, caplog, who, where):  # noqa: PLR0917 - all fixtures
    caplog.set_level(logging.DEBUG)
    credentials = request.getfixturevalue(who)
    if who == "signer":
        cloud.keys["ABCDEFGH"] = ("sk-MARKER-sk", None)
    if where == "request after a good one":
        await search(http, cloud, credentials)
    if where == "sign-in":
        paths = [SIGN_IN, SECURITY_KEY, "/v3.0/OS-AUTH/id-token/tokens"]
    else:
        paths = [SEARCH]
    cloud.forced.update(dict.fromkeys(paths, quoting))
    told = [repr(credentials), str(credentials), credentials.identity, repr(vars(credentials))]
    for _ in range(5):
        try:
            told.append(await search(http, cloud, credentials))
        except PollError as error:
            told += [str(error), repr(error), repr(error.args), repr(vars(error))]
            told += [repr(error.__cause__), repr(error.__context__)]
    told += [caplog.text, credentials.identity]
    assert [text for text in told for marker in MARKERS if marker in text] == []


ECHOES = {
    "JSON": lambda body: body,
    "JSON in JSON": json.dumps,
    "HTML": html.escape,
    "percent": urllib.parse.quote,
    "base64": lambda body: base64.b64encode(body.encode()).decode(),
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
@pytest.mark.parametrize(
    "password", ['p"a\\s&s< w\u00f6rd', "correct horse battery staple", "Ab1!xy"]
)
@pytest.mark.parametrize("cut", [None, 40, 5])
async def test_iam_repeats_the_request(*, cloud, http, signed_in, echo, password, cut):
    """Whole, or cut off before it, in the middle of the password, or 5 characters into it."""

    async def repeating(asked):
        body = (await asked.read()).decode()
        begin = body.index("password", body.index("u"))
        body = body[begin:]
        inside = body.index(json.dumps(password)[1:4])
        text = echo(body if cut is None else body[: inside + cut])
        return iam_error(400, f"cannot process {text}")

    cloud.forced[SIGN_IN] = repeating
    user = signed_in(username="u", domain="d", password=password)
    message = await refused(search(http, cloud, user), RejectedError)
    assert message.endswith(
        "refused: 400 (message not shown, it may contain a secret); check target.iam_endpoint and "
        "target.project_id"
    )


@pytest.mark.parametrize(
    "password", ["password1", "username", "wrong-wrong-wrong", "The username or"]
)
async def test_a_wrong_password_is_not_revealed_by_the_words_of_iam(
    cloud, http, signed_in, password
):
    user = signed_in(username="u", domain="d", password=password)
    assert await refused(search(http, cloud, user)) == (
        "signing in to IAM as user u of domain d: credentials not accepted: 401 The username or "
        "password is wrong; check target.auth.*"
    )


async def test_a_wrong_password_in_quotes_gets_a_hint(cloud, http, signed_in):
    user = signed_in(username="u", domain="d", password='"quoted"')
    assert (await refused(search(http, cloud, user))).endswith(
        "check target.auth.*; the password begins and ends with a quote"
    )
