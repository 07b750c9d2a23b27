"""Reload of the configuration by SIGHUP and `POST /-/reload` (rows 75 and 76)."""

import asyncio
import base64
import copy
import json
import os
import re
import signal
import time
from pathlib import Path

import aiohttp
import bcrypt
import pytest
import yaml
from process.program import (
    COMMAND,
    PYTHON,
    TRACE,
    eventually,
    get,
    scraped,
    up,
    values,
)
from process.state import Book, Scraper, counted

from exporter.simulator.faults import Fault
from exporter.simulator.fleet import Fleet
from exporter.simulator.identity import PROJECT_ID, AccessKey, Accounts, Identity
from exporter.simulator.server import SimulatedService

REGION = "cn-north-4"
GAUGE = "modelarts_exporter_config_last_reload_successful"
POLLS = "modelarts_exporter_polls_total"
OTHER = "5f0c2b7e9d3a4c1e8b6f7a2d4c9e1b30"
KEY = AccessKey("GOOD", "secret-of-good", Identity())


def world(jobs=10):
    """A fleet with some running jobs; its time advances with events."""
    fleet = Fleet(1, time.time() - 1000)
    for _ in range(jobs):
        fleet.start(fleet.create())
    fleet.pause()
    return fleet


@pytest.fixture
def fleet():
    return world()


class Configuration:
    """The configuration file and its content, which tests change and write."""

    def __init__(self, path, service):
        self.path = path
        self.service = service
        self.document = {
            "targets": [self.target("one")],
            "poll": {"interval": "0.2"},
            "api": {"max_requests_per_second": 1000, "retries": 0},
            "web": {"listen_address": "127.0.0.1:0", "enable_reload": True},
        }
        self.write()

    def target(self, name, **more):
        usual = {
            "name": name,
            "region": REGION,
            "project_id": PROJECT_ID if name == "one" else f"project-of-{name}",
            "endpoint": self.service.url,
            "auth": {"method": "none"},
        }
        return usual | more

    def write(self, text=None):
        """Replace the file by another, as editors do."""
        beside = self.path.with_suffix(".new")
        beside.write_text(yaml.safe_dump(self.document) if text is None else text)
        beside.replace(self.path)


@pytest.fixture
def configuration(tmp_path, service):
    return Configuration(tmp_path / "exporter.yml", service)


class Running:
    """The program, and ways to make it reload."""

    def __init__(self, program, url, configuration):
        self.program = program
        self.url = url
        self.configuration = configuration

    async def post(self, **options):
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/-/reload", **options) as answer,
        ):
            return answer.status, await answer.text()

    async def hang_up(self):
        """Reload by signal, and wait for the log line."""
        said = len(re.findall("(?:not|configuration) reloaded", self.program.stderr))
        os.kill(self.program.pid, signal.SIGHUP)

        def more():
            return len(re.findall("(?:not|configuration) reloaded", self.program.stderr)) > said

        await self.program.until(more)

    async def gauge(self, value):
        async def so():
            return values(await scraped(self.url), GAUGE) == [value]

        await eventually(so)

    async def reload(self, **changes):
        """Write the configuration and reload it."""
        self.configuration.document |= changes
        self.configuration.write()
        assert await self.post() == (200, "OK\n")
        return await scraped(self.url)

    async def polls(self, number=2, **labels):
        """Wait for a number of further successful polls; the series may have been reset."""
        before = self._good(await scraped(self.url), labels)

        async def so():
            found = await scraped(self.url)
            return found if self._good(found, labels) >= before + number else None

        return await eventually(so)

    @staticmethod
    def _good(found, labels):
        return sum(values(found, POLLS, kind="incremental", result="success", **labels))


@pytest.fixture
async def begin(start, configuration):
    async def begin(*arguments, command=COMMAND):
        program = start("--config.file=exporter.yml", *arguments, command=command)
        url = await program.url()
        await up(url)
        return Running(program, url, configuration)

    return begin


@pytest.fixture
async def running(begin):
    return await begin()


