"""Every option, once: name, default, kind of value, help text, and what must fit together.

Flags, environment variables, keys of the file, ``--help`` and docs/configuration.md all come from
the fields here. To add an option, add a field.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from exporter.settings import types as kinds
from exporter.settings.durations import show
from exporter.settings.problems import OptionPath
from exporter.settings.types import Address

Method = Literal["auto", "aksk", "password", "token", "agency", "oidc", "none"]
Pagination = Literal["auto", "page", "row"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]

Text = Annotated[str, kinds.text()]
HiddenText = Annotated[str, kinds.text(hidden=True)]
Secret = Annotated[SecretStr, kinds.SECRET]
SecretFile = Annotated[str, kinds.READABLE]
Url = Annotated[str, kinds.URL]
Positive = Annotated[float, kinds.duration(at_least=0.001)]
FromZero = Annotated[float, kinds.duration(at_least=0)]
Region = Annotated[
    str, kinds.text("region", "such as cn-north-4", "[0-9A-Za-z][0-9A-Za-z_-]{0,63}")
]
ProjectId = Annotated[
    str,
    kinds.text("project id", "letters and digits, in YAML in quotes", "[0-9A-Za-z_-]{1,64}"),
]
SECRETS = ("secret_key", "security_token", "password", "token")


class Conflict(NamedTuple):
    """Options that do not go together.

    Attributes:
        paths: of the options, relative to the model; the first is the one to complain about.
        wrong: what is wrong and what would be valid.
    """

    paths: tuple[OptionPath, ...]
    wrong: str


class ConflictsError(ValueError):
    """What `Group.conflicts` found."""

    def __init__(self, found: tuple[Conflict, ...]) -> None:
        super().__init__("options do not go together")
        self.found = found


class Group(BaseModel):
    """Options that belong together."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True
    )

    def conflicts(self) -> Iterator[Conflict]:
        """Options that do not go together."""
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
    """A field.

    Args:
        text: what the option means.
        default: as people would write it.
        shown: the default in words, where the value itself does not say it.
        in_file: whether the configuration file may give it.
        secret: keep it out of ``repr``.
        more: arguments of pydantic's ``Field``.
    """
    if "default_factory" not in more:
        more["default"] = default
    extra: dict[str, Any] = {"shown": shown, "in_file": in_file}
    return Field(description=text, json_schema_extra=extra, repr=not secret, **more)


class ConfigSettings(Group):
    """Where the options come from."""

    file: Annotated[str, kinds.PATH] | None = _option(
        "YAML file with options.", shown="none", in_file=False
    )


class AuthSettings(Group):
    """Who the exporter is at the target. See "Ways to sign in"."""

    method: Annotated[Method, kinds.choice(Method)] = _option(
        "How to sign in; `auto` takes the first way that has what it needs.", "auto"
    )
    access_key: HiddenText | None = _option(
        "Access key id (AK).", shown="`HUAWEICLOUD_SDK_AK`", secret=True
    )
    secret_key: Secret | None = _option("Secret access key (SK).", shown="`HUAWEICLOUD_SDK_SK`")
    secret_key_file: SecretFile | None = _option(
        "File with the secret access key, read again for every request."
    )
    security_token: Secret | None = _option(
        "Security token of a temporary access key.", shown="`HUAWEICLOUD_SDK_SECURITY_TOKEN`"
    )
    security_token_file: SecretFile | None = _option(
        "File with the security token, read again for every request."
    )
    username: Text | None = _option("Name of the IAM user.")
    password: Secret | None = _option("Password of the IAM user.")
    password_file: SecretFile | None = _option(
        "File with the password, read again for every sign-in."
    )
    domain: Text | None = _option("Name of the account that the IAM user belongs to.")
    token: Secret | None = _option("A ready IAM token of the project.")
    token_file: SecretFile | None = _option(
        "File with a ready IAM token, read again for every request."
    )
    idp_id: Text | None = _option(
        "Name of the identity provider in IAM, for `oidc`.", shown="`HUAWEICLOUD_SDK_IDP_ID`"
    )
    id_token_file: Annotated[str, kinds.PATH] | None = _option(
        "File with the id token for `oidc`; may appear and change while the exporter runs.",
        shown="`HUAWEICLOUD_SDK_ID_TOKEN_FILE`",
    )

    def conflicts(self) -> Iterator[Conflict]:
        """A secret is given once."""
        for name in SECRETS:
            file = f"{name}_file"
            if getattr(self, name) is not None and getattr(self, file) is not None:
                wrong = f"{file} is given, too; valid: only one of the two"
                yield Conflict(((name,), (file,)), wrong)


