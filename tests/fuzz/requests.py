"""Throws mutated requests at the exporter's web server, on a loopback port.

The rules: no error in the log, never a 500, and after each batch an honest request is answered.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from random import Random
from types import SimpleNamespace

from fuzz.mutate import mutated_request

from exporter.metrics.exposition import Metric, SampleBlock, assemble, render_block
from exporter.web.listen import serve
from exporter.web.server import make_app

_BATCH = 20
_ANSWER_SECONDS = 0.3


class Requests:
    """A server, and what it answered.

    Attributes:
        counts: responses by status.
    """

    def __init__(self):
        self.counts = Counter()
        self.troubles = []

    async def run(self, numbers):
        """Send the requests of these numbers; raises whatever is wrong."""
        samples = [(("a",), 1.0)]
        block = SampleBlock(Metric("up", "gauge", "Up."), ("x",), {}, samples)
        exposition = assemble([(block.metric, [render_block(block)])])
        publisher = SimpleNamespace(exposition=exposition, pollers=[], ready=True)

        async def reload():
            return []

        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: self.troubles.append(str(context))
        )
        handler = logging.Handler(logging.ERROR)
        handler.emit = lambda record: self.troubles.append(record.getMessage())
        logging.getLogger("exporter").addHandler(handler)
        logging.getLogger("aiohttp").addHandler(handler)
        try:
            async with serve(make_app(publisher, reload=reload), [("127.0.0.1", 0)]) as (url,):
                self._port = int(url.rpartition(":")[2])
                numbers = iter(numbers)
                while batch := [number for _, number in zip(range(_BATCH), numbers, strict=False)]:
                    await asyncio.gather(*map(self._send, batch))
                    await self._check(batch)
        finally:
            logging.getLogger("exporter").removeHandler(handler)
            logging.getLogger("aiohttp").removeHandler(handler)

    async def _send(self, number):
        request = mutated_request(Random(number))
        answer = await self._answer(request)
        status = answer[9:12].decode("ascii", "replace") if answer.startswith(b"HTTP/") else ""
        assert status or not answer, (number, answer[:100])
        assert status != "500", (number, request)
        self.counts[status or "none"] += 1

    async def _answer(self, request):
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        received = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_ANSWER_SECONDS):
                writer.write(request)
                await writer.drain()
                while data := await reader.read(65_536):
                    received += data
        writer.transport.abort()
        return received

    async def _check(self, batch):
        healthy = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        for _ in range(20):
            if (await self._answer(healthy)).startswith(b"HTTP/1.1 200"):
                break
        else:
            raise AssertionError(f"no answer to an honest request after {batch}")
        assert not self.troubles, (batch, self.troubles[:3])
