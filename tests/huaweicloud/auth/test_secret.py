"""Secrets come from values and files, and stay out of messages."""

import os

import pytest

from exporter.errors import AuthError, InvalidResponseError, ThrottledError
from exporter.huaweicloud.auth.secret import Secret, redacting

MARKER = "s3cr3t-MARKER-value"


ENDS = ["", "\n", "\r\n", "\n\n", " \n", "\t", "\ufeff", "\ufeff \n", "\u00a0"]


@pytest.mark.parametrize("before", ENDS, ids=ascii)
@pytest.mark.parametrize("after", ENDS, ids=ascii)
def test_byte_order_mark_blanks_and_line_breaks_at_the_ends_do_not_count(tmp_path, before, after):
    (tmp_path / "key").write_bytes(f"{before}{MARKER}{after}".encode())
    assert Secret("option", f"{before}{MARKER}{after}").read() == MARKER
    assert Secret("option", file=tmp_path / "key").read() == MARKER


def test_a_file_is_read_anew_each_time(tmp_path):
    path = tmp_path / "key"
    path.write_text("one\n")
    secret = Secret("option", file=path)
    assert secret.read() == "one"
    path.write_text("two\n")
    os.utime(path, (0, 0))
    assert secret.read() == "two"
    os.utime(path, (0, 0))
    (tmp_path / "new").write_text("six")  # same size, same time stamp: content decides
    os.utime(tmp_path / "new", (0, 0))
    (tmp_path / "new").rename(path)
    assert secret.read() == "six"


@pytest.mark.parametrize("quote", ["'", '"'])
def test_quotes_are_named_except_those_of_a_password(tmp_path, quote):
    (tmp_path / "key").write_text(f"{quote}{MARKER}{quote}\n")
    with pytest.raises(AuthError) as caught:
        Secret("option", file=tmp_path / "key").read()
    assert str(caught.value) == (
        f"option {tmp_path}/key begins and ends with a quote; remove the quotes"
    )
    password = Secret("option", file=tmp_path / "key", quotes=True)
    assert password.read() == f"{quote}{MARKER}{quote}"
    (tmp_path / "key").write_text(f"{quote}{MARKER}")
    assert Secret("option", file=tmp_path / "key").read() == f"{quote}{MARKER}"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b" \n", "is empty"),
        (b"two\nlines\n", "contains a line break or a control character"),
        (b"nul\x00", "contains a line break or a control character"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"x" * 140_000, "is larger than 131072 bytes"),
    ],
)
def test_a_useless_file_is_named(tmp_path, content, problem):
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(AuthError) as caught:
        Secret("target.auth.secret_key_file", file=path).read()
    assert str(caught.value) == f"target.auth.secret_key_file {path} {problem}"


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "nowhere"
    with pytest.raises(AuthError) as caught:
        Secret("option", file=path).read()
    assert str(caught.value) == f"option {path} cannot be read: No such file or directory"


def test_a_named_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(AuthError, match="is not a regular file"):
            Secret("option", file=path).read()


@pytest.mark.parametrize("both", [{}, {"value": "x", "file": "y"}])
def test_a_secret_has_one_source(both):
    with pytest.raises(ValueError, match="option: a secret has either a value or a file"):
        Secret("option", **both)


def test_a_secret_shows_its_origin_only(tmp_path):
    secret = Secret("target.auth.token", MARKER)
    assert repr(secret) == str(secret) == f"{secret}" == "Secret(target.auth.token)"
    assert repr(Secret("option", file="/run/key")) == "Secret(option /run/key)"


def test_an_empty_value_is_named():
    with pytest.raises(AuthError) as caught:
        Secret("HUAWEICLOUD_SDK_SK", "").read()
    assert str(caught.value) == "HUAWEICLOUD_SDK_SK is empty"


def test_errors_that_pass_are_redacted_and_keep_what_they_know():
    with (
        pytest.raises(ThrottledError) as caught,
        redacting(MARKER, doing="signing in"),
    ):
        raise ThrottledError(f"slow down, {MARKER}", retry_after=7.0)
    assert (str(caught.value), caught.value.retry_after) == ("signing in: slow down, ***", 7.0)
    with pytest.raises(InvalidResponseError, match=r"^\*\*\*$"), redacting(MARKER):
        raise InvalidResponseError(MARKER)


def test_other_errors_pass_as_they_are():
    with pytest.raises(KeyError, match="x"), redacting(MARKER, doing="signing in"):
        raise KeyError("x")