async def ends_well(running):
    assert await running.program.stops() == 0
    assert not TRACE.search(running.program.stderr)


def projects(found, name="modelarts_up"):
    return {dict(labels).get("project") for (sample, labels) in found if sample == name}


def of(project, found):
    return {key: value for key, value in found.items() if ("project", project) in key[1]}


async def agrees(url, book, **labels):
    async def so():
        found = await scraped(url)
        chosen = {key: v for key, v in found.items() if labels.items() <= dict(key[1]).items()}
        return counted(chosen) == truth

    workspace = labels.get("workspace")
    happened = {k: v for k, v in book.truth().items() if workspace in (None, k[1])}
    truth = pytest.approx(happened, abs=0.1)
    await eventually(so)


def live(fleet):
    """Make one event of every kind."""
    fleet.now += 5
    active = [job for job in fleet if job.phase == "Running"]
    fleet.finish(active[0], "Failed", 137)
    fleet.recover(active[1], "pod_reschedule", gap=1)
    fleet.start(fleet.create(pool="vision"))
    job = fleet.create()
    fleet.start(job)
    fleet.finish(job, "Completed")
    fleet.now += 5


# --- Refused --------------------------------------------------------------------------------------


def bad_yaml(configuration):
    configuration.write("targets: [")
    return r"config\.file: invalid YAML in \"exporter\.yml\", line 1, column \d+: .*"


def typo(configuration):
    configuration.document["poll"] = {"intervall": "1s"}
    configuration.write()
    return r"poll\.intervall: unknown key; did you mean poll\.interval\? \(from file .*, line \d+\)"


def same_labels(configuration):
    configuration.document["targets"] = [configuration.target("one")] * 2
    configuration.write()
    return r"targets\[1\]\.name: same region and project labels as targets\[0\]; use .*"


def secret_that_is_not_there(configuration):
    auth = {"access_key": "AK", "secret_key_file": "/run/secrets/no-such-file"}
    two = configuration.target("two", auth=auth)
    configuration.document["targets"] = [configuration.target("one"), two]
    configuration.write()
    return r"targets\[1\]\.auth\.secret_key_file: .*no-such-file.*"


def credentials_that_cannot_work(configuration):
    two = configuration.target("two", auth={"method": "token"})
    changed = configuration.target("one", workspaces=[OTHER])
    configuration.document["targets"] = [changed, two]
    configuration.write()
    return r"target\.auth\.token_file \(or token\) is missing"


def needs_a_restart(configuration):
    configuration.document["web"] |= {"telemetry_path": "/other", "listen_address": "127.0.0.1:1"}
    configuration.document["state"] = {"file": "state.db"}
    configuration.document["targets"] = [configuration.target("two")]
    configuration.write()
    return (
        r"state\.file: changed; restart to apply\n"
        r"web\.listen_address: changed; restart to apply\n"
        r"web\.telemetry_path: changed; restart to apply"
    )


def gone(configuration):
    configuration.path.unlink()
    return r"config\.file: cannot read \"exporter\.yml\": No such file or directory .*"


MISTAKES = [
    bad_yaml, typo, same_labels, secret_that_is_not_there, credentials_that_cannot_work,
    needs_a_restart, gone,
]  # fmt: skip


async def test_row_75_a_bad_file_is_refused_and_a_good_one_is_not(running, configuration, fleet):
    good = copy.deepcopy(configuration.document)
    book = Book(fleet)
    found = await scraped(running.url)
    assert values(found, GAUGE) == [1]
    for mistake in MISTAKES:
        said = mistake(configuration)

        status, text = await running.post()
        assert status == 500
        assert re.fullmatch(rf"failed to reload config:\n{said}(?: \(from .*\))?\n", text), text
        found = await scraped(running.url)
        assert values(found, GAUGE) == [0]
        assert projects(found, POLLS) == projects(found) == {"one"}
        for line in text.splitlines()[1:]:
            error = f"ERROR configuration not reloaded, keeping the previous one: {line}"
            assert error in running.program.stderr
        live(fleet)
        await agrees(running.url, book)

        configuration.document = copy.deepcopy(good)
        found = await running.reload()
        assert values(found, GAUGE) == [1]
    assert (
        " 0 added, 0 removed, 0 changed, 1 unchanged unchanged=cn-north-4/one"
        in (running.program.log[-1])
    )
    await ends_well(running)


