"""Targets from files that `targets_files` names."""

import pytest
import yaml

from exporter.errors import ConfigError
from exporter.settings.load import load
from exporter.settings.targets_file import content, find, parse

VENDOR = {
    "HUAWEICLOUD_SDK_PROJECT_ID": "p9",
    "HUAWEICLOUD_SDK_IAM_ENDPOINT": "https://iam.example/v3",
}


def parsed(targets, environ=None, path="teams/a.yml"):
    text = targets if isinstance(targets, str) else yaml.safe_dump(targets)
    return parse(path, text.encode(), environ or {})


def test_files_are_found_by_patterns_once_and_sorted(tmp_path):
    for name in ("b.yml", "a.yml", "c.yaml", "deep/er/d.yml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    patterns = [f"{tmp_path}/*.yml", f"{tmp_path}/a.*", f"{tmp_path}/deep/**/*.yml", "nothing/*"]
    names = [path.removeprefix(f"{tmp_path}/") for path in find(patterns)]
    assert names == ["a.yml", "b.yml", "deep/er/d.yml"]


def test_patterns_are_relative_to_the_configuration_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "etc").mkdir()
    document = {"targets_files": ["teams/*.yml", "/abs/*.yml"]}
    (tmp_path / "etc/exporter.yml").write_text(yaml.safe_dump(document))
    settings = load(["--config.file=etc/exporter.yml"], {})
    assert settings.targets_files == ("etc/teams/*.yml", "/abs/*.yml")
    assert settings.all_targets() == (), "the files may be all there is"
    assert load(["--targets-files=a.yml,b.yml"], {}).targets_files == ("a.yml", "b.yml")


@pytest.mark.parametrize("variables", [{}, VENDOR])
def test_files_may_be_all_there_is_whatever_the_environment(variables):
    assert load(["--targets-files=a.yml"], variables).all_targets() == ()


def test_projects_are_instead_of_the_one_in_the_environment():
    target = load(["--target.region=cn-north-4", "--target.projects=all"], VENDOR).target
    assert (target.projects, target.project_id) == (("all",), None)
    assert target.iam_endpoint == "https://iam.example"


def test_files_and_a_target_go_together():
    settings = load(["--targets-files=a.yml", "--target.region=cn-north-4"], VENDOR)
    (target,) = settings.all_targets()
    assert (target.project_id, target.iam_endpoint) == ("p9", "https://iam.example")


def test_a_file_lists_targets_with_all_their_keys(tmp_path):
    (tmp_path / "sk").write_text("geheim")
    auth = {"access_key": "AK", "secret_key_file": "sk"}
    one = {"region": "cn-north-4", "project_id": "p1", "workspaces": "all", "auth": auth}
    two = {"region": "cn-east-3", "projects": ["a", "b"]}
    targets = parsed([one, two], path=f"{tmp_path}/a.yml")
    assert [target.region for target in targets] == ["cn-north-4", "cn-east-3"]
    assert targets[0].auth.secret_key_file == f"{tmp_path}/sk"
    assert targets[0].workspaces == ("all",)
    assert targets[1].projects == ("a", "b")


def test_the_environment_gives_a_file_only_the_address_of_iam():
    (target,) = parsed([{"region": "cn-north-4"}], VENDOR)
    assert (target.project_id, target.iam_endpoint) == (None, "https://iam.example")


PROBLEMS = {
    "- project_id: p1\n": (
        "targets[0].region: required, for example cn-north-4 (from file teams/a.yml, key "
        "targets[0], line 1)"
    ),
    "- region: cn-north-4\n  regoin: x\n": (
        "targets[0].regoin: unknown key; did you mean targets[0].region? (from file teams/a.yml, "
        "key targets[0].regoin, line 2)"
    ),
    "region: cn-north-4\n": (
        'targets: expected a list such as "- region: cn-north-4", got a mapping (from file '
        "teams/a.yml, key targets)"
    ),
    "": (
        'targets: expected a list such as "- region: cn-north-4", got null (from file '
        "teams/a.yml, key targets)"
    ),
    "[]": (
        "targets: the list is empty; add at least one target (from file teams/a.yml, key targets)"
    ),
    "- {region: cn-north-4, name: x}\n- {region: cn-north-4, name: x}\n": (
        "targets[1].name: same region and project labels as targets[0]; use a name that is unique "
        "in the region (from file teams/a.yml, key targets[1].name, line 2)"
    ),
    "- {region: cn-north-4\n": (
        "targets_files: invalid YAML in \"teams/a.yml\", line 2, column 1: expected ',' or "
        "'}', but got '<stream end>'"
    ),
}


@pytest.mark.parametrize(("text", "problem"), PROBLEMS.items())
def test_problems_name_the_file_and_the_line(text, problem):
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    assert list(caught.value.problems) == [problem]


def test_problems_show_no_secret():
    with pytest.raises(ConfigError) as caught:
        parsed([{"region": "cn-north-4", "auth": {"secret_key": "geheim\nx", "geheim": "geheim"}}])
    assert len(caught.value.problems) == 2
    assert "geheim" not in str(caught.value.problems)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"targets_files: cannot read .*No such file"):
        content(f"{tmp_path}/a.yml")
    with pytest.raises(ConfigError, match=r"targets_files: .* is not a regular file"):
        content(str(tmp_path))
