"""Passwords, headers and rate at our own port, and what a change of the file does to them."""

import asyncio
import base64
import logging
import re
import threading

import aiohttp
import bcrypt
import pytest
from web.config.entrance import Files, basic, guarded, hashed, users

from exporter.web import access as module

PATHS = ["/metrics", "/", "/-/healthy", "/-/ready", "/nowhere", "/-/reload"]
LONG = "x" * 72
CHALLENGE = 'Basic realm="modelarts-exporter", charset="UTF-8"'


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@pytest.fixture
def port(files, publisher):
    def start(text, **options):
        files.write(text)
        return guarded(publisher, files.path, **options)

    return start


@pytest.fixture
def checked(monkeypatch):
    """Every password that bcrypt is asked about, with the hash."""
    seen = []
    usual = bcrypt.checkpw

    def checkpw(password, against):
        seen.append((password, against, threading.current_thread()))
        return usual(password, against)

    monkeypatch.setattr(module.bcrypt, "checkpw", checkpw)
    return seen


@pytest.mark.parametrize("path", PATHS)
async def test_every_path_is_behind_the_password(port, path):
    async with port(users(me="secret")) as at:
        for method in ("GET", "HEAD", "POST"):
            status, headers, body = await at.get(path, method=method)
            assert (status, headers["WWW-Authenticate"]) == (401, CHALLENGE)
            assert body == (b"" if method == "HEAD" else b"unauthorized\n")
        inside = await at.status(path, headers=basic("me", "secret"))
    assert inside == {"/nowhere": 404, "/-/reload": 405}.get(path, 200)


async def test_row_80_with_a_password_any_name_leads_here(port):
    """A site that lets its name resolve to this address has no password."""
    foreign = {"Host": "rebound.example"}
    async with port(users(me="secret")) as at:
        assert await at.status("/", headers=foreign) == 401
        assert await at.status("/", headers=foreign | basic("me", "secret")) == 200
    async with port("") as at:
        assert await at.status("/", headers=foreign) == 403