async def test_row_75_by_signal(running, configuration, fleet):
    good = copy.deepcopy(configuration.document)
    for mistake in (bad_yaml, credentials_that_cannot_work, gone):
        mistake(configuration)
        await running.hang_up()
        await running.gauge(0)
        await running.polls()
        configuration.document = copy.deepcopy(good)
        configuration.write()
        await running.hang_up()
        await running.gauge(1)
    assert "INFO SIGHUP received, reloading the configuration" in running.program.log
    await ends_well(running)


# --- What is served -------------------------------------------------------------------------------


async def test_denied_families_are_counted_while_they_are_not_served(running, configuration, fleet):
    book = Book(fleet)
    await scraped(running.url)
    found = await running.reload(metrics={"deny": ["modelarts_training_.*", "typo"]})
    assert {name for name, _ in found if name.startswith("modelarts_training_")} == set()
    families = {dict(labels).get("family") for _, labels in found}
    assert {"modelarts_up", "modelarts_exporter_series"} <= families
    assert "modelarts_training_jobs" not in families
    assert 'WARNING metrics.deny: "typo" matches no metric family' in running.program.stderr
    live(fleet)
    await running.polls()

    await running.reload(metrics={"deny": []})
    await agrees(running.url, book)
    await ends_well(running)


async def test_labels_of_a_target_change_and_its_counters_go_on(running, configuration, fleet):
    book = Book(fleet)
    live(fleet)
    await agrees(running.url, book)
    info = "modelarts_target_info"
    assert values(await scraped(running.url), info, project="one", region=REGION) == [1]

    labels = {"team": "nlp", "stage": "test"}
    found = await running.reload(targets=[configuration.target("one", labels=labels)])
    assert values(found, info) == values(found, info, project="one", **labels) == [1]
    found = await running.reload(targets=[configuration.target("one", labels={"team": "cv"})])
    assert [dict(found_labels) for name, found_labels in found if name == info] == [
        {"region": REGION, "project": "one", "team": "cv"}
    ]
    live(fleet)
    await agrees(running.url, book)
    await ends_well(running)


# --- Targets --------------------------------------------------------------------------------------


async def test_row_76_a_target_that_is_removed_vanishes_and_others_go_on(
    begin, configuration, fleet
):
    one, two = configuration.target("one"), configuration.target("two")
    configuration.document["targets"] = [two, one]
    configuration.write()
    running = await begin()
    book = Book(fleet)
    live(fleet)
    await agrees(running.url, book, project="one")
    await agrees(running.url, book, project="two")
    scraper = Scraper(running.url)
    before = await scraper.scrape()
    assert len(of("two", before)) > 100

    after = await running.reload(targets=[one])
    assert of("two", after) == {}
    assert of("one", before).keys() <= of("one", after).keys()
    sweeps = values(before, POLLS, project="one", kind="sweep", result="success")
    assert values(after, POLLS, project="one", kind="sweep", result="success") == sweeps
    live(fleet)
    await agrees(running.url, book)
    assert (
        "1 removed, 0 changed, 1 unchanged removed=cn-north-4/two unchanged=cn-north-4/one"
        in running.program.stderr
    )

    # When it returns, it continues: its state was kept.
    await running.reload(targets=[one, two])
    await agrees(running.url, book, project="two")
    assert "1 added, 0 removed" in running.program.stderr
    assert "INFO polling as nobody target=cn-north-4/two" in running.program.log
    assert (await get(f"{running.url}/-/ready"))[0] == 200
    await ends_well(running)


