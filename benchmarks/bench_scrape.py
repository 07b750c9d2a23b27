"""Scrape 100,000 series with gzip; compare with prometheus_client and node_exporter's textfiles."""

import gzip
import sys
import tempfile
from pathlib import Path

import series
from common import (
    HERE,
    PYTHON,
    Client,
    Figure,
    Peer,
    free_port,
    interleaved,
    node_exporter,
    peer,
    ratios,
    report,
)

_ROUNDS = 9
_SAYS = r"serving http://127\.0\.0\.1:(\d+)"


def measure(peers: dict[str, Peer]) -> int:
    """Scrape all servers in turns."""
    clients = {name: Client(each.port) for name, each in peers.items()}
    body = gzip.decompress(clients["ours"].body())
    theirs = gzip.decompress(clients["library"].body())
    if body.count(b"\n") != series.SERIES + 20 or theirs != body:
        raise SystemExit("the series differ")
    seconds = interleaved(
        {name: client.scrape for name, client in clients.items()}, _ROUNDS, {"ours": 25}
    )
    for client in clients.values():
        client.close()
    return report(
        [
            Figure(
                "faster than prometheus_client",
                ratios(seconds["library"], seconds["ours"]),
                "times",
                400,
            ),
            Figure(
                "faster than node_exporter's textfile collector",
                ratios(seconds["node"], seconds["ours"]),
                "times",
                250,
            ),
            *(
                Figure(f"scrape of {name}", [value * 1000 for value in values], "ms")
                for name, values in seconds.items()
            ),
        ]
    )


def main() -> int:
    """Run all three servers at the same time; those that are not scraped are idle."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "jobs.prom").write_bytes(series.exposition().text)
        node = (
            node_exporter(),
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.disable-exporter-metrics",
            "--collector.disable-defaults",
            "--collector.textfile",
            f"--collector.textfile.directory={folder}",
        )
        serve = str(HERE / "serve.py")
        with (
            peer((PYTHON, serve, "library"), _SAYS) as library,
            peer(node, rf"(?i)listening on.*[:=]({port})\b") as textfile,
            peer((PYTHON, serve, "ours"), _SAYS) as ours,
        ):
            return measure({"library": library, "node": textfile, "ours": ours})


if __name__ == "__main__":
    sys.exit(main())
