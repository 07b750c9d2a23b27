"""What differs is found where it is, with few requests, in both modes of ``offset``."""

import random

import pytest
from modelarts.verification.lists import FIRST, Rig, groups, spread

from exporter.modelarts.verification.differences import Comparison
from exporter.modelarts.verification.pages import Pages
from exporter.modelarts.workspace import WorkspaceReader

MODES = ["row", "page"]
SIZE = 200_000
LOOKUP = 9
"""Missing jobs that one request looks up."""


def cost(found):
    """Return the requests of some rounds, and of the lookups that follow."""
    lookups = sum(-(-len(findings.missing) // LOOKUP) for findings in found)
    return sum(findings.requests for findings in found) + lookups


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [0, 1, 49, 50, 51, 98, 99, 100, 1000, 20_000])
@pytest.mark.parametrize("known_mode", [True, False])
async def test_a_list_that_is_as_known(mode, size, known_mode):
    rig = Rig(spread(size), mode, known_mode=known_mode)

    findings = await rig.round()

    assert (findings.verdict, findings.missing, findings.unknown) == ("agrees", {}, frozenset())
    assert findings.requests == len(rig.service.requests)
    assert findings.requests <= (1 if known_mode or size < 50 else 3)
    if known_mode or size > 50:
        assert rig.paging.mode == mode


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [1, 2, 49, 50, 51, 100, 149, 1000])
async def test_any_one_job_that_was_deleted(mode, size):
    for victim in {0, 1, size // 3, size // 2, size - 2, size - 1} & set(range(size)):
        rig = Rig(spread(size), mode)
        rig.service.delete(victim)

        findings = await rig.round()

        assert (findings.verdict, set(findings.missing)) == ("differs", {f"job-{victim}"})
        assert (await rig.round()).verdict == "agrees"
        assert rig.known.is_right


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
async def test_the_cost_of_one_old_job_among_many(mode):
    chance = random.Random(11)
    rig = Rig(spread(SIZE), mode)
    for victim in [0, SIZE - 1, *(chance.randrange(1, SIZE - 1) for _ in range(5))]:
        rig.service.delete(victim)
        found = await rig.settle()
        assert len(found) == 2
        assert cost(found[:1]) <= 20
    assert rig.known.is_right


async def test_a_part_that_fits_on_a_page_is_read_with_one_request():
    jobs = spread(1000)
    jobs[499] = jobs[500]
    rig = Rig(jobs, "row")
    rig.service.delete(499)  # the other one is the last job of the first page below
    reader = WorkspaceReader(rig.source, "0", deadline=1e9)
    pages = Pages(reader, budget=10)
    comparison = Comparison(pages, rig.known)
    await comparison.end_at(999)
    await comparison.add(await pages.read(450, 500))
    await comparison.add(await pages.read(546, 596))

    await comparison.bisect()

    assert set(comparison.missing) == {"job-499"}
    assert pages.requests == 4  # these two, the top of the list, and what is between them


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
async def test_the_cost_of_a_hundred_at_random_places(mode):
    rig = Rig(spread(SIZE), mode)
    rig.service.delete(*random.Random(12).sample(range(SIZE), 100))

    found = await rig.settle()

    assert rig.known.is_right
    assert cost(found) <= 800
    assert all(findings.requests <= 100 for findings in found)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first", [0, 70_003, SIZE - 5000])
async def test_the_cost_of_thousands_in_a_row(mode, first):
    rig = Rig(spread(SIZE), mode)
    rig.service.delete(*range(first, first + 5000))

    found = await rig.settle()

    assert rig.known.is_right
    assert len(found) == 2
    assert cost(found) <= 600


@pytest.mark.slow
async def test_the_cost_barely_grows_with_the_list():
    costs = {}
    for size in (20_000, SIZE):
        rig = Rig(spread(size), "row")
        rig.service.delete(size // 7)
        costs[size] = cost(await rig.settle())

    assert costs[SIZE] <= costs[20_000] + 4


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [1, 60, 300])
async def test_jobs_that_are_shown_now(mode, number):
    jobs = spread(5000)
    rig = Rig({n: time for n, time in jobs.items() if not 1000 <= n < 1000 + number}, mode)
    rig.service.jobs = jobs

    found = await rig.settle()

    assert set().union(*(findings.unknown for findings in found)) == {
        f"job-{n}" for n in range(1000, 1000 + number)
    }
    assert not any(findings.missing for findings in found)
    assert rig.known.is_right
    assert cost(found) <= 20 + number // 20


@pytest.mark.parametrize("mode", MODES)
async def test_jobs_created_since_the_poll_cost_one_request(mode):
    rig = Rig(spread(5000), mode)
    created = {f"job-{rig.service.create()}" for _ in range(3)}

    findings = await rig.round()

    assert (findings.unknown, findings.missing) == (created, {})
    assert findings.requests == 2


@pytest.mark.parametrize("mode", MODES)
async def test_changed_jobs_are_new_readings(mode):
    rig = Rig(spread(5000), mode)
    rig.service.phases[4990] = "Failed"
    rig.service.create()

    findings = await rig.round()

    assert "job-4990" not in findings.unknown
    assert rig.reader.jobs["job-4990"].phase == "Failed"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("largest", [3, 30, 60, 200])
@pytest.mark.parametrize("seed", range(4))
async def test_groups_of_equal_create_time(mode, largest, seed):
    chance = random.Random(seed)
    jobs = groups(3000, seed=seed, largest=largest)
    rig = Rig(jobs, mode)
    order = {n: chance.random() for n in jobs}
    rig.service.order = lambda: sorted(rig.service.jobs, key=lambda n: (-jobs[n], order[n]))
    rig.service.delete(*chance.sample(sorted(jobs), 5))

    found = await rig.settle()

    assert rig.known.is_right
    assert [findings.verdict for findings in found[-2:]] == ["differs", "agrees"]


@pytest.mark.parametrize("mode", MODES)
async def test_a_whole_group_that_was_deleted(mode):
    rig = Rig(groups(3000, seed=1, largest=200), mode)
    times = sorted(set(rig.service.jobs.values()))
    victims = [n for n, time in rig.service.jobs.items() if time == times[len(times) // 2]]
    rig.service.delete(*victims)

    findings = await rig.round()

    assert set(findings.missing) == {f"job-{n}" for n in victims}


@pytest.mark.parametrize("mode", MODES)
async def test_a_group_of_thousands_is_not_read_page_by_page(mode):
    rig = Rig(spread(100) | dict.fromkeys(range(100, 4100), FIRST + 200_000), mode)
    rig.service.delete(2000)

    findings = await rig.round()

    assert findings.verdict == "unverifiable"
    assert findings.reason == "the list has too many jobs with the same create time"


@pytest.mark.slow
async def test_what_is_held_in_memory_is_bounded():
    rig = Rig(spread(SIZE), "row")
    rig.service.delete(*range(80_000, 105_000))

    found = await rig.settle()

    assert len(found) == 4
    assert rig.known.largest == 10_000
    assert rig.known.is_right


@pytest.mark.slow
async def test_a_group_too_large_to_compare_needs_a_sweep():
    gone = range(40_000, 52_000)
    rig = Rig(spread(100_000) | dict.fromkeys(gone, FIRST + 45_000_500), "row")
    rig.service.delete(*gone)

    found = await rig.settle()

    assert [findings.verdict for findings in found] == ["differs", "differs", "sweep"]
    assert not any(findings.missing for findings in found)


@pytest.mark.slow
async def test_what_a_round_finds_is_bounded():
    rig = Rig(spread(SIZE), "row")
    for first in (20_000, 80_000, 140_000):
        rig.service.delete(*range(first, first + 8000))

    found = await rig.settle()

    assert [len(findings.missing) for findings in found] == [16_000, 8000, 0]
    assert rig.known.is_right


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("share", [0.2, 0.5, 1])
async def test_where_too_much_is_gone_or_new_the_list_is_read_as_a_whole(mode, share):
    jobs = spread(5000)
    rig = Rig(jobs, mode)
    rig.service.delete(*range(round(share * 5000)))
    findings = await rig.round()
    assert (findings.verdict, findings.missing) == ("sweep", {})
    assert "5000 jobs are known, but the service lists" in findings.reason
    assert findings.requests <= 20

    rig = Rig({n: time for n, time in jobs.items() if n >= share * 4500}, mode)
    rig.service.jobs = jobs
    findings = await rig.round()
    assert (findings.verdict, findings.unknown) == ("sweep", frozenset())
    assert findings.requests <= 20


@pytest.mark.parametrize("mode", MODES)
async def test_where_too_many_pages_differ_the_list_is_read_as_a_whole(mode):
    rig = Rig(spread(50_000), mode)
    rig.service.delete(*range(0, 50_000, 100))

    findings = await rig.round()

    assert (findings.verdict, findings.missing) == ("sweep", {})
    assert findings.reason.endswith("pages of the list differ")
    assert findings.requests < 50


@pytest.mark.parametrize("mode", MODES)
async def test_a_round_that_runs_out_of_requests_goes_on_with_the_next(mode):
    rig = Rig(spread(20_000), mode, max_requests=60)
    rig.service.delete(*range(500, 20_000, 400))

    found = await rig.settle()

    assert len(found) > 3
    assert all(findings.requests <= 60 for findings in found)
    assert rig.known.is_right