class TargetSettings(Group):
    """A project in a region, whose jobs are shown.

    Whether ``iam_endpoint`` was given or is the region's usual one: ``model_fields_set``.
    """

    name: Text | None = _option("Value of the label `project`.", shown="the project id")
    region: Region = _option("Region of the project.", ..., examples=["cn-north-4"])
    project_id: ProjectId | None = _option(
        "Project id.",
        shown="`HUAWEICLOUD_SDK_PROJECT_ID` if there is one target, else looked up from the region",
    )
    endpoint: Url = _option(
        "Base URL of ModelArts.",
        shown="`https://modelarts.{region}.myhuaweicloud.com`",
        default_factory=lambda known: f"https://modelarts.{known['region']}.myhuaweicloud.com",
    )
    iam_endpoint: Url = _option(
        "Base URL of IAM.",
        shown="`HUAWEICLOUD_SDK_IAM_ENDPOINT`, else `https://iam.{region}.myhuaweicloud.com`",
        default_factory=lambda known: f"https://iam.{known['region']}.myhuaweicloud.com",
    )
    workspaces: Annotated[
        tuple[str, ...], kinds.several(kinds.WORKSPACE, "workspace", "workspace ids")
    ] = _option("Workspace ids; each is one search.", "0")
    auth: AuthSettings = Field(default_factory=AuthSettings)
    pagination: Annotated[Pagination, kinds.choice(Pagination)] = _option(
        "What the service means by `offset`: a page number, a row number, or find out.", "auto"
    )
    ca_file: Annotated[str, kinds.CA_FILE] | None = _option(
        "PEM file with certificates to trust as well as the system's.",
        shown="the system's alone",
    )
    proxy: Annotated[str, kinds.PROXY] | None = _option(
        "URL of an HTTP proxy. Not as a flag if it contains a password: process lists show it.",
        shown="`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`",
        secret=True,
    )


class PollSettings(Group):
    """When the service is asked."""

    interval: Positive = _option(
        "From the start of one poll to the start of the next; a poll that runs over delays it.",
        "60s",
    )
    timeout: Positive = _option("Time for a whole incremental poll.", "2m")
    sweep_timeout: Positive = _option(
        "Time for a whole sweep; at 5 requests a second, 30m are 450,000 jobs.", "30m"
    )
    sweep_interval: Positive = _option(
        "From one sweep, which reads everything that the service lists, to the next.", "1h"
    )
    stale_after: Positive = _option(
        "Without a good poll for so long, the series of job states are withdrawn. "
        "Must exceed `poll.interval` + `poll.timeout`.",
        "5m",
    )

    def conflicts(self) -> Iterator[Conflict]:
        """One late poll must not withdraw anything."""
        needed = self.interval + self.timeout
        if self.stale_after <= needed:
            yield Conflict(
                (("stale_after",), ("interval",), ("timeout",)),
                f"{show(self.stale_after)} is too short for poll.interval {show(self.interval)} "
                f"and poll.timeout {show(self.timeout)}; valid: more than {show(needed)}",
            )


class ApiSettings(Group):
    """How the service is asked."""

    timeout: Positive = _option(
        "Time for one request; never longer than what is left of the poll.", "30s"
    )
    max_requests_per_second: Annotated[float, kinds.number(at_least=0.001)] = _option(
        "Requests a second to each target, retries included.", "5"
    )
    concurrency: Annotated[int, kinds.whole(at_least=1)] = _option(
        "Requests to each target at the same time.", "2"
    )
    retries: Annotated[int, kinds.whole(at_least=0)] = _option(
        "How often one request is tried again.", "5"
    )


