"""Answers searches: filters, order and both meanings of an offset."""

import json
import random
from collections.abc import Callable
from typing import Any

import msgspec

from exporter.simulator.behaviour import Behaviour
from exporter.simulator.fleet import Fleet
from exporter.simulator.index import Entry
from exporter.simulator.job import ACTIVE, Job
from exporter.simulator.query import Filter, Query
from exporter.simulator.wire import document


class Searches:
    """Answers searches in one fleet.

    The last selection is cached, so that reading all pages of a large fleet filters it once per
    change, not once per page.
    """

    def __init__(self, fleet: Fleet, behaviour: Behaviour) -> None:
        self._fleet = fleet
        self._behaviour = behaviour
        self._lies = random.Random(0)
        self._key: tuple[Any, ...] = ()
        self._selection: list[Entry] = []

    def answer(self, query: Query, *, visible: bool = True) -> bytes:
        """Return the JSON document of one page; ``visible`` False: the identity sees no jobs."""
        matching = self._select(query) if visible else []
        index, workspace = self._fleet.index, query.workspace
        everything = index.sorted(workspace, unified=query.unified) if visible else []
        items = self.page(matching, query)
        total, count = self._totals(len(everything), len(matching), len(items))
        return encode(
            {
                "total": total,
                "count": count,
                "limit": query.limit,
                "offset": query.offset,
                "sort_by": query.sort_by,
                "order": query.order,
                "group_by": query.group_by,
                "workspace_id": query.workspace,
                "ai_project": "default-ai-project",
                "items": items if items or self._behaviour.empty_items == "array" else None,
            }
        )

    def page(self, matching: list[Entry], query: Query) -> list[Any]:
        """Return the documents of the jobs on the page."""
        behaviour, fleet = self._behaviour, self._fleet
        step = query.limit if behaviour.offset == "page" else 1
        first = query.offset * step
        count = max(min(query.limit, len(matching) - first), 0)
        if query.order == "asc":
            entries = matching[first : first + count]
        else:
            end = len(matching) - first
            entries = matching[end - count : end][::-1]
        form = _form(behaviour) | {"records": behaviour.records_in_list}
        return [document(job, fleet.now, **form) for *_, job in entries]

    def _select(self, query: Query) -> list[Entry]:
        """Return the matching jobs, oldest first."""
        if not query.filters:
            return self._fleet.index.sorted(query.workspace, unified=query.unified)
        key = (query.workspace, query.unified, query.filters, len(self._fleet.events))
        if key != self._key:
            active = any(
                item.key == "phase" and item.operator == "in" and set(item.values) <= set(ACTIVE)
                for item in query.filters
            )
            entries = self._fleet.index.sorted(
                query.workspace, active=active, unified=query.unified
            )
            for condition in map(_condition, query.filters):
                entries = [entry for entry in entries if condition(entry[2])]
            self._key, self._selection = key, entries
        return self._selection

    def _totals(self, everything: int, matching: int, shown: int) -> tuple[int, int]:
        readings = {
            "documented": (everything, matching),
            "page": (everything, shown),
            "lies": (self._lies.randrange(10_000), self._lies.randrange(10_000)),
        }
        return readings[self._behaviour.totals]


def detail(job: Job, now: float, behaviour: Behaviour) -> bytes:
    """Return the JSON document of one job."""
    return encode(document(job, now, **_form(behaviour)))


def _form(behaviour: Behaviour) -> dict[str, bool]:
    return {
        "pool_name": behaviour.pool_names_in_jobs,
        "all_statuses": behaviour.task_statuses == "all",
        "task_counts": behaviour.task_counts,
    }


def encode(value: Any) -> bytes:
    """Encode as JSON, including values that only tests put into documents."""
    try:
        return msgspec.json.encode(value)
    except (UnicodeEncodeError, OverflowError):  # half a surrogate pair, an enormous number
        return json.dumps(value).encode()


def _condition(item: Filter) -> Callable[[Job], bool]:
    if item.key == "create_time":
        first, last = item.values
        return lambda job: first <= job.created_ms <= last
    if item.operator == "like":
        read = _TEXTS[item.key]
        return lambda job: any(value in read(job) for value in item.values)
    read = _TEXTS[item.key]
    wanted, negated = set(item.values), item.operator == "not"
    return lambda job: (read(job) in wanted) is not negated


_TEXTS: dict[str, Callable[[Job], str]] = {
    "name": lambda job: job.name,
    "algorithm_name": lambda job: str(job.recipe.document.get("name", "")),
    "algorithm_id": lambda job: str(job.recipe.document.get("id", "")),
    "phase": lambda job: job.phase,
    "kind": lambda job: job.kind,
    "user_id": lambda job: job.user.id,
    "id": lambda job: job.id,
    "pool_id": lambda job: "" if job.pool.group else job.pool.id or "",
    "priority": lambda job: "" if job.priority is None else str(job.priority),
    "runtime_type": lambda job: job.runtime,
}
