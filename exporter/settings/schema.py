"""Every option, once: name, type, default and help text, and which options conflict.

Flags, environment variables, keys of the file, ``--help`` and docs/configuration.md are all derived
from the fields here. To add an option, add a field.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from exporter.settings import metric_types, secret_types, types
from exporter.settings.durations import show
from exporter.settings.problems import OptionPath
from exporter.settings.types import Address

Method = Literal["auto", "aksk", "password", "token", "agency", "oidc", "none"]
Pagination = Literal["auto", "page", "row"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]

Text = Annotated[str, types.text()]
HiddenText = Annotated[str, types.text(hidden=True)]
Secret = Annotated[SecretStr, secret_types.SECRET]
Password = Annotated[SecretStr, secret_types.PASSWORD]
SecretFile = Annotated[str, secret_types.SECRET_FILE]
Url = Annotated[str, types.URL]
Positive = Annotated[float, types.duration(at_least=0.001)]
FromZero = Annotated[float, types.duration(at_least=0)]
Region = Annotated[
    str,
    types.text("region", "a region ID such as cn-north-4", "[0-9A-Za-z][0-9A-Za-z_-]{0,63}"),
]
ProjectId = Annotated[str, types.PROJECT_ID]
ALL = (types.ALL,)
"""The value of an option that lists workspaces or projects, if it is ``all``."""
SECRETS = ("secret_key", "security_token", "password", "token")


class Conflict(NamedTuple):
    """Options that conflict.

    Attributes:
        paths: of the options, relative to the model; the problem is reported for the first.
        wrong: what is wrong, and what would be valid.
    """

    paths: tuple[OptionPath, ...]
    wrong: str


class ConflictsError(ValueError):
    """The conflicts that `conflicts` found."""

    def __init__(self, found: tuple[Conflict, ...]) -> None:
        super().__init__("conflicting options")
        self.found = found


class Group(BaseModel):
    """Options that belong together."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True
    )

    def conflicts(self) -> Iterator[Conflict]:
        """The options of the group that conflict."""
        return iter(())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if found := tuple(self.conflicts()):
            raise ConflictsError(found)
        return self


def _option(
    text: str,
    default: Any = None,
    *,
    shown: str = "",
    in_file: bool = True,
    secret: bool = False,
    **more: Any,
) -> Any:
    """The field of an option.

    Args:
        text: what the option means.
        default: as people would write it.
        shown: the default in words, if it is not a fixed value.
        in_file: whether it may be set in the configuration file.
        secret: keep it out of ``repr``.
        more: arguments of pydantic's ``Field``.
    """
    if "default_factory" not in more:
        more["default"] = default
    extra: dict[str, Any] = {"shown": shown, "in_file": in_file}
    return Field(description=text, json_schema_extra=extra, repr=not secret, **more)


class ConfigSettings(Group):
    """The configuration file."""

    file: Annotated[str, types.PATH] | None = _option(
        "Configuration file in YAML.", shown="none", in_file=False
    )


class AuthSettings(Group):
    """How the exporter signs in. See "Ways to sign in"."""

    method: Annotated[Method, types.choice(Method)] = _option(
        "How to sign in; `auto` uses the first method that is configured.", "auto"
    )
    access_key: HiddenText | None = _option(
        "Access key ID (AK).", shown="`HUAWEICLOUD_SDK_AK`", secret=True
    )
    secret_key: Secret | None = _option("Secret access key (SK).", shown="`HUAWEICLOUD_SDK_SK`")
    secret_key_file: SecretFile | None = _option(
        "File that contains the secret access key; read for every request."
    )
    security_token: Secret | None = _option(
        "Security token of a temporary access key.", shown="`HUAWEICLOUD_SDK_SECURITY_TOKEN`"
    )
    security_token_file: SecretFile | None = _option(
        "File that contains the security token; read for every request."
    )
    username: Text | None = _option("Name of the IAM user.")
    password: Password | None = _option("Password of the IAM user.")
    password_file: SecretFile | None = _option(
        "File that contains the password; read for every sign-in."
    )
    domain: Text | None = _option("Account (domain) name of the IAM user.")
    token: Secret | None = _option("An existing IAM token for the project.")
    token_file: SecretFile | None = _option(
        "File that contains an existing IAM token; read for every request."
    )
    idp_id: Text | None = _option(
        "Name of the identity provider in IAM, for `oidc`.", shown="`HUAWEICLOUD_SDK_IDP_ID`"
    )
    id_token_file: Annotated[str, secret_types.ID_TOKEN_FILE] | None = _option(
        "File that contains the ID token for `oidc`; may be created and changed at runtime.",
        shown="`HUAWEICLOUD_SDK_ID_TOKEN_FILE`",
    )

    def conflicts(self) -> Iterator[Conflict]:
        """A secret must be set only once."""
        for name in SECRETS:
            file = f"{name}_file"
            if getattr(self, name) is not None and getattr(self, file) is not None:
                wrong = f"{file} is also set; set only one of them"
                yield Conflict(((name,), (file,)), wrong)


