"""Every query of the dashboards has an answer from a real Prometheus that scrapes the demo."""

import asyncio
import math
import re
import time

import aiohttp
import pytest
from e2e import prometheus as real
from grafana.dashboards import BOARDS, QUESTIONS, asked, selectors, variables

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

WORLD = ("--seed=11", "--jobs=300", "--rate=30")
OPTIONS = ("--web.listen-address=127.0.0.1:0", "--poll.interval=1s", "--api.retries=0")
PATIENCE = 45.0
SPAN = 60

MAY_BE_EMPTY = {
    (
        "exporter",
        "Credentials expire in",
        "A",
    ): "access keys, with which the demo signs, stay valid",
    ("exporter", "Targets", "E"): "access keys, with which the demo signs, stay valid",
}
"""Queries without an answer, and the reason."""


@pytest.fixture(params=["PATH", "PROMETHEUS3_DIR"])
def where(request):
    real.binary(request.param)
    return request.param


@pytest.fixture
async def demo(start):
    """The URLs of the simulated service and of the exporter that reads it."""
    program = start("demo", *WORLD, *OPTIONS)
    story = await program.said(r"service is at (\S+), the exporter at (\S+)\.\n")
    await program.said("Ctrl-C stops both")
    return story.groups()


@pytest.fixture
async def prometheus(start, tmp_path, where, demo):
    return await real.running(start, tmp_path, where, demo[1].removeprefix("http://"))


async def control(service, path, **document):
    """Tell the simulated service something, or ask it."""
    method = "POST" if document else "GET"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{service}/-/sim/{path}", json=document or None) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def trouble(service):
    """A job is recovered twice, with a downgrade, and fails; another waits; the service fails, too.

    All that may happen in the demo by itself, but not for sure within a minute.
    Returns the ids of the two jobs.
    """
    now = (await control(service, "truth"))["now"]

    async def do(what, job, **document):
        (job_id,) = (await control(service, "jobs", do=what, job=job, **document))["jobs"]
        await asyncio.sleep(1.5)  # a poll sees it, and a scrape
        return job_id

    new = {"pool": "public-ascend", "flavor": 1, "nodes": 2}
    failed, waits = [
        (await control(service, "jobs", do="create", at=now - 900, **new))["jobs"][0] for _ in "12"
    ]
    await do("queue", waits)
    await do("start", failed, at=now - 600)
    recovery = {"gap": 30, "downgraded_from": "npu_step_retry"}
    await do("recover", failed, policy="proc_restart", at=now - 300, **recovery)
    await do("recover", failed, policy="proc_restart", at=now - 200, **recovery)
    await do("finish", failed, phase="Failed", exit_code=137)
    for status, code in ((429, "ModelArts.0429"), (500, "ModelArts.0010")):
        await control(service, "faults", do="status", status=status, code=code, times=2)
    return [failed, waits]


def filled(text, chosen):
    """A text with its variables replaced, as Grafana does it."""
    times = {"__rate_interval": "30s", "__range": f"{SPAN}s"}
    return re.sub(
        r"\$\{?([a-z_]+)\}?", lambda match: {**times, **chosen}.get(match[1], match[0]), text
    )


def several(values):
    """The value of a variable of which several values are chosen."""
    return f"({'|'.join(map(escaped, values))})"


def escaped(value):
    return re.sub(r"[$^*{}\[\]'+?.()|]", r"\\\\\g<0>", value)


async def options(prometheus, variable, function, argument):
    """Values and texts that a variable offers."""
    if function == "label_values":
        selector, _, label = argument.rpartition(", ")
        now = time.time()
        found = await prometheus.api(
            f"label/{label}/values", **{"match[]": selector, "start": now - SPAN, "end": now}
        )
        return {value: value for value in found}
    answer = await prometheus.api("query", query=argument)
    lines = []
    for series in answer["result"]:
        name = series["metric"].pop("__name__", "")
        labels = ",".join(f'{key}="{value}"' for key, value in series["metric"].items())
        lines.append(f"{name}{{{labels}}} {series['value'][1]} {series['value'][0]}")
    pattern = variable["regex"].strip("/").replace("(?<", "(?P<")
    matches = [re.search(pattern, line) for line in lines]
    assert all(matches), lines
    return {match["value"]: match["text"] for match in matches}


async def choices(prometheus, board, *, every):
    """What is chosen: all, or every value by itself."""
    chosen = {}
    for name, (function, argument) in asked(board).items():
        variable = variables(board)[name]
        offered = await options(prometheus, variable, function, filled(argument, chosen))
        assert offered, f"{board['title']}: nothing to choose for {name}"
        assert all(offered.values())
        if not variable["includeAll"]:
            chosen[name] = next(iter(offered))
        else:
            chosen[name] = variable["allValue"] if every else several(offered)
    return chosen


async def has_data(prometheus, question, chosen):
    """Whether a query has an answer with a number in it; warnings fail it (`Prometheus.api`)."""
    expr = filled(question.expr, chosen)
    assert "$" not in expr.replace('"$1"', ""), expr
    if question.kind == "instant":
        data = await prometheus.api("query", query=expr)
        values = [float(series["value"][1]) for series in data["result"]]
    else:
        now = time.time()
        data = await prometheus.api("query_range", query=expr, start=now - SPAN, end=now, step=5)
        values = [float(value) for series in data["result"] for _, value in series["values"]]
    return any(map(math.isfinite, values))


async def answered(prometheus, question, chosen, jobs):
    ids = jobs if question.board == "job" else [""]
    return any([await has_data(prometheus, question, {**chosen, "job_id": one}) for one in ids])


async def unanswered(prometheus, questions, chosen, jobs):
    return [
        question
        for question in questions
        if not await answered(prometheus, question, chosen[question.board], jobs)
    ]


async def test_every_query_has_an_answer(prometheus, demo):
    await prometheus.until("count_over_time(up[5m]) >= 4")
    jobs = await trouble(demo[0])
    names = {question[:3] for question in QUESTIONS}
    assert MAY_BE_EMPTY.keys() <= names
    missing = [question for question in QUESTIONS if question[:3] not in MAY_BE_EMPTY]
    deadline = time.monotonic() + PATIENCE
    chosen = {name: await choices(prometheus, board, every=True) for name, board in BOARDS.items()}
    while missing and time.monotonic() < deadline:
        await asyncio.sleep(2)
        missing = await unanswered(prometheus, missing, chosen, jobs)
    assert missing == []

    known = set(await prometheus.api("label/__name__/values"))
    used = {name for each in QUESTIONS for name, *_ in selectors(each.expr)}
    assert used - known == {"modelarts_exporter_credentials_expiry_timestamp_seconds"}

    # Nothing is wrong with those that may be empty, and with values that are chosen one by one.
    chosen = {name: await choices(prometheus, board, every=False) for name, board in BOARDS.items()}
    empty = await unanswered(prometheus, QUESTIONS, chosen, jobs)
    assert {question[:3] for question in empty} <= MAY_BE_EMPTY.keys()


def test_the_variables_of_a_query_are_filled_in_as_grafana_does_it():
    text = 'increase(x{a=~"$pool"}[$__range]) label_replace("$1")'
    assert filled(text, {"pool": several(["a.b", "c"])}) == (
        'increase(x{a=~"(a\\\\.b|c)"}[60s]) label_replace("$1")'
    )
