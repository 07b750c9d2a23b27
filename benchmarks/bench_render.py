"""CPU time of rendering and compressing 100,000 series, compared with prometheus_client.

The exporter renders and compresses both formats once per poll. The library renders the requested
format once per scrape.
"""

import gzip
import sys
import time

import series
from common import Figure, clocked, interleaved, ratios, report
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from exporter.metrics.exposition import Exposition, assemble, render_block

_ROUNDS = 5


def main() -> int:
    """Compare the outputs, then the times."""
    blocks = series.blocks()
    registry = series.registry()

    def ours() -> Exposition:
        return assemble((block.metric, [render_block(block)]) for block in blocks)

    def text() -> bytes:
        return gzip.compress(generate_latest(registry))

    def openmetrics() -> bytes:
        return gzip.compress(generate_openmetrics(registry))

    made = ours()
    if made.text != generate_latest(registry) or made.openmetrics != generate_openmetrics(registry):
        raise SystemExit("the output differs from the library's")
    seconds = interleaved(
        {
            name: clocked(action, time.process_time)
            for name, action in {"ours": ours, "text": text, "openmetrics": openmetrics}.items()
        },
        _ROUNDS,
        {"ours": 3},
    )
    both = [sum(pair) for pair in zip(seconds["text"], seconds["openmetrics"], strict=True)]
    return report(
        [
            Figure(
                "less CPU: both formats compared with the library's text alone",
                ratios(seconds["text"], seconds["ours"]),
                "times",
                8,
            ),
            Figure(
                "less CPU: both formats compared with both of the library",
                ratios(both, seconds["ours"]),
                "times",
                8,
            ),
            Figure("ours, both formats", [1000 * value for value in seconds["ours"]], "ms"),
            Figure("library, text", [1000 * value for value in seconds["text"]], "ms"),
            Figure("library, OpenMetrics", [1000 * v for v in seconds["openmetrics"]], "ms"),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
