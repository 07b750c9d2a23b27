"""Backfill as a user runs it: on standard output, day by day, interrupted, and when it fails."""

import asyncio
import hashlib
import re
import shutil
import signal
import subprocess
import time
from collections import defaultdict
from pathlib import Path

import pytest
from process.program import COMMAND, TRACE, get, samples, surroundings, target, up
from process.test_process_commands import shown
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from exporter.simulator.faults import Fault
from exporter.simulator.living import LivingFleet
from exporter.simulator.server import SimulatedService

DAYS = 5
AT_EACH_MINUTE = ("--from=6d", "--step=2m")
"""Enough data to be interrupted while writing it."""


@pytest.fixture
async def past():
    """A service with two weeks of history, paused now."""
    fleet = LivingFleet.populated(7, time.time(), jobs=400, rate=0)
    fleet.pause()
    running = [job for job in fleet if job.phase == "Running"]
    fleet.stop(running[0])
    fleet.enter(running[1], "OfTomorrow")
    async with SimulatedService(fleet) as service:
        yield service


def options(service, *more):
    return ("backfill", *target(service), *more)


def written(folder):
    return {path.name: path.read_text() for path in folder.glob("*.om")}


def digests(folder):
    """Hashes of the files, which are large."""
    return {path.name: hashlib.sha256(path.read_bytes()).digest() for path in folder.glob("*.om")}


def series(*documents):
    """The values of every series, in order of time."""
    found = defaultdict(list)
    for document in documents:
        assert document.endswith("\n# EOF\n")
        for family in text_string_to_metric_families(document):
            for sample in family.samples:
                labels = tuple(sorted(sample.labels.items()))
                found[sample.name, labels].append((float(sample.timestamp), sample.value))
    for values_of_one in found.values():
        times = [at for at, _ in values_of_one]
        assert times == sorted(set(times))
    return found


async def test_the_history_on_standard_output_ends_where_a_live_scrape_begins(start, past):
    program = start(*options(past, "--from=2d", "--step=1h", "--label=job=modelarts"))
    assert await program.ended() == 0
    assert program.stderr == ("--step 1h leaves gaps in graphs: Prometheus looks back 5m only\n")
    found = series(program.stdout)
    assert {dict(labels)["job"] for _, labels in found} == {"modelarts"}

    live = start("serve", *target(past))
    url = await live.url()
    await up(url)
    _, _, body = await get(f"{url}/metrics")
    gauges = re.compile(r"modelarts_training_(jobs|nodes|accelerators|oldest\w+|pool_info)")
    live_now = {key: value for key, value in samples(body).items() if gauges.fullmatch(key[0])}
    end = max(at for of_one in found.values() for at, _ in of_one)
    last = {
        (name, tuple(pair for pair in labels if pair[0] != "job")): value
        for (name, labels), of_one in found.items()
        for at, value in of_one
        if at == end and gauges.fullmatch(name)
    }
    assert last == live_now
    jobs = sum(value for (name, _), value in last.items() if name == "modelarts_training_jobs")
    assert jobs == sum(job.workspace == "0" for job in past.fleet) > 200


