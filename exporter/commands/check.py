"""The command ``check``: what each target looks like, for people."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from exporter.jobs.job import PHASES, UNKNOWN_PHASE
from exporter.polling.poller import Poller
from exporter.polling.status import PollerStatus

_DAY_SECONDS = 86_400
_WIDTH = 100
_NAMES = 16
_PAGING = {
    "page": "page: offset counts pages",
    "row": "row: offset counts jobs",
    None: "not known: one page holds all jobs",
}


def report(pollers: Sequence[Poller], *, interval: float, sweep_interval: float) -> str:
    """A table of what was found at each target.

    Args:
        pollers: polled twice: a sweep, then incrementally.
        interval: seconds between polls, to tell what a day will cost.
        sweep_interval: seconds between sweeps, likewise.
    """
    targets = [poller.status() for poller in pollers]
    sections = [_section(target, interval, sweep_interval) for target in targets]
    failed = sum(bool(target.error) for target in targets)
    if len(targets) > 1:
        sections.append(f"{failed} of {len(targets)} targets failed." if failed else "All good.")
    return "\n\n".join(sections)


def _section(target: PollerStatus, interval: float, sweep_interval: float) -> str:
    rows = _rows(target, interval, sweep_interval)
    return "\n".join(line for name, value in rows for line in _row(name, value))


def _rows(
    target: PollerStatus, interval: float, sweep_interval: float
) -> Iterator[tuple[str, str]]:
    yield "target", target.name
    yield "identity", target.identity
    if target.error:
        yield "result", f"FAILED: {target.error}"
        return
    yield "result", "good"
    phases = Counter(known.job.phase for known in target.fleet.jobs.values())
    total = f"{phases.total():,}"
    yield "jobs", total if phases else "none; the service leaves out what this identity may not see"
    for phase in (*PHASES, UNKNOWN_PHASE):
        if phases[phase]:
            yield f"  {phase}", f"{phases[phase]:>{len(total)},}"
    yield "paging", _PAGING[target.pagination]
    yield "pool names", _pool_names(target)
    poll, sweep = target.costs["incremental"], target.costs["sweep"]
    yield "a poll costs", f"{_calls(poll.requests)}, {poll.seconds:.1f} s"
    yield "a sweep costs", f"{_calls(sweep.requests)}, {sweep.seconds:.1f} s"
    day = round(
        poll.requests * _DAY_SECONDS / interval + sweep.requests * _DAY_SECONDS / sweep_interval
    )
    often = f"a poll every {interval:g} s and a sweep every {sweep_interval:g} s"
    yield "a day costs", f"{_calls(day)}, with {often}"


def _pool_names(target: PollerStatus) -> str:
    """How many pools have been told; that they are not is no failure."""
    if trouble := target.pools_trouble:
        return f"only those that jobs bring; {trouble}"
    number = len(target.fleet.pool_names)
    return f"{number:,} pool{'' if number == 1 else 's'}"


def _calls(number: int) -> str:
    return f"{number:,} API call{'' if number == 1 else 's'}"


def _row(name: str, value: str) -> list[str]:
    return textwrap.wrap(
        value,
        _WIDTH,
        initial_indent=f"{name:<{_NAMES}}",
        subsequent_indent=" " * _NAMES,
        break_long_words=False,
        break_on_hyphens=False,
    )
