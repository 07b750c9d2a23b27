"""Writes the pages of docs/ that come from the code; with --check, tells whether they are current."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from prometheus_client import Counter, Gauge, Histogram

from exporter.metrics.counters import BASE, EVENT_FAMILIES
from exporter.metrics.fleet import FLEET_FAMILIES
from exporter.metrics.per_job import JOB_FAMILIES
from exporter.metrics.self_metrics import TARGET, Instruments
from exporter.settings.options import Option, groups

HERE = Path(__file__).parent

INTRODUCTION = """\
<!-- Written by docs/generate.py from the code; change it there. -->
# Metrics

Values are in base units (seconds, bytes, plain numbers) and carry no timestamps. What the service leaves unset
has no series: there is never a 0 or a 1970 in its place. Series of a target carry `region` and `project`.

| label | values |
|---|---|
| `region`, `project` | the target; `project` is `target.name`, else the project id |
| `workspace` | workspace id |
| `pool` | pool id, or `public` |
| `flavor_type` | `CPU`, `GPU`, `Ascend`, or `unknown` |
| `phase` | `Creating`, `Pending`, `Running`, `Terminating`, `Completed`, `Failed`, `Terminated`, `Abnormal`, or `Unknown` |
| `accelerator` | product name of the card, or `unknown` |
| `start_type`, `recovery`, `from_recovery`, `to_recovery` | as the service says (`init_or_rescheduled`, `job_reschedule`, ...), or `unknown` |

A value that the service does not document is shown as `unknown` and counted in
`modelarts_exporter_unknown_values_total`; the job is never left out.

