"""Building blocks of the dashboards' queries."""

TARGET = 'job=~"$job", instance=~"$instance", region=~"$region", project=~"$project"'
"""Matchers of all series of a target."""

FLEET = f'{TARGET}, pool=~"$pool", flavor_type=~"$flavor_type"'
"""Matchers of fleet series."""

POOL = f'{TARGET}, pool=~"$pool"'
"""Matchers of series by pool."""

OF_USERS = f'{FLEET}, user=~"$user"'
"""Matchers of series with the label ``user``."""

ONE_JOB = f'{TARGET}, job_id="$job_id"'
"""Matchers of the series of one job."""

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
"""Where a panel needs numbers, a phase is its position here, counted from 1."""

BAD = 'phase=~"Failed|Abnormal"'
WAITING = 'phase=~"Creating|Pending"'

RATE = "$__rate_interval"
RANGE = "$__range"

_KEY = "job, instance, region, project, job_id"
JOB = "region, project, job_id"
"""The labels that identify a job in a table."""

WHO = "job_name, user, pool_name, flavor_type"
"""The other labels of a job shown in tables."""

_POOL_KEY = "job, instance, region, project, pool"


def training_series(name: str, matchers: str = FLEET) -> str:
    """Selector of a series of training jobs."""
    return f"modelarts_training_{name}{{{matchers}}}"


def pool_series(name: str, matchers: str = TARGET) -> str:
    """Selector of a series of resource pools."""
    return f"modelarts_pool_{name}{{{matchers}}}"


def exporter_series(name: str, matchers: str = TARGET) -> str:
    """Selector of a series of the exporter itself."""
    return f"modelarts_exporter_{name}{{{matchers}}}"


def rate(series: str) -> str:
    """The increase per second."""
    return f"rate({series}[{RATE}])"


def increase(series: str, span: str = RANGE) -> str:
    """The increase, by default over the dashboard's time range."""
    return f"increase({series}[{span}])"


def last_in_range(series: str) -> str:
    """The last values within the dashboard's time range, including those of finished jobs."""
    return f"last_over_time({series}[{RANGE}])"


def total(expr: str, by: str = "") -> str:
    """The sum, by labels if any are given."""
    return f"sum by ({by}) ({expr})" if by else f"sum({expr})"


def share(part: str, whole: str, by: str = "") -> str:
    """The ratio of two sums; empty where the whole is 0."""
    return f"{total(part, by)} / ({total(whole, by)} > 0)"


def quantile(q: float, histogram: str, by: str = "", span: str = RATE) -> str:
    """A quantile of a histogram, given by name and matchers.

    Args:
        q: from 0 to 1.
        histogram: its ``_bucket`` series.
        by: labels to keep.
        span: range of the observations.
    """
    labels = f"{by}, le" if by else "le"
    grown = rate(histogram) if span == RATE else increase(histogram, span)
    return f"histogram_quantile({q:g}, {total(grown, labels)})"


def with_pool_name(expr: str) -> str:
    """Add the label ``pool_name``: the pool's name, or its id if the name is not known.

    The queue histogram exists for every pool, and remains when the service cannot be reached.
    """
    names = f"group by ({_POOL_KEY}, pool_name) ({pool_series('info', POOL)})"
    ids = f"group by ({_POOL_KEY}) ({training_series('queue_duration_seconds_count')})"
    return (
        f"{expr} * on ({_POOL_KEY}) group_left (pool_name) ({names} or on ({_POOL_KEY}) "
        f'label_replace({ids}, "pool_name", "$1", "pool", "(.*)"))'
    )


def by_pool(expr: str, by: str = "", operator: str = "sum") -> str:
    """The sum (or another aggregation) by pool name, and by other labels if any are given."""
    labels = f"pool_name, {by}" if by else "pool_name"
    return f"{operator} by ({labels}) ({with_pool_name(expr)})"


def phases(matchers: str) -> str:
    """The phase of a job as its position in `PHASES`."""
    each = (training_series("job_phase", f'{matchers}, phase="{phase}"') for phase in PHASES)
    terms = (f"{series} * {number}" for number, series in enumerate(each, 1))
    return f"max({' or '.join(terms)})"


INFO_NOW = training_series("job_info", OF_USERS)
INFO = f"topk by ({_KEY}) (1, {last_in_range(INFO_NOW)})"


def with_job_info(expr: str, more: str = "", info: str = INFO) -> str:
    """Add the identifying labels to series of jobs, for a table with one row per job.

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


def matching(expr: str, info: str) -> str:
    """The jobs that match the selected pools, flavor types and users."""
    return f"({expr} and on ({JOB}) {info})"


def only_for(jobs: str, expr: str, more: str = "") -> str:
    """A table column: the expression restricted to the given jobs.

    Args:
        jobs: series with the labels `JOB`.
        expr: series of jobs.
        more: labels of the expression to keep.
    """
    labels = f"{JOB}, {more}" if more else JOB
    return f"max by ({labels}) ({expr}) and on ({JOB}) {jobs}"
