"""Where options come from, which of them wins, and what becomes of them."""

import os

import pytest
import trustme
import yaml
from hypothesis import given
from hypothesis import strategies as st

from exporter.settings import durations, sources
from exporter.settings.load import load
from exporter.settings.options import help_text, options
from exporter.settings.types import BOOLEAN, Address, parse_address

REGION = ["--target.region", "cn-north-4"]
KUBERNETES = {
    "MODELARTS_EXPORTER_SERVICE_HOST": "10.0.0.1",
    "MODELARTS_EXPORTER_SERVICE_PORT": "9978",
    "MODELARTS_EXPORTER_SERVICE_PORT_METRICS": "9978",
    "MODELARTS_EXPORTER_PORT": "tcp://10.0.0.1:9978",
    "MODELARTS_EXPORTER_PORT_9978_TCP": "tcp://10.0.0.1:9978",
    "MODELARTS_EXPORTER_PORT_9978_TCP_PROTO": "tcp",
    "MODELARTS_EXPORTER_PORT_9978_TCP_PORT": "9978",
    "MODELARTS_EXPORTER_PORT_9978_TCP_ADDR": "10.0.0.1",
    "MODELARTS_EXPORTER_DEV_SERVICE_HOST": "10.0.0.2",
    "MODELARTS_EXPORTER_DEV_PORT": "tcp://10.0.0.2:9978",
}

# For every option a value other than the default, as text, and what it becomes.
EXAMPLES = {
    "target.name": ("research", "research"),
    "target.region": ("ap-southeast-1", "ap-southeast-1"),
    "target.project_id": ("0605767eb780d5762f5ec0196d1d2f3a", "0605767eb780d5762f5ec0196d1d2f3a"),
    "target.projects": ("cn-north-4,p_2", ("cn-north-4", "p_2")),
    "target.endpoint": ("http://127.0.0.1:9979/", "http://127.0.0.1:9979"),
    "target.iam_endpoint": ("https://iam.example.org/x/", "https://iam.example.org/x"),
    "target.workspaces": ("0," + "a" * 32, ("0", "a" * 32)),
    "target.labels": ("team=nlp, stage=a=b", {"team": "nlp", "stage": "a=b"}),
    "target.pagination": ("ROW", "row"),
    "target.ca_file": ("ca.pem", "ca.pem"),
    "target.proxy": ("http://u:p@proxy:3128", "http://u:p@proxy:3128"),
    "target.auth.method": ("aksk", "aksk"),
    "target.auth.access_key": (" AK ", "AK"),
    "target.auth.secret_key": ("geheim", "geheim"),
    "target.auth.secret_key_file": ("file", "file"),
    "target.auth.security_token": ("geheim", "geheim"),
    "target.auth.security_token_file": ("file", "file"),
    "target.auth.username": ("me", "me"),
    "target.auth.password": (" geheim ", "geheim"),
    "target.auth.password_file": ("file", "file"),
    "target.auth.domain": ("ours", "ours"),
    "target.auth.token": ("geheim", "geheim"),
    "target.auth.token_file": ("file", "file"),
    "target.auth.idp_id": ("idp", "idp"),
    "target.auth.id_token_file": ("not-there-yet", "not-there-yet"),
    "poll.interval": ("30s", 30.0),
    "poll.timeout": ("1m", 60.0),
    "poll.sweep_timeout": ("1h", 3600.0),
    "poll.sweep_interval": ("2d", 172_800.0),
    "poll.pools_interval": ("0", 0.0),
    "poll.stale_after": ("1h30m", 5400.0),
    "api.timeout": ("1.5", 1.5),
    "api.max_requests_per_second": ("2.5", 2.5),
    "api.concurrency": ("4", 4),
    "api.retries": ("0", 0),
    "jobs.history": ("7d", 604_800.0),
    "jobs.retention": ("0", 0.0),
    "jobs.idle_retention": ("7d", 604_800.0),
    "jobs.per_job": ("no", False),
    "jobs.max_series_jobs": ("5", 5),
    "jobs.max_label_values": ("7", 7),
    "jobs.by_user": ("no", False),
    "jobs.max_users": ("0", 0),
    "jobs.unified": ("no", False),
    "targets_files": ("a.yml, teams/*.yml", ("a.yml", "teams/*.yml")),
    "discovery.interval": ("30m", 1800.0),
    "shard.count": ("3", 3),
    "state.file": ("state.db", "state.db"),
    "web.listen_address": ("[::]:9978,:0,localhost:1", (("::", 9978), ("", 0), ("localhost", 1))),
    "web.telemetry_path": ("/a/metrics", "/a/metrics"),
    "web.config.file": ("web.yml", "web.yml"),
    "web.enable_reload": ("true", True),
    "metrics.deny": ("go_.*,a{1,2}", ("go_.*", "a{1,2}")),
    "log.level": ("debug", "debug"),
    "log.format": ("json", "json"),
}
NOT_ALIKE = {"config.file", "targets", "shard.index"}
ALIKE = [option for option in options() if option.name not in NOT_ALIKE]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "web.yml").write_text("")
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path


