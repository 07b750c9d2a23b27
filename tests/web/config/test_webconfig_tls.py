"""TLS at our own port: certificates that change, certificates of clients, what it is made of."""

import asyncio
import contextlib
import datetime as dt
import logging
import os
import socket
import ssl
import warnings

import aiohttp
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from web.config.entrance import MUTUAL, TLS, Files, basic, guarded, users

MB = 10**6
REFUSED = (aiohttp.ClientError, ssl.SSLError, ConnectionError)


@pytest.fixture
def files(tmp_path):
    files = Files(tmp_path)
    files.certify()
    return files


@pytest.fixture
def port(files, publisher):
    def start(text=TLS, **options):
        files.write(text)
        return guarded(publisher, files.path, **options)

    return start


def der(issued):
    return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())


def errors(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]


async def refused(at, tls):
    """Whether a caller gets no answer."""
    try:
        await at.get(tls=tls)
    except REFUSED:
        return True
    return False


async def test_https(port, files, publisher, make_size):
    publisher.exposition = make_size(20 * MB)
    async with port() as at:
        assert at.url.startswith("https://127.0.0.1:")
        status, _, body = await at.get(tls=files.client())
        assert (status, len(body)) == (200, 20 * MB)
        tls = files.client()
        tls.set_alpn_protocols(["h2", "http/1.1"])
        assert (await at.handshake(tls))[2].selected_alpn_protocol() == "http/1.1"
        with pytest.raises(REFUSED):
            await at.get(tls=ssl.create_default_context())


async def test_row_80_with_tls_any_name_leads_here(port, files):
    """A browser has compared it with the certificate."""
    async with port() as at:
        foreign = {"Host": "rebound.example"}
        assert await at.status("/", tls=files.client(), headers=foreign) == 200


async def test_handshakes_count_as_connections(port, files):
    """A client that does not begin one keeps a place, until others need it."""
    async with port(max_connections=3) as at:
        silent = [await asyncio.open_connection("127.0.0.1", at.port) for _ in range(10)]
        assert await at.status(tls=files.client()) == 200
        for reader, _ in silent[:7]:
            assert await reader.read() == b""
        for _, writer in silent:
            writer.close()


async def test_with_passwords(port, files):
    async with port(TLS + users(me="secret")) as at:
        assert await at.status(tls=files.client()) == 401
        assert await at.status(tls=files.client(), headers=basic("me", "secret")) == 200


# --- row 68 ---------------------------------------------------------------------------------------


async def test_row_68_a_replaced_certificate_is_used(port, files, caplog):
    old = files.certify()
    caplog.set_level(logging.INFO)
    async with port() as at, aiohttp.ClientSession() as session:

        async def kept():
            async with session.get(f"{at.url}/-/healthy", ssl=tls) as answer:
                return answer.status

        tls = files.client()
        assert await kept() == 200
        assert (await at.handshake(tls))[0] == der(old)
        new = files.certify()
        await at.look(2)
        assert (await at.handshake(tls))[0] == der(new)
        assert await at.status(tls=files.client()) == 200
        assert await kept() == 200
    assert [record.getMessage() for record in caplog.records] == [
        "web configuration or certificates changed and reloaded"
    ]


@pytest.mark.parametrize("through", ["symlink", "rename"])
async def test_row_68_however_it_is_replaced(port, files, through):
    """As Kubernetes does it, and as careful programs do; with the same size and times."""
    for name in ("one", "two"):
        (files.folder / name).mkdir()
    issued = {}
    for name in ("one", "two"):
        issued[name] = files.certify(f"{name}/server")
        for file in (files.folder / name).iterdir():
            os.utime(file, (1, 1))
    now = files.folder / "now"
    now.symlink_to("one")
    async with port(TLS.replace("_file: ", "_file: now/")) as at:
        assert (await at.handshake(files.client()))[0] == der(issued["one"])
        if through == "symlink":
            (files.folder / "next").symlink_to("two")
            (files.folder / "next").rename(now)
        else:
            for name in ("server.pem", "server.key"):
                (files.folder / "two" / name).rename(files.folder / "one" / name)
        await at.look(2)
        assert (await at.handshake(files.client()))[0] == der(issued["two"])