WRONG = {
    "nothing": {},
    "wrong": basic("me", "Secret"),
    "unknown user": basic("you", "secret"),
    "no user": basic("", "secret"),
    "no password": basic("me", ""),
    "neither": basic("", ""),
    "the hash": basic("me", hashed("secret")),
    "a NUL after it": basic("me", "secret\0"),
    "a NUL, and bcrypt begins again": basic("me", "secret\0secret"),
    "a NUL in the user": basic("me\0", "secret"),
    "73 bytes, the first 72 are right": basic("long", LONG + "x"),
    "far too long": basic("long", LONG * 100),
    "71 bytes": basic("long", LONG[1:]),
    "not UTF-8": basic(b"\xff", b"\xff\xfe"),
    "no colon": {"Authorization": "Basic " + base64.b64encode(b"me").decode()},
    "no base64": {"Authorization": "Basic me:secret"},
    "no base64 at its end": {"Authorization": basic("me", "secret")["Authorization"] + "!"},
    "not even ASCII": {"Authorization": "Basic é"},
    "no scheme": {"Authorization": basic("me", "secret")["Authorization"][6:]},
    "another scheme": basic("me", "secret", "Bearer"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_row_67_what_is_not_right_is_a_401(port, case):
    async with port(users(me="secret", long=LONG)) as at:
        for _ in range(2):  # and not because it was remembered
            status, headers, _ = await at.get(headers=WRONG[case])
            assert (status, headers["WWW-Authenticate"]) == (401, CHALLENGE)


async def test_two_fields_are_none(port):
    async with port(users(me="secret")) as at:
        right = basic("me", "secret")["Authorization"]
        fields = [("Authorization", right), ("Authorization", right)]
        assert await at.status(headers=fields) == 401


@pytest.mark.parametrize(
    ("user", "password", "scheme"),
    [
        ("me", "secret", "Basic"),
        ("me", "secret", "bASIC"),
        ("long", LONG, "Basic"),
        ("colons", "a:b:", "Basic"),
        ("训练", "密码", "Basic"),
        ("empty", "", "Basic"),
    ],
)
async def test_what_is_right(port, user, password, scheme):
    known = {"me": "secret", "long": LONG, "colons": "a:b:", "训练": "密码", "empty": ""}
    async with port(users(**known)) as at:
        assert await at.status(headers=basic(user, password, scheme)) == 200
        assert await at.status(headers=basic(user, password + "x", scheme)) == 401


@pytest.mark.parametrize("version", ["2a", "2b", "2y"])
async def test_every_kind_of_hash(port, version):
    text = f"basic_auth_users: {{me: {hashed('secret').replace('2b', version, 1)}}}"
    async with port(text) as at:
        assert await at.status(headers=basic("me", "secret")) == 200


@pytest.mark.slow
async def test_row_67_a_flood_of_guesses_starves_nobody(port, checked):
    async with port(users(8, me="secret", you="other")) as at:
        assert await at.status(headers=basic("me", "secret")) == 200
        right = len(checked)
        refused = []

        async def guess(number):
            refused.append(await at.status(headers=basic("me", f"guess {number}")))

        guesses = [asyncio.create_task(guess(number)) for number in range(100)]
        while len(checked) == right:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        begun = len(checked)
        for _ in range(10):  # from the address of him who guesses
            assert await at.status(headers=basic("me", "secret")) == 200
        assert len(checked) - begun < 90
        begun = len(checked)  # not remembered, and from another address
        assert await at.status(headers=basic("you", "other"), source="127.0.0.2") == 200
        assert len(checked) - begun <= 3
        await asyncio.gather(*guesses)

    assert refused == [401] * 100
    assert len(checked) == 102
    assert {thread.name for *_, thread in checked} == {"password_0"}


async def test_the_same_again_costs_nothing(port, checked):
    async with port(users(me="secret")) as at:
        headers = [basic("me", "secret"), basic("me", "wrong"), basic("you", "secret")]
        for _ in range(3):
            assert [await at.status(headers=each) for each in headers] == [200, 401, 401]
        together = [at.status(headers=basic("me", "new")) for _ in range(10)]
        assert await asyncio.gather(*together) == [401] * 10
    assert len(checked) == 4


async def test_an_unknown_user_costs_as_much_as_one_that_is_there(port, checked):
    text = users(4, a="secret") + users(5, b="secret").partition("\n")[2]
    async with port(text) as at:
        for number in range(20):
            await at.status(headers=basic(f"nobody {number}", "secret"))
        await at.status(headers=basic("nobody 0", "other"))

    costs = [against[4:6] for _, against, _ in checked]
    assert set(costs) == {b"04", b"05"}
    assert costs[0] == costs[20]
    real = {hashed("secret", 4).encode(), hashed("secret", 5).encode()}
    assert not {against for _, against, _ in checked} & real


@pytest.mark.slow
async def test_guesses_push_no_right_password_out(port, checked):
    async with port(users(me="secret")) as at:
        right = basic("me", "secret")["Authorization"]
        assert await at.guard.authenticate(right, "a")
        for number in range(1100):
            wrong = basic("me", str(number))["Authorization"]
            assert not await at.guard.authenticate(wrong, "a")
        before = len(checked)
        assert await at.guard.authenticate(right, "a")
        assert len(checked) == before
        assert not await at.guard.authenticate(basic("me", "0")["Authorization"], "a")
        assert len(checked) == before + 1  # forgotten: there is an end to what is remembered


async def test_who_has_hung_up_is_not_checked(port, checked, monkeypatch):
    begun, go = threading.Event(), threading.Event()
    usual = bcrypt.checkpw

    def checkpw(*both):
        begun.set()
        return go.wait() and usual(*both)

    monkeypatch.setattr(module.bcrypt, "checkpw", checkpw)
    async with port(users(me="secret")) as at:
        first = asyncio.create_task(at.status(headers=basic("me", "first")))
        await asyncio.to_thread(begun.wait)
        request = "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\r\n"
        for number in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", at.port)
            word = basic("me", str(number))["Authorization"]
            writer.write(request.format(word).encode())
            await writer.drain()
            writer.close()
        await asyncio.sleep(0.1)
        go.set()
        assert await first == 401
        assert await at.status(headers=basic("me", "secret")) == 200
    assert [password for password, *_ in checked] == [b"first", b"secret"]


# --- changes --------------------------------------------------------------------------------------


async def test_users_that_change(port, files, caplog):
    caplog.set_level(logging.INFO)
    async with port(users(stays="a", goes="b", changes="c")) as at:
        old = [basic("stays", "a"), basic("goes", "b"), basic("changes", "c")]
        assert [await at.status(headers=each) for each in old] == [200, 200, 200]
        files.write(users(stays="a", changes="d", comes="e"))
        await at.look()
        assert [await at.status(headers=each) for each in old] == [200, 200, 200]  # not yet
        await at.look()
        assert [await at.status(headers=each) for each in old] == [200, 401, 401]
        new = [basic("changes", "d"), basic("comes", "e")]
        assert [await at.status(headers=each) for each in new] == [200, 200]
    assert [record.message for record in caplog.records] == [
        "web configuration or certificates changed and reloaded"
    ]


async def test_an_open_connection_learns_of_it_too(port, files):
    async with port(users(me="a")) as at, aiohttp.ClientSession() as session:

        async def status():
            async with session.get(at.url + "/", headers=basic("me", "a")) as answer:
                return answer.status

        assert await status() == 200
        files.write(users(me="b"))
        await at.look(2)
        assert await status() == 401


BROKEN = {
    "": "not applied: web.config.file: basic_auth_users: was removed; restart to disable passwords",
    "basic_auth_users:\n": "not applied: web.config.file: basic_auth_users: was removed; restart "
    "to disable passwords",
    "basic_auth_users: {me: geheim}": "not applied: web.config.file: basic_auth_users.me: "
    "invalid bcrypt hash: got a string (not shown); use the output of htpasswd -nBC 10 USER (from "
    "file {path}, line 1)",
    None: 'not applied: web.config.file: cannot read "{path}": No such file or directory '
    "(from file {path})",
    "tls_server_config: {cert_file: server.pem, key_file: server.key}\n" + users(me="a"): (
        "not applied: web.config.file: tls_server_config: was added; restart to enable TLS"
    ),
}


@pytest.mark.parametrize("text", BROKEN)
async def test_what_is_not_taken_over(port, files, caplog, text):
    files.certify()
    async with port(users(me="a")) as at:
        if text is None:
            files.path.unlink()
        else:
            files.write(text)
        await at.look(5)
        assert await at.status() == 401
        assert await at.status(headers=basic("me", "a")) == 200
        files.write(users(me="b"))
        await at.look(2)
        assert await at.status(headers=basic("me", "b")) == 200
    path = files.path
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == [
        BROKEN[text].replace("{path}", str(path))
    ]


async def test_a_file_that_is_half_written_is_not_looked_at(port, files, caplog):
    whole = users(a="a", b="b")
    async with port(whole) as at:
        for size in (0, 10, 30):
            files.write(whole[:size])
            await at.look()
            assert await at.status() == 401
        files.write(whole)
        await at.look(2)
    assert caplog.records == []


async def test_a_first_user_closes_the_door(port, files):
    async with port("") as at:
        assert await at.status() == 200
        files.write(users(me="a"))
        await at.look(2)
        assert await at.status() == 401


# --- headers and rate -----------------------------------------------------------------------------

HEADERS = """
http_server_config:
  headers:
    Strict-Transport-Security: max-age=31536000
    X-Frame-Options: deny
    X-Content-Type-Options: nosniff
    X-XSS-Protection: "0"
    Content-Security-Policy: default-src 'none'
"""


async def test_headers(port, files):
    async with port(HEADERS + users(me="a")) as at:
        answers = [
            (await at.get(path, headers=headers))[1]
            for path in ("/metrics", "/", "/nowhere", "/-/healthy")
            for headers in ({}, basic("me", "a"))
        ]
        for headers in answers:
            assert headers["Strict-Transport-Security"] == "max-age=31536000"
            assert headers["X-Frame-Options"] == "deny"
            assert headers.getall("X-Content-Type-Options") == ["nosniff"]
        assert answers[0]["Content-Security-Policy"] == "default-src 'none'"
        assert re.search("style-src 'sha256-", answers[3]["Content-Security-Policy"])
        files.write(users(me="a"))
        await at.look(2)
        assert "X-Frame-Options" not in (await at.get())[1]


async def test_rate(port, files):
    async with port("rate_limit: {interval: 1s, burst: 3}") as at:

        async def statuses(number):
            return [await at.status() for _ in range(number)]

        assert await statuses(5) == [200, 200, 200, 429, 429]
        at.ticks.now += 1
        assert await statuses(2) == [200, 429]
        at.ticks.now += 100
        assert await statuses(4) == [200, 200, 200, 429]
        files.write("http_server_config: {http2: false}")
        await at.look(2)
        assert await statuses(5) == [200] * 5