class JobsSettings(Group):
    """Which jobs have series."""

    history: FromZero = _option(
        "How long finished jobs are counted in the gauges; `0` = while the service lists them.",
        "0",
    )
    retention: FromZero = _option("How long a finished job keeps series of its own.", "1h")
    per_job: Annotated[bool, kinds.BOOLEAN] = _option(
        "Whether jobs have series of their own at all.", "true"
    )
    max_series_jobs: Annotated[int, kinds.whole(at_least=0)] = _option(
        "How many jobs have series of their own; the newest do.", "10000"
    )


class StateSettings(Group):
    """What must outlive the process."""

    file: Annotated[str, kinds.PATH] | None = _option(
        "SQLite file that makes counters survive restarts; one exporter a file.",
        shown="none: counters start at 0",
    )


class WebConfigSettings(Group):
    """TLS and passwords for our own port. See "TLS and passwords"."""

    file: Annotated[str, kinds.PATH] | None = _option(
        "Web configuration of Prometheus's exporters: YAML file with `tls_server_config` and "
        "`basic_auth_users`. It and its certificates may change while the exporter runs.",
        shown="none: plain HTTP, open to everybody",
    )


class WebSettings(Group):
    """Where Prometheus finds the metrics."""

    listen_address: Annotated[
        tuple[Address, ...], kinds.several(kinds.ADDRESS, "address", "addresses")
    ] = _option("Where to listen: `HOST:PORT`, `[IPV6]:PORT`, or `:PORT`.", "0.0.0.0:9978")
    telemetry_path: Annotated[str, kinds.TELEMETRY_PATH] = _option(
        "Path of the metrics.", "/metrics"
    )
    config: WebConfigSettings = Field(default_factory=WebConfigSettings)
    enable_reload: Annotated[bool, kinds.BOOLEAN] = _option(
        "Whether `POST /-/reload` reads the configuration again, as SIGHUP always does.", "false"
    )


class LogSettings(Group):
    """What is written to standard error."""

    level: Annotated[LogLevel, kinds.choice(LogLevel)] = _option("From which level on.", "info")
    format: Annotated[LogFormat, kinds.choice(LogFormat)] = _option(
        "A line of text, or a JSON object a line.", "text"
    )


class Settings(BaseSettings):
    """The whole configuration. Made by `exporter.settings.load`."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True
    )

    config: ConfigSettings = Field(default_factory=ConfigSettings)
    target: TargetSettings | None = None
    targets: Annotated[tuple[TargetSettings, ...], kinds.TARGETS] = _option(
        "Several targets: a list, each with the keys that `target` has. Only in the file, and not "
        "together with `target`.",
        (),
    )
    poll: PollSettings = Field(default_factory=PollSettings)
    api: ApiSettings = Field(default_factory=ApiSettings)
    jobs: JobsSettings = Field(default_factory=JobsSettings)
    state: StateSettings = Field(default_factory=StateSettings)
    web: WebSettings = Field(default_factory=WebSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    @classmethod
    def merged(cls, *layers: dict[str, Any]) -> Self:
        """From the values of flags, environment and so on; the first layer wins.

        Raises:
            pydantic.ValidationError: see `exporter.settings.load`.
        """
        values: dict[str, Any] = {"layers": layers}
        return cls(**values)

    def all_targets(self) -> tuple[TargetSettings, ...]:
        """The targets, however many and wherever they were given."""
        return self.targets or tuple(filter(None, [self.target]))

    def conflicts(self) -> Iterator[Conflict]:
        """No two targets have the same labels."""
        seen: dict[tuple[str, str | None], int] = {}
        for position, target in enumerate(self.targets):
            labels = (target.region, target.name or target.project_id)
            first = seen.setdefault(labels, position)
            if first != position:
                yield Conflict(
                    (("targets", position, "name"),),
                    f"its labels region and project are those of targets[{first}]; "
                    "valid: a name that no other target of the region has",
                )

    @model_validator(mode="before")
    @classmethod
    def _one_target_or_several(cls, values: dict[str, Any]) -> dict[str, Any]:
        return values if "targets" in values else {"target": {}} | values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if found := tuple(self.conflicts()):
            raise ConflictsError(found)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The layers, and nothing that pydantic-settings would read itself."""
        layers = init_settings().get("layers", ())
        return tuple(InitSettingsSource(settings_cls, layer) for layer in layers)