def value_of(settings, path):
    for name in path:
        settings = getattr(settings, name)
    return settings.get_secret_value() if hasattr(settings, "get_secret_value") else settings


def nested(path, value):
    for name in reversed(path):
        value = {name: value}
    return value


def with_file(here, content, arguments=(), environ=None):
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    (here / "exporter.yml").write_text(text)
    return load(["--config.file", "exporter.yml", *arguments], environ or {})


def test_every_option_has_an_example():
    assert {option.name for option in options()} == EXAMPLES.keys() | NOT_ALIKE


@pytest.mark.parametrize("option", ALIKE, ids=lambda option: option.name)
def test_every_option_can_be_given_in_every_way(here, option):
    text, value = EXAMPLES[option.name]
    region = [] if option.name == "target.region" else REGION
    environ = {"MODELARTS_EXPORTER_TARGET__REGION": "cn-north-4"} if region else {}
    if region:
        assert value_of(load(region, {}), option.path) != value
    assert value_of(load(region, {option.variable: text}), option.path) == value
    assert value_of(with_file(here, nested(option.path, text), (), environ), option.path) == value
    if option.flag is None:
        return
    for flag in (option.flag, f"--{option.name}"):
        assert value_of(load([*region, flag, text], {}), option.path) == value
        assert value_of(load([*region, f"{flag}={text}"], {}), option.path) == value


@pytest.mark.parametrize(
    "option", [o for o in ALIKE if o.path[0] == "target"], ids=lambda option: option.name
)
def test_every_key_of_a_target_can_be_given_in_a_list(here, option):
    text, value = EXAMPLES[option.name]
    target = {"region": "cn-north-4", **nested(option.path[1:], text)}
    found = with_file(here, {"targets": [target]}).all_targets()
    assert len(found) == 1
    assert value_of(found[0], option.path[1:]) == value


def test_only_secrets_have_no_flag():
    without = {option.path[-1] for option in options() if option.flag is None}
    assert without == {"secret_key", "security_token", "password", "token", "targets"}


