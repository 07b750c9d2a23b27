"""Which credentials are chosen, and what is said when something is missing."""

import pytest
from huaweicloud.fake_cloud import Time

from exporter.errors import AuthError, ConfigError
from exporter.huaweicloud.auth.chain import AuthContext, resolve
from exporter.huaweicloud.auth.lockout import KeyLockouts
from exporter.huaweicloud.auth.sdk_config import profile_path, read_environment, read_profile
from exporter.settings.schema import AuthSettings

KEY_VARIABLES = {"HUAWEICLOUD_SDK_AK": "ENVIRONMENT-KEY", "HUAWEICLOUD_SDK_SK": "env-secret"}
OIDC_VARIABLES = {
    "HUAWEICLOUD_SDK_IDP_ID": "env-idp",
    "HUAWEICLOUD_SDK_ID_TOKEN_FILE": "/run/env-token",
}
KEY_PROFILE = "[basic]\nak = PROFILE-KEY\nsk = profile-100%-secret\n"
OIDC_PROFILE = KEY_PROFILE + "idp_id = profile-idp\nid_token_file = /run/profile-token\n"
SECRET = "own-secret"


@pytest.fixture
def home(tmp_path):
    (tmp_path / ".huaweicloud").mkdir()
    return tmp_path


def chosen(home, environ=None, *, profile=None, **options):
    if profile is not None:
        (home / ".huaweicloud" / "credentials").write_text(profile)
    return resolve(AuthSettings(**options), context(home, environ or {}))


def context(home, environ):
    async def nothing_is_sent(*_, **__):
        raise AssertionError

    time = Time()
    return AuthContext(
        region="cn-north-4",
        iam_endpoint="http://127.0.0.1:9",
        project_id=None,
        environ={"HOME": str(home), **environ},
        http=nothing_is_sent,
        lockouts=KeyLockouts(lambda: time.monotonic),
        clocks=time.clocks,
    )


@pytest.mark.parametrize(
    ("options", "environ", "profile", "identity"),
    [
        (
            {"access_key": "OWN-KEY", "secret_key": SECRET},
            KEY_VARIABLES | OIDC_VARIABLES,
            OIDC_PROFILE,
            "access key OWN-… from target.auth",
        ),
        (
            {"idp_id": "own-idp", "id_token_file": "/run/own-token"},
            KEY_VARIABLES | OIDC_VARIABLES,
            OIDC_PROFILE,
            "identity provider own-idp with the token in /run/own-token",
        ),
        (
            {"username": "u", "password": SECRET, "domain": "d"},
            KEY_VARIABLES,
            None,
            "user u of domain d",
        ),
        (
            {"token_file": __file__},
            KEY_VARIABLES,
            None,
            f"token from target.auth.token_file {__file__}",
        ),
        (
            {},
            KEY_VARIABLES | OIDC_VARIABLES,
            OIDC_PROFILE,
            "identity provider env-idp with the token in /run/env-token",
        ),
        ({}, KEY_VARIABLES, OIDC_PROFILE, "access key ENVI… from the environment"),
        (
            {},
            {"HUAWEICLOUD_SDK_AK": "ALONE"},
            OIDC_PROFILE,
            "identity provider profile-idp with the token in /run/profile-token",
        ),
        ({}, {}, KEY_PROFILE, "access key PROF… from profile file {home}/.huaweicloud/credentials"),
        ({}, {}, None, "agency of this server"),
        ({}, {}, "[global]\nak = x\nsk = y\n", "agency of this server"),
        ({}, {"HUAWEICLOUD_SDK_AK": "", "HUAWEICLOUD_SDK_SK": " "}, None, "agency of this server"),
    ],
)
def test_auto_takes_the_first_that_is_there(home, options, environ, profile, identity):
    credentials = chosen(home, environ, profile=profile, **options)
    assert credentials.identity == identity.format(home=home)
    assert credentials.expires_at is None


