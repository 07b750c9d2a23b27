"""Files with secrets that others can read are named in the log."""

import logging
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import yaml

from exporter.app.factory import read_profile
from exporter.app.permissions import warn_of_readable_secrets
from exporter.settings.load import load

REGION = "--target.region=cn-north-4"


@pytest.fixture
def open_folder():
    """A folder that every user can enter; those of pytest are private."""
    folder = Path(tempfile.mkdtemp(prefix="exporter-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def warned(caplog):
    """The files that are named when the targets of a configuration are planned."""

    def warned(arguments, environ=None, *, region=(REGION,)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="exporter"):
            settings = load([*region, *arguments], environ or {})
            targets, file = settings.all_targets(), settings.config.file
            profile = read_profile(environ or {})
            warn_of_readable_secrets(targets, file, environ or {}, profile)
        start, end = "every user of this machine can read ", ", which contains a secret: "
        return [line.removeprefix(start).partition(end)[0] for line in caplog.messages]

    return warned


def written(path, text="secret", mode=0o644):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(("mode", "named"), [(0o644, True), (0o604, True), (0o640, False)])
@pytest.mark.parametrize("option", ["secret-key", "security-token", "password", "token"])
def test_secret_files(open_folder, warned, option, mode, named):
    file = written(open_folder / "secret", mode=mode)
    assert warned([f"--target.auth.{option}-file={file}"]) == [file] * named


def test_a_private_folder_protects_its_files(open_folder, warned):
    file = written(open_folder / "private" / "inner" / "secret")
    (open_folder / "private").chmod(0o750)
    assert warned([f"--target.auth.token-file={file}"]) == []


def test_an_id_token_and_one_line_for_a_file_that_is_used_twice(open_folder, warned):
    file = written(open_folder / "token")
    auth = {"idp_id": "idp", "id_token_file": file}
    targets = [{"region": "cn-north-4", "name": name, "auth": auth} for name in "ab"]
    config = written(open_folder / "exporter.yml", yaml.safe_dump({"targets": targets}))
    assert warned([f"--config.file={config}"], region=()) == [file]


@pytest.mark.parametrize(
    ("auth", "environ", "named"),
    [
        ({"password": "p"}, {}, True),
        ({"username": "u"}, {}, False),
        ({}, {"MODELARTS_EXPORTER_TARGET__AUTH__TOKEN": "t"}, False),
        ({}, {}, False),
    ],
)
def test_the_configuration_file_if_it_contains_a_secret(open_folder, warned, auth, environ, named):
    document = yaml.safe_dump({"target": {"auth": auth}})
    config = written(open_folder / "exporter.yml", document)
    assert warned([f"--config.file={config}"], environ) == [config] * named


@pytest.mark.parametrize(
    ("text", "named"), [("[basic]\nak = A\nsk = S\n", True), ("[basic]\nproject_id = p\n", False)]
)
def test_the_profile_file_if_it_contains_a_secret(open_folder, warned, text, named):
    file = written(open_folder / "credentials", text)
    assert warned([], {"HUAWEICLOUD_SDK_CREDENTIALS_FILE": file}) == [file] * named


def test_files_that_kubernetes_docker_and_systemd_mount_are_as_they_are(
    open_folder, warned, monkeypatch
):
    written(open_folder / "..2026" / "sk")
    (open_folder / "..data").symlink_to("..2026")
    (open_folder / "sk").symlink_to("..data/sk")
    assert warned([f"--target.auth.secret-key-file={open_folder}/sk"]) == []

    file = written(open_folder / "credentials" / "sk")
    flag = f"--target.auth.secret-key-file={file}"
    assert warned([flag], {"CREDENTIALS_DIRECTORY": str(open_folder / "credentials")}) == []
    assert warned([flag]) == [file]

    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == file)
    assert warned([flag]) == []