BROKEN = {
    "not PEM": (
        "server.pem",
        b"nonsense",
        'cert_file: "{0}/server.pem" contains no valid certificate; use one or more in PEM format',
    ),
    "empty": (
        "server.pem",
        b"",
        'cert_file: "{0}/server.pem" contains no valid certificate; use one or more in PEM format',
    ),
    "garbled": (
        "server.pem",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        'cert_file: "{0}/server.pem" contains no valid certificate; use one or more in PEM format',
    ),
    "gone": (
        "server.pem",
        None,
        'cert_file: cannot read "{0}/server.pem": No such file or directory',
    ),
    "no key": (
        "server.key",
        b"nonsense",
        'key_file: "{0}/server.key" contains no valid private key; use one in PEM format',
    ),
    "another's key": (
        "server.key",
        trustme.CA().issue_cert("x").private_key_pem.bytes(),
        (
            'key_file: "{0}/server.key" does not match the certificate in '
            "tls_server_config.cert_file; use its private key"
        ),
    ),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_row_68_a_broken_certificate_the_old_one_stays(port, files, caplog, case):
    name, broken, said = BROKEN[case]
    old = files.certify()
    async with port() as at:
        if broken is None:
            (files.folder / name).unlink()
        else:
            (files.folder / name).write_bytes(broken)
        await at.look(5)
        assert (await at.handshake(files.client()))[0] == der(old)
        assert errors(caplog) == [  # once
            (
                f"not applied: web.config.file: tls_server_config.{said.format(files.folder)} "
                f"(from file {files.path})"
            )
        ]
        new = files.certify()
        await at.look(2)
        assert (await at.handshake(files.client()))[0] == der(new)


async def test_row_68_between_two_files_nothing_is_wrong(port, files, caplog):
    async with port() as at:
        key = (files.folder / "server.key").read_bytes()
        new = files.certify()
        newer = (files.folder / "server.key").read_bytes()
        (files.folder / "server.key").write_bytes(key)
        await at.look()
        (files.folder / "server.key").write_bytes(newer)
        await at.look(2)
        assert (await at.handshake(files.client()))[0] == der(new)
    assert caplog.records == []


async def test_users_change_though_the_certificate_is_broken(port, files, caplog):
    async with port(TLS + users(a="a", b="b")) as at:
        (files.folder / "server.pem").write_text("")
        files.write(TLS + users(a="a"))
        await at.look(2)
        assert await at.status(tls=files.client(), headers=basic("a", "a")) == 200
        assert await at.status(tls=files.client(), headers=basic("b", "b")) == 401
    assert len(errors(caplog)) == 1


@pytest.mark.parametrize("text", ["", "http_server_config: {http2: true}", "rate_limit:"])
async def test_tls_does_not_end_before_we_do(port, files, caplog, text):
    async with port() as at:
        files.write(text)
        await at.look(3)
        assert await at.status(tls=files.client()) == 200
    assert errors(caplog) == [
        ("not applied: web.config.file: tls_server_config: was removed; restart to disable TLS")
    ]


# --- certificates of clients ----------------------------------------------------------------------


@pytest.fixture
def clients(files):
    ca = trustme.CA()
    ca.cert_pem.write_to_path(files.folder / "clients.pem")
    return ca


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_clients_must_show_a_certificate(port, files, clients, caplog, version):
    only = {"maximum_version": version}
    async with port(MUTUAL) as at:
        assert await refused(at, files.client(**only))
        assert await refused(at, files.client(files.ca.issue_cert("x"), **only))
        assert await at.status(tls=files.client(clients.issue_cert("x"), **only)) == 200
    assert errors(caplog) == []


async def test_clients_may_show_one(port, files, clients):
    text = MUTUAL.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven")
    async with port(text) as at:
        assert await at.status(tls=files.client()) == 200
        assert await refused(at, files.client(files.ca.issue_cert("x")))
        assert await at.status(tls=files.client(clients.issue_cert("x"))) == 200


async def test_another_authority_of_clients(port, files, clients):
    async with port(MUTUAL) as at:
        first = files.client(clients.issue_cert("x"))
        assert await at.status(tls=first) == 200
        second = trustme.CA()
        second.cert_pem.write_to_path(files.folder / "clients.pem")
        await at.look(2)
        assert await refused(at, first)
        assert await at.status(tls=files.client(second.issue_cert("x"))) == 200
        (files.folder / "clients.pem").write_text("")
        await at.look(2)
        assert await refused(at, files.client())
        assert await at.status(tls=files.client(second.issue_cert("x"))) == 200


async def test_an_authority_in_between_is_enough(port, files, clients):
    between = clients.create_child_ca()
    between.cert_pem.write_to_path(files.folder / "clients.pem")
    async with port(MUTUAL) as at:
        assert await at.status(tls=files.client(between.issue_cert("x"))) == 200
        assert await refused(at, files.client(clients.issue_cert("x")))


async def test_a_certificate_that_has_expired(port, files, clients):
    async with port(MUTUAL) as at:
        late = clients.issue_cert("x", not_after=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        assert await refused(at, files.client(late))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_clients_must_have_a_name(port, files, clients, caplog, version):
    caplog.set_level(logging.DEBUG, "exporter.web.config.tls")
    names = "[good.example, me@good.example, 192.0.2.1, 2001:db8::1]"
    async with port(f"{MUTUAL}  client_allowed_sans: {names}\n") as at:
        for name in ("good.example", "me@good.example", "192.0.2.1", "2001:db8::1"):
            issued = clients.issue_cert("other.example", name)
            assert await at.status(tls=files.client(issued, maximum_version=version)) == 200
        assert errors(caplog) == []
        for name in ("bad.example", "sub.good.example", "192.0.2.2", "*.example"):
            issued = clients.issue_cert(name)
            assert await refused(at, files.client(issued, maximum_version=version))
        plain = clients.issue_cert(common_name="good.example")
        assert await refused(at, files.client(plain, maximum_version=version))
    said = [
        record.getMessage() for record in caplog.records if record.name == "exporter.web.config.tls"
    ]
    assert list(dict.fromkeys(said))[-2:] == [  # aiohttp may try twice
        "TLS handshake failed: client certificate has none of client_allowed_sans, but: " + shown
        for shown in ("*.example", "none")
    ]


# --- what it is made of ---------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [True, False])
async def test_inline(port, files, clients, monkeypatch, memory):
    def indented(name):
        return (files.folder / name).read_text().replace("\n", "\n    ")

    if not memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    text = (
        "tls_server_config:\n"
        f"  cert: |\n    {indented('server.pem')}\n"
        f"  key: |\n    {indented('server.key')}\n"
        f"  client_ca: |\n    {indented('clients.pem')}\n"
        "  client_auth_type: RequireAndVerifyClientCert\n"
    )
    async with port(text) as at:
        assert await at.status(tls=files.client(clients.issue_cert("x"))) == 200
        assert await refused(at, files.client())
        assert "PRIVATE KEY" not in repr(at.guard._check_files.__self__._parsed[1])


async def test_nothing_older_than_tls_1_2(port, files):
    async with port() as at:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old = files.client(
                minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1
            )
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await at.handshake(old)


@pytest.mark.parametrize(
    ("more", "good", "bad"),
    [
        ("min_version: TLS13", "TLSv1_3", "TLSv1_2"),
        ("max_version: TLS12", "TLSv1_2", "TLSv1_3"),
        ("cipher_suites: [TLS_AES_128_GCM_SHA256]", "TLSv1_3", "TLSv1_2"),
    ],
)
async def test_versions(port, files, more, good, bad):
    def only(name):
        version = ssl.TLSVersion[name]
        return files.client(minimum_version=version, maximum_version=version)

    async with port(f"{TLS}  {more}\n") as at:
        assert await at.status(tls=only(good)) == 200
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await at.handshake(only(bad))


async def test_ciphers(port, files):
    first, second = "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"
    suites = (
        "[TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_AES_128_GCM_SHA256]"
    )

    def asking(*ciphers):
        tls = files.client(maximum_version=ssl.TLSVersion.TLSv1_2)
        tls.set_ciphers(":".join(ciphers))
        return tls

    async with port(f"{TLS}  cipher_suites: {suites}\n") as at:
        assert (await at.handshake(asking(second, first)))[1] == first
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await at.handshake(asking("ECDHE-ECDSA-AES128-GCM-SHA256"))
        files.write(f"{TLS}  cipher_suites: {suites}\n  prefer_server_cipher_suites: false\n")
        await at.look(2)
        assert (await at.handshake(asking(second, first)))[1] == second


@pytest.mark.parametrize("curve", ["CurveP256", "CurveP384", "CurveP521", "X25519"])
async def test_curves(port, files, curve):
    names = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1"}

    def asking(name):
        tls = files.client()
        tls.set_ecdh_curve(name)
        return tls

    async with port(f"{TLS}  curve_preferences: [{curve}]\n") as at:
        await at.handshake(asking(names.get(curve, curve)))
        other = "secp384r1" if curve != "CurveP384" else "prime256v1"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await at.handshake(asking(other))


def key_of(bits):
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


async def test_an_rsa_certificate(port, files):
    issued = files.ca.issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA)
    issued.cert_chain_pems[0].write_to_path(files.folder / "server.pem")
    issued.private_key_pem.write_to_path(files.folder / "server.key")
    async with port() as at:
        assert await at.status(tls=files.client()) == 200


async def test_an_encrypted_key_is_not_asked_for_on_the_terminal(port, files, caplog):
    old = files.certify()
    async with port() as at:
        key = key_of(2048).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"geheim"),
        )
        (files.folder / "server.key").write_bytes(key)
        await at.look(2)
        assert (await at.handshake(files.client()))[0] == der(old)
    (said,) = errors(caplog)
    assert "is encrypted; use a private key without a passphrase" in said


