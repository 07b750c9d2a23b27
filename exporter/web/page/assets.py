"""The page's style sheet and script, and the policy that allows only these."""

import base64
import hashlib

STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1d21; --dim: #5b6169; --line: #d9dce1;
  --card: #f5f6f8; --link: #0b57d0; --ok: #136c2e; --bad: #b3261e; --Running: #1a73e8;
  --Pending: #e8a100; --Creating: #f3cb6b; --Terminating: #8a6fd1; --Completed: #2e9e4f;
  --Failed: #d0362c; --Abnormal: #8e1c15; --Terminated: #878d96; --Unknown: #878d96; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14161a; --text: #e6e8eb; --dim: #a0a7b1; --line: #343941; --card: #1d2026;
    --link: #8ab4f8; --ok: #7bd88f; --bad: #ff8a80; --Running: #669df6; --Pending: #f2b92c;
    --Creating: #a98328; --Terminating: #a58be8; --Completed: #52b972; --Failed: #f0655b;
    --Abnormal: #b5403a; }
}
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 84rem; margin: 0 auto;
  padding: 1rem 1.25rem 3rem; color: var(--text); background: var(--back);
  overflow-wrap: anywhere; }
header { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; align-items: center; }
h1 { font-size: 1.4rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
h2 span, small, .dim { color: var(--dim); font-weight: normal; }
small { font-size: .85em; }
td small { display: block; }
a { color: var(--link); text-decoration: none; }
a:hover, a:focus { text-decoration: underline; }
nav { display: flex; flex-wrap: wrap; gap: 0 1rem; align-items: baseline; }
form { display: flex; gap: .4rem; flex: 1 1 16rem; max-width: 30rem; }
input { flex: 1; min-width: 0; }
input, button { font: inherit; padding: .35rem .6rem; color: inherit; background: var(--card);
  border: 1px solid var(--line); border-radius: 6px; }
button { cursor: pointer; }
.note { padding: .6rem .9rem; border-radius: 6px; background: var(--card);
  border-left: 4px solid var(--link); }
.note.failing { border-color: var(--bad); }
.pair { display: grid; gap: 0 3rem; }
@media (min-width: 60rem) { .pair { grid-template-columns: 2fr 3fr; } }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem 1rem .4rem 0;
  border-bottom: 1px solid var(--line); }
th { color: var(--dim); font-weight: 600; font-size: .85em; white-space: nowrap; }
td { min-width: 3.5rem; }
th:last-child, td:last-child { padding-right: 0; }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.w { width: 40%; }
.t { white-space: nowrap; }
.r { width: 20%; }
.u { min-width: 9rem; }
.rows td:first-child { min-width: 10rem; }
.more { margin: .4rem 0; color: var(--dim); }
.ok { color: var(--ok); }
.failing, .code { color: var(--bad); }
.phase { white-space: nowrap; }
.phase::before { content: ""; display: inline-block; width: .65em; height: .65em;
  margin-right: .5em; border-radius: 50%; background: currentColor; }
.bar { display: block; width: 100%; height: .8rem; margin-top: .3rem; border-radius: 3px; }
.bar .rest { fill: var(--card); }
@PHASES@
@media (max-width: 62rem) {
  .rows thead { position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%); }
  .rows { display: block; }
  .rows tbody { display: grid; gap: .6rem;
    grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
  .rows tr { display: block; padding: .4rem .7rem; background: var(--card);
    border-radius: 6px; }
  .rows td { display: grid; grid-template-columns: 6.5rem 1fr; padding: .15rem 0; border: 0;
    text-align: left; white-space: normal; }
  .rows td::before { content: attr(data-label); color: var(--dim); font-size: .85em; }
  .rows td > span { min-width: 0; }
  .rows .r { width: auto; }
}
@media (max-width: 44rem) {
  body { padding: .8rem .8rem 2rem; }
  form { flex-basis: 100%; max-width: none; }
  .few th, .few td { padding-right: .5rem; }
  .few .w { width: 24%; }
}
"""
_PHASE = ".phase.{0}::before {{ background: var(--{0}); }} .bar .{0} {{ fill: var(--{0}); }}"
_COLOURED = (
    "Running", "Pending", "Creating", "Terminating", "Completed", "Failed", "Abnormal",
    "Terminated", "Unknown",
)  # fmt: skip
STYLE = STYLE.replace("@PHASES@", "\n".join(_PHASE.format(name) for name in _COLOURED))

SCRIPT = """
(() => {
  "use strict";
  const seconds = 15;
  const main = document.querySelector("main");
  const live = document.getElementById("live");
  let timer = 0;
  let busy = false;
  const inUse = () => main.contains(document.activeElement) ||
    (!getSelection().isCollapsed && main.contains(getSelection().anchorNode));
  async function refresh() {
    clearTimeout(timer);
    if (document.hidden || busy) return;
    busy = true;
    try {
      if (!inUse()) {
        const url = location.origin + location.pathname + location.search;
        const signal = AbortSignal.timeout(10000);
        const response = await fetch(url, { cache: "no-store", signal });
        if (!response.ok) throw new Error("status " + response.status);
        const page = new DOMParser().parseFromString(await response.text(), "text/html");
        const next = page.querySelector("main");
        if (!next) throw new Error("unexpected page");
        if (!inUse()) main.replaceChildren(...next.childNodes);
        live.textContent = "Refreshed " + new Date().toLocaleTimeString();
        live.className = "dim";
      }
    } catch {
      live.textContent = "Refresh failed, retrying";
      live.className = "failing";
    }
    busy = false;
    wait();
  }
  function wait() {
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(refresh, seconds * 1000);
  }
  document.addEventListener("visibilitychange", refresh);
  live.textContent = "Refreshes every " + seconds + " s";
  wait();
})();
"""


def _csp_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; style-src {_csp_hash(STYLE)}; script-src {_csp_hash(SCRIPT)}; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The page's Content-Security-Policy."""
