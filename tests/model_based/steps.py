"""Random lives: a seed makes a configuration and steps, steps are carried out, failures shrunk.

A step is a tuple of a word and small numbers; every step can be carried out in every situation, so
that any subset of a failing list of steps is a list of steps, too.
"""

import asyncio
import random

from model_based.hands import ODD, WORKSPACES
from model_based.oracle import MismatchError
from model_based.rig import EMPTY_LIST, FAULTS, FILTERS, INTERVAL, PART, POINTS, Rig
from model_based.virtual import StuckError, run

from exporter.simulator.faults import Fault
from exporter.simulator.job import TERMINAL

WORLD = (
    *("create",) * 4,
    *("queue", "start", "start", "start", "interrupt", "interrupt", "recover", "stop"),
    *("finish", "finish", "finish", "delete", "reactivate", "bounce", "blink"),
)
OLD = (*("delete",) * 3, *("correct",) * 3, "emerge", "emerge", "swap", "swap", "bounce")
HIDING = ("hide", "hide", "show")
WEIGHTS = {
    "world": 50,
    "old": 6,
    "hiding": 1.5,
    "scatter": 0.7,
    "row": 0.7,
    "sudden": 14,
    "storm": 3,
    "burst": 1,
    "flood": 1,
    "massacre": 0.6,
    "wait": 22,
    "sleep": 3,
    "fault": 7,
    "calm": 5,
    "behave": 3,
    "shut": 2,
    "odd": 3,
    "even": 1.5,
    "slow": 1,
    "scrape": 3,
    "disk": 0.7,
    "skew": 0.5,
    "flip": 0.1,
    "restart": 1.2,
    "kill": 1.5,
    "reload": 2,
    "newborn": 0.5,
    "quiet": 0.5,
}
WAITS = (0, 0, 0.001, 0.25, 0.999, 1, 5, 15, 30, 60, 60, 60, 61, 120, 300)
TIMES = (1, 1, 1, 2, 3, 8)
HISTORIES = (7200.0, 100_000.0, 0.0)
UNTRUE = ("replace", "same_page", "truncate")
"""Faults after which a job that lists omit may seem to be nowhere."""
SLEEPS = (10, 300, 3599, 7200, 20_000, 90_000)


def config_of(seed):
    chance = random.Random(f"config {seed}")
    return {
        "seed": seed,
        "offset": chance.choice(("page", "row")),
        "fixed": chance.random() < 0.2,
        "state": chance.choice(("file", "file", "memory")),
        "past": chance.choice((0, 0, 3, 10, 20, 52, 60, 110, 160, 300, 600)),
        "together": chance.choice((1, 1, 1, 7, 60, 120)),
        "disordered": chance.random() < 0.15,
        "hides": chance.random() < 0.3,
        "totals": chance.choice(("documented", "documented", "page", "lies")),
        "part": chance.choice((3, 40)),
        "history": chance.choice((None, None, 7200.0, 100_000.0)),
        "retention": chance.choice((3600.0, 3600.0, 0.0)),
        "pools": chance.randrange(3),
        "sweep_interval": chance.choice((180.0, 180.0, 600.0, 3600.0)),
        "latency": chance.choice((0.0, 0.05, 0.5)),
        "shut": chance.choice(("narrow", "forbid")),
        "rate": chance.choice((5.0, 5.0, 1.0)),
        "unified": chance.choice(("taken", "taken", "taken", "rejected", "ignored")),
    }


def steps_of(seed, number):
    chance = random.Random(f"steps {seed}")
    return [
        _step(chance, name) for name in chance.choices([*WEIGHTS], [*WEIGHTS.values()], k=number)
    ]


