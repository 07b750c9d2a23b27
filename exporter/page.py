"""The page for people who open the exporter in a browser: plain HTML, no scripts, no loading."""

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from exporter.poller import Poller

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1b1b; background: #fff; overflow-wrap: anywhere; }
a { color: #0b57d0; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem 1rem .4rem 0;
  border-bottom: 1px solid #ccc; }
.ok { color: #136c2e; }
.failing { color: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { color-scheme: dark; }
  body { color: #e6e6e6; background: #161616; }
  a { color: #8ab4f8; }
  th, td { border-color: #444; }
  .ok { color: #7bd88f; }
  .failing { color: #ff8a80; }
}
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page's Content-Security-Policy."""


def landing(pollers: Sequence[Poller], *, version: str, telemetry_path: str) -> str:
    """The page: what this is, where the metrics are, how each target does."""
    rows = "".join(map(_row, pollers)) or '<tr><td colspan="3">No targets.</td></tr>\n'
    # Relative, with a dot in front: right behind a proxy's prefix, never another scheme or host.
    metrics = escape("./" + telemetry_path.lstrip("/"))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ModelArts exporter</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>ModelArts exporter</h1>
<p>Version {escape(version)}. Training jobs of Huawei Cloud ModelArts as Prometheus metrics.</p>
<ul>
<li><a href="{metrics}">Metrics</a></li>
<li><a href="./-/healthy">Health</a></li>
<li><a href="./-/ready">Readiness</a></li>
</ul>
<h2>Targets</h2>
<table>
<thead><tr><th scope="col">Target</th><th scope="col">State</th><th scope="col">Last success</th>\
</tr></thead>
<tbody>
{rows}</tbody>
</table>
</body>
</html>
"""


def _row(poller: Poller) -> str:
    state, text = _state(poller)
    return (
        f"<tr><td>{escape(poller.name)}</td>"
        f'<td class="{state}">{escape(text)}</td>'
        f"<td>{_time(poller.last_success)}</td></tr>\n"
    )


def _state(poller: Poller) -> tuple[str, str]:
    """A class of the style sheet, and the state in words."""
    if not poller.ended_polls:
        return "waiting", "not polled yet"
    if poller.error:
        return "failing", f"failing: {poller.error}"
    return "ok", "ok"


def _time(seconds: float | None) -> str:
    """Unix seconds as an element."""
    if seconds is None:
        return "never"
    moment = datetime.fromtimestamp(seconds, UTC)
    return f'<time datetime="{moment:%Y-%m-%dT%H:%M:%SZ}">{moment:%Y-%m-%d %H:%M:%S} UTC</time>'