def test_defaults_are_those_of_the_contract():
    settings = load(REGION, {})
    groups = {"poll", "api", "jobs", "web", "metrics", "log"}
    assert {o.name: o.default for o in options() if o.path[0] in groups} == {
        "poll.interval": "60s",
        "poll.timeout": "2m",
        "poll.sweep_timeout": "30m",
        "poll.sweep_interval": "24h",
        "poll.pools_interval": "5m",
        "poll.stale_after": "`5m`, or 2 x `poll.interval` + `poll.timeout` if that is longer",
        "api.timeout": "30s",
        "api.max_requests_per_second": "5",
        "api.concurrency": "2",
        "api.retries": "5",
        "jobs.history": "0",
        "jobs.retention": "1h",
        "jobs.idle_retention": "30d",
        "jobs.per_job": "true",
        "jobs.max_series_jobs": "10000",
        "jobs.max_label_values": "2000",
        "jobs.by_user": "true",
        "jobs.max_users": "500",
        "jobs.unified": "true",
        "web.listen_address": "0.0.0.0:9978",
        "web.telemetry_path": "/metrics",
        "web.config.file": "none: plain HTTP without authentication",
        "web.enable_reload": "false",
        "metrics.deny": "none",
        "log.level": "info",
        "log.format": "text",
    }
    (target,) = settings.all_targets()
    assert target.endpoint == "https://modelarts.cn-north-4.myhuaweicloud.com"
    assert target.iam_endpoint == "https://iam.cn-north-4.myhuaweicloud.com"
    assert target.workspaces == ("0",)
    assert (target.labels, settings.metrics.deny) == ({}, ())
    assert target.auth.method == target.pagination == "auto"
    assert target.project_id is target.name is target.proxy is None
    assert settings.poll.stale_after == 300.0
    assert settings.web.listen_address == (Address("0.0.0.0", 9978),)
    assert settings.jobs.per_job is True
    assert "iam_endpoint" not in target.model_fields_set


@pytest.mark.parametrize(
    ("flags", "stale_after"),
    [
        ([], 300),
        (["--poll.interval=5m"], 720),
        (["--poll.interval=10s", "--poll.timeout=5s"], 300),
        (["--poll.timeout=10m"], 720),
        (["--poll.interval=1d"], 2 * 86_400 + 120),
        (["--poll.interval=5m", "--poll.stale-after=8m"], 480),
    ],
)
def test_the_default_of_stale_after_follows_the_interval(flags, stale_after):
    assert load([*REGION, *flags], {}).poll.stale_after == stale_after


@pytest.mark.parametrize("text", ["warn", "WARN", "Warning", " warning "])
def test_warn_is_a_level_too(here, text):
    assert load([*REGION, "--log.level", text], {}).log.level == "warning"
    assert with_file(here, {"log": {"level": text}}, REGION).log.level == "warning"


def test_flag_before_environment_before_file_before_default(here):
    file = {"poll": {"interval": "10s", "timeout": "10s"}, "api": {"timeout": "3s", "retries": 1}}
    environ = {
        "MODELARTS_EXPORTER_POLL__INTERVAL": "20s",
        "MODELARTS_EXPORTER_POLL__TIMEOUT": "20s",
    }
    settings = with_file(here, file, [*REGION, "--poll.interval=30s"], environ)
    assert (settings.poll.interval, settings.poll.timeout) == (30, 20)
    assert (settings.api.timeout, settings.api.retries, settings.api.concurrency) == (3, 1, 2)


def test_what_another_source_overrides_does_not_matter(here):
    settings = with_file(here, "poll: {interval: abc}", [*REGION, "--poll.interval=30s"])
    assert settings.poll.interval == 30


def test_lists_replace_lists(here):
    file = {"web": {"listen_address": [":1", ":2"]}}
    assert with_file(here, file, REGION).web.listen_address == (("", 1), ("", 2))
    flags = ["--web.listen-address=:3", "--web.listen_address", "[::1]:4,:5"]
    settings = with_file(here, file, [*REGION, *flags])
    assert [str(each) for each in settings.web.listen_address] == [":3", "[::1]:4", ":5"]


def test_lists_may_be_json():
    environ = {
        "MODELARTS_EXPORTER_TARGET__WORKSPACES": '["0", "vision"]',
        "MODELARTS_EXPORTER_WEB__LISTEN_ADDRESS": '["[::1]:9978"]',
    }
    settings = load(REGION, environ)

    assert settings.target.workspaces == ("0", "vision")
    assert settings.web.listen_address == (Address("::1", 9978),)


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        ("{team: nlp, _x1: 'a \u4e2d'}", {"team": "nlp", "_x1": "a \u4e2d"}),
        ("{cost: '4711'}", {"cost": "4711"}),
        ("[team=nlp, 'a=b,c=d']", {"team": "nlp", "a": "b", "c": "d"}),
        ("{}", {}),
    ],
)
def test_labels_are_a_mapping_in_the_file(here, content, labels):
    settings = with_file(here, f"target: {{region: cn-north-4, labels: {content}}}\n")
    assert settings.target.labels == labels


