"""Bad configurations, and the exact lines that people get to read."""

import pytest
import trustme

from exporter.errors import ConfigError
from exporter.settings.load import load

REGION = ["--target.region", "cn-north-4"]
MISSING = (
    "target.region: required, for example cn-north-4 (flag --target.region, environment variable "
    "MODELARTS_EXPORTER_TARGET__REGION, or file key target.region)"
)
NO_DURATION = "is no duration; valid: 30s, 5m, 1h30m, 7d, or seconds"
WHERE_OPTIONS_BELONG = (
    'where options belong; valid: "OPTION: VALUE" lines, with a blank after the colon'
)
METHODS = "auto, aksk, password, token, agency, oidc, none"
ADDRESSES = "HOST:PORT, [IPV6]:PORT, or :PORT for all interfaces"
URLS = "http:// or https://, a host, perhaps a port and a path"
PROXIES = "http://HOST:PORT or http://USER:PASSWORD@HOST:PORT"
NEVER = (
    "not as a flag, process lists show it; valid: environment variable "
    "MODELARTS_EXPORTER_TARGET__AUTH__{0}, file key target.auth.{1}, or flag "
    "--target.auth.{2}-file "
    "(from flag --target.auth.{2})"
)
ANYTHING = "valid: the options that --help lists"


def complaints(arguments=(), environ=None):
    with pytest.raises(ConfigError) as caught:
        load(arguments, environ or {})
    return list(caught.value.problems)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def in_file(here, text):
    (here / "exporter.yml").write_text(text)
    return complaints(["--config.file=exporter.yml"])


