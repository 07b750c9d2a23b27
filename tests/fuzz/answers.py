"""Throws mutated answers at every decoder.

The rules: no exception but the typed ones; texts can be encoded and are short; jobs that were not
touched are right. A plain mutator over real answers reaches the decoders' depths at once, needs no
instrumentation and no dependency, and a number is enough to repeat a case.
"""

import asyncio
import copy
import functools
import gzip
import json
import zlib
from collections import Counter
from pathlib import Path
from random import Random

import msgspec
from fuzz.mutate import GARBAGE, mutated_bytes, mutated_document

from exporter.clock import Clocks
from exporter.errors import PollError
from exporter.huaweicloud.auth.agency import Agency
from exporter.huaweicloud.auth.iam import by_password
from exporter.huaweicloud.auth.lockout import KeyLockouts
from exporter.huaweicloud.auth.static import NoAuth
from exporter.huaweicloud.content import Content
from exporter.huaweicloud.errors import error_of
from exporter.huaweicloud.http import Request, Response
from exporter.huaweicloud.projects import ProjectList, find_project_id
from exporter.jobs.fleet import Fleet
from exporter.jobs.job import PHASES, View
from exporter.jobs.pool import NodeCards, PoolUsage, Quota
from exporter.jobs.tracker import observe
from exporter.metrics.counter_lines import counter_lines
from exporter.metrics.counters import add
from exporter.metrics.exposition import assemble
from exporter.metrics.pools import POOL_INFO
from exporter.modelarts.decode.capacity import (
    decode_flavors,
    decode_queue,
    decode_quotas,
    decode_usage,
)
from exporter.modelarts.decode.jobs import decode_job, decode_page
from exporter.modelarts.decode.pools import decode_pools
from exporter.modelarts.workspaces import find_workspaces
from exporter.polling.label_limit import LabelLimiter
from exporter.polling.render import render_gauges
from exporter.settings.schema import JobsSettings
from exporter.simulator import capacity
from exporter.simulator.behaviour import Behaviour
from exporter.simulator.catalog import LLM_POOL
from exporter.simulator.living import LivingFleet
from exporter.simulator.pools import pools
from exporter.simulator.wire import document

NOW = 1_750_000_000.0
VENDOR = Path(__file__).parents[1] / "data/vendor-response.json"
ISSUED = "2025-06-15T15:06:40.000000Z"
TOKEN = {
    "token": {
        "expires_at": "2025-06-16T15:06:40.000000Z",
        "issued_at": ISSUED,
        "methods": ["password"],
        "project": {"id": "0a1b2c", "name": "cn-north-4", "domain": {"id": "d", "name": "acme"}},
        "user": {"id": "u", "name": "li", "domain": {"id": "d", "name": "acme"}},
        "roles": [{"id": "0", "name": "te_admin"}],
    }
}
PROJECTS = {
    "links": {"self": "https://iam.example.com/v3/projects", "next": None, "previous": None},
    "projects": [
        {"id": "0a1b2c", "name": "cn-north-4", "enabled": True, "description": ""},
        {"id": "3d4e5f", "name": "cn-north-4_team", "enabled": True, "parent_id": "0a1b2c"},
    ],
}  # fmt: skip
WORKSPACES = {
    "total_count": 2,
    "workspaces": [
        {"id": "0", "name": "default", "status": "NORMAL", "enterprise_project_id": "0"},
        {"id": "5f0c2b7e9d3a4c1e8b6f7a2d4c9e1b30", "name": "vision", "status": "NORMAL"},
    ],
}
KEY = {
    "credential": {
        "access": "AKEXAMPLE",
        "secret": "secret",
        "securitytoken": "token",
        "expires_at": "2025-06-16T15:06:40.000000Z",
    }
}
ERRORS = (
    {"error_code": "ModelArts.2799", "error_msg": "slow down"},
    {"error": {"code": 401, "message": "who?", "title": "Unauthorized"}},
    {"errorCode": "X.1", "errorMsg": "no"},
)
CLOCKS = Clocks(lambda: NOW, lambda: 1000.0)


