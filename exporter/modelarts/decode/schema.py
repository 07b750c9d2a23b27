"""The JSON schema of training jobs: only the fields needed.

The structs name the fields that the exporter reads and nothing else: environments, commands and
endpoints of a job, which hold secrets, are skipped and never become objects. Every field may be
absent or null, except a job's id.

Only so much is read of arrays and texts: use `Many` and `Text` for them.

Source: the vendor's documentation of ``POST /v2/{project_id}/training-job-searches`` (2024-06-20),
and its SDK 3.1.219 for the fields called newer. Units are the service's; `jobs` converts them.
"""

import msgspec

from exporter.modelarts.decode.lenient import LongText, Many, Number, Text
from exporter.modelarts.decode.resources import Resource


class Annotations(msgspec.Struct, frozen=True, gc=False):
    """``metadata.annotations``."""

    job_retry_num: Number = msgspec.field(default=None, name="fault-tolerance/job-retry-num")


class Metadata(msgspec.Struct, frozen=True, gc=False):
    """``items[].metadata``; ``create_time`` in ms.

    ``id`` is documented as a UUID. It becomes part of a URL, so not every string is accepted: see
    `exporter.modelarts.decode.responses`.
    """

    id: str
    name: Text = None
    workspace_id: Text = None
    user_name: Text = None
    create_time: Number = None
    annotations: Annotations | None = None


class TaskStatus(msgspec.Struct, frozen=True, gc=False):
    """``status.task_statuses[]``."""

    task: Text = None
    exit_code: Number = None
    message: LongText = None


class RecoverRecord(msgspec.Struct, frozen=True, gc=False):
    """Newer ``running_records[].recover_records[]``; times in **seconds**."""

    recover_start_at: Number = None
    recover_end_at: Number = None
    recover: Text = None
    fault_scenario: Text = None
    recover_result: Text = None


class Record(msgspec.Struct, frozen=True, gc=False):
    """``status.running_records[]``; times in **seconds**; the last two newer."""

    start_at: Number = None
    end_at: Number = None
    start_type: Text = None
    end_reason: LongText = None
    end_recover: Text = None
    end_recover_before_downgrade: Text = None
    xpu_start_at: Number = None
    recover_records: Many[RecoverRecord] | None = None


class Status(msgspec.Struct, frozen=True, gc=False):
    """``items[].status``; ``duration`` and ``start_time`` in ms.

    ``node_count_metrics`` stays JSON: only one of its hundreds of points is needed. So does
    ``tasks``, the names of all workers, which only heterogeneous jobs need.
    """

    phase: Text = None
    duration: Number = None
    start_time: Number = None
    node_count_metrics: msgspec.Raw = msgspec.Raw()
    tasks: msgspec.Raw = msgspec.Raw()
    task_statuses: Many[TaskStatus] | None = None
    running_records: Many[Record] | None = None


class Engine(msgspec.Struct, frozen=True, gc=False):
    """``algorithm.engine``."""

    engine_id: Text = None
    engine_name: Text = None


class Algorithm(msgspec.Struct, frozen=True, gc=False):
    """``items[].algorithm``; its other fields may hold secrets."""

    id: Text = None
    name: Text = None
    engine: Engine | None = None


class TaskAlgorithm(msgspec.Struct, frozen=True, gc=False):
    """``tasks[].algorithm``; its other fields may hold secrets."""

    engine: Engine | None = None


class Task(msgspec.Struct, frozen=True, gc=False):
    """``items[].tasks[]``, heterogeneous jobs only."""

    role: Text = None
    algorithm: TaskAlgorithm | None = None
    task_resource: Resource | None = None


class SchedulePolicy(msgspec.Struct, frozen=True, gc=False):
    """Newer ``spec.schedule_policy``."""

    priority: Number = None


class Spec(msgspec.Struct, frozen=True, gc=False):
    """``items[].spec``; ``resource`` stays JSON until it is needed; the others are newer."""

    resource: msgspec.Raw = msgspec.Raw(b"null")
    runtime_type: Text = None
    schedule_policy: SchedulePolicy | None = None


class DecodedSpec(msgspec.Struct, frozen=True, gc=False):
    """The ``resource`` of a `Spec`, decoded."""

    resource: Resource | None = None


class Item(msgspec.Struct, frozen=True, gc=False):
    """One training job, in a list or as the response for a single job."""

    metadata: Metadata
    kind: Text = None
    status: Status | None = None
    algorithm: Algorithm | None = None
    tasks: Many[Task] | None = None
    spec: Spec | None = None


class ListingEnvelope(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The response to a search, without its items."""

    total: Number = None
    count: Number = None
    offset: Number = None
    error_code: Text = None
    error_code_: Text = msgspec.field(default=None, name="errorCode")
    error: msgspec.Raw = msgspec.Raw()