def test_labels_replace_labels_and_may_be_json(here):
    file = {"target": {"region": "cn-north-4", "labels": {"team": "nlp"}}}
    environ = {"MODELARTS_EXPORTER_TARGET__LABELS": '{"team": "cv, ocr"}'}
    flags = ["--target.labels=a=1", "--target.labels", "b=2,c=3"]
    assert with_file(here, file, (), environ).target.labels == {"team": "cv, ocr"}
    assert with_file(here, file, flags, environ).target.labels == {"a": "1", "b": "2", "c": "3"}


def test_nothing_may_be_denied(here):
    assert with_file(here, {"metrics": {"deny": []}}, REGION).metrics.deny == ()


def test_file_may_be_named_by_the_environment(here):
    (here / "exporter.yml").write_text("target: {region: cn-north-4}")
    environ = {"MODELARTS_EXPORTER_CONFIG__FILE": "exporter.yml"}
    assert load([], environ).all_targets()[0].region == "cn-north-4"
    (here / "other.yml").write_text("target: {region: cn-south-1}")
    assert load(["--config.file=other.yml"], environ).all_targets()[0].region == "cn-south-1"


@pytest.mark.parametrize("content", ["", "# nothing\n", "---\n", "poll:\napi: {timeout: }\n"])
def test_empty_files_and_keys_say_nothing(here, content):
    assert with_file(here, content, REGION).poll == load(REGION, {}).poll


def test_empty_variables_say_nothing():
    environ = {option.variable: "" for option in options() if option.variable}
    assert load(REGION, environ) == load(REGION, {})


def test_other_variables_are_not_looked_at():
    assert load(REGION, {"POLL__INTERVAL": "x", "MODELARTS_EXPORTERX": "x"}) == load(REGION, {})


def test_variables_that_kubernetes_sets_for_a_service_are_left_alone():
    assert load(REGION, KUBERNETES) == load(REGION, {})


def test_the_process_environment_is_not_read(monkeypatch):
    monkeypatch.setitem(os.environ, "MODELARTS_EXPORTER_POLL__INTERVAL", "30s")
    monkeypatch.setitem(os.environ, "POLL", '{"interval": 30}')
    monkeypatch.setitem(os.environ, "HUAWEICLOUD_SDK_PROJECT_ID", "x")
    settings = load(REGION, {})
    assert settings.poll.interval == 60
    assert settings.all_targets()[0].project_id is None


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ([], True),
        (["--jobs.per-job"], True),
        (["--jobs.per_job"], True),
        (["--jobs.per-job", "false"], False),
        (["--jobs.per-job=false"], False),
        (["--jobs.per-job=0"], False),
        (["--no-jobs.per-job"], False),
        (["--no-jobs.per_job", "--log.level=debug"], False),
        (["--jobs.per-job", "--log.level=debug"], True),
    ],
)
def test_yes_or_no(words, value):
    assert (
        load([*REGION, *words], {"MODELARTS_EXPORTER_JOBS__PER_JOB": "yes"}).jobs.per_job is value
    )


def test_yes_or_no_by_flag_wins():
    environ = {"MODELARTS_EXPORTER_JOBS__PER_JOB": "false"}
    assert load(REGION, environ).jobs.per_job is False
    assert load([*REGION, "--jobs.per-job"], environ).jobs.per_job is True


