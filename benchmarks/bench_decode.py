"""Decoding pages of 50 jobs into `Job`s, compared with ``json.loads`` of the same bytes.

The pages come from simulated services with several seeds: the active jobs, which every poll reads,
and some pages of finished jobs, which sweeps read.
"""

import json
import sys
import time
from collections.abc import Iterator

from common import Figure, clocked, interleaved, median, report

from exporter.modelarts.decode.jobs import decode_page
from exporter.modelarts.decode.responses import decode_listing
from exporter.simulator.behaviour import Behaviour
from exporter.simulator.catalog import DEFAULT_WORKSPACE, VISION_WORKSPACE
from exporter.simulator.job import ACTIVE
from exporter.simulator.living import LivingFleet
from exporter.simulator.query import parse
from exporter.simulator.search import Searches

_SEEDS = range(4)
_JOBS = 5000
_PAGE = 50
_PAGES = 6
_ROUNDS = 15


def pages(seed: int, now: float) -> Iterator[tuple[str, str, bytes]]:
    """Kind, workspace and bytes of some pages of a simulated service."""
    behaviour = Behaviour()
    fleet = LivingFleet.populated(seed, now, jobs=_JOBS)
    searches = Searches(fleet, behaviour)
    for workspace in (DEFAULT_WORKSPACE, VISION_WORKSPACE):
        query = {"limit": _PAGE, "workspace_id": workspace}
        active = {"key": "phase", "operator": "in", "value": list(ACTIVE)}
        yield "active", workspace, answer(searches, query | {"filters": [active]}, behaviour)
        whole = len(fleet.index.sorted(workspace)) // _PAGE
        for number in range(1, whole, max(whole // _PAGES, 1)):
            yield "history", workspace, answer(searches, query | {"offset": number}, behaviour)


def answer(searches: Searches, query: dict[str, object], behaviour: Behaviour) -> bytes:
    """The response body of a search."""
    return searches.answer(parse(json.dumps(query).encode(), behaviour))


def main() -> int:
    """Measure every page separately, because pages differ a lot; the median page counts."""
    now = time.time()
    ratios: dict[str, list[float]] = {"active": [], "history": []}
    rows: dict[str, list[float]] = {}
    for seed in _SEEDS:
        for kind, workspace, body in pages(seed, now):
            page = decode_page(body, workspace=workspace, now=now)
            if not page.jobs or page.problems:
                raise SystemExit("not a page as documented")
            actions = {
                "json.loads": clocked(lambda: json.loads(body)),  # noqa: B023 - used here
                "decode_page": clocked(
                    lambda: decode_page(body, workspace=workspace, now=now)  # noqa: B023
                ),
                "msgspec alone": clocked(lambda: decode_listing(body)),  # noqa: B023
            }
            times = {name: median(took) for name, took in interleaved(actions, _ROUNDS).items()}
            ratios[kind].append(times["json.loads"] / times["decode_page"])
            for name, seconds in times.items():
                rows.setdefault(f"{kind}: {name}, a job (us)", []).append(
                    seconds / len(page.jobs) * 1e6
                )
            rows.setdefault(f"{kind}: size of a job (kB)", []).append(
                len(body) / len(page.jobs) / 1000
            )
    return report(
        [
            *(
                Figure(f"{kind} jobs: faster than json.loads", found, "times", 5)
                for kind, found in ratios.items()
            ),
            *(Figure(name, values, "") for name, values in rows.items()),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
