"""Searches are complete whatever changes between two pages; the service here is a plain list."""

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelarts.verification.lists import tracked

from exporter.errors import InconsistentPagesError
from exporter.jobs.job import ACTIVE
from exporter.modelarts.search import PAGE, Filter, FilterIgnoredError, Paging, Search, next_request

NOW = 1_700_000_000.0


@dataclass
class ListService:
    """Answers searches from a list of job numbers; ``changes[n]`` run before request n."""

    rows: list[int]
    mode: str
    order: str = "desc"
    changes: dict[int, list] = field(default_factory=dict)
    requests: list[dict] = field(default_factory=list)
    phases: dict[int, str] = field(default_factory=dict)
    ignores_filters: bool = False
    ignores_offset: bool = False
    always_there: set[int] = field(init=False)

    def __post_init__(self):
        self.always_there = set(self.rows)
        self.next_number = max(self.rows, default=0) + 1

    def create(self, _which):
        self.rows.append(self.next_number)
        self.next_number += 1

    def delete(self, which):
        if self.rows:
            self.always_there.discard(self.rows.pop(which % len(self.rows)))

    async def search(self, query, read, *, deadline, background):
        assert not background
        for change, which in self.changes.get(len(self.requests), ()):
            getattr(self, change)(which)
        self.requests.append(query)
        rows = sorted(self.rows, reverse=self.order == "desc")
        if "filters" in query and not self.ignores_filters:
            rows = [n for n in rows if self.phases.get(n) in query["filters"][0]["value"]]
        limit, offset = query["limit"], query["offset"]
        assert 1 <= limit <= PAGE
        start = offset * limit if self.mode == "page" else offset
        if self.ignores_offset:
            start = 0
        items = [self.item(number) for number in rows[start : start + limit]]
        return read(json.dumps({"total": 5059, "count": 1, "items": items}).encode())

    def item(self, number):
        return {
            "kind": "job",
            "metadata": {"id": f"job-{number}", "create_time": 1_600_000_000_000 + number},
            "status": {"phase": self.phases.get(number, "Completed")},
        }


def search(service, *, paging=None, filters=()):
    return Search(
        service,
        paging or Paging(),
        workspace="0",
        deadline=1e9,
        clock=lambda: NOW,
        filters=filters,
    )


def numbers(found):
    return {int(job_id.removeprefix("job-")) for job_id in found.jobs}


@pytest.mark.parametrize("mode", ["page", "row"])
@pytest.mark.parametrize("size", [0, 1, 49, 50, 51, 98, 99, 100, 101, 149, 150, 1000])
@pytest.mark.parametrize("known", [True, False])
async def test_a_quiet_fleet_is_read_whole(mode, size, known):
    service = ListService(list(range(size)), mode)
    paging = Paging(mode if known else None)

    found = await search(service, paging=paging).read_all()

    assert numbers(found) == set(range(size))
    assert (found.duplicates, found.inconsistent) == (0, 0)
    told = size > PAGE or (size, mode) == (PAGE, "row")
    assert paging.mode == (mode if known or told else None)
    assert found.pages == len(service.requests)
    assert all("filters" not in query for query in service.requests)


async def test_the_cost_of_a_search():
    pages = {}
    for mode in ("page", "row"):
        service = ListService(list(range(5000)), mode)
        await search(service, paging=Paging(mode)).read_all()
        pages[mode] = len(service.requests)

    assert pages == {"page": 122, "row": 103}


@pytest.mark.parametrize("mode", ["page", "row"])
@given(frontier=st.integers(50, 200_000))
def test_every_request_overlaps_what_is_known_and_goes_beyond(mode, frontier):
    offset, limit, start = next_request(frontier, mode)

    assert 1 <= limit <= PAGE
    assert start == (offset * limit if mode == "page" else offset)
    assert start < frontier < start + limit


CHANGES = st.dictionaries(
    st.integers(1, 12),
    st.lists(st.tuples(st.sampled_from(["create", "delete"]), st.integers(0, 10_000)), max_size=4),
    max_size=6,
)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(
    size=st.integers(0, 400),
    mode=st.sampled_from(["page", "row"]),
    order=st.sampled_from(["desc", "asc"]),
    changes=CHANGES,
)
async def test_nothing_is_missed_while_jobs_come_and_go(size, mode, order, changes):
    service = ListService(list(range(size)), mode, order, changes)
    existed = set(range(size))

    found = await search(service).read_all()

    assert service.always_there <= numbers(found)
    assert numbers(found) <= existed | set(range(size, service.next_number))


@pytest.mark.parametrize("mode", ["page", "row"])
async def test_a_job_created_between_two_pages_is_found_too(mode):
    service = ListService(list(range(120)), mode, changes={2: [("create", 0)]})

    found = await search(service, paging=Paging(mode)).read_all()

    assert numbers(found) == set(range(121))
    assert found.duplicates == 1


@pytest.mark.parametrize("mode", ["page", "row"])
async def test_a_job_deleted_between_two_pages_hides_no_other(mode):
    service = ListService(list(range(120)), mode, changes={1: [("delete", 119)]})

    found = await search(service, paging=Paging(mode)).read_all()

    assert numbers(found) == set(range(120))  # the deleted one had been read before
    assert found.inconsistent == 1


