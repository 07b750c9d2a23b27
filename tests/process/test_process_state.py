"""The state file: counters continue, however the process ends."""

import asyncio
import contextlib
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import aiohttp
import pytest
import yaml
from process.program import PYTHON, TRACE, eventually, free_port, get, scraped, target, up, values
from process.state import Book, Scraper, counted

from exporter.simulator.fleet import Fleet
from exporter.simulator.identity import PROJECT_ID, PROJECT_NAME
from exporter.simulator.living import LivingFleet
from exporter.simulator.server import SimulatedService
from exporter.storage.store import Store

STOPPED_IN_BETWEEN = """
import asyncio, sys, time
from pathlib import Path
from exporter.commands import main as cli
from exporter.storage import jobs as rows
from exporter.web.publisher import Publisher

write, publish = rows.write, Publisher.publish
committing = False

def write_slowly(connection, target, jobs):
    global committing
    write(connection, target, jobs)
    if jobs and Path("when writing").exists():
        Path("now").touch()
        time.sleep(2)
    committing = committing or bool(jobs) and Path("when committed").exists()

async def do_not_publish(self):
    if committing:
        Path("now").touch()
        await asyncio.Event().wait()
    return await publish(self)

rows.write, Publisher.publish = write_slowly, do_not_publish
sys.exit(cli.main())
"""


@pytest.fixture
def fleet():
    """A fleet with some running jobs; its time advances with events."""
    fleet = Fleet(1, time.time() - 1000)
    for _ in range(10):
        fleet.start(fleet.create())
    fleet.pause()
    return fleet


@pytest.fixture
def options(service, tmp_path):
    return target(service, poll__interval="0.2", state__file=tmp_path / "state.db")


def beside(folder):
    """Files whose names begin with the state file's."""
    return sorted(path.name for path in folder.glob("state.db*"))


async def agrees(url, book):
    """Wait until a scrape equals what happened."""

    async def so():
        return counted(await scraped(url)) == truth

    happened = book.truth()
    truth = pytest.approx(happened, abs=0.1)
    try:
        await eventually(so)
    except TimeoutError:
        found = counted(await scraped(url))
        assert set(found) == set(happened)  # names those that differ, where approx counts them
        assert found == truth


def live(fleet):
    """Make one event of every kind."""
    fleet.now += 5
    running = [job for job in fleet if job.phase == "Running"]
    fleet.finish(running[0], "Failed", 137)
    fleet.recover(running[1], "pod_reschedule", gap=1)
    fleet.start(fleet.create(pool="vision"))
    job = fleet.create()
    fleet.start(job)
    fleet.finish(job, "Completed")
    fleet.now += 5


