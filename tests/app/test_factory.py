"""What the profile file of the vendor's SDK adds to a target."""

import pytest

from exporter.app.factory import complete, read_profile
from exporter.errors import ConfigError
from exporter.settings.load import load


@pytest.fixture
def identity(tmp_path):
    """Where the only target is, with a profile file that contains these lines."""

    def identity(*lines, arguments=()):
        path = tmp_path / "credentials"
        path.write_text("\n".join(["[basic]", *lines]))
        settings = load(["--target.region=cn-north-4", *arguments], {})
        profile = read_profile({"HUAWEICLOUD_SDK_CREDENTIALS_FILE": str(path)})
        (target,) = settings.all_targets()
        return complete(target, profile)

    return identity


def test_the_profile_completes_the_options(identity):
    found = identity("project_id = p1", "iam_endpoint = https://iam.example/v3")
    assert (found.project_id, found.iam_endpoint) == ("p1", "https://iam.example")
    arguments = ["--target.project-id=p2", "--target.iam-endpoint=https://iam"]
    found = identity("project_id = ../x", "iam_endpoint = ?", arguments=arguments)
    assert (found.project_id, found.iam_endpoint) == ("p2", "https://iam")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("project_id = ../x", 'target.project_id: invalid project ID "../x"; use '),
        ("iam_endpoint = iam.example", 'target.iam_endpoint: invalid base URL "iam.example"; use '),
    ],
)
def test_a_profile_must_be_valid_where_it_is_used(tmp_path, identity, line, problem):
    with pytest.raises(ConfigError) as caught:
        identity(line)
    (found,) = caught.value.problems
    assert found.startswith(problem)
    assert found.endswith(f" (from profile file {tmp_path}/credentials)")