@pytest.mark.parametrize("mode", ["page", "row"])
async def test_a_job_seen_in_two_phases_is_shown_in_the_later(mode):
    service = ListService(list(range(120)), mode, changes={1: [("create", 0), ("create", 0)]})
    newest_of_second_page = 120 - 49

    async def finish_meanwhile(query, read, *, answer=service.search, **options):
        if len(service.requests) == 1:
            service.phases[newest_of_second_page] = "Failed"
        return await answer(query, read, **options)

    service.phases[newest_of_second_page] = "Running"
    service.search = finish_meanwhile

    found = await search(service, paging=Paging(mode)).read_all()

    assert found.jobs[f"job-{newest_of_second_page}"].phase == "Failed"


async def test_the_same_page_again_and_again_is_an_error():
    service = ListService(list(range(120)), "row", ignores_offset=True)
    reading = search(service)

    with pytest.raises(InconsistentPagesError, match="same jobs again and again"):
        await reading.read_all()

    assert reading.result.inconsistent == 5
    assert len(service.requests) < 10


@pytest.mark.parametrize(("real", "believed"), [("page", "row"), ("row", "page")])
async def test_a_mode_that_turns_out_wrong_fails_the_poll_and_is_found_out_again(real, believed):
    service = ListService(list(range(5000)), real)
    paging = Paging(believed)

    with pytest.raises(InconsistentPagesError):
        await search(service, paging=paging).read_all()
    found = await search(service, paging=paging).read_all()

    assert paging.mode == real
    assert len(found.jobs) == 5000


async def test_a_mode_set_by_the_user_is_never_changed():
    paging = Paging("row", fixed=True)

    with pytest.raises(InconsistentPagesError, match=r"check target\.pagination"):
        await search(ListService(list(range(500)), "page"), paging=paging).read_all()

    assert paging.mode == "row"


@pytest.mark.parametrize("ignored", [True, False])
async def test_filters_are_checked_on_every_job(ignored):
    service = ListService(list(range(120)), "page", ignores_filters=ignored)
    service.phases = dict.fromkeys(range(0, 120, 7), "Running")
    running = Filter("phase", "in", ("Running",), lambda job: job.phase in ACTIVE)

    reading = search(service, filters=[running])

    if ignored:
        with pytest.raises(FilterIgnoredError):
            await reading.read_all()
        assert len(service.requests) == 1
    else:
        await reading.read_all()
        assert numbers(reading.result) == set(range(0, 120, 7))
        assert reading.result.mismatched == 0
    assert service.requests[0]["filters"] == [
        {"key": "phase", "operator": "in", "value": ["Running"]}
    ]


@pytest.mark.parametrize(("changed", "believed"), [(0, True), (1, True), (4, True), (5, False)])
async def test_a_few_that_changed_after_the_filter_are_left_out(changed, believed):
    """The service applies the filter first and reads the jobs afterwards."""
    service = ListService(list(range(8)), "row", ignores_filters=True)
    service.phases = dict.fromkeys(range(changed, 8), "Running")
    running = Filter("phase", "in", ("Running",), lambda job: job.phase in ACTIVE)
    reading = search(service, filters=[running])

    if believed:
        await reading.read_all()
        assert numbers(reading.result) == set(range(changed, 8))
        assert reading.result.mismatched == changed
    else:
        with pytest.raises(FilterIgnoredError):
            await reading.read_all()


async def test_many_of_many_pages_that_were_not_asked_for():
    service = ListService(list(range(400)), "row", ignores_filters=True)
    service.phases = {number: "Running" for number in range(400) if number % 3}
    running = Filter("phase", "in", ("Running",), lambda job: job.phase in ACTIVE)

    with pytest.raises(FilterIgnoredError):
        await search(service, filters=[running]).read_all()


@pytest.mark.parametrize("mode", ["page", "row"])
@pytest.mark.parametrize("number", [1, 10, 50, 51, 200])
async def test_the_newest_jobs_are_read_down_to_known_ground(mode, number):
    service = ListService(list(range(1000)), mode)

    found = await search(service, paging=Paging(mode)).read_newest(
        knowing(range(1000 - number)), created(999 - number)
    )

    assert numbers(found) >= set(range(1000 - number, 1000))
    assert len(service.requests) == 1 + number // PAGE


def created(number):
    return 1_600_000_000 + number / 1000


def knowing(known):
    """Finds the jobs with these numbers."""

    async def find(jobs):
        numbers = {job.id: int(job.id.removeprefix("job-")) for job in jobs}
        return {
            job_id: tracked(job_id, created(number))
            for job_id, number in numbers.items()
            if number in known
        }

    return find


async def test_only_jobs_older_than_the_newest_one_known_end_the_search():
    """Unknown ones may be listed between jobs that were created at the same moment."""
    for known, pages, oldest in ((range(70), 2, 21), (range(70, 120), 3, 0)):
        service = ListService(list(range(120)), "row")

        found = await search(service, paging=Paging("row")).read_newest(knowing(known), created(70))

        assert (found.pages, min(numbers(found))) == (pages, oldest)


async def test_as_many_pages_as_are_wanted():
    service = ListService(list(range(60)), "row")

    found = await search(service, paging=Paging("row")).read_all(max_pages=1)
    assert (found.complete, found.pages, numbers(found)) == (False, 1, set(range(10, 60)))

    found = await search(service, paging=Paging("row")).read_all(max_pages=2)
    assert (found.complete, found.pages, numbers(found)) == (True, 2, set(range(60)))


async def test_a_search_says_when_its_newest_job_was_created():
    service = ListService(list(range(3)), "row")

    assert (await search(service).read_all()).newest_created == 1_600_000_000.002
    assert (await search(ListService([], "row")).read_all()).newest_created == float("-inf")