async def test_one_file_per_day_and_what_to_do_with_them(start, past, tmp_path):
    folder = tmp_path / "new" / "folder"
    program = start(*options(past, "--from=2d", "--step=5m", f"--output={folder}"))
    assert await program.ended() == 0
    assert program.stderr == ""
    files = written(folder)
    assert {path.name for path in folder.iterdir()} == set(files)
    assert 3 <= len(files) <= 4
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d\.om", name) for name in files)
    found = series(*(files[name] for name in sorted(files)))
    assert {len(each) for (name, _), each in found.items() if name.endswith("_total")} == {577}
    assert re.fullmatch(
        rf"\d+ jobs, \d+ series, 577 samples per series, {len(files)} days, one file per day\. To "
        r"create blocks for Prometheus:\n"
        rf"  for day in {folder}/\*\.om; do\n"
        rf'    promtool tsdb create-blocks-from openmetrics "\$day" {folder}/blocks \|\| '
        r"break\n"
        r"  done\n"
        r"Move them into its data directory after 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ, not before:\n"
        r"at its next restart, Prometheus would lose samples that are only in memory\.\n"
        r"See docs/backfill\.md\.\n",
        program.stdout,
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_an_interrupted_backfill_resumes_from_its_checkpoint(start, past, tmp_path, number):
    """Jobs are deleted in the meantime: if they were read again, counters would reset."""
    now = time.time()
    when = (f"--from={now - DAYS * 86_400:.3f}", f"--to={now:.3f}", "--step=2m", "--histograms")
    folder, whole = tmp_path / "parts", tmp_path / "whole"
    again = options(past, *when, f"--output={folder}")
    program = start(*again)
    await program.until(lambda: list(folder.glob("*.om")))
    if number == signal.SIGKILL:
        program.kill()
    else:
        assert await program.stops(number) == 130
        assert not list(folder.glob(".*"))
        assert program.stderr.endswith(
            f"Interrupted. Run the same command to resume from {folder}.\n"
        )
    assert not TRACE.search(program.stderr)
    first = {path: path.stat().st_mtime_ns for path in folder.glob("*.om")}
    assert 0 < len(first) <= DAYS
    whole.mkdir()
    shutil.copy(folder / "reading.jsonl", whole)

    for job in [job for job in past.fleet if not job.active][:100]:
        past.fleet.delete(job)
    sent = len(past.requests)
    assert await start(*again).ended() == 0
    assert {path: path.stat().st_mtime_ns for path in first} == first
    # The result is the same as without an interruption.
    assert await start(*options(past, *when, f"--output={whole}")).ended() == 0
    assert digests(folder) == digests(whole)
    assert len(digests(whole)) > DAYS
    assert len(past.requests) == sent
    assert not (folder / "reading.jsonl").exists()


async def test_a_directory_belongs_to_one_backfill(start, past, tmp_path):
    folder = tmp_path / "history"
    begun = options(past, *AT_EACH_MINUTE, "--histograms", f"--output={folder}")
    program = start(*begun)
    await program.until(lambda: list(folder.glob("*.om")))
    program.process.send_signal(signal.SIGSTOP)  # so that it does not finish before the others

    beside = start(*begun)
    assert await beside.ended() == 1
    assert beside.stderr == f"modelarts-exporter: another backfill writes to {folder}\n"
    program.kill()

    other = start(*options(past, "--from=7d", "--step=2m", f"--output={folder}"))
    assert await other.ended() == 2
    valid = (
        f"with which the backfill in {folder} was started; use the same value, or another "
        "directory\n"
    )
    assert other.stderr == (
        f'modelarts-exporter: --from: "7d" differs from "6d", {valid}'
        f'modelarts-exporter: --histograms: "False" differs from "True", {valid}'
    )

    assert await start(*begun).ended() == 0
    finished = start(*begun)
    assert await finished.ended() == 2
    assert re.fullmatch(
        rf"modelarts-exporter: --output: {folder} has a finished backfill "
        r"\(\S+\.om to \S+\.om\); use another directory\n",
        finished.stderr,
    )


async def test_nothing_is_written_of_a_history_that_cannot_be_read(
    start, past, tmp_path, closed_port
):
    gone = {"target.endpoint": f"http://127.0.0.1:{closed_port}", "api.retries": 0}
    for output in ([], [f"--output={tmp_path / 'history'}"]):
        program = start("backfill", *target(past, **gone), *output)
        assert await program.ended() == 1
        assert program.stdout == ""
        assert re.fullmatch(
            r"modelarts-exporter: cn-north-4/\w+: .*127\.0\.0\.1.*\n", program.stderr
        )
    assert list((tmp_path / "history").iterdir()) == []


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--from=tomorrow"], 2, '--from: invalid time "tomorrow"; use '),
        (["--step=5x"], 2, '--step: invalid duration "5x"; use a duration of at least 1s'),
        (["--output=/dev/null/x"], 2, "--output: /dev/null/x: Not a directory"),
        (
            ["--poll.intervall=1s"],
            2,
            "flag --poll.intervall: unknown; did you mean --poll.interval",
        ),
    ],
)
async def test_invalid_options_are_reported_before_any_request(start, past, more, code, said):
    program = start(*options(past, *more))
    assert await program.ended() == code
    assert program.stderr.startswith(f"modelarts-exporter: {said}")
    assert not TRACE.search(program.stderr)
    assert not past.requests


async def test_a_damaged_checkpoint_is_refused(start, past, tmp_path):
    (tmp_path / "reading.jsonl").write_text("{}\n")
    program = start(*options(past, f"--output={tmp_path}"))
    assert await program.ended() == 2
    damaged = f"modelarts-exporter: --output: cannot read {tmp_path}/reading.jsonl: "
    assert program.stderr.startswith(damaged)


async def test_a_truncated_checkpoint_is_refused(start, past, tmp_path):
    begun = options(past, *AT_EACH_MINUTE, "--histograms", f"--output={tmp_path / 'h'}")
    program = start(*begun)
    reading = tmp_path / "h" / "reading.jsonl"
    await program.until(reading.exists)
    program.kill()
    reading.write_bytes(reading.read_bytes()[:-2000])
    program = start(*begun)
    assert await program.ended() == 2
    assert re.fullmatch(
        rf"modelarts-exporter: --output: cannot read {reading}: .+; use another directory\n",
        program.stderr,
    )


async def test_nothing_is_saved_when_reading_is_interrupted(start, past, tmp_path):
    past.faults.add(Fault("hang", operation="search"))
    program = start(*options(past, f"--output={tmp_path / 'h'}"))
    await program.until(lambda: past.requests)
    assert await program.stops() == 130
    assert program.stderr == "Interrupted while reading the list of jobs; nothing was saved.\n"
    assert list((tmp_path / "h").iterdir()) == []


async def test_a_full_disk_is_reported(tmp_path, past):
    with Path("/dev/full").open("wb") as full:  # noqa: ASYNC230 - does not block
        done = await asyncio.to_thread(
            subprocess.run,
            [*COMMAND, *options(past, "--from=1d")],
            env=surroundings(tmp_path), stdout=full, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert b"cannot write to standard output: No space left on device" in done.stderr


async def test_a_bar_shows_progress(past, tmp_path):
    past.faults.add(Fault("latency", operation="search", seconds=0.2))
    text = await asyncio.to_thread(
        shown,
        tmp_path,
        *options(past, "--from=3d", f"--output={tmp_path / 'h'}"),
        until=b"backfill.md",
    )
    assert re.search(rb"Reading the list of jobs \[#* *\] +\d+% \d+", text)
    assert re.search(rb"Reconstructing the past of each job \[ {40}\]   0%", text)
    assert re.search(rb"Writing \d{4}-\d\d-\d\d \[#+ +\]  \d\d%", text)
