"""Serve the 100,000 series, with the exporter's own server or with prometheus_client.

Run by the benchmarks as ``serve.py ours`` or ``serve.py library``; prints its URL once it serves.
"""

import asyncio
import sys
import threading

import series
from prometheus_client import start_http_server

from exporter.metrics.self_metrics import Instruments
from exporter.web.listen import serve
from exporter.web.publisher import Publisher
from exporter.web.server import make_app


async def ours() -> None:
    """Serve with the exporter's own server and publisher."""
    publisher = Publisher(Instruments())
    publisher.exposition = series.exposition()
    async with serve(make_app(publisher), [("127.0.0.1", 0)]) as urls:
        print(f"serving {urls[0]}", flush=True)
        await asyncio.Event().wait()


def library() -> None:
    """Serve as shown in the manual of prometheus_client."""
    server, _ = start_http_server(0, "127.0.0.1", series.registry())
    print(f"serving http://127.0.0.1:{server.server_port}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    if sys.argv[1] == "ours":
        asyncio.run(ours())
    else:
        library()