class TargetSettings(Group):
    """A project in a region, whose jobs are exported.

    ``model_fields_set`` tells whether ``iam_endpoint`` was set or is the default of the region.
    """

    name: Text | None = _option("Value of the label `project`.", shown="the project ID")
    region: Region = _option("Region of the project.", ..., examples=["cn-north-4"])
    project_id: ProjectId | None = _option(
        "Project ID.",
        shown="`HUAWEICLOUD_SDK_PROJECT_ID` if there is one target, else looked up from the region",
    )
    projects: (
        Annotated[
            tuple[str, ...], types.several_or_all(types.PROJECT, "project", "project names or IDs")
        ]
        | None
    ) = _option(
        "Instead of a project ID: `all` projects of the region that the identity can see, or a "
        "list of names or IDs. Each becomes a target of its own, named after the project.",
        shown="only the one project",
    )
    endpoint: Url = _option(
        "Base URL of ModelArts.",
        shown="`https://modelarts.{region}.myhuaweicloud.com`",
        default_factory=lambda known: f"https://modelarts.{known['region']}.myhuaweicloud.com",
    )
    iam_endpoint: Annotated[str, types.IAM_URL] = _option(
        "Base URL of IAM, without `/v3`.",
        shown="`HUAWEICLOUD_SDK_IAM_ENDPOINT`, else `https://iam.{region}.myhuaweicloud.com`",
        default_factory=lambda known: f"https://iam.{known['region']}.myhuaweicloud.com",
    )
    workspaces: Annotated[
        tuple[str, ...], types.several_or_all(types.WORKSPACE, "workspace", "workspace IDs")
    ] = _option(
        "Workspace IDs, or `all` that the identity can access; each costs a search of its own.", "0"
    )
    labels: Annotated[dict[str, str], metric_types.LABELS] = _option(
        "Labels of `modelarts_target_info`, in the file as a mapping (`team: nlp`), otherwise as "
        "`NAME=VALUE`.",
        {},
    )
    auth: AuthSettings = Field(default_factory=AuthSettings)
    pagination: Annotated[Pagination, types.choice(Pagination)] = _option(
        "How the API interprets `offset`: as a page number, as a row number, or detect it.", "auto"
    )
    ca_file: Annotated[str, types.CA_FILE] | None = _option(
        "PEM file with CA certificates to trust in addition to those of the system. An "
        "intermediate CA is enough.",
        shown="only those of the system",
    )
    proxy: Annotated[str, types.PROXY] | None = _option(
        "URL of an HTTP proxy, with or without `http://`; SOCKS is not supported. Do not use the "
        "flag if the URL contains a password: process lists show it.",
        shown="`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, except for `NO_PROXY`",
        secret=True,
    )

    @property
    def is_looked_up(self) -> bool:
        """Whether its projects or workspaces are looked up."""
        return self.projects is not None or self.workspaces == ALL

    def conflicts(self) -> Iterator[Conflict]:
        """Either one project is given, or projects are looked up."""
        for name in ("name", "project_id") if self.projects is not None else ():
            if getattr(self, name) is not None:
                wrong = "projects is also set; use either of them"
                yield Conflict(((name,), ("projects",)), wrong)