@functools.cache
def documents():
    """Documents of all shapes: the vendor's, and one of each kind of job in a simulated region."""
    shapes = {}
    for job in LivingFleet.populated(20240620, NOW, jobs=800):
        shape = (job.phase, job.pool.name, bool(job.roles), min(len(job.runs), 3))
        shapes.setdefault(shape, document(job, NOW))
    for shown in shapes.values():
        if points := shown["status"].get("node_count_metrics"):
            points[:-3] = []  # hundreds, of which one is read
    return [*json.loads(VENDOR.read_text())["items"], *shapes.values()]


@functools.cache
def decoded():
    """The job of each document, by its id."""
    body = json.dumps({"items": documents()}).encode()
    return {job.id: job for job in decode_page(body, workspace="0", now=NOW).jobs}


@functools.cache
def texts_by_id():
    return {item["metadata"]["id"]: json.dumps(item).encode() for item in documents()}


def json_of(item):
    return texts_by_id()[item["metadata"]["id"]]


@functools.cache
def region():
    return LivingFleet.populated(20240620, NOW, jobs=800)


@functools.cache
def pool_list():
    return pools(region(), Behaviour(), "0")


@functools.cache
def capacities():
    """How full pools are: the decoder and an answer for each request."""
    world, behaviour = region(), Behaviour()
    queue = capacity.workloads(world, LLM_POOL.id, {}, behaviour, None)
    return {
        "usage": (decode_usage, capacity.runtime(world, behaviour, None)),
        "flavors": (decode_flavors, capacity.flavors(world, {}, behaviour)),
        "queue": (decode_queue, queue),
        "quotas": (decode_quotas, capacity.quotas(world, {})),
    }


def labels_of(value):
    """The texts of what was decoded of a pool."""
    if isinstance(value, PoolUsage):
        return [text for key in (*value.cards, *value.workloads) for text in key]
    return [value.accelerator] if isinstance(value, NodeCards) else []


def numbers_of(value):
    """The numbers of what was decoded of a pool."""
    if isinstance(value, PoolUsage):
        return [*value.cards.values(), *value.workloads.values()]
    if isinstance(value, Quota):
        return [number for number in value if number is not None]
    return [value.number] if isinstance(value, NodeCards) else [value]


def assert_texts(value):
    """Every text can be encoded, has no control characters, and is short."""
    if isinstance(value, str):
        value.encode()
        assert len(value) <= 256, value[:300]
        assert "\x00" not in value
    elif isinstance(value, msgspec.Struct):
        assert_texts(msgspec.structs.astuple(value))
    elif isinstance(value, list | tuple):
        for each in value:
            assert_texts(each)


def assert_sane(job):
    assert job.phase in (*PHASES, "Unknown")
    assert job.flavor_type in ("CPU", "GPU", "Ascend", "unknown")
    assert job.pool
    assert job.accelerator
    times = [job.created, job.started, job.ended]
    for run in job.runs or ():
        assert run.start is None or run.end is None or run.start <= run.end
        times += [run.start, run.end]
    assert all(time is None or 1_420_070_400 <= time <= NOW + 900 for time in times)
    assert job.duration is None or 0 <= job.duration < 10**10
    for number in (job.nodes, job.current_nodes, job.accelerators):
        assert number is None or (isinstance(number, int) and 0 <= number < 2**31)


