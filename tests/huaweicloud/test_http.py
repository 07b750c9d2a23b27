"""One HTTP exchange: TLS as with every version of Python, proxies."""

import asyncio
import base64
import contextlib
import socket
import ssl
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from huaweicloud.fake_cloud import NoMeter

from exporter.errors import ConnectionFailedError
from exporter.huaweicloud.http import Request, Session
from exporter.settings.proxies import proxy_for

STRICT = ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
"""What Python adds from version 3.13 on."""


class Authority:
    """A certificate authority; not quite as RFC 5280 wants it, like those of many companies."""

    def __init__(self, parent=None, *, critical=False):
        self._parent = parent or self
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA {id(self)}")])
        self._key = ec.generate_private_key(ec.SECP256R1())
        basic = x509.BasicConstraints(ca=True, path_length=None)
        builder = self._parent._builder(self._name, self._key.public_key())
        self.certificate = self._parent._signed(builder.add_extension(basic, critical))

    def _builder(self, subject, key):
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )

    def _signed(self, builder):
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)

    def server(self, folder, host="localhost"):
        """The TLS of a server on this machine, with a certificate from here and its chain."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        certificate = self._signed(
            self._builder(name, key.public_key()).add_extension(names, critical=False)
        )
        chain = certificate if self._parent is self else certificate + self.certificate
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path = folder / "server.pem"
        path.write_bytes(private + chain)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


@contextlib.asynccontextmanager
async def serving(tls):
    """The URL of a server that says yes."""
    app = web.Application()
    app.router.add_get("/", _yes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        yield f"https://localhost:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def _yes(_request):
    return web.Response(text="yes")


async def got(url, **options):
    session = Session(timeout=5.0, meter=NoMeter(), **options)
    try:
        request = Request(operation="x", method="GET", url=url, endpoint_option="target.endpoint")
        return (await session(request)).body
    finally:
        await session.close()


@pytest.fixture(params=["3.11", "3.13"])
def _python(request, monkeypatch):
    """Verification as this version of Python has it by default."""
    make = ssl.create_default_context

    def context(*arguments, **options):
        made = make(*arguments, **options)
        if request.param == "3.13":
            made.verify_flags |= STRICT
        else:
            made.verify_flags &= ~STRICT
        return made

    monkeypatch.setattr(ssl, "create_default_context", context)


@pytest.mark.usefixtures("_python")
@pytest.mark.parametrize("critical", [False, True])
async def test_a_ca_works_with_every_version_of_python(tmp_path, critical):
    authority = Authority(critical=critical)
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    async with serving(authority.server(tmp_path)) as url:
        assert await got(url, ca_file=str(tmp_path / "ca.pem")) == b"yes"


@pytest.mark.usefixtures("_python")
async def test_an_intermediate_ca_is_enough_with_every_version_of_python(tmp_path):
    authority = Authority(Authority())
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    async with serving(authority.server(tmp_path)) as url:
        assert await got(url, ca_file=str(tmp_path / "ca.pem")) == b"yes"


@pytest.mark.usefixtures("_python")
async def test_another_ca_and_another_name_are_refused(tmp_path):
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    (tmp_path / "other.pem").write_bytes(Authority().certificate)
    async with serving(authority.server(tmp_path)) as url:
        with pytest.raises(ConnectionFailedError) as caught:
            await got(url, ca_file=str(tmp_path / "other.pem"))
        assert str(caught.value).endswith(
            "check target.endpoint, and whether target.ca_file contains the issuing CA"
        )
        with pytest.raises(ConnectionFailedError) as caught:
            await got(url)
        assert str(caught.value).endswith(
            "check target.endpoint, or give the issuing CA with target.ca_file"
        )
    async with serving(authority.server(tmp_path, "elsewhere")) as url:
        with pytest.raises(ConnectionFailedError, match="Hostname mismatch"):
            await got(url, ca_file=str(tmp_path / "ca.pem"))


# --- proxies --------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def a_proxy(answer):
    """A proxy that gives one answer; its host and port, and the heads of what it was asked."""
    heads = []

    async def serve(reader, writer):
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


async def through(url, option=None, **environ):
    return await got(url, proxy_for=partial(proxy_for, option=option, environ=environ))


YES = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"


async def test_a_proxy_without_a_scheme():
    async with a_proxy(YES) as (proxy, heads):
        assert await through("http://modelarts.invalid/v2", HTTP_PROXY=proxy) == b"yes"
    assert heads[0].startswith("GET http://modelarts.invalid/v2 HTTP/1.1\r\n")


@pytest.mark.parametrize("written", ["p%23 :@w\u00f6rd", "p%23%20%3A%40w%C3%B6rd"])
async def test_a_password_with_special_characters_reaches_the_proxy(written):
    written = written.replace(" ", "%20").replace("\u00f6", "%C3%B6")
    async with a_proxy(YES) as (proxy, heads):
        assert await through("http://modelarts.invalid/", f"http://u:{written}@{proxy}") == b"yes"
    sent = base64.b64encode("u:p# :@w\u00f6rd".encode()).decode()
    assert f"Proxy-Authorization: Basic {sent}\r\n" in heads[0]


async def test_https_goes_through_a_tunnel_and_a_refusal_names_the_variable():
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    async with a_proxy(refusal) as (proxy, heads):
        with pytest.raises(ConnectionFailedError) as caught:
            await through("https://modelarts.invalid/", https_proxy=f"u:geheim@{proxy}")
    assert "Proxy-Authorization: Basic dTpnZWhlaW0=\r\n" in heads[0]
    assert heads[0].startswith("CONNECT modelarts.invalid:443 HTTP/1.1\r\n")
    assert str(caught.value) == (
        "the proxy refused https://modelarts.invalid with status 407; check https_proxy"
    )


async def test_a_proxy_whose_name_does_not_resolve_is_named_by_its_variable(monkeypatch):
    def unknown(*_arguments, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ConnectionFailedError) as caught:
        await through("https://modelarts.invalid/", HTTPS_PROXY="u:geheim@proxy.invalid:1")
    assert str(caught.value) == (
        "the name of the proxy for https://modelarts.invalid does not resolve: check HTTPS_PROXY"
    )


async def test_a_proxy_that_is_not_there_is_named_by_its_variable():
    with pytest.raises(ConnectionFailedError) as caught:
        await through("https://modelarts.invalid/", ALL_PROXY="u:geheim@127.0.0.1:1")
    assert str(caught.value) == (
        "cannot connect to the proxy for https://modelarts.invalid: check ALL_PROXY"
    )
