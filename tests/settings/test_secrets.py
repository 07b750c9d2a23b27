"""No secret is ever shown, whatever is wrong with it or around it."""

import logging
import traceback

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import ConfigError
from exporter.settings.load import load
from exporter.settings.options import options
from exporter.settings.yaml import InvalidYamlError, parse

SECRET = "xQ7geheim"
SECRETS = [option for option in options() if option.type.hidden]
VALUES = {
    "text": SECRET,
    "list": [SECRET],
    "mapping": {SECRET: SECRET},
    "deep": {"secret_key": {SECRET: [SECRET]}},
    "line break": f"{SECRET}\n{SECRET}",
    "control character": f"{SECRET}\x1b",
    "url": f"http://u:{SECRET}@proxy:1/{SECRET}?{SECRET}#{SECRET}",
    "broken url": f"http://u:{SECRET}@[x",
}
BAD = ["--poll.interval=x"]


def everything(arguments, environ):
    """All that is said about a configuration, with its traceback, or all that it is."""
    try:
        settings = load(arguments, environ)
    except ConfigError as error:
        trace = traceback.format_exception(error)
        return "\n".join([*error.problems, str(error), repr(error), *trace])
    return f"{settings!r} {settings} {settings.all_targets()}"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("bad", [[], BAD], ids=["good", "bad"])
@pytest.mark.parametrize("region", [[], ["--target.region=cn-north-4"]], ids=["-", "region"])
@pytest.mark.parametrize("option", SECRETS, ids=lambda option: option.name)
@pytest.mark.parametrize("value", VALUES)
def test_in_file_and_environment(here, option, value, region, bad):
    content = VALUES[value]
    for name in reversed(option.path):
        content = {name: content}
    (here / "exporter.yml").write_text(yaml.safe_dump(content))
    file = "--config.file=exporter.yml"
    assert SECRET not in everything([file, *region, *bad], {})
    (here / "exporter.yml").write_text(yaml.safe_dump({"targets": [content["target"]]}))
    assert SECRET not in everything([file, *bad], {})
    if isinstance(VALUES[value], str):
        assert SECRET not in everything([*region, *bad], {option.variable: VALUES[value]})


@pytest.mark.parametrize("option", SECRETS, ids=lambda option: option.name)
@pytest.mark.parametrize(
    "form",
    [
        ["{flag}={s}"],
        ["{flag}", "{s}"],
        ["{flag}", "-{s}"],
        ["{flag}", "--{s}", "{s}", "-{s}"],
        ["{flag}", "{s}", "{s}"],
        ["{flag}:{s}", "{s}"],
        ["{flag} {s}"],
        ["{flag}x", "{s}"],
        ["{flag}x={s}", "{s}", "-{s}"],
        ["-{flag}", "{s}"],
    ],
    ids=" ".join,
)
def test_on_the_command_line(option, form):
    flag = f"--{option.name.replace('_', '-')}"
    words = [word.format(flag=flag, s=SECRET) for word in form]
    if option.flag and form[-1] != "-{s}":  # an access key that begins with -- is another matter
        words = [word for word in words if not word.startswith(f"--{SECRET}")]
    elif option.flag:
        return
    assert SECRET not in everything(words, {})


@given(st.text(alphabet="xq7 :=-#&*!%@`|>{}[],?'\"\\\n\t", max_size=20))
def test_text_around_a_secret_that_is_no_yaml(noise):
    text = f"target:\n  auth:\n    password: {noise}{SECRET}{noise}\n    method: {noise}\n"
    said = ""
    try:
        parse(text.encode())
    except InvalidYamlError as error:
        said = str(error)
    assert SECRET not in said
    assert "\n" not in said


def test_a_document_is_what_safe_load_makes_of_it():
    text = "a: &x [1, 2.5, yes, 2026-01-01, ~, 0o7, 010, 1:30]\nb: *x\nc: {<<: {d: 1}, e: 2}\n"
    assert parse(text.encode()).value == yaml.safe_load(text)