@pytest.mark.parametrize(
    ("method", "identity"),
    [
        ("none", "nobody"),
        ("agency", "agency of this server"),
        ("aksk", "access key ENVI… from the environment"),
        ("oidc", "identity provider profile-idp with the token in /run/profile-token"),
    ],
)
def test_a_named_method_is_the_one_that_is_used(home, method, identity):
    credentials = chosen(home, KEY_VARIABLES, profile=OIDC_PROFILE, method=method)
    assert (credentials.method, credentials.identity) == (method, identity)


@pytest.mark.parametrize(
    "options",
    [{"method": "none"}, {"method": "agency"}, {"method": "aksk"}, {"token_file": __file__}],
)
async def test_only_a_sign_in_at_iam_reports_a_project(home, options):
    assert await chosen(home, KEY_VARIABLES, **options).project_id() is None


def key_of(credentials):
    return credentials._read_key()


@pytest.mark.parametrize(
    ("options", "environ", "profile", "key"),
    [
        ({"access_key": "OWN"}, {"HUAWEICLOUD_SDK_SK": "e"}, None, ("OWN", "e", None)),
        ({"secret_key": SECRET}, {"HUAWEICLOUD_SDK_AK": "E"}, None, ("E", "own-secret", None)),
        (
            {"access_key": "PROFILE-KEY"},
            KEY_VARIABLES,
            KEY_PROFILE,
            ("PROFILE-KEY", "profile-100%-secret", None),
        ),
        (
            {},
            KEY_VARIABLES | {"HUAWEICLOUD_SDK_SECURITY_TOKEN": "t"},
            None,
            ("ENVIRONMENT-KEY", "env-secret", "t"),
        ),
        (
            {"access_key": "OWN", "secret_key": SECRET},
            {"HUAWEICLOUD_SDK_SECURITY_TOKEN": "of another key"},
            None,
            ("OWN", "own-secret", None),
        ),
        (
            {"access_key": " OWN\n", "secret_key": SECRET, "security_token": "t\n"},
            {},
            None,
            ("OWN", "own-secret", "t"),
        ),
    ],
)
def test_an_access_key_is_put_together_from_one_source_after_the_other(
    home, options, environ, profile, key
):
    given = key_of(chosen(home, environ, profile=profile, method="aksk", **options))
    assert (given.access, given.secret, given.security_token) == key


def test_the_profile_file_is_read_again_for_every_request(home):
    credentials = chosen(home, profile=KEY_PROFILE)
    path = home / ".huaweicloud" / "credentials"
    path.write_text(KEY_PROFILE.replace("profile-100%-secret", "new"))
    assert key_of(credentials).secret == "new"
    path.write_text("[basic]\nak = PROFILE-KEY\n")
    with pytest.raises(AuthError) as caught:
        key_of(credentials)
    assert str(caught.value) == f"profile file {path} no longer has an access key with a secret key"
    path.unlink()
    assert credentials.identity == f"access key (unreadable) from profile file {path}"


def test_a_garbled_access_key_is_not_sent(home):
    credentials = chosen(home, access_key="A, B", secret_key=SECRET)
    with pytest.raises(AuthError, match=r"^the access key from target\.auth is garbled$"):
        key_of(credentials)


NO_KEY = (
    "target.auth.access_key is missing: set it, HUAWEICLOUD_SDK_AK in the environment, "
    "or ak in the profile file"
)
NO_SECRET = (
    "target.auth.secret_key_file (or secret_key) is missing: set it, HUAWEICLOUD_SDK_SK "
    "in the environment, or sk in the profile file"
)


def half(name, missing):
    """The message if this is set, but something else is missing."""
    return f"target.auth.{name} is set, but " + missing.replace(" is missing", " is not")