class PollSettings(Group):
    """When the API is polled."""

    interval: Positive = _option(
        "Time from the start of a poll to the start of the next; a longer poll delays the next.",
        "60s",
    )
    timeout: Positive = _option("Timeout of an incremental poll.", "2m")
    sweep_timeout: Positive = _option(
        "Timeout of a sweep and of a verification; 30m is enough for 360,000 jobs at 5 requests "
        "per second.",
        "30m",
    )
    sweep_interval: Positive = _option(
        "Time in which every page of the job list is verified once, with at most one page beside "
        "each poll. Where that is not possible: time from one sweep, which reads the whole list, "
        "to the next.",
        "24h",
    )
    pools_interval: FromZero = _option(
        "How often to read how full resource pools are, quotas and places in queues; `0` = never.",
        "5m",
    )
    stale_after: Positive = _option(
        "Withdraw the series of job states after this time without a successful poll. "
        "Must exceed `poll.interval` + `poll.timeout`.",
        shown="`5m`, or 2 x `poll.interval` + `poll.timeout` if that is longer",
        default_factory=lambda known: max(300.0, 2 * known["interval"] + known["timeout"]),
    )

    def conflicts(self) -> Iterator[Conflict]:
        """A single late poll must not withdraw series."""
        needed = self.interval + self.timeout
        if self.stale_after <= needed:
            yield Conflict(
                (("stale_after",), ("interval",), ("timeout",)),
                f"{show(self.stale_after)} is too short for poll.interval {show(self.interval)} "
                f"and poll.timeout {show(self.timeout)}; use more than {show(needed)}",
            )


class ApiSettings(Group):
    """Requests to the API."""

    timeout: Positive = _option(
        "Timeout of a request; shortened to the time left for the poll.", "30s"
    )
    max_requests_per_second: Annotated[float, types.number(at_least=0.001)] = _option(
        "Maximum request rate per target, including retries.", "5"
    )
    concurrency: Annotated[int, types.whole(at_least=1)] = _option(
        "Maximum number of concurrent requests per target.", "2"
    )
    retries: Annotated[int, types.whole(at_least=0)] = _option(
        "Maximum number of retries per request.", "5"
    )


class JobsSettings(Group):
    """Which jobs are read, and which have series."""

    history: FromZero = _option(
        "How long finished jobs are counted in gauges; `0` = as long as the API lists them.",
        "0",
    )
    retention: FromZero = _option("How long a finished job keeps its per-job series.", "1h")
    idle_retention: FromZero = _option(
        "How long a combination of workspace, pool and flavor type without jobs and events keeps "
        "its gauges, at 0; its counters stay. `0` = forever.",
        "30d",
    )
    per_job: Annotated[bool, types.BOOLEAN] = _option("Whether to export per-job series.", "true")
    max_series_jobs: Annotated[int, types.whole(at_least=0)] = _option(
        "Maximum number of jobs with per-job series; the newest jobs have them.", "10000"
    )
    max_label_values: Annotated[int, types.whole(at_least=1)] = _option(
        "Maximum number of values of each label that the API chooses (pool, flavor, recovery, ...) "
        "per target; the values seen first keep their names, all others are shown as `other`.",
        "2000",
    )
    by_user: Annotated[bool, types.BOOLEAN] = _option(
        "Whether to count jobs and cards by user, too.", "true"
    )
    max_users: Annotated[int, types.whole(at_least=0)] = _option(
        "Maximum number of users with series of their own per target; the users seen first keep "
        "their names, all others together are shown as `other`.",
        "500",
    )
    unified: Annotated[bool, types.BOOLEAN] = _option(
        "Whether to include fine-tuning jobs (`unified_jobs`), where the service supports that.",
        "true",
    )


class StateSettings(Group):
    """State that survives restarts."""

    file: Annotated[str, types.PATH] | None = _option(
        "SQLite file that keeps counters across restarts; do not share it between exporters.",
        shown="none: counters start at 0",
    )


class DiscoverySettings(Group):
    """How often target.projects and target.workspaces are looked up."""

    interval: Positive = _option(
        "Time from one lookup to the next; after a failure it is repeated after `poll.interval`, "
        "if that is shorter.",
        "10m",
    )


class ShardSettings(Group):
    """Several exporters with one configuration, each of which polls its share of the targets."""

    count: Annotated[int, types.whole(at_least=1)] = _option("Number of exporters.", "1")
    index: Annotated[int, types.whole(at_least=0)] = _option(
        "Number of this exporter, from 0 to `shard.count` - 1.", "0"
    )

    def conflicts(self) -> Iterator[Conflict]:
        """Every index belongs to a shard."""
        if self.index >= self.count:
            wrong = f"{self.index} is not less than shard.count {self.count}; the first is 0"
            yield Conflict((("index",), ("count",)), wrong)


