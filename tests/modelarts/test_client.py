"""Which requests of a target are in flight together."""

import asyncio
from types import SimpleNamespace

import pytest
from polling.test_paging_property import Clock

from exporter.clock import Clocks
from exporter.huaweicloud.auth.static import NoAuth
from exporter.huaweicloud.http import Response
from exporter.modelarts.client import Client
from exporter.modelarts.rate_limit import RateLimiter


class HangingService:
    """Responds when it is told to."""

    def __init__(self):
        self.sent = []
        self.responds = asyncio.Event()

    async def __call__(self, request):
        self.sent.append(request.body)
        await self.responds.wait()
        return Response(200, {}, b"{}")


def client_of(service, concurrency):
    clock = Clock()
    clocks = Clocks(clock.wall, clock.monotonic, clock.sleep)
    return Client(
        service,
        NoAuth(),
        endpoint="http://service.test",
        project_id="project",
        rate_limiter=RateLimiter(5, clocks),
        concurrency=concurrency,
        retries=0,
        longest_pause=120,
        meter=SimpleNamespace(retried=pytest.fail),
        clocks=clocks,
    )


async def sent_of(requests, *, concurrency):
    """The requests in flight after some were made: ``b`` in the background, ``p`` of a poll."""
    service = HangingService()
    client = client_of(service, concurrency)
    tasks = [
        asyncio.create_task(client.search({"of": each}, len, deadline=1e9, background=each == "b"))
        for each in requests
    ]
    for _ in range(50):
        await asyncio.sleep(0)
    sent = "".join(body.decode()[8] for body in service.sent)
    service.responds.set()
    assert await asyncio.gather(*tasks) == [2] * len(tasks)
    return sent


@pytest.mark.parametrize(
    ("requests", "concurrency", "sent"),
    [
        ("bbbp", 2, "bp"),
        ("bbbpp", 3, "bbp"),
        ("ppp", 2, "pp"),
        ("bp", 1, "b"),
    ],
)
async def test_requests_in_the_background_leave_one_for_polls(requests, concurrency, sent):
    assert await sent_of(requests, concurrency=concurrency) == sent
