"""The shipped rules and route with all durations divided, so that hours pass in minutes.

With `SPEED` 60, a scrape, a poll and an evaluation every second are those of every minute.
"""

import re
from pathlib import Path

import yaml

SPEED = 60
SHIPPED = Path(__file__).parents[2] / "deploy/prometheus"
RULES = sorted(SHIPPED.glob("modelarts.*.yml"))
ROUTE = SHIPPED / "alertmanager.example.yml"

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(?<=[\[: ])(\d+)([smhd])(?=[\]:)\s])")
_THRESHOLDS = (
    ("> 900  # <-- at least", "> 15  # <-- at least"),
    ("> 3600  # <-- jobs.ret", "> 60  # <-- jobs.ret"),
)
"""Seconds that are numbers in expressions: the age of data, and jobs.retention."""


def _shorter(duration):
    number, unit = int(duration[:-1]), duration[-1]
    return f"{number * _SECONDS[unit] * 1000 // SPEED}ms"


def _expression(text):
    for slow, fast in _THRESHOLDS:
        text = text.replace(slow, fast)
    return _DURATION.sub(lambda found: _shorter(found[0]), text)


def rules(folder):
    """Write the rules to a folder; the names of the files."""
    for source in RULES:
        document = yaml.safe_load(source.read_text())
        for group in document["groups"]:
            group.pop("interval", None)
            for rule in group["rules"]:
                rule["expr"] = _expression(rule["expr"])
                for name in {"for", "keep_firing_for"} & rule.keys():
                    rule[name] = _shorter(rule[name])
        (folder / source.name).write_text(yaml.safe_dump(document))
    return [source.name for source in RULES]


def route(url):
    """The configuration for Alertmanager, in which every receiver is a webhook.

    Args:
        url: of the webhook; the name of the receiver is appended.
    """
    document = yaml.safe_load(ROUTE.read_text())

    def shorten(route):
        for name in {"group_wait", "group_interval", "repeat_interval"} & route.keys():
            route[name] = _shorter(route[name])
        for child in route.get("routes", ()):
            shorten(child)

    shorten(document["route"])
    receivers = []
    for receiver in document["receivers"]:
        ways = [way for kind, ways in receiver.items() if kind != "name" for way in ways]
        (resolved,) = {way["send_resolved"] for way in ways}
        webhook = {"url": url + receiver["name"], "send_resolved": resolved}
        receivers.append({"name": receiver["name"], "webhook_configs": [webhook]})
    return {
        "route": document["route"],
        "inhibit_rules": document["inhibit_rules"],
        "receivers": receivers,
    }