FLAGS = {
    "nothing at all": ([], [MISSING]),
    "misspelt": (
        [*REGION, "--poll.intervall", "30s"],
        ["flag --poll.intervall: unknown; did you mean --poll.interval?"],
    ),
    "misspelt, with its value": (
        [*REGION, "--poll.intervall=30s"],
        ["flag --poll.intervall: unknown; did you mean --poll.interval?"],
    ),
    "an abbreviation is a misspelling": (
        [*REGION, "--poll.inter=30s"],
        ["flag --poll.inter: unknown; did you mean --poll.interval?"],
    ),
    "group left out": (
        [*REGION, "--listen-address=:1"],
        ["flag --listen-address: unknown; did you mean --web.listen-address?"],
    ),
    "one dash": (
        [*REGION, "-log.level", "debug"],
        ["flag -log.level: unknown; did you mean --log.level?"],
    ),
    "misspelt no-flag": (
        [*REGION, "--no-jobs.per-jobs"],
        ["flag --no-jobs.per-jobs: unknown; did you mean --no-jobs.per-job?"],
    ),
    "no-flag of no yes or no": (
        [*REGION, "--no-log.level"],
        ["flag --no-log.level: unknown; did you mean --log.level?"],
    ),
    "like nothing known": ([*REGION, "--zzz"], [f"flag --zzz: unknown; {ANYTHING}"]),
    "stray word": (
        ["foo", *REGION, "b\na\x1br"],
        [
            '"foo" belongs to no flag; valid: --OPTION VALUE',
            r'"b\na\x1br" belongs to no flag; valid: --OPTION VALUE',
        ],
    ),
    "no value": (
        [*REGION, "--poll.interval", "--log.level"],
        [
            "flag --poll.interval: has no value; valid: --poll.interval VALUE",
            "flag --log.level: has no value; valid: --log.level VALUE",
        ],
    ),
    "twice": (
        [*REGION, "--target.region=cn-south-1"],
        ["target.region: is given twice; valid: once (from flag --target.region)"],
    ),
    "empty": (
        ["--target.region=", "--target.name= "],
        [
            (
                'target.name: " " is no text; valid: text of one line, in YAML in quotes if it '
                "looks "
                "like a number (from flag --target.name)"
            ),
            'target.region: "" is no region; valid: such as cn-north-4 (from flag --target.region)',
        ],
    ),
    "neither yes nor no": (
        [*REGION, "--jobs.per-job=maybe"],
        ['jobs.per_job: "maybe" is no yes or no; valid: true, false (from flag --jobs.per-job)'],
    ),
    "value for a no-flag": (
        [*REGION, "--no-jobs.per-job=true"],
        ["flag --no-jobs.per-job: takes no value; valid: --no-jobs.per-job"],
    ),
    "secrets": (
        [
            *REGION,
            "--target.auth.secret-key=x",
            "--target.auth.password",
            "x",
            "--target.auth.token",
            "-x",
            "--target.auth.security_token",
            "--x",
        ],
        [
            "target.auth.secret_key: " + NEVER.format("SECRET_KEY", "secret_key", "secret-key"),
            "target.auth.password: " + NEVER.format("PASSWORD", "password", "password"),
            "target.auth.token: " + NEVER.format("TOKEN", "token", "token"),
            "target.auth.security_token: "
            + NEVER.format("SECURITY_TOKEN", "security_token", "security-token"),
        ],
    ),
    "targets": (
        [*REGION, "--targets", "x"],
        ["targets: only in the file; valid: file key targets (from flag --targets)"],
    ),
    "no such file": (
        ["--config.file", "nowhere.yml", "--poll.interval=x"],
        [
            (
                'config.file: "nowhere.yml": cannot be read: No such file or directory; '
                "valid: a readable YAML file (from flag --config.file)"
            ),
            f'poll.interval: "x" {NO_DURATION} (from flag --poll.interval)',
        ],
    ),
    "directory": (
        ["--config.file=/"],
        [
            (
                'config.file: "/": cannot be read: Is a directory; valid: a readable YAML file '
                "(from flag --config.file)"
            ),
        ],
    ),
    "several at once": (
        ["--poll.interval=abc", "--api.retries=-1", "--log.level=loud"],
        [
            MISSING,
            f'poll.interval: "abc" {NO_DURATION} (from flag --poll.interval)',
            (
                'api.retries: "-1" is no whole number from 0; valid: 0, 1, ... (from flag '
                "--api.retries)"
            ),
            (
                'log.level: "loud" is no choice; valid: debug, info, warning, error '
                "(from flag --log.level)"
            ),
        ],
    ),
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags(here, name):
    arguments, lines = FLAGS[name]
    assert complaints(arguments) == lines


VALUES = {
    ("poll.interval", "0"): '"0" is too short; valid: 1ms to 36500d',
    ("poll.interval", "200y"): '"200y" is too long; valid: 1ms to 36500d',
    ("poll.interval", "5 m"): f'"5 m" {NO_DURATION}',
    ("poll.interval", "1m1h"): f'"1m1h" {NO_DURATION}',
    ("poll.interval", "-5s"): f'"-5s" {NO_DURATION}',
    ("poll.interval", "nan"): f'"nan" {NO_DURATION}',
    ("poll.interval", "٣s"): f'"٣s" {NO_DURATION}',
    ("poll.interval", "x" * 99): f'"{"x" * 60}..." {NO_DURATION}',
    ("api.timeout", "0"): '"0" is too short; valid: 1ms to 36500d',
    ("api.max-requests-per-second", "0"): (
        '"0" is no number from 0.001; valid: 0.001, 2.5, 10, ...'
    ),
    ("api.max-requests-per-second", "inf"): (
        '"inf" is no number from 0.001; valid: 0.001, 2.5, 10, ...'
    ),
    ("api.concurrency", "0"): '"0" is no whole number from 1; valid: 1, 2, ...',
    ("api.concurrency", "1.5"): '"1.5" is no whole number from 1; valid: 1, 2, ...',
    ("jobs.max-series-jobs", "1e9"): '"1e9" is no whole number from 0; valid: 0, 1, ...',
    ("target.region", "CN North"): '"CN North" is no region; valid: such as cn-north-4',
    ("target.region", "x.example.org/"): (
        '"x.example.org/" is no region; valid: such as cn-north-4'
    ),
    ("target.name", "a\nb"): (
        r'"a\nb" is no text; valid: text of one line, in YAML in quotes if it looks like a number'
    ),
    ("target.project-id", "a/b"): (
        '"a/b" is no project id; valid: letters and digits, in YAML in quotes'
    ),
    ("target.workspaces", "0,a b"): (
        '"a b" is no workspace id; valid: "0", or an id of letters, digits, "-" and "_"'
    ),
    ("target.workspaces", "0,0"): '"0" is there twice; valid: every workspace once',
    ("target.workspaces", "0,"): (
        '"" is no workspace id; valid: "0", or an id of letters, digits, "-" and "_"'
    ),
    ("target.pagination", "pages"): (
        '"pages" is no choice; valid: auto, page, row; did you mean page?'
    ),
    ("target.auth.method", "akks"): f'"akks" is no choice; valid: {METHODS}; did you mean aksk?',
    ("target.endpoint", "modelarts.example.org"): (
        f'"modelarts.example.org" is no base URL; valid: {URLS}'
    ),
    ("target.endpoint", "ftp://x"): f'"ftp://x" is no base URL; valid: {URLS}',
    ("target.endpoint", "https://"): f'"https://" is no base URL; valid: {URLS}',
    ("target.endpoint", "https://a b"): f'"https://a b" is no base URL; valid: {URLS}',
    ("target.endpoint", "https://x:99999"): f'"https://x:99999" is no base URL; valid: {URLS}',
    ("target.endpoint", "https://[::1"): f'"https://[::1" is no base URL; valid: {URLS}',
    ("target.endpoint", "https://x?a=b"): (
        f'"https://x?a=b" is no base URL; valid: {URLS}, without query and fragment'
    ),
    ("target.iam-endpoint", "https://x/#"): (
        f'"https://x/#" is no base URL; valid: {URLS}, without query and fragment'
    ),
    ("target.iam-endpoint", "https://u:geheim@x"): (
        f"a text (not shown) is no base URL; valid: {URLS}, and no user"
    ),
    ("target.proxy", "u:geheim@x:3128"): f"a text (not shown) is no proxy; valid: {PROXIES}",
    ("target.proxy", "socks5://x:1"): f"a text (not shown) is no proxy; valid: {PROXIES}",
    ("target.ca-file", "nowhere.pem"): (
        '"nowhere.pem" cannot be read: No such file or directory; valid: a readable file'
    ),
    ("target.ca-file", "/dev/null"): (
        '"/dev/null" is no regular file; valid: a file that can be read'
    ),
    ("target.auth.secret-key-file", "nowhere"): (
        '"nowhere" cannot be read: No such file or directory; valid: a readable file'
    ),
    ("target.auth.password-file", "."): '"." is no regular file; valid: a file that can be read',
    ("target.auth.token-file", ""): '"" is no path of a file; valid: the path of a file',
    ("web.listen-address", "9978"): f'"9978" is no address to listen on; valid: {ADDRESSES}',
    ("web.listen-address", "::1:9978"): (
        f'"::1:9978" is no address to listen on; valid: {ADDRESSES}'
    ),
    ("web.listen-address", "[x]:9978"): (
        f'"[x]:9978" is no address to listen on; valid: {ADDRESSES}'
    ),
    ("web.listen-address", "a b:1"): f'"a b:1" is no address to listen on; valid: {ADDRESSES}',
    ("web.listen-address", "http://x:1"): (
        f'"http://x:1" is no address to listen on; valid: {ADDRESSES}'
    ),
    ("web.listen-address", "x:"): f'"x:" is no address to listen on; valid: {ADDRESSES}',
    ("web.listen-address", ":65536"): '":65536" has port 65536; valid: 0 to 65535',
    ("web.listen-address", ":1,:1"): '":1" is there twice; valid: every address once',
    **{
        ("web.telemetry-path", path): (
            f'"{path}" is no path for metrics; valid: such as /metrics; not / and nothing below /-/'
        )
        for path in ("/", "metrics", "/-/metrics", "/-", "/a/../b", "/a?b", "/{a}", "/a/", "//a")
    },
    ("log.format", "xml"): '"xml" is no choice; valid: text, json',
}


@pytest.mark.parametrize(("flag", "value"), VALUES)
def test_values(here, flag, value):
    region = [] if flag == "target.region" else REGION
    name = flag.replace("-", "_")
    assert complaints([*region, f"--{flag}", value]) == [
        f"{name}: {VALUES[flag, value]} (from flag --{flag})"
    ]


@pytest.mark.parametrize(
    ("content", "good"), [("", False), ("nonsense", False), (None, True)], ids=repr
)
def test_ca_file(here, content, good):
    if good:
        trustme.CA().cert_pem.write_to_path(here / "ca.pem")
        assert load([*REGION, "--target.ca-file=ca.pem"], {}).target.ca_file == "ca.pem"
        return
    (here / "ca.pem").write_text(content)
    assert complaints([*REGION, "--target.ca-file=ca.pem"]) == [
        (
            'target.ca_file: "ca.pem" holds no certificate; valid: a file in PEM format '
            "(from flag --target.ca-file)"
        )
    ]


ENVIRONMENT = {
    "single underscore": (
        {"POLL_INTERVAL": "30s"},
        [
            (
                "environment variable MODELARTS_EXPORTER_POLL_INTERVAL: unknown; "
                "did you mean MODELARTS_EXPORTER_POLL__INTERVAL?"
            )
        ],
    ),
    "lower case": (
        {"poll__interval": "30s"},
        [
            (
                "environment variable MODELARTS_EXPORTER_poll__interval: unknown; "
                "did you mean MODELARTS_EXPORTER_POLL__INTERVAL?"
            )
        ],
    ),
    "like nothing known": (
        {"QQQ": "geheim"},
        [f"environment variable MODELARTS_EXPORTER_QQQ: unknown; {ANYTHING}"],
    ),
    "not quite from Kubernetes": (
        {"WEB_PORT": "9978", "WEB__SERVICE_HOST": "x"},
        [
            f"environment variable MODELARTS_EXPORTER_WEB_PORT: unknown; {ANYTHING}",
            f"environment variable MODELARTS_EXPORTER_WEB__SERVICE_HOST: unknown; {ANYTHING}",
        ],
    ),
    "targets": (
        {"TARGETS": "[]"},
        [
            (
                "targets: only in the file; valid: file key targets "
                "(from environment variable MODELARTS_EXPORTER_TARGETS)"
            )
        ],
    ),
    "values": (
        {"POLL__INTERVAL": "x", "WEB__LISTEN_ADDRESS": ":1,x", "LOG__LEVEL": "warn"},
        [
            (
                f'poll.interval: "x" {NO_DURATION} '
                "(from environment variable MODELARTS_EXPORTER_POLL__INTERVAL)"
            ),
            (
                f'web.listen_address: "x" is no address to listen on; valid: {ADDRESSES} '
                "(from environment variable MODELARTS_EXPORTER_WEB__LISTEN_ADDRESS)"
            ),
            (
                'log.level: "warn" is no choice; valid: debug, info, warning, error; '
                "did you mean warning? (from environment variable MODELARTS_EXPORTER_LOG__LEVEL)"
            ),
        ],
    ),
    "file": (
        {"CONFIG__FILE": "nowhere.yml"},
        [
            (
                'config.file: "nowhere.yml": cannot be read: No such file or directory; '
                "valid: a readable YAML file "
                "(from environment variable MODELARTS_EXPORTER_CONFIG__FILE)"
            )
        ],
    ),
}


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_environment(here, name):
    variables, lines = ENVIRONMENT[name]
    environ = {f"MODELARTS_EXPORTER_{key}": value for key, value in variables.items()}
    assert complaints(REGION, environ) == lines


def test_variables_of_the_vendor_are_blamed_by_their_names():
    environ = {"HUAWEICLOUD_SDK_PROJECT_ID": "a/b", "HUAWEICLOUD_SDK_IAM_ENDPOINT": "iam"}
    assert complaints(REGION, environ) == [
        (
            'target.project_id: "a/b" is no project id; valid: letters and digits, in YAML '
            "in quotes "
            "(from environment variable HUAWEICLOUD_SDK_PROJECT_ID)"
        ),
        (
            f'target.iam_endpoint: "iam" is no base URL; valid: {URLS} '
            "(from environment variable HUAWEICLOUD_SDK_IAM_ENDPOINT)"
        ),
    ]


FILES = {
    "unknown at the top": (
        "target: {region: cn-north-4}\npol: {interval: 30s}\n",
        ["file exporter.yml, key pol, line 2: unknown; did you mean poll?"],
    ),
    "unknown inside": (
        "target:\n  region: cn-north-4\n  auth:\n    methode: aksk\n",
        [
            (
                "file exporter.yml, key target.auth.methode, line 4: unknown; "
                "did you mean target.auth.method?"
            )
        ],
    ),
    "group left out": (
        "target: {region: cn-north-4}\ninterval: 30s\n",
        ["file exporter.yml, key interval, line 2: unknown; did you mean poll.interval?"],
    ),
    "dashes": (
        "target: {region: cn-north-4}\nweb: {listen-address: ':1'}\n",
        [
            (
                "file exporter.yml, key web.listen-address, line 2: unknown; "
                "did you mean web.listen_address?"
            )
        ],
    ),
    "odd keys": (
        "target: {region: cn-north-4, 'password:geheim': x, 5: x}\non: 1\n",
        [
            f"file exporter.yml, key target.(odd key): unknown; {ANYTHING}",
            f"file exporter.yml, key target.5, line 1: unknown; {ANYTHING}",
            f"file exporter.yml, key true: unknown; {ANYTHING}",
        ],
    ),
    "file in file": (
        "config: {file: x.yml}\ntarget: {region: cn-north-4}\n",
        [f"file exporter.yml, key config, line 1: unknown; {ANYTHING}"],
    ),
    "list at the top": (
        "- target\n",
        [f"file exporter.yml: a list {WHERE_OPTIONS_BELONG}"],
    ),
    "text at the top": (
        "geheim\n",
        [f"file exporter.yml: a text {WHERE_OPTIONS_BELONG}"],
    ),
    "text instead of a mapping": (
        "target:\n  auth:\n    password:geheim\n",
        [
            (
                f"target.auth: a text {WHERE_OPTIONS_BELONG} "
                "(from file exporter.yml, key target.auth, line 2)"
            )
        ],
    ),
    "number instead of a mapping": (
        "target: {region: cn-north-4}\npoll: 30\n",
        [f"poll: a number {WHERE_OPTIONS_BELONG} (from file exporter.yml, key poll, line 2)"],
    ),
    "mapping instead of a value": (
        "target: {region: cn-north-4}\npoll: {interval: {seconds: 30}}\n",
        [
            (
                f"poll.interval: a mapping {NO_DURATION} "
                "(from file exporter.yml, key poll.interval, line 2)"
            )
        ],
    ),
    "list instead of a value": (
        "target: {region: [cn-north-4]}\n",
        [
            (
                "target.region: a list is no region; valid: such as cn-north-4 "
                "(from file exporter.yml, key target.region, line 1)"
            )
        ],
    ),
    "values of other types": (
        (
            "target: {region: cn-north-4, name: 2026, project_id: 0123}\n"
            "poll: {interval: true, timeout: 2026-01-01, sweep_timeout: -1}\n"
            "api: {retries: 2.5, concurrency: true}\njobs: {per_job: 2}\nlog: {format: off}\n"
        ),
        [
            (
                "target.name: 2026 is no text; valid: text of one line, in YAML in quotes if it "
                "looks "
                "like a number (from file exporter.yml, key target.name, line 1)"
            ),
            (
                "target.project_id: 83 is no project id; valid: letters and digits, in YAML in "
                "quotes "
                "(from file exporter.yml, key target.project_id, line 1)"
            ),
            (
                f"poll.interval: true {NO_DURATION} "
                "(from file exporter.yml, key poll.interval, line 2)"
            ),
            (
                f"poll.timeout: a date {NO_DURATION} "
                "(from file exporter.yml, key poll.timeout, line 2)"
            ),
            (
                f"poll.sweep_timeout: -1 {NO_DURATION} "
                "(from file exporter.yml, key poll.sweep_timeout, line 2)"
            ),
            (
                "api.concurrency: true is no whole number from 1; valid: 1, 2, ... "
                "(from file exporter.yml, key api.concurrency, line 3)"
            ),
            (
                "api.retries: 2.5 is no whole number from 0; valid: 0, 1, ... "
                "(from file exporter.yml, key api.retries, line 3)"
            ),
            (
                "jobs.per_job: 2 is no yes or no; valid: true, false "
                "(from file exporter.yml, key jobs.per_job, line 4)"
            ),
            (
                "log.format: false is no choice; valid: text, json "
                "(from file exporter.yml, key log.format, line 5)"
            ),
        ],
    ),
    "listen address that YAML reads as a number": (
        "target: {region: cn-north-4}\nweb: {listen_address: 1:30}\n",
        [
            (
                f"web.listen_address: 90 is no address to listen on; valid: {ADDRESSES} "
                "(from file exporter.yml, key web.listen_address, line 2)"
            )
        ],
    ),
    "empty list": (
        "target: {region: cn-north-4, workspaces: []}\n",
        [
            (
                "target.workspaces: the list is empty; valid: at least one workspace "
                "(from file exporter.yml, key target.workspaces, line 1)"
            )
        ],
    ),
    "nothing in a list": (
        "target: {region: cn-north-4, workspaces: [0, ~]}\n",
        [
            (
                'target.workspaces: nothing is no workspace id; valid: "0", or an id of letters, '
                'digits, "-" and "_" (from file exporter.yml, key target.workspaces, line 1)'
            )
        ],
    ),
    "secrets of other types": (
        (
            "target:\n  region: cn-north-4\n  auth:\n    secret_key: 4711\n    password: [geheim]\n"
            "    token: {geheim: geheim}\n    security_token: #geheim\n"
        ),
        [
            f"target.auth.{name}: {what} (not shown) is no secret; valid: text of one line, "
            "in YAML "
            f"in quotes (from file exporter.yml, key target.auth.{name}, line {line})"
            for name, what, line in (
                ("secret_key", "a number", 4),
                ("security_token", "nothing", 7),
                ("password", "a list", 5),
                ("token", "a mapping", 6),
            )
        ],
    ),
    "secrets that are none": (
        'target:\n  region: cn-north-4\n  auth:\n    secret_key: " "\n    password: "a\\nb"\n',
        [
            (
                "target.auth.secret_key: is empty; valid: text of one line "
                "(from file exporter.yml, key target.auth.secret_key, line 4)"
            ),
            (
                "target.auth.password: has a line break or a control character inside; "
                "valid: text of one line (from file exporter.yml, key target.auth.password, line 5)"
            ),
        ],
    ),
    "a secret given twice": (
        "target:\n  region: cn-north-4\n  auth:\n    token: geheim\n    token_file: exporter.yml\n",
        [
            (
                "target.auth.token: token_file is given, too; valid: only one of the two "
                "(from file exporter.yml, key target.auth.token, line 4; "
                "target.auth.token_file from file exporter.yml, key target.auth.token_file, line 5)"
            )
        ],
    ),
    "keys twice": (
        (
            "target: {region: cn-north-4}\npoll:\n  interval: 30s\n  interval: 40s\n"
            "log: {level: info, level: debug}\n"
        ),
        [
            (
                "poll.interval: is there twice, on lines 3 and 4; valid: once "
                "(from file exporter.yml, key poll.interval, line 3)"
            ),
            (
                "log.level: is there twice, on line 5; valid: once "
                "(from file exporter.yml, key log.level, line 5)"
            ),
        ],
    ),
    "targets and target": (
        "targets: [{region: cn-north-4}]\ntarget: {region: cn-north-4, auth: {method: none}}\n",
        [
            f"target.{name}: targets is given, too; valid: only one of target and targets "
            f"(from file exporter.yml, key target.{name}, line 2)"
            for name in ("region", "auth.method")
        ],
    ),
    "no targets": (
        "targets: []\n",
        [
            (
                "targets: the list is empty; valid: at least one target "
                "(from file exporter.yml, key targets, line 1)"
            )
        ],
    ),
    "targets without a list": (
        "targets: {region: cn-north-4}\n",
        [
            (
                'targets: a mapping is no list; valid: a list, such as "- region: cn-north-4" '
                "(from file exporter.yml, key targets, line 1)"
            )
        ],
    ),
    "targets without anything": (
        "targets:\n",
        [
            (
                'targets: nothing is no list; valid: a list, such as "- region: cn-north-4" '
                "(from file exporter.yml, key targets, line 1)"
            )
        ],
    ),
    "bad targets": (
        (
            "targets:\n  - region: cn-north-4\n    auth: {method: akks, methode: x}\n"
            "  - name: x\n  - cn-north-4\n"
        ),
        [
            (
                "file exporter.yml, key targets[0].auth.methode, line 3: unknown; "
                "did you mean targets[0].auth.method?"
            ),
            (
                f"targets[2]: a text {WHERE_OPTIONS_BELONG} "
                "(from file exporter.yml, key targets[2], line 5)"
            ),
            (
                f'targets[0].auth.method: "akks" is no choice; valid: {METHODS}; did you mean '
                "aksk? "
                "(from file exporter.yml, key targets[0].auth.method, line 3)"
            ),
        ],
    ),
    "a target without region": (
        "targets:\n  - region: cn-north-4\n  - name: x\n",
        [
            (
                "targets[1].region: required, for example cn-north-4 "
                "(from file exporter.yml, key targets[1], line 3)"
            )
        ],
    ),
    "same labels": (
        (
            "targets:\n  - {region: cn-north-4, name: p1}\n  - {region: cn-south-1, name: p1}\n"
            "  - {region: cn-north-4, project_id: p1}\n"
        ),
        [
            (
                "targets[2].name: its labels region and project are those of targets[0]; valid: "
                "a name "
                "that no other target of the region has "
                "(from file exporter.yml, key targets[2], line 4)"
            )
        ],
    ),
    "same labels for want of a name": (
        "targets:\n  - {region: cn-north-4}\n  - {region: cn-north-4}\n",
        [
            (
                "targets[1].name: its labels region and project are those of targets[0]; valid: "
                "a name "
                "that no other target of the region has "
                "(from file exporter.yml, key targets[1], line 3)"
            )
        ],
    ),
    "stale too early": (
        "target: {region: cn-north-4}\npoll: {interval: 3m, stale_after: 300}\n",
        [
            (
                "poll.stale_after: 5m is too short for poll.interval 3m and poll.timeout 2m; "
                "valid: "
                "more than 5m (from file exporter.yml, key poll.stale_after, line 2; "
                "poll.interval from file exporter.yml, key poll.interval, line 2)"
            )
        ],
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_files(here, name):
    text, lines = FILES[name]
    assert in_file(here, text) == lines


NO_YAML = {
    "target:\n\tregion: x\n": (", line 2, column 1: a tab; valid: spaces"),
    "a: b: c\n": ", line 1, column 5: mapping values are not allowed here; valid: YAML",
    "target:\n  auth:\n    method: token\n    token geheim\nx: y\n": (
        ", line 5, column 1: could not find expected ':'; valid: YAML"
    ),
    "x: 'geheim\n": ", line 2, column 1: found unexpected end of stream; valid: YAML",
    'x: "\\geheim"\n': ", line 1, column 6: found unknown escape character 'g'; valid: YAML",
    "x: *geheim\n": (
        ", line 1, column 4: an alias without its anchor; "
        "valid: quotes around a text that starts with *"
    ),
    "x: !geheim y\n": ", line 1, column 4: a tag; valid: quotes around a text that starts with !",
    "x: !!python/object:geheim {}\n": (
        ", line 1, column 4: a tag; valid: quotes around a text that starts with !"
    ),
    "x: @geheim\n": (
        ", line 1, column 4: found character '@' that cannot start any token; valid: YAML"
    ),
    "x: &geheim 1\ny: &geheim 2\n": (
        ", line 2, column 4: an anchor for the second time; "
        "valid: quotes around a text that starts with &"
    ),
    "x: {y\n": ", line 2, column 1: expected ',' or '}', but got '<stream end>'; valid: YAML",
    "[a]: 1\n": ", line 1, column 1: found unhashable key; valid: YAML",
    "x: 1\n---\nx: 2\n": ", line 2, column 1: but found another document; valid: YAML",
    "x: geheim\x01\n": ", line 1, column 10: a control character; valid: printable text",
    "x: 2026-99-99\n": ": a date or number that does not exist; valid: quotes around it",
    "x: !!bool geheim\n": ": a date or number that does not exist; valid: quotes around it",
    "[" * 3000: ": is nested too deeply; valid: YAML with options",
    "x: " + "y" * 2**20: ": is larger than 1048576 bytes; valid: a YAML file",
}


@pytest.mark.parametrize("text", NO_YAML, ids=lambda text: repr(text[:20]))
def test_no_yaml(here, text):
    assert in_file(here, text) == [
        f'config.file: "exporter.yml"{NO_YAML[text]} (from flag --config.file)'
    ]


def test_no_utf8(here):
    (here / "exporter.yml").write_bytes("x: ü".encode("latin-1"))
    assert complaints(["--config.file", "exporter.yml"]) == [
        (
            'config.file: "exporter.yml": is not UTF-8 text; valid: a YAML file '
            "(from flag --config.file)"
        )
    ]


@pytest.mark.parametrize(
    "text", ["target: &a {auth: *a}\n", "targets: &a [*a]\n", "poll: &a {poll: *a}\n"]
)
def test_a_file_that_contains_itself_is_read_to_an_end(here, text):
    assert in_file(here, text)


def test_aliases_of_aliases_of_aliases_take_no_time(here):
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    assert len(in_file(here, f"a0: &a0 x\n{levels}")) == 31


def test_a_secret_from_two_places(here):
    (here / "sk").write_text("x")
    assert complaints(
        [*REGION, "--target.auth.secret-key-file=sk"],
        {"MODELARTS_EXPORTER_TARGET__AUTH__SECRET_KEY": "x"},
    ) == [
        (
            "target.auth.secret_key: secret_key_file is given, too; valid: only one of the two "
            "(from environment variable MODELARTS_EXPORTER_TARGET__AUTH__SECRET_KEY; "
            "target.auth.secret_key_file from flag --target.auth.secret-key-file)"
        )
    ]


def test_a_target_by_flag_and_targets_in_the_file(here):
    (here / "exporter.yml").write_text("targets: [{region: cn-north-4}]")
    assert complaints([*REGION, "--config.file=exporter.yml"]) == [
        (
            "target.region: targets is given, too; valid: only one of target and targets "
            "(from flag --target.region)"
        )
    ]


def test_unreadable_files(here):
    (here / "exporter.yml").write_text("target: {region: cn-north-4, auth: {token_file: a/b}}")
    (here / "a").write_text("")
    assert complaints(["--config.file", "exporter.yml"]) == [
        (
            'target.auth.token_file: "a/b" cannot be read: Not a directory; valid: a readable file '
            "(from file exporter.yml, key target.auth.token_file, line 1)"
        )
    ]


def test_the_source_that_wins_is_blamed(here):
    (here / "exporter.yml").write_text("poll: {interval: x}\napi: {timeout: x}\n")
    environ = {
        "MODELARTS_EXPORTER_POLL__INTERVAL": "y",
        "MODELARTS_EXPORTER_API__TIMEOUT": "y",
    }
    arguments = [*REGION, "--config.file=exporter.yml", "--poll.interval=z"]
    assert complaints(arguments, environ) == [
        f'poll.interval: "z" {NO_DURATION} (from flag --poll.interval)',
        (
            f'api.timeout: "y" {NO_DURATION} '
            "(from environment variable MODELARTS_EXPORTER_API__TIMEOUT)"
        ),
    ]
