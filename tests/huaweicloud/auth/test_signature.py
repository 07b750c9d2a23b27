"""Our signatures equal those of the vendor's own signer, to the byte."""

from datetime import UTC, datetime, timedelta, timezone
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from exporter.huaweicloud.auth.signature import Key, sign

NOW = datetime(2024, 6, 20, 8, 30, 5, tzinfo=UTC)
KEY = Key("ACCESSKEY", "secret")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SPECIAL = st.text("aZ09-_.~!$&'()*+,;=:@/ %\\|^`{}\"<>é中😀", max_size=12)
# What urlsplit takes for structure, or drops, cannot stand for itself in a URL.
RAW_PATH = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="?#\t\r\n"), max_size=20
)
SEGMENTS = st.lists(TEXT | SPECIAL, max_size=5)
ENCODED_PATH = SEGMENTS.map(lambda parts: "".join("/" + quote(part, safe="") for part in parts))
SLOPPY_PATH = st.text("abc/%2Ff7E~+-._é", max_size=20)
PATHS = (ENCODED_PATH | RAW_PATH.map(lambda path: "/" + path) | SLOPPY_PATH.map("/".__add__)) | (
    st.sampled_from(["/", "/v2/0a1b/training-job-searches", "//a//b/", "/a%2Fb", "/%FF", "/a/./.."])
)
PARAMS = st.lists(st.tuples(TEXT | SPECIAL, TEXT | SPECIAL | st.just("")), max_size=6).flatmap(
    lambda params: st.sampled_from([params, params + params, params[::-1]])
)
# Texts of an alphabet are drawn several times faster than those of a regular expression.
NAMES = st.builds(
    str.__add__, st.sampled_from(ascii_letters), st.text(ascii_letters + digits + "_-", max_size=12)
)
HEADERS = st.dictionaries(NAMES, TEXT | SPECIAL, max_size=6).map(
    lambda headers: {f"X-{name}": value for name, value in headers.items()}
)
HOSTS = st.builds(
    lambda first, more, others, port: ".".join([first + more, *others]) + port,
    st.sampled_from(ascii_lowercase),
    st.text(ascii_lowercase + digits + "-", max_size=10),
    st.lists(st.text(ascii_letters + digits, min_size=1, max_size=8), max_size=3),
    st.just("") | st.integers(1000, 9999).map(":{}".format),
) | (st.sampled_from(["127.0.0.1:9978", "[::1]:8080", "modelarts.cn-north-4.myhuaweicloud.com"]))
VISIBLE = st.characters(min_codepoint=ord("!"), max_codepoint=ord("~"))
SECRETS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def vendors(method, host, path, params, *, headers, body, key, now):
    """What the vendor's client would send for the same request."""
    if key.security_token is not None:
        headers = {**headers, "X-Security-Token": key.security_token}
    request = SdkRequest(
        method=method,
        schema="https",
        host=host,
        resource_path=path,
        query_params=list(params),
        header_params={**headers, "X-Sdk-Date": now.strftime("%Y%m%dT%H%M%SZ")},
        body=body,
    )
    signed = Signer(SimpleNamespace(ak=key.access, sk=key.secret)).sign(request)
    # It hands text to a library that encodes it as Latin-1; ours is encoded as UTF-8.
    return {name: value.encode("latin-1") for name, value in signed.header_params.items()}


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "get", "Post"]),
    host=HOSTS,
    path=PATHS,
    params=PARAMS,
    headers=HEADERS,
    content_type=st.sampled_from([None, "application/json", "application/json;charset=utf8"]),
    body=st.binary(max_size=200) | st.just(b"") | TEXT.map(str.encode),
    access=st.text(ascii_uppercase + digits, min_size=1, max_size=20),
    secret=SECRETS,
    security_token=st.none() | st.text(VISIBLE, min_size=1, max_size=60),
    now=st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis wants naive bounds
)
def test_every_signature_equals_the_vendors(
    *,
    method,
    host,
    path,
    params,
    headers,
    content_type,
    body,
    access,
    secret,
    security_token,
    now,
):
    assume(len({name.lower() for name in headers}) == len(headers))
    if content_type:
        headers = {**headers, "Content-Type": content_type}
    key = Key(access, secret, security_token)
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in params)
    url = f"https://{host}{path}" + (f"?{query}" if params else "")

    ours = sign(method, url, headers, body, key=key, now=now)

    theirs = vendors(
        method, host, path or "/", params, headers=headers, body=body, key=key, now=now
    )
    assert {name: value.encode() for name, value in ours.items()} == theirs