def test_pydantic_settings_told_to_debug_shows_no_secret(here, monkeypatch, caplog):
    monkeypatch.setenv("PYDANTIC_SETTINGS_DEBUG", "1")
    caplog.set_level(logging.DEBUG)
    auth = dict.fromkeys(("secret_key", "password", "token", "security_token"), SECRET)
    proxy = f"http://u:{SECRET}@proxy"
    target = {"region": "cn-north-4", "proxy": proxy, "auth": auth}
    (here / "exporter.yml").write_text(yaml.safe_dump({"target": target}))
    settings = load(["--config.file=exporter.yml"], {})
    assert settings.all_targets()[0].proxy == proxy
    assert settings.all_targets()[0].auth.token.get_secret_value() == SECRET
    assert SECRET not in caplog.text


FILES = [option for option in options() if option.name.endswith("_file") and "auth" in option.path]
TYPED = [
    SECRET,
    f"/{SECRET}",
    f"a/{SECRET}",
    f"./{SECRET}",
    f"/p@ss/{SECRET}==",
    f'"\\&< {SECRET}',
    f"{SECRET}\u00e9 \u5bc6",
    f"{SECRET}\t",
    "eyJ" + SECRET * 40,
]


@pytest.mark.parametrize("typed", TYPED, ids=range(len(TYPED)))
@pytest.mark.parametrize(
    "option", [each for each in FILES if "id_token" not in each.name], ids=lambda o: o.name
)
def test_where_a_path_belongs(here, option, typed):
    region = "--target.region=cn-north-4"
    content = {"region": "cn-north-4", "auth": {option.path[-1]: typed}}
    for document in ({"target": content}, {"targets": [content]}):
        (here / "exporter.yml").write_text(yaml.safe_dump(document))
        assert_refused(["--config.file=exporter.yml"], {}, option)
    assert_refused([region, f"{option.flag}={typed}"], {}, option)
    assert_refused([region, option.flag, *typed.split()], {}, option)
    assert_refused([region], {option.variable: typed}, option)


def assert_refused(arguments, environ, option):
    said = everything(arguments, environ)
    assert f"auth.{option.path[-1]}: " in said
    assert SECRET not in said


def test_an_id_token_where_its_path_belongs(here):
    token = f"eyJhbGciOi.{SECRET}.{SECRET}"
    flag = [f"--target.auth.id-token-file={token}", "--target.region=cn-north-4"]
    assert SECRET not in everything(flag, {})
    content = {"target": {"region": "cn-north-4", "auth": {"id_token_file": token}}}
    (here / "exporter.yml").write_text(yaml.safe_dump(content))
    assert SECRET not in everything(["--config.file=exporter.yml"], {})


@pytest.mark.parametrize("key", [SECRET, "GEHEIM", "geheim", "Geheim-geheim", "12345678"])
@pytest.mark.parametrize("value", ["", " x", " {y: z}", " []"])
def test_where_a_key_belongs(here, key, value):
    """Once, and twice; lower case words only where no secrets are expected."""
    text = (
        "target:\n  region: cn-north-4\n  auth:\n    {0}:{1}\n    {0}:{1}\n"
        "    token:\n      {0}:{1}\n"
    )
    more = "  {0}:{1}\n  {0}:{1}\npoll:\n  {0}:{1}\n{0}:{1}\n"
    (here / "exporter.yml").write_text(
        (text + more * (key.lower()[:6] != "geheim" or key.isupper())).format(key, value)
    )
    said = everything(["--config.file=exporter.yml"], {})
    assert "unknown key; use " in said
    assert key not in said


def test_names_that_are_nearly_right_are_shown(here):
    (here / "exporter.yml").write_text("target:\n  Auth:\n  auth:\n    secretKey: x\npol:\n")
    said = everything(["--config.file=exporter.yml", "--target.region=a"], {})
    for name, hint in (("target.Auth", "auth"), ("target.auth.secretKey", "auth.secret_key")):
        assert f"{name}: unknown key; did you mean target.{hint}?" in said