def test_yaml_types(here):
    file = (
        "target: {region: cn-north-4, workspaces: 0}\n"
        "poll: {interval: 30, timeout: 2.5e+1, stale_after: '90'}\n"
        "api: {max_requests_per_second: 2, retries: 3, timeout: 10}\njobs: {per_job: no}\n"
    )
    settings = with_file(here, file)
    assert settings.all_targets()[0].workspaces == ("0",)
    assert (settings.poll.interval, settings.poll.timeout, settings.poll.stale_after) == (
        30,
        25,
        90,
    )
    assert (settings.api.max_requests_per_second, settings.api.retries) == (2, 3)
    assert settings.jobs.per_job is False


def test_anchors_and_merge_keys(here):
    file = (
        "targets:\n  - &a {name: a, region: cn-north-4, auth: &auth {method: agency}}\n"
        "  - {<<: *a, name: b}\n  - {name: c, region: cn-south-1, auth: *auth}\n"
    )
    found = with_file(here, file).all_targets()
    assert [(each.name, each.region, each.auth.method) for each in found] == [
        ("a", "cn-north-4", "agency"),
        ("b", "cn-north-4", "agency"),
        ("c", "cn-south-1", "agency"),
    ]


def test_byte_order_mark(here):
    (here / "exporter.yml").write_text("target: {region: cn-north-4}", encoding="utf-8-sig")
    assert load(["--config.file=exporter.yml"], {}).all_targets()


def test_paths_in_the_file_are_relative_to_it(here):
    (here / "etc").mkdir()
    (here / "etc/sk").write_text("")
    target = {
        "region": "cn-north-4",
        "ca_file": str(here / "ca.pem"),
        "auth": {"secret_key_file": "sk", "id_token_file": "later"},
    }
    (here / "etc/exporter.yml").write_text(yaml.safe_dump({"target": target}))
    (found,) = load(["--config.file=etc/exporter.yml"], {}).all_targets()
    assert found.auth.secret_key_file == "etc/sk"
    assert found.auth.id_token_file == "etc/later"
    assert found.ca_file == str(here / "ca.pem")


# --- the vendor's variables -----------------------------------------------------------------------

VENDOR = {
    "HUAWEICLOUD_SDK_PROJECT_ID": " 0605767eb780d5762f5ec0196d1d2f3a ",
    "HUAWEICLOUD_SDK_IAM_ENDPOINT": "https://iam.example.org/",
}


def places(settings):
    return [
        (each.project_id, each.iam_endpoint, "iam_endpoint" in each.model_fields_set)
        for each in settings.all_targets()
    ]


def test_vendor_variables_are_defaults_of_the_only_target(here):
    expected = ("0605767eb780d5762f5ec0196d1d2f3a", "https://iam.example.org", True)
    assert places(load(REGION, VENDOR)) == [expected]
    assert places(with_file(here, {"targets": [{"region": "cn-north-4"}]}, (), VENDOR)) == [
        expected
    ]


@pytest.mark.parametrize("path", ["/v3", "/v3/", "/v3.0", "/v3/auth/tokens", "/x?y#z", "/"])
def test_the_path_of_the_vendors_endpoint_is_ignored_as_its_sdk_does(here, path):
    variable = {"HUAWEICLOUD_SDK_IAM_ENDPOINT": f"https://iam.example.org:8443{path}"}
    expected = [(None, "https://iam.example.org:8443", True)]
    assert places(load(REGION, variable)) == expected
    assert (
        places(with_file(here, {"targets": [{"region": "cn-north-4"}]}, (), variable)) == expected
    )


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("/v3", ""),
        ("/v3/", ""),
        ("/V3", ""),
        ("/v3.0", ""),
        ("/v3/auth/", ""),
        ("/v3/auth/tokens", ""),
        ("/iam/v3", "/iam"),
        ("/iam/v3/auth/tokens", "/iam"),
        ("/x", "/x"),
        ("/xv3", "/xv3"),
        ("/auth", "/auth"),
    ],
)
def test_the_version_in_our_own_endpoint_of_iam_is_ignored(given, used):
    settings = load([*REGION, f"--target.iam-endpoint=https://iam{given}"], {})
    assert settings.target.iam_endpoint == f"https://iam{used}"


