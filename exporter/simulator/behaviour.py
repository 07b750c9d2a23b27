"""What the vendor's documents leave open, or contradict: every reading can be switched on."""

from dataclasses import dataclass
from typing import Literal


@dataclass(slots=True)
class Behaviour:
    """How the service behaves; may be changed while it runs.

    Attributes:
        offset: ``page``: 0-based index of pages (newest documents); ``row``: of jobs (2022's).
        totals: ``documented``: ``total`` all jobs, ``count`` those that match; ``page``:
            ``count`` those on this page, as the vendor's example can be read; ``lies``: both
            are wrong.
        records_in_list: list answers have ``running_records``; the detail always does.
        create_time_values: what ``create_time between`` takes: ``ms`` or ``rfc3339``.
        ignored_filters: keys of filters that are accepted and have no effect.
        rejected_filters: keys of filters that are refused (400 ``ModelArts.2789``).
        requests_per_minute: of one identity; None: unlimited.
        retry_after: whether a 429 says when to come back.
        gzip: answers are compressed where ``Accept-Encoding`` allows it.
        old_metadata: status (404, 405, 503) with which a metadata service that knows no tokens
            answers the token call; None: it knows them, and asks for them.
        pool_names_in_jobs: a job's document names its pool (newer services), not only its id.
        pool_resources: ``status.resources`` of a pool as ``array``, or as one ``object``.
    """

    offset: Literal["page", "row"] = "page"
    totals: Literal["documented", "page", "lies"] = "documented"
    records_in_list: bool = True
    create_time_values: Literal["ms", "rfc3339"] = "ms"
    ignored_filters: frozenset[str] = frozenset()
    rejected_filters: frozenset[str] = frozenset()
    requests_per_minute: int | None = None
    retry_after: bool = True
    gzip: bool = True
    old_metadata: int | None = None
    pool_names_in_jobs: bool = True
    pool_resources: Literal["array", "object"] = "array"
