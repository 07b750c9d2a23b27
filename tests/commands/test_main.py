"""Command lines that need no process: output and exit code."""

import json
import logging
import re
import socket
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from jobs import examples

from exporter import __version__
from exporter.commands import check, demo
from exporter.commands import main as cli
from exporter.commands.discovered import Discovered
from exporter.commands.parser import parse
from exporter.jobs.fleet import Fleet
from exporter.jobs.tracked import TrackedJob
from exporter.polling.status import PollCost, PollerStatus
from exporter.settings.schema import PollSettings
from exporter.simulator.identity import PROJECT_ID

ROOT = Path(__file__).parents[2]
REGION = "--target.region=cn-north-4"
CONFIGURABLE = ("serve", "demo", "check", "dump", "backfill")
COMMANDS = (*CONFIGURABLE, "simulate", "completion", "help", "version")


@pytest.fixture(autouse=True)
def _logging():
    """Restore the log, which commands set up for themselves."""
    loggers = [logging.getLogger(name) for name in ("", "asyncio", "aiohttp")]
    before = [(logger.handlers[:], logger.level) for logger in loggers]
    yield
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.fixture
def run(capsys):
    """Run a command; return its exit code and the lines of its output."""

    def run(*arguments, **environ):
        code = cli.run(arguments, {"HOME": "/nonexistent"} | environ)
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


@pytest.mark.parametrize("command", [(), *((each,) for each in COMMANDS)])
def test_version(run, command):
    assert run(*command, "--version") == (0, [f"modelarts-exporter {__version__}"], [])
    assert run("version") == (0, [f"modelarts-exporter {__version__}"], [])


@pytest.mark.parametrize("words", [("help",), ("-h",), ("--help",), ("--help", "--nonsense")])
def test_the_list_of_commands(run, words):
    code, out, err = run(*words)

    assert (code, err) == (0, [])
    assert out[0] == "usage: modelarts-exporter [COMMAND] [--OPTION VALUE ...]"
    assert [line.split()[0] for line in out[5:14]] == list(COMMANDS)
    assert "  -h, --help  show the help of the command" in out
    assert max(map(len, out)) <= 100


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_of_its_own(run, command):
    code, out, err = run("help", command)
    text = "\n".join(out)

    assert (code, err) == (0, [])
    assert out[0].startswith(f"usage: modelarts-exporter {command}")
    assert max(map(len, out)) <= 100
    assert ("  --web.listen-address ADDRESSES\n" in text) == (command == "serve")
    assert ("options of serve: modelarts-exporter help serve" in text) == (
        command in CONFIGURABLE[1:]
    )
    assert ("  --seed SEED" in text) == (command in {"demo", "simulate"})
    assert ("  --step DURATION" in text) == (command == "backfill")
    for flag in ("-h", "--help"):
        assert run(command, flag, "--and-nonsense") == (0, out, [])


def test_sections_that_the_help_names_are_in_the_documentation(run):
    _, out, _ = run("help", "serve")
    named = re.findall(r'See "(.*?)" in (\S+\.md)\.', "\n".join(out))

    assert named
    assert "\n".join(out).count("See ") == len(named)
    for section, page in named:
        assert f"# {section}\n" in (ROOT / page).read_text()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sevre", "did you mean serve?"),
        ("Check", "did you mean check?"),
        ("simulator", "did you mean simulate?"),
        ("xyz", f"use {', '.join(COMMANDS)}"),
        ("", f"use {', '.join(COMMANDS)}"),
    ],
)
def test_an_unknown_command(run, name, hint):
    line = f'modelarts-exporter: unknown command "{name}"; {hint}'
    assert run(name, REGION) == (2, [], [line])
    assert run("help", name) == (2, [], [line])
    assert run(name, "--help") == (2, [], [line])


@pytest.mark.parametrize("command", [each for each in COMMANDS if each not in CONFIGURABLE])
def test_other_commands_take_no_options_of_the_configuration(run, command):
    words = ("bash",) if command == "completion" else ()
    code, out, err = run(command, *words, "--poll.interval", "hunter2")
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith("modelarts-exporter: flag --poll.interval: unknown; ")
    assert "hunter2" not in err[0]


SECRETS = [
    ("--target.auth.passwrd", "hunter2"),
    ("--target.auth.password", "hunter2"),
    ("--passwort:hunter2",),
    ("--secret-keys", "hunter2"),
    ("--nothing", "-hunter2"),
    ("--nothing=hunter2", "--", "hunter2"),
]


