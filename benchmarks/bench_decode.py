"""Decoding pages of 50 jobs into `Job`s, against ``json.loads`` of the same bytes.

The pages are those of the simulated service: some of each workspace, from the newest jobs to the
oldest, in worlds of several seeds.
"""

import json
import sys
import time
from collections.abc import Iterator

from common import Figure, clocked, interleaved, median, report

from exporter.model.decode import decode_page
from exporter.model.wire import decode_listing
from exporter.simulator.behaviour import Behaviour
from exporter.simulator.catalog import DEFAULT_WORKSPACE, VISION_WORKSPACE
from exporter.simulator.living import LivingFleet
from exporter.simulator.query import parse
from exporter.simulator.search import Searches

_SEEDS = range(4)
_JOBS = 5000
_PAGE = 50
_PAGES = 6
_ROUNDS = 15


def pages(seed: int, now: float) -> Iterator[tuple[str, bytes]]:
    """Workspace and bytes of some pages of a world."""
    behaviour = Behaviour()
    fleet = LivingFleet.populated(seed, now, jobs=_JOBS)
    searches = Searches(fleet, behaviour)
    for workspace in (DEFAULT_WORKSPACE, VISION_WORKSPACE):
        whole = len(fleet.index.sorted(workspace)) // _PAGE
        for number in range(0, whole, max(whole // _PAGES, 1)):
            query = {"offset": number, "limit": _PAGE, "workspace_id": workspace}
            yield workspace, searches.answer(parse(json.dumps(query).encode(), behaviour))


def main() -> int:
    """Every page for itself, as pages differ a lot; what counts is the page in the middle."""
    now = time.time()
    times: dict[str, list[float]] = {"json.loads": [], "decode_page": [], "msgspec alone": []}
    sizes = []
    for seed in _SEEDS:
        for workspace, body in pages(seed, now):
            page = decode_page(body, workspace=workspace, now=now)
            if len(page.jobs) != _PAGE or page.problems:
                raise SystemExit("not a page as documented")
            sizes.append(len(body) / _PAGE / 1000)
            actions = {
                "json.loads": clocked(lambda: json.loads(body)),  # noqa: B023 - used here
                "decode_page": clocked(
                    lambda: decode_page(body, workspace=workspace, now=now)  # noqa: B023
                ),
                "msgspec alone": clocked(lambda: decode_listing(body)),  # noqa: B023
            }
            for name, seconds in interleaved(actions, _ROUNDS).items():
                times[name].append(median(seconds) / _PAGE * 1e6)
    against = zip(times["json.loads"], times["decode_page"], strict=True)
    return report(
        [
            Figure("faster than json.loads", [slow / fast for slow, fast in against], "times", 5),
            *(Figure(f"{name}, a job", values, "us") for name, values in times.items()),
            Figure("size of a job", sizes, "kB"),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