@pytest.mark.parametrize("moment", ["writing", "committed"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_rows_52_and_53_each_event_once(start, fleet, options, moment, number):
    folder = Path(options[-1].partition("=")[2]).parent
    program = start("-c", STOPPED_IN_BETWEEN, *options, command=PYTHON)
    url = await program.url()
    await up(url)
    book = Book(fleet)
    live(fleet)
    await agrees(url, book)
    shown = counted(await scraped(url))
    (folder / f"when {moment}").touch()
    live(fleet)
    await program.until((folder / "now").exists)
    assert counted(await scraped(url)) == shown
    live(fleet)

    code = await program.stops(number)
    assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    assert not TRACE.search(program.stderr)
    if number == signal.SIGTERM:
        assert beside(folder) == ["state.db"]

    program = start(*options)
    url = await program.url()
    await agrees(url, book)
    assert not any(line.startswith(("WARNING", "ERROR")) for line in program.log)


async def test_row_52_the_commit_under_way_is_whole(start, service, fleet, options, tmp_path):
    program = start("-c", STOPPED_IN_BETWEEN, *options, command=PYTHON)
    await up(await program.url())
    (tmp_path / "when writing").touch()
    fleet.finish(fleet.create(), "Failed", 1)
    await program.until((tmp_path / "now").exists)
    assert await program.stops() == 0

    file = await Store.open(tmp_path / "state.db", problem=lambda: None)
    ((key, _),) = await file.saved(PROJECT_NAME, PROJECT_ID)
    saved = await file.load(key, ["0"], recent_since=0.0)
    await file.close()
    assert saved.open.keys() | saved.recent.keys() == {job.id for job in fleet}
    failed = ("modelarts_training_jobs_finished_total", ("0", "public", "Ascend", "Failed"))
    assert saved.ledger[failed].value == 1


class Durable(LivingFleet):
    """Once its history is over, nothing is deleted before it was seen, only by hand."""

    history_is_over = False

    def delete(self, job, at=None):
        if not self.history_is_over:
            super().delete(job, at)

    def really_delete(self, job):
        super().delete(job)


async def test_row_53_killed_again_and_again(start, tmp_path):
    chance = random.Random(53)
    fleet = Durable.populated(53, time.time(), jobs=300, rate=30)
    fleet.history_is_over = True
    fleet.pause()
    address = f"127.0.0.1:{free_port()}"
    url = f"http://{address}"
    scraper = Scraper(url)

    async def scrape():
        with contextlib.suppress(aiohttp.ClientError):
            await scraper.scrape()
        await asyncio.sleep(0.02)

    async def scrape_for(seconds):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    await scrape()

    async with SimulatedService(fleet) as service:
        options = target(
            service,
            target__workspaces="0,5f0c2b7e9d3a4c1e8b6f7a2d4c9e1b30",
            web__listen_address=address,
            poll__interval="0.5",
            poll__sweep_interval="1s",
            state__file=tmp_path / "state.db",
        )
        program = start(*options)
        await program.url()
        await up(url)
        book = Book(fleet)
        old = [job for job in fleet if not job.active]
        fleet.resume()
        for kill in range(8):
            enough = scraper.scrapes + 5 * (kill % 2)  # the other kills come at any moment
            while scraper.scrapes < enough:
                await scrape()
            await scrape_for(chance.uniform(0.2, 2.5))
            program.kill()
            assert program.process.returncode == -signal.SIGKILL, program.written
            fleet.really_delete(old.pop())
            program = start(*options)
        await program.url()
        await scrape_for(1)
        fleet.pause()
        await agrees(url, book)
        await scraper.scrape()

    assert not scraper.wrong
    assert scraper.scrapes > 20
    happened = book.truth()
    assert sum(happened[key] for key in happened if key[0] == "jobs_deleted_total") == 8
    assert sum(happened[key] for key in happened if key[0] == "jobs_created_total") > 20
    assert await program.stops() == 0


async def test_row_58_a_second_process_on_the_file(start, service, options, tmp_path):
    first = start(*options)
    await up(await first.url())
    second = start(*options)

    assert await second.ended() == 1
    (_, said) = second.stderr.splitlines()
    assert said == (
        f"modelarts-exporter: state file {tmp_path / 'state.db'}: database is locked "
        "(in use by another process; each exporter needs its own file)"
    )
    assert not TRACE.search(first.stderr)
    assert await first.stops() == 0


async def test_row_56_garbage(start, service, fleet, options, tmp_path):
    (tmp_path / "state.db").write_bytes(random.Random(0).randbytes(20_000))
    program = start(*options)
    url = await program.url()
    found = await up(url)

    (loud,) = [line for line in program.log if line.startswith(("WARNING", "ERROR"))]
    moved = next(name for name in beside(tmp_path) if "damaged" in name)
    assert loud == (
        f"ERROR state file {tmp_path / 'state.db'} is damaged (file is not a database): moved to "
        f"{tmp_path / moved}, all counters start from a new baseline"
    )
    assert values(found, "modelarts_exporter_state_errors_total") == [1]
    book = Book(fleet)
    live(fleet)
    await agrees(url, book)
    assert await program.stops() == 0
    assert beside(tmp_path) == ["state.db", moved]


@contextlib.contextmanager
def mounted(folder, *options):
    """Mount a separate file system in the folder."""
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        not mount
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)],
            capture_output=True,
            check=False,
        ).returncode
    ):
        pytest.skip("needs the right to mount")
    try:
        yield folder
    finally:
        subprocess.run([shutil.which("umount"), "--lazy", str(folder)], check=True)


async def test_row_55_a_directory_that_is_read_only(start, service, tmp_path):
    with mounted(tmp_path / "fixed", "ro") as folder:
        program = start(*target(service, state__file=folder / "state.db"))

        assert await program.ended() == 2
        assert program.stderr.splitlines()[1:] == [
            f"modelarts-exporter: state.file: {folder / 'state.db'}: Read-only file system"
        ]


async def test_row_54_a_full_disk(start, service, fleet, tmp_path):
    with mounted(tmp_path / "small", "size=1m") as folder:
        program = start(*target(service, poll__interval="0.2", state__file=folder / "state.db"))
        url = await program.url()
        before = await up(url)
        book = Book(fleet)
        ballast = folder / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        live(fleet)
        for _ in range(200):
            fleet.create()

        found = await up(url, 0)
        name = "modelarts_training_jobs"
        assert values(found, name) == values(before, name)
        assert values(found, "modelarts_exporter_state_errors_total") > [0]
        assert (await get(f"{url}/-/ready"))[0] == 200
        said = f"WARNING poll failed: state file {folder / 'state.db'}: database or disk is full"
        assert said in program.stderr

        ballast.unlink()
        await up(url)
        await agrees(url, book)
        assert await program.stops() == 0


async def test_check_and_dump_leave_the_file_alone(start, service, fleet, options, tmp_path):
    program = start(*options)
    url = await program.url()
    await up(url)
    book = Book(fleet)
    live(fleet)
    await agrees(url, book)
    files = beside(tmp_path)
    for command in ("check", "dump"):
        other = start(command, *options)
        assert await other.ended() == 0, other.written
        assert "state" not in other.stderr
    live(fleet)
    await agrees(url, book)

    assert beside(tmp_path) == files
    assert not any(line.startswith(("WARNING", "ERROR")) for line in program.log)
    assert await program.stops() == 0


