"""A real Prometheus that scrapes one address every second, and what it answers."""

import os
import shutil

import aiohttp
import pytest
import yaml
from process.program import eventually, free_port, samples, values


def guarded(path):
    """The first words of a command that ends with us, however we end, where the system can do that.

    They are replaced by the program: to kill one is to kill the other, as it is not with `timeout`.
    """
    guard = shutil.which("setpriv")
    return (guard, "--pdeathsig=KILL", path) if guard else (path,)


def binary(where, names=("prometheus",)):
    """The path of a program; the test is skipped, or fails, if there is none.

    Args:
        where: ``PATH``, or the environment variable that names a folder.
        names: what it may be called.
    """
    folder = os.environ.get(where)
    for name in names:
        if found := folder and shutil.which(name, path=folder):
            return found
    missing = f"no {names[0]} in {where}={folder}" if folder else f"{where} is not set"
    if folder and os.environ.get("REQUIRE_PROMETHEUS") == "1":
        pytest.fail(missing)
    pytest.skip(missing)


class Prometheus:
    """At work in a folder of its own; started by `running`."""

    def __init__(self, program, url):
        self.program = program
        self._url = url

    async def api(self, path, **parameters):
        """The document of an answer, in which nothing must be objected to."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self._url}/api/v1/{path}", params=parameters) as answer,
        ):
            document = await answer.json()
        assert document["status"] == "success", document
        assert not document.get("warnings"), document
        assert not document.get("infos"), document
        return document["data"]

    async def ask(self, query, *labels, at=None):
        """The values of a query's series, by the values of some labels; now, or at a time."""
        found = {}
        time = {} if at is None else {"time": at}
        for series in (await self.api("query", query=query, **time))["result"]:
            key = tuple(series["metric"].get(label) for label in labels)
            assert key not in found, (query, key)
            found[key] = float(series["value"][1])
        return found

    async def one(self, query, at=None):
        """The value of the only series of a query; None: there is none."""
        return (await self.ask(query, at=at)).get(())

    async def until(self, query):
        """Wait until a query has an answer."""
        await eventually(lambda: self.ask(query))

    async def own(self, name):
        """One of its own metrics."""
        async with aiohttp.ClientSession() as session, session.get(f"{self._url}/metrics") as got:
            (value,) = values(samples(await got.text()), name)
            return value


async def running(start, folder, where, address, *flags, **config):
    """Start it, with ``config`` in addition to the scrape, and wait until it answers."""
    (folder / "prometheus.yml").write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "scrape_configs": [
                    {"job_name": "modelarts", "static_configs": [{"targets": [address]}]}
                ],
                **config,
            }
        )
    )
    port = free_port()
    program = start(
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        "--log.level=warn",
        f"--web.listen-address=127.0.0.1:{port}",
        *flags,
        command=guarded(binary(where)),
    )
    prometheus = Prometheus(program, f"http://127.0.0.1:{port}")

    async def answers():
        try:
            return await prometheus.api("status/buildinfo")
        except (aiohttp.ClientError, ValueError):
            assert program.process.poll() is None, program.written
            return None

    await eventually(answers)
    return prometheus