def test_options_win_over_vendor_variables(here):
    target = {"region": "cn-north-4", "project_id": "p", "iam_endpoint": "http://iam"}
    expected = [("p", "http://iam", True)]
    assert places(with_file(here, {"target": target}, (), VENDOR)) == expected
    assert places(with_file(here, {"targets": [target]}, (), VENDOR)) == expected


def test_a_vendor_variable_that_is_not_used_may_be_wrong():
    variables = {"HUAWEICLOUD_SDK_PROJECT_ID": '"x"', "HUAWEICLOUD_SDK_IAM_ENDPOINT": "?"}
    flags = ["--target.project-id=p", "--target.iam-endpoint=http://iam"]
    assert places(load([*REGION, *flags], variables)) == [("p", "http://iam", True)]


def test_the_project_of_one_is_not_that_of_many(here):
    targets = [{"region": "cn-north-4"}, {"region": "cn-south-1", "project_id": "p"}]
    assert places(with_file(here, {"targets": targets}, (), VENDOR)) == [
        (None, "https://iam.example.org", True),
        ("p", "https://iam.example.org", True),
    ]


def test_empty_vendor_variables_say_nothing():
    assert load(REGION, dict.fromkeys(VENDOR, " ")) == load(REGION, {})


# --- what others rely on --------------------------------------------------------------------------


def test_names_of_an_option():
    (option,) = [option for option in options() if option.name == "target.auth.secret_key_file"]
    assert option.flag == "--target.auth.secret-key-file"
    assert option.variable == "MODELARTS_EXPORTER_TARGET__AUTH__SECRET_KEY_FILE"
    assert option.list_key == "targets[].auth.secret_key_file"
    assert [o.list_key for o in options() if o.path[0] == "poll"] == [None] * 6


def test_help_names_every_option():
    text = help_text()
    for option in options():
        assert f"  {option.flag or option.name}" in text
        assert option.type is not BOOLEAN or f", {option.no_flag}\n" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "`" not in text


@given(st.integers(0, 10**12))
def test_durations_are_shown_as_they_are_read(milliseconds):
    seconds = milliseconds / 1000
    assert durations.parse(durations.show(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    {"0": 0, "1500ms": 1.5, "1y1w1d1h1m1s1ms": 32_230_861.001, "0.25": 0.25, "90s": 90}.items(),
)
def test_durations(text, seconds):
    assert durations.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "1.5s", "1s ", "1M", "1s1s", "1d1w", "+1s", "1_0"])
def test_no_durations(text):
    assert durations.parse(text) is None


def test_settings_cannot_be_changed():
    settings = load(REGION, {})
    with pytest.raises(ValueError, match="frozen"):
        settings.poll.interval = 1


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:9978", ("0.0.0.0", 9978)),
        ("[::]:9978", ("::", 9978)),
        ("[fe80::1%eth0]:0", ("fe80::1%eth0", 0)),
        (":9978", ("", 9978)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_addresses(text, address):
    assert parse_address(text) == address
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", ":", "9978", "host", "host:", "::1:9978", "[::1]", "a:65536", "a:-1", "a b:1", "a:\u0661"],
)
def test_invalid_addresses(text):
    with pytest.raises(ValueError, match=r"^invalid (listen address|port 65536 in) .*; use "):
        parse_address(text)


def test_vendor_variables_make_a_layer_of_their_own():
    layer = sources.vendor({"HUAWEICLOUD_SDK_IAM_ENDPOINT": "https://iam"}, {"targets": [{}, {}]})
    below = sources.Layer(values={"targets": [{"region": "a"}, {"iam_endpoint": "https://b"}]})
    values, origins = sources.merged([below, layer])
    assert values["targets"] == [
        {"region": "a", "iam_endpoint": "https://iam"},
        {"iam_endpoint": "https://b"},
    ]
    assert below.values["targets"][0] == {"region": "a"}
    assert set(origins) == {("targets", 0, "iam_endpoint"), ("targets", 1, "iam_endpoint")}