async def test_the_polls_of_unchanged_targets_are_not_interrupted(running, configuration):
    fault = configuration.service.faults.add(Fault("hang", path=PROJECT_ID))
    await running.program.until(lambda: fault.hits)
    configuration.service.requests.clear()
    for number in range(3):
        other = configuration.target(f"other-{number}")
        await running.reload(targets=[configuration.target("one"), other])
        await up(running.url, project=f"other-{number}")

    # Still the same poll, which gets no response, unless only a request beside it hung until now.
    begun = [each for each in configuration.service.requests if b'"phase"' in each.body]
    assert sum(PROJECT_ID in each.path for each in begun) <= 1
    await ends_well(running)


async def test_a_target_that_is_added_makes_nobody_unready(running, configuration):
    fault = configuration.service.faults.add(Fault("hang", path="project-of-two"))
    found = await running.reload(targets=[configuration.target("one"), configuration.target("two")])
    await running.program.until(lambda: fault.hits)

    assert values(found, "modelarts_up", project="one") == [1]
    assert values(found, "modelarts_up", project="two") == [0]
    assert projects(found, POLLS) == {"one", "two"}
    assert (await get(f"{running.url}/-/ready"))[0] == 200
    await ends_well(running)


async def test_the_log_changes_and_no_target_does(running):
    found = await running.polls()
    after = await running.reload(log={"format": "json", "level": "warning"})
    assert "0 changed, 1 unchanged" in running.program.stderr

    assert values(after, POLLS, kind="sweep") == values(found, POLLS, kind="sweep")
    running.configuration.write("")
    assert (await running.post())[0] == 500
    last = json.loads(running.program.stderr.splitlines()[-1])
    assert (last["level"], last["logger"]) == ("error", "exporter.app.reload")
    await ends_well(running)


# --- Changed targets ------------------------------------------------------------------------------


def another_interval(configuration):
    configuration.document["poll"] = {"interval": "0.3"}


def another_secret_file(configuration):
    Path(configuration.path.parent, "rotated").write_text(KEY.secret)
    auth = {"access_key": KEY.access, "secret_key_file": "rotated"}
    configuration.document["targets"] = [configuration.target("one", auth=auth)]


def one_more_workspace(configuration):
    workspaces = ["0", OTHER]
    configuration.document["targets"] = [configuration.target("one", workspaces=workspaces)]


def fewer_series(configuration):
    configuration.document["jobs"] = {"max_series_jobs": 3}


CHANGES = [another_interval, another_secret_file, one_more_workspace, fewer_series]


@pytest.mark.parametrize("state", [(), ("--state.file=state.db",)], ids=["memory", "file"])
async def test_a_changed_target_counts_on(begin, configuration, fleet, state):
    running = await begin(*state)
    scraper = Scraper(running.url)
    book = Book(fleet)
    for change in CHANGES:
        live(fleet)
        await agrees(running.url, book)
        await scraper.scrape()
        live(fleet)  # perhaps seen, perhaps committed, perhaps neither
        change(configuration)
        configuration.write()
        posting = asyncio.create_task(running.post())
        while not posting.done():
            await scraper.scrape()
        assert posting.result() == (200, "OK\n")
        live(fleet)
        await scraper.scrape()
        await agrees(running.url, book)
        await scraper.scrape()

    assert scraper.wrong == []
    found = await scraper.scrape()
    assert values(found, "modelarts_exporter_tracked_jobs") == [len(list(fleet))]
    assert len(values(found, "modelarts_training_job_phase")) == 3
    assert running.program.stderr.count("0 added, 0 removed, 1 changed, 0 unchanged") == len(
        CHANGES
    )
    await ends_well(running)


async def test_a_changed_target_shows_what_was_known_before_it_is_polled(
    running, configuration, fleet
):
    before = await running.polls()
    fault = configuration.service.faults.add(Fault("hang"))
    await running.program.until(lambda: fault.hits)

    after = await running.reload(poll={"interval": "0.1"})
    assert of("one", before).keys() <= of("one", after).keys()
    running.configuration.service.faults.clear()
    live(fleet)
    hits = fault.hits
    after = await running.reload(poll={"interval": "0.2"})
    assert fault.hits >= hits
    found = await running.polls()
    kinds = {"kind": "sweep", "result": "success"}
    assert values(found, "modelarts_up") == [1]
    assert sum(values(found, POLLS, **kinds)) >= sum(values(before, POLLS, **kinds))
    await ends_well(running)


