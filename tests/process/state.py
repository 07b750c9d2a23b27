"""What happened in a world since some time, and what was scraped in the meantime."""

import re
from collections import Counter

from process.program import scraped

EVENTS = re.compile(
    r"modelarts_training_(?!job_)\w+_total"
    r"|modelarts_training_\w+_duration_seconds_(?:count|sum|bucket)"
)
"""Counters and histograms of events; those of single jobs go when their jobs do."""

_COMPARED = re.compile(
    "modelarts_training_"
    "(jobs_(?:created|finished|deleted)_total|restarts_total|accelerator_seconds_total"
    "|queue_duration_seconds_count)"
)
_LABELS = (
    *("workspace", "pool", "flavor_type"),
    *("phase", "start_type", "recovery", "accelerator"),
)


class Book:
    """Records the events of a fleet from now on."""

    def __init__(self, fleet):
        self._fleet = fleet
        self._begins = len(fleet.events)
        self._ran = {job.id: self._seconds(job) for job in fleet}

    def _seconds(self, job):
        """Round to whole ms, as the service does: with hundreds of cards it matters."""
        return round(job.running_seconds(self._fleet.now) * 1000) / 1000

    def truth(self):
        """The expected values of counters that are not 0, by name and labels."""
        found = Counter()
        for event in self._fleet.events[self._begins :]:
            base = event.job.base
            match event.kind:
                case "created":
                    found["jobs_created_total", *base] += 1
                case "started":
                    found["queue_duration_seconds_count", *base] += 1
                case "finished":
                    found["jobs_finished_total", *base, event.phase] += 1
                case "deleted":
                    found["jobs_deleted_total", *base, event.phase] += 1
                case "restarted":
                    found["restarts_total", *base, event.start_type, event.recovery] += 1
        for job in self._fleet:
            more = round(self._seconds(job) - self._ran.get(job.id, 0.0), 3)
            if job.cards and more:
                key = ("accelerator_seconds_total", *job.base, job.accelerator)
                found[key] += more * job.cards
        return dict(found)


def counted(found):
    """The same from a scrape."""
    return {
        (name[1], *(labels[label] for label in _LABELS if label in labels)): value
        for (full, pairs), value in found.items()
        if (name := _COMPARED.fullmatch(full)) and value
        for labels in [dict(pairs)]
    }


class Scraper:
    """Remembers its scrapes, from any process.

    ``wrong`` has every counter that fell, or was not there any more.
    """

    def __init__(self, url):
        self._url = url
        self._seen = {}
        self.scrapes = 0
        self.wrong = []

    async def scrape(self):
        found = await scraped(self._url)
        now = {key: value for key, value in found.items() if EVENTS.fullmatch(key[0])}
        if now:  # there are none before the first poll
            self.wrong += [
                (key, before, now.get(key))
                for key, before in self._seen.items()
                if now.get(key, -1) < before
            ]
            self._seen = now
            self.scrapes += 1
        return found
