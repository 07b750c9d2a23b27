"""The command ``check``: what each target looks like, and whether ``serve`` would start."""

import asyncio
import json
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from exporter.app.exporter import Exporter
from exporter.commands.console import in_background, show_progress_line
from exporter.commands.discovered import Discovered
from exporter.errors import PollError
from exporter.jobs.job import PHASES, UNKNOWN_PHASE
from exporter.modelarts.client import GET_POOL, GET_QUOTAS, LIST_POOLS
from exporter.modelarts.verification.marks import pages_to_verify
from exporter.polling.poller import Poller
from exporter.polling.status import PollCost, PollerStatus
from exporter.settings.durations import show
from exporter.settings.schema import PollSettings

OPTIONAL_PERMISSIONS = {
    LIST_POOLS: "names of resource pools and how full they are",
    GET_POOL: "places of waiting jobs in the queues of pools",
    GET_QUOTAS: "quotas",
}
"""IAM actions that nothing depends on, and what they give."""

_DAY_SECONDS = 86_400
_WIDTH = 100
_NAME_WIDTH = 16
_GRANTED = {True: "granted", False: "not granted", None: "not needed yet"}
_PAGING = {
    "page": "page: offset counts pages",
    "row": "row: offset counts jobs",
    None: "unknown: one page holds all jobs",
}

Rows: TypeAlias = Iterator[tuple[str, str]]


class Finding(NamedTuple):
    """What was found at a target.

    Attributes:
        status: of its poller.
        error: why it failed; "" if it did not.
        listed: number of jobs; None = unknown.
        pools: pools with a name; None = they could not be listed.
        phases: jobs by phase, finished ones as far as ``jobs.history`` goes; None if only one page
            was read.
        poll: cost of an incremental poll, and
        sweep: of reading everything; None likewise.
    """

    status: PollerStatus
    error: str
    listed: int | None = None
    pools: int | None = None
    phases: Mapping[str, int] | None = None
    poll: PollCost | None = None
    sweep: PollCost | None = None

    def requests_per_day(self, settings: PollSettings) -> int | None:
        """API requests a day with the configured intervals: polls, and pages to verify."""
        if self.poll is None or self.sweep is None:
            return None
        polls = _DAY_SECONDS / settings.interval
        rounds = _DAY_SECONDS / settings.sweep_interval
        pages = min(polls, rounds * pages_to_verify(self.listed or 0))
        pools = 0.0
        if settings.pools_interval:
            pools = self.status.pools_cost * _DAY_SECONDS / settings.pools_interval
        return round(polls * self.poll.requests + pages + pools)


async def read_targets(running: Exporter, *, quick: bool) -> list[Finding]:
    """Read every target, and show how far that is.

    Args:
        running: the exporter, without a state file.
        quick: read one page of each workspace only.
    """
    async with in_background(_show_progress(running, quick=quick)):
        if quick:
            return await asyncio.gather(*map(_read_first_pages, running.pollers))
        await running.poll_once()
        await running.poll_once()  # costs what every later poll costs
        return [finding(poller.status()) for poller in running.pollers]


async def _read_first_pages(poller: Poller) -> Finding:
    try:
        pages = await poller.read_first_pages()
    except PollError as error:
        return Finding(poller.status(), str(error))
    return Finding(poller.status(), "", pages.listed, pages.pools)


def finding(status: PollerStatus) -> Finding:
    """Return what two polls have found: a sweep, then an incremental one."""
    if status.error:
        return Finding(status, status.error)
    phases = status.fleet.jobs_by_phase()
    pools = None if status.pools_trouble else len(status.fleet.pool_names)
    costs = status.costs
    return Finding(
        status, "", len(status.fleet), pools, phases, costs["incremental"], costs["sweep"]
    )


async def _show_progress(running: Exporter, *, quick: bool) -> None:
    waiting_for = "Signing in, reading one page ..." if quick else "Signing in ..."
    while True:
        sweeps = [poller.target.sweep_progress for poller in running.pollers]
        jobs, total = (sum(sweep[part] for sweep in sweeps) for part in (0, 1))
        # The service's total may be wrong, and some targets may not have reported one yet.
        share = f"{jobs:,} of {total:,} jobs" if total >= jobs > 0 else f"{jobs:,} jobs"
        if jobs:
            waiting_for = "Reading pool names ..."
        if any(poller.ended_polls for poller in running.pollers):
            waiting_for = "Polling once more ..."
        show_progress_line(f"Reading the job list: {share}" if jobs else waiting_for)
        await asyncio.sleep(0.9)


# --- For people -----------------------------------------------------------------------------------


def table(
    findings: Sequence[Finding],
    notes: Sequence[str],
    settings: PollSettings,
    discovered: Sequence[Discovered] = (),
) -> str:
    """Return a table for people.

    Args:
        findings: one for each target; none with ``--offline``.
        notes: from `exporter.commands.preflight.preflight`.
        settings: the intervals, for the cost of a day.
        discovered: what lookups and files have found.
    """
    sections = [_section(_rows_of_discovered(each)) for each in discovered]
    sections += [_section(_rows(finding, settings)) for finding in findings]
    if notes:
        sections.append(_section(("note", note) for note in notes))
    failed = sum(bool(finding.error) for finding in findings)
    if any(each.error for each in discovered):
        sections.append("Not all targets were found.")
    elif not findings:
        sections.append("The configuration is ok.")
    elif len(findings) > 1:
        sections.append(f"{failed} of {len(findings)} targets failed." if failed else "All ok.")
    return "\n\n".join(sections)


