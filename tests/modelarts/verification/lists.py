"""A list service and what is known of its list, in memory; jobs are their numbers."""

import bisect
import json
import random
from collections import Counter

from jobs.examples import job

from exporter.jobs.tracked import TrackedJob
from exporter.modelarts.search import PAGE, Paging
from exporter.modelarts.verification.marks import Verification
from exporter.modelarts.verification.verifier import Verifier
from exporter.modelarts.workspace import JobSource, WorkspaceReader

NOW = 1_700_000_000.0
FIRST = 1_600_000_000_000
DAY = 86400.0


class ListService:
    """Answers searches from the create times (ms) of jobs by number, newest first.

    Attributes:
        jobs: create time by number.
        before: called with the number of a request before it is answered.
        spoil: called with the query and the items of each page; returns the items to send.
        order: returns the numbers in the order of the list.
        totals: returns ``total`` and ``count``.
    """

    def __init__(self, jobs, mode):
        self.jobs = dict(jobs)
        self.mode = mode
        self.requests = []
        self.phases = {}
        self.before = lambda number: None
        self.spoil = lambda query, items: items
        self.order = lambda: sorted(self.jobs, key=lambda n: (-self.jobs[n], n))
        self.totals = lambda: (0, 0)
        self._sorted = None

    def create(self, created=None):
        number = max(self.jobs, default=0) + 1
        self.jobs[number] = (
            max(self.jobs.values(), default=FIRST) + 1 if created is None else created
        )
        self._sorted = None
        return number

    def delete(self, *numbers):
        for number in numbers:
            del self.jobs[number]
        self._sorted = None

    def reorder(self):
        self._sorted = None

    async def search(self, query, read, *, deadline, background):
        self.before(len(self.requests))
        self.requests.append(query)
        if self._sorted is None:
            self._sorted = self.order()
        limit, offset = query["limit"], query["offset"]
        assert 1 <= limit <= PAGE
        start = offset * limit if self.mode == "page" else offset
        items = [self.item(number) for number in self._sorted[start : start + limit]]
        total, count = self.totals()
        body = {"total": total, "count": count, "items": self.spoil(query, items)}
        return read(json.dumps(body).encode())

    def item(self, number):
        return {
            "kind": "job",
            "metadata": {"id": f"job-{number}", "create_time": self.jobs[number]},
            "status": {"phase": self.phases.get(number, "Completed")},
        }


class Known:
    """A `KnownList` of the jobs of a service at some moment."""

    def __init__(self, service):
        self.service = service
        self.created = {f"job-{n}": time / 1000 for n, time in service.jobs.items()}
        self.largest = 0
        self.sort()

    def sort(self):
        """Take note of changes of ``created``."""
        rows = [(time, job_id) for job_id, time in self.created.items() if time is not None]
        self._rows = sorted(rows)
        self._times = [time for time, _ in self._rows]

    async def count(self):
        return len(self.created), len(self.created) - len(self._times)

    async def count_newer(self, created):
        return len(self._times) - bisect.bisect_right(self._times, created)

    async def created_at(self, rank):
        return self._times[-1 - rank] if rank < len(self._times) else None

    async def between(self, oldest, newest):
        start = bisect.bisect_left(self._times, oldest)
        end = bisect.bisect_right(self._times, newest)
        self.largest = max(self.largest, end - start)
        return {job_id: tracked(job_id, time) for time, job_id in self._rows[start:end]}

    def apply(self, reader, findings):
        """Look up what is missing, as the service would answer, and take what was read."""
        for job_id in findings.missing:
            if int(job_id.removeprefix("job-")) not in self.service.jobs:
                del self.created[job_id]
        self.created |= {job_id: job.created for job_id, job in reader.jobs.items()}
        self.sort()

    @property
    def is_right(self):
        listed = {f"job-{n}": time / 1000 for n, time in self.service.jobs.items()}
        return self.created == listed


def tracked(job_id, created):
    finished = job(job_id, created=created, phase="Completed", pool="public")
    return TrackedJob(finished, None, False, False, (), 0, None, None, None)


class Instruments(Counter):
    """Counts what searches report."""

    def paged(self, *, duplicates, inconsistent):
        self.update(duplicates=duplicates, inconsistent=inconsistent)


class Rig:
    """A service, what is known of it, and a verifier that polls drive."""

    def __init__(self, jobs, mode, *, known_mode=True, scrub=False, **options):
        self.service = ListService(jobs, mode)
        self.known = Known(self.service)
        self.paging = Paging(mode if known_mode else None)
        self.now = NOW
        self.verifier = Verifier(interval=DAY, clock=lambda: self.now, **options)
        self.verification = Verification() if scrub else Verification.complete(NOW)
        self.source = JobSource(
            self.service, self.paging, ("0",), Instruments(), clock=lambda: self.now
        )
        self.reader = None

    def poll(self):
        """Learn of new jobs, as an incremental poll does."""
        newest = max(self.known.created.values(), default=0)
        listed = {f"job-{n}": time / 1000 for n, time in self.service.jobs.items()}
        self.known.created |= {job_id: time for job_id, time in listed.items() if time > newest}
        self.known.sort()

    async def round(self, *, apply=True, unified=False):
        """Do a round, and what a poll does with its findings."""
        self.reader = WorkspaceReader(self.source, "0", deadline=1e9, unified=unified)
        total, count = self.service.totals()
        findings = await self.verifier.verify(
            self.reader,
            self.known,
            self.verification,
            totals={"count": count, "total": total},
        )
        if apply:
            self.verification = findings.verification
            self.known.apply(self.reader, findings)
        self.now += 60
        return findings

    async def settle(self, *, most=50):
        """Do rounds until all agrees; return all findings."""
        found = []
        for _ in range(most):
            found.append(await self.round())
            if found[-1].verdict != "differs":
                return found
        raise AssertionError("the list does not settle")


def spread(number):
    """Return so many jobs, each with a create time of its own."""
    return {n: FIRST + n * 1000 for n in range(number)}


def groups(number, *, seed, largest):
    """Return so many jobs in groups of equal create time, of random sizes up to ``largest``."""
    chance = random.Random(seed)
    jobs = {}
    time = FIRST
    while len(jobs) < number:
        time += 1000
        for _ in range(chance.randint(1, largest)):
            jobs[len(jobs)] = time
    return jobs
