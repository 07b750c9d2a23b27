"""Completion scripts: shells accept them, and what they offer."""

import shutil
import subprocess

import pytest

from exporter.commands.completion import script
from exporter.commands.parser import COMMANDS, CONFIGURABLE, own_actions, parse
from exporter.commands.parser import build as parsers
from exporter.settings.options import options

PROGRAM = "modelarts-exporter"
pytestmark = pytest.mark.integration  # starts shells
COMPLETE_IN_BASH = """
source "$0"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_modelarts_exporter
printf '%s\\n' "${COMPREPLY[@]}"
"""
COMPLETE_IN_ZSH = """
autoload -U compinit && compinit -D
source $1
print -l -- $+functions[_modelarts_exporter] $_comps[modelarts-exporter]
"""


def run(shell, *arguments):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    done = subprocess.run(
        [shell, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture(params=["bash", "fish", "zsh"])
def shell(request):
    return request.param


@pytest.fixture
def file(shell, tmp_path):
    file = tmp_path / f"completion.{shell}"
    file.write_text(script(shell) + "\n")
    return file


def test_shells_take_their_script(shell, file):
    assert run(shell, "-n", file) == []


@pytest.mark.parametrize("shell", ["bash"], indirect=True)
def test_bash_knows_the_completion(file):
    found = run("bash", "-c", 'source "$0"; complete -p modelarts-exporter', file)
    assert found == ["complete -o default -F _modelarts_exporter modelarts-exporter"]


@pytest.mark.parametrize("shell", ["zsh"], indirect=True)
def test_zsh_knows_the_completion(file):
    function, how = run("zsh", "-f", "-c", COMPLETE_IN_ZSH, "zsh", file)
    assert (function, how) == ("1", "_bash_complete -o default -F _modelarts_exporter")


CASES = [
    (["d"], {"demo", "dump"}),
    (["--log.l"], {"--log.level"}),
    (["--log.level", ""], {"debug", "info", "warning", "error"}),
    (["check", "--log.format", "j"], {"json"}),
    (["check", "--hist"], set()),
    (["backfill", "--hist"], {"--histograms"}),
    (["demo", "--offset", ""], {"page", "row"}),
    (["dump", "--no-jobs.p"], {"--no-jobs.per-job"}),
    (["simulate", "--poll.int"], set()),
    (["completion", ""], {"bash", "fish", "zsh"}),
    (["help", "b"], {"backfill"}),
]


@pytest.mark.parametrize("shell", ["bash", "fish"], indirect=True)
@pytest.mark.parametrize(("words", "expected"), CASES)
def test_what_is_offered(shell, file, words, expected):
    if shell == "bash":
        found = run("bash", "-c", COMPLETE_IN_BASH, file, PROGRAM, *words)
    else:
        line = " ".join([PROGRAM, *words])
        found = run("fish", "--no-config", "-c", f"source {file}; complete -C '{line}'")
    offered = {line.partition("\t")[0] for line in found} - {""}
    if words[-1] == "":
        offered -= {"--help", "--version"}
    assert offered == expected


@pytest.mark.parametrize("shell", ["bash"], indirect=True)
@pytest.mark.parametrize("value", ["", "d"])
def test_bash_splits_a_flag_with_its_value(file, value):
    words = ["--log.level", "=", *([value] if value else [])]
    found = run("bash", "-c", COMPLETE_IN_BASH, file, PROGRAM, "serve", *words)
    assert set(found) == ({"debug"} if value else {"debug", "info", "warning", "error"})


@pytest.mark.parametrize("shell", ["bash"], indirect=True)
def test_every_command_and_flag_is_offered(file):
    def offered(*words):
        return {*run("bash", "-c", COMPLETE_IN_BASH, file, PROGRAM, *words)}

    settings = {flag for each in options() for flag in (each.flag, each.no_flag) if flag}
    assert offered("") == {*COMMANDS, *settings, "--help", "--version"}
    for name, parser in zip(COMMANDS, parsers(COMMANDS)[1], strict=True):
        own = {flag for action in own_actions(parser) for flag in action.option_strings}
        more = settings if name in CONFIGURABLE else set()
        assert offered(name, "--") == {*own, *more, "--help", "--version"}


def test_the_shells_of_the_command(shell):
    assert parse(["completion", shell]).arguments.shell == shell