def _rows_of_discovered(each: Discovered) -> Rows:
    yield "discovery", f"{each.looks_for} of {each.source}"
    yield "found", f"{len(each.found):,}: {', '.join(each.found)}" if each.found else "nothing"
    if each.error:
        yield "result", f"FAILED: {each.error}"


def _rows(finding: Finding, settings: PollSettings) -> Rows:
    status = finding.status
    yield "target", status.name
    yield "identity", status.identity
    if finding.error:
        yield "result", f"FAILED: {finding.error}"
        return
    yield "result", "ok"
    yield from _job_rows(finding)
    yield "pool names", _pool_names(finding)
    for action, gives in OPTIONAL_PERMISSIONS.items():
        granted = status.permissions.get(action)
        if finding.poll or granted is not None:
            yield _GRANTED[granted], f"{action}, for {gives}; optional"
    if finding.poll and finding.sweep:
        yield "a poll costs", _cost(finding.poll)
        yield "a sweep costs", f"{_cost(finding.sweep)}; the first start needs one"
        if status.pools_cost:
            pools = show(settings.pools_interval)
            yield "pools cost", f"{_calls(status.pools_cost)} every {pools}"
        polls, verified = show(settings.interval), show(settings.sweep_interval)
        schedule = f"a poll every {polls}, and every job verified within {verified}"
        calls = _calls(finding.requests_per_day(settings) or 0)
        yield "a day costs", f"about {calls}, with {schedule}"


def _job_rows(finding: Finding) -> Rows:
    total = "unknown" if finding.listed is None else f"{finding.listed:,}"
    if finding.listed == 0:
        yield "jobs", "none; the service omits jobs this identity cannot list"
    elif finding.listed and finding.phases is None:
        yield "jobs", f"{total}, according to the service"
    else:
        yield "jobs", total
    if finding.phases is None:
        return
    for phase in (*PHASES, UNKNOWN_PHASE):
        if number := finding.phases[phase]:
            yield f"  {phase}", f"{number:>{len(total)},}"
    yield "paging", _PAGING[finding.status.pagination]


def _pool_names(finding: Finding) -> str:
    """Return the number of pools, or why they could not be listed, which is not a failure."""
    if finding.pools is None:
        return f"only those seen in jobs; {finding.status.pools_trouble}"
    return f"{finding.pools:,} pool{'' if finding.pools == 1 else 's'}"


def _cost(cost: PollCost) -> str:
    return f"{_calls(cost.requests)}, {cost.seconds:.1f} s"


def _calls(number: int) -> str:
    return f"{number:,} API call{'' if number == 1 else 's'}"


def _section(rows: Rows) -> str:
    return "\n".join(line for name, value in rows for line in _row(name, value))


def _row(name: str, value: str) -> list[str]:
    return textwrap.wrap(
        value,
        _WIDTH,
        initial_indent=f"{name:<{_NAME_WIDTH}}",
        subsequent_indent=" " * _NAME_WIDTH,
        break_long_words=False,
        break_on_hyphens=False,
    )


# --- For machines ---------------------------------------------------------------------------------


def document(
    findings: Sequence[Finding],
    notes: Sequence[str],
    settings: PollSettings,
    discovered: Sequence[Discovered] = (),
) -> str:
    """Return the same as JSON. Fields may be added; docs/troubleshooting.md describes them."""
    content = {
        "ok": not any([each.error for each in findings] + [each.error for each in discovered]),
        "notes": list(notes),
        "discovery": [each._asdict() for each in discovered],
        "targets": [_json(finding, settings) for finding in findings],
    }
    return json.dumps(content, indent=2)


def _json(finding: Finding, settings: PollSettings) -> dict[str, Any]:
    status = finding.status
    return {
        "target": status.name,
        **status.labels,
        "identity": status.identity,
        "ok": not finding.error,
        "error": finding.error or None,
        "jobs": finding.listed,
        "jobs_by_phase": finding.phases,
        "pagination": status.pagination,
        "pools": finding.pools,
        "missing_permissions": [
            {"action": action, "gives": OPTIONAL_PERMISSIONS[action]}
            for action in status.missing_permissions
        ],
        "optional_permissions": [
            {"action": action, "gives": gives, "granted": status.permissions.get(action)}
            for action, gives in OPTIONAL_PERMISSIONS.items()
        ],
        "poll": finding.poll and finding.poll._asdict(),
        "sweep": finding.sweep and finding.sweep._asdict(),
        "pools_requests": status.pools_cost,
        "requests_per_day": finding.requests_per_day(settings),
    }


OUTPUTS: Mapping[str, Callable[..., str]] = {
    "text": table,
    "json": document,
}