@pytest.mark.parametrize("command", [(), *((each,) for each in CONFIGURABLE), ("simulate",)])
@pytest.mark.parametrize("words", SECRETS)
def test_words_that_may_be_secrets_are_not_quoted(run, command, words):
    code, out, err = run(*command, *words)
    assert (code, out) == (2, [])
    assert err
    assert "unter2" not in "\n".join(err)


@pytest.mark.parametrize("command", CONFIGURABLE)
@pytest.mark.parametrize(
    "line", ["-- --poll.interval=1s", "--x a --x b", "- -- -1", "--log.level", "--a b --c=d -e --f"]
)
def test_options_of_the_configuration_are_left_as_they_are(command, line):
    words = line.split()
    assert parse([command, *words]).options == words
    assert parse(words).options == words


@pytest.mark.parametrize("bare", [True, False])
def test_a_bare_start_names_the_demo(run, bare):
    code, _, err = run(**({} if bare else {"MODELARTS_EXPORTER_LOG__LEVEL": "info"}))
    assert code == 2
    hint = "modelarts-exporter: to try it without an account, run modelarts-exporter demo"
    assert (hint in err) == bare
    assert hint not in run("serve")[2]


CONFIGURATIONS = {
    "row 69, a key": (
        "target: {region: cn-north-4}\npol: {interval: 30s}",
        ["pol: unknown key; did you mean poll? (from file exporter.yml, key pol, line 2)"],
    ),
    "row 70, a duration and a list": (
        "target: {region: cn-north-4}\npoll: {interval: soon}\napi: [1]",
        [
            'poll.interval: invalid duration "soon"; use 30s, 5m, 1h30m, 7d or seconds',
            "api: ",
        ],
    ),
    "row 70, a tab": ("target:\n\tregion: cn-north-4", ["exporter.yml"]),
    "row 71, a secret of the wrong type": (
        "target: {region: cn-north-4, auth: {access_key: A, secret_key: 271828182845}}",
        ["target.auth.secret_key: invalid secret: got a number (not shown)"],
    ),
    "row 72, the same labels": (
        "targets: [{region: cn-north-4, name: a}, {region: cn-north-4, name: a}]",
        ["targets[1].name: same region and project labels as targets[0]"],
    ),
    "row 74, a secret file that is not there": (
        "target: {region: cn-north-4, auth: {access_key: A, secret_key_file: nowhere/sk}}",
        ["target.auth.secret_key_file: "],
    ),
}