A query to begin with for every metric: [example queries](#example-queries).
"""

FLEET_INTRODUCTION = """\
One series for each combination that was ever seen, zeros too. The gauges say what the service lists at the end
of the last good poll. Without a good poll for `poll.stale_after` they are withdrawn.
"""

EVENTS_INTRODUCTION = """\
What has happened since counting began; what counts, and what can not be known: [how-it-counts.md](how-it-counts.md).
They stay when polls fail, and with `state.file` they survive restarts. A new series is exposed at 0 for one
`poll.interval` before it shows what it counts. In OpenMetrics they carry `_created`; histograms, and
`modelarts_training_jobs_finished_total` for `Failed` and `Abnormal`, also the `job_id` of the latest such job as
exemplar.
"""

JOB_INTRODUCTION = """\
For jobs that have not finished, and for `jobs.retention` after their end; at most `jobs.max_series_jobs` jobs,
the newest first. A job that finished without ever having started tells no end: it keeps its series for
`jobs.retention` after it was first seen finished, or, if the exporter's first poll already found it finished,
after it was created.
"""

OWN_INTRODUCTION = """\
Also the process metrics of the Prometheus client library: `process_cpu_seconds_total`,
`process_resident_memory_bytes`, `process_open_fds` and so on.
"""


QUERIES_INTRODUCTION = """\
One for each, to begin with. `increase()` extrapolates: one event may read 1.2, so compare with `> 0`, not `>= 1`.
Ranges must be at least four times the longer of `poll.interval` and the scrape interval. Some of the answers are
empty while there is nothing to tell, such as a failure. More: [how-it-counts.md](how-it-counts.md#queries) and the
[recording rules](../deploy/prometheus/README.md#recording-rules).
"""


class Query(NamedTuple):
    """What a metric can be asked."""

    question: str
    promql: str


_JOB = "on (region, project, job_id)"
_ENDED_BADLY = 'phase=~"Failed|Abnormal"'
_WAITING = 'phase=~"Creating|Pending"'

QUERIES = {
    # Fleet
    "modelarts_training_jobs": Query(
        "How many jobs are there, by pool and phase?",
        "sum by (pool, phase) (modelarts_training_jobs)",
    ),
    "modelarts_training_nodes": Query(
        "How many nodes do running jobs have, by pool?",
        'sum by (pool) (modelarts_training_nodes{phase="Running"})',
    ),
    "modelarts_training_accelerators": Query(
        "For how many cards do jobs wait, by pool and card?",
        f"sum by (pool, accelerator) (modelarts_training_accelerators{{{_WAITING}}})",
    ),
    "modelarts_training_oldest_pending_timestamp_seconds": Query(
        "How long ago was the oldest waiting job of each pool created, in seconds?",
        "time() - min by (pool) (modelarts_training_oldest_pending_timestamp_seconds)",
    ),
    "modelarts_training_pool_info": Query(
        "How many jobs run, by the name of the pool, where the service tells it?",
        'sum by (region, project, pool) (modelarts_training_jobs{phase="Running"}) '
        "* on (region, project, pool) group_left (pool_name) modelarts_training_pool_info",
    ),
    # Events
    "modelarts_training_jobs_created_total": Query(
        "How many jobs were created within an hour, by pool?",
        "sum by (pool) (increase(modelarts_training_jobs_created_total[1h]))",
    ),
    "modelarts_training_jobs_finished_total": Query(
        "In which pools did jobs end badly within an hour?",
        f"sum by (pool, phase) (increase(modelarts_training_jobs_finished_total{{{_ENDED_BADLY}}}[1h])) > 0",
    ),
    "modelarts_training_jobs_deleted_total": Query(
        "How many jobs were deleted within a day, by the phase they were in?",
        "sum by (phase) (increase(modelarts_training_jobs_deleted_total[1d]))",
    ),
    "modelarts_training_restarts_total": Query(
        "How many restarts were there within a day, by pool and recovery policy?",
        "sum by (pool, recovery) (increase(modelarts_training_restarts_total[1d]))",
    ),
    "modelarts_training_recovery_downgrades_total": Query(
        "Which recovery policies did not work and were replaced by which, within a day?",
        "sum by (from_recovery, to_recovery) (increase(modelarts_training_recovery_downgrades_total[1d])) > 0",
    ),
    "modelarts_training_accelerator_seconds_total": Query(
        "How many cards were at work on average, by pool and card?",
        "sum by (pool, accelerator) (rate(modelarts_training_accelerator_seconds_total[1h]))",
    ),
    "modelarts_training_finished_accelerator_seconds_total": Query(
        "Which share of the card time of jobs that ended within a week went into jobs that ended badly?",
        f"sum by (pool) (increase(modelarts_training_finished_accelerator_seconds_total{{{_ENDED_BADLY}}}[7d])) "
        "/ sum by (pool) (increase(modelarts_training_finished_accelerator_seconds_total[7d]))",
    ),
    "modelarts_training_recovery_accelerator_seconds_total": Query(
        "How many card hours passed between two runs within a day, by pool and recovery policy?",
        "sum by (pool, recovery) (increase(modelarts_training_recovery_accelerator_seconds_total[1d])) / 3600",
    ),
    "modelarts_training_queue_duration_seconds": Query(
        "Nine of ten jobs that started within a day had waited less than how many seconds, by pool?",
        "histogram_quantile(0.9, sum by (pool, le) (rate(modelarts_training_queue_duration_seconds_bucket[1d])))",
    ),
    "modelarts_training_run_duration_seconds": Query(
        "How long does half of the jobs run at most, in seconds, by how they end?",
        "histogram_quantile(0.5, sum by (phase, le) (rate(modelarts_training_run_duration_seconds_bucket[1d])))",
    ),
    "modelarts_training_recovery_duration_seconds": Query(
        "How long does a recovery take on average, in seconds, by recovery policy?",
        "sum by (recovery) (rate(modelarts_training_recovery_duration_seconds_sum[1d])) "
        "/ sum by (recovery) (rate(modelarts_training_recovery_duration_seconds_count[1d]))",
    ),
    "modelarts_training_attempt_duration_seconds": Query(
        "What is the mean time between failures, in seconds, by pool?",
        "sum by (pool) (rate(modelarts_training_attempt_duration_seconds_sum[7d])) "
        "/ sum by (pool) (rate(modelarts_training_attempt_duration_seconds_count[7d]))",
    ),
    # Jobs
    "modelarts_training_job_info": Query(
        "How many jobs with series of their own does each user have?",
        "count by (user) (modelarts_training_job_info)",
    ),
    "modelarts_training_job_phase": Query(
        "Which jobs have ended badly, within `jobs.retention`?",
        f"modelarts_training_job_phase{{{_ENDED_BADLY}}} "
        f"* {_JOB} group_left (job_name, user, pool) modelarts_training_job_info",
    ),
    "modelarts_training_job_created_timestamp_seconds": Query(
        "How many seconds ago was each waiting job created?",
        "time() - modelarts_training_job_created_timestamp_seconds "
        f"and {_JOB} modelarts_training_job_phase{{{_WAITING}}}",
    ),
    "modelarts_training_job_start_timestamp_seconds": Query(
        "Which ten jobs had waited longest for their first start, in seconds?",
        "topk(10, modelarts_training_job_start_timestamp_seconds - modelarts_training_job_created_timestamp_seconds)",
    ),
    "modelarts_training_job_end_timestamp_seconds": Query(
        "Which jobs have ended within ten minutes, and how many seconds ago?",
        "time() - modelarts_training_job_end_timestamp_seconds < 600",
    ),
    "modelarts_training_job_duration_seconds": Query(
        "Which ten of the running jobs have run longest, in seconds?",
        "topk(10, modelarts_training_job_duration_seconds "
        f'and {_JOB} modelarts_training_job_phase{{phase="Running"}})',
    ),
    "modelarts_training_job_nodes": Query(
        "Which ten jobs have the most nodes?",
        "topk(10, modelarts_training_job_nodes)",
    ),
    "modelarts_training_job_accelerators": Query(
        "How many cards do running jobs have, by user?",
        f"sum by (user) (modelarts_training_job_accelerators "
        f"* {_JOB} group_left (user) modelarts_training_job_info "
        f'and {_JOB} modelarts_training_job_phase{{phase="Running"}})',
    ),
    "modelarts_training_job_restarts_total": Query(
        "Which jobs were restarted within an hour?",
        "sum by (region, project, job_id) (increase(modelarts_training_job_restarts_total[1h])) > 0",
    ),
    "modelarts_training_job_exit_code": Query(
        "How many jobs have failed with which exit code?",
        'count_values("exit_code", modelarts_training_job_exit_code)',
    ),
    # The exporter itself
    "modelarts_exporter_api_request_duration_seconds": Query(
        "How slow are the slowest five of a hundred API requests, in seconds?",
        "histogram_quantile(0.95, sum by (operation, le) "
        "(rate(modelarts_exporter_api_request_duration_seconds_bucket[15m])))",
    ),
    "modelarts_exporter_api_requests_total": Query(
        "How many API requests a second are sent, by status?",
        "sum by (region, project, code) (rate(modelarts_exporter_api_requests_total[15m]))",
    ),
    "modelarts_exporter_api_retries_total": Query(
        "Why were API requests sent again within an hour?",
        "sum by (region, project, reason) (increase(modelarts_exporter_api_retries_total[1h])) > 0",
    ),
    "modelarts_exporter_build_info": Query(
        "Which versions of the exporter run?",
        "count by (version) (modelarts_exporter_build_info)",
    ),
    "modelarts_exporter_config_last_reload_successful": Query(
        "Could the configuration be read the last time?",
        "modelarts_exporter_config_last_reload_successful",
    ),
    "modelarts_exporter_credentials_expiry_timestamp_seconds": Query(
        "For how many seconds are the credentials in use still valid?",
        "modelarts_exporter_credentials_expiry_timestamp_seconds - time()",
    ),
    "modelarts_exporter_duplicate_jobs_total": Query(
        "How often did pages shift while they were read, within an hour?",
        "increase(modelarts_exporter_duplicate_jobs_total[1h])",
    ),
    "modelarts_exporter_inconsistent_pages_total": Query(
        "How many pages had to be read again within an hour?",
        "increase(modelarts_exporter_inconsistent_pages_total[1h])",
    ),
    "modelarts_exporter_invalid_jobs_total": Query(
        "Where did the service send jobs with fields that cannot be used, within a day?",
        "increase(modelarts_exporter_invalid_jobs_total[1d]) > 0",
    ),
    "modelarts_exporter_jobs_without_series": Query(
        "Where is `jobs.max_series_jobs` too low, and by how many jobs?",
        "modelarts_exporter_jobs_without_series > 0",
    ),
    "modelarts_exporter_last_success_timestamp_seconds": Query(
        "How long ago was the last good poll, in seconds?",
        "time() - modelarts_exporter_last_success_timestamp_seconds",
    ),
    "modelarts_exporter_late_polls_total": Query(
        "Where did polls start late within an hour?",
        "increase(modelarts_exporter_late_polls_total[1h]) > 0",
    ),
    "modelarts_exporter_pagination_info": Query(
        "What does `offset` mean at each target?",
        "count by (region, project, mode) (modelarts_exporter_pagination_info)",
    ),
    "modelarts_exporter_poll_duration_seconds": Query(
        "How long do polls take on average, in seconds, by kind?",
        "sum by (region, project, kind) (rate(modelarts_exporter_poll_duration_seconds_sum[6h])) "
        "/ sum by (region, project, kind) (rate(modelarts_exporter_poll_duration_seconds_count[6h]))",
    ),
    "modelarts_exporter_polls_total": Query(
        "Which polls failed within an hour, and of what?",
        'sum by (region, project, kind, result) (increase(modelarts_exporter_polls_total{result!="success"}[1h])) > 0',
    ),
    "modelarts_exporter_state_errors_total": Query(
        "Did the state file fail within an hour?",
        "increase(modelarts_exporter_state_errors_total[1h]) > 0",
    ),
    "modelarts_exporter_tracked_jobs": Query(
        "How many jobs are held in memory?",
        "sum by (region, project) (modelarts_exporter_tracked_jobs)",
    ),
    "modelarts_exporter_unknown_values_total": Query(
        "In which fields did the service send undocumented values within a day?",
        "sum by (field) (increase(modelarts_exporter_unknown_values_total[1d])) > 0",
    ),
    "modelarts_up": Query(
        "At which targets did the last poll fail?",
        "modelarts_up == 0",
    ),
}
"""By metric, in the order of the page."""


def table(rows: Iterable[tuple[str, str, tuple[str, ...], str]]) -> str:
    """A Markdown table of families: name, type, labels, help."""
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for name, kind, labels, text in rows:
        shown = ", ".join(f"`{label}`" for label in labels) or "-"
        lines.append(f"| `{name}` | {kind} | {shown} | {text} |")
    return "\n".join(lines) + "\n"


def own_rows() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """The exporter's own instruments, sorted by name."""
    kinds = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}
    for instrument in sorted(Instruments().all(), key=lambda each: each.describe()[0].name):
        family = instrument.describe()[0]
        kind = kinds[type(instrument)]
        name = family.name + ("_total" if kind == "counter" else "")
        yield name, kind, instrument._labelnames, family.documentation  # noqa: SLF001 - no accessor


def families() -> dict[str, list[tuple[str, str, tuple[str, ...], str]]]:
    """All families by section of the page: name, type, labels, help."""
    fleet = [
        (r.metric.name, r.metric.type, (*TARGET, *r.labels), r.metric.help) for r in FLEET_FAMILIES
    ]
    events = [
        (r.metric.name, r.metric.type, (*TARGET, *BASE, *r.labels), r.metric.help)
        for r in EVENT_FAMILIES
    ]
    job = [
        (r.metric.name, r.metric.type, (*TARGET, "job_id", *r.labels), r.metric.help)
        for r in JOB_FAMILIES
    ]
    return {"Fleet": fleet, "Events": events, "Jobs": job, "The exporter itself": [*own_rows()]}


def query_table() -> str:
    """A Markdown table with a query for every family."""
    lines = ["| metric | question | query |", "|---|---|---|"]
    for name, query in QUERIES.items():
        promql = query.promql.replace("|", r"\|")  # or it would end the cell
        lines.append(f"| `{name}` | {query.question} | `{promql}` |")
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    """docs/metrics.md."""
    introductions = (FLEET_INTRODUCTION, EVENTS_INTRODUCTION, JOB_INTRODUCTION, OWN_INTRODUCTION)
    parts = [INTRODUCTION]
    for (section, rows), introduction in zip(families().items(), introductions, strict=True):
        parts += [f"## {section}\n", introduction, table(rows)]
    return "\n".join([*parts, "## Example queries\n", QUERIES_INTRODUCTION, query_table()])


# --- configuration --------------------------------------------------------------------------------

CONFIGURATION = """\
<!-- Written by docs/generate.py from the code; change it there. -->
# Configuration

Every option has one name, and three places where it can be given. A flag wins over the environment, the
environment over the file, the file over the default:

| place | example |
|---|---|
| flag | `--poll.interval 30s` or `--poll.interval=30s` |
| environment | `MODELARTS_EXPORTER_POLL__INTERVAL=30s` |
| YAML file, named by `--config.file` | `poll: {interval: 30s}` |

- **Names.** In flags `_` becomes `-`; `--web.listen_address` is understood, too. A flag that is unknown, a key of
  the file, or a variable that begins with `MODELARTS_EXPORTER_`, is an error, and the nearest known name is
  suggested. Only the variables that Kubernetes sets for a service named `modelarts-exporter`
  (`MODELARTS_EXPORTER_SERVICE_HOST`, `MODELARTS_EXPORTER_PORT_9978_TCP` and so on) are left alone.
- **Nothing given.** An empty variable, and a key of the file without a value, count as not given. A secret
  without a value is an error: `password: #x` is a comment for YAML, and would be no password.
- **Durations** are written as for Prometheus (`30s`, `5m`, `1h30m`, `7d`; units `ms`, `s`, `m`, `h`, `d`, `w`,
  `y`), or as a number of seconds.
- **Lists** (`target.workspaces`, `web.listen_address`): the flag repeated, or separated by commas; in the file a
  list.
- **Yes or no**: `--jobs.per-job=false` or `--no-jobs.per-job`; in the environment and the file `true` or `false`.
- **Paths** in the file are relative to the directory of the file, those in flags and variables to the working
  directory.
- **Secrets** have no flags, since process lists show those. Best each is in a file of its own
  (`secret_key_file` and so on): such a file may change while the exporter runs. It must be readable when the
  exporter starts; only the `id_token_file` may come later. A secret is never part of a message.
- **Mistakes** are all reported at once, one line each with option, origin and what would be valid; the exit code
  is 2.

## Example

```yaml
target:
  region: cn-north-4
  name: research
  auth:
    method: aksk
    access_key: EXAMPLEACCESSKEY
    secret_key_file: /run/secrets/modelarts-sk
poll:
  interval: 60s
web:
  listen_address: ["0.0.0.0:9978", "[::1]:9978"]
```

Two projects, each with its own sign-in:

```yaml
targets:
  - name: research
    region: cn-north-4
    project_id: 0605767eb780d5762f5ec0196d1d2f3a
    auth: {method: agency}
  - name: production
    region: ap-southeast-1
    workspaces: ["0", 5f0c2b7e9d3a4c1e8b6f7a2d4c9e1b30]
    auth:
      method: password
      domain: example-account
      username: modelarts-reader
      password_file: /run/secrets/iam-password
```

Targets must differ in `region` or in the label `project`, which is `name`, else `project_id`.
"""

SIGN_IN = """\
## Ways to sign in

The identity needs the permission `modelarts:trainJob:list`; for the names of pools, also `modelarts:pool:list`; to
look up a project id, also `iam:projects:listProjects`. `target.auth.method` says how:

**`auto`** takes the first of these that is there: what the target's own options begin to say (`idp_id` or
`id_token_file`: `oidc`; `access_key` or `secret_key`: `aksk`; `username` or `password`: `password`; `token`:
`token`; each also as `_file`), the vendor's variables `HUAWEICLOUD_SDK_*`, the vendor's profile file, and at last
`agency`. In the variables and in the profile file, `oidc` comes before `aksk`.

**`aksk`** signs every request with `access_key` and `secret_key` (or `secret_key_file`); of a temporary key also
`security_token` (or `security_token_file`). What the options leave out is taken from `HUAWEICLOUD_SDK_AK`,
`HUAWEICLOUD_SDK_SK` and `HUAWEICLOUD_SDK_SECURITY_TOKEN`, else from `ak`, `sk` and `security_token` in the section
`[basic]` of the profile file: the one that `HUAWEICLOUD_SDK_CREDENTIALS_FILE` names, else
`~/.huaweicloud/credentials`.

**`password`** signs in as an IAM user: `username`, `password` (or `password_file`) and `domain`, the name of the
account. IAM gives a token for it, which is renewed in time.

**`token`** sends a ready token of the project: `token`, or better `token_file`, which somebody else renews.

**`agency`** uses the temporary keys of the agency that is attached to the cloud server the exporter runs on. They
come from the server's metadata service; there is nothing to configure.

**`oidc`** exchanges an id token for an IAM token, as workload identities of CCE need it: `idp_id`, the name of the
identity provider in IAM, and `id_token_file`, which is read at every renewal and may appear late. What the options
leave out is taken from `HUAWEICLOUD_SDK_IDP_ID` and `HUAWEICLOUD_SDK_ID_TOKEN_FILE`, else from `idp_id` and
`id_token_file` in the profile file.

**`none`** sends no credentials, for tests.
"""

WEB = """\
## TLS and passwords

The port of the exporter speaks plain HTTP and is open to everybody who reaches it, until `web.config.file` names a
web configuration. Its format is the one of Prometheus's own programs and exporters:
[web-configuration.md](web-configuration.md).
"""


def option_row(option: Option) -> str:
    """The line of the table for one option."""
    default = {"": "required", "none": "-"}.get(option.default) or (
        option.default if "`" in option.default or " " in option.default else f"`{option.default}`"
    )
    flag = f"`{option.flag}`" if option.flag else "-"
    variable = f"`{option.variable}`" if option.variable else "-"
    meaning = f"{option.help} ({option.type.name})"
    return f"| `{option.name}` | {default} | {flag} | {variable} | {meaning} |"


def configuration_page() -> str:
    """docs/configuration.md."""
    parts = [CONFIGURATION, "## Options\n"]
    for name, about, options in groups():
        parts.append(f"### `{name}`\n\n{about}\n" if name else "### More than one target\n")
        rows = "\n".join(option_row(option) for option in options)
        head = "| option | default | flag | environment | meaning |\n|---|---|---|---|---|"
        parts.append(f"{head}\n{rows}\n")
    return "\n".join([*parts, SIGN_IN, WEB])


# --- the pages ------------------------------------------------------------------------------------


def pages() -> dict[Path, str]:
    """Every generated page."""
    return {
        HERE / "metrics.md": metrics_page(),
        HERE / "configuration.md": configuration_page(),
    }


def stale() -> list[Path]:
    """The pages that are not what they would be if they were written now."""
    return [
        path
        for path, text in pages().items()
        if not path.is_file() or path.read_bytes() != text.encode()
    ]


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or check them; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a page is stale")
    check = parser.parse_args(arguments).check
    found = stale()
    for path in found:
        if check:
            print(f"docs/{path.name} is stale: run python docs/generate.py", file=sys.stderr)
        else:
            path.write_bytes(pages()[path].encode())
            print(f"docs/{path.name} written")
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