@pytest.mark.parametrize(
    ("options", "problems"),
    [
        ({"method": "aksk"}, (NO_KEY, NO_SECRET)),
        ({"access_key": "OWN"}, (half("access_key", NO_SECRET),)),
        ({"secret_key": SECRET}, (half("secret_key_file (or secret_key)", NO_KEY),)),
        (
            {"security_token": SECRET},
            (
                half("security_token_file (or security_token)", NO_KEY),
                half("security_token_file (or security_token)", NO_SECRET),
            ),
        ),
        (
            {"idp_id": "idp"},
            (
                (
                    "target.auth.idp_id is set, but target.auth.id_token_file is not: set it, "
                    "HUAWEICLOUD_SDK_ID_TOKEN_FILE in the environment, or id_token_file in the "
                    "profile file"
                ),
            ),
        ),
        ({"method": "token"}, ("target.auth.token_file (or token) is missing",)),
        (
            {"method": "password", "username": "u"},
            (
                "target.auth.password_file (or password) is missing",
                "target.auth.domain is missing",
            ),
        ),
        ({"password": SECRET, "domain": "d"}, ("target.auth.username is missing",)),
        (
            {"method": "oidc"},
            (
                (
                    "target.auth.method oidc needs target.auth.idp_id and "
                    "target.auth.id_token_file, HUAWEICLOUD_SDK_IDP_ID and "
                    "HUAWEICLOUD_SDK_ID_TOKEN_FILE in the environment, or idp_id and id_token_file "
                    "in the profile file"
                ),
            ),
        ),
    ],
)
def test_what_can_never_work_is_bad_configuration(home, options, problems):
    with pytest.raises(ConfigError) as caught:
        chosen(home, **options)
    assert caught.value.problems == problems


@pytest.mark.parametrize(
    ("environ", "profile", "problems"),
    [
        (
            {"HUAWEICLOUD_SDK_AK": "A"},
            None,
            [
                (
                    "HUAWEICLOUD_SDK_AK is set in the environment, but HUAWEICLOUD_SDK_SK is not: "
                    "set both, or unset HUAWEICLOUD_SDK_AK"
                )
            ],
        ),
        (
            {"HUAWEICLOUD_SDK_SK": SECRET},
            "[basic]\n",
            [
                (
                    "HUAWEICLOUD_SDK_SK is set in the environment, but HUAWEICLOUD_SDK_AK is not: "
                    "set both, or unset HUAWEICLOUD_SDK_SK"
                )
            ],
        ),
        (
            {},
            "[basic]\nak = A\nidp_id = idp\n",
            [
                (
                    "idp_id is set in profile file {path}, but id_token_file is not: set both, or "
                    "unset idp_id"
                ),
                "ak is set in profile file {path}, but sk is not: set both, or unset ak",
            ],
        ),
        (
            {"HUAWEICLOUD_SDK_ID_TOKEN_FILE": "/f"},
            "[basic]\nsk = own-secret\n",
            [
                (
                    "HUAWEICLOUD_SDK_ID_TOKEN_FILE is set in the environment, but "
                    "HUAWEICLOUD_SDK_IDP_ID is not: set both, or unset "
                    "HUAWEICLOUD_SDK_ID_TOKEN_FILE"
                ),
                "sk is set in profile file {path}, but ak is not: set both, or unset sk",
            ],
        ),
    ],
)
def test_half_a_key_is_reported_and_the_agency_not_tried(home, environ, profile, problems):
    with pytest.raises(ConfigError) as caught:
        chosen(home, environ, profile=profile)
    path = home / ".huaweicloud" / "credentials"
    assert list(caught.value.problems) == [each.format(path=path) for each in problems]


def test_half_a_key_is_logged_if_another_source_has_a_whole_one(home, caplog):
    credentials = chosen(home, {"HUAWEICLOUD_SDK_AK": "ALONE"}, profile=KEY_PROFILE)
    assert caplog.messages == [
        (
            "HUAWEICLOUD_SDK_AK is set in the environment, but HUAWEICLOUD_SDK_SK is not: set "
            f"both, or unset HUAWEICLOUD_SDK_AK; using {credentials.identity} instead"
        )
    ]
    caplog.clear()
    chosen(home, {"HUAWEICLOUD_SDK_SK": SECRET}, profile=KEY_PROFILE, access_key="OWN")
    chosen(home, {"HUAWEICLOUD_SDK_AK": "ALONE"}, method="none")
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("opening", "closing"), ["''", '""', "\u201c\u201d", "\u2018\u2019"], ids=ascii
)
def test_quotes_that_a_shell_would_have_removed(home, opening, closing):
    quoted = {name: f"{opening}{value}{closing}" for name, value in KEY_VARIABLES.items()}
    with pytest.raises(ConfigError) as caught:
        chosen(home, quoted)
    problem = "{} in the environment begins and ends with a quote; remove the quotes"
    assert list(caught.value.problems) == [problem.format(name) for name in KEY_VARIABLES]
    profile = f"[basic]\nak = {opening}A{closing}\nsk = own-secret\n"
    with pytest.raises(ConfigError, match=r"^ak in profile file .*/credentials begins and ends w"):
        chosen(home, profile=profile)
    credentials = chosen(home, profile=KEY_PROFILE)
    (home / ".huaweicloud" / "credentials").write_text(profile)
    with pytest.raises(AuthError, match=r"^ak in profile file .*/credentials begins and ends w"):
        key_of(credentials)


