"""The pieces that the dashboards' queries are made of."""

TARGET = 'job=~"$job", instance=~"$instance", region=~"$region", project=~"$project"'
"""Matchers of everything that a target tells."""

FLEET = f'{TARGET}, pool=~"$pool", flavor_type=~"$flavor_type"'
"""Matchers of the fleet's series."""

POOL = f'{TARGET}, pool=~"$pool"'
"""Matchers of the names of pools."""

OF_USERS = f'{FLEET}, user=~"$user"'
"""Matchers of the series that know users."""

ONE_JOB = f'{TARGET}, job_id="$job_id"'
"""Matchers of one job's series."""

PHASES = (
    "Creating",
    "Pending",
    "Running",
    "Terminating",
    "Completed",
    "Failed",
    "Terminated",
    "Abnormal",
    "Unknown",
)
"""Their places, from 1, stand for them where a panel needs numbers."""

BAD = 'phase=~"Failed|Abnormal"'
WAITING = 'phase=~"Creating|Pending"'

RATE = "$__rate_interval"
RANGE = "$__range"

_KEY = "job, instance, region, project, job_id"
JOB = "region, project, job_id"
"""What tells jobs apart in a table."""

WHO = "job_name, user, pool_name, flavor_type"
"""What a table tells about a job besides `JOB`."""

_POOL_KEY = "job, instance, region, project, pool"


def training(name: str, matchers: str = FLEET) -> str:
    """A series of training jobs."""
    return f"modelarts_training_{name}{{{matchers}}}"


def own(name: str, matchers: str = TARGET) -> str:
    """A series of the exporter's own."""
    return f"modelarts_exporter_{name}{{{matchers}}}"


def rate(series: str) -> str:
    """Growth per second."""
    return f"rate({series}[{RATE}])"


def increase(series: str, span: str = RANGE) -> str:
    """Growth, over all that the dashboard shows unless told otherwise."""
    return f"increase({series}[{span}])"


def lately(series: str) -> str:
    """The last values within what the dashboard shows: those of finished jobs, too."""
    return f"last_over_time({series}[{RANGE}])"


def total(expr: str, by: str = "") -> str:
    """The sum, by labels if any are named."""
    return f"sum by ({by}) ({expr})" if by else f"sum({expr})"


def share(part: str, whole: str, by: str = "") -> str:
    """A ratio of two sums; nothing where the whole is 0."""
    return f"{total(part, by)} / ({total(whole, by)} > 0)"


def quantile(q: float, histogram: str, by: str = "", span: str = RATE) -> str:
    """A quantile of a histogram, given by name and matchers.

    Args:
        q: from 0 to 1.
        histogram: its ``_bucket`` series.
        by: labels to keep.
        span: which observations count.
    """
    labels = f"{by}, le" if by else "le"
    grown = rate(histogram) if span == RATE else increase(histogram, span)
    return f"histogram_quantile({q:g}, {total(grown, labels)})"


def named(expr: str) -> str:
    """Add the label ``pool_name``: the pool's name, or its id if the name is not known.

    The queue's histogram is there for every pool, and stays when the service can not be reached.
    """
    names = f"group by ({_POOL_KEY}, pool_name) ({training('pool_info', POOL)})"
    ids = f"group by ({_POOL_KEY}) ({training('queue_duration_seconds_count')})"
    return (
        f"{expr} * on ({_POOL_KEY}) group_left (pool_name) ({names} or on ({_POOL_KEY}) "
        f'label_replace({ids}, "pool_name", "$1", "pool", "(.*)"))'
    )


def by_pool(expr: str, by: str = "", operator: str = "sum") -> str:
    """The sum by the pools' names, and by other labels if any are named; or the maximum."""
    labels = f"pool_name, {by}" if by else "pool_name"
    return f"{operator} by ({labels}) ({named(expr)})"


def phases(matchers: str) -> str:
    """The phase of a job as its place in `PHASES`."""
    each = (training("job_phase", f'{matchers}, phase="{phase}"') for phase in PHASES)
    terms = (f"{series} * {number}" for number, series in enumerate(each, 1))
    return f"max({' or '.join(terms)})"


INFO_NOW = training("job_info", OF_USERS)
INFO = f"topk by ({_KEY}) (1, {lately(INFO_NOW)})"


def identified(expr: str, more: str = "", info: str = INFO) -> str:
    """Add to series of jobs who they are: a row of a table for each.

    Args:
        expr: series with `JOB` and the labels of the scrape.
        more: labels of the expression to keep.
        info: ``modelarts_training_job_info`` to join with, one for each job.
    """
    labels = f"{JOB}, {more}, {WHO}" if more else f"{JOB}, {WHO}"
    both = 'label_join({}, "pool_name", "/", "pool_name", "pool")'
    joined = (
        f"{expr} * on ({_KEY}) group_left (job_name, user, pool, pool_name, flavor_type) {info}"
    )
    # "name/id" becomes "name", "/id", of a pool without a name, becomes "id".
    named_pools = (
        f'label_replace(label_replace({both.format(joined)}, "pool_name", "$1", "pool_name", '
        '"([^/]+)/.*"), "pool_name", "$1", "pool_name", "/(.*)")'
    )
    return f"max by ({labels}) ({named_pools})"


def among(expr: str, info: str) -> str:
    """Those jobs that the chosen pools, flavor types and users have."""
    return f"({expr} and on ({JOB}) {info})"


def of(jobs: str, expr: str, more: str = "") -> str:
    """A column for a table: the expression for those jobs only.

    Args:
        jobs: series with the labels `JOB`.
        expr: series of jobs.
        more: labels of the expression to keep.
    """
    labels = f"{JOB}, {more}" if more else JOB
    return f"max by ({labels}) ({expr}) and on ({JOB}) {jobs}"
