"""A small, strict service for tests of credentials: IAM, metadata and a signed API, over real HTTP.

It says no by default: what it accepts must be put into it first.
"""

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from urllib.parse import parse_qsl

from aiohttp import web
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer

from exporter.clock import Clocks
from exporter.errors import AuthError, ForbiddenError
from exporter.huaweicloud.errors import error_of
from exporter.huaweicloud.http import Request, Session

START = 1_718_870_400.0  # 2024-06-20 08:00:00 UTC


def iso(seconds):
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass
class Time:
    """Wall clock and monotonic clock; they pass together unless told otherwise."""

    wall: float = START
    monotonic: float = 1000.0

    def passes(self, seconds):
        self.wall += seconds
        self.monotonic += seconds

    @property
    def clocks(self):
        return Clocks(lambda: self.wall, lambda: self.monotonic)


@dataclass
class Cloud:
    """What the service accepts, and what it was asked."""

    time: Time
    passwords: dict = field(default_factory=dict)  # (domain, user) → password
    id_tokens: dict = field(default_factory=dict)  # id token → identity provider
    tokens: set = field(default_factory=set)  # valid tokens
    keys: dict = field(default_factory=dict)  # access key → (secret, security token or None)
    projects: list = field(default_factory=list)
    agency_key: tuple | None = None  # access, secret, security token, expires at
    metadata_tokens: bool = True
    token_lifetime: float = 86_400.0
    token_length: int = 0  # at least
    forced: dict = field(default_factory=dict)  # path → handler that answers instead
    requests: list = field(default_factory=list)  # (path, headers, document)
    hold: object = None  # an asyncio.Event that API requests wait for
    in_flight: int = 0
    most_in_flight: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    signed_in: int = 0
    url: str = ""

    def asked(self, path):
        return [headers for asked, headers, _ in self.requests if asked == path]

    def documents(self, path):
        return [document for asked, _, document in self.requests if asked == path]

    async def answer(self, request):
        body = await request.read()
        document = json.loads(body) if body else None
        self.requests.append((request.path, request.headers.copy(), document))
        if forced := self.forced.get(request.path):
            return await forced(request)
        match request.method, request.path:
            case "POST", "/v3/auth/tokens":
                return self.token_for_password(request, document)
            case "POST", "/v3.0/OS-AUTH/id-token/tokens":
                return self.token_for_id_token(request, document)
            case "PUT", "/meta-data/latest/api/token":
                return self.metadata_token(request)
            case "GET", "/openstack/latest/securitykey":
                return self.security_key(request)
        async with self.changed:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self.changed.notify_all()
        try:
            if self.hold is not None:
                await self.hold.wait()
            if (refusal := self.refusal(request, body)) is not None:
                return refusal
        finally:
            self.in_flight -= 1
        if (request.method, request.path) == ("GET", "/v3/projects"):
            found = [one for one in self.projects if one["name"] == request.query["name"]]
            return web.json_response({"projects": found})
        return web.json_response({"items": []})

    async def arrived(self, number):
        """Wait until so many API requests are on their way."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.in_flight == number)

    def token_for_password(self, request, document):
        auth = document["auth"]
        assert request.query == {"nocatalog": "true"}
        assert auth["identity"]["methods"] == ["password"]
        user = auth["identity"]["password"]["user"]
        if self.passwords.get((user["domain"]["name"], user["name"])) != user["password"]:
            return iam_error(401, "The username or password is wrong.")
        return self.new_token(auth["scope"]["project"])

    def token_for_id_token(self, request, document):
        auth = document["auth"]
        if self.id_tokens.get(auth["id_token"]["id"]) != request.headers["X-Idp-Id"]:
            return iam_error(401, "Invalid id token.")
        return self.new_token(auth["scope"]["project"])

    def new_token(self, scope):
        self.signed_in += 1
        token = f"MIIF-{self.signed_in}-MARKER".ljust(self.token_length, "x")
        self.tokens.add(token)
        project = {"id": scope.get("id", "project-of-the-region"), "name": "cn-north-4"}
        document = {
            "issued_at": iso(self.time.wall),
            "expires_at": iso(self.time.wall + self.token_lifetime),
            "project": project,
        }
        return web.json_response(
            {"token": document}, status=201, headers={"X-Subject-Token": token}
        )

    def metadata_token(self, request):
        if not self.metadata_tokens:
            return web.Response(status=404)
        assert request.headers["X-Metadata-Token-Ttl-Seconds"] == "21600"
        return web.Response(text="METADATA-MARKER")

    def security_key(self, request):
        if self.metadata_tokens and request.headers.get("X-Metadata-Token") != "METADATA-MARKER":
            return web.Response(status=401)
        if self.agency_key is None:
            return web.Response(status=404)
        names = ("access", "secret", "securitytoken", "expires_at")
        return web.json_response({"credential": dict(zip(names, self.agency_key, strict=True))})

    def refusal(self, request, body):
        """None for a request with a valid token or signature."""
        if (token := request.headers.get("X-Auth-Token")) is not None:
            return None if token in self.tokens else api_error(401, "APIG.0301", "wrong token")
        if (given := request.headers.get("Authorization")) is None:
            return api_error(401, "APIG.0301", "nothing to show")
        access = given.split("Access=")[1].split(",")[0]
        secret, security_token = self.keys.get(access, ("no such key", None))
        if request.headers.get("X-Security-Token") != security_token:
            return api_error(401, "APIG.0301", "wrong security token")
        names = given.split("SignedHeaders=")[1].split(",")[0].split(";")
        expected = SdkRequest(
            method=request.method,
            host=request.host,
            resource_path=request.path,
            query_params=parse_qsl(request.query_string, keep_blank_values=True),
            header_params={name: request.headers[name] for name in names},
            body=body,
        )
        Signer(SimpleNamespace(ak=access, sk=secret)).sign(expected)
        if expected.header_params["Authorization"] != given:
            # The real one quotes the canonical request, too.
            quoted = "|".join(f"{name}:{request.headers[name]}" for name in names)
            return api_error(401, "APIG.0301", f"verify aksk signature fail: {quoted}")
        return None


def api_error(status, code, message):
    return web.json_response({"error_code": code, "error_msg": message}, status=status)


def iam_error(status, message):
    return web.json_response({"error": {"code": status, "message": message}}, status=status)


class NoMeter:
    def requested(self, operation, code, seconds):
        pass


@contextlib.asynccontextmanager
async def running(time):
    """A `Cloud` that listens on a port of its own."""
    cloud = Cloud(time)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", cloud.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, max_field_size=2**17)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        cloud.url = "http://127.0.0.1:{}".format(*runner.addresses[0][1:2])
        yield cloud
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def session(seconds=5.0):
    http = Session(timeout=seconds, meter=NoMeter())
    try:
        yield http
    finally:
        await http.close()


async def search(http, cloud, credentials, *, path="/v2/p/training-job-searches"):
    """One request as the client sends it; returns "ok", "again", or raises."""
    request = Request(
        operation="search",
        method="POST",
        url=cloud.url + path,
        headers={"Content-Type": "application/json", "X-Project-Id": "p"},
        body=b'{"offset": 0}',
        endpoint_option="target.endpoint",
    )
    async with credentials.attempt(request) as attempt:
        answer = await http(attempt.signed())
        if answer.status == 200:
            attempt.accepted()
            return "ok"
        error = error_of(answer, secrets=attempt.secrets, now=lambda: cloud.time.wall)
        if isinstance(error, ForbiddenError):
            attempt.forbidden()
        elif isinstance(error, AuthError) and await attempt.rejected(error):
            return "again"
        raise error
