"""What deploy/generate.py writes is current, and its schema allows what the exporter accepts."""

import importlib.util
import json

import jsonschema
import pytest
from deploy.manifests import DEPLOY

from exporter.settings import durations
from exporter.settings.options import options
from exporter.settings.problems import InvalidValueError

VALUES = [
    *(0, 1, 5, 0.5, -1, 10**9, 1e10, True, False),
    *("", " ", "0", "1", "5", "0.5", "1e3", "-1"),
    *(" 30s ", "1h30m", "7d", "5 m", "1w1y", "100000000000d"),
    *("true", "Yes", "OFF", "maybe", "auto", "AKSK", "page", "warn", "debug", "json", "text"),
    *("cn-north-4", " cn-north-4 ", "north 4", "a,b", "0,abc", '["0", "abc"]', "héllo", "a" * 65),
    *("http://host", "HTTPS://host:1/x", "host:8080", "ftp://host", "http://u:p@proxy:3128"),
    *("/metrics", "/a/b", "metrics", "/-/x", "/", "0.0.0.0:9978", "[::]:9978", ":9978"),
    *(["0"], [0], [], ["a", "b"], ["a b"], [":9978", "[::1]:9979"], [["0"]], {}, {"a": 1}),
    *({"team": "nlp"}, {"1st": "x"}, {"job": "x"}, ["a=b,c=d"], '{"a": "b"}', "modelarts_.*"),
]
OPTIONS = {option.name: option for option in options() if option.type.parse}


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate_deploy", DEPLOY / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def accepts(option, value):
    try:
        option.type.take(value)
    except InvalidValueError:
        return False
    return True


def test_it_is_current(generate):
    assert [path.name for path, _ in generate.stale()] == [], "run python deploy/generate.py"


def test_check_names_what_is_stale_and_leaves_it(generate, tmp_path, monkeypatch, capsys):
    stale = tmp_path / "Dockerfile"
    stale.write_text("ARG VERSION=0.0.1\n")
    monkeypatch.setattr(generate, "VERSION_LINES", ((stale, "^ARG VERSION=(.+)$"),))
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().err == "Dockerfile is stale: run python deploy/generate.py\n"
    assert stale.read_text() == "ARG VERSION=0.0.1\n"
    assert generate.main([]) == 0
    assert stale.read_text() == f"ARG VERSION={generate.__version__}\n"
    assert generate.main(["--check"]) == 0


@pytest.mark.parametrize("name", OPTIONS)
def test_the_schema_of_an_option_allows_what_the_exporter_accepts(name):
    option = OPTIONS[name]
    schema = jsonschema.Draft7Validator(option.type.schema)
    schema.check_schema(option.type.schema)
    assert option.type.schema, "its values would not be checked"
    accepted = [value for value in VALUES if accepts(option, value)]
    assert [value for value in accepted if not schema.is_valid(value)] == []
    assert schema.is_valid({}) == (name == "target.labels")


@pytest.mark.parametrize(
    "name", ["poll.interval", "api.retries", "jobs.per_job", "target.labels", "log.level"]
)
def test_the_schema_refuses_what_the_exporter_refuses(name):
    option = OPTIONS[name]
    schema = jsonschema.Draft7Validator(option.type.schema)
    beyond = {"", " ", "0", "100000000000d"}  # a pattern cannot express a range
    refused = [value for value in VALUES if not accepts(option, value)]
    assert [value for value in refused if schema.is_valid(value) and value not in beyond] == []


def test_every_option_of_the_file_is_in_the_schema(generate):
    schema = json.loads(generate.values_schema())
    for option in options():
        node = schema["properties"]["config"]
        for part in option.path:
            node = node["properties"].get(part, {"properties": {}})
            node = schema["definitions"]["target"] if "$ref" in node else node
        derived = option.name in generate.SET_BY_THE_CHART
        assert ("description" in node or "items" in node) == (option.in_file and not derived)


def test_durations_have_one_grammar():
    schema = jsonschema.Draft7Validator(OPTIONS["poll.interval"].type.schema)
    for text in (value for value in VALUES if isinstance(value, str) and value.strip()):
        assert schema.is_valid(text) == (durations.parse(text.strip()) is not None)