@pytest.mark.parametrize("state", [(), ("--state.file=state.db",)], ids=["memory", "file"])
async def test_workspaces_that_go_and_come_back(begin, configuration, fleet, state):
    fleet.start(fleet.create(workspace=OTHER))
    both = configuration.target("one", workspaces=["0", OTHER])
    configuration.document["targets"] = [both]
    configuration.write()
    running = await begin(*state)
    book = Book(fleet)
    fleet.now += 5
    fleet.start(fleet.create(workspace=OTHER))
    live(fleet)
    await agrees(running.url, book)

    found = await running.reload(targets=[configuration.target("one")])
    assert values(found, "modelarts_training_jobs", workspace=OTHER) == []
    assert values(found, "modelarts_training_jobs_created_total", workspace=OTHER) == []
    fleet.now += 5
    fleet.start(fleet.create(workspace=OTHER))
    live(fleet)
    await agrees(running.url, book, workspace="0")
    await running.reload(targets=[both])
    name = "modelarts_training_jobs_created_total"

    async def so():
        found = await scraped(running.url)
        return sum(values(found, name, workspace=OTHER)) == 2 and values(
            found, "modelarts_training_jobs", workspace=OTHER, phase="Running"
        ) == [3]

    await eventually(so)
    await agrees(running.url, book)
    await ends_well(running)


async def test_a_renamed_target(running, configuration, fleet):
    book = Book(fleet)
    live(fleet)
    await agrees(running.url, book)
    fault = configuration.service.faults.add(Fault("hang"))
    await running.program.until(lambda: fault.hits)
    renamed = {**configuration.target("one"), "name": "two"}
    found = await running.reload(targets=[renamed])

    assert of("one", found) == {}
    assert counted(of("two", found)) == pytest.approx(book.truth(), abs=0.1)
    assert set(values(found, POLLS)) == {0}
    configuration.service.faults.clear()
    await running.reload(poll={"interval": "0.1"})  # cancels the poll that hangs
    live(fleet)
    await agrees(running.url, book)
    await ends_well(running)


async def test_names_that_are_exchanged(begin, configuration, fleet):
    one, two = configuration.target("one"), configuration.target("two")
    configuration.document["targets"] = [one, two]
    configuration.write()
    running = await begin()
    found = await running.reload(targets=[{**one, "name": "two"}, {**two, "name": "one"}])

    assert projects(found, POLLS) == {"one", "two"}
    assert "0 added, 0 removed, 2 changed" in running.program.stderr
    book = Book(fleet)
    live(fleet)
    await agrees(running.url, book, project="one")
    await agrees(running.url, book, project="two")
    await ends_well(running)


async def test_a_project_that_was_looked_up(begin, configuration, service, fleet, tmp_path):
    """Another key may have another project; then the old one's series go."""
    stranger = Identity(domain="another account", projects={REGION: "0123456789abcdef"})
    other = AccessKey("OTHER", "secret-of-other", stranger)
    accounts = Accounts([KEY, other])
    (tmp_path / "good").write_text(KEY.secret)
    (tmp_path / "also-good").write_text(KEY.secret)
    (tmp_path / "other").write_text(other.secret)
    async with SimulatedService(fleet, accounts=accounts) as guarded:

        def target(access, file):
            auth = {"access_key": access, "secret_key_file": file}
            place = {"region": REGION, "endpoint": guarded.url, "iam_endpoint": guarded.url}
            return {**place, "auth": auth}

        configuration.document["targets"] = [target("GOOD", "good")]
        configuration.write()
        running = await begin()
        book = Book(fleet)
        live(fleet)
        await agrees(running.url, book)
        scraper = Scraper(running.url)
        await scraper.scrape()

        found = await running.reload(targets=[target("GOOD", "also-good")])
        assert projects(found) == {PROJECT_ID}
        live(fleet)
        await agrees(running.url, book)
        await scraper.scrape()
        assert scraper.wrong == []

        await running.reload(targets=[target("OTHER", "other")])
        found = await up(running.url, project="0123456789abcdef")
        assert of(PROJECT_ID, found) == {}
        assert counted(found) == {}
        await ends_well(running)