# --- What others do to the file ---------------------------------------------------


def remove(folder):
    for name in beside(folder):
        (folder / name).unlink()


def replace(folder):
    (folder / "other").write_bytes(b"restored from somewhere")
    (folder / "other").rename(folder / "state.db")


def overwrite(folder):
    (folder / "state.db").write_bytes(b"\0" * 8192)


@pytest.mark.parametrize("loss", [remove, replace, overwrite], ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("polls", [True, False], ids=["and goes on", "and is stopped"])
async def test_the_file_is_lost_while_in_use(start, fleet, options, tmp_path, *, loss, polls):
    slow = [each.replace("interval=0.2", "interval=1h") for each in options]
    # With the long interval, there is no commit between the loss and the stop.
    program = start(*(options if polls else [*slow, "--poll.stale-after=3h"]))
    url = await program.url()
    await up(url)
    book = Book(fleet)
    if polls:
        live(fleet)
        await agrees(url, book)
    await asyncio.sleep(0.3)  # zeros of the first poll are released, and checkpointed
    loss(tmp_path)
    if polls:
        live(fleet)
        await agrees(url, book)
        found = await scraped(url)
        assert values(found, "modelarts_exporter_state_errors_total") == [1]
    assert await program.stops() == 0
    loud, *failed = [line for line in program.log if line.startswith(("WARNING", "ERROR"))]
    # Of what is overwritten, memory has only a part: what polls and verifies must load it again.
    assert bool(failed) == (polls and loss is overwrite)
    assert all("was written anew from memory" in line for line in failed)
    assert loud.startswith(f"ERROR state file {tmp_path / 'state.db'} was ")
    assert " while in use: written anew" in loud
    live(fleet)

    program = start(*options)
    url = await program.url()
    await agrees(url, book)
    assert not any(line.startswith(("WARNING", "ERROR")) for line in program.log)
    assert await program.stops() == 0


async def test_an_older_file_beside_a_newer_log(start, service, fleet, options, tmp_path):
    """A backup was restored after a kill, without removing the log."""
    program = start(*options)
    url = await program.url()
    await up(url)
    (tmp_path / "backup").write_bytes((tmp_path / "state.db").read_bytes())
    book = Book(fleet)
    for _ in range(3):
        live(fleet)
        await agrees(url, book)
    program.kill()
    (tmp_path / "backup").rename(tmp_path / "state.db")

    program = start(*options)
    url = await program.url()
    found = await up(url)
    (loud,) = [line for line in program.log if line.startswith("ERROR")]
    assert "does not match state.db-wal beside it" in loud
    assert values(found, "modelarts_exporter_state_errors_total") == [1]
    book = Book(fleet)
    live(fleet)
    await agrees(url, book)
    assert await program.stops() == 0


async def test_access_of_others_is_said(start, service, options, tmp_path):
    program = start(*options)
    await up(await program.url())
    assert await program.stops() == 0
    (tmp_path / "state.db").chmod(0o644)

    program = start(*options)
    await up(await program.url())
    (loud,) = [line for line in program.log if line.startswith(("WARNING", "ERROR"))]
    assert loud == (
        f"WARNING every user of this machine can read state file {tmp_path / 'state.db'} "
        "(mode 644): restrict its mode, for example with chmod o-rwx"
    )
    assert await program.stops() == 0


async def test_two_targets_with_one_project_id(start, fleet, tmp_path):
    """Each keeps its own jobs and counters, although the project and the workspace are the same."""
    other = Fleet(2, time.time() - 1000)
    other.pause()
    async with SimulatedService(fleet) as one, SimulatedService(other) as two:
        targets = [
            {
                "name": name,
                "region": PROJECT_NAME,
                "project_id": PROJECT_ID,
                "endpoint": service.url,
                "auth": {"method": "none"},
            }
            for name, service in (("one", one), ("two", two))
        ]
        (tmp_path / "exporter.yml").write_text(yaml.safe_dump({"targets": targets}))
        options = (
            f"--config.file={tmp_path / 'exporter.yml'}",
            f"--state.file={tmp_path / 'state.db'}",
            "--poll.interval=0.2",
            "--api.max-requests-per-second=1000",
            "--web.listen-address=127.0.0.1:0",
        )
        books = {}
        for _ in range(3):
            program = start(*options)
            url = await program.url()
            for project, world in (("one", fleet), ("two", other)):
                await up(url, project=project)
                books.setdefault(project, Book(world))
            for number in range(10):
                fleet.start(fleet.create())
                if number % 3 == 0:
                    other.start(other.create(pool="vision"))

            async def so():
                found = await scraped(url)  # noqa: B023
                return all(
                    counted({k: v for k, v in found.items() if ("project", project) in k[1]})
                    == pytest.approx(book.truth(), abs=0.1)
                    for project, book in books.items()
                )

            await eventually(so)
            assert await program.stops() == 0