class Answers:
    """Runs cases; case number n is always the same.

    Attributes:
        counts: what came of them.
    """

    def __init__(self):
        self.counts = Counter()
        self.loop = asyncio.new_event_loop()
        self.targets = (
            *[self.page] * 6,
            *[self.damaged_page] * 3,
            self.single_job,
            self.pool_list,
            self.pool_capacity,
            self.error,
            self.sign_in,
            self.projects,
            self.project_list,
            self.workspaces,
            self.agency,
            self.content,
        )

    def run(self, number):
        """Run one case; raises whatever is wrong."""
        random = Random(number)
        target, message = random.choice(self.targets), ""
        try:
            outcome = target(random) or "decoded"
        except PollError as error:
            message, outcome = str(error), type(error).__name__
        assert_texts(message[:256])
        assert len(message) < 2000
        self.counts[f"{target.__name__}: {outcome}"] += 1

    def close(self):
        self.loop.close()

    # --- Jobs -------------------------------------------------------------------------------------

    def page(self, random):
        """One job of a page, or what is around the jobs, is mutated; the others must be right."""
        items = random.sample(documents(), random.randint(1, 4))
        position = random.randrange(len(items))
        texts = [json_of(item) for item in items]
        if random.random() < 0.7:
            texts[position] = json.dumps(mutated_document(items[position], random)).encode()
        else:
            texts[position] = random.choice(
                (b"0", b"{}", b"[]", b"null", b'"\\ud800"', b"[[[[]]]]")
            )
        envelope = {"total": len(items), "count": len(items)}
        if random.random() < 0.2:
            envelope[random.choice(("total", "count", "x", "\ud800"))] = random.choice(GARBAGE)
        body = json.dumps(envelope).encode()[:-1] + b', "items": [' + b",".join(texts) + b"]}"
        page = decode_page(body, workspace="0", now=NOW, limit=len(items))
        self._check_page(page, len(items), random)
        others = {item["metadata"]["id"] for item in items[:position] + items[position + 1 :]}
        assert {job.id: job for job in page.jobs if job.id in others} == {
            job_id: decoded()[job_id] for job_id in others
        } or self._same_id(page, others)

    def _same_id(self, page, others):
        """The mutated job may have taken the id of another."""
        found = Counter(job.id for job in page.jobs)
        return any(found[job_id] > 1 for job_id in others)

    def damaged_page(self, random):
        """Bytes of a page are changed, those of one job or any."""
        items = random.sample(documents(), random.randint(1, 3))
        texts = [json_of(item) for item in items]
        body = b'{"total": 5059, "items": [' + b", ".join(texts) + b"]}"
        first = body.index(texts[0])
        if only_one := random.random() < 0.6:
            body = mutated_bytes(body, random, first=first, last=first + len(texts[0]))
        else:
            body = mutated_bytes(body, random)
        page = decode_page(body, workspace="0", now=NOW, limit=1000)
        self._check_page(page, None, random)
        if only_one and page.size == len(items) and self._kept(body, items[1:]):
            rest = [decoded()[item["metadata"]["id"]] for item in items[1:]]
            assert page.jobs[len(page.jobs) - len(rest) :] == rest

    def _kept(self, body, items):
        """Whether the rest of a page is still what it was, by another parser."""
        try:
            found = json.loads(body.decode("utf-8", "replace"), strict=False)["items"]
        except (ValueError, RecursionError, KeyError, TypeError):
            return False
        return isinstance(found, list) and found[len(found) - len(items) :] == items

    def single_job(self, random):
        body = json.dumps(mutated_document(random.choice(documents()), random)).encode()
        if random.random() < 0.3:
            body = mutated_bytes(body, random)
        page = decode_job(body, workspace="0", now=NOW)
        self._check_page(page, 1, random)

    def _check_page(self, page, size, random):
        assert page.size == len(page.jobs) + len(page.undecodable)
        assert size is None or page.size == size
        assert_texts(page.jobs)
        assert_texts(page.problems)
        for job in page.jobs:
            assert_sane(job)
        if random.random() < 0.02:
            self._publish(page)

    def _publish(self, page):
        """What was decoded can be counted and rendered."""
        view = View({job.id: job for job in page.jobs}, newest_created={"0": NOW})
        view = LabelLimiter(2, "r/p").apply(view, {}.get)
        before = Fleet(newest_created={"0": float("-inf")})  # so that all of it is new
        observed = observe(before, view, NOW)
        assert [event.kind for event in observed.events].count("created") == len(view.jobs)
        ledger, _ = add({}, observed.events, observed.fleet.accelerators, NOW)
        labels = {"region": "r", "project": "p"}
        gauges = render_gauges(observed.fleet, labels, JobsSettings(), lambda _: False)
        counter_lines(ledger, labels, lambda _: False, {})
        assemble([(POOL_INFO.metric, list(gauges.lines.values()))])

    # --- Other answers ----------------------------------------------------------------------------

    def _body(self, document, random):
        body = json.dumps(mutated_document(document, random)).encode()
        return mutated_bytes(body, random) if random.random() < 0.4 else body

    def _http(self, *responses):
        answers = iter(responses)

        async def http(request):
            assert isinstance(request, Request)
            return next(answers)

        return http

    def pool_list(self, random):
        whole = copy.deepcopy(pool_list())
        position = random.randrange(len(whole["items"]))
        touched = whole["items"][position]
        others = {
            item["metadata"]["name"]: item["metadata"]["labels"]["os.modelarts/name"]
            for item in whole["items"]
            if item is not touched
        }
        if random.random() < 0.6:
            whole["items"][position] = mutated_document(touched, random)
            names = decode_pools(json.dumps(whole).encode()).names
            taken = names.keys() - others.keys()
            assert len(taken) <= 1
            wrong = {pool for pool, name in others.items() if names.get(pool) != name}
            assert not wrong or (len(wrong) == 1 and not taken)  # it took the id of another
        else:
            names = decode_pools(self._body(whole, random)).names
        assert_texts([*names, *names.values()])

    def pool_capacity(self, random):
        kind = random.choice(sorted(capacities()))
        decode, whole = capacities()[kind]
        found = decode(self._body(whole, random))
        if kind == "flavors":
            found = found.flavors
        assert len(found) <= 2000
        assert_texts([*found, *(text for each in found.values() for text in labels_of(each))])
        assert all(number >= 0 for each in found.values() for number in numbers_of(each))

    def error(self, random):
        odd = ("", "5", "-1", "9" * 400, "Mon, 30 Feb 2026 99:00:00 GMT", "\x00", "²")
        headers = {name: random.choice(odd) for name in ("Retry-After", "Date", "X-Request-Id")}
        body = self._body(random.choice(ERRORS), random)
        status = random.choice((204, 301, 400, 401, 403, 404, 429, 500, 502, 503, 599))
        raise error_of(Response(status, headers, body), now=lambda: NOW)

    def sign_in(self, random):
        class Password:
            def read(self):
                return "password"

        token = random.choice(("token", "t" * 100_000, "", "\x00", "a b"))
        response = Response(201, {"X-Subject-Token": token}, self._body(TOKEN, random))
        sign_in = by_password(
            self._http(response),
            "https://iam.example.com",
            user="li",
            domain="acme",
            password=Password(),
            scope={},
            lockouts=KeyLockouts(CLOCKS.monotonic),
            clock=CLOCKS.wall,
        )
        grant = self.loop.run_until_complete(sign_in())
        assert grant.value == token
        assert grant.lifetime is None or grant.lifetime > 0

    def projects(self, random):
        http = self._http(Response(200, {}, self._body(PROJECTS, random)))
        lookup = find_project_id(http, NoAuth(), "https://iam.example.com", "cn-north-4")
        found = self.loop.run_until_complete(lookup)
        assert isinstance(found, str)

    def project_list(self, random):
        http = self._http(Response(200, {}, self._body(PROJECTS, random)))
        lookup = ProjectList(http, NoAuth(), "https://iam.example.com", "cn-north-4")
        found = self.loop.run_until_complete(lookup.fetch())
        assert all(name.startswith("cn-north-4") for name in found)
        assert_texts("".join(found.values()))

    def workspaces(self, random):
        http = self._http(Response(200, {}, self._body(WORKSPACES, random)))
        lookup = find_workspaces(http, NoAuth(), "https://x.example.com", "p")
        found = self.loop.run_until_complete(lookup)
        assert list(found) == sorted(set(found))
        assert_texts("".join(found))

    def agency(self, random):
        http = self._http(
            Response(200, {}, mutated_bytes(b"metadata-token", random)),
            Response(200, {}, self._body(KEY, random)),
        )
        credentials = Agency(http, lockouts=KeyLockouts(CLOCKS.monotonic), clocks=CLOCKS)
        request = Request(operation="search", method="GET", url="https://x.example.com/v2/p")
        self.loop.run_until_complete(credentials.authenticate(request))
        credentials.identity.encode()

    def content(self, random):
        """Compressed bytes are changed; nothing but what was sent may come out."""
        body = json.dumps(random.choice(documents())).encode() * random.choice((1, 1, 200))
        encoding, compress = random.choice((("gzip", gzip.compress), ("deflate", zlib.compress)))
        data = compress(body)
        if touched := random.random() < 0.8:
            data = mutated_bytes(data, random)
        size = random.choice((1000, 100_000))

        async def read():
            content = Content(encoding, limit=2 * len(body))
            for start in range(0, len(data), size):
                await content.add(data[start : start + size])
            return await content.read()

        found = self.loop.run_until_complete(read())
        assert touched or found == body
        assert len(found) <= 2 * len(body)