# --- During a poll or a commit -------------------------------------------------------------------

SLOW = """
import sys, time
from pathlib import Path
from exporter.commands import main as cli
from exporter.storage import jobs as rows

write = rows.write

def write_slowly(connection, target, jobs):
    write(connection, target, jobs)
    if jobs and Path("slow").exists():
        Path("writing").touch()
        time.sleep(2)

rows.write = write_slowly
sys.exit(cli.main())
"""


async def test_while_a_commit_is_under_way(begin, configuration, fleet, tmp_path):
    """It completes although its poller is gone; its events count once."""
    running = await begin("--state.file=state.db", command=(*PYTHON, "-c", SLOW))
    book = Book(fleet)
    live(fleet)
    await agrees(running.url, book)
    scraper = Scraper(running.url)
    await scraper.scrape()
    (tmp_path / "slow").touch()
    live(fleet)
    hidden = fleet.create()
    fleet.finish(hidden, "Completed")
    await running.program.until((tmp_path / "writing").exists)
    fleet.delete(hidden)  # only the state file knows it
    (tmp_path / "slow").unlink()
    await running.reload(poll={"interval": "0.3"})

    await scraper.scrape()
    await agrees(running.url, book)
    await scraper.scrape()
    assert scraper.wrong == []
    assert "poll failed" not in running.program.stderr
    await ends_well(running)


async def test_while_the_service_hangs(running, configuration):
    fault = configuration.service.faults.add(Fault("hang"))
    await running.program.until(lambda: fault.hits)
    started = time.monotonic()
    found = await running.reload(targets=[configuration.target("two")])

    assert time.monotonic() - started < 20  # and not api.timeout
    assert of("one", found) == {}
    await ends_well(running)


async def test_while_a_sweep_is_running(begin, configuration, fleet):
    for _ in range(600):
        fleet.finish(fleet.create(), "Completed")
    configuration.document["poll"] = {"interval": "0.2", "sweep_interval": "1s"}
    configuration.write()
    running = await begin()
    book = Book(fleet)
    fault = configuration.service.faults.add(Fault("latency", seconds=0.2))
    for interval in ("0.3", "0.2"):
        before = fault.hits
        await running.program.until(lambda before=before: fault.hits >= before + 6)
        live(fleet)
        await running.reload(poll={"interval": interval, "sweep_interval": "1s"})
    configuration.service.faults.clear()
    await agrees(running.url, book)
    found = await scraped(running.url)
    assert values(found, "modelarts_exporter_tracked_jobs") == [len(list(fleet))]
    await ends_well(running)


async def test_many_at_once_and_one_after_the_other(running, configuration):
    configuration.document["targets"].append(configuration.target("two"))
    configuration.write()
    for _ in range(20):
        os.kill(running.program.pid, signal.SIGHUP)
    answers = await asyncio.gather(*(running.post() for _ in range(20)))

    assert set(answers) == {(200, "OK\n")}
    found = await up(running.url, project="two")
    assert projects(found) == {"one", "two"}
    assert running.program.stderr.count("1 added") == 1
    await ends_well(running)


async def test_reloads_leak_nothing(begin, configuration, fleet):
    running = await begin()

    def sockets():
        folder = Path(f"/proc/{running.program.pid}/fd")
        return len([fd for fd in folder.iterdir() if fd.is_symlink()])

    series, files = [], []
    for number in range(21):
        configuration.document["poll"] = {"interval": f"0.{1 + number % 2}"}
        extra = [configuration.target(f"extra-{number}")] if number % 3 else []
        await running.reload(targets=[configuration.target("one"), *extra])
        await running.polls(1, project="one")
        await up(running.url)
        if number % 3 == 0:
            found = await running.polls(project="one")
            series.append({key for key in found if not key[0].startswith("process_")})
            files.append(sockets())

    assert series[1] == series[-1]
    assert max(files) - files[0] <= 3, files
    await ends_well(running)