def _step(chance, name):
    number, how = chance.randrange(20), chance.randrange(2000)
    make = {
        "world": lambda: (chance.choice(WORLD), _position(chance), how),
        "sudden": lambda: (name, 1 + number % 9, chance.choice(WORLD), _position(chance), how),
        "storm": lambda: (name, 1 + number % 5, chance.choice((1, 3, 20, 55)), how % 4),
        "flood": lambda: (name, chance.choice((20, 60, 110)), how),
        "burst": lambda: (name, chance.choice((5, 20, 49, 50, 51, 70)), how),
        "massacre": lambda: (
            name, chance.choice((3, 20, 49, 60)), chance.choice((1, 1, 3)), how % 2,
        ),
        "old": lambda: (chance.choice(OLD), chance.randrange(1000), how),
        "hiding": lambda: (chance.choice(HIDING), chance.randrange(1000), how),
        "scatter": lambda: (name, chance.choice((2, 5, 20)), how),
        "row": lambda: (name, chance.choice((5, 60, 150)), how),
        "wait": lambda: (name, chance.choice(WAITS)),
        "sleep": lambda: (name, chance.choice(SLEEPS), number % 2),
        "fault": lambda: (name, how % len(FAULTS), 1 + number % 6, chance.choice(TIMES)),
        "behave": lambda: (name, number % 4, how % 8, how // 8 % 8),
        "restart": lambda: (name, number % 2, int(number > 17), how % 5),
        "kill": lambda: (name, how % len(POINTS), 1 + number % 8, int(number > 17), how % 5),
        "odd": lambda: (name, _position(chance), how % len(ODD)),
    }.get(name)  # fmt: skip
    return (name, number, how) if make is None else make()


def _position(chance):
    """Of a job, from the newest; mostly a new one."""
    return chance.choice((0, 0, 1, 2, 3, 5, 8, 20, 51, 140))


async def _carried_out(config, steps, told):
    async with Rig(config) as rig:
        told.rig = rig
        for step in steps:
            told.position += 1
            rig.world.advance(rig.service_clock())
            await _carry_out(rig, *step)
            rig.check()
        told.position += 1
        await _be_quiet(rig)


async def _carry_out(rig, name, *numbers):  # noqa: C901, PLR0912, PLR0915 - a list of cases
    hands, wire = rig.hands, rig.wire
    match name, *numbers:
        case "sudden", countdown, *rest:
            wire.sudden.append((countdown, lambda: _in_world(hands, *rest)))
        case "storm", countdown, number, newest:
            wire.sudden.append((countdown, lambda: _storm(hands, number, newest)))
        case "flood", number, how:
            _flood(hands, number, how)
        case "burst", number, how:
            hands.create(how, number)
        case "scatter", number, how:
            hands.scatter(number, how)
        case "row", number, how:
            hands.delete_row(number, how)
        case "hide" | "show", which, how:
            _hide(rig, name, which, how)
        case "massacre", number, stride, newest:
            _massacre(rig.world, number, stride, newest=newest)
        case "wait", seconds:
            await asyncio.sleep(seconds)
        case "sleep", seconds, monotonic:
            rig.sleep_machine(seconds, monotonic=bool(monotonic))
            await asyncio.sleep(0.01)
        case "fault", which, nth, times:
            _set_fault(rig, which, nth, times)
        case "calm", *_:
            wire.faults.clear()
            wire.latency = rig.config["latency"]
        case "behave", *which:
            if not (rig.config.get("hides") and which[0] > 1):
                _behave(rig.behaviour, *which)
        case "shut", *_:
            _shut(rig)
        case "odd", which, how:
            _make_odd(rig, which, how)
        case "even", *_:
            hands.make_even()
        case "slow", number, _:
            wire.latency = (0.0, 0.2, 1.0, 4.0)[number % 4]
        case "scrape", *_:
            rig.poller.state.mark_scraped(rig.publisher.exposition.generation)
        case "disk", number, _:
            rig.full_disk = 1 + number % 3
        case "skew", number, _:
            rig.skew((number - 10) * 60.0)
        case "flip", *_:
            _flip(rig)
        case "restart", kill, lose, which:
            await _restart(rig, "kill" if kill else "stop", lose, which)
        case "kill", point, nth, lose, which:
            await rig.kill_at(point, nth, 3 * INTERVAL)
            await _restart(rig, "kill", lose, which)
        case "reload", number, how:
            await _reload(rig, number, how % 5)
        case "newborn", number, how:
            await rig.restart("kill", lose_state=True)
            await rig.kill_at(PART, 1 + number, INTERVAL)
            await _restart(rig, "kill", 0, how % 5)
        case "quiet", *_:
            await _be_quiet(rig)
        case _:
            _in_world(hands, name, *numbers)


def _in_world(hands, name, which, how):
    if name == "create":
        hands.create(how)
    else:
        hands.do(name, which, how)


def _storm(hands, number, how):
    """Many jobs come, or go, between two requests."""
    if how == 3:
        hands.create(how, number)
    else:
        _massacre(hands.world, number, 1, newest=how)


def _flood(hands, number, how):
    """Jobs that are over before anybody can see them run, all in one workspace."""
    there = {job.id for job in hands.world}
    hands.create(5 * (how % 200), number, step=10)
    for job in [job for job in hands.world if job.id not in there]:
        hands.world.start(job)
        hands.world.finish(job, TERMINAL[how % 4])


def _massacre(world, number, stride, *, newest):
    jobs = sorted(world, key=lambda job: (job.created, job.id), reverse=bool(newest))
    for job in jobs[: number * stride : stride]:
        world.delete(job)


def _set_fault(rig, which, nth, times):
    if rig.config.get("hides") and FAULTS[which]["do"] in UNTRUE:
        return
    if which == EMPTY_LIST:
        # Several in a row, or one where no call is allowed, are as good as an empty project.
        set_already = any(fault.do == "replace" for fault in rig.wire.faults._faults)
        if set_already or rig.config["shut"] == "forbid":
            return
        times = 1
    rig.wire.faults.add(Fault(**FAULTS[which], nth=nth, times=times))


def _hide(rig, name, which, how):
    """Lists omit a job; as in `_shut`, only if calls tell that it is there."""
    if rig.config.get("hides"):
        rig.hands.do(name, which, how)
        for attempt in rig.running:
            attempt.odd |= rig.hands.hidden


def _behave(behaviour, which, first, second):
    chosen = [
        frozenset(name for bit, name in enumerate(FILTERS) if number >> bit & 1)
        for number in (first, second)
    ]
    if which == 0:
        behaviour.totals = ("documented", "page", "lies")[first % 3]
    elif which == 1:
        behaviour.records_in_list = bool(first % 2)
    elif which == 2:
        behaviour.ignored_filters = chosen[0]
    else:
        behaviour.ignored_filters, behaviour.rejected_filters = chosen


def _shut(rig):
    """Lists that are empty for a while, or no calls for single jobs; both would be an end."""
    wire = rig.wire
    if rig.config.get("hides"):
        return
    if rig.config["shut"] == "forbid":
        wire.forbidden = not wire.forbidden
    elif wire.narrowed:
        wire.narrowed = set()
    else:
        wire.narrowed = set(WORKSPACES)
        for attempt in rig.running:
            attempt.narrowed = True


async def _restart(rig, how, lose, which):
    choice = {0: WORKSPACES[:1], 1: WORKSPACES}.get(which)
    await rig.restart(how, lose_state=bool(lose), workspaces=choice)


async def _reload(rig, number, which):
    """Often in the middle of something. A commit to memory has no middle.

    With other workspaces only where those that are left out are remembered.
    """
    file = rig.config["state"] == "file"
    point = number % len(POINTS)
    if number < 12 and (file or "commit" not in POINTS[point]):
        await rig.kill_at(point, 1 + number % 2, 3 * INTERVAL)
    choice = {0: WORKSPACES[:1], 1: WORKSPACES}.get(which)
    if rig.config.get("history"):
        rig.jobs_history = HISTORIES[number % len(HISTORIES)]
    await rig.reload(choice if file else None)


async def _be_quiet(rig):
    if rig.workspaces != WORKSPACES:
        await rig.restart("stop", workspaces=WORKSPACES)
    await rig.quiet()


def _flip(rig):
    if not rig.config["fixed"]:
        rig.behaviour.offset = "row" if rig.behaviour.offset == "page" else "page"


def _make_odd(rig, which, how):
    rig.hands.do("odd", which, how)
    for attempt in rig.running:
        attempt.odd |= rig.hands.odd.keys()


class Told:
    """How far a life has come.

    Attributes:
        position: of the step that was carried out last, from 1; one more than all: the end.
        rig: for its counts.
    """

    def __init__(self):
        self.position = 0
        self.rig = None


def failure(config, steps, told=None):
    """Carry the steps out; what went wrong, or None."""
    told = told or Told()
    try:
        run(_carried_out(config, steps, told))
    except (MismatchError, StuckError) as error:
        return error
    return None


def shrunk(config, steps, patience=250):
    """Fewer steps, and smaller numbers, that still fail in the same way."""
    told = Told()
    wanted = _kind(failure(config, steps, told))
    steps = steps[: told.position]
    size = max(1, len(steps) // 2)
    while patience > 0:
        start, shorter = 0, False
        while start < len(steps) and patience > 0:
            fewer = [*steps[:start], *steps[start + size :]]
            patience -= 1
            if _kind(failure(config, fewer)) == wanted:
                steps, shorter = fewer, True
            else:
                start += size
        if size == 1 and not shorter:
            break
        size = size if shorter and size == 1 else max(1, size // 2)
    for name, value in (("past", 0), ("fixed", False), ("latency", 0.05), ("state", "file")):
        simpler = config | {name: value}
        if simpler != config and _kind(failure(simpler, steps)) == wanted:
            config = simpler
    return config, steps


def explained(config, steps, error):
    """What went wrong, and how to see it again."""
    told = Told()
    again = failure(config, steps, told)
    place = f"step {told.position} of {len(steps)}"
    config, fewer = shrunk(config, steps)
    lines = [f"seed {config['seed']}, {place}: {error}"]
    if again is None:
        lines.append("not the second time: something is not virtual")
    else:
        lines += ["the fewest steps that fail in this way:", f"    {config!r},", f"    {fewer!r},"]
        lines.append(str(failure(config, fewer)))
    return "\n".join(lines)


def _kind(error):
    """What a failure is about, without the particulars."""
    if error is None:
        return None
    text = str(error)
    words = [word for word in text.replace(":", " ").split() if word.isalpha()]
    return type(error).__name__, " ".join(words[:6])