@pytest.mark.parametrize("command", ["serve", "check", "dump"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_bad_configurations(run, tmp_path, monkeypatch, command, name):
    text, beginnings = CONFIGURATIONS[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exporter.yml").write_text(text)
    code, out, err = run(command, "--config.file=exporter.yml")

    assert (code, out, len(err)) == (2, [], len(beginnings)), err
    for line in err:
        assert line.startswith("modelarts-exporter: ")
        assert "exporter.yml" in line
        assert "271828182845" not in line
    for beginning in beginnings:
        assert any(beginning in line for line in err), err


def test_row_74_names_the_path(run):
    _, _, err = run(REGION, "--target.auth.access-key=A", "--target.auth.secret-key-file=/run/x/sk")
    (line,) = err
    assert line == (
        'modelarts-exporter: target.auth.secret_key_file: cannot read "/run/x/sk": No such file '
        "or directory (from flag --target.auth.secret-key-file)"
    )


@pytest.mark.parametrize("command", ["serve", "check", "dump"])
def test_credentials_that_can_never_work(run, command):
    code, out, err = run(
        command, REGION, "--web.listen-address=127.0.0.1:0", "--target.auth.method=aksk"
    )
    assert (code, out) == (2, [])
    assert [line.split(" is missing")[0] for line in err if " INFO " not in line] == [
        "modelarts-exporter: target.auth.access_key",
        "modelarts-exporter: target.auth.secret_key_file (or secret_key)",
    ]


@pytest.mark.parametrize("command", ["demo", "simulate"])
@pytest.mark.parametrize("flag", ["--jobs=many", "--offset=both", "--rate=-1", "--seed"])
def test_a_bad_option_of_the_simulated_region(run, command, flag):
    code, out, (line,) = run(command, flag)
    assert (code, out) == (2, [])
    assert line.startswith(f"modelarts-exporter: {flag.split('=')[0]}: ")


@pytest.mark.parametrize(
    ("command", "flag", "meant"),
    [
        ("demo", "--job", "--jobs"),
        ("backfill", "--form", "--from"),
        ("simulate", "--sed", "--seed"),
    ],
)
def test_a_misspelt_option_of_one_command(run, command, flag, meant):
    line = f"modelarts-exporter: flag {flag}: unknown; did you mean {meant}?"
    assert run(command, f"{flag}=1") == (2, [], [line])


def test_a_misspelt_option_of_the_demo(run):
    assert run("demo", "--jobs=10", "--poll.intervall=1s") == (
        2,
        [],
        ["modelarts-exporter: flag --poll.intervall: unknown; did you mean --poll.interval?"],
    )


def test_ctrl_c_before_there_is_anything_to_stop(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["modelarts-exporter"])
    monkeypatch.setattr(cli, "load_settings", interrupted)
    assert cli.main() == 130


def test_the_environment_of_the_demo():
    real = {
        "PATH": "/bin",
        "HUAWEICLOUD_SDK_AK": "real",
        "MODELARTS_EXPORTER_CONFIG__FILE": "real.yml",
        "MODELARTS_EXPORTER_TARGET__NAME": "real",
        "MODELARTS_EXPORTER_TARGETS": "real",
        "modelarts_exporter_target__region": "real",
        "MODELARTS_EXPORTER_LOG__LEVEL": "debug",
    }
    arguments = SimpleNamespace(access_key="AK", secret_key="SK")
    environ = demo.environment(real, "http://127.0.0.1:1", arguments)

    assert "real" not in str(environ)
    assert environ["PATH"] == "/bin"
    assert environ["MODELARTS_EXPORTER_LOG__LEVEL"] == "debug"
    assert environ["MODELARTS_EXPORTER_TARGET__ENDPOINT"] == "http://127.0.0.1:1"
    assert environ["MODELARTS_EXPORTER_TARGET__PROJECT_ID"] == PROJECT_ID


@pytest.mark.parametrize(
    ("flags", "environ", "address"),
    [
        ([], {}, ("127.0.0.1", 9978)),
        (["--web.listen-address=0.0.0.0:80"], {}, ("0.0.0.0", 80)),
        ([], {"MODELARTS_EXPORTER_WEB__LISTEN_ADDRESS": ":81"}, ("", 81)),
    ],
)
def test_the_demo_listens_on_loopback_unless_an_address_is_given(flags, environ, address):
    arguments = SimpleNamespace(access_key="AK", secret_key="SK")
    given = demo.environment(environ, "http://127.0.0.1:1", arguments)
    assert cli.load_settings(flags, given).web.listen_address == (address,)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://0.0.0.0:9978", "http://localhost:9978"),
        ("http://[::]:9978", "http://localhost:9978"),
        ("http://127.0.0.1:9978", "http://127.0.0.1:9978"),
        ("http://[::1]:9978", "http://[::1]:9978"),
    ],
)
def test_urls_that_can_be_opened(url, shown):
    assert demo.reachable(url) == shown


INTERVALS = PollSettings(interval=60, sweep_interval="1h")


def finding(name, phases=(), *, error="", mode=None, requests=1, pools=0, trouble="", granted=()):
    """What `check` finds at a target with these jobs."""
    jobs = {
        f"job-{number}": TrackedJob(
            examples.job(f"job-{number}", phase=phase), None, False, True, (), 0, None, 0.0, None
        )
        for number, phase in enumerate(phases)
    }
    pool_names = {f"pool-{number}": "name" for number in range(pools)}
    region, _, project = name.partition("/")
    status = PollerStatus(
        name=name,
        labels={"region": region, "project": project},
        identity=f"user of {name}",
        polled=True,
        error=error,
        last_success=None,
        costs={"incremental": PollCost(2, 0.25), "sweep": PollCost(requests, 1.25)},
        fleet=replace(examples.with_jobs(Fleet(), jobs), pool_names=pool_names),
        history=0,
        pagination=mode,
        pools_trouble=trouble,
        permissions=dict(granted),
        pools_cost=6 if granted else 0,
    )
    return check.finding(status)


def test_the_table_of_one_target():
    phases = ["Running"] * 2 + ["Failed"] * 1200 + ["Unknown"]
    granted = {"modelarts:pool:list": True, "modelarts:trainJob:getQuotas": False}
    found = finding("r/p", phases, mode="row", requests=1202, pools=12, granted=granted)
    table = check.table([found], [], INTERVALS)
    assert table == (
        "target          r/p\n"
        "identity        user of r/p\n"
        "result          ok\n"
        "jobs            1,203\n"
        "  Running           2\n"
        "  Failed        1,200\n"
        "  Unknown           1\n"
        "paging          row: offset counts jobs\n"
        "pool names      12 pools\n"
        "granted         modelarts:pool:list, for names of resource pools and how full they are; "
        "optional\n"
        "not needed yet  modelarts:pool:get, for places of waiting jobs in the queues of pools; "
        "optional\n"
        "not granted     modelarts:trainJob:getQuotas, for quotas; optional\n"
        "a poll costs    2 API calls, 0.2 s\n"
        "a sweep costs   1,202 API calls, 1.2 s; the first start needs one\n"
        "pools cost      6 API calls every 5m\n"
        "a day costs     about 5,424 API calls, with a poll every 1m, and every job "
        "verified within 1h"
    )


def test_the_table_of_several_targets():
    trouble = "not allowed: grant modelarts:pool:list"
    good = finding("r/a", ["Running"], mode="page")
    empty = finding("r/b", trouble=trouble)
    bad = finding("r/c", error=" ".join(["a long story"] * 10) + " " + "x" * 120)

    often = PollSettings(interval=2.5, sweep_interval="10m")
    assert check.table([good, empty], [], often).endswith(
        "jobs            none; the service omits jobs this identity cannot list\n"
        "paging          unknown: one page holds all jobs\n"
        "pool names      only those seen in jobs; not allowed: grant modelarts:pool:list\n"
        "not needed yet  modelarts:pool:list, for names of resource pools and how full they are; "
        "optional\n"
        "not needed yet  modelarts:pool:get, for places of waiting jobs in the queues of pools; "
        "optional\n"
        "not needed yet  modelarts:trainJob:getQuotas, for quotas; optional\n"
        "a poll costs    2 API calls, 0.2 s\n"
        "a sweep costs   1 API call, 1.2 s; the first start needs one\n"
        "a day costs     about 69,120 API calls, with a poll every 2s500ms, and every job "
        "verified within 10m\n"
        "\n"
        "All ok."
    )
    sections = check.table([bad, good, bad], [], INTERVALS).split("\n\n")
    assert [section.split()[1] for section in sections] == ["r/c", "r/a", "r/c", "of"]
    assert sections[0].splitlines()[2:] == [
        f"result          FAILED: {'a long story ' * 5}a long",
        f"                story {'a long story ' * 4}".rstrip(),
        f"                {'x' * 120}",
    ]
    assert sections[-1] == "2 of 3 targets failed."


@pytest.mark.parametrize(
    ("listed", "shown"),
    [
        (None, "unknown"),
        (0, "none; the service omits jobs this identity cannot list"),
        (38_000, "38,000, according to the service"),
    ],
)
def test_the_table_of_a_quick_check(listed, shown):
    found = check.Finding(finding("r/p").status, "", listed, 3)
    assert check.table([found], [], INTERVALS).splitlines()[3:] == [
        f"jobs            {shown}",
        "pool names      3 pools",
    ]


FOUND = [
    Discovered("cn-north-4", "projects", ["cn-north-4", "cn-north-4_team"], ""),
    Discovered("cn-east-3", "projects", [], "the service failed"),
]


def test_the_table_of_what_was_found():
    table = check.table([finding("r/a")], [], INTERVALS, FOUND)
    assert table.startswith(
        "discovery       projects of cn-north-4\n"
        "found           2: cn-north-4, cn-north-4_team\n"
        "\n"
        "discovery       projects of cn-east-3\n"
        "found           nothing\n"
        "result          FAILED: the service failed\n"
        "\n"
        "target          r/a\n"
    )
    assert table.endswith("\n\nNot all targets were found.")
    assert check.table([], [], INTERVALS, FOUND[:1]).endswith("\n\nThe configuration is ok.")


def test_the_document_of_what_was_found():
    document = json.loads(check.document([], [], INTERVALS, FOUND))
    assert not document["ok"]
    assert document["discovery"] == [each._asdict() for each in FOUND]
    assert json.loads(check.document([], [], INTERVALS, FOUND[:1]))["ok"]


def test_the_table_of_no_target():
    assert check.table([], [], INTERVALS) == "The configuration is ok."
    assert check.table([], ["web.listen_address: :80 is in use"], INTERVALS) == (
        "note            web.listen_address: :80 is in use\n\nThe configuration is ok."
    )


def test_the_document_for_machines():
    good = finding("r/a", ["Running", "Failed"], mode="page", requests=3, pools=2)
    bad = finding(
        "r/c", error="not allowed", trouble="not allowed", granted={"modelarts:pool:list": False}
    )

    def permissions(pool_list):
        return [
            {"action": action, "gives": gives, "granted": granted}
            for (action, gives), granted in zip(
                check.OPTIONAL_PERMISSIONS.items(), (pool_list, None, None), strict=True
            )
        ]

    assert json.loads(check.document([good, bad], ["a note"], INTERVALS)) == {
        "ok": False,
        "notes": ["a note"],
        "discovery": [],
        "targets": [
            {
                "target": "r/a",
                "region": "r",
                "project": "a",
                "identity": "user of r/a",
                "ok": True,
                "error": None,
                "jobs": 2,
                "jobs_by_phase": {"Running": 1, "Failed": 1},
                "pagination": "page",
                "pools": 2,
                "missing_permissions": [],
                "optional_permissions": permissions(None),
                "poll": {"requests": 2, "seconds": 0.25},
                "sweep": {"requests": 3, "seconds": 1.25},
                "pools_requests": 0,
                "requests_per_day": 2 * 1440 + 1 * 24,
            },
            {
                "target": "r/c",
                "region": "r",
                "project": "c",
                "identity": "user of r/c",
                "ok": False,
                "error": "not allowed",
                "jobs": None,
                "jobs_by_phase": None,
                "pagination": None,
                "pools": None,
                "missing_permissions": [
                    {
                        "action": "modelarts:pool:list",
                        "gives": "names of resource pools and how full they are",
                    }
                ],
                "optional_permissions": permissions(False),
                "poll": None,
                "sweep": None,
                "pools_requests": 6,
                "requests_per_day": None,
            },
        ],
    }
    assert json.loads(check.document([], [], INTERVALS)) == {
        "ok": True,
        "notes": [],
        "discovery": [],
        "targets": [],
    }


async def test_the_progress_of_a_check(monkeypatch):
    shown = []
    poller = SimpleNamespace(target=SimpleNamespace(sweep_progress=(0, 0)), ended_polls=0)
    steps = iter([((50, 120), 0), ((60, 55), 0), ((0, 0), 0), ((0, 0), 1)])

    async def step(_seconds):
        if (following := next(steps, None)) is None:
            raise EOFError
        poller.target.sweep_progress, poller.ended_polls = following

    monkeypatch.setattr(check, "show_progress_line", shown.append)
    monkeypatch.setattr(check.asyncio, "sleep", step)
    with pytest.raises(EOFError):
        await check._show_progress(SimpleNamespace(pollers=[poller]), quick=False)
    assert shown == [
        "Signing in ...",
        "Reading the job list: 50 of 120 jobs",
        "Reading the job list: 60 jobs",
        "Reading pool names ...",
        "Polling once more ...",
    ]


# --- check --offline ------------------------------------------------------------------------------


OFFLINE = ("check", "--offline", "--target.auth.method=none", REGION)
ANY_PORT = "--web.listen-address=127.0.0.1:0"


def test_a_good_configuration(run, tmp_path):
    state = tmp_path / "state.db"
    code, out, err = run(*OFFLINE, ANY_PORT, f"--state.file={state}")

    assert (code, err) == (0, [])
    assert re.sub(r"\s+", " ", " ".join(out)).startswith(
        f"note state.file: {state} will be created; counters start from a baseline"
    )
    assert out[-1] == "The configuration is ok."
    assert not state.exists()


def test_a_state_file_that_serve_could_not_use(run, tmp_path):
    """Row 31 of the reported inputs: `check` said good, and `serve` ended."""
    state = tmp_path / "nowhere/state.db"
    assert run(*OFFLINE, f"--state.file={state}") == (
        2,
        [],
        [f"modelarts-exporter: state.file: {state}: No such file or directory"],
    )


def test_an_address_in_use_is_a_note(run):
    with socket.create_server(("127.0.0.1", 0)) as running:
        address = f"127.0.0.1:{running.getsockname()[1]}"
        code, out, err = run(*OFFLINE, f"--web.listen-address={address}")

    assert (code, err) == (0, [])
    assert f"web.listen_address: {address} is in use" in out[0]


@pytest.mark.integration  # binds to more than loopback
@pytest.mark.parametrize("address", ["192.0.2.1:80", "[2001:db8::1]:80"])
def test_an_address_of_another_machine_is_a_failure(run, address):
    code, out, err = run(*OFFLINE, f"--web.listen-address={address}")

    assert (code, out, len(err)) == (1, [], 1)
    assert err[0].startswith(f"modelarts-exporter: cannot listen on {address}: ")


def test_offline_and_quick_exclude_each_other(run):
    code, _, err = run("check", "--offline", "--quick", REGION)
    assert (code, err) == (2, ["modelarts-exporter: --quick: not allowed with argument --offline"])
