"""The command ``check``: a table of what each target looks like."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from exporter.jobs.job import PHASES, UNKNOWN_PHASE
from exporter.polling.poller import Poller

_DAY_SECONDS = 86_400
_WIDTH = 100
_NAME_WIDTH = 16
_PAGING = {
    "page": "page: offset counts pages",
    "row": "row: offset counts jobs",
    None: "unknown: one page holds all jobs",
}


def report(pollers: Sequence[Poller], *, interval: float, sweep_interval: float) -> str:
    """Return a table of what was found at each target.

    Args:
        pollers: polled twice: by a sweep, then incrementally.
        interval: seconds between polls, for the cost of a day.
        sweep_interval: seconds between sweeps, likewise.
    """
    sections = [_section(poller, interval, sweep_interval) for poller in pollers]
    failed = sum(bool(poller.error) for poller in pollers)
    if len(pollers) > 1:
        sections.append(f"{failed} of {len(pollers)} targets failed." if failed else "All ok.")
    return "\n\n".join(sections)


def _section(poller: Poller, interval: float, sweep_interval: float) -> str:
    rows = _rows(poller, interval, sweep_interval)
    return "\n".join(line for name, value in rows for line in _row(name, value))


def _rows(poller: Poller, interval: float, sweep_interval: float) -> Iterator[tuple[str, str]]:
    yield "target", poller.name
    yield "identity", poller.target.credentials.identity
    if poller.error:
        yield "result", f"FAILED: {poller.error}"
        return
    yield "result", "ok"
    phases = Counter(known.job.phase for known in poller.known.fleet.jobs.values())
    total = f"{phases.total():,}"
    yield "jobs", total if phases else "none; the service omits jobs this identity cannot list"
    for phase in (*PHASES, UNKNOWN_PHASE):
        if phases[phase]:
            yield f"  {phase}", f"{phases[phase]:>{len(total)},}"
    yield "paging", _PAGING[poller.target.paging.mode]
    yield "pool names", _pool_names(poller)
    poll, sweep = poller.costs["incremental"], poller.costs["sweep"]
    yield "a poll costs", f"{_calls(poll.requests)}, {poll.seconds:.1f} s"
    yield "a sweep costs", f"{_calls(sweep.requests)}, {sweep.seconds:.1f} s"
    day = round(
        poll.requests * _DAY_SECONDS / interval + sweep.requests * _DAY_SECONDS / sweep_interval
    )
    schedule = f"a poll every {interval:g} s and a sweep every {sweep_interval:g} s"
    yield "a day costs", f"{_calls(day)}, with {schedule}"


def _pool_names(poller: Poller) -> str:
    """Return the number of pools, or why they could not be listed, which is not a failure."""
    if trouble := poller.target.pools.error:
        return f"only those seen in jobs; {trouble}"
    number = len(poller.known.fleet.pool_names)
    return f"{number:,} pool{'' if number == 1 else 's'}"


def _calls(number: int) -> str:
    return f"{number:,} API call{'' if number == 1 else 's'}"


def _row(name: str, value: str) -> list[str]:
    return textwrap.wrap(
        value,
        _WIDTH,
        initial_indent=f"{name:<{_NAME_WIDTH}}",
        subsequent_indent=" " * _NAME_WIDTH,
        break_long_words=False,
        break_on_hyphens=False,
    )
