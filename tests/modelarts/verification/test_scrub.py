"""The list is verified round and round, a page beside a poll where that suffices."""

import math

import pytest
from modelarts.verification.lists import DAY, FIRST, NOW, Rig, groups, spread

from exporter.modelarts.verification.marks import Range

MODES = ["row", "page"]
POLLS = 1440


def honest(rig):
    """Let the service report the right totals."""
    rig.service.totals = lambda: (len(rig.service.jobs), 1)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [10, 60, 4000])
async def test_a_day_of_polls_verifies_every_page(mode, size):
    rig = Rig(spread(size), mode, scrub=True)
    honest(rig)

    requests = [(await rig.round()).requests for _ in range(POLLS)]

    assert rig.verification.oldest is not None
    assert rig.verification.oldest >= NOW
    assert max(requests) <= 2
    proofs = POLLS // 10
    assert sum(requests) <= proofs + size / 36 + 2


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
async def test_groups_of_equal_create_time_are_verified_too(mode):
    rig = Rig(groups(1500, seed=1, largest=150), mode, scrub=True)
    honest(rig)

    for _ in range(2 * POLLS):
        assert (await rig.round()).verdict == "agrees"

    assert rig.verification.oldest is not None


@pytest.mark.parametrize("mode", MODES)
async def test_a_long_list_is_verified_a_page_beside_each_poll(mode):
    rig = Rig(spread(10_000), mode, scrub=True)
    rig.verifier = type(rig.verifier)(interval=60, clock=lambda: rig.now)
    honest(rig)

    requests = [(await rig.round()).requests for _ in range(300)]

    assert set(requests) <= {1, 2}
    assert rig.verification.oldest is not None
    oldest = [rig.verification.oldest]
    for _ in range(20):
        await rig.round()
        oldest.append(rig.verification.oldest)
    assert oldest == sorted(oldest)
    assert oldest[-1] > oldest[0]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("apart", [1, 30, 600])
async def test_differences_that_cancel_out_are_found(mode, apart):
    jobs = spread(1000)
    rig = Rig({n: time for n, time in jobs.items() if n != 300}, mode)
    honest(rig)
    rig.service.jobs = jobs
    rig.service.delete(300 + apart)

    findings = await rig.round()
    while findings.verdict == "agrees":
        findings = await rig.round()
        assert rig.now < NOW + 1.1 * DAY

    assert (set(findings.missing), findings.unknown) == ({f"job-{300 + apart}"}, {"job-300"})
    assert rig.known.is_right


@pytest.mark.parametrize("mode", MODES)
async def test_late_corrections_are_read(mode):
    rig = Rig(spread(2000), mode)
    honest(rig)
    rig.service.phases[700] = "Failed"

    for _ in range(POLLS):
        await rig.round()
        if rig.reader.jobs.get("job-700"):
            break

    assert rig.reader.jobs["job-700"].phase == "Failed"


@pytest.mark.parametrize("mode", MODES)
async def test_a_page_that_differs_is_not_verified_before_it_agrees(mode):
    rig = Rig(spread(2000), mode)
    rig.service.delete(700)

    rig.verification = rig.verification.complete(NOW - DAY)
    await rig.round()

    created = (FIRST + 700_000) / 1000
    mark = next(mark for mark in rig.verification.marks if mark.oldest < created)
    assert mark.at == NOW - DAY


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("change", ["create", "delete"])
async def test_the_next_part_is_found_where_rows_have_shifted(mode, change):
    rig = Rig(spread(4000), mode)
    created = 1_600_002_000.0
    rig.verification = rig.verification.with_verified([Range(created, math.inf)], NOW + 1)
    for number in range(3900, 3940):
        if change == "delete":
            rig.service.delete(number)
        else:
            rig.service.create()

    rig.now = NOW + DAY
    await rig.round()

    verified = next(mark.at for mark in rig.verification.marks if mark.oldest < created)
    assert verified == NOW + DAY


async def test_the_scrub_goes_on_after_a_restart():
    rig = Rig(spread(4000), "row", scrub=True)
    honest(rig)
    for _ in range(POLLS // 2):
        await rig.round()
    before = rig.verification

    after = type(before).decode(before.encode())

    assert after == before
    assert after.next_range.newest < (FIRST + 2_200_000) / 1000
    rig.verifier = type(rig.verifier)(interval=DAY, clock=lambda: rig.now)
    requests = [(await rig.round()).requests for _ in range(5)]
    assert sum(requests) <= 2  # a proof of the end, perhaps a page


async def test_findings_that_were_not_kept_are_found_again():
    rig = Rig(spread(2000), "row")
    rig.service.delete(700)

    first = await rig.round(apply=False)
    again = await rig.round()

    assert set(first.missing) == set(again.missing) == {"job-700"}
    assert (await rig.round()).verdict == "agrees"