def test_the_example_of_a_search():
    sent = sign(
        "POST",
        "https://modelarts.cn-north-4.myhuaweicloud.com/v2/p1/training-job-searches",
        {"Content-Type": "application/json", "X-Project-Id": "p1"},
        b'{"offset": 0}',
        key=KEY,
        now=NOW,
    )
    assert sent == {
        "Content-Type": "application/json",
        "X-Project-Id": "p1",
        "Host": "modelarts.cn-north-4.myhuaweicloud.com",
        "X-Sdk-Date": "20240620T083005Z",
        "Authorization": "SDK-HMAC-SHA256 Access=ACCESSKEY, "
        "SignedHeaders=content-type;host;x-project-id;x-sdk-date, "
        "Signature=8a45fb10b777500e68b3a616cd26e5e19204322f56c728344b8a0f4d9860b98b",
    }


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://example.org/", "example.org"),
        ("https://example.org:443/", "example.org"),
        ("http://example.org:80/", "example.org"),
        ("http://example.org:443/", "example.org:443"),
        ("https://example.org:8443/", "example.org:8443"),
        ("https://example.org:80443/", "example.org:80443"),
        ("https://user:pw@example.org:8443/", "example.org:8443"),
        ("http://[::1]:80/", "[::1]"),
        ("http://[::1]/", "[::1]"),
    ],
)
def test_the_host_has_a_port_only_where_it_is_not_the_usual_one(url, host):
    assert sign("GET", url, {}, b"", key=KEY, now=NOW)["Host"] == host


def test_no_path_is_the_root():
    bare, root = (
        sign("GET", url, {}, b"", key=KEY, now=NOW)
        for url in ("https://example.org", "https://example.org/")
    )
    assert bare == root


def test_the_order_of_parameters_and_the_way_they_are_encoded_do_not_matter():
    urls = ["https://h/?b=2&a=%C3%A9+1&a", "https://h/?a=&a=é%201&b=2", "https://h/?%62=2&a=é+1&a="]
    assert len({str(sign("GET", url, {}, b"", key=KEY, now=NOW)) for url in urls}) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "PUT"},
        {"url": "https://h/b?q=1"},
        {"url": "https://h/a?q=2"},
        {"url": "https://g/a?q=1"},
        {"headers": {"X-Project-Id": "2"}},
        {"body": b"{} "},
        {"now": NOW + timedelta(seconds=1)},
        {"key": Key("ACCESSKEY", "secret2")},
        {"key": Key("ACCESSKEY", "secret", "token")},
    ],
    ids=str,
)
def test_everything_that_is_sent_is_signed(changed):
    request = {
        "method": "POST",
        "url": "https://h/a?q=1",
        "headers": {"X-Project-Id": "1"},
        "body": b"{}",
        "key": KEY,
        "now": NOW,
    }

    def signature(*, method, url, headers, body, key, now):
        return sign(method, url, headers, body, key=key, now=now)["Authorization"]

    assert signature(**request) != signature(**request | changed)


def test_the_time_is_sent_in_utc_whatever_the_zone():
    beijing = NOW.astimezone(timezone(timedelta(hours=8)))
    assert sign("GET", "https://h/", {}, b"", key=KEY, now=beijing)["X-Sdk-Date"] == (
        "20240620T083005Z"
    )


def test_a_key_shows_no_secret():
    assert repr(Key("ACCESS", "s3cret", "t0ken")) == "Key(access='ACCESS')"