async def test_a_signal_during_the_start(start, configuration):
    program = start("--config.file=exporter.yml")
    await program.said("INFO modelarts-exporter .* starts")
    os.kill(program.pid, signal.SIGHUP)
    url = await program.url()
    await up(url)
    await program.said("configuration reloaded")
    assert await program.stops() == 0


async def test_ends_well_in_the_middle_of_a_reload(running, configuration):
    posting = [asyncio.create_task(running.post()) for _ in range(3)]
    os.kill(running.program.pid, signal.SIGHUP)
    assert await running.program.stops() == 0
    assert not TRACE.search(running.program.stderr)
    for task in posting:
        task.cancel()
    await asyncio.gather(*posting, return_exceptions=True)


ON_A_TERMINAL = """
import os, sys
os.dup2(os.open(sys.argv.pop(1), os.O_RDWR), 0)
from exporter.commands import main as cli
sys.exit(cli.main())
"""


async def test_a_terminal_that_is_closed_ends_the_program(start, configuration):
    """The signal is the same, but it is not a request to reload."""
    ours, theirs = os.openpty()
    words = ("-c", ON_A_TERMINAL, os.ttyname(theirs), "--config.file=exporter.yml")
    program = start(*words, command=PYTHON)
    await up(await program.url())
    os.close(theirs)
    os.kill(program.pid, signal.SIGHUP)
    await program.said("configuration reloaded")

    os.close(ours)
    assert await program.ended() == 0
    assert program.stderr.count("SIGHUP received") == 1
    assert not TRACE.search(program.stderr)


# --- Access --------------------------------------------------------------------------------------


async def test_off_by_default(begin, configuration):
    del configuration.document["web"]["enable_reload"]
    configuration.write()
    running = await begin()

    assert await running.post() == (
        403,
        "reloading over HTTP is disabled; enable it with --web.enable-reload\n",
    )
    status, headers, _ = await get(f"{running.url}/-/reload")
    assert (status, headers["Allow"]) == (405, "POST")
    await running.hang_up()
    await ends_well(running)


def password(word):
    return {"Authorization": "Basic " + base64.b64encode(f"me:{word}".encode()).decode()}


async def test_behind_a_password(start, configuration, tmp_path):
    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(10)).decode()
    (tmp_path / "web.yml").write_text(yaml.safe_dump({"basic_auth_users": {"me": hashed}}))
    configuration.document["web"]["config"] = {"file": "web.yml"}
    configuration.write()
    program = start("--config.file=exporter.yml")
    running = Running(program, await program.url(), configuration)

    assert (await running.post())[0] == 401
    assert (await running.post(headers=password("wrong")))[0] == 401
    assert "reloaded" not in program.stderr
    assert (await running.post(headers=password("right")))[0] == 200
    assert "configuration reloaded" in program.stderr
    await ends_well(running)


async def test_a_locked_key_gets_no_fresh_tries(begin, configuration, fleet, tmp_path):
    """Row 42 across reloads: what was refused stays refused until its secret changes."""
    accounts = Accounts([KEY])
    (tmp_path / "secret").write_text("wrong")
    auth = {"access_key": KEY.access, "secret_key_file": "secret"}
    async with SimulatedService(fleet, accounts=accounts) as guarded:
        running = await begin()

        def targets(number):
            locked = configuration.target("locked", endpoint=guarded.url, auth=auth)
            locked |= {"project_id": PROJECT_ID, "pagination": ("page", "row")[number % 2]}
            return [configuration.target("one"), locked]

        for number in range(8):
            await running.reload(targets=targets(number))
            await up(running.url, 0, project="locked")
            await running.polls(1, project="one")
        assert "not tried again for" in running.program.stderr
        assert len(guarded.requests) <= 4
        assert accounts.locked_until == {}

        (tmp_path / "secret").write_text(KEY.secret)
        await up(running.url, project="locked")
        await ends_well(running)