class WebConfigSettings(Group):
    """Protects the exporter's own port. See "TLS and passwords"."""

    file: Annotated[str, types.PATH] | None = _option(
        "Web configuration file as in other Prometheus exporters: YAML with `tls_server_config` "
        "and `basic_auth_users`. Changes to it and its certificates take effect at runtime.",
        shown="none: plain HTTP without authentication",
    )


class WebSettings(Group):
    """The HTTP server for Prometheus."""

    listen_address: Annotated[
        tuple[Address, ...], types.several(types.ADDRESS, "address", "addresses")
    ] = _option("Addresses to listen on: `HOST:PORT`, `[IPV6]:PORT` or `:PORT`.", "0.0.0.0:9978")
    telemetry_path: Annotated[str, types.TELEMETRY_PATH] = _option(
        "Path of the metrics.", "/metrics"
    )
    config: WebConfigSettings = Field(default_factory=WebConfigSettings)
    enable_reload: Annotated[bool, types.BOOLEAN] = _option(
        "Whether `POST /-/reload` reloads the configuration, as SIGHUP always does.", "false"
    )


class MetricsSettings(Group):
    """What is served."""

    deny: Annotated[tuple[str, ...], metric_types.FAMILIES] = _option(
        "Regular expressions of metric families that are not served. An expression must match the "
        "whole name, as in `# TYPE` lines of the text format.",
        [],
    )


class LogSettings(Group):
    """The log on standard error."""

    level: Annotated[LogLevel, types.choice(LogLevel, warn="warning")] = _option(
        "Minimum level; `warn` means `warning`.", "info"
    )
    format: Annotated[LogFormat, types.choice(LogFormat)] = _option(
        "Text, or one JSON object per line.", "text"
    )


class Settings(Group, BaseSettings):
    """The whole configuration. Created by `exporter.settings.load`."""

    config: ConfigSettings = Field(default_factory=ConfigSettings)
    target: TargetSettings | None = None
    targets: Annotated[tuple[TargetSettings, ...], types.TARGETS] = _option(
        "List of targets, each with the keys of `target`. Can only be set in the file, and not "
        "together with `target`.",
        (),
    )
    targets_files: (
        Annotated[tuple[str, ...], types.several(types.GLOB, "pattern", "patterns")] | None
    ) = _option(
        "Paths of YAML files, each with a list of targets like `targets`; may contain `*`, `?` and "
        "`**`. Read again when they change; an invalid file leaves its targets as they were.",
        shown="none",
    )
    poll: PollSettings = Field(default_factory=PollSettings)
    api: ApiSettings = Field(default_factory=ApiSettings)
    jobs: JobsSettings = Field(default_factory=JobsSettings)
    state: StateSettings = Field(default_factory=StateSettings)
    discovery: DiscoverySettings = Field(default_factory=DiscoverySettings)
    shard: ShardSettings = Field(default_factory=ShardSettings)
    web: WebSettings = Field(default_factory=WebSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    def all_targets(self) -> tuple[TargetSettings, ...]:
        """The targets from ``targets`` or ``target``, without those from files."""
        return self.targets or tuple(filter(None, [self.target]))

    def conflicts(self) -> Iterator[Conflict]:
        """Targets must differ in their labels."""
        yield from _same_labels(self.targets)

    @model_validator(mode="before")
    @classmethod
    def _one_target_or_several(cls, values: dict[str, Any]) -> dict[str, Any]:
        files_only = "targets_files" in values and "target" not in values
        return values if "targets" in values or files_only else {"target": {}} | values

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only the values passed in; pydantic-settings must not read any source itself."""
        return (init_settings,)


class ListedTargets(Group):
    """The targets of a file that ``targets_files`` names."""

    targets: Annotated[tuple[TargetSettings, ...], types.TARGETS] = ()

    def conflicts(self) -> Iterator[Conflict]:
        """Targets must differ in their labels."""
        yield from _same_labels(self.targets)


def _same_labels(targets: tuple[TargetSettings, ...]) -> Iterator[Conflict]:
    """The targets that have the labels of another; what is looked up is not known yet."""
    seen: dict[tuple[str, str | None], int] = {}
    for position, target in enumerate(targets):
        if target.projects is not None:
            continue
        labels = (target.region, target.name or target.project_id)
        first = seen.setdefault(labels, position)
        if first != position:
            yield Conflict(
                (("targets", position, "name"),),
                f"same region and project labels as targets[{first}]; "
                "use a name that is unique in the region",
            )
