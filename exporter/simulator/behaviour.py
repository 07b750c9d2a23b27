"""Ambiguities and contradictions of the vendor's documentation: each reading can be selected."""

from dataclasses import dataclass
from typing import Literal


@dataclass(slots=True)
class Behaviour:
    """Behavior of the service; may be changed while it runs.

    Attributes:
        offset: ``page``: 0-based page index (latest documentation); ``row``: job index (2022).
        totals: ``documented``: ``total`` counts all jobs, ``count`` matching ones; ``page``:
            ``count`` counts jobs on this page, a possible reading of the vendor's example;
            ``lies``: both are wrong.
        records_in_list: responses to searches have ``running_records``; single jobs always do.
        create_time_values: format of ``create_time between``: ``rfc3339`` or ``ms``.
        ignored_filters: keys of filters that are accepted without effect.
        rejected_filters: keys of filters that are refused (400 ``ModelArts.2789``).
        requests_per_minute: limit for one identity; None: unlimited.
        retry_after: whether a 429 has a ``Retry-After`` header.
        gzip: responses are compressed if ``Accept-Encoding`` allows it.
        old_metadata: status (404, 405, 503) returned for token requests by a metadata service
            without tokens; None: it has tokens and requires them.
        signed_own_projects: ``GET /v3/auth/projects`` takes access keys, not only tokens.
        pool_names_in_jobs: jobs have the name of their pool (newer services), not only its id.
        pool_resources: ``status.resources`` of a pool as ``array``, or as one ``object``.
        quantities: amounts of resources in pools as ``string`` or, where possible, ``number``.
        unified_jobs: what the service does with ``unified_jobs`` in searches: ``taken``: true lists
            fine-tuning jobs, too; ``ignored``; ``rejected`` (400 ``ModelArts.2764``).
        empty_items: an empty list of items is ``[]`` (``array``), or ``null``.
        task_statuses: ended jobs have the status of the ``first_failed`` task, or of ``all``.
        task_counts: tasks of heterogeneous jobs have ``node_count``.
    """

    offset: Literal["page", "row"] = "page"
    totals: Literal["documented", "page", "lies"] = "documented"
    records_in_list: bool = True
    create_time_values: Literal["ms", "rfc3339"] = "rfc3339"
    ignored_filters: frozenset[str] = frozenset()
    rejected_filters: frozenset[str] = frozenset()
    requests_per_minute: int | None = None
    retry_after: bool = True
    gzip: bool = True
    old_metadata: int | None = None
    signed_own_projects: bool = False
    pool_names_in_jobs: bool = True
    pool_resources: Literal["array", "object"] = "array"
    quantities: Literal["string", "number"] = "string"
    unified_jobs: Literal["taken", "ignored", "rejected"] = "taken"
    empty_items: Literal["array", "null"] = "array"
    task_statuses: Literal["first_failed", "all"] = "first_failed"
    task_counts: bool = True