def test_a_secret_where_the_path_of_a_file_belongs_is_not_repeated(home):
    token = "eyJhbGciOi.own-secret.own-secret"
    for environ, profile in (
        ({"HUAWEICLOUD_SDK_IDP_ID": "i", "HUAWEICLOUD_SDK_ID_TOKEN_FILE": token}, None),
        ({}, f"[basic]\nidp_id = i\nid_token_file = {token}\n"),
    ):
        with pytest.raises(ConfigError, match=r" is a token \(not shown\); use the path") as caught:
            chosen(home, environ, profile=profile)
        assert "own-secret" not in str(caught.value)
    environ = {"HUAWEICLOUD_SDK_CREDENTIALS_FILE": "own-secret"}
    with pytest.raises(AuthError) as unreadable:
        read_profile(profile_path(environ))
    assert str(unreadable.value) == (
        "profile file (path not shown, it may be a secret) cannot be read: No such file or "
        "directory"
    )
    assert "own-secret" not in vars(chosen(home, environ))["_tried"]


def test_the_ends_of_values_in_the_environment_and_the_profile_do_not_count(home):
    environ = {"HUAWEICLOUD_SDK_AK": "\ufeffA \n", "HUAWEICLOUD_SDK_SK": "\ufeff own-secret \r\n\n"}
    key = key_of(chosen(home, environ))
    assert (key.access, key.secret) == ("A", SECRET)
    path = home / ".huaweicloud" / "credentials"
    path.write_bytes("\ufeff[basic]\r\nak = A \r\nsk =  own-secret \r\n\r\n".encode())
    key = key_of(chosen(home))
    assert (key.access, key.secret) == ("A", SECRET)


def test_options_do_not_show_secrets():
    options = AuthSettings(secret_key=SECRET, password=SECRET, token=SECRET)
    assert "own-secret" not in repr(options)


def test_a_profile_says_more_than_keys(tmp_path):
    path = tmp_path / "p"
    path.write_text("[basic]\nproject_id = p1\niam_endpoint = https://iam.example\n")
    known = read_profile(path)
    assert (known.project_id, known.iam_endpoint) == ("p1", "https://iam.example")
    known = read_environment(
        {"HUAWEICLOUD_SDK_PROJECT_ID": "p2", "HUAWEICLOUD_SDK_IAM_ENDPOINT": "https://iam.other"}
    )
    assert (known.project_id, known.iam_endpoint) == ("p2", "https://iam.other")


def test_where_the_profile_is(tmp_path):
    assert profile_path({}) is None
    assert profile_path({"HOME": "/h"}).as_posix() == "/h/.huaweicloud/credentials"
    named = {"HOME": "/h", "HUAWEICLOUD_SDK_CREDENTIALS_FILE": "/etc/mine"}
    assert profile_path(named).as_posix() == "/etc/mine"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"ak = A\nsk = MARKER\n", "is not an INI file"),
        (b"[basic]\nMARKER\n", "is not an INI file"),
        (b"[basic]\nsk = MARKER\nsk = MARKER\n", "is not an INI file"),
        (b"[global]\nsk = MARKER\n", "has no section [basic]"),
        (b"\xff", "is not UTF-8 text"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_useless_profile_is_named_and_not_quoted(tmp_path, content, problem):
    path = tmp_path / "p"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AuthError) as caught:
        read_profile(path)
    assert str(caught.value) == f"profile file {path} {problem}"
    assert caught.value.__suppress_context__ or content is None or caught.value.__cause__ is None
