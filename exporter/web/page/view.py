"""The status page as a whole."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from exporter.jobs.fleet import MAX_FAILURES
from exporter.polling.status import PollerStatus
from exporter.web.page.assets import SCRIPT, STYLE
from exporter.web.page.markup import NOTHING, Column, duration, elapsed, name, table, text
from exporter.web.page.sections import TargetJobs, failed, others, phases, pools, running, waiting
from exporter.web.page.summary import FEW_ROWS, MAX_QUERY, ROWS, Summary, search_words, summarize

_MAX_ERROR_LENGTH = 400

if TYPE_CHECKING:
    from exporter.jobs.fleet import Fleet


class StatusPage:
    """Renders the page, one at a time; summaries are cached until a poll changes the jobs.

    Args:
        version: of the exporter.
        telemetry_path: path of the metrics.
    """

    def __init__(self, *, version: str, telemetry_path: str) -> None:
        self._version = version
        # Relative, with a leading dot: works under a proxy's path prefix, never names another host.
        self._metrics = "./" + telemetry_path.lstrip("/")
        self._summaries: dict[int, tuple[Fleet, Summary]] = {}

    def render(self, targets: Sequence[PollerStatus], *, query: str, now: float) -> bytes:
        """Render the page as UTF-8.

        Args:
            targets: all targets.
            query: text to search for; "" shows everything.
            now: Unix seconds.
        """
        query = query[:MAX_QUERY].strip()
        html = self._page(query, self._main(targets, query, now))
        return html.encode("utf-8", "replace")

    def _main(self, targets: Sequence[PollerStatus], query: str, now: float) -> str:
        summaries = self._summarized(targets, query)
        several = len(targets) > 1
        sources = [
            TargetJobs(each.name if several else "", each.region, summary, each.pools)
            for each, summary in zip(targets, summaries, strict=True)
        ]
        limit = ROWS if query else FEW_ROWS
        counted = phases(sources) + ("" if query else _history(targets))
        return "".join(
            (
                _warning(targets),
                _found(query, sources) if query else _targets(targets, now),
                '<div class="pair">\n',
                f"<section>{counted}</section>\n<section>{pools(sources)}</section>\n</div>\n",
                failed(sources, now, limit),
                waiting(sources, now, limit),
                running(sources, now, limit),
                others(sources, now, limit),
            )
        )

    def _summarized(self, targets: Sequence[PollerStatus], query: str) -> list[Summary]:
        if words := search_words(query):
            return [summarize(each.fleet, words) for each in targets]
        # By identity: a fleet is immutable, and an id is not reused while the fleet is kept here.
        kept = self._summaries
        keys = [id(each.fleet) for each in targets]
        self._summaries = {
            key: kept.get(key) or (each.fleet, summarize(each.fleet))
            for key, each in zip(keys, targets, strict=True)
        }
        return [self._summaries[key][1] for key in keys]

    def _page(self, query: str, main: str) -> str:
        title = f"{text(query)} · ModelArts training jobs" if query else "ModelArts training jobs"
        return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>ModelArts training jobs</h1>
<form action="./" method="get" role="search">
<input type="search" name="q" value="{text(query, MAX_QUERY)}" maxlength="{MAX_QUERY}" \
placeholder="Name, ID, user, pool, phase, …" aria-label="Search jobs" autocomplete="off">
<button>Search</button>
</form>
<nav>
<a href="#failures">Failures</a>
<a href="#waiting">Waiting</a>
<a href="#running">Running</a>
<a href="{text(self._metrics, 1000)}">Metrics</a>
<a href="./-/healthy">Health</a>
<a href="./-/ready">Readiness</a>
<small>modelarts-exporter {text(self._version)}</small>
<small id="live"></small>
</nav>
</header>
<main>
{main}</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _targets(targets: Sequence[PollerStatus], now: float) -> str:
    columns = (
        Column("Target"), Column("State"), Column("Known jobs", "n"), Column("Last poll"),
        Column("Last success", "t"),
    )  # fmt: skip
    first = sorted(targets, key=lambda each: each.polled and not each.error)[:ROWS]
    rows = (
        (
            name(each.name),
            _state(each),
            f"{len(each.fleet):,}",
            _cost(each),
            "never" if each.last_success is None else elapsed(each.last_success, now, after=" ago"),
        )
        for each in first
    )
    left = len(targets) - len(first)
    more = f'<p class="more">and {left:,} more</p>\n' if left else ""
    body = table(columns, rows, empty="No targets.")
    return f"<section>\n<h2>Targets</h2>\n{body}{more}</section>\n"


def _cost(target: PollerStatus) -> str:
    """Of the last incremental poll, else of the last sweep."""
    cost = target.costs.get("incremental") or target.costs.get("sweep")
    return f"{cost.requests:,} requests, {cost.seconds:.2f} s" if cost else NOTHING


def _state(target: PollerStatus) -> str:
    if not target.polled:
        return "not polled yet"
    if target.error:
        return f'<span class="failing">failing: {text(target.error, _MAX_ERROR_LENGTH)}</span>'
    return '<span class="ok">ok</span>'


def _warning(targets: Sequence[PollerStatus]) -> str:
    """Note that some of the jobs shown are outdated or missing."""
    failing = sum(bool(each.error) for each in targets)
    new = sum(not each.polled for each in targets)
    if not failing and not new:
        return ""
    if failing:
        sentence = f"{failing} of {len(targets)} targets cannot be read. Their jobs are shown as of"
        return f'<p class="note failing">{sentence} the last successful poll.</p>\n'
    have = "has" if new == 1 else "have"
    return f'<p class="note">{new} of {len(targets)} targets {have} not been read yet.</p>\n'


def _history(targets: Sequence[PollerStatus]) -> str:
    """Note that older finished jobs are not counted."""
    longest = max((each.history for each in targets), default=0)
    if not longest:
        return ""
    return (
        f'<p class="more">Finished jobs are counted for {duration(longest)} after they end '
        "(jobs.history).</p>\n"
    )


def _found(query: str, sources: Sequence[TargetJobs]) -> str:
    number = sum(sum(source.summary.phases.values()) for source in sources)
    jobs = "job matches" if number == 1 else "jobs match"
    shown = text(query, MAX_QUERY)
    return (
        f'<p class="note">{number:,} {jobs} “<bdi>{shown}</bdi>”. <a href="./">Show all</a></p>\n'
        '<p class="more">The search covers unfinished jobs, jobs that ended recently '
        f"(jobs.retention), and the last {MAX_FAILURES} failures.</p>\n"
    )
