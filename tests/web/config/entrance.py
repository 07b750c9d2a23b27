"""A port with a web configuration: the files, the server, its callers, and time in our hands."""

import asyncio
import base64
import contextlib
import ssl
from functools import cache

import aiohttp
import bcrypt
import trustme

from exporter.clock import Clocks
from exporter.web.access import AccessControl
from exporter.web.config.file import WebFile
from exporter.web.listen import serve
from exporter.web.server import make_app

TLS = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n"
MUTUAL = f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: clients.pem\n"


@cache
def hashed(password, cost=4):
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


def users(cost=4, **passwords):
    """The lines for users with these passwords."""
    lines = [f"  {name}: {hashed(password, cost)}\n" for name, password in passwords.items()]
    return "basic_auth_users:\n" + "".join(lines)


def basic(user, password, scheme="Basic"):
    """The header of a request."""
    both = b":".join(part.encode() if isinstance(part, str) else part for part in (user, password))
    return {"Authorization": f"{scheme} {base64.b64encode(both).decode()}"}


class Files:
    """A folder with a web configuration, and certificates of an authority."""

    def __init__(self, folder):
        self.folder = folder
        self.path = folder / "web.yml"
        self.ca = trustme.CA()

    def write(self, text):
        self.path.write_text(text)

    def certify(self, name="server", *names, ca=None):
        """New files of a certificate: ``NAME.pem`` and ``NAME.key``."""
        issued = (ca or self.ca).issue_cert(*(names or ("127.0.0.1",)))
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        (self.folder / f"{name}.pem").write_bytes(chain)
        issued.private_key_pem.write_to_path(self.folder / f"{name}.key")
        return issued

    def client(self, issued=None, **versions):
        """The TLS of a caller, perhaps with a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ca.configure_trust(context)
        if issued:
            issued.configure_cert(context)
        for name, version in versions.items():
            setattr(context, name, version)
        return context


class Ticks:
    """Sleeps that end when a test says so."""

    def __init__(self):
        self.now = 0.0
        self.clocks = Clocks(monotonic=lambda: self.now, sleep=self._sleep)
        self._asleep = asyncio.Event()
        self._wake = asyncio.Event()

    async def _sleep(self, _):
        self._asleep.set()
        await self._wake.wait()
        self._wake.clear()

    async def look(self, times=1):
        """Let it look at the files."""
        for _ in range(times):
            await self._asleep.wait()
            self._asleep.clear()
            self._wake.set()
            await self._asleep.wait()


class Port:
    """What is served."""

    def __init__(self, url, guard, ticks):
        self.url = url
        self.port = int(url.rpartition(":")[2])
        self.guard = guard
        self.look = ticks.look
        self.ticks = ticks

    async def get(self, path="/metrics", *, tls=None, method="GET", source="127.0.0.1", **options):
        """Status, headers and body of an answer on a new connection."""
        connector = aiohttp.TCPConnector(ssl=tls or True, local_addr=(source, 0))
        async with (
            aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
            session.request(method, self.url + path, **options) as answer,
        ):
            return answer.status, answer.headers, await answer.read()

    async def status(self, path="/metrics", **options):
        return (await self.get(path, **options))[0]

    async def handshake(self, tls):
        """The server's certificate, and its name of the cipher."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=tls)
        connection = writer.get_extra_info("ssl_object")
        try:
            return connection.getpeercert(binary_form=True), connection.cipher()[0], connection
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def guarded(publisher, path, *, max_connections=None, **options):
    """Serve what is published as a web configuration says."""
    file = WebFile(str(path))
    loaded = file.load()
    assert loaded.problems == ()
    ticks = Ticks()
    guard = AccessControl(loaded, file.look, ticks.clocks)
    app = make_app(publisher, access=guard, **options)
    addresses = [("127.0.0.1", 0)]
    async with serve(app, addresses, guard.tls, max_connections=max_connections) as (url,):
        looking = asyncio.create_task(guard.run())
        try:
            yield Port(url, guard, ticks)
        finally:
            looking.cancel()
            await asyncio.wait([looking])
            guard.close()