# --- clients that misbehave -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "nonsense", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 1000, b"\x16\x03\x01\x02\x00", b""]
)
async def test_no_tls_is_refused_quietly(port, files, caplog, nonsense):
    async with port() as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(nonsense)
        writer.write_eof()
        with contextlib.suppress(ConnectionError):
            assert b"HTTP" not in await reader.read()
        writer.close()
        assert await at.status(tls=files.client()) == 200
    assert errors(caplog) == []


def stalled(files, port, request=b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"):
    """A client that has asked and reads no more than the first bytes."""
    plain = socket.create_connection(("127.0.0.1", port))
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client = files.client().wrap_socket(plain, server_hostname="127.0.0.1")
    client.send(request)
    client.recv(4)
    return client


def busy():
    """Whether a request is being answered."""
    return any("_handle_request" in repr(task) for task in asyncio.all_tasks())


async def test_a_client_that_does_not_read_is_given_up(port, files, publisher, make_size):
    publisher.exposition = make_size(50 * MB)
    async with port(write_timeout=0.3) as at:
        client = await asyncio.to_thread(stalled, files, at.port)
        assert busy()
        while busy():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
        assert await at.status("/-/healthy", tls=files.client()) == 200
        client.close()


@pytest.mark.slow
async def test_the_end_does_not_wait_for_clients_that_do_not(port, files, publisher, make_size):
    publisher.exposition = make_size(50 * MB)
    async with contextlib.AsyncExitStack() as stack:
        at = await stack.enter_async_context(port())
        clients = [await asyncio.to_thread(stalled, files, at.port) for _ in range(3)]
        silent = socket.create_connection(("127.0.0.1", at.port))  # shakes no hands
        idle = files.client().wrap_socket(
            await asyncio.to_thread(socket.create_connection, ("127.0.0.1", at.port)),
            server_hostname="127.0.0.1",
            do_handshake_on_connect=False,
        )
        await asyncio.to_thread(idle.do_handshake)
        async with asyncio.timeout(20):
            await stack.aclose()
        for client in (*clients, silent, idle):
            client.close()
