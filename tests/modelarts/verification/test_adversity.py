"""Lists that change between two requests, and services that lie, cost requests but never truth."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelarts.verification.lists import NOW, Rig, groups, spread

from exporter.errors import RejectedError, UpstreamError
from exporter.modelarts.search import Paging
from exporter.modelarts.verification.marks import Verification
from exporter.modelarts.workspace import JobSource

MODES = ["row", "page"]
EXAMPLES = settings(max_examples=150, deadline=None, derandomize=True, database=None)


class Changes:
    """Changes a list before requests, and remembers which jobs were always or never listed.

    Args:
        script: by number of the request, what to do before it: ``create`` a job, ``delete`` or
            ``hide`` the job at a position, or ``show`` one that is hidden.
    """

    def __init__(self, rig, script):
        self.service = rig.service
        self.script = script
        self.hidden = {}
        self.base = 0
        self.watch()
        rig.service.before = self.step

    def watch(self):
        """Begin a round."""
        self.base = len(self.service.requests)
        self.always = self.ever = frozenset(self.service.jobs)

    def step(self, number):
        for kind, which in self.script.get(number - self.base, ()):
            getattr(self, kind)(which)
            self.service.reorder()
        self.always &= self.service.jobs.keys()
        self.ever |= self.service.jobs.keys()

    def create(self, _which):
        self.service.create()

    def delete(self, which):
        if self.service.jobs:
            numbers = sorted(self.service.jobs)
            self.service.delete(numbers[which % len(numbers)])

    def hide(self, which):
        if self.service.jobs:
            numbers = sorted(self.service.jobs)
            number = numbers[which % len(numbers)]
            self.hidden[number] = self.service.jobs.pop(number)

    def show(self, which):
        if self.hidden:
            number = sorted(self.hidden)[which % len(self.hidden)]
            self.service.jobs[number] = self.hidden.pop(number)


CHANGES = st.lists(
    st.tuples(st.sampled_from(["create", "delete", "hide", "show"]), st.integers(0, 10_000)),
    min_size=1,
    max_size=4,
)
SCRIPTS = st.dictionaries(st.integers(0, 25), CHANGES, max_size=10)


def numbers(ids):
    return {int(job_id.removeprefix("job-")) for job_id in ids}


def verified_numbers(verification, created, at):
    """Return the jobs of the parts of the list that were verified at a time."""
    newest, found = float("inf"), set()
    for mark in verification.marks:
        if mark.at == at:
            found |= {n for n, time in created.items() if mark.oldest < time / 1000 <= newest}
        newest = mark.oldest
    return found


@pytest.mark.slow
@EXAMPLES
@given(
    jobs=st.one_of(
        st.integers(0, 600).map(spread),
        st.builds(groups, st.integers(1, 600), seed=st.integers(0, 99), largest=st.integers(1, 70)),
    ),
    mode=st.sampled_from(MODES),
    known_mode=st.booleans(),
    before=CHANGES,
    script=SCRIPTS,
    honest=st.booleans(),
)
async def test_a_list_that_changes_all_the_time(jobs, mode, *, known_mode, before, script, honest):
    rig = Rig(jobs, mode, known_mode=known_mode, scrub=True)
    if honest:
        rig.service.totals = lambda: (7, len(rig.service.jobs))
    changes = Changes(rig, {0: before} | script)
    known = numbers(rig.known.created)
    created = dict(rig.service.jobs)

    findings = await rig.round(apply=False)

    missing, unknown = numbers(findings.missing), numbers(findings.unknown)
    assert missing <= known - changes.always
    assert unknown <= changes.ever - known
    verified = verified_numbers(
        findings.verification, created | rig.service.jobs | changes.hidden, NOW
    )
    assert verified & changes.always <= known
    assert verified & known <= changes.ever

    rig.service.before = lambda number: None
    rig.known.apply(rig.reader, findings)
    rig.verification = findings.verification
    await settle_with_sweeps(rig)
    assert rig.known.is_right


async def settle_with_sweeps(rig):
    """Do rounds, and sweeps where they are asked for, until every page was verified in quiet."""
    quiet = rig.now
    for _ in range(200):
        findings = await rig.round()
        if findings.verdict in {"sweep", "unverifiable"}:
            rig.known = type(rig.known)(rig.service)
            rig.verifier.swept()
            rig.verification = Verification.complete(rig.now)
        elif findings.verdict == "agrees" and (rig.verification.oldest or 0) >= quiet:
            return
        rig.now += 3600
    raise AssertionError("the list does not settle")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(3))
async def test_a_list_that_never_rests_is_followed(mode, seed):
    """A job is created and one deleted before every tenth request."""
    chance = random.Random(seed)
    rig = Rig(spread(5000), mode)
    rig.service.delete(2500)

    def before(number):
        if number % 10 == 5:
            rig.service.create()
            rig.service.delete(chance.choice(sorted(rig.service.jobs)))

    rig.service.before = before
    found = []
    for _ in range(20):
        rig.poll()
        found.append(await rig.round())

    assert sum("job-2500" in findings.missing for findings in found) == 1
    rig.service.before = lambda number: None
    rig.poll()
    await rig.settle()
    assert rig.known.is_right


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [2, 4, 6, 8])
async def test_a_list_that_changes_much_stops_a_round(mode, number):
    rig = Rig(spread(20_000), mode)
    rig.service.delete(3333)

    def before(request):
        if request == number:
            for _ in range(2000):
                rig.service.create()

    rig.service.before = before
    findings = await rig.round()

    assert set(findings.missing) <= {"job-3333"}
    assert findings.requests < 40
    rig.service.before = lambda request: None
    rig.poll()
    await rig.settle()
    assert rig.known.is_right


# --- Services that do not do what they should -----------------------------------------------------


def dateless(query, items):
    if query["offset"]:
        items[-1]["metadata"]["create_time"] = None
    return items


def without_id(query, items):
    return [*items[:-1], {"kind": "job"}]


def swapped(query, items):
    return [*items[:3], items[4], items[3], *items[5:]]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (dateless, "the list has jobs without a create time"),
        (without_id, "the list has items without a usable ID"),
        (swapped, "the list is not sorted by create time"),
        (lambda query, items: items[::-1], "the list is not sorted by create time"),
    ],
)
async def test_a_list_that_cannot_be_verified_is_left_alone_for_an_hour(mode, spoil, reason):
    rig = Rig(spread(1000), mode, scrub=True)
    rig.service.delete(500)
    rig.service.spoil = lambda query, items: spoil(query, items) if len(items) > 5 else items

    for _ in range(60):
        findings = await rig.round(apply=False)
        assert (findings.verdict, findings.reason) == ("unverifiable", reason)
        assert (findings.missing, findings.verification) == ({}, Verification())
    assert len(rig.service.requests) == 1

    rig.service.spoil = lambda query, items: items
    assert set((await rig.round()).missing) == {"job-500"}


async def test_a_sweep_ends_the_pause():
    rig = Rig(spread(1000), "row")
    rig.service.spoil = without_id
    assert (await rig.round()).verdict == "unverifiable"

    rig.service.spoil = lambda query, items: items
    rig.verifier.swept()

    assert (await rig.round()).verdict == "agrees"


async def test_an_order_that_is_ignored_is_noticed_before_anything_is_missed():
    rig = Rig(spread(1000), "row", scrub=True)
    rig.service.order = lambda: sorted(rig.service.jobs)
    rig.service.delete(10)

    findings = await rig.round()

    assert findings.reason == "the list is not sorted by create time"


async def test_jobs_that_are_known_without_a_create_time():
    rig = Rig(spread(1000), "row")
    rig.known.created["job-1"] = None
    rig.known.sort()

    findings = await rig.round()

    assert (findings.verdict, findings.requests) == ("unverifiable", 0)
    assert findings.reason == "jobs without a create time are known"


async def test_jobs_of_another_workspace():
    rig = Rig(spread(1000), "row")
    rig.source = JobSource(
        rig.service, rig.paging, ("0", "1"), rig.source.instruments, clock=rig.source.clock
    )

    def spoil(query, items):
        items[-1]["metadata"]["workspace_id"] = "1"
        return items

    rig.service.spoil = spoil

    assert (await rig.round()).reason == "the list has jobs of another workspace"


async def test_fine_tuning_jobs_that_are_no_longer_listed():
    rig = Rig(spread(1000), "row")
    rig.source.unified.rejected = NOW
    assert (await rig.round(unified=True)).reason == "the service no longer lists fine-tuning jobs"
    assert (await Rig(spread(1000), "row").round(unified=True)).verdict == "agrees"


@pytest.mark.parametrize("mode", MODES)
async def test_totals_that_lie(mode):
    rig = Rig(spread(2000), mode)
    rig.service.totals = lambda: (2000, 1)
    assert (await rig.round()).requests == 1  # they have proved honest
    assert (await rig.round()).requests == 0
    rig.service.delete(700)

    found = []
    while "job-700" not in (found[-1].missing if found else ()):
        found.append(await rig.round())

    assert len(found) <= 10  # believed for ten minutes
    await rig.round()
    assert rig.known.is_right
    found = [await rig.round() for _ in range(5)]
    assert {findings.verdict for findings in found} == {"agrees"}
    assert all(findings.requests >= 1 for findings in found)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("total", [None, 0, 1, 5000, 1_000_000])
async def test_a_total_that_was_never_honest_is_not_believed(mode, total):
    rig = Rig(spread(5000), mode)
    rig.service.totals = lambda: (total, None)
    rig.service.delete(2500)

    assert set((await rig.round()).missing) == {"job-2500"}


@pytest.mark.parametrize("mode", MODES)
async def test_an_honest_total_saves_the_request_for_the_end(mode):
    rig = Rig(spread(5000), mode)
    rig.service.totals = lambda: (len(rig.service.jobs), 1)
    await rig.round()

    rig.service.delete(*range(2000, 2200))
    findings = await rig.round()

    assert len(findings.missing) == 200
    assert findings.requests <= 12  # and it shows where the end is
    assert (await rig.round()).requests <= 1


@pytest.mark.parametrize("mode", MODES)
async def test_pages_that_are_shorter_than_requested(mode):
    """The service omits what one may not see only after it has cut the page."""
    rig = Rig(spread(2000), mode)
    rig.service.spoil = lambda query, items: items[:-1] if len(items) > 40 else items
    rig.service.delete(300)

    found = [await rig.round() for _ in range(10)]

    assert not any(numbers(findings.missing) - {300} for findings in found)
    assert "sweep" in {findings.verdict for findings in found}


def renamed(item):
    return item | {"metadata": item["metadata"] | {"id": "job-9999"}}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda query, items: items + items[-1:],
        lambda query, items: [*items[:-1], items[0]],
        lambda query, items: [*items, renamed(items[-1])],
    ],
    ids=["a job twice on a page too long", "a job twice", "a page too long"],
)
async def test_pages_that_contradict_themselves_prove_nothing(mode, spoil):
    rig = Rig(groups(2000, seed=1, largest=500), mode, scrub=True)
    rig.service.delete(300)
    rig.service.spoil = lambda query, items: spoil(query, items) if len(items) > 25 else items

    found = [await rig.round() for _ in range(7)]

    assert not any(findings.missing for findings in found)
    assert rig.verification == Verification()
    assert found[-1].verdict in {"sweep", "unverifiable"}


@pytest.mark.parametrize("mode", MODES)
async def test_a_page_that_is_just_once_empty(mode):
    rig = Rig(spread(2000), mode)
    rig.service.delete(300)
    once = iter([True])
    rig.service.spoil = lambda query, items: [] if next(once, False) else items

    assert not numbers((await rig.round()).missing) - {300}
    await rig.settle()
    assert rig.known.is_right


@pytest.mark.parametrize("rows", [0, 30, 90])
async def test_a_list_that_is_suddenly_short_before_the_mode_is_known(rows):
    rig = Rig(spread(2000), "page", known_mode=False)
    newest = [rig.service.item(n) for n in range(1999, 1999 - rows, -1)]

    def spoil(query, items):
        start = query["offset"] * query["limit"]
        return newest[start : start + query["limit"]]

    rig.service.spoil = spoil
    findings = await rig.round()

    assert (findings.verdict, findings.missing) == ("sweep", {})


@pytest.mark.parametrize(("real", "believed"), [("page", "row"), ("row", "page")])
@pytest.mark.parametrize("size", [500, 5000])
async def test_a_wrong_idea_of_offset_makes_nothing_look_missing(real, believed, size):
    rig = Rig(spread(size), real, scrub=True)
    rig.paging.mode = believed
    rig.service.delete(300)

    found = [await rig.round() for _ in range(8)]

    assert not any(numbers(findings.missing) - {300} for findings in found)
    assert "sweep" in {findings.verdict for findings in found}


async def test_a_mode_that_is_reset_during_a_round():
    rig = Rig(spread(5000), "row")
    rig.service.delete(2700)

    def before(number):
        if number == 2:
            rig.paging.mode = None

    rig.service.before = before
    findings = await rig.round()

    assert (findings.verdict, findings.missing) == ("differs", {})
    assert set((await rig.round()).missing) == {"job-2700"}
    assert rig.paging == Paging("row")


async def test_an_offset_that_is_ignored():
    rig = Rig(spread(5000), "row")
    rig.service.spoil = lambda query, items: [rig.service.item(n) for n in range(4999, 4949, -1)]

    findings = await rig.round()

    assert (findings.verdict, findings.missing) == ("sweep", {})
    assert findings.requests < 20


async def test_a_request_that_fails_fails_the_round():
    rig = Rig(spread(5000), "row")
    rig.service.delete(2700)

    def before(number):
        if number == 3:
            raise UpstreamError("503")

    rig.service.before = before
    with pytest.raises(UpstreamError):
        await rig.round()
    rig.service.before = lambda number: None
    assert set((await rig.round()).missing) == {"job-2700"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("gone", [1, 25, 300])
async def test_pages_beyond_the_end_may_be_rejected(mode, gone):
    rig = Rig(spread(5000), mode)
    rig.service.delete(*range(gone))

    def spoil(query, items):
        if query["offset"] and not items:
            raise RejectedError("offset out of range", status=400)
        return items

    rig.service.spoil = spoil
    findings = await rig.round()

    assert set(findings.missing) == {f"job-{n}" for n in range(gone)}
    assert (await rig.round()).verdict == "agrees"


@pytest.mark.parametrize(("size", "status"), [(5000, 404), (5000, 400), (30, 400)])
async def test_any_other_rejection_fails_the_round(size, status):
    rig = Rig(spread(size), "row")

    def spoil(query, items):
        raise RejectedError("rejected", status=status)

    rig.service.spoil = spoil
    with pytest.raises(RejectedError):
        await rig.round()


# --- Differences that stay ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["missing", "unknown"])
async def test_differences_that_stay_end_in_a_sweep_and_then_in_a_pause(kind):
    """A job that is listed in two workspaces, or that only a lookup finds."""
    rig = Rig(spread(5000), "row")
    if kind == "missing":
        rig.service.delete(2500)
    else:
        rig.known.created.pop("job-2500")
        rig.known.sort()

    verdicts = []
    for _ in range(9):
        findings = await rig.round(apply=False)
        rig.verification = findings.verification
        verdicts.append(findings.verdict)
        if findings.verdict == "sweep":
            rig.verifier.swept()

    assert verdicts == [*["differs"] * 3, "sweep", *["unverifiable"] * 5]
    assert (findings.missing, findings.unknown, findings.requests) == ({}, frozenset(), 0)


async def test_differences_that_stay_and_cancel_out_do_not_stop_the_scrub():
    rig = Rig(spread(500), "row")
    rig.service.totals = lambda: (len(rig.service.jobs), 1)
    rig.service.delete(300)
    del rig.known.created["job-301"]
    rig.known.sort()

    verdicts = []
    for _ in range(1440):
        findings = await rig.round(apply=False)
        rig.verification = findings.verification
        if findings.verdict == "sweep":
            rig.verifier.swept()
        if findings.verdict != "agrees":
            verdicts.append(findings.verdict)

    assert verdicts[:5] == [*["differs"] * 3, "sweep", "unverifiable"]
    assert set(verdicts[5:]) == {"unverifiable"}


async def test_new_differences_round_after_round_are_no_reason_to_stop():
    rig = Rig(spread(5000), "row")
    for number in range(1000, 1020):
        rig.service.delete(number)
        assert (await rig.round()).verdict == "differs"
    assert (await rig.round()).verdict == "agrees"


async def test_a_clock_that_is_set_back_does_not_prolong_a_pause():
    rig = Rig(spread(100), "row")
    rig.service.spoil = without_id
    await rig.round()
    rig.service.spoil = lambda query, items: items

    rig.now -= 10_000

    assert (await rig.round()).verdict == "agrees"


async def test_an_empty_list_and_a_scrub():
    rig = Rig({}, "row", scrub=True)
    rig.service.totals = lambda: (0, 0)
    for _ in range(3):
        assert (await rig.round()).verdict == "agrees"
        rig.now += 80_000
    assert rig.verification.oldest is not None
